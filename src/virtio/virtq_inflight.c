/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight record of a ring: which chains were taken and not given back, in memory that outlives us.
 *
 * Theory of operation
 *
 * Layout and steps are vhost-user's ("Inflight I/O tracking"), so that another back-end can go on with an area
 * of ours and the reverse. The front-end owns the memory and may write anything into it: the area is checked
 * once, at the start, and from then on only written; what we need to know again is kept in private memory.
 *
 * Split: a chain is recorded by its head. A flush links the heads of the batch, moves used->idx, clears the
 * heads' marks, and stores the index. Dying in between leaves an index that differs from the ring's, and the
 * linked list tells which marks to clear. Both sides work at the same time, on different heads: only a chain that the
 * driver had back, and made available again, before its mark was cleared could lose its new mark. So the pop side
 * waits for the flushes that had begun when it found the chain; it nearly never meets one. No lock: the cost of each
 * request would be four bus locks.
 *
 * Packed: the ring forgets descriptors when used ones overwrite them, so the record has copies, in entries of
 * a free list. Links of that list are only half the truth (it has no end mark; the last link points at an
 * entry that is in use), so at the start the marks of the heads decide what is in flight, and the free list is
 * made anew. Dying during a flush is seen from used position and old used position, which differ then: the
 * ring tells whether the flush became visible; if so, the entries of the batch are at the front of the list.
 *
 * Every step is a store of its own that the compiler may not move: a killed process leaves what it did, in order.
 */
#include "virtio/virtq_impl.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

/* A test builds this file with a hook that looks at the area after each step. */
#ifndef INFLIGHT_STEP
#define INFLIGHT_STEP() ((void)0)
#endif

#define STEP(x, v)                                             \
	do {                                                   \
		__atomic_store_n(&(x), (v), __ATOMIC_RELEASE); \
		INFLIGHT_STEP();                               \
	} while (0)

#define AREA_VERSION 1
/* Looks at a flush in another thread, until that one may have lost its processor. */
#define FLUSH_SPINS 100
/* Each ring's region begins at a multiple of this in libvhost-user's areas. */
#define AREA_ALIGN 64

/** struct split_state - one descriptor: marked (heads only), next of the last batch, order. */
struct split_state {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};

/** struct split_area - the record of a split ring. */
struct split_area {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct split_state desc[];
};

/** struct packed_state - one descriptor's copy; @inflight, @last, @num, @counter count in heads only. */
struct packed_state {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};

/**
 * struct packed_pos - used positions, present and before the flush under way; loaded and stored as one word, so
 * that no step tears an index from its wrap counter.
 */
struct packed_pos {
	uint16_t used_idx;
	uint16_t old_used_idx;
	uint8_t used_wrap;
	uint8_t old_used_wrap;
	uint8_t padding[2];
};

/** struct packed_area - the record of a packed ring. */
struct packed_area {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head;
	uint16_t old_free_head;
	uint64_t pos;
	uint8_t padding[8];
	struct packed_state desc[];
};

static_assert(sizeof(struct split_state) == 16 && sizeof(struct split_area) == 16, "layout");
static_assert(sizeof(struct packed_state) == 32 && sizeof(struct packed_area) == 32, "layout");
static_assert(sizeof(struct packed_pos) == sizeof(uint64_t), "layout");

/**
 * struct virtq_inflight - the private side.
 * @lock: packed: pop side against flush
 * @size: entries in use, the ring's size; the area may have more
 * @split: the area, or NULL
 * @packed: the area, or NULL
 * @counter: order of the next chain
 * @next: packed: links, free list and chains
 * @last: packed: last entry of the chain with this head
 * @num: packed: entries of the chain with this head
 * @free_head: packed: first free entry
 * @pos: packed: as in the area
 * @stage: packed: entry for the next staged descriptor
 * @stage_last: packed: entry of the last staged descriptor
 * @nr_begun: split: flushes that began, modulo 2^32; the push side's
 * @nr_done: split: flushes whose marks are cleared
 */
