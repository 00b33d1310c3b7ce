/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Decoding of requests: each opcode good and bad, in both byte orders, at its limits.
 */
#include "requests.h"

#include <fcntl.h>
#include <unistd.h>

#include "fuse/session_priv.h"

static void end_request(struct peer *p)
{
	int ignored = peer_reply(p, -EIO, NULL, 0);

	(void)ignored;
}

static void check_message(const struct peer *p, const struct good *g, uint32_t opcode)
{
	const struct fuse_opcode_info *op = fuse_opcode_find(opcode);
	struct fuse_in_header hdr;

	memcpy(&hdr, p->buf, sizeof(hdr));
	assert_int_equal(hdr.opcode, opcode);
	assert_int_equal(hdr.unique, 2);
	assert_int_equal(hdr.uid, 1000);
	assert_int_equal(hdr.pid, 4711);
	if (op->traits & FUSE_OP_NODE)
		assert_int_equal(hdr.nodeid, g->nodeid);
	assert_int_equal(hdr.len, p->req.msg_bytes + p->req.payload_bytes);
	assert_true(p->req.driver_unique == 0x1122334455667788);
	if (op->payload == FUSE_PAYLOAD_NONE && opcode != FUSE_BATCH_FORGET) {
		assert_int_equal(p->req.msg_bytes, 40 + g->arg_bytes + g->tail_bytes);
		assert_memory_equal(p->buf + 40 + g->arg_bytes, g->tail, g->tail_bytes);
	}
	if (op->names[0] == FUSE_NAME_NONE && opcode != FUSE_POLL)
		assert_memory_equal(p->buf + 40, g->args, g->arg_bytes);
}

/* Every opcode, in one order, with and without the ledger. */
static void run_all_good(struct peer_setup setup)
{
	for (uint32_t opcode = 1; opcode < FUSE_OPCODES_END; opcode++) {
		struct peer *p;
		struct good g;
		int err;

		if (!fuse_opcode_find(opcode))
			continue;
		p = good_peer(setup);
		g = good_request(opcode, setup.swapped);
		err = good_send(p, opcode, &g);
		if (opcode == FUSE_BATCH_FORGET && setup.daemon_minor && setup.daemon_minor < 16) {
			assert_int_equal(err, -ENOSYS);
			peer_free(p);
			continue;
		}
		if (err != good_result(opcode))
			fail_msg("opcode %u: %d", opcode, err);
		if (!err) {
			check_message(p, &g, opcode);
			end_request(p);
		}
		peer_free(p);
	}
}

static void test_all_good(void **state)
{
	(void)state;
	run_all_good((struct peer_setup){ 0 });
	run_all_good((struct peer_setup){ .swapped = true });
	run_all_good((struct peer_setup){ .no_ledger = true });
}

static void test_all_good_old_daemons(void **state)
{
	static const uint32_t minors[] = { 12, 19, 23, 31, 40, 45 };

	(void)state;
	for (size_t i = 0; i < array_size(minors); i++) {
		run_all_good((struct peer_setup){ .daemon_minor = minors[i] });
		run_all_good((struct peer_setup){ .daemon_minor = minors[i], .swapped = true });
	}
}

/* One byte less and one byte more than right, in the driver's message. */
static void run_all_lengths(bool swapped, int delta)
{
	for (uint32_t opcode = 1; opcode < FUSE_OPCODES_END; opcode++) {
		struct peer *p;
		struct good g;
		int err;

		if (!fuse_opcode_find(opcode) || opcode == FUSE_INIT)
			continue;
		p = good_peer((struct peer_setup){ .swapped = swapped });
		g = good_request(opcode, swapped);
		if (delta > 0)
			g.tail[g.tail_bytes++] = 'x';
		else if (g.tail_bytes)
			g.tail_bytes--;
		else if (g.arg_bytes)
			g.arg_bytes--;
		else
			goto next;
		err = good_send(p, opcode, &g);
		if (err != -EINVAL)
			fail_msg("opcode %u, %+d byte: %d", opcode, delta, err);
next:
		peer_free(p);
	}
}

static void test_all_lengths(void **state)
{
	(void)state;
	run_all_lengths(false, -1);
	run_all_lengths(false, 1);
	run_all_lengths(true, -1);
	run_all_lengths(true, 1);
}

