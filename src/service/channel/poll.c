/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replies taken by a queue thread that is awake anyway: a wake-up less for each.
 *
 * Theory of operation
 * -------------------
 * While a queue thread looks for requests it looks for replies, too. The reply thread would be woken by each of them
 * all the same, so as long as there is such a poller its epoll does not watch for input. Before the last poller
 * sleeps it is told to watch again; epoll is level-triggered, so a reply that came between is not missed. What is no reply to a
 * request (INIT, DESTROY) is the reply thread's in any case.
 *
 * A poller holds work_lock as the reply thread does, and does not wait for it: whoever has it is at work already.
 *
 * A poller may also sleep until there is something, on readable_fd. One at a time: all would be woken by each reply.
 */
#include <sys/epoll.h>

#include "base/fd.h"
#include "service/channel/private.h"

void channel_arm(struct channel *ch)
{
	const bool polled = ch->nr_pollers && ch->state == CHANNEL_READY;
	/* .data: the reply thread's CHANNEL_SOCKET */
	struct epoll_event ev = { .events = ch->events | (polled ? 0 : EPOLLIN) };

	if (ch->fd < 0 || ch->armed == ev.events)
		return;
	/* Cannot fail for a descriptor that is in the set. */
	if (epoll_ctl(ch->epoll_fd, EPOLL_CTL_MOD, ch->fd, &ev) == 0)
		ch->armed = ev.events;
}

bool channel_poll_begin(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	bool ready;

	pthread_mutex_lock(&ch->lock);
	ready = ch->state == CHANNEL_READY;
	if (ready && ch->nr_pollers++ == 0)
		channel_arm(ch);
	pthread_mutex_unlock(&ch->lock);
	return ready;
}

void channel_poll_end(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	bool send_held = false;

	pthread_mutex_lock(&ch->lock);
	if (--ch->nr_pollers == 0) {
		channel_arm(ch);
		send_held = ch->held;
	}
	pthread_mutex_unlock(&ch->lock);
	if (send_held)
		fd_signal(ch->wake_fd);
}

/* Under work_lock: only its holder closes sockets. Return: was there anything? */
static bool poll_socket(struct channel *ch)
{
	const uint64_t before = ch->nr_received;
	const int fd = READ_ONCE(ch->fd);

	/* Its end is the reply thread's to see: epoll tells it of that always. */
	return fd >= 0 && channel_receive(ch, fd) == 0 && ch->nr_received != before;
}

bool channel_poll(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	bool found = false;

	if (!READ_ONCE(ch->nr_slots_used) || pthread_mutex_trylock(&ch->work_lock))
		return false;
	found = READ_ONCE(ch->state) == CHANNEL_READY && poll_socket(ch);
	if ((found || READ_ONCE(ch->held)) && !fifo_is_empty(ch))
		channel_send_queued(ch);
	pthread_mutex_unlock(&ch->work_lock);
	return found;
}

int channel_wait_begin(struct service *svc)
{
	struct channel *ch = channel_of(svc);
	int fd = -1;

	pthread_mutex_lock(&ch->lock);
	/* With requests held back there is more to look for than replies. */
	if (ch->state == CHANNEL_READY && ch->nr_slots_used && !ch->waited_for && !ch->held) {
		ch->waited_for = true;
		fd = ch->readable_fd;
	}
	pthread_mutex_unlock(&ch->lock);
	return fd;
}

void channel_wait_end(struct service *svc)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->lock);
	ch->waited_for = false;
	pthread_mutex_unlock(&ch->lock);
}
