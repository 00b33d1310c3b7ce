/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system in memory: nodes in a table that never moves, names in lists.
 *
 * tree_lock covers names, attributes, counts and extended attributes; each file's content has a lock of its own, which is
 * taken after tree_lock where both are. A node goes when nothing names, knows or has open what it is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "memfs.h"

#define NODES_MAX   65536u
#define FILE_MAX    (64u << 20)
#define VALID_FOR_S 1

/* A name in a directory; cookie: its position for readdir, grows with each name that is added. */
struct name {
	struct name *next;
	uint64_t cookie;
	uint64_t id;
	char text[256];
};

struct xattr {
	struct xattr *next;
	size_t size;
	char *value;
	char name[256];
};

/* used: the node is there; data: a file's content or a link's target, room bytes of which size are in use. */
struct node {
	bool used;
	struct fuse_attr attr;
	uint64_t generation;
	uint64_t nlookup;
	unsigned int nr_open;
	uint64_t parent;
	struct name *names;
	uint64_t last_cookie;
	struct xattr *xattrs;
	pthread_rwlock_t data_lock;
	char *data;
	size_t room;
};

static pthread_mutex_t tree_lock = PTHREAD_MUTEX_INITIALIZER;
static struct node nodes[NODES_MAX];
static uint64_t next_id = MEMFS_ROOT;

static void lock(void)
{
	pthread_mutex_lock(&tree_lock);
}

static void unlock(void)
{
	pthread_mutex_unlock(&tree_lock);
}

static struct node *get(uint64_t id)
{
	return id < NODES_MAX && nodes[id].used ? &nodes[id] : NULL;
}

static void touch(struct node *n, bool modified)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	n->attr.ctime = (uint64_t)now.tv_sec;
	n->attr.ctimensec = (uint32_t)now.tv_nsec;
	if (modified) {
		n->attr.mtime = n->attr.ctime;
		n->attr.mtimensec = n->attr.ctimensec;
	}
}

static struct node *node_new(uint32_t mode, uint32_t uid, uint32_t gid, uint64_t *ret_id)
{
	for (unsigned int i = 0; i < NODES_MAX; i++) {
		uint64_t id = next_id;
		struct node *n = &nodes[id];

		next_id = next_id + 1 < NODES_MAX ? next_id + 1 : MEMFS_ROOT;
		if (n->used)
			continue;
		n->used = true;
		n->generation++;
		n->attr = (struct fuse_attr){
			.ino = id, .mode = mode, .uid = uid, .gid = gid, .blksize = 4096
		};
		touch(n, true);
		n->attr.atime = n->attr.mtime;
		n->attr.atimensec = n->attr.mtimensec;
		if (n->generation == 1)
			pthread_rwlock_init(&n->data_lock, NULL);
		*ret_id = id;
		return n;
	}
	return NULL;
}

static void xattr_free(struct xattr *x)
{
	free(x->value);
	free(x);
}

/* The node goes with its last name, lookup and open handle. */
static void node_check(uint64_t id)
{
	struct node *n = &nodes[id];

	if (n->attr.nlink || n->nlookup || n->nr_open || id == MEMFS_ROOT)
		return;
	while (n->xattrs) {
		struct xattr *x = n->xattrs;

		n->xattrs = x->next;
		xattr_free(x);
	}
	pthread_rwlock_wrlock(&n->data_lock);
	free(n->data);
	n->data = NULL;
	n->room = 0;
	pthread_rwlock_unlock(&n->data_lock);
	n->used = false;
}

static struct name **find(struct node *dir, const char *name)
{
	struct name **link = &dir->names;

	while (*link && strcmp((*link)->text, name) != 0)
		link = &(*link)->next;
	return link;
}

static struct node *get_dir(uint64_t id, int *ret_err)
{
	struct node *n = get(id);

	*ret_err = !n ? -ESTALE : !S_ISDIR(n->attr.mode) ? -ENOTDIR : !n->attr.nlink ? -ENOENT : 0;
	return *ret_err ? NULL : n;
}

/* At the end of the list: positions grow along it. */
static int add_name(struct node *dir, const char *text, uint64_t id)
{
	struct name **link = &dir->names, *name;

	if (strlen(text) >= sizeof(name->text))
		return -ENAMETOOLONG;
	name = calloc(1, sizeof(*name));
	if (!name)
		return -ENOMEM;
	while (*link)
		link = &(*link)->next;
	memcpy(name->text, text, strlen(text) + 1);
	name->id = id;
	name->cookie = ++dir->last_cookie;
	*link = name;
	touch(dir, true);
	return 0;
}

