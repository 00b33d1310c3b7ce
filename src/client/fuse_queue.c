/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls on one request queue: segments as a Linux guest makes them, completion, and the checks of a reply.
 *
 * Theory of operation: a call is private memory with a piece of the shared arena. What the device must not change
 * (unique, sizes, opcode) is read from the private part only; the reply is copied once, then checked.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/poll_time.h"
#include "client/fuse_client_impl.h"

#define SEGMENTS_MAX	   (4 + FUSE_CLIENT_DATA_MAX / FUSE_CLIENT_PAGE)
#define SPINS_PER_LOOK	   16384
#define ALIVE_PERIOD_MS	   200
#define ERRNO_ANSWERED_MAX 511

struct fuse_client *fuse_queue_client(const struct fuse_queue *q)
{
	return q->client;
}

struct fuse_call *fuse_queue_get(struct fuse_queue *q)
{
	struct fuse_call *call = q->free_calls;

	if (!call)
		return NULL;
	q->free_calls = call->next;
	call->args_bytes = call->ext_bytes = call->out_bytes = 0;
	call->reply_bytes = call->in_bytes = 0;
	return call;
}

void fuse_queue_put(struct fuse_queue *q, struct fuse_call *call)
{
	call->next = q->free_calls;
	q->free_calls = call;
}

static unsigned int add_pages(struct iovec *iov, uint8_t *data, size_t bytes)
{
	unsigned int n = 0;

	for (; bytes; n++) {
		iov[n] = (struct iovec){ data, min_of(bytes, (size_t)FUSE_CLIENT_PAGE) };
		data += iov[n].iov_len;
		bytes -= iov[n].iov_len;
	}
	return n;
}

int fuse_queue_submit(struct fuse_queue *q, struct fuse_call *call)
{
	struct fuse_call_shared *s = call->shared;
	struct iovec iov[SEGMENTS_MAX];
	unsigned int n = 0, nr_out;
	int err;

	assert(call->args_bytes <= FUSE_CLIENT_ARGS_MAX && call->ext_bytes <= call->args_bytes);
	assert(call->out_bytes <= q->client->config.data_bytes);
	assert(call->in_bytes <= q->client->config.data_bytes);
	assert(call->reply_bytes <= FUSE_CALL_REPLY_MAX && !(call->reply_bytes && call->in_bytes));
	call->unique = q->unique;
	fuse_client_fill_header(q->client, &s->in, call->opcode, call->nodeid, call->unique,
				sizeof(s->in) + call->args_bytes + call->out_bytes);
	s->in.total_extlen = (uint16_t)(call->ext_bytes / 8);
	iov[n++] = (struct iovec){ &s->in, sizeof(s->in) };
	if (call->args_bytes)
		iov[n++] = (struct iovec){ s->args, call->args_bytes };
	n += add_pages(iov + n, call->data, call->out_bytes);
	nr_out = n;
	iov[n++] = (struct iovec){ &s->out, sizeof(s->out) };
	if (call->reply_bytes)
		iov[n++] = (struct iovec){ s->reply, call->reply_bytes };
	n += add_pages(iov + n, call->data, call->in_bytes);
	err = virtq_driver_add(q->ring->drv, iov, nr_out, n - nr_out, call);
	if (err == 0)
		q->unique += q->unique_step;
	return err;
}

void fuse_queue_flush(struct fuse_queue *q)
{
	if (virtq_driver_publish(q->ring->drv))
		fd_signal(q->ring->kick_fd);
}

static int look_after_device(struct fuse_queue *q, uint64_t begin)
{
	int err = 0;

	if (fuse_client_is_gone(q->client))
		err = -EPIPE;
	else if (clock_now_ns() - begin > FUSE_CLIENT_TIMEOUT_NS)
		err = -ETIMEDOUT;
	/* What came just before the end still counts. */
	if (virtq_driver_has_used(q->ring->drv))
		return 0;
	q->failed |= err < 0;
	return err;
}

