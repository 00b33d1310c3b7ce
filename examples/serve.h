/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every low-level libfuse 3 program does around its operations: options, mount, threads, end.
 */
#ifndef EXAMPLES_SERVE_H
#define EXAMPLES_SERVE_H

#include <stdbool.h>

#include <fuse_lowlevel.h>

/**
 * struct serve_options - libfuse's own options.
 * @line: foreground, single thread, mount point, ...
 * @done: help or the version was asked for and told
 */
struct serve_options {
	struct fuse_cmdline_opts line;
	bool done;
};

/**
 * serve_parse() - take libfuse's options out of @args.
 * @usage: what --help says before libfuse's own options
 * Return: 0, or -1 after a message; *@ret_options is to be freed in any case.
 */
int serve_parse(struct fuse_args *args, const char *usage, struct serve_options *ret_options);
/** serve_raise_file_limit() - allow as many open files as we are allowed to allow. */
void serve_raise_file_limit(void);
/** serve_run() - mount, serve until unmounted or told to end, unmount. Return: exit status. */
int serve_run(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t ops_size,
	      const struct serve_options *options);
/** serve_free() - free what serve_parse() gave. */
void serve_free(struct serve_options *options);

#endif
