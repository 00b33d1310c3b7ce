/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The notification queue: what the file system says unasked, on its way into buffers of the driver's.
 *
 * Theory of operation
 * -------------------
 * Where the driver took VIRTIO_FS_F_NOTIFICATION, virtqueue 1 has no requests but empty buffers (virtio 1.2, 5.11.6.4), and its
 * thread, or the taker (take.c), fills them. Whoever brings a notification only leaves it in the backlog and wakes
 * that thread: it never waits for the driver. A driver that gives no buffers gets its notifications when it does so again.
 *
 * The backlog is bounded. A node's data that are invalidated once more need no second message; beyond that, what finds
 * no room is dropped, counted and logged: the driver then sees a change when its timeouts are over, as one does that takes no
 * notifications. It is the driver's own fault, and only its own caches suffer.
 *
 * A session that ends takes the backlog with it: numbers of nodes mean nothing to the next one. The gate is `open`, under the
 * lock: only while it is set may the session be asked what the driver is to be told.
 *
 * Lock order: notify.lock, then push_lock and the ledger's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "device/device_impl.h"

/* Memory of the backlog. */
#define NOTIFY_BYTES_MAX (4u << 20)
/* Segments of a buffer that need no allocation. */
#define NOTIFY_SEGMENTS 64

struct notify_entry {
	uint64_t inode; /* struct fuse_notify's */
	uint64_t retrieve;
	size_t bytes;
	uint8_t msg[];
};

void notify_init(struct device *dev)
{
	pthread_mutex_init(&dev->notify.lock, NULL);
}

void notify_fini(struct device *dev)
{
	assert(!dev->notify.nr);
	pthread_mutex_destroy(&dev->notify.lock);
}

static struct notify_entry **entry_at(struct device_notify *n, unsigned int i)
{
	return &n->entries[(n->head + i) % NOTIFY_ENTRIES_MAX];
}

/* Under the lock. */
static struct notify_entry *backlog_take(struct device_notify *n)
{
	struct notify_entry *e = *entry_at(n, 0);

	n->head = (n->head + 1) % NOTIFY_ENTRIES_MAX;
	WRITE_ONCE(n->nr, n->nr - 1);
	n->bytes -= e->bytes;
	return e;
}

/*
 * Under the lock. Is there an INVAL_INODE of this node that the driver has not seen? With @msg in its place it says
 * both: data of the whole file, since the two ranges need not touch.
 */
static bool backlog_merge(struct device_notify *n, const struct fuse_notify *what)
{
	for (unsigned int i = n->nr; what->inode && i-- > 0;) {
		struct notify_entry *e = *entry_at(n, i);
		const size_t head = sizeof(struct fuse_out_header) + sizeof(uint64_t);

		/* What was stored since would be thrown away by the earlier one only. */
		if (e->inode != what->inode && e->inode)
			continue;
		if (!e->inode)
			return false;
		if (memcmp(e->msg, what->msg, what->msg_bytes) != 0)
			/* off 0, len 0: all. */
			memset(e->msg + head, 0, what->msg_bytes - head);
		return true;
	}
	return false;
}

/* Under the lock. Return: 0; -ENOSPC; -ENOMEM. */
static int backlog_add(struct device_notify *n, const struct fuse_notify *what)
{
	struct notify_entry *e;

	if (backlog_merge(n, what))
		return 0;
	if (n->nr == NOTIFY_ENTRIES_MAX || n->bytes + what->msg_bytes > NOTIFY_BYTES_MAX)
		return -ENOSPC;
	e = malloc(sizeof(*e) + what->msg_bytes);
	if (!e)
		return -ENOMEM;
	e->inode = what->inode;
	e->retrieve = what->retrieve;
	e->bytes = what->msg_bytes;
	memcpy(e->msg, what->msg, e->bytes);
	*entry_at(n, n->nr) = e;
	n->bytes += e->bytes;
	WRITE_ONCE(n->nr, n->nr + 1);
	return 0;
}

/* The driver will not answer a RETRIEVE: the file system hears that nothing is cached. */
static void retrieve_lost(struct device *dev, uint64_t unique)
{
	struct fuse_notify_retrieve_out what;

	if (fuse_session_retrieve_lost(dev->session, unique, &what) && dev->svc->ops->retrieve_none)
		dev->svc->ops->retrieve_none(dev->svc, &what);
}

static void count_dropped(struct device *dev, const char *why)
{
	__atomic_fetch_add(&dev->notify.nr_dropped, 1, __ATOMIC_RELAXED);
	log_warn_ratelimited(&dev->notify.log,
			     "a notification of the file system's was dropped: %s", why);
}

/* Under the lock. Return: 0 or negative errno of the first message that found no way. */
static int notify_add(struct device *dev, struct fuse_notify *what)
{
	int err = fuse_notify_begin(dev->session, what);

	while (err == 0) {
		int ret = fuse_notify_next(dev->session, what);

		if (ret <= 0)
			return ret;
		err = backlog_add(&dev->notify, what);
	}
	return err;
}

