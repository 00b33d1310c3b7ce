/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver side of a virtqueue: layout in shared memory, checks, and what both formats have in common.
 */
#include "virtio/virtq_driver_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

/** struct layout - offsets of the areas in the ring's memory, bytes. */
struct layout {
	size_t driver;
	size_t device;
	size_t tables;
	size_t end;
};

static struct layout make_layout(enum virtq_format format, uint32_t size, uint32_t indirect_max)
{
	struct layout layout;

	/* Device and driver write different cache lines. */
	layout.driver = round_up_to(virtq_desc_bytes(format, size), (size_t)CACHE_LINE);
	layout.device =
		round_up_to(layout.driver + virtq_driver_bytes(format, size), (size_t)CACHE_LINE);
	layout.tables =
		round_up_to(layout.device + virtq_device_bytes(format, size), (size_t)CACHE_LINE);
	layout.end = layout.tables + (size_t)size * indirect_max * sizeof(struct ring_desc);
	return layout;
}

size_t virtq_driver_ring_bytes(enum virtq_format format, uint32_t size, uint32_t indirect_max)
{
	return make_layout(format, size, indirect_max).end;
}

static bool in_memory(const struct virtq_driver_mem *mem, const void *p, size_t bytes)
{
	uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)mem->base);

	return (uintptr_t)p >= (uintptr_t)mem->base && range_within(off, bytes, mem->bytes);
}

static bool setup_is_valid(const struct virtq_driver_setup *setup)
{
	uint32_t size = setup->size;

	if (!size || size > VIRTQ_SIZE_MAX || setup->indirect_max > VIRTQ_SIZE_MAX)
		return false;
	if (setup->format == VIRTQ_SPLIT && (!is_power_of_two(size) || setup->base > UINT16_MAX))
		return false;
	/* A driver starts with nothing out: both positions are the same. */
	if (setup->format == VIRTQ_PACKED &&
	    ((setup->base & 0x7fff) >= size || (setup->base & 0xffff) != setup->base >> 16))
		return false;
	return !((uintptr_t)setup->ring & 15) &&
	       in_memory(&setup->mem, setup->ring,
			 virtq_driver_ring_bytes(setup->format, size, setup->indirect_max));
}

static void place_areas(struct virtq_driver *drv)
{
	const struct virtq_driver_setup *setup = &drv->setup;
	struct layout layout = make_layout(setup->format, setup->size, setup->indirect_max);
	char *ring = setup->ring;

	memset(ring, 0, layout.end);
	drv->desc = (struct ring_desc __guest *)guest_mark(ring);
	drv->driver = guest_mark(ring + layout.driver);
	drv->device = guest_mark(ring + layout.device);
	drv->tables = (struct ring_desc __guest *)guest_mark(ring + layout.tables);
}

static void set_positions(struct virtq_driver *drv)
{
	uint32_t base = drv->setup.base;

	if (drv->setup.format == VIRTQ_SPLIT) {
		struct split_avail __guest *avail = (struct split_avail __guest *)drv->driver;
		struct split_used __guest *used = (struct split_used __guest *)drv->device;

		drv->avail = drv->used = drv->used_seen = (uint16_t)base;
		guest_write16(&avail->idx, (uint16_t)base);
		guest_write16(&used->idx, (uint16_t)base);
		/* avail_event, as of a device that sleeps there: it writes its own only when it has seen a chain. */
		guest_write16((le16 __guest *)&used->ring[drv->setup.size], (uint16_t)base);
		return;
	}
	drv->avail = drv->used = drv->first_pos = base & 0x7fff;
	drv->avail_wrap = drv->used_wrap = base >> 15 & 1;
	/* At wrap counter 0, zeroed flags would be those of used descriptors; make them neither. */
	for (uint32_t i = 0; i < drv->setup.size && !drv->avail_wrap; i++)
		guest_write64(&drv->desc[i].word,
			      desc_word_packed(0, 0, RING_DESC_AVAIL | RING_DESC_USED));
	for (uint32_t i = 0; i < drv->used && !drv->avail_wrap; i++)
		guest_write64(&drv->desc[i].word, 0);
	for (uint32_t i = 0; i < drv->used && drv->avail_wrap; i++)
		guest_write64(&drv->desc[i].word,
			      desc_word_packed(0, 0, RING_DESC_AVAIL | RING_DESC_USED));
}

