/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lets a daemon see what it would see after an unmount: ENODEV from its /dev/fuse.
 */
#ifndef FUSEWIRE_LAUNCH_UNMOUNT_H
#define FUSEWIRE_LAUNCH_UNMOUNT_H

#include <sys/types.h>

#include "launch/supervise.h"

/**
 * unmount_daemon() - put a dead fuse descriptor in the place of the sockets that @pid reads, and then of those that other
 * descendants of ours have.
 * @sup: whose filter the daemon runs under, and whose sockets are meant
 *
 * Context: the supervisor's thread; about a millisecond, at most a few seconds, however many threads and processes cannot be stopped.
 *
 * Return: 0: the daemon's reads fail with ENODEV; -ENOSYS on this architecture; -EPERM or another negative errno when it
 * cannot be done in @pid: nothing was changed then.
 */
int must_check unmount_daemon(struct supervisor *sup, pid_t pid);

#endif
