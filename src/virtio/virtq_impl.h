/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files that make up the device side of a virtqueue share; private to them.
 */
#ifndef FUSEWIRE_VIRTIO_VIRTQ_IMPL_H
#define FUSEWIRE_VIRTIO_VIRTQ_IMPL_H

#include "virtio/ring_layout.h"
#include "virtio/virtq.h"

struct virtq_inflight;

/**
 * struct virtq_pop_side - state of the popping thread.
 * @next: split: avail index of the next chain, free running; packed: its position in the ring
 * @wrap: packed: wrap counter at @next
 * @kick_off: the driver was told that it need not kick
 * @seen: split: avail index when it was last loaded
 * @nr_taken: ring entries taken so far (split: chains; packed: descriptors), modulo 2^32
 * @nr_returned_seen: @nr_returned of the push side when it was last loaded
 * @nr_resubmit: unfinished chains of an earlier life that are still to be handed out
 * @resubmit: their slots in the in-flight area; the next one is @resubmit[@nr_resubmit - 1]
 */
struct virtq_pop_side {
	uint16_t next;
	bool wrap;
	bool kick_off;
	uint16_t seen;
	uint32_t nr_taken;
	uint32_t nr_returned_seen;
	uint32_t nr_resubmit;
	uint16_t *resubmit;
};

/**
 * struct virtq_push_side - state of whoever gives chains back.
 * @next: split: used index of the next chain, free running; packed: its position in the ring
 * @wrap: packed: wrap counter at @next
 * @called: virtq_call_needed() ran since the start, so @nr_since_call is meaningful
 * @first: @next as of the last flush: where the first chain that is not flushed goes
 * @first_wrap: packed: wrap counter at @first
 * @nr_pending: ring entries pushed and not flushed
 * @first_word: packed: second word of the descriptor at @first, withheld until the flush
 * @nr_since_call: ring entries flushed since the last virtq_call_needed()
 * @nr_returned: ring entries flushed so far, modulo 2^32; read by the pop side
 * @nr_batch: chains in @batch
 * @batch: with an in-flight area: slots of the chains pushed and not flushed
 */
struct virtq_push_side {
	uint16_t next;
	bool wrap;
	bool called;
	uint16_t first;
	bool first_wrap;
	uint32_t nr_pending;
	uint64_t first_word;
	uint32_t nr_since_call;
	uint32_t nr_returned;
	uint32_t nr_batch;
	uint16_t *batch;
};

/**
 * struct virtq - a ring; the first part does not change while it runs.
 * @format: split or packed
 * @event_idx: VIRTIO_F_EVENT_IDX
 * @indirect: VIRTIO_F_INDIRECT_DESC
 * @size: descriptors
 * @desc: descriptor area
 * @driver: driver area
 * @device: device area
 * @log: dirty log, or NULL; a reference of ours
 * @log_addr: guest address for @log
 * @inflight: in-flight record, or NULL
 * @broken: NULL, or the rule that the driver broke
 * @pop: pop side
 * @push: push side
 */
struct virtq {
	enum virtq_format format;
	bool event_idx;
	bool indirect;
	uint32_t size;
	struct ring_desc __guest *desc;
	void __guest *driver;
	void __guest *device;
	struct dirty_log *log;
	uint64_t log_addr;
	struct virtq_inflight *inflight;
	const char *broken;
	struct virtq_pop_side pop cache_aligned;
	struct virtq_push_side push cache_aligned;
};

/** virtq_break() - remember why the ring is broken. @why: static text. Return: -EBADMSG. */
int cold_path virtq_break(struct virtq *vq, const char *why);

/**
 * virtq_room() - ring entries that the driver may still have made available: size less those that are out.
 *
 * Bounds what is in flight whatever the driver writes: a driver that reuses a descriptor before it came back
 * breaks the ring (virtio 1.2, 2.7.13, 2.8.21). Context: pop side.
 */
static inline uint32_t virtq_room(struct virtq *vq)
{
	struct virtq_pop_side *pop = &vq->pop;

	/*
	 * Acquire: pairs with the release in flush, where the count goes up before the driver can see the
	 * used entries, so every chain that the driver reuses by right has been counted.
	 */
	if (pop->nr_taken - pop->nr_returned_seen >= vq->size / 2)
		pop->nr_returned_seen = __atomic_load_n(&vq->push.nr_returned, __ATOMIC_ACQUIRE);
	return vq->size - (pop->nr_taken - pop->nr_returned_seen);
}

/**
 * virtq_room_reload() - virtq_room() by the latest count; before a driver is said to have broken the rule.
 */
static inline uint32_t virtq_room_reload(struct virtq *vq)
{
	/* Acquire: as in virtq_room(). */
	vq->pop.nr_returned_seen = __atomic_load_n(&vq->push.nr_returned, __ATOMIC_ACQUIRE);
	return vq->size - (vq->pop.nr_taken - vq->pop.nr_returned_seen);
}

