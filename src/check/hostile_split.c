/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Malformed split rings: chains, tables and indices that no driver may make (virtio 1.2, 2.7).
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "check/raw.h"

#define NR_DESC	 3u
#define NR_KICKS 20000u
#define GOOD	 0xfffffffeu /* the length of the good request or its reply */

#define NEXT	 RING_DESC_NEXT
#define WRITE	 RING_DESC_WRITE
#define INDIRECT RING_DESC_INDIRECT

struct bad_desc {
	enum raw_place where;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* Chain 0, 1, ... of the table, offered by @head. */
struct bad_chain {
	struct bad_desc d[NR_DESC];
	struct bad_desc table[NR_DESC];
	uint16_t head;
	bool indirect; /* negotiated */
	bool twice; /* offered twice */
	bool whole_ring; /* all descriptors of the ring, or of a table as long, are the first one, each with NEXT to the next */
};

static uint32_t length(const struct raw *r, const struct bad_desc *d)
{
	if (d->len != GOOD)
		return d->len;
	return d->where == RAW_OUT ? r->out_bytes : r->in_bytes;
}

static enum check_status run_chain(struct check *c, uint64_t arg)
{
	const struct bad_chain *bad = c->rule->data;
	struct peer *p = raw_victim(c, VIRTQ_SPLIT, bad->indirect);
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	for (uint32_t i = 0; i < RAW_RING_SIZE && bad->whole_ring; i++)
		raw_desc(&r, i, raw_address(&r, bad->d[0].where), length(&r, &bad->d[0]),
			 bad->d[0].flags, (uint16_t)((i + 1) % RAW_RING_SIZE));
	for (uint32_t i = 0; i < NR_DESC; i++) {
		const struct bad_desc *d = &bad->d[i], *t = &bad->table[i];

		if (d->where != RAW_NOWHERE && !bad->whole_ring)
			raw_desc(&r, i, raw_address(&r, d->where), length(&r, d), d->flags,
				 d->next);
		if (t->where != RAW_NOWHERE)
			raw_entry(&r, r.table, i, raw_address(&r, t->where), length(&r, t),
				  t->flags, t->next);
	}
	raw_offer(&r, bad->head);
	if (bad->twice)
		raw_offer(&r, bad->head);
	raw_publish(&r);
	return check_survived(c, p, raw_settle(&r));
}

/* A good chain, but an available index that cannot be. */
static enum check_status run_index(struct check *c, uint64_t ahead)
{
	struct peer *p = raw_victim(c, VIRTQ_SPLIT, false);
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	raw_desc(&r, 0, r.out, r.out_bytes, NEXT, 1);
	raw_desc(&r, 1, r.in, r.in_bytes, WRITE, 0);
	for (uint32_t i = 0; i < RAW_RING_SIZE; i++)
		raw_offer(&r, 0);
	raw_set_index(&r, (uint16_t)(r.avail - RAW_RING_SIZE + ahead));
	raw_publish(&r);
	return check_survived(c, p, raw_settle(&r));
}

static void scribble(void *at, size_t bytes, unsigned int *seed)
{
	uint8_t *to = at;

	for (size_t i = 0; i < bytes; i++)
		to[i] = (uint8_t)rand_r(seed);
}

enum scribbled {
	SCRIBBLE_ALL,
	SCRIBBLE_DESC,
	SCRIBBLE_AVAIL,
	SCRIBBLE_USED
};

static void scribble_area(const struct raw *r, enum scribbled what, unsigned int *seed)
{
	const struct virtq_setup *a = &r->areas;

	if (what == SCRIBBLE_ALL || what == SCRIBBLE_DESC)
		scribble(guest_strip(a->desc), virtq_desc_bytes(a->format, a->size), seed);
	if (what == SCRIBBLE_ALL || what == SCRIBBLE_AVAIL)
		scribble(guest_strip(a->driver), virtq_driver_bytes(a->format, a->size), seed);
	if (what == SCRIBBLE_ALL || what == SCRIBBLE_USED)
		scribble(guest_strip(a->device), virtq_device_bytes(a->format, a->size), seed);
}

static enum check_status run_scribble(struct check *c, uint64_t what)
{
	struct peer *p = raw_victim(c, VIRTQ_SPLIT, what == SCRIBBLE_DESC);
	unsigned int seed = 1;
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	for (unsigned int i = 0; i < 200 && !peer_is_gone(p); i++) {
		scribble_area(&r, (enum scribbled)what, &seed);
		fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	}
	return check_survived(c, p, raw_settle(&r));
}

static enum check_status run_kick_storm(struct check *c, uint64_t queue)
{
	struct peer *p = raw_victim(c, VIRTQ_SPLIT, false);
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	for (unsigned int i = 0; i < NR_KICKS; i++)
		fd_signal(vhost_client_ring(p->vhost, (unsigned int)queue)->kick_fd);
	return check_survived(c, p, "nothing to answer");
}

#define KIND(clause, what, fn, arg)                                              \
	{                                                                        \
		"hostile: split ring", clause, what, TURN_HOSTILE, fn, arg, NULL \
	}
#define CHAIN(clause, what, ...)                                                 \
	{                                                                        \
		"hostile: split ring", clause, what, TURN_HOSTILE, run_chain, 0, \
			&(const struct bad_chain)                                \
		{                                                                \
			__VA_ARGS__                                              \
		}                                                                \
	}
#define GOOD_OUT                       \
	{                              \
		RAW_OUT, GOOD, NEXT, 1 \
	}
#define GOOD_IN                        \
	{                              \
		RAW_IN, GOOD, WRITE, 0 \
	}
#define IN_TABLE .indirect = true

/* clang-format off */
static const struct check_rule rules[] = {
	CHAIN("2.7.6", "head outside of the table", .d = { GOOD_OUT, GOOD_IN }, .head = RAW_RING_SIZE),
	CHAIN("2.7.6", "head 65535", .d = { GOOD_OUT, GOOD_IN }, .head = 0xffff),
	CHAIN("2.7.6", "the same head twice at once", .d = { GOOD_OUT, GOOD_IN }, .twice = true),
	KIND("2.7.6.1", "available index one ring and one ahead", run_index, RAW_RING_SIZE + 1),
	KIND("2.7.6.1", "available index 32768 ahead", run_index, 0x8000),
	KIND("2.7.6.1", "available index one back", run_index, 0xffff),
	CHAIN("2.7.5", "next outside of the table", .d = { { RAW_OUT, GOOD, NEXT, RAW_RING_SIZE } }),
	CHAIN("2.7.5", "next 65535", .d = { { RAW_OUT, GOOD, NEXT, 0xffff } }),
	CHAIN("2.7.5.2", "a descriptor that follows itself", .d = { { RAW_OUT, GOOD, NEXT, 0 } }),
	CHAIN("2.7.5.2", "a loop of two", .d = { GOOD_OUT, { RAW_IN, GOOD, WRITE | NEXT, 0 } }),
	CHAIN("2.7.5.2", "a loop through the whole ring, readable", .d = { { RAW_OUT, GOOD, NEXT, 0 } }, .whole_ring = true),
	CHAIN("2.7.5.2", "a loop through the whole ring, writable", .d = { { RAW_IN, GOOD, WRITE | NEXT, 0 } }, .whole_ring = true),
	CHAIN("2.7.5", "address 0", .d = { { RAW_ZERO, 56, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "request behind the memory", .d = { { RAW_BEYOND, 56, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "reply behind the memory", .d = { GOOD_OUT, { RAW_BEYOND, 120, WRITE, 0 } }),
	CHAIN("2.7.5", "request over the memory's end", .d = { { RAW_EDGE, 56, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "reply over the memory's end", .d = { GOOD_OUT, { RAW_EDGE, 120, WRITE, 0 } }),
	CHAIN("2.7.5", "request over 2^64", .d = { { RAW_TOP, 56, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "reply over 2^64", .d = { GOOD_OUT, { RAW_TOP, 120, WRITE, 0 } }),
	CHAIN("2.7.5", "address 2^63", .d = { { RAW_HALF, 56, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "request of 4 GiB - 1", .d = { { RAW_OUT, UINT32_MAX, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "reply of 4 GiB - 1", .d = { GOOD_OUT, { RAW_IN, UINT32_MAX, WRITE, 0 } }),
	CHAIN("2.7.5", "request of no bytes", .d = { { RAW_OUT, 0, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5", "reply of no bytes", .d = { GOOD_OUT, { RAW_IN, 0, WRITE, 0 } }),
	CHAIN("2.7.5", "one writable descriptor of no bytes", .d = { { RAW_IN, 0, WRITE, 0 } }),
	CHAIN("2.7.4.2", "writable before readable", .d = { { RAW_IN, GOOD, WRITE | NEXT, 1 }, { RAW_OUT, GOOD, 0, 0 } }),
	CHAIN("2.7.4.2", "readable, writable, readable", .d = { GOOD_OUT, { RAW_IN, GOOD, WRITE | NEXT, 2 }, { RAW_OUT, GOOD, 0, 0 } }),
	CHAIN("2.7.5", "nothing readable", .d = { { RAW_IN, GOOD, WRITE, 0 } }),
	CHAIN("2.7.5", "nothing writable for a request that has a reply", .d = { { RAW_OUT, GOOD, 0, 0 } }),
	CHAIN("2.7.5", "flags that do not exist", .d = { { RAW_OUT, GOOD, NEXT | 0xfff8, 1 }, { RAW_IN, GOOD, WRITE | 0xfff8, 0 } }),
	CHAIN("2.7.5", "the reply's room is the descriptor table", .d = { GOOD_OUT, { RAW_RING, 120, WRITE, 0 } }),
	CHAIN("2.7.5", "the reply's room is the used ring", .d = { GOOD_OUT, { RAW_USED, 120, WRITE, 0 } }),
	CHAIN("2.7.5", "the request is the descriptor table", .d = { { RAW_RING, 1024, NEXT, 1 }, GOOD_IN }),
	CHAIN("2.7.5.3.1", "INDIRECT that was not negotiated", .d = { { RAW_TABLE, 32, INDIRECT, 0 } }, .table = { GOOD_OUT, GOOD_IN }),
	CHAIN("2.7.5.3.1", "a table of no bytes", .d = { { RAW_TABLE, 0, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table of 17 bytes", .d = { { RAW_TABLE, 17, INDIRECT, 0 } }, .table = { GOOD_OUT, GOOD_IN }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table longer than the ring", .d = { { RAW_TABLE, 16 * 65536, INDIRECT, 0 } }, .table = { GOOD_OUT, GOOD_IN }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table of 4 GiB - 16", .d = { { RAW_TABLE, 0xfffffff0u, INDIRECT, 0 } }, .table = { GOOD_OUT, GOOD_IN }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table behind the memory", .d = { { RAW_BEYOND, 32, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table over the memory's end", .d = { { RAW_EDGE, 32, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table over 2^64", .d = { { RAW_TOP, 32, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table at an odd address", .d = { { RAW_ODD_TABLE, 32, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table in a table", .d = { { RAW_TABLE, 32, INDIRECT, 0 } }, .table = { { RAW_TABLE, 32, INDIRECT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "INDIRECT with NEXT", .d = { { RAW_TABLE, 32, INDIRECT | NEXT, 1 }, GOOD_IN }, .table = { GOOD_OUT, GOOD_IN }, IN_TABLE),
	CHAIN("2.7.5.3.1", "INDIRECT with WRITE", .d = { { RAW_TABLE, 32, INDIRECT | WRITE, 0 } }, .table = { GOOD_OUT, GOOD_IN }, IN_TABLE),
	CHAIN("2.7.5.3.1", "next outside of a table", .d = { { RAW_TABLE, 32, INDIRECT, 0 } }, .table = { { RAW_OUT, GOOD, NEXT, 2 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a loop in a table", .d = { { RAW_TABLE, 32, INDIRECT, 0 } }, .table = { GOOD_OUT, { RAW_IN, GOOD, WRITE | NEXT, 0 } }, IN_TABLE),
	CHAIN("2.7.5.3.1", "a table that lies in the ring", .d = { { RAW_RING, 32, INDIRECT, 0 } }, IN_TABLE),
	KIND("2.7", "random bytes all over the ring, 200 times", run_scribble, SCRIBBLE_ALL),
	KIND("2.7.5", "random bytes all over the descriptor table", run_scribble, SCRIBBLE_DESC),
	KIND("2.7.6", "random bytes all over the available ring", run_scribble, SCRIBBLE_AVAIL),
	KIND("2.7.8", "random bytes all over the used ring", run_scribble, SCRIBBLE_USED),
	KIND("2.7.13.4", "20000 notifications for nothing", run_kick_storm, FIRST_QUEUE),
	KIND("2.7.13.4", "20000 notifications for nothing, on hiprio", run_kick_storm, HIPRIO),
};
/* clang-format on */

const struct check_table check_hostile_split = { rules, array_size(rules) };
