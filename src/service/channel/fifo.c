/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What waits to be sent, in two queues: requests with large replies, and all else.
 *
 * READs wait for room for their replies, and a file that is slow to read must not keep the others from the daemon. Each queue is sent
 * in order; FUSE has no order between requests that are under way at the same time.
 */
#include "service/channel/private.h"

static struct channel_fifo *fifo_of(struct channel *ch, const struct channel_item *item)
{
	return &ch->fifos[item->is_split || item->is_large ? FIFO_LARGE : FIFO_SMALL];
}

void fifo_init(struct channel *ch)
{
	for (int i = 0; i < FIFO_NR; i++)
		ch->fifos[i] = (struct channel_fifo){ .tail = &ch->fifos[i].head };
}

bool fifo_is_empty(const struct channel *ch)
{
	for (int i = 0; i < FIFO_NR; i++) {
		if (READ_ONCE(ch->fifos[i].head))
			return false;
	}
	return true;
}

bool fifo_blocks(struct channel *ch, const struct channel_item *item)
{
	return fifo_of(ch, item)->head;
}

void fifo_append(struct channel *ch, struct channel_item *item)
{
	struct channel_fifo *fifo = fifo_of(ch, item);

	item->next = NULL;
	*fifo->tail = item;
	fifo->tail = &item->next;
}

void fifo_push_front(struct channel *ch, struct channel_item *item)
{
	struct channel_fifo *fifo = fifo_of(ch, item);

	item->next = fifo->head;
	if (!fifo->head)
		fifo->tail = &item->next;
	fifo->head = item;
}

struct channel_item *fifo_take(struct channel_fifo *fifo)
{
	struct channel_item *item = fifo->head;

	if (item) {
		fifo->head = item->next;
		if (!fifo->head)
			fifo->tail = &fifo->head;
	}
	return item;
}
