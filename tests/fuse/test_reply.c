/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking of replies: lengths, contents, both byte orders, and what the ledger learns of bad ones.
 */
#include "requests.h"

#include <fcntl.h>
#include <poll.h>

#include "fuse/ledger.h"
#include "fuse/session_priv.h"

static void request(struct peer *p, uint32_t opcode)
{
	struct good g = good_request(opcode, p->swapped);

	assert_int_equal(good_send(p, opcode, &g), 0);
}

static int answer(struct peer *p, uint32_t opcode, void *body, size_t len)
{
	request(p, opcode);
	return peer_reply(p, 0, body, len);
}

static void test_errors(void **state)
{
	static const int cases[][2] = { { -1, -1 },	     { -511, -511 },
					{ -512, -EIO },	     { 1, -EIO },
					{ INT32_MIN, -EIO }, { -ENOSYS, -ENOSYS },
					{ INT32_MAX, -EIO } };
	struct peer *p = good_peer((struct peer_setup){ 0 });

	(void)state;
	for (size_t i = 0; i < array_size(cases); i++) {
		request(p, FUSE_STATFS);
		assert_int_equal(peer_reply(p, cases[i][0], NULL, 0), cases[i][1]);
	}
	peer_free(p);
}

/* A body that is right for each kind of fixed reply. */
static void fill_fixed(uint32_t opcode, unsigned char *body, size_t len)
{
	struct fuse_entry_out entry = peer_entry(300, S_IFREG | 0644);
	struct fuse_attr_out attr = { .attr = { .mode = S_IFDIR } };
	struct fuse_open_out open = { .fh = 31 };

	memset(body, 0, len);
	switch (opcode) {
	case FUSE_SYMLINK:
		entry.attr.mode = S_IFLNK | 0777;
		break;
	case FUSE_MKNOD:
		entry.attr.mode = S_IFIFO;
		break;
	case FUSE_MKDIR:
		entry.attr.mode = S_IFDIR;
		break;
	default:
		break;
	}
	switch (opcode) {
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		memcpy(body + sizeof(entry), &open, sizeof(open));
		memcpy(body, &entry, sizeof(entry));
		break;
	case FUSE_LOOKUP:
	case FUSE_LINK:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
		memcpy(body, &entry, sizeof(entry));
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		memcpy(body, &open, sizeof(open));
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		memcpy(body, &attr, sizeof(attr));
		break;
	default:
		break;
	}
}

/* Every opcode: a reply of the right length, one byte less, one more. */
static void run_lengths(bool swapped)
{
	for (uint32_t opcode = 1; opcode < FUSE_OPCODES_END; opcode++) {
		const struct fuse_opcode_info *op = fuse_opcode_find(opcode);
		unsigned char body[512];

		if (!op || (op->traits & FUSE_OP_NEVER) ||
		    (op->reply != FUSE_REPLY_FIXED && op->reply != FUSE_REPLY_EMPTY))
			continue;
		for (int delta = -1; delta <= 1; delta++) {
			struct peer *p = good_peer((struct peer_setup){ .swapped = swapped });
			size_t len = op->reply_bytes + (size_t)delta;
			int err;

			if (op->reply == FUSE_REPLY_EMPTY && delta < 0)
				len = 0;
			fill_fixed(opcode, body, sizeof(body));
			err = answer(p, opcode, body, len);
			if (err != (len == op->reply_bytes ? 0 : -EIO))
				fail_msg("opcode %u, %zu bytes: %d", opcode, len, err);
			peer_free(p);
		}
	}
}

static void test_lengths(void **state)
{
	(void)state;
	run_lengths(false);
	run_lengths(true);
}

