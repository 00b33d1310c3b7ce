/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One file, "data", in a buffer: a low-level libfuse 3 daemon whose handlers do next to nothing, for measuring.
 *
 *	empty [--size=BYTES] [OPTION...] MOUNTPOINT
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "serve.h"

#define FILE_ID	    2
#define FILE_NAME   "data"
#define VALID_FOR_S 86400.0

static struct {
	unsigned long long size;
} opts = { .size = 256ull << 20 };

static char *content;

static int attributes(fuse_ino_t ino, struct stat *ret_st)
{
	memset(ret_st, 0, sizeof(*ret_st));
	ret_st->st_ino = ino;
	ret_st->st_blksize = 4096;
	if (ino == FUSE_ROOT_ID) {
		ret_st->st_mode = S_IFDIR | 0755;
		ret_st->st_nlink = 2;
		return 0;
	}
	if (ino != FILE_ID)
		return ENOENT;
	ret_st->st_mode = S_IFREG | 0666;
	ret_st->st_nlink = 1;
	ret_st->st_size = (off_t)opts.size;
	ret_st->st_blocks = (blkcnt_t)(opts.size / 512);
	return 0;
}

static void empty_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .ino = FILE_ID,
				      .attr_timeout = VALID_FOR_S,
				      .entry_timeout = VALID_FOR_S };

	if (parent != FUSE_ROOT_ID || strcmp(name, FILE_NAME)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	attributes(FILE_ID, &e.attr);
	fuse_reply_entry(req, &e);
}

static void empty_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int err = attributes(ino, &st);

	if (err)
		fuse_reply_err(req, err);
	else
		fuse_reply_attr(req, &st, VALID_FOR_S);
}

/* The file has its size; whoever truncates it is told that it was done. */
static void empty_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
			  struct fuse_file_info *fi)
{
	empty_getattr(req, ino, fi);
}

static void empty_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != FILE_ID) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static size_t inside(size_t size, off_t off)
{
	unsigned long long left =
		(unsigned long long)off < opts.size ? opts.size - (unsigned long long)off : 0;

	return size < left ? size : (size_t)left;
}

static void empty_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	size_t n = inside(size, off);

	fuse_reply_buf(req, n ? content + off : NULL, n);
}

static void empty_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	size_t n = inside(size, off);

	if (n < size) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	memcpy(content + off, buf, n);
	fuse_reply_write(req, n);
}

static void empty_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			  struct fuse_file_info *fi)
{
	struct stat st;
	char buf[64];
	size_t n = 0;

	if (off == 0) {
		attributes(FILE_ID, &st);
		n = fuse_add_direntry(req, buf, sizeof(buf), FILE_NAME, &st, 1);
	}
	fuse_reply_buf(req, buf, n <= size ? n : 0);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = empty_lookup,
	.getattr = empty_getattr,
	.setattr = empty_setattr,
	.open = empty_open,
	.read = empty_read,
	.write = empty_write,
	.readdir = empty_readdir,
};

static const struct fuse_opt options[] = {
	{ "--size=%llu", offsetof(__typeof__(opts), size), 0 },
	FUSE_OPT_END,
};

static const char usage[] =
	"usage: empty [OPTION...] MOUNTPOINT\n"
	"\n"
	"Shows a file of memory, \"" FILE_NAME
	"\".\n"
	"\n"
	"    --size=BYTES           of the file (268435456)\n";

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct serve_options serve = { 0 };
	int status = 1;

	if (fuse_opt_parse(&args, &opts, options, NULL) < 0 ||
	    serve_parse(&args, usage, &serve) < 0) {
		status = 2;
		goto out;
	}
	if (serve.done) {
		status = 0;
		goto out;
	}
	content = mmap(NULL, opts.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (content == MAP_FAILED) {
		fprintf(stderr, "empty: --size=%llu: %s\n", opts.size, strerror(errno));
		goto out;
	}
	/* Random reads of small pages would cost a walk of the page table each; a kernel without huge pages refuses. */
	madvise(content, opts.size, MADV_HUGEPAGE);
	/* Memory that was never written is one page of zeros, which a cache holds. */
	memset(content, 'e', opts.size);
	status = serve_run(&args, &operations, sizeof(operations), &serve);
	munmap(content, opts.size);
out:
	serve_free(&serve);
	fuse_opt_free_args(&args);
	return status;
}