static void remove_name(struct node *dir, struct name **link)
{
	struct name *name = *link;

	*link = name->next;
	free(name);
	touch(dir, true);
}

static void fill_entry(uint64_t id, struct fuse_entry_out *ret_entry)
{
	struct node *n = &nodes[id];

	n->nlookup++;
	*ret_entry = (struct fuse_entry_out){
		.nodeid = id,
		.generation = n->generation,
		.entry_valid = VALID_FOR_S,
		.attr_valid = VALID_FOR_S,
		.attr = n->attr,
	};
}

void memfs_init(void)
{
	uint64_t id;
	struct node *root = node_new(S_IFDIR | 0755, 0, 0, &id);

	root->attr.nlink = 2;
	root->parent = id;
}

int memfs_lookup(uint64_t dir_id, const char *name, struct fuse_entry_out *ret_entry)
{
	struct node *dir;
	struct name *found;
	int err;

	lock();
	dir = get_dir(dir_id, &err);
	if (dir) {
		found = *find(dir, name);
		if (found)
			fill_entry(found->id, ret_entry);
		else
			err = -ENOENT;
	}
	unlock();
	return err;
}

void memfs_forget(uint64_t id, uint64_t nlookup)
{
	struct node *n;

	lock();
	n = get(id);
	if (n) {
		n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
		node_check(id);
	}
	unlock();
}

int memfs_getattr(uint64_t id, struct fuse_attr *ret_attr)
{
	struct node *n;

	lock();
	n = get(id);
	if (n)
		*ret_attr = n->attr;
	unlock();
	return n ? 0 : -ESTALE;
}

/* The caller holds tree_lock. The bytes between an old end and a new one read as zeros. */
static int resize(struct node *n, uint64_t size)
{
	int err = 0;

	if (size > FILE_MAX)
		return -EFBIG;
	pthread_rwlock_wrlock(&n->data_lock);
	if (size > n->room) {
		size_t room = n->room ? n->room : 4096;
		char *data;

		while (room < size)
			room *= 2;
		data = realloc(n->data, room);
		if (data) {
			n->data = data;
			n->room = room;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err) {
		if (size > n->attr.size)
			memset(n->data + n->attr.size, 0, size - n->attr.size);
		n->attr.size = size;
		n->attr.blocks = (size + 511) / 512;
		touch(n, true);
	}
	pthread_rwlock_unlock(&n->data_lock);
	return err;
}

static void set_times(struct node *n, const struct fuse_setattr_in *in)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (in->valid & FATTR_ATIME) {
		n->attr.atime = in->valid & FATTR_ATIME_NOW ? (uint64_t)now.tv_sec : in->atime;
		n->attr.atimensec =
			in->valid & FATTR_ATIME_NOW ? (uint32_t)now.tv_nsec : in->atimensec;
	}
	if (in->valid & FATTR_MTIME) {
		n->attr.mtime = in->valid & FATTR_MTIME_NOW ? (uint64_t)now.tv_sec : in->mtime;
		n->attr.mtimensec =
			in->valid & FATTR_MTIME_NOW ? (uint32_t)now.tv_nsec : in->mtimensec;
	}
}

int memfs_setattr(uint64_t id, const struct fuse_setattr_in *in, struct fuse_attr *ret_attr)
{
	struct node *n;
	int err = 0;

	lock();
	n = get(id);
	if (!n)
		err = -ESTALE;
	else if (in->valid & FATTR_SIZE)
		err = S_ISREG(n->attr.mode) ? resize(n, in->size) : -EINVAL;
	if (!err) {
		if (in->valid & FATTR_MODE)
			n->attr.mode = (n->attr.mode & S_IFMT) | (in->mode & 07777);
		if (in->valid & FATTR_UID)
			n->attr.uid = in->uid;
		if (in->valid & FATTR_GID)
			n->attr.gid = in->gid;
		touch(n, false);
		set_times(n, in);
		*ret_attr = n->attr;
	}
	unlock();
	return err;
}