static void test_entry_rules(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_entry_out e = peer_entry(0, 0);
	const uint64_t nodes = ledger_nr_nodes(p->session->ledger);

	(void)state;
	/* "No such name", for LOOKUP only. */
	assert_int_equal(answer(p, FUSE_LOOKUP, &e, sizeof(e)), 0);
	assert_int_equal(answer(p, FUSE_MKDIR, &e, sizeof(e)), -EIO);
	/* The root: only LOOKUP gives it, and it counts for nothing. */
	e = peer_entry(FUSE_ROOT_ID, S_IFDIR);
	assert_int_equal(answer(p, FUSE_LOOKUP, &e, sizeof(e)), 0);
	e = peer_entry(FUSE_ROOT_ID, S_IFDIR);
	assert_int_equal(answer(p, FUSE_MKDIR, &e, sizeof(e)), -EIO);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), nodes);
	/* A file where a directory was made; a type that is none; a size below zero. All are paid back. */
	e = peer_entry(400, S_IFREG);
	assert_int_equal(answer(p, FUSE_MKDIR, &e, sizeof(e)), -EIO);
	e = peer_entry(401, 0);
	assert_int_equal(answer(p, FUSE_LOOKUP, &e, sizeof(e)), -EIO);
	e = peer_entry(402, S_IFREG);
	e.attr.size = (uint64_t)INT64_MAX + 1;
	assert_int_equal(answer(p, FUSE_LOOKUP, &e, sizeof(e)), -EIO);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), nodes + 3);
	/* They are not the driver's. */
	assert_int_equal(peer_send(p, FUSE_STATFS, 401, NULL, 0, NULL, 0), -ESTALE);
	e = peer_entry(402, S_IFREG);
	e.attr.size = INT64_MAX;
	e.attr.flags = UINT32_MAX;
	assert_int_equal(answer(p, FUSE_LOOKUP, &e, sizeof(e)), 0);
	assert_int_equal(e.attr.flags, FUSE_ATTR_SUBMOUNT);
	peer_free(p);
}

static void test_open_rules(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_open_out out = { .fh = 50, .open_flags = UINT32_MAX, .backing_id = 7 };

	(void)state;
	assert_int_equal(answer(p, FUSE_OPEN, &out, sizeof(out)), 0);
	assert_int_equal(out.open_flags, 0x7f);
	assert_int_equal(out.backing_id, 0);
	assert_int_equal(out.fh, 50);
	peer_free(p);
}

static void test_counts(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_write_out w = { .size = 16 };
	struct fuse_copy_file_range_out c = { .bytes_copied = 1000 };
	struct fuse_lseek_out l = { .offset = INT64_MAX };
	unsigned char data[4097] = { 0 };

	(void)state;
	assert_int_equal(answer(p, FUSE_WRITE, &w, sizeof(w)), 0);
	w.size = 17;
	assert_int_equal(answer(p, FUSE_WRITE, &w, sizeof(w)), -EIO);
	w.size = 1000;
	assert_int_equal(answer(p, FUSE_COPY_FILE_RANGE, &w, sizeof(w)), 0);
	w.size = 1001;
	assert_int_equal(answer(p, FUSE_COPY_FILE_RANGE, &w, sizeof(w)), -EIO);
	assert_int_equal(answer(p, FUSE_COPY_FILE_RANGE_64, &c, sizeof(c)), 0);
	c.bytes_copied++;
	assert_int_equal(answer(p, FUSE_COPY_FILE_RANGE_64, &c, sizeof(c)), -EIO);
	assert_int_equal(answer(p, FUSE_LSEEK, &l, sizeof(l)), 0);
	l.offset++;
	assert_int_equal(answer(p, FUSE_LSEEK, &l, sizeof(l)), -EIO);
	assert_int_equal(answer(p, FUSE_READ, data, 4096), 0);
	assert_int_equal(answer(p, FUSE_READ, NULL, 4096), 0);
	assert_int_equal(answer(p, FUSE_READ, data, 0), 0);
	assert_int_equal(answer(p, FUSE_READ, data, 4097), -EIO);
	peer_free(p);
}

static void test_readlink(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	char path[4097];

	(void)state;
	memset(path, 'p', sizeof(path));
	assert_int_equal(answer(p, FUSE_READLINK, path, 4095), 0);
	assert_int_equal(answer(p, FUSE_READLINK, path, 4096), -EIO);
	path[3] = 0;
	assert_int_equal(answer(p, FUSE_READLINK, path, 4), -EIO);
	assert_int_equal(answer(p, FUSE_READLINK, path, 3), 0);
	peer_free(p);
}

