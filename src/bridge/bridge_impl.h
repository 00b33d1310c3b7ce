/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the bridge share; private to them.
 *
 * A queue's ring, slots and counters belong to its thread while that runs, otherwise to the owner's thread.
 */
#ifndef FUSEWIRE_BRIDGE_BRIDGE_IMPL_H
#define FUSEWIRE_BRIDGE_BRIDGE_IMPL_H

#include <pthread.h>

#include "bridge/bridge.h"
#include "fuse/abi.h"
#include "fuse/opcode.h"
#include "vhost/client.h"

/** BRIDGE_DATA_MAX - payload of one request or reply: what INIT is bounded by. */
#define BRIDGE_DATA_MAX (1u << 20)
/** BRIDGE_PAGE - payload is aligned to this. */
#define BRIDGE_PAGE 4096u
/** BRIDGE_SMALL_IN - requests up to this size fit a small slot, bytes with header. */
#define BRIDGE_SMALL_IN 2048u
/** BRIDGE_SMALL_OUT - replies up to this size fit a small slot, bytes behind the header. */
#define BRIDGE_SMALL_OUT BRIDGE_PAGE
/** BRIDGE_NR_SMALL - small slots per queue: requests like SETLKW may stay for ever. */
#define BRIDGE_NR_SMALL 256u
/** BRIDGE_NR_WAITING - requests per queue that wait in small slots for a large one; a part of them, so that small requests go past. */
#define BRIDGE_NR_WAITING (BRIDGE_NR_SMALL / 4)
/** BRIDGE_NR_LARGE - large slots per queue; one of them is where the next request is read to. */
#define BRIDGE_NR_LARGE 32u
/** BRIDGE_LOCKS_MAX - SETLKW under way per queue, fewer with small rings; more get ENOLCK, so that an unlock always finds a slot. */
#define BRIDGE_LOCKS_MAX (BRIDGE_NR_SMALL / 2)
/** BRIDGE_SEGS_MAX - descriptors of the longest chain: header, arguments, payload; header, body. */
#define BRIDGE_SEGS_MAX 5
/** BRIDGE_HDR_WRITE - header and arguments of WRITE: in front of a page boundary, the payload is aligned. */
#define BRIDGE_HDR_WRITE (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
/** BRIDGE_HIPRIO_SLOTS - FORGETs under way. */
#define BRIDGE_HIPRIO_SLOTS 512u
/** BRIDGE_HIPRIO_BYTES - memory of one: header and the longest argument, padded; out header. */
#define BRIDGE_HIPRIO_BYTES 128u

/** BRIDGE_NOTIFY_BUFFERS - buffers that the device has for notifications. */
#define BRIDGE_NOTIFY_BUFFERS 64u
/** BRIDGE_NOTIFY_BYTES - size of each: more than STORE of all that a WRITE may hold needs. Pages that nobody writes cost nothing. */
#define BRIDGE_NOTIFY_BYTES (BRIDGE_DATA_MAX + BRIDGE_PAGE)

/**
 * struct bridge_slot - shared memory for one request and its reply.
 * @in: the request's header; what follows is contiguous
 * @in_room: bytes at @in
 * @out: the reply's header, contiguous with its body
 * @out_room: bytes at @out
 * @unique: of the request that is under way
 * @opcode: its opcode
 * @writeback: it is a WRITE of the kernel's own, of pages that nobody waits for
 * @large: which of the two free lists it belongs to
 * @busy: with the device
 * @waits: a lock that is counted in bridge_queue.nr_locks
 * @interrupted: while it waited for a large slot it was interrupted, and ended; under bridge.waiting_lock
 * @len: bytes at @in, of a request that waits for a large slot
 * @reply_bytes: room for its reply, with header
 */
struct bridge_slot {
	uint8_t *in;
	size_t in_room;
	uint8_t *out;
	size_t out_room;
	uint64_t unique;
	uint32_t opcode;
	bool writeback;
	bool large;
	bool busy;
	bool waits;
	bool interrupted;
	size_t len;
	size_t reply_bytes;
};

