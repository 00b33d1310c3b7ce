/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of opcodes that work on names and nodes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/ops_impl.h"

/* RENAME_NOREPLACE, which old C libraries do not have. */
#define NO_REPLACE 1u

enum check_status op_lookup(struct check *c, struct check_fs *fs)
{
	const char *name = fs->scratch_made ? fs->scratch_name : fs->some_name;
	struct fuse_entry_out entry;
	char none[OP_NAME_BYTES];
	int err;

	op_new_name(fs, none);
	err = fs_lookup(fs->peer, FUSE_ROOT_ID, none, &entry);
	if (err != -ENOENT)
		return err ? check_error(c, fs->peer, err, "a name that is not there")
			   : check_fails(c, "a name that is not there was found");
	if (!name[0])
		return check_end(c, CHECK_HOLDS, "the root is empty: only ENOENT was tried");
	err = fs_lookup(fs->peer, FUSE_ROOT_ID, name, &entry);
	if (err == 0)
		err = peer_forget(fs->peer, entry.nodeid, 1);
	if (err < 0)
		return check_error(c, fs->peer, err, "a name that is there");
	if (fs->scratch_made && !S_ISDIR(entry.attr.mode))
		return check_fails(c, "a directory has mode %o", entry.attr.mode);
	return check_holds(c);
}

/* After a node was forgotten its name has to give one that works. */
static enum check_status found_again(struct check *c, struct check_fs *fs, const char *name)
{
	struct fuse_entry_out entry;
	struct fuse_attr attr;
	int err = fs_lookup(fs->peer, FUSE_ROOT_ID, name, &entry);

	if (err == 0)
		err = fs_getattr(fs->peer, entry.nodeid, &attr);
	if (err == 0)
		err = peer_forget(fs->peer, entry.nodeid, 1);
	return err < 0 ? check_error(c, fs->peer, err, "LOOKUP after it") : check_holds(c);
}

static enum check_status forget(struct check *c, struct check_fs *fs, bool batch)
{
	const char *name = fs->some_name[0] ? fs->some_name : fs->scratch_name;
	struct {
		struct fuse_batch_forget_in in;
		struct fuse_forget_one one;
	} many = { .in.count = 1, .one.nlookup = 2 };
	struct ask ask = { .opcode = FUSE_BATCH_FORGET,
			   .args = &many,
			   .args_bytes = sizeof(many),
			   .no_reply = true };
	struct fuse_entry_out entry = { .nodeid = FUSE_ROOT_ID };
	int err = 0;

	/* The handle of what is open keeps its node; the name's own lookups go. */
	for (unsigned int i = 0; i < 2 && err == 0; i++)
		err = fs_lookup(fs->peer, FUSE_ROOT_ID, name, &entry);
	if (err == -ENOENT)
		return check_end(c, CHECK_NOT_CHECKED, "the root is empty");
	many.one.nodeid = entry.nodeid;
	if (err == 0)
		err = batch ? peer_ask(fs->peer, HIPRIO, &ask)
			    : peer_forget(fs->peer, entry.nodeid, 2);
	if (err < 0)
		return check_error(c, fs->peer, err, batch ? "BATCH_FORGET" : "FORGET");
	return found_again(c, fs, name);
}

enum check_status op_forget(struct check *c, struct check_fs *fs)
{
	return forget(c, fs, false);
}

enum check_status op_batch_forget(struct check *c, struct check_fs *fs)
{
	return forget(c, fs, true);
}

enum check_status op_getattr(struct check *c, struct check_fs *fs)
{
	struct fuse_attr attr;
	int err = fs_getattr(fs->peer, FUSE_ROOT_ID, &attr);

	if (err < 0)
		return check_error(c, fs->peer, err, "of the root");
	if (!S_ISDIR(attr.mode))
		return check_fails(c, "the root has mode %o", attr.mode);
	return check_holds(c);
}

static int setattr(struct check_fs *fs, uint64_t nodeid, const struct fuse_setattr_in *in)
{
	struct ask ask = { .opcode = FUSE_SETATTR,
			   .nodeid = nodeid,
			   .args = in,
			   .args_bytes = sizeof(*in),
			   .in_bytes = sizeof(struct fuse_attr_out),
			   .exact = true };

	return fs_ask(fs->peer, &ask);
}

enum check_status op_setattr(struct check *c, struct check_fs *fs)
{
	const struct fuse_setattr_in change = { .valid = FATTR_SIZE | FATTR_MODE,
						.size = 100,
						.mode = S_IFREG | 0640 };
	/* Where nothing can be changed: nothing asked for is the least that can be refused. */
	const struct fuse_setattr_in nothing = {};
	char name[OP_NAME_BYTES];
	struct fuse_attr attr;
	uint64_t nodeid = 0;
	int err;