/* The whole message is not what its header says. */
static void test_header(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_in_header hdr = { .len = 56, .opcode = FUSE_GETATTR, .unique = 9, .nodeid = 1 };
	struct fuse_out_header out;

	(void)state;
	assert_int_equal(fuse_session_header(p->session, &hdr, 56, 120, &p->req), 0);
	assert_int_equal(p->req.copy_bytes, 16);
	assert_int_equal(fuse_session_header(p->session, &hdr, 55, 120, &p->req), -EINVAL);
	assert_int_equal(fuse_session_header(p->session, &hdr, 57, 120, &p->req), -EINVAL);
	assert_int_equal(fuse_session_header(p->session, &hdr, 56, 119, &p->req), -EINVAL);
	assert_true(p->req.driver_unique == 9);
	for (uint32_t opcode = 0; opcode < 60; opcode++) {
		hdr.opcode = opcode;
		if (!fuse_opcode_find(opcode))
			assert_int_equal(fuse_session_header(p->session, &hdr, 56, 4096, &p->req),
					 -ENOSYS);
	}
	hdr.opcode = CUSE_INIT;
	assert_int_equal(fuse_session_header(p->session, &hdr, 56, 4096, &p->req), -ENOSYS);
	/* The largest that is copied, and one more. */
	hdr.opcode = FUSE_LOOKUP;
	hdr.len = FUSE_ARGS_MAX;
	assert_int_equal(fuse_session_header(p->session, &hdr, hdr.len, 4096, &p->req), 0);
	assert_int_equal(p->req.copy_bytes, FUSE_ARGS_MAX - 40);
	hdr.len++;
	assert_int_equal(fuse_session_header(p->session, &hdr, hdr.len, 4096, &p->req), -E2BIG);
	/* A FORGET has no room for a reply, and needs none. */
	hdr = (struct fuse_in_header){ .len = 48, .opcode = FUSE_FORGET };
	assert_int_equal(fuse_session_header(p->session, &hdr, 48, 0, &p->req), 0);
	fuse_session_out_header(&p->req, -ENOENT, 5, &out);
	assert_int_equal(out.len, 16);
	fuse_session_out_header(&p->req, 0, 5, &out);
	assert_int_equal(out.len, 21);
	peer_free(p);
}

static void test_no_session(void **state)
{
	const struct fuse_session_config config = { .use_ledger = true };
	struct fuse_in_header hdr = { .len = 40, .opcode = FUSE_STATFS, .unique = 9, .nodeid = 1 };
	struct fuse_session *session;
	struct fuse_request req;

	(void)state;
	assert_int_equal(fuse_session_new(&session, &config), 0);
	assert_false(fuse_session_active(session));
	assert_int_equal(fuse_session_header(session, &hdr, 40, 4096, &req), -EIO);
	hdr.opcode = FUSE_INIT;
	hdr.len = 56;
	assert_int_equal(fuse_session_header(session, &hdr, 56, 4096, &req), 0);
	assert_false(req.swapped);
	fuse_swap_fields(&hdr, sizeof(hdr), "448844422");
	assert_int_equal(fuse_session_header(session, &hdr, 56, 4096, &req), 0);
	assert_true(req.swapped);
	fuse_session_free(session);
}

static int send_name(struct peer *p, uint32_t opcode, const char *name, size_t bytes)
{
	return peer_send(p, opcode, NODE_DIR, NULL, 0, name, bytes);
}

