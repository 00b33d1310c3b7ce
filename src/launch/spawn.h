/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a process under the filter.
 */
#ifndef FUSEWIRE_LAUNCH_SPAWN_H
#define FUSEWIRE_LAUNCH_SPAWN_H

#include <sys/types.h>

#include "base/compiler.h"

/**
 * spawn_filtered() - fork, install the filter, execute.
 * @argv: NULL-terminated; looked up in PATH
 * @ret_pid: the process; the caller reaps it
 * @ret_notify_fd: descriptor of the filter's notifications; the caller's
 * @ret_why: on error a static text: what could not be done
 *
 * The new process has no signal blocked and SIGPIPE at its default. Returns when the program runs, or failed to.
 * Return: 0 or negative errno; on error nothing is left to reap.
 */
int must_check spawn_filtered(char *const *argv, pid_t *ret_pid, int *ret_notify_fd,
			      const char **ret_why);

#endif
