/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ledger of node ids, lookup counts, handles and locks.
 *
 * Theory of operation
 *
 * Nodes are keyed by the driver's id, handles by (the driver's node id, the driver's handle, file or
 * directory). Both are spread over LEDGER_SHARDS shards by the node id alone, so that a handle and its node lie
 * under one lock. The root is no entry: it is always there, never stale, and never counted.
 *
 * A node lives while the driver holds lookups, a request has it pinned, a handle is open on it, or we owe the
 * daemon something. Pins are added under the shard's lock and dropped without it: a drop never frees. So a
 * FORGET that meets a pinned node cannot wait for it; it keeps one lookup of the daemon's ("owed") until the
 * session ends. Many daemons use pointers as node ids: this is what keeps a driver from making them touch
 * freed memory. The end of a session has the same rule, see ledger_end.c.
 *
 * An epoch is the time between two losses of the daemon. A node or handle of an earlier epoch is stale. Its id
 * stays taken while the driver holds it, so a later daemon's equal number gets another id towards the driver;
 * the alias table finds it by the daemon's number. Once a daemon was lost, everything that adds or frees a node
 * takes the alias lock first (order: alias lock, then shard lock), before that nothing needs it: the epoch is
 * read once, and a node that is added under an epoch which ends meanwhile is simply born stale.
 */
#include "fuse/ledger_priv.h"

#include <errno.h>
#include <string.h>

int ledger_new(struct ledger **ret_ledger)
{
	struct ledger *ledger = aligned_alloc(CACHE_LINE, sizeof(*ledger));

	if (!ledger)
		return -ENOMEM;
	memset(ledger, 0, sizeof(*ledger));
	for (unsigned int i = 0; i < LEDGER_SHARDS; i++) {
		pthread_mutex_init(&ledger->shards[i].lock, NULL);
		ledger_table_init(&ledger->shards[i].nodes);
		ledger_table_init(&ledger->shards[i].handles);
	}
	pthread_mutex_init(&ledger->alias_lock, NULL);
	pthread_mutex_init(&ledger->debt_lock, NULL);
	ledger_table_init(&ledger->aliases);
	ledger->next_alias = ALIAS_FIRST;
	ledger->root.driver_id = FUSE_ROOT_ID;
	ledger->root.daemon_id = FUSE_ROOT_ID;
	*ret_ledger = ledger;
	return 0;
}

void ledger_succeed(struct ledger *ledger, uint32_t generation)
{
	ledger->generation = generation;
	ledger->aliasing = true;
	/* Wraps after half a million daemons; a number of the one before is not met then either. */
	ledger->next_alias = ALIAS_FIRST | (uint64_t)generation << ALIAS_GENERATION_SHIFT;
}

/* Nothing is pinned any more. */
static void free_entries(struct ledger *ledger)
{
	for (unsigned int i = 0; i < LEDGER_SHARDS; i++) {
		struct ledger_shard *s = &ledger->shards[i];

		for (uint32_t b = 0; b <= s->handles.mask; b++) {
			struct ledger_handle *h = s->handles.buckets[b];

			while (h) {
				struct ledger_handle *next = h->next;

				ledger_handle_free(h);
				h = next;
			}
		}
		for (uint32_t b = 0; b <= s->nodes.mask; b++) {
			struct ledger_node *n = s->nodes.buckets[b];

			while (n) {
				struct ledger_node *next = n->next;

				free(n);
				n = next;
			}
		}
		ledger_table_fini(&s->handles);
		ledger_table_fini(&s->nodes);
	}
	ledger_table_fini(&ledger->aliases);
}

void ledger_free(struct ledger *ledger)
{
	if (!ledger)
		return;
	free_entries(ledger);
	for (unsigned int i = 0; i < LEDGER_SHARDS; i++)
		pthread_mutex_destroy(&ledger->shards[i].lock);
	pthread_mutex_destroy(&ledger->alias_lock);
	pthread_mutex_destroy(&ledger->debt_lock);
	free(ledger);
}

uint32_t ledger_epoch(const struct ledger *ledger)
{
	return __atomic_load_n(&ledger->epoch, __ATOMIC_ACQUIRE);
}