static int spin(struct fuse_queue *q)
{
	uint64_t begin = 0;

	for (unsigned int i = 1; !virtq_driver_has_used(q->ring->drv); i++) {
		cpu_relax();
		if (i % SPINS_PER_LOOK == 0) {
			uint64_t now = clock_now_ns();
			int err;

			begin = begin ? begin : now;
			err = look_after_device(q, begin);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

/* Return: is there a reply? */
static bool look_for_a_while(struct fuse_queue *q)
{
	uint64_t begin;

	if (!q->poll_ns)
		return false;
	begin = clock_now_ns();
	do {
		for (int i = 0; i < 16; i++) {
			if (virtq_driver_has_used(q->ring->drv))
				return true;
			cpu_relax();
		}
	} while (poll_time_left(begin, q->poll_ns, NULL));
	return false;
}

static int sleep_until_used(struct fuse_queue *q)
{
	struct pollfd pfd = { .fd = q->ring->call_fd, .events = POLLIN };
	uint64_t begin = clock_now_ns();
	int err = 0;

	if (look_for_a_while(q))
		return 0;

	while (!virtq_driver_call_enable(q->ring->drv)) {
		int n = poll(&pfd, 1, ALIVE_PERIOD_MS);

		if (n > 0)
			err = fd_drain_signal(q->ring->call_fd);
		else if (n == 0 || errno == EINTR)
			err = look_after_device(q, begin);
		else
			err = -errno;
		if (err < 0)
			break;
	}
	virtq_driver_call_disable(q->ring->drv);
	/* What was looked for in vain counts: would looking longer have found it? */
	if (q->poll_max_ns)
		poll_time_adapt(&q->poll_ns, clock_now_ns() - begin, q->poll_max_ns);
	return err < 0 ? err : 0;
}

int fuse_queue_wait(struct fuse_queue *q)
{
	if (virtq_driver_has_used(q->ring->drv))
		return 0;
	return q->busy_poll ? spin(q) : sleep_until_used(q);
}

/* As Linux 7.2 does: the ring, the header and the request have to agree; then sizes by what was asked for. */
static int take_reply(struct fuse_call *call, uint32_t written)
{
	const struct fuse_out_header *shared = &call->shared->out;
	uint32_t len = READ_ONCE(shared->len);
	int32_t error = READ_ONCE(shared->error);

	if (written < sizeof(*shared) || len != written ||
	    READ_ONCE(shared->unique) != call->unique)
		return -EPROTO;
	if (error > 0 || error < -ERRNO_ANSWERED_MAX)
		return -EPROTO;
	call->error = error;
	call->got_bytes = len - (uint32_t)sizeof(*shared);
	if (error)
		return call->got_bytes ? -EPROTO : 0;
	/* INIT's reply grew over time; all other fixed ones are exact. The ring has bounded the length. */
	if (!call->in_bytes && call->got_bytes != call->reply_bytes && call->opcode != FUSE_INIT)
		return -EPROTO;
	if (call->reply_bytes) {
		memcpy(call->reply.bytes, call->shared->reply, call->got_bytes);
		memset(call->reply.bytes + call->got_bytes, 0,
		       sizeof(call->reply.bytes) - call->got_bytes);
	}
	return 0;
}

int fuse_queue_complete(struct fuse_queue *q, struct fuse_call **ret_call)
{
	struct fuse_call *call;
	uint32_t written;
	void *cookie;
	int n = virtq_driver_get(q->ring->drv, &cookie, &written);

	if (n <= 0) {
		q->failed |= n < 0;
		return n;
	}
	call = cookie;
	n = take_reply(call, written);
	if (unlikely(n < 0)) {
		q->failed = true;
		return n;
	}
	*ret_call = call;
	return 1;
}

int fuse_queue_call(struct fuse_queue *q, struct fuse_call *call)
{
	struct fuse_call *done = NULL;
	int err = fuse_queue_submit(q, call);

	if (err < 0)
		return err;
	fuse_queue_flush(q);
	do {
		err = fuse_queue_wait(q);
		if (err == 0)
			err = fuse_queue_complete(q, &done);
	} while (err == 0);
	if (err < 0)
		return err;
	assert(done == call);
	return 0;
}
