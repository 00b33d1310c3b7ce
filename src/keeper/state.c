/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Remembers a front-end's state, message by message.
 *
 * A message is noted when it was done, so what a back-end refused is not said to its successor. The effects of a
 * message on others are those that vhost/rings.c and features.c give them: a disabled ring that is set up again stops,
 * a reset forgets the rings but keeps memory, log and call descriptors.
 */
#include "keeper/state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"

/* Features that say nothing about the device, and may change while it runs. */
#define TRANSPORT_FEATURES (bit64(VHOST_F_LOG_ALL) | bit64(VHOST_USER_F_PROTOCOL_FEATURES))

void keeper_state_init(struct keeper_state *s)
{
	memset(s, 0, sizeof(*s));
	s->log_base_fd = s->log_fd = s->channel_fd = s->inflight_fd = -1;
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++)
		s->rings[i].kick_fd = s->rings[i].call_fd = s->rings[i].err_fd = -1;
}

static void drop_regions(struct keeper_state *s)
{
	for (unsigned int i = 0; i < s->nr_regions; i++)
		close_fd(&s->regions[i].fd);
	s->nr_regions = 0;
}

void keeper_state_fini(struct keeper_state *s)
{
	drop_regions(s);
	close_fd(&s->log_base_fd);
	close_fd(&s->log_fd);
	close_fd(&s->channel_fd);
	keeper_state_drop_inflight(s);
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		close_fd(&s->rings[i].kick_fd);
		close_fd(&s->rings[i].call_fd);
		close_fd(&s->rings[i].err_fd);
	}
}

enum virtq_format keeper_state_format(const struct keeper_state *s)
{
	return s->features & bit64(VIRTIO_F_RING_PACKED) ? VIRTQ_PACKED : VIRTQ_SPLIT;
}

unsigned int keeper_state_nr_rings(const struct keeper_state *s)
{
	unsigned int nr = VHOST_QUEUES_MAX;

	while (nr > 0) {
		const struct keeper_ring *r = &s->rings[nr - 1];

		if (r->num || r->have_addr || r->base || r->have_enabled || r->run ||
		    r->call_fd >= 0 || r->err_fd >= 0)
			break;
		nr--;
	}
	return nr;
}

bool keeper_state_running(const struct keeper_state *s)
{
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		if (s->rings[i].run)
			return true;
	}
	return false;
}

static void swap_fd(int *slot, int fd)
{
	close_fd(slot);
	*slot = fd;
}

void keeper_state_set_inflight(struct keeper_state *s, const struct vhost_inflight *d, int fd,
			       bool own)
{
	swap_fd(&s->inflight_fd, fd);
	s->inflight = *d;
	s->inflight_own = own;
}

void keeper_state_drop_inflight(struct keeper_state *s)
{
	close_fd(&s->inflight_fd);
	s->inflight_own = false;
}

bool keeper_state_inflight_covers(const struct keeper_state *s, unsigned int index, uint32_t num)
{
	return s->inflight_fd >= 0 && index < s->inflight.nr_queues &&
	       num <= s->inflight.queue_size;
}

/* The keeper's own area is for one life of the rings: the next driver's may be of another size or format. */
static void drop_unused_inflight(struct keeper_state *s)
{
	if (s->inflight_own && !keeper_state_running(s))
		keeper_state_drop_inflight(s);
}

static void ring_stop(struct keeper_state *s, struct keeper_ring *r)
{
	r->run = KEEPER_RING_STOPPED;
	close_fd(&r->kick_fd);
	drop_unused_inflight(s);
}

static bool ring_enabled(const struct keeper_state *s, const struct keeper_ring *r)
{
	return r->enabled || !(s->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES));
}

bool keeper_state_ring_busy(const struct keeper_state *s, unsigned int index)
{
	return s->rings[index].run && ring_enabled(s, &s->rings[index]);
}

/* A ring whose parameters change: a disabled one that ran has stopped. */
static struct keeper_ring *ring_for_setup(struct keeper_state *s, uint32_t index)
{
	struct keeper_ring *r = &s->rings[index];

	if (r->run && !ring_enabled(s, r))
		ring_stop(s, r);
	return r;
}