static void test_names(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	char name[6000];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[4095] = 0;
	assert_int_equal(send_name(p, FUSE_UNLINK, name, 4096), 0);
	end_request(p);
	name[4095] = 'n';
	name[4096] = 0;
	assert_int_equal(send_name(p, FUSE_UNLINK, name, 4097), -ENAMETOOLONG);
	name[4096] = 'n';
	assert_int_equal(send_name(p, FUSE_UNLINK, name, sizeof(name)), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "", 1), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "", 0), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "a/b", 4), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "/", 2), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, ".", 2), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "..", 3), -EINVAL);
	assert_int_equal(send_name(p, FUSE_RMDIR, "..", 3), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "a\0b", 4), -EINVAL);
	assert_int_equal(send_name(p, FUSE_UNLINK, "...", 4), 0);
	end_request(p);
	assert_int_equal(send_name(p, FUSE_LOOKUP, "..", 3), 0);
	end_request(p);
	/* A target of 4095 bytes, and one more. */
	memcpy(name, "s", 2);
	name[2 + 4095] = 0;
	assert_int_equal(send_name(p, FUSE_SYMLINK, name, 2 + 4096), 0);
	end_request(p);
	name[2 + 4095] = 'n';
	name[2 + 4096] = 0;
	assert_int_equal(send_name(p, FUSE_SYMLINK, name, 2 + 4097), -ENAMETOOLONG);
	assert_int_equal(send_name(p, FUSE_SYMLINK, "s\0", 3), -EINVAL);
	assert_int_equal(send_name(p, FUSE_SYMLINK, "s", 2), -EINVAL);
	peer_free(p);
}

static void test_dots_need_export(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .daemon_without = FUSE_EXPORT_SUPPORT });

	(void)state;
	assert_int_equal(send_name(p, FUSE_LOOKUP, ".", 2), -EINVAL);
	assert_int_equal(send_name(p, FUSE_LOOKUP, "..", 3), -EINVAL);
	peer_free(p);
}

/* No kernel asks for the root's parent, and libfuse 2 follows a pointer that is NULL there. */
static void test_root_has_no_parent(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });

	(void)state;
	assert_int_equal(peer_send(p, FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, "..", 3), -EINVAL);
	assert_int_equal(peer_send(p, FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, ".", 2), 0);
	end_request(p);
	assert_int_equal(peer_send(p, FUSE_LOOKUP, NODE_DIR, NULL, 0, "..", 3), 0);
	end_request(p);
	peer_free(p);
}

static void test_tmpfile_name(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_create_in in = { .mode = 0600 };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_TMPFILE, NODE_DIR, &in, 16, "/", 2), 0);
	assert_int_equal(PEER_ARG(p, fuse_create_in)->mode, S_IFREG | 0600);
	end_request(p);
	assert_int_equal(peer_send(p, FUSE_CREATE, NODE_DIR, &in, 16, "/", 2), -EINVAL);
	in.mode = S_IFDIR | 0755;
	assert_int_equal(peer_send(p, FUSE_CREATE, NODE_DIR, &in, 16, "x", 2), -EINVAL);
	peer_free(p);
}

static int send_read(struct peer *p, uint32_t size, uint32_t read_flags, size_t writable)
{
	struct fuse_read_in in = { .fh = FH_FILE, .size = size, .read_flags = read_flags };

	p->writable = writable;
	return peer_send(p, FUSE_READ, NODE_FILE, &in, sizeof(in), NULL, 0);
}

static void test_read_sizes(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_read_in in = { .fh = FH_FILE, .size = 4096 };

	(void)state;
	assert_int_equal(send_read(p, 4096, 0, 16 + 4096), 0);
	assert_int_equal(p->req.reply_max, 4096);
	end_request(p);
	assert_int_equal(send_read(p, 4096, 0, 16 + 4097), 0);
	assert_int_equal(p->req.reply_max, 4096);
	end_request(p);
	assert_int_equal(send_read(p, 4096, 0, 16 + 4095), -EINVAL);
	/* Pages of 64 KiB: allowed, but the daemon is asked for 1 MiB at most. */
	assert_int_equal(send_read(p, 1u << 20, 0, 1u << 26), 0);
	assert_int_equal(PEER_ARG(p, fuse_read_in)->size, 1u << 20);
	assert_false(p->session->told_page_size);
	end_request(p);
	assert_int_equal(send_read(p, (1u << 20) + 1, FUSE_READ_LOCKOWNER, 1u << 26), 0);
	assert_true(p->session->told_page_size);
	assert_int_equal(PEER_ARG(p, fuse_read_in)->size, 1u << 20);
	assert_int_equal(p->req.reply_max, 1u << 20);
	end_request(p);
	assert_int_equal(send_read(p, (1u << 20) + 1, FUSE_READ_LOCKOWNER, 16 + (1u << 20)),
			 -EINVAL);
	/* Into the page cache nothing may come short. */
	assert_int_equal(send_read(p, (1u << 20) + 1, 0, 1u << 26), -EIO);
	assert_int_equal(send_read(p, 256 * 65536, FUSE_READ_LOCKOWNER, 1u << 26), 0);
	end_request(p);
	assert_int_equal(send_read(p, 256 * 65536 + 1, FUSE_READ_LOCKOWNER, 1u << 26), -EINVAL);
	in.offset = (uint64_t)INT64_MAX - 4096;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_FILE, &in, sizeof(in), NULL, 0), 0);
	end_request(p);
	in.offset++;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_FILE, &in, sizeof(in), NULL, 0), -EINVAL);
	in.offset = UINT64_MAX;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_FILE, &in, sizeof(in), NULL, 0), -EINVAL);
	/* A directory's offset is a cookie. */
	in.fh = FH_DIR;
	assert_int_equal(peer_send(p, FUSE_READDIR, NODE_DIR, &in, sizeof(in), NULL, 0), 0);
	end_request(p);
	peer_free(p);
}

