/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notifications: what a daemon tells the kernel unasked. The device passes them on where the driver takes them.
 *
 * One is a question: RETRIEVE asks for pages of the kernel's cache and is answered by a NOTIFY_REPLY, for which libfuse keeps
 * an entry and its user may wait. Where the driver is not asked, or does not answer, the daemon gets what a kernel answers that
 * has cached nothing: no bytes.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "fuse/session.h"
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
	int err = channel_send_plain(ch->fd, &msg, sizeof(msg));

	if (err == -EAGAIN)
		channel_watch(ch, EPOLLOUT | EPOLLRDHUP);
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

void channel_retrieve_none(struct service *svc, const struct fuse_notify_retrieve_out *what)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->lock);
	retrieve(ch, what);
	pthread_mutex_unlock(&ch->lock);
}

bool notify_handle(struct channel *ch, const struct fuse_out_header *out, const char *body,
		   size_t len)
{
	const struct fuse_notify plain = { .code = out->error, .len = len };
	struct fuse_notify_retrieve_out what;
	int err;

	if (out->len != sizeof(*out) + len)
		return false;
	pthread_mutex_lock(&ch->dev_lock);
	err = ch->dev ? device_notify(ch->dev, out->error, body, len) : fuse_notify_check(&plain);
	pthread_mutex_unlock(&ch->dev_lock);
	if (err < 0 && out->error == FUSE_NOTIFY_RETRIEVE && len == sizeof(what)) {
		memcpy(&what, body, sizeof(what));
		channel_retrieve_none(&ch->svc, &what);
	}
	if (err < 0) {
		pthread_mutex_lock(&ch->lock);
		ch->counts.nr_not_passed_on++;
		pthread_mutex_unlock(&ch->lock);
	}
	return err != -EINVAL && err != -ENAMETOOLONG;
}
