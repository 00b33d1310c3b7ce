/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a session: what the ledger holds is taken out piece by piece, to be given back to the daemon.
 *
 * One thread alone works here, with nothing pinned; a cursor over shards and buckets goes round once for the
 * locks, once for the handles and once for the nodes, however many calls that takes.
 */
#include "fuse/ledger_priv.h"

void ledger_end_begin(struct ledger *ledger)
{
	ledger->end_shard = 0;
	ledger->end_bucket = 0;
}

/* Next bucket of the table at @off in each shard, from the cursor on, or NULL at the end. */
static void **end_bucket(struct ledger *ledger, struct ledger_table **ret_table, bool nodes)
{
	while (ledger->end_shard < LEDGER_SHARDS) {
		struct ledger_shard *s = &ledger->shards[ledger->end_shard];
		struct ledger_table *t = nodes ? &s->nodes : &s->handles;

		if (ledger->end_bucket <= t->mask) {
			*ret_table = t;
			return &t->buckets[ledger->end_bucket];
		}
		ledger->end_shard++;
		ledger->end_bucket = 0;
	}
	ledger_end_begin(ledger);
	return NULL;
}

static void fill_payback(const struct ledger_handle *h, struct ledger_payback *item)
{
	*item = (struct ledger_payback){
		.nodeid = h->node->daemon_id,
		.fh = h->daemon_fh,
		.owner = h->flock_owner,
		.flags = h->flags,
		.dir = h->dir,
		.flocked = h->flocked,
	};
}

bool ledger_end_lock(struct ledger *ledger, struct ledger_payback *ret_item)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	void **bucket;

	for (; (bucket = end_bucket(ledger, &t, false)); ledger->end_bucket++) {
		for (struct ledger_handle *h = *bucket; h; h = h->next) {
			if (!h->nr_owners || h->epoch != epoch)
				continue;
			fill_payback(h, ret_item);
			ret_item->owner = h->owners[--h->nr_owners];
			return true;
		}
	}
	return false;
}

bool ledger_end_handle(struct ledger *ledger, struct ledger_payback *ret_item)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	void **bucket;

	for (; (bucket = end_bucket(ledger, &t, false)); ledger->end_bucket++) {
		while (*bucket) {
			struct ledger_handle *h = *bucket;
			const bool stale = h->epoch != epoch;

			fill_payback(h, ret_item);
			if (stale || --h->count == 0) {
				*bucket = h->next;
				t->nr--;
				h->node->nr_handles--;
				__atomic_sub_fetch(&ledger->nr_handles, 1, __ATOMIC_RELAXED);
				ledger_handle_free(h);
			}
			if (!stale)
				return true;
		}
	}
	return false;
}

static unsigned int end_debts(struct ledger *ledger, uint32_t epoch, struct fuse_forget_one *items,
			      unsigned int nr, unsigned int max)
{
	while (nr < max && ledger->nr_debts) {
		const struct ledger_debt *d = &ledger->debts[--ledger->nr_debts];

		if (d->epoch == epoch)
			items[nr++] = (struct fuse_forget_one){ d->nodeid, d->nlookup };
	}
	return nr;
}

unsigned int ledger_end_forgets(struct ledger *ledger, struct fuse_forget_one *items,
				unsigned int max)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	void **bucket;
	unsigned int nr = 0;

	for (; (bucket = end_bucket(ledger, &t, true)); ledger->end_bucket++) {
		while (*bucket && nr < max) {
			struct ledger_node *n = *bucket;

			assert(!ledger_node_pins(n));
			*bucket = n->next;
			t->nr--;
			__atomic_sub_fetch(&ledger->nr_nodes, 1, __ATOMIC_RELAXED);
			if (n->epoch == epoch)
				items[nr++] = (struct fuse_forget_one){ n->daemon_id,
									n->nlookup + n->owed };
			free(n);
		}
		if (nr == max)
			return nr;
	}
	return end_debts(ledger, epoch, items, nr, max);
}
