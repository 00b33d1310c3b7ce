/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service whose requests the threads of a daemon in this very process take: its read(2) is served from the
 * virtqueues, its write(2) ends a request.
 */
#ifndef FUSEWIRE_SERVICE_INPROC_INPROC_H
#define FUSEWIRE_SERVICE_INPROC_INPROC_H

#include "device/device.h"

/**
 * struct inproc_config - what is known of the daemon.
 * @init_out: its INIT reply, cleaned (fuse_init_accept())
 * @max_read: bytes that a READ may ask for; 0 for no limit
 * @read_only: refuse what would change anything with -EROFS, as the VFS does on a mount with MS_RDONLY
 * @readable: tell pollers whether inproc_read() would return something; called under a lock, must not block. May be NULL
 * @destroyed: the daemon answered the DESTROY of inproc_destroy()
 * @ctx: for both
 */
struct inproc_config {
	struct fuse_init_out init_out;
	uint32_t max_read;
	bool read_only;
	void (*readable)(void *ctx, bool yes);
	void (*destroyed)(void *ctx);
	void *ctx;
};

/** inproc_new() - a service without a device. Starts a thread. Return: 0; -ENOMEM; negative errno. */
int must_check inproc_new(struct service **ret_svc, const struct inproc_config *config);
/** inproc_takeable() - for struct device_config.takeable. */
void inproc_takeable(struct service *svc);
/** inproc_set_device() - the device, before any inproc_read(). It was made with inproc_takeable(), and outlives the last call of this service. */
void inproc_set_device(struct service *svc, struct device *dev);

/**
 * inproc_read() - what a daemon gets from read(2) of /dev/fuse: one message.
 * @iov: buffer of @nr segments; one message must fit as a whole, as the kernel has it
 * @nonblock: do not wait
 *
 * Context: any thread of the daemon. A cancellation point. Return: bytes; -EAGAIN; -EINTR; -ENODEV: unmounted.
 */
ssize_t inproc_read(struct service *svc, const struct iovec *iov, unsigned int nr, bool nonblock);
/**
 * inproc_write() - what a daemon does by write(2) to /dev/fuse: one reply, or a notification.
 *
 * READ data go from @iov straight into driver memory. Context: any thread of the daemon; does not wait.
 * Return: bytes; -EINVAL: malformed; -ENOENT: nothing is owed for this unique.
 */
ssize_t inproc_write(struct service *svc, const struct iovec *iov, unsigned int nr);
/**
 * inproc_write_pipe() - as inproc_write(), from a pipe: what a daemon does by splice(2).
 * @pipe_fd: holds the whole reply
 * @len: bytes of it
 */
ssize_t inproc_write_pipe(struct service *svc, int pipe_fd, size_t len);
/** inproc_poll_begin() - from now on somebody polls: config.readable is told of every change. */
void inproc_poll_begin(struct service *svc);

/** inproc_destroy() - send DESTROY to the daemon, after what waits already. */
void inproc_destroy(struct service *svc);
/** inproc_unmount() - whoever reads gets -ENODEV from now on. */
void inproc_unmount(struct service *svc);

#endif
