/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One good request of each opcode, for table-driven tests.
 */
#ifndef FUSEWIRE_TESTS_FUSE_REQUESTS_H
#define FUSEWIRE_TESTS_FUSE_REQUESTS_H

#include "peer.h"

/* The nodes and handles that the good requests name. */
#define NODE_FILE 100
#define NODE_OUT  101
#define NODE_DIR  200
#define FH_FILE	  5
#define FH_OUT	  9
#define FH_DIR	  6

/**
 * struct good - a request before it becomes bytes.
 * @nodeid: of the header
 * @args: structure, native order
 * @arg_bytes: bytes of it
 * @tail: what follows
 * @tail_bytes: bytes of it
 */
struct good {
	uint64_t nodeid;
	unsigned char args[96];
	size_t arg_bytes;
	unsigned char tail[8192];
	size_t tail_bytes;
};

static inline void good_args(struct good *g, const void *args, size_t bytes)
{
	memcpy(g->args, args, bytes);
	g->arg_bytes = bytes;
}

static inline void good_tail(struct good *g, const void *tail, size_t bytes)
{
	memcpy(g->tail + g->tail_bytes, tail, bytes);
	g->tail_bytes += bytes;
}

#define SET(g, type, ...) good_args(g, &(struct type){ __VA_ARGS__ }, sizeof(struct type))

static inline void good_handles(uint32_t opcode, struct good *g, bool dir)
{
	const uint64_t fh = dir ? FH_DIR : FH_FILE;

	g->nodeid = dir ? NODE_DIR : NODE_FILE;
	switch (opcode) {
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		SET(g, fuse_read_in, .fh = fh, .offset = 512,
		    .size = opcode == FUSE_READ ? 4096 : 8192);
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		SET(g, fuse_release_in, .fh = fh, .flags = 2, .lock_owner = 77);
		break;
	default:
		SET(g, fuse_fsync_in, .fh = fh, .fsync_flags = 1);
		break;
	}
}

static inline void good_files(uint32_t opcode, struct good *g, bool swapped)
{
	switch (opcode) {
	case FUSE_WRITE:
		SET(g, fuse_write_in, .fh = FH_FILE, .offset = 1, .size = 16);
		good_tail(g, "0123456789abcdef", 16);
		break;
	case FUSE_FLUSH:
		SET(g, fuse_flush_in, .fh = FH_FILE, .lock_owner = 77);
		break;
	case FUSE_GETLK:
	case FUSE_SETLK:
	case FUSE_SETLKW:
		SET(g, fuse_lk_in, .fh = FH_FILE, .owner = 77, .lk = { .end = 10, .type = 1 });
		break;
	case FUSE_IOCTL:
		SET(g, fuse_ioctl_in, .fh = FH_FILE, .cmd = 0x1234, .in_size = 4, .out_size = 8);
		good_tail(g, "abcd", 4);
		break;
	case FUSE_POLL:
		SET(g, fuse_poll_in, .fh = FH_FILE, .kh = 1, .flags = 1, .events = 5);
		break;
	case FUSE_FALLOCATE:
		SET(g, fuse_fallocate_in, .fh = FH_FILE, .length = 4096, .mode = 1);
		break;
	case FUSE_LSEEK:
		SET(g, fuse_lseek_in, .fh = FH_FILE, .offset = 3, .whence = 3);
		break;
	case FUSE_COPY_FILE_RANGE:
	case FUSE_COPY_FILE_RANGE_64:
		SET(g, fuse_copy_file_range_in, .fh_in = FH_FILE, .nodeid_out = NODE_OUT,
		    .fh_out = FH_OUT, .len = 1000);
		break;
	case FUSE_SETUPMAPPING:
		SET(g, fuse_setupmapping_in, .fh = FH_FILE, .len = 4096);
		break;
	case FUSE_REMOVEMAPPING:
		SET(g, fuse_removemapping_in, .count = 2);
		good_tail(g, (char[32]){ 0 }, 32);
		break;
	case FUSE_NOTIFY_REPLY:
		SET(g, fuse_notify_retrieve_in, .size = 3);
		good_tail(g, "abc", 3);
		break;
	case FUSE_BATCH_FORGET: {
		uint64_t items[4] = { NODE_FILE, 1, NODE_OUT, 1 };

		SET(g, fuse_batch_forget_in, .count = 2);
		if (swapped)
			fuse_swap_fields(items, sizeof(items), "8888");
		good_tail(g, items, sizeof(items));
		break;
	}
	default:
		break;
	}
}

