/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtqueue's thread: takes requests, polls for more, sleeps, parks when told to.
 *
 * Theory of operation
 * -------------------
 * Each running queue has a thread. It takes batches of chains; what the service completes on the spot is
 * published once per batch. When the ring is empty it looks again for a while (poll.c), then asks the driver for
 * a kick and sleeps on the kick descriptor and on wake_fd.
 *
 * Other threads steer it under park_lock: a thread with paused > 0 parks between two batches. While it is
 * parked, vq and generation may be exchanged. stop makes it end, parked or not.
 *
 * In a device whose requests are taken by threads of others (take.c) queues have no threads: they are steered by keeping
 * those threads out.
 *
 * Lock order: queues_lock, park_lock, push_lock.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/poll_time.h"
#include "base/thread.h"
#include "device/device_impl.h"

/* A queue thread's stack: the deepest path is a service's submit. */
#define QUEUE_STACK_BYTES (256u << 10)
/* How long a request that is being written when its queue stops is left alone, before it is looked at again. */
#define QUEUE_WRITING_NS (10 * NSEC_PER_MSEC)
/* What is left of the drain time for requests that have waited for it once: enough to answer when asked to hurry. */
#define QUEUE_WAITED_SHARE 50

static __thread struct queue *current_queue;

bool queue_is_current(const struct queue *q)
{
	return q == current_queue;
}

void queue_set_current(struct queue *q)
{
	current_queue = q;
}

int queue_init(struct queue *q, struct device *dev, unsigned int index, uint32_t nr_slots)
{
	size_t bytes = (size_t)nr_slots * sizeof(struct request);

	q->dev = dev;
	q->index = index;
	q->kick_fd = -1;
	q->call_fd = -1;
	q->nr_slots = nr_slots;
	pthread_mutex_init(&q->park_lock, NULL);
	pthread_cond_init(&q->park_cond, NULL);
	pthread_mutex_init(&q->push_lock, NULL);
	pthread_cond_init(&q->drain_cond, NULL);
	q->slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->slots == MAP_FAILED) {
		q->slots = NULL;
		return -ENOMEM;
	}
	if (take_in_use(dev))
		return 0;
	q->wake_fd = eventfd_new();
	return min_of(q->wake_fd, 0);
}

void queue_fini(struct queue *q)
{
	for (uint32_t i = 0; q->slots && i < q->nr_slots_used; i++)
		free(q->slots[i].iov_heap);
	if (q->slots)
		munmap(q->slots, (size_t)q->nr_slots * sizeof(struct request));
	close_fd(&q->wake_fd);
	pthread_mutex_destroy(&q->park_lock);
	pthread_cond_destroy(&q->park_cond);
	pthread_mutex_destroy(&q->push_lock);
	pthread_cond_destroy(&q->drain_cond);
}

void queue_wake(struct queue *q)
{
	if (take_in_use(q->dev))
		take_wake(q->dev);
	else
		fd_signal(q->wake_fd);
}

void queue_publish_locked(struct queue *q, bool *ret_call)
{
	virtq_flush(q->vq);
	*ret_call = virtq_call_needed(q->vq);
}

void queue_call(struct queue *q)
{
	struct device *dev = q->dev;

	/* Under the lock, since the transport may exchange the descriptor, or leave. */
	pthread_mutex_lock(&q->push_lock);
	if (q->call_fd >= 0)
		fd_signal(q->call_fd);
	else if (q->call_in_band)
		dev->transport_ops->call(dev->transport, q->index);
	pthread_mutex_unlock(&q->push_lock);
}

void queue_break(struct queue *q, const char *why)
{
	struct device *dev = q->dev;

	if (q->broken)
		return;
	q->broken = true;
	log_warn_ratelimited(&dev->bad_request_log,
			     "queue %u: the driver broke the ring (%s): stopped until reset",
			     q->index, why);
	__atomic_fetch_or(&dev->status, DEVICE_STATUS_NEEDS_RESET, __ATOMIC_RELAXED);
	dev->transport_ops->needs_reset(dev->transport);
}

/*
 * Take one chain. Return: 1 taken, 0 ring empty (or broken), -EAGAIN no free request.
 */
