/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Life of the bridge: connect, start, the end from either side.
 */
#include "bridge/bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "bridge/bridge_impl.h"

#define FUSE_IOC_CLONE _IOR(229, 0, uint32_t)

static int make_queues(struct bridge *b, const char **ret_why)
{
	uint8_t *arena = vhost_client_arena(b->client);
	const unsigned int nr = b->config.nr_request_queues;
	const unsigned int first = vhost_client_notifies(b->client) ? 2 : 1;
	int err;

	*ret_why = "no memory";
	b->queues = calloc(nr, sizeof(*b->queues));
	if (!b->queues)
		return -ENOMEM;
	for (unsigned int i = 0; i < nr; i++) {
		struct bridge_queue *q = &b->queues[i];

		q->bridge = b;
		q->index = i + first;
		q->ring = vhost_client_ring(b->client, i + first);
		q->fuse_fd = -1;
		q->sync = -1;
		q->spin_credit = 1;
		bridge_slots_init(q, arena + i * bridge_queue_arena_bytes());
	}
	arena += nr * bridge_queue_arena_bytes();
	err = bridge_notify_init(b, arena, ret_why);
	if (err < 0)
		return err;
	arena += (size_t)BRIDGE_NOTIFY_BUFFERS * BRIDGE_NOTIFY_BYTES;
	*ret_why = "no memory";
	return bridge_hiprio_init(b, arena);
}

int bridge_new(struct bridge **ret_bridge, const struct bridge_config *config, const char **ret_why)
{
	const struct vhost_client_config client = {
		.path = config->path,
		.nr_queues = config->nr_request_queues + 1,
		.nr_queues_min = config->fewer_queues ? 2 : 0,
		.queue_size = config->queue_size,
		.format = config->format,
		.notifications = true,
		.event_idx = true,
		.indirect_max = BRIDGE_SEGS_MAX,
		.arena_bytes = config->nr_request_queues * bridge_queue_arena_bytes() +
			       (size_t)BRIDGE_NOTIFY_BUFFERS * BRIDGE_NOTIFY_BYTES +
			       (size_t)BRIDGE_HIPRIO_SLOTS * BRIDGE_HIPRIO_BYTES,
		.watch_errors = true,
	};
	struct bridge *b = calloc(1, sizeof(*b));
	int err;

	*ret_why = "no memory";
	if (!b)
		return -ENOMEM;
	b->config = *config;
	b->config.path = NULL;
	b->stop_fd = -1;
	b->notify.synced = -1;
	b->waiting_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	b->why = "";
	err = b->event_fd = eventfd_new();
	if (err >= 0)
		err = b->stop_fd = eventfd_new();
	if (err >= 0)
		err = vhost_client_new(&b->client, &client, ret_why);
	if (err >= 0) {
		b->config.nr_request_queues =
			vhost_client_nr_queues(b->client) - 1 - vhost_client_notifies(b->client);
		err = make_queues(b, ret_why);
	}
	if (err < 0) {
		bridge_free(b);
		return err;
	}
	*ret_bridge = b;
	return 0;
}

void bridge_free(struct bridge *b)
{
	if (!b)
		return;
	for (unsigned int i = 0; b->queues && i < b->config.nr_request_queues; i++)
		close_fd(&b->queues[i].fuse_fd);
	free(b->queues);
	if (b->hiprio.ring)
		pthread_mutex_destroy(&b->hiprio.lock);
	bridge_notify_fini(b);
	vhost_client_free(b->client);
	close_fd(&b->event_fd);
	close_fd(&b->stop_fd);
	free(b);
}

/*
 * Each thread has a clone: requests that it read, and their replies, share no lock with others'. Where fusermount3 opened
 * /dev/fuse and we may not, the threads share it.
 */
