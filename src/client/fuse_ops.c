/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arguments of FUSE requests, and single requests that are waited for.
 */
#include "client/fuse_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* C libraries of 64-bit machines say 0; the kernel adds its own value, which differs by architecture. */
#if defined(__aarch64__) || defined(__arm__)
#define GUEST_O_LARGEFILE 0400000u
#else
#define GUEST_O_LARGEFILE 0100000u
#endif

uint32_t fuse_open_flags(int flags)
{
	return (uint32_t)flags | GUEST_O_LARGEFILE;
}

static void fill(struct fuse_call *call, uint32_t opcode, uint64_t nodeid, const void *args,
		 size_t bytes, uint32_t reply_bytes)
{
	call->opcode = opcode;
	call->nodeid = nodeid;
	call->args_bytes = (uint32_t)bytes;
	call->ext_bytes = call->out_bytes = call->in_bytes = 0;
	call->reply_bytes = reply_bytes;
	if (bytes)
		memcpy(call->args, args, bytes);
}

static void add_name(struct fuse_call *call, const char *name)
{
	size_t bytes = strlen(name) + 1;

	assert(bytes > 1 && bytes <= NAME_MAX + 1);
	memcpy((char *)call->args + call->args_bytes, name, bytes);
	call->args_bytes += (uint32_t)bytes;
}

/*
 * Without a security module a guest sends an empty list of contexts once it was agreed on. It follows the name at once,
 * aligned to nothing.
 */
static void add_extension(struct fuse_queue *q, struct fuse_call *call)
{
	const struct fuse_secctx_header header = { .size = sizeof(header) };

	if (!(fuse_client_flags(fuse_queue_client(q)) & FUSE_SECURITY_CTX))
		return;
	memcpy((char *)call->args + call->args_bytes, &header, sizeof(header));
	call->args_bytes += (uint32_t)sizeof(header);
	call->ext_bytes = sizeof(header);
}

void fuse_fill_getattr(struct fuse_call *call, uint64_t nodeid)
{
	const struct fuse_getattr_in in = {};

	fill(call, FUSE_GETATTR, nodeid, &in, sizeof(in), sizeof(struct fuse_attr_out));
}

void fuse_fill_lookup(struct fuse_call *call, uint64_t parent, const char *name)
{
	fill(call, FUSE_LOOKUP, parent, NULL, 0, sizeof(struct fuse_entry_out));
	add_name(call, name);
}

void fuse_fill_unlink(struct fuse_call *call, uint64_t parent, const char *name)
{
	fill(call, FUSE_UNLINK, parent, NULL, 0, 0);
	add_name(call, name);
}

void fuse_fill_release(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint32_t flags)
{
	const struct fuse_release_in in = { .fh = fh, .flags = flags };

	fill(call, FUSE_RELEASE, nodeid, &in, sizeof(in), 0);
}

void fuse_fill_readdir(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		       uint32_t size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	fill(call, FUSE_READDIR, nodeid, &in, sizeof(in), 0);
	call->in_bytes = size;
}

void fuse_fill_read(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		    uint32_t size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };

	fill(call, FUSE_READ, nodeid, &in, sizeof(in), 0);
	call->in_bytes = size;
}

void fuse_fill_write(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		     uint32_t size)
{
	const struct fuse_write_in in = { .fh = fh, .offset = offset, .size = size };

	fill(call, FUSE_WRITE, nodeid, &in, sizeof(in), sizeof(struct fuse_write_out));
	call->out_bytes = size;
}

void fuse_fill_create(struct fuse_queue *q, struct fuse_call *call, uint64_t parent,
		      const char *name, uint32_t mode, uint32_t flags)
{
	const struct fuse_create_in in = { .flags = flags, .mode = mode | S_IFREG, .umask = 022 };

	fill(call, FUSE_CREATE, parent, &in, sizeof(in), sizeof(call->reply.create));
	add_name(call, name);
	add_extension(q, call);
}

/* Wait for @call and give it back; its reply stays readable until it is taken again. */
static int finish(struct fuse_queue *q, struct fuse_call *call)
{
	int err = fuse_queue_call(q, call);

	if (err < 0)
		return err;
	fuse_queue_put(q, call);
	return call->error;
}

int fuse_op_lookup(struct fuse_queue *q, uint64_t parent, const char *name,
		   struct fuse_entry_out *ret_entry)
{
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fuse_fill_lookup(call, parent, name);
	err = finish(q, call);
	if (err < 0)
		return err;
	if (!call->reply.entry.nodeid)
		return -ENOENT;
	*ret_entry = call->reply.entry;
	return 0;
}

int fuse_op_walk(struct fuse_queue *q, const char *path, uint64_t *ret_parent,
		 const char **ret_name)
{
	uint64_t parent = FUSE_ROOT_ID;

	for (;;) {
		struct fuse_entry_out entry;
		char name[NAME_MAX + 1];
		size_t len;
		int err;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len > NAME_MAX)
			return -ENAMETOOLONG;
		if (!path[len])
			break;
		memcpy(name, path, len);
		name[len] = '\0';
		err = fuse_op_lookup(q, parent, name, &entry);
		if (err < 0)
			return err;
		parent = entry.nodeid;
		path += len;
	}
	*ret_parent = parent;
	*ret_name = path;
	return 0;
}

