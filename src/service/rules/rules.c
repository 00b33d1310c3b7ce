/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a kernel would do on behalf of any daemon: see rules.h.
 */
#include "service/rules/rules.h"

#include <fcntl.h>
#include <string.h>

/* Return: false when the message is too short for @bytes of arguments. */
static bool load_args(const struct request *req, void *arg, size_t bytes)
{
	size_t len;
	const char *msg = request_message(req, &len);

	if (len < sizeof(struct fuse_in_header) + bytes)
		return false;
	memcpy(arg, msg + sizeof(struct fuse_in_header), bytes);
	return true;
}

static bool open_changes(const struct request *req)
{
	struct fuse_open_in arg;

	if (!load_args(req, &arg, sizeof(arg)))
		return true;
	return (arg.flags & O_ACCMODE) != O_RDONLY || (arg.flags & O_TRUNC);
}

/* What the VFS refuses on a read-only mount before it asks the file system. */
bool rules_changes(const struct request *req)
{
	switch (request_header(req)->opcode) {
	case FUSE_SETATTR:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_WRITE:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
	case FUSE_COPY_FILE_RANGE_64:
		return true;
	case FUSE_OPEN:
		return open_changes(req);
	default:
		return false;
	}
}

size_t rules_forget_message(const struct request *req, uint32_t done, void *buf, size_t cap,
			    uint32_t *ret_nr)
{
	struct {
		struct fuse_in_header in;
		struct fuse_batch_forget_in batch;
	} head;
	size_t len, bytes;
	const char *msg = request_message(req, &len);
	uint32_t nr;

	if (len < sizeof(head) || cap < sizeof(head) + sizeof(struct fuse_forget_one))
		return 0;
	memcpy(&head, msg, sizeof(head));
	nr = (uint32_t)min_of((size_t)head.batch.count,
			      (len - sizeof(head)) / sizeof(struct fuse_forget_one));
	if (done >= nr)
		return 0;
	nr = min_of(nr - done, (uint32_t)((cap - sizeof(head)) / sizeof(struct fuse_forget_one)));
	bytes = nr * sizeof(struct fuse_forget_one);
	head.in.len = (uint32_t)(sizeof(head) + bytes);
	head.batch.count = nr;
	memcpy(buf, &head, sizeof(head));
	memcpy((char *)buf + sizeof(head),
	       msg + sizeof(head) + done * sizeof(struct fuse_forget_one), bytes);
	*ret_nr = nr;
	return sizeof(head) + bytes;
}

bool rules_short_read(const struct request *req)
{
	struct fuse_read_in arg;

	if (request_header(req)->opcode != FUSE_READ)
		return true;
	/* Linux names the owner of locks in READs of direct I/O, and only there (fuse_send_read()). */
	return load_args(req, &arg, sizeof(arg)) && (arg.read_flags & FUSE_READ_LOCKOWNER) &&
	       !(arg.flags & O_DIRECT);
}
