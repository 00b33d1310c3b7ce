/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looks into a process that waits in an intercepted system call: its memory, descriptors and paths.
 */
#include "launch/tracee.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Reads never cross a multiple of this in one go, so that an unmapped next page does not hurt. */
#define TRACEE_STEP 4096

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

int tracee_stat(pid_t tid, const char *path, struct stat *ret_st)
{
	char full[PATH_MAX + 64];
	struct stat st;
	int n;

	n = snprintf(full, sizeof(full), "/proc/%d/%s/%s", (int)tid,
		     path[0] == '/' ? "root" : "cwd", path);
	if (n < 0 || (size_t)n >= sizeof(full))
		return -ENAMETOOLONG;
	if (stat(full, &st) < 0)
		return -errno;
	*ret_st = st;
	return 0;
}
