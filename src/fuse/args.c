/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of single opcodes: what a Linux kernel never puts into their arguments.
 *
 * Where a kernel leaves a bit out, it is left out here; where a number could do harm behind us, the request is refused.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/log.h"
#include "fuse/decode.h"
#include "fuse/swap.h"

/* Renames and allocation modes that a kernel passes to FUSE; spelled out for old C libraries. */
#define RENAME_FLAGS	  7u /* NOREPLACE, EXCHANGE, WHITEOUT */
#define RENAME_EXCHANGE_2 2u
#define FALLOC_FLAGS	  0x13u /* KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE */
#define IOCTL_FLAGS	  (FUSE_IOCTL_COMPAT | FUSE_IOCTL_32BIT | FUSE_IOCTL_DIR | FUSE_IOCTL_COMPAT_X32)
#define SETATTR_VALID_MAX (FATTR_KILL_SUIDGID | (FATTR_KILL_SUIDGID - 1))
#define TMPFILE_BIT	  ((unsigned int)O_TMPFILE & ~(unsigned int)O_DIRECTORY)

/* The argument structure, which is in native order, as a local copy that is written back. */
#define LOAD(d, arg)  memcpy(&(arg), (d)->arg, sizeof(arg))
#define STORE(d, arg) memcpy((d)->arg, &(arg), sizeof(arg))

static bool has_flag(const struct decode *d, uint64_t flag)
{
	return d->session->flags & flag;
}

static int limit_reply(struct decode *d, uint32_t size)
{
	if (size > d->req->reply_max)
		return -EINVAL;
	d->req->reply_max = size;
	d->req->args.size = size;
	return 0;
}

static int check_offset(uint64_t off, uint64_t len)
{
	return range_within(off, len, INT64_MAX) ? 0 : -EINVAL;
}

static uint32_t open_flags(const struct decode *d, uint32_t flags)
{
	return fuse_arch_open_flags(d->session->config.arch, flags);
}

_Static_assert(offsetof(struct fuse_statx_in, fh) == offsetof(struct fuse_getattr_in, fh),
	       "STATX begins as GETATTR does");

/* GETATTR, and STATX, which begins with the same fields. */
static int check_getattr(struct decode *d)
{
	struct fuse_getattr_in arg;

	LOAD(d, arg);
	arg.getattr_flags &= FUSE_GETATTR_FH;
	d->uses_fh = arg.getattr_flags;
	if (!d->uses_fh)
		arg.fh = 0;
	STORE(d, arg);
	return 0;
}

static bool bad_nsec(uint32_t valid, uint32_t set, uint32_t now, uint32_t nsec)
{
	return (valid & set) && !(valid & now) && nsec >= 1000000000u;
}

static int check_setattr(struct decode *d)
{
	struct fuse_setattr_in arg;

	LOAD(d, arg);
	if (arg.valid & ~SETATTR_VALID_MAX)
		return -EINVAL;
	if (!has_flag(d, FUSE_HANDLE_KILLPRIV_V2))
		arg.valid &= ~FATTR_KILL_SUIDGID;
	if ((arg.valid & FATTR_SIZE) && arg.size > INT64_MAX)
		return -EINVAL;
	if (bad_nsec(arg.valid, FATTR_ATIME, FATTR_ATIME_NOW, arg.atimensec) ||
	    bad_nsec(arg.valid, FATTR_MTIME, FATTR_MTIME_NOW, arg.mtimensec) ||
	    bad_nsec(arg.valid, FATTR_CTIME, 0, arg.ctimensec))
		return -EINVAL;
	d->uses_fh = arg.valid & FATTR_FH;
	if (!d->uses_fh)
		arg.fh = 0;
	STORE(d, arg);
	return 0;
}

static int check_symlink(struct decode *d)
{
	d->req->args.mode = S_IFLNK;
	return 0;
}

static int check_mknod(struct decode *d)
{
	struct fuse_mknod_in arg;

	LOAD(d, arg);
	switch (arg.mode & S_IFMT) {
	case 0:
		arg.mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return -EINVAL;
	}
	arg.umask &= 07777;
	arg.padding = 0;
	d->req->args.mode = arg.mode & S_IFMT;
	STORE(d, arg);
	return 0;
}

static int check_mkdir(struct decode *d)
{
	struct fuse_mkdir_in arg;

	LOAD(d, arg);
	if ((arg.mode & S_IFMT) && !S_ISDIR(arg.mode))
		return -EINVAL;
	arg.umask &= 07777;
	d->req->args.mode = S_IFDIR;
	STORE(d, arg);
	return 0;
}

