/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A place of our own in a file system that we do not know, and the requests that make, use and remove it.
 *
 * A directory in the root holds all that is created; nothing else is written, unless the user named a file for it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "check/check_impl.h"
#include "client/fuse_ops.h"

#define LIST_BYTES 32768u
#define ROUNDS_MAX 64u
#define NAME_CAP   (NAME_MAX + 1)

int fs_ask(struct peer *p, struct ask *ask)
{
	int err = peer_ask(p, FIRST_QUEUE, ask);

	return err < 0 ? err : ask->error;
}

/* A list of security contexts, empty, as a guest without a security module sends: needed once it was agreed on. */
static const struct fuse_secctx_header no_contexts = { .size = sizeof(no_contexts) };

static void add_contexts(const struct peer *p, struct ask *ask)
{
	if (!(p->flags & FUSE_SECURITY_CTX))
		return;
	ask->data = &no_contexts;
	ask->data_bytes = ask->ext_bytes = sizeof(no_contexts);
}

int fs_lookup(struct peer *p, uint64_t parent, const char *name, struct fuse_entry_out *ret_entry)
{
	struct ask ask = { .opcode = FUSE_LOOKUP,
			   .nodeid = parent,
			   .name = { name },
			   .in_bytes = sizeof(*ret_entry),
			   .exact = true };
	int err = fs_ask(p, &ask);

	if (err == 0)
		memcpy(ret_entry, ask.body, sizeof(*ret_entry));
	return err == 0 && !ret_entry->nodeid ? -ENOENT : err;
}

int fs_getattr(struct peer *p, uint64_t nodeid, struct fuse_attr *ret_attr)
{
	const struct fuse_getattr_in in = {};
	struct ask ask = { .opcode = FUSE_GETATTR,
			   .nodeid = nodeid,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_attr_out),
			   .exact = true };
	int err = fs_ask(p, &ask);

	if (err == 0)
		memcpy(ret_attr, (const uint8_t *)ask.body + offsetof(struct fuse_attr_out, attr),
		       sizeof(*ret_attr));
	return err;
}

int fs_open(struct peer *p, uint32_t opcode, uint64_t nodeid, int flags, uint64_t *ret_fh)
{
	const struct fuse_open_in in = { .flags = fuse_open_flags(flags) };
	struct ask ask = { .opcode = opcode,
			   .nodeid = nodeid,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_open_out),
			   .exact = true };
	int err = fs_ask(p, &ask);

	if (err == 0)
		memcpy(ret_fh, ask.body, sizeof(*ret_fh));
	return err;
}

int fs_release(struct peer *p, uint32_t opcode, uint64_t nodeid, uint64_t fh, int flags)
{
	const struct fuse_release_in in = { .fh = fh, .flags = fuse_open_flags(flags) };
	struct ask ask = {
		.opcode = opcode, .nodeid = nodeid, .args = &in, .args_bytes = sizeof(in)
	};

	return fs_ask(p, &ask);
}

int fs_mkdir(struct peer *p, uint64_t parent, const char *name, uint64_t *ret_nodeid)
{
	const struct fuse_mkdir_in in = { .mode = 0755, .umask = 022 };
	struct ask ask = { .opcode = FUSE_MKDIR,
			   .nodeid = parent,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .name = { name },
			   .in_bytes = sizeof(struct fuse_entry_out),
			   .exact = true };
	int err;

	add_contexts(p, &ask);
	err = fs_ask(p, &ask);
	if (err == 0)
		memcpy(ret_nodeid, ask.body, sizeof(*ret_nodeid));
	return err;
}

int fs_mknod(struct peer *p, uint64_t parent, const char *name, uint32_t mode,
	     struct fuse_entry_out *ret_entry)
{
	const struct fuse_mknod_in in = { .mode = mode, .umask = 022 };
	struct ask ask = { .opcode = FUSE_MKNOD,
			   .nodeid = parent,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .name = { name },
			   .in_bytes = sizeof(*ret_entry),
			   .exact = true };
	int err;