	if (!fs->scratch_made) {
		err = setattr(fs, FUSE_ROOT_ID, &nothing);
		return err < 0 ? check_error(c, fs->peer, err, "with nothing to set")
			       : check_end(c, CHECK_HOLDS, "tried with nothing to set");
	}
	err = op_make_file(fs, name, 4096, &nodeid);
	if (err == 0)
		err = setattr(fs, nodeid, &change);
	if (err == 0)
		err = fs_getattr(fs->peer, nodeid, &attr);
	if (err < 0)
		return check_error(c, fs->peer, err, "size and mode");
	if (attr.size != 100 || (attr.mode & 07777) != 0640)
		return check_fails(c, "size 100 and mode 0640 became %llu and %o",
				   (unsigned long long)attr.size, attr.mode & 07777);
	err = fs_remove(fs->peer, FUSE_UNLINK, op_place(fs), name);
	return err < 0 ? check_error(c, fs->peer, err, "UNLINK behind it") : check_holds(c);
}

enum check_status op_statx(struct check *c, struct check_fs *fs)
{
	const struct fuse_statx_in in = { .sx_mask = STATX_BASIC_STATS };
	struct ask ask = { .opcode = FUSE_STATX,
			   .nodeid = FUSE_ROOT_ID,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_statx_out),
			   .exact = true };
	struct fuse_statx_out out;
	struct fuse_attr attr;
	int err = fs_ask(fs->peer, &ask);

	if (err < 0)
		return check_error(c, fs->peer, err, "of the root");
	memcpy(&out, ask.body, sizeof(out));
	err = fs_getattr(fs->peer, FUSE_ROOT_ID, &attr);
	if (err < 0)
		return check_error(c, fs->peer, err, "GETATTR beside it");
	if (out.stat.mode != (uint16_t)attr.mode || out.stat.ino != attr.ino)
		return check_fails(c, "mode %o and inode %llu, GETATTR tells %o and %llu",
				   out.stat.mode, (unsigned long long)out.stat.ino, attr.mode,
				   (unsigned long long)attr.ino);
	return check_holds(c);
}

static enum check_status link_and_read(struct check *c, struct check_fs *fs, bool read)
{
	static const char target[] = "some/where else";
	struct ask ask = { .opcode = FUSE_READLINK, .in_bytes = PATH_MAX };
	char name[OP_NAME_BYTES];
	struct fuse_entry_out entry;
	int err;

	op_new_name(fs, name);
	err = fs_symlink(fs->peer, op_place(fs), name, target, &entry);
	if (err < 0)
		return check_error(c, fs->peer, err, "SYMLINK");
	ask.nodeid = entry.nodeid;
	err = read ? fs_ask(fs->peer, &ask) : 0;
	if (err == 0 && read &&
	    (ask.got != sizeof(target) - 1 || memcmp(ask.body, target, ask.got)))
		return check_fails(c, "another target, of %u bytes", ask.got);
	if (err == 0)
		err = fs_remove(fs->peer, FUSE_UNLINK, op_place(fs), name);
	if (err == 0)
		err = peer_forget(fs->peer, entry.nodeid, 1);
	if (err < 0)
		return check_error(c, fs->peer, err, read ? "READLINK" : "UNLINK behind it");
	return S_ISLNK(entry.attr.mode) ? check_holds(c)
					: check_fails(c, "a link has mode %o", entry.attr.mode);
}

enum check_status op_readlink(struct check *c, struct check_fs *fs)
{
	return link_and_read(c, fs, true);
}

enum check_status op_symlink(struct check *c, struct check_fs *fs)
{
	return link_and_read(c, fs, false);
}

enum check_status op_mknod(struct check *c, struct check_fs *fs)
{
	char name[OP_NAME_BYTES];
	struct fuse_entry_out entry;
	int err;

	op_new_name(fs, name);
	err = fs_mknod(fs->peer, op_place(fs), name, S_IFREG | 0600, &entry);
	if (err < 0)
		return check_error(c, fs->peer, err, "MKNOD");
	err = fs_remove(fs->peer, FUSE_UNLINK, op_place(fs), name);
	if (err < 0)
		return check_error(c, fs->peer, err, "UNLINK behind it");
	if (!S_ISREG(entry.attr.mode) || (entry.attr.mode & 07777) != 0600)
		return check_fails(c, "mode 100600 became %o", entry.attr.mode);
	return check_holds(c);
}

