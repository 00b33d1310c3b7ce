/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small helpers of `fusewire vm`: messages, running a program to its end, removing a directory.
 */
#include "cli/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* More output than this means that we ran the wrong program. */
#define OUTPUT_MAX (1 << 20)

char *vm_asprintf(const char *fmt, ...)
{
	va_list args;
	char *text;
	int n;

	va_start(args, fmt);
	n = vasprintf(&text, fmt, args);
	va_end(args);
	if (n < 0) {
		cli_error("out of memory");
		exit(1);
	}
	return text;
}

void vm_stop_signals(sigset_t *ret_set)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa;

	sigemptyset(ret_set);
	for (size_t i = 0; i < array_size(signals); i++) {
		/* One that is ignored, as by nohup(1), would be seen once it is blocked. */
		if (sigaction(signals[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			sigaddset(ret_set, signals[i]);
	}
}

bool vm_is_stopped(void)
{
	sigset_t set, pending;

	vm_stop_signals(&set);
	sigpending(&pending);
	return sigandset(&set, &set, &pending) == 0 && !sigisemptyset(&set);
}

/* In the child. Never returns; errno of a failed exec goes to the parent through @error_fd. */
static void run_child(const char *const argv[], const char *cwd, int out_fd, int error_fd)
{
	autoclose int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;
	int saved;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 && dup2(out_fd, STDOUT_FILENO) >= 0 &&
	    (!cwd || chdir(cwd) == 0))
		execvp(argv[0], (char *const *)argv);
	saved = errno;
	if (write(error_fd, &saved, sizeof(saved)) < 0)
		_exit(126);
	_exit(127);
}

/* With the signals of @set blocked: what shall end us ends @pid; then it is pending again, for who blocked it before us. */
static int wait_for_child(pid_t pid, const sigset_t *set)
{
	int wstatus = 0, stop = 0;

	while (waitpid(pid, &wstatus, WNOHANG) == 0) {
		int sig = sigwaitinfo(set, NULL);

		if (sig <= 0 || sig == SIGCHLD)
			continue;
		stop = sig;
		kill(pid, sig);
	}
	if (stop)
		raise(stop);
	return wstatus;
}

static int run_program(const char *const argv[], const char *cwd, int out_fd, const sigset_t *set)
{
	int error[2] = { -1, -1 };
	int child_errno, wstatus;
	ssize_t n;
	pid_t pid;

	if (pipe2(error, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		child_errno = errno;
		close_fd(&error[0]);
		close_fd(&error[1]);
		return -child_errno;
	}
	if (pid == 0)
		run_child(argv, cwd, out_fd, error[1]);
	close_fd(&error[1]);
	n = read(error[0], &child_errno, sizeof(child_errno));
	close_fd(&error[0]);
	wstatus = wait_for_child(pid, set);
	if (n == (ssize_t)sizeof(child_errno))
		return -child_errno;
	return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : 128 + WTERMSIG(wstatus);
}

int vm_run_program(const char *const argv[], const char *cwd, int out_fd)
{
	sigset_t set, before;
	int rc;

	vm_stop_signals(&set);
	/* Who started us may have it ignored: then no child's end is told. */
	signal(SIGCHLD, SIG_DFL);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &before);
	rc = run_program(argv, cwd, out_fd, &set);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int vm_run_capture(const char *const argv[], char **ret_out)
{
	autoclose int fd = memfd_create("output", MFD_CLOEXEC);
	autofree char *text = NULL;
	off_t len;
	int rc;

	if (fd < 0)
		return -errno;
	rc = vm_run_program(argv, NULL, fd);
	if (rc < 0)
		return rc;
	len = lseek(fd, 0, SEEK_END);
	if (len < 0 || len > OUTPUT_MAX)
		return -EFBIG;
	text = malloc((size_t)len + 1);
	if (!text)
		return -ENOMEM;
	if (pread(fd, text, (size_t)len, 0) != (ssize_t)len)
		return -EIO;
	text[len] = '\0';
	*ret_out = TAKE_PTR(text);
	return rc;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	/* Best effort: what cannot be removed stays, and so does its parent. */
	(void)remove(path);
	return 0;
}

void vm_remove_tree(const char *path)
{
	(void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
