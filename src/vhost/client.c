/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end side of vhost-user: negotiation, shared memory, rings, and the way back after a reset or a lost back-end.
 */
#include "vhost/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vhost/link.h"

#define VIRTIO_F_VERSION_1 32
#define RING_ALIGN	   4096

struct vhost_client {
	int sock;
	int mem_fd;
	int err_fd;
	uint8_t *mem;
	size_t mem_bytes;
	size_t arena_off;
	uint64_t features;
	uint64_t protocol_features;
	int inflight_fd;
	struct vhost_inflight inflight;
	struct vhost_client_config config;
	struct vhost_client_ring *rings;
};

static int client_ask(struct vhost_client *c, uint32_t request, const void *payload, size_t size,
		      void *reply, size_t reply_size)
{
	return vhost_link_ask(c->sock, request, payload, size, reply, reply_size,
			      VHOST_CLIENT_TIMEOUT_MS);
}

static bool has_protocol(const struct vhost_client *c, unsigned int feature)
{
	return c->protocol_features & bit64(feature);
}

/* A message without a reply of its own. Where the back-end can say whether it did what was asked, it is heard. */
static int client_tell(struct vhost_client *c, uint32_t request, const void *payload, size_t size,
		       int fd)
{
	bool ack = has_protocol(c, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct vhost_msg reply = {};
	int err = vhost_link_send(c->sock, request, ack ? VHOST_FLAG_NEED_REPLY : 0, payload, size,
				  fd);

	if (err < 0 || !ack)
		return err;
	err = vhost_link_receive(c->sock, &reply, VHOST_CLIENT_TIMEOUT_MS);
	if (err < 0)
		return err;
	vhost_msg_close_fds(&reply);
	if (reply.header.request != request || reply.header.size != sizeof(uint64_t))
		return -EPROTO;
	/* Non-zero is all that the protocol says of a refusal; ours is an errno. */
	return reply.payload.u64 ? -EREMOTEIO : 0;
}

/* Back-ends answer a queue that they do not have in ways of their own, some by their end: ask first. @offered: its features */
static int client_check_queues(struct vhost_client *c, uint64_t offered)
{
	uint64_t nr = 0;
	int err = client_ask(c, VHOST_USER_GET_QUEUE_NUM, NULL, 0, &nr, sizeof(nr));

	if (err < 0)
		return err;
	/* It counts the queue of notifications, which is none where it is not taken. */
	if (nr && offered & bit64(VIRTIO_FS_F_NOTIFICATION) && !vhost_client_notifies(c))
		nr--;
	if (nr >= c->config.nr_queues)
		return 0;
	if (!c->config.nr_queues_min ||
	    nr < c->config.nr_queues_min + (vhost_client_notifies(c) ? 1 : 0))
		return -ERANGE;
	c->config.nr_queues = (unsigned int)nr;
	return 0;
}

static int client_negotiate_protocol(struct vhost_client *c, uint64_t features)
{
	uint64_t offered = 0;
	uint64_t wish = bit64(VHOST_USER_PROTOCOL_F_MQ) | bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
			bit64(VHOST_USER_PROTOCOL_F_CONFIG) | bit64(VHOST_USER_PROTOCOL_F_STATUS) |
			bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
	int err =
		client_ask(c, VHOST_USER_GET_PROTOCOL_FEATURES, NULL, 0, &offered, sizeof(offered));

	if (err < 0)
		return err;
	if (c->config.inflight)
		wish |= bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
	if (c->config.mem_slots)
		wish |= bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	if (c->config.mem_slots && !(offered & bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)))
		return -EOPNOTSUPP;
	wish = (wish | c->config.extra_protocol) & offered & ~c->config.without_protocol;
	/* No acknowledgement of this one: it is what asks for them. */
	c->protocol_features = 0;
	err = vhost_link_send(c->sock, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &wish, sizeof(wish),
			      -1);
	if (err < 0)
		return err;
	c->protocol_features = wish;
	return has_protocol(c, VHOST_USER_PROTOCOL_F_MQ) ? client_check_queues(c, features) : 0;
}

