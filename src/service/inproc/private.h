/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the inproc service share.
 *
 * Theory of operation
 * -------------------
 * Leader and followers. Of the daemon's threads that read, one leads: it is inside device_take(), looks at the rings and
 * sleeps on the kicks. The chain that it finds is its own: it leaves the lead and returns with the request. The others,
 * the followers, sleep on semaphores of their own, and the one that came last is woken first: its cache is warm.
 *
 * Who leaves with a request does not wake a follower for nothing: a handler that takes a few microseconds is back before
 * a woken thread would look at the rings. So a follower is woken at once only if handlers take long, or if more
 * requests are there and handlers are not that short. For all other cases there is the guard, a thread of ours that
 * looks a few thousand times a second, while there is work, whether the lead stays empty: then it wakes a follower.
 * Where no follower is left, because all handlers are busy or there is only one thread, the guard leads itself and
 * puts what it takes into `pending`: INIT, FORGET and whatever the device answers alone always get through.
 *
 * `pending` holds all that does not come from a ring in the reader's own hands: what the guard took, what the device
 * says at the end of a session, INTERRUPT, DESTROY. Readers look there first.
 *
 * The lock is for what is rare. A reader takes the lead, and leaves it with a request, by compare-and-swap of `word`, as long
 * as that is open: nothing is pending, nobody wants anything of the leader, and the guard looks. Who holds the lock
 * closes the word first, so that under the lock the lead changes hands by its holder alone; the word is opened again at the
 * unlock if nothing speaks against it (lead_open()).
 *
 * A signal that comes while a reader looks at the rings, and does not sleep, interrupts nothing, and its handler may have told the
 * daemon to end. So after each time of work, when all is quiet, the guard sends the leader back with -EINTR: the daemon
 * looks round, and reads again. And once more a while later: it may have missed one on its way.
 *
 * A daemon that polls (poll, select, epoll) wants to know before it reads: then the guard leads always, and
 * config.readable tells whether pending holds something.
 *
 * A request is the daemon's while its `owed` is its unique. Whoever changes that to 0 ends it: a second reply, or the end
 * of the service, finds nothing. `nr_busy` counts threads that hold a request in between; the end waits for them.
 */
#ifndef FUSEWIRE_SERVICE_INPROC_PRIVATE_H
#define FUSEWIRE_SERVICE_INPROC_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>

#include "base/log.h"
#include "service/inproc/inproc.h"

/* What a READ may ask for at a time, and what a driver gets for one READ at most. */
#define INPROC_READ_MAX (1u << 20)
/*
 * A handler that takes longer is not waited for: a follower takes the lead at once. Such handlers wait for something. Shorter
 * ones compute, and a follower that looks for work beside them, on a processor that they could have, makes them longer.
 */
#define INPROC_HANDLER_LONG_NS 50000u
/* One that was preempted, or waited once, counts as no more than this. */
#define INPROC_HANDLER_MAX_NS (4 * INPROC_HANDLER_LONG_NS)
/* While more work is there, and processors are, a handler that takes longer than this one. */
#define INPROC_HANDLER_SHORT_NS 3000u
/* How often the guard looks, while there is work. */
#define INPROC_TICK_NS 200000u
/*
 * Its looks cost a processor's time: 200 us apart about a twentieth. So they become rarer, up to this, where handlers do not
 * block: after so many in a row that found work going on the distance doubles. One that finds an empty lead, or quiet, ends that.
 */
