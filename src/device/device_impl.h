/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of device/ share: the device, its queues and its requests. Private to device/.
 */
#ifndef FUSEWIRE_DEVICE_DEVICE_IMPL_H
#define FUSEWIRE_DEVICE_DEVICE_IMPL_H

#include <pthread.h>

#include "base/log.h"
#include "device/device.h"
#include "device/transport.h"

/* Segments that a request holds without another allocation: 1 MiB in 4 KiB pages, and some. */
#define REQUEST_IOV_INLINE 272
/*
 * Requests that one queue thread takes before it publishes what was completed meanwhile: so few that the driver
 * works beside us, so many that the interrupt decision is shared (bench/null.py).
 */
#define QUEUE_BATCH 8
/* The virtqueue of notifications, where the driver took VIRTIO_FS_F_NOTIFICATION. Else it is the first request queue. */
#define NOTIFY_QUEUE 1u
/* Its requests have no replies. */
#define HIPRIO_QUEUE 0u
/* VIRTIO_FS_F_NOTIFICATION (virtio 1.2, 5.11.3). */
#define DEVICE_F_NOTIFICATION UINT64_C(1)
/* Notifications that wait for a buffer. */
#define NOTIFY_ENTRIES_MAX 1024u
/* Messages under way at a time while a session's lookups and handles are paid back. */
#define PAYBACK_INFLIGHT 16

/* Where a request is. Changes by compare-and-swap, except that only the owner leaves WRITING. */
enum request_state {
	REQUEST_FREE,
	REQUEST_ACTIVE, /* the service, or the control thread, has it; the driver waits */
	REQUEST_WRITING, /* driver memory is being written, or held (request_hold()): short, never waits */
	REQUEST_ABANDONED, /* as ACTIVE, but the driver got an error already: it must not be touched */
};

/*
 * A memory table as long as requests that were taken under it live. popped is written by the queue
 * thread (or while that is paused), done under the queue's push lock.
 */
struct mem_generation {
	struct mem_table *table;
	uint64_t popped;
	uint64_t done;
	bool retired;
};

struct request {
	enum request_state state;
	bool by_control; /* INIT, DESTROY: the control thread answers it */
	/* What others may look for without holding the request; 0 while it is not under way. */
	uint64_t live_unique;
	uint64_t live_driver_unique;
	struct queue *queue; /* where it came from; of internal requests the pool's owner */
	struct device *dev;
	struct mem_generation *generation; /* NULL: internal */
	struct request *next; /* free list or control mailbox */
	uint64_t slot_generation;
	uint32_t slot;
	struct virtq_chain chain;
	struct iovec *payload;
	unsigned int nr_payload;
	/* Direct replies: the trimmed view of chain's writable segments, and the reply header's place. */
	void *direct_header;
	size_t direct_bytes;
	struct fuse_request fuse;
	uint64_t service_data[4];
	uint8_t *buf;
	size_t buf_cap;
	struct iovec *iov_heap; /* instead of iov[] after a chain with more segments */
	struct iovec iov[REQUEST_IOV_INLINE];
	uint8_t inline_buf[FUSE_ARGS_INLINE + 64] __attribute__((aligned(16)));
};

/*
 * One virtqueue.
 *
 * push_lock covers the push side of vq, call_fd, free_remote, done and the generations; it is held for
 * a few instructions at a time. park_lock covers what steers the queue thread.
 */
struct queue {
	struct device *dev;
	unsigned int index;

	/* Steering. */
	pthread_t thread;
	pthread_mutex_t park_lock;
	pthread_cond_t park_cond;
	bool running; /* a thread exists */
	bool stop; /* it must end */
	unsigned int paused; /* it must park while > 0 */
	bool parked;
	bool enabled;
	bool broken;
	bool notifies; /* it has no requests, but buffers for notifications */
	int wake_fd; /* -1 in a device whose requests are taken by others */
	int kick_fd;
	uint32_t base; /* virtq_base() when it was stopped */
	uint64_t stop_popped; /* popped when the last stop began that had all of its time, of whichever queue */

	/* Queue thread only. */
	struct virtq *vq cache_aligned;
	struct mem_generation *generation;
	struct request *free_local;
	uint32_t nr_slots_used;
	uint64_t poll_ns;
	bool polls_service; /* between poll_begin() and poll_end() */
	unsigned int
		waits_left; /* times to wait for the service instead of looking: our processor is its daemon's, too */
	unsigned int polls_left; /* times to look before waiting is thought of again */
	uint64_t popped;

	/* Under push_lock. */
	pthread_mutex_t push_lock cache_aligned;
	pthread_cond_t drain_cond;
	struct request *free_remote; /* atomic: added to under the lock, taken without */
	uint64_t done;
	unsigned int nr_by_control; /* of those not done: INIT, DESTROY */
	bool draining;
	bool starved;
	bool unpublished; /* completed by the current taker, and the driver not told yet */
	int call_fd;
	bool call_in_band;
	struct dirty_log *log;

	struct request *slots;
	uint32_t nr_slots;
};

/*
 * Who takes requests where the queues have no threads (take.c).
 *
 * @taking and @nr_excluded are each written by one side, which then looks at the other's.
 */
