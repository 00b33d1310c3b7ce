/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What system calls cost a process as it is started: plainly, or under the filter of fusewire run.
 *
 * Usage: syscall_cost FILE SECONDS OUTPUT
 * Writes into OUTPUT one line for each kind of call, its name and nanoseconds per call: the best of many short runs, since all that
 * disturbs one makes it longer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compiler.h"

#define CALLS_PER_RUN 200

static const char *path;

static long call_getppid(void)
{
	return syscall(SYS_getppid);
}

static long call_stat(void)
{
	struct stat st;

	return fstatat(AT_FDCWD, path, &st, 0);
}

/* The open alone is what the filter looks at; without the close there would soon be no descriptor left. */
static long open_and_close(int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? fd : close(fd);
}

static long call_open_path(void)
{
	return open_and_close(O_PATH);
}

static long call_open_create(void)
{
	return open_and_close(O_RDWR | O_CREAT);
}

static long call_open_rdwr(void)
{
	return open_and_close(O_RDWR);
}

static const struct {
	const char *name;
	long (*call)(void);
} kinds[] = {
	{ "getppid", call_getppid },	 { "stat", call_stat },
	{ "open-path", call_open_path }, { "open-create", call_open_create },
	{ "open-rdwr", call_open_rdwr },
};

static double measure(long (*call)(void), uint64_t for_ns)
{
	uint64_t begin, now = clock_now_ns(), end = now + for_ns, best = UINT64_MAX;

	while (now < end) {
		begin = clock_now_ns();
		for (int i = 0; i < CALLS_PER_RUN; i++) {
			if (call() < 0) {
				fprintf(stderr, "syscall_cost: %s: %s\n", path, strerror(errno));
				exit(1);
			}
		}
		now = clock_now_ns();
		best = min_of(best, now - begin);
	}
	return (double)best / CALLS_PER_RUN;
}

int main(int argc, char **argv)
{
	FILE *out;

	if (argc != 4) {
		fprintf(stderr, "Usage: syscall_cost FILE SECONDS OUTPUT\n");
		return 2;
	}
	path = argv[1];
	out = fopen(argv[3], "w");
	if (!out) {
		fprintf(stderr, "syscall_cost: %s: %s\n", argv[3], strerror(errno));
		return 1;
	}
	for (size_t i = 0; i < array_size(kinds); i++)
		fprintf(out, "%s %.1f\n", kinds[i].name,
			measure(kinds[i].call, (uint64_t)(strtod(argv[2], NULL) * 1e9)));
	return fclose(out) ? 1 : 0;
}
