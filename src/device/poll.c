/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a queue thread waits for work before it sleeps: it looks for requests and for the service's replies, or waits for these.
 *
 * Theory of operation
 * -------------------
 * Looking spares all sides a wake-up, and lets others have the processor between two looks. It is the wrong thing where the daemon
 * shares this processor: who yields comes last, after all that the daemon has woken in turn (the client of its server, say), though
 * the reply has long been there and the driver waits for it. So when a yield was long, the thread sleeps until there is a reply
 * or a kick: a thread that slept, with short slices (base/thread.h), comes first. While a daemon's replies take long there is nothing
 * to come first for, and looking keeps the processor from falling asleep, which costs the more to end.
 */
#include "base/poll_time.h"
#include "device/device_impl.h"

/* How often to wait before it is looked at again whether the processor is shared, and how often to look before waiting is tried again. */
#define POLL_WAITS 64
/* Replies that take longer are not worth coming first for. */
#define POLL_WAIT_NS (100 * NSEC_PER_USEC)

/* While we are awake we are the service's eyes, too. Return: were requests ended? */
static bool queue_poll_service(struct queue *q)
{
	const struct service_ops *ops = q->dev->svc->ops;
	bool found;

	if (!q->polls_service)
		return false;
	found = ops->poll(q->dev->svc);
	/* Requests of other queues were published one by one. */
	if (q->unpublished)
		queue_publish(q);
	return found;
}

static void queue_poll_service_begin(struct queue *q)
{
	const struct service_ops *ops = q->dev->svc->ops;

	/* hiprio has nothing to look for there: one thread less that is kept awake by the others' replies. */
	if (!q->polls_service && ops->poll_begin && q->index != HIPRIO_QUEUE)
		q->polls_service = ops->poll_begin(q->dev->svc);
}

void queue_poll_service_end(struct queue *q)
{
	if (q->polls_service)
		q->dev->svc->ops->poll_end(q->dev->svc);
	q->polls_service = false;
}

/* Sleep until the service has a reply, the driver a request, or somebody something to tell. Return: false if there is nothing to wait for. */
static bool queue_wait_service(struct queue *q)
{
	struct service *svc = q->dev->svc;
	uint64_t begin;
	int fd;

	if (!q->waits_left || !q->polls_service)
		return false;
	fd = svc->ops->wait_begin(svc);
	if (fd < 0)
		return false;
	q->waits_left--;
	begin = clock_now_ns();
	queue_wait_work(q, true, fd);
	if (clock_now_ns() - begin > POLL_WAIT_NS) {
		q->waits_left = 0;
		q->polls_left = POLL_WAITS;
	}
	svc->ops->wait_end(svc);
	return true;
}

static void queue_note_crowd(struct queue *q, bool crowded)
{
	if (q->polls_left)
		q->polls_left--;
	else if (crowded)
		q->waits_left = POLL_WAITS;
}

static bool queue_look(struct queue *q)
{
	for (int i = 0; i < 16; i++) {
		if (virtq_has_work(q->vq))
			return true;
		cpu_relax();
	}
	return false;
}

/*
 * Look for work for q->poll_ns. That time grows while sleeps are short, so that polling would have caught
 * the work, and shrinks to nothing while they are long: an idle device costs nothing. Return: look closer, there is some.
 */
bool queue_poll(struct queue *q)
{
	bool crowded = false, found;
	uint64_t begin;

	if (!q->poll_ns)
		return false;
	queue_poll_service_begin(q);
	begin = clock_now_ns();
	do {
		found = queue_look(q) || queue_steered(q);
		if (found)
			break;
		if (queue_poll_service(q))
			begin = clock_now_ns();
		else
			found = queue_wait_service(q);
	} while (!found && poll_time_left(begin, q->poll_ns, &crowded));
	queue_note_crowd(q, crowded);
	return found;
}
