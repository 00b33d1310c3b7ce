/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's calls on its /dev/fuse become. All return what the call returns, with a negative errno in place of -1.
 */
#ifndef FUSEWIRE_PRELOAD_FUSE_DEV_H
#define FUSEWIRE_PRELOAD_FUSE_DEV_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"

struct inproc_loan;
struct service;

/** enum fuse_dev_way - who stands behind the descriptors. */
enum fuse_dev_way {
	FUSE_DEV_OFF, /* nobody: every call goes to libc */
	FUSE_DEV_RUN, /* fusewire run, which gave out the descriptors (run.c) */
	FUSE_DEV_ALONE, /* this library (alone.c) */
};

/** fuse_dev_way() - fixed when the program starts, by its environment. */
enum fuse_dev_way fuse_dev_way(void);
/** fuse_dev_owner() - with FUSE_DEV_RUN: its process id. */
int fuse_dev_owner(void);

/** fuse_dev_read() - readv(2). A cancellation point. */
ssize_t fuse_dev_read(int fd, const struct iovec *iov, unsigned int nr);
/** fuse_dev_write() - writev(2). */
ssize_t fuse_dev_write(int fd, const struct iovec *iov, unsigned int nr);
/** fuse_dev_write_pipe() - splice(2) into @fd. */
ssize_t fuse_dev_write_pipe(int fd, int pipe_fd, size_t len, unsigned int flags);
/** fuse_dev_read_pipe() - splice(2) out of @fd. */
ssize_t fuse_dev_read_pipe(int fd, int pipe_fd, size_t len);
/**
 * fuse_dev_service() - what serves the daemon: inproc.
 * Return: NULL before it does, and in the channel
 */
struct service *fuse_dev_service(void);
/** fuse_dev_read_loan() - inproc_read_loan() of @svc, fuse_dev_service(), in one segment. A cancellation point. */
ssize_t fuse_dev_read_loan(struct service *svc, int fd, const struct iovec *iov,
			   struct inproc_loan *loan);
/** fuse_dev_wait_init() - wait until INIT was answered, if @fd is one that waits. A cancellation point. */
void fuse_dev_wait_init(int fd);
/** fuse_dev_poll() - the daemon is about to poll @fd, in whatever way. */
void fuse_dev_poll(int fd);
/** fuse_dev_closed() - the last descriptor is about to be closed. */
void fuse_dev_closed(void);

/**
 * fuse_dev_keep_buffers() - the daemon serves from now on: let its allocator keep what is freed after each request.
 *
 * libfuse allocates a buffer for the data of each READ that it does not splice. glibc gives a megabyte back to the kernel as soon as
 * it is freed, and 256 page faults per request cost more than all copying. Costs a few buffers of memory; the user's own
 * settings (MALLOC_..., GLIBC_TUNABLES) stand.
 */
void fuse_dev_keep_buffers(void);

/* run.c */
/** run_read() - fuse_dev_read() with FUSE_DEV_RUN. */
ssize_t run_read(int fd, const struct iovec *iov, unsigned int nr, bool nonblock);
/** run_write() - fuse_dev_write() with FUSE_DEV_RUN. */
ssize_t run_write(int fd, const struct iovec *iov, unsigned int nr);
/** run_write_pipe() - fuse_dev_write_pipe() with FUSE_DEV_RUN. Return: also -ENOTSUP: not served from here, let libc do it. */
ssize_t run_write_pipe(int pipe_fd, size_t len);
/** run_wait_init() - fuse_dev_wait_init() with FUSE_DEV_RUN. */
void run_wait_init(int fd);
/** run_service() - fuse_dev_service() with FUSE_DEV_RUN. */
struct service *run_service(void);
/** run_poll() - fuse_dev_poll() with FUSE_DEV_RUN. */
void run_poll(int fd);
/** run_closed() - fuse_dev_closed() with FUSE_DEV_RUN. */
void run_closed(void);

/* alone.c */
/** alone_open() - stands for open(2) of /dev/fuse. */
int alone_open(int flags);
/** alone_mount() - stands for mount(2) of a FUSE type. */
int alone_mount(const char *source, const char *target, const char *type, unsigned long flags,
		const char *data);
/** alone_umount() - is it our mount point? */
bool alone_umount(const char *target);
/** alone_read() - fuse_dev_read() with FUSE_DEV_ALONE. */
ssize_t alone_read(const struct iovec *iov, unsigned int nr, bool nonblock);
/** alone_write() - fuse_dev_write() with FUSE_DEV_ALONE. */
ssize_t alone_write(const struct iovec *iov, unsigned int nr);
/** alone_write_pipe() - fuse_dev_write_pipe() with FUSE_DEV_ALONE. */
ssize_t alone_write_pipe(int pipe_fd, size_t len);
/** alone_wait_init() - fuse_dev_wait_init() with FUSE_DEV_ALONE. */
void alone_wait_init(void);
/** alone_service() - fuse_dev_service() with FUSE_DEV_ALONE. */
struct service *alone_service(void);
/** alone_poll() - fuse_dev_poll() with FUSE_DEV_ALONE. */
void alone_poll(void);
/** alone_closed() - fuse_dev_closed() with FUSE_DEV_ALONE. */
void alone_closed(void);

#endif
