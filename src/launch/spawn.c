/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a process under the filter.
 *
 * The child reports over a socket that closes at exec: first whether it has its mounts, then the notification descriptor
 * or why there is none, then, only if exec fails, why. End of file means that the program runs. Loading it needs no answer of the supervisor:
 * nothing opens a file for writing before main().
 */
#include "launch/spawn.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launch/fdpass.h"
#include "launch/filter.h"
#include "launch/namespace.h"

/* Between fork and exec in a process that may have threads: async-signal-safe calls only. */
static void __attribute__((noreturn))
child_run(char *const *argv, enum spawn_mounts mounts, int sock)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	sigset_t none;
	int fd, err = 0;

	sigemptyset(&none);
	sigaction(SIGPIPE, &sa, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (mounts != SPAWN_MOUNTS_SHARED)
		err = namespace_unshare(mounts == SPAWN_MOUNTS_USER);
	if (fdpass_send(sock, err, -1) < 0 || err)
		_exit(127);
	fd = filter_install();
	if (fdpass_send(sock, fd < 0 ? fd : 0, fd) < 0 || fd < 0)
		_exit(127);
	close(fd);
	execvp(argv[0], argv);
	_exit(fdpass_send(sock, -errno, -1) < 0 ? 126 : 127);
}

static int parent_wait(int sock, int *ret_fd, const char **ret_why)
{
	int error = 0;
	int unused = -1;
	int n;

	*ret_why = "cannot give it mounts of its own";
	n = fdpass_receive(sock, &error, &unused);
	if (n <= 0 || error)
		return n < 0 ? n : error < 0 ? error : -ECHILD;
	*ret_why =
		"cannot intercept system calls (seccomp user notification, Linux 5.14, "
		"not nested)";
	n = fdpass_receive(sock, &error, ret_fd);
	if (n <= 0)
		return n < 0 ? n : -ECHILD;
	if (error || *ret_fd < 0)
		return error < 0 ? error : -EIO;
	*ret_why = "cannot execute";
	n = fdpass_receive(sock, &error, &unused);
	if (n <= 0)
		return n;
	return error < 0 ? error : -EIO;
}

int spawn_filtered(char *const *argv, enum spawn_mounts mounts, pid_t *ret_pid, int *ret_notify_fd,
		   const char **ret_why)
{
	autoclose int ours = -1;
	autoclose int fd = -1;
	int pair[2], err;
	pid_t pid;

	*ret_why = "cannot start a process";
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	pid = fork();
	if (pid == 0)
		child_run(argv, mounts, pair[1]);
	err = pid < 0 ? -errno : 0;
	close(pair[1]);
	if (err)
		return err;
	err = parent_wait(ours, &fd, ret_why);
	if (err) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
		return err;
	}
	*ret_pid = pid;
	*ret_notify_fd = TAKE_FD(fd);
	return 0;
}
