/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notifications of a daemon that says anything: lengths, names, nodes, and what a driver may answer to a RETRIEVE.
 */
#include "requests.h"

#include "fuse/session_priv.h"

#define UNKNOWN_NODE 4242

static uint8_t message[FUSE_NOTIFY_BYTES_MAX];

static struct peer *notified_peer(bool swapped)
{
	return good_peer((struct peer_setup){ .swapped = swapped, .notify = true });
}

/* The body lies in memory of exactly its size: a sanitizer sees each byte behind it. Return: of the last step; *@ret_nr messages. */
static int say(struct peer *p, int32_t code, const void *body, size_t len, unsigned int *ret_nr)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct fuse_notify n = { .code = code, .body = copy, .len = len, .msg = message };
	unsigned int nr = 0;
	int err;

	assert_non_null(copy);
	if (len)
		memcpy(copy, body, len);
	err = fuse_notify_begin(p->session, &n);
	while (err == 0 && (err = fuse_notify_next(p->session, &n)) > 0) {
		assert_true(n.msg_bytes <= sizeof(message));
		assert_int_equal(peer_order(p, fuse_get32(message, false)), n.msg_bytes);
		nr++;
		err = 0;
	}
	free(copy);
	if (ret_nr)
		*ret_nr = nr;
	return err;
}

/* A directory's entry with @name of @bytes, NUL or not; the structure says @namelen. */
static int say_name(struct peer *p, int32_t code, uint64_t parent, const char *name, size_t bytes,
		    uint32_t namelen)
{
	const struct fuse_notify_inval_entry_out entry = { .parent = parent, .namelen = namelen };
	const struct fuse_notify_delete_out gone = { .parent = parent,
						     .child = NODE_FILE,
						     .namelen = namelen };
	const bool is_delete = code == FUSE_NOTIFY_DELETE;
	const size_t head = is_delete ? sizeof(gone) : sizeof(entry);
	uint8_t body[8192];

	memcpy(body, is_delete ? (const void *)&gone : (const void *)&entry, head);
	memcpy(body + head, name, bytes);
	return say(p, code, body, head + bytes, NULL);
}

static void test_names(void **state)
{
	static const int32_t codes[] = { FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_DELETE };
	struct peer *p = notified_peer(false);
	char name[FUSE_NAME_BYTES_MAX + 2];

	(void)state;
	for (size_t i = 0; i < array_size(codes); i++) {
		const int32_t code = codes[i];

		memset(name, 'x', sizeof(name));
		assert_int_equal(say_name(p, code, NODE_DIR, "ab", 3, 2), 0);
		assert_int_equal(say_name(p, code, UNKNOWN_NODE, "ab", 3, 2), -ENOENT);
		assert_int_equal(say_name(p, code, NODE_DIR, "", 1, 0), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "abc", 3, 2), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "ab", 3, 1), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "ab", 3, 3), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "ab", 2, 2), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "a/b", 4, 3), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "a\0b", 4, 3), -EINVAL);
		assert_int_equal(say_name(p, code, NODE_DIR, "ab", 3, UINT32_MAX), -ENAMETOOLONG);
		name[FUSE_NAME_BYTES_MAX] = '\0';
		assert_int_equal(say_name(p, code, NODE_DIR, name, FUSE_NAME_BYTES_MAX + 1,
					  FUSE_NAME_BYTES_MAX),
				 0);
		name[FUSE_NAME_BYTES_MAX] = 'x';
		name[FUSE_NAME_BYTES_MAX + 1] = '\0';
		assert_int_equal(say_name(p, code, NODE_DIR, name, FUSE_NAME_BYTES_MAX + 2,
					  FUSE_NAME_BYTES_MAX + 1),
				 -ENAMETOOLONG);
	}
	peer_free(p);
}

