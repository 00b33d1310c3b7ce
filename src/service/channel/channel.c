/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service whose requests a daemon answers over message sockets: its life, from INIT to the end of the socket.
 */
#include "service/channel/channel.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/thread.h"
#include "device/device.h"
#include "fuse/session.h"
#include "service/channel/private.h"

#define CHANNEL_PAGE	   4096u
#define CHANNEL_MIN_BUFFER 8192u /* FUSE_MIN_READ_BUFFER */
#define SOCKET_OWN_BYTES   64u
/* What epoll tells of: the socket, and that there is something to look at. */
#define CHANNEL_EVENTS 2
enum {
	CHANNEL_SOCKET,
	CHANNEL_WAKE
};

static int send_init(int fd)
{
	char msg[sizeof(struct fuse_in_header) + sizeof(struct fuse_init_in)];
	size_t len = fuse_init_build(msg, CHANNEL_UNIQUE_INIT);

	return channel_send_plain(fd, msg, len);
}

static int socket_set_passcred(int fd, int on)
{
	return setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* What the daemon says is cut down to what fits its socket. Context: under the lock. */
static void apply_limits(struct channel *ch)
{
	struct fuse_init_out *init = &ch->svc.init_out;
	bool small = ch->send_max < 2 * CHANNEL_READ_MAX;
	/* Several messages shall fit at a time. */
	size_t fits = small ? ch->send_max / 4 : ch->send_max - CHANNEL_PAGE;
	uint32_t daemon_write = init->max_write;

	ch->message_max = max_of((size_t)CHANNEL_MIN_BUFFER, (size_t)daemon_write +
								     sizeof(struct fuse_in_header) +
								     sizeof(struct fuse_write_in));
	if (small) {
		uint32_t pages = (uint32_t)(fits / CHANNEL_PAGE);

		init->max_write = min_of(daemon_write, pages * CHANNEL_PAGE);
		if (init->max_pages)
			init->max_pages = (uint16_t)min_of((uint32_t)init->max_pages, pages);
		if (init->max_write < daemon_write)
			log_warn(
				"requests are limited to %u bytes: the socket's buffer cannot be "
				"larger (net.core.wmem_max)",
				init->max_write);
	}
	fits = min_of(fits - fits % CHANNEL_PAGE, (size_t)CHANNEL_READ_MAX);
	ch->read_limit = min_of(ch->read_limit, (uint32_t)fits);
}

int channel_init_reply(struct channel *ch, const void *msg, size_t len, pid_t server,
		       const char **ret_why)
{
	struct fuse_init_out init;
	int err = fuse_init_accept(msg, len, CHANNEL_UNIQUE_INIT, &init, ret_why);

	if (err)
		return err;
	pthread_mutex_lock(&ch->lock);
	ch->svc.init_out = init;
	apply_limits(ch);
	WRITE_ONCE(ch->state, CHANNEL_READY);
	if (ch->fd >= 0 && socket_set_passcred(ch->fd, 0) < 0)
		log_debug("SO_PASSCRED cannot be reset");
	pthread_mutex_unlock(&ch->lock);
	pthread_mutex_lock(&ch->dev_lock);
	if (ch->dev)
		device_service_restarted(ch->dev);
	pthread_mutex_unlock(&ch->dev_lock);
	ch->config.events.ready(ch->config.ctx, server);
	return 0;
}

/* They are inside sendmsg(), which does not wait. No new ones come: what they look at says so. */
static void channel_wait_senders(struct channel *ch)
{
	while (__atomic_load_n(&ch->nr_senders, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void channel_finish_lost(struct channel *ch, const struct channel_slot *slot)
{
	bool over;

	if (!slot->split) {
		request_reply(slot->req, -EIO, NULL, 0);
		return;
	}
	pthread_mutex_lock(&ch->lock);
	over = split_part_done(ch, slot->split, slot->part, -EIO, 0);
	pthread_mutex_unlock(&ch->lock);
	if (over)
		split_finish(ch, slot->split);
}

static bool lose_one_slot(struct channel *ch)
{
	struct channel_slot slot;
	bool found = false;

	pthread_mutex_lock(&ch->lock);
	for (unsigned int i = 0; i < CHANNEL_SLOTS && ch->nr_slots_used && !found; i++) {
		found = ch->slots[i].unique;
		if (found)
			slot_remove(ch, &ch->slots[i], &slot);
	}
	pthread_mutex_unlock(&ch->lock);
	if (found)
		channel_finish_lost(ch, &slot);
	return found;
}

static void lose_item(struct channel *ch, struct channel_item *item)
{
	struct channel_split *split;
	bool over;

	if (!item->is_split) {
		channel_fail(item->req, -EIO);
		return;
	}
	split = container_of(item, struct channel_split, item);
	pthread_mutex_lock(&ch->lock);
	split->queued = false;
	split->nr_again = 0;
	split->ended = true;
	split->error = -EIO;
	split->error_part = 0;
	over = !split->nr_under_way;
	pthread_mutex_unlock(&ch->lock);
	if (over)
		split_finish(ch, split);
}

static void lose_fifos(struct channel *ch)
{
	struct channel_item *items[FIFO_NR];

	pthread_mutex_lock(&ch->lock);
	for (int i = 0; i < FIFO_NR; i++)
		items[i] = ch->fifos[i].head;
	fifo_init(ch);
	WRITE_ONCE(ch->held, false);
	pthread_mutex_unlock(&ch->lock);
	for (int i = 0; i < FIFO_NR; i++) {
		while (items[i]) {
			struct channel_item *item = items[i];

			items[i] = item->next;
			lose_item(ch, item);
		}
	}
}

/* Who was handed a duplicate of our end (channel_hand_over()) keeps it open, and epoll would tell of it for ever. */
static int channel_take_socket(struct channel *ch)
{
	if (ch->fd >= 0) {
		epoll_ctl(ch->epoll_fd, EPOLL_CTL_DEL, ch->fd, NULL);
		epoll_ctl(ch->readable_fd, EPOLL_CTL_DEL, ch->fd, NULL);
	}
	return TAKE_FD(ch->fd);
}

static void channel_close_socket(struct channel *ch)
{
	int fd = channel_take_socket(ch);

	close_fd(&fd);
}

/* The daemon is gone, or is to be left. */
static void channel_teardown(struct channel *ch, const char *why)
{
	enum channel_state before;

	pthread_mutex_lock(&ch->lock);
	before = ch->state;
	WRITE_ONCE(ch->state, CHANNEL_IDLE);
	ch->close_wanted = false;
	pthread_mutex_unlock(&ch->lock);
	if (before == CHANNEL_IDLE)
		return;
	channel_wait_senders(ch);
	lose_fifos(ch);
	while (lose_one_slot(ch))
		continue;
	pthread_mutex_lock(&ch->lock);
	channel_close_socket(ch);
	ch->nr_retrieves = 0;
	WRITE_ONCE(ch->retry_soon, false);
	pthread_mutex_unlock(&ch->lock);
	pthread_mutex_lock(&ch->dev_lock);
	if (ch->dev && before != CHANNEL_STARTING)
		device_service_died(ch->dev);
	pthread_mutex_unlock(&ch->dev_lock);
	ch->config.events.lost(ch->config.ctx, why);
}

static void channel_socket_ready(struct channel *ch)
{
	int fd, err;

	pthread_mutex_lock(&ch->lock);
	fd = ch->fd;
	pthread_mutex_unlock(&ch->lock);
	/* Closed by an event before it in the same batch. */
	if (fd < 0)
		return;
	/* Only this thread closes it. */
	err = channel_receive(ch, fd);
	if (err)
		channel_teardown(ch, err == -EPROTO ? ch->why : NULL);
}

static bool channel_housekeeping(struct channel *ch)
{
	bool close_wanted, free_wanted, queued;

	pthread_mutex_lock(&ch->lock);
	close_wanted = ch->close_wanted;
	free_wanted = ch->free_wanted;
	queued = !fifo_is_empty(ch) || ch->nr_retrieves;
	pthread_mutex_unlock(&ch->lock);
	if (close_wanted || free_wanted)
		channel_teardown(ch, NULL);
	else if (queued)
		channel_send_queued(ch);
	return !free_wanted;
}

/* After work, look for more for a while before sleeping: a wake-up costs more than a look. */
static int channel_wait(struct channel *ch, struct epoll_event *ev)
{
	int timeout_ms = READ_ONCE(ch->retry_soon) ? CHANNEL_RETRY_MS : -1;
	int n = 0;

	if (ch->config.poll_ns && READ_ONCE(ch->nr_slots_used)) {
		uint64_t end_ns = clock_now_ns() + ch->config.poll_ns;

		do {
			n = epoll_wait(ch->epoll_fd, ev, CHANNEL_EVENTS, 0);
		} while (!n && clock_now_ns() < end_ns);
	}
	return n ? n : epoll_wait(ch->epoll_fd, ev, CHANNEL_EVENTS, timeout_ms);
}

/*
 * The device goes away: nothing of it may be touched after this. The reply thread is kept out meanwhile, so that it
 * is in the midst of no reply either. The daemon stays; what it still answers was not asked any more.
 */
static void channel_drop_requests(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	enum channel_state before;

	pthread_mutex_lock(&ch->work_lock);
	pthread_mutex_lock(&ch->lock);
	before = ch->state;
	if (before == CHANNEL_READY)
		WRITE_ONCE(ch->state, CHANNEL_STOPPING);
	pthread_mutex_unlock(&ch->lock);
	channel_wait_senders(ch);
	lose_fifos(ch);
	while (lose_one_slot(ch))
		continue;
	pthread_mutex_lock(&ch->lock);
	if (before == CHANNEL_READY)
		WRITE_ONCE(ch->state, before);
	pthread_mutex_unlock(&ch->lock);
	pthread_mutex_unlock(&ch->work_lock);
}

static void *channel_thread(void *arg)
{
	struct channel *ch = arg;
	struct epoll_event ev[CHANNEL_EVENTS];
	bool go_on;

	thread_want_short_slices();
	do {
		int n = channel_wait(ch, ev);

		pthread_mutex_lock(&ch->work_lock);
		for (int i = 0; i < n; i++) {
			if (ev[i].data.u32 == CHANNEL_SOCKET)
				channel_socket_ready(ch);
			else if (fd_drain_signal(ch->wake_fd) < 0)
				log_error("the channel's wake-up descriptor failed");
		}
		go_on = channel_housekeeping(ch);
		pthread_mutex_unlock(&ch->work_lock);
	} while (go_on);
	return NULL;
}

static int channel_add_socket(struct channel *ch, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.u32 = CHANNEL_SOCKET };
	struct epoll_event readable = { .events = EPOLLIN };
	int err = socket_set_passcred(fd, true);

	if (err)
		return err;
	/* Before it can be readable: the thread ignores events while there is no socket. */
	if (epoll_ctl(ch->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	if (epoll_ctl(ch->readable_fd, EPOLL_CTL_ADD, fd, &readable) < 0) {
		err = -errno;
		epoll_ctl(ch->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return err;
	}
	ch->fd = fd;
	ch->events = EPOLLRDHUP;
	ch->armed = ev.events;
	channel_arm(ch);
	return 0;
}

static int socket_send_max(int fd, size_t *ret_bytes)
{
	socklen_t len = sizeof(int);
	int bytes;

	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &len) < 0)
		return -errno;
	/* The kernel keeps 32 bytes of it for itself; of the rest a quarter is a page at least (apply_limits()). */
	if (bytes < (int)(CHANNEL_MIN_BUFFER * 2 + SOCKET_OWN_BYTES))
		return -EMSGSIZE;
	*ret_bytes = (size_t)bytes - SOCKET_OWN_BYTES;
	return 0;
}

int channel_attach(struct service *svc, int fd, const struct channel_limits *limits)
{
	struct channel *ch = channel_of(svc);
	size_t send_max = 0;
	int err = socket_send_max(fd, &send_max);

	if (err)
		return err;
	pthread_mutex_lock(&ch->lock);
	if (ch->state != CHANNEL_IDLE || ch->fd >= 0 || ch->free_wanted)
		err = -EBUSY;
	else
		err = channel_add_socket(ch, fd);
	if (!err) {
		ch->send_max = send_max;
		/*
		 * The kernel counts what a message takes in memory, up to twice its length. A daemon that
		 * does not wait for room (O_NONBLOCK) would lose its reply.
		 */
		ch->reply_bytes_max = send_max / 2;
		ch->read_limit = limits->max_read ? max_of(limits->max_read, CHANNEL_PAGE)
						  : CHANNEL_READ_MAX;
		ch->read_only = limits->read_only;
		ch->sequential = false;
		ch->why = NULL;
		ch->close_wanted = false;
		WRITE_ONCE(ch->state, CHANNEL_STARTING);
		err = send_init(fd);
		if (err) {
			WRITE_ONCE(ch->state, CHANNEL_IDLE);
			(void)channel_take_socket(ch);
		}
	}
	pthread_mutex_unlock(&ch->lock);
	return err;
}

static int send_with_fds(int sock, const void *msg, size_t len, const int *fds, unsigned int nr)
{
	union {
		char buf[CMSG_SPACE((CHANNEL_FDS_MAX + 1) * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = len };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = CMSG_SPACE(nr * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	return sendmsg(sock, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int channel_hand_over(struct service *svc, const void *msg, size_t len, const int *fds,
		      unsigned int nr_fds)
{
	struct channel *ch = channel_of(svc);
	int all[CHANNEL_FDS_MAX + 1];
	int err = -ENOTCONN;

	assert(nr_fds <= CHANNEL_FDS_MAX);
	memcpy(all, fds, nr_fds * sizeof(int));
	pthread_mutex_lock(&ch->lock);
	if (ch->state == CHANNEL_READY) {
		all[nr_fds] = ch->fd;
		err = send_with_fds(ch->fd, msg, len, all, nr_fds + 1);
	}
	if (!err) {
		WRITE_ONCE(ch->state, CHANNEL_STOPPING);
		channel_arm(ch);
	}
	pthread_mutex_unlock(&ch->lock);
	return err;
}

int channel_stop(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	const struct fuse_in_header msg = {
		.len = sizeof(msg),
		.opcode = FUSE_DESTROY,
		.unique = CHANNEL_UNIQUE_DESTROY,
	};
	int err = -ENOTCONN;

	pthread_mutex_lock(&ch->lock);
	if (ch->state == CHANNEL_READY) {
		err = channel_send_plain(ch->fd, &msg, sizeof(msg));
		if (!err) {
			WRITE_ONCE(ch->state, CHANNEL_STOPPING);
			channel_arm(ch);
			ch->destroy_sent = true;
		}
	}
	pthread_mutex_unlock(&ch->lock);
	return err;
}

void channel_close(struct service *svc)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->lock);
	ch->close_wanted = ch->state != CHANNEL_IDLE;
	pthread_mutex_unlock(&ch->lock);
	fd_signal(ch->wake_fd);
}

void channel_set_device(struct service *svc, struct device *dev)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->dev_lock);
	ch->dev = dev;
	pthread_mutex_unlock(&ch->dev_lock);
}

void channel_get_counts(struct service *svc, struct channel_counts *ret_counts)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->lock);
	*ret_counts = ch->counts;
	pthread_mutex_unlock(&ch->lock);
}

static void channel_free(struct service *svc)
{
	struct channel *ch = channel_of(svc);

	if (ch->thread_runs) {
		pthread_mutex_lock(&ch->lock);
		ch->free_wanted = true;
		pthread_mutex_unlock(&ch->lock);
		fd_signal(ch->wake_fd);
		pthread_join(ch->thread, NULL);
	}
	for (unsigned int i = 0; i < CHANNEL_SPLITS; i++)
		free(ch->splits[i].buf);
	close_fd(&ch->epoll_fd);
	close_fd(&ch->readable_fd);
	close_fd(&ch->wake_fd);
	free(ch->bounce);
	free(ch->recv_buf);
	pthread_mutex_destroy(&ch->lock);
	pthread_mutex_destroy(&ch->work_lock);
	pthread_mutex_destroy(&ch->bounce_lock);
	pthread_mutex_destroy(&ch->dev_lock);
	free(ch);
}

static const struct service_ops channel_ops = {
	.name = "channel",
	.submit = channel_submit,
	.retrieve_none = channel_retrieve_none,
	.interrupt = channel_interrupt,
	.poll_begin = channel_poll_begin,
	.poll = channel_poll,
	.poll_end = channel_poll_end,
	.wait_begin = channel_wait_begin,
	.wait_end = channel_wait_end,
	.stop = channel_drop_requests,
	.free = channel_free,
};

static int channel_start(struct channel *ch)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = CHANNEL_WAKE };
	int err;

	ch->recv_buf = malloc(CHANNEL_RECV_MAX);
	if (!ch->recv_buf)
		return -ENOMEM;
	ch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (ch->epoll_fd < 0)
		return -errno;
	ch->readable_fd = epoll_create1(EPOLL_CLOEXEC);
	if (ch->readable_fd < 0)
		return -errno;
	ch->wake_fd = eventfd_new();
	if (ch->wake_fd < 0)
		return ch->wake_fd;
	if (epoll_ctl(ch->epoll_fd, EPOLL_CTL_ADD, ch->wake_fd, &ev) < 0)
		return -errno;
	err = thread_start(&ch->thread, channel_thread, ch);
	ch->thread_runs = !err;
	return err;
}

int channel_new(struct service **ret_svc, const struct channel_config *config)
{
	struct channel *ch = calloc(1, sizeof(*ch));
	int err;

	if (!ch)
		return -ENOMEM;
	ch->svc.ops = &channel_ops;
	ch->config = *config;
	ch->epoll_fd = -1;
	ch->readable_fd = -1;
	ch->wake_fd = -1;
	pthread_mutex_init(&ch->lock, NULL);
	pthread_mutex_init(&ch->work_lock, NULL);
	pthread_mutex_init(&ch->bounce_lock, NULL);
	pthread_mutex_init(&ch->dev_lock, NULL);
	fifo_init(ch);
	slot_init(ch);
	ch->fd = -1;
	for (unsigned int i = 0; i < CHANNEL_SPLITS; i++) {
		ch->splits[i].next_free = ch->free_split;
		ch->free_split = &ch->splits[i];
	}
	err = channel_start(ch);
	if (err) {
		channel_free(&ch->svc);
		return err;
	}
	*ret_svc = &ch->svc;
	return 0;
}
