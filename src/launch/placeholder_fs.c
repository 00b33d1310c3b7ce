/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file system of a placeholder: a root, and a file that one library looks for.
 *
 * It holds nothing. Who looks at the mount point from the daemon's namespace gets the answers that matter: it is there,
 * its root is inode 1, and the file that go-fuse polls to find out whether the kernel supports poll can be opened.
 */
#include "launch/placeholder_fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* No newer than what every kernel that can intercept calls (5.14) knows. */
#define PLACEHOLDER_MINOR     34
#define PLACEHOLDER_POLL_NODE 2
/* The kernel's shortest; nobody writes here. */
#define PLACEHOLDER_MAX_WRITE 4096

static void reply(const struct placeholder_fs *fs, const struct fuse_in_header *in, int error,
		  const void *body, size_t len)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len),
		.error = error,
		.unique = in->unique,
	};
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };

	/* Who asked may be gone (ENOENT), and so may the mount: nobody is left to tell. */
	if (writev(fs->fd, iov, len ? 2 : 1) < 0)
		return;
}

static struct fuse_attr attr_of(const struct placeholder_fs *fs, uint64_t node)
{
	struct fuse_attr a = {
		.ino = node,
		.nlink = 1,
		.uid = fs->uid,
		.gid = fs->gid,
		.blksize = 4096,
	};

	if (node == PLACEHOLDER_POLL_NODE)
		a.mode = S_IFREG | 0644;
	else
		a.mode = fs->rootmode | (S_ISDIR(fs->rootmode) ? 0755 : 0644);
	return a;
}

static void reply_lookup(const struct placeholder_fs *fs, const struct fuse_in_header *in,
			 const char *name, size_t len)
{
	struct fuse_entry_out entry = {
		.nodeid = PLACEHOLDER_POLL_NODE,
		.attr = attr_of(fs, PLACEHOLDER_POLL_NODE),
	};

	if (len == sizeof(PLACEHOLDER_POLLED) && !memcmp(name, PLACEHOLDER_POLLED, len))
		reply(fs, in, 0, &entry, sizeof(entry));
	else
		reply(fs, in, -ENOENT, NULL, 0);
}

static void reply_statfs(const struct placeholder_fs *fs, const struct fuse_in_header *in)
{
	struct fuse_statfs_out out = { .st = { .bsize = 4096, .frsize = 4096, .namelen = 255 } };

	reply(fs, in, 0, &out, sizeof(out));
}

static void reply_init(const struct placeholder_fs *fs, const struct fuse_in_header *in)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = PLACEHOLDER_MINOR,
		.max_write = PLACEHOLDER_MAX_WRITE,
	};

	reply(fs, in, 0, &out, sizeof(out));
}

static void answer(const struct placeholder_fs *fs, const struct fuse_in_header *in,
		   const char *args, size_t len)
{
	struct fuse_attr_out attr = { .attr = attr_of(fs, in->nodeid) };
	struct fuse_open_out open = { .fh = 0 };

	switch (in->opcode) {
	case FUSE_INIT:
		reply_init(fs, in);
		break;
	case FUSE_LOOKUP:
		reply_lookup(fs, in, args, len);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR: /* An open with O_TRUNC makes it empty, which it is. */
		reply(fs, in, 0, &attr, sizeof(attr));
		break;
	case FUSE_STATFS:
		reply_statfs(fs, in);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		reply(fs, in, 0, &open, sizeof(open));
		break;
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_ACCESS:
	case FUSE_SYNCFS:
	case FUSE_DESTROY:
		reply(fs, in, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(fs, in, -ENOSYS, NULL, 0);
	}
}

int placeholder_fs_serve(const struct placeholder_fs *fs, char *buf)
{
	struct fuse_in_header in;
	ssize_t n = read(fs->fd, buf, PLACEHOLDER_BUFFER);

	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT))
		return -EAGAIN;
	if (n < (ssize_t)sizeof(in))
		return -ENODEV;
	memcpy(&in, buf, sizeof(in));
	answer(fs, &in, buf + sizeof(in), (size_t)n - sizeof(in));
	return 0;
}