static int send_write(struct peer *p, uint32_t size, size_t payload)
{
	static unsigned char data[(1u << 20) + 1];
	struct fuse_write_in in = { .fh = FH_FILE, .size = size };

	return peer_send(p, FUSE_WRITE, NODE_FILE, &in, sizeof(in), data, payload);
}

static void test_write_sizes(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });

	(void)state;
	assert_int_equal(send_write(p, 1u << 20, 1u << 20), 0);
	assert_int_equal(p->req.copy_bytes, 40);
	assert_int_equal(p->req.payload_off, 80);
	assert_int_equal(p->req.payload_bytes, 1u << 20);
	assert_int_equal(p->req.msg_bytes, 80);
	end_request(p);
	assert_int_equal(send_write(p, (1u << 20) + 1, (1u << 20) + 1), -EINVAL);
	assert_int_equal(send_write(p, 100, 99), -EINVAL);
	assert_int_equal(send_write(p, 100, 101), -EINVAL);
	assert_int_equal(send_write(p, 0, 0), 0);
	end_request(p);
	peer_free(p);
}

static int send_setxattr(struct peer *p, uint32_t size, const char *name, size_t name_bytes,
			 size_t value_bytes, size_t arg_bytes)
{
	struct fuse_setxattr_in in = { .size = size };
	unsigned char *tail = calloc(1, name_bytes + value_bytes + 1);
	int err;

	memcpy(tail, name, name_bytes);
	memset(tail + name_bytes, 'v', value_bytes);
	err = peer_send(p, FUSE_SETXATTR, NODE_FILE, &in, arg_bytes, tail,
			name_bytes + value_bytes);
	free(tail);
	return err;
}

static void test_setxattr(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	char name[300];

	(void)state;
	assert_int_equal(send_setxattr(p, 65536, "user.a", 7, 65536, 16), 0);
	assert_int_equal(p->req.msg_bytes, 40 + 16 + 7);
	assert_int_equal(p->req.payload_off, 40 + 16 + 7);
	assert_int_equal(p->req.payload_bytes, 65536);
	end_request(p);
	assert_int_equal(send_setxattr(p, 65537, "user.a", 7, 65537, 16), -EINVAL);
	assert_int_equal(send_setxattr(p, 5, "user.a", 7, 4, 16), -EINVAL);
	assert_int_equal(send_setxattr(p, 0, "user.a", 7, 0, 16), 0);
	end_request(p);
	memset(name, 'n', sizeof(name));
	name[255] = 0;
	assert_int_equal(send_setxattr(p, 1, name, 256, 1, 16), 0);
	end_request(p);
	name[255] = 'n';
	name[256] = 0;
	assert_int_equal(send_setxattr(p, 1, name, 257, 1, 16), -ENAMETOOLONG);
	assert_int_equal(send_setxattr(p, 1, "", 1, 1, 16), -EINVAL);
	peer_free(p);
}

