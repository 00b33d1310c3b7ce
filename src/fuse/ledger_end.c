/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a session: what the ledger holds is taken out piece by piece, to be given back to the daemon.
 *
 * One thread works here; a cursor over shards and buckets goes round once for the locks, once for the handles
 * and once for the nodes, however many calls that takes. The caller has waited for requests under way, but a
 * daemon may hang, and the wait is bounded. So a late reply may come in meanwhile, and entries may still be
 * pinned. Each shard is locked while it is looked at. What is pinned is never given back (the daemon may be
 * using it): it is *left behind*, out of the driver's reach, and freed when its last pin is gone. What a late reply
 * adds behind the cursor is owed, and paid back at the end of the next session.
 */
#include "fuse/ledger_priv.h"

void ledger_end_begin(struct ledger *ledger)
{
	ledger->end_shard = 0;
	ledger->end_bucket = 0;
}

/*
 * The next bucket of the table of nodes or handles, from the cursor on, its shard locked; NULL at the end. The cursor
 * moves on with ledger->end_bucket++ before the lock is dropped.
 */
static void **end_bucket_lock(struct ledger *ledger, struct ledger_table **ret_table, bool nodes)
{
	while (ledger->end_shard < LEDGER_SHARDS) {
		struct ledger_shard *s = &ledger->shards[ledger->end_shard];
		struct ledger_table *t = nodes ? &s->nodes : &s->handles;

		pthread_mutex_lock(&s->lock);
		if (ledger->end_bucket <= t->mask) {
			*ret_table = t;
			return &t->buckets[ledger->end_bucket];
		}
		pthread_mutex_unlock(&s->lock);
		ledger->end_shard++;
		ledger->end_bucket = 0;
	}
	ledger_end_begin(ledger);
	return NULL;
}

static void end_bucket_unlock(struct ledger *ledger)
{
	pthread_mutex_unlock(&ledger->shards[ledger->end_shard].lock);
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

/* Take one lock owner out of a bucket's handles. Under the shard's lock. */
static bool take_lock(void *const *bucket, uint32_t epoch, struct ledger_payback *ret_item)
{
	for (struct ledger_handle *h = *bucket; h; h = h->next) {
		if (!h->nr_owners || h->epoch != epoch)
			continue;
		fill_payback(h, ret_item);
		ret_item->owner = h->owners[--h->nr_owners];
		return true;
	}
	return false;
}

bool ledger_end_lock(struct ledger *ledger, struct ledger_payback *ret_item)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	bool found = false;
	void **bucket;

	while (!found && (bucket = end_bucket_lock(ledger, &t, false))) {
		found = take_lock(bucket, epoch, ret_item);
		end_bucket_unlock(ledger);
		ledger->end_bucket += !found;
	}
	return found;
}

/* Unlink the first handle of a bucket. Under the shard's lock. */
static void unlink_handle(struct ledger *ledger, struct ledger_table *t, void **bucket)
{
	struct ledger_handle *h = *bucket;

	*bucket = h->next;
	t->nr--;
	__atomic_sub_fetch(&ledger->nr_handles, 1, __ATOMIC_RELAXED);
}

static bool take_handle(struct ledger *ledger, struct ledger_table *t, void **bucket,
			uint32_t epoch, struct ledger_payback *ret_item)
{
	while (*bucket) {
		struct ledger_handle *h = *bucket;
		const bool stale = h->epoch != epoch;

		if (__atomic_load_n(&h->pins, __ATOMIC_ACQUIRE)) {
			/* Its node counts it still, and stays for it. */
			unlink_handle(ledger, t, bucket);
			h->next = ledger->left_handles;
			ledger->left_handles = h;
			continue;
		}
		fill_payback(h, ret_item);
		if (stale || --h->count == 0) {
			unlink_handle(ledger, t, bucket);
			h->node->nr_handles--;
			ledger_handle_free(h);
		}
		if (!stale)
			return true;
	}
	return false;
}

