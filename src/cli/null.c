/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire null: serve one in-memory file, for measuring.
 */
#include <stdio.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/serve.h"
#include "service/null/null.h"

enum null_option {
	NULL_OPTION_SIZE = DEVICE_OPTION_END,
	NULL_OPTION_HELP,
};

static const struct option null_options[] = {
	DEVICE_OPTIONS_LONG,
	{ "size", required_argument, NULL, NULL_OPTION_SIZE },
	{ "help", no_argument, NULL, NULL_OPTION_HELP },
	{},
};

static void null_help(void)
{
	printf("Usage: fusewire null --socket PATH [--tag TAG] [--size BYTES] [OPTION...]\n\n"
	       "Serves a directory with one file, 'data', that lives in memory.\n\n"
	       "  --size BYTES           size of the file; k, M, G, T allowed (default 1G)\n"
	       "  --help                 this text\n\n" DEVICE_OPTIONS_HELP);
}

static int null_serve(const struct device_options *opts, uint64_t size)
{
	struct serve *serve = NULL;
	struct service *svc = NULL;
	int status = CLI_FAILED;

	if (serve_new(&serve, opts) < 0)
		return CLI_FAILED;
	if (null_service_new(&svc, size) < 0) {
		cli_error("no memory for a file of %llu bytes", (unsigned long long)size);
		goto out;
	}
	if (serve_listen(serve) < 0 || serve_start(serve, svc) < 0)
		goto out;
	status = serve_run(serve);
out:
	serve_free(serve);
	if (svc)
		svc->ops->free(svc);
	return status;
}

int cli_null(int argc, char **argv)
{
	struct device_options opts;
	uint64_t size = UINT64_C(1) << 30;
	int option;

	device_options_init(&opts);
	while ((option = getopt_long(argc, argv, "", null_options, NULL)) != -1) {
		int taken = device_options_parse(&opts, option, optarg);

		if (taken < 0)
			return CLI_USAGE;
		if (taken)
			continue;
		switch (option) {
		case NULL_OPTION_SIZE:
			if (cli_parse_size("size", optarg, 0, NULL_SIZE_MAX, &size) < 0)
				return CLI_USAGE;
			break;
		case NULL_OPTION_HELP:
			null_help();
			return CLI_OK;
		default:
			return CLI_USAGE;
		}
	}
	if (optind < argc) {
		cli_error("'%s' is too much: fusewire null takes options only", argv[optind]);
		return CLI_USAGE;
	}
	if (device_options_check(&opts, "null") < 0)
		return CLI_USAGE;
	return null_serve(&opts, size);
}
