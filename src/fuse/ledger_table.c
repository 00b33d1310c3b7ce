/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hash tables of the ledger: chained, growing, and usable without any memory of their own.
 */
#include "fuse/ledger_priv.h"

#include <string.h>

static uint64_t handle_hash(uint64_t driver_id, uint64_t fh, bool dir)
{
	return ledger_mix(ledger_mix(driver_id) + fh * 2 + dir);
}

void ledger_table_init(struct ledger_table *t)
{
	t->buckets = t->first;
	t->mask = BUCKETS_MIN - 1;
	t->nr = 0;
	memset(t->first, 0, sizeof(t->first));
}

void ledger_table_fini(struct ledger_table *t)
{
	if (t->buckets != t->first)
		free(t->buckets);
	ledger_table_init(t);
}

uint64_t ledger_node_hash(const void *entry)
{
	return ledger_mix(((const struct ledger_node *)entry)->driver_id);
}

uint64_t ledger_handle_hash(const void *entry)
{
	const struct ledger_handle *h = entry;

	return handle_hash(h->node->driver_id, h->fh, h->dir);
}

/* Twice the buckets; without memory the chains just grow longer. */
static void table_grow(struct ledger_table *t, uint64_t (*hash_of)(const void *))
{
	const uint32_t nr_old = t->mask + 1;
	void **buckets;

	if (t->nr <= nr_old || nr_old > UINT32_MAX / 4)
		return;
	buckets = calloc((size_t)nr_old * 2, sizeof(*buckets));
	if (!buckets)
		return;
	for (uint32_t i = 0; i < nr_old; i++) {
		void *entry = t->buckets[i];

		while (entry) {
			void **link = entry, *next = *link;
			void **bucket = &buckets[hash_of(entry) & (nr_old * 2 - 1)];

			*link = *bucket;
			*bucket = entry;
			entry = next;
		}
	}
	if (t->buckets != t->first)
		free(t->buckets);
	t->buckets = buckets;
	t->mask = nr_old * 2 - 1;
}

void ledger_table_add(struct ledger_table *t, void *entry, uint64_t (*hash_of)(const void *))
{
	void **bucket;

	t->nr++;
	table_grow(t, hash_of);
	bucket = &t->buckets[hash_of(entry) & t->mask];
	*(void **)entry = *bucket;
	*bucket = entry;
}

void ledger_table_remove(struct ledger_table *t, void *entry, uint64_t hash)
{
	void **link = &t->buckets[hash & t->mask];

	while (*link != entry)
		link = *link;
	*link = *(void **)entry;
	t->nr--;
}

struct ledger_node *ledger_find_node(struct ledger_shard *s, uint64_t driver_id)
{
	struct ledger_node *n = s->nodes.buckets[ledger_mix(driver_id) & s->nodes.mask];

	while (n && n->driver_id != driver_id)
		n = n->next;
	return n;
}

struct ledger_handle *ledger_find_handle(struct ledger_shard *s, uint64_t driver_id, uint64_t fh,
					 bool dir)
{
	struct ledger_handle *h =
		s->handles.buckets[handle_hash(driver_id, fh, dir) & s->handles.mask];

	while (h && (h->fh != fh || h->node->driver_id != driver_id || h->dir != dir))
		h = h->next;
	return h;
}

/*
 * The alias table links through alias_next; its entries are few or many, but only there after a daemon was
 * lost. Keyed by the daemon's number and the epoch.
 */
static struct ledger_node **alias_bucket(struct ledger *ledger, uint64_t daemon_id)
{
	return (struct ledger_node **)&ledger->aliases
		.buckets[ledger_mix(daemon_id) & ledger->aliases.mask];
}

static void alias_grow(struct ledger *ledger)
{
	struct ledger_table *t = &ledger->aliases;
	const uint32_t nr_old = t->mask + 1;
	void **old = t->buckets;
	void **buckets;

	if (t->nr <= nr_old || nr_old > UINT32_MAX / 4)
		return;
	buckets = calloc((size_t)nr_old * 2, sizeof(*buckets));
	if (!buckets)
		return;
	t->buckets = buckets;
	t->mask = nr_old * 2 - 1;
	for (uint32_t i = 0; i < nr_old; i++) {
		struct ledger_node *n = old[i];

		while (n) {
			struct ledger_node *next = n->alias_next;
			struct ledger_node **bucket = alias_bucket(ledger, n->daemon_id);

			n->alias_next = *bucket;
			*bucket = n;
			n = next;
		}
	}
	if (old != t->first)
		free(old);
}

void ledger_alias_add(struct ledger *ledger, struct ledger_node *n)
{
	struct ledger_node **bucket;

	ledger->aliases.nr++;
	alias_grow(ledger);
	bucket = alias_bucket(ledger, n->daemon_id);
	n->alias_next = *bucket;
	*bucket = n;
}

void ledger_alias_remove(struct ledger *ledger, struct ledger_node *n)
{
	struct ledger_node **link = alias_bucket(ledger, n->daemon_id);

	while (*link != n)
		link = &(*link)->alias_next;
	*link = n->alias_next;
	ledger->aliases.nr--;
}

struct ledger_node *ledger_alias_find(struct ledger *ledger, uint64_t daemon_id, uint32_t epoch)
{
	struct ledger_node *n = *alias_bucket(ledger, daemon_id);

	while (n && (n->daemon_id != daemon_id || n->epoch != epoch))
		n = n->alias_next;
	return n;
}
