/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small world for ring tests: shared memory, a driver and a device on it.
 *
 * Guest addresses begin at WORLD_GPA. The first WORLD_RING_BYTES are one region and hold the ring; the data area
 * behind is cut into regions at odd places, so that buffers and descriptors cross region borders. The driver
 * sees everything in one mapping, the device each region in its own.
 */
#ifndef FUSEWIRE_TESTS_VIRTIO_WORLD_H
#define FUSEWIRE_TESTS_VIRTIO_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "virtio/ring_layout.h"
#include "virtio/virtq.h"
#include "virtio/virtq_driver.h"

#define WORLD_GPA	 0x40000000ull
#define WORLD_RING_BYTES (4u << 20)
#define WORLD_DATA_BYTES (1u << 20)
#define WORLD_BYTES	 (WORLD_RING_BYTES + WORLD_DATA_BYTES)
#define WORLD_USER	 0x7f0000000000ull
#define WORLD_IOV	 1024

struct world {
	int fd;
	char *base;
	char *data;
	struct mem_table *mem;
	struct virtq_driver *drv;
	struct virtq *vq;
	struct virtq_setup setup;
	struct virtq_chain chain;
	struct iovec iov[WORLD_IOV];
};

static inline uint64_t rng_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

static inline uint32_t rng_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((rng_next(state) >> 33) % n);
}

static inline void world_add_region(struct world *w, uint64_t off, uint64_t size)
{
	struct mem_region_desc desc = {
		.gpa = WORLD_GPA + off,
		.size = size,
		.user_addr = WORLD_USER + off,
		.mmap_offset = off,
	};
	struct mem_table *next = NULL;

	assert_int_equal(mem_table_with_region(&next, w->mem, &desc, w->fd), 0);
	mem_table_put(w->mem);
	w->mem = next;
}

static inline void world_init(struct world *w)
{
	/* Not multiples of 16, nor of each other. */
	static const uint64_t cuts[] = { 0, 777, 4099, 50001, 300007, WORLD_DATA_BYTES };

	memset(w, 0, sizeof(*w));
	w->fd = memfd_new("world", WORLD_BYTES);
	assert_true(w->fd >= 0);
	w->base = mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	assert_ptr_not_equal(w->base, MAP_FAILED);
	w->data = w->base + WORLD_RING_BYTES;
	assert_int_equal(mem_table_new(&w->mem), 0);
	world_add_region(w, 0, WORLD_RING_BYTES);
	for (size_t i = 0; i + 1 < array_size(cuts); i++)
		world_add_region(w, WORLD_RING_BYTES + cuts[i], cuts[i + 1] - cuts[i]);
	w->chain.iov = w->iov;
	w->chain.iov_cap = WORLD_IOV;
}

/* The driver's view of a ring area, as the device maps it. */
static inline void __guest *world_device_ptr(struct world *w, void __guest *p, size_t bytes)
{
	uint64_t off = (uint64_t)((char *)guest_strip(p) - w->base);
	void __guest *here = mem_table_map(w->mem, gpa(WORLD_GPA + off), bytes);

	assert_non_null(guest_strip(here));
	return here;
}

static inline void world_start(struct world *w, enum virtq_format format, uint32_t size,
			       bool event_idx, uint32_t indirect_max, uint32_t base)
{
	struct virtq_driver_setup setup = {
		.format = format,
		.size = size,
		.event_idx = event_idx,
		.indirect_max = indirect_max,
		.base = base,
		.mem = { w->base, WORLD_GPA, WORLD_BYTES },
		.ring = w->base,
	};

	assert_true(virtq_driver_ring_bytes(format, size, indirect_max) <= WORLD_RING_BYTES);
	assert_int_equal(virtq_driver_new(&w->drv, &setup), 0);
	virtq_driver_areas(w->drv, &w->setup);
	w->setup.desc = world_device_ptr(w, w->setup.desc, virtq_desc_bytes(format, size));
	w->setup.driver = world_device_ptr(w, w->setup.driver, virtq_driver_bytes(format, size));
	w->setup.device = world_device_ptr(w, w->setup.device, virtq_device_bytes(format, size));
	assert_int_equal(virtq_new(&w->vq, &w->setup), 0);
}

static inline void world_stop(struct world *w)
{
	virtq_free(w->vq);
	virtq_driver_free(w->drv);
	w->vq = NULL;
	w->drv = NULL;
}

static inline void world_fini(struct world *w)
{
	world_stop(w);
	mem_table_put(w->mem);
	munmap(w->base, WORLD_BYTES);
	close_fd(&w->fd);
}

static inline int world_pop(struct world *w)
{
	return virtq_pop(w->vq, w->mem, &w->chain);
}

/* Raw access for tests that write what no driver would. */
static inline struct ring_desc *world_desc(struct world *w)
{
	return guest_strip(w->setup.desc);
}

static inline uint64_t world_gpa_of(struct world *w, const void *p)
{
	return WORLD_GPA + (uint64_t)((const char *)p - w->base);
}

#endif
