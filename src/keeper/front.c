/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end's messages: check, forward, answer, remember.
 *
 * Theory of operation
 * -------------------
 * A message is handled to its end before the next is read: forwarded, answered, noted in the state. When the
 * back-end dies meanwhile, its successor is told the state, in which the message is not yet, and then the message.
 * A message that two back-ends do not survive is taken for the cause: the front-end is dropped instead of
 * a third.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/cleanup.h"
#include "keeper/keeper_impl.h"

/* Messages per turn of the loop. */
#define FRONT_BATCH 16
/* Back-ends that one message may take with it. */
#define MESSAGE_DEATHS 2

bool keeper_front_hung_up(const struct keeper *k)
{
	struct pollfd p = { .fd = k->front.fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

void keeper_front_close(struct keeper *k)
{
	if (!keeper_front_connected(k))
		return;
	loop_remove(k->loop, &k->front);
	close_fd(&k->front.fd);
	vhost_receiver_fini(&k->front_rx);
	keeper_state_fini(&k->state);
	keeper_state_init(&k->state);
	k->was_killed = false;
}

void keeper_front_end(struct keeper *k)
{
	int err = 0;

	if (!keeper_front_connected(k))
		return;
	/* The socket stays open until the back-end has let go: its last requests still interrupt the driver. */
	if (k->backend)
		err = keeper_backend_reset(k, k->backend);
	keeper_front_close(k);
	if (err < 0)
		keeper_lose(k, err);
}

static int front_answer(struct keeper *k, const struct vhost_msg *msg, struct vhost_msg *reply,
			int result)
{
	const struct vhost_msg_info *info = vhost_msg_info(msg->header.request);
	int err;

	if (info->reply == VHOST_REPLY_ACK) {
		if (!(msg->header.flags & VHOST_FLAG_NEED_REPLY) ||
		    !keeper_state_has(&k->state, VHOST_USER_PROTOCOL_F_REPLY_ACK))
			return 0;
		if (result < 0)
			reply->payload.u64 = (uint64_t)-result;
		reply->header.size = sizeof(uint64_t);
	}
	reply->header.request = msg->header.request;
	reply->header.flags = VHOST_FLAG_VERSION | VHOST_FLAG_REPLY;
	err = vhost_send(k->front.fd, reply);
	if (err < 0 && err != -EPIPE && err != -ECONNRESET)
		keeper_warn(k, "cannot send the reply to %s: %s", info->name, strerror(-err));
	return err;
}

/* A ring may start with this message: see to its in-flight area first. */
static int front_prepare(struct keeper *k, const struct vhost_msg *msg)
{
	const struct keeper_state *s = &k->state;
	uint32_t index;

	switch (msg->header.request) {
	case VHOST_USER_SET_VRING_KICK:
		index = msg->payload.u64 & VHOST_VRING_INDEX_MASK;
		return keeper_need_area(k, k->backend, index, s->rings[index].num);
	case VHOST_USER_VRING_KICK:
		index = msg->payload.state.index;
		if (s->rings[index].run)
			return 0;
		return keeper_need_area(k, k->backend, index, s->rings[index].num);
	case VHOST_USER_SET_VRING_NUM:
		index = msg->payload.state.index;
		if (!s->rings[index].run)
			return 0;
		return keeper_need_area(k, k->backend, index, msg->payload.state.num);
	default:
		return 0;
	}
}

/* Ask the back-end that is there. Return: 0, or negative errno: it is of no more use. */
static int front_forward_once(struct keeper *k, const struct vhost_msg *msg,
			      struct vhost_msg *reply)
{
	struct keeper_backend *be = k->backend;
	struct vhost_msg out = *msg;
	int err;

	memset(reply, 0, sizeof(*reply));
	if (msg->header.request == VHOST_USER_SET_OWNER && be->owned)
		return 0;
	/* The keeper needs some of its own, which the front-end need not know. */
	if (msg->header.request == VHOST_USER_SET_PROTOCOL_FEATURES)
		out.payload.u64 |= be->own;
	err = front_prepare(k, msg);
	if (err == 0)
		err = keeper_ask(k, be, &out, reply);
	if (err < 0 || reply->payload.u64)
		return err;
	if (msg->header.request == VHOST_USER_SET_PROTOCOL_FEATURES)
		be->protocol = out.payload.u64;
	if (msg->header.request == VHOST_USER_SET_OWNER)
		be->owned = true;
	if (msg->header.request == VHOST_USER_RESET_OWNER)
		be->owned = false;
	return 0;
}

/* Return: 0 with the reply; -EIO without a back-end; -ECONNABORTED: the front-end was, or must be, dropped; -ECANCELED. */
static int front_forward(struct keeper *k, const struct vhost_msg *msg, struct vhost_msg *reply)
{
	for (int deaths = 0; deaths < MESSAGE_DEATHS; deaths++) {
		int err = keeper_wait_backend(k);

		if (!keeper_front_connected(k))
			return -ECONNABORTED;
		if (err < 0)
			return err == -ETIMEDOUT ? -EIO : err;
		err = front_forward_once(k, msg, reply);
		if (err == 0 || err == -ECANCELED)
			return err;
		keeper_lose(k, err);
		if (!keeper_front_connected(k))
			return -ECONNABORTED;
	}
	return keeper_refuse(k, -ECONNABORTED, "%u back-ends in a row did not survive %s",
			     MESSAGE_DEATHS, vhost_msg_info(msg->header.request)->name);
}

/* Did the back-end do what the message asks, as far as one can tell? */
static bool was_done(const struct vhost_msg *msg, const struct vhost_msg *reply)
{
	const uint32_t request = msg->header.request;

	if (vhost_msg_info(request)->reply == VHOST_REPLY_ACK || request == VHOST_USER_SET_LOG_BASE)
		return reply->payload.u64 == 0;
	return true;
}

/*
 * What makes a ring start may be refused because the start fails, and be kept by the back-end all the same: memory that
 * comes later lets the ring start. A size can also be refused for itself, which leaves the ring with the one before.
 */
static bool counts_when_refused(const struct keeper_state *s, const struct vhost_msg *msg,
				uint64_t error)
{
	const uint32_t index = msg->payload.state.index;

	switch (msg->header.request) {
	case VHOST_USER_SET_VRING_KICK:
		return true;
	case VHOST_USER_SET_VRING_NUM:
		return s->rings[index].run && !keeper_state_ring_busy(s, index) && error != EINVAL;
	case VHOST_USER_SET_VRING_ADDR:
		return !keeper_state_ring_busy(s, msg->payload.addr.index);
	default:
		return false;
	}
}

static int front_done(struct keeper *k, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const char *name = vhost_msg_info(msg->header.request)->name;
	int err;

	if (msg->header.request == VHOST_USER_GET_PROTOCOL_FEATURES)
		reply->payload.u64 &= keeper_lets_through(k);
	if (!was_done(msg, reply)) {
		keeper_warn(k, "the back-end refuses %s: error %llu", name,
			    (unsigned long long)reply->payload.u64);
		if (!counts_when_refused(&k->state, msg, reply->payload.u64))
			return front_answer(k, msg, reply, 0);
	}
	err = keeper_state_note(&k->state, msg, reply);
	if (err < 0)
		return keeper_refuse(k, err, "%s: %s", name, strerror(-err));
	return front_answer(k, msg, reply, 0);
}

/* Return: 0, or negative errno when the connection must be closed. */
static int front_dispatch(struct keeper *k, struct vhost_msg *msg)
{
	struct vhost_msg reply = { 0 };
	int err = keeper_check(k, msg);

	if (err == -EINVAL)
		return front_answer(k, msg, &reply, err);
	if (err < 0)
		return err;
	err = front_forward(k, msg, &reply);
	if (err == 0) {
		err = front_done(k, msg, &reply);
		vhost_msg_close_fds(&reply);
		return err;
	}
	/* Nobody there to do it: say so if the front-end listens, else part with it. */
	if (err == -EIO && vhost_msg_info(msg->header.request)->reply == VHOST_REPLY_ACK &&
	    (msg->header.flags & VHOST_FLAG_NEED_REPLY) &&
	    keeper_state_has(&k->state, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return front_answer(k, msg, &reply, err);
	return err;
}

static int front_receive_one(struct keeper *k)
{
	struct vhost_msg msg;
	int err;

	/* How many queues there are, and what is offered, is the back-end's to say: none has come yet. */
	if (!k->had_backend) {
		err = keeper_wait_backend(k);
		if (!keeper_front_connected(k))
			return -ECONNABORTED;
		if (err < 0 && err != -ETIMEDOUT)
			return err;
	}
	err = vhost_receive(&k->front_rx, k->front.fd, &msg);
	if (err == -EPROTO)
		return keeper_refuse(k, err, "message %u (%s): %s", k->front_rx.msg.header.request,
				     vhost_msg_name(k->front_rx.msg.header.request),
				     k->front_rx.error);
	if (err <= 0)
		return err;
	err = front_dispatch(k, &msg);
	vhost_msg_close_fds(&msg);
	return err < 0 ? err : 1;
}

static void front_ready(void *ctx, uint32_t events)
{
	struct keeper *k = ctx;
	int err = 1;

	for (int i = 0; i < FRONT_BATCH && err > 0; i++)
		err = front_receive_one(k);
	if (err >= 0 || !keeper_front_connected(k))
		return;
	if (err == -EPIPE || err == -ECONNRESET) {
		if (log_ratelimit_pass(&k->ratelimit))
			log_info("keeper: front-end disconnected");
	} else {
		keeper_warn(k, "closing the connection: %s", strerror(-err));
	}
	keeper_front_end(k);
}

void keeper_front_begin(struct keeper *k, int *sock)
{
	int err;

	vhost_receiver_init(&k->front_rx, VHOST_STREAM_REQUESTS);
	k->front = (struct loop_watch){ *sock, front_ready, k };
	err = loop_add(k->loop, &k->front, EPOLLIN);
	if (err < 0) {
		keeper_warn(k, "cannot serve a front-end: %s", strerror(-err));
		k->front.fd = -1;
		return;
	}
	*sock = -1;
	if (log_ratelimit_pass(&k->ratelimit))
		log_info("keeper: front-end connected");
}
