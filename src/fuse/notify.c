/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notifications: from bytes of a daemon that nobody trusts to what a driver may be told.
 *
 * Theory of operation: a notification names nodes as the daemon does. One that the driver does not hold is nothing to it,
 * as a kernel would answer ENOENT. The others are exchanged for the driver's ids. What is longer than a driver's buffer is
 * taken apart where that says the same: STORE page by page, PRUNE by nodes.
 *
 * RETRIEVE is a question: it is remembered until the driver's NOTIFY_REPLY came. One that nobody asked for, or with more
 * than was asked for, does not reach the daemon. Towards the driver it has a unique of ours: daemons count from 1, and an
 * answer to one that died is none to the next one's question.
 */
#include <string.h>

#include "fuse/session_priv.h"
#include "fuse/swap.h"

#define LAYOUT_OUT_HEADER "448"
/* Data of one STORE: one page of most drivers, at its place. A driver cannot keep less than a page. */
#define STORE_BYTES 4096u
/* Nodes of one PRUNE. */
#define PRUNE_NODES \
	((FUSE_NOTIFY_BYTES_MAX - FUSE_OUT_BYTES - sizeof(struct fuse_notify_prune_out)) / 8)

/* A message's name has room in it. */
_Static_assert(FUSE_OUT_BYTES + sizeof(struct fuse_notify_delete_out) + FUSE_NAME_BYTES_MAX + 1 <=
		       FUSE_NOTIFY_BYTES_MAX,
	       "the longest name does not fit");

/**
 * struct kind - what is known of a code.
 * @bytes: of its structure
 * @minor: that it came with
 * @layout: of its structure
 */
struct kind {
	uint16_t bytes;
	uint16_t minor;
	const char *layout;
};

static const struct kind kinds[] = {
	[FUSE_NOTIFY_POLL] = { sizeof(struct fuse_notify_poll_wakeup_out), 11, "8" },
	[FUSE_NOTIFY_INVAL_INODE] = { sizeof(struct fuse_notify_inval_inode_out), 12, "888" },
	[FUSE_NOTIFY_INVAL_ENTRY] = { sizeof(struct fuse_notify_inval_entry_out), 12, "844" },
	[FUSE_NOTIFY_STORE] = { sizeof(struct fuse_notify_store_out), 15, "8844" },
	[FUSE_NOTIFY_RETRIEVE] = { sizeof(struct fuse_notify_retrieve_out), 15, "88844" },
	[FUSE_NOTIFY_DELETE] = { sizeof(struct fuse_notify_delete_out), 18, "8844" },
	[FUSE_NOTIFY_INC_EPOCH] = { 0, 44, "" },
	[FUSE_NOTIFY_PRUNE] = { sizeof(struct fuse_notify_prune_out), 45, "448" },
};

/* Exchange the daemon's id for the driver's. Return: 0; -ENOENT: the driver does not hold the node. */
static int to_driver(struct fuse_session *session, uint64_t *id)
{
	return session->ledger ? ledger_find_driver_id(session->ledger, id) : 0;
}

/* Finish the message whose @bytes behind the header are in place, its nodes exchanged. */
static int emit(struct fuse_session *session, struct fuse_notify *n, int32_t code, size_t bytes)
{
	struct fuse_out_header out = { .len = (uint32_t)(FUSE_OUT_BYTES + bytes), .error = code };

	n->msg_bytes = out.len;
	if (session->swapped) {
		fuse_swap_fields(&out, sizeof(out), LAYOUT_OUT_HEADER);
		fuse_swap_fields(n->msg + FUSE_OUT_BYTES, kinds[code].bytes, kinds[code].layout);
	}
	memcpy(n->msg, &out, sizeof(out));
	return 1;
}

static int next_inode(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_inval_inode_out what;
	int err;

	memcpy(&what, n->body, sizeof(what));
	err = to_driver(session, &what.ino);
	if (err < 0)
		return err;
	n->inode = what.ino;
	n->done = n->len;
	memcpy(n->msg + FUSE_OUT_BYTES, &what, sizeof(what));
	return emit(session, n, FUSE_NOTIFY_INVAL_INODE, sizeof(what));
}

