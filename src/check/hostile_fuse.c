/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Malformed FUSE requests: headers, lengths, names, ids and sizes that no kernel sends.
 *
 * What could change the file system if it was taken for good has node ids that nobody has.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "check/raw.h"
#include "client/fuse_ops.h"

#define RING_SIZE  64u
#define NO_NODE	   UINT64_C(0x7ffffff1)
#define NO_FH	   UINT64_C(0x7ffffff2)
#define HDR_BYTES  ((uint32_t)sizeof(struct fuse_in_header))
#define ROOM_BYTES 4096u
#define LONG_NAME  70000u

/* One request, byte for byte. */
struct bad_request {
	uint32_t opcode;
	uint64_t nodeid;
	const void *args;
	uint32_t args_bytes;
	uint32_t long_name; /* so many times 'n' behind the arguments, without NUL */
	uint32_t out_bytes; /* of the readable part; 0: all of it */
	uint32_t len; /* the header's own length; 0: what it is */
	uint32_t room; /* for the reply; 0: ROOM_BYTES */
	bool no_room;
	bool hiprio;
	bool no_session;
	bool no_unique;
	uint16_t extlen;
	unsigned int times; /* 0: once */
};

static struct peer *fuse_victim(struct check *c, bool no_session)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .no_session = no_session };

	return check_victim(c, &setup);
}

/* Put it into memory. Return: bytes of the readable part. */
static uint32_t put_request(const struct raw *r, const struct bad_request *bad)
{
	uint8_t *at = raw_pointer(r, r->out);
	uint32_t bytes = HDR_BYTES + bad->args_bytes + bad->long_name;
	const struct fuse_in_header hdr = {
		.len = bad->len ? bad->len : bytes,
		.opcode = bad->opcode,
		.unique = bad->no_unique ? 0 : r->p->unique,
		.nodeid = bad->nodeid,
		.pid = 1,
		.total_extlen = bad->extlen,
	};

	memcpy(at, &hdr, sizeof(hdr));
	if (bad->args_bytes)
		memcpy(at + HDR_BYTES, bad->args, bad->args_bytes);
	memset(at + HDR_BYTES + bad->args_bytes, 'n', bad->long_name);
	return bad->out_bytes ? bad->out_bytes : bytes;
}

static enum check_status run_request(struct check *c, uint64_t arg)
{
	const struct bad_request *bad = c->rule->data;
	struct peer *p = fuse_victim(c, bad->no_session);
	uint32_t room = bad->room ? bad->room : ROOM_BYTES;
	unsigned int times = bad->times ? bad->times : 1;
	struct raw r;
	uint32_t bytes;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, bad->hiprio ? HIPRIO : FIRST_QUEUE);
	bytes = put_request(&r, bad);
	for (unsigned int i = 0; i < times; i++) {
		uint16_t at = (uint16_t)(2 * i);

		raw_desc(&r, at, r.out, bytes, bad->no_room ? 0 : RING_DESC_NEXT,
			 (uint16_t)(at + 1));
		raw_desc(&r, at + 1u, r.in, room, RING_DESC_WRITE, 0);
		raw_offer(&r, at);
	}
	raw_publish(&r);
	return check_survived(c, p, raw_settle(&r));
}

/* A handle that is given back twice, and used behind that. */
static enum check_status run_release_twice(struct check *c, uint64_t arg)
{
	struct peer *p = fuse_victim(c, false);
	const int flags = O_RDONLY | O_DIRECTORY;
	uint64_t fh = 0;
	struct ask ask;
	int err;

	if (!p)
		return check_no_peer(c);
	err = fs_open(p, FUSE_OPENDIR, FUSE_ROOT_ID, flags, &fh);
	if (err < 0)
		return check_error(c, p, err, "OPENDIR before it");
	for (unsigned int i = 0; i < 2 && err == 0; i++)
		err = fs_release(p, FUSE_RELEASEDIR, FUSE_ROOT_ID, fh, flags);
	if (!p->problem[0])
		err = fs_list(p, FUSE_ROOT_ID, fh, 0, &ask);
	return check_survived(c, p, p->problem[0] ? p->problem : err ? "refused" : "taken");
}

/* More lookups are given back than there were, and the node is used behind that. */
static enum check_status run_forget_too_much(struct check *c, uint64_t arg)
{
	struct peer *p = fuse_victim(c, false);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_forget(p, FUSE_ROOT_ID, UINT64_MAX);
	if (err == 0)
		err = peer_forget(p, NO_NODE, UINT64_MAX);
	if (err == 0)
		err = peer_works(p, FIRST_QUEUE);
	return check_survived(c, p,
			      p->problem[0] ? p->problem
			      : err	    ? "refused"
					    : "the root stays");
}