int virtq_driver_new(struct virtq_driver **ret_drv, const struct virtq_driver_setup *setup)
{
	struct virtq_driver *drv;

	if (!setup_is_valid(setup))
		return -EINVAL;
	drv = calloc(1, sizeof(*drv));
	if (!drv)
		return -ENOMEM;
	drv->slots = calloc(setup->size, sizeof(*drv->slots));
	if (!drv->slots) {
		free(drv);
		return -ENOMEM;
	}
	drv->setup = *setup;
	place_areas(drv);
	set_positions(drv);
	for (uint32_t i = 0; i < setup->size; i++)
		drv->slots[i].next = (uint16_t)(i + 1);
	drv->nr_free = setup->size;
	*ret_drv = drv;
	return 0;
}

void virtq_driver_free(struct virtq_driver *drv)
{
	if (!drv)
		return;
	free(drv->slots);
	free(drv);
}

void virtq_driver_areas(const struct virtq_driver *drv, struct virtq_setup *ret_setup)
{
	*ret_setup = (struct virtq_setup){
		.format = drv->setup.format,
		.size = drv->setup.size,
		.desc = drv->desc,
		.driver = drv->driver,
		.device = drv->device,
		.event_idx = drv->setup.event_idx,
		.indirect = drv->setup.indirect_max > 0,
		.base = drv->setup.base,
	};
}

int virtq_driver_add(struct virtq_driver *drv, const struct iovec *segs, unsigned int nr_out,
		     unsigned int nr_in, void *cookie)
{
	unsigned int nr = nr_out + nr_in;

	assert(cookie);
	if (!nr)
		return -EINVAL;
	if (drv->nr_free < (driver_use_indirect(drv, nr) ? 1 : nr))
		return -ENOSPC;
	for (unsigned int i = 0; i < nr; i++) {
		if (segs[i].iov_len > UINT32_MAX ||
		    !in_memory(&drv->setup.mem, segs[i].iov_base, segs[i].iov_len))
			return -EINVAL;
	}
	if (drv->setup.format == VIRTQ_SPLIT)
		driver_split_add(drv, segs, nr_out, nr, cookie);
	else
		driver_packed_add(drv, segs, nr_out, nr, cookie);
	drv->nr_out++;
	return 0;
}

bool virtq_driver_publish(struct virtq_driver *drv)
{
	bool kick;

	if (!drv->nr_added)
		return false;
	kick = drv->setup.format == VIRTQ_SPLIT ? driver_split_publish(drv)
						: driver_packed_publish(drv);
	drv->nr_added = 0;
	return kick;
}

int virtq_driver_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written)
{
	int ret;

	if (unlikely(drv->broken))
		return -EBADMSG;
	ret = drv->setup.format == VIRTQ_SPLIT ? driver_split_get(drv, ret_cookie, ret_written)
					       : driver_packed_get(drv, ret_cookie, ret_written);
	if (unlikely(ret < 0))
		drv->broken = true;
	return ret;
}

bool virtq_driver_has_used(const struct virtq_driver *drv)
{
	if (unlikely(drv->broken))
		return true;
	return drv->setup.format == VIRTQ_SPLIT ? driver_split_has_used(drv)
						: driver_packed_has_used(drv);
}

void virtq_driver_call_disable(struct virtq_driver *drv)
{
	if (drv->setup.format == VIRTQ_SPLIT)
		driver_split_call(drv, false);
	else
		driver_packed_call(drv, false);
}

bool virtq_driver_call_enable(struct virtq_driver *drv)
{
	if (drv->setup.format == VIRTQ_SPLIT)
		driver_split_call(drv, true);
	else
		driver_packed_call(drv, true);
	/* Pairs with the device's full barrier between publishing used chains and reading what we wrote. */
	ring_full_barrier();
	return virtq_driver_has_used(drv);
}

uint32_t virtq_driver_device_base(const struct virtq_driver *drv)
{
	return drv->setup.format == VIRTQ_SPLIT ? driver_split_base(drv) : driver_packed_base(drv);
}

uint32_t virtq_driver_nr_free(const struct virtq_driver *drv)
{
	return drv->nr_free;
}

uint32_t virtq_driver_nr_out(const struct virtq_driver *drv)
{
	return drv->nr_out;
}

void *virtq_driver_detach(struct virtq_driver *drv)
{
	drv->broken = true;
	for (uint32_t i = 0; i < drv->setup.size && drv->nr_out; i++) {
		void *cookie = drv->slots[i].cookie;

		if (!cookie)
			continue;
		drv->slots[i].cookie = NULL;
		drv->nr_out--;
		return cookie;
	}
	return NULL;
}