/* The caller holds tree_lock. */
static int make_in(struct node *dir, uint64_t dir_id, const char *name, uint32_t mode,
		   const struct fuse_in_header *in, const char *target, uint64_t *ret_id)
{
	struct node *n = node_new(mode, in->uid, in->gid, ret_id);
	int err;

	if (!n)
		return -ENOSPC;
	if (target) {
		err = resize(n, strlen(target));
		if (err)
			goto fail;
		memcpy(n->data, target, strlen(target));
	}
	err = add_name(dir, name, *ret_id);
	if (err)
		goto fail;
	n->attr.nlink = S_ISDIR(mode) ? 2 : 1;
	n->parent = dir_id;
	dir->attr.nlink += S_ISDIR(mode);
	return 0;
fail:
	node_check(*ret_id);
	return err;
}

int memfs_make(uint64_t dir_id, const char *name, uint32_t mode, const struct fuse_in_header *in,
	       const char *target, struct fuse_entry_out *ret_entry)
{
	struct node *dir;
	uint64_t id;
	int err;

	lock();
	dir = get_dir(dir_id, &err);
	if (dir && *find(dir, name))
		err = -EEXIST;
	if (!err)
		err = make_in(dir, dir_id, name, mode, in, target, &id);
	if (!err)
		fill_entry(id, ret_entry);
	unlock();
	return err;
}

int memfs_link(uint64_t id, uint64_t dir_id, const char *name, struct fuse_entry_out *ret_entry)
{
	struct node *dir, *n;
	int err;

	lock();
	dir = get_dir(dir_id, &err);
	n = get(id);
	if (dir && *find(dir, name))
		err = -EEXIST;
	else if (dir && (!n || S_ISDIR(n->attr.mode)))
		err = n ? -EPERM : -ESTALE;
	if (!err)
		err = add_name(dir, name, id);
	if (!err) {
		n->attr.nlink++;
		touch(n, false);
		fill_entry(id, ret_entry);
	}
	unlock();
	return err;
}

/* The caller holds tree_lock; @link is a name in @dir. */
static void drop_name(struct node *dir, struct name **link)
{
	uint64_t id = (*link)->id;
	struct node *n = &nodes[id];

	remove_name(dir, link);
	if (S_ISDIR(n->attr.mode)) {
		n->attr.nlink = 0;
		dir->attr.nlink--;
	} else {
		n->attr.nlink--;
	}
	touch(n, false);
	node_check(id);
}

/* May the name at @link go, as rmdir(2) or unlink(2) says? */
static int may_drop(const struct name *name, bool rmdir)
{
	const struct node *n;

	if (!name)
		return -ENOENT;
	n = &nodes[name->id];
	if (rmdir != S_ISDIR(n->attr.mode))
		return rmdir ? -ENOTDIR : -EISDIR;
	return rmdir && n->names ? -ENOTEMPTY : 0;
}

int memfs_unlink(uint64_t dir_id, const char *name, bool rmdir)
{
	struct node *dir;
	struct name **link;
	int err;

	lock();
	dir = get_dir(dir_id, &err);
	if (dir) {
		link = find(dir, name);
		err = may_drop(*link, rmdir);
		if (!err)
			drop_name(dir, link);
	}
	unlock();
	return err;
}

/* Is directory @id below (or) @top? */
static bool is_below(uint64_t id, uint64_t top)
{
	while (id != top && id != MEMFS_ROOT)
		id = nodes[id].parent;
	return id == top;
}

/* The caller holds tree_lock. */
static int rename_in(struct node *from, const char *name, uint64_t to_id, const char *new_name,
		     unsigned int flags)
{
	struct node *to = &nodes[to_id], *n;
	struct name **link = find(from, name), **victim = find(to, new_name);
	uint64_t id;
	int err;

	if (flags & ~(unsigned int)RENAME_NOREPLACE)
		return -EINVAL;
	if (!*link)
		return -ENOENT;
	id = (*link)->id;
	n = &nodes[id];
	if (S_ISDIR(n->attr.mode) && is_below(to_id, id))
		return -EINVAL;
	if (*victim) {
		if (flags & RENAME_NOREPLACE)
			return -EEXIST;
		if ((*victim)->id == id)
			return 0;
		err = may_drop(*victim, S_ISDIR(n->attr.mode));
		if (err)
			return err;
		drop_name(to, victim);
	}
	err = add_name(to, new_name, id);
	if (err)
		return err;
	/* After the victim: the link before it may have been its. */
	remove_name(from, find(from, name));
	if (S_ISDIR(n->attr.mode)) {
		from->attr.nlink--;
		to->attr.nlink++;
		n->parent = to_id;
	}
	touch(n, false);
	return 0;
}