struct device_taker {
	int epoll_fd; /* the running queues' kick descriptors, and wake_fd; -1: queues have threads */
	int wake_fd;
	bool taking cache_aligned; /* a thread is inside device_take() */
	unsigned int nr_excluded; /* who must be alone; under lock */
	pthread_mutex_t lock;
	pthread_cond_t left; /* taking became false */

	/* The taking thread's, or who has excluded it. */
	struct queue **active; /* running queues, hiprio first */
	unsigned int nr_active;
	unsigned int next;
	uint64_t poll_ns;
};

struct notify_entry;

/* What waits for a buffer of the driver's (notify.c); all but nr_dropped under lock. */
struct device_notify {
	pthread_mutex_t lock;
	bool open; /* there is a session whose driver takes notifications */
	struct notify_entry *entries[NOTIFY_ENTRIES_MAX]; /* a ring */
	unsigned int head;
	unsigned int nr; /* looked at without the lock */
	size_t bytes;
	uint64_t nr_dropped;
	struct log_ratelimit log;
};

struct device {
	struct device_config config;
	char tag[DEVICE_TAG_BYTES];
	struct service *svc;
	struct fuse_session *session;
	unsigned int nr_queues;
	struct queue *queues;

	/* Transport thread. */
	const struct transport_ops *transport_ops;
	void *transport;
	uint64_t features;
	uint8_t status;
	struct mem_table *mem;
	struct dirty_log *log;
	bool stop_unanswered; /* the last stop whose time ran out had no answer at all */
	uint64_t stop_done; /* all queues' done after it */

	/* Held while queues are started, stopped, paused and resumed. */
	pthread_mutex_t queues_lock;

	/* The control thread and its mailbox (control.c). */
	pthread_mutex_t control_lock;
	pthread_cond_t control_cond;
	pthread_t control_thread;
	bool control_running;
	bool control_stop;
	bool end_wanted;
	struct request *mail_head;
	struct request *mail_tail;
	struct queue internal; /* a pool of requests that no ring gave us */
	pthread_mutex_t payback_lock; /* a message that ends a session is on its way to the service */

	struct device_taker taker;
	struct device_notify notify;

	struct log_ratelimit bad_request_log;
	uint64_t nr_bad_requests;
};

/* What queue_wait_idle() waits for. */
enum queue_idle {
	QUEUE_IDLE, /* nothing is under way */
	QUEUE_IDLE_BUT_CONTROL, /* nothing but what the control thread holds */
};

/* queue.c */
int must_check queue_init(struct queue *q, struct device *dev, unsigned int index,
			  uint32_t nr_slots);
void queue_fini(struct queue *q);
void queue_wake(struct queue *q);
void queue_pause_all(struct device *dev);
void queue_resume_all(struct device *dev);
void queue_stop_all(struct device *dev);
void queue_wait_idle(struct queue *q, uint64_t deadline_ns, enum queue_idle what);
bool must_check queue_wait_below(struct queue *q, uint64_t deadline_ns, uint64_t most);
bool queue_slots_free(const struct queue *q);
void queue_break(struct queue *q, const char *why);
bool must_check queue_steered(const struct queue *q);
bool must_check queue_park(struct queue *q);
/** queue_wait_work() - sleep until a wake-up, a kick if it @takes (unless there is work already), or @service_fd (-1: none) is readable. */
void queue_wait_work(struct queue *q, bool takes, int service_fd);
bool must_check queue_poll(struct queue *q);
void queue_poll_service_end(struct queue *q);
bool queue_is_current(const struct queue *q);
void queue_publish_locked(struct queue *q, bool *ret_call);
void queue_publish(struct queue *q);
void queue_call(struct queue *q);
int must_check queue_take_one(struct queue *q);
void queue_end_batch(struct queue *q);
void queue_set_current(struct queue *q);
void queue_drain_kick(struct queue *q, uint32_t events);

/* notify.c */
void notify_init(struct device *dev);
void notify_fini(struct device *dev);
void notify_open(struct device *dev);
void notify_close(struct device *dev);
bool notify_pending(const struct device *dev);
bool notify_run(struct queue *q);
void *notify_main(void *arg);

/* take.c */
int must_check take_init(struct device *dev);
void take_fini(struct device *dev);
bool take_in_use(const struct device *dev);
void take_wake(struct device *dev);
void take_exclude(struct device *dev);
void take_allow(struct device *dev);
int must_check take_add_queue(struct device *dev, struct queue *q);
void take_remove_queue(struct device *dev, struct queue *q);
void take_unwatch(struct queue *q);

/* request.c */
struct request *must_check request_alloc(struct queue *q);
void request_put_back(struct request *req);
void request_reset_buffers(struct request *req);
int must_check request_grow_iov(struct request *req, uint32_t nr);
uint64_t request_unique(const struct request *req);
void request_activate(struct request *req);
bool must_check request_claim(struct request *req);
bool must_check request_is_abandoned(const struct request *req);
void request_submit(struct request *req);
void request_receive(struct request *req);
void request_fail(struct request *req, int error);
void request_abandon(struct request *req, int error);
void request_release_slot(struct request *req);
void request_deliver(struct request *req, int error, const void *body, size_t len);

/* control.c */
int must_check control_start(struct device *dev);
void control_post(struct request *req);
void control_end_session(struct device *dev);
void control_stop(struct device *dev);

/* The driver's INTERRUPT names a request by its own unique. Return: false when none such is under way. */
bool request_interrupt_driver_unique(struct device *dev, uint64_t driver_unique);

#endif
