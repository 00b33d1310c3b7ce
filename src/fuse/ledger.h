/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ledger: what the driver believes to have of the daemon - node ids with lookup counts, open handles, locks.
 *
 * Two pairs of names: the driver's node ids and handles, and the daemon's. They are equal until a daemon was
 * lost; then a number that the driver still holds from the dead daemon keeps its (stale) meaning, and the new
 * daemon's equal number reaches the driver under another one, an alias.
 *
 * Context: all functions may run on any threads at once, unless they say otherwise. Only functions that add
 * something allocate.
 */
#ifndef FUSEWIRE_FUSE_LEDGER_H
#define FUSEWIRE_FUSE_LEDGER_H

#include "base/compiler.h"
#include "fuse/abi.h"

/** LEDGER_NODES_MAX - nodes that a driver may hold at a time. */
#define LEDGER_NODES_MAX (64u << 20)
/** LEDGER_HANDLES_MAX - opens that a driver may hold at a time. */
#define LEDGER_HANDLES_MAX (1u << 20)
/** LEDGER_LOCK_OWNERS_MAX - lock owners remembered of one handle; more are not paid back one by one. */
#define LEDGER_LOCK_OWNERS_MAX 256
/** LEDGER_DEBTS_MAX - lookups remembered for which there was no memory. */
#define LEDGER_DEBTS_MAX 256

struct ledger;
struct ledger_node;
struct ledger_handle;

/** ledger_new() - empty, but for the root. Return: 0 or -ENOMEM. */
int must_check ledger_new(struct ledger **ret_ledger);
/**
 * ledger_succeed() - this ledger follows another process's, whose driver lives on: numbers that the driver still has from that
 * one are stale, and none that it is given from now on equals one of them, until the session ends.
 * @generation: how many came before, ≥ 1
 *
 * Context: before the ledger is used.
 */
void ledger_succeed(struct ledger *ledger, uint32_t generation);
/** ledger_free() - NULL is allowed; nothing may be pinned. */
void ledger_free(struct ledger *ledger);

/** ledger_epoch() - number of daemons lost so far; a reply belongs to the epoch of its request. */
uint32_t ledger_epoch(const struct ledger *ledger);
/** ledger_lost() - all nodes but the root, and all handles, are stale from now on. */
void ledger_lost(struct ledger *ledger);

/**
 * ledger_pin_node() - look up a node for the time of a request.
 * @epoch: ledger_epoch() when the request began
 * @id: the driver's node id; exchanged for the daemon's
 *
 * Return: 0; -ESTALE: unknown, forgotten, or of a daemon that is gone.
 */
int must_check ledger_pin_node(struct ledger *ledger, uint32_t epoch, uint64_t *id,
			       struct ledger_node **ret_node);
/**
 * ledger_pin_handle() - look up an open handle, and its node with it.
 * @id: the driver's node id; exchanged for the daemon's
 * @fh: the driver's handle; exchanged for the daemon's
 *
 * Return: 0; -EBADF: no such handle of this node; -ESTALE: of a daemon that is gone.
 */
int must_check ledger_pin_handle(struct ledger *ledger, uint32_t epoch, uint64_t *id, uint64_t *fh,
				 bool dir, struct ledger_handle **ret_handle);
/** ledger_unpin_node() - end of the request. NULL is allowed. */
void ledger_unpin_node(struct ledger_node *node);
/** ledger_unpin_handle() - end of the request. NULL is allowed. */
void ledger_unpin_handle(struct ledger_handle *handle);

/**
 * ledger_release() - the driver releases a handle: one open less, the last one ends it.
 * @id: as in ledger_pin_handle()
 * @fh: as in ledger_pin_handle()
 * @ret_node: pinned node of the handle: the daemon hears of the release in the same request
 *
 * Return: 0; -EBADF; -EBUSY: other requests use the handle, it stays; -EALREADY: it was stale, and is gone now.
 */
int must_check ledger_release(struct ledger *ledger, uint32_t epoch, uint64_t *id, uint64_t *fh,
			      bool dir, struct ledger_node **ret_node);
/**
 * ledger_forget() - the driver gives back lookups.
 * @id: the driver's node id; exchanged for the daemon's
 *
 * Never more than it holds. A node that is in use keeps one for the daemon until the session ends.
 * Return: lookups that the daemon must hear of; 0 for none.
 */
uint64_t must_check ledger_forget(struct ledger *ledger, uint64_t *id, uint64_t nlookup);

/**
 * ledger_reserve_node() - memory for a node that a reply may bring.
 *
 * Return: 0, or -ENOMEM (also above LEDGER_NODES_MAX).
 */
