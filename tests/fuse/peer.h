/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver and a daemon for the session, in one thread, for tests.
 */
#ifndef FUSEWIRE_TESTS_FUSE_PEER_H
#define FUSEWIRE_TESTS_FUSE_PEER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#ifdef PEER_PLAIN
/* For fuzz targets: a check that fails ends the process. */
#include <stdlib.h>
#define assert_true(x)	       ((x) ? (void)0 : abort())
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_non_null(p)     assert_true((p) != NULL)
#else
#include <setjmp.h>
#include <cmocka.h>
#endif

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/session.h"
#include "fuse/swap.h"

/** PEER_FLAGS - what a Linux driver of today offers. */
#define PEER_FLAGS  UINT64_C(0x000005fd7bfffffb)
#define PEER_UNIQUE UINT64_C(0x1122334455667788)

/**
 * struct peer - both ends of a session.
 * @session: between them
 * @swapped: the driver's byte order
 * @extlen: bytes of extensions at the end of the next request's tail
 * @writable: room for the next reply; 0: plenty
 * @unique: of the next request; 0: PEER_UNIQUE
 * @req: last request
 * @buf: its message
 * @daemon: the daemon's INIT reply
 * @minor: the driver's minor
 * @flags: the driver's INIT flags
 * @reply: INIT reply that the driver got
 * @reply_len: bytes of it
 */
struct peer {
	struct fuse_session *session;
	bool swapped;
	uint32_t extlen;
	size_t writable;
	uint64_t unique;
	struct fuse_request req;
	unsigned char buf[FUSE_ARGS_MAX + 128];
	struct fuse_init_out daemon;
	uint32_t minor;
	uint64_t flags;
	struct fuse_init_out reply;
	size_t reply_len;
};

/**
 * struct peer_setup - a peer that differs from the usual; zeros stand for it.
 * @swapped: the driver's byte order is the other one
 * @no_ledger: use_ledger is false
 * @daemon_minor: protocol minor of the daemon, 45
 * @driver_minor: protocol minor of the driver, 45
 * @daemon_without: INIT flags that the daemon does not take
 * @driver_without: INIT flags that the driver does not offer
 * @arch: of the driver
 * @page_bytes: of the driver, 4096
 * @notify: the driver takes notifications
 */
struct peer_setup {
	bool swapped;
	bool no_ledger;
	uint32_t daemon_minor;
	uint32_t driver_minor;
	uint64_t daemon_without;
	uint64_t driver_without;
	enum fuse_arch arch;
	uint32_t page_bytes;
	bool notify;
};

static inline uint32_t peer_order(const struct peer *p, uint32_t v)
{
	return p->swapped ? __builtin_bswap32(v) : v;
}

/* A message of the driver: native @args are turned into its order, @tail goes as it is. */
static inline int peer_send(struct peer *p, uint32_t opcode, uint64_t nodeid, const void *args,
			    size_t arg_bytes, const void *tail, size_t tail_bytes)
{
	const struct fuse_opcode_info *op = fuse_opcode_find(opcode);
	const size_t len = 40 + arg_bytes + tail_bytes;
	unsigned char *msg = malloc(len);
	struct fuse_in_header hdr = {
		.len = (uint32_t)len,
		.opcode = opcode,
		.unique = p->unique ? p->unique : PEER_UNIQUE,
		.nodeid = nodeid,
		.uid = 1000,
		.gid = 100,
		.pid = 4711,
		.total_extlen = (uint16_t)(p->extlen / 8),
	};
	int err;

	assert_non_null(msg);
	memcpy(msg, &hdr, 40);
	if (arg_bytes)
		memcpy(msg + 40, args, arg_bytes);
	if (tail_bytes)
		memcpy(msg + 40 + arg_bytes, tail, tail_bytes);
	if (p->swapped) {
		fuse_swap_fields(msg, 40, "448844422");
		if (op)
			fuse_swap_fields(msg + 40, arg_bytes, op->arg_layout);
	}
	err = fuse_session_header(p->session, msg, len, p->writable ? p->writable : 1u << 26,
				  &p->req);
	if (!err) {
		p->req.hdr.unique = 2;
		memset(p->buf, 0xa5, sizeof(p->buf));
		memcpy(p->buf + 40, msg + 40, p->req.copy_bytes);
		err = fuse_session_decode(p->session, &p->req, p->buf, 40 + p->req.copy_bytes + 64);
	}
	free(msg);
	p->extlen = 0;
	p->writable = 0;
	p->unique = 0;
	return err;
}

static inline int peer_reply(struct peer *p, int error, void *body, size_t len)
{
	return fuse_session_finish(p->session, &p->req, error, body, len, true);
}

/* The argument structure as the daemon sees it. */
#define PEER_ARG(p, type) ((struct type *)(void *)((p)->buf + 40))

