/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A /dev/fuse descriptor whose file system was unmounted: reading it gives ENODEV.
 */
#include "launch/deadfuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launch/fdpass.h"
#include "launch/namespace.h"

static int child_make(void)
{
	char options[96];
	int fd, err = namespace_unshare(true);

	if (err)
		return err;
	/* The namespace that opens it must be the one that mounts it. */
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fd,
		 geteuid(), getegid());
	if (mount("fusewire", "/proc", "fuse", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
		return -errno;
	/* Nothing has asked the file system anything: the unmount does not wait for an answer. */
	return umount2("/proc", MNT_DETACH) < 0 ? -errno : fd;
}

static bool is_dead(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

int deadfuse_open(void)
{
	autoclose int fd = -1;
	autoclose int ours = -1;
	int pair[2], error = -ECHILD, n;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	pid = fork();
	if (pid == 0) {
		int made = child_make();

		_exit(fdpass_send(pair[1], made < 0 ? made : 0, made) < 0);
	}
	close(pair[1]);
	if (pid < 0)
		return -EAGAIN;
	n = fdpass_receive(ours, &error, &fd);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	if (n <= 0 || error)
		return n < 0 ? n : error;
	if (fd < 0 || !is_dead(fd))
		return -EIO;
	return TAKE_FD(fd);
}
