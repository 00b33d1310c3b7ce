/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of FUSE opcodes: one row each, in the order of their numbers, and what their functions share.
 */
#include "check/ops_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const check_op ops[] = {
	[FUSE_LOOKUP] = op_lookup,
	[FUSE_FORGET] = op_forget,
	[FUSE_GETATTR] = op_getattr,
	[FUSE_SETATTR] = op_setattr,
	[FUSE_READLINK] = op_readlink,
	[FUSE_SYMLINK] = op_symlink,
	[FUSE_MKNOD] = op_mknod,
	[FUSE_MKDIR] = op_mkdir,
	[FUSE_UNLINK] = op_unlink,
	[FUSE_RMDIR] = op_rmdir,
	[FUSE_RENAME] = op_rename,
	[FUSE_LINK] = op_link,
	[FUSE_OPEN] = op_open,
	[FUSE_READ] = op_read,
	[FUSE_WRITE] = op_write,
	[FUSE_STATFS] = op_statfs,
	[FUSE_RELEASE] = op_release,
	[FUSE_FSYNC] = op_fsync,
	[FUSE_SETXATTR] = op_setxattr,
	[FUSE_GETXATTR] = op_getxattr,
	[FUSE_LISTXATTR] = op_listxattr,
	[FUSE_REMOVEXATTR] = op_removexattr,
	[FUSE_FLUSH] = op_flush,
	[FUSE_INIT] = op_init,
	[FUSE_OPENDIR] = op_opendir,
	[FUSE_READDIR] = op_readdir,
	[FUSE_RELEASEDIR] = op_releasedir,
	[FUSE_FSYNCDIR] = op_fsyncdir,
	[FUSE_GETLK] = op_getlk,
	[FUSE_SETLK] = op_setlk,
	[FUSE_SETLKW] = op_setlkw,
	[FUSE_ACCESS] = op_access,
	[FUSE_CREATE] = op_create,
	[FUSE_INTERRUPT] = op_interrupt,
	[FUSE_BMAP] = op_bmap,
	[FUSE_DESTROY] = op_destroy,
	[FUSE_IOCTL] = op_ioctl,
	[FUSE_POLL] = op_poll,
	[FUSE_NOTIFY_REPLY] = op_notify_reply,
	[FUSE_BATCH_FORGET] = op_batch_forget,
	[FUSE_FALLOCATE] = op_fallocate,
	[FUSE_READDIRPLUS] = op_readdirplus,
	[FUSE_RENAME2] = op_rename2,
	[FUSE_LSEEK] = op_lseek,
	[FUSE_COPY_FILE_RANGE] = op_copy_file_range,
	[FUSE_SETUPMAPPING] = op_setupmapping,
	[FUSE_REMOVEMAPPING] = op_removemapping,
	[FUSE_SYNCFS] = op_syncfs,
	[FUSE_TMPFILE] = op_tmpfile,
	[FUSE_STATX] = op_statx,
	[FUSE_COPY_FILE_RANGE_64] = op_copy_file_range_64,
};

static enum check_status run_op(struct check *c, uint64_t opcode)
{
	struct check_fs *fs = check_fs(c);

	return fs ? ops[opcode](c, fs) : check_no_peer(c);
}

#define LATE_OP(nr, what)                                                           \
	{                                                                           \
		"FUSE opcode", #nr, what, TURN_SHARED_LAST, run_op, FUSE_##nr, NULL \
	}
#define OP(nr, what)                                                           \
	{                                                                      \
		"FUSE opcode", #nr, what, TURN_SHARED, run_op, FUSE_##nr, NULL \
	}

