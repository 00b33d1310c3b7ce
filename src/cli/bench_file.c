/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire bench: finds or makes the file or directory that a mode works on, and takes away what it made.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/cli.h"
#include "client/fuse_ops.h"

#define FILE_DEFAULT  "data"
#define CREATED_BYTES (UINT64_C(1) << 30)

static bool writes_file(const struct bench *b)
{
	return bench_is_data(b->opt.rw) && (bench_writes(b->opt.rw) || b->opt.verify);
}

static const char *file_name(const struct bench *b)
{
	return b->opt.file ? b->opt.file : FILE_DEFAULT;
}

/* Of open(2), as a guest's process gives them. */
static int open_flags(const struct bench *b, bool writes)
{
	return (writes ? O_RDWR : O_RDONLY) | (b->opt.direct ? O_DIRECT : 0);
}

static int fail(const char *what, const char *name, int err)
{
	cli_error("cannot %s '%s': %s", what, name, strerror(-err));
	return -1;
}

static int create_file(struct bench *b, struct fuse_queue *q)
{
	int err = fuse_op_create(q, b->parent, b->name, 0644, open_flags(b, true) | O_EXCL,
				 &b->nodeid, &b->fh);

	if (err < 0) {
		cli_error("'%s' is not there, and the device does not create it: %s", file_name(b),
			  strerror(-err));
		return -1;
	}
	b->created = b->opened = true;
	return 0;
}

static int find_file(struct bench *b, struct fuse_queue *q)
{
	struct fuse_entry_out entry = {};
	int err = fuse_op_walk(q, file_name(b), &b->parent, &b->name);

	if (err == 0 && (!b->name[0] || strlen(b->name) > 255))
		err = b->name[0] ? -ENAMETOOLONG : -EISDIR;
	if (err == 0)
		err = fuse_op_lookup(q, b->parent, b->name, &entry);
	if (err == -ENOENT && b->name)
		return create_file(b, q);
	if (err < 0)
		return fail("find", file_name(b), err);
	b->nodeid = entry.nodeid;
	b->file_bytes = entry.attr.size;
	if (!bench_is_data(b->opt.rw))
		return 0;
	if (!S_ISREG(entry.attr.mode)) {
		cli_error("'%s' is not a regular file", file_name(b));
		return -1;
	}
	if (writes_file(b) && !b->opt.file) {
		cli_error("this would overwrite the device's '%s': name it with --file to agree",
			  FILE_DEFAULT);
		return -1;
	}
	err = fuse_op_open(q, b->nodeid, open_flags(b, writes_file(b)), &b->fh);
	if (err < 0)
		return fail("open", file_name(b), err);
	b->opened = true;
	return 0;
}

static int choose_range(struct bench *b)
{
	uint64_t have = b->created ? (b->opt.size ? b->opt.size : CREATED_BYTES) : b->file_bytes;
	uint32_t limit = fuse_client_max_read(b->client);

	if (writes_file(b) || b->created)
		limit = min_of(limit, fuse_client_max_write(b->client));
	if (b->opt.block > limit) {
		cli_error("the device takes at most %u bytes in one request: use a smaller --bs",
			  limit);
		return -1;
	}
	if (b->opt.size > have) {
		cli_error("'%s' has %llu bytes, --size wants %llu", file_name(b),
			  (unsigned long long)have, (unsigned long long)b->opt.size);
		return -1;
	}
	if (b->opt.size)
		have = b->opt.size;
	b->range = have / b->opt.block * b->opt.block;
	if (!b->range) {
		cli_error("'%s' is smaller than a block of %u bytes", file_name(b), b->opt.block);
		return -1;
	}
	return 0;
}

static int make_bitmaps(struct bench *b)
{
	for (unsigned int i = 0; i < b->opt.nr_queues; i++) {
		struct bench_worker *w = &b->workers[i];

		w->written = calloc(b->range / b->opt.block / 64 + 1, sizeof(*w->written));
		if (!w->written) {
			cli_error("no memory to note the blocks of --verify");
			return -1;
		}
	}
	return 0;
}

static int open_data(struct bench *b)
{
	if (choose_range(b) < 0 || (b->opt.verify && make_bitmaps(b) < 0))
		return -1;
	if (b->created)
		fprintf(stderr,
			"fusewire bench: creates '%s' with %llu bytes; it stays for later runs\n",
			file_name(b), (unsigned long long)b->range);
	if (b->created || b->opt.verify)
		return bench_run_phase(b, BENCH_LAYOUT, 0);
	return 0;
}

/* Each slot reads the directory through a handle of its own, as so many processes do. */
static int open_dir(struct bench *b, struct fuse_queue *q)
{
	const char *path = b->opt.file ? b->opt.file : "/";
	struct fuse_entry_out entry = {};
	int err = fuse_op_walk(q, path, &b->parent, &b->name);

	b->nodeid = b->parent;
	if (err == 0 && b->name[0]) {
		err = fuse_op_lookup(q, b->parent, b->name, &entry);
		b->nodeid = err ? 0 : entry.nodeid;
	}
	if (err < 0)
		return fail("find", path, err);
	for (unsigned int i = 0; i < b->opt.nr_queues * b->opt.depth; i++) {
		struct bench_slot *slot = &b->workers[i / b->opt.depth].slots[i % b->opt.depth];

		err = fuse_op_opendir(q, b->nodeid, &slot->fh);
		if (err < 0)
			return fail("open directory", path, err);
	}
	b->opened = true;
	return 0;
}

static int make_dir(struct bench *b, struct fuse_queue *q)
{
	int err;

	snprintf(b->dir_name, sizeof(b->dir_name), "fusewire-bench.%ld", (long)getpid());
	err = fuse_op_mkdir(q, FUSE_ROOT_ID, b->dir_name, 0755, &b->nodeid);
	if (err < 0)
		return fail("make directory", b->dir_name, err);
	b->created = true;
	return 0;
}

int bench_open(struct bench *b)
{
	struct fuse_queue *q = fuse_client_queue(b->client, 0);

	if (b->opt.rw == BENCH_CREATE)
		return make_dir(b, q);
	if (b->opt.rw == BENCH_READDIR)
		return open_dir(b, q);
	if (find_file(b, q) < 0)
		return -1;
	return bench_is_data(b->opt.rw) ? open_data(b) : 0;
}

int bench_fsync(struct bench *b)
{
	int err = fuse_op_fsync(fuse_client_queue(b->client, 0), b->nodeid, b->fh);

	return err < 0 ? fail("fsync", file_name(b), err) : 0;
}

int bench_close(struct bench *b)
{
	struct fuse_queue *q = fuse_client_queue(b->client, 0);
	int err = 0;

	if (b->opt.rw == BENCH_CREATE) {
		err = b->created ? fuse_op_rmdir(q, FUSE_ROOT_ID, b->dir_name) : 0;
		return err < 0 ? fail("remove directory", b->dir_name, err) : 0;
	}
	if (b->opt.rw == BENCH_READDIR) {
		unsigned int nr = b->opened ? b->opt.nr_queues * b->opt.depth : 0;

		for (unsigned int i = 0; i < nr && err == 0; i++)
			err = fuse_op_releasedir(
				q, b->nodeid,
				b->workers[i / b->opt.depth].slots[i % b->opt.depth].fh);
	} else if (b->opened) {
		err = fuse_op_release(q, b->nodeid, b->fh, open_flags(b, true));
	}
	/* The kernel ignores what RELEASE answers; a device without handles says ENOSYS. */
	return err == -EPIPE || err == -ETIMEDOUT || err == -EBADMSG
		       ? fail("close", file_name(b), err)
		       : 0;
}
