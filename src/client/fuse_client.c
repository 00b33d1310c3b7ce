/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The FUSE client: memory of all calls, the session's begin and end, FORGET on hiprio.
 *
 * Theory of operation: the arena holds the FORGETs of hiprio, then for each queue the headers and arguments of its calls
 * and their page-aligned payload. Everything is cut at the start; no request allocates.
 */
#include "client/fuse_client.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "client/fuse_client_impl.h"

#define PAGES_DEFAULT 32u
#define PAGES_MAX     (FUSE_CLIENT_DATA_MAX / FUSE_CLIENT_PAGE)
/* What Linux 6.12 says over virtio-fs; without DAX, which needs a memory window. */
#define LINUX_INIT_MINOR 41
#define LINUX_INIT_FLAGS UINT64_C(0x1fd7bfffffb)
#define READAHEAD_BYTES	 (128u << 10)
#define INIT_OUT_MIN	 FUSE_COMPAT_22_INIT_OUT_SIZE

static size_t data_stride(const struct fuse_client_config *config)
{
	return round_up_to((size_t)config->data_bytes, (size_t)FUSE_CLIENT_PAGE);
}

/* Headers lie side by side: page by page, they would all fall into the same few sets of the cache. */
static size_t headers_bytes(const struct fuse_client_config *config)
{
	return round_up_to(sizeof(struct fuse_call_shared) * config->nr_calls,
			   (size_t)FUSE_CLIENT_PAGE);
}

static size_t queue_bytes(const struct fuse_client_config *config)
{
	return headers_bytes(config) + data_stride(config) * config->nr_calls;
}

static size_t forgets_bytes(void)
{
	return round_up_to(FORGETS_MAX * sizeof(struct forget_shared), (size_t)FUSE_CLIENT_PAGE);
}

void fuse_client_fill_header(const struct fuse_client *client, struct fuse_in_header *header,
			     uint32_t opcode, uint64_t nodeid, uint64_t unique, size_t len)
{
	*header = (struct fuse_in_header){
		.len = (uint32_t)len,
		.opcode = opcode,
		.unique = unique,
		.nodeid = nodeid,
		.uid = client->uid,
		.gid = client->gid,
		.pid = 1,
	};
}

static int make_queue(struct fuse_client *client, unsigned int index)
{
	const struct fuse_client_config *config = &client->config;
	struct fuse_queue *q = &client->queues[index];
	uint8_t *at = (uint8_t *)vhost_client_arena(client->vhost) + forgets_bytes() +
		      queue_bytes(config) * index;
	struct fuse_call_shared *shared = (struct fuse_call_shared *)(void *)at;

	q->client = client;
	q->ring = vhost_client_ring(client->vhost, FIRST_REQUEST + index);
	q->busy_poll = config->busy_poll;
	q->poll_max_ns = config->poll_ns;
	q->unique_step = 2 * ((uint64_t)config->nr_queues + 1);
	q->unique = 2 * ((uint64_t)FIRST_REQUEST + index);
	q->calls = calloc(config->nr_calls, sizeof(*q->calls));
	if (!q->calls)
		return -ENOMEM;
	for (unsigned int i = config->nr_calls; i-- > 0;) {
		struct fuse_call *call = &q->calls[i];

		call->shared = &shared[i];
		call->args = shared[i].args;
		call->data = at + headers_bytes(config) + data_stride(config) * i;
		fuse_queue_put(q, call);
	}
	virtq_driver_call_disable(q->ring->drv);
	return 0;
}

static int make_queues(struct fuse_client *client)
{
	int err = 0;

	client->forgets = vhost_client_arena(client->vhost);
	client->forget_unique = 2 * ((uint64_t)client->config.nr_queues + 1);
	/* Without indirect descriptors each takes two. */
	for (unsigned int i = 0; i < min_of(FORGETS_MAX, client->config.queue_size / 2); i++)
		client->free_forgets[client->nr_free_forgets++] = (uint16_t)i;
	virtq_driver_call_disable(vhost_client_ring(client->vhost, HIPRIO)->drv);
	client->queues =
		aligned_alloc(CACHE_LINE, sizeof(*client->queues) * client->config.nr_queues);
	if (!client->queues)
		return -ENOMEM;
	memset(client->queues, 0, sizeof(*client->queues) * client->config.nr_queues);
	for (unsigned int i = 0; i < client->config.nr_queues && err == 0; i++)
		err = make_queue(client, i);
	return err;
}

