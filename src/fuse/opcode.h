/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one table of FUSE request opcodes: sizes, arguments, names and replies of each.
 */
#ifndef FUSEWIRE_FUSE_OPCODE_H
#define FUSEWIRE_FUSE_OPCODE_H

#include "base/compiler.h"

/** enum fuse_reply_kind - what a successful reply's body is. */
enum fuse_reply_kind {
	FUSE_REPLY_NONE, /* no reply at all: FORGET, BATCH_FORGET, INTERRUPT, NOTIFY_REPLY */
	FUSE_REPLY_EMPTY, /* header only */
	FUSE_REPLY_FIXED, /* one structure of exactly reply_bytes */
	FUSE_REPLY_DATA, /* opaque bytes, up to the size asked for; never looked at */
	FUSE_REPLY_LINK, /* READLINK: a path without NUL */
	FUSE_REPLY_STRUCT_OR_DATA, /* GETXATTR, LISTXATTR: a structure when size was 0, else bytes */
	FUSE_REPLY_STRUCT_THEN_DATA, /* IOCTL */
	FUSE_REPLY_DIRENTS, /* READDIR */
	FUSE_REPLY_DIRENTPLUS, /* READDIRPLUS */
	FUSE_REPLY_INIT,
};

/** enum fuse_payload - where bytes lie that are handed on without being looked at. */
enum fuse_payload {
	FUSE_PAYLOAD_NONE,
	FUSE_PAYLOAD_AFTER_ARGS, /* WRITE, IOCTL, NOTIFY_REPLY */
	FUSE_PAYLOAD_AFTER_NAME, /* SETXATTR */
};

/** enum fuse_name_rule - what a NUL-terminated string of the arguments may be. */
enum fuse_name_rule {
	FUSE_NAME_NONE, /* there is none */
	FUSE_NAME_FILE, /* a component: 1..4095 bytes, no '/', not "." or ".." */
	FUSE_NAME_LOOKUP, /* a component; "." and ".." with FUSE_EXPORT_SUPPORT */
	FUSE_NAME_TMPFILE, /* a component, or "/": what Linux sends for a file without a name */
	FUSE_NAME_TARGET, /* a symbolic link's target: 1..4095 bytes */
	FUSE_NAME_XATTR, /* 1..255 bytes */
};

/** FUSE_NO_FIELD - the argument structure has no such field. */
#define FUSE_NO_FIELD 0xff

/* Bits of struct fuse_opcode_info.traits */
/** FUSE_OP_NODE - the header's nodeid names the node that the request works on. */
#define FUSE_OP_NODE (1u << 0)
/** FUSE_OP_DIR_FH - fh names an open directory, not a file (IOCTL: its flags say). */
#define FUSE_OP_DIR_FH (1u << 1)
/** FUSE_OP_EXT - extensions (security context, groups) may follow the arguments. */
#define FUSE_OP_EXT (1u << 2)
/** FUSE_OP_ENTRY - the reply begins with fuse_entry_out and adds a lookup. */
#define FUSE_OP_ENTRY (1u << 3)
/** FUSE_OP_OPENS - the reply ends with fuse_open_out and adds a handle. */
#define FUSE_OP_OPENS (1u << 4)
/** FUSE_OP_RELEASES - the request ends the life of its handle. */
#define FUSE_OP_RELEASES (1u << 5)
/** FUSE_OP_TAIL - an array follows the fixed structure: BATCH_FORGET, REMOVEMAPPING. */
#define FUSE_OP_TAIL (1u << 6)
/** FUSE_OP_HIPRIO - allowed on the high-priority queue (virtio 1.2, 5.11.6.1). */
#define FUSE_OP_HIPRIO (1u << 7)
/** FUSE_OP_ATTR - the reply begins with fuse_attr_out. */
#define FUSE_OP_ATTR (1u << 8)
/** FUSE_OP_NEVER - checked, but never for a daemon: there is no DAX window. */
#define FUSE_OP_NEVER (1u << 9)

/**
 * struct fuse_opcode_info - one opcode.
 * @opcode: FUSE number
 * @name: "LOOKUP", ...
 * @reply: kind of body
 * @reply_bytes: size of the fixed part of the body
 * @arg_bytes: size of the argument structure (SETXATTR: 16, the long form; INIT: 64)
 * @arg_layout: widths of the argument structure's fields in bytes, one digit each
 * @reply_layout: widths of the fields of the reply's fixed part
 * @names: rules of the strings behind the arguments, in order
 * @payload: where opaque bytes follow
 * @traits: FUSE_OP_*
 * @fh_off: offset of the handle in the argument structure, or FUSE_NO_FIELD
 * @other_node_off: offset of a second node id (RENAME newdir, LINK oldnodeid, COPY_FILE_RANGE nodeid_out)
 * @other_fh_off: offset of the handle that belongs to the second node
 * @min_minor: protocol minor that brought it
 * @needs: INIT flags without which no driver sends it, 0 for none
 */
struct fuse_opcode_info {
	uint32_t opcode;
	const char *name;
	enum fuse_reply_kind reply;
	uint32_t reply_bytes;
	uint32_t arg_bytes;
	const char *arg_layout;
	const char *reply_layout;
	uint8_t names[2];
	uint8_t payload;
	uint8_t fh_off;
	uint8_t other_node_off;
	uint8_t other_fh_off;
	uint8_t min_minor;
	uint16_t traits;
	uint64_t needs;
};

/** FUSE_OPCODES_END - one more than the largest request opcode. */
#define FUSE_OPCODES_END 54

/** fuse_opcode_find() - the table entry, or NULL for a number that protocol 7.45 does not have. */
const struct fuse_opcode_info *fuse_opcode_find(uint32_t opcode);

#endif