static inline void good_names(uint32_t opcode, struct good *g)
{
	switch (opcode) {
	case FUSE_SYMLINK:
		good_tail(g, "name\0../tar/get", 16);
		break;
	case FUSE_MKNOD:
		SET(g, fuse_mknod_in, .mode = S_IFIFO | 0644, .umask = 022);
		break;
	case FUSE_MKDIR:
		SET(g, fuse_mkdir_in, .mode = 0755, .umask = 022);
		break;
	case FUSE_RENAME:
		SET(g, fuse_rename_in, .newdir = FUSE_ROOT_ID);
		good_tail(g, "old\0new", 8);
		break;
	case FUSE_RENAME2:
		SET(g, fuse_rename2_in, .newdir = FUSE_ROOT_ID, .flags = 1);
		good_tail(g, "old\0new", 8);
		break;
	case FUSE_LINK:
		SET(g, fuse_link_in, .oldnodeid = NODE_FILE);
		break;
	case FUSE_CREATE:
	case FUSE_TMPFILE:
		SET(g, fuse_create_in, .flags = 0102, .mode = S_IFREG | 0644, .umask = 022);
		break;
	default:
		break;
	}
	g->nodeid = NODE_DIR;
	if (!g->tail_bytes)
		good_tail(g, "name", 5);
}

static inline void good_attrs(uint32_t opcode, struct good *g)
{
	switch (opcode) {
	case FUSE_FORGET:
		SET(g, fuse_forget_in, .nlookup = 1);
		break;
	case FUSE_GETATTR:
		SET(g, fuse_getattr_in, .getattr_flags = 1, .fh = FH_FILE);
		break;
	case FUSE_SETATTR:
		SET(g, fuse_setattr_in, .valid = FATTR_MODE | FATTR_FH, .fh = FH_FILE,
		    .mode = 0644);
		break;
	case FUSE_STATX:
		SET(g, fuse_statx_in, .getattr_flags = 1, .fh = FH_FILE, .sx_mask = 0x7ff);
		break;
	case FUSE_OPEN:
		SET(g, fuse_open_in, .flags = 2);
		break;
	case FUSE_OPENDIR:
		SET(g, fuse_open_in, .flags = 0200000);
		g->nodeid = NODE_DIR;
		break;
	case FUSE_SETXATTR:
		SET(g, fuse_setxattr_in, .size = 5, .flags = 1);
		good_tail(g, "user.a\0value", 12);
		break;
	case FUSE_GETXATTR:
		SET(g, fuse_getxattr_in, .size = 100);
		good_tail(g, "user.a", 7);
		break;
	case FUSE_LISTXATTR:
		SET(g, fuse_getxattr_in, .size = 100);
		break;
	case FUSE_REMOVEXATTR:
		good_tail(g, "user.a", 7);
		break;
	case FUSE_ACCESS:
		SET(g, fuse_access_in, .mask = 4);
		break;
	case FUSE_INTERRUPT:
		SET(g, fuse_interrupt_in, .unique = 0x1234);
		break;
	case FUSE_BMAP:
		SET(g, fuse_bmap_in, .block = 1, .blocksize = 4096);
		break;
	case FUSE_SYNCFS:
		SET(g, fuse_syncfs_in, .padding = 0);
		break;
	case FUSE_INIT:
		SET(g, fuse_init_in, .major = 7, .minor = 45);
		break;
	default:
		break;
	}
}

/* A request of @opcode that must be accepted by a peer that good_peer() made. */
static inline struct good good_request(uint32_t opcode, bool swapped)
{
	const struct fuse_opcode_info *op = fuse_opcode_find(opcode);
	struct good g = { .nodeid = NODE_FILE };

	if (op->names[0] && op->names[0] != FUSE_NAME_XATTR)
		good_names(opcode, &g);
	else if (opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS ||
		 opcode == FUSE_FSYNC || opcode == FUSE_FSYNCDIR || opcode == FUSE_RELEASE ||
		 opcode == FUSE_RELEASEDIR)
		good_handles(opcode, &g, op->traits & FUSE_OP_DIR_FH);
	else {
		good_attrs(opcode, &g);
		if (!g.arg_bytes)
			good_files(opcode, &g, swapped);
	}
	return g;
}

static inline struct peer *good_peer(struct peer_setup setup)
{
	struct peer *p = peer_new(setup);

	if (setup.no_ledger)
		return p;
	assert_int_equal(peer_lookup(p, NODE_FILE, S_IFREG | 0644), NODE_FILE);
	assert_int_equal(peer_lookup(p, NODE_FILE, S_IFREG | 0644), NODE_FILE);
	assert_int_equal(peer_lookup(p, NODE_OUT, S_IFREG | 0644), NODE_OUT);
	assert_int_equal(peer_lookup(p, NODE_OUT, S_IFREG | 0644), NODE_OUT);
	assert_int_equal(peer_lookup(p, NODE_DIR, S_IFDIR | 0755), NODE_DIR);
	assert_int_equal(peer_open(p, NODE_FILE, FH_FILE, false), FH_FILE);
	assert_int_equal(peer_open(p, NODE_OUT, FH_OUT, false), FH_OUT);
	assert_int_equal(peer_open(p, NODE_DIR, FH_DIR, true), FH_DIR);
	return p;
}

static inline int good_send(struct peer *p, uint32_t opcode, const struct good *g)
{
	return peer_send(p, opcode, g->nodeid, g->args, g->arg_bytes, g->tail, g->tail_bytes);
}

/* What a good request is answered with by decode. */
static inline int good_result(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_NOTIFY_REPLY:
	case FUSE_SETUPMAPPING:
	case FUSE_REMOVEMAPPING:
		return -ENOSYS;
	default:
		return 0;
	}
}

#endif
