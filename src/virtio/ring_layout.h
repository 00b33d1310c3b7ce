/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How split and packed rings lie in memory (virtio 1.2, 2.7 and 2.8); shared by the device and the driver side.
 */
#ifndef FUSEWIRE_VIRTIO_RING_LAYOUT_H
#define FUSEWIRE_VIRTIO_RING_LAYOUT_H

#include "mem/guest.h"

/** enum ring_desc_flag - descriptor flags (2.7.5, 2.8.1, 2.8.5-2.8.7). */
enum ring_desc_flag {
	RING_DESC_NEXT = 1 << 0,
	RING_DESC_WRITE = 1 << 1,
	RING_DESC_INDIRECT = 1 << 2,
	RING_DESC_AVAIL = 1 << 7,
	RING_DESC_USED = 1 << 15,
};

/** RING_NO_NOTIFY - split avail->flags and used->flags: the other side asks for no notification. */
#define RING_NO_NOTIFY 1

/** enum ring_event_flag - packed event suppression (2.8.10). */
enum ring_event_flag {
	RING_EVENT_ENABLE = 0,
	RING_EVENT_DISABLE = 1,
	RING_EVENT_DESC = 2,
};

/**
 * struct ring_desc - a descriptor of either format, as two words that are read in one load each.
 * @addr: guest address
 * @word: bits 0-31 length; split: bits 32-47 flags, 48-63 next; packed: bits 32-47 id, 48-63 flags
 */
struct ring_desc {
	le64 addr;
	le64 word;
};

/** struct split_avail - the driver area of a split ring; behind @ring[size]: le16 used_event. */
struct split_avail {
	le16 flags;
	le16 idx;
	le16 ring[];
};

/** struct split_used_elem - a chain that the device gave back: its head and the bytes written. */
struct split_used_elem {
	le32 id;
	le32 len;
};

/** struct split_used - the device area of a split ring; behind @ring[size]: le16 avail_event. */
struct split_used {
	le16 flags;
	le16 idx;
	struct split_used_elem ring[];
};

/**
 * struct ring_event - event suppression of a packed ring, one word for a single load.
 * @word: bits 0-14 position, bit 15 wrap counter, bits 16-17 enum ring_event_flag
 */
struct ring_event {
	le32 word;
};

/**
 * struct desc - a descriptor in native byte order, private to whoever read it.
 * @addr: guest address
 * @len: bytes
 * @flags: enum ring_desc_flag
 * @id: split: next descriptor; packed: buffer id
 */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t id;
};

/** desc_split() - take apart a split descriptor. */
static inline struct desc desc_split(uint64_t addr, uint64_t word)
{
	return (struct desc){ addr, (uint32_t)word, (uint16_t)(word >> 32),
			      (uint16_t)(word >> 48) };
}

/** desc_packed() - take apart a packed descriptor. */
static inline struct desc desc_packed(uint64_t addr, uint64_t word)
{
	return (struct desc){ addr, (uint32_t)word, (uint16_t)(word >> 48),
			      (uint16_t)(word >> 32) };
}

/** desc_word_split() - the second word of a split descriptor. */
static inline uint64_t desc_word_split(uint32_t len, uint16_t flags, uint16_t next)
{
	return len | (uint64_t)flags << 32 | (uint64_t)next << 48;
}

/** desc_word_packed() - the second word of a packed descriptor. */
static inline uint64_t desc_word_packed(uint32_t len, uint16_t id, uint16_t flags)
{
	return len | (uint64_t)id << 32 | (uint64_t)flags << 48;
}

/** ring_event_crossed() - did positions (@old, @new] pass @event? Modulo 2^16 (virtio 1.2, 2.7.7.1). */
static inline bool ring_event_crossed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/** ring_advance() - @nr descriptors further in a packed ring of @size, @nr at most that. */
static inline void ring_advance(uint16_t *pos, bool *wrap, uint32_t nr, uint32_t size)
{
	uint32_t at = *pos + nr;

	if (at >= size) {
		at -= size;
		*wrap = !*wrap;
	}
	*pos = (uint16_t)at;
}

/**
 * ring_event_wants() - packed: does the other side want to be told of what was just published?
 * @word: of its struct ring_event, loaded once: position and flags belong together
 * @event_idx: VIRTIO_F_EVENT_IDX was negotiated
 * @pos: where the published descriptors end
 * @wrap: wrap counter there
 * @nr: their number
 * @size: of the ring
 *
 * The reserved value, and an event position without the feature, are taken as "enable".
 */
static inline bool ring_event_wants(uint32_t word, bool event_idx, uint16_t pos, bool wrap,
				    uint32_t nr, uint32_t size)
{
	uint16_t event = word & 0x7fff;
	uint32_t flags = word >> 16 & 3;

	if (flags == RING_EVENT_DISABLE)
		return false;
	if (flags != RING_EVENT_DESC || !event_idx || nr >= size)
		return true;
	/* An event position of the lap before is that many descriptors behind. */
	if ((word >> 15 & 1) != wrap)
		event = (uint16_t)(event - size);
	return ring_event_crossed(event, pos, (uint16_t)(pos - nr));
}

/**
 * ring_full_barrier() - a store before it is visible before a load behind it is done.
 *
 * Between publishing work and looking whether the other side wants to be told, and between asking to be told
 * and looking for work: one of the two sides sees the other's store.
 */
static inline void ring_full_barrier(void)
{
	/* Not __atomic_thread_fence(), of which the thread sanitizer complains. */
	__sync_synchronize();
}

#endif
