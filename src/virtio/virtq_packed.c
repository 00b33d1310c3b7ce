/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed ring (virtio 1.2, 2.8), device side.
 *
 * Theory of operation
 *
 * One ring of descriptors, written by both sides. The flags AVAIL and USED say, against a wrap counter that
 * flips at each lap, whose descriptor it is. The driver writes the flags of a chain's first descriptor last
 * (release); we load length, id and flags of a descriptor in one load (acquire for the first).
 *
 * A chain that comes back overwrites one descriptor at the used position, which then skips as many as the chain
 * had. The driver looks at one descriptor only, the next used one: so all descriptors of a batch are written at
 * once except for the first, whose flags the flush stores last (release).
 */
#include "virtio/virtq_impl.h"

#include <errno.h>

static inline bool is_avail(uint16_t flags, bool wrap)
{
	return !!(flags & RING_DESC_AVAIL) == wrap && !!(flags & RING_DESC_USED) != wrap;
}

static bool base_is_valid(const struct virtq *vq, uint32_t avail, bool avail_wrap, uint32_t used,
			  bool used_wrap)
{
	if (avail >= vq->size || used >= vq->size)
		return false;
	/* The avail position is at most one lap ahead. */
	return avail_wrap == used_wrap ? avail >= used : avail <= used;
}

int packed_init(struct virtq *vq, uint32_t base)
{
	uint32_t avail = base & 0x7fff;
	uint32_t used = base >> 16 & 0x7fff;
	bool avail_wrap = base >> 15 & 1;
	bool used_wrap = base >> 31;

	if (!base_is_valid(vq, avail, avail_wrap, used, used_wrap))
		return -EINVAL;
	vq->pop.next = (uint16_t)avail;
	vq->pop.wrap = avail_wrap;
	vq->push.next = (uint16_t)used;
	vq->push.wrap = used_wrap;
	return 0;
}

/* Take apart the next descriptors of the ring, the first of which is @desc. Return: their number, -EBADMSG. */
static int walk(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain,
		struct desc desc)
{
	uint32_t room = virtq_room(vq);
	uint32_t at = vq->pop.next;
	bool wrap = vq->pop.wrap;
	const char *why;

	virtq_chain_begin(chain);
	for (uint32_t nr = 0;; nr++) {
		uint64_t addr = guest_read64(&vq->desc[at].addr);

		if (nr) {
			desc = desc_packed(addr, guest_read64(&vq->desc[at].word));
			/* 2.8.6: the flags must be right in all descriptors of the list. */
			if (unlikely(!is_avail(desc.flags, wrap)))
				return virtq_break(
					vq, "chain goes on in a descriptor that is not available");
		}
		desc.addr = addr;
		if (unlikely(nr >= room)) {
			room = virtq_room_reload(vq);
			if (nr >= room)
				return virtq_break(vq, "more descriptors than the ring has");
		}
		if (unlikely(vq->inflight))
			inflight_packed_stage(vq->inflight, nr, &desc);
		if (desc.flags & RING_DESC_INDIRECT) {
			/* 2.8.7: a list has descriptors of one kind only. */
			if (unlikely(nr || (desc.flags & RING_DESC_NEXT)))
				return virtq_break(vq, "indirect descriptor in a list");
			why = virtq_chain_add_indirect(vq, chain, mem, &desc);
		} else {
			why = virtq_chain_add(chain, mem, &desc);
		}
		if (unlikely(why))
			return virtq_break(vq, why);
		if (!(desc.flags & RING_DESC_NEXT)) {
			chain->id = desc.id;
			return (int)nr + 1;
		}
		if (++at == vq->size) {
			at = 0;
			wrap = !wrap;
		}
	}
}

/* A chain that an earlier life took; the ring may not have its descriptors any more, the record has. */
static cold_path int pop_resubmit(struct virtq *vq, const struct mem_table *mem,
				  struct virtq_chain *chain)
{
	uint16_t slot = vq->pop.resubmit[vq->pop.nr_resubmit - 1];
	uint16_t nr = inflight_packed_nr(vq->inflight, slot);
	uint16_t cursor = slot;
	uint16_t id = 0;

	virtq_chain_begin(chain);
	for (uint16_t i = 0; i < nr; i++) {
		struct desc desc = inflight_packed_desc(vq->inflight, &cursor);
		const char *why;

		if (desc.flags & RING_DESC_INDIRECT)
			why = nr > 1 ? "indirect descriptor in a list"
				     : virtq_chain_add_indirect(vq, chain, mem, &desc);
		else
			why = virtq_chain_add(chain, mem, &desc);
		if (why)
			return virtq_break(vq, why);
		id = desc.id;
	}
	if (chain->nr_needed > chain->iov_cap)
		return -ENOBUFS;
	chain->id = id;
	chain->nr_desc = nr;
	chain->inflight_slot = slot;
	vq->pop.nr_resubmit--;
	vq->pop.nr_taken += nr;
	return 1;
}

