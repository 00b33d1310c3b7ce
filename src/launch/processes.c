/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The descendants of this process.
 */
#include "launch/processes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A chain of parents longer than this is cut: it changes while we walk. */
#define PROCESSES_DEPTH 64

static pid_t process_parent(pid_t pid)
{
	char path[64], text[512];
	autoclose int fd = -1;
	const char *p;
	ssize_t n;
	int parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* "PID (NAME) STATE PARENT ...", and the name may hold anything. */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %*c %d", &parent) != 1)
		return 0;
	return parent;
}

static bool process_is_ours(pid_t pid)
{
	pid_t self = getpid();

	for (int i = 0; i < PROCESSES_DEPTH && pid > 1; i++) {
		pid = process_parent(pid);
		if (pid == self)
			return true;
	}
	return false;
}

bool process_number(const char *name, int *ret_number)
{
	char *end;
	long v;

	if (name[0] < '0' || name[0] > '9')
		return false;
	errno = 0;
	v = strtol(name, &end, 10);
	if (errno || *end || v > INT_MAX)
		return false;
	*ret_number = (int)v;
	return true;
}

bool process_signal(pid_t pid, int sig)
{
	/* The descriptor first: what it names is then what is looked up, even if the number is given anew. */
	autoclose int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd >= 0 && process_is_ours(pid) &&
	       syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0) == 0;
}

int processes_signal(int sig)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	int nr = 0;

	if (!dir)
		return -errno;
	while ((e = readdir(dir))) {
		int pid;

		if (process_number(e->d_name, &pid) && pid > 1 && pid != getpid())
			nr += process_signal(pid, sig);
	}
	closedir(dir);
	return nr;
}

int processes_list(pid_t *pids, unsigned int cap)
{
	DIR *dir = opendir("/proc");
	unsigned int nr = 0;
	struct dirent *e;

	if (!dir)
		return -errno;
	while (nr < cap && (e = readdir(dir))) {
		int pid;

		if (process_number(e->d_name, &pid) && pid != getpid() && process_is_ours(pid))
			pids[nr++] = pid;
	}
	closedir(dir);
	return (int)nr;
}