struct virtq_inflight {
	pthread_mutex_t lock;
	uint32_t size;
	struct split_area *split;
	struct packed_area *packed;
	uint64_t counter;
	uint16_t *next;
	uint16_t *last;
	uint16_t *num;
	uint16_t free_head;
	struct packed_pos pos;
	uint16_t stage;
	uint16_t stage_last;
	uint32_t nr_begun cache_aligned;
	uint32_t nr_done;
};

size_t virtq_inflight_bytes(enum virtq_format format, uint32_t size)
{
	size_t bytes;

	if (format == VIRTQ_SPLIT)
		bytes = sizeof(struct split_area) + (size_t)size * sizeof(struct split_state);
	else
		bytes = sizeof(struct packed_area) + (size_t)size * sizeof(struct packed_state);
	return round_up_to(bytes, (size_t)AREA_ALIGN);
}

static uint64_t pos_pack(struct packed_pos pos)
{
	uint64_t word;

	memcpy(&word, &pos, sizeof(word));
	return word;
}

static struct packed_pos pos_unpack(uint64_t word)
{
	struct packed_pos pos;

	memcpy(&pos, &word, sizeof(pos));
	return pos;
}

void virtq_inflight_format(void *area, enum virtq_format format, uint32_t size)
{
	memset(area, 0, virtq_inflight_bytes(format, size));
	if (format == VIRTQ_SPLIT) {
		struct split_area *split = area;

		split->desc_num = (uint16_t)size;
		STEP(split->version, AREA_VERSION);
	} else {
		struct packed_area *packed = area;

		for (uint32_t i = 0; i + 1 < size; i++)
			packed->desc[i].next = (uint16_t)(i + 1);
		packed->pos = pos_pack((struct packed_pos){ .used_wrap = 1, .old_used_wrap = 1 });
		packed->desc_num = (uint16_t)size;
		STEP(packed->version, AREA_VERSION);
	}
}

void inflight_packed_lock(struct virtq_inflight *inf)
{
	pthread_mutex_lock(&inf->lock);
}

void inflight_packed_unlock(struct virtq_inflight *inf)
{
	pthread_mutex_unlock(&inf->lock);
}

/** struct pending - a chain found in an area. */
struct pending {
	uint64_t counter;
	uint16_t slot;
};

/* Latest first: the pop side takes from the end. */
static int cmp_pending(const void *a, const void *b)
{
	const struct pending *pa = a;
	const struct pending *pb = b;

	if (pa->counter != pb->counter)
		return pa->counter < pb->counter ? 1 : -1;
	return pa->slot < pb->slot ? 1 : -1;
}

/* Hand the @nr chains of @list to the pop side, and go on counting behind them. */
static void set_resubmit(struct virtq *vq, struct pending *list, uint32_t nr)
{
	qsort(list, nr, sizeof(*list), cmp_pending);
	for (uint32_t i = 0; i < nr; i++)
		vq->pop.resubmit[i] = list[i].slot;
	vq->pop.nr_resubmit = nr;
	if (nr)
		vq->inflight->counter = list[0].counter + 1;
}

/* An earlier life died in a flush that reached the ring: clear the marks of that batch. */
static int split_finish_batch(struct virtq_inflight *inf, uint16_t ring_used, uint8_t *seen)
{
	struct split_area *area = inf->split;
	uint16_t nr = (uint16_t)(ring_used - READ_ONCE(area->used_idx));
	uint16_t head = READ_ONCE(area->last_batch_head);

	if (nr > inf->size)
		return -EINVAL;
	for (uint16_t i = 0; i < nr; i++) {
		if (head >= inf->size || seen[head])
			return -EINVAL;
		seen[head] = 1;
		STEP(area->desc[head].inflight, 0);
		head = READ_ONCE(area->desc[head].next);
	}
	return 0;
}

static uint32_t split_collect(struct virtq_inflight *inf, struct pending *list)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < inf->size; i++) {
		if (READ_ONCE(inf->split->desc[i].inflight))
			list[nr++] = (struct pending){ READ_ONCE(inf->split->desc[i].counter),
						       (uint16_t)i };
	}
	return nr;
}

