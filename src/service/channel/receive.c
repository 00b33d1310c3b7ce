/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Takes the daemon's messages: replies, straight into the driver's memory where they are large, and notifications.
 *
 * A daemon may say anything. What cannot be a reply to something that it was asked is counted and dropped; a reply
 * that is malformed ends its request with -EIO. The bytes of a body are checked by the session.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/iov.h"
#include "service/channel/private.h"

#ifndef UIO_MAXIOV
#define UIO_MAXIOV 1024
#endif

/* Messages taken before what waits to be sent has its turn. */
#define RECEIVE_BATCH 64

static ssize_t receive_iov(int fd, struct iovec *iov, size_t nr, int flags, bool *ret_cut)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
	ssize_t n;

	do {
		n = recvmsg(fd, &msg, flags | MSG_DONTWAIT);
		/* ECONNRESET: the daemon closed with requests unread. What it sent before is still there. */
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	*ret_cut = n >= 0 && (msg.msg_flags & MSG_TRUNC);
	return n < 0 ? -errno : n;
}

/* An empty message looks like the end of the file. */
static bool socket_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void count_malformed(struct channel *ch, const char *what, uint64_t unique)
{
	pthread_mutex_lock(&ch->lock);
	ch->counts.nr_malformed++;
	pthread_mutex_unlock(&ch->lock);
	if (log_ratelimit_pass(&ch->log_reply))
		log_warn("the daemon sent a malformed message: %s (unique %llu)", what,
			 (unsigned long long)unique);
}

/* Handles that must not be read ahead change how long READs are split. */
static void note_open(struct channel *ch, struct request *req, const char *body, size_t len)
{
	uint32_t opcode = request_header(req)->opcode;
	struct fuse_open_out open;
	size_t off;

	if (opcode == FUSE_OPEN)
		off = 0;
	else if (opcode == FUSE_CREATE || opcode == FUSE_TMPFILE)
		off = sizeof(struct fuse_entry_out);
	else
		return;
	if (len != off + sizeof(open))
		return;
	memcpy(&open, body + off, sizeof(open));
	if (open.open_flags & (FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM)) {
		pthread_mutex_lock(&ch->lock);
		WRITE_ONCE(ch->sequential, true);
		pthread_mutex_unlock(&ch->lock);
	}
}

static void finish_part(struct channel *ch, const struct channel_slot *slot, int error, size_t got)
{
	bool over;

	pthread_mutex_lock(&ch->lock);
	over = split_part_done(ch, slot->split, slot->part, error, (uint32_t)got);
	pthread_mutex_unlock(&ch->lock);
	if (over)
		split_finish(ch, slot->split);
}

/* End what the slot stood for, with a reply in private memory. */
static void finish_slot(struct channel *ch, const struct channel_slot *slot, int error, char *body,
			size_t len)
{
	struct iovec iov = { .iov_base = body, .iov_len = len };

	if (slot->split) {
		struct channel_split *split = slot->split;

		if (!error && len > split_part_bytes(split, slot->part))
			error = -EIO;
		if (!error)
			memcpy(split->buf + (size_t)slot->part * split->part_bytes, body, len);
		finish_part(ch, slot, error, error ? 0 : len);
		return;
	}
	if (!error && !READ_ONCE(ch->sequential))
		note_open(ch, slot->req, body, len);
	request_reply(slot->req, error, &iov, !error && len ? 1 : 0);
}

static void handle_notification(struct channel *ch, const struct fuse_out_header *out,
				const char *body, size_t len)
{
	pthread_mutex_lock(&ch->lock);
	ch->counts.nr_notifications++;
	pthread_mutex_unlock(&ch->lock);
	if (!notify_handle(ch, out, body, len))
		count_malformed(ch, "notification", 0);
}

