/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every low-level libfuse 3 program does around its operations: options, mount, threads, end.
 */
#define FUSE_USE_VERSION 312

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "serve.h"

int serve_parse(struct fuse_args *args, const char *usage, struct serve_options *ret_options)
{
	memset(ret_options, 0, sizeof(*ret_options));
	if (fuse_parse_cmdline(args, &ret_options->line) < 0)
		return -1;
	ret_options->done = ret_options->line.show_help || ret_options->line.show_version;
	if (ret_options->line.show_help) {
		printf("%s\n", usage);
		fuse_cmdline_help();
		fuse_lowlevel_help();
	} else if (ret_options->line.show_version) {
		fuse_lowlevel_version();
	} else if (!ret_options->line.mountpoint) {
		fprintf(stderr, "%s: no mount point is given; see %s --help\n", args->argv[0],
			args->argv[0]);
		return -1;
	}
	return 0;
}

void serve_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int loop(struct fuse_session *session, const struct fuse_cmdline_opts *line)
{
	struct fuse_loop_config *config;
	int rc;

	if (line->singlethread)
		return fuse_session_loop(session);
	config = fuse_loop_cfg_create();
	if (!config)
		return -1;
	fuse_loop_cfg_set_clone_fd(config, (unsigned int)line->clone_fd);
	/* libfuse's own default is a number that it refuses here. */
	if (line->max_idle_threads != UINT_MAX)
		fuse_loop_cfg_set_idle_threads(config, line->max_idle_threads);
	fuse_loop_cfg_set_max_threads(config, line->max_threads);
	rc = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return rc;
}

int serve_run(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t ops_size,
	      const struct serve_options *options)
{
	struct fuse_session *session = fuse_session_new(args, ops, ops_size, NULL);
	int rc = -1;

	if (!session)
		return 1;
	if (fuse_set_signal_handlers(session) == 0) {
		if (fuse_session_mount(session, options->line.mountpoint) == 0) {
			if (fuse_daemonize(options->line.foreground) == 0)
				rc = loop(session, &options->line);
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	/* A signal that ends us is no failure. */
	return rc < 0 ? 1 : 0;
}

void serve_free(struct serve_options *options)
{
	free(options->line.mountpoint);
}
