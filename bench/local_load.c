/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loads a file on a mounted file system past the page cache: the same requests as fusewire bench sends to a device.
 *
 * Usage: local_load FILE read|write|write-fsync BLOCK_BYTES DEPTH SECONDS [CPU]
 * DEPTH threads each have one O_DIRECT request under way on one open file. 4 KiB and other small blocks go to random places,
 * blocks of 128 KiB and more to consecutive ones. write-fsync: the time of an fsync(2) at the end counts. Prints requests per second.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compiler.h"

#define SEQUENTIAL_FROM (128u << 10)

static const char *path;
static bool writes, end_fsync;
static size_t block;
static int fd;
static uint64_t nr_blocks, next_block, end_ns, nr_done;

static void __attribute__((noreturn)) fail(const char *why)
{
	fprintf(stderr, "local_load: %s: %s\n", path, why);
	exit(1);
}

static uint64_t pick_block(uint64_t *rng)
{
	if (block >= SEQUENTIAL_FROM)
		return __atomic_fetch_add(&next_block, 1, __ATOMIC_RELAXED) % nr_blocks;
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return *rng % nr_blocks;
}

static void *load_main(void *arg)
{
	uint64_t rng = 88172645463325252ull ^ ((uint64_t)(uintptr_t)arg << 32);
	void *buf = aligned_alloc(4096, block);
	uint64_t nr = 0;

	if (!buf)
		fail("no memory");
	memset(buf, 0x5a, block);
	while (clock_now_ns() < end_ns) {
		off_t off = (off_t)(pick_block(&rng) * block);
		ssize_t n = writes ? pwrite(fd, buf, block, off) : pread(fd, buf, block, off);

		if (n != (ssize_t)block)
			fail(n < 0 ? strerror(errno) : "short transfer");
		nr++;
	}
	__atomic_fetch_add(&nr_done, nr, __ATOMIC_RELAXED);
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long depth;
	pthread_t threads[256];
	uint64_t begin;
	struct stat st;

	if (argc < 6) {
		fprintf(stderr,
			"Usage: local_load FILE read|write|write-fsync BLOCK DEPTH SECONDS "
			"[CPU]\n");
		return 2;
	}
	path = argv[1];
	end_fsync = strcmp(argv[2], "write-fsync") == 0;
	writes = end_fsync || strcmp(argv[2], "write") == 0;
	block = strtoul(argv[3], NULL, 10);
	depth = strtoul(argv[4], NULL, 10);
	if (argc > 6) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(strtoul(argv[6], NULL, 10), &set);
		if (sched_setaffinity(0, sizeof(set), &set) < 0)
			perror("local_load: sched_setaffinity");
	}
	if (!block || !depth || depth > array_size(threads) || stat(path, &st) < 0 ||
	    st.st_size < (off_t)block) {
		fprintf(stderr, "local_load: bad arguments, or no such file: %s\n", path);
		return 2;
	}
	fd = open(path, (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (fd < 0)
		fail(strerror(errno));
	nr_blocks = (uint64_t)st.st_size / block;
	begin = clock_now_ns();
	end_ns = begin + (uint64_t)(strtod(argv[5], NULL) * 1e9);
	for (unsigned long i = 0; i < depth; i++) {
		if (pthread_create(&threads[i], NULL, load_main, (void *)(i + 1)))
			return 1;
	}
	for (unsigned long i = 0; i < depth; i++)
		pthread_join(threads[i], NULL);
	if (end_fsync && fsync(fd) < 0)
		fail(strerror(errno));
	printf("%.1f\n", (double)nr_done * 1e9 / (double)(clock_now_ns() - begin));
	return 0;
}