static int check_rename2(struct decode *d)
{
	struct fuse_rename2_in arg;

	LOAD(d, arg);
	if (arg.flags & ~RENAME_FLAGS)
		return -EINVAL;
	if ((arg.flags & RENAME_EXCHANGE_2) && arg.flags != RENAME_EXCHANGE_2)
		return -EINVAL;
	return 0;
}

static int check_open(struct decode *d)
{
	struct fuse_open_in arg;

	LOAD(d, arg);
	arg.flags = open_flags(d, arg.flags);
	/* Creation is CREATE's and TMPFILE's; an O_PATH descriptor never reaches a file system. */
	arg.flags &= ~((uint32_t)(O_CREAT | O_EXCL | O_NOCTTY | O_PATH) | TMPFILE_BIT);
	if (!has_flag(d, FUSE_ATOMIC_O_TRUNC) || d->op->opcode == FUSE_OPENDIR)
		arg.flags &= ~(uint32_t)O_TRUNC;
	arg.open_flags &= has_flag(d, FUSE_HANDLE_KILLPRIV_V2) ? FUSE_OPEN_KILL_SUIDGID : 0;
	d->req->args.flags = arg.flags;
	STORE(d, arg);
	return 0;
}

static int check_create(struct decode *d)
{
	struct fuse_create_in arg;

	LOAD(d, arg);
	if ((arg.mode & S_IFMT) && !S_ISREG(arg.mode))
		return -EINVAL;
	arg.mode |= S_IFREG;
	arg.flags = open_flags(d, arg.flags);
	arg.flags &= ~(uint32_t)(O_NOCTTY | O_PATH);
	if (d->op->opcode == FUSE_CREATE)
		arg.flags &= ~TMPFILE_BIT;
	arg.umask &= 07777;
	arg.open_flags &= has_flag(d, FUSE_HANDLE_KILLPRIV_V2) ? FUSE_OPEN_KILL_SUIDGID : 0;
	d->req->args.flags = arg.flags;
	d->req->args.mode = S_IFREG;
	STORE(d, arg);
	return 0;
}

static int check_readlink(struct decode *d)
{
	/* There is no size in the request: the room that the driver left is the size. */
	d->req->reply_max = min_of(d->req->reply_max, (uint32_t)FUSE_TARGET_BYTES_MAX);
	return 0;
}

/* Racing threads may both say it. */
static void tell_page_size(struct fuse_session *session, uint32_t read_bytes)
{
	uint32_t page_bytes = session->config.page_bytes;

	if (READ_ONCE(session->told_page_size))
		return;
	WRITE_ONCE(session->told_page_size, true);
	while (page_bytes < FUSE_PAGE_BYTES_MAX && page_bytes * session->driver_pages < read_bytes)
		page_bytes *= 2;
	log_warn(
		"the guest reads %u KiB at once: its pages are larger than %u bytes; "
		"give --page-size %u, or large reads are slow or short",
		read_bytes >> 10, session->config.page_bytes, page_bytes);
}

static int check_read(struct decode *d)
{
	struct fuse_read_in arg;

	LOAD(d, arg);
	if (arg.size > d->session->read_max)
		return -EINVAL;
	/* A directory's offset is the daemon's own cookie, not a position. */
	if (d->op->opcode == FUSE_READ && check_offset(arg.offset, arg.size) < 0)
		return -EINVAL;
	if (arg.size > d->req->reply_max)
		return -EINVAL;
	if (arg.size > FUSE_READ_MAX)
		tell_page_size(d->session, arg.size);
	/* Somebody has set a larger read-ahead than we offer: a short reply would be taken for the file's end. */
	if (d->op->opcode == FUSE_READ && arg.size > FUSE_READ_MAX &&
	    !(arg.read_flags & FUSE_READ_LOCKOWNER))
		return -EIO;
	arg.size = min_of(arg.size, FUSE_READ_MAX);
	arg.flags = open_flags(d, arg.flags);
	arg.read_flags &= FUSE_READ_LOCKOWNER;
	STORE(d, arg);
	return limit_reply(d, arg.size);
}

static int check_write(struct decode *d)
{
	struct fuse_write_in arg;

	LOAD(d, arg);
	if (arg.size != d->req->payload_bytes || arg.size > d->session->max_write ||
	    check_offset(arg.offset, arg.size) < 0)
		return -EINVAL;
	arg.flags = open_flags(d, arg.flags);
	arg.write_flags &= FUSE_WRITE_CACHE | FUSE_WRITE_LOCKOWNER | FUSE_WRITE_KILL_SUIDGID;
	d->req->args.size = arg.size;
	STORE(d, arg);
	return 0;
}

