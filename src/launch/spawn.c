/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a process under the filter.
 *
 * The child reports over a socket that closes at exec: first the notification descriptor or why there is none, then, only
 * if exec fails, why. End of file means that the program runs. Loading it needs no answer of the supervisor:
 * nothing opens a file for writing before main().
 */
#include "launch/spawn.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "launch/filter.h"

union spawn_control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void child_report(int sock, int error, int fd)
{
	union spawn_control control = { { 0 } };
	struct iovec iov = { .iov_base = &error, .iov_len = sizeof(error) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		_exit(127);
}

/* Between fork and exec in a process that may have threads: async-signal-safe calls only. */
static void __attribute__((noreturn)) child_run(char *const *argv, int sock)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	sigset_t none;
	int fd;

	sigemptyset(&none);
	sigaction(SIGPIPE, &sa, NULL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	fd = filter_install();
	child_report(sock, fd < 0 ? fd : 0, fd);
	if (fd < 0)
		_exit(127);
	close(fd);
	execvp(argv[0], argv);
	child_report(sock, -errno, -1);
	_exit(127);
}

/* Return: 1 with a report, 0 at end of file, negative errno. */
static int parent_receive(int sock, int *ret_error, int *ret_fd)
{
	union spawn_control control = { { 0 } };
	int error = 0;
	struct iovec iov = { .iov_base = &error, .iov_len = sizeof(error) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!n)
		return 0;
	*ret_error = error;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
	return 1;
}

static int parent_wait(int sock, int *ret_fd, const char **ret_why)
{
	int error = 0;
	int unused = -1;
	int n;

	*ret_why =
		"cannot intercept system calls (seccomp user notification, Linux 5.14, "
		"not nested)";
	n = parent_receive(sock, &error, ret_fd);
	if (n <= 0)
		return n < 0 ? n : -ECHILD;
	if (error || *ret_fd < 0)
		return error < 0 ? error : -EIO;
	*ret_why = "cannot execute";
	n = parent_receive(sock, &error, &unused);
	if (n <= 0)
		return n;
	return error < 0 ? error : -EIO;
}

int spawn_filtered(char *const *argv, pid_t *ret_pid, int *ret_notify_fd, const char **ret_why)
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
		child_run(argv, pair[1]);
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