int fuse_op_getattr(struct fuse_queue *q, uint64_t nodeid, struct fuse_attr *ret_attr)
{
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fuse_fill_getattr(call, nodeid);
	err = finish(q, call);
	if (err == 0)
		*ret_attr = call->reply.attr.attr;
	return err;
}

static int open_node(struct fuse_queue *q, uint32_t opcode, uint64_t nodeid, int flags,
		     uint64_t *ret_fh)
{
	const struct fuse_open_in in = { .flags = fuse_open_flags(flags) };
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fill(call, opcode, nodeid, &in, sizeof(in), sizeof(struct fuse_open_out));
	err = finish(q, call);
	if (err < 0 && err != -ENOSYS)
		return err;
	*ret_fh = err ? 0 : call->reply.open.fh;
	return 0;
}

int fuse_op_open(struct fuse_queue *q, uint64_t nodeid, int flags, uint64_t *ret_fh)
{
	return open_node(q, FUSE_OPEN, nodeid, flags, ret_fh);
}

int fuse_op_opendir(struct fuse_queue *q, uint64_t nodeid, uint64_t *ret_fh)
{
	return open_node(q, FUSE_OPENDIR, nodeid, O_RDONLY | O_DIRECTORY, ret_fh);
}

static int make_node(struct fuse_queue *q, uint64_t parent, const char *name, uint32_t mode,
		     uint64_t *ret_nodeid)
{
	const struct fuse_mknod_in in = { .mode = mode | S_IFREG, .umask = 022 };
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fill(call, FUSE_MKNOD, parent, &in, sizeof(in), sizeof(struct fuse_entry_out));
	add_name(call, name);
	add_extension(q, call);
	err = finish(q, call);
	if (err == 0)
		*ret_nodeid = call->reply.entry.nodeid;
	return err;
}

int fuse_op_create(struct fuse_queue *q, uint64_t parent, const char *name, uint32_t mode,
		   int flags, uint64_t *ret_nodeid, uint64_t *ret_fh)
{
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fuse_fill_create(q, call, parent, name, mode, fuse_open_flags(flags | O_CREAT));
	err = finish(q, call);
	if (err == -ENOSYS) {
		err = make_node(q, parent, name, mode, ret_nodeid);
		return err ? err : fuse_op_open(q, *ret_nodeid, flags, ret_fh);
	}
	if (err == 0) {
		*ret_nodeid = call->reply.create.entry.nodeid;
		*ret_fh = call->reply.create.open.fh;
	}
	return err;
}

static int release_node(struct fuse_queue *q, uint32_t opcode, uint64_t nodeid, uint64_t fh,
			int flags)
{
	struct fuse_call *call = fuse_queue_get(q);

	if (!call)
		return -EBUSY;
	fuse_fill_release(call, nodeid, fh, fuse_open_flags(flags));
	call->opcode = opcode;
	return finish(q, call);
}

int fuse_op_release(struct fuse_queue *q, uint64_t nodeid, uint64_t fh, int flags)
{
	return release_node(q, FUSE_RELEASE, nodeid, fh, flags);
}

int fuse_op_releasedir(struct fuse_queue *q, uint64_t nodeid, uint64_t fh)
{
	return release_node(q, FUSE_RELEASEDIR, nodeid, fh, O_RDONLY | O_DIRECTORY);
}

int fuse_op_fsync(struct fuse_queue *q, uint64_t nodeid, uint64_t fh)
{
	const struct fuse_fsync_in in = { .fh = fh };
	struct fuse_call *call = fuse_queue_get(q);

	if (!call)
		return -EBUSY;
	fill(call, FUSE_FSYNC, nodeid, &in, sizeof(in), 0);
	return finish(q, call);
}

int fuse_op_mkdir(struct fuse_queue *q, uint64_t parent, const char *name, uint32_t mode,
		  uint64_t *ret_nodeid)
{
	const struct fuse_mkdir_in in = { .mode = mode, .umask = 022 };
	struct fuse_call *call = fuse_queue_get(q);
	int err;

	if (!call)
		return -EBUSY;
	fill(call, FUSE_MKDIR, parent, &in, sizeof(in), sizeof(struct fuse_entry_out));
	add_name(call, name);
	add_extension(q, call);
	err = finish(q, call);
	if (err == 0)
		*ret_nodeid = call->reply.entry.nodeid;
	return err;
}

static int remove_name(struct fuse_queue *q, uint32_t opcode, uint64_t parent, const char *name)
{
	struct fuse_call *call = fuse_queue_get(q);

	if (!call)
		return -EBUSY;
	fuse_fill_unlink(call, parent, name);
	call->opcode = opcode;
	return finish(q, call);
}

int fuse_op_unlink(struct fuse_queue *q, uint64_t parent, const char *name)
{
	return remove_name(q, FUSE_UNLINK, parent, name);
}

int fuse_op_rmdir(struct fuse_queue *q, uint64_t parent, const char *name)
{
	return remove_name(q, FUSE_RMDIR, parent, name);
}