static int split_attach(struct virtq *vq, struct pending *list, uint8_t *seen)
{
	struct virtq_inflight *inf = vq->inflight;
	uint16_t ring_used = vq->push.next;
	uint32_t nr = split_collect(inf, list);
	int ret;

	/* With nothing in flight an index that differs is of an earlier driver; there is nothing to finish. */
	if (nr && READ_ONCE(inf->split->used_idx) != ring_used) {
		ret = split_finish_batch(inf, ring_used, seen);
		if (ret < 0)
			return ret;
		nr = split_collect(inf, list);
	}
	STEP(inf->split->used_idx, ring_used);
	/* All that the driver made available is used, in flight, or not taken yet. */
	vq->pop.next = (uint16_t)(ring_used + nr);
	vq->pop.seen = vq->pop.next;
	set_resubmit(vq, list, nr);
	return 0;
}

/* Descriptors from the old used position to the present one. */
static uint32_t pos_distance(struct packed_pos pos, uint32_t size)
{
	int32_t nr = (int32_t)pos.used_idx - pos.old_used_idx;

	if (pos.used_wrap != pos.old_used_wrap)
		nr += (int32_t)size;
	return nr < 0 || (uint32_t)nr > size ? UINT32_MAX : (uint32_t)nr;
}

/*
 * An earlier life died in a flush: settle whether it happened. The word behind the ring's old used position is
 * the driver's to write, so a driver can make this go either way; both are harmless to us.
 */
static int packed_finish_flush(struct virtq *vq, struct packed_pos *pos)
{
	struct packed_area *area = vq->inflight->packed;
	uint32_t nr = pos_distance(*pos, vq->size);
	uint16_t entry = READ_ONCE(area->free_head);
	uint16_t flags;

	if (nr == UINT32_MAX)
		return -EINVAL;
	flags = desc_packed(0, guest_read64(&vq->desc[pos->old_used_idx].word)).flags;
	if (!!(flags & RING_DESC_AVAIL) == pos->old_used_wrap &&
	    !!(flags & RING_DESC_USED) != pos->old_used_wrap) {
		pos->used_idx = pos->old_used_idx;
		pos->used_wrap = pos->old_used_wrap;
		STEP(area->free_head, READ_ONCE(area->old_free_head));
	} else {
		for (uint32_t i = 0; i < nr; i++) {
			if (entry >= vq->size)
				return -EINVAL;
			STEP(area->desc[entry].inflight, 0);
			entry = READ_ONCE(area->desc[entry].next);
		}
		STEP(area->old_free_head, READ_ONCE(area->free_head));
		pos->old_used_idx = pos->used_idx;
		pos->old_used_wrap = pos->used_wrap;
	}
	STEP(area->pos, pos_pack(*pos));
	return 0;
}

/* Copy the chain with head @head into our tables. Return: its entries, or -EINVAL. */
static int packed_adopt(struct virtq_inflight *inf, uint16_t head, uint8_t *seen)
{
	struct packed_area *area = inf->packed;
	uint16_t num = READ_ONCE(area->desc[head].num);
	uint16_t entry = head;

	if (!num || num > inf->size)
		return -EINVAL;
	for (uint16_t i = 0; i < num; i++) {
		if (entry >= inf->size || seen[entry])
			return -EINVAL;
		seen[entry] = 1;
		inf->last[head] = entry;
		inf->next[entry] = READ_ONCE(area->desc[entry].next);
		entry = inf->next[entry];
	}
	inf->num[head] = num;
	return num;
}

/* Link all entries that no chain has; none of them is looked at as long as heads are marked. */
static void packed_make_free_list(struct virtq_inflight *inf, const uint8_t *seen)
{
	struct packed_area *area = inf->packed;
	uint32_t prev = inf->size;
	uint16_t head = 0;

	for (uint32_t i = 0; i < inf->size; i++) {
		if (seen[i])
			continue;
		if (prev == inf->size) {
			head = (uint16_t)i;
		} else {
			inf->next[prev] = (uint16_t)i;
			STEP(area->desc[prev].next, (uint16_t)i);
		}
		inf->next[i] = head;
		prev = i;
	}
	inf->free_head = head;
	STEP(area->free_head, head);
	STEP(area->old_free_head, head);
}

