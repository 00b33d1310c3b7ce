/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues without threads: a thread of the service's takes requests from all rings itself.
 *
 * Theory of operation
 * -------------------
 * One thread at a time, the taker, is inside device_take(). It looks at hiprio, then at the request queues in turn, and
 * hands the first chain that it finds to the service, all in itself: no other thread is woken on the way. When the
 * rings are empty it looks again for a while, as a queue's thread does (queue.c), then asks for kicks and sleeps on all
 * kick descriptors at once.
 *
 * Whoever wants to start, stop or move a ring has to be alone: take_exclude() makes the taker leave and keeps others
 * out until take_allow(). Taker and excluder each write their own word and then read the other's; with a full
 * barrier between the two at least one of them sees the other.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/poll_time.h"
#include "device/device_impl.h"

/* Events taken at a time; more queues are found on the next look. */
#define TAKE_EVENTS 8

bool take_in_use(const struct device *dev)
{
	return dev->config.takeable;
}

int take_init(struct device *dev)
{
	struct device_taker *t = &dev->taker;
	struct epoll_event ev = { .events = EPOLLIN };

	t->epoll_fd = -1;
	t->wake_fd = -1;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->left, NULL);
	if (!take_in_use(dev))
		return 0;
	t->active = calloc(dev->nr_queues, sizeof(struct queue *));
	if (!t->active)
		return -ENOMEM;
	t->wake_fd = eventfd_new();
	if (t->wake_fd < 0)
		return t->wake_fd;
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (t->epoll_fd < 0 || epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &ev) < 0)
		return -errno;
	return 0;
}

void take_fini(struct device *dev)
{
	struct device_taker *t = &dev->taker;

	close_fd(&t->epoll_fd);
	close_fd(&t->wake_fd);
	free(t->active);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->left);
}

void take_wake(struct device *dev)
{
	fd_signal(dev->taker.wake_fd);
}

void device_take_wake(struct device *dev)
{
	take_wake(dev);
}

static bool take_excluded(const struct device_taker *t)
{
	return __atomic_load_n(&t->nr_excluded, __ATOMIC_ACQUIRE);
}

static void take_leave(struct device_taker *t)
{
	__atomic_store_n(&t->taking, false, __ATOMIC_SEQ_CST);
	if (likely(!__atomic_load_n(&t->nr_excluded, __ATOMIC_SEQ_CST)))
		return;
	pthread_mutex_lock(&t->lock);
	pthread_cond_broadcast(&t->left);
	pthread_mutex_unlock(&t->lock);
}

/* Return: false when somebody has to be alone. */
static bool take_enter(struct device_taker *t)
{
	bool was = __atomic_exchange_n(&t->taking, true, __ATOMIC_SEQ_CST);

	assert(!was);
	if (likely(!__atomic_load_n(&t->nr_excluded, __ATOMIC_SEQ_CST)))
		return true;
	take_leave(t);
	return false;
}

/* May be nested, by several threads. */
void take_exclude(struct device *dev)
{
	struct device_taker *t = &dev->taker;

	pthread_mutex_lock(&t->lock);
	__atomic_add_fetch(&t->nr_excluded, 1, __ATOMIC_SEQ_CST);
	take_wake(dev);
	while (__atomic_load_n(&t->taking, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&t->left, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

void take_allow(struct device *dev)
{
	if (__atomic_sub_fetch(&dev->taker.nr_excluded, 1, __ATOMIC_SEQ_CST) == 0)
		dev->config.takeable(dev->svc);
}

static void take_find_active(struct device *dev)
{
	struct device_taker *t = &dev->taker;

	t->nr_active = 0;
	t->next = 0;
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		if (dev->queues[i].running)
			t->active[t->nr_active++] = &dev->queues[i];
	}
}

/* Kicks of @q wake nobody any more. Context: the taker, or who excluded it. */
void take_unwatch(struct queue *q)
{
	if (q->kick_fd >= 0 &&
	    epoll_ctl(q->dev->taker.epoll_fd, EPOLL_CTL_DEL, q->kick_fd, NULL) < 0)
		log_debug("queue %u: its kick descriptor was not watched", q->index);
}

int take_add_queue(struct device *dev, struct queue *q)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = q };
	int err = 0;

	take_exclude(dev);
	if (q->kick_fd >= 0 && epoll_ctl(dev->taker.epoll_fd, EPOLL_CTL_ADD, q->kick_fd, &ev) < 0)
		err = -errno;
	if (!err) {
		q->running = true;
		take_find_active(dev);
		virtq_kick_disable(q->vq);
	}
	take_allow(dev);
	return err;
}

void take_remove_queue(struct device *dev, struct queue *q)
{
	take_exclude(dev);
	take_unwatch(q);
	q->running = false;
	take_find_active(dev);
	take_allow(dev);
}

