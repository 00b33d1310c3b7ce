/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rings written by hand.
 */
#include "check/raw.h"

#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"

#define SETTLE_MS 60

static uint64_t guest_address(const struct raw *r, const void *p)
{
	return r->memory.gpa + ((uintptr_t)p - r->memory.user_addr);
}

void *raw_pointer(const struct raw *r, uint64_t addr)
{
	return (void *)(uintptr_t)(r->memory.user_addr + (addr - r->memory.gpa));
}

uint64_t raw_address(const struct raw *r, enum raw_place place)
{
	switch (place) {
	case RAW_OUT:
		return r->out;
	case RAW_IN:
		return r->in;
	case RAW_BEYOND:
		return r->memory.gpa + r->memory.size;
	case RAW_EDGE:
		return r->memory.gpa + r->memory.size - 8;
	case RAW_TOP:
		return UINT64_MAX - 7;
	case RAW_HALF:
		return UINT64_C(1) << 63;
	case RAW_RING:
		return guest_address(r, guest_strip(r->areas.desc));
	case RAW_USED:
		return guest_address(r, guest_strip(r->areas.device));
	case RAW_TABLE:
		return r->table;
	case RAW_ODD_TABLE:
		return r->table + 1;
	case RAW_NOWHERE:
	case RAW_ZERO:
		break;
	}
	return 0;
}

static struct split_avail __guest *avail_ring(const struct raw *r)
{
	return (struct split_avail __guest *)r->areas.driver;
}

static struct split_used __guest *used_ring(const struct raw *r)
{
	return (struct split_used __guest *)r->areas.device;
}

static struct ring_desc __guest *descs(const struct raw *r)
{
	return (struct ring_desc __guest *)r->areas.desc;
}

static void put_good_request(struct raw *r)
{
	const struct {
		struct fuse_in_header hdr;
		struct fuse_getattr_in in;
	} request = { .hdr = { .len = sizeof(request),
			       .opcode = FUSE_GETATTR,
			       .unique = r->p->unique,
			       .nodeid = FUSE_ROOT_ID,
			       .pid = 1 } };
	struct peer_slot *slot = &r->p->slots[0];

	r->p->unique += 2;
	memcpy(slot->out, &request, sizeof(request));
	memset(slot->in, 0, PEER_ROOM);
	r->out = guest_address(r, slot->out);
	r->out_bytes = sizeof(request);
	r->in = guest_address(r, slot->in);
	r->in_bytes = sizeof(struct fuse_out_header) + sizeof(struct fuse_attr_out);
	/* Tables are aligned to 16 bytes. */
	r->table = round_up_to(guest_address(r, r->p->slots[1].out), UINT64_C(4096));
}

struct peer *raw_victim(struct check *c, enum virtq_format format, bool indirect)
{
	const struct peer_setup setup = {
		.format = format, .queue_size = RAW_RING_SIZE, .nr_queues = 2, .indirect = indirect
	};
	struct peer *p = check_victim(c, &setup);

	if (p && indirect && !(vhost_client_features(p->vhost) & bit64(VIRTIO_F_RING_INDIRECT))) {
		c->no_peer = check_end(c, CHECK_NOT_OFFERED, "no indirect descriptors");
		return NULL;
	}
	return p;
}

void raw_begin(struct raw *r, struct peer *p, unsigned int queue)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, queue);

	*r = (struct raw){ .p = p, .queue = queue };
	virtq_driver_areas(ring->drv, &r->areas);
	vhost_client_memory(p->vhost, &r->memory);
	if (r->areas.format == VIRTQ_SPLIT) {
		r->avail = guest_read16(&avail_ring(r)->idx);
		r->used_before = guest_read16(&used_ring(r)->idx);
	} else {
		r->avail = (uint16_t)(p->nr_desc[queue] % r->areas.size);
		r->wrap = !(p->nr_desc[queue] / r->areas.size & 1);
	}
	put_good_request(r);
}

void raw_desc(struct raw *r, uint32_t at, uint64_t addr, uint32_t len, uint16_t flags,
	      uint16_t next)
{
	guest_write64(&descs(r)[at].addr, addr);
	guest_write64(&descs(r)[at].word, desc_word_split(len, flags, next));
}

void raw_offer(struct raw *r, uint16_t head)
{
	guest_write16(&avail_ring(r)->ring[r->avail & (r->areas.size - 1)], head);
	r->avail++;
}

void raw_set_index(struct raw *r, uint16_t index)
{
	r->avail = index;
}

void raw_packed_flags(struct raw *r, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	uint64_t word = desc_word_packed(len, id, flags);

	guest_write64(&descs(r)[r->avail].addr, addr);
	if (!r->nr_added++) {
		r->first_pos = r->avail;
		r->first_word = word;
	} else {
		guest_write64(&descs(r)[r->avail].word, word);
	}
	if (++r->avail == r->areas.size) {
		r->avail = 0;
		r->wrap = !r->wrap;
	}
}

void raw_packed(struct raw *r, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	raw_packed_flags(r, addr, len, id, flags | (r->wrap ? RING_DESC_AVAIL : RING_DESC_USED));
}

void raw_entry(struct raw *r, uint64_t table, uint32_t at, uint64_t addr, uint32_t len,
	       uint16_t flags, uint16_t next)
{
	struct ring_desc __guest *entry =
		(struct ring_desc __guest *)guest_mark(raw_pointer(r, table)) + at;

	guest_write64(&entry->addr, addr);
	guest_write64(&entry->word, r->areas.format == VIRTQ_SPLIT
					    ? desc_word_split(len, flags, next)
					    : desc_word_packed(len, next, flags));
}

void raw_publish(struct raw *r)
{
	if (r->areas.format == VIRTQ_SPLIT)
		guest_write16_release(&avail_ring(r)->idx, r->avail);
	else if (r->nr_added)
		guest_write64_release(&descs(r)[r->first_pos].word, r->first_word);
	r->nr_added = 0;
	/* Whether or not the device asked for it. */
	fd_signal(vhost_client_ring(r->p->vhost, r->queue)->kick_fd);
}

static bool has_used(const struct raw *r)
{
	uint16_t flags;

	if (r->areas.format == VIRTQ_SPLIT)
		return guest_read16(&used_ring(r)->idx) != r->used_before;
	/* What was available is used when both bits are the same. */
	flags = desc_packed(0, guest_read64(&descs(r)[r->first_pos].word)).flags;
	return r->first_word && !(flags & RING_DESC_AVAIL) == !(flags & RING_DESC_USED);
}

static const char *what_came_back(const struct raw *r)
{
	struct fuse_out_header hdr;

	memcpy(&hdr, raw_pointer(r, r->in), sizeof(hdr));
	if (!hdr.len)
		return "the chain came back";
	return hdr.error ? "answered by an error" : "answered";
}

const char *raw_settle(struct raw *r)
{
	uint64_t end = clock_now_ns() + SETTLE_MS * NSEC_PER_MSEC;

	do {
		if (has_used(r))
			return what_came_back(r);
		if (peer_is_gone(r->p))
			return "connection closed";
		if (fd_drain_signal(vhost_client_err_fd(r->p->vhost)) > 0)
			return "ring given up";
		poll(NULL, 0, 1);
	} while (clock_now_ns() < end);
	return "no answer";
}
