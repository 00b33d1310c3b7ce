/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looks into a process that waits in an intercepted system call: its memory, descriptors and paths.
 */
#include "launch/tracee.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Reads never cross a multiple of this in one go, so that an unmapped next page does not hurt. */
#define TRACEE_STEP 4096
/* How often a path is looked up again while others rename. */
#define TRACEE_RETRIES 16

static ssize_t tracee_read_step(pid_t tid, uint64_t addr, void *buf, size_t len)
{
	struct iovec local = { .iov_base = buf };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)addr };
	ssize_t n;

	len = min_of(len, (size_t)(TRACEE_STEP - addr % TRACEE_STEP));
	local.iov_len = remote.iov_len = len;
	n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
	if (n < 0)
		return -errno;
	return n ? n : -EFAULT;
}

int tracee_read(pid_t tid, uint64_t addr, void *buf, size_t len)
{
	char *to = buf;

	while (len) {
		ssize_t n = tracee_read_step(tid, addr, to, len);

		if (n < 0)
			return (int)n;
		to += n;
		addr += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int tracee_read_string(pid_t tid, uint64_t addr, char *buf, size_t cap)
{
	size_t have = 0;

	while (have < cap) {
		ssize_t n = tracee_read_step(tid, addr + have, buf + have, cap - have);
		const char *end;

		if (n < 0)
			return (int)n;
		end = memchr(buf + have, '\0', (size_t)n);
		if (end)
			return (int)(end - buf);
		have += (size_t)n;
	}
	return -ENAMETOOLONG;
}

int tracee_socket_inode(pid_t tid, int fd, ino_t *ret_ino)
{
	char path[64], link[64];
	unsigned long long ino;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)tid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return errno == ENOENT ? -EBADF : -errno;
	link[n] = '\0';
	if (sscanf(link, "socket:[%llu]", &ino) != 1)
		return -ENOTSOCK;
	*ret_ino = (ino_t)ino;
	return 0;
}

pid_t tracee_process(pid_t tid)
{
	char path[64], line[256];
	int pid = -ESRCH;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	status = fopen(path, "re");
	if (!status)
		return -errno;
	while (pid < 0 && fgets(line, sizeof(line), status))
		(void)sscanf(line, "Tgid: %d", &pid);
	fclose(status);
	return pid;
}

int tracee_take_fd(pid_t pid, int fd)
{
	autoclose int process = (int)syscall(SYS_pidfd_open, pid, 0);
	int taken;

	if (process < 0)
		return -errno;
	taken = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
	return taken < 0 ? -errno : taken;
}

static int open_resolved(int dir, const char *path, uint64_t resolve)
{
	const struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = resolve };
	int fd;

	for (int i = 0; i < TRACEE_RETRIES; i++) {
		fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
		/* EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether we came out of the root. */
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd < 0 ? -errno : fd;
}

static int open_link(pid_t tid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)tid, name);
	fd = open(path, O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int read_link(pid_t tid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)tid, name);
	n = readlink(path, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return (int)n;
}

/* The working directory's path from the thread's root, and @path behind it. */
static int join_cwd(pid_t tid, const char *path, char *buf, size_t size)
{
	char root[PATH_MAX], cwd[PATH_MAX];
	int len = read_link(tid, "root", root, sizeof(root)), n;
	int err = len < 0 ? len : read_link(tid, "cwd", cwd, sizeof(cwd));

	if (err < 0)
		return err;
	if (!strcmp(root, "/"))
		len = 0;
	if (strncmp(cwd, root, (size_t)len) || (cwd[len] && cwd[len] != '/'))
		return -EXDEV;
	n = snprintf(buf, size, "%s/%s", cwd + len, path);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int open_from_root(pid_t tid, const char *path)
{
	autoclose int root = open_link(tid, "root");

	return root < 0 ? root : open_resolved(root, path, RESOLVE_IN_ROOT);
}

int tracee_open_path(pid_t tid, const char *path)
{
	char full[2 * PATH_MAX], name[32], rest;
	autoclose int cwd = -1;
	int fd, err;

	/* fusermount3's way to name a file that it has opened; "self" would be us. */
	if (sscanf(path, "/proc/self/fd/%d%c", &fd, &rest) == 1) {
		snprintf(name, sizeof(name), "fd/%d", fd);
		return open_link(tid, name);
	}
	if (path[0] == '/')
		return open_from_root(tid, path);
	cwd = open_link(tid, "cwd");
	if (cwd < 0)
		return cwd;
	fd = open_resolved(cwd, path, RESOLVE_NO_SYMLINKS);
	if (fd != -ELOOP)
		return fd;
	err = join_cwd(tid, path, full, sizeof(full));
	return err ? err : open_from_root(tid, full);
}

int tracee_device(int fd, dev_t *ret_dev)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &stx) < 0)
		return -errno;
	*ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	return 0;
}

int tracee_place(pid_t tid, const char *path, dev_t *ret_dev, ino_t *ret_ino)
{
	autoclose int fd = tracee_open_path(tid, path);
	struct statx stx;

	if (fd < 0)
		return fd;
	if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_INO, &stx) <
	    0)
		return -errno;
	*ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	*ret_ino = (ino_t)stx.stx_ino;
	return 0;
}

int tracee_identify(pid_t tid, struct tracee_identity *ret_identity)
{
	unsigned int euid = 0, fsuid = 0, fsgid = 0;
	unsigned long long caps = 0;
	char path[64], line[256];
	int found = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	status = fopen(path, "re");
	if (!status)
		return -errno;
	while (fgets(line, sizeof(line), status)) {
		found += sscanf(line, "Uid: %*u %u %*u %u", &euid, &fsuid) == 2;
		found += sscanf(line, "Gid: %*u %*u %*u %u", &fsgid) == 1;
		found += sscanf(line, "CapEff: %llx", &caps) == 1;
	}
	fclose(status);
	if (found != 3)
		return -ESRCH;
	*ret_identity = (struct tracee_identity){
		.euid = euid,
		.fsuid = fsuid,
		.fsgid = fsgid,
		.may_mount = caps >> CAP_SYS_ADMIN & 1,
	};
	return 0;
}
