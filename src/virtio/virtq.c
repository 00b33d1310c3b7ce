/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtqueue interface: checks the setup, keeps what both formats have in common, and picks the format.
 */
#include "virtio/virtq_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"

size_t virtq_desc_bytes(enum virtq_format format, uint32_t size)
{
	return (size_t)size * sizeof(struct ring_desc);
}

size_t virtq_driver_bytes(enum virtq_format format, uint32_t size)
{
	if (format == VIRTQ_PACKED)
		return sizeof(struct ring_event);
	return sizeof(struct split_avail) + ((size_t)size + 1) * sizeof(le16);
}

size_t virtq_device_bytes(enum virtq_format format, uint32_t size)
{
	if (format == VIRTQ_PACKED)
		return sizeof(struct ring_event);
	return sizeof(struct split_used) + (size_t)size * sizeof(struct split_used_elem) +
	       sizeof(le16);
}

static bool is_aligned(const void __guest *p, uintptr_t align)
{
	return p && !((uintptr_t)guest_strip(p) & (align - 1));
}

static bool areas_are_valid(const struct virtq_setup *setup)
{
	bool split = setup->format == VIRTQ_SPLIT;

	return is_aligned(setup->desc, 16) && is_aligned(setup->driver, split ? 2 : 4) &&
	       is_aligned(setup->device, 4);
}

static bool setup_is_valid(const struct virtq_setup *setup)
{
	if (setup->format != VIRTQ_SPLIT && setup->format != VIRTQ_PACKED)
		return false;
	if (!setup->size || setup->size > VIRTQ_SIZE_MAX)
		return false;
	if (setup->format == VIRTQ_SPLIT && !is_power_of_two(setup->size))
		return false;
	return areas_are_valid(setup);
}

static void set_areas(struct virtq *vq, const struct virtq_setup *setup)
{
	struct dirty_log *old = vq->log;

	vq->desc = (struct ring_desc __guest *)setup->desc;
	vq->driver = setup->driver;
	vq->device = setup->device;
	vq->log = setup->log ? dirty_log_get(setup->log) : NULL;
	vq->log_addr = setup->log_addr;
	dirty_log_put(old);
}

int virtq_new(struct virtq **ret_vq, const struct virtq_setup *setup)
{
	struct virtq *vq;
	int ret;

	if (!setup_is_valid(setup))
		return -EINVAL;
	vq = aligned_alloc(CACHE_LINE, round_up_to(sizeof(*vq), (size_t)CACHE_LINE));
	if (!vq)
		return -ENOMEM;
	memset(vq, 0, sizeof(*vq));
	vq->format = setup->format;
	vq->event_idx = setup->event_idx;
	vq->indirect = setup->indirect;
	vq->size = setup->size;
	set_areas(vq, setup);
	ret = vq->format == VIRTQ_SPLIT ? split_init(vq, setup->base)
					: packed_init(vq, setup->base);
	if (ret == 0 && setup->inflight)
		ret = virtq_inflight_attach(vq, setup->inflight);
	if (ret < 0) {
		/* Not one bit of an area that was refused is ours to change. */
		virtq_inflight_detach(TAKE_PTR(vq->inflight));
		virtq_free(vq);
		return ret;
	}
	vq->push.first = vq->push.next;
	vq->push.first_wrap = vq->push.wrap;
	*ret_vq = vq;
	return 0;
}

void virtq_free(struct virtq *vq)
{
	if (!vq)
		return;
	if (vq->inflight && !vq->pop.nr_resubmit && vq->pop.nr_taken == vq->push.nr_returned)
		virtq_inflight_retire(vq->inflight);
	virtq_inflight_detach(vq->inflight);
	dirty_log_put(vq->log);
	free(vq->pop.resubmit);
	free(vq->push.batch);
	free(vq);
}

int virtq_move(struct virtq *vq, const struct virtq_setup *setup)
{
	if (setup->format != vq->format || setup->size != vq->size || !areas_are_valid(setup))
		return -EINVAL;
	set_areas(vq, setup);
	return 0;
}

int virtq_break(struct virtq *vq, const char *why)
{
	/* Release: whoever sees the text may look at nothing else, but let it be whole. */
	__atomic_store_n(&vq->broken, why, __ATOMIC_RELEASE);
	return -EBADMSG;
}

const char *virtq_broken(const struct virtq *vq)
{
	return __atomic_load_n(&vq->broken, __ATOMIC_ACQUIRE);
}

int virtq_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain)
{
	if (unlikely(vq->broken))
		return -EBADMSG;
	return vq->format == VIRTQ_SPLIT ? split_pop(vq, mem, chain) : packed_pop(vq, mem, chain);
}

bool virtq_has_work(struct virtq *vq)
{
	if (unlikely(vq->broken || vq->pop.nr_resubmit))
		return true;
	return vq->format == VIRTQ_SPLIT ? split_has_work(vq) : packed_has_work(vq);
}

void virtq_kick_disable(struct virtq *vq)
{
	/* The word is in a cache line that the driver reads: write it only when it changes. */
	if (vq->pop.kick_off)
		return;
	vq->pop.kick_off = true;
	if (vq->format == VIRTQ_SPLIT)
		split_kick_disable(vq);
	else
		packed_kick_disable(vq);
}

bool virtq_kick_enable(struct virtq *vq)
{
	vq->pop.kick_off = false;
	if (vq->format == VIRTQ_SPLIT)
		split_kick_enable(vq);
	else
		packed_kick_enable(vq);
	/* Pairs with the driver's full barrier between publishing a chain and reading what we just wrote. */
	ring_full_barrier();
	return virtq_has_work(vq);
}

void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written)
{
	/* More than the ring holds cannot be out: virtq_pop() sees to that. */
	assert(chain->nr_desc && vq->push.nr_pending + chain->nr_desc <= vq->size);
	if (unlikely(vq->inflight))
		vq->push.batch[vq->push.nr_batch++] = chain->inflight_slot;
	if (vq->format == VIRTQ_SPLIT)
		split_push(vq, chain, written);
	else
		packed_push(vq, chain, written);
}

void virtq_flush(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;

	if (!push->nr_pending)
		return;
	if (vq->format == VIRTQ_SPLIT)
		split_flush(vq);
	else
		packed_flush(vq);
	/* Saturating: beyond one lap of any index, more is not different. */
	push->nr_since_call = min_of(push->nr_since_call + push->nr_pending, 2u * UINT16_MAX);
	push->first = push->next;
	push->first_wrap = push->wrap;
	push->nr_pending = 0;
	push->nr_batch = 0;
}

bool virtq_call_needed(struct virtq *vq)
{
	struct virtq_push_side *push = &vq->push;
	bool needed;

	if (!push->nr_since_call)
		return false;
	/* Pairs with the driver's full barrier between asking for an interrupt and looking for used chains. */
	ring_full_barrier();
	needed = vq->format == VIRTQ_SPLIT ? split_call_needed(vq) : packed_call_needed(vq);
	/*
	 * An earlier life of this device may have flushed and died before it interrupted, and the event position
	 * may be of those days: the first time it does not count. One interrupt too many does no harm.
	 */
	if (!push->called && vq->event_idx)
		needed = true;
	push->called = true;
	push->nr_since_call = 0;
	return needed;
}

uint32_t virtq_base(const struct virtq *vq)
{
	if (vq->format == VIRTQ_SPLIT)
		return vq->pop.next;
	return vq->pop.next | (uint32_t)vq->pop.wrap << 15 | (uint32_t)vq->push.next << 16 |
	       (uint32_t)vq->push.wrap << 31;
}
