/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: removal inside callbacks, stopping from elsewhere, timers.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "cm.h"

static struct loop *loop;

static int setup(void **state)
{
	return loop_new(&loop);
}

static int teardown(void **state)
{
	loop_free(loop);
	return 0;
}

/* A watch on the heap, so that the address sanitizer sees a call after free. */
struct source {
	struct loop_watch watch;
	struct source **victims; /* removed and freed by the first callback */
	unsigned int nr_victims;
	unsigned int calls;
	bool stop;
};

static void source_free(struct source *s)
{
	loop_remove(loop, &s->watch);
	close_fd(&s->watch.fd);
	free(s);
}

static void source_fn(void *ctx, uint32_t events)
{
	struct source *s = ctx, **victims = s->victims;
	unsigned int nr = s->nr_victims;

	assert_true(events & EPOLLIN);
	s->calls++;
	assert_int_equal(fd_drain_signal(s->watch.fd), 1);
	if (s->stop)
		loop_stop(loop);
	for (unsigned int i = 0; victims && i < nr; i++) {
		if (victims[i])
			source_free(TAKE_PTR(victims[i]));
	}
}

static struct source *source_new(void)
{
	struct source *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->watch = (struct loop_watch){ .fd = eventfd_new(), .fn = source_fn, .ctx = s };
	assert_int_equal(loop_add(loop, &s->watch, EPOLLIN), 0);
	return s;
}

static void stop_fn(void *ctx)
{
	loop_stop(ctx);
}

static void run_for_ns(uint64_t ns)
{
	struct loop_timer t = { .fn = stop_fn, .ctx = loop };

	loop_timer_arm(loop, &t, ns);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_cancel(loop, &t);
}

static void test_dispatch(void **state)
{
	struct source *a = source_new(), *b = source_new();

	fd_signal(a->watch.fd);
	run_for_ns(NSEC_PER_MSEC);
	assert_int_equal(a->calls, 1);
	assert_int_equal(b->calls, 0);

	/* No events wanted: silent; wanted again: what waited is delivered. */
	assert_int_equal(loop_modify(loop, &a->watch, 0), 0);
	fd_signal(a->watch.fd);
	run_for_ns(NSEC_PER_MSEC);
	assert_int_equal(a->calls, 1);
	assert_int_equal(loop_modify(loop, &a->watch, EPOLLIN), 0);
	run_for_ns(NSEC_PER_MSEC);
	assert_int_equal(a->calls, 2);

	loop_remove(loop, &a->watch);
	fd_signal(a->watch.fd);
	run_for_ns(NSEC_PER_MSEC);
	assert_int_equal(a->calls, 2);
	loop_remove(loop, &a->watch); /* twice is harmless */
	source_free(a);
	source_free(b);
}

static void test_add_errors(void **state)
{
	struct loop_watch bad = { .fd = -1, .fn = source_fn };
	struct source *a = source_new();

	assert_int_equal(loop_add(loop, &bad, EPOLLIN), -EBADF);
	assert_int_equal(loop_modify(loop, &bad, EPOLLIN), -EBADF);
	assert_int_equal(loop_add(loop, &a->watch, EPOLLIN), -EEXIST);
	source_free(a);
}

static void test_remove_others_in_callback(void **state)
{
	/* More than one batch of events (32), all ready at once; the first called frees all, itself too. */
	struct source *all[40];

	for (size_t i = 0; i < array_size(all); i++) {
		all[i] = source_new();
		all[i]->victims = all;
		all[i]->nr_victims = array_size(all);
		fd_signal(all[i]->watch.fd);
	}
	run_for_ns(NSEC_PER_MSEC);
	for (size_t i = 0; i < array_size(all); i++)
		assert_null(all[i]);
}

static void test_many_sources(void **state)
{
	struct source *all[100];

	for (size_t i = 0; i < array_size(all); i++) {
		all[i] = source_new();
		fd_signal(all[i]->watch.fd);
	}
	run_for_ns(5 * NSEC_PER_MSEC);
	for (size_t i = 0; i < array_size(all); i++) {
		assert_int_equal(all[i]->calls, 1);
		source_free(all[i]);
	}
}

