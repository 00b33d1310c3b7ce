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

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"

#define LOOP_BATCH 32

struct loop {
	int epoll_fd;
	struct loop_watch wake;
	bool stopping;
	struct loop_timer *timers;
	struct epoll_event batch[LOOP_BATCH];
	int nr_batch;
	int pos;
};

/*
 * The eventfd is level-triggered: left full, it would turn epoll_wait() into a spin. A loop_stop() that is
 * late (its signal arrives after loop_run() saw the flag) is drained here by the next loop_run().
 */
static void loop_on_wake(void *ctx, uint32_t events)
{
	struct loop *loop = ctx;

	/* Cannot fail on our own eventfd. */
	(void)!fd_drain_signal(loop->wake.fd);
}

int loop_new(struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int err;

	if (!loop)
		return -ENOMEM;
	loop->wake = (struct loop_watch){ .fd = -1, .fn = loop_on_wake, .ctx = loop };
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		err = -errno;
		goto fail;
	}
	err = eventfd_new();
	if (err < 0)
		goto fail;
	loop->wake.fd = err;
	err = loop_add(loop, &loop->wake, EPOLLIN);
	if (err < 0)
		goto fail;
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
	close_fd(&loop->wake.fd);
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
	if (ckd_add(&t->deadline_ns, clock_now_ns(), delay_ns))
		t->deadline_ns = UINT64_MAX;
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

static bool loop_stopping(const struct loop *loop)
{
	return __atomic_load_n(&loop->stopping, __ATOMIC_ACQUIRE);
}

static struct loop_timer *loop_first_timer(const struct loop *loop)
{
	struct loop_timer *first = loop->timers;

	for (struct loop_timer *t = first; t; t = t->next) {
		if (t->deadline_ns < first->deadline_ns)
			first = t;
	}
	return first;
}

static int loop_timeout_ms(const struct loop *loop)
{
	const struct loop_timer *first = loop_first_timer(loop);
	uint64_t now;

	if (!first || first->deadline_ns == UINT64_MAX)
		return -1;
	now = clock_now_ns();
	if (first->deadline_ns <= now)
		return 0;
	/* Rounded up: waking before the deadline would mean one more round for nothing. */
	return (int)min_of((first->deadline_ns - now) / NSEC_PER_MSEC + 1, (uint64_t)INT32_MAX);
}

static void loop_run_timers(struct loop *loop)
{
	uint64_t now = clock_now_ns();

	/* Looked up again each time: a callback may change the list. A timer that it arms is later than now. */
	while (!loop_stopping(loop)) {
		struct loop_timer *t = loop_first_timer(loop);

		if (!t || t->deadline_ns > now)
			break;
		loop_timer_cancel(loop, t);
		t->fn(t->ctx);
	}
}

int loop_run(struct loop *loop)
{
	while (!loop_stopping(loop)) {
		int n = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, loop_timeout_ms(loop));

		if (n < 0 && errno != EINTR)
			return -errno;
		loop->nr_batch = max_of(n, 0);
		for (loop->pos = 0; loop->pos < loop->nr_batch && !loop_stopping(loop);) {
			struct epoll_event *ev = &loop->batch[loop->pos++];
			struct loop_watch *w = ev->data.ptr;

			if (w)
				w->fn(w->ctx, ev->events);
		}
		loop->nr_batch = 0;
		loop_run_timers(loop);
	}
	__atomic_store_n(&loop->stopping, false, __ATOMIC_RELAXED);
	return 0;
}

void loop_stop(struct loop *loop)
{
	int saved_errno = errno; /* we may be in a signal handler */

	__atomic_store_n(&loop->stopping, true, __ATOMIC_RELEASE);
	/* Cannot fail on our own eventfd; a full counter wakes as well. */
	fd_signal(loop->wake.fd);
	errno = saved_errno;
}
