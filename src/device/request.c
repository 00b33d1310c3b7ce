/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of one request: taken from a chain, checked, served, answered.
 *
 * Theory of operation
 * -------------------
 * A request lives in a slot of its queue's pool. The queue thread takes a free slot, fills it and hands it
 * on (state ACTIVE). Whoever answers claims it (ACTIVE -> WRITING), writes the reply into the chain without
 * any lock, and gives the chain back under the queue's push lock. A queue that stops does the same on
 * behalf of requests that take too long, with an error, and leaves them ABANDONED: their answer, when it
 * comes, only updates the ledger and frees the slot.
 *
 * The unique that the service sees is made of queue, slot and a count of the slot's uses, so that an
 * answer finds its request without a search and a late or invented one finds nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "device/device_impl.h"

/* unique: bit 0 is left to FUSE_INTERRUPT, then slot and queue, then the count of uses; bits 62, 63 are the service's. */
#define UNIQUE_SLOT_SHIFT  1
#define UNIQUE_SLOT_BITS   15
#define UNIQUE_QUEUE_SHIFT (UNIQUE_SLOT_SHIFT + UNIQUE_SLOT_BITS)
#define UNIQUE_QUEUE_BITS  9
#define UNIQUE_USE_SHIFT   (UNIQUE_QUEUE_SHIFT + UNIQUE_QUEUE_BITS)
#define UNIQUE_USE_BITS	   (62 - UNIQUE_USE_SHIFT)

_Static_assert(VIRTQ_SIZE_MAX <= 1u << UNIQUE_SLOT_BITS, "a slot number fits");
_Static_assert(DEVICE_REQUEST_QUEUES_MAX + 3 <= 1u << UNIQUE_QUEUE_BITS, "a queue number fits");

/* Was the driver told that it failed, so that nobody waits for it? */
bool request_is_abandoned(const struct request *req)
{
	return __atomic_load_n(&req->state, __ATOMIC_ACQUIRE) == REQUEST_ABANDONED;
}

bool request_is_awaited(const struct request *req)
{
	return req->generation && !request_is_abandoned(req);
}

