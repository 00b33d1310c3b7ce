/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of opcodes that work on directories and extended attributes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "check/ops_impl.h"

#define XATTR_NAME  "user.fusewire-check"
#define XATTR_VALUE "some value"
#define NR_ENTRIES  20u
#define ROUNDS_MAX  100u
#define DIR_FLAGS   (O_RDONLY | O_DIRECTORY)

enum check_status op_opendir(struct check *c, struct check_fs *fs)
{
	uint64_t fh = 0;
	int err = fs_open(fs->peer, FUSE_OPENDIR, FUSE_ROOT_ID, DIR_FLAGS, &fh);

	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, FUSE_ROOT_ID, fh, DIR_FLAGS);
	return err < 0 ? check_error(c, fs->peer, err, "of the root") : check_holds(c);
}

enum check_status op_releasedir(struct check *c, struct check_fs *fs)
{
	uint64_t one = 0, two = 0;
	struct ask ask;
	int err = fs_open(fs->peer, FUSE_OPENDIR, FUSE_ROOT_ID, DIR_FLAGS, &one);

	if (err == 0)
		err = fs_open(fs->peer, FUSE_OPENDIR, FUSE_ROOT_ID, DIR_FLAGS, &two);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, FUSE_ROOT_ID, one, DIR_FLAGS);
	if (err == 0)
		err = fs_list(fs->peer, FUSE_ROOT_ID, two, 0, &ask);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, FUSE_ROOT_ID, two, DIR_FLAGS);
	return err < 0 ? check_error(c, fs->peer, err, "one of two handles") : check_holds(c);
}

enum check_status op_fsyncdir(struct check *c, struct check_fs *fs)
{
	struct fuse_fsync_in in = {};
	struct ask ask = { .opcode = FUSE_FSYNCDIR,
			   .nodeid = op_place(fs),
			   .args = &in,
			   .args_bytes = sizeof(in) };
	int err = fs_open(fs->peer, FUSE_OPENDIR, op_place(fs), DIR_FLAGS, &in.fh);
	int closed;

	if (err < 0)
		return check_error(c, fs->peer, err, "OPENDIR before it");
	err = fs_ask(fs->peer, &ask);
	closed = fs_release(fs->peer, FUSE_RELEASEDIR, op_place(fs), in.fh, DIR_FLAGS);
	err = err ? err : closed;
	return err < 0 ? check_error(c, fs->peer, err, "FSYNCDIR") : check_holds(c);
}

static int make_entries(struct check_fs *fs, uint64_t *ret_dir)
{
	char name[OP_NAME_BYTES];
	int err;

	op_new_name(fs, name);
	err = fs_mkdir(fs->peer, fs->scratch, name, ret_dir);
	for (unsigned int i = 0; i < NR_ENTRIES && err == 0; i++) {
		uint64_t nodeid = 0, fh = 0;

		snprintf(name, sizeof(name), "entry-%u", i);
		err = fs_create(fs->peer, *ret_dir, name, &nodeid, &fh);
		if (err == 0)
			err = fs_release(fs->peer, FUSE_RELEASE, nodeid, fh, O_RDWR);
	}
	return err;
}

static int remove_entries(struct check_fs *fs, uint64_t dir)
{
	char name[OP_NAME_BYTES];
	int err = 0;

	for (unsigned int i = 0; i < NR_ENTRIES && err == 0; i++) {
		snprintf(name, sizeof(name), "entry-%u", i);
		err = fs_remove(fs->peer, FUSE_UNLINK, dir, name);
	}
	return err;
}

/* Which of the entries that were made have this name? Return: its bit, or 0. */
static uint32_t entry_bit(const char *name)
{
	unsigned int i;
	int end = 0;

	if (sscanf(name, "entry-%u%n", &i, &end) != 1 || name[end] || i >= NR_ENTRIES)
		return 0;
	return 1u << i;
}

/* One reply's entries: @seen collects those that are ours. Return: false when one came twice. */
static bool collect(const struct ask *ask, uint32_t *seen, uint64_t *offset, uint32_t *nr)
{
	char name[NAME_MAX + 1];
	uint32_t at = 0, type;
	bool once = true;

	while (fs_next_entry(ask, &at, name, offset, &type)) {
		uint32_t bit = entry_bit(name);

		once = once && !(*seen & bit);
		*seen |= bit;
		(*nr)++;
	}
	return once;
}

/* In pieces of few entries, as a small buffer gives them. */
static enum check_status read_whole(struct check *c, struct check_fs *fs, uint64_t dir, uint64_t fh,
				    uint32_t piece, uint32_t wanted)
{
	uint64_t offset = 0;
	uint32_t seen = 0;

	for (unsigned int i = 0; i < ROUNDS_MAX; i++) {
		const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = piece };
		struct ask ask = { .opcode = FUSE_READDIR,
				   .nodeid = dir,
				   .args = &in,
				   .args_bytes = sizeof(in),
				   .in_bytes = piece };
		uint32_t nr = 0;
		int err = fs_ask(fs->peer, &ask);

		if (err < 0)
			return check_error(c, fs->peer, err, "READDIR");
		if (!ask.got)
			return seen == wanted ? check_holds(c)
					      : check_fails(c, "some names are missing");
		if (!collect(&ask, &seen, &offset, &nr))
			return check_fails(c, "a name came twice, with room for %u bytes", piece);
		if (!nr)
			return check_fails(c, "%u bytes without an entry", ask.got);
	}
	/* A root that is not ours may be longer than we care for. */
	return wanted ? check_fails(c, "it does not end") : check_holds(c);
}

