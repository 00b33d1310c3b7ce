/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's control thread: begins and ends FUSE sessions.
 *
 * Theory of operation
 * -------------------
 * A session begins with INIT and ends with DESTROY, with the next INIT, or when the transport says that the
 * driver is gone (reset, disconnect). Ending one takes time: what the driver still held is paid back to the
 * file system (unlock, release, forget), and the file system may be slow. So neither the queue threads nor
 * the transport do it: they leave INIT, DESTROY and "end" in this thread's mailbox.
 *
 * While the thread works, all queue threads are parked and requests under way have ended (or the drain time
 * is over), which is what fuse_session_init() and fuse_session_end_next() ask for. The driver waits for its
 * INIT or DESTROY meanwhile and sends nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/device_impl.h"

/* Park the queues and wait for what they handed out, other than the INIT or DESTROY that we hold. */
static void control_quiesce(struct device *dev, uint64_t deadline_ns)
{
	queue_pause_all(dev);
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_wait_idle(&dev->queues[i], deadline_ns, QUEUE_IDLE_BUT_CONTROL);
}

/* One message of payback; -EAGAIN when too many are under way. */
static int payback_one(struct device *dev)
{
	struct queue *q = &dev->internal;
	struct request *req;
	int more;

	if (q->popped - READ_ONCE(q->done) >= PAYBACK_INFLIGHT)
		return -EAGAIN;
	req = request_alloc(q);
	if (!req)
		return -EAGAIN;
	memset(&req->fuse, 0, sizeof(req->fuse));
	req->chain.nr_out = req->chain.nr_in = 0;
	req->chain.out_bytes = req->chain.in_bytes = 0;
	more = fuse_session_end_next(dev->session, request_unique(req), req->buf, &req->fuse);
	if (!more) {
		req->next = q->free_local;
		q->free_local = req;
		return 0;
	}
	__atomic_store_n(&q->popped, q->popped + 1, __ATOMIC_RELAXED);
	request_activate(req);
	request_submit(req);
	if (dev->svc->ops->flush)
		dev->svc->ops->flush(dev->svc);
	return 1;
}

/* Pay back what the driver still held. The queues are parked. */
static void control_payback(struct device *dev)
{
	struct queue *q = &dev->internal;
	uint64_t deadline = clock_now_ns() + dev->config.drain_ns;
	unsigned int nr = 0;

	while (clock_now_ns() < deadline) {
		int err = payback_one(dev);

		if (err == 0)
			break;
		if (err == -EAGAIN)
			queue_wait_idle(q, min_of(deadline, clock_now_ns() + 10 * NSEC_PER_MSEC),
					QUEUE_IDLE);
		else
			nr++;
	}
	queue_wait_idle(q, deadline, QUEUE_IDLE);
	if (q->done != q->popped)
		log_warn("the file system has not answered %llu messages that end a session",
			 (unsigned long long)(q->popped - q->done));
	log_debug("session ended: %u messages of payback", nr);
}

/* Answer a request that control_post() took. Nothing of it is pinned in the session. */
static void control_answer(struct request *req, int error, const void *body, size_t len)
{
	if (request_claim(req))
		request_deliver(req, error, body, len);
	else
		request_release_slot(req);
}

static void control_handle(struct device *dev, struct request *req)
{
	uint64_t deadline = clock_now_ns() + dev->config.drain_ns;
	struct fuse_init_out reply;
	size_t len = 0;
	int err = 0;

	control_quiesce(dev, deadline);
	control_payback(dev);
	if (req && req->fuse.op->opcode == FUSE_INIT)
		err = fuse_session_init(dev->session, &req->fuse, req->buf, &dev->svc->init_out,
					&reply, &len);
	if (req)
		control_answer(req, err, &reply, len);
	queue_resume_all(dev);
}

static void *control_main(void *arg)
{
	struct device *dev = arg;

	pthread_mutex_lock(&dev->control_lock);
	for (;;) {
		struct request *req = NULL;

		if (dev->end_wanted) {
			dev->end_wanted = false;
		} else if (dev->mail_head) {
			req = dev->mail_head;
			dev->mail_head = req->next;
			if (!dev->mail_head)
				dev->mail_tail = NULL;
		} else if (dev->control_stop) {
			break;
		} else {
			pthread_cond_wait(&dev->control_cond, &dev->control_lock);
			continue;
		}
		pthread_mutex_unlock(&dev->control_lock);
		control_handle(dev, req);
		pthread_mutex_lock(&dev->control_lock);
	}
	pthread_mutex_unlock(&dev->control_lock);
	return NULL;
}

/* Under control_lock: the thread starts with the first session. Return: is it there? */
static bool control_ensure_thread(struct device *dev)
{
	if (!dev->control_running)
		dev->control_running =
			pthread_create(&dev->control_thread, NULL, control_main, dev) == 0;
	return dev->control_running;
}

/* Leave INIT or DESTROY to the control thread. Context: queue thread. */
void control_post(struct request *req)
{
	struct device *dev = req->dev;
	struct queue *q = req->queue;
	bool ok;

	pthread_mutex_lock(&q->push_lock);
	req->by_control = true;
	q->nr_by_control++;
	if (q->draining)
		pthread_cond_broadcast(&q->drain_cond);
	pthread_mutex_unlock(&q->push_lock);

	pthread_mutex_lock(&dev->control_lock);
	ok = control_ensure_thread(dev);
	if (ok) {
		req->next = NULL;
		if (dev->mail_tail)
			dev->mail_tail->next = req;
		else
			dev->mail_head = req;
		dev->mail_tail = req;
		pthread_cond_broadcast(&dev->control_cond);
	}
	pthread_mutex_unlock(&dev->control_lock);
	if (!ok)
		control_answer(req, -ENOMEM, NULL, 0);
}

/*
 * The driver is gone: end its session in the background. Context: transport thread; its queues have stopped,
 * so that no INIT or DESTROY of it is still to be posted.
 */
void control_end_session(struct device *dev)
{
	pthread_mutex_lock(&dev->control_lock);
	/* Without a thread there never was an INIT: nothing to end. */
	if (dev->control_running) {
		dev->end_wanted = true;
		pthread_cond_broadcast(&dev->control_cond);
	}
	pthread_mutex_unlock(&dev->control_lock);
}

/* End the thread; what is in its mailbox is done first. */
void control_stop(struct device *dev)
{
	pthread_mutex_lock(&dev->control_lock);
	if (!dev->control_running) {
		pthread_mutex_unlock(&dev->control_lock);
		return;
	}
	dev->control_stop = true;
	pthread_cond_broadcast(&dev->control_cond);
	pthread_mutex_unlock(&dev->control_lock);
	pthread_join(dev->control_thread, NULL);
	dev->control_running = false;
}