int memfs_rename(uint64_t dir_id, const char *name, uint64_t new_dir_id, const char *new_name,
		 unsigned int flags)
{
	struct node *from, *to;
	int err, err_to;

	lock();
	from = get_dir(dir_id, &err);
	to = get_dir(new_dir_id, &err_to);
	if (from && to)
		err = rename_in(from, name, new_dir_id, new_name, flags);
	else if (!err)
		err = err_to;
	unlock();
	return err;
}

int memfs_open(uint64_t id, uint32_t flags)
{
	struct node *n;
	int err = 0;

	lock();
	n = get(id);
	if (!n)
		err = -ESTALE;
	else if ((flags & O_TRUNC) && S_ISREG(n->attr.mode))
		err = resize(n, 0);
	if (!err)
		n->nr_open++;
	unlock();
	return err;
}

void memfs_release(uint64_t id)
{
	struct node *n;

	lock();
	n = get(id);
	if (n && n->nr_open) {
		n->nr_open--;
		node_check(id);
	}
	unlock();
}

ssize_t memfs_read(uint64_t id, uint64_t off, size_t size, const char **ret_data)
{
	struct node *n;
	size_t left;

	lock();
	n = get(id);
	if (!n || !S_ISREG(n->attr.mode)) {
		unlock();
		return n ? -EISDIR : -ESTALE;
	}
	pthread_rwlock_rdlock(&n->data_lock);
	unlock();
	/* Its open handle keeps the node, and the content's lock its size. */
	left = off < n->attr.size ? n->attr.size - off : 0;
	*ret_data = left ? n->data + off : "";
	return (ssize_t)(size < left ? size : left);
}

void memfs_read_end(uint64_t id)
{
	pthread_rwlock_unlock(&nodes[id].data_lock);
}

ssize_t memfs_write(uint64_t id, uint64_t off, const void *data, size_t size)
{
	struct node *n;
	int err = 0;

	lock();
	n = get(id);
	if (!n || !S_ISREG(n->attr.mode)) {
		unlock();
		return -ESTALE;
	}
	if (off > FILE_MAX || size > FILE_MAX - off)
		err = -EFBIG;
	else if (off + size > n->attr.size)
		err = resize(n, off + size);
	if (!err) {
		touch(n, true);
		pthread_rwlock_wrlock(&n->data_lock);
	}
	unlock();
	if (err)
		return err;
	memcpy(n->data + off, data, size);
	pthread_rwlock_unlock(&n->data_lock);
	return (ssize_t)size;
}

int memfs_fallocate(uint64_t id, uint64_t off, uint64_t len, uint32_t mode)
{
	struct node *n;
	int err = 0;

	if (mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE)
		return -EOPNOTSUPP;
	if (off > FILE_MAX || len > FILE_MAX - off)
		return -EFBIG;
	lock();
	n = get(id);
	if (!n)
		err = -ESTALE;
	else if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > n->attr.size)
		err = resize(n, off + len);
	unlock();
	return err;
}

ssize_t memfs_readlink(uint64_t id, char *buf, size_t size)
{
	struct node *n;
	ssize_t len = -EINVAL;

	lock();
	n = get(id);
	if (n && S_ISLNK(n->attr.mode) && n->attr.size <= size) {
		len = (ssize_t)n->attr.size;
		memcpy(buf, n->data, (size_t)len);
	}
	unlock();
	return len;
}

/* The caller holds tree_lock. Return: bytes, or 0 when it does not fit. */
static size_t add_dirent(char *buf, size_t size, const char *name, uint64_t id, uint64_t off,
			 bool plus)
{
	struct fuse_dirent d = { .ino = id, .off = off, .namelen = (uint32_t)strlen(name) };
	size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	size_t len = FUSE_DIRENT_ALIGN(head + d.namelen);
	struct fuse_entry_out entry = { 0 };

	if (len > size)
		return 0;
	d.type = IFTODT(nodes[id].attr.mode);
	memset(buf, 0, len);
	if (plus) {
		if (name[0] != '.' || (name[1] && (name[1] != '.' || name[2])))
			fill_entry(id, &entry);
		memcpy(buf, &entry, sizeof(entry));
	}
	memcpy(buf + head - FUSE_NAME_OFFSET, &d, FUSE_NAME_OFFSET);
	memcpy(buf + head, name, d.namelen);
	return len;
}

