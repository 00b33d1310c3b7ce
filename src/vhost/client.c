/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end side of vhost-user: negotiation, one shared memory region, rings.
 */
#include "vhost/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vhost/message.h"

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
	struct vhost_client_config config;
	struct vhost_client_ring *rings;
};

static int client_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	autoclose int sock = -1;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	return TAKE_FD(sock);
}

static int client_send(struct vhost_client *c, uint32_t request, const void *payload, size_t size,
		       int fd)
{
	struct vhost_msg msg = { .header = { .request = request,
					     .flags = VHOST_FLAG_VERSION,
					     .size = (uint32_t)size } };

	if (size)
		memcpy(&msg.payload, payload, size);
	if (fd >= 0) {
		msg.fds[0] = fd;
		msg.nr_fds = 1;
	}
	return vhost_send(c->sock, &msg);
}

static int recv_exact(int sock, void *buf, size_t len)
{
	char *to = buf;

	while (len) {
		struct pollfd pfd = { .fd = sock, .events = POLLIN };
		ssize_t n;

		n = poll(&pfd, 1, VHOST_CLIENT_TIMEOUT_MS);
		if (n == 0)
			return -ETIMEDOUT;
		if (n > 0)
			n = recv(sock, to, len, 0);
		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			to += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* Send @request and read its reply of exactly @reply_size bytes. */
static int client_ask(struct vhost_client *c, uint32_t request, const void *payload, size_t size,
		      void *reply, size_t reply_size)
{
	struct vhost_header header = { 0 };
	int err = client_send(c, request, payload, size, -1);

	if (err < 0)
		return err;
	err = recv_exact(c->sock, &header, sizeof(header));
	if (err < 0)
		return err;
	if (header.request != request || header.size != reply_size ||
	    !(header.flags & VHOST_FLAG_REPLY))
		return -EPROTO;
	return recv_exact(c->sock, reply, reply_size);
}

/* Back-ends answer a queue that they do not have in ways of their own, some by their end: ask first. */
static int client_check_queues(struct vhost_client *c)
{
	uint64_t nr = 0;
	int err = client_ask(c, VHOST_USER_GET_QUEUE_NUM, NULL, 0, &nr, sizeof(nr));

	if (err < 0)
		return err;
	return nr < c->config.nr_queues ? -ERANGE : 0;
}

static int client_negotiate(struct vhost_client *c)
{
	uint64_t want = bit64(VIRTIO_F_VERSION_1) | bit64(VHOST_USER_F_PROTOCOL_FEATURES);
	uint64_t wish = 0, must = bit64(VIRTIO_F_VERSION_1), offered = 0, protocol = 0;
	int err;

	if (c->config.event_idx)
		wish |= bit64(VIRTIO_F_RING_EVENT_IDX);
	if (c->config.indirect_max)
		wish |= bit64(VIRTIO_F_RING_INDIRECT);
	if (c->config.format == VIRTQ_PACKED)
		must |= bit64(VIRTIO_F_RING_PACKED);
	err = client_ask(c, VHOST_USER_GET_FEATURES, NULL, 0, &offered, sizeof(offered));
	if (err < 0)
		return err;
	if ((offered & must) != must)
		return -EOPNOTSUPP;
	c->features = offered & (want | wish | must);
	if (c->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES)) {
		err = client_ask(c, VHOST_USER_GET_PROTOCOL_FEATURES, NULL, 0, &protocol,
				 sizeof(protocol));
		if (err < 0)
			return err;
		c->protocol_features = protocol & bit64(VHOST_USER_PROTOCOL_F_MQ);
		err = client_send(c, VHOST_USER_SET_PROTOCOL_FEATURES, &c->protocol_features,
				  sizeof(c->protocol_features), -1);
		if (err == 0 && c->protocol_features)
			err = client_check_queues(c);
	}
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_OWNER, NULL, 0, -1);
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_FEATURES, &c->features, sizeof(c->features),
				  -1);
	return err;
}

static size_t client_ring_bytes(const struct vhost_client *c)
{
	return round_up_to(virtq_driver_ring_bytes(c->config.format, c->config.queue_size,
						   c->config.indirect_max),
			   (size_t)RING_ALIGN);
}