static void test_setxattr_bridge(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .driver_without = FUSE_SETXATTR_EXT });

	(void)state;
	/* The daemon took the long form, the driver knows the short one. */
	assert_int_equal(send_setxattr(p, 3, "user.a", 7, 3, 8), 0);
	assert_int_equal(p->req.msg_bytes, 40 + 16 + 7);
	assert_int_equal(p->req.payload_off, 40 + 8 + 7);
	assert_int_equal(p->req.hdr.len, 40 + 16 + 7 + 3);
	assert_int_equal(PEER_ARG(p, fuse_setxattr_in)->size, 3);
	assert_int_equal(PEER_ARG(p, fuse_setxattr_in)->setxattr_flags, 0);
	assert_int_equal(PEER_ARG(p, fuse_setxattr_in)->padding, 0);
	assert_string_equal((char *)p->buf + 56, "user.a");
	end_request(p);
	peer_free(p);
	/* The daemon did not: the driver was never told of it, and what it sends has no name there. */
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_SETXATTR_EXT });
	assert_int_equal(send_setxattr(p, 3, "user.a", 7, 3, 16), -EINVAL);
	assert_int_equal(send_setxattr(p, 3, "user.a", 7, 3, 8), 0);
	assert_int_equal(p->req.msg_bytes, 40 + 8 + 7);
	end_request(p);
	peer_free(p);
}

static void test_getxattr_sizes(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_getxattr_in in = { .size = 0 };

	(void)state;
	p->writable = 16 + 8;
	assert_int_equal(peer_send(p, FUSE_GETXATTR, NODE_FILE, &in, 8, "user.a", 7), 0);
	assert_int_equal(p->req.reply_max, 8);
	end_request(p);
	p->writable = 16 + 7;
	assert_int_equal(peer_send(p, FUSE_GETXATTR, NODE_FILE, &in, 8, "user.a", 7), -EINVAL);
	in.size = 65536;
	assert_int_equal(peer_send(p, FUSE_LISTXATTR, NODE_FILE, &in, 8, NULL, 0), 0);
	assert_int_equal(p->req.reply_max, 65536);
	end_request(p);
	in.size = 65537;
	assert_int_equal(peer_send(p, FUSE_LISTXATTR, NODE_FILE, &in, 8, NULL, 0), -EINVAL);
	peer_free(p);
}

static int send_ioctl(struct peer *p, struct fuse_ioctl_in in, uint64_t node, size_t payload,
		      size_t writable)
{
	static const unsigned char data[65537];

	p->writable = writable;
	return peer_send(p, FUSE_IOCTL, node, &in, sizeof(in), data, payload);
}

static void test_ioctl(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_ioctl_in in = { .fh = FH_FILE, .in_size = 4, .out_size = 8 };

	(void)state;
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 4, 16 + 16 + 8), 0);
	assert_int_equal(p->req.reply_max, 24);
	end_request(p);
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 4, 16 + 16 + 7), -EINVAL);
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 4, 16 + 15), -EINVAL);
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 5, 4096), -EINVAL);
	in.in_size = 65536;
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 65536, 4096), 0);
	end_request(p);
	in.in_size = 65537;
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 65537, 4096), -EINVAL);
	in.in_size = 4;
	in.out_size = UINT32_MAX;
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 4, 4096), -EINVAL);
	in.out_size = 8;
	in.flags = FUSE_IOCTL_UNRESTRICTED;
	assert_int_equal(send_ioctl(p, in, NODE_FILE, 4, 4096), -EINVAL);
	in.flags = FUSE_IOCTL_DIR;
	assert_int_equal(send_ioctl(p, in, NODE_DIR, 4, 4096), -EBADF);
	in.fh = FH_DIR;
	assert_int_equal(send_ioctl(p, in, NODE_DIR, 4, 4096), 0);
	end_request(p);
	peer_free(p);
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_HAS_IOCTL_DIR });
	assert_int_equal(send_ioctl(p, in, NODE_DIR, 4, 4096), -ENOTTY);
	peer_free(p);
}

static void test_locks(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .arch = FUSE_ARCH_SPARC });
	struct fuse_lk_in in = { .fh = FH_FILE, .lk = { .end = INT64_MAX, .type = 3 } };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_SETLK, NODE_FILE, &in, sizeof(in), NULL, 0), 0);
#if defined(__x86_64__)
	assert_int_equal(PEER_ARG(p, fuse_lk_in)->lk.type, F_UNLCK);