static int check_release(struct decode *d)
{
	struct fuse_release_in arg;

	LOAD(d, arg);
	arg.flags = open_flags(d, arg.flags);
	arg.release_flags &= FUSE_RELEASE_FLUSH | FUSE_RELEASE_FLOCK_UNLOCK;
	STORE(d, arg);
	return 0;
}

static int check_flush(struct decode *d)
{
	struct fuse_flush_in arg;

	LOAD(d, arg);
	d->req->args.lock_owner = arg.lock_owner;
	return 0;
}

static int check_fsync(struct decode *d)
{
	struct fuse_fsync_in arg;

	LOAD(d, arg);
	arg.fsync_flags &= FUSE_FSYNC_FDATASYNC;
	STORE(d, arg);
	return 0;
}

static int check_setxattr(struct decode *d)
{
	struct fuse_setxattr_in arg = { 0 };

	memcpy(&arg, d->arg, d->arg_bytes);
	if (arg.size != d->req->payload_bytes || arg.size > FUSE_XATTR_BYTES_MAX)
		return -EINVAL;
	if (arg.flags & ~3u) /* XATTR_CREATE, XATTR_REPLACE */
		return -EINVAL;
	arg.setxattr_flags &= FUSE_SETXATTR_ACL_KILL_SGID;
	memcpy(d->arg, &arg, d->arg_bytes);
	return 0;
}

static int check_getxattr(struct decode *d)
{
	struct fuse_getxattr_in arg;
	int err;

	LOAD(d, arg);
	if (arg.size > FUSE_XATTR_BYTES_MAX)
		return -EINVAL;
	err = limit_reply(d, arg.size ? arg.size : d->op->reply_bytes);
	d->req->args.size = arg.size;
	return err;
}

static int check_lock(struct decode *d)
{
	struct fuse_lk_in arg;
	uint32_t type;

	LOAD(d, arg);
	if (fuse_arch_lock_type(d->session->config.arch, arg.lk.type, &type) < 0)
		return -EINVAL;
	if (arg.lk.start > arg.lk.end || arg.lk.end > INT64_MAX)
		return -EINVAL;
	arg.lk.type = type;
	arg.lk_flags &= FUSE_LK_FLOCK;
	d->req->args.lock_owner = arg.owner;
	if (d->op->opcode != FUSE_GETLK) {
		const bool whole = !arg.lk.start && arg.lk.end == INT64_MAX;

		if (arg.lk_flags)
			d->req->args.lock =
				1 + (type == F_UNLCK ? LEDGER_FLOCK_UNLOCKED : LEDGER_FLOCKED);
		else if (type != F_UNLCK)
			d->req->args.lock = 1 + LEDGER_POSIX_LOCKED;
		else if (whole)
			d->req->args.lock = 1 + LEDGER_POSIX_UNLOCKED;
	}
	STORE(d, arg);
	return 0;
}

static int check_access(struct decode *d)
{
	struct fuse_access_in arg;

	LOAD(d, arg);
	return arg.mask & ~7u ? -EINVAL : 0;
}

static int check_bmap(struct decode *d)
{
	struct fuse_bmap_in arg;

	LOAD(d, arg);
	return is_power_of_two(arg.blocksize) ? 0 : -EINVAL;
}

static int check_ioctl(struct decode *d)
{
	struct fuse_ioctl_in arg;

	LOAD(d, arg);
	/* Unrestricted ioctls, which make the daemon name memory of the caller, are CUSE's only. */
	if (arg.flags & ~IOCTL_FLAGS)
		return -EINVAL;
	if (arg.in_size != d->req->payload_bytes || arg.in_size > FUSE_IOCTL_BYTES_MAX ||
	    arg.out_size > FUSE_IOCTL_BYTES_MAX)
		return -EINVAL;
	d->dir_fh = arg.flags & FUSE_IOCTL_DIR;
	if (d->dir_fh && !has_flag(d, FUSE_HAS_IOCTL_DIR))
		return -ENOTTY;
	return limit_reply(d, arg.out_size + (uint32_t)sizeof(struct fuse_ioctl_out));
}

static int check_poll(struct decode *d)
{
	struct fuse_poll_in arg;

	LOAD(d, arg);
	arg.flags &= FUSE_POLL_SCHEDULE_NOTIFY;
	if (!d->session->notify) {
		/* No wake-up reaches the driver: the daemon need not remember who waits. The reply's check does. */
		d->req->args.flags = arg.flags;
		d->req->args.size = arg.events;
		arg.flags = 0;
	}
	STORE(d, arg);
	return 0;
}

