/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed ring (virtio 1.2, 2.8), driver side.
 *
 * All descriptors of a batch are written at once except for the flags of the first, which the publication stores
 * last: the device does not look behind a descriptor that is not available.
 */
#include "virtio/virtq_driver_impl.h"

#include <errno.h>

static inline struct ring_event __guest *event_of(void __guest *area)
{
	return (struct ring_event __guest *)area;
}

/* Write the next descriptor of the ring, or hold its second word back when it is the first of the batch. */
static void put_desc(struct virtq_driver *drv, uint64_t addr, uint32_t len, uint16_t id,
		     uint16_t flags)
{
	uint64_t word;

	flags |= drv->avail_wrap ? RING_DESC_AVAIL : RING_DESC_USED;
	word = desc_word_packed(len, id, flags);
	guest_write64(&drv->desc[drv->avail].addr, addr);
	if (!drv->nr_added) {
		drv->first_pos = drv->avail;
		drv->first_word = word;
	} else {
		guest_write64(&drv->desc[drv->avail].word, word);
	}
	ring_advance(&drv->avail, &drv->avail_wrap, 1, drv->setup.size);
	drv->nr_added++;
}

static void add_indirect(struct virtq_driver *drv, uint16_t id, const struct iovec *segs,
			 unsigned int nr_out, unsigned int nr)
{
	struct ring_desc __guest *table = driver_table(drv, id);

	for (unsigned int i = 0; i < nr; i++) {
		uint16_t flags = i >= nr_out ? RING_DESC_WRITE : 0;

		guest_write64(&table[i].addr, driver_addr(drv, guest_mark(segs[i].iov_base)));
		guest_write64(&table[i].word,
			      desc_word_packed((uint32_t)segs[i].iov_len, 0, flags));
	}
	put_desc(drv, driver_addr(drv, table), (uint32_t)(nr * sizeof(struct ring_desc)), id,
		 RING_DESC_INDIRECT);
}

void driver_packed_add(struct virtq_driver *drv, const struct iovec *segs, unsigned int nr_out,
		       unsigned int nr, void *cookie)
{
	uint16_t id = drv->free_head;
	struct driver_slot *slot = &drv->slots[id];

	slot->in_bytes = 0;
	for (unsigned int i = nr_out; i < nr; i++)
		slot->in_bytes += segs[i].iov_len;
	if (driver_use_indirect(drv, nr)) {
		add_indirect(drv, id, segs, nr_out, nr);
		slot->nr_desc = 1;
	} else {
		for (unsigned int i = 0; i < nr; i++) {
			uint16_t flags = i >= nr_out ? RING_DESC_WRITE : 0;

			if (i + 1 < nr)
				flags |= RING_DESC_NEXT;
			put_desc(drv, driver_addr(drv, guest_mark(segs[i].iov_base)),
				 (uint32_t)segs[i].iov_len, id, flags);
		}
		slot->nr_desc = (uint16_t)nr;
	}
	slot->cookie = cookie;
	drv->free_head = slot->next;
	drv->nr_free -= slot->nr_desc;
}

bool driver_packed_publish(struct virtq_driver *drv)
{
	/* Release: pairs with the device's acquire of the flags; it sees the rest of the batch and the data. */
	guest_write64_release(&drv->desc[drv->first_pos].word, drv->first_word);
	/* Pairs with the device's full barrier between asking for a kick and looking for chains. */
	ring_full_barrier();
	return ring_event_wants(guest_read32(&event_of(drv->device)->word), drv->setup.event_idx,
				drv->avail, drv->avail_wrap, drv->nr_added, drv->setup.size);
}

static inline bool is_used(uint16_t flags, bool wrap)
{
	return !!(flags & RING_DESC_AVAIL) == wrap && !!(flags & RING_DESC_USED) == wrap;
}

int driver_packed_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written)
{
	/* Acquire: pairs with the device's release of the flags; the data are there. */
	uint64_t word = guest_read64_acquire(&drv->desc[drv->used].word);
	struct desc desc = desc_packed(0, word);
	struct driver_slot *slot;

	if (!is_used(desc.flags, drv->used_wrap) || !drv->nr_out)
		return 0;
	if (desc.id >= drv->setup.size)
		return -EBADMSG;
	slot = &drv->slots[desc.id];
	/* Without WRITE the length means nothing (2.8.4). */
	if (!(desc.flags & RING_DESC_WRITE))
		desc.len = 0;
	if (!slot->cookie || desc.len > slot->in_bytes)
		return -EBADMSG;
	*ret_cookie = slot->cookie;
	*ret_written = desc.len;
	slot->cookie = NULL;
	slot->next = drv->free_head;
	drv->free_head = desc.id;
	drv->nr_free += slot->nr_desc;
	drv->nr_out--;
	ring_advance(&drv->used, &drv->used_wrap, slot->nr_desc, drv->setup.size);
	return 1;
}

bool driver_packed_has_used(const struct virtq_driver *drv)
{
	uint64_t word = guest_read64(&drv->desc[drv->used].word);

	return drv->nr_out && is_used(desc_packed(0, word).flags, drv->used_wrap);
}

void driver_packed_call(struct virtq_driver *drv, bool on)
{
	uint32_t word = (uint32_t)RING_EVENT_DISABLE << 16;

	if (on && drv->setup.event_idx)
		word = drv->used | (uint32_t)drv->used_wrap << 15 | (uint32_t)RING_EVENT_DESC << 16;
	else if (on)
		word = (uint32_t)RING_EVENT_ENABLE << 16;
	guest_write32(&event_of(drv->driver)->word, word);
}

uint32_t driver_packed_base(const struct virtq_driver *drv)
{
	uint16_t pos = drv->used;
	bool wrap = drv->used_wrap;

	for (uint32_t i = 0; i < drv->nr_out; i++) {
		struct desc desc = desc_packed(0, guest_read64_acquire(&drv->desc[pos].word));

		if (!is_used(desc.flags, wrap) || desc.id >= drv->setup.size ||
		    !drv->slots[desc.id].cookie)
			break;
		ring_advance(&pos, &wrap, drv->slots[desc.id].nr_desc, drv->setup.size);
	}
	return (pos | (uint32_t)wrap << 15) * 0x10001u;
}