int queue_take_one(struct queue *q)
{
	struct request *req = request_alloc(q);
	int err;

	if (!req)
		return -EAGAIN;
	err = virtq_pop(q->vq, q->generation->table, &req->chain);
	if (err == -ENOBUFS) {
		err = request_grow_iov(req, req->chain.nr_needed);
		if (err == 0)
			err = virtq_pop(q->vq, q->generation->table, &req->chain);
	}
	if (err <= 0) {
		request_put_back(req);
		/* Out of memory for a giant chain is as good as a ring that asks too much. */
		if (err < 0)
			queue_break(q, err == -EBADMSG ? virtq_broken(q->vq) : strerror(-err));
		return 0;
	}
	req->generation = q->generation;
	__atomic_store_n(&q->generation->popped, q->generation->popped + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&q->popped, q->popped + 1, __ATOMIC_RELAXED);
	request_receive(req);
	return 1;
}

/* Publish what was completed in this thread, and what others pushed meanwhile. */
void queue_publish(struct queue *q)
{
	bool call;

	pthread_mutex_lock(&q->push_lock);
	queue_publish_locked(q, &call);
	q->unpublished = false;
	pthread_mutex_unlock(&q->push_lock);
	if (call)
		queue_call(q);
}

void queue_end_batch(struct queue *q)
{
	struct service *svc = q->dev->svc;

	if (svc->ops->flush)
		svc->ops->flush(svc);
	queue_publish(q);
}

/* Return: requests taken; *@ret_starved when the pool is empty. */
static unsigned int queue_run_batch(struct queue *q, bool *ret_starved)
{
	unsigned int nr = 0;
	int err = 0;

	*ret_starved = false;
	if (q->broken || !READ_ONCE(q->enabled))
		return 0;
	while (nr < QUEUE_BATCH) {
		err = queue_take_one(q);
		if (err <= 0)
			break;
		nr++;
	}
	*ret_starved = err == -EAGAIN;
	if (nr)
		queue_end_batch(q);
	return nr;
}

bool queue_steered(const struct queue *q)
{
	/* Who finds the pause over, without having parked for it, sees what was done in it: pairs with queue_resume(). */
	return READ_ONCE(q->stop) || __atomic_load_n(&q->paused, __ATOMIC_ACQUIRE);
}

void queue_drain_kick(struct queue *q, uint32_t events)
{
	int got = fd_drain_signal(q->kick_fd);

	/* A descriptor that is dead or closed, or in error without a byte to read, would wake us for ever. */
	if (got < 0 || (got == 0 && events & (POLLERR | POLLHUP))) {
		log_warn_ratelimited(&q->dev->bad_request_log,
				     "queue %u: the kick descriptor was closed", q->index);
		/* Our end may be closed, but the front-end holds the same file: that would keep it watched. */
		if (take_in_use(q->dev))
			take_unwatch(q);
		q->kick_fd = -1;
	}
}

static void queue_wait_fds(struct queue *q, int service_fd)
{
	struct pollfd fds[3] = {
		{ .fd = q->wake_fd, .events = POLLIN },
		{ .fd = q->broken ? -1 : q->kick_fd, .events = POLLIN },
		{ .fd = service_fd, .events = POLLIN },
	};

	if (poll(fds, array_size(fds), -1) < 0)
		return;
	if (fds[0].revents && fd_drain_signal(q->wake_fd) < 0)
		return;
	if (fds[1].revents)
		queue_drain_kick(q, (uint32_t)fds[1].revents);
}

void queue_wait_work(struct queue *q, bool takes, int service_fd)
{
	if (!takes || !virtq_kick_enable(q->vq))
		queue_wait_fds(q, service_fd);
	if (takes)
		virtq_kick_disable(q->vq);
}

static void queue_sleep(struct queue *q, bool starved)
{
	bool takes = !q->broken && READ_ONCE(q->enabled) && !starved;
	uint64_t begin;

	if (takes && virtq_kick_enable(q->vq))
		goto out;
	queue_poll_service_end(q);
	begin = clock_now_ns();
	queue_wait_fds(q, -1);
	if (takes)
		poll_time_adapt(&q->poll_ns, clock_now_ns() - begin, q->dev->config.poll_ns);
out:
	if (takes)
		virtq_kick_disable(q->vq);
}

