/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private to the check: rings written by hand, without the rules that virtq_driver.h keeps.
 */
#ifndef FUSEWIRE_CHECK_RAW_H
#define FUSEWIRE_CHECK_RAW_H

#include "check/check_impl.h"
#include "virtio/ring_layout.h"

#define RAW_RING_SIZE 64u

/* Where a descriptor points to. */
enum raw_place {
	RAW_NOWHERE, /* not used */
	RAW_OUT, /* the good request */
	RAW_IN, /* room for its reply */
	RAW_ZERO,
	RAW_BEYOND, /* behind the memory */
	RAW_EDGE, /* the memory's last 8 bytes */
	RAW_TOP, /* 8 bytes below 2^64 */
	RAW_HALF, /* 2^63 */
	RAW_RING, /* the descriptor table or packed ring itself */
	RAW_USED, /* the used ring */
	RAW_TABLE, /* the indirect table */
	RAW_ODD_TABLE, /* one byte beside it */
};

struct raw {
	struct peer *p;
	struct virtq_setup areas;
	struct vhost_region memory;
	unsigned int queue;
	uint16_t avail; /* split: index; packed: position */
	bool wrap;
	uint16_t used_before; /* split: used index */
	uint32_t nr_added;
	uint16_t first_pos; /* packed: written last */
	uint64_t first_word;
	uint64_t out,
		in; /* guest addresses of a request that is good, and of the room for its reply */
	uint32_t out_bytes, in_bytes;
	uint64_t table; /* guest address of free memory for an indirect table */
};

/* A victim with rings of RAW_RING_SIZE and one request queue. NULL: check_no_peer(). */
struct peer *raw_victim(struct check *c, enum virtq_format format, bool indirect);
/* Begin at the position at which the peer's ring is, with a good GETATTR in memory. */
void raw_begin(struct raw *r, struct peer *p, unsigned int queue);
/* The mapping of a guest address inside the memory. */
void *raw_pointer(const struct raw *r, uint64_t addr);

/* The guest address of a place. */
uint64_t raw_address(const struct raw *r, enum raw_place place);

/* Split ring. */
void raw_desc(struct raw *r, uint32_t at, uint64_t addr, uint32_t len, uint16_t flags,
	      uint16_t next);
void raw_offer(struct raw *r, uint16_t head);
void raw_set_index(struct raw *r, uint16_t index);

/* Packed ring: the next descriptor; @flags without AVAIL and USED, which are made to fit. */
void raw_packed(struct raw *r, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags);
/* The same with flags as they are. */
void raw_packed_flags(struct raw *r, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags);

/* Either: an entry of an indirect table. */
void raw_entry(struct raw *r, uint64_t table, uint32_t at, uint64_t addr, uint32_t len,
	       uint16_t flags, uint16_t next);

/* Show the device what was added, and kick. */
void raw_publish(struct raw *r);
/* Wait a little for something to happen. Return: in a few words what did. */
const char *raw_settle(struct raw *r);

#endif