static int attach(struct fuse_client *client, const char **ret_why)
{
	const struct fuse_client_config *config = &client->config;
	const struct vhost_client_config vhost = {
		.path = config->path,
		.nr_queues = config->nr_queues + 1,
		.queue_size = config->queue_size,
		.format = config->format,
		.event_idx = true,
		.indirect_max = 4 + PAGES_MAX,
		.arena_bytes = forgets_bytes() + queue_bytes(config) * config->nr_queues,
	};

	return vhost_client_new(&client->vhost, &vhost, ret_why);
}

static bool config_is_valid(const struct fuse_client_config *config)
{
	return config->nr_queues && config->queue_size >= 2 && config->nr_calls &&
	       config->nr_calls <= FUSE_CLIENT_CALLS_MAX &&
	       config->data_bytes <= FUSE_CLIENT_DATA_MAX;
}

int fuse_client_new(struct fuse_client **ret_client, const struct fuse_client_config *config,
		    const char **ret_why)
{
	struct fuse_client *client;
	int err;

	*ret_why = "configuration out of bounds";
	if (!config_is_valid(config))
		return -EINVAL;
	*ret_why = "no memory";
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->config = *config;
	client->uid = getuid();
	client->gid = getgid();
	pthread_mutex_init(&client->forget_lock, NULL);
	err = attach(client, ret_why);
	if (err == 0) {
		*ret_why = "no memory";
		err = make_queues(client);
	}
	if (err == 0) {
		*ret_why = "INIT failed";
		err = fuse_session_begin(client);
	}
	if (err < 0) {
		fuse_client_free(client);
		return err;
	}
	*ret_client = client;
	return 0;
}

void fuse_client_free(struct fuse_client *client)
{
	if (!client)
		return;
	fuse_session_end(client);
	vhost_client_free(client->vhost);
	for (unsigned int i = 0; client->queues && i < client->config.nr_queues; i++)
		free(client->queues[i].calls);
	free(client->queues);
	pthread_mutex_destroy(&client->forget_lock);
	free(client);
}

int fuse_session_begin(struct fuse_client *client)
{
	struct fuse_queue *q = &client->queues[0];
	struct fuse_call *call = fuse_queue_get(q);
	struct fuse_init_in *in = call->args;
	int err;

	*in = (struct fuse_init_in){
		.major = FUSE_KERNEL_VERSION,
		.minor = LINUX_INIT_MINOR,
		.max_readahead = READAHEAD_BYTES,
		.flags = (uint32_t)LINUX_INIT_FLAGS,
		.flags2 = (uint32_t)(LINUX_INIT_FLAGS >> 32),
	};
	call->opcode = FUSE_INIT;
	call->nodeid = 0;
	call->args_bytes = sizeof(*in);
	call->reply_bytes = sizeof(call->reply.init);
	err = fuse_queue_call(q, call);
	client->in_session = err == 0 && call->error == 0;
	if (err == 0)
		err = call->error;
	if (err == 0 &&
	    (call->got_bytes < INIT_OUT_MIN || call->reply.init.major != FUSE_KERNEL_VERSION))
		err = -EPROTO;
	client->init = call->reply.init;
	if (err == 0) {
		client->flags = client->init.flags;
		if (client->flags & FUSE_INIT_EXT)
			client->flags |= (uint64_t)client->init.flags2 << 32;
		client->flags &= LINUX_INIT_FLAGS;
	}
	fuse_queue_put(q, call);
	return err;
}

void fuse_session_end(struct fuse_client *client)
{
	struct fuse_queue *q;
	struct fuse_call *call;

	if (!client->in_session)
		return;
	q = &client->queues[0];
	/* Calls under way would be mistaken for ours; then the device learns of the end from the connection. */
	call = q->failed || virtq_driver_nr_out(q->ring->drv) ? NULL : fuse_queue_get(q);
	if (!call)
		return;
	call->opcode = FUSE_DESTROY;
	call->nodeid = 0;
	if (fuse_queue_call(q, call) == 0)
		fuse_queue_put(q, call);
	client->in_session = false;
}