enum check_status op_readdir(struct check *c, struct check_fs *fs)
{
	uint32_t wanted = fs->scratch_made ? (1u << NR_ENTRIES) - 1 : 0;
	uint64_t dir = FUSE_ROOT_ID, fh = 0;
	enum check_status status;
	int err = fs->scratch_made ? make_entries(fs, &dir) : 0, opened;

	if (err < 0)
		return check_error(c, fs->peer, err, "files before it");
	opened = fs_open(fs->peer, FUSE_OPENDIR, dir, DIR_FLAGS, &fh);
	if (opened < 0 && opened != -ENOSYS)
		return check_error(c, fs->peer, opened, "OPENDIR before it");
	status = read_whole(c, fs, dir, fh, 32768, wanted);
	if (opened == 0 && status == CHECK_HOLDS)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, dir, fh, DIR_FLAGS);
	if (opened == 0 && status == CHECK_HOLDS && err == 0)
		err = fs_open(fs->peer, FUSE_OPENDIR, dir, DIR_FLAGS, &fh);
	if (status != CHECK_HOLDS)
		return status;
	if (err == 0)
		status = read_whole(c, fs, dir, fh, 512, wanted);
	if (err == 0 && opened == 0 && status == CHECK_HOLDS)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, dir, fh, DIR_FLAGS);
	if (err == 0 && fs->scratch_made && status == CHECK_HOLDS)
		err = remove_entries(fs, dir);
	return err < 0 ? check_error(c, fs->peer, err, "around it") : status;
}

/* The nodes of the entries can be used, and each counts as one lookup. */
static enum check_status use_nodes(struct check *c, struct check_fs *fs, const uint8_t *list,
				   uint32_t bytes)
{
	uint32_t nr = 0;

	for (uint32_t at = 0; bytes - at >= FUSE_NAME_OFFSET_DIRENTPLUS;) {
		struct fuse_direntplus plus;
		struct fuse_attr attr;
		int err;

		memcpy(&plus, list + at, FUSE_NAME_OFFSET_DIRENTPLUS);
		if (!plus.dirent.namelen || plus.dirent.namelen > NAME_MAX)
			return check_fails(c, "a name of %u bytes", plus.dirent.namelen);
		nr++;
		at += (uint32_t)FUSE_REC_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + plus.dirent.namelen);
		if (at > bytes)
			break;
		if (!plus.entry_out.nodeid || plus.entry_out.nodeid == FUSE_ROOT_ID)
			continue;
		err = fs_getattr(fs->peer, plus.entry_out.nodeid, &attr);
		if (err == 0)
			err = peer_forget(fs->peer, plus.entry_out.nodeid, 1);
		if (err < 0)
			return check_error(c, fs->peer, err, "GETATTR of an entry's node");
	}
	return nr ? check_holds(c) : check_fails(c, "no entry, not even the dots");
}

enum check_status op_readdirplus(struct check *c, struct check_fs *fs)
{
	struct fuse_read_in in = { .size = 4096 };
	struct ask ask = { .opcode = FUSE_READDIRPLUS,
			   .nodeid = op_place(fs),
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = 4096 };
	uint8_t list[4096];
	enum check_status status;
	int err;

	if (!(fs->peer->flags & FUSE_DO_READDIRPLUS))
		return check_end(c, CHECK_NOT_OFFERED, "not in its INIT flags");
	err = fs_open(fs->peer, FUSE_OPENDIR, op_place(fs), DIR_FLAGS, &in.fh);
	if (err == 0)
		err = fs_ask(fs->peer, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "READDIRPLUS");
	/* The answer is overwritten by the next request. */
	memcpy(list, ask.body, ask.got);
	status = use_nodes(c, fs, list, ask.got);
	if (status == CHECK_HOLDS)
		err = fs_release(fs->peer, FUSE_RELEASEDIR, op_place(fs), in.fh, DIR_FLAGS);
	return err < 0 ? check_error(c, fs->peer, err, "RELEASEDIR") : status;
}

static int set_xattr(struct check_fs *fs, uint64_t nodeid, uint32_t flags)
{
	const struct fuse_setxattr_in in = { .size = sizeof(XATTR_VALUE) - 1, .flags = flags };
	struct ask ask = { .opcode = FUSE_SETXATTR,
			   .nodeid = nodeid,
			   .args = &in,
			   .args_bytes = fs->peer->flags & FUSE_SETXATTR_EXT
						 ? sizeof(in)
						 : FUSE_COMPAT_SETXATTR_IN_SIZE,
			   .name = { XATTR_NAME },
			   .data = XATTR_VALUE,
			   .data_bytes = sizeof(XATTR_VALUE) - 1 };

	return fs_ask(fs->peer, &ask);
}

