/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who takes requests from the rings: leader, followers, guard (private.h tells).
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "service/inproc/private.h"

/* Where lead_submit() leaves a request that this thread takes for itself; NULL in any other thread. */
static __thread struct request **taken_here;

static struct inproc_slot *slot_of(struct request *req)
{
	return request_service_data(req);
}

/* Under the lock. Return: was there one? */
static bool wake_one(struct inproc *ip)
{
	struct inproc_waiter *w = ip->waiters;

	if (!w)
		return false;
	ip->waiters = w->next;
	w->listed = false;
	sem_post(&w->sem);
	return true;
}

void lead_wake_all(struct inproc *ip)
{
	while (wake_one(ip))
		continue;
	/* Without a device nobody leads. */
	if (ip->lead != LEAD_NONE) {
		WRITE_ONCE(ip->give_up, true);
		device_take_wake(ip->dev);
	}
	pthread_cond_signal(&ip->guard_cond);
}

/* Under the lock: somebody has to look at pending. */
static void call_reader(struct inproc *ip)
{
	if (wake_one(ip))
		return;
	if (ip->lead == LEAD_READER) {
		WRITE_ONCE(ip->give_up, true);
		device_take_wake(ip->dev);
	}
}

/* Under the lock. */
static void update_readable(struct inproc *ip)
{
	const bool yes = ip->nr_pending || ip->gone;

	if (!ip->polled || yes == ip->is_readable || !ip->config.readable)
		return;
	ip->is_readable = yes;
	ip->config.readable(ip->config.ctx, yes);
}

void lead_add_request(struct inproc *ip, struct request *req, bool front)
{
	struct inproc_slot *slot = slot_of(req);
	bool gone;

	pthread_mutex_lock(&ip->lock);
	gone = ip->gone;
	if (!gone) {
		if (front) {
			slot->next = ip->requests;
			ip->requests = req;
			if (!slot->next)
				ip->requests_end = &slot->next;
		} else {
			slot->next = NULL;
			*ip->requests_end = req;
			ip->requests_end = &slot->next;
		}
		ip->nr_pending++;
		call_reader(ip);
		update_readable(ip);
	}
	pthread_mutex_unlock(&ip->lock);
	if (gone)
		request_reply(req, -EIO, NULL, 0);
}

void lead_add_note(struct inproc *ip, struct inproc_note *note)
{
	pthread_mutex_lock(&ip->lock);
	if (!ip->gone) {
		note->next = NULL;
		*ip->notes_end = note;
		ip->notes_end = &note->next;
		ip->nr_pending++;
		call_reader(ip);
		update_readable(ip);
		note = NULL;
	}
	pthread_mutex_unlock(&ip->lock);
	free(note);
}

/* Under the lock. */
static bool pop_pending(struct inproc *ip, struct inproc_item *item)
{
	if (!ip->nr_pending)
		return false;
	if (ip->notes) {
		item->note = ip->notes;
		ip->notes = item->note->next;
		if (!ip->notes)
			ip->notes_end = &ip->notes;
	} else {
		item->req = ip->requests;
		ip->requests = slot_of(item->req)->next;
		if (!ip->requests)
			ip->requests_end = &ip->requests;
		ip->settled = false;
		inproc_busy(ip);
	}
	ip->nr_pending--;
	update_readable(ip);
	/* The guard may have stopped because there was enough. */
	if (ip->polled && ip->nr_pending == INPROC_PENDING_MAX - 1)
		pthread_cond_signal(&ip->guard_cond);
	return true;
}

void lead_fail_pending(struct inproc *ip, int error)
{
	struct inproc_item item = {};
	bool found;

	do {
		pthread_mutex_lock(&ip->lock);
		item = (struct inproc_item){};
		found = pop_pending(ip, &item);
		pthread_mutex_unlock(&ip->lock);
		if (item.req) {
			free(slot_of(item.req)->split);
			request_reply(item.req, error, NULL, 0);
			inproc_not_busy(ip);
		}
		free(item.note);
	} while (found);
}

void lead_submit(struct service *svc, struct request *req)
{
	struct inproc *ip = inproc_of(svc);

	if (taken_here && !*taken_here) {
		inproc_busy(ip);
		*taken_here = req;
	} else {
		lead_add_request(ip, req, false);
	}
}

void inproc_takeable(struct service *svc)
{
	struct inproc *ip = inproc_of(svc);

	pthread_mutex_lock(&ip->lock);
	ip->nr_allowed++;
	ip->excluded = false;
	if (!wake_one(ip) || ip->polled)
		pthread_cond_signal(&ip->guard_cond);
	pthread_mutex_unlock(&ip->lock);
}

/* Under the lock. The lead stays empty, for a moment or for long: the guard sees which. */
static void alert_guard(struct inproc *ip)
{
	if (ip->alert)
		return;
	ip->alert = true;
	pthread_cond_signal(&ip->guard_cond);
}