static uint64_t wanted_features(const struct vhost_client *c, uint64_t *ret_must)
{
	uint64_t wish = bit64(VIRTIO_F_VERSION_1);

	*ret_must = bit64(VIRTIO_F_VERSION_1);
	if (c->config.notifications)
		wish |= bit64(VIRTIO_FS_F_NOTIFICATION);
	if (!c->config.no_protocol)
		wish |= bit64(VHOST_USER_F_PROTOCOL_FEATURES);
	if (c->config.event_idx)
		wish |= bit64(VIRTIO_F_RING_EVENT_IDX);
	if (c->config.indirect_max)
		wish |= bit64(VIRTIO_F_RING_INDIRECT);
	if (c->config.format == VIRTQ_PACKED)
		*ret_must |= bit64(VIRTIO_F_RING_PACKED);
	/* A successor goes on with rings that were made with these. */
	*ret_must |= c->features;
	return wish | *ret_must;
}

static int client_negotiate(struct vhost_client *c)
{
	uint64_t must, offered = 0, features = wanted_features(c, &must);
	int err = client_ask(c, VHOST_USER_GET_FEATURES, NULL, 0, &offered, sizeof(offered));

	if (err < 0)
		return err;
	if ((offered & must) != must)
		return -EOPNOTSUPP;
	if (!c->features) {
		c->features = offered & features;
		c->config.nr_queues += vhost_client_notifies(c);
	}
	if (c->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES))
		err = client_negotiate_protocol(c, offered);
	else if (c->config.mem_slots)
		err = -EOPNOTSUPP;
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_OWNER, NULL, 0, -1);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_FEATURES, &c->features, sizeof(c->features),
				  -1);
	return err;
}

static size_t client_ring_bytes(const struct vhost_client *c)
{
	return round_up_to(virtq_driver_ring_bytes(c->config.format, c->config.queue_size,
						   c->config.indirect_max),
			   (size_t)RING_ALIGN);
}

static int client_make_memory(struct vhost_client *c)
{
	c->arena_off = client_ring_bytes(c) * c->config.nr_queues;
	c->mem_bytes = c->arena_off + round_up_to(c->config.arena_bytes, (size_t)RING_ALIGN);
	c->mem_fd = memfd_new("vhost-client", c->mem_bytes);
	if (c->mem_fd < 0)
		return c->mem_fd;
	c->mem = mmap(NULL, c->mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->mem_fd, 0);
	if (c->mem == MAP_FAILED) {
		c->mem = NULL;
		return -errno;
	}
	return 0;
}

/* Bytes [@off, @off + @size) of the memory as a region of their own. */
static struct vhost_region client_region(const struct vhost_client *c, size_t off, size_t size)
{
	return (struct vhost_region){ .gpa = VHOST_CLIENT_GPA + off,
				      .size = size,
				      .user_addr = (uintptr_t)c->mem + off,
				      .mmap_offset = off };
}

static int client_add_slot(struct vhost_client *c, size_t off, size_t size)
{
	struct vhost_mem_reg reg = { .region = client_region(c, off, size) };

	return size ? client_tell(c, VHOST_USER_ADD_MEM_REG, &reg, sizeof(reg), c->mem_fd) : 0;
}

static int client_share_memory(struct vhost_client *c)
{
	struct vhost_mem_table table = { .nr = 1,
					 .regions = { client_region(c, 0, c->mem_bytes) } };
	int err;

	if (!c->config.mem_slots)
		return client_tell(c, VHOST_USER_SET_MEM_TABLE, &table,
				   offsetof(struct vhost_mem_table, regions) +
					   sizeof(table.regions[0]),
				   c->mem_fd);
	err = client_add_slot(c, 0, c->arena_off);
	return err ? err : client_add_slot(c, c->arena_off, c->mem_bytes - c->arena_off);
}

