/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split ring (virtio 1.2, 2.7), device side.
 *
 * Theory of operation
 *
 * The driver writes descriptors, then a head into avail->ring, then avail->idx (release). We load avail->idx
 * (acquire) once and take all chains up to it before we look again. Chains go back into used->ring; the flush
 * makes them visible by used->idx (release), which the driver loads with acquire.
 *
 * Asking for or being asked for notifications needs a full barrier on each side, see ring_full_barrier().
 */
#include "virtio/virtq_impl.h"

#include <errno.h>

/* A FUSE header and the arguments behind it: what is read first of a request. */
#define PREFETCH_BYTES (2 * CACHE_LINE)

static inline struct split_avail __guest *avail_ring(const struct virtq *vq)
{
	return (struct split_avail __guest *)vq->driver;
}

static inline struct split_used __guest *used_ring(const struct virtq *vq)
{
	return (struct split_used __guest *)vq->device;
}

int split_init(struct virtq *vq, uint32_t base)
{
	if (base > UINT16_MAX)
		return -EINVAL;
	vq->pop.next = (uint16_t)base;
	vq->pop.seen = vq->pop.next;
	/* The ring itself knows best how far the driver has been served. */
	vq->push.next = guest_read16(&used_ring(vq)->idx);
	return 0;
}

static int walk(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain,
		uint32_t head)
{
	uint32_t index = head;
	const char *why;

	virtq_chain_begin(chain);
	for (uint32_t nr = 0; nr < vq->size; nr++) {
		uint64_t addr = guest_read64(&vq->desc[index].addr);
		uint64_t word = guest_read64(&vq->desc[index].word);
		struct desc desc = desc_split(addr, word);

		if (desc.flags & RING_DESC_INDIRECT) {
			/* 2.7.5.3.1: an indirect descriptor ends the chain. */
			if (unlikely(desc.flags & RING_DESC_NEXT))
				return virtq_break(vq, "indirect descriptor with a next one");
			why = virtq_chain_add_indirect(vq, chain, mem, &desc);
			return unlikely(why) ? virtq_break(vq, why) : 0;
		}
		why = virtq_chain_add(chain, mem, &desc);
		if (unlikely(why))
			return virtq_break(vq, why);
		if (!(desc.flags & RING_DESC_NEXT))
			return 0;
		index = desc.id;
		if (unlikely(index >= vq->size))
			return virtq_break(vq, "next outside of the descriptor table");
	}
	return virtq_break(vq, "loop in a descriptor chain");
}

/* Fill @chain from @head. Return: 0, -ENOBUFS, -EBADMSG. */
static inline int fill(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain,
		       uint16_t head)
{
	int ret = walk(vq, mem, chain, head);

	if (unlikely(ret < 0))
		return ret;
	if (unlikely(chain->nr_needed > chain->iov_cap))
		return -ENOBUFS;
	chain->id = head;
	chain->nr_desc = 1;
	chain->inflight_slot = head;
	return 0;
}

static cold_path int pop_resubmit(struct virtq *vq, const struct mem_table *mem,
				  struct virtq_chain *chain)
{
	int ret = fill(vq, mem, chain, vq->pop.resubmit[vq->pop.nr_resubmit - 1]);

	if (ret < 0)
		return ret;
	vq->pop.nr_resubmit--;
	vq->pop.nr_taken++;
	return 1;
}

/* The descriptor of the chain @ahead of the next one, or NULL when none is known or its head is nonsense. */
static inline const struct ring_desc __guest *desc_ahead(const struct virtq *vq, uint16_t ahead)
{
	uint16_t at = (uint16_t)(vq->pop.next + ahead);
	uint16_t head;

	if ((uint16_t)(vq->pop.seen - vq->pop.next) <= ahead)
		return NULL;
	head = guest_read16(&avail_ring(vq)->ring[at & (vq->size - 1)]);
	return head < vq->size ? &vq->desc[head] : NULL;
}

/*
 * The driver has just written what we are about to read, on another core: each cache line of it costs as much as all the
 * work on a request. So it is fetched while the chains before are worked on: the descriptor three chains ahead,
 * the indirect table two ahead, and what the table's first entry points to one ahead. Nothing that is read here is used
 * for anything else; the chain is read anew, and checked, when its turn comes.
 */
static inline void prefetch_ahead(const struct virtq *vq, const struct mem_table *mem)
{
	const struct ring_desc __guest *desc = desc_ahead(vq, 2);
	const struct ring_desc __guest *table;
	const void __guest *p;

	if (desc)
		__builtin_prefetch(guest_strip(desc));
	desc = desc_ahead(vq, 1);
	if (desc) {
		p = mem_table_map(mem, gpa(guest_read64(&desc->addr)), sizeof(*desc));
		if (p)
			__builtin_prefetch(guest_strip(p));
	}
	desc = desc_ahead(vq, 0);
	if (!desc)
		return;
	table = (const struct ring_desc __guest *)mem_table_map(mem, gpa(guest_read64(&desc->addr)),
								sizeof(*desc));
	if (!table || ((uintptr_t)guest_strip(table) & (sizeof(uint64_t) - 1)))
		return;
	p = mem_table_map(mem, gpa(guest_read64(&table->addr)), PREFETCH_BYTES);
	if (p) {
		__builtin_prefetch(guest_strip(p));
		__builtin_prefetch((const char *)guest_strip(p) + CACHE_LINE);
	}
}