/* Return: false when the thread has to end. */
bool queue_park(struct queue *q)
{
	bool go_on;

	queue_poll_service_end(q);
	pthread_mutex_lock(&q->park_lock);
	while (q->paused && !q->stop) {
		if (!q->parked) {
			q->parked = true;
			pthread_cond_broadcast(&q->park_cond);
		}
		pthread_cond_wait(&q->park_cond, &q->park_lock);
	}
	q->parked = false;
	go_on = !q->stop;
	pthread_mutex_unlock(&q->park_lock);
	return go_on;
}

static void *queue_main(void *arg)
{
	struct queue *q = arg;

	current_queue = q;
	thread_want_short_slices();
	virtq_kick_disable(q->vq);
	for (;;) {
		bool starved;

		if (queue_steered(q) && !queue_park(q))
			break;
		if (queue_run_batch(q, &starved))
			continue;
		if (!starved && !q->broken && READ_ONCE(q->enabled) && queue_poll(q))
			continue;
		queue_sleep(q, starved);
	}
	return NULL;
}

static void queue_pause(struct queue *q)
{
	if (take_in_use(q->dev)) {
		take_exclude(q->dev);
		return;
	}
	pthread_mutex_lock(&q->park_lock);
	__atomic_store_n(&q->paused, q->paused + 1, __ATOMIC_RELAXED);
	if (q->running) {
		queue_wake(q);
		while (!q->parked)
			pthread_cond_wait(&q->park_cond, &q->park_lock);
	}
	pthread_mutex_unlock(&q->park_lock);
}

static void queue_resume(struct queue *q)
{
	if (take_in_use(q->dev)) {
		take_allow(q->dev);
		return;
	}
	pthread_mutex_lock(&q->park_lock);
	__atomic_store_n(&q->paused, q->paused - 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&q->park_cond);
	pthread_mutex_unlock(&q->park_lock);
}

/* All queue threads are parked, and queues that start are born parked, until queue_resume_all(). */
void queue_pause_all(struct device *dev)
{
	pthread_mutex_lock(&dev->queues_lock);
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_pause(&dev->queues[i]);
	pthread_mutex_unlock(&dev->queues_lock);
}

void queue_resume_all(struct device *dev)
{
	pthread_mutex_lock(&dev->queues_lock);
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_resume(&dev->queues[i]);
	pthread_mutex_unlock(&dev->queues_lock);
}

/* Are all slots free, those of abandoned requests included? */
bool queue_slots_free(const struct queue *q)
{
	for (uint32_t i = 0; i < READ_ONCE(q->nr_slots_used); i++) {
		if (__atomic_load_n(&q->slots[i].state, __ATOMIC_ACQUIRE) != REQUEST_FREE)
			return false;
	}
	return true;
}

static bool queue_is_below(const struct queue *q, enum queue_idle what, uint64_t most)
{
	uint64_t left = READ_ONCE(q->popped) - q->done;

	return left <= most + (what == QUEUE_IDLE_BUT_CONTROL ? q->nr_by_control : 0);
}

/* Under push_lock. Sleep until something is completed, a second is over, or @deadline_ns. */
static void queue_wait_done(struct queue *q, uint64_t now, uint64_t deadline_ns)
{
	struct timespec until;
	uint64_t ns;

	clock_gettime(CLOCK_REALTIME, &until);
	ns = (uint64_t)until.tv_nsec + min_of(deadline_ns - now, NSEC_PER_SEC);
	until.tv_sec += (time_t)(ns / NSEC_PER_SEC);
	until.tv_nsec = (long)(ns % NSEC_PER_SEC);
	pthread_cond_timedwait(&q->drain_cond, &q->push_lock, &until);
}

static bool queue_wait(struct queue *q, uint64_t deadline_ns, enum queue_idle what, uint64_t most)
{
	bool below;

	pthread_mutex_lock(&q->push_lock);
	q->draining = true;
	while (!(below = queue_is_below(q, what, most))) {
		uint64_t now = clock_now_ns();

		if (now >= deadline_ns)
			break;
		queue_wait_done(q, now, deadline_ns);
	}
	q->draining = false;
	pthread_mutex_unlock(&q->push_lock);
	return below;
}