/* Each code with each length up to beyond its structure: never more than a refusal. */
static void test_lengths(void **state)
{
	static const size_t bytes[] = {
		[FUSE_NOTIFY_POLL] = 8,		[FUSE_NOTIFY_INVAL_INODE] = 24,
		[FUSE_NOTIFY_INVAL_ENTRY] = 16, [FUSE_NOTIFY_STORE] = 24,
		[FUSE_NOTIFY_RETRIEVE] = 32,	[FUSE_NOTIFY_DELETE] = 24,
		[FUSE_NOTIFY_INC_EPOCH] = 0,	[FUSE_NOTIFY_PRUNE] = 16
	};
	struct peer *p = notified_peer(false);
	uint8_t body[64];

	(void)state;
	memset(body, 0xff, sizeof(body));
	for (int32_t code = 0; code <= FUSE_NOTIFY_PRUNE + 1; code++) {
		const bool known = code >= FUSE_NOTIFY_POLL && code <= FUSE_NOTIFY_PRUNE &&
				   code != FUSE_NOTIFY_RESEND;

		for (size_t len = 0; len <= sizeof(body); len++) {
			int err = say(p, code, body, len, NULL);

			if (!known && (code != FUSE_NOTIFY_RESEND || len))
				assert_int_equal(err, -EINVAL);
			else if (known && len < bytes[code])
				assert_int_equal(err, -EINVAL);
			else
				assert_true(err <= 0);
		}
	}
	assert_int_equal(say(p, FUSE_NOTIFY_RESEND, NULL, 0, NULL), -EOPNOTSUPP);
	assert_int_equal(say(p, INT32_MAX, body, 8, NULL), -EINVAL);
	assert_int_equal(say(p, -1, body, 8, NULL), -EINVAL);
	assert_int_equal(say(p, INT32_MIN, body, 8, NULL), -EINVAL);
	peer_free(p);
}

static void test_nodes(void **state)
{
	struct fuse_notify_inval_inode_out what = { .ino = NODE_FILE, .off = 5, .len = 6 };
	struct fuse_notify_inval_inode_out got;

	(void)state;
	for (int swapped = 0; swapped < 2; swapped++) {
		struct peer *p = notified_peer(swapped);

		what.ino = NODE_FILE;
		assert_int_equal(say(p, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what), NULL), 0);
		memcpy(&got, message + 16, sizeof(got));
		if (swapped)
			fuse_swap_fields(&got, sizeof(got), "888");
		assert_memory_equal(&got, &what, sizeof(what));
		what.ino = UNKNOWN_NODE;
		assert_int_equal(say(p, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what), NULL),
				 -ENOENT);
		peer_free(p);
	}
}

static void test_store(void **state)
{
	uint8_t body[sizeof(struct fuse_notify_store_out) + 10000] = { 0 };
	struct fuse_notify_store_out what = { .nodeid = NODE_FILE, .offset = 4000, .size = 10000 };
	struct peer *p = notified_peer(false);
	unsigned int nr;

	(void)state;
	memcpy(body, &what, sizeof(what));
	/* Up to 4096, 8192, 12288 and 14000. */
	assert_int_equal(say(p, FUSE_NOTIFY_STORE, body, sizeof(body), &nr), 0);
	assert_int_equal(nr, 4);
	assert_int_equal(say(p, FUSE_NOTIFY_STORE, body, sizeof(body) - 1, NULL), -EINVAL);
	what.size = UINT32_MAX;
	memcpy(body, &what, sizeof(what));
	assert_int_equal(say(p, FUSE_NOTIFY_STORE, body, sizeof(body), NULL), -EINVAL);
	what.size = 10000;
	what.offset = UINT64_MAX - 5000;
	memcpy(body, &what, sizeof(what));
	assert_int_equal(say(p, FUSE_NOTIFY_STORE, body, sizeof(body), NULL), -EINVAL);
	what.offset = 0;
	what.nodeid = UNKNOWN_NODE;
	memcpy(body, &what, sizeof(what));
	assert_int_equal(say(p, FUSE_NOTIFY_STORE, body, sizeof(body), &nr), -ENOENT);
	assert_int_equal(nr, 0);
	peer_free(p);
}

static void test_prune(void **state)
{
	static uint8_t body[16 + 3000 * 8];
	struct fuse_notify_prune_out what = { .count = 3000 };
	struct peer *p = notified_peer(false);
	unsigned int nr;

	(void)state;
	memcpy(body, &what, sizeof(what));
	for (unsigned int i = 0; i < 3000; i++)
		fuse_put64(body + 16 + (size_t)8 * i, i % 2 ? NODE_FILE : UNKNOWN_NODE);
	assert_int_equal(say(p, FUSE_NOTIFY_PRUNE, body, sizeof(body), &nr), 0);
	assert_int_equal(nr, 2);
	assert_int_equal(say(p, FUSE_NOTIFY_PRUNE, body, sizeof(body) - 8, NULL), -EINVAL);
	assert_int_equal(say(p, FUSE_NOTIFY_PRUNE, body, sizeof(body) - 1, NULL), -EINVAL);
	what.count = UINT32_MAX;
	memcpy(body, &what, sizeof(what));
	assert_int_equal(say(p, FUSE_NOTIFY_PRUNE, body, sizeof(body), NULL), -EINVAL);
	peer_free(p);
}

static int answer_retrieve(struct peer *p, uint64_t unique, uint32_t bytes)
{
	struct fuse_notify_retrieve_out what;
	int err = fuse_retrieve_answer(p->session, unique, bytes, &what);

	if (!err)
		assert_int_equal(what.nodeid, NODE_FILE);
	return err;
}