/* GETXATTR, or LISTXATTR without a name. */
static int get_xattr(struct check_fs *fs, uint64_t nodeid, const char *name, uint32_t size,
		     struct ask *ask)
{
	const struct fuse_getxattr_in in = { .size = size };
	int err;

	*ask = (struct ask){ .opcode = name ? FUSE_GETXATTR : FUSE_LISTXATTR,
			     .nodeid = nodeid,
			     .args = &in,
			     .args_bytes = sizeof(in),
			     .name = { name },
			     .in_bytes = size ? size : sizeof(struct fuse_getxattr_out) };
	err = fs_ask(fs->peer, ask);
	ask->args = NULL;
	return err;
}

/* The scratch directory has the attribute, or the root is asked for one that it does not have. */
static bool with_xattr(struct check *c, struct check_fs *fs, enum check_status *ret_status)
{
	struct ask ask;
	int err;

	if (!fs->scratch_made) {
		err = get_xattr(fs, FUSE_ROOT_ID, XATTR_NAME, 100, &ask);
		*ret_status = err == -ENODATA ? op_not_tried(c, fs)
					      : check_error(c, fs->peer, err, "of the root");
		return false;
	}
	err = set_xattr(fs, fs->scratch, 0);
	if (!err)
		return true;
	*ret_status = check_error(c, fs->peer, err, "SETXATTR");
	return false;
}

enum check_status op_setxattr(struct check *c, struct check_fs *fs)
{
	enum check_status status;
	int err;

	if (!fs->scratch_made) {
		err = set_xattr(fs, FUSE_ROOT_ID, XATTR_REPLACE);
		return err == -ENODATA ? op_not_tried(c, fs)
		       : err	       ? check_error(c, fs->peer, err, "with XATTR_REPLACE")
				       : check_fails(c, "XATTR_REPLACE made an attribute");
	}
	if (!with_xattr(c, fs, &status))
		return status;
	err = set_xattr(fs, fs->scratch, XATTR_CREATE);
	if (err != -EEXIST)
		return check_fails(c, "XATTR_CREATE of one that is there: %s",
				   err ? strerror(-err) : "done");
	return check_holds(c);
}

enum check_status op_getxattr(struct check *c, struct check_fs *fs)
{
	const uint32_t len = sizeof(XATTR_VALUE) - 1;
	struct fuse_getxattr_out out = {};
	enum check_status status;
	struct ask ask;
	int err;

	if (!with_xattr(c, fs, &status))
		return status;
	err = get_xattr(fs, fs->scratch, XATTR_NAME, 0, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "length");
	memcpy(&out, ask.body, min_of((size_t)ask.got, sizeof(out)));
	if (out.size != len)
		return check_fails(c, "length %u instead of %u", out.size, len);
	err = get_xattr(fs, fs->scratch, XATTR_NAME, 100, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "value");
	if (ask.got != len || memcmp(ask.body, XATTR_VALUE, len) != 0)
		return check_fails(c, "another value, of %u bytes", ask.got);
	err = get_xattr(fs, fs->scratch, XATTR_NAME, 1, &ask);
	if (err != -ERANGE)
		return check_fails(c, "too little room: %s", err ? strerror(-err) : "answered");
	return check_holds(c);
}

enum check_status op_listxattr(struct check *c, struct check_fs *fs)
{
	enum check_status status;
	struct ask ask;
	int err;

	if (!fs->scratch_made) {
		err = get_xattr(fs, FUSE_ROOT_ID, NULL, 0, &ask);
		return err < 0 ? check_error(c, fs->peer, err, "of the root")
			       : check_end(c, CHECK_HOLDS, "only the length was tried");
	}
	if (!with_xattr(c, fs, &status))
		return status;
	err = get_xattr(fs, fs->scratch, NULL, 65536, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "LISTXATTR");
	if (!memmem(ask.body, ask.got, XATTR_NAME, sizeof(XATTR_NAME)))
		return check_fails(c, "the name is not in the list of %u bytes", ask.got);
	return check_holds(c);
}

enum check_status op_removexattr(struct check *c, struct check_fs *fs)
{
	struct ask ask = { .opcode = FUSE_REMOVEXATTR,
			   .nodeid = fs->scratch_made ? fs->scratch : FUSE_ROOT_ID,
			   .name = { XATTR_NAME } };
	enum check_status status;
	int err;

	if (fs->scratch_made && !with_xattr(c, fs, &status))
		return status;
	err = fs_ask(fs->peer, &ask);
	if (!fs->scratch_made && err == -ENODATA)
		return op_not_tried(c, fs);
	if (err < 0)
		return check_error(c, fs->peer, err, "REMOVEXATTR");
	err = fs_ask(fs->peer, &ask);
	if (err != -ENODATA)
		return check_fails(c, "the second time: %s", err ? strerror(-err) : "removed");
	return check_holds(c);
}