ssize_t memfs_readdir(uint64_t id, uint64_t off, char *buf, size_t size, bool plus)
{
	size_t used = 0, len = 1;
	struct node *n;

	lock();
	n = get(id);
	if (!n || !S_ISDIR(n->attr.mode)) {
		unlock();
		return n ? -ENOTDIR : -ESTALE;
	}
	/* Positions 1 and 2 are those of the dots, a name's its own and 2. */
	for (uint64_t i = off; i < 2 && len; i++) {
		len = add_dirent(buf + used, size - used, i ? ".." : ".", i ? n->parent : id, i + 1,
				 plus);
		used += len;
	}
	for (struct name *name = n->names; name && len; name = name->next) {
		if (name->cookie + 2 <= off)
			continue;
		len = add_dirent(buf + used, size - used, name->text, name->id, name->cookie + 2,
				 plus);
		used += len;
	}
	unlock();
	return (ssize_t)used;
}

static struct xattr **find_xattr(struct node *n, const char *name)
{
	struct xattr **link = &n->xattrs;

	while (*link && strcmp((*link)->name, name) != 0)
		link = &(*link)->next;
	return link;
}

/* The caller holds tree_lock. */
static int set_xattr(struct node *n, const char *name, const void *value, size_t size, int flags)
{
	struct xattr **link = find_xattr(n, name), *x, *old = *link;

	if (old ? flags & XATTR_CREATE : flags & XATTR_REPLACE)
		return old ? -EEXIST : -ENODATA;
	if (strlen(name) >= sizeof(x->name))
		return -ERANGE;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->value = malloc(size ? size : 1);
	if (!x->value) {
		free(x);
		return -ENOMEM;
	}
	memcpy(x->value, value, size);
	memcpy(x->name, name, strlen(name) + 1);
	x->size = size;
	x->next = old ? old->next : NULL;
	*link = x;
	if (old)
		xattr_free(old);
	touch(n, false);
	return 0;
}

int memfs_setxattr(uint64_t id, const char *name, const void *value, size_t size, int flags)
{
	struct node *n;
	int err;

	lock();
	n = get(id);
	err = n ? set_xattr(n, name, value, size, flags) : -ESTALE;
	unlock();
	return err;
}

static ssize_t list_xattrs(struct node *n, char *buf, size_t size)
{
	size_t used = 0;

	for (struct xattr *x = n->xattrs; x; x = x->next) {
		size_t len = strlen(x->name) + 1;

		if (size && len > size - used)
			return -ERANGE;
		if (size)
			memcpy(buf + used, x->name, len);
		used += len;
	}
	return (ssize_t)used;
}

ssize_t memfs_getxattr(uint64_t id, const char *name, void *buf, size_t size)
{
	struct node *n;
	struct xattr *x;
	ssize_t len;

	lock();
	n = get(id);
	if (!n) {
		len = -ESTALE;
	} else if (!name) {
		len = list_xattrs(n, buf, size);
	} else {
		x = *find_xattr(n, name);
		len = !x ? -ENODATA : size && x->size > size ? -ERANGE : (ssize_t)x->size;
		if (len > 0 && size)
			memcpy(buf, x->value, x->size);
	}
	unlock();
	return len;
}

int memfs_removexattr(uint64_t id, const char *name)
{
	struct xattr **link, *x;
	struct node *n;
	int err = -ENODATA;

	lock();
	n = get(id);
	if (n) {
		link = find_xattr(n, name);
		x = *link;
		if (x) {
			*link = x->next;
			xattr_free(x);
			err = 0;
		}
	}
	unlock();
	return err;
}

void memfs_statfs(struct fuse_kstatfs *ret_st)
{
	*ret_st = (struct fuse_kstatfs){
		.blocks = 1u << 20,
		.bfree = 1u << 19,
		.bavail = 1u << 19,
		.files = NODES_MAX,
		.ffree = NODES_MAX / 2,
		.bsize = 4096,
		.frsize = 4096,
		.namelen = 255,
	};
}