static void test_xattrs(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .swapped = true });
	struct fuse_getxattr_in in = { .size = 0 };
	struct fuse_getxattr_out out = { .size = 100000, .padding = 1 };
	char list[101] = "user.a\0user.b";

	(void)state;
	assert_int_equal(answer(p, FUSE_LISTXATTR, list, 14), 0);
	assert_int_equal(answer(p, FUSE_LISTXATTR, list, 13), -EIO);
	assert_int_equal(answer(p, FUSE_LISTXATTR, list, 15), -EIO);
	assert_int_equal(answer(p, FUSE_LISTXATTR, list, 0), 0);
	assert_int_equal(answer(p, FUSE_GETXATTR, list, 100), 0);
	assert_int_equal(answer(p, FUSE_GETXATTR, list, 101), -EIO);
	assert_string_equal(list, "user.a");
	assert_int_equal(peer_send(p, FUSE_GETXATTR, NODE_FILE, &in, sizeof(in), "u.a", 4), 0);
	assert_int_equal(peer_reply(p, 0, &out, sizeof(out)), 0);
	assert_int_equal(peer_order(p, out.size), 65536);
	assert_int_equal(out.padding, 0);
	assert_int_equal(peer_send(p, FUSE_GETXATTR, NODE_FILE, &in, sizeof(in), "u.a", 4), 0);
	assert_int_equal(peer_reply(p, 0, list, 7), -EIO);
	peer_free(p);
}

static void test_ioctl(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .swapped = true });
	struct {
		struct fuse_ioctl_out out;
		char data[9];
	} body = { .out = { .result = -2 }, .data = "12345678" };

	(void)state;
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 16 + 8), 0);
	assert_int_equal(peer_order(p, (uint32_t)body.out.result), (uint32_t)-2);
	assert_memory_equal(body.data, "12345678", 8);
	memset(&body.out, 0, sizeof(body.out));
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 16 + 9), -EIO);
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 15), -EIO);
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 16), 0);
	body.out.flags = FUSE_IOCTL_RETRY;
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 16), -EIO);
	body.out = (struct fuse_ioctl_out){ .in_iovs = 1, .out_iovs = 1 };
	assert_int_equal(answer(p, FUSE_IOCTL, &body, 16), 0);
	assert_true(!body.out.in_iovs && !body.out.out_iovs);
	peer_free(p);
}

/* Nothing wakes a driver that sleeps until a notification: it must not sleep. */
static void run_poll(bool swapped)
{
	static const struct {
		uint32_t flags, events, revents, want;
	} cases[] = {
		{ 0, POLLIN, 0, 0 },
		{ 0, POLLIN, POLLIN, POLLIN },
		{ FUSE_POLL_SCHEDULE_NOTIFY, POLLIN, 0, POLLIN },
		{ FUSE_POLL_SCHEDULE_NOTIFY, POLLIN, POLLOUT, POLLIN | POLLOUT },
		{ FUSE_POLL_SCHEDULE_NOTIFY, POLLIN | POLLOUT, POLLOUT, POLLOUT },
		{ FUSE_POLL_SCHEDULE_NOTIFY, POLLIN, POLLHUP, POLLHUP },
		{ FUSE_POLL_SCHEDULE_NOTIFY, POLLPRI, 0, 0 },
		{ FUSE_POLL_SCHEDULE_NOTIFY, 0, 0, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM },
	};
	struct peer *p = good_peer((struct peer_setup){ .swapped = swapped });

	for (size_t i = 0; i < array_size(cases); i++) {
		struct good g = good_request(FUSE_POLL, swapped);
		struct fuse_poll_in in;
		struct fuse_poll_out out = { .revents = cases[i].revents, .padding = 3 };

		memcpy(&in, g.args, sizeof(in));
		in.flags = cases[i].flags;
		in.events = cases[i].events;
		memcpy(g.args, &in, sizeof(in));
		assert_int_equal(good_send(p, FUSE_POLL, &g), 0);
		memcpy(&in, p->buf + 40, sizeof(in));
		assert_true(!in.flags && in.events == cases[i].events);
		assert_int_equal(peer_reply(p, 0, &out, sizeof(out)), 0);
		assert_int_equal(peer_order(p, out.revents), cases[i].want);
		assert_int_equal(out.padding, 0);
	}
	peer_free(p);
}