#define INPROC_TICK_MAX_NS   (4 * INPROC_TICK_NS)
#define INPROC_TICKS_HEALTHY 64u
/* Ticks with an empty lead, and nobody to take it, until the guard takes it. */
#define INPROC_TICKS_EMPTY 5u
/* Ticks with a leader asleep until the guard sleeps too. */
#define INPROC_TICKS_QUIET 50u
/* Up to this many bytes, a message is copied to the daemon before the lead is left: quicker than to be counted as busy. */
#define INPROC_LEAD_COPY_MAX 8192u
/* After the first time, how long until a reader is sent back again for signals that it missed. */
#define INPROC_SETTLE_AGAIN_NS 300000000u
/* Requests that the guard takes in advance. */
#define INPROC_PENDING_MAX 64u
/* Bytes of a notification, STORE being the longest: data of a large WRITE, and its head. */
#define INPROC_NOTIFY_MAX (INPROC_READ_MAX + 4096u)
/* Segments of a payload that one pwritev(2) takes; others are copied at once. */
#define LOAN_SEGMENTS_MAX 272u
/* Uniques of our own messages; the device's are below. */
#define INPROC_UNIQUE_DESTROY ((UINT64_C(1) << 62) | 4)
/* An INTERRUPT's is that of the request with this bit set, as the kernel's is. */
#define INPROC_UNIQUE_INTERRUPT UINT64_C(1)

enum inproc_lead {
	LEAD_NONE,
	LEAD_READER,
	LEAD_GUARD,
};

#define LEAD_MASK   UINT64_C(3)
#define LEAD_CLOSED UINT64_C(4)
#define LEAD_CHANGE UINT64_C(8)

/* A READ that the daemon gets in parts, one after the other. */
struct inproc_split {
	uint32_t total;
	uint32_t got;
	uint32_t asked; /* of the part under way */
	char data[];
};

/* In request_service_data(). */
struct inproc_slot {
	uint64_t owed; /* atomic: unique while the daemon owes the reply */
	struct request *next; /* in pending */
	struct inproc_split *split;
	union {
		uint64_t nr_forgotten; /* entries of a BATCH_FORGET that the daemon has had */
		struct inproc_loan *loan; /* of a WRITE: who has its data */
	};
};

_Static_assert(sizeof(struct inproc_slot) <= 32, "what request_service_data() gives");

/* A message of our own. */
struct inproc_note {
	struct inproc_note *next;
	uint32_t len;
	char msg[80];
};

/*
 * What a reader got. Until the daemon has a request the end of the service waits for whoever holds it: a leader, or one that is
 * counted as busy.
 */
struct inproc_item {
	struct request *req;
	struct inproc_note *note; /* if not NULL, instead of @req */
	bool leads; /* with @req: still the leader; else counted as busy */
	bool more; /* with @leads: more requests are there */
};

struct inproc_waiter {
	struct inproc *ip;
	struct inproc_waiter *next;
	sem_t sem;
	bool listed;
};

struct inproc {
	struct service svc;
	struct inproc_config config;
	struct device *dev;
	unsigned int nr_cpus;

	/* Atomic: enum inproc_lead, LEAD_CLOSED, and how often the lead changed hands (LEAD_CHANGE). */
	uint64_t word cache_aligned;

	pthread_mutex_t lock; /* of all that follows, up to the blank line */
	uint64_t nr_allowed; /* calls of inproc_takeable(); readers look at it without the lock */
	bool excluded; /* nobody may lead until the next of them */
	bool give_up; /* the leader shall come back; it reads this without the lock */
	bool sent_back; /* the reader that leads shall return with -EINTR */
	uint8_t nr_settled; /* how often that was done since the last request: at once, and when all had been quiet for long */
	bool gone; /* replies look at it without the lock */
	bool polled;
	bool is_readable;
	struct inproc_waiter *waiters;
	struct request *requests; /* pending, in order */
	struct request **requests_end;
	/* Pending, before the requests; one INTERRUPT for each of these at most. */
	struct inproc_note *notes;
	struct inproc_note **notes_end;
	unsigned int nr_pending;
	bool alert; /* the guard looks */
	bool guard_stop;
	pthread_cond_t guard_cond;
	uint32_t tick_ns;
	unsigned int nr_healthy; /* looks of the guard in a row that found work going on */

	pthread_t guard;
	bool guard_runs;
	uint64_t handler_ns; /* mean time from inproc_read() to the next, racy on purpose */
	unsigned int nr_busy; /* atomic */
	uint64_t nr_notifications; /* atomic */
	struct log_ratelimit log_reply;
};

