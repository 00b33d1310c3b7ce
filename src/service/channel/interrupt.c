/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INTERRUPTs: of what the daemon has, or is given later.
 *
 * As in a kernel, a daemon never hears of a request that it has not been given. Of one that still waits in the fifo it is
 * told right after the request.
 */
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
	for (struct channel_item *item = ch->fifo_head; item; item = item->next) {
		if (request_header(item->req)->unique == unique)
			item->interrupted = true;
	}
	interrupt_sent(ch, unique);
	pthread_mutex_unlock(&ch->lock);
}
