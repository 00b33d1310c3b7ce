/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of a connection: parameters, start, stop, kicks.
 *
 * Theory of operation
 * -------------------
 * A ring collects its size, addresses and base. SET_VRING_KICK asks for it to run; it starts then, or, when
 * something is missing still, as soon as that arrives. Running and enabled are different things: a disabled
 * ring runs but takes nothing. Rings begin disabled when VHOST_USER_F_PROTOCOL_FEATURES was acknowledged, else
 * they are enabled by starting.
 *
 * GET_VRING_BASE stops a ring. User-mode Linux never sends it: it disables a ring and, for its next driver,
 * sets it up again. So a change of size, base or addresses stops a ring that is disabled; one that is
 * enabled refuses with -EBUSY.
 *
 * A packed ring's base has wrap counters in it, and a fresh ring's are 1. User-mode Linux says 0 for a fresh
 * ring of either format. 0 is also a position that a ring can stop at: the end of every second lap. The
 * first descriptor tells them apart: in the second lap it has been used in the first, so its USED bit is set.
 *
 * Without a kick descriptor the front-end means "poll". We look POLL_NS apart: an idle device must not cost
 * a core, and no known front-end asks for it.
 */
#include "vhost/session.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"

#define POLL_NS NSEC_PER_MSEC

/* A packed ring's descriptor (virtio 1.2, 2.8.1): where the flags are, and the used bit in them. */
#define PACKED_FLAGS_OFFSET 14
#define PACKED_DESC_USED    0x8000
/* Both positions 0, both wrap counters 1. */
#define PACKED_BASE_FRESH 0x80008000u

static bool ring_running(const struct vhost_session *s, unsigned int index)
{
	return device_queue_running(s->dev, index);
}

bool vhost_ring_enabled(const struct vhost_session *s, unsigned int index)
{
	return s->rings[index].enabled || !(s->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES));
}

static void ring_clear(struct vhost_ring *r)
{
	r->num = 0;
	r->addr = (struct vhost_vring_addr){ 0 };
	r->have_addr = false;
	r->base = 0;
	r->enabled = false;
	r->want_start = false;
	r->poll = false;
}

static void poll_timer_fired(void *ctx)
{
	struct vhost_session *s = ctx;
	bool any = false;

	for (unsigned int i = 0; i < s->nr_rings; i++) {
		if (!s->rings[i].poll)
			continue;
		device_queue_kick(s->dev, i);
		any = true;
	}
	if (any)
		loop_timer_arm(s->loop, &s->poll_timer, POLL_NS);
}

void vhost_rings_init(struct vhost_session *s)
{
	s->poll_timer.fn = poll_timer_fired;
	s->poll_timer.ctx = s;
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		struct vhost_ring *r = &s->rings[i];

		ring_clear(r);
		r->kick_fd = r->call_fd = r->err_fd = -1;
	}
}

void vhost_rings_fini(struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		close_fd(&s->rings[i].kick_fd);
		close_fd(&s->rings[i].call_fd);
		close_fd(&s->rings[i].err_fd);
	}
}

static enum virtq_format session_format(const struct vhost_session *s)
{
	return s->features & bit64(VIRTIO_F_RING_PACKED) ? VIRTQ_PACKED : VIRTQ_SPLIT;
}

int vhost_ring_resolve(void *session, unsigned int index, struct virtq_setup *setup)
{
	const struct vhost_session *s = session;
	const enum virtq_format format = session_format(s);
	void __guest *desc, *driver, *device;
	const struct vhost_ring *r;
	uint64_t log_addr;

	if (index >= s->nr_rings)
		return -EINVAL;
	r = &s->rings[index];
	if (!r->have_addr || !r->num)
		return -EINVAL;
	log_addr = r->addr.log;
	desc = mem_table_map_user(s->mem, r->addr.desc, virtq_desc_bytes(format, r->num));
	driver = mem_table_map_user(s->mem, r->addr.avail, virtq_driver_bytes(format, r->num));
	device = mem_table_map_user(s->mem, r->addr.used, virtq_device_bytes(format, r->num));
	if (!desc || !driver || !device)
		return -EFAULT;
	/* A packed ring is written where its descriptors are; front-ends name the used area's address. */
	if (format == VIRTQ_PACKED && !mem_table_gpa_of(s->mem, guest_strip(desc), &log_addr))
		return -EFAULT;
	setup->format = format;
	setup->size = r->num;
	setup->desc = desc;
	setup->driver = driver;
	setup->device = device;
	setup->log = r->addr.flags & VHOST_VRING_F_LOG ? s->log_active : NULL;
	setup->log_addr = log_addr;
	return 0;
}

/* The base to start at. A guest that lies about its own ring has itself to blame for where we look. */
static uint32_t ring_start_base(const struct vhost_ring *r, const struct virtq_setup *setup)
{
	const le16 __guest *flags;

	if (setup->format != VIRTQ_PACKED || r->base != 0)
		return r->base;
	/* A ring at an odd address is refused at its start; not even a word of it can be read. */
	if ((uintptr_t)guest_strip(setup->desc) % sizeof(le16))
		return r->base;
	flags = (const le16 __guest *)((const uint8_t __guest *)setup->desc + PACKED_FLAGS_OFFSET);
	return guest_read16(flags) & PACKED_DESC_USED ? 0 : PACKED_BASE_FRESH;
}

