/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one table of FUSE request opcodes: sizes, arguments, names and replies of each.
 */
#ifndef FUSEWIRE_FUSE_OPCODE_H
#define FUSEWIRE_FUSE_OPCODE_H

#include "base/compiler.h"

/** enum fuse_reply_kind - what a successful reply's body is. */
enum fuse_reply_kind {
	FUSE_REPLY_NONE,      /* no reply at all: FORGET, BATCH_FORGET, INTERRUPT, NOTIFY_REPLY */
	FUSE_REPLY_EMPTY,     /* header only */
	FUSE_REPLY_FIXED,     /* one structure of exactly reply_bytes */
	FUSE_REPLY_DATA,      /* opaque bytes, up to the size asked for; never looked at */
	FUSE_REPLY_STRUCT_OR_DATA, /* GETXATTR, LISTXATTR: a structure when size was 0, else bytes */
	FUSE_REPLY_STRUCT_THEN_DATA, /* IOCTL */
	FUSE_REPLY_DIRENTS,   /* READDIR */
	FUSE_REPLY_DIRENTPLUS, /* READDIRPLUS */
	FUSE_REPLY_INIT,
};

/**
 * struct fuse_opcode_info - one opcode; fuse/ may add fields.
 * @opcode: FUSE number
 * @name: "LOOKUP", ...
 * @reply: kind of body
 * @reply_bytes: size of the fixed part of the body
 */
struct fuse_opcode_info {
	uint32_t opcode;
	const char *name;
	enum fuse_reply_kind reply;
	uint32_t reply_bytes;
};

/** fuse_opcode_find() - the table entry, or NULL for a number that protocol 7.45 does not have. */
const struct fuse_opcode_info *fuse_opcode_find(uint32_t opcode);

#endif
