/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of opcodes that work on open files.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/ops_impl.h"

#define BLOCK	    4096u
#define GAP_AT	    100000u
#define OTHER_OWNER UINT64_C(0x1234567)
/* An ioctl that no file system has: type and number are nobody's. */
#define NO_IOCTL 0x0000ee01u

enum check_status op_open(struct check *c, struct check_fs *fs)
{
	uint64_t nodeid, fh;
	enum check_status status;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &fh, &status))
		return status;
	err = fs_open(fs->peer, FUSE_OPEN, nodeid, O_RDONLY, &fh);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASE, nodeid, fh, O_RDONLY);
	return err < 0 ? check_error(c, fs->peer, err, "for reading") : check_holds(c);
}

static enum check_status made_and_open(struct check *c, struct check_fs *fs, uint64_t nodeid,
				       uint64_t fh, const char *what)
{
	static const char text[] = "made";
	int err = fs_write(fs->peer, nodeid, fh, 0, text, sizeof(text));

	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASE, nodeid, fh, O_RDWR);
	return err < 0 ? check_error(c, fs->peer, err, what) : check_holds(c);
}

enum check_status op_create(struct check *c, struct check_fs *fs)
{
	uint64_t nodeid = 0, fh = 0;
	char name[OP_NAME_BYTES];
	enum check_status status;
	int err;

	op_new_name(fs, name);
	err = fs_create(fs->peer, op_place(fs), name, &nodeid, &fh);
	if (err < 0)
		return check_error(c, fs->peer, err, "CREATE");
	status = made_and_open(c, fs, nodeid, fh, "WRITE to it");
	if (status != CHECK_HOLDS)
		return status;
	/* A kernel removes a name only while it knows the node. */
	err = fs_remove(fs->peer, FUSE_UNLINK, op_place(fs), name);
	if (err == 0)
		err = peer_forget(fs->peer, nodeid, 1);
	return err < 0 ? check_error(c, fs->peer, err, "UNLINK behind it") : check_holds(c);
}

enum check_status op_tmpfile(struct check *c, struct check_fs *fs)
{
	uint64_t nodeid = 0, fh = 0;
	int err = fs_tmpfile(fs->peer, op_place(fs), &nodeid, &fh);

	if (err == -EINVAL || err == -EISDIR)
		return check_end(c, CHECK_NOT_OFFERED, "TMPFILE: %s", strerror(-err));
	if (err < 0)
		return check_error(c, fs->peer, err, "TMPFILE");
	return made_and_open(c, fs, nodeid, fh, "WRITE to it");
}

/* A file that is not ours: two reads of the same bytes are the same, and behind its end there are none. */
static enum check_status read_other(struct check *c, struct check_fs *fs)
{
	uint32_t size = (uint32_t)min_of(fs->reader_size, (uint64_t)BLOCK);
	uint8_t first[BLOCK];
	struct ask ask;
	int err = fs_read(fs->peer, fs->reader, fs->reader_fh, 0, BLOCK, &ask);

	if (err < 0)
		return check_error(c, fs->peer, err, "READ");
	if (ask.got < size)
		return check_fails(c, "%u bytes of %u", ask.got, size);
	memcpy(first, ask.body, ask.got);
	err = fs_read(fs->peer, fs->reader, fs->reader_fh, 0, BLOCK, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "READ");
	if (ask.got < size || memcmp(first, ask.body, size) != 0)
		return check_fails(c, "other bytes the second time");
	err = fs_read(fs->peer, fs->reader, fs->reader_fh, fs->reader_size, BLOCK, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "READ at the end of file");
	return ask.got ? check_fails(c, "%u bytes behind the end of file", ask.got)
		       : check_holds(c);
}

enum check_status op_read(struct check *c, struct check_fs *fs)
{
	char name[OP_NAME_BYTES];
	uint64_t nodeid = 0, fh = 0;
	struct ask ask;
	int err;

