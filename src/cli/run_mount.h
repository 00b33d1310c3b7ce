/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's mount options become on a virtio-fs device, in words.
 */
#ifndef FUSEWIRE_CLI_RUN_MOUNT_H
#define FUSEWIRE_CLI_RUN_MOUNT_H

#include "launch/mount_options.h"

/** run_mount_tell() - log what was mounted, and which of its options a virtio-fs driver cannot know of. */
void run_mount_tell(const struct launch_mount *mnt);

#endif