static bool claim(struct channel *ch, uint64_t unique, struct channel_slot *ret_slot)
{
	struct channel_slot *slot;

	pthread_mutex_lock(&ch->lock);
	slot = slot_find_sent(ch, unique);
	if (slot)
		slot_remove(ch, slot, ret_slot);
	else if (unique != CHANNEL_UNIQUE_INIT)
		ch->counts.nr_unknown++;
	pthread_mutex_unlock(&ch->lock);
	return slot;
}

static bool take_destroy(struct channel *ch)
{
	bool sent;

	pthread_mutex_lock(&ch->lock);
	sent = ch->destroy_sent;
	ch->destroy_sent = false;
	pthread_mutex_unlock(&ch->lock);
	return sent;
}

static void handle_message(struct channel *ch, char *buf, size_t n, bool cut)
{
	struct fuse_out_header out;
	struct channel_slot slot;
	int error;

	if (n < sizeof(out)) {
		count_malformed(ch, "shorter than a header", 0);
		return;
	}
	memcpy(&out, buf, sizeof(out));
	if (!out.unique) {
		handle_notification(ch, &out, buf + sizeof(out), n - sizeof(out));
		return;
	}
	if (out.unique == CHANNEL_UNIQUE_DESTROY && take_destroy(ch)) {
		ch->config.events.stopped(ch->config.ctx);
		return;
	}
	if (out.unique & 1) {
		interrupt_answered(ch, out.unique, out.error);
		return;
	}
	if (!claim(ch, out.unique, &slot)) {
		if (log_ratelimit_pass(&ch->log_reply))
			log_warn("the daemon answered what it was not asked (unique %llu)",
				 (unsigned long long)out.unique);
		return;
	}
	error = out.error;
	if (cut || out.len != n || error > 0 || (error && n != sizeof(out))) {
		count_malformed(ch, "wrong length or error", out.unique);
		error = -EIO;
	}
	finish_slot(ch, &slot, error, buf + sizeof(out), n - sizeof(out));
}

/*
 * The message at the head of the socket is a reply of @n bytes whose slot wants its data elsewhere: receive
 * it there. The slot was claimed.
 */
static void receive_part(struct channel *ch, int fd, const struct channel_slot *slot, size_t n)
{
	struct channel_split *split = slot->split;
	struct fuse_out_header out;
	struct iovec iov[2] = {
		{ .iov_base = &out, .iov_len = sizeof(out) },
		{ .iov_base = split->buf + (size_t)slot->part * split->part_bytes,
		  .iov_len = n - sizeof(out) },
	};
	bool cut;
	ssize_t got = receive_iov(fd, iov, 2, 0, &cut);

	finish_part(ch, slot, got == (ssize_t)n ? 0 : -EIO, n - sizeof(out));
}

static void receive_direct(struct channel *ch, int fd, const struct channel_slot *slot, size_t n)
{
	struct fuse_out_header out;
	struct iovec iov[UIO_MAXIOV];
	const struct iovec *to;
	unsigned int nr;
	ssize_t got;
	bool cut;
	int err;

	err = request_direct_begin(slot->req, n - sizeof(out), &to, &nr);
	if (err || nr > UIO_MAXIOV - 1) {
		iov[0].iov_base = ch->recv_buf;
		iov[0].iov_len = CHANNEL_RECV_MAX;
		got = receive_iov(fd, iov, 1, 0, &cut);
		if (err) {
			iov[0].iov_base = ch->recv_buf + sizeof(out);
			iov[0].iov_len = n - sizeof(out);
			request_reply(slot->req, err == -EMSGSIZE && got == (ssize_t)n ? 0 : -EIO,
				      iov, 1);
			return;
		}
		iov_copy_in(to, nr, 0, ch->recv_buf + sizeof(out), n - sizeof(out));
	} else {
		iov[0].iov_base = &out;
		iov[0].iov_len = sizeof(out);
		memcpy(iov + 1, to, nr * sizeof(*iov));
		got = receive_iov(fd, iov, nr + 1, 0, &cut);
	}
	request_direct_end(slot->req, got == (ssize_t)n ? 0 : -EIO);
}