	if (!fs->scratch_made)
		return fs->reader ? read_other(c, fs)
				  : check_end(c, CHECK_NOT_CHECKED, "no regular file in the root");
	err = op_make_file(fs, name, 5000, &nodeid);
	if (err == 0)
		err = fs_open(fs->peer, FUSE_OPEN, nodeid, O_RDONLY, &fh);
	if (err == 0)
		err = fs_read(fs->peer, nodeid, fh, BLOCK, BLOCK, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "READ");
	if (ask.got != 5000 - BLOCK)
		return check_fails(c, "%u bytes instead of the last %u", ask.got, 5000 - BLOCK);
	for (uint32_t i = 0; i < ask.got; i++) {
		if (((const uint8_t *)ask.body)[i] != op_pattern(BLOCK + i))
			return check_fails(c, "another byte at %u", BLOCK + i);
	}
	err = fs_read(fs->peer, nodeid, fh, 1u << 20, BLOCK, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "READ behind the end of file");
	if (ask.got)
		return check_fails(c, "%u bytes behind the end of file", ask.got);
	err = fs_release(fs->peer, FUSE_RELEASE, nodeid, fh, O_RDONLY);
	if (err == 0)
		err = fs_remove(fs->peer, FUSE_UNLINK, fs->scratch, name);
	return err < 0 ? check_error(c, fs->peer, err, "UNLINK behind it") : check_holds(c);
}

/* A file that the user named: its first bytes are changed, and put back. */
static enum check_status write_borrowed(struct check *c, struct check_fs *fs)
{
	uint8_t before[BLOCK], data[BLOCK];
	uint32_t size;
	struct ask ask;
	bool same = false;
	int err = fs_read(fs->peer, fs->file, fs->file_fh, 0, BLOCK, &ask), back;

	if (err < 0)
		return check_error(c, fs->peer, err, "READ before it");
	size = ask.got;
	if (!size)
		return check_end(c, CHECK_NOT_CHECKED, "the file is empty");
	memcpy(before, ask.body, size);
	for (uint32_t i = 0; i < size; i++)
		data[i] = (uint8_t)~before[i];
	err = fs_write(fs->peer, fs->file, fs->file_fh, 0, data, size);
	if (err == 0)
		err = fs_read(fs->peer, fs->file, fs->file_fh, 0, size, &ask);
	if (err == 0)
		same = ask.got == size && memcmp(ask.body, data, size) == 0;
	back = fs_write(fs->peer, fs->file, fs->file_fh, 0, before, size);
	err = err ? err : back;
	if (err < 0)
		return check_error(c, fs->peer, err, "WRITE");
	return same ? check_holds(c) : check_fails(c, "other bytes were read back");
}

enum check_status op_write(struct check *c, struct check_fs *fs)
{
	uint8_t data[2 * BLOCK];
	enum check_status status;
	struct ask ask;
	int err;

	if (!op_write_handle(c, fs, &status))
		return status;
	if (fs->file_borrowed)
		return write_borrowed(c, fs);
	for (uint32_t i = 0; i < sizeof(data); i++)
		data[i] = op_pattern(GAP_AT + i);
	err = fs_write(fs->peer, fs->file, fs->file_fh, GAP_AT, data, sizeof(data));
	if (err == 0)
		err = fs_read(fs->peer, fs->file, fs->file_fh, GAP_AT - BLOCK, 3 * BLOCK, &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "WRITE");
	if (ask.got != 3 * BLOCK)
		return check_fails(c, "%u bytes read back of %u", ask.got, 3 * BLOCK);
	for (uint32_t i = 0; i < BLOCK; i++) {
		if (((const uint8_t *)ask.body)[i])
			return check_fails(c, "a gap does not read as zeros");
	}
	if (memcmp((const uint8_t *)ask.body + BLOCK, data, sizeof(data)) != 0)
		return check_fails(c, "other bytes were read back");
	return check_holds(c);
}