static void ring_signal_error(struct vhost_session *s, struct vhost_ring *r)
{
	pthread_mutex_lock(&s->lock);
	if (r->err_fd >= 0)
		fd_signal(r->err_fd);
	pthread_mutex_unlock(&s->lock);
}

static int ring_start_now(struct vhost_session *s, unsigned int index,
			  const struct virtq_setup *setup)
{
	struct vhost_ring *r = &s->rings[index];
	bool inband = vhost_has_protocol(s, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
	struct device_queue_fds fds = { r->kick_fd, r->call_fd, inband };
	int err;

	r->want_start = false;
	/* Before, so that a disabled ring takes nothing at its start; after, for a device that forgets it. */
	device_queue_set_enabled(s->dev, index, vhost_ring_enabled(s, index));
	err = device_queue_start(s->dev, index, setup, &fds);
	if (err < 0) {
		ring_signal_error(s, r);
		return vhost_refuse(s, err, "queue %u cannot start: %s", index, strerror(-err));
	}
	device_queue_set_enabled(s->dev, index, vhost_ring_enabled(s, index));
	r->poll = r->kick_fd < 0 && !inband;
	if (r->poll)
		loop_timer_arm(s->loop, &s->poll_timer, POLL_NS);
	/* Buffers may have been made available before: their kick is in the descriptor, or is lost. */
	if (r->kick_fd < 0)
		device_queue_kick(s->dev, index);
	log_debug("vhost-user: queue %u started: %s, size %u, base %#x", index,
		  setup->format == VIRTQ_PACKED ? "packed" : "split", setup->size, setup->base);
	return 0;
}

/* Start the ring if it wants to and can. Return: 0 also when it has to wait; negative errno. */
static int ring_try_start(struct vhost_session *s, unsigned int index)
{
	struct vhost_ring *r = &s->rings[index];
	struct virtq_setup setup = {
		.format = session_format(s),
		.size = r->num,
		.event_idx = s->features & bit64(VIRTIO_F_RING_EVENT_IDX),
		.indirect = s->features & bit64(VIRTIO_F_RING_INDIRECT),
	};
	int err;

	if (!r->want_start || ring_running(s, index) || !r->num || !r->have_addr ||
	    !mem_table_nr_regions(s->mem))
		return 0;
	err = vhost_ring_resolve(s, index, &setup);
	/* want_start stays: another region may bring what is missing. */
	if (err < 0)
		return vhost_refuse(s, err, "queue %u: ring outside the shared memory", index);
	setup.base = ring_start_base(r, &setup);
	err = vhost_inflight_area(s, index, setup.format, &setup.inflight);
	if (err < 0)
		return err;
	return ring_start_now(s, index, &setup);
}

void vhost_rings_start_pending(struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		int err = ring_try_start(s, i);

		if (err < 0)
			log_debug("vhost-user: queue %u goes on waiting", i);
	}
}

void vhost_ring_stop(struct vhost_session *s, unsigned int index)
{
	struct vhost_ring *r = &s->rings[index];

	if (ring_running(s, index))
		r->base = device_queue_stop(s->dev, index);
	r->want_start = false;
	r->poll = false;
	close_fd(&r->kick_fd);
}

bool vhost_rings_busy(const struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		if (ring_running(s, i) && vhost_ring_enabled(s, i))
			return true;
	}
	return false;
}

void vhost_rings_stop(struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		if (ring_running(s, i))
			vhost_ring_stop(s, i);
	}
}

void vhost_rings_reset(struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		vhost_ring_stop(s, i);
		ring_clear(&s->rings[i]);
	}
}

void vhost_rings_update_enabled(struct vhost_session *s)
{
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		if (ring_running(s, i))
			device_queue_set_enabled(s->dev, i, vhost_ring_enabled(s, i));
	}
}

/* Return: 0 with *@ret_ring, or -EPROTO for a queue that is not there. */
static int ring_find(struct vhost_session *s, const char *what, uint32_t index,
		     struct vhost_ring **ret_ring)
{
	if (index >= s->nr_rings)
		return vhost_refuse(s, -EPROTO, "%s: queue %u, but the device has %u", what, index,
				    s->nr_rings);
	*ret_ring = &s->rings[index];
	return 0;
}

/* Make sure that a ring's parameters may change. */
static int ring_for_setup(struct vhost_session *s, const char *what, uint32_t index,
			  struct vhost_ring **ret_ring)
{
	int err = ring_find(s, what, index, ret_ring);

	if (err < 0 || !ring_running(s, index))
		return err;
	if (vhost_ring_enabled(s, index))
		return vhost_refuse(s, -EBUSY, "%s: queue %u runs", what, index);
	vhost_ring_stop(s, index);
	return 0;
}

