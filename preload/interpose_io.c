/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that read, write and poll: served from here for /dev/fuse, passed on for everything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse_dev.h"
#include "fuse_pipe.h"
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

/* A call on a pipe of libfuse's. Return: it was ours to do, and *@ret is the result; else it is the kernel's. */
static bool is_result(ssize_t *ret)
{
	if (*ret == -ENOTSUP)
		return false;
	*ret = result(*ret);
	return true;
}

/* Return: as is_result(). */
static bool read_marked(int fd, const struct iovec *iov, int nr, ssize_t *ret)
{
	const uint8_t mark = mark_of(fd);

	if (likely(!mark) || nr <= 0)
		return false;
	*ret = mark & MARK_FUSE ? fuse_dev_read(fd, iov, (unsigned int)nr)
				: fuse_pipe_read(fd, iov, (unsigned int)nr);
	return is_result(ret);
}

static bool write_marked(int fd, const struct iovec *iov, int nr, ssize_t *ret)
{
	const uint8_t mark = mark_of(fd);

	if (likely(!mark) || nr <= 0)
		return false;
	*ret = mark & MARK_FUSE ? fuse_dev_write(fd, iov, (unsigned int)nr)
				: fuse_pipe_write(fd, iov, (unsigned int)nr);
	return is_result(ret);
}

interposed ssize_t read(int fd, void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len };
	ssize_t ret;

	return read_marked(fd, &iov, 1, &ret) ? ret : REAL(read)(fd, buf, len);
}

interposed ssize_t __read_chk(int fd, void *buf, size_t len, size_t buf_len)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len };
	ssize_t ret;

	return len <= buf_len && read_marked(fd, &iov, 1, &ret)
		       ? ret
		       : REAL(__read_chk)(fd, buf, len, buf_len);
}

interposed ssize_t readv(int fd, const struct iovec *iov, int nr)
{
	ssize_t ret;

	return read_marked(fd, iov, nr, &ret) ? ret : REAL(readv)(fd, iov, nr);
}

interposed ssize_t write(int fd, const void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
	ssize_t ret;

	return write_marked(fd, &iov, 1, &ret) ? ret : REAL(write)(fd, buf, len);
}

interposed ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	ssize_t ret;

	return write_marked(fd, iov, nr, &ret) ? ret : REAL(writev)(fd, iov, nr);
}

interposed ssize_t vmsplice(int fd, const struct iovec *iov, size_t nr, unsigned int flags)
{
	ssize_t ret;

	if (unlikely(mark_of(fd) & MARK_PIPE) && nr <= UIO_MAXIOV) {
		ret = fuse_pipe_vmsplice(fd, iov, (unsigned int)nr);
		if (is_result(&ret))
			return ret;
	}
	return REAL(vmsplice)(fd, iov, nr, flags);
}

/* One of both is a pipe of libfuse's. */
static ssize_t splice_pipe(int in, off64_t *off_in, int out, off64_t *off_out, size_t len)
{
	if (mark_of(out) & MARK_PIPE) {
		if (off_out)
			return -ESPIPE;
		return marked(in) ? fuse_pipe_receive(out, in, len)
				  : fuse_pipe_from_file(out, in, off_in, len);
	}
	if (off_in)
		return -ESPIPE;
	return marked(out) ? fuse_pipe_reply(in, out, len)
			   : fuse_pipe_to_file(in, out, off_out, len);
}

interposed ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len,
			  unsigned int flags)
{
	ssize_t ret;

	if (unlikely((mark_of(in) | mark_of(out)) & MARK_PIPE)) {
		ret = splice_pipe(in, off_in, out, off_out, len);
		if (is_result(&ret))
			return ret;
	}
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
