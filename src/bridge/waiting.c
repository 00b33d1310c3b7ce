/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests with a large reply (READs) that wait in small slots for a large one, so that small requests go past them.
 *
 * The device has not heard of them, and cannot be asked to interrupt them: an INTERRUPT ends them here. It may come to any queue's
 * thread, which then only marks what is of another queue: its slot is that queue's to free.
 */
#include <errno.h>
#include <string.h>

#include "bridge/bridge_impl.h"

static struct bridge_slot *waiting_at(const struct bridge_queue *q, unsigned int i)
{
	return q->waiting[(q->first_waiting + i) % BRIDGE_NR_WAITING];
}

/* Free what was interrupted. Context: the queue's thread, under the lock. */
static void drop_interrupted(struct bridge_queue *q)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < q->nr_waiting; i++) {
		struct bridge_slot *slot = waiting_at(q, i);

		if (slot->interrupted)
			bridge_slot_put(q, slot);
		else
			q->waiting[(q->first_waiting + kept++) % BRIDGE_NR_WAITING] = slot;
	}
	q->nr_waiting = kept;
}

bool bridge_put_off(struct bridge_queue *q, const struct fuse_in_header *hdr, size_t len,
		    size_t reply_bytes)
{
	struct bridge *b = q->bridge;
	struct bridge_slot *slot = NULL;

	pthread_mutex_lock(&b->waiting_lock);
	drop_interrupted(q);
	if (q->nr_waiting < BRIDGE_NR_WAITING)
		slot = bridge_slot_get(q, false);
	if (slot) {
		memcpy(slot->in, q->landing->in, len);
		slot->unique = hdr->unique;
		slot->opcode = hdr->opcode;
		slot->interrupted = false;
		slot->len = len;
		slot->reply_bytes = reply_bytes;
		q->waiting[(q->first_waiting + q->nr_waiting++) % BRIDGE_NR_WAITING] = slot;
	}
	pthread_mutex_unlock(&b->waiting_lock);
	return slot;
}

/* Return: the one that has waited longest, which is the caller's now, or NULL. */
static struct bridge_slot *next_waiting(struct bridge_queue *q)
{
	struct bridge *b = q->bridge;
	struct bridge_slot *slot = NULL;

	pthread_mutex_lock(&b->waiting_lock);
	drop_interrupted(q);
	if (q->nr_waiting) {
		slot = q->waiting[q->first_waiting];
		q->first_waiting = (q->first_waiting + 1) % BRIDGE_NR_WAITING;
		q->nr_waiting--;
	}
	pthread_mutex_unlock(&b->waiting_lock);
	return slot;
}

static int submit_next(struct bridge_queue *q)
{
	struct bridge_slot *slot = next_waiting(q), *large;
	int err;

	if (!slot)
		return 0;
	large = bridge_slot_get(q, true);
	memcpy(large->in, slot->in, slot->len);
	large->unique = slot->unique;
	large->opcode = slot->opcode;
	err = bridge_submit(q, large, slot->len, slot->reply_bytes);
	bridge_slot_put(q, slot);
	return err;
}

int bridge_submit_waiting(struct bridge_queue *q)
{
	int err = 0;

	while (err == 0 && q->nr_waiting && q->nr_large &&
	       virtq_driver_nr_free(q->ring->drv) >= BRIDGE_SEGS_MAX) {
		if (!q->landing && !q->after_landing) {
			q->landing = bridge_slot_get(q, true);
			q->after_landing = true;
			continue;
		}
		if (!q->landing)
			q->after_landing = false;
		err = submit_next(q);
	}
	return err;
}

bool bridge_interrupt_waiting(struct bridge *b, uint64_t unique)
{
	bool found = false;

	pthread_mutex_lock(&b->waiting_lock);
	for (unsigned int i = 0; i < b->config.nr_request_queues && !found; i++) {
		struct bridge_queue *q = &b->queues[i];

		for (unsigned int j = 0; j < q->nr_waiting && !found; j++) {
			struct bridge_slot *slot = waiting_at(q, j);

			if (slot->unique != unique)
				continue;
			found = true;
			if (!slot->interrupted)
				bridge_reply_error(q, unique, -EINTR);
			slot->interrupted = true;
		}
	}
	pthread_mutex_unlock(&b->waiting_lock);
	return found;
}

void bridge_fail_waiting(struct bridge_queue *q)
{
	struct bridge_slot *slot;

	while ((slot = next_waiting(q))) {
		bridge_reply_error(q, slot->unique, -ENOTCONN);
		bridge_slot_put(q, slot);
	}
}
