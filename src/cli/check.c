/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire check: does a vhost-user-fs back-end keep to the rules, and does it survive those who do not?
 */
#include "cli/check.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum check_option {
	OPTION_HOSTILE = 0x100,
	OPTION_JSON,
	OPTION_FILE,
	OPTION_HELP,
};

static const struct option check_options[] = {
	{ "hostile", no_argument, NULL, OPTION_HOSTILE },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "file", required_argument, NULL, OPTION_FILE },
	{ "help", no_argument, NULL, OPTION_HELP },
	{},
};

static void check_help(void)
{
	printf("Usage: fusewire check [OPTION...] SOCKET [-- COMMAND [ARG...]]\n\n"
	       "Tells, rule by rule, whether the virtio-fs device on a vhost-user socket keeps to "
	       "the\nspecifications. Creates a directory in its root, and removes it.\n\n"
	       "With COMMAND, starts that as the back-end, and again whenever it has ended.\n\n"
	       "  --hostile              also send malformed input, and see whether the device "
	       "survives.\n"
	       "                         This may kill the back-end: use one that nobody needs\n"
	       "  --file NAME            a file that may be overwritten for a moment, for devices "
	       "in\n"
	       "                         which none can be created\n"
	       "  --json                 the report for programs\n"
	       "  --help                 this text\n");
}

static bool interrupted;

static void on_signal(int signo)
{
	WRITE_ONCE(interrupted, true);
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void show_progress(void *ctx, unsigned int done, unsigned int total,
			  const struct check_row *next)
{
	fprintf(stderr, "\r\033[K%u of %u: %s: %.60s", done, total, next->area, next->rule);
	fflush(stderr);
}

static int run(struct check_config *config, bool json)
{
	struct check_report *report = NULL;
	const char *why = "";
	bool terminal = isatty(STDERR_FILENO);
	int err, status;

	if (terminal && !json)
		config->progress = show_progress;
	err = check_run(&report, config, &why);
	if (config->progress)
		fprintf(stderr, "\r\033[K");
	if (err < 0) {
		cli_error("%s: %s: %s", config->path, why, strerror(-err));
		return CLI_USAGE;
	}
	if (json)
		check_report_json(report, config->path, config->hostile);
	else
		check_report_text(report);
	if (report->died)
		cli_error("%s: the back-end died or went away during the check", config->path);
	if (interrupted)
		cli_error("interrupted: the rest was not checked");
	status =
		report->counts[CHECK_DOES_NOT] || report->died || interrupted ? CLI_FAILED : CLI_OK;
	check_report_free(report);
	return status;
}

int cli_check(int argc, char **argv)
{
	struct check_backend backend = { .output_fd = -1 };
	struct check_config config = { .interrupted = &interrupted, .ctx = &backend };
	bool json = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "", check_options, NULL)) != -1) {
		switch (option) {
		case OPTION_HOSTILE:
			config.hostile = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		case OPTION_FILE:
			config.file = optarg;
			break;
		case OPTION_HELP:
			check_help();
			return CLI_OK;
		default:
			return CLI_USAGE;
		}
	}
	if (optind == argc) {
		cli_error("no SOCKET: give that of the device");
		return CLI_USAGE;
	}
	config.path = backend.path = argv[optind++];
	catch_signals();
	if (config.hostile)
		cli_error("--hostile sends malformed input: it may kill the back-end on %s",
			  config.path);
	if (optind < argc) {
		backend.command = argv + optind;
		config.restart = check_backend_restart;
		config.ended = check_backend_ended;
		if (check_backend_start(&backend) < 0) {
			check_backend_stop(&backend);
			return CLI_USAGE;
		}
	}
	status = run(&config, json);
	check_backend_stop(&backend);
	return status;
}