static inline struct inproc *inproc_of(struct service *svc)
{
	return (struct inproc *)(void *)svc;
}

/* lead.c */
/** lead_close() - from here on the lead changes hands under the lock alone. Context: who has just taken the lock. */
void lead_close(struct inproc *ip);
/** lead_open() - the reverse, if nothing speaks against it. Context: who is about to release the lock. */
void lead_open(struct inproc *ip);
/** lead_init(), lead_fini() - the guard. */
int must_check lead_init(struct inproc *ip);
void lead_fini(struct inproc *ip);
/** lead_next() - the next thing for a reader. Return: 0; -EAGAIN; -EINTR; -ENODEV. */
int must_check lead_next(struct inproc *ip, bool nonblock, bool cancelable,
			 struct inproc_item *ret_item);
/** lead_leave() - give the lead up, after an item with @leads. @more: as there. */
void lead_leave(struct inproc *ip, bool more);
/** lead_submit() - struct service_ops.submit. */
void lead_submit(struct service *svc, struct request *req);
/** lead_add_request() - a request for any reader; first in line if @front. */
void lead_add_request(struct inproc *ip, struct request *req, bool front);
/** lead_add_note() - a message of ours for any reader; it is freed by who reads it. */
void lead_add_note(struct inproc *ip, struct inproc_note *note);
/** lead_fail_pending() - end all pending requests with @error. */
void lead_fail_pending(struct inproc *ip, int error);
/** lead_wake_all() - everybody looks again: gone, polled or pending changed. Context: under the lock. */
void lead_wake_all(struct inproc *ip);

/* message.c */
/**
 * message_copy() - give a request to the daemon.
 * @loan: may have the data of a WRITE; or NULL
 *
 * Return: bytes; 0: it was ended instead, look for another.
 */
ssize_t message_copy(struct inproc *ip, struct request *req, const struct iovec *iov,
		     unsigned int nr, struct inproc_loan *loan);

/* loan.c */
/** loan_give() - @loan has the payload of @req from now on. */
void loan_give(struct inproc_loan *loan, struct request *req);
/** loan_settle() - @req is about to end, its reply was taken: who has its payload gets a copy. May wait for inproc_loan_write(). */
void loan_settle(struct request *req);

/* reply.c */
/** reply_borrow() - as reply_take(), if the request is still the one that @unique names; it is given back with reply_return(). */
bool must_check reply_borrow(struct request *req, uint64_t unique);
/** reply_return() - the daemon owes the reply again. */
void reply_return(struct request *req, uint64_t unique);
/** reply_take() - the reply of @req is now the caller's to give. Return: it was still owed. */
bool must_check reply_take(struct request *req);

/* inproc.c */
/** inproc_interrupt() - struct service_ops.interrupt. */
void inproc_interrupt(struct service *svc, uint64_t unique);
/** inproc_retrieve_none() - struct service_ops.retrieve_none. */
void inproc_retrieve_none(struct service *svc, const struct fuse_notify_retrieve_out *what);

static inline void inproc_lock(struct inproc *ip)
{
	pthread_mutex_lock(&ip->lock);
	lead_close(ip);
}

static inline void inproc_unlock(struct inproc *ip)
{
	lead_open(ip);
	pthread_mutex_unlock(&ip->lock);
}

/* Under the lock: who leads. */
static inline enum inproc_lead lead_of(const struct inproc *ip)
{
	return (enum inproc_lead)(__atomic_load_n(&ip->word, __ATOMIC_RELAXED) & LEAD_MASK);
}

static inline void inproc_busy(struct inproc *ip)
{
	__atomic_add_fetch(&ip->nr_busy, 1, __ATOMIC_SEQ_CST);
}

static inline void inproc_not_busy(struct inproc *ip)
{
	__atomic_sub_fetch(&ip->nr_busy, 1, __ATOMIC_SEQ_CST);
}

#endif
