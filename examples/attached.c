/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system of one's own, served to virtual machines without a mount: fusewire.h. It shows one file, "motd", that can be
 * read.
 *
 *	attached SOCKET TAG
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fuse_lowlevel.h>
#include <fusewire.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_ID	    2
#define FILE_NAME   "motd"
#define VALID_FOR_S 1.0

static const char content[] = "This file is in another process's memory, and nowhere else.\n";

static int attributes(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0555;
		st->st_nlink = 2;
	} else if (ino == FILE_ID) {
		st->st_mode = S_IFREG | 0444;
		st->st_nlink = 1;
		st->st_size = sizeof(content) - 1;
	} else {
		return ENOENT;
	}
	return 0;
}

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
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

static void getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int err = attributes(ino, &st);

	if (err)
		fuse_reply_err(req, err);
	else
		fuse_reply_attr(req, &st, VALID_FOR_S);
}

static void readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
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

static void open_file(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_open(req, fi);
}

static void read_file(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	size_t left = (size_t)off < sizeof(content) - 1 ? sizeof(content) - 1 - (size_t)off : 0;

	fuse_reply_buf(req, content + off, size < left ? size : left);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = lookup,
	.getattr = getattr,
	.readdir = readdir,
	.open = open_file,
	.read = read_file,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fusewire_options options = { .size = sizeof(options), .verbosity = 1 };
	struct fuse_session *session;
	int err;

	if (argc != 3) {
		fprintf(stderr, "usage: attached SOCKET TAG\n");
		return 2;
	}
	options.socket_path = argv[1];
	options.tag = argv[2];
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session)
		return 1;
	err = fusewire_attach(session, &options);
	if (err) {
		fprintf(stderr, "attached: %s: %s\n", argv[1], strerror(-err));
	} else if (fuse_set_signal_handlers(session) == 0) {
		struct fuse_loop_config *config = fuse_loop_cfg_create();

		if (config)
			fuse_session_loop_mt(session, config);
		fuse_loop_cfg_destroy(config);
		fuse_remove_signal_handlers(session);
		fusewire_detach(session);
	}
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	return err ? 1 : 0;
}