	add_contexts(p, &ask);
	err = fs_ask(p, &ask);
	if (err == 0)
		memcpy(ret_entry, ask.body, sizeof(*ret_entry));
	return err;
}

int fs_symlink(struct peer *p, uint64_t parent, const char *name, const char *target,
	       struct fuse_entry_out *ret_entry)
{
	struct ask ask = { .opcode = FUSE_SYMLINK,
			   .nodeid = parent,
			   .name = { name, target },
			   .in_bytes = sizeof(*ret_entry),
			   .exact = true };
	int err;

	add_contexts(p, &ask);
	err = fs_ask(p, &ask);
	if (err == 0)
		memcpy(ret_entry, ask.body, sizeof(*ret_entry));
	return err;
}

/* CREATE, or TMPFILE with the name that Linux gives it. */
static int create(struct peer *p, uint32_t opcode, uint64_t parent, const char *name,
		  uint64_t *ret_nodeid, uint64_t *ret_fh)
{
	const int how = O_RDWR | (opcode == FUSE_CREATE ? O_CREAT : O_TMPFILE);
	const struct fuse_create_in in = { .flags = fuse_open_flags(how),
					   .mode = S_IFREG | 0644,
					   .umask = 022 };
	struct ask ask = { .opcode = opcode,
			   .nodeid = parent,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .name = { name },
			   .in_bytes = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out),
			   .exact = true };
	int err;

	add_contexts(p, &ask);
	err = fs_ask(p, &ask);
	if (err == 0) {
		memcpy(ret_nodeid, ask.body, sizeof(*ret_nodeid));
		memcpy(ret_fh, (const uint8_t *)ask.body + sizeof(struct fuse_entry_out),
		       sizeof(*ret_fh));
	}
	return err;
}

int fs_create(struct peer *p, uint64_t parent, const char *name, uint64_t *ret_nodeid,
	      uint64_t *ret_fh)
{
	return create(p, FUSE_CREATE, parent, name, ret_nodeid, ret_fh);
}

int fs_tmpfile(struct peer *p, uint64_t parent, uint64_t *ret_nodeid, uint64_t *ret_fh)
{
	return create(p, FUSE_TMPFILE, parent, "/", ret_nodeid, ret_fh);
}

int fs_remove(struct peer *p, uint32_t opcode, uint64_t parent, const char *name)
{
	struct ask ask = { .opcode = opcode, .nodeid = parent, .name = { name } };

	return fs_ask(p, &ask);
}

/* READ, READDIR. What came is ask->got bytes at ask->body. */
static int read_some(struct peer *p, uint32_t opcode, uint64_t nodeid,
		     const struct fuse_read_in *in, struct ask *ask)
{
	int err;

	*ask = (struct ask){ .opcode = opcode,
			     .nodeid = nodeid,
			     .args = in,
			     .args_bytes = sizeof(*in),
			     .in_bytes = in->size };
	err = fs_ask(p, ask);
	ask->args = NULL;
	return err;
}

int fs_read(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, uint32_t size,
	    struct ask *ask)
{
	const struct fuse_read_in in = {
		.fh = fh, .offset = offset, .size = size, .flags = fuse_open_flags(O_RDONLY)
	};

	return read_some(p, FUSE_READ, nodeid, &in, ask);
}

int fs_write(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, const void *data,
	     uint32_t size)
{
	const struct fuse_write_in in = {
		.fh = fh, .offset = offset, .size = size, .flags = fuse_open_flags(O_RDWR)
	};
	struct ask ask = { .opcode = FUSE_WRITE,
			   .nodeid = nodeid,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .data = data,
			   .data_bytes = size,
			   .in_bytes = sizeof(struct fuse_write_out),
			   .exact = true };
	uint32_t written = 0;
	int err = fs_ask(p, &ask);

	if (err == 0)
		memcpy(&written, ask.body, sizeof(written));
	return err == 0 && written != size ? -ENOSPC : err;
}

int fs_list(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, struct ask *ask)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = LIST_BYTES };

	return read_some(p, FUSE_READDIR, nodeid, &in, ask);
}

