/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Malformed packed rings: lists, ids, flags and tables that no driver may make (virtio 1.2, 2.8).
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "check/raw.h"

#define NR_DESC 2u

#define NEXT	 RING_DESC_NEXT
#define WRITE	 RING_DESC_WRITE
#define INDIRECT RING_DESC_INDIRECT

struct packed_desc {
	enum raw_place where;
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

static void add(struct raw *r, const struct packed_list *list, const struct packed_desc *d)
{
	if (list->as_is)
		raw_packed_flags(r, raw_address(r, d->where), d->len, d->id, d->flags);
	else
		raw_packed(r, raw_address(r, d->where), d->len, d->id, d->flags);
}

static enum check_status run_list(struct check *c, uint64_t arg)
{
	const struct packed_list *list = c->rule->data;
	struct peer *p = raw_victim(c, VIRTQ_PACKED, list->indirect);
	struct raw r;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	for (uint32_t i = 0; i < NR_DESC; i++) {
		const struct packed_desc *t = &list->table[i];

		if (t->where != RAW_NOWHERE)
			raw_entry(&r, r.table, i, raw_address(&r, t->where), t->len, t->flags,
				  t->id);
	}
	for (unsigned int i = 0; i < list->repeat; i++)
		add(&r, list, &list->d[0]);
	for (uint32_t i = 0; i < NR_DESC && !list->repeat; i++) {
		if (list->d[i].where != RAW_NOWHERE)
			add(&r, list, &list->d[i]);
	}
	raw_publish(&r);
	return check_survived(c, p, raw_settle(&r));
}

static enum check_status run_scribble(struct check *c, uint64_t events_only)
{
	struct peer *p = raw_victim(c, VIRTQ_PACKED, false);
	unsigned int seed = 1;
	struct raw r;
	uint8_t *at;
	size_t bytes;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	at = guest_strip(events_only ? r.areas.driver : r.areas.desc);
	bytes = events_only ? virtq_driver_bytes(VIRTQ_PACKED, RAW_RING_SIZE)
			    : virtq_desc_bytes(VIRTQ_PACKED, RAW_RING_SIZE);
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
#define GOOD_OUT                     \
	{                            \
		RAW_OUT, 56, 0, NEXT \
	}
#define GOOD_IN                       \
	{                             \
		RAW_IN, 120, 0, WRITE \
	}
#define IN_TABLE .indirect = true

/* clang-format off */
static const struct check_rule rules[] = {
	LIST("2.8.1", "AVAIL and USED both set", .d = { { RAW_OUT, 56, 0, RING_DESC_AVAIL | RING_DESC_USED } }, .as_is = true),
	LIST("2.8.5", "a buffer id outside of the ring", .d = { { RAW_OUT, 56, 0xffff, NEXT }, { RAW_IN, 120, 0xffff, WRITE } }),
	LIST("2.8.6", "a list that does not end: NEXT in the whole ring", .d = { { RAW_OUT, 8, 0, NEXT } }, .repeat = RAW_RING_SIZE),
	LIST("2.8.6", "a list whose rest is not available", .d = { { RAW_OUT, 56, 0, NEXT } }),
	LIST("2.8.21", "the same buffer id in every descriptor", .d = { { RAW_IN, 8, 1, WRITE } }, .repeat = RAW_RING_SIZE),
	LIST("2.8.5", "request behind the memory", .d = { { RAW_BEYOND, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "reply behind the memory", .d = { GOOD_OUT, { RAW_BEYOND, 120, 0, WRITE } }),
	LIST("2.8.5", "request over the memory's end", .d = { { RAW_EDGE, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request over 2^64", .d = { { RAW_TOP, 56, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request of 4 GiB - 1", .d = { { RAW_OUT, UINT32_MAX, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "request of no bytes", .d = { { RAW_OUT, 0, 0, NEXT }, GOOD_IN }),
	LIST("2.8.5", "writable before readable", .d = { { RAW_IN, 120, 0, WRITE | NEXT }, { RAW_OUT, 56, 0, 0 } }),
	LIST("2.8.5", "nothing readable", .d = { { RAW_IN, 120, 0, WRITE } }),
	LIST("2.8.5", "the reply's room is the ring", .d = { GOOD_OUT, { RAW_RING, 120, 0, WRITE } }),
	LIST("2.8.7", "INDIRECT that was not negotiated", .d = { { RAW_TABLE, 32, 0, INDIRECT } }, .table = { { RAW_OUT, 56, 0, 0 }, GOOD_IN }),
	LIST("2.8.7", "a table of no bytes", .d = { { RAW_TABLE, 0, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table of 17 bytes", .d = { { RAW_TABLE, 17, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table behind the memory", .d = { { RAW_BEYOND, 32, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table of 4 GiB - 16", .d = { { RAW_TABLE, 0xfffffff0u, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "a table in a table", .d = { { RAW_TABLE, 32, 0, INDIRECT } }, .table = { { RAW_TABLE, 32, 0, INDIRECT } }, IN_TABLE),
	LIST("2.8.7", "INDIRECT with NEXT", .d = { { RAW_TABLE, 32, 0, INDIRECT | NEXT }, GOOD_IN }, .table = { { RAW_OUT, 56, 0, 0 }, GOOD_IN }, IN_TABLE),
	KIND("2.8", "random bytes all over the ring, 200 times", run_scribble, 0),
	KIND("2.8.10", "random bytes in the driver's event suppression", run_scribble, 1),
};
/* clang-format on */

const struct check_table check_hostile_packed = { rules, array_size(rules) };
