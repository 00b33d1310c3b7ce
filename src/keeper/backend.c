/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The connection to a back-end: questions, what it offers, and its way back to a clean slate.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "keeper/keeper_impl.h"

/*
 * Protocol features that the keeper uses itself, whatever the front-end wants: to see errors, to know what was in
 * flight, to count queues, to let go of a front-end.
 */
#define OWN_PROTOCOL                                                                            \
	(bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK) | bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | \
	 bit64(VHOST_USER_PROTOCOL_F_MQ) | bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |          \
	 bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))

struct keeper_backend *keeper_backend_new(int sock, void *tag)
{
	struct keeper_backend *be = calloc(1, sizeof(*be));

	if (!be) {
		close_fd(&sock);
		return NULL;
	}
	be->watch.fd = sock;
	be->tag = tag;
	be->nr_queues = VHOST_QUEUES_MAX;
	vhost_receiver_init(&be->rx, VHOST_STREAM_REPLIES);
	return be;
}

void keeper_backend_free(struct keeper *k, struct keeper_backend *be)
{
	if (!be)
		return;
	if (be->watched)
		loop_remove(k->loop, &be->watch);
	vhost_receiver_fini(&be->rx);
	close_fd(&be->watch.fd);
	free(be);
}

int keeper_ask(struct keeper *k, struct keeper_backend *be, struct vhost_msg *msg,
	       struct vhost_msg *reply)
{
	const struct vhost_msg_info *info = vhost_msg_info(msg->header.request);
	const uint64_t deadline = clock_now_ns() + k->config.reply_ms * NSEC_PER_MSEC;
	const bool acks = be->protocol & bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK);
	const bool due = info->reply == VHOST_REPLY_ALWAYS || acks;

	memset(reply, 0, sizeof(*reply));
	msg->header.flags = VHOST_FLAG_VERSION;
	if (info->reply == VHOST_REPLY_ACK && acks)
		msg->header.flags |= VHOST_FLAG_NEED_REPLY;
	return vhost_ask(be->watch.fd, &be->rx, msg, deadline, k->quit_fd, due ? reply : NULL);
}

int keeper_tell(struct keeper *k, struct keeper_backend *be, uint32_t request, const void *payload,
		size_t size, int fd)
{
	struct vhost_msg msg = { .header = { .request = request, .size = (uint32_t)size } };
	struct vhost_msg reply;
	int err;

	if (size)
		memcpy(&msg.payload, payload, size);
	if (fd >= 0)
		msg.fds[msg.nr_fds++] = fd;
	err = keeper_ask(k, be, &msg, &reply);
	if (err < 0)
		return err;
	vhost_msg_close_fds(&reply);
	if (vhost_msg_info(request)->reply == VHOST_REPLY_ACK && reply.payload.u64)
		return keeper_refuse(k, -EREMOTEIO, "the back-end refuses %s: error %llu",
				     vhost_msg_info(request)->name,
				     (unsigned long long)reply.payload.u64);
	return 0;
}

static int ask_u64(struct keeper *k, struct keeper_backend *be, uint32_t request, uint64_t *ret)
{
	struct vhost_msg msg = { .header = { .request = request } };
	struct vhost_msg reply;
	int err = keeper_ask(k, be, &msg, &reply);

	if (err == 0)
		*ret = reply.payload.u64;
	return err;
}

int keeper_backend_greet(struct keeper *k, struct keeper_backend *be)
{
	uint64_t protocol, nr = 0;
	int err = ask_u64(k, be, VHOST_USER_GET_FEATURES, &be->features);

	if (err < 0 || !(be->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES)))
		return err;
	err = ask_u64(k, be, VHOST_USER_GET_PROTOCOL_FEATURES, &be->offered);
	be->offered &= keeper_lets_through(k);
	be->own = be->offered & OWN_PROTOCOL;
	protocol = (be->offered & k->state.protocol) | be->own;
	if (err == 0)
		err = keeper_tell(k, be, VHOST_USER_SET_PROTOCOL_FEATURES, &protocol,
				  sizeof(protocol), -1);
	if (err < 0)
		return err;
	be->protocol = protocol;
	if (protocol & bit64(VHOST_USER_PROTOCOL_F_MQ)) {
		err = ask_u64(k, be, VHOST_USER_GET_QUEUE_NUM, &nr);
		if (err < 0)
			return err;
		be->nr_queues = (unsigned int)min_of(nr, (uint64_t)VHOST_QUEUES_MAX);
	}
	if (protocol & bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		err = ask_u64(k, be, VHOST_USER_GET_MAX_MEM_SLOTS, &be->nr_slots);
	return err;
}