static inline int peer_init(struct peer *p)
{
	struct fuse_init_in in = {
		.major = 7,
		.minor = p->minor,
		.max_readahead = 131072,
		.flags = (uint32_t)p->flags,
		.flags2 = (uint32_t)(p->flags >> 32),
	};
	int err = peer_send(p, FUSE_INIT, 0, &in, p->minor >= 36 ? 64 : 16, NULL, 0);

	if (err < 0)
		return err;
	return fuse_session_init(p->session, &p->req, p->buf, &p->daemon, &p->reply, &p->reply_len);
}

static inline struct peer *peer_new(struct peer_setup setup)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct fuse_session_config config = { .arch = setup.arch,
					      .page_bytes =
						      setup.page_bytes ? setup.page_bytes : 4096,
					      .use_ledger = !setup.no_ledger };
	unsigned char msg[40 + sizeof(struct fuse_init_in)];
	unsigned char answer[16 + sizeof(struct fuse_init_out)];
	struct fuse_init_in *in = (void *)(msg + 40);
	struct fuse_out_header hdr = { .len = sizeof(answer), .unique = 7 };
	const uint32_t minor = setup.daemon_minor ? setup.daemon_minor : 45;
	const char *why;
	struct fuse_init_out out = { .major = 7, .minor = minor, .max_write = 1u << 20 };
	size_t len = sizeof(answer);
	uint64_t flags;

	assert_non_null(p);
	assert_int_equal(fuse_session_new(&p->session, &config), 0);
	assert_int_equal(fuse_init_build(msg, 7), sizeof(msg));
	flags = ((uint64_t)in->flags2 << 32 | in->flags) & ~setup.daemon_without;
	if (minor < 36)
		flags = (uint32_t)flags & ~FUSE_INIT_EXT;
	out.flags = (uint32_t)flags;
	out.flags2 = (uint32_t)(flags >> 32);
	out.max_readahead = in->max_readahead;
	out.max_pages = 256;
	if (minor < 23)
		len = 16 + 24;
	hdr.len = (uint32_t)len;
	memcpy(answer, &hdr, sizeof(hdr));
	memcpy(answer + 16, &out, sizeof(out));
	assert_int_equal(fuse_init_accept(answer, len, 7, &p->daemon, &why), 0);
	fuse_session_allow_notify(p->session, setup.notify);
	p->swapped = setup.swapped;
	p->minor = setup.driver_minor ? setup.driver_minor : 45;
	p->flags = PEER_FLAGS & ~setup.driver_without;
	if (p->minor < 36)
		p->flags = (uint32_t)p->flags & ~FUSE_INIT_EXT;
	assert_int_equal(peer_init(p), 0);
	assert_true(fuse_session_active(p->session));
	return p;
}

static inline void peer_free(struct peer *p)
{
	fuse_session_free(p->session);
	free(p);
}

static inline struct fuse_entry_out peer_entry(uint64_t nodeid, uint32_t mode)
{
	return (struct fuse_entry_out){ .nodeid = nodeid,
					.generation = 3,
					.attr = { .ino = nodeid, .mode = mode, .nlink = 1 } };
}

/* LOOKUP of a node: afterwards the driver holds one more. Return: its id for the driver. */
static inline uint64_t peer_lookup(struct peer *p, uint64_t nodeid, uint32_t mode)
{
	struct fuse_entry_out entry = peer_entry(nodeid, mode);

	assert_int_equal(peer_send(p, FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, "x", 2), 0);
	assert_int_equal(peer_reply(p, 0, &entry, sizeof(entry)), 0);
	return fuse_get64(&entry.nodeid, p->swapped);
}

/* OPEN or OPENDIR. Return: the handle for the driver. */
static inline uint64_t peer_open(struct peer *p, uint64_t nodeid, uint64_t fh, bool dir)
{
	struct fuse_open_in in = { .flags = 2 };
	struct fuse_open_out out = { .fh = fh };

	assert_int_equal(
		peer_send(p, dir ? FUSE_OPENDIR : FUSE_OPEN, nodeid, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(peer_reply(p, 0, &out, sizeof(out)), 0);
	return fuse_get64(&out.fh, p->swapped);
}

static inline int peer_release(struct peer *p, uint64_t nodeid, uint64_t fh, bool dir)
{
	struct fuse_release_in in = { .fh = fh };

	return peer_send(p, dir ? FUSE_RELEASEDIR : FUSE_RELEASE, nodeid, &in, sizeof(in), NULL, 0);
}

static inline int peer_forget(struct peer *p, uint64_t nodeid, uint64_t nlookup)
{
	struct fuse_forget_in in = { .nlookup = nlookup };

	return peer_send(p, FUSE_FORGET, nodeid, &in, sizeof(in), NULL, 0);
}

#endif