int device_notify(struct device *dev, int32_t code, const void *body, size_t len)
{
	struct device_notify *n = &dev->notify;
	uint8_t msg[FUSE_NOTIFY_BYTES_MAX];
	struct fuse_notify what = { .code = code, .body = body, .len = len, .msg = msg };
	int err;

	pthread_mutex_lock(&n->lock);
	err = n->open ? notify_add(dev, &what) : fuse_notify_check(&what);
	pthread_mutex_unlock(&n->lock);
	if (err == 0 || err == -ENOSPC || err == -ENOMEM)
		queue_wake(&dev->queues[NOTIFY_QUEUE]);
	if (err == -ENOSPC || err == -ENOMEM) {
		struct fuse_notify_retrieve_out lost;

		count_dropped(dev, "the driver leaves too many unread");
		/* The caller answers it. */
		if (what.retrieve &&
		    !fuse_session_retrieve_lost(dev->session, what.retrieve, &lost))
			return 0;
	}
	return err;
}

bool notify_pending(const struct device *dev)
{
	return READ_ONCE(dev->notify.nr);
}

/* Give the buffer back. A buffer that is too small, or has none of it for us to write, loses what it was to hold. */
static void fill_buffer(struct queue *q, const struct virtq_chain *chain,
			const struct notify_entry *e)
{
	const struct iovec *in = chain->iov + chain->nr_out;
	uint32_t written = 0;

	if (e->bytes <= chain->in_bytes)
		written = (uint32_t)iov_copy_in(in, chain->nr_in, 0, e->msg, e->bytes);
	else
		count_dropped(q->dev, "the driver's buffer is too small for it");
	pthread_mutex_lock(&q->push_lock);
	if (unlikely(q->log) && written)
		dirty_log_mark_iov(q->log, q->generation->table, in, chain->nr_in, written);
	virtq_push(q->vq, chain, written);
	pthread_mutex_unlock(&q->push_lock);
}

/* Under notify.lock, and something is there. Return: 1; 0: no buffer; negative errno: the ring is broken. *@ret_lost: a RETRIEVE that did not fit. */
static int deliver_one(struct queue *q, uint64_t *ret_lost)
{
	struct iovec iov[NOTIFY_SEGMENTS], *heap = NULL;
	struct virtq_chain chain = { .iov = iov, .iov_cap = NOTIFY_SEGMENTS };
	int err = virtq_pop(q->vq, q->generation->table, &chain);

	if (err == -ENOBUFS) {
		heap = malloc(chain.nr_needed * sizeof(*heap));
		chain.iov = heap;
		chain.iov_cap = chain.nr_needed;
		err = heap ? virtq_pop(q->vq, q->generation->table, &chain) : -ENOMEM;
	}
	if (err > 0) {
		struct notify_entry *e = backlog_take(&q->dev->notify);

		fill_buffer(q, &chain, e);
		*ret_lost = e->bytes <= chain.in_bytes ? 0 : e->retrieve;
		free(e);
	}
	free(heap);
	return err;
}

bool notify_run(struct queue *q)
{
	struct device *dev = q->dev;
	unsigned int nr = 0;
	int err = 1;

	while (err > 0 && nr < QUEUE_BATCH && !q->broken && READ_ONCE(q->enabled)) {
		uint64_t lost = 0;

		pthread_mutex_lock(&dev->notify.lock);
		err = dev->notify.nr ? deliver_one(q, &lost) : 0;
		pthread_mutex_unlock(&dev->notify.lock);
		nr += err > 0;
		if (lost)
			retrieve_lost(dev, lost);
	}
	if (err < 0)
		queue_break(q, err == -EBADMSG ? virtq_broken(q->vq) : strerror(-err));
	if (nr)
		queue_publish(q);
	return nr;
}

/* Nobody looks at the ring while nothing waits: then no kick is wanted either. */
static void notify_sleep(struct queue *q)
{
	const bool takes = !q->broken && READ_ONCE(q->enabled) && notify_pending(q->dev);

	queue_wait_work(q, takes, -1);
}

void *notify_main(void *arg)
{
	struct queue *q = arg;

	virtq_kick_disable(q->vq);
	for (;;) {
		if (queue_steered(q) && !queue_park(q))
			break;
		if (!notify_run(q))
			notify_sleep(q);
	}
	return NULL;
}

void notify_open(struct device *dev)
{
	pthread_mutex_lock(&dev->notify.lock);
	dev->notify.open = fuse_session_notifies(dev->session);
	pthread_mutex_unlock(&dev->notify.lock);
}

void notify_close(struct device *dev)
{
	struct device_notify *n = &dev->notify;
	struct fuse_notify_retrieve_out what;

	pthread_mutex_lock(&n->lock);
	n->open = false;
	while (n->nr)
		free(backlog_take(n));
	pthread_mutex_unlock(&n->lock);
	while (fuse_session_retrieve_lost(dev->session, 0, &what)) {
		if (dev->svc->ops->retrieve_none)
			dev->svc->ops->retrieve_none(dev->svc, &what);
	}
}