static int check_notify_reply(struct decode *d)
{
	struct fuse_notify_retrieve_in arg;
	struct fuse_notify_retrieve_out asked;
	int err;

	LOAD(d, arg);
	if (arg.size != d->req->payload_bytes)
		return -EINVAL;
	if (!d->session->notify)
		return -ENOSYS;
	err = fuse_retrieve_answer(d->session, d->req->driver_unique, arg.size, &asked);
	if (err < 0)
		return err;
	d->req->hdr.nodeid = asked.nodeid;
	d->answers = asked.notify_unique;
	return 0;
}

static int check_fallocate(struct decode *d)
{
	struct fuse_fallocate_in arg;

	LOAD(d, arg);
	if (arg.mode & ~FALLOC_FLAGS)
		return -EOPNOTSUPP;
	return arg.length ? check_offset(arg.offset, arg.length) : -EINVAL;
}

static int check_lseek(struct decode *d)
{
	struct fuse_lseek_in arg;

	LOAD(d, arg);
	return arg.whence <= SEEK_HOLE ? 0 : -EINVAL;
}

static int check_copy(struct decode *d)
{
	struct fuse_copy_file_range_in arg;

	LOAD(d, arg);
	if (arg.flags || check_offset(arg.off_in, arg.len) < 0 ||
	    check_offset(arg.off_out, arg.len) < 0)
		return -EINVAL;
	/* The reply's count has 32 bits here. */
	if (d->op->opcode == FUSE_COPY_FILE_RANGE)
		arg.len = min_of(arg.len, (uint64_t)UINT32_MAX & ~UINT64_C(4095));
	d->req->args.len = arg.len;
	STORE(d, arg);
	return 0;
}

static int check_removemapping(struct decode *d)
{
	struct fuse_removemapping_in arg;

	LOAD(d, arg);
	return (uint64_t)arg.count * sizeof(struct fuse_removemapping_one) == d->end - d->pos
		       ? 0
		       : -EINVAL;
}

static int (*const checks[FUSE_OPCODES_END])(struct decode *d) = {
	[FUSE_GETATTR] = check_getattr,
	[FUSE_SETATTR] = check_setattr,
	[FUSE_READLINK] = check_readlink,
	[FUSE_SYMLINK] = check_symlink,
	[FUSE_MKNOD] = check_mknod,
	[FUSE_MKDIR] = check_mkdir,
	[FUSE_OPEN] = check_open,
	[FUSE_READ] = check_read,
	[FUSE_WRITE] = check_write,
	[FUSE_RELEASE] = check_release,
	[FUSE_FSYNC] = check_fsync,
	[FUSE_SETXATTR] = check_setxattr,
	[FUSE_GETXATTR] = check_getxattr,
	[FUSE_LISTXATTR] = check_getxattr,
	[FUSE_FLUSH] = check_flush,
	[FUSE_OPENDIR] = check_open,
	[FUSE_READDIR] = check_read,
	[FUSE_RELEASEDIR] = check_release,
	[FUSE_FSYNCDIR] = check_fsync,
	[FUSE_GETLK] = check_lock,
	[FUSE_SETLK] = check_lock,
	[FUSE_SETLKW] = check_lock,
	[FUSE_ACCESS] = check_access,
	[FUSE_CREATE] = check_create,
	[FUSE_BMAP] = check_bmap,
	[FUSE_IOCTL] = check_ioctl,
	[FUSE_POLL] = check_poll,
	[FUSE_NOTIFY_REPLY] = check_notify_reply,
	[FUSE_FALLOCATE] = check_fallocate,
	[FUSE_READDIRPLUS] = check_read,
	[FUSE_RENAME2] = check_rename2,
	[FUSE_LSEEK] = check_lseek,
	[FUSE_COPY_FILE_RANGE] = check_copy,
	[FUSE_REMOVEMAPPING] = check_removemapping,
	[FUSE_TMPFILE] = check_create,
	[FUSE_STATX] = check_getattr,
	[FUSE_COPY_FILE_RANGE_64] = check_copy,
};

int decode_check_args(struct decode *d)
{
	/* A structure that is the whole reply is all the room that the reply needs. */
	if (d->op->reply == FUSE_REPLY_FIXED)
		d->req->reply_max = d->op->reply_bytes;
	return checks[d->op->opcode] ? checks[d->op->opcode](d) : 0;
}