/* Wait until all that was taken is completed, or until @deadline_ns. The thread is parked or gone. */
void queue_wait_idle(struct queue *q, uint64_t deadline_ns, enum queue_idle what)
{
	queue_wait(q, deadline_ns, what, 0);
}

/* Wait until at most @most requests are under way. Return: false at @deadline_ns. */
bool queue_wait_below(struct queue *q, uint64_t deadline_ns, uint64_t most)
{
	return queue_wait(q, deadline_ns, QUEUE_IDLE, most);
}

static void queue_use_table(struct queue *q, struct mem_generation *gen)
{
	struct mem_generation *old = q->generation;

	q->generation = gen;
	if (!old)
		return;
	pthread_mutex_lock(&q->push_lock);
	old->retired = true;
	if (old->done == old->popped) {
		mem_table_put(old->table);
		free(old);
	}
	pthread_mutex_unlock(&q->push_lock);
}

static struct mem_generation *generation_new(struct mem_table *table)
{
	struct mem_generation *gen = calloc(1, sizeof(*gen));

	if (gen)
		gen->table = mem_table_get(table);
	return gen;
}

static void queue_set_log(struct queue *q, struct dirty_log *log)
{
	struct dirty_log *old;

	pthread_mutex_lock(&q->push_lock);
	old = q->log;
	q->log = log ? dirty_log_get(log) : NULL;
	pthread_mutex_unlock(&q->push_lock);
	dirty_log_put(old);
}

void device_set_log(struct device *dev, struct dirty_log *log)
{
	struct dirty_log *old = dev->log;

	dev->log = log ? dirty_log_get(log) : NULL;
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_set_log(&dev->queues[i], log);
	dirty_log_put(old);
}

static int queue_thread_start(struct queue *q)
{
	pthread_attr_t attr;
	int err;

	if (take_in_use(q->dev))
		return take_add_queue(q->dev, q);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, QUEUE_STACK_BYTES);
	err = pthread_create(&q->thread, &attr, q->notifies ? notify_main : queue_main, q);
	pthread_attr_destroy(&attr);
	return -err;
}

int device_queue_start(struct device *dev, unsigned int index, const struct virtq_setup *setup,
		       const struct device_queue_fds *fds)
{
	struct mem_generation *gen;
	struct queue *q;
	int err;

	if (index >= dev->nr_queues || !dev->mem || dev->queues[index].running ||
	    setup->size > dev->config.queue_size_max)
		return -EINVAL;
	q = &dev->queues[index];
	gen = generation_new(dev->mem);
	if (!gen)
		return -ENOMEM;
	err = virtq_new(&q->vq, setup);
	if (err < 0) {
		mem_table_put(gen->table);
		free(gen);
		return err;
	}
	queue_use_table(q, gen);
	q->kick_fd = fds->kick_fd;
	q->call_fd = fds->call_fd;
	q->call_in_band = fds->call_in_band;
	q->broken = false;
	q->notifies = index == NOTIFY_QUEUE && dev->features & DEVICE_F_NOTIFICATION;
	q->stop = false;
	q->parked = false;
	q->poll_ns = 0;
	q->waits_left = 0;
	q->polls_left = 0;
	queue_set_log(q, dev->log);
	pthread_mutex_lock(&dev->queues_lock);
	err = queue_thread_start(q);
	q->running = err == 0;
	pthread_mutex_unlock(&dev->queues_lock);
	if (err < 0) {
		virtq_free(TAKE_PTR(q->vq));
		queue_use_table(q, NULL);
		return err;
	}
	/* An earlier life may have completed chains and died before it said so. */
	if (setup->inflight)
		queue_call(q);
	return 0;
}

void device_queue_set_call(struct device *dev, unsigned int index, int call_fd)
{
	struct queue *q = &dev->queues[index];

	pthread_mutex_lock(&q->push_lock);
	q->call_fd = call_fd;
	pthread_mutex_unlock(&q->push_lock);
	/* Completions that found no descriptor must not be lost: one interrupt too many is harmless. */
	if (q->running)
		queue_call(q);
}