/* The record outlives the back-end, not this client. */
static int client_get_inflight(struct vhost_client *c)
{
	struct vhost_inflight want = { .nr_queues = (uint16_t)c->config.nr_queues,
				       .queue_size = (uint16_t)c->config.queue_size };
	struct vhost_msg reply = {};
	int err = vhost_link_send(c->sock, VHOST_USER_GET_INFLIGHT_FD, 0, &want, sizeof(want), -1);

	if (err == 0)
		err = vhost_link_receive(c->sock, &reply, VHOST_CLIENT_TIMEOUT_MS);
	if (err < 0)
		return err;
	if (reply.header.request == VHOST_USER_GET_INFLIGHT_FD && reply.nr_fds == 1 &&
	    reply.header.size >= VHOST_INFLIGHT_MIN && reply.payload.inflight.mmap_size) {
		c->inflight = reply.payload.inflight;
		c->inflight_fd = TAKE_FD(reply.fds[0]);
		return 0;
	}
	vhost_msg_close_fds(&reply);
	return -EPROTO;
}

static int client_share_inflight(struct vhost_client *c)
{
	int err = 0;

	if (!has_protocol(c, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) {
		/* What a predecessor recorded is of no use to this one. */
		close_fd(&c->inflight_fd);
		return 0;
	}
	if (c->inflight_fd < 0)
		err = client_get_inflight(c);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_INFLIGHT_FD, &c->inflight, sizeof(c->inflight),
				  c->inflight_fd);
	return err;
}

static int client_make_ring(struct vhost_client *c, unsigned int index)
{
	struct vhost_client_ring *r = &c->rings[index];
	bool indirect = c->features & bit64(VIRTIO_F_RING_INDIRECT);
	uint32_t fresh = c->config.format == VIRTQ_PACKED ? VIRTQ_DRIVER_BASE_PACKED : 0;
	struct virtq_driver_setup setup = {
		.format = c->config.format,
		.size = c->config.queue_size,
		.event_idx = c->features & bit64(VIRTIO_F_RING_EVENT_IDX),
		.indirect_max = indirect ? c->config.indirect_max : 0,
		.base = c->config.base ? c->config.base : fresh,
		.mem = { .base = c->mem, .gpa = VHOST_CLIENT_GPA, .bytes = c->mem_bytes },
		.ring = c->mem + client_ring_bytes(c) * index,
	};

	virtq_driver_free(r->drv);
	r->drv = NULL;
	return virtq_driver_new(&r->drv, &setup);
}

static int client_make_rings(struct vhost_client *c)
{
	int err = 0;

	for (unsigned int i = 0; i < c->config.nr_queues && err == 0; i++)
		err = client_make_ring(c, i);
	return err;
}

static int client_make_fds(struct vhost_client *c)
{
	for (unsigned int i = 0; i < c->config.nr_queues; i++) {
		struct vhost_client_ring *r = &c->rings[i];

		r->kick_fd = eventfd_new();
		if (r->kick_fd < 0)
			return r->kick_fd;
		r->call_fd = eventfd_new();
		if (r->call_fd < 0)
			return r->call_fd;
	}
	if (!c->config.watch_errors)
		return 0;
	c->err_fd = eventfd_new();
	return c->err_fd < 0 ? c->err_fd : 0;
}

