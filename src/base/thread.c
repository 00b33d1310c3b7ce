/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts threads that leave the process's signals alone.
 */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's struct sched_attr as it was first; libraries differ in whether and where they declare it. */
struct thread_sched {
	uint32_t bytes;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t slice_ns; /* "runtime" of the policies that have one; since Linux 6.12 the slice in SCHED_OTHER */
	uint64_t deadline_ns;
	uint64_t period_ns;
};

/* The shortest that the kernel takes. */
#define THREAD_SLICE_NS 100000

int thread_start(pthread_t *ret_thread, void *(*main)(void *arg), void *arg)
{
	static const int faults[] = { SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	sigset_t mask, old;
	int err;

	sigfillset(&mask);
	for (unsigned int i = 0; i < array_size(faults); i++)
		sigdelset(&mask, faults[i]);
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	err = pthread_create(ret_thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

void thread_want_short_slices(void)
{
	const struct thread_sched sched = {
		.bytes = sizeof(sched),
		.policy = SCHED_OTHER,
		.nice = getpriority(PRIO_PROCESS, 0),
		.slice_ns = THREAD_SLICE_NS,
	};

	static_assert(sizeof(sched) == 48, "SCHED_ATTR_SIZE_VER0");
	if (sched_getscheduler(0) == SCHED_OTHER)
		(void)syscall(SYS_sched_setattr, 0, &sched, 0);
}
