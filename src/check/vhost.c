/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of vhost-user messages that every back-end has: features, memory, rings that stop and go on, disconnects.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "check/check_impl.h"
#include "vhost/link.h"

#define RING_SIZE   64u
#define EXTRA_GPA   UINT64_C(0x7000000000)
#define EXTRA_BYTES 65536u

static struct peer *vhost_peer(struct check *c, enum virtq_format format)
{
	const struct peer_setup setup = { .format = format,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2 };

	return check_peer(c, &setup);
}

static enum check_status works(struct check *c, struct peer *p, const char *when)
{
	int err = peer_works(p, FIRST_QUEUE);

	return err < 0 ? check_error(c, p, err, when) : check_holds(c);
}

/* What a message that the back-end must take comes to. Return: true when it was taken. */
static bool told(struct check *c, int err, const char *what, enum check_status *ret_status)
{
	if (err > 0)
		*ret_status = check_fails(c, "%s: refused", what);
	else if (err < 0)
		*ret_status = check_fails(c, "%s: %s", what, strerror(-err));
	return err == 0;
}

static enum check_status rule_get_features(struct check *c, uint64_t arg)
{
	uint64_t first = 0, second = 0;
	autoclose int sock = check_link(c);
	int err;

	if (sock < 0)
		return check_no_peer(c);
	err = vhost_link_ask(sock, VHOST_USER_GET_FEATURES, NULL, 0, &first, 8, ANSWER_MS);
	if (err == 0)
		err = vhost_link_ask(sock, VHOST_USER_GET_FEATURES, NULL, 0, &second, 8, ANSWER_MS);
	if (err < 0)
		return check_fails(c, "%s", strerror(-err));
	return first == second ? check_end(c, CHECK_HOLDS, "%#llx", (unsigned long long)first)
			       : check_fails(c, "%#llx, then %#llx", (unsigned long long)first,
					     (unsigned long long)second);
}

/* A message that arrives byte by byte is one message. */
static enum check_status rule_byte_by_byte(struct check *c, uint64_t arg)
{
	const struct vhost_header ask = { VHOST_USER_GET_FEATURES, VHOST_FLAG_VERSION, 0 };
	autoclose int sock = check_link(c);
	struct vhost_msg reply = {};
	int err;

	if (sock < 0)
		return check_no_peer(c);
	for (size_t i = 0; i < sizeof(ask); i++) {
		if (send(sock, (const uint8_t *)&ask + i, 1, MSG_NOSIGNAL) != 1)
			return check_fails(c, "byte %zu: %s", i, strerror(errno));
		poll(NULL, 0, 1);
	}
	err = vhost_link_receive(sock, &reply, ANSWER_MS);
	if (err < 0)
		return check_fails(c, "%s", strerror(-err));
	vhost_msg_close_fds(&reply);
	if (reply.header.request != ask.request || reply.header.size != 8 ||
	    !(reply.header.flags & VHOST_FLAG_REPLY))
		return check_fails(c, "message %u of %u bytes with flags %#x", reply.header.request,
				   reply.header.size, reply.header.flags);
	return check_holds(c);
}

static enum check_status rule_subset(struct check *c, uint64_t arg)
{
	const struct peer_setup setup = {
		.format = VIRTQ_SPLIT, .queue_size = RING_SIZE, .nr_queues = 2, .no_protocol = true
	};
	struct peer *p = check_peer(c, &setup);

	return p ? works(c, p, "GETATTR") : check_no_peer(c);
}