bool fuse_client_is_gone(const struct fuse_client *client)
{
	struct pollfd pfd = { .fd = vhost_client_socket(client->vhost), .events = POLLIN };

	/* A back-end says nothing unasked on this socket: whatever there is, is its end. */
	return poll(&pfd, 1, 0) > 0;
}

/* Take back the FORGETs that the device has used. */
static int reap_forgets(struct fuse_client *client)
{
	struct virtq_driver *drv = vhost_client_ring(client->vhost, HIPRIO)->drv;
	uint32_t written;
	void *cookie;
	int n;

	while ((n = virtq_driver_get(drv, &cookie, &written)) > 0) {
		struct forget_shared *done = cookie;

		client->free_forgets[client->nr_free_forgets++] =
			(uint16_t)(done - client->forgets);
	}
	return n;
}

static int wait_for_forgets(struct fuse_client *client)
{
	uint64_t begin = clock_now_ns();
	int err = reap_forgets(client);

	while (err == 0 && !client->nr_free_forgets) {
		if (fuse_client_is_gone(client))
			err = -EPIPE;
		else if (clock_now_ns() - begin > FUSE_CLIENT_TIMEOUT_NS)
			err = -ETIMEDOUT;
		sched_yield();
		if (err == 0)
			err = reap_forgets(client);
	}
	return err;
}

static int send_forget(struct fuse_client *client, uint64_t nodeid, uint64_t nlookup)
{
	const struct vhost_client_ring *ring = vhost_client_ring(client->vhost, HIPRIO);
	struct forget_shared *f;
	struct iovec iov[2];
	int err = wait_for_forgets(client);

	if (err < 0)
		return err;
	f = &client->forgets[client->free_forgets[client->nr_free_forgets - 1]];
	fuse_client_fill_header(client, &f->in, FUSE_FORGET, nodeid, client->forget_unique,
				sizeof(f->in) + sizeof(f->forget));
	f->forget.nlookup = nlookup;
	iov[0] = (struct iovec){ &f->in, sizeof(f->in) };
	iov[1] = (struct iovec){ &f->forget, sizeof(f->forget) };
	err = virtq_driver_add(ring->drv, iov, 2, 0, f);
	if (err < 0)
		return err;
	client->nr_free_forgets--;
	client->forget_unique += 2 * ((uint64_t)client->config.nr_queues + 1);
	if (virtq_driver_publish(ring->drv))
		fd_signal(ring->kick_fd);
	return 0;
}

int fuse_client_forget(struct fuse_client *client, uint64_t nodeid, uint64_t nlookup)
{
	int err;

	if (nodeid == FUSE_ROOT_ID || !nlookup)
		return 0;
	pthread_mutex_lock(&client->forget_lock);
	err = send_forget(client, nodeid, nlookup);
	pthread_mutex_unlock(&client->forget_lock);
	return err;
}

struct fuse_queue *fuse_client_queue(struct fuse_client *client, unsigned int index)
{
	assert(index < client->config.nr_queues);
	return &client->queues[index];
}

uint64_t fuse_client_flags(const struct fuse_client *client)
{
	return client->flags;
}

uint32_t fuse_client_minor(const struct fuse_client *client)
{
	return client->init.minor;
}

uint32_t fuse_client_max_read(const struct fuse_client *client)
{
	uint32_t pages = PAGES_DEFAULT;

	if (client->flags & FUSE_MAX_PAGES)
		pages = min_of(max_of((uint32_t)client->init.max_pages, 1u), PAGES_MAX);
	return pages * FUSE_CLIENT_PAGE;
}

uint32_t fuse_client_max_write(const struct fuse_client *client)
{
	/* The kernel's floor of a page. */
	uint32_t bytes = max_of(client->init.max_write, FUSE_CLIENT_PAGE);

	return min_of(bytes, fuse_client_max_read(client));
}
