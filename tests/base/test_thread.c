/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads: their signals, their slices, and that who polls sees that others want the processor.
 */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/poll_time.h"
#include "cm.h"

/* sched_getattr(2): size, policy, flags, nice, priority, then the slice. */
struct seen {
	sigset_t mask;
	int policy, nice;
	struct {
		uint32_t bytes, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t slice_ns, deadline_ns, period_ns;
	} before, after;
	long err;
};

static void *look(void *arg)
{
	struct seen *seen = arg;

	pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
	seen->err = syscall(SYS_sched_getattr, 0, &seen->before, sizeof(seen->before), 0);
	thread_want_short_slices();
	if (!seen->err)
		seen->err = syscall(SYS_sched_getattr, 0, &seen->after, sizeof(seen->after), 0);
	seen->policy = sched_getscheduler(0);
	seen->nice = getpriority(PRIO_PROCESS, 0);
	return NULL;
}

static void run_look(struct seen *seen)
{
	pthread_t thread;

	assert_int_equal(thread_start(&thread, look, seen), 0);
	pthread_join(thread, NULL);
}

static void test_signals(void **state)
{
	struct seen seen = { .err = 0 };
	sigset_t ours;

	run_look(&seen);
	assert_true(sigismember(&seen.mask, SIGTERM));
	assert_true(sigismember(&seen.mask, SIGUSR1));
	assert_false(sigismember(&seen.mask, SIGBUS));
	assert_false(sigismember(&seen.mask, SIGSEGV));
	pthread_sigmask(SIG_SETMASK, NULL, &ours);
	assert_false(sigismember(&ours, SIGTERM));
}

static void test_short_slices(void **state)
{
	struct seen seen = { .err = 0 };

	run_look(&seen);
	assert_int_equal(seen.policy, SCHED_OTHER);
	assert_int_equal(seen.nice, getpriority(PRIO_PROCESS, 0));
	/* Emulators do not know the call, kernels before 6.12 not the slice. */
	if (seen.err || !seen.before.slice_ns)
		skip();
	assert_int_equal(seen.after.slice_ns, 100000);
	assert_int_equal(seen.after.nice, seen.before.nice);
}

static void *burn(void *arg)
{
	while (!__atomic_load_n((bool *)arg, __ATOMIC_RELAXED))
		;
	return NULL;
}

static void test_crowd_is_seen(void **state)
{
	bool stop = false, crowded = false;
	const uint64_t begin = clock_now_ns();
	cpu_set_t all, one;
	pthread_t other;
	int first = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(first, &all))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(thread_start(&other, burn, &stop), 0);
	while (!crowded && clock_now_ns() - begin < 20 * NSEC_PER_SEC)
		assert_true(poll_time_left(begin, UINT64_MAX, &crowded));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(other, NULL);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	assert_true(crowded);
}

static void test_time_is_up(void **state)
{
	const uint64_t begin = clock_now_ns();

	assert_true(poll_time_left(begin, 10 * NSEC_PER_SEC, NULL));
	assert_false(poll_time_left(begin - NSEC_PER_SEC, NSEC_PER_SEC, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_short_slices),
		cmocka_unit_test(test_crowd_is_seen),
		cmocka_unit_test(test_time_is_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