bool fs_next_entry(const struct ask *ask, uint32_t *at, char *ret_name, uint64_t *ret_off,
		   uint32_t *ret_type)
{
	const uint8_t *body = ask->body;
	struct fuse_dirent entry;

	if (ask->got - *at < FUSE_NAME_OFFSET || *at > ask->got)
		return false;
	memcpy(&entry, body + *at, FUSE_NAME_OFFSET);
	if (!entry.namelen || entry.namelen > NAME_MAX ||
	    entry.namelen > ask->got - *at - FUSE_NAME_OFFSET)
		return false;
	memcpy(ret_name, body + *at + FUSE_NAME_OFFSET, entry.namelen);
	ret_name[entry.namelen] = '\0';
	*ret_off = entry.off;
	*ret_type = entry.type;
	*at += (uint32_t)FUSE_REC_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
	return true;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The first name of the root, and the first regular file that can be opened. */
static void look_around(struct check_fs *fs)
{
	uint64_t fh = 0, off;
	uint32_t at = 0, type;
	char name[NAME_CAP];
	struct ask ask;
	int err = fs_open(fs->peer, FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY | O_DIRECTORY, &fh);
	uint8_t list[LIST_BYTES];

	if (err < 0 && err != -ENOSYS)
		return;
	if (fs_list(fs->peer, FUSE_ROOT_ID, fh, 0, &ask) == 0) {
		/* The answer is overwritten by the next request. */
		memcpy(list, ask.body, ask.got);
		ask.body = list;
		while (fs_next_entry(&ask, &at, name, &off, &type)) {
			struct fuse_entry_out entry;

			if (is_dots(name))
				continue;
			if (!fs->some_name[0])
				memcpy(fs->some_name, name, sizeof(name));
			if (fs->reader || fs_lookup(fs->peer, FUSE_ROOT_ID, name, &entry) < 0)
				continue;
			if (S_ISREG(entry.attr.mode) && fs_open(fs->peer, FUSE_OPEN, entry.nodeid,
								O_RDONLY, &fs->reader_fh) == 0) {
				fs->reader = entry.nodeid;
				fs->reader_size = entry.attr.size;
			} else if (peer_forget(fs->peer, entry.nodeid, 1) < 0) {
				break;
			}
			if (fs->reader)
				break;
		}
	}
	if (err == 0 && fs_release(fs->peer, FUSE_RELEASEDIR, FUSE_ROOT_ID, fh, O_DIRECTORY) < 0)
		fs->some_name[0] = '\0';
}

/* config.file, component by component. */
static int borrow_file(struct check_fs *fs, const char *path)
{
	struct fuse_entry_out entry = { .nodeid = FUSE_ROOT_ID };

	for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
		size_t len = strcspn(path, "/");
		char name[NAME_CAP];
		int err;

		if (len > NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, len);
		name[len] = '\0';
		err = fs_lookup(fs->peer, entry.nodeid, name, &entry);
		if (err < 0)
			return err;
		path += len;
	}
	if (!S_ISREG(entry.attr.mode))
		return -EISDIR;
	fs->file = entry.nodeid;
	fs->file_borrowed = true;
	return fs_open(fs->peer, FUSE_OPEN, fs->file, O_RDWR, &fs->file_fh);
}

static int make_scratch(struct check_fs *fs)
{
	snprintf(fs->scratch_name, sizeof(fs->scratch_name), ".fusewire-check-%d-%llx",
		 (int)getpid(), (unsigned long long)clock_now_ns());
	return fs_mkdir(fs->peer, FUSE_ROOT_ID, fs->scratch_name, &fs->scratch);
}

static int make_file(struct check_fs *fs)
{
	struct fuse_entry_out entry;
	int err = fs_create(fs->peer, fs->scratch, "file", &fs->file, &fs->file_fh);

	if (err != -ENOSYS)
		return err;
	err = fs_mknod(fs->peer, fs->scratch, "file", S_IFREG | 0644, &entry);
	if (err)
		return err;
	fs->file = entry.nodeid;
	return fs_open(fs->peer, FUSE_OPEN, fs->file, O_RDWR, &fs->file_fh);
}

