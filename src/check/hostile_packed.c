/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Malformed packed rings: lists, ids, flags and tables that no driver may make (virtio 1.2, 2.8).
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "check/raw.h"

#define RING_SIZE 64u
#define NR_DESC	  2u

#define NEXT	 RING_DESC_NEXT
#define WRITE	 RING_DESC_WRITE
#define INDIRECT RING_DESC_INDIRECT

enum where {
	NOWHERE,
	OUT,
	IN,
	BEYOND,
	EDGE,
	TOP,
	RING,
	TABLE
};

struct packed_desc {
	enum where where;
	uint32_t len;
	uint16_t id;
	uint16_t flags;
};

struct packed_list {
	struct packed_desc d[NR_DESC];
	struct packed_desc table[NR_DESC];
	bool indirect;
	bool as_is; /* flags are AVAIL and USED as well */
	unsigned int repeat; /* the first one so often */
};

static uint64_t address(const struct raw *r, enum where where)
{
	switch (where) {
	case OUT:
		return r->out;
	case IN:
		return r->in;
	case BEYOND:
		return r->memory.gpa + r->memory.size;
	case EDGE:
		return r->memory.gpa + r->memory.size - 8;
	case TOP:
		return UINT64_MAX - 7;
	case RING:
		return r->memory.gpa +
		       ((uintptr_t)guest_strip(r->areas.desc) - r->memory.user_addr);
	case TABLE:
		return r->table;
	default:
		return 0;
	}
}

static struct peer *packed_victim(struct check *c, bool indirect)
{
	const struct peer_setup setup = { .format = VIRTQ_PACKED,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .indirect = indirect };
	struct peer *p = check_victim(c, &setup);

	if (p && indirect && !(vhost_client_features(p->vhost) & bit64(VIRTIO_F_RING_INDIRECT))) {
		c->no_peer = check_end(c, CHECK_NOT_OFFERED, "no indirect descriptors");
		return NULL;
	}
	return p;
}

static void add(struct raw *r, const struct packed_list *list, const struct packed_desc *d)
{
	if (list->as_is)
		raw_packed_flags(r, address(r, d->where), d->len, d->id, d->flags);
	else
		raw_packed(r, address(r, d->where), d->len, d->id, d->flags);
}

static enum check_status run_list(struct check *c, uint64_t arg)
{
	const struct packed_list *list = c->rule->data;
	struct peer *p = packed_victim(c, list->indirect);
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	for (uint32_t i = 0; i < NR_DESC; i++) {
		const struct packed_desc *t = &list->table[i];

		if (t->where != NOWHERE)
			raw_entry(&r, r.table, i, address(&r, t->where), t->len, t->flags, t->id);
	}
	for (unsigned int i = 0; i < list->repeat; i++)
		add(&r, list, &list->d[0]);
	for (uint32_t i = 0; i < NR_DESC && !list->repeat; i++) {
		if (list->d[i].where != NOWHERE)
			add(&r, list, &list->d[i]);
	}
	raw_publish(&r);
	return check_survived(c, p, raw_settle(&r));
}

static enum check_status run_scribble(struct check *c, uint64_t events_only)
{
	struct peer *p = packed_victim(c, false);
	unsigned int seed = 1;
	struct raw r;
	uint8_t *at;
	size_t bytes;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	at = guest_strip(events_only ? r.areas.driver : r.areas.desc);
	bytes = events_only ? virtq_driver_bytes(VIRTQ_PACKED, RING_SIZE)
			    : virtq_desc_bytes(VIRTQ_PACKED, RING_SIZE);
	for (unsigned int i = 0; i < 200 && !peer_is_gone(p); i++) {
		for (size_t k = 0; k < bytes; k++)
			at[k] = (uint8_t)rand_r(&seed);
		fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	}
	return check_survived(c, p, raw_settle(&r));
}

#define KIND(clause, what, fn, arg)                                               \
	{                                                                         \
		"hostile: packed ring", clause, what, TURN_HOSTILE, fn, arg, NULL \
	}
#define LIST(clause, what, ...)                                                  \
	{                                                                        \
		"hostile: packed ring", clause, what, TURN_HOSTILE, run_list, 0, \
			&(const struct packed_list)                              \
		{                                                                \
			__VA_ARGS__                                              \
		}                                                                \
	}
#define GOOD_OUT                 \
	{                        \
		OUT, 56, 0, NEXT \
	}
#define GOOD_IN                   \
	{                         \
		IN, 120, 0, WRITE \
	}
#define IN_TABLE .indirect = true

/* clang-format off */
static const struct check_rule rules[] = {
	LIST("2.8.1", "AVAIL and USED both set", .d = { { OUT, 56, 0, RING_DESC_AVAIL | RING_DESC_USED } }, .as_is = true),
	LIST("2.8.5", "a buffer id outside of the ring", .d = { { OUT, 56, 0xffff, NEXT }, { IN, 120, 0xffff, WRITE } }),
	LIST("2.8.6", "a list that does not end: NEXT in the whole ring", .d = { { OUT, 8, 0, NEXT } }, .repeat = RING_SIZE),
	LIST("2.8.6", "a list whose rest is not available", .d = { { OUT, 56, 0, NEXT } }),
	LIST("2.8.21", "the same buffer id in every descriptor", .d = { { IN, 8, 1, WRITE } }, .repeat = RING_SIZE),
	LIST("2.8.5", "request behind the memory", .d = { { BEYOND, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "reply behind the memory", .d = { GOOD_OUT, { BEYOND, 120, 0, WRITE } }),
	LIST("2.8.5", "request over the memory's end", .d = { { EDGE, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request over 2^64", .d = { { TOP, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request of 4 GiB - 1", .d = { { OUT, UINT32_MAX, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request of no bytes", .d = { { OUT, 0, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "writable before readable", .d = { { IN, 120, 0, WRITE | NEXT }, { OUT, 56, 0, 0 } }),
	LIST("2.8.5", "nothing readable", .d = { { IN, 120, 0, WRITE } }),
	LIST("2.8.5", "the reply's room is the ring", .d = { GOOD_OUT, { RING, 120, 0, WRITE } }),
	LIST("2.8.7", "INDIRECT that was not negotiated", .d = { { TABLE, 32, 0, INDIRECT } }, .table = { { OUT, 56, 0, 0 }, GOOD_IN }),
	LIST("2.8.7", "a table of no bytes", .d = { { TABLE, 0, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table of 17 bytes", .d = { { TABLE, 17, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table behind the memory", .d = { { BEYOND, 32, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table of 4 GiB - 16", .d = { { TABLE, 0xfffffff0u, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table in a table", .d = { { TABLE, 32, 0, INDIRECT } }, .table = { { TABLE, 32, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "INDIRECT with NEXT", .d = { { TABLE, 32, 0, INDIRECT | NEXT }, GOOD_IN }, .table = { { OUT, 56, 0, 0 }, GOOD_IN }, IN_TABLE),
	KIND("2.8", "random bytes all over the ring, 200 times", run_scribble, 0),
	KIND("2.8.10", "random bytes in the driver's event suppression", run_scribble, 1),
};
/* clang-format on */

const struct check_table check_hostile_packed = { rules, array_size(rules) };
