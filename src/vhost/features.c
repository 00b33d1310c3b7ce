/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Feature negotiation, ownership, status, reset and config space.
 */
#include "vhost/session.h"

#include <errno.h>
#include <string.h>

/* Bits of GET/SET_FEATURES that are ours, not the device's. */
#define VHOST_OWN_FEATURES (bit64(VHOST_F_LOG_ALL) | bit64(VHOST_USER_F_PROTOCOL_FEATURES))

static int reply_u64(struct vhost_msg *reply, uint64_t value)
{
	reply->payload.u64 = value;
	reply->header.size = sizeof(value);
	return 0;
}

int vhost_get_features(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	return reply_u64(reply, device_features(s->dev) | VHOST_OWN_FEATURES);
}

int vhost_set_features(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint64_t want = msg->payload.u64;
	int err;

	if (want & ~(device_features(s->dev) | VHOST_OWN_FEATURES))
		return vhost_refuse(s, -EINVAL, "SET_FEATURES %#llx has bits that were not offered",
				    (unsigned long long)want);
	/*
	 * While rings run only the log may be switched. User-mode Linux never stops a ring otherwise than by
	 * disabling it: features that come afterwards belong to the next driver.
	 */
	if ((want ^ s->features) & ~VHOST_OWN_FEATURES) {
		if (vhost_rings_busy(s))
			return vhost_refuse(s, -EBUSY, "SET_FEATURES: rings run");
		vhost_rings_stop(s);
		err = device_set_features(s->dev, want & ~VHOST_OWN_FEATURES);
		if (err < 0)
			return err;
	}
	s->features = want;
	vhost_rings_update_enabled(s);
	vhost_log_update(s);
	return 0;
}

int vhost_set_owner(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	/* The start of a session; the connection itself says so already. */
	return 0;
}

int vhost_reset_owner(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	/* Deprecated; "ignore this message, or use it to disable all rings". */
	for (unsigned int i = 0; i < s->nr_rings; i++)
		s->rings[i].enabled = false;
	vhost_rings_update_enabled(s);
	return 0;
}

static uint64_t offered_protocol_features(const struct vhost_session *s)
{
	uint64_t bits =
		bit64(VHOST_USER_PROTOCOL_F_MQ) | bit64(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
		bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK) | bit64(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
		bit64(VHOST_USER_PROTOCOL_F_CONFIG) | bit64(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
		bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
		bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
		bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
		bit64(VHOST_USER_PROTOCOL_F_STATUS);

	if (s->inband_offered)
		bits |= bit64(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
	return bits;
}

int vhost_get_protocol_features(struct vhost_session *s, struct vhost_msg *msg,
				struct vhost_msg *reply)
{
	return reply_u64(reply, offered_protocol_features(s));
}

int vhost_set_protocol_features(struct vhost_session *s, struct vhost_msg *msg,
				struct vhost_msg *reply)
{
	const uint64_t want = msg->payload.u64;

	if (want & ~offered_protocol_features(s))
		return vhost_refuse(s, -EPROTO,
				    "SET_PROTOCOL_FEATURES %#llx has bits that were not offered",
				    (unsigned long long)want);
	s->protocol_features = want;
	vhost_backend_update(s);
	return 0;
}

int vhost_get_queue_num(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	return reply_u64(reply, s->nr_rings);
}

int vhost_reset_device(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	vhost_rings_reset(s);
	device_reset(s->dev);
	/* Memory, protocol features and the log stay: they belong to the connection. */
	s->features &= bit64(VHOST_USER_F_PROTOCOL_FEATURES) | bit64(VHOST_F_LOG_ALL);
	return 0;
}

int vhost_set_status(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const uint64_t status = msg->payload.u64;

	if (status > UINT8_MAX)
		return vhost_refuse(s, -EINVAL, "SET_STATUS %#llx: the field has 8 bits",
				    (unsigned long long)status);
	if (status == 0)
		return vhost_reset_device(s, msg, reply);
	device_set_status(s->dev, (uint8_t)status);
	return 0;
}

int vhost_get_status(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	return reply_u64(reply, device_status(s->dev));
}

int vhost_get_config(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const struct vhost_config *want = &msg->payload.config;
	const size_t have = device_config_bytes(s->dev);
	uint32_t off = want->offset, len = want->size;
	int err = 0;

	if (off > VHOST_CONFIG_MAX || len > VHOST_CONFIG_MAX - off || len == 0)
		return vhost_refuse(s, -EINVAL, "GET_CONFIG of %u bytes at %u", len, off);
	/* What lies beyond our config space reads as zero: a front-end may know later fields. */
	if (off < have)
		err = device_config_read(s->dev, off, reply->payload.config.region,
					 min_of(len, (uint32_t)(have - off)));
	if (err < 0)
		return err;
	reply->payload.config.offset = off;
	reply->payload.config.size = len;
	reply->payload.config.flags = want->flags;
	reply->header.size = VHOST_CONFIG_HEAD + len;
	return 0;
}

int vhost_set_config(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	/* No field of a virtio-fs device can be written (virtio 1.2, 5.11.4). */
	return -EPERM;
}