/* A new session knows no node: find again what an earlier one made. */
static int find_scratch(struct check_fs *fs)
{
	struct fuse_entry_out entry;
	int err = fs_lookup(fs->peer, FUSE_ROOT_ID, fs->scratch_name, &entry);

	if (err)
		return err;
	fs->scratch = entry.nodeid;
	err = fs_lookup(fs->peer, fs->scratch, "file", &entry);
	if (err == -ENOENT)
		return make_file(fs);
	if (err)
		return err;
	fs->file = entry.nodeid;
	return fs_open(fs->peer, FUSE_OPEN, fs->file, O_RDWR, &fs->file_fh);
}

static void prepare(struct check *c)
{
	struct check_fs *fs = &c->fs;
	int err;

	fs->file = fs->reader = 0;
	look_around(fs);
	if (fs->scratch_made) {
		err = find_scratch(fs);
	} else if (!fs->read_only && !fs->closed) {
		err = make_scratch(fs);
		fs->scratch_made = err == 0;
		fs->read_only = err < 0;
		fs->why_read_only = err;
		if (err == 0)
			err = make_file(fs);
	} else {
		err = 0;
	}
	if (err < 0 || !fs->scratch_made)
		fs->file = 0;
	if (!fs->file && c->config->file && borrow_file(fs, c->config->file) < 0)
		fs->file = 0;
}

struct check_fs *check_fs(struct check *c)
{
	struct peer *p = check_shared(c);

	if (!p)
		return NULL;
	if (c->fs.peer != p || c->fs.peer_serial != p->serial) {
		c->fs.peer = p;
		c->fs.peer_serial = p->serial;
		prepare(c);
	}
	return &c->fs;
}

/* A kernel removes what it has looked up: some file systems do not know it otherwise. */
static int remove_name(struct peer *p, uint64_t dir, const char *name)
{
	struct fuse_entry_out entry;
	int err = fs_lookup(p, dir, name, &entry);

	if (err < 0)
		return err;
	err = fs_remove(p, S_ISDIR(entry.attr.mode) ? FUSE_RMDIR : FUSE_UNLINK, dir, name);
	return err < 0 ? err : peer_forget(p, entry.nodeid, 1);
}

/* One name out of the directory, so that each round reads from its begin. Return: 1 when there was one. */
static int remove_one(struct peer *p, uint64_t dir)
{
	uint64_t fh = 0, off;
	uint32_t at = 0, type;
	char name[NAME_CAP];
	struct ask ask;
	int err = fs_open(p, FUSE_OPENDIR, dir, O_RDONLY | O_DIRECTORY, &fh);
	int found = 0;

	if (err < 0 && err != -ENOSYS)
		return err;
	if (fs_list(p, dir, fh, 0, &ask) == 0) {
		while (!found && fs_next_entry(&ask, &at, name, &off, &type))
			found = !is_dots(name);
	}
	if (err == 0)
		err = fs_release(p, FUSE_RELEASEDIR, dir, fh, O_DIRECTORY);
	if (!found || (err < 0 && err != -ENOSYS))
		return found ? err : 0;
	err = remove_name(p, dir, name);
	return err < 0 ? err : 1;
}

void check_fs_clean(struct check *c)
{
	struct check_fs *fs;
	int err = 1;

	c->fs.closed = true;
	if (!c->fs.scratch_made || c->lost)
		return;
	fs = check_fs(c);
	if (!fs)
		return;
	if (fs->file && fs_release(fs->peer, FUSE_RELEASE, fs->file, fs->file_fh, O_RDWR) == 0)
		fs->file = 0;
	for (unsigned int i = 0; i < ROUNDS_MAX && err > 0; i++)
		err = remove_one(fs->peer, fs->scratch);
	if (remove_name(fs->peer, FUSE_ROOT_ID, fs->scratch_name) == 0)
		fs->scratch_made = false;
}