enum check_status op_mkdir(struct check *c, struct check_fs *fs)
{
	char name[OP_NAME_BYTES];
	uint64_t nodeid = 0;
	int err;

	op_new_name(fs, name);
	err = fs_mkdir(fs->peer, op_place(fs), name, &nodeid);
	if (err < 0)
		return check_error(c, fs->peer, err, "MKDIR");
	err = fs_mkdir(fs->peer, op_place(fs), name, &nodeid);
	if (err != -EEXIST)
		return check_fails(c, "the second time: %s", err ? strerror(-err) : "made");
	err = fs_remove(fs->peer, FUSE_RMDIR, op_place(fs), name);
	return err < 0 ? check_error(c, fs->peer, err, "RMDIR behind it") : check_holds(c);
}

enum check_status op_unlink(struct check *c, struct check_fs *fs)
{
	char name[OP_NAME_BYTES];
	uint64_t nodeid;
	int err;

	if (!fs->scratch_made) {
		op_new_name(fs, name);
		err = fs_remove(fs->peer, FUSE_UNLINK, FUSE_ROOT_ID, name);
		return err == -ENOENT ? op_not_tried(c, fs)
				      : check_error(c, fs->peer, err, "a name that is not there");
	}
	err = op_make_file(fs, name, 0, &nodeid);
	if (err == 0)
		err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, name);
	if (err < 0)
		return check_error(c, fs->peer, err, "UNLINK");
	err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, name);
	if (err != -ENOENT)
		return check_fails(c, "the second time: %s", err ? strerror(-err) : "removed");
	return check_holds(c);
}

enum check_status op_rmdir(struct check *c, struct check_fs *fs)
{
	char name[OP_NAME_BYTES];
	uint64_t nodeid = 0, inner;
	int err;

	op_new_name(fs, name);
	if (!fs->scratch_made) {
		err = fs_remove(fs->peer, FUSE_RMDIR, FUSE_ROOT_ID, name);
		return err == -ENOENT ? op_not_tried(c, fs)
				      : check_error(c, fs->peer, err, "a name that is not there");
	}
	err = fs_mkdir(fs->peer, fs->scratch, name, &nodeid);
	if (err == 0)
		err = fs_mkdir(fs->peer, nodeid, "inner", &inner);
	if (err < 0)
		return check_error(c, fs->peer, err, "MKDIR before it");
	err = fs_remove(fs->peer, FUSE_RMDIR, fs->scratch, name);
	/* sftp has no number for "not empty": its file systems say that it failed. */
	if (err == 0 || err == -ENOENT || err == -ENOSYS)
		return check_fails(c, "not empty: %s", err ? strerror(-err) : "removed");
	err = fs_remove(fs->peer, FUSE_RMDIR, nodeid, "inner");
	if (err == 0)
		err = fs_remove(fs->peer, FUSE_RMDIR, fs->scratch, name);
	return err < 0 ? check_error(c, fs->peer, err, "RMDIR") : check_holds(c);
}

static int rename_to(struct check_fs *fs, const char *from, const char *to, bool two,
		     uint32_t flags)
{
	const struct fuse_rename_in in = { .newdir = op_place(fs) };
	const struct fuse_rename2_in in2 = { .newdir = op_place(fs), .flags = flags };
	struct ask ask = { .opcode = two ? FUSE_RENAME2 : FUSE_RENAME,
			   .nodeid = op_place(fs),
			   .args = two ? (const void *)&in2 : &in,
			   .args_bytes = two ? sizeof(in2) : sizeof(in),
			   .name = { from, to } };

	return fs_ask(fs->peer, &ask);
}

enum check_status op_rename(struct check *c, struct check_fs *fs)
{
	char from[OP_NAME_BYTES], to[OP_NAME_BYTES];
	struct fuse_entry_out entry;
	uint64_t nodeid;
	int err;

	if (!fs->scratch_made) {
		op_new_name(fs, from);
		op_new_name(fs, to);
		err = rename_to(fs, from, to, false, 0);
		return err == -ENOENT ? op_not_tried(c, fs)
				      : check_error(c, fs->peer, err, "a name that is not there");
	}
	err = op_make_file(fs, from, 10, &nodeid);
	if (err == 0)
		err = op_make_file(fs, to, 20, &nodeid);
	if (err == 0)
		err = rename_to(fs, from, to, false, 0);
	if (err == 0)
		err = fs_lookup(fs->peer, fs->scratch, to, &entry);
	if (err < 0)
		return check_error(c, fs->peer, err, "RENAME");
	if (entry.attr.size != 10)
		return check_fails(c, "the name has a file of %llu bytes, not of 10",
				   (unsigned long long)entry.attr.size);
	err = fs_lookup(fs->peer, fs->scratch, from, &entry);
	if (err != -ENOENT)
		return check_fails(c, "the old name is still there");
	err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, to);
	return err < 0 ? check_error(c, fs->peer, err, "UNLINK behind it") : check_holds(c);
}

