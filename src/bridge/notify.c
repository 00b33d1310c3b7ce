/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notifications: from the device's queue to the kernel, whose caches they are about.
 *
 * Theory of operation. A thread of its own, since the kernel may make it wait: to invalidate a page that is being read, or a name
 * in a directory that is being looked at, it waits for replies, which other threads have to go on passing on.
 *
 * A notification may be about what a reply before it said: the kernel must hear the reply first, or it would cache what is
 * old already, for as long as the reply allows. The device publishes in that order, but in different rings. So once a
 * notification was taken, each queue's thread is asked to pass on what its ring holds; only then the kernel gets the notification.
 *
 * What a device sends is copied once, then checked for its form; what it means the kernel checks itself.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "bridge/bridge_impl.h"

/* Offset of the config space's notify_buf_size (virtio 1.2, 5.11.4). */
#define CONFIG_BUF_SIZE 40
/* How often it is looked whether the thread has ended. */
#define STOP_POLL_MS 5

static uint8_t *buffer_at(const struct bridge *b, unsigned int i)
{
	return b->notify.arena + (size_t)i * BRIDGE_NOTIFY_BYTES;
}

static int give_buffer(struct bridge *b, uint8_t *buffer)
{
	const struct iovec seg = { .iov_base = buffer, .iov_len = BRIDGE_NOTIFY_BYTES };

	return virtq_driver_add(b->notify.ring->drv, &seg, 0, 1, buffer);
}

static void publish(struct bridge *b)
{
	if (virtq_driver_publish(b->notify.ring->drv))
		fd_signal(b->notify.ring->kick_fd);
}

int bridge_notify_init(struct bridge *b, uint8_t *arena, const char **ret_why)
{
	struct bridge_notify *n = &b->notify;
	uint32_t want = 0;
	int err;

	if (!vhost_client_notifies(b->client))
		return 0;
	*ret_why = "it has notifications, and does not tell how large their buffers must be";
	err = vhost_client_read_config(b->client, CONFIG_BUF_SIZE, &want, sizeof(want));
	if (err < 0)
		return err == -EOPNOTSUPP ? -EPROTO : err;
	*ret_why = "it wants larger buffers for notifications than there are";
	if (le32toh(want) > BRIDGE_NOTIFY_BYTES)
		return -EPROTO;
	*ret_why = "cannot make a descriptor for notifications";
	err = n->synced = eventfd_new();
	if (err < 0)
		return err;
	*ret_why = "cannot give it buffers for notifications";
	err = -pthread_mutex_init(&n->lock, NULL);
	if (err < 0)
		return err;
	n->ring = vhost_client_ring(b->client, 1);
	n->arena = arena;
	for (unsigned int i = 0; i < BRIDGE_NOTIFY_BUFFERS && virtq_driver_nr_free(n->ring->drv);
	     i++) {
		err = give_buffer(b, buffer_at(b, i));
		if (err < 0)
			return err;
	}
	publish(b);
	return 0;
}

void bridge_notify_fini(struct bridge *b)
{
	if (b->notify.ring)
		pthread_mutex_destroy(&b->notify.lock);
	close_fd(&b->notify.synced);
}

/* Return: 0, or -ESHUTDOWN when the bridge ends. */
static int sync_queue(struct bridge *b, struct bridge_queue *q)
{
	struct pollfd pfds[2] = { { .fd = b->notify.synced, .events = POLLIN },
				  { .fd = b->stop_fd, .events = POLLIN } };

	__atomic_store_n(&q->sync, b->notify.synced, __ATOMIC_SEQ_CST);
	/* As if the device had interrupted it. */
	fd_signal(q->ring->call_fd);
	while (!pfds[0].revents && !pfds[1].revents)
		(void)!poll(pfds, array_size(pfds), -1);
	return pfds[1].revents || fd_drain_signal(b->notify.synced) < 0 ? -ESHUTDOWN : 0;
}

static int sync_queues(struct bridge *b)
{
	int err = 0;

	for (unsigned int i = 0; i < b->config.nr_request_queues && err == 0; i++)
		err = sync_queue(b, &b->queues[i]);
	return err;
}

/* The kernel does not know the node, or not the file's pages: say that there are none. */
static void note_refused(struct bridge *b, const uint8_t *body, size_t len)
{
	struct bridge_notify *n = &b->notify;

	if (len != sizeof(n->refused[0]))
		return;
	pthread_mutex_lock(&n->lock);
	if (n->nr_refused < array_size(n->refused)) {
		memcpy(&n->refused[n->nr_refused], body, len);
		WRITE_ONCE(n->nr_refused, n->nr_refused + 1);
	}
	pthread_mutex_unlock(&n->lock);
	fd_signal(b->queues[0].ring->call_fd);
}