int must_check ledger_reserve_node(struct ledger *ledger, struct ledger_node **ret_spare);
/** ledger_reserve_handle() - as ledger_reserve_node(), for a handle. Return: 0; -ENOMEM; -ENFILE above LEDGER_HANDLES_MAX. */
int must_check ledger_reserve_handle(struct ledger *ledger, struct ledger_handle **ret_spare);
/** ledger_unreserve_node() - give back what was not used. NULL is allowed. */
void ledger_unreserve_node(struct ledger_node *spare);
/** ledger_unreserve_handle() - give back what was not used. NULL is allowed. */
void ledger_unreserve_handle(struct ledger_handle *spare);

/**
 * struct ledger_lookup - a lookup of a node that the daemon counted.
 * @epoch: of the request that it answered
 * @owed: the driver will never know: only remember to pay back
 * @spare: reserved node, taken if one is needed; NULL: allocate
 * @ret_node: gets the node, pinned: the driver may give the lookup back as soon as it is counted; NULL: not needed
 */
struct ledger_lookup {
	uint32_t epoch;
	bool owed;
	struct ledger_node **spare;
	struct ledger_node **ret_node;
};

/**
 * ledger_add_lookup() - the daemon counted a lookup of a node.
 * @what: how
 * @id: the daemon's node id, not 0 and not the root; exchanged for the driver's
 *
 * Return: 0; -EIO: the daemon is gone, nothing to count; -ENOMEM: counted as a debt, not the driver's.
 */
int must_check ledger_add_lookup(struct ledger *ledger, const struct ledger_lookup *what,
				 uint64_t *id);
/**
 * ledger_add_handle() - the daemon opened a handle.
 * @driver_id: node, as the driver names it; it is pinned or has a lookup
 * @fh: the daemon's handle; exchanged for the driver's
 * @flags: open flags, for the release
 * @spare: reserved handle, taken if one is needed
 *
 * Return: 0, or -EIO: the daemon is gone.
 */
int must_check ledger_add_handle(struct ledger *ledger, uint32_t epoch, uint64_t driver_id,
				 uint64_t *fh, bool dir, uint32_t flags,
				 struct ledger_handle **spare);

/**
 * ledger_find_driver_id() - what the driver calls a node of the daemon that answers now.
 * @id: the daemon's node id; exchanged for the driver's
 *
 * Return: 0; -ENOENT: the driver holds no such node.
 */
int must_check ledger_find_driver_id(struct ledger *ledger, uint64_t *id);

/** enum ledger_lock - what a lock request did. */
enum ledger_lock {
	LEDGER_POSIX_LOCKED,
	LEDGER_POSIX_UNLOCKED, /* the whole file, or FLUSH */
	LEDGER_FLOCKED,
	LEDGER_FLOCK_UNLOCKED,
};

/** ledger_note_lock() - remember a lock owner of a pinned handle, for the pay-back. */
void ledger_note_lock(struct ledger *ledger, struct ledger_handle *handle, enum ledger_lock what,
		      uint64_t owner);

/**
 * struct ledger_payback - something to give back to the daemon.
 * @nodeid: the daemon's
 * @fh: the daemon's
 * @owner: lock owner
 * @flags: open flags
 * @dir: a directory
 * @flocked: @owner holds a flock(2) lock
 */
struct ledger_payback {
	uint64_t nodeid;
	uint64_t fh;
	uint64_t owner;
	uint32_t flags;
	bool dir;
	bool flocked;
};

/**
 * ledger_end_begin() - the session is over: begin to take out what it held.
 *
 * What is pinned still, by requests that a hanging daemon has not answered, stays for the end of the next session. Context of
 * all ledger_end_*(): one thread; replies may be finished beside it, no request is decoded.
 */
void ledger_end_begin(struct ledger *ledger);
/** ledger_end_lock() - take one posix lock owner out. Return: is there one? */
bool must_check ledger_end_lock(struct ledger *ledger, struct ledger_payback *ret_item);
/** ledger_end_handle() - take one open out. Return: is there one? After all locks. */
bool must_check ledger_end_handle(struct ledger *ledger, struct ledger_payback *ret_item);
/** ledger_end_forgets() - take up to @max nodes out. Return: number of items. After all handles. */
unsigned int must_check ledger_end_forgets(struct ledger *ledger, struct fuse_forget_one *items,
					   unsigned int max);
/** ledger_end_done() - nothing more to take out. */
void ledger_end_done(struct ledger *ledger);

/** ledger_nr_nodes() - nodes that the driver holds, and those kept for the daemon. */
uint64_t ledger_nr_nodes(const struct ledger *ledger);
/** ledger_nr_handles() - opens that were not released. */
uint64_t ledger_nr_handles(const struct ledger *ledger);

#endif
