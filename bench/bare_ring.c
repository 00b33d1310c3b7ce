/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The yardstick: two threads and a bare ring in shared memory, one copy of 4 KiB per entry, nothing else.
 *
 * Usage: bare_ring DRIVER_CPU DEVICE_CPU SECONDS [COPY_BYTES]
 * Prints entries per second. What a virtqueue, a FUSE request and a service cost shows against this number.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/compiler.h"

#define RING_SIZE  256
#define DEPTH	   32
#define BLOCK	   4096
#define FILE_BYTES (256ul << 20)

struct entry {
	uint64_t offset;
	uint64_t buffer;
	uint32_t len;
	uint32_t done;
};

static struct {
	struct entry entries[RING_SIZE];
	uint32_t head cache_aligned; /* written by the driver */
	uint32_t tail cache_aligned; /* written by the device */
	bool stop cache_aligned;
} ring;

static uint8_t *file_data, *buffers;
static size_t copy_bytes = BLOCK;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		fprintf(stderr, "bare_ring: cannot pin to cpu %d\n", cpu);
}

static void *device_main(void *arg)
{
	uint32_t tail = 0;

	pin(*(int *)arg);
	while (!READ_ONCE(ring.stop)) {
		uint32_t head = __atomic_load_n(&ring.head, __ATOMIC_ACQUIRE);

		while (tail != head) {
			struct entry *e = &ring.entries[tail++ % RING_SIZE];

			memcpy(buffers + e->buffer, file_data + e->offset, copy_bytes);
			e->len = (uint32_t)copy_bytes;
			__atomic_store_n(&ring.tail, tail, __ATOMIC_RELEASE);
		}
		cpu_relax();
	}
	return NULL;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t drive(uint64_t end_ns)
{
	uint32_t head = 0, seen = 0;
	uint64_t rng = 88172645463325252ull;

	while ((head & 1023) || clock_now_ns() < end_ns) {
		uint32_t tail = __atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE);

		seen = tail;
		while (head - seen < DEPTH) {
			struct entry *e = &ring.entries[head % RING_SIZE];

			e->offset = next_random(&rng) % (FILE_BYTES / BLOCK) * BLOCK;
			e->buffer = (uint64_t)(head % DEPTH) * BLOCK;
			head++;
			__atomic_store_n(&ring.head, head, __ATOMIC_RELEASE);
		}
		cpu_relax();
	}
	return seen;
}

int main(int argc, char **argv)
{
	int driver_cpu, device_cpu;
	uint64_t begin, nr, ns;
	pthread_t device;

	if (argc < 4) {
		fprintf(stderr, "Usage: bare_ring DRIVER_CPU DEVICE_CPU SECONDS [COPY_BYTES]\n");
		return 2;
	}
	driver_cpu = (int)strtol(argv[1], NULL, 10);
	device_cpu = (int)strtol(argv[2], NULL, 10);
	if (argc > 4)
		copy_bytes = min_of(strtoul(argv[4], NULL, 10), (unsigned long)BLOCK);
	file_data =
		mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	buffers = mmap(NULL, DEPTH * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);
	if (file_data == MAP_FAILED || buffers == MAP_FAILED)
		return 1;
	memset(file_data, 1, FILE_BYTES);
	pin(driver_cpu);
	if (pthread_create(&device, NULL, device_main, &device_cpu))
		return 1;
	begin = clock_now_ns();
	nr = drive(begin + strtoul(argv[3], NULL, 10) * NSEC_PER_SEC);
	ns = clock_now_ns() - begin;
	WRITE_ONCE(ring.stop, true);
	pthread_join(device, NULL);
	printf("%.0f\n", (double)nr * 1e9 / (double)ns);
	return 0;
}