#endif
	end_request(p);
	in.lk.type = 0;
	assert_int_equal(peer_send(p, FUSE_SETLK, NODE_FILE, &in, sizeof(in), NULL, 0), -EINVAL);
	in.lk.type = 1;
	in.lk.end = (uint64_t)INT64_MAX + 1;
	assert_int_equal(peer_send(p, FUSE_SETLK, NODE_FILE, &in, sizeof(in), NULL, 0), -EINVAL);
	in.lk.end = 4;
	in.lk.start = 5;
	assert_int_equal(peer_send(p, FUSE_GETLK, NODE_FILE, &in, sizeof(in), NULL, 0), -EINVAL);
	in.lk.start = 4;
	assert_int_equal(peer_send(p, FUSE_GETLK, NODE_FILE, &in, sizeof(in), NULL, 0), 0);
	end_request(p);
	peer_free(p);
}

static void test_open_flags(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .arch = FUSE_ARCH_ARM });
	struct fuse_open_in in = { .flags = O_RDWR | 040000 | O_CREAT | O_EXCL | O_TRUNC };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_OPEN, NODE_FILE, &in, sizeof(in), NULL, 0), 0);
#if defined(__x86_64__)
	assert_int_equal(PEER_ARG(p, fuse_open_in)->flags, O_RDWR | O_DIRECTORY | O_TRUNC);
#endif
	end_request(p);
	peer_free(p);
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_ATOMIC_O_TRUNC });
	in.flags = O_RDWR | O_TRUNC | O_PATH;
	assert_int_equal(peer_send(p, FUSE_OPEN, NODE_FILE, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(PEER_ARG(p, fuse_open_in)->flags, O_RDWR);
	end_request(p);
	peer_free(p);
}

static void test_small_rules(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_setattr_in sa = { .valid = FATTR_SIZE, .size = INT64_MAX };
	struct fuse_rename2_in rn = { .newdir = 1, .flags = 7 };
	struct fuse_fallocate_in fa = { .fh = FH_FILE, .length = 1, .mode = 0x13 };
	struct fuse_lseek_in ls = { .fh = FH_FILE, .whence = 5 };
	struct fuse_copy_file_range_in cp = {
		.fh_in = FH_FILE, .nodeid_out = NODE_OUT, .fh_out = FH_OUT, .len = UINT64_C(1) << 40
	};
	struct fuse_mknod_in mk = { .mode = S_IFDIR };
	struct fuse_access_in ac = { .mask = 8 };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_SETATTR, NODE_FILE, &sa, sizeof(sa), NULL, 0), 0);
	end_request(p);
	sa.size++;
	assert_int_equal(peer_send(p, FUSE_SETATTR, NODE_FILE, &sa, sizeof(sa), NULL, 0), -EINVAL);
	sa = (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtimensec = 1000000000 };
	assert_int_equal(peer_send(p, FUSE_SETATTR, NODE_FILE, &sa, sizeof(sa), NULL, 0), -EINVAL);
	sa.mtimensec--;
	assert_int_equal(peer_send(p, FUSE_SETATTR, NODE_FILE, &sa, sizeof(sa), NULL, 0), 0);
	end_request(p);
	sa.valid = 1u << 12;
	assert_int_equal(peer_send(p, FUSE_SETATTR, NODE_FILE, &sa, sizeof(sa), NULL, 0), -EINVAL);
	assert_int_equal(peer_send(p, FUSE_RENAME2, NODE_DIR, &rn, sizeof(rn), "a\0b", 4), -EINVAL);
	rn.flags = 8;
	assert_int_equal(peer_send(p, FUSE_RENAME2, NODE_DIR, &rn, sizeof(rn), "a\0b", 4), -EINVAL);
	rn.flags = 2;
	assert_int_equal(peer_send(p, FUSE_RENAME2, NODE_DIR, &rn, sizeof(rn), "a\0b", 4), 0);
	end_request(p);
	assert_int_equal(peer_send(p, FUSE_FALLOCATE, NODE_FILE, &fa, sizeof(fa), NULL, 0), 0);
	end_request(p);
	fa.mode = 0x20;
	assert_int_equal(peer_send(p, FUSE_FALLOCATE, NODE_FILE, &fa, sizeof(fa), NULL, 0),
			 -EOPNOTSUPP);
	assert_int_equal(peer_send(p, FUSE_LSEEK, NODE_FILE, &ls, sizeof(ls), NULL, 0), -EINVAL);
	assert_int_equal(peer_send(p, FUSE_COPY_FILE_RANGE, NODE_FILE, &cp, sizeof(cp), NULL, 0),
			 0);
	assert_int_equal(PEER_ARG(p, fuse_copy_file_range_in)->len, 0xfffff000);
	end_request(p);
	cp.off_out = INT64_MAX;
	assert_int_equal(peer_send(p, FUSE_COPY_FILE_RANGE_64, NODE_FILE, &cp, sizeof(cp), NULL, 0),
			 -EINVAL);
	assert_int_equal(peer_send(p, FUSE_MKNOD, NODE_DIR, &mk, sizeof(mk), "n", 2), -EINVAL);
	assert_int_equal(peer_send(p, FUSE_ACCESS, NODE_DIR, &ac, sizeof(ac), NULL, 0), -EINVAL);
	peer_free(p);
}

