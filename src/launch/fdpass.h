/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A report from a child process: an error number, or success with a descriptor.
 */
#ifndef FUSEWIRE_LAUNCH_FDPASS_H
#define FUSEWIRE_LAUNCH_FDPASS_H

#include "base/compiler.h"

/** fdpass_send() - report @error (0 or negative errno), with @fd unless it is -1. Async-signal-safe. Return: 0 or negative errno. */
int must_check fdpass_send(int sock, int error, int fd);

/**
 * fdpass_receive() - take one report.
 * @ret_error: what the child said
 * @ret_fd: descriptor that came along (CLOEXEC), the caller's; untouched if none did
 *
 * Context: blocks. Return: 1 with a report, 0 at end of file, negative errno.
 */
int must_check fdpass_receive(int sock, int *ret_error, int *ret_fd);

#endif