void device_queue_set_enabled(struct device *dev, unsigned int index, bool enabled)
{
	struct queue *q = &dev->queues[index];

	__atomic_store_n(&q->enabled, enabled, __ATOMIC_RELAXED);
	queue_wake(q);
}

void device_queue_kick(struct device *dev, unsigned int index)
{
	queue_wake(&dev->queues[index]);
}

bool device_queue_running(const struct device *dev, unsigned int index)
{
	return dev->queues[index].running;
}

static void queue_thread_stop(struct queue *q)
{
	if (take_in_use(q->dev)) {
		take_remove_queue(q->dev, q);
		return;
	}
	pthread_mutex_lock(&q->park_lock);
	__atomic_store_n(&q->stop, true, __ATOMIC_RELAXED);
	queue_wake(q);
	pthread_cond_broadcast(&q->park_cond);
	pthread_mutex_unlock(&q->park_lock);
	pthread_join(q->thread, NULL);
}

/* Ask the service to end early what the queue still waits for; what the control thread has ends at once. */
static void queue_hurry(struct queue *q)
{
	struct service *svc = q->dev->svc;

	for (uint32_t i = 0; i < q->nr_slots_used; i++) {
		struct request *req = &q->slots[i];
		uint64_t unique = __atomic_load_n(&req->live_unique, __ATOMIC_ACQUIRE);

		if (unique && svc->ops->interrupt)
			svc->ops->interrupt(svc, unique);
	}
}

static void queue_abandon_all(struct queue *q, bool by_control, int error)
{
	for (uint32_t i = 0; i < q->nr_slots_used; i++) {
		struct request *req = &q->slots[i];

		if (__atomic_load_n(&req->state, __ATOMIC_ACQUIRE) == REQUEST_ACTIVE &&
		    (!by_control || READ_ONCE(req->by_control)))
			request_abandon(req, error);
	}
}

/* No answer in time: what was taken is failed. */
static void queue_give_up(struct queue *q)
{
	log_warn("queue %u: %llu requests had no answer when the queue stopped: failed", q->index,
		 (unsigned long long)(q->popped - READ_ONCE(q->done)));
	/* What is left is being written this moment; after request_let_go() it is still to be abandoned. */
	do {
		queue_abandon_all(q, false, -EIO);
	} while (!queue_wait_below(q, clock_now_ns() + QUEUE_WRITING_NS, 0));
}

static uint64_t queue_done(struct queue *q)
{
	uint64_t done;

	pthread_mutex_lock(&q->push_lock);
	done = q->done;
	pthread_mutex_unlock(&q->push_lock);
	return done;
}

static uint64_t device_done(struct device *dev)
{
	uint64_t done = queue_done(&dev->internal);

	for (unsigned int i = 0; i < dev->nr_queues; i++)
		done += queue_done(&dev->queues[i]);
	return done;
}

/*
 * A front-end stops queue by queue. Has all that @nr queues wait for been there already when an earlier stop began, whose
 * time was over without a single answer on any queue, and was there none since?
 */
static bool queues_waited_already(const struct queue *queues, unsigned int nr)
{
	struct device *dev = queues->dev;

	if (!dev->stop_unanswered || device_done(dev) != dev->stop_done)
		return false;
	for (unsigned int i = 0; i < nr; i++) {
		if (READ_ONCE(queues[i].popped) != queues[i].stop_popped)
			return false;
	}
	return true;
}

/* Return: how long to wait, ns. */
static uint64_t queues_drain_begin(struct queue *queues, unsigned int nr)
{
	struct device *dev = queues->dev;

	if (queues_waited_already(queues, nr))
		return dev->config.drain_ns / QUEUE_WAITED_SHARE;
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		dev->queues[i].stop_popped = READ_ONCE(dev->queues[i].popped);
	return dev->config.drain_ns;
}

/*
 * Everything that was taken gets completed: by its answer if that comes in time, after a fifth of the time
 * with a request to hurry, at the end with an error. All @nr queues have the same time.
 */