static void test_poll(void **state)
{
	(void)state;
	run_poll(false);
	run_poll(true);
}

static void test_lock_and_statx(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .arch = FUSE_ARCH_ALPHA });
	struct fuse_lk_out lk = { .lk = { .end = INT64_MAX, .type = F_UNLCK } };
	struct fuse_statx_out sx = { .stat = {
					     .mask = 0x201, .mode = S_IFREG, .size = INT64_MAX } };

	(void)state;
	assert_int_equal(answer(p, FUSE_GETLK, &lk, sizeof(lk)), 0);
	assert_int_equal(lk.lk.type, 8);
	lk.lk = (struct fuse_file_lock){ .start = 2, .end = 1, .type = F_RDLCK };
	assert_int_equal(answer(p, FUSE_GETLK, &lk, sizeof(lk)), -EIO);
	lk.lk = (struct fuse_file_lock){ .start = 1, .end = 1, .type = 9 };
	assert_int_equal(answer(p, FUSE_GETLK, &lk, sizeof(lk)), -EIO);
	assert_int_equal(answer(p, FUSE_STATX, &sx, sizeof(sx)), 0);
	sx.stat.size++;
	assert_int_equal(answer(p, FUSE_STATX, &sx, sizeof(sx)), -EIO);
	sx.stat.size = 0;
	sx.stat.mode = 0;
	assert_int_equal(answer(p, FUSE_STATX, &sx, sizeof(sx)), -EIO);
	peer_free(p);
}

/* A record of READDIR or READDIRPLUS at @buf. Return: bytes. */
static size_t put_dirent(unsigned char *buf, bool plus, uint64_t nodeid, const char *name)
{
	const size_t head = plus ? sizeof(struct fuse_entry_out) : 0;
	struct fuse_entry_out entry = peer_entry(nodeid, S_IFREG);
	struct fuse_dirent d = { .ino = 7, .off = 8, .namelen = (uint32_t)strlen(name), .type = 4 };
	const size_t bytes = FUSE_REC_ALIGN(head + 24 + d.namelen);

	memset(buf, 0, bytes);
	if (plus)
		memcpy(buf, &entry, sizeof(entry));
	memcpy(buf + head, &d, 24);
	memcpy(buf + head + 24, name, d.namelen);
	return bytes;
}

static void run_dirents(uint32_t opcode, bool swapped)
{
	const bool plus = opcode == FUSE_READDIRPLUS;
	const size_t head = plus ? sizeof(struct fuse_entry_out) : 0;
	struct peer *p = good_peer((struct peer_setup){ .swapped = swapped });
	unsigned char buf[8192];
	char name[4100];
	size_t len, one;

	len = put_dirent(buf, plus, 0, ".");
	len += put_dirent(buf + len, plus, 500, "file");
	assert_int_equal(answer(p, opcode, buf, len), 0);
	assert_int_equal(fuse_get32(buf + head + 16, swapped), 1);
	one = FUSE_REC_ALIGN(head + 24 + 1);
	assert_true(fuse_get64(buf + one + head, swapped) == 7);
	assert_int_equal(fuse_get32(buf + one + head + 16, swapped), 4);
	assert_memory_equal(buf + one + head + 24, "file", 4);
	assert_int_equal(answer(p, opcode, buf, 0), 0);

	/* The last record may be cut anywhere (libfuse 2 does it, a kernel takes it); its head is in the driver's order. */
	for (size_t cut = 1; cut < one; cut++) {
		len = put_dirent(buf, plus, 0, "x");
		put_dirent(buf + len, plus, 0, "y");
		assert_int_equal(answer(p, opcode, buf, len + cut), 0);
		assert_int_equal(fuse_get32(buf + head + 16, swapped), 1);
		if (cut >= head + 24)
			assert_int_equal(fuse_get32(buf + len + head + 16, swapped), 1);
	}
	/* What is wrong with it still counts, as far as it is there. */
	len = put_dirent(buf, plus, 0, "x");
	put_dirent(buf + len, plus, 0, "");
	assert_int_equal(answer(p, opcode, buf, len + head + 24), -EIO);

	memset(name, 'n', sizeof(name));
	name[4095] = 0;
	len = put_dirent(buf, plus, 0, name);
	assert_int_equal(answer(p, opcode, buf, len), 0);
	name[4095] = 'n';
	name[4096] = 0;
	len = put_dirent(buf, plus, 0, name);
	assert_int_equal(answer(p, opcode, buf, len), -EIO);
	len = put_dirent(buf, plus, 0, "");
	assert_int_equal(answer(p, opcode, buf, len), -EIO);
	len = put_dirent(buf, plus, 0, "a/b");
	assert_int_equal(answer(p, opcode, buf, len), -EIO);
	len = put_dirent(buf, plus, 0, "abc");
	buf[head + 25] = 0;
	assert_int_equal(answer(p, opcode, buf, len), -EIO);
	len = put_dirent(buf, plus, 0, "abc");
	fuse_put32(buf + head + 16, UINT32_MAX);
	assert_int_equal(answer(p, opcode, buf, len), -EIO);
	peer_free(p);
}

