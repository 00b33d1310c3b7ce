/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Entry point of the fusewire command: finds the subcommand and calls it.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"

static const struct {
	const char *name;
	int (*fn)(int argc, char **argv);
	const char *summary;
} commands[] = {
	{ "run", cli_run, "serve the FUSE file system that a command would mount" },
	{ "null", cli_null, "serve an in-memory file, for measuring" },
	{ "bench", cli_bench, "load a virtio-fs device and tell its rates and latencies" },
	{ "check", cli_check, "tell whether a virtio-fs device keeps to the rules" },
	{ "mount", cli_mount, "mount a virtio-fs device on this machine, without a VM" },
	{ "doctor", cli_doctor, "say what on this machine stands in the way, and how to mend it" },
	{ "vm", cli_vm, "boot a throw-away Linux VM with virtio-fs devices mounted" },
};

static char cli_ident[64] = "fusewire";

void cli_set_command(const char *name)
{
	snprintf(cli_ident, sizeof(cli_ident), "fusewire %s", name);
	log_init(LOG_LEVEL_WARN, cli_ident);
}

void cli_error(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", cli_ident);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static void usage(FILE *out)
{
	fprintf(out,
		"Usage: fusewire COMMAND [OPTION...]\n\n"
		"Serves unmodified FUSE file systems as virtio-fs devices.\n\nCommands:\n");
	for (size_t i = 0; i < array_size(commands); i++)
		fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "\n'fusewire COMMAND --help' tells the options of one.\n");
}

int main(int argc, char **argv)
{
	/* Who ignores it, as we may have inherited that, never hears of an end of his children. */
	signal(SIGCHLD, SIG_DFL);
	if (argc < 2) {
		usage(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return CLI_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("fusewire %s\n", FUSEWIRE_VERSION);
		return CLI_OK;
	}
	for (size_t i = 0; i < array_size(commands); i++) {
		if (strcmp(argv[1], commands[i].name) == 0) {
			cli_set_command(commands[i].name);
			/* What getopt_long(3) puts before its messages. */
			argv[1] = cli_ident;
			return commands[i].fn(argc - 1, argv + 1);
		}
	}
	cli_error("'%s' is not a command; 'fusewire --help' lists them", argv[1]);
	return CLI_USAGE;
}
