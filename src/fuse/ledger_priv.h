/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the ledger: its structures and hash tables; for src/fuse/ledger*.c only.
 */
#ifndef FUSEWIRE_FUSE_LEDGER_PRIV_H
#define FUSEWIRE_FUSE_LEDGER_PRIV_H

#include <pthread.h>
#include <stdlib.h>

#include "fuse/ledger.h"

/** SHARD_BITS - log2 of the number of independently locked parts. */
#define SHARD_BITS 6
/** LEDGER_SHARDS - parts. */
#define LEDGER_SHARDS (1u << SHARD_BITS)
/** BUCKETS_MIN - buckets of an empty table, which need no memory of their own. */
#define BUCKETS_MIN 8u
/** ALIAS_FIRST - first number that is tried for an alias; daemons count from below or use addresses, which end below too. */
#define ALIAS_FIRST (UINT64_C(1) << 63)
/** ALIAS_GENERATION_SHIFT - numbers of a later generation of the ledger differ above this bit. */
#define ALIAS_GENERATION_SHIFT 44
/** HANDLE_GENERATION_SHIFT - likewise for handles: above what counters and addresses use. */
#define HANDLE_GENERATION_SHIFT 56

/**
 * struct ledger_node - a node that the driver may name; all but @pins under the shard's lock.
 * @next: in the bucket; must be first
 * @alias_next: in the bucket of the alias table
 * @driver_id: as the driver names it; never changes, like the next two
 * @daemon_id: as the daemon names it
 * @epoch: of the daemon that it belongs to
 * @nlookup: lookups that the driver holds
 * @owed: lookups that the daemon counted besides
 * @pins: requests that use it; dropped without the lock
 * @nr_handles: open handles
 */
struct ledger_node {
	struct ledger_node *next;
	struct ledger_node *alias_next;
	uint64_t driver_id;
	uint64_t daemon_id;
	uint64_t nlookup;
	uint64_t owed;
	uint32_t epoch;
	uint32_t pins;
	uint32_t nr_handles;
};

/**
 * struct ledger_handle - an open file or directory; all but @pins under the shard's lock.
 * @next: in the bucket; must be first
 * @node: lives as long as the handle
 * @fh: as the driver names it
 * @daemon_fh: as the daemon names it
 * @flock_owner: who holds the flock(2) lock
 * @owners: who holds posix locks
 * @nr_owners: number of them
 * @owners_cap: room for them
 * @epoch: of the daemon that it belongs to
 * @count: opens that were answered with this number
 * @pins: requests that use it; dropped without the lock
 * @flags: open flags
 * @dir: opened by OPENDIR
 * @flocked: @flock_owner is set
 */
struct ledger_handle {
	struct ledger_handle *next;
	struct ledger_node *node;
	uint64_t fh;
	uint64_t daemon_fh;
	uint64_t flock_owner;
	uint64_t *owners;
	uint32_t nr_owners;
	uint32_t owners_cap;
	uint32_t epoch;
	uint32_t count;
	uint32_t pins;
	uint32_t flags;
	bool dir;
	bool flocked;
};

/**
 * struct ledger_table - a chained hash table; an entry begins with its link.
 * @buckets: heads
 * @mask: number of buckets less one
 * @nr: entries
 * @first: buckets of a small table
 */
struct ledger_table {
	void **buckets;
	uint32_t mask;
	uint32_t nr;
	void *first[BUCKETS_MIN];
};

/**
 * struct ledger_shard - a part of the ledger.
 * @lock: of all in it
 * @nodes: by the driver's id
 * @handles: by the driver's node id and handle
 */
struct ledger_shard {
	pthread_mutex_t lock;
	struct ledger_table nodes;
	struct ledger_table handles;
} cache_aligned;

/**
 * struct ledger_debt - lookups of the daemon's that no node could be made for.
 * @nodeid: the daemon's
 * @nlookup: how many
 * @epoch: of the daemon
 */
struct ledger_debt {
	uint64_t nodeid;
	uint64_t nlookup;
	uint32_t epoch;
};