static int packed_collect(struct virtq_inflight *inf, struct pending *list, uint8_t *seen,
			  uint32_t *ret_nr, uint32_t *ret_nr_desc)
{
	uint32_t nr_desc = 0;
	uint32_t nr = 0;

	for (uint32_t i = 0; i < inf->size; i++) {
		int ret;

		if (!READ_ONCE(inf->packed->desc[i].inflight))
			continue;
		ret = packed_adopt(inf, (uint16_t)i, seen);
		if (ret < 0)
			return ret;
		nr_desc += (uint32_t)ret;
		list[nr++] =
			(struct pending){ READ_ONCE(inf->packed->desc[i].counter), (uint16_t)i };
	}
	*ret_nr = nr;
	*ret_nr_desc = nr_desc;
	return 0;
}

/*
 * The entry at the head of the free list was being filled when the earlier life died: forget it, the ring still has
 * that chain. When all entries are in flight the head means nothing, and points at a chain that counts.
 */
static void packed_drop_unfinished(struct virtq_inflight *inf)
{
	uint16_t head = READ_ONCE(inf->packed->old_free_head);
	uint32_t nr_desc = 0;

	for (uint32_t i = 0; i < inf->size; i++) {
		if (READ_ONCE(inf->packed->desc[i].inflight))
			nr_desc += READ_ONCE(inf->packed->desc[i].num);
	}
	if (head < inf->size && nr_desc < inf->size)
		STEP(inf->packed->desc[head].inflight, 0);
}

static int packed_attach(struct virtq *vq, struct pending *list, uint8_t *seen)
{
	struct virtq_inflight *inf = vq->inflight;
	struct packed_pos pos = pos_unpack(READ_ONCE(inf->packed->pos));
	uint32_t nr, nr_desc, avail;
	int ret = 0;

	if (pos.used_idx >= vq->size || pos.old_used_idx >= vq->size || pos.used_wrap > 1 ||
	    pos.old_used_wrap > 1)
		return -EINVAL;
	/* Taking and flushing exclude each other: only one of them can have been interrupted. */
	if (pos.used_idx != pos.old_used_idx || pos.used_wrap != pos.old_used_wrap)
		ret = packed_finish_flush(vq, &pos);
	else
		packed_drop_unfinished(inf);
	if (ret == 0)
		ret = packed_collect(inf, list, seen, &nr, &nr_desc);
	if (ret < 0)
		return ret;
	packed_make_free_list(inf, seen);
	inf->pos = pos;
	vq->push.next = pos.used_idx;
	vq->push.wrap = pos.used_wrap;
	/* All that the driver made available is used, in flight, or not taken yet. */
	avail = pos.used_idx + nr_desc;
	vq->pop.wrap = avail >= vq->size ? !pos.used_wrap : pos.used_wrap;
	vq->pop.next = (uint16_t)(avail >= vq->size ? avail - vq->size : avail);
	set_resubmit(vq, list, nr);
	return 0;
}

/* Was no chain ever recorded in this area, so that its positions are those of virtq_inflight_format()? */
static bool packed_is_unused(const struct packed_area *area, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++) {
		if (READ_ONCE(area->desc[i].num) || READ_ONCE(area->desc[i].inflight))
			return false;
	}
	return true;
}

static uint32_t split_base(const struct split_area *area, uint32_t size, uint32_t base)
{
	bool taken = area->used_idx != 0;

	for (uint32_t i = 0; i < size && !taken; i++)
		taken = area->desc[i].inflight || area->desc[i].counter;
	return taken ? area->used_idx : base;
}

static uint32_t packed_base(const struct packed_area *area, uint32_t size, uint32_t base)
{
	/* The old position: of a flush that was interrupted, all chains still count as in flight. */
	const struct packed_pos pos = pos_unpack(area->pos);
	uint32_t avail = pos.old_used_idx;
	bool wrap = pos.old_used_wrap;

	if (packed_is_unused(area, size) || pos.old_used_idx >= size || pos.old_used_wrap > 1)
		return base;
	for (uint32_t i = 0; i < size; i++) {
		if (area->desc[i].inflight)
			avail += area->desc[i].num;
	}
	if (avail - pos.old_used_idx > size)
		return base;
	if (avail >= size) {
		avail -= size;
		wrap = !wrap;
	}
	return avail | (uint32_t)wrap << 15 | (uint32_t)pos.old_used_idx << 16 |
	       (uint32_t)pos.old_used_wrap << 31;
}