/**
 * struct bridge_queue - one request queue.
 * @bridge: whose
 * @index: of the virtqueue, ≥ 1
 * @ring: rings and descriptors
 * @fuse_fd: its clone of /dev/fuse
 * @thread: valid when @running
 * @running: a thread was started and not yet joined
 * @slots: all: BRIDGE_NR_SMALL small ones, then BRIDGE_NR_LARGE large ones
 * @small: free small slots, @nr_small of them
 * @large: free large slots, @nr_large of them; last in, first out: few pages are touched
 * @landing: large slot that the next request is read to, or NULL
 * @waiting: small slots of requests with a large reply that wait for a large one, in order, from @first_waiting on; a ring. It and the
 *	    next two are changed by the queue's thread, under bridge.waiting_lock
 * @first_waiting: index of the one that is next
 * @nr_waiting: how many
 * @after_landing: the last large slot that both wanted became the landing
 * @nr_locks: SETLKW under way, but for unlocks
 * @nr_writebacks: bridge_slot.writeback under way; the owner looks at it at any time
 * @nr_written: bridge_slot.writeback that have ended; the owner looks at it at any time
 * @nr_setattrs: SETATTRs that have ended; the owner looks at it at any time
 * @nr_replies: how many the device has given; the owner looks at it at any time
 * @sync: eventfd of who waits until what the device gave back is passed on (notify.c), or -1
 * @spin_credit: grows when looking for replies was worth it
 */
struct bridge_queue {
	struct bridge *bridge;
	unsigned int index;
	const struct vhost_client_ring *ring;
	int fuse_fd;
	pthread_t thread;
	bool running;
	struct bridge_slot slots[BRIDGE_NR_SMALL + BRIDGE_NR_LARGE];
	struct bridge_slot *small[BRIDGE_NR_SMALL];
	unsigned int nr_small;
	struct bridge_slot *large[BRIDGE_NR_LARGE];
	unsigned int nr_large;
	struct bridge_slot *landing;
	struct bridge_slot *waiting[BRIDGE_NR_WAITING];
	unsigned int first_waiting;
	unsigned int nr_waiting;
	bool after_landing;
	unsigned int nr_locks;
	unsigned int nr_writebacks;
	uint64_t nr_written;
	uint64_t nr_setattrs;
	uint64_t nr_replies;
	int sync;
	int spin_credit;
};

/**
 * struct bridge_hiprio - queue 0, shared by all threads.
 * @lock: guards the rest; held for the ring operations of one request
 * @ring: rings and descriptors
 * @slots: free pieces of BRIDGE_HIPRIO_BYTES, @nr of them
 * @nr: free pieces
 * @arena: all pieces
 * @interrupts: unique of the INTERRUPT in each piece of @arena, 0 where there is none
 * @nr_interrupts: INTERRUPTs under way; looked at without the lock
 */
struct bridge_hiprio {
	pthread_mutex_t lock;
	const struct vhost_client_ring *ring;
	uint8_t *slots[BRIDGE_HIPRIO_SLOTS];
	unsigned int nr;
	uint8_t *arena;
	uint64_t interrupts[BRIDGE_HIPRIO_SLOTS];
	unsigned int nr_interrupts;
};

/**
 * struct bridge_notify - the queue of notifications.
 * @ring: rings and descriptors; NULL: the device passes none on
 * @arena: BRIDGE_NOTIFY_BUFFERS of BRIDGE_NOTIFY_BYTES
 * @thread: valid when @running
 * @running: a thread was started and not yet joined
 * @ended: the thread touches the kernel no more
 * @synced: eventfd that each queue's thread adds 1 to when its bridge_queue.sync was seen
 * @lock: of the next two
 * @refused: RETRIEVEs that the kernel cannot answer
 * @nr_refused: number of them; looked at without the lock
 */