static void test_dirents(void **state)
{
	(void)state;
	run_dirents(FUSE_READDIR, false);
	run_dirents(FUSE_READDIR, true);
	run_dirents(FUSE_READDIRPLUS, false);
	run_dirents(FUSE_READDIRPLUS, true);
}

static bool all_zero(const unsigned char *p, size_t len)
{
	while (len && !*p) {
		p++;
		len--;
	}
	return !len;
}

static void test_plus_lookups(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct ledger *ledger = p->session->ledger;
	const uint64_t nodes = ledger_nr_nodes(ledger);
	unsigned char buf[4096];
	size_t len;

	(void)state;
	/* Dots are not counted, whatever node they carry. */
	len = put_dirent(buf, true, 600, ".");
	len += put_dirent(buf + len, true, 601, "..");
	len += put_dirent(buf + len, true, 602, "a");
	len += put_dirent(buf + len, true, 602, "b");
	assert_int_equal(answer(p, FUSE_READDIRPLUS, buf, len), 0);
	assert_int_equal(ledger_nr_nodes(ledger), nodes + 1);
	assert_int_equal(peer_forget(p, 602, 3), 0);
	assert_int_equal(PEER_ARG(p, fuse_forget_in)->nlookup, 2);
	/* The root's number for a name is a lie: of such an entry the driver gets the name alone, and of the others all. */
	len = put_dirent(buf, true, FUSE_ROOT_ID, "a");
	len += put_dirent(buf + len, true, 605, "b");
	assert_int_equal(answer(p, FUSE_READDIRPLUS, buf, len), 0);
	assert_true(all_zero(buf, sizeof(struct fuse_entry_out)));
	assert_int_equal(fuse_get64(buf + len / 2, false), 605);
	assert_int_equal(peer_forget(p, 605, 1), 0);
	/* So does one with attributes that nothing can have; its lookup is owed. */
	len = put_dirent(buf, true, 606, "a");
	fuse_put32(buf + offsetof(struct fuse_entry_out, attr.mode), 0644);
	assert_int_equal(answer(p, FUSE_READDIRPLUS, buf, len), 0);
	assert_true(all_zero(buf, sizeof(struct fuse_entry_out)));
	assert_int_equal(ledger_nr_nodes(ledger), nodes + 1);
	assert_int_equal(peer_send(p, FUSE_STATFS, 606, NULL, 0, NULL, 0), -ESTALE);
	/* An entry before a malformed one was counted by the daemon, and is owed. */
	len = put_dirent(buf, true, 603, "a");
	len += put_dirent(buf + len, true, 604, "b/");
	assert_int_equal(answer(p, FUSE_READDIRPLUS, buf, len), -EIO);
	assert_int_equal(ledger_nr_nodes(ledger), nodes + 2);
	assert_int_equal(peer_send(p, FUSE_STATFS, 603, NULL, 0, NULL, 0), -ESTALE);
	peer_free(p);
}