int split_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain)
{
	struct virtq_pop_side *pop = &vq->pop;
	uint16_t head;
	int ret;

	if (unlikely(pop->nr_resubmit))
		return pop_resubmit(vq, mem, chain);
	if (pop->seen == pop->next) {
		/* Acquire: pairs with the driver's release of idx; ring entries and descriptors are there. */
		uint16_t idx = guest_read16_acquire(&avail_ring(vq)->idx);

		if (idx == pop->next)
			return 0;
		if (unlikely((uint16_t)(idx - pop->next) > vq->size))
			return virtq_break(vq, "avail index too far ahead");
		pop->seen = idx;
	}
	head = guest_read16(&avail_ring(vq)->ring[pop->next & (vq->size - 1)]);
	if (unlikely(head >= vq->size))
		return virtq_break(vq, "head outside of the descriptor table");
	if (unlikely(!virtq_room(vq) && !virtq_room_reload(vq)))
		return virtq_break(vq, "more chains than descriptors");
	ret = fill(vq, mem, chain, head);
	if (unlikely(ret < 0))
		return ret;
	if (vq->inflight)
		inflight_split_take(vq->inflight, head);
	pop->next++;
	pop->nr_taken++;
	prefetch_ahead(vq, mem);
	return 1;
}

bool split_has_work(const struct virtq *vq)
{
	return vq->pop.seen != vq->pop.next || guest_read16(&avail_ring(vq)->idx) != vq->pop.next;
}

static uint64_t avail_event_off(const struct virtq *vq)
{
	return sizeof(struct split_used) + (uint64_t)vq->size * sizeof(struct split_used_elem);
}

void split_kick_disable(struct virtq *vq)
{
	/* With event idx the stale avail_event, which lies behind, keeps kicks away. */
	if (vq->event_idx)
		return;
	guest_write16(&used_ring(vq)->flags, RING_NO_NOTIFY);
	virtq_mark(vq, 0, sizeof(le16));
}

void split_kick_enable(struct virtq *vq)
{
	if (vq->event_idx) {
		/* avail_event is the word behind the last element. */
		le16 __guest *event = (le16 __guest *)&used_ring(vq)->ring[vq->size];

		guest_write16(event, vq->pop.next);
		virtq_mark(vq, avail_event_off(vq), sizeof(le16));
	} else {
		guest_write16(&used_ring(vq)->flags, 0);
		virtq_mark(vq, 0, sizeof(le16));
	}
}

void split_push_soon(const struct virtq *vq)
{
	const struct split_used __guest *used =
		(const struct split_used __guest *)READ_ONCE(vq->device);
	const uint16_t next = READ_ONCE(vq->push.next);

	/* The element, not the index: a driver that looks for replies reads that all the time. */
	prefetch_write(guest_strip(&used->ring[next & (vq->size - 1)]));
}

void split_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	struct virtq_push_side *push = &vq->push;
	struct split_used_elem __guest *elem = &used_ring(vq)->ring[push->next & (vq->size - 1)];

	guest_write32(&elem->id, chain->id);
	guest_write32(&elem->len, written);
	/* split_push_soon() reads it at any time. */
	WRITE_ONCE(push->next, push->next + 1);
	push->nr_pending++;
}

/* Mark used->ring[@from .. @from + @nr), which may wrap, and used->idx. */
static cold_path void mark_used(struct virtq *vq, uint16_t from, uint32_t nr)
{
	uint32_t at = from & (vq->size - 1);
	uint32_t head = min_of(nr, vq->size - at);
	uint64_t elem = sizeof(struct split_used_elem);

	virtq_mark(vq, sizeof(struct split_used) + at * elem, head * elem);
	virtq_mark(vq, sizeof(struct split_used), (nr - head) * elem);
	virtq_mark(vq, offsetof(struct split_used, idx), sizeof(le16));
}

void split_flush(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;

	/* Release: pairs with virtq_room(); before used->idx, so that the pop side never counts too few. */
	__atomic_store_n(&push->nr_returned, push->nr_returned + push->nr_pending,
			 __ATOMIC_RELEASE);
	if (unlikely(vq->inflight))
		inflight_split_link(vq->inflight, push->batch, push->nr_batch);
	/* Release: pairs with the driver's acquire of idx; it sees the elements and the data. */
	guest_write16_release(&used_ring(vq)->idx, push->next);
	if (unlikely(vq->inflight))
		inflight_split_done(vq->inflight, push->batch, push->nr_batch, push->next);
	if (unlikely(vq->log))
		mark_used(vq, push->first, push->nr_pending);
}

bool split_call_needed(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;
	struct split_avail __guest *avail = avail_ring(vq);
	uint16_t old = (uint16_t)(push->first - push->nr_since_call);

	if (!vq->event_idx)
		return !(guest_read16(&avail->flags) & RING_NO_NOTIFY);
	/* used_event is the word behind the last head; more than one lap of the index passes it for sure. */
	return push->nr_since_call > UINT16_MAX ||
	       ring_event_crossed(guest_read16(&avail->ring[vq->size]), push->first, old);
}
