/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread of one request queue.
 *
 * Theory of operation. A turn passes replies on, takes what the kernel has, and tells the device once about all of it. When a
 * turn found nothing, the thread looks at the ring for a short while, if requests are under way and that has been worth it
 * lately; then it asks for an interrupt and sleeps until the kernel, the device or the owner has something.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "bridge/bridge_impl.h"

/* Requests taken in one turn: replies must not wait for long. */
#define BATCH 16
/* Looking is given up when it was in vain so many times more often than not, and tried again now and then. */
#define CREDIT_MAX   8
#define CREDIT_RETRY (-64)

static int take_requests(struct bridge_queue *q)
{
	int nr = bridge_submit_waiting(q);

	while (nr >= 0 && nr < BATCH && bridge_can_take(q)) {
		int ret = bridge_take_request(q);

		/* What was taken before is published also then: whoever drains counts on the device's having seen it. */
		if (ret < 0)
			nr = ret;
		if (ret <= 0)
			break;
		nr++;
	}
	if (virtq_driver_publish(q->ring->drv))
		fd_signal(q->ring->kick_fd);
	return nr;
}

/* Look at the ring for a while. Return: whether something came. */
static bool spin(struct bridge_queue *q)
{
	uint64_t end;

	if (!q->bridge->config.spin_ns || !virtq_driver_nr_out(q->ring->drv))
		return false;
	if (q->spin_credit <= 0) {
		q->spin_credit = q->spin_credit <= CREDIT_RETRY ? 1 : q->spin_credit - 1;
		return false;
	}
	end = clock_now_ns() + q->bridge->config.spin_ns;
	do {
		for (int i = 0; i < 32; i++) {
			if (virtq_driver_has_used(q->ring->drv)) {
				q->spin_credit = min_of(q->spin_credit + 1, CREDIT_MAX);
				return true;
			}
			cpu_relax();
		}
	} while (clock_now_ns() < end);
	q->spin_credit--;
	return false;
}

/* Return: 0; -ESHUTDOWN when the bridge ends; -ENODEV at unmount. */
static int sleep_until_work(struct bridge_queue *q)
{
	struct pollfd pfds[4] = {
		{ .fd = q->bridge->stop_fd, .events = POLLIN },
		{ .fd = q->ring->call_fd, .events = POLLIN },
		/* Without a slot only a reply helps, but the end of the mount (POLLERR) shows. */
		{ .fd = q->fuse_fd, .events = bridge_can_take(q) ? POLLIN : 0 },
		/* Signalled while INTERRUPTs are under way. */
		{ .fd = bridge_queue_is_first(q) ? q->bridge->hiprio.ring->call_fd : -1,
		  .events = POLLIN },
	};
	int err = 0;

	if (!virtq_driver_call_enable(q->ring->drv)) {
		if (poll(pfds, array_size(pfds), -1) < 0)
			pfds[0].revents = 0;
		else if ((pfds[1].revents && fd_drain_signal(pfds[1].fd) < 0) ||
			 (pfds[3].revents && fd_drain_signal(pfds[3].fd) < 0))
			err = -ESHUTDOWN;
		if (err == 0 && pfds[2].revents & POLLERR)
			err = -ENODEV;
		if (pfds[0].revents)
			err = -ESHUTDOWN;
	}
	virtq_driver_call_disable(q->ring->drv);
	return err;
}

static bool shall_stop(const struct bridge_queue *q)
{
	return READ_ONCE(q->bridge->stopping) || READ_ONCE(q->bridge->state) != BRIDGE_RUNNING;
}

static void *queue_thread(void *arg)
{
	struct bridge_queue *q = arg;
	int err = 0;

	virtq_driver_call_disable(q->ring->drv);
	while (err >= 0 && !shall_stop(q)) {
		/* Before it looks: what came until it was set is passed on afterwards. */
		const int sync = __atomic_exchange_n(&q->sync, -1, __ATOMIC_SEQ_CST);
		int nr = err = bridge_return_replies(q);

		if (unlikely(sync >= 0))
			fd_signal(sync);
		if (err >= 0 && bridge_queue_is_first(q) &&
		    READ_ONCE(q->bridge->hiprio.nr_interrupts))
			err = bridge_hiprio_collect(q->bridge);
		if (bridge_queue_is_first(q) && READ_ONCE(q->bridge->notify.nr_refused))
			bridge_notify_refuse(q);
		if (err >= 0)
			err = take_requests(q);
		nr += err > 0 ? err : 0;
		if (err >= 0 && !nr && !spin(q))
			err = sleep_until_work(q);
	}
	if (err == -ENODEV)
		bridge_end(q->bridge, BRIDGE_UNMOUNTED, "unmounted");
	else if (err == -EBADMSG)
		bridge_end(q->bridge, BRIDGE_DEVICE_LOST, "the device broke a rule of the ring");
	else if (err < 0 && err != -ESHUTDOWN)
		bridge_end(q->bridge, BRIDGE_FAILED, "reading from /dev/fuse failed");
	return NULL;
}

int bridge_queue_start(struct bridge_queue *q)
{
	int err = pthread_create(&q->thread, NULL, queue_thread, q);

	q->running = err == 0;
	return -err;
}