static int open_clones(struct bridge *b)
{
	const uint32_t master = (uint32_t)b->queues[0].fuse_fd;

	for (unsigned int i = 1; i < b->config.nr_request_queues; i++) {
		autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

		if (fd >= 0 && ioctl(fd, FUSE_IOC_CLONE, &master) < 0)
			return -errno;
		if (fd < 0)
			fd = fcntl((int)master, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		b->queues[i].fuse_fd = TAKE_FD(fd);
	}
	return 0;
}

int bridge_start(struct bridge *b, int fuse_fd, const char **ret_why)
{
	int err;

	b->queues[0].fuse_fd = fuse_fd;
	err = bridge_init(b, ret_why);
	if (err < 0)
		return err;
	*ret_why = "cannot clone /dev/fuse";
	err = open_clones(b);
	if (err < 0)
		return err;
	*ret_why = "cannot start threads";
	for (unsigned int i = 0; i < b->config.nr_request_queues && err == 0; i++)
		err = bridge_queue_start(&b->queues[i]);
	return err == 0 ? bridge_notify_start(b) : err;
}

int bridge_event_fd(const struct bridge *b)
{
	return b->event_fd;
}

int bridge_device_socket(const struct bridge *b)
{
	return vhost_client_socket(b->client);
}

int bridge_device_err_fd(const struct bridge *b)
{
	return vhost_client_err_fd(b->client);
}

enum bridge_state bridge_state(const struct bridge *b)
{
	return __atomic_load_n(&b->state, __ATOMIC_ACQUIRE);
}

const char *bridge_why(const struct bridge *b)
{
	return __atomic_load_n(&b->why, __ATOMIC_ACQUIRE);
}

uint64_t bridge_nr_replies(const struct bridge *b)
{
	uint64_t nr = 0;

	for (unsigned int i = 0; i < b->config.nr_request_queues; i++)
		nr += READ_ONCE(b->queues[i].nr_replies);
	return nr;
}

uint64_t bridge_nr_written(const struct bridge *b)
{
	const bool writes = bridge_writes_back(b);
	uint64_t nr = 0;

	for (unsigned int i = 0; i < b->config.nr_request_queues; i++) {
		nr += READ_ONCE(b->queues[i].nr_written);
		nr += writes ? 0 : READ_ONCE(b->queues[i].nr_setattrs);
	}
	return nr;
}

bool bridge_writes_back(const struct bridge *b)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < b->config.nr_request_queues; i++)
		nr += READ_ONCE(b->queues[i].nr_writebacks);
	return nr > 0;
}

void bridge_end(struct bridge *b, enum bridge_state state, const char *why)
{
	int running = BRIDGE_RUNNING;

	/* Whoever comes second may be a consequence of the first. */
	if (__atomic_compare_exchange_n(&b->state, &running, state, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		__atomic_store_n(&b->why, why, __ATOMIC_RELEASE);
	fd_signal(b->event_fd);
}

void bridge_lose_device(struct bridge *b, const char *why)
{
	bridge_end(b, BRIDGE_DEVICE_LOST, why);
}

void bridge_stop(struct bridge *b)
{
	bool lost, drained;

	/* A thread that always finds work never looks at the descriptor. */
	WRITE_ONCE(b->stopping, true);
	fd_signal(b->stop_fd);
	for (unsigned int i = 0; i < b->config.nr_request_queues; i++) {
		if (b->queues[i].running)
			pthread_join(b->queues[i].thread, NULL);
		b->queues[i].running = false;
	}
	lost = bridge_state(b) == BRIDGE_DEVICE_LOST;
	drained = !lost && bridge_drain(b);
	for (unsigned int i = 0; i < b->config.nr_request_queues; i++) {
		if (b->queues[i].fuse_fd >= 0)
			bridge_fail_all(&b->queues[i]);
	}
	bridge_notify_stop(b);
	for (unsigned int i = 0; i < b->config.nr_request_queues; i++)
		close_fd(&b->queues[i].fuse_fd);
	if (!lost && b->started)
		bridge_destroy(b, !drained);
}