static int client_share_memory(struct vhost_client *c)
{
	struct vhost_mem_table table = { .nr = 1 };

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
	table.regions[0] = (struct vhost_region){ .gpa = VHOST_CLIENT_GPA,
						  .size = c->mem_bytes,
						  .user_addr = (uintptr_t)c->mem };
	return client_send(c, VHOST_USER_SET_MEM_TABLE, &table,
			   offsetof(struct vhost_mem_table, regions) + sizeof(table.regions[0]),
			   c->mem_fd);
}

static int client_make_ring(struct vhost_client *c, unsigned int index)
{
	struct vhost_client_ring *r = &c->rings[index];
	bool indirect = c->features & bit64(VIRTIO_F_RING_INDIRECT);
	struct virtq_driver_setup setup = {
		.format = c->config.format,
		.size = c->config.queue_size,
		.event_idx = c->features & bit64(VIRTIO_F_RING_EVENT_IDX),
		.indirect_max = indirect ? c->config.indirect_max : 0,
		.base = c->config.format == VIRTQ_PACKED ? VIRTQ_DRIVER_BASE_PACKED : 0,
		.mem = { .base = c->mem, .gpa = VHOST_CLIENT_GPA, .bytes = c->mem_bytes },
		.ring = c->mem + client_ring_bytes(c) * index,
	};

	r->kick_fd = eventfd_new();
	if (r->kick_fd < 0)
		return r->kick_fd;
	r->call_fd = eventfd_new();
	if (r->call_fd < 0)
		return r->call_fd;
	return virtq_driver_new(&r->drv, &setup);
}

static int client_start_ring(struct vhost_client *c, unsigned int index)
{
	struct vhost_client_ring *r = &c->rings[index];
	struct vhost_vring_state state = { .index = index, .num = c->config.queue_size };
	struct vhost_vring_addr addr = { .index = index };
	uint64_t fd_index = index;
	struct virtq_setup areas;
	int err = client_make_ring(c, index);

	if (err < 0)
		return err;
	virtq_driver_areas(r->drv, &areas);
	addr.desc = (uintptr_t)guest_strip(areas.desc);
	addr.avail = (uintptr_t)guest_strip(areas.driver);
	addr.used = (uintptr_t)guest_strip(areas.device);
	err = client_send(c, VHOST_USER_SET_VRING_NUM, &state, sizeof(state), -1);
	state.num = areas.base;
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_VRING_BASE, &state, sizeof(state), -1);
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_VRING_CALL, &fd_index, 8, r->call_fd);
	if (err == 0 && c->err_fd >= 0)
		err = client_send(c, VHOST_USER_SET_VRING_ERR, &fd_index, 8, c->err_fd);
	if (err == 0)
		err = client_send(c, VHOST_USER_SET_VRING_KICK, &fd_index, 8, r->kick_fd);
	state.num = 1;
	if (err == 0 && c->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES))
		err = client_send(c, VHOST_USER_SET_VRING_ENABLE, &state, sizeof(state), -1);
	return err;
}

static int client_start_rings(struct vhost_client *c)
{
	int err = 0;

	if (c->config.watch_errors) {
		c->err_fd = eventfd_new();
		if (c->err_fd < 0)
			return c->err_fd;
	}
	for (unsigned int i = 0; i < c->config.nr_queues && err == 0; i++)
		err = client_start_ring(c, i);
	return err;
}

/* Every message was taken when the back-end answers a question behind them. */
static int client_sync(struct vhost_client *c)
{
	uint64_t features;

	return client_ask(c, VHOST_USER_GET_FEATURES, NULL, 0, &features, sizeof(features));
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
	c->sock = c->mem_fd = c->err_fd = -1;
	c->rings = calloc(config->nr_queues, sizeof(*c->rings));
	for (unsigned int i = 0; c->rings && i < config->nr_queues; i++)
		c->rings[i].kick_fd = c->rings[i].call_fd = -1;
	err = c->rings ? 0 : -ENOMEM;
	if (err == 0) {
		*ret_why = "cannot connect";
		err = c->sock = client_connect(config->path);
	}
	if (err >= 0) {
		*ret_why = "features do not fit";
		err = client_negotiate(c);
	}
	if (err == 0) {
		*ret_why = "memory refused";
		err = client_share_memory(c);
	}
	if (err == 0) {
		*ret_why = "rings refused";
		err = client_start_rings(c);
	}
	if (err == 0)
		err = client_sync(c);
	if (err < 0) {
		vhost_client_free(c);
		return err;
	}
	*ret_client = c;
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
	free(c);
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

void *vhost_client_arena(const struct vhost_client *c)
{
	return c->mem + c->arena_off;
}