static enum check_status rule_enable(struct check *c, uint64_t arg)
{
	struct vhost_vring_state state = { .index = FIRST_QUEUE };
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	const struct fuse_getattr_in in = {};
	struct ask ask = { .opcode = FUSE_GETATTR,
			   .nodeid = FUSE_ROOT_ID,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_attr_out) };
	enum check_status status;
	unsigned int slot;
	int err;

	if (!p)
		return check_no_peer(c);
	if (!(vhost_client_features(p->vhost) & bit64(VHOST_USER_F_PROTOCOL_FEATURES)))
		return check_end(c, CHECK_NOT_OFFERED, "no protocol features");
	if (!told(c, peer_tell(p, VHOST_USER_SET_VRING_ENABLE, &state, sizeof(state), -1),
		  "disable", &status))
		return status;
	if (!peer_answers(p))
		return check_fails(c, "no answer behind it");
	err = peer_submit(p, FIRST_QUEUE, 0, &ask);
	if (err < 0)
		return check_fails(c, "%s", p->problem);
	peer_kick(p, FIRST_QUEUE);
	if (peer_wait(p, FIRST_QUEUE, QUIET_MS, &slot) != -ETIMEDOUT)
		return check_fails(c, "a disabled ring is served");
	p->problem[0] = '\0';
	state.num = 1;
	if (!told(c, peer_tell(p, VHOST_USER_SET_VRING_ENABLE, &state, sizeof(state), -1), "enable",
		  &status))
		return status;
	err = peer_wait(p, FIRST_QUEUE, ANSWER_MS, &slot);
	return err < 0 ? check_error(c, p, err, "once enabled") : works(c, p, "behind it");
}

/* Stop, look at the position that is told, go on there. */
static enum check_status rule_stop(struct check *c, uint64_t format)
{
	struct vhost_vring_state state = { .index = FIRST_QUEUE }, got = {};
	struct peer *p = vhost_peer(c, (enum virtq_format)format);
	uint32_t wanted;
	int err;

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < 3; i++) {
		err = vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_VRING_BASE,
				     &state, sizeof(state), &got, sizeof(got), ANSWER_MS);
		if (err < 0)
			return check_fails(c, "GET_VRING_BASE: %s", strerror(-err));
		wanted = virtq_driver_device_base(vhost_client_ring(p->vhost, FIRST_QUEUE)->drv);
		if (got.num != wanted)
			return check_fails(c, "position %#x instead of %#x", got.num, wanted);
		err = vhost_client_start_ring(p->vhost, FIRST_QUEUE);
		if (err < 0)
			return check_fails(c, "start again: %s", strerror(-err));
		if (works(c, p, "started again") != CHECK_HOLDS)
			return CHECK_DOES_NOT;
	}
	return check_holds(c);
}

static enum check_status rule_stopped_is_quiet(struct check *c, uint64_t arg)
{
	struct vhost_vring_state state = { .index = FIRST_QUEUE }, got = {};
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	const struct fuse_getattr_in in = {};
	struct ask ask = { .opcode = FUSE_GETATTR,
			   .nodeid = FUSE_ROOT_ID,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_attr_out) };
	unsigned int slot;
	int err;

	if (!p)
		return check_no_peer(c);
	err = vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_VRING_BASE, &state,
			     sizeof(state), &got, sizeof(got), ANSWER_MS);
	if (err == 0)
		err = peer_submit(p, FIRST_QUEUE, 0, &ask);
	if (err < 0)
		return check_fails(c, "GET_VRING_BASE: %s", strerror(-err));
	peer_kick(p, FIRST_QUEUE);
	fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	if (peer_wait(p, FIRST_QUEUE, QUIET_MS, &slot) != -ETIMEDOUT)
		return check_fails(c, "a stopped ring is served");
	p->problem[0] = '\0';
	err = vhost_client_start_ring(p->vhost, FIRST_QUEUE);
	if (err < 0)
		return check_fails(c, "start again: %s", strerror(-err));
	/* What was offered meanwhile counts, with or without another notification. */
	fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	err = peer_wait(p, FIRST_QUEUE, ANSWER_MS, &slot);
	return err < 0 ? check_error(c, p, err, "started again") : check_holds(c);
}

