/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A directory, passed through FUSE: a low-level libfuse 3 daemon with every common operation and with splice.
 *
 *	passthrough [OPTION...] SOURCE MOUNTPOINT
 *
 * An open file's handle is its descriptor, an open directory's a pointer; inodes have nodes (nodes.h).
 */
#define FUSE_USE_VERSION 312

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "nodes.h"
#include "serve.h"

#define DIR_BYTES   (32u << 10)
#define XATTR_MAX   (64u << 10)
#define CACHE_FOR_S 86400.0

/* What "/proc/self/fd/N" takes. */
#define PROC_PATH_BYTES 32

/* at..len is what of buf was not given out; off is the position after the last entry that was. */
struct dir {
	pthread_mutex_t lock;
	int fd;
	size_t at, len;
	off_t off;
	char buf[DIR_BYTES] __attribute__((aligned(8)));
};

static struct {
	char *source;
	int cache, no_cache, no_splice, writeback, flock;
	unsigned int max_write;
	double timeout;
	bool owns; /* new files are given to the caller: we may */
} opts = { .timeout = 1.0 };

/* A path of the inode that the node holds; opening it again gives a descriptor with rights. */
static const char *proc_path(char path[PROC_PATH_BYTES], int fd)
{
	snprintf(path, PROC_PATH_BYTES, "/proc/self/fd/%d", fd);
	return path;
}

static void reply_status(fuse_req_t req, int rc)
{
	fuse_reply_err(req, rc < 0 ? errno : 0);
}

/* Look @name up in @parent. Return: 0, or -1 and errno. The entry counts as a lookup. */
static int entry_get(fuse_ino_t parent, const char *name, struct fuse_entry_param *ret_e)
{
	struct fuse_entry_param e = { .attr_timeout = opts.timeout, .entry_timeout = opts.timeout };
	int dirfd = node_fd(parent), fd;
	struct node *n;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	if (fstatat(dirfd, name, &e.attr, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	n = node_get_known(&e.attr);
	if (!n) {
		fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -1;
		/* The name may be another file's by now. */
		if (fstatat(fd, "", &e.attr, AT_EMPTY_PATH) < 0) {
			close(fd);
			return -1;
		}
		n = node_get(fd, &e.attr);
		if (!n)
			return -1;
	}
	e.ino = n->id;
	e.generation = n->generation;
	*ret_e = e;
	return 0;
}

static void reply_entry(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;

	if (entry_get(parent, name, &e) < 0)
		fuse_reply_err(req, errno);
	else if (fuse_reply_entry(req, &e) < 0)
		node_put(e.ino, 1);
}

static void pt_init(void *userdata, struct fuse_conn_info *conn)
{
	unsigned int splice = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE;

	conn->want = (conn->want & ~splice) | (opts.no_splice ? 0 : conn->capable & splice);
	if (opts.max_write)
		conn->max_write = opts.max_write;
	if (opts.writeback)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	if (!opts.flock)
		conn->want &= ~(unsigned int)FUSE_CAP_FLOCK_LOCKS;
	/* Run as root we are exempt from what clears setuid bits: the driver has to do it. */
	conn->want &= ~(unsigned int)FUSE_CAP_HANDLE_KILLPRIV;
}

static void pt_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_entry(req, parent, name);
}

static void pt_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	node_put(ino, nlookup);
	fuse_reply_none(req);
}

