/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who takes requests from the rings: leader, followers, guard (private.h tells).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "service/inproc/private.h"

/* Where lead_submit() leaves a request that this thread takes for itself; NULL in any other thread. */
static __thread struct request **taken_here;

static struct inproc_slot *slot_of(struct request *req)
{
	return request_service_data(req);
}

void lead_close(struct inproc *ip)
{
	/* Acquire: what the last leader did without the lock. */
	__atomic_fetch_or(&ip->word, LEAD_CLOSED, __ATOMIC_ACQUIRE);
}

/* With each of these the next to take or to leave the lead has something to see to. */
static bool stays_closed(const struct inproc *ip)
{
	return ip->gone || ip->nr_pending || ip->excluded || ip->polled || ip->give_up ||
	       ip->sent_back || ip->nr_settled || !ip->alert;
}

void lead_open(struct inproc *ip)
{
	/* Nobody else writes a closed word. */
	const uint64_t word = __atomic_load_n(&ip->word, __ATOMIC_RELAXED);

	if (!stays_closed(ip))
		__atomic_store_n(&ip->word, word & ~LEAD_CLOSED, __ATOMIC_RELEASE);
}

/* Under the lock. */
static void lead_set(struct inproc *ip, enum inproc_lead who)
{
	const uint64_t word = __atomic_load_n(&ip->word, __ATOMIC_RELAXED);

	__atomic_store_n(&ip->word, ((word & ~LEAD_MASK) | who) + LEAD_CHANGE, __ATOMIC_RELAXED);
}

/* Under the lock. */
static uint64_t lead_changes(const struct inproc *ip)
{
	return __atomic_load_n(&ip->word, __ATOMIC_RELAXED) / LEAD_CHANGE;
}