static void test_create_rules(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	unsigned char body[144];
	struct fuse_entry_out bad = peer_entry(700, S_IFDIR);
	const uint64_t handles = ledger_nr_handles(p->session->ledger);

	(void)state;
	fill_fixed(FUSE_CREATE, body, sizeof(body));
	assert_int_equal(answer(p, FUSE_CREATE, body, sizeof(body)), 0);
	assert_int_equal(ledger_nr_handles(p->session->ledger), handles + 1);
	/* Open, but no regular file: handle and lookup are paid back. */
	fill_fixed(FUSE_CREATE, body, sizeof(body));
	memcpy(body, &bad, sizeof(bad));
	assert_int_equal(answer(p, FUSE_CREATE, body, sizeof(body)), -EIO);
	assert_int_equal(ledger_nr_handles(p->session->ledger), handles + 2);
	bad.nodeid = 0;
	memcpy(body, &bad, sizeof(bad));
	assert_int_equal(answer(p, FUSE_CREATE, body, sizeof(body)), -EIO);
	peer_free(p);
}

static void test_no_open(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_read_in in = { .size = 1 };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_OUT, &in, sizeof(in), NULL, 0), -EBADF);
	request(p, FUSE_OPEN);
	assert_int_equal(peer_reply(p, -ENOSYS, NULL, 0), -ENOSYS);
	assert_int_equal(peer_send(p, FUSE_READ, NODE_OUT, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
	in.fh = 1;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_OUT, &in, sizeof(in), NULL, 0), -EBADF);
	in.fh = 0;
	assert_int_equal(peer_send(p, FUSE_READDIR, NODE_DIR, &in, sizeof(in), NULL, 0), -EBADF);
	assert_int_equal(peer_release(p, NODE_OUT, 0, false), -EALREADY);
	peer_free(p);
	/* A driver that does not know of it gets a success with handle 0. */
	p = good_peer((struct peer_setup){ .driver_without = FUSE_NO_OPEN_SUPPORT |
							     FUSE_NO_OPENDIR_SUPPORT });
	request(p, FUSE_OPEN);
	assert_int_equal(peer_reply(p, -ENOSYS, NULL, 0), 0);
	assert_int_equal(fuse_session_finish_zeros(&p->req), sizeof(struct fuse_open_out));
	request(p, FUSE_OPENDIR);
	assert_int_equal(peer_reply(p, -ENOSYS, NULL, 0), 0);
	assert_int_equal(peer_send(p, FUSE_READDIR, NODE_DIR, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	assert_int_equal(peer_release(p, NODE_DIR, 0, true), -EALREADY);
	/* Handles from before still need to be there. */
	assert_int_equal(peer_release(p, NODE_DIR, FH_DIR, true), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	peer_free(p);
}

/* What a driver of the other order reads is what the daemon wrote. */
static void test_round_trip(void **state)
{
	(void)state;
	for (uint32_t opcode = 1; opcode < FUSE_OPCODES_END; opcode++) {
		const struct fuse_opcode_info *op = fuse_opcode_find(opcode);
		struct peer *native, *other;
		unsigned char a[512], b[512];

		if (!op || op->reply != FUSE_REPLY_FIXED)
			continue;
		native = good_peer((struct peer_setup){ 0 });
		other = good_peer((struct peer_setup){ .swapped = true });
		fill_fixed(opcode, a, sizeof(a));
		fill_fixed(opcode, b, sizeof(b));
		assert_int_equal(answer(native, opcode, a, op->reply_bytes), 0);
		assert_int_equal(answer(other, opcode, b, op->reply_bytes), 0);
		fuse_swap_fields(b, op->reply_bytes, op->reply_layout);
		assert_memory_equal(a, b, op->reply_bytes);
		peer_free(native);
		peer_free(other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),	     cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_entry_rules),  cmocka_unit_test(test_open_rules),
		cmocka_unit_test(test_counts),	     cmocka_unit_test(test_readlink),
		cmocka_unit_test(test_xattrs),	     cmocka_unit_test(test_ioctl),
		cmocka_unit_test(test_poll),	     cmocka_unit_test(test_lock_and_statx),
		cmocka_unit_test(test_dirents),	     cmocka_unit_test(test_plus_lookups),
		cmocka_unit_test(test_create_rules), cmocka_unit_test(test_no_open),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