static void queues_drain(struct queue *queues, unsigned int nr)
{
	struct device *dev = queues->dev;
	uint64_t now = clock_now_ns(), drain_ns = queues_drain_begin(queues, nr);
	uint64_t done;
	bool unanswered, gave_up = false;

	for (unsigned int i = 0; i < nr; i++)
		queue_abandon_all(&queues[i], true, -EIO);
	done = device_done(dev);
	for (unsigned int i = 0; i < nr; i++)
		queue_wait_idle(&queues[i], now + drain_ns / 5, QUEUE_IDLE);
	for (unsigned int i = 0; i < nr; i++) {
		if (!queue_wait_below(&queues[i], 0, 0))
			queue_hurry(&queues[i]);
	}
	for (unsigned int i = 0; i < nr; i++)
		queue_wait_idle(&queues[i], now + drain_ns, QUEUE_IDLE);
	unanswered = device_done(dev) == done;
	for (unsigned int i = 0; i < nr; i++) {
		if (queue_wait_below(&queues[i], 0, 0))
			continue;
		queue_give_up(&queues[i]);
		gave_up = true;
	}
	/* A queue that had nothing to wait for says nothing about the service. */
	if (gave_up) {
		dev->stop_unanswered = unanswered;
		dev->stop_done = device_done(dev);
	}
}

/* The thread has ended, and everything that was taken is completed. */
static void queue_close(struct queue *q)
{
	queue_publish(q);
	q->base = virtq_base(q->vq);
	virtq_free(TAKE_PTR(q->vq));
	queue_use_table(q, NULL);
	queue_set_log(q, NULL);
	q->kick_fd = -1;
	pthread_mutex_lock(&q->push_lock);
	q->call_fd = -1;
	q->call_in_band = false;
	pthread_mutex_unlock(&q->push_lock);
}

/* Stop those of @nr queues, which lie side by side, that run. */
static void queues_stop(struct queue *queues, unsigned int nr)
{
	struct device *dev = queues->dev;

	pthread_mutex_lock(&dev->queues_lock);
	for (unsigned int i = 0; i < nr; i++) {
		if (queues[i].running)
			queue_thread_stop(&queues[i]);
		queues[i].running = false;
	}
	pthread_mutex_unlock(&dev->queues_lock);
	queues_drain(queues, nr);
	for (unsigned int i = 0; i < nr; i++) {
		if (queues[i].vq)
			queue_close(&queues[i]);
	}
}

void queue_stop_all(struct device *dev)
{
	queues_stop(dev->queues, dev->nr_queues);
}

uint32_t device_queue_stop(struct device *dev, unsigned int index)
{
	struct queue *q = &dev->queues[index];

	if (q->running)
		queues_stop(q, 1);
	return q->base;
}

/* The queue is parked. Exchange its memory, and the addresses of its ring. */
static void queue_move(struct queue *q, struct mem_table *mem,
		       int (*resolve)(void *, unsigned int, struct virtq_setup *))
{
	struct virtq_setup setup = {};
	struct mem_generation *gen = NULL;
	int err = -EFAULT;

	if (mem) {
		gen = generation_new(mem);
		err = gen ? resolve(q->dev->transport, q->index, &setup) : -ENOMEM;
	}
	if (!err) {
		pthread_mutex_lock(&q->push_lock);
		err = virtq_move(q->vq, &setup);
		pthread_mutex_unlock(&q->push_lock);
	}
	if (err) {
		queue_break(q, "it is outside the new memory table");
		if (gen)
			mem_table_put(gen->table);
		free(gen);
		return;
	}
	queue_use_table(q, gen);
}

void device_set_mem(struct device *dev, struct mem_table *mem,
		    int (*resolve)(void *transport, unsigned int index, struct virtq_setup *setup))
{
	struct mem_table *old = dev->mem;

	dev->mem = mem ? mem_table_get(mem) : NULL;
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		struct queue *q = &dev->queues[i];

		if (!q->running)
			continue;
		queue_pause(q);
		queue_move(q, dev->mem, resolve);
		queue_resume(q);
	}
	mem_table_put(old);
}