enum check_status op_release(struct check *c, struct check_fs *fs)
{
	uint64_t nodeid, fh, one = 0, two = 0;
	enum check_status status;
	struct ask ask;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &fh, &status))
		return status;
	err = fs_open(fs->peer, FUSE_OPEN, nodeid, O_RDONLY, &one);
	if (err == 0)
		err = fs_open(fs->peer, FUSE_OPEN, nodeid, O_RDONLY, &two);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASE, nodeid, one, O_RDONLY);
	if (err == 0)
		err = fs_read(fs->peer, nodeid, two, 0, BLOCK, &ask);
	if (err == 0)
		err = fs_release(fs->peer, FUSE_RELEASE, nodeid, two, O_RDONLY);
	return err < 0 ? check_error(c, fs->peer, err, "one of two handles") : check_holds(c);
}

/* An opcode that only has to be answered well, on any handle. */
static enum check_status on_handle(struct check *c, struct check_fs *fs, uint32_t opcode,
				   void *args, uint32_t bytes, uint32_t in_bytes,
				   struct ask *ret_ask)
{
	enum check_status status;
	uint64_t nodeid, fh;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &fh, &status))
		return status;
	/* In all of these structures the handle comes first. */
	memcpy(args, &fh, sizeof(fh));
	*ret_ask = (struct ask){ .opcode = opcode,
				 .nodeid = nodeid,
				 .args = args,
				 .args_bytes = bytes,
				 .in_bytes = in_bytes,
				 .exact = true };
	err = fs_ask(fs->peer, ret_ask);
	return err < 0 ? check_error(c, fs->peer, err, "its request") : CHECK_HOLDS;
}

enum check_status op_fsync(struct check *c, struct check_fs *fs)
{
	struct fuse_fsync_in in = {};
	struct ask ask;

	return on_handle(c, fs, FUSE_FSYNC, &in, sizeof(in), 0, &ask);
}

enum check_status op_flush(struct check *c, struct check_fs *fs)
{
	struct fuse_flush_in in = { .lock_owner = OTHER_OWNER };
	struct ask ask;

	return on_handle(c, fs, FUSE_FLUSH, &in, sizeof(in), 0, &ask);
}

static bool has_locks(struct check *c, struct check_fs *fs, enum check_status *ret_status)
{
	if (!(fs->peer->flags & FUSE_POSIX_LOCKS)) {
		*ret_status = check_end(c, CHECK_NOT_OFFERED, "POSIX_LOCKS not in its INIT flags");
		return false;
	}
	return op_write_handle(c, fs, ret_status);
}

static int lock(struct check_fs *fs, uint32_t opcode, uint64_t owner, uint32_t type,
		struct fuse_file_lock *ret_lock)
{
	const struct fuse_lk_in in = { .fh = fs->file_fh,
				       .owner = owner,
				       .lk = { .start = 0, .end = 99, .type = type, .pid = 1 } };
	struct ask ask = { .opcode = opcode,
			   .nodeid = fs->file,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = opcode == FUSE_GETLK ? sizeof(struct fuse_lk_out) : 0,
			   .exact = true };
	int err = fs_ask(fs->peer, &ask);

	if (err == 0 && opcode == FUSE_GETLK)
		memcpy(ret_lock, ask.body, sizeof(*ret_lock));
	return err;
}

enum check_status op_getlk(struct check *c, struct check_fs *fs)
{
	struct fuse_file_lock found = {};
	enum check_status status;
	int err;

	if (!has_locks(c, fs, &status))
		return status;
	err = lock(fs, FUSE_SETLK, OTHER_OWNER, F_WRLCK, NULL);
	if (err == 0)
		err = lock(fs, FUSE_GETLK, OTHER_OWNER + 1, F_WRLCK, &found);
	if (err == 0)
		err = lock(fs, FUSE_SETLK, OTHER_OWNER, F_UNLCK, NULL);
	if (err < 0)
		return check_error(c, fs->peer, err, "GETLK");
	if (found.type != F_WRLCK)
		return check_fails(c, "a conflicting lock has type %u", found.type);
	return check_holds(c);
}

enum check_status op_setlk(struct check *c, struct check_fs *fs)
{
	enum check_status status;
	int err, other;