static void note_features(struct keeper_state *s, uint64_t features)
{
	if ((features ^ s->features) & ~TRANSPORT_FEATURES) {
		for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++)
			ring_for_setup(s, i);
	}
	s->features = features;
	s->have_features = true;
}

static void note_reset(struct keeper_state *s)
{
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		struct keeper_ring *r = &s->rings[i];

		close_fd(&r->kick_fd);
		*r = (struct keeper_ring){ .kick_fd = -1,
					   .call_fd = r->call_fd,
					   .err_fd = r->err_fd };
	}
	drop_unused_inflight(s);
	s->features &= TRANSPORT_FEATURES;
	s->status = 0;
	s->have_status = false;
}

static void note_mem_table(struct keeper_state *s, struct vhost_msg *msg)
{
	drop_regions(s);
	for (unsigned int i = 0; i < msg->payload.mem.nr; i++) {
		s->regions[i].region = msg->payload.mem.regions[i];
		s->regions[i].fd = TAKE_FD(msg->fds[i]);
	}
	s->nr_regions = msg->payload.mem.nr;
	s->have_mem = true;
	s->slots = false;
}

static int note_add_region(struct keeper_state *s, struct vhost_msg *msg)
{
	if (s->nr_regions == MEM_REGIONS_MAX)
		return -ENOSPC;
	s->regions[s->nr_regions].region = msg->payload.reg.region;
	s->regions[s->nr_regions].fd = TAKE_FD(msg->fds[0]);
	s->nr_regions++;
	s->have_mem = true;
	s->slots = true;
	return 0;
}

static void note_remove_region(struct keeper_state *s, const struct vhost_region *region)
{
	for (unsigned int i = 0; i < s->nr_regions; i++) {
		const struct vhost_region *r = &s->regions[i].region;

		if (r->gpa != region->gpa || r->size != region->size ||
		    r->user_addr != region->user_addr)
			continue;
		close_fd(&s->regions[i].fd);
		s->regions[i] = s->regions[--s->nr_regions];
		break;
	}
	s->slots = true;
}

static void note_kick(struct keeper_state *s, struct vhost_msg *msg)
{
	struct keeper_ring *r = &s->rings[msg->payload.u64 & VHOST_VRING_INDEX_MASK];

	swap_fd(&r->kick_fd, msg->nr_fds ? TAKE_FD(msg->fds[0]) : -1);
	r->run = KEEPER_RING_BY_FD;
}

static void note_stop(struct keeper_state *s, const struct vhost_msg *reply, uint32_t index)
{
	s->rings[index].base = reply->payload.state.num;
	ring_stop(s, &s->rings[index]);
}

/* The messages about one ring. Return: was it one? */
static bool note_ring(struct keeper_state *s, struct vhost_msg *msg, const struct vhost_msg *reply)
{
	const struct vhost_vring_state *state = &msg->payload.state;
	const unsigned int word = msg->payload.u64 & VHOST_VRING_INDEX_MASK;
	struct keeper_ring *r;

	switch (msg->header.request) {
	case VHOST_USER_SET_VRING_NUM:
		ring_for_setup(s, state->index)->num = state->num;
		return true;
	case VHOST_USER_SET_VRING_BASE:
		ring_for_setup(s, state->index)->base = state->num;
		return true;
	case VHOST_USER_SET_VRING_ADDR:
		r = &s->rings[msg->payload.addr.index];
		/* Equal ones only switch the log. */
		if (r->addr.desc != msg->payload.addr.desc ||
		    r->addr.avail != msg->payload.addr.avail ||
		    r->addr.used != msg->payload.addr.used)
			ring_for_setup(s, msg->payload.addr.index);
		r->addr = msg->payload.addr;
		r->have_addr = true;
		return true;
	case VHOST_USER_GET_VRING_BASE:
		note_stop(s, reply, state->index);
		return true;
	case VHOST_USER_SET_VRING_KICK:
		note_kick(s, msg);
		return true;
	case VHOST_USER_VRING_KICK:
		r = &s->rings[state->index];
		if (!r->run)
			r->run = KEEPER_RING_BY_MESSAGE;
		return true;
	case VHOST_USER_SET_VRING_CALL:
		swap_fd(&s->rings[word].call_fd, msg->nr_fds ? TAKE_FD(msg->fds[0]) : -1);
		return true;
	case VHOST_USER_SET_VRING_ERR:
		swap_fd(&s->rings[word].err_fd, msg->nr_fds ? TAKE_FD(msg->fds[0]) : -1);
		return true;
	case VHOST_USER_SET_VRING_ENABLE:
		s->rings[state->index].have_enabled = true;
		s->rings[state->index].enabled = state->num;
		return true;
	default:
		return false;
	}
}

