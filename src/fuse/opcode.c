/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of FUSE request opcodes.
 */
#include "fuse/opcode.h"

#include "fuse/abi.h"

/* Field widths of the structures that several opcodes share. */
#define L_ATTR	 "8888884444444444"
#define L_ENTRY	 "888844" L_ATTR
#define L_OPEN	 "844"
#define L_SXTIME "844"
#define L_STATX_OUT                                \
	"844"                                      \
	"88"                                       \
	"448"                                      \
	"44422"                                    \
	"8888" L_SXTIME L_SXTIME L_SXTIME L_SXTIME \
	"4444"                                     \
	"88888888888888"
#define L_LOCK	  "8844"
#define L_READ	  "8844844"
#define L_CFR	  "8888888"
#define L_INIT_IN "4444444444444444"

#define NO		 FUSE_NO_FIELD
#define OFF(type, field) (uint8_t) offsetof(struct type, field)

/* What most entries have in common. */
#define OP(num, nm)	   [num] = { .opcode = (num), .name = (nm)
#define ARGS(type, layout) .arg_bytes = sizeof(struct type), .arg_layout = (layout)
#define NO_ARGS		   .arg_bytes = 0, .arg_layout = ""
#define NO_REPLY	   .reply = FUSE_REPLY_NONE, .reply_layout = ""
#define EMPTY		   .reply = FUSE_REPLY_EMPTY, .reply_layout = ""
#define FIXED(type, layout) \
	.reply = FUSE_REPLY_FIXED, .reply_bytes = sizeof(struct type), .reply_layout = (layout)
#define FIELDS(fh, node2, fh2) .fh_off = (fh), .other_node_off = (node2), .other_fh_off = (fh2)
#define NO_FIELDS	       FIELDS(NO, NO, NO)
#define NODE		       .traits = FUSE_OP_NODE
#define END		       }