static enum check_status rule_new_call(struct check *c, uint64_t arg)
{
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	const struct vhost_client_ring *ring;
	autoclose int call = eventfd_new();
	uint64_t index = FIRST_QUEUE;
	enum check_status status;
	struct pollfd pfd = { .fd = call, .events = POLLIN };

	if (!p)
		return check_no_peer(c);
	if (call < 0 || !told(c, peer_tell(p, VHOST_USER_SET_VRING_CALL, &index, 8, call),
			      "SET_VRING_CALL", &status))
		return call < 0 ? check_fails(c, "no eventfd") : status;
	if (!peer_answers(p))
		return check_fails(c, "no answer behind it");
	ring = vhost_client_ring(p->vhost, FIRST_QUEUE);
	if (virtq_driver_call_enable(ring->drv))
		return check_fails(c, "a chain came back that was not offered");
	status = works(c, p, "GETATTR");
	if (status != CHECK_HOLDS)
		return status;
	return poll(&pfd, 1, ANSWER_MS) > 0 ? check_holds(c) : check_fails(c, "it is not used");
}

static enum check_status rule_no_call(struct check *c, uint64_t arg)
{
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	uint64_t word = FIRST_QUEUE | VHOST_VRING_NOFD;
	enum check_status status;

	if (!p)
		return check_no_peer(c);
	if (!told(c, peer_tell(p, VHOST_USER_SET_VRING_CALL, &word, 8, -1), "SET_VRING_CALL",
		  &status))
		return status;
	return works(c, p, "GETATTR, polled for");
}

/* All of the memory once more, with @extra beside it. Return: 0; 1: refused; negative errno. */
static int set_table(struct peer *p, const struct vhost_region *extra, int fd)
{
	bool ack =
		vhost_client_protocol_features(p->vhost) & bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct vhost_msg msg = {
		.header = { .request = VHOST_USER_SET_MEM_TABLE,
			    .flags = VHOST_FLAG_VERSION | (ack ? VHOST_FLAG_NEED_REPLY : 0) },
	};
	struct vhost_mem_table *table = &msg.payload.mem;
	struct vhost_msg reply = {};
	int err;

	msg.fds[0] = vhost_client_memory(p->vhost, &table->regions[0]);
	msg.nr_fds = 1;
	if (extra) {
		table->regions[1] = *extra;
		msg.fds[msg.nr_fds++] = fd;
	}
	table->nr = msg.nr_fds;
	msg.header.size = (uint32_t)(offsetof(struct vhost_mem_table, regions) +
				     table->nr * sizeof(table->regions[0]));
	err = vhost_send(vhost_client_socket(p->vhost), &msg);
	if (err == 0 && ack)
		err = vhost_link_receive(vhost_client_socket(p->vhost), &reply, ANSWER_MS);
	vhost_msg_close_fds(&reply);
	return err ? err : reply.payload.u64 != 0;
}

static enum check_status rule_memory_grows(struct check *c, uint64_t arg)
{
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	autoclose int extra = memfd_new("fusewire-check", EXTRA_BYTES);
	struct vhost_region region = { .gpa = EXTRA_GPA,
				       .size = EXTRA_BYTES,
				       .user_addr = EXTRA_GPA };
	enum check_status status;

	if (!p)
		return check_no_peer(c);
	if (extra < 0)
		return check_end(c, CHECK_NOT_CHECKED, "no memory");
	for (unsigned int i = 0; i < 3; i++) {
		int err = set_table(p, i % 2 ? NULL : &region, extra);

		if (!told(c, err, "SET_MEM_TABLE", &status))
			return status;
		status = works(c, p, "behind it");
		if (status != CHECK_HOLDS)
			return status;
	}
	return check_holds(c);
}

static enum check_status rule_set_owner(struct check *c, uint64_t arg)
{
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);

	return p ? works(c, p, "behind it") : check_no_peer(c);
}