/* How many the driver may use: where it did not take the one for notifications, the back-end counts one that is none of requests. */
static unsigned int usable_queues(const struct keeper *k, const struct keeper_backend *be)
{
	const bool spare = be->features & ~k->state.features & bit64(VIRTIO_FS_F_NOTIFICATION);

	return be->nr_queues ? be->nr_queues - spare : 0;
}

int keeper_backend_fits(struct keeper *k, const struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	const unsigned int nr = keeper_state_nr_rings(s), has = usable_queues(k, be);
	const bool inflight = be->protocol & bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);

	if (s->features & ~be->features)
		return keeper_refuse(k, -EOPNOTSUPP, "the new back-end lacks features %#llx",
				     (unsigned long long)(s->features & ~be->features));
	if (s->protocol & ~be->offered)
		return keeper_refuse(k, -EOPNOTSUPP,
				     "the new back-end lacks protocol features %#llx",
				     (unsigned long long)(s->protocol & ~be->offered));
	if (nr > has)
		return keeper_refuse(k, -EOPNOTSUPP,
				     "the new back-end has %u queues, %u are in use", has, nr);
	if (s->slots && s->nr_regions > be->nr_slots)
		return keeper_refuse(k, -EOPNOTSUPP,
				     "the new back-end takes %llu memory regions, %u are in use",
				     (unsigned long long)be->nr_slots, s->nr_regions);
	if (k->was_killed && keeper_state_running(s) && !inflight)
		return keeper_refuse(k, -EOPNOTSUPP,
				     "the new back-end cannot take over what was in flight when "
				     "the old one died");
	return 0;
}

/* Return: as keeper_tell(), but what it refuses does not matter: it is asked to let go. */
static int let_go(struct keeper *k, struct keeper_backend *be, uint32_t request,
		  const void *payload, size_t size)
{
	int err = keeper_tell(k, be, request, payload, size, -1);

	return err == -EREMOTEIO ? 0 : err;
}

static int release_memory(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	int err = 0;

	for (unsigned int i = 0; i < s->nr_regions && err == 0; i++) {
		struct vhost_mem_reg reg = { .region = s->regions[i].region };

		err = let_go(k, be, VHOST_USER_REM_MEM_REG, &reg, sizeof(reg));
	}
	return err;
}

static int release_ring_fds(struct keeper *k, struct keeper_backend *be)
{
	int err = 0;

	for (uint64_t i = 0; i < VHOST_QUEUES_MAX && err == 0; i++) {
		const struct keeper_ring *r = &k->state.rings[i];
		const uint64_t word = i | VHOST_VRING_NOFD;

		if (r->call_fd >= 0)
			err = let_go(k, be, VHOST_USER_SET_VRING_CALL, &word, sizeof(word));
		if (r->err_fd >= 0 && err == 0)
			err = let_go(k, be, VHOST_USER_SET_VRING_ERR, &word, sizeof(word));
	}
	return err;
}

int keeper_backend_reset(struct keeper *k, struct keeper_backend *be)
{
	int err = keeper_stop_rings(k, be);

	if (err == 0)
		err = release_ring_fds(k, be);
	if (err == 0 && be->protocol & bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE))
		err = let_go(k, be, VHOST_USER_RESET_DEVICE, NULL, 0);
	if (err == 0 && be->protocol & bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		err = release_memory(k, be);
	return err;
}
