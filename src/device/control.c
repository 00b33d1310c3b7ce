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
#include "base/thread.h"
#include "device/device_impl.h"

/* What must not overtake each other when a session is paid back. */
enum payback_kind {
	PAYBACK_NONE,
	PAYBACK_UNLOCK,
	PAYBACK_RELEASE,
	PAYBACK_FORGET,
};

static enum payback_kind payback_kind(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_FLUSH:
		return PAYBACK_UNLOCK;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return PAYBACK_RELEASE;
	default:
		return PAYBACK_FORGET;
	}
}

/* Park the queues and wait for what they handed out, other than the INIT or DESTROY that we hold. */
static void control_quiesce(struct device *dev, uint64_t deadline_ns)
{
	queue_pause_all(dev);
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		queue_wait_idle(&dev->queues[i], deadline_ns, QUEUE_IDLE_BUT_CONTROL);
}

/* Take the next message of payback. Return: NULL when there is none, or no slot for it. */
static struct request *payback_next(struct device *dev)
{
	struct queue *q = &dev->internal;
	struct request *req = request_alloc(q);

	if (!req)
		return NULL;
	memset(&req->fuse, 0, sizeof(req->fuse));
	req->chain.nr_out = req->chain.nr_in = 0;
	req->chain.out_bytes = req->chain.in_bytes = 0;
	if (fuse_session_end_next(dev->session, request_unique(req), req->buf, &req->fuse))
		return req;
	request_put_back(req);
	return NULL;
}

/*
 * Hand a message to the service, unless the daemon that it is for died while it waited for its turn: the next one does not
 * know its numbers. device_service_died() waits for the lock, so that what is found here holds until the service has it.
 */
static void payback_submit(struct device *dev, struct request *req)
{
	struct queue *q = &dev->internal;

	pthread_mutex_lock(&dev->payback_lock);
	if (fuse_session_is_stale(dev->session, &req->fuse)) {
		request_put_back(req);
	} else {
		__atomic_store_n(&q->popped, q->popped + 1, __ATOMIC_RELAXED);
		request_activate(req);
		request_submit(req);
		if (dev->svc->ops->flush)
			dev->svc->ops->flush(dev->svc);
	}
	pthread_mutex_unlock(&dev->payback_lock);
}

/*
 * Pay back what the driver still held. The queues are parked.
 *
 * Messages of one kind go out side by side; the next kind (unlock, release, forget) only when all of the kind before are
 * answered, as a kernel would do it: daemons take messages with several threads, and one that releases a file
 * whose node another has just forgotten aborts. Without answers in time the rest stays in the ledger.
 */
static void control_payback(struct device *dev)
{
	struct queue *q = &dev->internal;
	uint64_t deadline = clock_now_ns() + dev->config.drain_ns;
	enum payback_kind kind = PAYBACK_NONE;
	struct request *req;
	unsigned int nr = 0;

	while ((req = payback_next(dev))) {
		enum payback_kind next = payback_kind(req->fuse.op->opcode);
		uint64_t room = next == kind ? PAYBACK_INFLIGHT - 1 : 0;

		if (!queue_wait_below(q, deadline, room)) {
			/* This one is lost with it: what the daemon has not answered for so long, it may not miss. */
			request_put_back(req);
			break;
		}
		kind = next;
		payback_submit(dev, req);
		nr++;
	}
	if (!queue_wait_below(q, deadline, 0))
		log_warn("the file system has not answered %llu messages that end a session",
			 (unsigned long long)(q->popped - READ_ONCE(q->done)));
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

	notify_close(dev);
	control_quiesce(dev, deadline);
	control_payback(dev);
	fuse_session_allow_notify(dev->session, READ_ONCE(dev->features) & DEVICE_F_NOTIFICATION);
	/* A driver that is gone meanwhile, or was told that it failed, has no session. */
	if (req && req->fuse.op->opcode == FUSE_INIT && !request_is_abandoned(req))
		err = dev->svc->unavailable ? -EIO
					    : fuse_session_init(dev->session, &req->fuse, req->buf,
								&dev->svc->init_out, &reply, &len);
	notify_open(dev);
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
		dev->control_running = thread_start(&dev->control_thread, control_main, dev) == 0;
	return dev->control_running;
}

/* There is a session already. */
int control_start(struct device *dev)
{
	bool ok;

	pthread_mutex_lock(&dev->control_lock);
	ok = control_ensure_thread(dev);
	pthread_mutex_unlock(&dev->control_lock);
	return ok ? 0 : -EAGAIN;
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