static enum check_status run_destroyed(struct check *c, uint64_t arg)
{
	struct peer *p = fuse_victim(c, false);
	struct ask ask = { .opcode = FUSE_DESTROY };
	int err = 0;

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < 2 && err == 0; i++)
		err = peer_ask(p, FIRST_QUEUE, &ask);
	if (err == 0)
		err = peer_works(p, FIRST_QUEUE);
	return check_survived(c, p, p->problem[0] ? p->problem : err ? "refused" : "taken");
}

/* The driver changes a request while the device works on it. */
static enum check_status run_changing(struct check *c, uint64_t arg)
{
	struct peer *p = fuse_victim(c, false);
	uint8_t *hdr;
	struct raw r;

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < 200 && !peer_is_gone(p); i++) {
		raw_begin(&r, p, FIRST_QUEUE);
		hdr = raw_pointer(&r, r.out);
		raw_desc(&r, 0, r.out, r.out_bytes, RING_DESC_NEXT, 1);
		raw_desc(&r, 1, r.in, r.in_bytes, RING_DESC_WRITE, 0);
		raw_offer(&r, 0);
		raw_publish(&r);
		for (unsigned int k = 0; k < 300; k++) {
			/* Length and unique; the opcode stays one that changes nothing. */
			WRITE_ONCE(hdr[0], (uint8_t)(k * 37));
			WRITE_ONCE(hdr[8], (uint8_t)k);
			WRITE_ONCE(hdr[16], (uint8_t)(k & 3));
		}
	}
	return check_survived(c, p, raw_settle(&r));
}

#define KIND(what, fn)                                                     \
	{                                                                  \
		"hostile: FUSE", "5.11.6", what, TURN_HOSTILE, fn, 0, NULL \
	}
#define BAD(what, op, node, ...)                                          \
	{                                                                 \
		"hostile: FUSE", #op, what, TURN_HOSTILE, run_request, 0, \
			&(const struct bad_request)                       \
		{                                                         \
			.opcode = FUSE_##op, .nodeid = node, __VA_ARGS__  \
		}                                                         \
	}
#define HEADER(what, nr, ...)                                                  \
	{                                                                      \
		"hostile: FUSE", "header", what, TURN_HOSTILE, run_request, 0, \
			&(const struct bad_request)                            \
		{                                                              \
			.opcode = (nr), .nodeid = FUSE_ROOT_ID, __VA_ARGS__    \
		}                                                              \
	}
#define ARGS(type, ...) \
	.args = &(const struct type){ __VA_ARGS__ }, .args_bytes = sizeof(struct type)
#define BYTES(text)  .args = (text), .args_bytes = sizeof(text) - 1
#define ROOT	     FUSE_ROOT_ID
#define GETATTR_ARGS ARGS(fuse_getattr_in, 0)

/* A structure and what follows it, packed as on the wire. */
struct write_and_data {
	struct fuse_write_in in;
	uint8_t data[8];
};
struct forget_and_one {
	struct fuse_batch_forget_in in;
	struct fuse_forget_one one;
};
struct create_and_name {
	struct fuse_create_in in;
	char name[2];
	uint8_t ext[14];
};
struct mkdir_and_name {
	struct fuse_mkdir_in in;
	char name[8];
};
struct rename_and_name {
	struct fuse_rename_in in;
	char name[4];
};
struct setxattr_and_name {
	struct fuse_setxattr_in in;
	char name[8];
};
struct getxattr_and_name {
	struct fuse_getxattr_in in;
	char name[8];
};
struct mapping {
	struct fuse_removemapping_in in;
	uint32_t more[4];
};