int vhost_set_vring_num(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint32_t index = msg->payload.state.index, num = msg->payload.state.num;
	struct vhost_ring *r;
	int err = ring_for_setup(s, "SET_VRING_NUM", index, &r);

	if (err < 0)
		return err;
	if (num == 0 || num > device_queue_size_max(s->dev))
		return vhost_refuse(s, -EINVAL, "SET_VRING_NUM: size %u, 1 to %u are possible", num,
				    device_queue_size_max(s->dev));
	r->num = num;
	return ring_try_start(s, index);
}

int vhost_set_vring_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint32_t index = msg->payload.state.index;
	struct vhost_ring *r;
	int err = ring_for_setup(s, "SET_VRING_BASE", index, &r);

	if (err < 0)
		return err;
	r->base = msg->payload.state.num;
	return 0;
}

int vhost_set_vring_addr(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const struct vhost_vring_addr *a = &msg->payload.addr;
	struct vhost_ring *r;
	int err = ring_find(s, "SET_VRING_ADDR", a->index, &r);

	if (err < 0)
		return err;
	if (ring_running(s, a->index) && r->addr.desc == a->desc && r->addr.used == a->used &&
	    r->addr.avail == a->avail) {
		/* Logging of the ring's own pages is switched, at the start of a migration. */
		r->addr = *a;
		device_set_mem(s->dev, s->mem, vhost_ring_resolve);
		return 0;
	}
	err = ring_for_setup(s, "SET_VRING_ADDR", a->index, &r);
	if (err < 0)
		return err;
	r->addr = *a;
	r->have_addr = true;
	return ring_try_start(s, a->index);
}

int vhost_get_vring_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint32_t index = msg->payload.state.index;
	struct vhost_ring *r;
	int err = ring_find(s, "GET_VRING_BASE", index, &r);

	if (err < 0)
		return err;
	vhost_ring_stop(s, index);
	reply->payload.state.index = index;
	reply->payload.state.num = r->base;
	reply->header.size = sizeof(reply->payload.state);
	return 0;
}

/* Common part of SET_VRING_KICK, CALL, ERR. *@ret_fd is the caller's, -1 without one. */
static int ring_take_fd(struct vhost_session *s, const char *what, struct vhost_msg *msg,
			struct vhost_ring **ret_ring, unsigned int *ret_index, int *ret_fd)
{
	const unsigned int index = msg->payload.u64 & VHOST_VRING_INDEX_MASK;
	int err = ring_find(s, what, index, ret_ring);

	if (err < 0)
		return err;
	if (msg->nr_fds) {
		err = vhost_event_fd_check(msg->fds[0]);
		if (err < 0)
			return vhost_refuse(s, err, "%s: not an eventfd or pipe", what);
		*ret_fd = TAKE_FD(msg->fds[0]);
	} else {
		*ret_fd = -1;
	}
	*ret_index = index;
	return 0;
}

int vhost_set_vring_kick(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct vhost_ring *r;
	unsigned int index;
	int fd;
	int err = ring_take_fd(s, "SET_VRING_KICK", msg, &r, &index, &fd);

	if (err < 0)
		return err;
	/* For a running ring: go on where it is, with the new descriptor. */
	vhost_ring_stop(s, index);
	r->kick_fd = fd;
	r->want_start = true;
	return ring_try_start(s, index);
}

int vhost_set_vring_call(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct vhost_ring *r;
	unsigned int index;
	int fd, old;
	int err = ring_take_fd(s, "SET_VRING_CALL", msg, &r, &index, &fd);

	if (err < 0)
		return err;
	old = r->call_fd;
	r->call_fd = fd;
	if (ring_running(s, index))
		device_queue_set_call(s->dev, index, fd);
	close_fd(&old);
	return 0;
}

int vhost_set_vring_err(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct vhost_ring *r;
	unsigned int index;
	int fd, old;
	int err = ring_take_fd(s, "SET_VRING_ERR", msg, &r, &index, &fd);

	if (err < 0)
		return err;
	pthread_mutex_lock(&s->lock);
	old = r->err_fd;
	r->err_fd = fd;
	pthread_mutex_unlock(&s->lock);
	close_fd(&old);
	return 0;
}

int vhost_set_vring_enable(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint32_t index = msg->payload.state.index, on = msg->payload.state.num;
	struct vhost_ring *r;
	int err = ring_find(s, "SET_VRING_ENABLE", index, &r);

	if (err < 0)
		return err;
	if (on > 1)
		return vhost_refuse(s, -EINVAL, "SET_VRING_ENABLE: %u is neither 0 nor 1", on);
	r->enabled = on;
	if (ring_running(s, index))
		device_queue_set_enabled(s->dev, index, vhost_ring_enabled(s, index));
	return 0;
}

int vhost_vring_kick(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint32_t index = msg->payload.state.index;
	struct vhost_ring *r;
	int err = ring_find(s, "VRING_KICK", index, &r);

	if (err < 0)
		return err;
	if (!ring_running(s, index)) {
		/* In band the kick itself starts the ring; SET_VRING_KICK is not needed. */
		r->want_start = true;
		return ring_try_start(s, index);
	}
	device_queue_kick(s->dev, index);
	return 0;
}
