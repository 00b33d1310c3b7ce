/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a process under the filter.
 */
#ifndef FUSEWIRE_LAUNCH_SPAWN_H
#define FUSEWIRE_LAUNCH_SPAWN_H

#include <sys/types.h>

#include "base/compiler.h"

/**
 * enum spawn_mounts - the mounts that a process sees.
 * @SPAWN_MOUNTS_SHARED: ours
 * @SPAWN_MOUNTS_OWN: a copy of ours: namespace_unshare()
 * @SPAWN_MOUNTS_USER: the same, in a user namespace where that takes one
 */
enum spawn_mounts {
	SPAWN_MOUNTS_SHARED,
	SPAWN_MOUNTS_OWN,
	SPAWN_MOUNTS_USER,
};

/**
 * spawn_filtered() - fork, install the filter, execute.
 * @argv: NULL-terminated; looked up in PATH
 * @mounts: what it gets of its own
 * @ret_pid: the process; the caller reaps it
 * @ret_notify_fd: descriptor of the filter's notifications; the caller's
 * @ret_why: on error a static text: what could not be done
 *
 * The new process has no signal blocked and SIGPIPE at its default. Returns when the program runs, or failed to.
 * Return: 0 or negative errno; on error nothing is left to reap.
 */
int must_check spawn_filtered(char *const *argv, enum spawn_mounts mounts, pid_t *ret_pid,
			      int *ret_notify_fd, const char **ret_why);

#endif