bool ledger_end_handle(struct ledger *ledger, struct ledger_payback *ret_item)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	bool found = false;
	void **bucket;

	while (!found && (bucket = end_bucket_lock(ledger, &t, false))) {
		found = take_handle(ledger, t, bucket, epoch, ret_item);
		end_bucket_unlock(ledger);
		ledger->end_bucket += !found;
	}
	return found;
}

static unsigned int end_debts(struct ledger *ledger, uint32_t epoch, struct fuse_forget_one *items,
			      unsigned int nr, unsigned int max)
{
	pthread_mutex_lock(&ledger->debt_lock);
	while (nr < max && ledger->nr_debts) {
		const struct ledger_debt *d = &ledger->debts[--ledger->nr_debts];

		if (d->epoch == epoch)
			items[nr++] = (struct fuse_forget_one){ d->nodeid, d->nlookup };
	}
	pthread_mutex_unlock(&ledger->debt_lock);
	return nr;
}

/* Take nodes out of a bucket until @items is full. Under the shard's and the alias lock. */
static unsigned int take_nodes(struct ledger *ledger, struct ledger_table *t, void **bucket,
			       struct fuse_forget_one *items, unsigned int nr, unsigned int max)
{
	const uint32_t epoch = ledger_epoch(ledger);

	while (*bucket && nr < max) {
		struct ledger_node *n = *bucket;

		*bucket = n->next;
		t->nr--;
		__atomic_sub_fetch(&ledger->nr_nodes, 1, __ATOMIC_RELAXED);
		if (n->driver_id != n->daemon_id)
			ledger_alias_remove(ledger, n);
		if (ledger_node_pins(n) || n->nr_handles) {
			n->next = ledger->left_nodes;
			ledger->left_nodes = n;
			continue;
		}
		if (n->epoch == epoch)
			items[nr++] =
				(struct fuse_forget_one){ n->daemon_id, n->nlookup + n->owed };
		free(n);
	}
	return nr;
}

unsigned int ledger_end_forgets(struct ledger *ledger, struct fuse_forget_one *items,
				unsigned int max)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_table *t;
	unsigned int nr = 0;
	void **bucket;

	pthread_mutex_lock(&ledger->alias_lock);
	while (nr < max && (bucket = end_bucket_lock(ledger, &t, true))) {
		nr = take_nodes(ledger, t, bucket, items, nr, max);
		end_bucket_unlock(ledger);
		ledger->end_bucket += nr < max;
	}
	pthread_mutex_unlock(&ledger->alias_lock);
	return nr == max ? nr : end_debts(ledger, epoch, items, nr, max);
}

/* Free what was left behind and is not pinned any more. */
static void sweep_left(struct ledger *ledger)
{
	struct ledger_handle **hp = &ledger->left_handles;
	struct ledger_node **np = &ledger->left_nodes;

	while (*hp) {
		struct ledger_handle *h = *hp;

		if (__atomic_load_n(&h->pins, __ATOMIC_ACQUIRE)) {
			hp = &h->next;
			continue;
		}
		*hp = h->next;
		h->node->nr_handles--;
		ledger_handle_free(h);
	}
	while (*np) {
		struct ledger_node *n = *np;

		if (ledger_node_pins(n) || n->nr_handles) {
			np = &n->next;
			continue;
		}
		*np = n->next;
		free(n);
	}
}

void ledger_end_done(struct ledger *ledger)
{
	sweep_left(ledger);
	/* Nothing is left that could be stale: the fast paths again. A late reply may have added something. */
	pthread_mutex_lock(&ledger->alias_lock);
	if (!ledger_nr_nodes(ledger) && !ledger_nr_handles(ledger) && !ledger->left_handles &&
	    !ledger->left_nodes)
		__atomic_store_n(&ledger->epoch, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&ledger->alias_lock);
}