/* clang-format off */
static const struct fuse_opcode_info table[FUSE_OPCODES_END] = {
OP(FUSE_LOOKUP, "LOOKUP"), NO_ARGS, FIXED(fuse_entry_out, L_ENTRY), NO_FIELDS,
	.names = { FUSE_NAME_LOOKUP }, NODE | FUSE_OP_ENTRY END,
OP(FUSE_FORGET, "FORGET"), ARGS(fuse_forget_in, "8"), NO_REPLY, NO_FIELDS,
	.traits = FUSE_OP_HIPRIO END,
OP(FUSE_GETATTR, "GETATTR"), ARGS(fuse_getattr_in, "448"), FIXED(fuse_attr_out, "844" L_ATTR),
	FIELDS(OFF(fuse_getattr_in, fh), NO, NO), NODE | FUSE_OP_ATTR END,
OP(FUSE_SETATTR, "SETATTR"), ARGS(fuse_setattr_in, "44888" "888" "444" "44444"),
	FIXED(fuse_attr_out, "844" L_ATTR),
	FIELDS(OFF(fuse_setattr_in, fh), NO, NO), NODE | FUSE_OP_ATTR END,
OP(FUSE_READLINK, "READLINK"), NO_ARGS, .reply = FUSE_REPLY_LINK, .reply_layout = "", NO_FIELDS,
	NODE END,
OP(FUSE_SYMLINK, "SYMLINK"), NO_ARGS, FIXED(fuse_entry_out, L_ENTRY), NO_FIELDS,
	.names = { FUSE_NAME_FILE, FUSE_NAME_TARGET }, NODE | FUSE_OP_ENTRY | FUSE_OP_EXT END,
OP(FUSE_MKNOD, "MKNOD"), ARGS(fuse_mknod_in, "4444"), FIXED(fuse_entry_out, L_ENTRY), NO_FIELDS,
	.names = { FUSE_NAME_FILE }, NODE | FUSE_OP_ENTRY | FUSE_OP_EXT END,
OP(FUSE_MKDIR, "MKDIR"), ARGS(fuse_mkdir_in, "44"), FIXED(fuse_entry_out, L_ENTRY), NO_FIELDS,
	.names = { FUSE_NAME_FILE }, NODE | FUSE_OP_ENTRY | FUSE_OP_EXT END,
OP(FUSE_UNLINK, "UNLINK"), NO_ARGS, EMPTY, NO_FIELDS, .names = { FUSE_NAME_FILE }, NODE END,
OP(FUSE_RMDIR, "RMDIR"), NO_ARGS, EMPTY, NO_FIELDS, .names = { FUSE_NAME_FILE }, NODE END,
OP(FUSE_RENAME, "RENAME"), ARGS(fuse_rename_in, "8"), EMPTY,
	FIELDS(NO, OFF(fuse_rename_in, newdir), NO),
	.names = { FUSE_NAME_FILE, FUSE_NAME_FILE }, NODE END,
OP(FUSE_LINK, "LINK"), ARGS(fuse_link_in, "8"), FIXED(fuse_entry_out, L_ENTRY),
	FIELDS(NO, OFF(fuse_link_in, oldnodeid), NO),
	.names = { FUSE_NAME_FILE }, NODE | FUSE_OP_ENTRY END,
OP(FUSE_OPEN, "OPEN"), ARGS(fuse_open_in, "44"), FIXED(fuse_open_out, L_OPEN),
	NO_FIELDS, NODE | FUSE_OP_OPENS END,
OP(FUSE_READ, "READ"), ARGS(fuse_read_in, L_READ), .reply = FUSE_REPLY_DATA, .reply_layout = "",
	FIELDS(OFF(fuse_read_in, fh), NO, NO), NODE END,
OP(FUSE_WRITE, "WRITE"), ARGS(fuse_write_in, L_READ), FIXED(fuse_write_out, "44"),
	FIELDS(OFF(fuse_write_in, fh), NO, NO),
	.payload = FUSE_PAYLOAD_AFTER_ARGS, NODE END,
OP(FUSE_STATFS, "STATFS"), NO_ARGS, FIXED(fuse_statfs_out, "88888" "444" "4" "444444"), NO_FIELDS,
	NODE END,
OP(FUSE_RELEASE, "RELEASE"), ARGS(fuse_release_in, "8448"), EMPTY,
	FIELDS(OFF(fuse_release_in, fh), NO, NO),
	NODE | FUSE_OP_RELEASES END,
OP(FUSE_FSYNC, "FSYNC"), ARGS(fuse_fsync_in, "844"), EMPTY,
	FIELDS(OFF(fuse_fsync_in, fh), NO, NO), NODE END,
OP(FUSE_SETXATTR, "SETXATTR"), ARGS(fuse_setxattr_in, "4444"), EMPTY, NO_FIELDS,
	.names = { FUSE_NAME_XATTR }, .payload = FUSE_PAYLOAD_AFTER_NAME, NODE END,
OP(FUSE_GETXATTR, "GETXATTR"), ARGS(fuse_getxattr_in, "44"), .reply = FUSE_REPLY_STRUCT_OR_DATA,
	.reply_bytes = sizeof(struct fuse_getxattr_out), .reply_layout = "44", NO_FIELDS,
	.names = { FUSE_NAME_XATTR }, NODE END,
OP(FUSE_LISTXATTR, "LISTXATTR"), ARGS(fuse_getxattr_in, "44"), .reply = FUSE_REPLY_STRUCT_OR_DATA,
	.reply_bytes = sizeof(struct fuse_getxattr_out), .reply_layout = "44", NO_FIELDS, NODE END,
OP(FUSE_REMOVEXATTR, "REMOVEXATTR"), NO_ARGS, EMPTY, NO_FIELDS,
	.names = { FUSE_NAME_XATTR }, NODE END,
OP(FUSE_FLUSH, "FLUSH"), ARGS(fuse_flush_in, "8448"), EMPTY,
	FIELDS(OFF(fuse_flush_in, fh), NO, NO), NODE END,
OP(FUSE_INIT, "INIT"), ARGS(fuse_init_in, L_INIT_IN), .reply = FUSE_REPLY_INIT,
	.reply_bytes = sizeof(struct fuse_init_out),
	.reply_layout = "4444" "22" "44" "22" "44" "2" "22222222222", NO_FIELDS END,
OP(FUSE_OPENDIR, "OPENDIR"), ARGS(fuse_open_in, "44"), FIXED(fuse_open_out, L_OPEN),
	NO_FIELDS, NODE | FUSE_OP_OPENS | FUSE_OP_DIR_FH END,
OP(FUSE_READDIR, "READDIR"), ARGS(fuse_read_in, L_READ), .reply = FUSE_REPLY_DIRENTS,
	.reply_layout = "88" "44", FIELDS(OFF(fuse_read_in, fh), NO, NO),
	NODE | FUSE_OP_DIR_FH END,
OP(FUSE_RELEASEDIR, "RELEASEDIR"), ARGS(fuse_release_in, "8448"), EMPTY,
	FIELDS(OFF(fuse_release_in, fh), NO, NO),
	NODE | FUSE_OP_RELEASES | FUSE_OP_DIR_FH END,
OP(FUSE_FSYNCDIR, "FSYNCDIR"), ARGS(fuse_fsync_in, "844"), EMPTY,
	FIELDS(OFF(fuse_fsync_in, fh), NO, NO), NODE | FUSE_OP_DIR_FH END,
OP(FUSE_GETLK, "GETLK"), ARGS(fuse_lk_in, "88" L_LOCK "44"), FIXED(fuse_lk_out, L_LOCK),
	FIELDS(OFF(fuse_lk_in, fh), NO, NO), NODE END,
OP(FUSE_SETLK, "SETLK"), ARGS(fuse_lk_in, "88" L_LOCK "44"), EMPTY,
	FIELDS(OFF(fuse_lk_in, fh), NO, NO), NODE END,
OP(FUSE_SETLKW, "SETLKW"), ARGS(fuse_lk_in, "88" L_LOCK "44"), EMPTY,
	FIELDS(OFF(fuse_lk_in, fh), NO, NO), NODE END,
OP(FUSE_ACCESS, "ACCESS"), ARGS(fuse_access_in, "44"), EMPTY, NO_FIELDS, NODE END,
OP(FUSE_CREATE, "CREATE"), ARGS(fuse_create_in, "4444"), .reply = FUSE_REPLY_FIXED,
	.reply_bytes = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out),
	.reply_layout = L_ENTRY L_OPEN, NO_FIELDS,
	.names = { FUSE_NAME_FILE }, NODE | FUSE_OP_ENTRY | FUSE_OP_OPENS | FUSE_OP_EXT END,