	if (!has_locks(c, fs, &status))
		return status;
	err = lock(fs, FUSE_SETLK, OTHER_OWNER, F_WRLCK, NULL);
	if (err < 0)
		return check_error(c, fs->peer, err, "SETLK");
	other = lock(fs, FUSE_SETLK, OTHER_OWNER + 1, F_WRLCK, NULL);
	err = lock(fs, FUSE_SETLK, OTHER_OWNER, F_UNLCK, NULL);
	if (err < 0)
		return check_error(c, fs->peer, err, "F_UNLCK");
	if (other != -EAGAIN && other != -EACCES)
		return check_fails(c, "a conflicting lock: %s",
				   other ? strerror(-other) : "taken as well");
	return check_holds(c);
}

enum check_status op_setlkw(struct check *c, struct check_fs *fs)
{
	enum check_status status;
	int err;

	if (!has_locks(c, fs, &status))
		return status;
	err = lock(fs, FUSE_SETLKW, OTHER_OWNER, F_WRLCK, NULL);
	if (err == 0)
		err = lock(fs, FUSE_SETLK, OTHER_OWNER, F_UNLCK, NULL);
	return err < 0 ? check_error(c, fs->peer, err, "SETLKW") : check_holds(c);
}

enum check_status op_bmap(struct check *c, struct check_fs *fs)
{
	const struct fuse_bmap_in in = { .blocksize = BLOCK };
	uint64_t nodeid, fh;
	enum check_status status;
	struct ask ask;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &fh, &status))
		return status;
	ask = (struct ask){ .opcode = FUSE_BMAP,
			    .nodeid = nodeid,
			    .args = &in,
			    .args_bytes = sizeof(in),
			    .in_bytes = sizeof(struct fuse_bmap_out),
			    .exact = true };
	err = fs_ask(fs->peer, &ask);
	return err < 0 ? check_error(c, fs->peer, err, "of block 0") : check_holds(c);
}

enum check_status op_ioctl(struct check *c, struct check_fs *fs)
{
	struct fuse_ioctl_in in = { .cmd = NO_IOCTL };
	uint64_t nodeid;
	struct fuse_ioctl_out out = {};
	enum check_status status;
	struct ask ask;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &in.fh, &status))
		return status;
	ask = (struct ask){ .opcode = FUSE_IOCTL,
			    .nodeid = nodeid,
			    .args = &in,
			    .args_bytes = sizeof(in),
			    .in_bytes = sizeof(struct fuse_ioctl_out) };
	err = fs_ask(fs->peer, &ask);
	/* An error of the ioctl itself may be in the reply's structure. */
	if (err == 0)
		memcpy(&out, ask.body, min_of((size_t)ask.got, sizeof(out)));
	if (err == -ENOTTY || err == -EINVAL || out.result < 0)
		return check_holds(c);
	return err < 0 ? check_error(c, fs->peer, err, "its request")
		       : check_fails(c, "it succeeded");
}

enum check_status op_poll(struct check *c, struct check_fs *fs)
{
	struct fuse_poll_in in = { .events = POLLIN };
	struct ask ask;

	return on_handle(c, fs, FUSE_POLL, &in, sizeof(in), sizeof(struct fuse_poll_out), &ask);
}

enum check_status op_fallocate(struct check *c, struct check_fs *fs)
{
	struct fuse_fallocate_in in = { .fh = fs->file_fh, .length = 300000 };
	struct ask ask = {
		.opcode = FUSE_FALLOCATE, .nodeid = fs->file, .args = &in, .args_bytes = sizeof(in)
	};
	enum check_status status;
	struct fuse_attr attr;
	int err;

	if (!op_write_handle(c, fs, &status))
		return status;
	/* Somebody else's file keeps its length: what it has already is asked for. */
	in.length = fs->file_borrowed ? 1 : in.length;
	err = fs_ask(fs->peer, &ask);
	if (err == -EINVAL)
		return check_end(c, CHECK_NOT_OFFERED, "FALLOCATE: %s", strerror(-err));
	if (err == 0)
		err = fs_getattr(fs->peer, fs->file, &attr);
	if (err < 0)
		return check_error(c, fs->peer, err, "FALLOCATE");
	return attr.size < in.length
		       ? check_fails(c, "the file has %llu bytes", (unsigned long long)attr.size)
		       : check_holds(c);
}

