/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A /dev/fuse descriptor whose file system was unmounted: reading it gives ENODEV.
 */
#ifndef FUSEWIRE_LAUNCH_DEADFUSE_H
#define FUSEWIRE_LAUNCH_DEADFUSE_H

#include "base/compiler.h"

/**
 * deadfuse_open() - make one, by a mount in a namespace that nobody else sees.
 *
 * Context: forks and waits for the child. Return: the descriptor (CLOEXEC); negative errno where the kernel has no FUSE,
 * or we may neither mount nor make a user namespace.
 */
int must_check deadfuse_open(void);

#endif