/* Under the lock. The leader goes away; with @more, others could work meanwhile. */
static void hand_over(struct inproc *ip, bool leaves_for_good, bool more)
{
	const uint64_t handler_ns = READ_ONCE(ip->handler_ns);
	bool wake = leaves_for_good || handler_ns > INPROC_HANDLER_LONG_NS ||
		    (more && ip->nr_cpus > 2 && handler_ns > INPROC_HANDLER_SHORT_NS);

	if (!wake || !wake_one(ip))
		alert_guard(ip);
}

/* Under the lock; drops it meanwhile. The waiter is on this thread's stack. */
static void waiter_cancelled(void *arg)
{
	struct inproc_waiter *w = arg;
	struct inproc *ip = w->ip;

	pthread_mutex_lock(&ip->lock);
	if (w->listed) {
		struct inproc_waiter **p = &ip->waiters;

		while (*p != w)
			p = &(*p)->next;
		*p = w->next;
	} else {
		/* Woken and cancelled at once: what we were woken for is somebody else's. */
		if (ip->nr_pending)
			call_reader(ip);
		else if (!wake_one(ip))
			alert_guard(ip);
	}
	pthread_mutex_unlock(&ip->lock);
	sem_destroy(&w->sem);
}

static int follow(struct inproc *ip, bool cancelable)
{
	struct inproc_waiter w = { .ip = ip, .next = ip->waiters, .listed = true };
	int unused, err;

	sem_init(&w.sem, 0, 0);
	ip->waiters = &w;
	pthread_mutex_unlock(&ip->lock);
	pthread_cleanup_push(waiter_cancelled, &w);
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &unused);
	err = sem_wait(&w.sem) < 0 ? -errno : 0;
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
	pthread_cleanup_pop(0);
	pthread_mutex_lock(&ip->lock);
	if (!w.listed) {
		/* Woken, whatever else happened. */
		sem_destroy(&w.sem);
		return 0;
	}
	pthread_mutex_unlock(&ip->lock);
	waiter_cancelled(&w);
	pthread_mutex_lock(&ip->lock);
	return err;
}

static void leader_cancelled(void *arg)
{
	struct inproc *ip = arg;

	taken_here = NULL;
	pthread_mutex_lock(&ip->lock);
	ip->lead = LEAD_NONE;
	ip->lead_changes++;
	WRITE_ONCE(ip->give_up, false);
	hand_over(ip, true, false);
	pthread_mutex_unlock(&ip->lock);
}

/*
 * Under the lock; drops it meanwhile. One turn as the leader.
 * Return: 1: *@ret_req, or the device ended what was taken itself (NULL); else as device_take().
 */
static int lead(struct inproc *ip, enum inproc_lead who, bool wait, bool cancelable,
		struct request **ret_req, bool *ret_more)
{
	const uint64_t nr_allowed = ip->nr_allowed;
	int err;

	*ret_req = NULL;
	ip->lead = who;
	ip->lead_changes++;
	pthread_mutex_unlock(&ip->lock);
	taken_here = who == LEAD_READER ? ret_req : NULL;
	pthread_cleanup_push(leader_cancelled, ip);
	err = device_take(ip->dev, &ip->give_up, wait, cancelable, ret_more);
	pthread_cleanup_pop(0);
	taken_here = NULL;
	pthread_mutex_lock(&ip->lock);
	ip->lead = LEAD_NONE;
	ip->lead_changes++;
	WRITE_ONCE(ip->give_up, false);
	if (err == -EBUSY && ip->nr_allowed == nr_allowed)
		ip->excluded = true;
	return err;
}

/* Under the lock. Return: 0 with an item, 1: look again, or an error for the reader. */
static int lead_as_reader(struct inproc *ip, bool nonblock, bool cancelable,
			  struct inproc_item *item)
{
	bool more, sent_back;
	int err = lead(ip, LEAD_READER, !nonblock, cancelable, &item->req, &more);

	sent_back = ip->sent_back;
	ip->sent_back = false;
	if (item->req) {
		ip->settled = false;
		hand_over(ip, false, more);
		return 0;
	}
	if (err == -EAGAIN && sent_back && !ip->nr_pending)
		err = -EINTR;
	/* Called back, or kept out: look again at what there is. */
	if (err == 1 || err == -EBUSY || (err == -EAGAIN && (!nonblock || ip->nr_pending)))
		return 1;
	hand_over(ip, true, false);
	return err;
}