static void test_negotiated_only(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ .daemon_minor = 19 });
	struct good g = good_request(FUSE_READDIRPLUS, false);

	(void)state;
	assert_int_equal(good_send(p, FUSE_READDIRPLUS, &g), 0);
	end_request(p);
	peer_free(p);
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_DO_READDIRPLUS });
	assert_int_equal(good_send(p, FUSE_READDIRPLUS, &g), -ENOSYS);
	peer_free(p);
	p = good_peer((struct peer_setup){ .daemon_minor = 15 });
	g = good_request(FUSE_BATCH_FORGET, false);
	assert_int_equal(good_send(p, FUSE_BATCH_FORGET, &g), -ENOSYS);
	peer_free(p);
}

/* A list of extensions in the order of @p: security context "security.x" = @value, one group. */
static size_t make_ext(struct peer *p, unsigned char *ext, uint32_t value_bytes, bool groups)
{
	uint32_t ctx_bytes = (uint32_t)FUSE_REC_ALIGN(8 + 11 + value_bytes);
	uint32_t head[4] = { peer_order(p, 8 + ctx_bytes), peer_order(p, 1),
			     peer_order(p, value_bytes), 0 };
	uint32_t group[4] = { peer_order(p, 16), peer_order(p, FUSE_EXT_GROUPS), peer_order(p, 1),
			      peer_order(p, 4242) };
	size_t len = 8 + ctx_bytes;

	memset(ext, 0, len);
	memcpy(ext, head, 16);
	memcpy(ext + 16, "security.x", 11);
	memset(ext + 27, 'v', value_bytes);
	if (groups) {
		memcpy(ext + len, group, 16);
		len += 16;
	}
	return len;
}

static int send_mkdir_ext(struct peer *p, const unsigned char *ext, size_t ext_bytes)
{
	struct fuse_mkdir_in in = { .mode = 0755 };
	unsigned char *tail = malloc(4 + ext_bytes);
	int err;

	memcpy(tail, "dir", 4);
	memcpy(tail + 4, ext, ext_bytes);
	p->extlen = (uint32_t)ext_bytes;
	err = peer_send(p, FUSE_MKDIR, NODE_DIR, &in, sizeof(in), tail, 4 + ext_bytes);
	free(tail);
	return err;
}

