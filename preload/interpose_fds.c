/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls by which a descriptor comes to stand for /dev/fuse, or ceases to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuse_dev.h"
#include "fuse_pipe.h"
#include "launch/mount_options.h"
#include "marks.h"
#include "real.h"

/* What fortified programs call. The C library has no header for them. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);

static bool is_fuse(const char *path, int flags)
{
	return fuse_dev_way() != FUSE_DEV_OFF && (flags & O_ACCMODE) == O_RDWR && path &&
	       strcmp(path, "/dev/fuse") == 0;
}

static int opened(int fd)
{
	if (fd >= 0)
		mark_if_ours(fd, fuse_dev_owner());
	return fd;
}

static int open_alone(int flags)
{
	int fd = alone_open(flags);

	if (fd >= 0)
		return fd;
	errno = -fd;
	return -1;
}

/* One definition of a member of open(2)'s family; @call passes it on. */
#define OPEN_BODY(path, flags, call)                                         \
	({                                                                   \
		const bool _fuse = is_fuse(path, flags);                     \
		_fuse &&fuse_dev_way() == FUSE_DEV_ALONE ? open_alone(flags) \
		: _fuse					 ? opened(call)      \
							 : (call);                                            \
	})

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

/* The same for a function with "..." behind @flags, whose mode @call knows as "mode". */
#define OPEN_WITH_MODE(path, flags, call)     \
	({                                    \
		va_list _ap;                  \
		mode_t mode;                  \
                                              \
		va_start(_ap, flags);         \
		mode = mode_of(flags, _ap);   \
		va_end(_ap);                  \
		OPEN_BODY(path, flags, call); \
	})

interposed int open(const char *path, int flags, ...)
{
	return OPEN_WITH_MODE(path, flags, REAL(open)(path, flags, mode));
}

interposed int open64(const char *path, int flags, ...)
{
	return OPEN_WITH_MODE(path, flags, REAL(open64)(path, flags, mode));
}

interposed int openat(int dir, const char *path, int flags, ...)
{
	return OPEN_WITH_MODE(path, flags, REAL(openat)(dir, path, flags, mode));
}

interposed int openat64(int dir, const char *path, int flags, ...)
{
	return OPEN_WITH_MODE(path, flags, REAL(openat64)(dir, path, flags, mode));
}

interposed int __open_2(const char *path, int flags)
{
	return OPEN_BODY(path, flags, REAL(__open_2)(path, flags));
}

interposed int __open64_2(const char *path, int flags)
{
	return OPEN_BODY(path, flags, REAL(__open64_2)(path, flags));
}

interposed int __openat_2(int dir, const char *path, int flags)
{
	return OPEN_BODY(path, flags, REAL(__openat_2)(dir, path, flags));
}

interposed int __openat64_2(int dir, const char *path, int flags)
{
	return OPEN_BODY(path, flags, REAL(__openat64_2)(dir, path, flags));
}

/* fusermount passes the descriptor that it opened and mounted to the daemon. */
interposed ssize_t recvmsg(int sock, struct msghdr *msg, int flags)
{
	ssize_t n = REAL(recvmsg)(sock, msg, flags);

	if (n < 0 || fuse_dev_way() != FUSE_DEV_RUN || !msg->msg_control || !msg->msg_controllen)
		return n;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		unsigned int nr;
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    c->cmsg_len < CMSG_LEN(0))
			continue;
		nr = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned int i = 0; i < nr; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			mark_if_ours(fd, fuse_dev_owner());
		}
	}
	return n;
}

/* Before the call: afterwards the number may be another thread's. */
static void closing(int fd)
{
	if (mark_of(fd) && unmark(fd))
		fuse_dev_closed();
}

static void closing_range(unsigned int first, unsigned int last)
{
	for (unsigned int fd = first; fd <= last && fd < MARKS_MAX; fd++)
		closing((int)fd);
}

interposed int close(int fd)
{
	closing(fd);
	return REAL(close)(fd);
}

/*
 * With CLOSE_RANGE_CLOEXEC nothing is closed, and with CLOSE_RANGE_UNSHARE nothing of the other threads'. A kernel, or a filter, that
 * refuses the call says so where no descriptor is, too.
 */
interposed int close_range(unsigned int first, unsigned int last, int flags)
{
	if (!flags && first <= last && REAL(close_range)(UINT_MAX, UINT_MAX, 0) == 0)
		closing_range(first, last);
	return REAL(close_range)(first, last, flags);
}

interposed void closefrom(int first)
{
	closing_range(first < 0 ? 0 : (unsigned int)first, UINT_MAX);
	REAL(closefrom)(first);
}

