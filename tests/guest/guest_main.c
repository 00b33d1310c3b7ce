/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guest suite's main program: options, TAP, and the test that looks at the driver's queues.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest_suite.h"

#define QUEUES_MAX 16

struct guest_options options;

static char reason[512];

int fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	return FAIL;
}

int skip(const char *why)
{
	snprintf(reason, sizeof(reason), "%s", why);
	return SKIP;
}

void diag(const char *fmt, ...)
{
	va_list args;

	printf("# ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* Interrupts so far of each request queue, over all devices and CPUs: "virtioN-requests.M" lines. */
static void read_interrupts(unsigned long count[QUEUES_MAX])
{
	FILE *f = fopen("/proc/interrupts", "r");
	char line[1024];

	memset(count, 0, QUEUES_MAX * sizeof(count[0]));
	while (f && fgets(line, sizeof(line), f)) {
		char *name = strstr(line, "-requests.");
		char *p = strchr(line, ':');
		unsigned int queue;

		if (!name || !p || sscanf(name, "-requests.%u", &queue) != 1 || queue >= QUEUES_MAX)
			continue;
		for (p++;;) {
			char *end;
			unsigned long n = strtoul(p, &end, 10);

			if (end == p)
				break;
			count[queue] += n;
			p = end;
		}
	}
	if (f)
		fclose(f);
}

/* Requests from one CPU, each of which must reach the device: names that are not there. */
static int work_on_cpu(unsigned int cpu)
{
	cpu_set_t set;
	struct stat st;
	char name[32];

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK(sched_setaffinity(0, sizeof(set), &set) == 0);
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "absent-%u-%d", cpu, i);
		CHECK(stat(name, &st) < 0 && errno == ENOENT);
	}
	return PASS;
}

int test_queues(void)
{
	unsigned long before[QUEUES_MAX], after[QUEUES_MAX];
	unsigned int used = 0;
	cpu_set_t all;

	if (!options.queues_used)
		return skip("no --queues-used");
	CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
	read_interrupts(before);
	for (unsigned int cpu = 0; cpu < (unsigned int)CPU_COUNT(&all); cpu++)
		TRY(work_on_cpu(cpu));
	CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
	read_interrupts(after);
	for (unsigned int q = 0; q < QUEUES_MAX; q++) {
		if (after[q] > before[q])
			diag("requests.%u: %lu interrupts for %d requests", q, after[q] - before[q],
			     200 * CPU_COUNT(&all));
		/* The odd interrupt may come from work of the kernel's own. */
		used += after[q] - before[q] >= 50;
	}
	if (used != options.queues_used)
		return fail("%u request queues used, not %u", used, options.queues_used);
	return PASS;
}

static unsigned long count_interrupts(void)
{
	unsigned long count[QUEUES_MAX];
	unsigned long sum = 0;

	read_interrupts(count);
	for (unsigned int q = 0; q < QUEUES_MAX; q++)
		sum += count[q];
	return sum;
}

/*
 * Write and read @options.direct pieces of 1 MiB, one after the other and past the cache, and print how
 * many interrupts each took. A request is one interrupt when it is alone: more tell that it was split.
 */
static int direct_requests(void)
{
	const size_t piece = 1u << 20;
	char *buf = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open(options.folder, O_CREAT | O_RDWR | O_DIRECT, 0644);
	unsigned long start, middle;

	if (fd < 0 || buf == MAP_FAILED) {
		fprintf(stderr, "%s: %s\n", options.folder, strerror(errno));
		return 1;
	}
	start = count_interrupts();
	for (unsigned int i = 0; i < options.direct; i++) {
		memset(buf, (int)('a' + i % 26), piece);
		if (pwrite(fd, buf, piece, (off_t)(i * piece)) != (ssize_t)piece)
			return 1;
	}
	middle = count_interrupts();
	for (unsigned int i = 0; i < options.direct; i++) {
		if (pread(fd, buf, piece, (off_t)(i * piece)) != (ssize_t)piece ||
		    buf[piece - 1] != (char)('a' + i % 26))
			return 1;
	}
	printf("write %lu read %lu\n", middle - start, count_interrupts() - middle);
	return close(fd) < 0;
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "tag", required_argument, NULL, 't' },
		{ "queues-used", required_argument, NULL, 'q' },
		{ "direct", required_argument, NULL, 'd' },
		{ "no-xattr", no_argument, NULL, 'x' },
		{ "no-hardlink", no_argument, NULL, 'h' },
		{ "no-symlink", no_argument, NULL, 's' },
		{ "other-name-error", no_argument, NULL, 'n' },
		{ "names-unchecked", no_argument, NULL, 'u' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 't':
			options.tag = optarg;
			break;
		case 'q':
			options.queues_used = (unsigned int)atoi(optarg);
			break;
		case 'd':
			options.direct = (unsigned int)atoi(optarg);
			break;
		case 'x':
			options.no_xattr = true;
			break;
		case 'h':
			options.no_hardlink = true;
			break;
		case 's':
			options.no_symlink = true;
			break;
		case 'n':
			options.other_name_error = true;
			break;
		case 'u':
			options.names_unchecked = true;
			break;
		default:
			return -1;
		}
	}
	if (argc - optind != 2)
		return -1;
	options.mountpoint = argv[optind];
	options.folder = argv[optind + 1];
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;
	int nr = 0;

	if (parse(argc, argv) < 0) {
		fprintf(stderr, "usage: guest_suite [OPTION...] MOUNTPOINT FOLDER\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (options.direct)
		return chdir(options.mountpoint) < 0 ? 1 : direct_requests();
	if (chdir(options.mountpoint) < 0 || mkdir(options.folder, 0755) < 0 ||
	    chdir(options.folder) < 0) {
		printf("Bail out! %s/%s: %s\n", options.mountpoint, options.folder,
		       strerror(errno));
		return 1;
	}
	for (const struct guest_test *t = guest_tests; t->name; t++) {
		int rc = t->fn();

		/* What a test that failed left open must not make others fail: it keeps umount(2) busy. */
		(void)close_range(STDERR_FILENO + 1, ~0u, 0);
		nr++;
		printf("%sok %d - %s%s%s\n", rc == FAIL ? "not " : "", nr, t->name,
		       rc == SKIP   ? " # SKIP "
		       : rc == FAIL ? " # "
				    : "",
		       rc == PASS ? "" : reason);
		failed += rc == FAIL;
	}
	printf("1..%d\n", nr);
	if (chdir("/") < 0 || chdir(options.mountpoint) < 0 ||
	    (!failed && rmdir(options.folder) < 0)) {
		printf("Bail out! %s is not empty: %s\n", options.folder, strerror(errno));
		return 1;
	}
	return failed ? 1 : 0;
}