static void run_extensions(bool swapped)
{
	struct peer *p = good_peer((struct peer_setup){ .swapped = swapped });
	static unsigned char ext[70000];
	uint32_t v;
	size_t len = make_ext(p, ext, 5, true);

	assert_int_equal(send_mkdir_ext(p, ext, len), 0);
	/* What the daemon reads is in its own order. */
	memcpy(&v, p->buf + 40 + 8 + 4, 4);
	assert_int_equal(v, 8 + FUSE_REC_ALIGN(8 + 11 + 5));
	memcpy(&v, p->buf + p->req.msg_bytes - 4, 4);
	assert_int_equal(v, 4242);
	end_request(p);
	/* The length in the header, and in each record. */
	assert_int_equal(send_mkdir_ext(p, ext, len - 8), -EINVAL);
	v = peer_order(p, 24);
	memcpy(ext + len - 16, &v, 4);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	len = make_ext(p, ext, 5, true);
	v = peer_order(p, 2);
	memcpy(ext + len - 8, &v, 4);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	len = make_ext(p, ext, 5, false);
	v = peer_order(p, 6);
	memcpy(ext + 8, &v, 4);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	v = peer_order(p, 33);
	memcpy(ext + 4, &v, 4);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	/* A context that reaches behind its record, with another to follow. */
	len = make_ext(p, ext, 5, false);
	v = peer_order(p, 2);
	memcpy(ext + 4, &v, 4);
	v = peer_order(p, 60000);
	memcpy(ext + 8, &v, 4);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	/* A record that reaches behind the list, and a context that fills it. */
	len = make_ext(p, ext, 13, false);
	assert_int_equal(len, 40);
	assert_int_equal(send_mkdir_ext(p, ext, len), 0);
	end_request(p);
	assert_int_equal(send_mkdir_ext(p, ext, len - 8), -EINVAL);
	/* One of each kind. */
	len = make_ext(p, ext, 5, false);
	memcpy(ext + len, ext, len);
	assert_int_equal(send_mkdir_ext(p, ext, len * 2), -EINVAL);
	len = make_ext(p, ext, 65536, false);
	assert_int_equal(send_mkdir_ext(p, ext, len), 0);
	end_request(p);
	len = make_ext(p, ext, 65537, false);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	peer_free(p);
}

static void test_extensions(void **state)
{
	struct peer *p;
	unsigned char ext[200];
	size_t len;

	(void)state;
	run_extensions(false);
	run_extensions(true);
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_SECURITY_CTX });
	len = make_ext(p, ext, 5, false);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	peer_free(p);
	p = good_peer((struct peer_setup){ .daemon_without = FUSE_CREATE_SUPP_GROUP });
	len = make_ext(p, ext, 5, true);
	assert_int_equal(send_mkdir_ext(p, ext, len), -EINVAL);
	peer_free(p);
	/* Where no extension belongs. */
	p = good_peer((struct peer_setup){ 0 });
	p->extlen = 8;
	assert_int_equal(peer_send(p, FUSE_UNLINK, NODE_DIR, NULL, 0, "a\0\0\0\0\0\0\0\0\0", 10),
			 -EINVAL);
	peer_free(p);
}

static void test_ids(void **state)
{
	struct peer *p = good_peer((struct peer_setup){ 0 });
	struct fuse_read_in in = { .fh = FH_FILE, .size = 1 };
	struct fuse_getattr_in ga = { 0 };

	(void)state;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_OUT, &in, sizeof(in), NULL, 0), -EBADF);
	assert_int_equal(peer_send(p, FUSE_READDIR, NODE_FILE, &in, sizeof(in), NULL, 0), -EBADF);
	in.fh = 0;
	assert_int_equal(peer_send(p, FUSE_READ, NODE_FILE, &in, sizeof(in), NULL, 0), -EBADF);
	assert_int_equal(peer_send(p, FUSE_GETATTR, 999, &ga, sizeof(ga), NULL, 0), -ESTALE);
	assert_int_equal(peer_send(p, FUSE_GETATTR, 0, &ga, sizeof(ga), NULL, 0), -ESTALE);
	assert_int_equal(peer_send(p, FUSE_GETATTR, FUSE_ROOT_ID, &ga, sizeof(ga), NULL, 0), 0);
	end_request(p);
	peer_free(p);
	p = good_peer((struct peer_setup){ .no_ledger = true });
	in.fh = 12345;
	assert_int_equal(peer_send(p, FUSE_READ, 999, &in, sizeof(in), NULL, 0), 0);
	end_request(p);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_good),
		cmocka_unit_test(test_all_good_old_daemons),
		cmocka_unit_test(test_all_lengths),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_no_session),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_dots_need_export),
		cmocka_unit_test(test_root_has_no_parent),
		cmocka_unit_test(test_tmpfile_name),
		cmocka_unit_test(test_read_sizes),
		cmocka_unit_test(test_write_sizes),
		cmocka_unit_test(test_setxattr),
		cmocka_unit_test(test_setxattr_bridge),
		cmocka_unit_test(test_getxattr_sizes),
		cmocka_unit_test(test_ioctl),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_open_flags),
		cmocka_unit_test(test_small_rules),
		cmocka_unit_test(test_negotiated_only),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