/** virtq_mark() - the device wrote [@off, @off + @len) of the logged area. */
static inline void virtq_mark(struct virtq *vq, uint64_t off, uint64_t len)
{
	if (unlikely(vq->log))
		dirty_log_mark(vq->log, vq->log_addr + off, len);
}

/* virtq_chain.c: descriptors to segments. */

/** virtq_chain_begin() - empty @chain but for the caller's storage. */
static inline void virtq_chain_begin(struct virtq_chain *chain)
{
	chain->nr_out = 0;
	chain->nr_in = 0;
	chain->nr_needed = 0;
	chain->out_bytes = 0;
	chain->in_bytes = 0;
}

/**
 * virtq_chain_add() - add the buffer of one descriptor.
 *
 * A chain that outgrows the caller's storage goes on being counted in @nr_needed. Empty descriptors, which
 * the specification does not forbid and Linux accepts, add nothing.
 *
 * Return: NULL, or the rule that is broken.
 */
const char *virtq_chain_add(struct virtq_chain *chain, const struct mem_table *mem,
			    const struct desc *desc);

/**
 * virtq_chain_add_indirect() - add the table that @desc refers to (virtio 1.2, 2.7.5.3, 2.8.7).
 *
 * Return: NULL, or the rule that is broken.
 */
const char *virtq_chain_add_indirect(const struct virtq *vq, struct virtq_chain *chain,
				     const struct mem_table *mem, const struct desc *desc);

/* virtq_split.c and virtq_packed.c: the functions of virtq.h for one format. */

int must_check split_init(struct virtq *vq, uint32_t base);
int must_check split_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain);
bool split_has_work(const struct virtq *vq);
void split_kick_disable(struct virtq *vq);
void split_kick_enable(struct virtq *vq);
void split_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);
void split_flush(struct virtq *vq);
bool split_call_needed(struct virtq *vq);

int must_check packed_init(struct virtq *vq, uint32_t base);
int must_check packed_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain);
bool packed_has_work(const struct virtq *vq);
void packed_kick_disable(struct virtq *vq);
void packed_kick_enable(struct virtq *vq);
void packed_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);
void packed_flush(struct virtq *vq);
bool packed_call_needed(struct virtq *vq);

/* virtq_inflight.c: the record of what is out, for a later life. */

/**
 * virtq_inflight_attach() - check @area, finish what an earlier life left half done, and set the positions and the
 * resubmit list of @vq from it. A zeroed area is formatted.
 *
 * Return: 0; -EINVAL for an area that does not fit or contradicts itself; -ENOMEM.
 */
int must_check virtq_inflight_attach(struct virtq *vq, void *area);
/** virtq_inflight_detach() - free what is ours; the area stays. NULL is allowed. */
void virtq_inflight_detach(struct virtq_inflight *inf);

/** virtq_inflight_retire() - an orderly end with nothing in flight: the next life need not look at the area. */
void virtq_inflight_retire(struct virtq_inflight *inf);

/** inflight_packed_lock() - exclude the other side. */
void inflight_packed_lock(struct virtq_inflight *inf);
/** inflight_packed_unlock() - the reverse. */
void inflight_packed_unlock(struct virtq_inflight *inf);

/** inflight_split_take() - the chain @head was taken from the avail ring. */
void inflight_split_take(struct virtq_inflight *inf, uint16_t head);
/** inflight_split_link() - before the flush: the chains of @batch are about to be published. */
void inflight_split_link(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr);
/** inflight_split_done() - after the flush, which made the used index @used_idx. */
void inflight_split_done(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr,
			 uint16_t used_idx);

/** inflight_packed_stage() - descriptor number @nr (from 0) of the chain that is being taken. Locked. */
void inflight_packed_stage(struct virtq_inflight *inf, uint32_t nr, const struct desc *desc);
/** inflight_packed_take() - the staged chain of @nr descriptors is taken. Locked. Return: its slot. */
uint16_t inflight_packed_take(struct virtq_inflight *inf, uint32_t nr);
/** inflight_packed_link() - before the flush, which will move the used position to @used and @wrap. Locked. */
void inflight_packed_link(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr,
			  uint16_t used, bool wrap);
/** inflight_packed_done() - after the flush. Locked. */
void inflight_packed_done(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr);
/** inflight_packed_nr() - descriptors of the chain in @slot, of an earlier life. */
uint16_t inflight_packed_nr(const struct virtq_inflight *inf, uint16_t slot);
/** inflight_packed_desc() - recorded descriptor at *@cursor, which moves on; begin with the chain's slot. */
struct desc inflight_packed_desc(const struct virtq_inflight *inf, uint16_t *cursor);

#endif