static bool request_try_claim(struct request *req)
{
	enum request_state expected = REQUEST_ACTIVE;

	return __atomic_compare_exchange_n(&req->state, &expected, REQUEST_WRITING, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/*
 * The owner's claim, to answer. Return: false when the request was abandoned.
 *
 * WRITING can only be the stopping queue's: it takes a few hundred instructions, wait for it.
 */
bool request_claim(struct request *req)
{
	while (!request_try_claim(req)) {
		if (request_is_abandoned(req))
			return false;
		cpu_relax();
	}
	return true;
}

void request_activate(struct request *req)
{
	__atomic_store_n(&req->state, REQUEST_ACTIVE, __ATOMIC_RELEASE);
}

/*
 * Hand an active request to the service. Only from here on can its unique be found: an answer that a daemon
 * invents for a request that it was never sent finds nothing.
 */
void request_submit(struct request *req)
{
	struct service *svc = req->dev->svc;

	__atomic_store_n(&req->live_driver_unique, req->fuse.driver_unique, __ATOMIC_RELAXED);
	__atomic_store_n(&req->live_unique, req->fuse.hdr.unique, __ATOMIC_RELEASE);
	svc->ops->submit(svc, req);
}

static bool request_has_reply(const struct request *req)
{
	return req->fuse.op->reply != FUSE_REPLY_NONE;
}

/* What other threads freed. Acquire: pairs with request_free_remote(). */
static struct request *request_take_remote(struct queue *q)
{
	if (!__atomic_load_n(&q->free_remote, __ATOMIC_RELAXED))
		return NULL;
	return __atomic_exchange_n(&q->free_remote, NULL, __ATOMIC_ACQUIRE);
}

/* Under push_lock: nobody else adds; the taking thread may take all at any moment. */
static void request_free_remote(struct queue *q, struct request *req)
{
	struct request *head = __atomic_load_n(&q->free_remote, __ATOMIC_RELAXED);

	do
		req->next = head;
	while (!__atomic_compare_exchange_n(&q->free_remote, &head, req, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED));
}

/* A slot that was never used, if there is one. */
static struct request *request_take_fresh(struct queue *q)
{
	struct request *req;

	if (q->nr_slots_used == q->nr_slots)
		return NULL;
	req = &q->slots[q->nr_slots_used];
	req->slot = q->nr_slots_used;
	WRITE_ONCE(q->nr_slots_used, req->slot + 1);
	req->queue = q;
	req->dev = q->dev;
	req->next = NULL;
	return req;
}

/* Nothing is free: whoever frees the next shall wake us, unless one was freed this moment. */
static struct request *request_starve(struct queue *q)
{
	struct request *req;

	pthread_mutex_lock(&q->push_lock);
	req = request_take_remote(q);
	q->starved = !req;
	pthread_mutex_unlock(&q->push_lock);
	return req;
}

struct request *request_alloc(struct queue *q)
{
	struct request *req = q->free_local;

	/* Used ones first: they are warm in the cache, and memory is touched only as far as it is ever needed. */
	if (!req)
		req = request_take_remote(q);
	if (!req)
		req = request_take_fresh(q);
	if (!req)
		req = request_starve(q);
	if (!req)
		return NULL;
	q->free_local = req->next;
	req->next = NULL;
	if (!req->iov_heap) {
		req->chain.iov = req->iov;
		req->chain.iov_cap = REQUEST_IOV_INLINE;
	}
	req->buf = req->inline_buf;
	req->buf_cap = sizeof(req->inline_buf);
	req->by_control = false;
	req->payload = NULL;
	req->nr_payload = 0;
	req->generation = NULL;
	memset(req->service_data, 0, sizeof(req->service_data));
	req->slot_generation++;
	return req;
}

/* It came to nothing: the next request_alloc() gives it out. Context: the thread that allocated it. */
void request_put_back(struct request *req)
{
	struct queue *q = req->queue;

	req->next = q->free_local;
	q->free_local = req;
}

uint64_t request_unique(const struct request *req)
{
	/* Never 0, so that no unique is. */
	uint64_t use = req->slot_generation % ((UINT64_C(1) << UNIQUE_USE_BITS) - 1) + 1;

	return use << UNIQUE_USE_SHIFT | (uint64_t)req->queue->index << UNIQUE_QUEUE_SHIFT |
	       (uint64_t)req->slot << UNIQUE_SLOT_SHIFT;
}

struct request *request_find(struct device *dev, uint64_t unique)
{
	uint32_t slot = unique >> UNIQUE_SLOT_SHIFT & ((1u << UNIQUE_SLOT_BITS) - 1);
	uint32_t index = unique >> UNIQUE_QUEUE_SHIFT & ((1u << UNIQUE_QUEUE_BITS) - 1);
	struct request *req;
	struct queue *q;

	if (index < dev->nr_queues)
		q = &dev->queues[index];
	else if (index == dev->internal.index)
		q = &dev->internal;
	else
		return NULL;
	if (slot >= q->nr_slots)
		return NULL;
	req = &q->slots[slot];
	/* Acquire pairs with request_submit(): who finds the request sees its fields. */
	if (__atomic_load_n(&req->live_unique, __ATOMIC_ACQUIRE) != unique || !unique)
		return NULL;
	return req;
}

int request_grow_iov(struct request *req, uint32_t nr)
{
	/* Rare: no driver that we know of sends such chains. The memory stays with the slot. */
	struct iovec *iov = realloc(req->iov_heap, nr * sizeof(*iov));

	if (!iov)
		return -ENOMEM;
	req->iov_heap = iov;
	req->chain.iov = iov;
	req->chain.iov_cap = nr;
	return 0;
}

void request_reset_buffers(struct request *req)
{
	if (req->buf && req->buf != req->inline_buf)
		free(req->buf);
	req->buf = req->inline_buf;
	req->buf_cap = sizeof(req->inline_buf);
}

/* Under push_lock: the slot is free, whatever refers to driver memory was dropped. */
static void request_release_slot_locked(struct request *req)
{
	struct queue *q = req->queue;
	struct mem_generation *gen = req->generation;

	req->generation = NULL;
	__atomic_store_n(&req->live_unique, 0, __ATOMIC_RELAXED);
	if (gen && ++gen->done == READ_ONCE(gen->popped) && gen->retired) {
		mem_table_put(gen->table);
		free(gen);
	}
	__atomic_store_n(&req->state, REQUEST_FREE, __ATOMIC_RELEASE);
	if (queue_is_current(q)) {
		/* The same slot again at once: it is warm in the cache. */
		request_put_back(req);
		return;
	}
	request_free_remote(q, req);
	if (q->starved) {
		q->starved = false;
		queue_wake(q);
	}
}

void request_release_slot(struct request *req)
{
	struct queue *q = req->queue;

	request_reset_buffers(req);
	pthread_mutex_lock(&q->push_lock);
	request_release_slot_locked(req);
	pthread_mutex_unlock(&q->push_lock);
}

/* Count the request's chain as completed. Under push_lock. */
static void request_done_locked(struct request *req)
{
	struct queue *q = req->queue;

	q->done++;
	if (req->by_control)
		q->nr_by_control--;
	if (q->draining)
		pthread_cond_broadcast(&q->drain_cond);
}

/* Give the chain of a claimed request back, with @written bytes in it. Under push_lock. */
static void request_push_locked(struct request *req, uint32_t written)
{
	struct queue *q = req->queue;

	if (unlikely(q->log) && written)
		dirty_log_mark_iov(q->log, req->generation->table,
				   req->chain.iov + req->chain.nr_out, req->chain.nr_in, written);
	virtq_push(q->vq, &req->chain, written);
}

/* Give the chain of a claimed request back and free the slot. */
static void request_complete(struct request *req, uint32_t written)
{
	struct queue *q = req->queue;
	bool call = false;

	request_reset_buffers(req);
	pthread_mutex_lock(&q->push_lock);
	if (req->generation) {
		request_push_locked(req, written);
		if (queue_is_current(q))
			q->unpublished = true;
		else
			queue_publish_locked(q, &call);
	}
	request_done_locked(req);
	request_release_slot_locked(req);
	pthread_mutex_unlock(&q->push_lock);
	if (call)
		queue_call(q);
}

/* Write a reply header at the beginning of the writable part. Return: bytes written. */
static uint32_t request_write_header(struct request *req, int error, size_t body_bytes)
{
	struct fuse_out_header out;

	fuse_session_out_header(&req->fuse, error, body_bytes, &out);
	return (uint32_t)iov_copy_in(req->chain.iov + req->chain.nr_out, req->chain.nr_in, 0, &out,
				     sizeof(out));
}

/* The request is claimed: write the whole reply and complete it. */
void request_deliver(struct request *req, int error, const void *body, size_t len)
{
	uint32_t written = 0;

	if (req->generation && req->chain.in_bytes >= sizeof(struct fuse_out_header) &&
	    (!req->fuse.op || request_has_reply(req))) {
		if (req->chain.in_bytes - sizeof(struct fuse_out_header) < len)
			error = -EIO;
		if (error)
			len = 0;
		written = request_write_header(req, error, len);
		written += (uint32_t)iov_copy_in(req->chain.iov + req->chain.nr_out,
						 req->chain.nr_in, written, body, len);
	}
	request_complete(req, written);
}

/* End a request that never reached the service (nothing is pinned). */
void request_fail(struct request *req, int error)
{
	if (request_claim(req))
		request_deliver(req, error, NULL, 0);
	else
		request_release_slot(req);
}

/*
 * Stopping queue, after the drain time: complete the chain with an error; whoever has the request keeps it.
 * What the owner may still touch (buffers, payload, memory generation) stays.
 */
void request_abandon(struct request *req, int error)
{
	struct queue *q = req->queue;
	uint32_t written = 0;

	if (!request_try_claim(req))
		return;
	if (req->chain.in_bytes >= sizeof(struct fuse_out_header) && request_has_reply(req))
		written = request_write_header(req, error, 0);
	pthread_mutex_lock(&q->push_lock);
	request_push_locked(req, written);
	request_done_locked(req);
	__atomic_store_n(&req->state, REQUEST_ABANDONED, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&q->push_lock);
}

/* Describe the payload as segments; the readable part of the chain is not needed whole any more. */
static void request_trim_payload(struct request *req)
{
	struct iovec *iov = req->chain.iov;
	size_t skip = req->fuse.payload_off, left = req->fuse.payload_bytes;
	unsigned int i = 0;

	if (!left)
		return;
	while (i < req->chain.nr_out && skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	req->payload = &iov[i];
	for (; i < req->chain.nr_out && left; i++) {
		iov[i].iov_base = (char *)iov[i].iov_base + skip;
		iov[i].iov_len = min_of(iov[i].iov_len - skip, left);
		left -= iov[i].iov_len;
		skip = 0;
		req->nr_payload++;
	}
	assert(left == 0);
}

static int request_read_args(struct request *req)
{
	size_t need = sizeof(struct fuse_in_header) + req->fuse.copy_bytes + 64;
	size_t got;

	if (need > req->buf_cap) {
		/* Only requests with extensions or BATCH_FORGETs are that long. */
		uint8_t *buf = malloc(need);

		if (!buf)
			return -ENOMEM;
		memcpy(buf, req->buf, sizeof(struct fuse_in_header));
		req->buf = buf;
		req->buf_cap = need;
	}
	got = iov_copy_out(req->buf + sizeof(struct fuse_in_header), req->chain.iov,
			   req->chain.nr_out, sizeof(struct fuse_in_header), req->fuse.copy_bytes);
	return got == req->fuse.copy_bytes ? 0 : -EINVAL;
}

static void request_bad(struct request *req, int error)
{
	struct device *dev = req->dev;

	__atomic_fetch_add(&dev->nr_bad_requests, 1, __ATOMIC_RELAXED);
	log_warn_ratelimited(&dev->bad_request_log,
			     "queue %u: refused a malformed request (%s): %s", req->queue->index,
			     req->fuse.op ? req->fuse.op->name : "unknown", strerror(-error));
}

/* End an INTERRUPT, which nobody but us has, with EAGAIN. */
static void request_reply_again(struct request *req)
{
	uint32_t written = 0;

	if (!request_claim(req)) {
		request_release_slot(req);
		return;
	}
	if (req->generation)
		written = request_write_header(req, -EAGAIN, 0);
	request_complete(req, written);
}

static void request_dispatch(struct request *req)
{
	struct device *dev = req->dev;

	switch (req->fuse.op->opcode) {
	case FUSE_INIT:
	case FUSE_DESTROY:
		control_post(req);
		break;
	case FUSE_INTERRUPT: {
		struct fuse_interrupt_in in;

		memcpy(&in, req->buf + sizeof(struct fuse_in_header), sizeof(in));
		/* It may have overtaken what it names: a driver that left room for it hears that it shall try again. */
		if (request_interrupt_driver_unique(dev, in.unique) ||
		    req->chain.in_bytes < sizeof(struct fuse_out_header))
			request_reply_none(req);
		else
			request_reply_again(req);
		break;
	}
	default:
		request_trim_payload(req);
		request_submit(req);
	}
}

/*
 * A chain was popped into @req: read, check, and hand it to whoever answers it. Runs in the queue thread.
 */
void request_receive(struct request *req)
{
	struct fuse_request *fuse = &req->fuse;
	struct fuse_session *session = req->dev->session;
	size_t n;
	int err;

	fuse->op = NULL;
	n = iov_copy_out(req->buf, req->chain.iov, req->chain.nr_out, 0,
			 sizeof(struct fuse_in_header));
	if (n < sizeof(struct fuse_in_header)) {
		/* Nothing says what a reply would answer: the chain goes back empty. */
		request_bad(req, -EINVAL);
		req->chain.in_bytes = 0;
		request_activate(req);
		request_fail(req, -EINVAL);
		return;
	}
	err = fuse_session_header(session, req->buf, req->chain.out_bytes, req->chain.in_bytes,
				  fuse);
	if (err == 0) {
		fuse->hdr.unique = request_unique(req);
		err = request_read_args(req);
	}
	if (err == 0)
		err = fuse_session_decode(session, fuse, req->buf, req->buf_cap);
	request_activate(req);
	if (err == 0) {
		request_dispatch(req);
		return;
	}
	/* A name that is too long is a user's mistake, not the driver's. */
	if (err == -EINVAL || err == -E2BIG)
		request_bad(req, err);
	/* -EALREADY: done without the daemon. -ENODATA: a FORGET of which nothing is left to pass on. */
	request_fail(req, err == -EALREADY || err == -ENODATA ? 0 : err);
}

bool request_interrupt_driver_unique(struct device *dev, uint64_t driver_unique)
{
	if (!dev->svc->ops->interrupt)
		return true;
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		struct queue *q = &dev->queues[i];

		for (uint32_t s = 0; s < READ_ONCE(q->nr_slots_used); s++) {
			struct request *req = &q->slots[s];

			uint64_t unique = __atomic_load_n(&req->live_unique, __ATOMIC_ACQUIRE);

			if (!unique || READ_ONCE(req->live_driver_unique) != driver_unique)
				continue;
			dev->svc->ops->interrupt(dev->svc, unique);
			return true;
		}
	}
	return false;
}

static void queue_end_requests(struct queue *q, int error, bool (*take)(struct request *req))
{
	for (uint32_t i = 0; i < READ_ONCE(q->nr_slots_used); i++) {
		struct request *req = &q->slots[i];

		if (__atomic_load_n(&req->live_unique, __ATOMIC_ACQUIRE) && take(req))
			request_reply(req, error, NULL, 0);
	}
}

void device_end_requests(struct device *dev, int error, bool (*take)(struct request *req))
{
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_end_requests(&dev->queues[i], error, take);
	queue_end_requests(&dev->internal, error, take);
}

const struct fuse_in_header *request_header(const struct request *req)
{
	return &req->fuse.hdr;
}

const void *request_message(const struct request *req, size_t *ret_len)
{
	*ret_len = req->fuse.msg_bytes;
	return req->buf;
}

const struct iovec *request_payload(const struct request *req, unsigned int *ret_nr)
{
	*ret_nr = req->nr_payload;
	return req->payload;
}

size_t request_reply_max(const struct request *req)
{
	return req->fuse.reply_max;
}

void *request_service_data(struct request *req)
{
	return req->service_data;
}

/* Bring a body of several segments into one piece, since the session checks it in place. */
static void *flatten_body(const struct iovec *iov, unsigned int nr, size_t len)
{
	void *body = malloc(len);

	if (body)
		iov_copy_out(body, iov, nr, 0, len);
	return body;
}

/* Tell the session what the service answered. Return: what the driver is to be told. */
static int request_finish(struct request *req, int error, void *body, size_t len, bool delivered)
{
	/* Nobody waits for the answers to payback, and the ledger has written them off. */
	if (!req->generation)
		return 0;
	return fuse_session_finish(req->dev->session, &req->fuse, error, body, len, delivered);
}

static void request_reply_data(struct request *req, bool delivered, const struct iovec *iov,
			       unsigned int nr, size_t len)
{
	int error = request_finish(req, 0, NULL, len, delivered);
	uint32_t written;

	if (!delivered) {
		request_release_slot(req);
		return;
	}
	if (error || !req->generation ||
	    req->chain.in_bytes - sizeof(struct fuse_out_header) < len) {
		request_deliver(req, error, NULL, 0);
		return;
	}
	written = request_write_header(req, 0, len);
	for (unsigned int i = 0; i < nr; i++)
		written +=
			(uint32_t)iov_copy_in(req->chain.iov + req->chain.nr_out, req->chain.nr_in,
					      written, iov[i].iov_base, iov[i].iov_len);
	request_complete(req, written);
}

void request_reply(struct request *req, int error, struct iovec *iov, unsigned int nr)
{
	static const uint8_t zeros[sizeof(struct fuse_open_out)];
	bool delivered = request_claim(req);
	void *body = NULL, *heap = NULL;
	size_t len = 0;
	int failed;

	if (!request_has_reply(req)) {
		error = 0;
	} else if (error == 0 && nr) {
		len = iov_bytes(iov, nr);
		if (req->fuse.op->reply == FUSE_REPLY_DATA) {
			request_reply_data(req, delivered, iov, nr, len);
			return;
		}
		body = iov[0].iov_base;
		if (nr > 1)
			body = heap = flatten_body(iov, nr, len);
		if (!body && len)
			error = -ENOMEM;
	}
	failed = error;
	error = request_finish(req, error, body, len, delivered);
	if (failed && !error && request_has_reply(req)) {
		/* The session made a success of it: OPEN that the daemon does not implement. */
		body = (void *)(uintptr_t)zeros;
		len = fuse_session_finish_zeros(&req->fuse);
		assert(len <= sizeof(zeros));
	}
	if (delivered)
		request_deliver(req, error, body, error ? 0 : len);
	else
		request_release_slot(req);
	free(heap);
}

void request_reply_none(struct request *req)
{
	/* A request that wants a reply gets an empty one; the session says whether that is right. */
	request_reply(req, 0, NULL, 0);
}

bool request_is_direct(const struct request *req)
{
	return req->fuse.op->reply == FUSE_REPLY_DATA && req->generation;
}

/*
 * Cut the first 16 bytes off the writable segments, for the header, and everything behind @len more.
 * Return: false when the header does not lie in one segment: a driver that does that gets a copy.
 */
static bool request_trim_direct(struct request *req, size_t len, const struct iovec **ret_iov,
				unsigned int *ret_nr)
{
	struct iovec *iov = req->chain.iov + req->chain.nr_out;
	unsigned int nr = 0, i = 0;

	if (iov[0].iov_len < sizeof(struct fuse_out_header))
		return false;
	req->direct_header = iov[0].iov_base;
	iov[0].iov_base = (char *)iov[0].iov_base + sizeof(struct fuse_out_header);
	iov[0].iov_len -= sizeof(struct fuse_out_header);
	if (iov[0].iov_len == 0)
		i = 1;
	*ret_iov = &iov[i];
	for (; i < req->chain.nr_in && len; i++, nr++) {
		iov[i].iov_len = min_of(iov[i].iov_len, len);
		len -= iov[i].iov_len;
	}
	*ret_nr = nr;
	return true;
}

static bool request_takes_direct(const struct request *req, size_t len)
{
	return request_is_direct(req) && len > 0 && len <= req->fuse.reply_max &&
	       len <= req->chain.in_bytes - sizeof(struct fuse_out_header) &&
	       req->chain.iov[req->chain.nr_out].iov_len >= sizeof(struct fuse_out_header);
}

int request_direct_begin(struct request *req, size_t len, const struct iovec **ret_iov,
			 unsigned int *ret_nr)
{
	if (!request_takes_direct(req, len))
		return -EMSGSIZE;
	if (!request_claim(req))
		return -ECANCELED;
	if (!request_trim_direct(req, len, ret_iov, ret_nr))
		assert(!"checked above");
	req->direct_bytes = len;
	/*
	 * What is written behind the data: the driver's core has these lines, and the write to each would be waited for by the next
	 * locked operation. They come while the data are copied.
	 */
	prefetch_write(req->direct_header);
	virtq_push_soon(req->queue->vq);
	return 0;
}

bool request_hold(struct request *req)
{
	return request_claim(req);
}

void request_let_go(struct request *req)
{
	__atomic_store_n(&req->state, REQUEST_ACTIVE, __ATOMIC_RELEASE);
}

int request_fill_begin(struct request *req, size_t len, struct iovec *iov, unsigned int nr)
{
	const struct iovec *in = req->chain.iov + req->chain.nr_out;
	size_t skip = sizeof(struct fuse_out_header);
	unsigned int n = 0;

	if (!request_takes_direct(req, len))
		return -EMSGSIZE;
	for (unsigned int i = 0; i < req->chain.nr_in && len; i++) {
		size_t bytes = min_of(in[i].iov_len - skip, len);

		if (bytes) {
			if (n == nr)
				return -EMSGSIZE;
			iov[n++] = (struct iovec){ (char *)in[i].iov_base + skip, bytes };
		}
		len -= bytes;
		skip = 0;
	}
	return request_hold(req) ? (int)n : -ECANCELED;
}

void request_direct_end(struct request *req, int error)
{
	struct iovec *iov = req->chain.iov + req->chain.nr_out;
	size_t len = req->direct_bytes;
	struct fuse_out_header out;

	error = request_finish(req, error, NULL, len, true);
	if (error)
		len = 0;
	fuse_session_out_header(&req->fuse, error, len, &out);
	memcpy(req->direct_header, &out, sizeof(out));
	/* Back to where the segment began, for the dirty log; the header's bytes count again. */
	iov[0].iov_base = req->direct_header;
	iov[0].iov_len += sizeof(out);
	request_complete(req, (uint32_t)(sizeof(out) + len));
}
