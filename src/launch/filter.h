/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seccomp filter under which a daemon runs: the few system calls by which it would meet the kernel's FUSE.
 */
#ifndef FUSEWIRE_LAUNCH_FILTER_H
#define FUSEWIRE_LAUNCH_FILTER_H

#include "base/compiler.h"

/**
 * filter_install() - put the calling thread, and all that it will start, under the filter.
 *
 * Sets no_new_privs unless the caller has CAP_SYS_ADMIN: then setuid programs below go on working as they do without us.
 * Context: between fork and exec; async-signal-safe.
 *
 * Return: the notification descriptor (CLOEXEC); -EBUSY when a notification filter is installed already
 * (nested run); -EINVAL or -ENOSYS when the kernel cannot do it (older than 5.14); other negative errno.
 */
int must_check filter_install(void);

#endif