/* From @from to @to. Return: false when the word is closed, or the lead is not @from. */
static bool lead_swap(struct inproc *ip, enum inproc_lead from, enum inproc_lead to)
{
	uint64_t word = __atomic_load_n(&ip->word, __ATOMIC_RELAXED);

	return (word & (LEAD_MASK | LEAD_CLOSED)) == from &&
	       __atomic_compare_exchange_n(&ip->word, &word, word - from + to + LEAD_CHANGE, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
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
	if (lead_of(ip) != LEAD_NONE) {
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
	if (lead_of(ip) == LEAD_READER) {
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

	inproc_lock(ip);
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
	inproc_unlock(ip);
	if (gone) {
		/* A READ that was to go on. */
		free(slot->split);
		slot->split = NULL;
		request_reply(req, -EIO, NULL, 0);
	}
}

/*
 * Under the lock. Does the daemon find the same INTERRUPT there already? One that reads nothing would otherwise collect as many as a
 * driver cares to send.
 */
static bool is_interrupting(const struct inproc *ip, const struct inproc_note *note)
{
	struct fuse_in_header hdr;

	memcpy(&hdr, note->msg, sizeof(hdr));
	if (hdr.opcode != FUSE_INTERRUPT)
		return false;
	for (const struct inproc_note *n = ip->notes; n; n = n->next) {
		if (n->len == note->len && memcmp(n->msg, note->msg, n->len) == 0)
			return true;
	}
	return false;
}

void lead_add_note(struct inproc *ip, struct inproc_note *note)
{
	inproc_lock(ip);
	if (!ip->gone && !is_interrupting(ip, note)) {
		note->next = NULL;
		*ip->notes_end = note;
		ip->notes_end = &note->next;
		ip->nr_pending++;
		call_reader(ip);
		update_readable(ip);
		note = NULL;
	}
	inproc_unlock(ip);
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
		WRITE_ONCE(ip->nr_settled, 0);
		inproc_busy(ip);
	}
	ip->nr_pending--;
	update_readable(ip);
	/* The guard may have stopped because there was enough. */
	if (ip->polled && ip->nr_pending >= INPROC_PENDING_MAX - 1)
		pthread_cond_signal(&ip->guard_cond);
	return true;
}

void lead_fail_pending(struct inproc *ip, int error)
{
	struct inproc_item item = {};
	bool found;

	do {
		inproc_lock(ip);
		item = (struct inproc_item){};
		found = pop_pending(ip, &item);
		inproc_unlock(ip);
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

	if (taken_here && !*taken_here)
		*taken_here = req;
	else
		lead_add_request(ip, req, false);
}

void inproc_takeable(struct service *svc)
{
	struct inproc *ip = inproc_of(svc);

	inproc_lock(ip);
	__atomic_store_n(&ip->nr_allowed, ip->nr_allowed + 1, __ATOMIC_RELAXED);
	ip->excluded = false;
	if (!wake_one(ip) || ip->polled)
		pthread_cond_signal(&ip->guard_cond);
	inproc_unlock(ip);
}

/* Under the lock. The lead stays empty, for a moment or for long: the guard sees which. */
static void alert_guard(struct inproc *ip)
{
	if (ip->alert)
		return;
	ip->alert = true;
	pthread_cond_signal(&ip->guard_cond);
}

/* With @more, others could work meanwhile. Return: it would not be for nothing to wake a follower. */
static bool wakes_follower(const struct inproc *ip, bool more)
{
	const uint64_t handler_ns = READ_ONCE(ip->handler_ns);

	return handler_ns > INPROC_HANDLER_LONG_NS ||
	       (more && ip->nr_cpus > 2 && handler_ns > INPROC_HANDLER_SHORT_NS);
}

/* Under the lock. The leader goes away. */
static void hand_over(struct inproc *ip, bool leaves_for_good, bool more)
{
	bool wake = leaves_for_good || wakes_follower(ip, more);

	if (!wake || !wake_one(ip))
		alert_guard(ip);
}

/* Under the lock; drops it meanwhile. The waiter is on this thread's stack. */
static void waiter_cancelled(void *arg)
{
	struct inproc_waiter *w = arg;
	struct inproc *ip = w->ip;

	inproc_lock(ip);
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
	inproc_unlock(ip);
	sem_destroy(&w->sem);
}

static int follow(struct inproc *ip, bool cancelable)
{
	struct inproc_waiter w = { .ip = ip, .next = ip->waiters, .listed = true };
	int unused, err;

	sem_init(&w.sem, 0, 0);
	ip->waiters = &w;
	inproc_unlock(ip);
	pthread_cleanup_push(waiter_cancelled, &w);
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &unused);
	err = sem_wait(&w.sem) < 0 ? -errno : 0;
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
	pthread_cleanup_pop(0);
	inproc_lock(ip);
	if (!w.listed) {
		/* Woken, whatever else happened. */
		sem_destroy(&w.sem);
		return 0;
	}
	inproc_unlock(ip);
	waiter_cancelled(&w);
	inproc_lock(ip);
	return err;
}

/* Under the lock: the leader came back from take() with @err. */
static void lead_ended(struct inproc *ip, int err, uint64_t nr_allowed)
{
	lead_set(ip, LEAD_NONE);
	WRITE_ONCE(ip->give_up, false);
	if (err == -EBUSY && ip->nr_allowed == nr_allowed)
		ip->excluded = true;
	/* Somebody may have begun to poll meanwhile: the guard, whose turn it is then, found the lead taken and sleeps. */
	if (ip->polled)
		pthread_cond_signal(&ip->guard_cond);
}

static void leader_cancelled(void *arg)
{
	struct inproc *ip = arg;

	taken_here = NULL;
	inproc_lock(ip);
	lead_ended(ip, 1, 0);
	hand_over(ip, true, false);
	inproc_unlock(ip);
}

/*
 * When all is quiet there is nothing to look for. And a signal that comes while a reader looks goes unnoticed: after it was sent back for
 * those there is no time for another, beyond what read(2) takes to fall asleep.
 */
static enum device_take_wait how_to_wait(const struct inproc *ip)
{
	return READ_ONCE(ip->nr_settled) ? DEVICE_TAKE_SLEEP : DEVICE_TAKE_LOOK;
}

/* The leader. Return: 1: *@ret_req, or the device ended what was taken itself (NULL); else as device_take(). */
static int take(struct inproc *ip, enum inproc_lead who, bool wait, bool cancelable,
		struct request **ret_req, bool *ret_more)
{
	int err;

	*ret_req = NULL;
	taken_here = who == LEAD_READER ? ret_req : NULL;
	pthread_cleanup_push(leader_cancelled, ip);
	err = device_take(ip->dev, &ip->give_up, wait ? how_to_wait(ip) : DEVICE_TAKE_NO_WAIT,
			  cancelable, ret_more);
	pthread_cleanup_pop(0);
	taken_here = NULL;
	return err;
}

/* Under the lock; drops it meanwhile. One turn as the leader. Return: as take(). */
static int lead(struct inproc *ip, enum inproc_lead who, bool wait, bool cancelable,
		struct request **ret_req, bool *ret_more)
{
	const uint64_t nr_allowed = ip->nr_allowed;
	int err;

	lead_set(ip, who);
	inproc_unlock(ip);
	err = take(ip, who, wait, cancelable, ret_req, ret_more);
	if (*ret_req)
		inproc_busy(ip);
	inproc_lock(ip);
	lead_ended(ip, err, nr_allowed);
	return err;
}

/* Under the lock. */
static void leave_with_request(struct inproc *ip, bool more)
{
	ip->sent_back = false;
	WRITE_ONCE(ip->nr_settled, 0);
	hand_over(ip, false, more);
}

/* Under the lock: a reader led, and take() gave @err. Return: 0 with an item, 1: look again, or an error for the reader. */
static int led_as_reader(struct inproc *ip, int err, bool nonblock, const struct inproc_item *item)
{
	const bool sent_back = ip->sent_back;

	if (item->req) {
		leave_with_request(ip, item->more);
		return 0;
	}
	ip->sent_back = false;
	if (err == -EAGAIN && sent_back && !ip->nr_pending) {
		err = -EINTR;
	} else if (sent_back) {
		/* Something else came between: it has not been back with the daemon. */
		WRITE_ONCE(ip->nr_settled, 0);
		alert_guard(ip);
	}
	/* Called back, or kept out: look again at what there is. */
	if (err == 1 || err == -EBUSY || (err == -EAGAIN && (!nonblock || ip->nr_pending)))
		return 1;
	hand_over(ip, true, false);
	return err;
}

/*
 * Lead without the lock, where that can be. Return: 0 with an item, and still leading; else under the lock: 1: look at all
 * there is, or an error for the reader.
 */
static int lead_unlocked(struct inproc *ip, bool nonblock, bool cancelable,
			 struct inproc_item *item)
{
	uint64_t nr_allowed;
	int err;

	if (!lead_swap(ip, LEAD_NONE, LEAD_READER)) {
		inproc_lock(ip);
		return 1;
	}
	nr_allowed = __atomic_load_n(&ip->nr_allowed, __ATOMIC_RELAXED);
	err = take(ip, LEAD_READER, !nonblock, cancelable, &item->req, &item->more);
	if (item->req) {
		item->leads = true;
		return 0;
	}
	inproc_lock(ip);
	lead_ended(ip, err, nr_allowed);
	return led_as_reader(ip, err, nonblock, item);
}

void lead_leave(struct inproc *ip, bool more)
{
	if (!wakes_follower(ip, more) && lead_swap(ip, LEAD_READER, LEAD_NONE))
		return;
	inproc_lock(ip);
	lead_ended(ip, 1, 0);
	leave_with_request(ip, more);
	inproc_unlock(ip);
}

int lead_next(struct inproc *ip, bool nonblock, bool cancelable, struct inproc_item *ret_item)
{
	int err;

	*ret_item = (struct inproc_item){};
	err = lead_unlocked(ip, nonblock, cancelable, ret_item);
	if (err == 0)
		return 0;
	while (err == 1) {
		if (ip->gone) {
			err = -ENODEV;
		} else if (pop_pending(ip, ret_item)) {
			if (ip->nr_pending || lead_of(ip) == LEAD_NONE)
				hand_over(ip, false, ip->nr_pending);
			err = 0;
		} else if (lead_of(ip) == LEAD_NONE && !ip->excluded && !ip->polled) {
			err = lead(ip, LEAD_READER, !nonblock, cancelable, &ret_item->req,
				   &ret_item->more);
			err = led_as_reader(ip, err, nonblock, ret_item);
		} else if (nonblock) {
			err = -EAGAIN;
		} else {
			if (lead_of(ip) == LEAD_GUARD && !ip->polled) {
				/* It is only there while nobody else is. */
				WRITE_ONCE(ip->give_up, true);
				device_take_wake(ip->dev);
			}
			err = follow(ip, cancelable);
			err = err ? err : 1;
		}
	}
	if (err < 0 && err != -ENODEV && lead_of(ip) == LEAD_NONE)
		alert_guard(ip);
	inproc_unlock(ip);
	return err;
}

/* Nobody waits for it, and the daemon need not hear of it. */
static bool may_drop(const struct request *req)
{
	if (request_is_awaited(req))
		return false;
	switch (request_header(req)->opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_NOTIFY_REPLY:
	case FUSE_FLUSH: /* a lock that is paid back */
		return false;
	default:
		return true;
	}
}

/* Under the lock: the INTERRUPT of a request that is dropped. */
static void drop_interrupt(struct inproc *ip, uint64_t unique)
{
	struct inproc_note **p = &ip->notes;

	while (*p) {
		struct inproc_note *note = *p;
		struct fuse_in_header hdr;

		memcpy(&hdr, note->msg, sizeof(hdr));
		if (hdr.opcode != FUSE_INTERRUPT ||
		    hdr.unique != (unique | INPROC_UNIQUE_INTERRUPT)) {
			p = &note->next;
			continue;
		}
		*p = note->next;
		ip->nr_pending--;
		free(note);
	}
	ip->notes_end = p;
}

/*
 * Under the lock; drops it meanwhile. What a driver that is gone has asked for stays pending while all threads of the daemon hang. It
 * shall not take the place of what the next driver asks for.
 */
static void drop_pending(struct inproc *ip)
{
	struct request *dropped = NULL, **p = &ip->requests;

	while (*p) {
		struct request *req = *p;

		if (!may_drop(req)) {
			p = &slot_of(req)->next;
			continue;
		}
		*p = slot_of(req)->next;
		slot_of(req)->next = dropped;
		dropped = req;
		ip->nr_pending--;
		drop_interrupt(ip, request_header(req)->unique);
	}
	ip->requests_end = p;
	if (!dropped)
		return;
	update_readable(ip);
	inproc_busy(ip);
	inproc_unlock(ip);
	while (dropped) {
		struct request *req = dropped;

		dropped = slot_of(req)->next;
		free(slot_of(req)->split);
		request_reply(req, -EIO, NULL, 0);
	}
	inproc_not_busy(ip);
	inproc_lock(ip);
}

/*
 * Under the lock. What nobody waits for is not counted, nor the one INTERRUPT that may be there for each request: the next driver's INIT,
 * which is answered without the daemon, must be taken all the same.
 */
static bool has_enough(const struct inproc *ip)
{
	unsigned int nr = 0;

	if (ip->nr_pending < INPROC_PENDING_MAX)
		return false;
	for (struct request *req = ip->requests; req; req = slot_of(req)->next)
		nr += request_is_awaited(req);
	return nr >= INPROC_PENDING_MAX;
}

/* Under the lock; drops it meanwhile. Lead until somebody else could, or enough was taken. */
static void guard_lead(struct inproc *ip)
{
	struct request *unused;
	bool more;

	/* No reset comes while we lead: it keeps us out first. */
	drop_pending(ip);
	while (!has_enough(ip) && !ip->guard_stop && !ip->gone && !ip->excluded &&
	       lead_of(ip) == LEAD_NONE && (ip->polled || !ip->waiters)) {
		int err = lead(ip, LEAD_GUARD, true, false, &unused, &more);

		if (err < 0 && err != -EAGAIN && err != -EBUSY && err != -EINTR) {
			log_error("cannot wait for kicks: %s", strerror(-err));
			break;
		}
	}
	if (lead_of(ip) == LEAD_NONE && !ip->polled)
		wake_one(ip);
}

/* Under the lock. */
static void send_back(struct inproc *ip)
{
	ip->sent_back = true;
	WRITE_ONCE(ip->give_up, true);
	device_take_wake(ip->dev);
}

/* Under the lock. All is quiet: a reader that leads may have missed a signal. */
static void settle(struct inproc *ip)
{
	if (ip->nr_settled || lead_of(ip) != LEAD_READER)
		return;
	WRITE_ONCE(ip->nr_settled, 1);
	send_back(ip);
}

/* Under the lock; drops it meanwhile. @ns: less than a second. Return: nobody has called. */
static bool guard_wait(struct inproc *ip, uint32_t ns)
{
	struct timespec until;
	int err;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ns;
	if (until.tv_nsec >= (long)NSEC_PER_SEC) {
		until.tv_nsec -= (long)NSEC_PER_SEC;
		until.tv_sec++;
	}
	lead_open(ip);
	err = pthread_cond_timedwait(&ip->guard_cond, &ip->lock, &until);
	lead_close(ip);
	return err == ETIMEDOUT;
}

/* Under the lock. */
static void guard_found(struct inproc *ip, bool healthy)
{
	if (!healthy) {
		ip->nr_healthy = 0;
		ip->tick_ns = INPROC_TICK_NS;
	} else if (++ip->nr_healthy % INPROC_TICKS_HEALTHY == 0 &&
		   ip->tick_ns < INPROC_TICK_MAX_NS) {
		ip->tick_ns *= 2;
	}
}

/* Under the lock. Look every tick, until all is quiet under a leader. */
static void guard_watch(struct inproc *ip)
{
	unsigned int empty = 0, quiet = 0;

	while (ip->alert && !ip->guard_stop && !ip->polled && !ip->gone) {
		const uint64_t changes = lead_changes(ip);

		(void)guard_wait(ip, ip->tick_ns);
		guard_found(ip, lead_changes(ip) != changes);
		if (lead_changes(ip) != changes) {
			empty = quiet = 0;
		} else if (lead_of(ip) != LEAD_NONE) {
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

/*
 * Under the lock. What came in the moment between the reader's way back and its sleep is missed, too, and the end of work is when a daemon is
 * told to end. So it is sent back once more, when nobody waits for just that moment.
 */
static void guard_sleep(struct inproc *ip)
{
	if (ip->nr_settled == 1 && !ip->polled) {
		if (!guard_wait(ip, INPROC_SETTLE_AGAIN_NS) || !ip->nr_settled || ip->alert)
			return;
		WRITE_ONCE(ip->nr_settled, 2);
		if (lead_of(ip) == LEAD_READER)
			send_back(ip);
		return;
	}
	lead_open(ip);
	pthread_cond_wait(&ip->guard_cond, &ip->lock);
	lead_close(ip);
}

static void *guard_main(void *arg)
{
	struct inproc *ip = arg;

	inproc_lock(ip);
	while (!ip->guard_stop) {
		const uint64_t changes = lead_changes(ip);
		bool idle;

		if (ip->polled) {
			guard_lead(ip);
			idle = lead_changes(ip) == changes;
		} else {
			if (ip->alert)
				guard_watch(ip);
			/* Somebody may have begun to poll meanwhile. */
			idle = !ip->polled && !ip->alert;
		}
		if (!ip->guard_stop && idle)
			guard_sleep(ip);
	}
	inproc_unlock(ip);
	return NULL;
}

int lead_init(struct inproc *ip)
{
	pthread_condattr_t attr;
	int err;

	ip->word = LEAD_CLOSED;
	ip->tick_ns = INPROC_TICK_NS;
	ip->requests_end = &ip->requests;
	ip->notes_end = &ip->notes;
	pthread_mutex_init(&ip->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ip->guard_cond, &attr);
	pthread_condattr_destroy(&attr);
	/* The daemon's signals are its own threads'. */
	err = thread_start(&ip->guard, guard_main, ip);
	ip->guard_runs = !err;
	return err;
}

void lead_fini(struct inproc *ip)
{
	inproc_lock(ip);
	ip->guard_stop = true;
	if (lead_of(ip) == LEAD_GUARD) {
		WRITE_ONCE(ip->give_up, true);
		device_take_wake(ip->dev);
	}
	pthread_cond_signal(&ip->guard_cond);
	inproc_unlock(ip);
	if (ip->guard_runs)
		pthread_join(ip->guard, NULL);
	pthread_mutex_destroy(&ip->lock);
	pthread_cond_destroy(&ip->guard_cond);
}