static void pt_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_put(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void pt_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	if (fstatat(node_fd(ino), "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_attr(req, &st, opts.timeout);
}

static struct timespec time_to_set(const struct timespec *value, int to_set, int set, int set_now)
{
	struct timespec ts = { .tv_nsec = UTIME_OMIT };

	if (to_set & set_now)
		ts.tv_nsec = UTIME_NOW;
	else if (to_set & set)
		ts = *value;
	return ts;
}

static int change_attributes(struct node *n, const struct stat *st, int to_set, int file)
{
	char path[PROC_PATH_BYTES];

	proc_path(path, n->fd);
	if ((to_set & FUSE_SET_ATTR_MODE) &&
	    (file >= 0 ? fchmod(file, st->st_mode) : chmod(path, st->st_mode)) < 0)
		return -1;
	if ((to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) &&
	    fchownat(n->fd, "", to_set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1,
		     to_set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1,
		     AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	if ((to_set & FUSE_SET_ATTR_SIZE) &&
	    (file >= 0 ? ftruncate(file, st->st_size) : truncate(path, st->st_size)) < 0)
		return -1;
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) {
		struct timespec times[2] = {
			time_to_set(&st->st_atim, to_set, FUSE_SET_ATTR_ATIME,
				    FUSE_SET_ATTR_ATIME_NOW),
			time_to_set(&st->st_mtim, to_set, FUSE_SET_ATTR_MTIME,
				    FUSE_SET_ATTR_MTIME_NOW),
		};

		return utimensat(n->fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
	}
	return 0;
}

static void pt_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
		       struct fuse_file_info *fi)
{
	if (change_attributes(node_at(ino), st, to_set, fi ? (int)fi->fh : -1) < 0)
		fuse_reply_err(req, errno);
	else
		pt_getattr(req, ino, fi);
}

static void pt_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX + 1];
	ssize_t n = readlinkat(node_fd(ino), "", target, sizeof(target));

	if (n < 0 || n == sizeof(target)) {
		fuse_reply_err(req, n < 0 ? errno : ENAMETOOLONG);
		return;
	}
	target[n] = '\0';
	fuse_reply_readlink(req, target);
}

/* What we made as root belongs to who asked for it; in a setgid directory the group is inherited. */
static int give_to_caller(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct stat st;

	if (!opts.owns || (ctx->uid == 0 && ctx->gid == 0))
		return 0;
	if (fstatat(node_fd(parent), "", &st, AT_EMPTY_PATH) < 0)
		return -1;
	return fchownat(node_fd(parent), name, ctx->uid,
			st.st_mode & S_ISGID ? (gid_t)-1 : ctx->gid, AT_SYMLINK_NOFOLLOW);
}

static void reply_made(fuse_req_t req, fuse_ino_t parent, const char *name, int rc)
{
	if (rc < 0 || give_to_caller(req, parent, name) < 0)
		fuse_reply_err(req, errno);
	else
		reply_entry(req, parent, name);
}

static void pt_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	reply_made(req, parent, name, mknodat(node_fd(parent), name, mode, rdev));
}

static void pt_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	reply_made(req, parent, name, mkdirat(node_fd(parent), name, mode));
}

static void pt_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	reply_made(req, parent, name, symlinkat(target, node_fd(parent), name));
}

static void pt_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	char path[PROC_PATH_BYTES];

	if (linkat(AT_FDCWD, proc_path(path, node_fd(ino)), node_fd(parent), name,
		   AT_SYMLINK_FOLLOW) < 0)
		fuse_reply_err(req, errno);
	else
		reply_entry(req, parent, name);
}

static void pt_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_status(req, unlinkat(node_fd(parent), name, 0));
}

static void pt_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_status(req, unlinkat(node_fd(parent), name, AT_REMOVEDIR));
}

static void pt_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned int flags)
{
	reply_status(req, renameat2(node_fd(parent), name, node_fd(new_parent), new_name, flags));
}

/*
 * The driver's O_DIRECT is about its own cache, not about ours. With a write-back cache it also reads through
 * descriptors that are open for writing, and places what is appended.
 */
static int open_flags(int flags)
{
	flags &= ~(O_DIRECT | O_NOFOLLOW | O_CREAT | O_EXCL | O_NOCTTY);
	if (opts.writeback) {
		if ((flags & O_ACCMODE) == O_WRONLY)
			flags = (flags & ~O_ACCMODE) | O_RDWR;
		flags &= ~O_APPEND;
	}
	return flags | O_CLOEXEC;
}

static void set_cache(struct fuse_file_info *fi)
{
	fi->direct_io = opts.no_cache != 0;
	fi->keep_cache = opts.cache != 0;
}

static void pt_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	char path[PROC_PATH_BYTES];
	int fd = open(proc_path(path, node_fd(ino)), open_flags(fi->flags));

	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	set_cache(fi);
	if (fuse_reply_open(req, fi) < 0)
		close(fd);
}

