/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire check: a back-end that it starts itself, and starts again when that has ended.
 */
#include "cli/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/cli.h"

#define START_MS 10000
#define STOP_MS	 3000
#define STEP_MS	 5
#define LEAVE_MS 300
/* So often a process that does not listen is waited for, LEAVE_MS each, before it is killed. */
#define PATIENCE_MAX 7u
/* Between bind(2) and listen(2). */
#define LISTEN_MS 20

static bool reap(struct check_backend *b, int wait_ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)wait_ms * NSEC_PER_MSEC;

	while (b->pid) {
		if (waitpid(b->pid, &b->wstatus, WNOHANG) == b->pid) {
			b->pid = 0;
			b->has_ended = true;
		} else if (clock_now_ns() >= end) {
			return false;
		} else {
			poll(NULL, 0, STEP_MS);
		}
	}
	return true;
}

void check_backend_stop(struct check_backend *b)
{
	if (b->pid && !reap(b, 0)) {
		kill(b->pid, SIGTERM);
		if (!reap(b, STOP_MS)) {
			kill(b->pid, SIGKILL);
			(void)reap(b, STOP_MS);
		}
	}
	close_fd(&b->output_fd);
}

/* In the child. Never returns. */
static void run_command(const struct check_backend *b)
{
	sigset_t none;
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 &&
	    dup2(b->output_fd, STDOUT_FILENO) >= 0 && dup2(b->output_fd, STDERR_FILENO) >= 0) {
		execvp(b->command[0], b->command);
		dprintf(STDERR_FILENO, "%s: %s\n", b->command[0], strerror(errno));
	}
	_exit(127);
}

static bool has_appeared(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void tell_output(const struct check_backend *b)
{
	char tail[CHECK_OUTPUT_TAIL + 1];
	off_t len = lseek(b->output_fd, 0, SEEK_END),
	      from = max_of(len - CHECK_OUTPUT_TAIL, (off_t)0);
	ssize_t n = pread(b->output_fd, tail, CHECK_OUTPUT_TAIL, from);

	if (n <= 0)
		return;
	tail[n] = '\0';
	cli_error("it said:\n%s", tail);
}

int check_backend_start(struct check_backend *b)
{
	uint64_t end = clock_now_ns() + START_MS * NSEC_PER_MSEC;

	/* A path that is left over would be taken for the new one's. */
	if (has_appeared(b->path))
		unlink(b->path);
	close_fd(&b->output_fd);
	b->output_fd = memfd_create("output", MFD_CLOEXEC);
	if (b->output_fd < 0)
		return -errno;
	b->patience = 0;
	b->has_ended = false;
	b->pid = fork();
	if (b->pid == 0)
		run_command(b);
	if (b->pid < 0) {
		b->pid = 0;
		cli_error("cannot start %s: %s", b->command[0], strerror(errno));
		return -EAGAIN;
	}
	while (!has_appeared(b->path)) {
		if (reap(b, STEP_MS) || clock_now_ns() > end) {
			cli_error("%s: %s before there was a socket %s", b->command[0],
				  b->pid ? "10 seconds passed" : "it ended", b->path);
			tell_output(b);
			return -ECONNREFUSED;
		}
	}
	poll(NULL, 0, LISTEN_MS);
	return 0;
}

int check_backend_restart(void *ctx)
{
	struct check_backend *b = ctx;
	int err;

	/* It may be about to end, or have started a moment ago. */
	if (!reap(b, LEAVE_MS)) {
		if (++b->patience < PATIENCE_MAX)
			return 0;
		check_backend_stop(b);
	}
	err = check_backend_start(b);
	return err < 0 ? err : 1;
}

int check_backend_ended(void *ctx, int wait_ms, char *text, size_t size)
{
	struct check_backend *b = ctx;

	if (!reap(b, wait_ms) || !b->has_ended)
		return -1;
	if (WIFSIGNALED(b->wstatus)) {
		snprintf(text, size, "signal %d (%s)", WTERMSIG(b->wstatus),
			 strsignal(WTERMSIG(b->wstatus)));
		return CHECK_CRASHED;
	}
	snprintf(text, size, "exit status %d", WEXITSTATUS(b->wstatus));
	return WEXITSTATUS(b->wstatus) ? CHECK_FAILED : CHECK_ENDED;
}