uint32_t virtq_inflight_base(const void *area, enum virtq_format format, uint32_t size,
			     uint32_t base)
{
	return format == VIRTQ_SPLIT ? split_base(area, size, base) : packed_base(area, size, base);
}

/* A new record: the area takes the positions of the ring. */
static void start_fresh(struct virtq *vq, void *area)
{
	struct packed_area *packed = area;
	struct packed_pos pos = {
		vq->push.next, vq->push.next, vq->push.wrap, vq->push.wrap, { 0 }
	};

	virtq_inflight_format(area, vq->format, vq->size);
	if (vq->format == VIRTQ_PACKED)
		STEP(packed->pos, pos_pack(pos));
}

static int area_attach(struct virtq *vq)
{
	struct virtq_inflight *inf = vq->inflight;
	struct pending *list = calloc(vq->size, sizeof(*list));
	uint8_t *seen = calloc(vq->size, 1);
	int ret = -ENOMEM;

	if (list && seen)
		ret = inf->split ? split_attach(vq, list, seen) : packed_attach(vq, list, seen);
	free(list);
	free(seen);
	return ret;
}

int virtq_inflight_attach(struct virtq *vq, void *area)
{
	struct virtq_inflight *inf = aligned_alloc(CACHE_LINE, sizeof(*inf));
	/* Version and number of descriptors are at the same place in both layouts. */
	const struct split_area *header = area;
	uint16_t version = READ_ONCE(header->version);
	struct virtq_pop_side pop;
	bool fresh;
	int ret;

	if (!inf)
		return -ENOMEM;
	memset(inf, 0, sizeof(*inf));
	pthread_mutex_init(&inf->lock, NULL);
	vq->inflight = inf;
	inf->size = vq->size;
	if (vq->format == VIRTQ_SPLIT)
		inf->split = area;
	else
		inf->packed = area;
	inf->next = calloc(3 * (size_t)vq->size, sizeof(*inf->next));
	vq->pop.resubmit = calloc(vq->size, sizeof(*vq->pop.resubmit));
	vq->push.batch = calloc(vq->size, sizeof(*vq->push.batch));
	if (!inf->next || !vq->pop.resubmit || !vq->push.batch)
		return -ENOMEM;
	pop = vq->pop;
	inf->last = inf->next + vq->size;
	inf->num = inf->last + vq->size;
	if (version && (version != AREA_VERSION || READ_ONCE(header->desc_num) < vq->size))
		return -EINVAL;
	fresh = !version || (inf->packed && packed_is_unused(inf->packed, vq->size));
	if (fresh)
		start_fresh(vq, area);
	ret = area_attach(vq);
	if (ret < 0 || !fresh)
		return ret;
	/* Nothing is known of an earlier life: where to begin is as the setup said. */
	vq->pop = pop;
	return 0;
}

void virtq_inflight_retire(struct virtq_inflight *inf)
{
	struct split_area *header =
		inf->split ? inf->split : (struct split_area *)(void *)inf->packed;

	STEP(header->version, 0);
}

void virtq_inflight_detach(struct virtq_inflight *inf)
{
	if (!inf)
		return;
	pthread_mutex_destroy(&inf->lock);
	free(inf->next);
	free(inf);
}

/*
 * The flush that gave the driver this chain back had begun before the driver could make it available again: its beginning
 * is seen by whoever saw that.
 */
static void split_wait_flushed(const struct virtq_inflight *inf)
{
	const uint32_t begun = __atomic_load_n(&inf->nr_begun, __ATOMIC_RELAXED);

	/* Acquire: pairs with inflight_split_done(); the old mark is cleared before the new one is set. */
	for (unsigned int n = 0;
	     (int32_t)(__atomic_load_n(&inf->nr_done, __ATOMIC_ACQUIRE) - begun) < 0; n++) {
		if (n < FLUSH_SPINS)
			cpu_relax();
		else
			sched_yield();
	}
}