/* A name of a directory: @len bytes and a NUL end the notification. */
static int check_name(const struct fuse_notify *n, uint32_t len)
{
	const size_t at = kinds[n->code].bytes;
	const char *name = (const char *)n->body + at;

	if (len > FUSE_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (!len || n->len - at != (size_t)len + 1 || name[len])
		return -EINVAL;
	return memchr(name, '/', len) || memchr(name, 0, len) ? -EINVAL : 0;
}

/* Check the name, and exchange the id of the directory that it is in. */
static int check_place(struct fuse_session *session, const struct fuse_notify *n, uint32_t len,
		       uint64_t *parent)
{
	int err = check_name(n, len);

	return err ? err : to_driver(session, parent);
}

/* With the notification's own name of @len bytes behind @what, which is the structure of @code. */
static int emit_named(struct fuse_session *session, struct fuse_notify *n, int32_t code,
		      const void *what, uint32_t len)
{
	uint8_t *to = n->msg + FUSE_OUT_BYTES;
	const size_t bytes = kinds[code].bytes;

	n->done = n->len;
	memcpy(to, what, bytes);
	memcpy(to + bytes, n->body + kinds[n->code].bytes, (size_t)len + 1);
	return emit(session, n, code, bytes + len + 1);
}

static int next_entry(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_inval_entry_out what;
	int err;

	memcpy(&what, n->body, sizeof(what));
	err = check_place(session, n, what.namelen, &what.parent);
	if (err < 0)
		return err;
	/* To a driver that does not know the flag the field is padding: it forgets the name, which is more than was asked. */
	what.flags &= session->flags & FUSE_HAS_EXPIRE_ONLY ? FUSE_EXPIRE_ONLY : 0;
	return emit_named(session, n, FUSE_NOTIFY_INVAL_ENTRY, &what, what.namelen);
}

static int next_delete(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_inval_entry_out entry = { 0 };
	struct fuse_notify_delete_out what;
	int err;

	memcpy(&what, n->body, sizeof(what));
	err = check_place(session, n, what.namelen, &what.parent);
	if (err < 0)
		return err;
	/* The driver does not know what the name stood for; it may know that nothing has the name, or had it. */
	if (to_driver(session, &what.child) < 0 || session->minor < kinds[n->code].minor) {
		entry.parent = what.parent;
		entry.namelen = what.namelen;
		return emit_named(session, n, FUSE_NOTIFY_INVAL_ENTRY, &entry, entry.namelen);
	}
	what.padding = 0;
	return emit_named(session, n, FUSE_NOTIFY_DELETE, &what, what.namelen);
}

static int next_store(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_store_out what;
	uint8_t *to = n->msg + FUSE_OUT_BYTES;
	size_t at = sizeof(what) + n->done;
	int err;

	memcpy(&what, n->body, sizeof(what));
	if (what.size != n->len - sizeof(what) || what.offset > (uint64_t)INT64_MAX - what.size)
		return -EINVAL;
	err = to_driver(session, &what.nodeid);
	if (err < 0 || n->done == what.size)
		return err;
	what.offset += n->done;
	what.size =
		(uint32_t)min_of(n->len - at, STORE_BYTES - (size_t)(what.offset % STORE_BYTES));
	what.padding = 0;
	memcpy(to, &what, sizeof(what));
	memcpy(to + sizeof(what), n->body + at, what.size);
	n->done += what.size;
	return emit(session, n, FUSE_NOTIFY_STORE, sizeof(what) + what.size);
}

static int next_prune(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_prune_out what;
	uint8_t *ids = n->msg + FUSE_OUT_BYTES + sizeof(what);
	uint32_t kept = 0;

	memcpy(&what, n->body, sizeof(what));
	if (what.count != (n->len - sizeof(what)) / 8 || (n->len - sizeof(what)) % 8)
		return -EINVAL;
	for (; n->done < what.count && kept < PRUNE_NODES; n->done++) {
		uint64_t id = fuse_get64(n->body + sizeof(what) + n->done * 8, false);

		if (to_driver(session, &id) == 0)
			fuse_put64(ids + (size_t)8 * kept++,
				   session->swapped ? __builtin_bswap64(id) : id);
	}
	if (!kept)
		return 0;
	what = (struct fuse_notify_prune_out){ .count = kept };
	memcpy(n->msg + FUSE_OUT_BYTES, &what, sizeof(what));
	return emit(session, n, FUSE_NOTIFY_PRUNE, sizeof(what) + (size_t)8 * kept);
}

/* Remember the question. Return: 0 with its unique towards the driver, or -EBUSY when too many are open. */
static int note_retrieve(struct fuse_session *session, const struct fuse_notify_retrieve_out *what,
			 uint64_t *ret_unique)
{
	int err = -EBUSY;

	pthread_mutex_lock(&session->retrieve_lock);
	if (session->nr_retrieves < FUSE_RETRIEVES_MAX) {
		*ret_unique = ++session->last_retrieve;
		session->retrieves[session->nr_retrieves++] =
			(struct fuse_open_retrieve){ *ret_unique, *what };
		err = 0;
	}
	pthread_mutex_unlock(&session->retrieve_lock);
	return err;
}

static int next_retrieve(struct fuse_session *session, struct fuse_notify *n)
{
	struct fuse_notify_retrieve_out what, asked;
	int err;

	memcpy(&asked, n->body, sizeof(asked));
	/* What the daemon's buffer holds, it said as the size of a WRITE. */
	asked.size = min_of(asked.size, session->max_write);
	what = asked;
	what.padding = 0;
	err = to_driver(session, &what.nodeid);
	if (!err)
		err = note_retrieve(session, &asked, &what.notify_unique);
	if (err < 0)
		return err;
	n->done = n->len;
	n->retrieve = what.notify_unique;
	memcpy(n->msg + FUSE_OUT_BYTES, &what, sizeof(what));
	return emit(session, n, FUSE_NOTIFY_RETRIEVE, sizeof(what));
}

/* Without a node: the wake-up of a poll(2), whose number the driver gave; the end of all names. */
static int next_plain(struct fuse_session *session, struct fuse_notify *n)
{
	n->done = n->len;
	memcpy(n->msg + FUSE_OUT_BYTES, n->body, n->len);
	return emit(session, n, n->code, n->len);
}

static bool is_long(int32_t code)
{
	return code == FUSE_NOTIFY_INVAL_ENTRY || code == FUSE_NOTIFY_DELETE ||
	       code == FUSE_NOTIFY_STORE || code == FUSE_NOTIFY_PRUNE;
}

int fuse_notify_check(const struct fuse_notify *n)
{
	const struct kind *kind;

	if (n->code < FUSE_NOTIFY_POLL || n->code > FUSE_NOTIFY_PRUNE)
		return -EINVAL;
	if (n->code == FUSE_NOTIFY_RESEND)
		return n->len ? -EINVAL : -EOPNOTSUPP;
	kind = &kinds[n->code];
	if (n->len < kind->bytes || (n->len > kind->bytes && !is_long(n->code)))
		return -EINVAL;
	return -EOPNOTSUPP;
}

int fuse_notify_begin(const struct fuse_session *session, struct fuse_notify *n)
{
	int err = fuse_notify_check(n);

	n->done = 0;
	n->started = false;
	n->retrieve = 0;
	if (err != -EOPNOTSUPP || n->code == FUSE_NOTIFY_RESEND || !fuse_session_notifies(session))
		return err;
	/* DELETE can be said in older words. */
	if (session->minor < kinds[n->code].minor && n->code != FUSE_NOTIFY_DELETE)
		return err;
	return 0;
}

int fuse_notify_next(struct fuse_session *session, struct fuse_notify *n)
{
	/* Without a body nothing says otherwise that it was all. */
	if (n->started && n->done == n->len)
		return 0;
	n->started = true;
	n->inode = 0;
	n->retrieve = 0;
	switch (n->code) {
	case FUSE_NOTIFY_INVAL_INODE:
		return next_inode(session, n);
	case FUSE_NOTIFY_INVAL_ENTRY:
		return next_entry(session, n);
	case FUSE_NOTIFY_DELETE:
		return next_delete(session, n);
	case FUSE_NOTIFY_STORE:
		return next_store(session, n);
	case FUSE_NOTIFY_PRUNE:
		return next_prune(session, n);
	case FUSE_NOTIFY_RETRIEVE:
		return next_retrieve(session, n);
	default:
		return next_plain(session, n);
	}
}

bool fuse_session_notifies(const struct fuse_session *session)
{
	return session->active && session->notify;
}

void fuse_session_allow_notify(struct fuse_session *session, bool allow)
{
	session->notify_allowed = allow;
}

/* Under the lock. */
static void remove_retrieve(struct fuse_session *session, unsigned int i)
{
	session->nr_retrieves--;
	memmove(&session->retrieves[i], &session->retrieves[i + 1],
		(session->nr_retrieves - i) * sizeof(session->retrieves[0]));
}

int fuse_retrieve_answer(struct fuse_session *session, uint64_t unique, uint32_t bytes,
			 struct fuse_notify_retrieve_out *ret_what)
{
	int err = -ENODATA;

	pthread_mutex_lock(&session->retrieve_lock);
	for (unsigned int i = 0; i < session->nr_retrieves; i++) {
		const struct fuse_open_retrieve *open = &session->retrieves[i];

		if (open->unique != unique)
			continue;
		err = bytes <= open->what.size ? 0 : -EINVAL;
		if (err == 0) {
			*ret_what = open->what;
			remove_retrieve(session, i);
		}
		break;
	}
	pthread_mutex_unlock(&session->retrieve_lock);
	return err;
}

bool fuse_session_retrieve_lost(struct fuse_session *session, uint64_t unique,
				struct fuse_notify_retrieve_out *ret_what)
{
	bool found = false;

	pthread_mutex_lock(&session->retrieve_lock);
	for (unsigned int i = 0; i < session->nr_retrieves && !found; i++) {
		found = !unique || session->retrieves[i].unique == unique;
		if (found) {
			*ret_what = session->retrieves[i].what;
			remove_retrieve(session, i);
		}
	}
	pthread_mutex_unlock(&session->retrieve_lock);
	return found;
}