OP(FUSE_INTERRUPT, "INTERRUPT"), ARGS(fuse_interrupt_in, "8"), NO_REPLY, NO_FIELDS,
	.traits = FUSE_OP_HIPRIO END,
OP(FUSE_BMAP, "BMAP"), ARGS(fuse_bmap_in, "844"), FIXED(fuse_bmap_out, "8"), NO_FIELDS, NODE END,
OP(FUSE_DESTROY, "DESTROY"), NO_ARGS, EMPTY, NO_FIELDS END,
OP(FUSE_IOCTL, "IOCTL"), ARGS(fuse_ioctl_in, "844" "8" "44"), .reply = FUSE_REPLY_STRUCT_THEN_DATA,
	.reply_bytes = sizeof(struct fuse_ioctl_out), .reply_layout = "4444",
	FIELDS(OFF(fuse_ioctl_in, fh), NO, NO), .payload = FUSE_PAYLOAD_AFTER_ARGS, NODE END,
OP(FUSE_POLL, "POLL"), ARGS(fuse_poll_in, "8844"), FIXED(fuse_poll_out, "44"),
	FIELDS(OFF(fuse_poll_in, fh), NO, NO), NODE END,
OP(FUSE_NOTIFY_REPLY, "NOTIFY_REPLY"), ARGS(fuse_notify_retrieve_in, "8844" "88"), NO_REPLY,
	NO_FIELDS, .payload = FUSE_PAYLOAD_AFTER_ARGS, .min_minor = 15 END,
