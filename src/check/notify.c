/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of notifications: when the device must interrupt, when it should not, and that it says when it wants a kick.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "check/check_impl.h"
#include "virtio/ring_layout.h"

#define PACKED 1u
#define EVENT  2u
/* The driver wants an interrupt. */
#define WANTED 4u

#define RING_SIZE 64u
/* A device may look at its ring for a while before it sleeps. */
#define SLEEP_MS 500

static struct peer *notify_peer(struct check *c, uint64_t arg, enum check_status *ret_status)
{
	const struct peer_setup setup = {
		.format = arg & PACKED ? VIRTQ_PACKED : VIRTQ_SPLIT,
		.queue_size = RING_SIZE,
		.nr_queues = 2,
		.event_idx = arg & EVENT,
	};
	struct peer *p = check_peer(c, &setup);

	if (!p) {
		*ret_status = check_no_peer(c);
	} else if (arg & EVENT &&
		   !(vhost_client_features(p->vhost) & bit64(VIRTIO_F_RING_EVENT_IDX))) {
		*ret_status = check_end(c, CHECK_NOT_OFFERED, "%s", "");
		return NULL;
	}
	return p;
}

static struct ask getattr_ask(const struct fuse_getattr_in *in)
{
	return (struct ask){ .opcode = FUSE_GETATTR,
			     .nodeid = FUSE_ROOT_ID,
			     .args = in,
			     .args_bytes = sizeof(*in),
			     .in_bytes = sizeof(struct fuse_attr_out),
			     .exact = true };
}

/* Wait by looking at memory only. */
static bool wait_silently(const struct virtq_driver *drv)
{
	uint64_t end = clock_now_ns() + ANSWER_MS * NSEC_PER_MSEC;

	while (!virtq_driver_has_used(drv)) {
		if (clock_now_ns() > end)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

static bool was_called(int call_fd, int wait_ms)
{
	struct pollfd pfd = { .fd = call_fd, .events = POLLIN };

	return poll(&pfd, 1, wait_ms) > 0 && fd_drain_signal(call_fd) > 0;
}

/* Interrupts come after used elements that the driver asked about, and rather not after others. */
static enum check_status rule_interrupt(struct check *c, uint64_t arg)
{
	const struct fuse_getattr_in in = {};
	struct ask ask = getattr_ask(&in);
	const struct vhost_client_ring *ring;
	enum check_status status;
	struct peer *p = notify_peer(c, arg, &status);
	unsigned int slot;
	bool called;
	int err;

	if (!p)
		return status;
	ring = vhost_client_ring(p->vhost, FIRST_QUEUE);
	if (!(arg & WANTED))
		virtq_driver_call_disable(ring->drv);
	else if (virtq_driver_call_enable(ring->drv))
		return check_fails(c, "a chain came back that was not offered");
	/* What INIT has left. */
	if (was_called(ring->call_fd, QUIET_MS))
		was_called(ring->call_fd, 0);
	err = peer_submit(p, FIRST_QUEUE, 0, &ask);
	if (err < 0)
		return check_fails(c, "%s", p->problem);
	peer_kick(p, FIRST_QUEUE);
	if (!wait_silently(ring->drv))
		return check_fails(c, "no answer within %d ms", ANSWER_MS);
	called = was_called(ring->call_fd, arg & WANTED ? ANSWER_MS : QUIET_MS);
	err = peer_wait(p, FIRST_QUEUE, ANSWER_MS, &slot);
	if (err < 0)
		return check_fails(c, "%s", p->problem);
	if (called == !!(arg & WANTED))
		return check_holds(c);
	return check_fails(c, called ? "interrupted" : "not interrupted");
}

/* Would a driver that goes by what the device wrote kick for the next chain? */
static bool wants_kick(const struct peer *p)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, FIRST_QUEUE);
	bool event = vhost_client_features(p->vhost) & bit64(VIRTIO_F_RING_EVENT_IDX);
	struct virtq_setup areas;

	virtq_driver_areas(ring->drv, &areas);
	if (areas.format == VIRTQ_SPLIT) {
		struct split_used __guest *used = (struct split_used __guest *)areas.device;
		struct split_avail __guest *avail = (struct split_avail __guest *)areas.driver;

		if (!event)
			return !(guest_read16(&used->flags) & RING_NO_NOTIFY);
		return guest_read16((le16 __guest *)&used->ring[areas.size]) ==
		       guest_read16(&avail->idx);
	}
	return (guest_read32(&((struct ring_event __guest *)areas.device)->word) >> 16 & 3) !=
	       RING_EVENT_DISABLE;
}

static enum check_status rule_kick(struct check *c, uint64_t arg)
{
	uint64_t end = clock_now_ns() + SLEEP_MS * NSEC_PER_MSEC;
	enum check_status status;
	struct peer *p = notify_peer(c, arg, &status);
	int err;

	if (!p)
		return status;
	while (!wants_kick(p)) {
		if (clock_now_ns() > end)
			return check_fails(c, "idle for %d ms it does not ask for one", SLEEP_MS);
		poll(NULL, 0, 1);
	}
	err = peer_works(p, FIRST_QUEUE);
	return err < 0 ? check_error(c, p, err, "the chain after it") : check_holds(c);
}

static enum check_status rule_extra_kicks(struct check *c, uint64_t arg)
{
	enum check_status status;
	struct peer *p = notify_peer(c, arg, &status);
	int err;

	if (!p)
		return status;
	for (unsigned int i = 0; i < 100; i++) {
		fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
		fd_signal(vhost_client_ring(p->vhost, HIPRIO)->kick_fd);
	}
	err = peer_works(p, FIRST_QUEUE);
	if (err < 0)
		return check_error(c, p, err, "GETATTR behind them");
	return check_holds(c);
}

#define SPLIT(clause, what, fn, arg)                                \
	{                                                           \
		"split ring", clause, what, TURN_OWN, fn, arg, NULL \
	}
#define PACK(clause, what, fn, arg)                                             \
	{                                                                       \
		"packed ring", clause, what, TURN_OWN, fn, PACKED | (arg), NULL \
	}

/* clang-format off */
static const struct check_rule rules[] = {
	SPLIT("2.7.7.2", "flags 0: the device interrupts", rule_interrupt, WANTED),
	SPLIT("2.7.7.2", "flags 1: the device does not interrupt (should)", rule_interrupt, 0),
	SPLIT("2.7.7.2", "used_event reached: the device interrupts", rule_interrupt, EVENT | WANTED),
	SPLIT("2.7.7.2", "used_event not reached: it does not interrupt (should)", rule_interrupt, EVENT),
	SPLIT("2.7.10.1", "an idle device wants to be notified of the next chain", rule_kick, 0),
	SPLIT("2.7.10.1", "the same with event indices", rule_kick, EVENT),
	SPLIT("2.7.13.4", "notifications without a chain are harmless", rule_extra_kicks, 0),
	PACK("2.8.10", "event flags ENABLE: the device interrupts", rule_interrupt, WANTED),
	PACK("2.8.10", "event flags DISABLE: the device does not interrupt (should)", rule_interrupt, 0),
	PACK("2.8.10", "event flags DESC, position reached: it interrupts", rule_interrupt, EVENT | WANTED),
	PACK("2.8.10", "an idle device wants to be notified of the next chain", rule_kick, 0),
	PACK("2.8.10", "the same with event suppression by descriptor", rule_kick, EVENT),
};
/* clang-format on */

const struct check_table check_notify_rules = { rules, array_size(rules) };
