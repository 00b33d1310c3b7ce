/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private to `fusewire check`: the back-end that it may start itself, and the report.
 */
#ifndef FUSEWIRE_CLI_CHECK_H
#define FUSEWIRE_CLI_CHECK_H

#include <sys/types.h>

#include "check/check.h"

#define CHECK_OUTPUT_TAIL 2000

/* A back-end of our own: COMMAND serves on @path until its front-end is gone, or longer. */
struct check_backend {
	char *const *command; /* NULL: somebody else's back-end */
	const char *path;
	pid_t pid; /* 0: none runs */
	int output_fd; /* what it writes to stdout and stderr */
	int wstatus; /* of the last one that ended */
	bool has_ended;
	unsigned int patience;
};

/* Start it. Return: 0; negative errno after an error message. */
int must_check check_backend_start(struct check_backend *b);
/* struct check_config.restart and .ended; @ctx is the back-end. */
int check_backend_restart(void *ctx);
int check_backend_ended(void *ctx, int wait_ms, char *text, size_t size);
/* End it, if it runs. */
void check_backend_stop(struct check_backend *b);

void check_report_text(const struct check_report *r);
void check_report_json(const struct check_report *r, const char *path, bool hostile);

#endif