static int client_start_ring(struct vhost_client *c, unsigned int index, const char **ret_why)
{
	const struct vhost_client_ring *r = vhost_client_ring(c, index);
	struct vhost_vring_state state = { .index = index, .num = c->config.queue_size };
	struct vhost_vring_addr addr = { .index = index };
	uint64_t fd_index = index;
	struct virtq_setup areas;
	int err;

	virtq_driver_areas(r->drv, &areas);
	addr.desc = (uintptr_t)guest_strip(areas.desc);
	addr.avail = (uintptr_t)guest_strip(areas.driver);
	addr.used = (uintptr_t)guest_strip(areas.device);
	*ret_why = "it refuses rings of so many entries; smaller ones may do";
	err = client_tell(c, VHOST_USER_SET_VRING_NUM, &state, sizeof(state), -1);
	if (err == 0)
		*ret_why = "rings refused";
	state.num = virtq_driver_device_base(r->drv);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_VRING_BASE, &state, sizeof(state), -1);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_VRING_CALL, &fd_index, 8, r->call_fd);
	if (err == 0 && c->err_fd >= 0)
		err = client_tell(c, VHOST_USER_SET_VRING_ERR, &fd_index, 8, c->err_fd);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_VRING_KICK, &fd_index, 8, r->kick_fd);
	state.num = 1;
	if (err == 0 && c->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES))
		err = client_tell(c, VHOST_USER_SET_VRING_ENABLE, &state, sizeof(state), -1);
	return err;
}

int vhost_client_start_ring(struct vhost_client *c, unsigned int index)
{
	const char *why;

	return client_start_ring(c, index, &why);
}

/* Every message was taken when the back-end answers a question behind them. */
static int client_sync(struct vhost_client *c)
{
	uint64_t features;

	return client_ask(c, VHOST_USER_GET_FEATURES, NULL, 0, &features, sizeof(features));
}

static int client_start_rings(struct vhost_client *c, const char **ret_why)
{
	int err = 0;

	for (unsigned int i = 0; i < c->config.nr_queues && err == 0; i++)
		err = client_start_ring(c, i, ret_why);
	return err ? err : client_sync(c);
}

/* The first half of a start: up to where rings can be made. */
static int client_begin(struct vhost_client *c, const char **ret_why)
{
	int err;

	*ret_why = "cannot connect";
	err = c->sock = vhost_link_connect(c->config.path, VHOST_CLIENT_TIMEOUT_MS);
	if (err < 0)
		return err;
	*ret_why = "features do not fit";
	err = client_negotiate(c);
	if (err < 0)
		return err;
	if (!c->mem) {
		*ret_why = "no memory";
		err = client_make_memory(c);
		if (err == 0)
			err = client_make_fds(c);
		if (err < 0)
			return err;
	}
	*ret_why = "memory refused";
	err = client_share_memory(c);
	if (err < 0)
		return err;
	*ret_why = "in-flight record refused";
	return client_share_inflight(c);
}

int vhost_client_new(struct vhost_client **ret_client, const struct vhost_client_config *config,
		     const char **ret_why)
{
	struct vhost_client *c = calloc(1, sizeof(*c));
	int err;

	*ret_why = "no memory";
	if (!c)
		return -ENOMEM;
	c->config = *config;
	c->sock = c->mem_fd = c->err_fd = c->inflight_fd = -1;
	c->rings = calloc(config->nr_queues + 1, sizeof(*c->rings));
	for (unsigned int i = 0; c->rings && i <= config->nr_queues; i++)
		c->rings[i].kick_fd = c->rings[i].call_fd = -1;
	err = c->rings ? client_begin(c, ret_why) : -ENOMEM;
	if (err == 0) {
		*ret_why = "rings refused";
		err = client_make_rings(c);
	}
	if (err == 0)
		err = client_start_rings(c, ret_why);
	if (err == -ETIMEDOUT)
		*ret_why = "it does not answer";
	if (err < 0) {
		vhost_client_free(c);
		return err;
	}
	/* A successor must have as many. */
	c->config.nr_queues_min = 0;
	*ret_client = c;
	return 0;
}

int vhost_client_reconnect(struct vhost_client *c, const char **ret_why)
{
	bool go_on;
	int err;

	close_fd(&c->sock);
	err = client_begin(c, ret_why);
	if (err < 0)
		return err;
	*ret_why = "rings refused";
	go_on = c->inflight_fd >= 0;
	if (!go_on)
		err = client_make_rings(c);
	if (err == 0)
		err = client_start_rings(c, ret_why);
	if (err < 0)
		return err;
	/* The predecessor may have died between a kick and its look at the ring. */
	for (unsigned int i = 0; i < c->config.nr_queues; i++)
		fd_signal(c->rings[i].kick_fd);
	return go_on;
}

