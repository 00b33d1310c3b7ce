/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The descendants of this process that are the command's.
 *
 * A program that was executed in the place of another one inherits that one's children, as in `helper & exec fusewire run ...`. They are
 * told by two things. Who was there before the command is remembered, by number and start time. And all that the command starts
 * is under the filter, which nobody can take off: what a helper starts later, and leaves to us as the reaper of orphans, is not.
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

/* Processes that were there before, as far as they are remembered; more are told by the filter alone. */
#define PROCESSES_BEFORE_MAX 256

/* What a process is known by: its number may be given anew, but not in the same clock tick. */
struct process {
	pid_t pid;
	pid_t parent;
	unsigned long long start;
};

static struct {
	struct process before[PROCESSES_BEFORE_MAX];
	unsigned int nr_before;
	int filters; /* that we are under ourselves; -1: not known */
} processes = { .filters = -1 };

static bool process_read(pid_t pid, const char *name, char *text, size_t cap)
{
	char path[64];
	autoclose int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, cap - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return true;
}

static bool process_look(pid_t pid, struct process *ret)
{
	char text[512];
	const char *p;

	if (!process_read(pid, "stat", text, sizeof(text)))
		return false;
	/* "PID (NAME) STATE PARENT ...", and the name may hold anything. The start time is the 22nd field. */
	p = strrchr(text, ')');
	ret->pid = pid;
	return p && sscanf(p + 1,
			   " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
			   "%*s %*s %llu",
			   &ret->parent, &ret->start) == 2;
}

/* Return: how many seccomp filters a process is under; -1 when that is not known (Linux before 5.9). */
static int process_filters(pid_t pid)
{
	static const char field[] = "\nSeccomp_filters:";
	char text[4096];
	const char *p;
	int nr;

	if (!process_read(pid, "status", text, sizeof(text)))
		return -1;
	p = strstr(text, field);
	return p && sscanf(p + sizeof(field) - 1, "%d", &nr) == 1 ? nr : -1;
}

static bool process_was_before(const struct process *p)
{
	for (unsigned int i = 0; i < processes.nr_before; i++) {
		const struct process *b = &processes.before[i];

		if (b->pid == p->pid && b->start == p->start)
			return true;
	}
	return false;
}

/* Is it a descendant of ours, with nobody between that was there before? */
static bool process_descends(pid_t pid)
{
	pid_t self = getpid();
	struct process p;

	for (int i = 0; i < PROCESSES_DEPTH && pid > 1; i++) {
		if (!process_look(pid, &p) || process_was_before(&p))
			return false;
		if (p.parent == self)
			return true;
		pid = p.parent;
	}
	return false;
}

static bool process_is_ours(pid_t pid)
{
	int filters;

	if (!process_descends(pid))
		return false;
	filters = process_filters(pid);
	return filters < 0 || processes.filters < 0 || filters > processes.filters;
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

void processes_prepare(void)
{
	struct process found[PROCESSES_BEFORE_MAX];
	DIR *dir = opendir("/proc");
	unsigned int nr = 0;
	struct dirent *e;

	processes.filters = process_filters(getpid());
	while (dir && nr < array_size(found) && (e = readdir(dir))) {
		int pid;

		if (process_number(e->d_name, &pid) && process_descends(pid) &&
		    process_look(pid, &found[nr]))
			nr++;
	}
	if (dir)
		closedir(dir);
	/* Not before all were found: each of them hides those below it. */
	memcpy(processes.before, found, nr * sizeof(found[0]));
	processes.nr_before = nr;
}

bool processes_left(void)
{
	pid_t any;

	return !processes.nr_before || processes_list(&any, 1) != 0;
}