void ledger_lost(struct ledger *ledger)
{
	/* In this order: who sees the new epoch sees that there are aliases. */
	__atomic_store_n(&ledger->aliasing, true, __ATOMIC_RELEASE);
	__atomic_add_fetch(&ledger->epoch, 1, __ATOMIC_ACQ_REL);
}

uint64_t ledger_nr_nodes(const struct ledger *ledger)
{
	return __atomic_load_n(&ledger->nr_nodes, __ATOMIC_RELAXED);
}

uint64_t ledger_nr_handles(const struct ledger *ledger)
{
	return __atomic_load_n(&ledger->nr_handles, __ATOMIC_RELAXED);
}

static bool is_root(const struct ledger_node *node)
{
	return node->driver_id == FUSE_ROOT_ID;
}

int ledger_pin_node(struct ledger *ledger, uint32_t epoch, uint64_t *id,
		    struct ledger_node **ret_node)
{
	struct ledger_shard *s = ledger_shard_of(ledger, *id);
	struct ledger_node *n;
	int err = -ESTALE;

	if (*id == FUSE_ROOT_ID) {
		/* Never freed: no need to count. */
		*ret_node = NULL;
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	n = ledger_find_node(s, *id);
	if (n && n->nlookup && n->epoch == epoch) {
		__atomic_add_fetch(&n->pins, 1, __ATOMIC_RELAXED);
		*id = n->daemon_id;
		*ret_node = n;
		err = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

int ledger_pin_handle(struct ledger *ledger, uint32_t epoch, uint64_t *id, uint64_t *fh, bool dir,
		      struct ledger_handle **ret_handle)
{
	struct ledger_shard *s = ledger_shard_of(ledger, *id);
	struct ledger_handle *h;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	h = ledger_find_handle(s, *id, *fh, dir);
	if (!h) {
		err = -EBADF;
	} else if (h->epoch != epoch) {
		err = -ESTALE;
	} else {
		__atomic_add_fetch(&h->pins, 1, __ATOMIC_RELAXED);
		*id = h->node->daemon_id;
		*fh = h->daemon_fh;
		*ret_handle = h;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

/* Release pairs with the acquire of whoever finds no pins and frees. */
void ledger_unpin_node(struct ledger_node *node)
{
	if (node)
		__atomic_sub_fetch(&node->pins, 1, __ATOMIC_RELEASE);
}

void ledger_unpin_handle(struct ledger_handle *handle)
{
	if (handle)
		__atomic_sub_fetch(&handle->pins, 1, __ATOMIC_RELEASE);
}

int ledger_release(struct ledger *ledger, uint32_t epoch, uint64_t *id, uint64_t *fh, bool dir,
		   struct ledger_node **ret_node)
{
	struct ledger_shard *s = ledger_shard_of(ledger, *id);
	struct ledger_handle *h;
	bool gone = false;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	h = ledger_find_handle(s, *id, *fh, dir);
	if (!h) {
		err = -EBADF;
	} else if (h->count == 1 && __atomic_load_n(&h->pins, __ATOMIC_ACQUIRE)) {
		err = -EBUSY;
	} else {
		if (h->epoch != epoch) {
			err = -EALREADY;
		} else if (is_root(h->node)) {
			*ret_node = NULL;
		} else {
			__atomic_add_fetch(&h->node->pins, 1, __ATOMIC_RELAXED);
			*ret_node = h->node;
		}
		*id = h->node->daemon_id;
		gone = --h->count == 0;
		__atomic_sub_fetch(&ledger->nr_handles, 1, __ATOMIC_RELAXED);
	}
	if (gone) {
		ledger_table_remove(&s->handles, h, ledger_handle_hash(h));
		h->node->nr_handles--;
	}
	if (err == 0)
		*fh = h->daemon_fh;
	pthread_mutex_unlock(&s->lock);
	if (gone)
		ledger_handle_free(h);
	return err;
}

/* Under the shard's lock, and the alias lock if @aliases. */
static uint64_t forget_locked(struct ledger *ledger, struct ledger_shard *s, uint64_t *id,
			      uint64_t nlookup, bool aliases)
{
	struct ledger_node *n = ledger_find_node(s, *id);
	const bool stale = n && n->epoch != ledger_epoch(ledger);

	if (!n)
		return 0;
	*id = n->daemon_id;
	nlookup = min_of(nlookup, n->nlookup);
	n->nlookup -= nlookup;
	if (n->nlookup || n->owed || !nlookup)
		return stale ? 0 : nlookup;
	/* An alias can only be unlinked under its lock; else the node waits for the end of the session. */
	if (ledger_node_pins(n) || n->nr_handles || (n->driver_id != n->daemon_id && !aliases)) {
		n->owed = 1;
		return stale ? 0 : nlookup - 1;
	}
	if (n->driver_id != n->daemon_id)
		ledger_alias_remove(ledger, n);
	ledger_table_remove(&s->nodes, n, ledger_mix(n->driver_id));
	__atomic_sub_fetch(&ledger->nr_nodes, 1, __ATOMIC_RELAXED);
	free(n);
	return stale ? 0 : nlookup;
}

uint64_t ledger_forget(struct ledger *ledger, uint64_t *id, uint64_t nlookup)
{
	struct ledger_shard *s = ledger_shard_of(ledger, *id);
	const bool aliases = __atomic_load_n(&ledger->aliasing, __ATOMIC_ACQUIRE);

	if (*id == FUSE_ROOT_ID)
		return 0;
	if (aliases)
		pthread_mutex_lock(&ledger->alias_lock);
	pthread_mutex_lock(&s->lock);
	nlookup = forget_locked(ledger, s, id, nlookup, aliases);
	pthread_mutex_unlock(&s->lock);
	if (aliases)
		pthread_mutex_unlock(&ledger->alias_lock);
	return nlookup;
}

int ledger_reserve_node(struct ledger *ledger, struct ledger_node **ret_spare)
{
	struct ledger_node *n;

	if (ledger_nr_nodes(ledger) >= LEDGER_NODES_MAX)
		return -ENOMEM;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	*ret_spare = n;
	return 0;
}

int ledger_reserve_handle(struct ledger *ledger, struct ledger_handle **ret_spare)
{
	struct ledger_handle *h;

	if (ledger_nr_handles(ledger) >= LEDGER_HANDLES_MAX)
		return -ENFILE;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	*ret_spare = h;
	return 0;
}

void ledger_unreserve_node(struct ledger_node *spare)
{
	free(spare);
}

void ledger_unreserve_handle(struct ledger_handle *spare)
{
	free(spare);
}

static void add_debt(struct ledger *ledger, uint32_t epoch, uint64_t daemon_id)
{
	pthread_mutex_lock(&ledger->debt_lock);
	for (unsigned int i = 0; i < ledger->nr_debts; i++) {
		struct ledger_debt *d = &ledger->debts[i];

		if (d->nodeid == daemon_id && d->epoch == epoch) {
			d->nlookup++;
			goto out;
		}
	}
	/* What does not fit is a node that the daemon keeps until it ends. */
	if (ledger->nr_debts < LEDGER_DEBTS_MAX)
		ledger->debts[ledger->nr_debts++] =
			(struct ledger_debt){ .nodeid = daemon_id, .nlookup = 1, .epoch = epoch };
out:
	pthread_mutex_unlock(&ledger->debt_lock);
}

/* Under the shard's lock. */
static void count_lookup(struct ledger_node *n, const struct ledger_lookup *what)
{
	if (what->owed)
		n->owed++;
	else
		n->nlookup++;
	if (!what->ret_node)
		return;
	__atomic_add_fetch(&n->pins, 1, __ATOMIC_RELAXED);
	*what->ret_node = n;
}

/* Under the shard's lock. */
static void insert_node(struct ledger *ledger, struct ledger_shard *s, struct ledger_node *n,
			const struct ledger_lookup *what, uint64_t driver_id, uint64_t daemon_id)
{
	n->driver_id = driver_id;
	n->daemon_id = daemon_id;
	n->epoch = what->epoch;
	count_lookup(n, what);
	ledger_table_add(&s->nodes, n, ledger_node_hash);
	__atomic_add_fetch(&ledger->nr_nodes, 1, __ATOMIC_RELAXED);
}

static struct ledger_node *take_spare(struct ledger *ledger, struct ledger_node **spare)
{
	struct ledger_node *n = NULL;

	if (!spare)
		return ledger_reserve_node(ledger, &n) < 0 ? NULL : n;
	n = *spare;
	*spare = NULL;
	return n;
}

/* Under the alias lock. The daemon's number is taken by something stale: find the driver another one. */
static int add_alias(struct ledger *ledger, const struct ledger_lookup *what, uint64_t *id)
{
	struct ledger_node *n = take_spare(ledger, what->spare);

	if (!n)
		return -ENOMEM;
	for (;;) {
		const uint64_t driver_id = ledger->next_alias++;
		struct ledger_shard *s = ledger_shard_of(ledger, driver_id);
		bool free_id;

		if (ledger->next_alias < ALIAS_FIRST)
			ledger->next_alias = ALIAS_FIRST;
		pthread_mutex_lock(&s->lock);
		free_id = !ledger_find_node(s, driver_id);
		if (free_id)
			insert_node(ledger, s, n, what, driver_id, *id);
		pthread_mutex_unlock(&s->lock);
		if (!free_id)
			continue;
		ledger_alias_add(ledger, n);
		*id = driver_id;
		return 0;
	}
}

/* Return: 0; -ENOMEM; -EIO; -EEXIST when only an alias will do. */
static int add_plain(struct ledger *ledger, const struct ledger_lookup *what, uint64_t id)
{
	struct ledger_shard *s = ledger_shard_of(ledger, id);
	struct ledger_node *n;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	n = ledger_find_node(s, id);
	if (n && n->epoch == what->epoch && n->daemon_id == id) {
		count_lookup(n, what);
	} else if (n) {
		err = -EEXIST;
	} else {
		n = take_spare(ledger, what->spare);
		if (n)
			insert_node(ledger, s, n, what, id, id);
		else
			err = -ENOMEM;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

static int add_aliased(struct ledger *ledger, const struct ledger_lookup *what, uint64_t *id)
{
	struct ledger_node *n;
	int err;

	pthread_mutex_lock(&ledger->alias_lock);
	n = ledger_alias_find(ledger, *id, what->epoch);
	if (n) {
		/* Not freed meanwhile: that takes the alias lock. */
		struct ledger_shard *s = ledger_shard_of(ledger, n->driver_id);

		pthread_mutex_lock(&s->lock);
		count_lookup(n, what);
		*id = n->driver_id;
		pthread_mutex_unlock(&s->lock);
		err = 0;
	} else {
		err = ledger->generation ? -EEXIST : add_plain(ledger, what, *id);
		if (err == -EEXIST)
			err = add_alias(ledger, what, id);
	}
	pthread_mutex_unlock(&ledger->alias_lock);
	return err;
}

int ledger_add_lookup(struct ledger *ledger, const struct ledger_lookup *what, uint64_t *id)
{
	const uint64_t daemon_id = *id;
	int err;

	if (what->epoch != ledger_epoch(ledger))
		return -EIO;
	if (__atomic_load_n(&ledger->aliasing, __ATOMIC_ACQUIRE))
		err = add_aliased(ledger, what, id);
	else
		err = add_plain(ledger, what, *id);
	if (err == -EEXIST) {
		/* A loss beside us: either our daemon is gone by now, or the number is taken by a dead one's. */
		if (what->epoch != ledger_epoch(ledger))
			return -EIO;
		__atomic_store_n(&ledger->aliasing, true, __ATOMIC_RELEASE);
		err = add_aliased(ledger, what, id);
	}
	if (err == -ENOMEM)
		add_debt(ledger, what->epoch, daemon_id);
	return err;
}

int ledger_find_driver_id(struct ledger *ledger, uint64_t *id)
{
	const uint32_t epoch = ledger_epoch(ledger);
	struct ledger_shard *s = ledger_shard_of(ledger, *id);
	struct ledger_node *n = NULL;

	if (*id == FUSE_ROOT_ID)
		return 0;
	if (__atomic_load_n(&ledger->aliasing, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&ledger->alias_lock);
		n = ledger_alias_find(ledger, *id, epoch);
		if (n)
			*id = n->driver_id;
		pthread_mutex_unlock(&ledger->alias_lock);
	}
	if (n)
		return 0;
	pthread_mutex_lock(&s->lock);
	n = ledger_find_node(s, *id);
	if (n && (n->epoch != epoch || n->daemon_id != *id || !n->nlookup))
		n = NULL;
	pthread_mutex_unlock(&s->lock);
	return n ? 0 : -ENOENT;
}

int ledger_add_handle(struct ledger *ledger, uint32_t epoch, uint64_t driver_id, uint64_t *fh,
		      bool dir, uint32_t flags, struct ledger_handle **spare)
{
	struct ledger_shard *s = ledger_shard_of(ledger, driver_id);
	struct ledger_handle *h;
	struct ledger_node *node;
	uint64_t driver_fh = *fh ^ (uint64_t)ledger->generation << HANDLE_GENERATION_SHIFT;

	if (epoch != ledger_epoch(ledger))
		return -EIO;
	pthread_mutex_lock(&s->lock);
	node = driver_id == FUSE_ROOT_ID ? &ledger->root : ledger_find_node(s, driver_id);
	if (!node) {
		pthread_mutex_unlock(&s->lock);
		return -EIO;
	}
	h = ledger_find_handle(s, driver_id, driver_fh, dir);
	if (h && h->epoch == epoch && h->daemon_fh == *fh) {
		/* The daemon gave one number for two opens, as those do that need none. */
		h->count++;
		h->flags = flags;
		__atomic_add_fetch(&ledger->nr_handles, 1, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&s->lock);
		*fh = driver_fh;
		return 0;
	}
	/* A stale handle of the root has the number: each try is another, so this ends. */
	for (uint64_t next = ALIAS_FIRST; h; next++) {
		driver_fh = next;
		h = ledger_find_handle(s, driver_id, driver_fh, dir);
	}
	h = *spare;
	*spare = NULL;
	h->node = node;
	h->fh = driver_fh;
	h->daemon_fh = *fh;
	h->dir = dir;
	h->flags = flags;
	h->epoch = epoch;
	h->count = 1;
	node->nr_handles++;
	ledger_table_add(&s->handles, h, ledger_handle_hash);
	__atomic_add_fetch(&ledger->nr_handles, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&s->lock);
	*fh = driver_fh;
	return 0;
}

/* A lock owner more; what does not fit is released by RELEASE at the latest. */
static void add_owner(struct ledger_handle *h, uint64_t owner)
{
	for (uint32_t i = 0; i < h->nr_owners; i++) {
		if (h->owners[i] == owner)
			return;
	}
	if (h->nr_owners == LEDGER_LOCK_OWNERS_MAX)
		return;
	if (h->nr_owners == h->owners_cap) {
		const uint32_t cap = h->owners_cap ? h->owners_cap * 2 : 4;
		uint64_t *owners = realloc(h->owners, cap * sizeof(*owners));

		if (!owners)
			return;
		h->owners = owners;
		h->owners_cap = cap;
	}
	h->owners[h->nr_owners++] = owner;
}

static void remove_owner(struct ledger_handle *h, uint64_t owner)
{
	for (uint32_t i = 0; i < h->nr_owners; i++) {
		if (h->owners[i] == owner) {
			h->owners[i] = h->owners[--h->nr_owners];
			return;
		}
	}
}

void ledger_note_lock(struct ledger *ledger, struct ledger_handle *handle, enum ledger_lock what,
		      uint64_t owner)
{
	struct ledger_shard *s = ledger_shard_of(ledger, handle->node->driver_id);

	pthread_mutex_lock(&s->lock);
	switch (what) {
	case LEDGER_POSIX_LOCKED:
		add_owner(handle, owner);
		break;
	case LEDGER_POSIX_UNLOCKED:
		remove_owner(handle, owner);
		break;
	case LEDGER_FLOCKED:
		handle->flocked = true;
		handle->flock_owner = owner;
		break;
	case LEDGER_FLOCK_UNLOCKED:
		if (handle->flock_owner == owner)
			handle->flocked = false;
		break;
	}
	pthread_mutex_unlock(&s->lock);
}
