/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that read, write and poll: served from here for /dev/fuse, passed on for everything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse_dev.h"
#include "marks.h"
#include "real.h"

/* poll(2) is declared to write only what it is given, so the compiler believes that it was not filled before. */
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

/* What fortified programs call. The C library has no header for them. */
ssize_t __read_chk(int fd, void *buf, size_t len, size_t buf_len);
int __poll_chk(struct pollfd *fds, nfds_t nr, int timeout, size_t fds_len);
int __ppoll_chk(struct pollfd *fds, nfds_t nr, const struct timespec *timeout,
		const sigset_t *sigmask, size_t fds_len);

static ssize_t result(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = (int)-n;
	return -1;
}

static ssize_t read_one(int fd, void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len };

	return result(fuse_dev_read(fd, &iov, 1));
}

interposed ssize_t read(int fd, void *buf, size_t len)
{
	return marked(fd) ? read_one(fd, buf, len) : REAL(read)(fd, buf, len);
}

interposed ssize_t __read_chk(int fd, void *buf, size_t len, size_t buf_len)
{
	return marked(fd) && len <= buf_len ? read_one(fd, buf, len)
					    : REAL(__read_chk)(fd, buf, len, buf_len);
}

interposed ssize_t readv(int fd, const struct iovec *iov, int nr)
{
	return marked(fd) && nr > 0 ? result(fuse_dev_read(fd, iov, (unsigned int)nr))
				    : REAL(readv)(fd, iov, nr);
}

interposed ssize_t write(int fd, const void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };

	return marked(fd) ? result(fuse_dev_write(fd, &iov, 1)) : REAL(write)(fd, buf, len);
}

interposed ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	return marked(fd) && nr > 0 ? result(fuse_dev_write(fd, iov, (unsigned int)nr))
				    : REAL(writev)(fd, iov, nr);
}

interposed ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len,
			  unsigned int flags)
{
	if (marked(out) && !off_in)
		return result(fuse_dev_write_pipe(out, in, len, flags));
	if (marked(in) && !off_out)
		return result(fuse_dev_read_pipe(in, out, len));
	return REAL(splice)(in, off_in, out, off_out, len, flags);
}

static void note_polls(const struct pollfd *fds, nfds_t nr)
{
	if (!READ_ONCE(marks_nr))
		return;
	for (nfds_t i = 0; i < nr; i++) {
		if (marked(fds[i].fd))
			fuse_dev_poll(fds[i].fd);
	}
}

interposed int poll(struct pollfd *fds, nfds_t nr, int timeout)
{
	note_polls(fds, nr);
	return REAL(poll)(fds, nr, timeout);
}

interposed int __poll_chk(struct pollfd *fds, nfds_t nr, int timeout, size_t fds_len)
{
	if (nr <= fds_len / sizeof(*fds))
		note_polls(fds, nr);
	return REAL(__poll_chk)(fds, nr, timeout, fds_len);
}

interposed int ppoll(struct pollfd *fds, nfds_t nr, const struct timespec *timeout,
		     const sigset_t *sigmask)
{
	note_polls(fds, nr);
	return REAL(ppoll)(fds, nr, timeout, sigmask);
}

interposed int __ppoll_chk(struct pollfd *fds, nfds_t nr, const struct timespec *timeout,
			   const sigset_t *sigmask, size_t fds_len)
{
	if (nr <= fds_len / sizeof(*fds))
		note_polls(fds, nr);
	return REAL(__ppoll_chk)(fds, nr, timeout, sigmask, fds_len);
}

/* Only those below FD_SETSIZE can be in a set; what lies behind the set is not ours to look at. */
static void note_select(int nr, const fd_set *set)
{
	if (!READ_ONCE(marks_nr) || !set)
		return;
	for (int fd = 0; fd < nr && fd < FD_SETSIZE; fd++) {
		if (marked(fd) && FD_ISSET(fd, set))
			fuse_dev_poll(fd);
	}
}

interposed int select(int nr, fd_set *reads, fd_set *writes, fd_set *excepts,
		      struct timeval *timeout)
{
	note_select(nr, reads);
	return REAL(select)(nr, reads, writes, excepts, timeout);
}

interposed int pselect(int nr, fd_set *reads, fd_set *writes, fd_set *excepts,
		       const struct timespec *timeout, const sigset_t *sigmask)
{
	note_select(nr, reads);
	return REAL(pselect)(nr, reads, writes, excepts, timeout, sigmask);
}

interposed int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	if (marked(fd) && op != EPOLL_CTL_DEL)
		fuse_dev_poll(fd);
	return REAL(epoll_ctl)(epoll_fd, op, fd, event);
}
