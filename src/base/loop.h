/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A single-threaded epoll loop with timers: the control threads' main loop.
 */
#ifndef FUSEWIRE_BASE_LOOP_H
#define FUSEWIRE_BASE_LOOP_H

#include <sys/epoll.h>

#include "base/compiler.h"

struct loop;

/**
 * struct loop_watch - one watched descriptor; embedded in its owner, not copied while added.
 * @fd: descriptor; owned by whoever embeds the watch
 * @fn: called on the loop's thread with the EPOLL* bits that are ready; may remove this watch, and any
 *      other, and free their memory once removed
 * @ctx: for @fn
 */
struct loop_watch {
	int fd;
	void (*fn)(void *ctx, uint32_t events);
	void *ctx;
};

/**
 * struct loop_timer - a one-shot timer; embedded in its owner.
 * @deadline_ns: CLOCK_MONOTONIC; 0 when not armed
 * @fn: called on the loop's thread once; may arm the timer again
 * @ctx: for @fn
 * @next: the loop's list
 */
struct loop_timer {
	uint64_t deadline_ns;
	void (*fn)(void *ctx);
	void *ctx;
	struct loop_timer *next;
};

/** loop_new() - Return: 0, or negative errno with *@ret_loop untouched. */
int must_check loop_new(struct loop **ret_loop);
/** loop_free() - NULL is allowed; every watch must have been removed. */
void loop_free(struct loop *loop);

/** loop_add() - watch @w->fd for @events. Context: loop thread, or before loop_run(). Return: 0 or negative errno. */
int must_check loop_add(struct loop *loop, struct loop_watch *w, uint32_t events);
/** loop_modify() - change the watched events. Return: 0 or negative errno. */
int must_check loop_modify(struct loop *loop, struct loop_watch *w, uint32_t events);
/** loop_remove() - stop watching; @w->fn is not called any more, even for events already collected. */
void loop_remove(struct loop *loop, struct loop_watch *w);

/** loop_timer_arm() - call @t->fn in @delay_ns; an armed timer is moved. Timers that are due fire in the order of their deadlines. */
void loop_timer_arm(struct loop *loop, struct loop_timer *t, uint64_t delay_ns);
/** loop_timer_cancel() - no-op when not armed. */
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);

/** loop_run() - dispatch until loop_stop(). Return: 0 or negative errno of epoll_wait(2). */
int must_check loop_run(struct loop *loop);
/**
 * loop_stop() - make loop_run() return after the current callback; events not yet dispatched are found
 * again by the next loop_run(). Context: any thread, or a signal handler.
 */
void loop_stop(struct loop *loop);

#endif