static void note_status(struct keeper_state *s, uint64_t status)
{
	if (status == 0) {
		note_reset(s);
		return;
	}
	s->status = status;
	s->have_status = true;
}

int keeper_state_note(struct keeper_state *s, struct vhost_msg *msg, const struct vhost_msg *reply)
{
	if (note_ring(s, msg, reply))
		return 0;
	switch (msg->header.request) {
	case VHOST_USER_SET_OWNER:
		s->owner = true;
		return 0;
	case VHOST_USER_RESET_OWNER:
		for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++)
			s->rings[i].enabled = false;
		return 0;
	case VHOST_USER_SET_FEATURES:
		note_features(s, msg->payload.u64);
		return 0;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		s->protocol = msg->payload.u64;
		return 0;
	case VHOST_USER_SET_MEM_TABLE:
		note_mem_table(s, msg);
		return 0;
	case VHOST_USER_ADD_MEM_REG:
		return note_add_region(s, msg);
	case VHOST_USER_REM_MEM_REG:
		note_remove_region(s, &msg->payload.reg.region);
		return 0;
	case VHOST_USER_SET_LOG_BASE:
		s->log = msg->payload.log;
		swap_fd(&s->log_base_fd, TAKE_FD(msg->fds[0]));
		return 0;
	case VHOST_USER_SET_LOG_FD:
		swap_fd(&s->log_fd, msg->nr_fds ? TAKE_FD(msg->fds[0]) : -1);
		return 0;
	case VHOST_USER_SET_BACKEND_REQ_FD:
		swap_fd(&s->channel_fd, TAKE_FD(msg->fds[0]));
		return 0;
	case VHOST_USER_SET_INFLIGHT_FD:
		keeper_state_set_inflight(s, &msg->payload.inflight, TAKE_FD(msg->fds[0]), false);
		return 0;
	case VHOST_USER_RESET_DEVICE:
		note_reset(s);
		return 0;
	case VHOST_USER_SET_STATUS:
		note_status(s, msg->payload.u64);
		return 0;
	default:
		return 0;
	}
}

/* Read ring @index's area. Return: 0 or -ENODATA. */
static int ring_recover(struct keeper_state *s, unsigned int index)
{
	struct keeper_ring *r = &s->rings[index];
	const enum virtq_format format = keeper_state_format(s);
	const size_t stride = virtq_inflight_bytes(format, s->inflight.queue_size);
	const size_t bytes = virtq_inflight_bytes(format, r->num);
	const uint64_t offset = s->inflight.mmap_offset + index * stride;
	autofree void *area = NULL;

	if (!keeper_state_inflight_covers(s, index, r->num) || r->num > VIRTQ_SIZE_MAX ||
	    offset > INT64_MAX - bytes)
		return -ENODATA;
	/* Only memory files have seals: a file of a FUSE server could let us wait for ever. */
	if (fcntl(s->inflight_fd, F_GET_SEALS) < 0)
		return -ENODATA;
	area = calloc(1, bytes);
	if (!area || pread(s->inflight_fd, area, bytes, (off_t)offset) != (ssize_t)bytes)
		return -ENODATA;
	r->base = virtq_inflight_base(area, format, r->num, r->base);
	return 0;
}

int keeper_state_recover(struct keeper_state *s)
{
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		/* A ring without size or addresses waits for them still, and has taken nothing. */
		if (!s->rings[i].run || !s->rings[i].num || !s->rings[i].have_addr)
			continue;
		if (ring_recover(s, i) < 0)
			return -ENODATA;
	}
	return 0;
}