void bridge_notify_refuse(struct bridge_queue *q)
{
	struct bridge_notify *n = &q->bridge->notify;

	pthread_mutex_lock(&n->lock);
	while (n->nr_refused && bridge_can_take(q)) {
		const struct fuse_notify_retrieve_out *what = &n->refused[n->nr_refused - 1];
		const struct {
			struct fuse_in_header in;
			struct fuse_notify_retrieve_in arg;
		} msg = { .in = { .len = sizeof(msg),
				  .opcode = FUSE_NOTIFY_REPLY,
				  .unique = what->notify_unique,
				  .nodeid = what->nodeid },
			  .arg = { .offset = what->offset } };
		struct bridge_slot *slot = bridge_slot_get(q, false);

		memcpy(slot->in, &msg, sizeof(msg));
		slot->unique = msg.in.unique;
		slot->opcode = FUSE_NOTIFY_REPLY;
		if (bridge_submit(q, slot, sizeof(msg), 0) < 0) {
			bridge_slot_put(q, slot);
			break;
		}
		WRITE_ONCE(n->nr_refused, n->nr_refused - 1);
	}
	pthread_mutex_unlock(&n->lock);
	if (virtq_driver_publish(q->ring->drv))
		fd_signal(q->ring->kick_fd);
}

/* Pass one on. @msg: a private copy, @written bytes. */
static void pass_on(struct bridge *b, const uint8_t *msg, uint32_t written)
{
	static struct log_ratelimit limit;
	struct fuse_out_header hdr;

	if (written >= sizeof(hdr))
		memcpy(&hdr, msg, sizeof(hdr));
	if (written < sizeof(hdr) || hdr.len != written || hdr.unique || hdr.error <= 0) {
		log_warn_ratelimited(&limit, "the device sent a malformed notification");
		return;
	}
	/* ENOENT: nothing of it is cached. ENOTDIR, ENOTEMPTY, EINVAL, ...: the file system's affair; nobody asks us. */
	if (write(b->queues[0].fuse_fd, msg, written) < 0 && hdr.error == FUSE_NOTIFY_RETRIEVE)
		note_refused(b, msg + sizeof(hdr), written - sizeof(hdr));
}

/* Return: how many, or negative errno. */
static int take_all(struct bridge *b, uint8_t *copy)
{
	uint32_t written = 0;
	void *cookie = NULL;
	int nr = 0, ret;

	while ((ret = virtq_driver_get(b->notify.ring->drv, &cookie, &written)) > 0) {
		written = min_of(written, BRIDGE_NOTIFY_BYTES);
		memcpy(copy, cookie, written);
		ret = give_buffer(b, cookie);
		if (ret < 0)
			break;
		publish(b);
		ret = sync_queues(b);
		if (ret < 0)
			break;
		pass_on(b, copy, written);
		nr++;
	}
	return ret < 0 ? ret : nr;
}

static void *notify_thread(void *arg)
{
	struct bridge *b = arg;
	const struct vhost_client_ring *ring = b->notify.ring;
	struct pollfd pfds[2] = { { .fd = ring->call_fd, .events = POLLIN },
				  { .fd = b->stop_fd, .events = POLLIN } };
	uint8_t *copy = malloc(BRIDGE_NOTIFY_BYTES);
	int err = copy ? 0 : -ENOMEM;

	while (err >= 0 && !pfds[1].revents) {
		err = take_all(b, copy);
		if (err < 0 || virtq_driver_call_enable(ring->drv))
			continue;
		if (poll(pfds, array_size(pfds), -1) > 0 && pfds[0].revents)
			err = min_of(fd_drain_signal(ring->call_fd), 0);
	}
	free(copy);
	__atomic_store_n(&b->notify.ended, true, __ATOMIC_RELEASE);
	if (err == -EBADMSG)
		bridge_end(b, BRIDGE_DEVICE_LOST, "the device broke a rule of the ring");
	else if (err < 0 && err != -ESHUTDOWN)
		bridge_end(b, BRIDGE_FAILED, "notifications cannot be passed on");
	return NULL;
}

int bridge_notify_start(struct bridge *b)
{
	int err;

	if (!b->notify.ring)
		return 0;
	err = pthread_create(&b->notify.thread, NULL, notify_thread, b);
	b->notify.running = err == 0;
	return -err;
}

/* Read one request of the kernel's and fail it. */
static void fail_one(const struct bridge_queue *q, uint8_t *buf)
{
	struct pollfd pfd = { .fd = q->fuse_fd, .events = POLLIN };
	const struct fuse_opcode_info *op;
	struct fuse_in_header hdr;

	if (poll(&pfd, 1, STOP_POLL_MS) <= 0 ||
	    read(q->fuse_fd, buf, BRIDGE_NOTIFY_BYTES) < (ssize_t)sizeof(hdr))
		return;
	memcpy(&hdr, buf, sizeof(hdr));
	op = fuse_opcode_find(hdr.opcode);
	if (!op || op->reply != FUSE_REPLY_NONE)
		bridge_reply_error(q, hdr.unique, -ENOTCONN);
}

void bridge_notify_stop(struct bridge *b)
{
	uint8_t *buf;

	if (!b->notify.running)
		return;
	/* Without memory it is left to the mount's other users to let go of what it waits for. */
	buf = malloc(BRIDGE_NOTIFY_BYTES);
	while (buf && !__atomic_load_n(&b->notify.ended, __ATOMIC_ACQUIRE))
		fail_one(&b->queues[0], buf);
	free(buf);
	pthread_join(b->notify.thread, NULL);
	b->notify.running = false;
}