static void pt_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	int flags = open_flags(fi->flags) | O_NOFOLLOW;
	int fd = openat(node_fd(parent), name, flags | O_CREAT | O_EXCL, mode);
	struct fuse_entry_param e;
	int rc = 0;

	if (fd >= 0)
		rc = give_to_caller(req, parent, name);
	else if (errno == EEXIST && !(fi->flags & O_EXCL))
		fd = openat(node_fd(parent), name, flags);
	if (fd < 0 || rc < 0 || entry_get(parent, name, &e) < 0) {
		fuse_reply_err(req, errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	fi->fh = (uint64_t)fd;
	set_cache(fi);
	if (fuse_reply_create(req, &e, fi) < 0) {
		close(fd);
		node_put(e.ino, 1);
	}
}

static void pt_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = (int)fi->fh;
	buf.buf[0].pos = off;
	fuse_reply_data(req, &buf, FUSE_BUF_SPLICE_MOVE);
}

static void pt_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
			 struct fuse_file_info *fi)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));
	ssize_t n;

	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = (int)fi->fh;
	out.buf[0].pos = off;
	n = fuse_buf_copy(&out, in, 0);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

/* close(2) reports what a network file system could not write; the descriptor itself stays. */
static void pt_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd = dup((int)fi->fh);

	reply_status(req, fd < 0 ? fd : close(fd));
}

static void pt_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void pt_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	reply_status(req, datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

/*
 * A request that waits keeps its thread, but can be interrupted: unlike in flock(2), the interrupt cannot come just
 * before the wait begins and be lost.
 */
static int flock_wait(fuse_req_t req, int fd, int op)
{
	struct timespec pause = { .tv_nsec = 100 * 1000 };

	while (flock(fd, op | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || (op & LOCK_NB))
			return errno;
		if (fuse_req_interrupted(req))
			return EINTR;
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 10 * 1000 * 1000)
			pause.tv_nsec *= 2;
	}
	return 0;
}

static void pt_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	fuse_reply_err(req, flock_wait(req, (int)fi->fh, op));
}

static void pt_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	reply_status(req, fallocate((int)fi->fh, mode, off, len));
}

static void pt_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			       struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			       struct fuse_file_info *fi_out, size_t len, int flags)
{
	ssize_t n = copy_file_range((int)fi_in->fh, &off_in, (int)fi_out->fh, &off_out, len,
				    (unsigned int)flags);

	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void pt_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	off_t at = lseek((int)fi->fh, off, whence);

	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

static void pt_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (fstatvfs(node_fd(ino), &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

static struct dir *dir_of(struct fuse_file_info *fi)
{
	return (struct dir *)(uintptr_t)fi->fh;
}

static void pt_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir *d = calloc(1, sizeof(*d));
	int err = ENOMEM;

	if (d) {
		pthread_mutex_init(&d->lock, NULL);
		d->fd = openat(node_fd(ino), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		err = d->fd < 0 ? errno : 0;
	}
	if (err) {
		free(d);
		fuse_reply_err(req, err);
		return;
	}
	fi->fh = (uint64_t)(uintptr_t)d;
	fi->cache_readdir = fi->keep_cache = opts.cache != 0;
	if (fuse_reply_open(req, fi) < 0) {
		close(d->fd);
		free(d);
	}
}

static void pt_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir *d = dir_of(fi);

	close(d->fd);
	pthread_mutex_destroy(&d->lock);
	free(d);
	fuse_reply_err(req, 0);
}

static void pt_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	int fd = dir_of(fi)->fd;

	reply_status(req, datasync ? fdatasync(fd) : fsync(fd));
}

/* The entry at d->at, reading on where that is needed. Return: 1; 0 at the end; -1 and errno. */
static int dir_peek(struct dir *d, const struct dirent64 **ret_entry)
{
	if (d->at >= d->len) {
		ssize_t n = getdents64(d->fd, d->buf, sizeof(d->buf));

		if (n <= 0)
			return (int)n;
		d->at = 0;
		d->len = (size_t)n;
	}
	*ret_entry = (const struct dirent64 *)(const void *)(d->buf + d->at);
	return 1;
}

/* Put an entry into the reply. Return: bytes; 0 when it does not fit; -1 and errno. */
static ssize_t dir_add(fuse_req_t req, fuse_ino_t ino, const struct dirent64 *entry, bool plus,
		       char *buf, size_t size)
{
	struct fuse_entry_param e = {
		.attr = { .st_ino = entry->d_ino, .st_mode = (mode_t)DTTOIF(entry->d_type) },
	};
	bool dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
	size_t n;

	if (!plus) {
		n = fuse_add_direntry(req, buf, size, entry->d_name, &e.attr, entry->d_off);
		return n <= size ? (ssize_t)n : 0;
	}
	/* How long it is does not depend on the attributes: look up only what fits. */
	if (fuse_add_direntry_plus(req, NULL, 0, entry->d_name, &e, entry->d_off) > size)
		return 0;
	if (!dots && entry_get(ino, entry->d_name, &e) < 0 && errno != ENOENT)
		return -1;
	return (ssize_t)fuse_add_direntry_plus(req, buf, size, entry->d_name, &e, entry->d_off);
}

/* Return: bytes, or -1 and errno. An error after the first entry is told by the next call. */
static ssize_t dir_fill(fuse_req_t req, fuse_ino_t ino, struct dir *d, bool plus, off_t off,
			char *buf, size_t size)
{
	const struct dirent64 *entry = NULL;
	size_t used = 0;
	ssize_t n = 0;

	if (off != d->off) {
		if (lseek(d->fd, off, SEEK_SET) < 0)
			return -1;
		d->at = d->len = 0;
		d->off = off;
	}
	while ((n = dir_peek(d, &entry)) > 0) {
		n = dir_add(req, ino, entry, plus, buf + used, size - used);
		if (n <= 0)
			break;
		used += (size_t)n;
		d->at += entry->d_reclen;
		d->off = entry->d_off;
	}
	return used || n == 0 ? (ssize_t)used : -1;
}

static void reply_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi, bool plus)
{
	struct dir *d = dir_of(fi);
	char *buf = malloc(size);
	ssize_t n = -1;
	int err = ENOMEM;

	if (buf) {
		pthread_mutex_lock(&d->lock);
		n = dir_fill(req, ino, d, plus, off, buf, size);
		err = errno;
		pthread_mutex_unlock(&d->lock);
	}
	if (n < 0)
		fuse_reply_err(req, err);
	else
		fuse_reply_buf(req, buf, (size_t)n);
	free(buf);
}

