/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front-end may say.
 *
 * As strict as our own device side (vhost/): what that would answer by closing the connection must not come
 * through, or a front-end could take the back-end away from under the keeper. What a message looks like was checked when
 * it was received (vhost/message.c).
 */
#include <errno.h>

#include "keeper/keeper_impl.h"

/* What the keeper can replay. The rest of what a back-end offers is hidden. */
#define KNOWN_PROTOCOL                                                                             \
	(bit64(VHOST_USER_PROTOCOL_F_MQ) | bit64(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |                \
	 bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK) | bit64(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |       \
	 bit64(VHOST_USER_PROTOCOL_F_CONFIG) | bit64(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |      \
	 bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) | \
	 bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | bit64(VHOST_USER_PROTOCOL_F_STATUS))

uint64_t keeper_lets_through(const struct keeper *k)
{
	return KNOWN_PROTOCOL |
	       (k->config.inband_notifications ? bit64(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)
					       : 0);
}

static int check_index(struct keeper *k, const char *name, uint32_t index)
{
	if (index >= k->nr_queues)
		return keeper_refuse(k, -EPROTO, "%s: queue %u, but the device has %u", name, index,
				     k->nr_queues);
	return 0;
}

static int check_ring_fd(struct keeper *k, const char *name, const struct vhost_msg *msg)
{
	int err = check_index(k, name, msg->payload.u64 & VHOST_VRING_INDEX_MASK);

	if (err < 0)
		return err;
	if (msg->nr_fds && vhost_event_fd_check(msg->fds[0]) < 0)
		return keeper_refuse(k, -EINVAL, "%s: not an eventfd or pipe", name);
	return 0;
}

int keeper_check(struct keeper *k, struct vhost_msg *msg)
{
	const struct vhost_msg_info *info = vhost_msg_info(msg->header.request);

	if (info->feature != VHOST_NO_FEATURE && !keeper_state_has(&k->state, info->feature))
		return keeper_refuse(k, -EPROTO,
				     "%s without the protocol feature (bit %u) that it belongs to",
				     info->name, info->feature);
	switch (msg->header.request) {
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_BASE:
	case VHOST_USER_GET_VRING_BASE:
	case VHOST_USER_SET_VRING_ENABLE:
	case VHOST_USER_VRING_KICK:
		return check_index(k, info->name, msg->payload.state.index);
	case VHOST_USER_SET_VRING_ADDR:
		return check_index(k, info->name, msg->payload.addr.index);
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return check_ring_fd(k, info->name, msg);
	case VHOST_USER_ADD_MEM_REG:
		if (k->state.nr_regions == MEM_REGIONS_MAX)
			return keeper_refuse(k, -EINVAL, "ADD_MEM_REG: %u regions already",
					     MEM_REGIONS_MAX);
		return 0;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		if (msg->payload.u64 & ~k->offered)
			return keeper_refuse(
				k, -EPROTO,
				"SET_PROTOCOL_FEATURES %#llx has bits that were not offered",
				(unsigned long long)msg->payload.u64);
		return 0;
	default:
		return 0;
	}
}
