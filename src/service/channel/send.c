/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sends requests to the daemon: at once where they lie, or from the fifo when there is room again.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/iov.h"
#include "service/channel/private.h"
#include "service/rules/rules.h"

#ifndef UIO_MAXIOV
#define UIO_MAXIOV 1024
#endif

bool channel_has_reply(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
	       opcode != FUSE_NOTIFY_REPLY;
}

void channel_fail(struct request *req, int error)
{
	if (channel_has_reply(request_header(req)->opcode))
		request_reply(req, error, NULL, 0);
	else
		request_reply_none(req);
}

void channel_watch(struct channel *ch, uint32_t events)
{
	ch->events = events;
	channel_arm(ch);
}

int channel_send_plain(int fd, const void *msg, size_t len)
{
	ssize_t n;

	do {
		n = send(fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int send_iov(int fd, struct iovec *iov, unsigned int nr)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n;

	do {
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* More segments than one sendmsg() takes: rare, so one buffer for all. */
static int send_bounced(struct channel *ch, int fd, struct request *req)
{
	unsigned int nr;
	const struct iovec *payload = request_payload(req, &nr);
	size_t bytes = iov_bytes(payload, nr);
	struct iovec iov[2];
	int err = -ENOMEM;

	pthread_mutex_lock(&ch->bounce_lock);
	if (!ch->bounce)
		ch->bounce = malloc(CHANNEL_RECV_MAX);
	if (ch->bounce && bytes <= CHANNEL_RECV_MAX) {
		iov[0].iov_base = (void *)(uintptr_t)request_message(req, &iov[0].iov_len);
		iov[1].iov_base = ch->bounce;
		iov[1].iov_len = iov_copy_out(ch->bounce, payload, nr, 0, bytes);
		err = send_iov(fd, iov, 2);
	}
	pthread_mutex_unlock(&ch->bounce_lock);
	return err;
}

static int send_request(struct channel *ch, int fd, struct request *req)
{
	struct iovec iov[UIO_MAXIOV];
	unsigned int nr;
	const struct iovec *payload = request_payload(req, &nr);
	int err;

	if (nr && !request_hold(req))
		return -ECANCELED;
	if (nr > UIO_MAXIOV - 1) {
		err = send_bounced(ch, fd, req);
		request_let_go(req);
		return err;
	}
	iov[0].iov_base = (void *)(uintptr_t)request_message(req, &iov[0].iov_len);
	if (nr)
		memcpy(iov + 1, payload, nr * sizeof(*iov));
	err = send_iov(fd, iov, nr + 1);
	if (nr)
		request_let_go(req);
	return err;
}

/* In pieces that the daemon's buffer holds; goes on where it was when the socket was full. */
static int send_forgets(struct channel_item *item, int fd)
{
	char msg[CHANNEL_FORGET_BYTES];
	uint32_t nr = 0;
	size_t len;
	int err = 0;

	while (!err && (len = rules_forget_message(item->req, item->nr_forgotten, msg, sizeof(msg),
						   &nr)) > 0) {
		err = channel_send_plain(fd, msg, len);
		if (!err)
			item->nr_forgotten += nr;
	}
	return err;
}

static void slot_look_ahead(struct channel *ch, struct channel_slot *slot)
{
	slot->look_ahead = true;
	WRITE_ONCE(ch->nr_look_ahead, ch->nr_look_ahead + 1);
}

void channel_retry_soon(struct channel *ch)
{
	WRITE_ONCE(ch->retry_soon, true);
	/* It may be asleep without a limit, unless it is asking: then it would find itself awake again at once. */
	if (!pthread_equal(pthread_self(), ch->thread))
		fd_signal(ch->wake_fd);
}

/* The fifo is looked at more often than that, with each reply for one: what counts is the time. */
static bool may_retry(struct channel *ch, struct channel_item *item)
{
	const uint64_t now_ns = clock_now_ns();

	if (now_ns - ch->retried_ns >= CHANNEL_RETRY_MS * NSEC_PER_MSEC) {
		ch->retried_ns = now_ns;
		item->retries++;
	}
	return item->retries <= CHANNEL_RETRIES;
}

/*
 * A send failed: what now? Return: -EAGAIN to try again later, or -EIO for good.
 * Context: under the lock.
 */
static int send_failed(struct channel *ch, struct channel_item *item, int err)
{
	/* The driver does not wait for it any more, and has its memory back: what is there now is not what was meant. */
	if (ch->state != CHANNEL_READY || err == -ECANCELED)
		return -EIO;
	if (err == -EAGAIN) {
		channel_watch(ch, EPOLLOUT | EPOLLRDHUP);
		return -EAGAIN;
	}
	if ((err == -ENOBUFS || err == -ENOMEM) && may_retry(ch, item)) {
		channel_retry_soon(ch);
		return -EAGAIN;
	}
	if (err != -EPIPE && err != -ECONNRESET && log_ratelimit_pass(&ch->log_send))
		log_warn("cannot send a request to the daemon: %s", strerror(-err));
	return -EIO;
}

/*
 * Send a whole request. Context: under the lock, which is dropped meanwhile.
 *
 * Return: 0 (it is no longer the caller's); -EAGAIN, -EBUSY: not now; -EIO: never.
 */
static int try_send_request(struct channel *ch, struct channel_item *item)
{
	struct request *req = item->req;
	const struct fuse_in_header *in = request_header(req);
	bool has_reply = channel_has_reply(in->opcode);
	bool in_pieces = limits_cut_forget(ch, req);
	struct channel_slot *slot = NULL;
	struct channel_slot unused;
	const int fd = ch->fd;
	int err;

	if (has_reply) {
		uint32_t max = (uint32_t)min_of(request_reply_max(req), (size_t)CHANNEL_RECV_MAX);

		if (hold_wanted(ch, in->len, max))
			return -EBUSY;
		slot = slot_enter(ch, in->unique, req, max);
		if (!slot)
			return -EBUSY;
		if (max >= CHANNEL_PEEK_MIN && request_is_direct(req))
			slot_look_ahead(ch, slot);
	}
	__atomic_fetch_add(&ch->nr_senders, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&ch->lock);
	err = in_pieces ? send_forgets(item, fd) : send_request(ch, fd, req);
	if (!err && !has_reply)
		request_reply_none(req);
	pthread_mutex_lock(&ch->lock);
	__atomic_fetch_sub(&ch->nr_senders, 1, __ATOMIC_RELEASE);
	if (slot)
		slot->sending = false;
	if (!err) {
		if (slot && item->interrupted)
			interrupt_slot(ch, slot);
		return 0;
	}
	if (slot)
		slot_remove(ch, slot, &unused);
	return send_failed(ch, item, err);
}

/* Send one part of a split; as try_send_request(). */
static int try_send_part(struct channel *ch, struct channel_split *split)
{
	uint64_t unique = CHANNEL_UNIQUE_PART + (ch->part_counter++ << 4) % CHANNEL_UNIQUE_OWN;
	struct channel_slot *slot, unused;
	const int fd = ch->fd;
	uint32_t part;
	char msg[80];
	int err;

	if (hold_wanted(ch, 0, split->part_bytes))
		return -EBUSY;
	part = split_take_part(split);
	slot = slot_enter(ch, unique, NULL, split_part_bytes(split, part));
	if (!slot) {
		split_return_part(split, part);
		return -EBUSY;
	}
	slot_look_ahead(ch, slot);
	slot->split = split;
	slot->part = part;
	split_message(split, part, unique, msg);
	__atomic_fetch_add(&ch->nr_senders, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&ch->lock);
	err = channel_send_plain(fd, msg, sizeof(msg));
	pthread_mutex_lock(&ch->lock);
	__atomic_fetch_sub(&ch->nr_senders, 1, __ATOMIC_RELEASE);
	slot->sending = false;
	if (!err) {
		if (split->item.interrupted)
			interrupt_slot(ch, slot);
		return 0;
	}
	slot_remove(ch, slot, &unused);
	split_return_part(split, part);
	return send_failed(ch, &split->item, err);
}

/* Send the parts of a split that may be sent. The caller has it in hand (queued); context as try_send_request(). */
static int try_send_split(struct channel *ch, struct channel_split *split)
{
	int err = 0;

	while (!err && split_next_part(split))
		err = ch->state == CHANNEL_READY ? try_send_part(ch, split) : -EIO;
	if (err == -EAGAIN || err == -EBUSY)
		return err;
	if (err)
		split_give_up(split, err);
	split->queued = false;
	if (!split->nr_under_way && !split_next_part(split)) {
		pthread_mutex_unlock(&ch->lock);
		split_finish(ch, split);
		pthread_mutex_lock(&ch->lock);
	}
	return 0;
}

/* Its reply may need more room than there is for a while. */
static bool reply_is_large(const struct channel_item *item)
{
	const uint32_t opcode = request_header(item->req)->opcode;

	return item->is_long ||
	       (channel_has_reply(opcode) && request_reply_max(item->req) > CHANNEL_SMALL_REPLY);
}

static int try_send(struct channel *ch, struct channel_item **item)
{
	struct channel_split *split;

	if ((*item)->is_split)
		return try_send_split(ch, container_of(*item, struct channel_split, item));
	if (!(*item)->is_long)
		return try_send_request(ch, *item);
	split = split_start(ch, *item);
	if (!split)
		return -EBUSY;
	*item = &split->item;
	return try_send_split(ch, split);
}

static bool request_is_long(const struct channel *ch, struct request *req)
{
	uint32_t opcode = request_header(req)->opcode;
	size_t max = request_reply_max(req);

	if (opcode == FUSE_READ)
		return max > ch->read_limit;
	return (opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS) &&
	       max > min_of(ch->send_max, (size_t)CHANNEL_READ_MAX);
}

void channel_submit(struct service *svc, struct request *req)
{
	struct channel *ch = channel_of(svc);
	struct channel_item *item = request_service_data(req);
	int err = -EIO;

	static_assert(sizeof(*item) <= 32, "request_service_data() has 32 bytes");
	item->req = req;
	pthread_mutex_lock(&ch->lock);
	if (ch->state == CHANNEL_READY)
		err = limits_check(ch, req);
	if (!err) {
		item->is_long = request_is_long(ch, req);
		item->is_large = reply_is_large(item);
		err = fifo_blocks(ch, item) ? -EBUSY : try_send(ch, &item);
	}
	if (err == -EAGAIN || err == -EBUSY) {
		fifo_append(ch, item);
		err = 0;
	}
	pthread_mutex_unlock(&ch->lock);
	if (err)
		channel_fail(req, err);
}

/* Context: under the lock, which is dropped now and then. Return: 0: nothing waits any more; -EAGAIN: the socket is full; -EBUSY. */
static int send_fifo(struct channel *ch, struct channel_fifo *fifo)
{
	struct channel_item *item;
	int err = 0;

	while (!err && ch->state == CHANNEL_READY && (item = fifo_take(fifo))) {
		err = try_send(ch, &item);
		if (err == -EAGAIN || err == -EBUSY) {
			fifo_push_front(ch, item);
		} else if (err) {
			struct request *req = item->req;

			pthread_mutex_unlock(&ch->lock);
			channel_fail(req, err);
			pthread_mutex_lock(&ch->lock);
			err = 0;
		}
	}
	return err;
}

void channel_send_queued(struct channel *ch)
{
	int err;

	pthread_mutex_lock(&ch->lock);
	WRITE_ONCE(ch->retry_soon, false);
	WRITE_ONCE(ch->held, false);
	err = ch->fd >= 0 ? notify_send_queued(ch) : 0;
	for (int i = 0; err != -EAGAIN && i < FIFO_NR; i++)
		err = send_fifo(ch, &ch->fifos[i]);
	if (err != -EAGAIN)
		channel_watch(ch, EPOLLRDHUP);
	pthread_mutex_unlock(&ch->lock);
}