int lead_next(struct inproc *ip, bool nonblock, bool cancelable, struct inproc_item *ret_item)
{
	int err = 1;

	*ret_item = (struct inproc_item){};
	pthread_mutex_lock(&ip->lock);
	while (err == 1) {
		if (ip->gone) {
			err = -ENODEV;
		} else if (pop_pending(ip, ret_item)) {
			if (ip->nr_pending || ip->lead == LEAD_NONE)
				hand_over(ip, false, ip->nr_pending);
			err = 0;
		} else if (ip->lead == LEAD_NONE && !ip->excluded && !ip->polled) {
			err = lead_as_reader(ip, nonblock, cancelable, ret_item);
		} else if (nonblock) {
			err = -EAGAIN;
		} else {
			if (ip->lead == LEAD_GUARD && !ip->polled) {
				/* It is only there while nobody else is. */
				WRITE_ONCE(ip->give_up, true);
				device_take_wake(ip->dev);
			}
			err = follow(ip, cancelable);
			err = err ? err : 1;
		}
	}
	if (err < 0 && err != -ENODEV && ip->lead == LEAD_NONE)
		alert_guard(ip);
	pthread_mutex_unlock(&ip->lock);
	return err;
}

/* Under the lock. Lead until somebody else could, or enough was taken. */
static void guard_lead(struct inproc *ip)
{
	struct request *unused;
	bool more;

	while (!ip->guard_stop && !ip->gone && !ip->excluded && ip->lead == LEAD_NONE &&
	       ip->nr_pending < INPROC_PENDING_MAX && (ip->polled || !ip->waiters)) {
		int err = lead(ip, LEAD_GUARD, true, false, &unused, &more);

		if (err < 0 && err != -EAGAIN && err != -EBUSY && err != -EINTR) {
			log_error("cannot wait for kicks: %s", strerror(-err));
			break;
		}
	}
	if (ip->lead == LEAD_NONE && !ip->polled)
		wake_one(ip);
}

/* Under the lock. All is quiet: a reader that leads may have missed a signal. */
static void settle(struct inproc *ip)
{
	if (ip->settled || ip->lead != LEAD_READER)
		return;
	ip->settled = true;
	ip->sent_back = true;
	WRITE_ONCE(ip->give_up, true);
	device_take_wake(ip->dev);
}

static void guard_tick(struct inproc *ip)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += INPROC_TICK_NS;
	if (until.tv_nsec >= (long)NSEC_PER_SEC) {
		until.tv_nsec -= (long)NSEC_PER_SEC;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&ip->guard_cond, &ip->lock, &until);
}

/* Under the lock. Look every tick, until all is quiet under a leader. */
static void guard_watch(struct inproc *ip)
{
	unsigned int empty = 0, quiet = 0;

	while (ip->alert && !ip->guard_stop && !ip->polled && !ip->gone) {
		const uint64_t changes = ip->lead_changes;

		guard_tick(ip);
		if (ip->lead_changes != changes) {
			empty = quiet = 0;
		} else if (ip->lead != LEAD_NONE) {
			ip->alert = ++quiet < INPROC_TICKS_QUIET;
			if (!ip->alert)
				settle(ip);
		} else if (!ip->excluded) {
			if (!wake_one(ip) && ++empty >= INPROC_TICKS_EMPTY) {
				guard_lead(ip);
				empty = 0;
			}
		}
	}
	if (ip->gone)
		ip->alert = false;
}

static void *guard_main(void *arg)
{
	struct inproc *ip = arg;

	pthread_mutex_lock(&ip->lock);
	while (!ip->guard_stop) {
		const uint64_t changes = ip->lead_changes;

		if (ip->polled)
			guard_lead(ip);
		else if (ip->alert)
			guard_watch(ip);
		if (!ip->guard_stop && (ip->polled ? ip->lead_changes == changes : !ip->alert))
			pthread_cond_wait(&ip->guard_cond, &ip->lock);
	}
	pthread_mutex_unlock(&ip->lock);
	return NULL;
}

int lead_init(struct inproc *ip)
{
	pthread_condattr_t attr;
	sigset_t all, old;
	int err;

	ip->requests_end = &ip->requests;
	ip->notes_end = &ip->notes;
	pthread_mutex_init(&ip->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ip->guard_cond, &attr);
	pthread_condattr_destroy(&attr);
	/* The daemon's signals are its own threads'. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&ip->guard, NULL, guard_main, ip);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	ip->guard_runs = !err;
	return -err;
}

void lead_fini(struct inproc *ip)
{
	pthread_mutex_lock(&ip->lock);
	ip->guard_stop = true;
	if (ip->lead == LEAD_GUARD) {
		WRITE_ONCE(ip->give_up, true);
		device_take_wake(ip->dev);
	}
	pthread_cond_signal(&ip->guard_cond);
	pthread_mutex_unlock(&ip->lock);
	if (ip->guard_runs)
		pthread_join(ip->guard, NULL);
	pthread_mutex_destroy(&ip->lock);
	pthread_cond_destroy(&ip->guard_cond);
}