/* Look ahead. Return: 1 when a message was taken, 0 to take it the plain way, -EAGAIN when there is none. */
static int receive_looking_ahead(struct channel *ch, int fd)
{
	struct fuse_out_header out;
	struct iovec iov = { .iov_base = &out, .iov_len = sizeof(out) };
	struct channel_slot *slot, mine;
	bool take = false, cut;
	ssize_t n = receive_iov(fd, &iov, 1, MSG_PEEK | MSG_TRUNC, &cut);

	if (n < 0)
		return (int)n;
	if (n <= (ssize_t)sizeof(out) || out.len != n || out.error || !out.unique)
		return 0;
	pthread_mutex_lock(&ch->lock);
	slot = slot_find_sent(ch, out.unique);
	if (slot && slot->look_ahead) {
		size_t max =
			slot->split ? split_part_bytes(slot->split, slot->part) : slot->reply_max;

		take = (size_t)n - sizeof(out) <= max;
		if (take)
			slot_remove(ch, slot, &mine);
	}
	pthread_mutex_unlock(&ch->lock);
	if (!take)
		return 0;
	if (mine.split)
		receive_part(ch, fd, &mine, (size_t)n);
	else
		receive_direct(ch, fd, &mine, (size_t)n);
	return 1;
}

/* Return: 1 when a message was taken, 0 when there is none, -EPIPE at the end. */
static int receive_one(struct channel *ch, int fd)
{
	struct iovec iov = { .iov_base = ch->recv_buf, .iov_len = CHANNEL_RECV_MAX };
	ssize_t n = 0;
	bool cut;

	if (READ_ONCE(ch->nr_look_ahead))
		n = receive_looking_ahead(ch, fd);
	if (n > 0)
		return 1;
	if (!n)
		n = receive_iov(fd, &iov, 1, 0, &cut);
	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return -EPIPE;
	if (!n && socket_ended(fd))
		return -EPIPE;
	handle_message(ch, ch->recv_buf, (size_t)n, cut);
	return 1;
}

/* While INIT is not answered the sender of the answer is asked for, too. */
static int receive_init(struct channel *ch, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { .iov_base = ch->recv_buf, .iov_len = CHANNEL_RECV_MAX };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct fuse_out_header out = { 0 };
	struct cmsghdr *c;
	struct ucred cred = { 0 };
	const char *why = NULL;
	ssize_t n;

	do {
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return errno == EAGAIN ? 0 : -EPIPE;
	if (!n && socket_ended(fd))
		return -EPIPE;
	memcpy(&out, ch->recv_buf, min_of((size_t)n, sizeof(out)));
	if ((size_t)n >= sizeof(out) && out.unique == CHANNEL_UNIQUE_LIBRARY &&
	    ch->config.events.library)
		ch->config.events.library(ch->config.ctx, ch->recv_buf, (size_t)n);
	if ((size_t)n < sizeof(out) || out.unique != CHANNEL_UNIQUE_INIT)
		/* Some daemons send notifications before they know whether anybody listens. */
		return 1;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
		memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	if (channel_init_reply(ch, ch->recv_buf, (size_t)n, cred.pid, &why) < 0) {
		ch->why = why;
		return -EPROTO;
	}
	return 1;
}

int channel_receive(struct channel *ch, int fd)
{
	int n = 1;

	for (int i = 0; n > 0 && i < RECEIVE_BATCH; i++) {
		if (READ_ONCE(ch->state) == CHANNEL_STARTING)
			n = receive_init(ch, fd);
		else
			n = receive_one(ch, fd);
		if (n > 0)
			ch->nr_received++;
		/* Nothing more is owed: asking once more would only tell us so. */
		if (n > 0 && !READ_ONCE(ch->nr_slots_used))
			break;
	}
	return n < 0 ? n : 0;
}
