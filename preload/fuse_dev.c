/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's calls on its /dev/fuse become: finds out who stands behind it, and dispatches.
 */
#include "fuse_dev.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "marks.h"
#include "real.h"
#include "service/inproc/inproc.h"
#include "worker/attach.h"

/* Bytes of the largest message to a daemon: 1 MiB of WRITE and what comes before it. */
#define MESSAGE_MAX ((1u << 20) + 4096)

static enum fuse_dev_way way = FUSE_DEV_OFF;
static int owner;

static void __attribute__((constructor)) fuse_dev_find_way(void)
{
	const char *pid = getenv(WORKER_ENV);

	if (pid) {
		owner = (int)strtol(pid, NULL, 10);
		way = FUSE_DEV_RUN;
		marks_scan(owner);
	} else if (getenv("FUSEWIRE_SOCKET")) {
		way = FUSE_DEV_ALONE;
	}
}

enum fuse_dev_way fuse_dev_way(void)
{
	return way;
}

int fuse_dev_owner(void)
{
	return owner;
}

void fuse_dev_keep_buffers(void)
{
	if (getenv("MALLOC_MMAP_THRESHOLD_") || getenv("MALLOC_TRIM_THRESHOLD_") ||
	    getenv("GLIBC_TUNABLES"))
		return;
	/* Without both, glibc would not adapt either any more. */
	if (!mallopt(M_MMAP_THRESHOLD, 4 * MESSAGE_MAX) ||
	    !mallopt(M_TRIM_THRESHOLD, 32 * MESSAGE_MAX))
		log_debug("the allocator keeps its ways");
}

ssize_t fuse_dev_read(int fd, const struct iovec *iov, unsigned int nr)
{
	const bool nonblock = READ_ONCE(marks[fd]) & MARK_NONBLOCK;

	return way == FUSE_DEV_ALONE ? alone_read(iov, nr, nonblock)
				     : run_read(fd, iov, nr, nonblock);
}

ssize_t fuse_dev_write(int fd, const struct iovec *iov, unsigned int nr)
{
	return way == FUSE_DEV_ALONE ? alone_write(iov, nr) : run_write(fd, iov, nr);
}

ssize_t fuse_dev_write_pipe(int fd, int pipe_fd, size_t len, unsigned int flags)
{
	ssize_t n = way == FUSE_DEV_ALONE ? alone_write_pipe(pipe_fd, len)
					  : run_write_pipe(pipe_fd, len);

	if (n == -ENOTSUP) {
		n = REAL(splice)(pipe_fd, NULL, fd, NULL, len, flags);
		n = n < 0 ? -errno : n;
	}
	return n;
}

struct service *fuse_dev_service(void)
{
	return way == FUSE_DEV_ALONE ? alone_service() : run_service();
}

ssize_t fuse_dev_read_loan(struct service *svc, int fd, const struct iovec *iov,
			   struct inproc_loan *loan)
{
	return inproc_read_loan(svc, iov, 1, mark_of(fd) & MARK_NONBLOCK, loan);
}

static ssize_t pipe_write_all(int pipe_fd, const char *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = REAL(write)(pipe_fd, buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return (ssize_t)len;
}

ssize_t fuse_dev_read_pipe(int fd, int pipe_fd, size_t len)
{
	struct iovec iov = { .iov_len = len < MESSAGE_MAX ? len : MESSAGE_MAX };
	ssize_t n;

	iov.iov_base = malloc(iov.iov_len);
	if (!iov.iov_base)
		return -ENOMEM;
	/* The daemon may cancel a thread that waits. */
	pthread_cleanup_push(free, iov.iov_base);
	n = fuse_dev_read(fd, &iov, 1);
	pthread_cleanup_pop(0);
	/* Who splices has made the pipe large enough for a message. */
	if (n > 0)
		n = pipe_write_all(pipe_fd, iov.iov_base, (size_t)n);
	free(iov.iov_base);
	return n;
}

void fuse_dev_wait_init(int fd)
{
	if (READ_ONCE(marks[fd]) & MARK_NONBLOCK)
		return;
	if (way == FUSE_DEV_ALONE)
		alone_wait_init();
	else
		run_wait_init(fd);
}

void fuse_dev_poll(int fd)
{
	if (way == FUSE_DEV_ALONE)
		alone_poll();
	else
		run_poll(fd);
}

void fuse_dev_closed(void)
{
	if (way == FUSE_DEV_ALONE)
		alone_closed();
	else
		run_closed();
}