enum check_status op_rename2(struct check *c, struct check_fs *fs)
{
	char from[OP_NAME_BYTES], to[OP_NAME_BYTES];
	uint64_t nodeid;
	int err;

	if (!fs->scratch_made) {
		op_new_name(fs, from);
		op_new_name(fs, to);
		err = rename_to(fs, from, to, true, NO_REPLACE);
		return err == -ENOENT ? op_not_tried(c, fs)
				      : check_error(c, fs->peer, err, "a name that is not there");
	}
	err = op_make_file(fs, from, 10, &nodeid);
	if (err == 0)
		err = op_make_file(fs, to, 20, &nodeid);
	if (err < 0)
		return check_error(c, fs->peer, err, "CREATE before it");
	err = rename_to(fs, from, to, true, NO_REPLACE);
	/* EINVAL is how a file system says that it does not know the flag (renameat2(2)). */
	if (err == -EINVAL)
		return check_end(c, CHECK_NOT_OFFERED, "RENAME_NOREPLACE: %s", strerror(-err));
	if (err != -EEXIST)
		return err ? check_error(c, fs->peer, err, "RENAME_NOREPLACE")
			   : check_fails(c, "RENAME_NOREPLACE replaced a file");
	err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, to);
	if (err == 0)
		err = rename_to(fs, from, to, true, NO_REPLACE);
	if (err == 0)
		err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, to);
	return err < 0 ? check_error(c, fs->peer, err, "RENAME_NOREPLACE") : check_holds(c);
}

enum check_status op_link(struct check *c, struct check_fs *fs)
{
	struct fuse_link_in in = { .oldnodeid = fs->reader ? fs->reader : FUSE_ROOT_ID };
	char name[OP_NAME_BYTES], old[OP_NAME_BYTES];
	struct ask ask = { .opcode = FUSE_LINK,
			   .nodeid = op_place(fs),
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .name = { name },
			   .in_bytes = sizeof(struct fuse_entry_out),
			   .exact = true };
	struct fuse_entry_out entry;
	uint64_t nodeid;
	int err = 0;

	if (fs->scratch_made) {
		err = op_make_file(fs, old, 10, &nodeid);
		in.oldnodeid = nodeid;
	}
	op_new_name(fs, name);
	if (err == 0)
		err = fs_ask(fs->peer, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "LINK");
	memcpy(&entry, ask.body, sizeof(entry));
	err = fs_remove(fs->peer, FUSE_UNLINK, op_place(fs), name);
	if (err < 0)
		return check_error(c, fs->peer, err, "UNLINK behind it");
	/* The number of links is not looked at: sftp does not tell it. */
	if (fs->scratch_made && entry.attr.size != 10)
		return check_fails(c, "the second name has a file of %llu bytes, not of 10",
				   (unsigned long long)entry.attr.size);
	return check_holds(c);
}

enum check_status op_statfs(struct check *c, struct check_fs *fs)
{
	struct ask ask = { .opcode = FUSE_STATFS,
			   .nodeid = FUSE_ROOT_ID,
			   .in_bytes = sizeof(struct fuse_statfs_out),
			   .exact = true };
	struct fuse_statfs_out out;
	int err = fs_ask(fs->peer, &ask);

	if (err < 0)
		return check_error(c, fs->peer, err, "of the root");
	memcpy(&out, ask.body, sizeof(out));
	if (!out.st.bsize || out.st.bfree > out.st.blocks)
		return check_fails(c, "block size %u, %llu of %llu blocks free", out.st.bsize,
				   (unsigned long long)out.st.bfree,
				   (unsigned long long)out.st.blocks);
	return check_holds(c);
}

enum check_status op_access(struct check *c, struct check_fs *fs)
{
	const struct fuse_access_in in = { .mask = F_OK };
	struct ask ask = {
		.opcode = FUSE_ACCESS, .nodeid = FUSE_ROOT_ID, .args = &in, .args_bytes = sizeof(in)
	};
	int err = fs_ask(fs->peer, &ask);

	return err < 0 ? check_error(c, fs->peer, err, "F_OK of the root") : check_holds(c);
}
