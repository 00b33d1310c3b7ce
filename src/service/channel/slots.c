/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of messages that a daemon owes a reply to, by unique.
 */
#include <sched.h>

#include "service/channel/private.h"

/* Room in a socket's accounting for a message beside its bytes. */
#define SLOT_OVERHEAD 1024

static unsigned int slot_hash(uint64_t unique)
{
	return (unsigned int)((unique * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % CHANNEL_HASH;
}

void slot_init(struct channel *ch)
{
	for (unsigned int i = 0; i < CHANNEL_HASH; i++)
		ch->hash[i] = CHANNEL_NO_SLOT;
	for (unsigned int i = 0; i < CHANNEL_SLOTS; i++)
		ch->slots[i].next = i + 1 < CHANNEL_SLOTS ? (uint16_t)(i + 1) : CHANNEL_NO_SLOT;
	ch->free_slot = 0;
}

static unsigned int *count_of(struct channel *ch, uint32_t reply_max)
{
	return reply_max > CHANNEL_SMALL_REPLY ? &ch->nr_large : &ch->nr_small;
}

/* A quarter is left to small replies, of which there are a few at least; of large ones one at least, however large. */
static bool has_room(const struct channel *ch, uint32_t reply_max)
{
	const size_t bytes = ch->reply_bytes + reply_max + SLOT_OVERHEAD;

	if (reply_max > CHANNEL_SMALL_REPLY)
		return !ch->nr_large || bytes <= ch->reply_bytes_max / 4 * 3;
	return ch->nr_small < CHANNEL_SMALL_NR || bytes <= ch->reply_bytes_max;
}

struct channel_slot *slot_enter(struct channel *ch, uint64_t unique, struct request *req,
				uint32_t reply_max)
{
	unsigned int h = slot_hash(unique);
	struct channel_slot *s;
	uint16_t index = ch->free_slot;

	if (index == CHANNEL_NO_SLOT)
		return NULL;
	if (!has_room(ch, reply_max))
		return NULL;
	s = &ch->slots[index];
	ch->free_slot = s->next;
	*s = (struct channel_slot){
		.unique = unique,
		.req = req,
		.sending = true,
		.reply_max = reply_max,
		.next = ch->hash[h],
	};
	ch->hash[h] = index;
	WRITE_ONCE(ch->nr_slots_used, ch->nr_slots_used + 1);
	ch->reply_bytes += reply_max + SLOT_OVERHEAD;
	(*count_of(ch, reply_max))++;
	return s;
}

struct channel_slot *slot_find(struct channel *ch, uint64_t unique)
{
	uint16_t i = ch->hash[slot_hash(unique)];

	while (i != CHANNEL_NO_SLOT && ch->slots[i].unique != unique)
		i = ch->slots[i].next;
	return i == CHANNEL_NO_SLOT ? NULL : &ch->slots[i];
}

struct channel_slot *slot_find_sent(struct channel *ch, uint64_t unique)
{
	struct channel_slot *slot;

	while ((slot = slot_find(ch, unique)) && slot->sending) {
		pthread_mutex_unlock(&ch->lock);
		sched_yield();
		pthread_mutex_lock(&ch->lock);
	}
	return slot;
}

void slot_remove(struct channel *ch, struct channel_slot *slot, struct channel_slot *ret_copy)
{
	uint16_t index = (uint16_t)(slot - ch->slots);
	uint16_t *link = &ch->hash[slot_hash(slot->unique)];

	while (*link != index) {
		assert(*link != CHANNEL_NO_SLOT);
		link = &ch->slots[*link].next;
	}
	*link = slot->next;
	*ret_copy = *slot;
	WRITE_ONCE(ch->nr_slots_used, ch->nr_slots_used - 1);
	ch->reply_bytes -= slot->reply_max + SLOT_OVERHEAD;
	(*count_of(ch, slot->reply_max))--;
	if (slot->look_ahead)
		WRITE_ONCE(ch->nr_look_ahead, ch->nr_look_ahead - 1);
	*slot = (struct channel_slot){ .next = ch->free_slot };
	ch->free_slot = index;
}