void inflight_split_take(struct virtq_inflight *inf, uint16_t head)
{
	split_wait_flushed(inf);
	STEP(inf->split->desc[head].counter, inf->counter++);
	STEP(inf->split->desc[head].inflight, 1);
}

void inflight_split_link(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr)
{
	struct split_area *area = inf->split;
	/* Where the list of the batch ends is counted, not marked: this link is never followed. */
	uint16_t prev = 0;

	/* Before the release of used->idx. */
	__atomic_store_n(&inf->nr_begun, inf->nr_begun + 1, __ATOMIC_RELAXED);
	for (uint32_t i = 0; i < nr; i++) {
		STEP(area->desc[batch[i]].next, prev);
		prev = batch[i];
		STEP(area->last_batch_head, prev);
	}
}

void inflight_split_done(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr,
			 uint16_t used_idx)
{
	INFLIGHT_STEP();
	for (uint32_t i = 0; i < nr; i++)
		STEP(inf->split->desc[batch[i]].inflight, 0);
	STEP(inf->split->used_idx, used_idx);
	/* Release: pairs with split_wait_flushed(). */
	__atomic_store_n(&inf->nr_done, inf->nr_begun, __ATOMIC_RELEASE);
}

void inflight_packed_stage(struct virtq_inflight *inf, uint32_t nr, const struct desc *desc)
{
	struct packed_state *state;

	if (nr == 0)
		inf->stage = inf->free_head;
	inf->stage_last = inf->stage;
	state = &inf->packed->desc[inf->stage];
	WRITE_ONCE(state->addr, desc->addr);
	WRITE_ONCE(state->len, desc->len);
	WRITE_ONCE(state->id, desc->id);
	WRITE_ONCE(state->flags, desc->flags);
	inf->stage = inf->next[inf->stage];
}

uint16_t inflight_packed_take(struct virtq_inflight *inf, uint32_t nr)
{
	struct packed_area *area = inf->packed;
	uint16_t slot = inf->free_head;

	inf->last[slot] = inf->stage_last;
	inf->num[slot] = (uint16_t)nr;
	inf->free_head = inf->stage;
	STEP(area->desc[slot].num, (uint16_t)nr);
	STEP(area->desc[slot].last, inf->stage_last);
	STEP(area->desc[slot].counter, inf->counter++);
	STEP(area->desc[slot].inflight, 1);
	STEP(area->free_head, inf->free_head);
	STEP(area->old_free_head, inf->free_head);
	return slot;
}

void inflight_packed_link(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr,
			  uint16_t used, bool wrap)
{
	struct packed_area *area = inf->packed;

	for (uint32_t i = 0; i < nr; i++) {
		uint16_t last = inf->last[batch[i]];

		inf->next[last] = inf->free_head;
		inf->free_head = batch[i];
		STEP(area->desc[last].next, inf->next[last]);
		STEP(area->free_head, inf->free_head);
	}
	inf->pos.used_idx = used;
	inf->pos.used_wrap = wrap;
	STEP(area->pos, pos_pack(inf->pos));
}

void inflight_packed_done(struct virtq_inflight *inf, const uint16_t *batch, uint32_t nr)
{
	struct packed_area *area = inf->packed;

	INFLIGHT_STEP();
	for (uint32_t i = 0; i < nr; i++)
		STEP(area->desc[batch[i]].inflight, 0);
	STEP(area->old_free_head, inf->free_head);
	inf->pos.old_used_idx = inf->pos.used_idx;
	inf->pos.old_used_wrap = inf->pos.used_wrap;
	STEP(area->pos, pos_pack(inf->pos));
}

uint16_t inflight_packed_nr(const struct virtq_inflight *inf, uint16_t slot)
{
	return inf->num[slot];
}

struct desc inflight_packed_desc(const struct virtq_inflight *inf, uint16_t *cursor)
{
	const struct packed_state *state = &inf->packed->desc[*cursor];
	struct desc desc = { READ_ONCE(state->addr), READ_ONCE(state->len), READ_ONCE(state->flags),
			     READ_ONCE(state->id) };

	*cursor = inf->next[*cursor];
	return desc;
}