static enum check_status rule_next_front_end(struct check *c, uint64_t arg)
{
	for (unsigned int i = 0; i < 3; i++) {
		struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
		enum check_status status;

		if (!p)
			return check_no_peer(c);
		if (c->nr_restarts && i == 0)
			return check_fails(c, "it ends with its front-end");
		status = works(c, p, "GETATTR");
		if (status != CHECK_HOLDS)
			return status;
	}
	return c->nr_restarts ? check_fails(c, "it ends with its front-end") : check_holds(c);
}

/* Whatever becomes of it, the first is served. */
static enum check_status rule_second_front_end(struct check *c, uint64_t arg)
{
	struct peer *p = vhost_peer(c, VIRTQ_SPLIT);
	enum check_status status;
	int second;

	if (!p)
		return check_no_peer(c);
	second = vhost_link_connect(c->config->path, QUIET_MS);
	status = works(c, p, "beside a second front-end");
	if (second >= 0)
		close(second);
	return status == CHECK_HOLDS ? works(c, p, "behind a second front-end") : status;
}

static enum check_status rule_vanishes(struct check *c, uint64_t arg)
{
	const struct fuse_getattr_in in = {};
	struct peer *p;

	for (unsigned int round = 0; round < 5; round++) {
		struct ask ask = { .opcode = FUSE_GETATTR,
				   .nodeid = FUSE_ROOT_ID,
				   .args = &in,
				   .args_bytes = sizeof(in),
				   .in_bytes = sizeof(struct fuse_attr_out) };

		p = vhost_peer(c, VIRTQ_SPLIT);
		if (!p)
			return check_no_peer(c);
		for (unsigned int i = 0; i < PEER_SLOTS; i++) {
			if (peer_submit(p, FIRST_QUEUE, i, &ask) < 0)
				return check_fails(c, "%s", p->problem);
		}
		peer_kick(p, FIRST_QUEUE);
		/* Closed with all of them under way. */
		check_drop_own(c);
	}
	p = vhost_peer(c, VIRTQ_SPLIT);
	return p ? works(c, p, "the next front-end") : check_no_peer(c);
}

#define VHOST(clause, what, fn, arg)                                \
	{                                                           \
		"vhost-user", clause, what, TURN_OWN, fn, arg, NULL \
	}

/* clang-format off */
static const struct check_rule rules[] = {
	VHOST("GET_FEATURES", "is answered, with the same each time", rule_get_features, 0),
	VHOST("SET_FEATURES", "without VHOST_USER_F_PROTOCOL_FEATURES rings are enabled from the start", rule_subset, 0),
	VHOST("SET_OWNER", "a front-end that does as QEMU does is served", rule_set_owner, 0),
	VHOST("Header", "a message that comes byte by byte is one message", rule_byte_by_byte, 0),
	VHOST("SET_MEM_TABLE", "the table may change while rings run", rule_memory_grows, 0),
	VHOST("SET_VRING_ENABLE", "a disabled ring is not served, until it is enabled", rule_enable, 0),
	VHOST("GET_VRING_BASE", "tells where a split ring stopped; it goes on there", rule_stop, VIRTQ_SPLIT),
	VHOST("GET_VRING_BASE", "tells where a packed ring stopped; it goes on there", rule_stop, VIRTQ_PACKED),
	VHOST("GET_VRING_BASE", "a stopped ring is not served, until it is started", rule_stopped_is_quiet, 0),
	VHOST("SET_VRING_CALL", "the descriptor may change while the ring runs", rule_new_call, 0),
	VHOST("SET_VRING_CALL", "without a descriptor the ring is polled", rule_no_call, 0),
	VHOST("Communication", "one front-end after the other", rule_next_front_end, 0),
	VHOST("Communication", "a second front-end does not disturb the first", rule_second_front_end, 0),
	VHOST("Communication", "a front-end that vanishes with requests under way", rule_vanishes, 0),
};
/* clang-format on */

const struct check_table check_vhost_rules = { rules, array_size(rules) };
