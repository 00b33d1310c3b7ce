/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INTERRUPTs: of what the daemon has, or is given later.
 *
 * As in a kernel, a daemon never hears of a request that it has not been given. Of one that still waits it is
 * told right after the request.
 */
#include <errno.h>

#include "service/channel/private.h"

/* Best effort, and short: under the lock, so that the socket stays. */
void interrupt_slot(const struct channel *ch, const struct channel_slot *slot)
{
	const struct {
		struct fuse_in_header in;
		struct fuse_interrupt_in arg;
	} msg = {
		.in = { .len = sizeof(msg), .opcode = FUSE_INTERRUPT, .unique = slot->unique | 1 },
		.arg = { .unique = slot->unique },
	};

	if (channel_send_plain(ch->fd, &msg, sizeof(msg)) < 0)
		log_debug("an interrupt was not sent");
}

void interrupt_answered(struct channel *ch, uint64_t unique, int error)
{
	const struct channel_slot *slot;

	/* Not yet: another thread of the daemon's has not read the request itself. As a kernel does, we say it again. */
	if (error != -EAGAIN)
		return;
	pthread_mutex_lock(&ch->lock);
	slot = ch->state == CHANNEL_READY ? slot_find(ch, unique & ~UINT64_C(1)) : NULL;
	if (slot)
		interrupt_slot(ch, slot);
	pthread_mutex_unlock(&ch->lock);
}

/* The daemon knows a READ's parts by other numbers. */
static void interrupt_parts(struct channel *ch, uint64_t unique)
{
	for (unsigned int i = 0; i < CHANNEL_SLOTS; i++) {
		const struct channel_slot *slot = &ch->slots[i];

		if (slot->unique && slot->split &&
		    request_header(slot->split->item.req)->unique == unique)
			interrupt_slot(ch, slot);
	}
}

static void interrupt_sent(struct channel *ch, uint64_t unique)
{
	const struct channel_slot *slot;

	if (ch->state != CHANNEL_READY)
		return;
	slot = slot_find(ch, unique);
	if (slot)
		interrupt_slot(ch, slot);
	else
		interrupt_parts(ch, unique);
}

void channel_interrupt(struct service *svc, uint64_t unique)
{
	struct channel *ch = channel_of(svc);

	pthread_mutex_lock(&ch->lock);
	for (int i = 0; i < FIFO_NR; i++) {
		for (struct channel_item *item = ch->fifos[i].head; item; item = item->next) {
			if (request_header(item->req)->unique == unique)
				item->interrupted = true;
		}
	}
	interrupt_sent(ch, unique);
	pthread_mutex_unlock(&ch->lock);
}