enum check_status op_lseek(struct check *c, struct check_fs *fs)
{
	struct fuse_lseek_in in = { .whence = SEEK_HOLE };
	enum check_status status;
	struct fuse_attr attr;
	uint64_t offset, nodeid;
	struct ask ask;
	int err;

	if (!op_any_handle(c, fs, &nodeid, &in.fh, &status))
		return status;
	err = fs_getattr(fs->peer, nodeid, &attr);
	if (err < 0)
		return check_error(c, fs->peer, err, "GETATTR before it");
	ask = (struct ask){ .opcode = FUSE_LSEEK,
			    .nodeid = nodeid,
			    .args = &in,
			    .args_bytes = sizeof(in),
			    .in_bytes = sizeof(struct fuse_lseek_out),
			    .exact = true };
	err = fs_ask(fs->peer, &ask);
	/* In an empty file every offset is behind the end (lseek(2)). */
	if (err == -ENXIO && !attr.size)
		return check_holds(c);
	if (err == -EINVAL)
		return check_end(c, CHECK_NOT_OFFERED, "SEEK_HOLE: %s", strerror(-err));
	if (err < 0)
		return check_error(c, fs->peer, err, "SEEK_HOLE");
	memcpy(&offset, ask.body, sizeof(offset));
	if (offset > attr.size)
		return check_fails(c, "a hole at %llu in %llu bytes", (unsigned long long)offset,
				   (unsigned long long)attr.size);
	return check_holds(c);
}

static enum check_status copy_range(struct check *c, struct check_fs *fs, uint32_t opcode)
{
	const struct fuse_copy_file_range_in in = { .fh_in = fs->file_fh,
						    .nodeid_out = fs->file,
						    .fh_out = fs->file_fh,
						    .off_out = 2 * BLOCK,
						    .len = 100 };
	struct ask ask = { .opcode = opcode,
			   .nodeid = fs->file,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_write_out),
			   .exact = true };
	uint8_t data[100];
	enum check_status status;
	int err;

	static_assert(sizeof(struct fuse_write_out) == sizeof(struct fuse_copy_file_range_out),
		      "both replies are 8 bytes");
	if (!op_write_handle(c, fs, &status))
		return status;
	if (fs->file_borrowed)
		return check_end(c, CHECK_NOT_CHECKED, "the file is not ours");
	memset(data, 0x33, sizeof(data));
	err = fs_write(fs->peer, fs->file, fs->file_fh, 0, data, sizeof(data));
	if (err < 0)
		return check_error(c, fs->peer, err, "WRITE before it");
	err = fs_ask(fs->peer, &ask);
	if (err == -EINVAL || err == -EXDEV)
		return check_end(c, CHECK_NOT_OFFERED, "its request: %s", strerror(-err));
	if (err == 0)
		err = fs_read(fs->peer, fs->file, fs->file_fh, 2 * BLOCK, sizeof(data), &ask);
	if (err < 0)
		return check_error(c, fs->peer, err, "its request");
	if (ask.got != sizeof(data) || memcmp(ask.body, data, sizeof(data)) != 0)
		return check_fails(c, "other bytes are there");
	return check_holds(c);
}

enum check_status op_copy_file_range(struct check *c, struct check_fs *fs)
{
	return copy_range(c, fs, FUSE_COPY_FILE_RANGE);
}

enum check_status op_copy_file_range_64(struct check *c, struct check_fs *fs)
{
	return copy_range(c, fs, FUSE_COPY_FILE_RANGE_64);
}

enum check_status op_syncfs(struct check *c, struct check_fs *fs)
{
	const struct fuse_syncfs_in in = {};
	struct ask ask = {
		.opcode = FUSE_SYNCFS, .nodeid = FUSE_ROOT_ID, .args = &in, .args_bytes = sizeof(in)
	};
	int err = fs_ask(fs->peer, &ask);

	return err < 0 ? check_error(c, fs->peer, err, "its request") : check_holds(c);
}