/**
 * struct ledger - see ledger.h.
 * @shards: the parts
 * @root: for handles of the root; counts nothing
 * @epoch: daemons lost; grows at any time
 * @aliasing: a daemon was lost, and something of it may be left
 * @nr_nodes: in all shards
 * @nr_handles: opens in all shards
 * @alias_lock: of the next two; taken before a shard's
 * @aliases: nodes whose ids differ, by the daemon's id
 * @next_alias: the next number to try
 * @generation: not 0: every number towards the driver is an alias, in a range of its own
 * @debt_lock: of the next two
 * @debts: what could not be recorded
 * @nr_debts: number of them
 * @end_shard: where the pay-back is
 * @end_bucket: where the pay-back is in that shard
 */
struct ledger {
	struct ledger_shard shards[LEDGER_SHARDS];
	struct ledger_node root;
	uint32_t epoch cache_aligned;
	bool aliasing;
	uint64_t nr_nodes cache_aligned;
	uint64_t nr_handles;
	pthread_mutex_t alias_lock cache_aligned;
	struct ledger_table aliases;
	uint64_t next_alias;
	uint32_t generation;
	pthread_mutex_t debt_lock;
	struct ledger_debt debts[LEDGER_DEBTS_MAX];
	unsigned int nr_debts;
	unsigned int end_shard;
	uint32_t end_bucket;
};

/** ledger_mix() - spread the bits of a number. */
static inline uint64_t ledger_mix(uint64_t v)
{
	v *= UINT64_C(0x9e3779b97f4a7c15);
	return v ^ (v >> 29);
}

/** ledger_shard_of() - where a node and its handles are. */
static inline struct ledger_shard *ledger_shard_of(struct ledger *ledger, uint64_t driver_id)
{
	return &ledger->shards[ledger_mix(driver_id) >> (64 - SHARD_BITS)];
}

/** ledger_node_pins() - requests that use the node; none: whatever they did is visible. */
static inline uint32_t ledger_node_pins(const struct ledger_node *n)
{
	return __atomic_load_n(&n->pins, __ATOMIC_ACQUIRE);
}

/** ledger_handle_free() - free a handle that is in no table. */
static inline void ledger_handle_free(struct ledger_handle *h)
{
	free(h->owners);
	free(h);
}

/** ledger_table_init() - empty, with its first buckets. */
void ledger_table_init(struct ledger_table *t);
/** ledger_table_fini() - give the buckets back and be empty; the entries are the caller's. */
void ledger_table_fini(struct ledger_table *t);
/** ledger_table_add() - add an entry, and more buckets when there is memory for them. */
void ledger_table_add(struct ledger_table *t, void *entry, uint64_t (*hash_of)(const void *));
/** ledger_table_remove() - unlink an entry that is in the table. */
void ledger_table_remove(struct ledger_table *t, void *entry, uint64_t hash);
/** ledger_node_hash() - hash of a struct ledger_node. */
uint64_t ledger_node_hash(const void *entry);
/** ledger_handle_hash() - hash of a struct ledger_handle. */
uint64_t ledger_handle_hash(const void *entry);
/** ledger_find_node() - by the driver's id. Return: NULL when there is none. */
struct ledger_node *ledger_find_node(struct ledger_shard *s, uint64_t driver_id);
/** ledger_find_handle() - by the driver's numbers. Return: NULL when there is none. */
struct ledger_handle *ledger_find_handle(struct ledger_shard *s, uint64_t driver_id, uint64_t fh,
					 bool dir);
/** ledger_alias_add() - remember a node whose ids differ. Context: alias lock held, as for those below. */
void ledger_alias_add(struct ledger *ledger, struct ledger_node *n);
/** ledger_alias_remove() - forget an alias. */
void ledger_alias_remove(struct ledger *ledger, struct ledger_node *n);
/** ledger_alias_find() - by the daemon's id and its epoch. Return: NULL when there is none. */
struct ledger_node *ledger_alias_find(struct ledger *ledger, uint64_t daemon_id, uint32_t epoch);

#endif
