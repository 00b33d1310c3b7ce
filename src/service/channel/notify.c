/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notifications: what a daemon tells the kernel unasked. None of them reaches a driver, whose device has no queue for them.
 *
 * One is a question: RETRIEVE asks for pages of the kernel's cache and is answered by a NOTIFY_REPLY, for which libfuse keeps
 * an entry and its user may wait. It gets what a kernel answers that has cached nothing: no bytes.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "service/channel/private.h"

static int send_retrieve_reply(struct channel *ch, const struct fuse_notify_retrieve_out *what)
{
	struct {
		struct fuse_in_header in;
		struct fuse_notify_retrieve_in arg;
	} msg = {
		.in = { .len = sizeof(msg),
			.opcode = FUSE_NOTIFY_REPLY,
			.unique = what->notify_unique,
			.nodeid = what->nodeid },
		.arg = { .offset = what->offset },
	};
	int socket = channel_pick_socket(ch, false);
	int err = channel_send_plain(ch->sockets[socket].fd, &msg, sizeof(msg));

	if (err == -EAGAIN)
		channel_watch(ch, (unsigned int)socket, EPOLLOUT | EPOLLRDHUP);
	return err;
}

int notify_send_queued(struct channel *ch)
{
	int err = 0;

	while (ch->nr_retrieves && err != -EAGAIN) {
		err = send_retrieve_reply(ch, &ch->retrieves[0]);
		if (err == -EAGAIN)
			break;
		ch->nr_retrieves--;
		memmove(ch->retrieves, ch->retrieves + 1,
			ch->nr_retrieves * sizeof(ch->retrieves[0]));
	}
	return err == -EAGAIN ? err : 0;
}

/* In the order of the questions. Context: under the lock. */
static void retrieve(struct channel *ch, const struct fuse_notify_retrieve_out *what)
{
	if (ch->state != CHANNEL_READY && ch->state != CHANNEL_STOPPING)
		return;
	if (ch->nr_retrieves < CHANNEL_RETRIEVES) {
		ch->retrieves[ch->nr_retrieves++] = *what;
		(void)notify_send_queued(ch);
	} else if (log_ratelimit_pass(&ch->log_send)) {
		log_warn("the daemon asks for cached pages and does not read the answers");
	}
}

bool notify_handle(struct channel *ch, const struct fuse_out_header *out, const char *body,
		   size_t len)
{
	struct fuse_notify_retrieve_out what;

	if (out->len != sizeof(*out) + len || out->error < FUSE_NOTIFY_POLL ||
	    out->error > FUSE_NOTIFY_PRUNE)
		return false;
	if (out->error == FUSE_NOTIFY_RETRIEVE) {
		if (len != sizeof(what))
			return false;
		memcpy(&what, body, sizeof(what));
		pthread_mutex_lock(&ch->lock);
		retrieve(ch, &what);
		pthread_mutex_unlock(&ch->lock);
	}
	if (ch->config.events.notify)
		ch->config.events.notify(ch->config.ctx, out->error, body, len);
	return true;
}