struct bridge_notify {
	const struct vhost_client_ring *ring;
	uint8_t *arena;
	pthread_t thread;
	bool running;
	bool ended;
	int synced;
	pthread_mutex_t lock;
	struct fuse_notify_retrieve_out refused[BRIDGE_NOTIFY_BUFFERS];
	unsigned int nr_refused;
};

/**
 * struct bridge - the whole.
 * @config: as given; @config.path is not used after bridge_new()
 * @client: the device
 * @hiprio: queue 0
 * @notify: queue 1, where the device has notifications
 * @queues: request queues, @config.nr_request_queues of them
 * @waiting_lock: guards what waits for large slots, of all queues
 * @event_fd: see bridge_event_fd()
 * @stop_fd: readable when the threads shall end; nobody drains it
 * @state: enum bridge_state; the first that leaves BRIDGE_RUNNING wins
 * @why: see bridge_why(); set before the owner looks at @state
 * @stopping: the threads shall end
 * @started: the device answered INIT
 */
struct bridge {
	struct bridge_config config;
	struct vhost_client *client;
	struct bridge_hiprio hiprio;
	struct bridge_notify notify;
	struct bridge_queue *queues;
	pthread_mutex_t waiting_lock;
	int event_fd;
	int stop_fd;
	int state;
	const char *why;
	bool stopping;
	bool started;
};

/* bridge.c */

/** bridge_end() - something ended: remember the first, tell the owner. Context: any thread. @why: static text */
void bridge_end(struct bridge *bridge, enum bridge_state state, const char *why);

/* session.c */

/**
 * bridge_init() - read the kernel's INIT from the first queue's descriptor, have the device answer, pass the answer on.
 *
 * Return: 0 or negative errno with *@ret_why, a static text.
 */
int must_check bridge_init(struct bridge *bridge, const char **ret_why);
/**
 * bridge_destroy() - tell the device that nobody uses it any more; waits, bounded, for its answer.
 * @hangs: not for long
 */
void bridge_destroy(struct bridge *bridge, bool hangs);
/** bridge_drain() - wait, bounded, until the device gave back everything. The threads have ended. Return: whether it did. */
bool must_check bridge_drain(struct bridge *bridge);

/* request.c */

/** bridge_slots_init() - divide the queue's part of the arena. @arena: bridge_queue_arena_bytes() */
void bridge_slots_init(struct bridge_queue *q, uint8_t *arena);
/** bridge_queue_arena_bytes() - shared memory that one queue needs. */
size_t bridge_queue_arena_bytes(void);
/** bridge_slot_get() - a free slot, or NULL. */
struct bridge_slot *bridge_slot_get(struct bridge_queue *q, bool large);
/** bridge_slot_put() - it is free again. */
void bridge_slot_put(struct bridge_queue *q, struct bridge_slot *slot);
/**
 * bridge_submit() - make a chain of what is in @slot available to the device.
 * @len: bytes at slot->in
 * @reply_bytes: room for the reply with its header, or 0 for none
 *
 * Return: 0; -ENOSPC, -EINVAL as virtq_driver_add().
 */
int must_check bridge_submit(struct bridge_queue *q, struct bridge_slot *slot, size_t len,
			     size_t reply_bytes);
/**
 * bridge_reply_check() - is what the device wrote to @slot a reply to its request?
 * @written: bytes
 * @ret_hdr: the header, to be used in place of the one in shared memory, which may change
 */
bool must_check bridge_reply_check(const struct bridge_slot *slot, uint32_t written,
				   struct fuse_out_header *ret_hdr);
/** bridge_reply_error() - end a request of the kernel's with an error. @error: negative errno */
void bridge_reply_error(const struct bridge_queue *q, uint64_t unique, int error);
/**
 * bridge_take_request() - read one request from the kernel and give it to the device.
 *
 * Return: 1; 0 when there is none; -ENODEV at unmount; other negative errno.
 */