static bool take_may_from(const struct queue *q)
{
	/* Who frees a request of a starved queue, or brings a notification, wakes us. */
	return !q->broken && READ_ONCE(q->enabled) && !READ_ONCE(q->starved) &&
	       (!q->notifies || notify_pending(q->dev));
}

/* Return: 1 when a chain was taken, -EAGAIN when its queue has no free request, 0. */
static int take_from(struct queue *q)
{
	int err;

	if (!take_may_from(q) || !virtq_has_work(q->vq))
		return 0;
	if (q->notifies) {
		notify_run(q);
		return 0;
	}
	queue_set_current(q);
	err = queue_take_one(q);
	/* What the device answered itself; the service's own answers are published one by one. */
	if (err == 1 && q->unpublished)
		queue_end_batch(q);
	queue_set_current(NULL);
	return err;
}

static bool take_one(struct device_taker *t, bool *ret_more)
{
	struct queue *q;

	if (!t->nr_active)
		return false;
	/* hiprio never waits for a request queue. */
	if (take_from(t->active[0]) > 0) {
		*ret_more = true;
		return true;
	}
	for (unsigned int i = 0; i < t->nr_active; i++) {
		q = t->active[t->next];
		t->next = t->next + 1 < t->nr_active ? t->next + 1 : 0;
		if (take_from(q) > 0) {
			*ret_more = virtq_has_work(q->vq);
			return true;
		}
	}
	return false;
}

static bool take_has_work(const struct device_taker *t)
{
	for (unsigned int i = 0; i < t->nr_active; i++) {
		if (take_may_from(t->active[i]) && virtq_has_work(t->active[i]->vq))
			return true;
	}
	return false;
}

static bool take_steered(const struct device_taker *t, const bool *give_up)
{
	return take_excluded(t) || READ_ONCE(*give_up);
}

/* Look for work for a while. Return: look closer, there is some, or the taker has to leave. */
static bool take_poll(struct device_taker *t, const bool *give_up)
{
	uint64_t begin;

	if (!t->poll_ns)
		return false;
	begin = clock_now_ns();
	do {
		for (int i = 0; i < 16; i++) {
			if (take_has_work(t) || take_steered(t, give_up))
				return true;
			cpu_relax();
		}
	} while (poll_time_left(begin, t->poll_ns, NULL));
	return false;
}

static void take_cancelled(void *arg)
{
	struct device_taker *t = arg;

	take_leave(t);
}

/* Wait for kicks. The calling thread may be cancelled here if @cancelable, and nowhere else. */
static int take_wait(struct device_taker *t, bool cancelable)
{
	struct epoll_event ev[TAKE_EVENTS];
	int n, err, unused;

	pthread_cleanup_push(take_cancelled, t);
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &unused);
	n = epoll_wait(t->epoll_fd, ev, TAKE_EVENTS, -1);
	err = errno;
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
	pthread_cleanup_pop(0);
	for (int i = 0; i < n; i++) {
		struct queue *q = ev[i].data.ptr;

		if (!q && fd_drain_signal(t->wake_fd) < 0)
			return -EIO;
		if (q && q->kick_fd >= 0)
			queue_drain_kick(q, ev[i].events);
	}
	return n < 0 ? -err : 0;
}

static int take_sleep(struct device *dev, bool cancelable)
{
	struct device_taker *t = &dev->taker;
	bool work = false;
	uint64_t begin;
	int err = 0;

	for (unsigned int i = 0; i < t->nr_active; i++) {
		if (take_may_from(t->active[i]) && virtq_kick_enable(t->active[i]->vq))
			work = true;
	}
	if (!work) {
		begin = clock_now_ns();
		err = take_wait(t, cancelable);
		poll_time_adapt(&t->poll_ns, clock_now_ns() - begin, dev->config.poll_ns);
	}
	for (unsigned int i = 0; i < t->nr_active; i++) {
		if (take_may_from(t->active[i]))
			virtq_kick_disable(t->active[i]->vq);
	}
	return err;
}

int device_take(struct device *dev, const bool *give_up, enum device_take_wait wait,
		bool cancelable, bool *ret_more)
{
	struct device_taker *t = &dev->taker;
	int err = 0;

	*ret_more = false;
	if (!take_enter(t))
		return -EBUSY;
	do {
		if (take_excluded(t))
			err = -EBUSY;
		else if (READ_ONCE(*give_up))
			err = -EAGAIN;
		else if (take_one(t, ret_more))
			err = 1;
		else if (wait == DEVICE_TAKE_NO_WAIT)
			err = -EAGAIN;
		else if (wait == DEVICE_TAKE_SLEEP || !take_poll(t, give_up))
			err = take_sleep(dev, cancelable);
	} while (err == 0);
	take_leave(t);
	return err;
}
