/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads of our own in a process whose signals are other threads' business.
 */
#ifndef FUSEWIRE_BASE_THREAD_H
#define FUSEWIRE_BASE_THREAD_H

#include <pthread.h>

#include "base/compiler.h"

/**
 * thread_start() - start a thread that no signal interrupts.
 *
 * All signals are blocked in it but those that its own instructions cause: a fault that is blocked is fatal whatever
 * handler there is, and memory that a peer has truncated faults (mem/sigbus.h).
 *
 * Return: 0 or negative errno of pthread_create(3).
 */
int must_check thread_start(pthread_t *ret_thread, void *(*main)(void *arg), void *arg);

/**
 * thread_want_short_slices() - the calling thread works for moments only, and then wants to be on soon.
 *
 * Asks for the scheduler's shortest slices: woken, it comes before threads that compute, whose share stays what it was. Needs
 * Linux 6.12 and no privilege; does nothing elsewhere, or to a thread whose scheduling policy somebody has set.
 */
void thread_want_short_slices(void);

/** autocancel - an int variable from thread_cancel_off(): the calling thread can be cancelled again as before when it leaves scope. */
#define autocancel __attribute__((cleanup(thread_cancel_restore), unused))

/** thread_cancel_off() - pthread_cancel(3) has no effect on the calling thread. Return: what thread_cancel_restore() wants. */
static inline int must_check thread_cancel_off(void)
{
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

/** thread_cancel_restore() - what autocancel calls. */
static inline void thread_cancel_restore(const int *before)
{
	int unused;

	pthread_setcancelstate(*before, &unused);
}

#endif