int vhost_client_reset(struct vhost_client *c)
{
	uint64_t status = 0;
	int err = -EOPNOTSUPP;
	const char *why;

	if (has_protocol(c, VHOST_USER_PROTOCOL_F_RESET_DEVICE))
		err = client_tell(c, VHOST_USER_RESET_DEVICE, NULL, 0, -1);
	else if (has_protocol(c, VHOST_USER_PROTOCOL_F_STATUS))
		err = client_tell(c, VHOST_USER_SET_STATUS, &status, sizeof(status), -1);
	if (err == 0)
		err = client_tell(c, VHOST_USER_SET_FEATURES, &c->features, sizeof(c->features),
				  -1);
	/* Slots stay until they are removed; a table is always whole. */
	if (err == 0 && !c->config.mem_slots)
		err = client_share_memory(c);
	/* What was under way is forgotten: so must its record be. */
	close_fd(&c->inflight_fd);
	if (err == 0)
		err = client_share_inflight(c);
	if (err == 0)
		err = client_make_rings(c);
	return err ? err : client_start_rings(c, &why);
}

int vhost_client_read_config(struct vhost_client *c, uint32_t offset, void *buf, uint32_t len)
{
	struct vhost_config want = { .offset = offset, .size = len };
	struct vhost_config got = {};
	size_t bytes = VHOST_CONFIG_HEAD + (size_t)len;
	int err;

	assert(len <= VHOST_CONFIG_MAX);
	if (!has_protocol(c, VHOST_USER_PROTOCOL_F_CONFIG))
		return -EOPNOTSUPP;
	err = client_ask(c, VHOST_USER_GET_CONFIG, &want, bytes, &got, bytes);
	if (err < 0)
		return err;
	if (got.offset != offset || got.size != len)
		return -EPROTO;
	memcpy(buf, got.region, len);
	return 0;
}

void vhost_client_free(struct vhost_client *c)
{
	if (!c)
		return;
	close_fd(&c->sock);
	for (unsigned int i = 0; c->rings && i < c->config.nr_queues; i++) {
		virtq_driver_free(c->rings[i].drv);
		close_fd(&c->rings[i].kick_fd);
		close_fd(&c->rings[i].call_fd);
	}
	free(c->rings);
	if (c->mem)
		munmap(c->mem, c->mem_bytes);
	close_fd(&c->mem_fd);
	close_fd(&c->err_fd);
	close_fd(&c->inflight_fd);
	free(c);
}

unsigned int vhost_client_nr_queues(const struct vhost_client *c)
{
	return c->config.nr_queues;
}

bool vhost_client_notifies(const struct vhost_client *c)
{
	return c->features & bit64(VIRTIO_FS_F_NOTIFICATION);
}

const struct vhost_client_ring *vhost_client_ring(const struct vhost_client *c, unsigned int index)
{
	assert(index < c->config.nr_queues);
	return &c->rings[index];
}

int vhost_client_socket(const struct vhost_client *c)
{
	return c->sock;
}

int vhost_client_err_fd(const struct vhost_client *c)
{
	return c->err_fd;
}

int vhost_client_memory(const struct vhost_client *c, struct vhost_region *ret_region)
{
	*ret_region = client_region(c, 0, c->mem_bytes);
	return c->mem_fd;
}

void *vhost_client_arena(const struct vhost_client *c)
{
	return c->mem + c->arena_off;
}

uint64_t vhost_client_features(const struct vhost_client *c)
{
	return c->features;
}

uint64_t vhost_client_protocol_features(const struct vhost_client *c)
{
	return c->protocol_features;
}