int must_check bridge_take_request(struct bridge_queue *q);
/** bridge_can_take() - are there slots and descriptors for one more request? */
bool bridge_can_take(struct bridge_queue *q);
/** bridge_return_replies() - pass on what the device gave back. Return: how many, or -EBADMSG. */
int must_check bridge_return_replies(struct bridge_queue *q);
/** bridge_fail_all() - end what is with the device with ENOTCONN, whose slots stay in use, and what waits for a slot. */
void bridge_fail_all(struct bridge_queue *q);

/* waiting.c; all but bridge_interrupt_waiting() by the queue's thread */

/**
 * bridge_put_off() - the request in the landing waits in a small slot for a large one.
 * @reply_bytes: room for its reply, with header
 *
 * Return: false: too many wait.
 */
bool must_check bridge_put_off(struct bridge_queue *q, const struct fuse_in_header *hdr, size_t len,
			       size_t reply_bytes);
/** bridge_submit_waiting() - give the device what waited for a large slot, as far as there are some. Return: 0 or negative errno. */
int must_check bridge_submit_waiting(struct bridge_queue *q);
/** bridge_interrupt_waiting() - end the one with this unique with EINTR. Context: any queue's thread. Return: does it wait? */
bool must_check bridge_interrupt_waiting(struct bridge *bridge, uint64_t unique);
/** bridge_fail_waiting() - end all of a queue with ENOTCONN. */
void bridge_fail_waiting(struct bridge_queue *q);

/* hiprio.c */

/**
 * bridge_hiprio_send() - FORGET, BATCH_FORGET or INTERRUPT to queue 0.
 * @hdr: a copy of the request's header
 * @arg: what follows it, in memory that may change meanwhile, @len bytes
 *
 * Waits for the device when the ring is full. Context: any thread.
 * Return: 0; -EBADMSG; -ESHUTDOWN when the bridge ends; -ENODEV at unmount; -EPROTO for a request that is too short.
 */
int must_check bridge_hiprio_send(struct bridge *bridge, const struct fuse_in_header *hdr,
				  const uint8_t *arg, size_t len);
/**
 * bridge_hiprio_collect() - take back what the device is done with, and pass on that an INTERRUPT shall be sent again.
 *
 * To be called when the ring's call descriptor was signalled while INTERRUPTs are under way. Return: 0 or -EBADMSG.
 */
int must_check bridge_hiprio_collect(struct bridge *bridge);
/** bridge_hiprio_init() - divide its part of the arena, BRIDGE_HIPRIO_SLOTS * BRIDGE_HIPRIO_BYTES. Return: 0 or negative errno. */
int must_check bridge_hiprio_init(struct bridge *bridge, uint8_t *arena);

/* notify.c */

/**
 * bridge_notify_init() - give the device its buffers, if it has notifications.
 * @arena: BRIDGE_NOTIFY_BUFFERS of BRIDGE_NOTIFY_BYTES
 * @ret_why: on error a static text
 *
 * Return: 0; -EPROTO: it wants larger ones, or does not tell; negative errno.
 */
int must_check bridge_notify_init(struct bridge *bridge, uint8_t *arena, const char **ret_why);
/** bridge_notify_start() - start the thread. Return: 0 or negative errno. */
int must_check bridge_notify_start(struct bridge *bridge);
/**
 * bridge_notify_stop() - end the thread; the bridge's stop_fd is readable, and the queues' threads have ended.
 *
 * The kernel may have it wait for a request's end: until it comes back, all that the kernel asks for fails with ENOTCONN.
 */
void bridge_notify_stop(struct bridge *bridge);
/** bridge_notify_fini() - release what bridge_notify_init() made. */
void bridge_notify_fini(struct bridge *bridge);
/** bridge_notify_refuse() - answer the RETRIEVEs that the kernel refused. Context: the first queue's thread. */
void bridge_notify_refuse(struct bridge_queue *q);

/* queue.c */

/** bridge_queue_is_first() - is it the one whose thread looks after what all share? */
static inline bool bridge_queue_is_first(const struct bridge_queue *q)
{
	return q == q->bridge->queues;
}

/** bridge_queue_start() - start the thread. Return: 0 or negative errno. */
int must_check bridge_queue_start(struct bridge_queue *q);

#endif
