/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split ring (virtio 1.2, 2.7), driver side.
 *
 * Links between descriptors are kept in private memory as well: what the device may have scribbled over is never
 * read back.
 */
#include "virtio/virtq_driver_impl.h"

#include <errno.h>

static inline struct split_avail __guest *avail_ring(const struct virtq_driver *drv)
{
	return (struct split_avail __guest *)drv->driver;
}

static inline struct split_used __guest *used_ring(const struct virtq_driver *drv)
{
	return (struct split_used __guest *)drv->device;
}

static inline void write_desc(struct virtq_driver *drv, struct ring_desc __guest *desc,
			      const struct iovec *seg, uint16_t flags, uint16_t next)
{
	guest_write64(&desc->addr, driver_addr(drv, guest_mark(seg->iov_base)));
	guest_write64(&desc->word, desc_word_split((uint32_t)seg->iov_len, flags, next));
}

/* Put the segments into descriptors @head and what the free list has behind it. Return: the last one. */
static uint16_t add_direct(struct virtq_driver *drv, uint16_t head, const struct iovec *segs,
			   unsigned int nr_out, unsigned int nr)
{
	uint16_t at = head;
	uint16_t last = head;

	for (unsigned int i = 0; i < nr; i++) {
		uint16_t next = drv->slots[at].next;
		uint16_t flags = i >= nr_out ? RING_DESC_WRITE : 0;

		if (i + 1 < nr)
			flags |= RING_DESC_NEXT;
		write_desc(drv, &drv->desc[at], &segs[i], flags, i + 1 < nr ? next : 0);
		last = at;
		at = next;
	}
	return last;
}

static void add_indirect(struct virtq_driver *drv, uint16_t head, const struct iovec *segs,
			 unsigned int nr_out, unsigned int nr)
{
	struct ring_desc __guest *table = driver_table(drv, head);

	for (unsigned int i = 0; i < nr; i++) {
		uint16_t flags = i >= nr_out ? RING_DESC_WRITE : 0;

		if (i + 1 < nr)
			flags |= RING_DESC_NEXT;
		write_desc(drv, &table[i], &segs[i], flags, (uint16_t)(i + 1 < nr ? i + 1 : 0));
	}
	guest_write64(&drv->desc[head].addr, driver_addr(drv, table));
	guest_write64(&drv->desc[head].word,
		      desc_word_split((uint32_t)(nr * sizeof(struct ring_desc)), RING_DESC_INDIRECT,
				      0));
}

void driver_split_add(struct virtq_driver *drv, const struct iovec *segs, unsigned int nr_out,
		      unsigned int nr, void *cookie)
{
	uint16_t head = drv->free_head;
	struct driver_slot *slot = &drv->slots[head];

	slot->in_bytes = 0;
	for (unsigned int i = nr_out; i < nr; i++)
		slot->in_bytes += segs[i].iov_len;
	if (driver_use_indirect(drv, nr)) {
		add_indirect(drv, head, segs, nr_out, nr);
		slot->last = head;
		slot->nr_desc = 1;
	} else {
		slot->last = add_direct(drv, head, segs, nr_out, nr);
		slot->nr_desc = (uint16_t)nr;
	}
	slot->cookie = cookie;
	drv->free_head = drv->slots[slot->last].next;
	drv->nr_free -= slot->nr_desc;
	guest_write16(&avail_ring(drv)->ring[drv->avail & (drv->setup.size - 1)], head);
	drv->avail++;
	drv->nr_added++;
}

bool driver_split_publish(struct virtq_driver *drv)
{
	struct split_used __guest *used = used_ring(drv);

	/* Release: pairs with the device's acquire of idx; it sees heads, descriptors and data. */
	guest_write16_release(&avail_ring(drv)->idx, drv->avail);
	/* Pairs with the device's full barrier between asking for a kick and looking for chains. */
	ring_full_barrier();
	if (!drv->setup.event_idx)
		return !(guest_read16(&used->flags) & RING_NO_NOTIFY);
	/* avail_event is the word behind the last element. */
	return ring_event_crossed(guest_read16((le16 __guest *)&used->ring[drv->setup.size]),
				  drv->avail, (uint16_t)(drv->avail - drv->nr_added));
}

int driver_split_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written)
{
	struct split_used __guest *used = used_ring(drv);
	struct split_used_elem __guest *elem;
	struct driver_slot *slot;
	uint32_t id, len;

	if (drv->used_seen == drv->used) {
		/* Acquire: pairs with the device's release of idx; elements and data are there. */
		uint16_t idx = guest_read16_acquire(&used->idx);

		if ((uint16_t)(idx - drv->used) > drv->nr_out)
			return -EBADMSG;
		drv->used_seen = idx;
		if (idx == drv->used)
			return 0;
	}
	elem = &used->ring[drv->used & (drv->setup.size - 1)];
	id = guest_read32(&elem->id);
	len = guest_read32(&elem->len);
	if (id >= drv->setup.size)
		return -EBADMSG;
	slot = &drv->slots[id];
	if (!slot->cookie || len > slot->in_bytes)
		return -EBADMSG;
	*ret_cookie = slot->cookie;
	*ret_written = len;
	slot->cookie = NULL;
	drv->slots[slot->last].next = drv->free_head;
	drv->free_head = (uint16_t)id;
	drv->nr_free += slot->nr_desc;
	drv->nr_out--;
	drv->used++;
	return 1;
}

bool driver_split_has_used(const struct virtq_driver *drv)
{
	return drv->used_seen != drv->used || guest_read16(&used_ring(drv)->idx) != drv->used;
}

void driver_split_call(struct virtq_driver *drv, bool on)
{
	struct split_avail __guest *avail = avail_ring(drv);

	/* used_event is the word behind the last head; one behind @used is passed only after a whole lap. */
	if (drv->setup.event_idx)
		guest_write16(&avail->ring[drv->setup.size],
			      on ? drv->used : (uint16_t)(drv->used - 1));
	else
		guest_write16(&avail->flags, on ? 0 : RING_NO_NOTIFY);
}

uint32_t driver_split_base(const struct virtq_driver *drv)
{
	return guest_read16(&used_ring(drv)->idx);
}
