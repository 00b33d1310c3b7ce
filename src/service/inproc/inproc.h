/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service whose requests the threads of a daemon in this very process take: its read(2) is served from the
 * virtqueues, its write(2) ends a request.
 */
#ifndef FUSEWIRE_SERVICE_INPROC_INPROC_H
#define FUSEWIRE_SERVICE_INPROC_INPROC_H

#include <pthread.h>

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
 * READ data go from @iov straight into driver memory. Context: any thread of the daemon; does not wait. No cancellation point, as all that
 * follow but inproc_loan_write().
 * Return: bytes; -EINVAL: malformed; -ENOENT: nothing is owed for this unique.
 */
ssize_t inproc_write(struct service *svc, const struct iovec *iov, unsigned int nr);
/**
 * inproc_write_pipe() - as inproc_write(), from a pipe: what a daemon does by splice(2).
 * @pipe_fd: holds the whole reply
 * @len: bytes of it
 */
ssize_t inproc_write_pipe(struct service *svc, int pipe_fd, size_t len);
/**
 * struct inproc_loan - the data of a WRITE that a daemon reads by inproc_read_loan(), left in driver memory until it wants them.
 * @lock: of all that follows
 * @req: whose payload it is; NULL: in @saved
 * @saved: a copy, since the request has ended; NULL when there is nothing, or was no memory
 * @bytes: of all
 * @done: of them, how many the daemon has had
 *
 * It is a queue of bytes. Must not be freed as long as the service lives: requests point to it.
 */
struct inproc_loan {
	pthread_mutex_t lock;
	struct request *req;
	char *saved;
	size_t bytes;
	size_t done;
};

/** INPROC_LOAN_MIN - less data than this are copied at once. */
#define INPROC_LOAN_MIN 4096u

/**
 * inproc_read_loan() - as inproc_read(), but data of a WRITE, of at least INPROC_LOAN_MIN, are not copied into @iov.
 * @loan: empty before; has the data, @loan->bytes of them, afterwards: as many bytes are missing at the end of @iov
 */
ssize_t inproc_read_loan(struct service *svc, const struct iovec *iov, unsigned int nr,
			 bool nonblock, struct inproc_loan *loan);
/**
 * inproc_loan_write() - the next bytes of a loan into a file.
 * @off: -1 for where the file stands
 *
 * Context: waits as long as the file does. Return: bytes; negative errno.
 */
ssize_t inproc_loan_write(struct inproc_loan *loan, int fd, off_t off, size_t len);
/** inproc_loan_read() - the next bytes of a loan into memory. Return: @len; -EIO. */
ssize_t inproc_loan_read(struct inproc_loan *loan, void *buf, size_t len);
/** inproc_loan_end() - forget the rest. */
void inproc_loan_end(struct inproc_loan *loan);

/**
 * inproc_fill() - READ data from a file straight to where the driver wants them, before the reply.
 * @unique: the READ
 * @fd: any file that can be read at an offset
 * @len: bytes from @off on
 *
 * Takes only what is there without waiting (RWF_NOWAIT), as long as the driver's memory must not be taken away. The reply,
 * inproc_write_filled(), may say less than came; any other reply may come instead.
 * Return: bytes, which may be fewer; -EAGAIN: none; -EOPNOTSUPP and other negative errno: not for this request or file.
 */
ssize_t inproc_fill(struct service *svc, uint64_t unique, int fd, off_t off, size_t len);
/** inproc_fill_read() - get bytes of inproc_fill() back. Return: @len; -EIO: the driver took its memory back. */
ssize_t inproc_fill_read(struct service *svc, uint64_t unique, void *buf, size_t len);
/** inproc_write_filled() - as inproc_write() of @hdr and the bytes of inproc_fill(). */
ssize_t inproc_write_filled(struct service *svc, const struct fuse_out_header *hdr);

/** inproc_poll_begin() - from now on somebody polls: config.readable is told of every change. */
void inproc_poll_begin(struct service *svc);

/** inproc_destroy() - send DESTROY to the daemon, after what waits already. */
void inproc_destroy(struct service *svc);
/** inproc_unmount() - whoever reads gets -ENODEV from now on. */
void inproc_unmount(struct service *svc);

#endif