static void pt_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	reply_dir(req, ino, size, off, fi, false);
}

static void pt_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	reply_dir(req, ino, size, off, fi, true);
}

/* Attributes of a symbolic link or device cannot be reached through a descriptor: there are none of users there. */
static int xattr_path(char path[PROC_PATH_BYTES], fuse_ino_t ino)
{
	struct node *n = node_at(ino);

	if (n->type != S_IFREG && n->type != S_IFDIR)
		return EOPNOTSUPP;
	proc_path(path, n->fd);
	return 0;
}

static void pt_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	char path[PROC_PATH_BYTES];
	int err = xattr_path(path, ino);

	if (!err && setxattr(path, name, value, size, flags) < 0)
		err = errno;
	fuse_reply_err(req, err);
}

static void pt_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	char path[PROC_PATH_BYTES];
	int err = xattr_path(path, ino);

	if (!err && removexattr(path, name) < 0)
		err = errno;
	fuse_reply_err(req, err);
}

/* One attribute's value, or with @name NULL the list of names. */
static void reply_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char path[PROC_PATH_BYTES];
	int err = xattr_path(path, ino);
	size_t room = size < XATTR_MAX ? size : XATTR_MAX;
	char *value = room ? malloc(room) : NULL;
	ssize_t n = 0;

	if (!err && room && !value)
		err = ENOMEM;
	if (!err) {
		n = name ? getxattr(path, name, value, room) : listxattr(path, value, room);
		if (n < 0)
			err = errno;
	}
	if (err)
		fuse_reply_err(req, err);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, value, (size_t)n);
	free(value);
}

static void pt_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	reply_xattr(req, ino, name, size);
}

static void pt_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	reply_xattr(req, ino, NULL, size);
}

