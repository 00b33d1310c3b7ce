/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fusewire command: its subcommands, and how they speak to people.
 */
#ifndef FUSEWIRE_CLI_CLI_H
#define FUSEWIRE_CLI_CLI_H

#include "base/compiler.h"

/** enum cli_status - exit statuses of every subcommand. */
enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
};

/**
 * cli_error() - one line for people on stderr: "fusewire SUBCOMMAND: ..." with a newline added.
 */
void printf_like(1, 2) cli_error(const char *fmt, ...);

/** cli_set_command() - name of the subcommand for cli_error() and the log; must stay valid. */
void cli_set_command(const char *name);

/* One entry point per subcommand: argv[0] is "fusewire" and its name; returns the exit status. */
int cli_run(int argc, char **argv);
int cli_null(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_mount(int argc, char **argv);
int cli_vm(int argc, char **argv);
int cli_doctor(int argc, char **argv);

#endif