static void test_stop_ends_batch(void **state)
{
	struct source *a = source_new(), *b = source_new();

	a->stop = b->stop = true;
	fd_signal(a->watch.fd);
	fd_signal(b->watch.fd);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(a->calls + b->calls, 1);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(a->calls, 1);
	assert_int_equal(b->calls, 1);
	source_free(a);
	source_free(b);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void test_stop_before_run(void **state)
{
	uint64_t cpu;

	loop_stop(loop);
	loop_stop(loop);
	assert_int_equal(loop_run(loop), 0);
	/* The wake-up that is left over costs one round, not a spin. */
	cpu = cpu_ns();
	run_for_ns(100 * NSEC_PER_MSEC);
	assert_true(cpu_ns() - cpu < 50 * NSEC_PER_MSEC);
}

static void *stop_later(void *arg)
{
	const struct timespec delay = { .tv_nsec = 2 * (long)NSEC_PER_MSEC };

	nanosleep(&delay, NULL);
	loop_stop(loop);
	return NULL;
}

static void test_stop_from_thread(void **state)
{
	pthread_t thread;

	for (int i = 0; i < 50; i++) {
		assert_int_equal(pthread_create(&thread, NULL, stop_later, NULL), 0);
		assert_int_equal(loop_run(loop), 0);
		pthread_join(thread, NULL);
	}
}

static void test_stop_keeps_errno(void **state)
{
	errno = ENOTTY;
	loop_stop(loop);
	assert_int_equal(errno, ENOTTY);
}

struct tick {
	struct loop_timer timer;
	char name;
	uint64_t again_ns;
	unsigned int calls;
};

static char order[16];
static unsigned int nr_order;

static void tick_fn(void *ctx)
{
	struct tick *t = ctx;

	t->calls++;
	if (nr_order < sizeof(order) - 1)
		order[nr_order++] = t->name;
	if (t->again_ns)
		loop_timer_arm(loop, &t->timer, t->again_ns);
}

static struct tick tick(char name)
{
	return (struct tick){ .timer.fn = tick_fn, .name = name };
}

static void arm(struct tick *t, uint64_t delay_ns)
{
	t->timer.ctx = t;
	loop_timer_arm(loop, &t->timer, delay_ns);
}

static void test_timer_order(void **state)
{
	struct tick a = tick('a'), b = tick('b'), c = tick('c'), d = tick('d');

	nr_order = 0;
	arm(&b, 2 * NSEC_PER_MSEC);
	arm(&a, NSEC_PER_MSEC);
	arm(&d, NSEC_PER_SEC); /* armed again, below: moved, not doubled */
	arm(&c, 3 * NSEC_PER_MSEC);
	arm(&d, 4 * NSEC_PER_MSEC);
	/* All are due when the loop first looks. */
	usleep(6000);
	run_for_ns(2 * NSEC_PER_MSEC);
	order[nr_order] = 0;
	assert_string_equal(order, "abcd");
	assert_int_equal(a.timer.deadline_ns, 0);
}

static void test_timer_not_early(void **state)
{
	uint64_t begin = clock_now_ns();

	run_for_ns(7 * NSEC_PER_MSEC);
	assert_true(clock_now_ns() - begin >= 7 * NSEC_PER_MSEC);
}

static void test_timer_cancel(void **state)
{
	struct tick a = tick('a'), never = tick('n');

	arm(&a, NSEC_PER_MSEC);
	loop_timer_cancel(loop, &a.timer);
	loop_timer_cancel(loop, &a.timer);
	/* A delay that wraps the clock means never, not at once. */
	arm(&never, UINT64_MAX);
	run_for_ns(3 * NSEC_PER_MSEC);
	assert_int_equal(a.calls, 0);
	assert_int_equal(never.calls, 0);
	loop_timer_cancel(loop, &never.timer);
}

static void test_timer_again(void **state)
{
	struct tick a = tick('a');
	struct source *s = source_new();

	/* Always due: events must get their turn all the same. */
	a.again_ns = 1;
	arm(&a, 0);
	fd_signal(s->watch.fd);
	run_for_ns(3 * NSEC_PER_MSEC);
	assert_true(a.calls > 1);
	assert_int_equal(s->calls, 1);
	loop_timer_cancel(loop, &a.timer);
	source_free(s);
}

static void cancel_fn(void *ctx)
{
	loop_timer_cancel(loop, ctx);
}

static void test_timer_cancel_in_callback(void **state)
{
	struct tick late = tick('l');
	struct loop_timer first = { .fn = cancel_fn, .ctx = &late.timer };

	loop_timer_arm(loop, &first, 0);
	arm(&late, NSEC_PER_USEC);
	usleep(1000);
	run_for_ns(2 * NSEC_PER_MSEC);
	assert_int_equal(late.calls, 0);
}

static void test_free_null(void **state)
{
	loop_free(NULL);
}

int main(void)
{
#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		LOOP_TEST(test_dispatch),
		LOOP_TEST(test_add_errors),
		LOOP_TEST(test_remove_others_in_callback),
		LOOP_TEST(test_many_sources),
		LOOP_TEST(test_stop_ends_batch),
		LOOP_TEST(test_stop_before_run),
		LOOP_TEST(test_stop_from_thread),
		LOOP_TEST(test_stop_keeps_errno),
		LOOP_TEST(test_timer_order),
		LOOP_TEST(test_timer_not_early),
		LOOP_TEST(test_timer_cancel),
		LOOP_TEST(test_timer_again),
		LOOP_TEST(test_timer_cancel_in_callback),
		cmocka_unit_test(test_free_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