/* clang-format off */
static const struct check_rule rules[] = {
	OP(LOOKUP, "finds a name, gives ENOENT or node 0 for one that is not there"),
	OP(FORGET, "comes back from hiprio with nothing written; the name is found again"),
	OP(GETATTR, "tells the root's attributes: a directory"),
	OP(SETATTR, "size and mode change, and GETATTR tells the new ones"),
	OP(READLINK, "tells the target as it was given to SYMLINK"),
	OP(SYMLINK, "makes a symbolic link"),
	OP(MKNOD, "makes a regular file"),
	OP(MKDIR, "makes a directory; EEXIST the second time"),
	OP(UNLINK, "removes a name; ENOENT the second time"),
	OP(RMDIR, "removes an empty directory, and no other"),
	OP(RENAME, "moves a name over another one"),
	OP(LINK, "gives a file a second name"),
	OP(OPEN, "opens a file"),
	OP(READ, "gives the bytes that are there, and fewer at the end of file"),
	OP(WRITE, "bytes written are read back, also beyond a gap, which reads as zeros"),
	OP(STATFS, "tells a block size, and no more free blocks than there are"),
	OP(RELEASE, "closes a handle; others of the file stay open"),
	OP(FSYNC, "flushes a file"),
	OP(SETXATTR, "sets an attribute; EEXIST with XATTR_CREATE the second time"),
	OP(GETXATTR, "tells length and value; ERANGE for too little room"),
	OP(LISTXATTR, "has the name of an attribute that was set"),
	OP(REMOVEXATTR, "removes an attribute; ENODATA the second time"),
	OP(FLUSH, "ends one use of a handle"),
	OP(INIT, "agrees on 7.12 or later and on sizes that make sense"),
	OP(OPENDIR, "opens a directory"),
	OP(READDIR, "has every name once, also in pieces, and ends"),
	OP(RELEASEDIR, "closes a directory"),
	OP(FSYNCDIR, "flushes a directory"),
	OP(GETLK, "tells a lock that conflicts"),
	OP(SETLK, "takes a lock, refuses a conflicting one, gives it back"),
	OP(SETLKW, "takes a free lock at once"),
	OP(ACCESS, "grants F_OK on the root"),
	OP(CREATE, "makes a file and opens it"),
	LATE_OP(INTERRUPT, "comes back from hiprio; what it interrupts is answered"),
	OP(BMAP, "is answered"),
	LATE_OP(DESTROY, "is answered by a header alone"),
	OP(IOCTL, "one that does not exist is answered by an error"),
	OP(POLL, "is answered for a regular file"),
	OP(NOTIFY_REPLY, "answers a notification: needs the notification queue"),
	OP(BATCH_FORGET, "comes back from hiprio with nothing written; the name is found again"),
	OP(FALLOCATE, "makes a file longer"),
	OP(READDIRPLUS, "has names with nodes that can be used"),
	OP(RENAME2, "with RENAME_NOREPLACE spares what is there"),
	OP(LSEEK, "finds the end of data"),
	OP(COPY_FILE_RANGE, "copies within a file"),
	OP(SETUPMAPPING, "maps a file into the DAX window"),
	OP(REMOVEMAPPING, "takes a mapping away"),
	OP(SYNCFS, "flushes the file system"),
	OP(TMPFILE, "makes a file without a name"),
	OP(STATX, "tells what GETATTR tells"),
	OP(COPY_FILE_RANGE_64, "copies within a file"),
};
/* clang-format on */

const struct check_table check_op_rules = { rules, array_size(rules) };

void op_new_name(struct check_fs *fs, char *name)
{
	snprintf(name, OP_NAME_BYTES, "%s-%llu", fs->scratch_name,
		 (unsigned long long)fs->next_name++);
}

uint64_t op_place(const struct check_fs *fs)
{
	return fs->scratch_made ? fs->scratch : FUSE_ROOT_ID;
}

uint8_t op_pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + (offset >> 8) + 1);
}

int op_make_file(struct check_fs *fs, char *name, uint32_t bytes, uint64_t *ret_nodeid)
{
	uint8_t data[8192];
	uint64_t fh = 0;
	int err;

	assert(bytes <= sizeof(data));
	op_new_name(fs, name);
	for (uint32_t i = 0; i < bytes; i++)
		data[i] = op_pattern(i);
	err = fs_create(fs->peer, op_place(fs), name, ret_nodeid, &fh);
	if (err < 0)
		return err;
	if (bytes)
		err = fs_write(fs->peer, *ret_nodeid, fh, 0, data, bytes);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASE, *ret_nodeid, fh, O_RDWR);
	return err;
}

bool op_any_handle(struct check *c, const struct check_fs *fs, uint64_t *ret_nodeid,
		   uint64_t *ret_fh, enum check_status *ret_status)
{
	*ret_nodeid = fs->file ? fs->file : fs->reader;
	*ret_fh = fs->file ? fs->file_fh : fs->reader_fh;
	if (!*ret_nodeid)
		*ret_status = check_end(c, CHECK_NOT_CHECKED, "no regular file in the root");
	return *ret_nodeid;
}

bool op_write_handle(struct check *c, const struct check_fs *fs, enum check_status *ret_status)
{
	if (!fs->file)
		*ret_status = check_end(c, CHECK_NOT_CHECKED,
					"no file that may be written (--file names one)");
	return fs->file;
}

enum check_status op_not_tried(struct check *c, const struct check_fs *fs)
{
	return check_end(c, CHECK_NOT_CHECKED, "no directory of our own: MKDIR: %s",
			 strerror(-fs->why_read_only));
}