static uint64_t ask_retrieve(struct peer *p, uint64_t nodeid, uint64_t unique)
{
	const struct fuse_notify_retrieve_out what = { .notify_unique = unique,
						       .nodeid = nodeid,
						       .size = 100 };

	assert_int_equal(say(p, FUSE_NOTIFY_RETRIEVE, &what, sizeof(what), NULL), 0);
	return fuse_get64(message + FUSE_OUT_BYTES, false);
}

static void test_retrieve(void **state)
{
	struct fuse_notify_retrieve_out what = { .nodeid = NODE_FILE, .size = 100 }, lost;
	struct peer *p = notified_peer(false);

	(void)state;
	assert_int_equal(answer_retrieve(p, 1, 0), -ENODATA);
	for (unsigned int i = 1; i <= FUSE_RETRIEVES_MAX; i++) {
		what.notify_unique = i;
		assert_int_equal(say(p, FUSE_NOTIFY_RETRIEVE, &what, sizeof(what), NULL), 0);
	}
	what.notify_unique++;
	assert_int_equal(say(p, FUSE_NOTIFY_RETRIEVE, &what, sizeof(what), NULL), -EBUSY);
	/* More than was asked for; what was asked for; twice. */
	assert_int_equal(answer_retrieve(p, 1, 101), -EINVAL);
	assert_int_equal(answer_retrieve(p, 1, 100), 0);
	assert_int_equal(answer_retrieve(p, 1, 100), -ENODATA);
	assert_true(fuse_session_retrieve_lost(p->session, 2, &lost));
	assert_int_equal(lost.notify_unique, 2);
	assert_false(fuse_session_retrieve_lost(p->session, 2, &lost));
	for (unsigned int i = 3; i <= FUSE_RETRIEVES_MAX; i++)
		assert_true(fuse_session_retrieve_lost(p->session, 0, &lost));
	assert_false(fuse_session_retrieve_lost(p->session, 0, &lost));
	what.nodeid = UNKNOWN_NODE;
	assert_int_equal(say(p, FUSE_NOTIFY_RETRIEVE, &what, sizeof(what), NULL), -ENOENT);
	assert_false(fuse_session_retrieve_lost(p->session, 0, &lost));
	peer_free(p);
}

/* The driver answers a daemon that is gone: what it says is not for the next one, which asks with the same number. */
static void test_retrieve_of_dead_daemon(void **state)
{
	const struct fuse_notify_retrieve_in in = { .size = 3 };
	struct peer *p = notified_peer(false);
	uint64_t first, second;

	(void)state;
	first = ask_retrieve(p, NODE_FILE, 1);
	fuse_session_daemon_lost(p->session);
	second = ask_retrieve(p, FUSE_ROOT_ID, 1);
	p->unique = first;
	assert_int_equal(peer_send(p, FUSE_NOTIFY_REPLY, NODE_FILE, &in, sizeof(in), "abc", 3),
			 -ENODATA);
	p->unique = second;
	assert_int_equal(peer_send(p, FUSE_NOTIFY_REPLY, FUSE_ROOT_ID, &in, sizeof(in), "abc", 3),
			 0);
	/* The daemon knows it by its own. */
	assert_int_equal(fuse_get64(p->buf + offsetof(struct fuse_in_header, unique), false), 1);
	peer_free(p);
}

/* A driver that takes none, or is too old for this one. */
static void test_not_for_this_driver(void **state)
{
	const struct fuse_notify_inval_inode_out what = { .ino = NODE_FILE };
	const struct fuse_notify_prune_out prune = { .count = 0 };
	struct peer *p = good_peer((struct peer_setup){ 0 });

	(void)state;
	assert_int_equal(say(p, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what), NULL), -EOPNOTSUPP);
	assert_int_equal(say(p, FUSE_NOTIFY_INVAL_INODE, &what, 7, NULL), -EINVAL);
	peer_free(p);
	p = good_peer((struct peer_setup){ .notify = true, .driver_minor = 38 });
	assert_int_equal(say(p, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what), NULL), 0);
	assert_int_equal(say(p, FUSE_NOTIFY_PRUNE, &prune, sizeof(prune), NULL), -EOPNOTSUPP);
	assert_int_equal(say(p, FUSE_NOTIFY_INC_EPOCH, NULL, 0, NULL), -EOPNOTSUPP);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_prune),
		cmocka_unit_test(test_retrieve),
		cmocka_unit_test(test_retrieve_of_dead_daemon),
		cmocka_unit_test(test_not_for_this_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
