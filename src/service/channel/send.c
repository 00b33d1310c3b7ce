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

void channel_watch(struct channel *ch, unsigned int socket, uint32_t events)
{
	ch->sockets[socket].events = events;
	channel_arm(ch, socket);
}

void channel_fifo_append(struct channel *ch, struct channel_item *item)
{
	item->next = NULL;
	*ch->fifo_tail = item;
	ch->fifo_tail = &item->next;
}

static struct channel_item *fifo_take(struct channel *ch)
{
	struct channel_item *item = ch->fifo_head;

	if (item) {
		ch->fifo_head = item->next;
		if (!ch->fifo_head)
			ch->fifo_tail = &ch->fifo_head;
	}
	return item;
}

static void fifo_push_front(struct channel *ch, struct channel_item *item)
{
	item->next = ch->fifo_head;
	if (!ch->fifo_head)
		ch->fifo_tail = &item->next;
	ch->fifo_head = item;
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

	if (nr > UIO_MAXIOV - 1)
		return send_bounced(ch, fd, req);
	iov[0].iov_base = (void *)(uintptr_t)request_message(req, &iov[0].iov_len);
	if (nr)
		memcpy(iov + 1, payload, nr * sizeof(*iov));
	return send_iov(fd, iov, nr + 1);
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

/*
 * Where to send the next message. Once there are clones nobody may read the first socket (libfuse's threads do
 * not), and each clone is read by one thread, which must not have a queue while another is idle: in the kernel
 * all of them share one. So a clone gets one request at a time, and a message without a reply goes to the one that is least
 * busy. Return: index, or -1 when all are busy.
 */
int channel_pick_socket(const struct channel *ch, bool has_reply)
{
	int best = -1;

	if (ch->nr_sockets == 1)
		return 0;
	for (int i = 1; i < CHANNEL_SOCKETS_MAX; i++) {
		if (ch->sockets[i].fd >= 0 &&
		    (best < 0 || ch->sockets[i].nr_under_way < ch->sockets[best].nr_under_way))
			best = i;
	}
	return has_reply && ch->sockets[best].nr_under_way ? -1 : best;
}

static void slot_place(struct channel *ch, struct channel_slot *slot, int socket, bool look_ahead)
{
	slot->socket = (uint8_t)socket;
	slot->look_ahead = look_ahead;
	ch->sockets[socket].nr_under_way++;
	if (look_ahead)
		WRITE_ONCE(ch->nr_look_ahead, ch->nr_look_ahead + 1);
}

/*
 * A send failed: what now? Return: -EAGAIN to try again later, or -EIO for good.
 * Context: under the lock.
 */
static int send_failed(struct channel *ch, struct channel_item *item, int socket, int err)
{
	if (ch->state != CHANNEL_READY)
		return -EIO;
	/* A clone that is gone: the reply thread will notice, then another is picked. */
	if (socket && (err == -EPIPE || err == -ECONNRESET || err == -ENOTCONN))
		return -EAGAIN;
	if (err == -EAGAIN) {
		channel_watch(ch, (unsigned int)socket, EPOLLOUT | EPOLLRDHUP);
		return -EAGAIN;
	}
	if ((err == -ENOBUFS || err == -ENOMEM) && item->retries++ < CHANNEL_RETRIES) {
		/* The reply thread may be asleep without a limit. */
		WRITE_ONCE(ch->retry_soon, true);
		fd_signal(ch->wake_fd);
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
	int socket = channel_pick_socket(ch, has_reply);
	struct channel_slot *slot = NULL;
	struct channel_slot unused;
	int fd, err;

	if (socket < 0)
		return -EBUSY;
	fd = ch->sockets[socket].fd;
	if (has_reply) {
		uint32_t max = (uint32_t)min_of(request_reply_max(req), (size_t)CHANNEL_RECV_MAX);

		if (hold_wanted(ch, fd, in->len, max))
			return -EBUSY;
		slot = slot_enter(ch, in->unique, req, max);
		if (!slot)
			return -EBUSY;
		slot_place(ch, slot, socket, max >= CHANNEL_PEEK_MIN && request_is_direct(req));
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
	return send_failed(ch, item, socket, err);
}

/* Send one part of a split; as try_send_request(). */
static int try_send_part(struct channel *ch, struct channel_split *split)
{
	uint64_t unique = CHANNEL_UNIQUE_PART + (ch->part_counter++ << 4) % CHANNEL_UNIQUE_OWN;
	int socket = channel_pick_socket(ch, true);
	struct channel_slot *slot, unused;
	uint32_t part;
	char msg[80];
	int fd, err;

	if (socket < 0)
		return -EBUSY;
	fd = ch->sockets[socket].fd;
	if (hold_wanted(ch, fd, 0, split->part_bytes))
		return -EBUSY;
	part = split_take_part(split);
	slot = slot_enter(ch, unique, NULL, split_part_bytes(split, part));
	if (!slot) {
		split_return_part(split, part);
		return -EBUSY;
	}
	slot_place(ch, slot, socket, true);
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
	return send_failed(ch, &split->item, socket, err);
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
		err = ch->fifo_head ? -EBUSY : try_send(ch, &item);
	}
	if (err == -EAGAIN || err == -EBUSY) {
		channel_fifo_append(ch, item);
		err = 0;
	}
	pthread_mutex_unlock(&ch->lock);
	if (err)
		channel_fail(req, err);
}

void channel_send_queued(struct channel *ch)
{
	struct channel_item *item;
	int err;

	pthread_mutex_lock(&ch->lock);
	WRITE_ONCE(ch->retry_soon, false);
	WRITE_ONCE(ch->held, false);
	err = ch->nr_sockets ? notify_send_queued(ch) : 0;
	while (!err && ch->state == CHANNEL_READY && (item = fifo_take(ch))) {
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
	for (unsigned int i = 0; err != -EAGAIN && i < CHANNEL_SOCKETS_MAX; i++)
		channel_watch(ch, i, EPOLLRDHUP);
	pthread_mutex_unlock(&ch->lock);
}