static void copied(int from, int to)
{
	if (mark_copy(from, to))
		fuse_dev_closed();
}

interposed int dup(int fd)
{
	int to = REAL(dup)(fd);

	if (to >= 0 && mark_of(fd))
		copied(fd, to);
	return to;
}

interposed int dup2(int fd, int to)
{
	int ret = REAL(dup2)(fd, to);

	if (ret >= 0 && fd != to && (mark_of(fd) || mark_of(to)))
		copied(fd, to);
	return ret;
}

interposed int dup3(int fd, int to, int flags)
{
	int ret = REAL(dup3)(fd, to, flags);

	if (ret >= 0 && (mark_of(fd) || mark_of(to)))
		copied(fd, to);
	return ret;
}

interposed int pipe(int fds[2])
{
	int ret = REAL(pipe)(fds);

	if (ret == 0 && fuse_dev_way() != FUSE_DEV_OFF)
		fuse_pipe_made(fds, __builtin_return_address(0));
	return ret;
}

interposed int pipe2(int fds[2], int flags)
{
	int ret = REAL(pipe2)(fds, flags);

	if (ret == 0 && fuse_dev_way() != FUSE_DEV_OFF)
		fuse_pipe_made(fds, __builtin_return_address(0));
	return ret;
}

static int after_fcntl(int fd, int cmd, void *arg, int ret)
{
	if (ret < 0 || !mark_of(fd))
		return ret;
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		copied(fd, ret);
	else if (cmd == F_SETFL && marked(fd))
		mark_set_nonblock(fd, (uintptr_t)arg & O_NONBLOCK);
	return ret;
}

/* Of a pipe of libfuse's. Return: -ENOTSUP: it is the kernel's to do. */
static int pipe_fcntl(int fd, int cmd, const void *arg)
{
	if (cmd == F_SETPIPE_SZ)
		return fuse_pipe_resize(fd, (uintptr_t)arg & UINT32_MAX);
	return cmd == F_GETPIPE_SZ ? fuse_pipe_size(fd) : -ENOTSUP;
}

/* Is @ret the result? Then it is as libc has it. */
static bool is_result(int *ret)
{
	if (*ret == -ENOTSUP)
		return false;
	if (*ret < 0) {
		errno = -*ret;
		*ret = -1;
	}
	return true;
}

interposed int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (unlikely(mark_of(fd) & MARK_PIPE)) {
		ret = pipe_fcntl(fd, cmd, arg);
		if (is_result(&ret))
			return ret;
	}
	return after_fcntl(fd, cmd, arg, REAL(fcntl)(fd, cmd, arg));
}

interposed int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (unlikely(mark_of(fd) & MARK_PIPE)) {
		ret = pipe_fcntl(fd, cmd, arg);
		if (is_result(&ret))
			return ret;
	}
	return after_fcntl(fd, cmd, arg, REAL(fcntl64)(fd, cmd, arg));
}

interposed int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	/* All descriptors of ours are of one file system: a clone is one already. */
	if (marked(fd) && request == FUSE_DEV_IOC_CLONE && fuse_dev_way() == FUSE_DEV_ALONE)
		return 0;
	if (unlikely(mark_of(fd) & MARK_PIPE) && request == FIONREAD) {
		ret = fuse_pipe_bytes(fd);
		if (ret >= 0)
			*(int *)arg = ret;
		ret = min_of(ret, 0);
		if (is_result(&ret))
			return ret;
	}
	ret = REAL(ioctl)(fd, request, arg);
	if (ret == 0 && marked(fd) && request == FIONBIO)
		mark_set_nonblock(fd, *(int *)arg);
	return ret;
}

interposed int mount(const char *source, const char *target, const char *type, unsigned long flags,
		     const void *data)
{
	int err;

	if (fuse_dev_way() != FUSE_DEV_ALONE || !type || !mount_options_is_fuse(type) ||
	    (flags & MS_REMOUNT))
		return REAL(mount)(source, target, type, flags, data);
	err = alone_mount(source, target, type, flags, data);
	if (!err)
		return 0;
	errno = -err;
	return -1;
}

interposed int umount2(const char *target, int flags)
{
	if (fuse_dev_way() == FUSE_DEV_ALONE && target && alone_umount(target))
		return 0;
	return REAL(umount2)(target, flags);
}

interposed int umount(const char *target)
{
	if (fuse_dev_way() == FUSE_DEV_ALONE && target && alone_umount(target))
		return 0;
	return REAL(umount)(target);
}