int packed_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain)
{
	struct virtq_pop_side *pop = &vq->pop;
	struct desc first;
	int nr;

	if (unlikely(pop->nr_resubmit))
		return pop_resubmit(vq, mem, chain);
	/* Acquire: pairs with the driver's release of the flags; addresses and the rest of the list are there. */
	first = desc_packed(0, guest_read64_acquire(&vq->desc[pop->next].word));
	if (!is_avail(first.flags, pop->wrap))
		return 0;
	if (unlikely(vq->inflight))
		inflight_packed_lock(vq->inflight);
	nr = walk(vq, mem, chain, first);
	if (likely(nr > 0)) {
		if (unlikely(chain->nr_needed > chain->iov_cap))
			nr = -ENOBUFS;
		else if (unlikely(vq->inflight))
			chain->inflight_slot = inflight_packed_take(vq->inflight, (uint32_t)nr);
	}
	if (unlikely(vq->inflight))
		inflight_packed_unlock(vq->inflight);
	if (unlikely(nr < 0))
		return nr;
	chain->nr_desc = (uint16_t)nr;
	ring_advance(&pop->next, &pop->wrap, (uint32_t)nr, vq->size);
	pop->nr_taken += (uint32_t)nr;
	return 1;
}

bool packed_has_work(const struct virtq *vq)
{
	uint64_t word = guest_read64(&vq->desc[vq->pop.next].word);

	return is_avail(desc_packed(0, word).flags, vq->pop.wrap);
}

static inline struct ring_event __guest *device_event(const struct virtq *vq)
{
	return (struct ring_event __guest *)vq->device;
}

void packed_kick_disable(struct virtq *vq)
{
	guest_write32(&device_event(vq)->word, (uint32_t)RING_EVENT_DISABLE << 16);
}

void packed_kick_enable(struct virtq *vq)
{
	uint32_t word = (uint32_t)RING_EVENT_ENABLE << 16;

	if (vq->event_idx)
		word = vq->pop.next | (uint32_t)vq->pop.wrap << 15 |
		       (uint32_t)RING_EVENT_DESC << 16;
	guest_write32(&device_event(vq)->word, word);
}

void packed_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	struct virtq_push_side *push = &vq->push;
	uint16_t flags = push->wrap ? RING_DESC_AVAIL | RING_DESC_USED : 0;
	uint64_t word;

	/* 2.8.4: WRITE says that the length means something. */
	if (written)
		flags |= RING_DESC_WRITE;
	word = desc_word_packed(written, chain->id, flags);
	if (!push->nr_pending) {
		push->first_word = word;
	} else {
		guest_write64(&vq->desc[push->next].word, word);
		virtq_mark(vq, push->next * sizeof(struct ring_desc), sizeof(struct ring_desc));
	}
	ring_advance(&push->next, &push->wrap, chain->nr_desc, vq->size);
	push->nr_pending += chain->nr_desc;
}

void packed_flush(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;

	if (unlikely(vq->inflight)) {
		/* The record and the ring change as one for the pop side: there is room in both, or in none. */
		inflight_packed_lock(vq->inflight);
		inflight_packed_link(vq->inflight, push->batch, push->nr_batch, push->next,
				     push->wrap);
	}
	/* Release: pairs with virtq_room(); before the flags, so that the pop side never counts too few. */
	__atomic_store_n(&push->nr_returned, push->nr_returned + push->nr_pending,
			 __ATOMIC_RELEASE);
	/* Release: pairs with the driver's acquire of the flags; it sees the data and the rest of the batch. */
	guest_write64_release(&vq->desc[push->first].word, push->first_word);
	if (unlikely(vq->inflight)) {
		inflight_packed_done(vq->inflight, push->batch, push->nr_batch);
		inflight_packed_unlock(vq->inflight);
	}
	virtq_mark(vq, push->first * sizeof(struct ring_desc), sizeof(struct ring_desc));
}

bool packed_call_needed(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;
	const struct ring_event __guest *driver = (const struct ring_event __guest *)vq->driver;

	return ring_event_wants(guest_read32(&driver->word), vq->event_idx, push->first,
				push->first_wrap, push->nr_since_call, vq->size);
}
