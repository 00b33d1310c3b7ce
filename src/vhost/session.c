/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection's life: receive, check against the table, handle, answer.
 *
 * Theory of operation
 * -------------------
 * Each message ends in one of three ways. Done: the message's own reply, or an acknowledgement of 0 where one
 * is wanted. Could not be done (no memory, a ring that cannot run): the acknowledgement says so, or, when none is
 * wanted, the log; the connection goes on, since the cause may be the guest's doing and the next guest boot
 * must find a working device. Violation of the protocol (-EPROTO): the log, and the connection is closed.
 *
 * A reply that does not fit into the socket closes the connection too: a front-end that does not read its
 * replies is broken, and we never wait for it.
 */
#include "vhost/session.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* Messages per turn of the loop: a front-end that never stops talking must not starve other watches. */
#define SESSION_BATCH 16

static int session_answer(struct vhost_session *s, const struct vhost_msg_info *info,
			  const struct vhost_msg *msg, struct vhost_msg *reply, int result)
{
	bool ack = (msg->header.flags & VHOST_FLAG_NEED_REPLY) &&
		   vhost_has_protocol(s, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	int err;

	if (info->reply == VHOST_REPLY_ACK) {
		if (!ack)
			return 0;
		reply->payload.u64 = result < 0 ? (uint64_t)-result : 0;
		reply->header.size = sizeof(uint64_t);
	}
	reply->header.request = msg->header.request;
	reply->header.flags = VHOST_FLAG_VERSION | VHOST_FLAG_REPLY;
	err = vhost_send(s->watch.fd, reply);
	if (err == -EPIPE || err == -ECONNRESET)
		return err;
	if (err < 0)
		return vhost_refuse(s, err, "cannot send the reply to %s: %s", info->name,
				    strerror(-err));
	return 0;
}

/* Return: 0, or negative errno when the connection must be closed. */
static int session_dispatch(struct vhost_session *s, struct vhost_msg *msg)
{
	const struct vhost_msg_info *info = vhost_msg_info(msg->header.request);
	struct vhost_msg reply = { 0 };
	int result, err;

	log_debug("vhost-user: %s, %u bytes, %u fds", info->name, msg->header.size, msg->nr_fds);
	if (info->feature != VHOST_NO_FEATURE && !vhost_has_protocol(s, info->feature))
		return vhost_refuse(s, -EPROTO,
				    "%s without the protocol feature (bit %u) that it belongs to",
				    info->name, info->feature);
	result = info->handler(s, msg, &reply);
	if (result == -EPROTO)
		return result;
	if (result < 0)
		log_warn_ratelimited(s->ratelimit, "vhost-user: %s failed: %s", info->name,
				     strerror(-result));
	err = session_answer(s, info, msg, &reply, result);
	vhost_msg_close_fds(&reply);
	return err;
}

static int session_receive_one(struct vhost_session *s)
{
	struct vhost_msg msg;
	int err = vhost_receive(&s->rx, s->watch.fd, &msg);

	if (err == -EPROTO)
		return vhost_refuse(s, err, "message %u (%s): %s", s->rx.msg.header.request,
				    vhost_msg_name(s->rx.msg.header.request), s->rx.error);
	if (err <= 0)
		return err;
	err = session_dispatch(s, &msg);
	vhost_msg_close_fds(&msg);
	return err < 0 ? err : 1;
}

static void session_ready(void *ctx, uint32_t events)
{
	struct vhost_session *s = ctx;
	int err = 1;

	for (int i = 0; i < SESSION_BATCH && err > 0; i++)
		err = session_receive_one(s);
	if (err >= 0)
		return;
	if (err == -EPIPE || err == -ECONNRESET)
		log_info_ratelimited(s->ratelimit, "vhost-user: front-end disconnected");
	else
		log_warn_ratelimited(s->ratelimit, "vhost-user: closing the connection: %s",
				     strerror(-err));
	s->on_close(s->owner);
}

bool vhost_session_hung_up(const struct vhost_session *s)
{
	struct pollfd p = { .fd = s->watch.fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

int vhost_session_new(struct vhost_session **ret_session, const struct vhost_session_config *config)
{
	struct vhost_session *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->loop = config->loop;
	s->dev = config->dev;
	s->inband_offered = config->inband_offered;
	s->on_close = config->on_close;
	s->owner = config->owner;
	s->ratelimit = config->ratelimit;
	s->backend_fd = -1;
	s->nr_rings = min_of(device_nr_queues(s->dev), (unsigned int)VHOST_QUEUES_MAX);
	vhost_receiver_init(&s->rx, VHOST_STREAM_REQUESTS);
	vhost_rings_init(s);
	vhost_inflight_init(s);
	err = mem_table_new(&s->mem);
	if (err < 0)
		goto fail;
	s->watch = (struct loop_watch){ config->sock, session_ready, s };
	err = loop_add(s->loop, &s->watch, EPOLLIN);
	if (err < 0)
		goto fail;
	pthread_mutex_init(&s->lock, NULL);
	device_attach(s->dev, &vhost_backend_ops, s);
	*ret_session = s;
	return 0;
fail:
	mem_table_put(s->mem);
	free(s);
	return err;
}

void vhost_session_free(struct vhost_session *s)
{
	if (!s)
		return;
	loop_remove(s->loop, &s->watch);
	loop_timer_cancel(s->loop, &s->poll_timer);
	/* After this no thread of the device uses rings, descriptors, memory or the backend channel. */
	device_detach(s->dev);
	vhost_rings_fini(s);
	vhost_backend_close(s);
	vhost_inflight_fini(s);
	dirty_log_put(s->log_base);
	mem_table_put(s->mem);
	vhost_receiver_fini(&s->rx);
	close_fd(&s->watch.fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
