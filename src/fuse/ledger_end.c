/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a session: what the ledger holds is taken out piece by piece, to be given back to the daemon.
 *
 * One thread works here; a cursor over shards and buckets goes round once for the locks, once for the handles
 * and once for the nodes, however many calls that takes. The caller has waited for requests under way, but a
 * daemon may hang, and the wait is bounded: a late reply may come in meanwhile, so each shard is locked while it
 * is looked at, and what is pinned is passed over. It stays in the ledger and is paid back at the end of the next
 * session, as is what a late reply adds behind the cursor: a node in use is never forgotten, and nothing that
 * the daemon counted is lost. The driver may then name what it was not given in its new session; that harms
 * nobody but itself.
 */
#include "fuse/ledger_priv.h"

void ledger_end_begin(struct ledger *ledger)
{
	ledger->end_shard = 0;
	ledger->end_bucket = 0;
}

/*
 * The next bucket of the table of nodes or handles, from the cursor on, its shard locked; NULL at the end. The cursor
 * moves on with ledger->end_bucket++, after the lock was dropped.
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

/* @opens less; the last one unlinks the handle that *@link points to. Under the shard's lock. */
static void end_open(struct ledger *ledger, struct ledger_table *t, void **link, uint32_t opens)
{
	struct ledger_handle *h = *link;

	__atomic_sub_fetch(&ledger->nr_handles, opens, __ATOMIC_RELAXED);
	h->count -= opens;
	if (h->count)
		return;
	*link = h->next;
	t->nr--;
	h->node->nr_handles--;
	ledger_handle_free(h);
}

/* Take one open out of a bucket. Under the shard's lock. */
static bool take_open(struct ledger *ledger, struct ledger_table *t, void **link, uint32_t epoch,
		      struct ledger_payback *ret_item)
{
	while (*link) {
		struct ledger_handle *h = *link;

		if (__atomic_load_n(&h->pins, __ATOMIC_ACQUIRE)) {
			link = (void **)&h->next;
		} else if (h->epoch != epoch) {
			end_open(ledger, t, link, h->count);
		} else {
			fill_payback(h, ret_item);
			end_open(ledger, t, link, 1);
			return true;
		}
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
		found = take_open(ledger, t, bucket, epoch, ret_item);
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
static unsigned int take_nodes(struct ledger *ledger, struct ledger_table *t, void **link,
			       struct fuse_forget_one *items, unsigned int nr, unsigned int max)
{
	const uint32_t epoch = ledger_epoch(ledger);

	while (*link && nr < max) {
		struct ledger_node *n = *link;

		if (ledger_node_pins(n) || n->nr_handles) {
			link = (void **)&n->next;
			continue;
		}
		*link = n->next;
		t->nr--;
		__atomic_sub_fetch(&ledger->nr_nodes, 1, __ATOMIC_RELAXED);
		if (n->driver_id != n->daemon_id)
			ledger_alias_remove(ledger, n);
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

void ledger_end_done(struct ledger *ledger)
{
	/* Nothing is left that could be stale: the fast paths again. Late replies find them, or add something. */
	pthread_mutex_lock(&ledger->alias_lock);
	if (!ledger_nr_nodes(ledger) && !ledger_nr_handles(ledger))
		__atomic_store_n(&ledger->aliasing, false, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&ledger->alias_lock);
}
