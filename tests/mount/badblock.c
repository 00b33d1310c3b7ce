/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system with one file, a page of which cannot be read: a disk with a bad block. READs are of one page at most, so that larger
 * ones reach it in parts. "direct" as the first word: its reader's kernel shall not cache it (FOPEN_DIRECT_IO).
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse.h>
#include <string.h>

#define PAGE	   4096
#define FILE_PAGES 256
#define BAD_PAGE   4

static int is_direct;

static void *bad_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	config->direct_io = is_direct;
	/* libfuse wants to be told this, and as a mount option, too. */
	conn->max_read = PAGE;
	return NULL;
}

static int bad_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFDIR | 0755;
	st->st_nlink = 2;
	if (!strcmp(path, "/"))
		return 0;
	st->st_mode = S_IFREG | 0644;
	st->st_nlink = 1;
	st->st_size = PAGE * FILE_PAGES;
	return strcmp(path, "/file") ? -ENOENT : 0;
}

static int bad_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	return 0;
}

static int bad_read(const char *path, char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)path;
	(void)fi;
	if (off / PAGE == BAD_PAGE)
		return -EIO;
	memset(buf, 'x', size);
	return (int)size;
}

static const struct fuse_operations ops = {
	.init = bad_init,
	.getattr = bad_getattr,
	.open = bad_open,
	.read = bad_read,
};

int main(int argc, char **argv)
{
	is_direct = argc > 1 && !strcmp(argv[1], "direct");
	if (is_direct)
		argv[1] = argv[0];
	return fuse_main(argc - is_direct, argv + is_direct, &ops, NULL);
}
