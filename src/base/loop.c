/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A single-threaded epoll loop with timers: the control threads' main loop.
 *
 * Theory of operation
 * -------------------
 * epoll_wait() fills an array of events, each with a pointer to its watch. A callback may remove (and
 * free) a watch that stands later in the same array, so loop_remove() blanks such entries: the array and
 * the position in it live in the loop while it dispatches.
 *
 * Timers are few (a handful per process), so they are a plain list that is searched.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"

#define LOOP_BATCH 32

struct loop {
	int epoll_fd;
	int wake_fd;
	bool stopping;
	struct loop_timer *timers;
	struct epoll_event batch[LOOP_BATCH];
	int nr_batch;
	int pos;
};

int loop_new(struct loop **ret_loop)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct loop *loop = calloc(1, sizeof(*loop));
	int err;

	if (!loop)
		return -ENOMEM;
	loop->wake_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		err = -errno;
		goto fail;
	}
	err = eventfd_new();
	if (err < 0)
		goto fail;
	loop->wake_fd = err;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
		err = -errno;
		goto fail;
	}
	*ret_loop = loop;
	return 0;
fail:
	loop_free(loop);
	return err;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	close_fd(&loop->wake_fd);
	close_fd(&loop->epoll_fd);
	free(loop);
}

int loop_add(struct loop *loop, struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0 ? -errno : 0;
}

int loop_modify(struct loop *loop, struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, struct loop_watch *w)
{
	/* Fails only when the watch was never added: then there is nothing to undo. */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = loop->pos; i < loop->nr_batch; i++) {
		if (loop->batch[i].data.ptr == w)
			loop->batch[i].data.ptr = NULL;
	}
}

void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t delay_ns)
{
	loop_timer_cancel(loop, t);
	t->deadline_ns = clock_now_ns() + delay_ns;
	t->next = loop->timers;
	loop->timers = t;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
	for (struct loop_timer **p = &loop->timers; *p; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->deadline_ns = 0;
}

static int loop_timeout_ms(const struct loop *loop)
{
	uint64_t first = UINT64_MAX, now;

	for (const struct loop_timer *t = loop->timers; t; t = t->next)
		first = min_of(first, t->deadline_ns);
	if (first == UINT64_MAX)
		return -1;
	now = clock_now_ns();
	if (first <= now)
		return 0;
	return (int)min_of((first - now) / NSEC_PER_MSEC + 1, (uint64_t)INT32_MAX);
}

static void loop_run_timers(struct loop *loop)
{
	uint64_t now = clock_now_ns();
	struct loop_timer *t = loop->timers;

	while (t) {
		if (t->deadline_ns > now) {
			t = t->next;
			continue;
		}
		loop_timer_cancel(loop, t);
		t->fn(t->ctx);
		/* The callback may have changed the list. A timer that it arms is later than now. */
		t = loop->timers;
	}
}

int loop_run(struct loop *loop)
{
	while (!__atomic_load_n(&loop->stopping, __ATOMIC_ACQUIRE)) {
		int n = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, loop_timeout_ms(loop));

		if (n < 0 && errno != EINTR)
			return -errno;
		loop->nr_batch = max_of(n, 0);
		for (loop->pos = 0; loop->pos < loop->nr_batch;) {
			struct epoll_event *ev = &loop->batch[loop->pos++];
			struct loop_watch *w = ev->data.ptr;

			if (w)
				w->fn(w->ctx, ev->events);
		}
		loop->nr_batch = 0;
		loop_run_timers(loop);
	}
	__atomic_store_n(&loop->stopping, false, __ATOMIC_RELAXED);
	return fd_drain_signal(loop->wake_fd) < 0 ? -EIO : 0;
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->stopping, true, __ATOMIC_RELEASE);
	/* Cannot fail on our own eventfd; a full counter wakes as well. */
	fd_signal(loop->wake_fd);
}