static const struct fuse_lowlevel_ops operations = {
	.init = pt_init,
	.lookup = pt_lookup,
	.forget = pt_forget,
	.forget_multi = pt_forget_multi,
	.getattr = pt_getattr,
	.setattr = pt_setattr,
	.readlink = pt_readlink,
	.mknod = pt_mknod,
	.mkdir = pt_mkdir,
	.symlink = pt_symlink,
	.link = pt_link,
	.unlink = pt_unlink,
	.rmdir = pt_rmdir,
	.rename = pt_rename,
	.open = pt_open,
	.create = pt_create,
	.read = pt_read,
	.write_buf = pt_write_buf,
	.flush = pt_flush,
	.release = pt_release,
	.fsync = pt_fsync,
	.flock = pt_flock,
	.fallocate = pt_fallocate,
	.copy_file_range = pt_copy_file_range,
	.lseek = pt_lseek,
	.statfs = pt_statfs,
	.opendir = pt_opendir,
	.readdir = pt_readdir,
	.readdirplus = pt_readdirplus,
	.releasedir = pt_releasedir,
	.fsyncdir = pt_fsyncdir,
	.setxattr = pt_setxattr,
	.getxattr = pt_getxattr,
	.listxattr = pt_listxattr,
	.removexattr = pt_removexattr,
};

#define OPTION(text, field)                                \
	{                                                  \
		text, offsetof(__typeof__(opts), field), 1 \
	}

static const struct fuse_opt options[] = {
	OPTION("--cache", cache),
	OPTION("--no-cache", no_cache),
	OPTION("--no-splice", no_splice),
	OPTION("--writeback", writeback),
	OPTION("--flock", flock),
	{ "--max-write=%u", offsetof(__typeof__(opts), max_write), 0 },
	{ "--timeout=%lf", offsetof(__typeof__(opts), timeout), 0 },
	FUSE_OPT_END,
};

static const char usage[] =
	"usage: passthrough [OPTION...] SOURCE MOUNTPOINT\n"
	"\n"
	"Shows the directory SOURCE at MOUNTPOINT.\n"
	"\n"
	"    --cache                what is cached stays: nobody else changes SOURCE\n"
	"    --no-cache             each read, write and lookup is a request\n"
	"    --timeout=SECONDS      how long names and attributes are cached (1)\n"
	"    --no-splice            copy data through our own memory\n"
	"    --max-write=BYTES      of a request; libfuse splices only what fits a pipe, which "
	"without privilege\n"
	"                           is /proc/sys/fs/pipe-max-size\n"
	"    --writeback            let the kernel collect writes\n"
	"    --flock                pass flock(2) on; each one that waits keeps a thread (-o "
	"max_threads)\n";

/* The first argument that is no option is ours, the second libfuse's. */
static int take_option(void *data, const char *arg, int key, struct fuse_args *out)
{
	if (key != FUSE_OPT_KEY_NONOPT || opts.source)
		return 1;
	opts.source = strdup(arg);
	return opts.source ? 0 : -1;
}

static int open_root(const char *source)
{
	int fd = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstatat(fd, "", &st, AT_EMPTY_PATH) < 0) {
		fprintf(stderr, "passthrough: cannot open the directory '%s': %s\n", source,
			strerror(errno));
		return -1;
	}
	if (!node_get(fd, &st)) {
		fprintf(stderr, "passthrough: %s\n", strerror(errno));
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct serve_options serve = { 0 };
	int status = 1;

	if (fuse_opt_parse(&args, &opts, options, take_option) < 0 ||
	    serve_parse(&args, usage, &serve) < 0) {
		status = 2;
		goto out;
	}
	if (serve.done) {
		status = 0;
		goto out;
	}
	if (!opts.source || (opts.cache && opts.no_cache)) {
		fprintf(stderr, "passthrough: %s; see passthrough --help\n",
			opts.source ? "--cache and --no-cache exclude each other"
				    : "give a directory and a mount point");
		status = 2;
		goto out;
	}
	if (opts.cache || opts.no_cache)
		opts.timeout = opts.cache ? CACHE_FOR_S : 0;
	opts.owns = geteuid() == 0;
	umask(0);
	serve_raise_file_limit();
	/* We act with our own rights: whether the caller may is the kernel's to check. */
	if (open_root(opts.source) == 0 &&
	    fuse_opt_add_arg(&args, "-odefault_permissions,fsname=passthrough") == 0)
		status = serve_run(&args, &operations, sizeof(operations), &serve);
out:
	serve_free(&serve);
	fuse_opt_free_args(&args);
	free(opts.source);
	return status;
}