/* clang-format off */
static const struct check_rule rules[] = {
	HEADER("a request of 39 bytes", FUSE_GETATTR, .out_bytes = 39),
	HEADER("a request of one byte", FUSE_GETATTR, .out_bytes = 1),
	HEADER("a length of 1", FUSE_GETATTR, GETATTR_ARGS, .len = 1),
	HEADER("a length below the header's", FUSE_GETATTR, GETATTR_ARGS, .len = 39),
	HEADER("a length beyond what is there", FUSE_GETATTR, GETATTR_ARGS, .len = 4096),
	HEADER("a length of 4 GiB - 1", FUSE_GETATTR, GETATTR_ARGS, .len = UINT32_MAX),
	HEADER("a length short of what is there", FUSE_GETATTR, GETATTR_ARGS, .len = 48),
	HEADER("opcode 0", 0, GETATTR_ARGS),
	HEADER("opcode 7, which never was", 7, GETATTR_ARGS),
	HEADER("opcode 54, the next one", 54, GETATTR_ARGS),
	HEADER("opcode 4096 (CUSE_INIT)", CUSE_INIT, ARGS(fuse_init_in, .major = 7, .minor = 45)),
	HEADER("opcode 2^32 - 1", UINT32_MAX, GETATTR_ARGS),
	HEADER("unique 0", FUSE_GETATTR, GETATTR_ARGS, .no_unique = true),
	HEADER("the same unique 16 times at once", FUSE_GETATTR, GETATTR_ARGS, .times = 16),
	HEADER("no room for a reply", FUSE_GETATTR, GETATTR_ARGS, .no_room = true),
	HEADER("room for 15 bytes of reply", FUSE_GETATTR, GETATTR_ARGS, .room = 15),
	HEADER("room for the reply's header only", FUSE_GETATTR, GETATTR_ARGS, .room = 16),
	HEADER("extensions of 512 KiB that are not there", FUSE_GETATTR, GETATTR_ARGS, .extlen = 0xffff),
	HEADER("a request with a reply on hiprio", FUSE_GETATTR, GETATTR_ARGS, .hiprio = true),
	HEADER("a request before INIT", FUSE_GETATTR, GETATTR_ARGS, .no_session = true),
	BAD("node 0", GETATTR, 0, GETATTR_ARGS),
	BAD("a node that nobody has", GETATTR, NO_NODE, GETATTR_ARGS),
	BAD("node 2^64 - 1", GETATTR, UINT64_MAX, GETATTR_ARGS),
	BAD("a handle that nobody has", GETATTR, ROOT, ARGS(fuse_getattr_in, .getattr_flags = FUSE_GETATTR_FH, .fh = NO_FH)),
	BAD("arguments too short", GETATTR, ROOT, BYTES("1234567")),
	BAD("arguments too long", GETATTR, ROOT, BYTES("12345678901234567890")),
	BAD("no name", LOOKUP, ROOT, .args = NULL),
	BAD("an empty name", LOOKUP, ROOT, BYTES("\0")),
	BAD("a name without NUL", LOOKUP, ROOT, BYTES("name")),
	BAD("a name with a slash", LOOKUP, ROOT, BYTES("a/b\0")),
	BAD("an absolute path", LOOKUP, ROOT, BYTES("/etc/passwd\0")),
	BAD("the name ..", LOOKUP, ROOT, BYTES("..\0")),
	BAD("the name ../../etc", LOOKUP, ROOT, BYTES("../../etc\0")),
	BAD("a name and more behind its NUL", LOOKUP, ROOT, BYTES("a\0b\0")),
	BAD("a name of 70000 bytes", LOOKUP, ROOT, .long_name = LONG_NAME),
	BAD("a name of 5000 bytes", LOOKUP, ROOT, .long_name = 5000),
	BAD("in a node that nobody has", LOOKUP, NO_NODE, BYTES("a\0")),
	BAD("the name .. in a node that nobody has", MKDIR, NO_NODE, ARGS(mkdir_and_name, .in.mode = 0755, .name = "..")),
	BAD("one name instead of two", SYMLINK, NO_NODE, BYTES("one\0")),
	BAD("one name instead of two", RENAME, NO_NODE, ARGS(rename_and_name, .in.newdir = NO_NODE, .name = "one")),
	BAD("a name without NUL, and extensions that are none", CREATE, NO_NODE, ARGS(create_and_name, .name = "ab"), .extlen = 2),
	BAD("a handle that nobody has", READ, NO_NODE, ARGS(fuse_read_in, .fh = NO_FH, .size = 100)),
	BAD("a handle that nobody has, of the root", READ, ROOT, ARGS(fuse_read_in, .fh = NO_FH, .size = 100)),
	BAD("size 4 GiB - 1", READ, ROOT, ARGS(fuse_read_in, .fh = NO_FH, .size = UINT32_MAX)),
	BAD("offset 2^64 - 1", READ, ROOT, ARGS(fuse_read_in, .fh = NO_FH, .offset = UINT64_MAX, .size = 100)),
	BAD("more bytes than are there", WRITE, NO_NODE, ARGS(write_and_data, .in = { .fh = NO_FH, .size = 4096 })),
	BAD("size 4 GiB - 1", WRITE, NO_NODE, ARGS(write_and_data, .in = { .fh = NO_FH, .size = UINT32_MAX })),
	BAD("arguments cut off", WRITE, NO_NODE, BYTES("0123456789")),
	BAD("a handle that nobody has", RELEASE, ROOT, ARGS(fuse_release_in, .fh = NO_FH)),
	BAD("a handle that nobody has", FLUSH, ROOT, ARGS(fuse_flush_in, .fh = NO_FH)),
	BAD("a handle that nobody has", READDIR, ROOT, ARGS(fuse_read_in, .fh = NO_FH, .size = 4096)),
	BAD("size 4 GiB - 1", READDIR, ROOT, ARGS(fuse_read_in, .fh = NO_FH, .size = UINT32_MAX)),
	BAD("size 0", READDIRPLUS, ROOT, ARGS(fuse_read_in, .fh = NO_FH)),
	BAD("every bit of valid, and times out of range", SETATTR, NO_NODE, ARGS(fuse_setattr_in, .valid = UINT32_MAX, .size = UINT64_MAX, .atimensec = UINT32_MAX)),
	BAD("a value longer than what is there", SETXATTR, NO_NODE, ARGS(setxattr_and_name, .in.size = 65536, .name = "user.x")),
	BAD("size 4 GiB - 1", GETXATTR, ROOT, ARGS(getxattr_and_name, .in.size = UINT32_MAX, .name = "user.x")),
	BAD("size 4 GiB - 1", LISTXATTR, ROOT, ARGS(fuse_getxattr_in, .size = UINT32_MAX)),
	BAD("input and output of 4 GiB - 1", IOCTL, ROOT, ARGS(fuse_ioctl_in, .fh = NO_FH, .cmd = 1, .in_size = UINT32_MAX, .out_size = UINT32_MAX)),
	BAD("a lock type that does not exist", SETLKW, ROOT, ARGS(fuse_lk_in, .fh = NO_FH, .lk = { .end = UINT64_MAX, .type = 99 })),
	BAD("whence 99", LSEEK, ROOT, ARGS(fuse_lseek_in, .fh = NO_FH, .whence = 99)),
	BAD("length 2^64 - 1", FALLOCATE, NO_NODE, ARGS(fuse_fallocate_in, .fh = NO_FH, .length = UINT64_MAX)),
	BAD("length 2^64 - 1", COPY_FILE_RANGE, NO_NODE, ARGS(fuse_copy_file_range_in, .fh_in = NO_FH, .nodeid_out = NO_NODE, .fh_out = NO_FH, .len = UINT64_MAX)),
	BAD("a header alone", FORGET, ROOT, .hiprio = true, .no_room = true),
	BAD("on a request queue, with room for a reply", FORGET, NO_NODE, ARGS(fuse_forget_in, .nlookup = 1)),
	BAD("4294967295 nodes, of which one is there", BATCH_FORGET, 0, ARGS(forget_and_one, .in.count = UINT32_MAX, .one = { NO_NODE, 1 }), .hiprio = true, .no_room = true),
	BAD("no node", BATCH_FORGET, 0, ARGS(fuse_batch_forget_in, .count = 0), .hiprio = true, .no_room = true),
	BAD("of a request that never was", INTERRUPT, 0, ARGS(fuse_interrupt_in, .unique = UINT64_MAX), .hiprio = true, .no_room = true),
	BAD("nobody asked for it", NOTIFY_REPLY, NO_NODE, ARGS(fuse_notify_retrieve_in, .size = UINT32_MAX), .no_room = true),
	BAD("a window that is not there", SETUPMAPPING, ROOT, ARGS(fuse_setupmapping_in, .fh = NO_FH, .foffset = UINT64_MAX, .len = UINT64_MAX, .moffset = UINT64_MAX)),
	BAD("4294967295 mappings, of which one is there", REMOVEMAPPING, ROOT, ARGS(mapping, .in.count = UINT32_MAX)),
	BAD("four bytes", INIT, 0, BYTES("\7\0\0\0"), .no_session = true),
	BAD("major 0", INIT, 0, ARGS(fuse_init_in, .minor = 45), .no_session = true),
	BAD("minor 0", INIT, 0, ARGS(fuse_init_in, .major = 7), .no_session = true),
	BAD("room for the reply's header only", INIT, 0, ARGS(fuse_init_in, .major = 7, .minor = 45), .no_session = true, .room = 16),
	BAD("16 of them at once", INIT, 0, ARGS(fuse_init_in, .major = 7, .minor = 45), .times = 16),
	BAD("16 of them at once", DESTROY, 0, .times = 16),
	KIND("DESTROY twice, and a request behind it", run_destroyed),
	KIND("a handle given back twice, and used behind that", run_release_twice),
	KIND("more lookups given back than there were", run_forget_too_much),
	KIND("requests that change while they are worked on", run_changing),
};
/* clang-format on */

const struct check_table check_hostile_fuse = { rules, array_size(rules) };