OP(FUSE_BATCH_FORGET, "BATCH_FORGET"), ARGS(fuse_batch_forget_in, "44"), NO_REPLY, NO_FIELDS,
	.min_minor = 16, .traits = FUSE_OP_TAIL | FUSE_OP_HIPRIO END,
OP(FUSE_FALLOCATE, "FALLOCATE"), ARGS(fuse_fallocate_in, "88844"), EMPTY,
	FIELDS(OFF(fuse_fallocate_in, fh), NO, NO), .min_minor = 19, NODE END,
OP(FUSE_READDIRPLUS, "READDIRPLUS"), ARGS(fuse_read_in, L_READ), .reply = FUSE_REPLY_DIRENTPLUS,
	.reply_layout = L_ENTRY "88" "44",
	FIELDS(OFF(fuse_read_in, fh), NO, NO),
	.min_minor = 21, .needs = FUSE_DO_READDIRPLUS, NODE | FUSE_OP_DIR_FH END,
OP(FUSE_RENAME2, "RENAME2"), ARGS(fuse_rename2_in, "844"), EMPTY,
	FIELDS(NO, OFF(fuse_rename2_in, newdir), NO), .min_minor = 23,
	.names = { FUSE_NAME_FILE, FUSE_NAME_FILE }, NODE END,
OP(FUSE_LSEEK, "LSEEK"), ARGS(fuse_lseek_in, "8844"), FIXED(fuse_lseek_out, "8"),
	FIELDS(OFF(fuse_lseek_in, fh), NO, NO), .min_minor = 24, NODE END,
OP(FUSE_COPY_FILE_RANGE, "COPY_FILE_RANGE"), ARGS(fuse_copy_file_range_in, L_CFR),
	FIXED(fuse_write_out, "44"),
	FIELDS(OFF(fuse_copy_file_range_in, fh_in), OFF(fuse_copy_file_range_in, nodeid_out),
	       OFF(fuse_copy_file_range_in, fh_out)), .min_minor = 28, NODE END,
OP(FUSE_SETUPMAPPING, "SETUPMAPPING"), ARGS(fuse_setupmapping_in, "88888"), EMPTY, NO_FIELDS,
	.min_minor = 31, NODE | FUSE_OP_NEVER END,
OP(FUSE_REMOVEMAPPING, "REMOVEMAPPING"), ARGS(fuse_removemapping_in, "4"), EMPTY, NO_FIELDS,
	.min_minor = 31, NODE | FUSE_OP_TAIL | FUSE_OP_NEVER END,
OP(FUSE_SYNCFS, "SYNCFS"), ARGS(fuse_syncfs_in, "8"), EMPTY, NO_FIELDS, .min_minor = 34, NODE END,
OP(FUSE_TMPFILE, "TMPFILE"), ARGS(fuse_create_in, "4444"), .reply = FUSE_REPLY_FIXED,
	.reply_bytes = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out),
	.reply_layout = L_ENTRY L_OPEN, NO_FIELDS,
	.names = { FUSE_NAME_TMPFILE }, .min_minor = 37,
	NODE | FUSE_OP_ENTRY | FUSE_OP_OPENS | FUSE_OP_EXT END,
OP(FUSE_STATX, "STATX"), ARGS(fuse_statx_in, "44844"), FIXED(fuse_statx_out, L_STATX_OUT),
	FIELDS(OFF(fuse_statx_in, fh), NO, NO), .min_minor = 39, NODE END,
OP(FUSE_COPY_FILE_RANGE_64, "COPY_FILE_RANGE_64"), ARGS(fuse_copy_file_range_in, L_CFR),
	FIXED(fuse_copy_file_range_out, "8"),
	FIELDS(OFF(fuse_copy_file_range_in, fh_in), OFF(fuse_copy_file_range_in, nodeid_out),
	       OFF(fuse_copy_file_range_in, fh_out)), .min_minor = 45, NODE END,
};
/* clang-format on */

const struct fuse_opcode_info *fuse_opcode_find(uint32_t opcode)
{
	if (opcode >= FUSE_OPCODES_END || !table[opcode].name)
		return NULL;
	return &table[opcode];
}
