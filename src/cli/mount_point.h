/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE mount of our own: mount(2) as root, fusermount3 otherwise.
 */
#ifndef FUSEWIRE_CLI_MOUNT_POINT_H
#define FUSEWIRE_CLI_MOUNT_POINT_H

#include <limits.h>

#include "base/compiler.h"

/** MOUNT_OPTIONS_MAX - bytes of the options that the user may give, and of what becomes of them. */
#define MOUNT_OPTIONS_MAX 3072

/**
 * struct mount_point - where and how.
 * @path: absolute, without links; "" when nothing is mounted
 * @helper: fusermount3 mounted it
 * @dev: device number of the file system, as in /proc/self/mountinfo; it tells our mount from another in its place
 */
struct mount_point {
	char path[PATH_MAX];
	bool helper;
	char dev[32];
};

/**
 * mount_point_mount() - mount at @path.
 * @source: what mount tables show as the source
 * @options: as after -o, or ""
 *
 * Prints its errors. Return: a non-blocking CLOEXEC descriptor of /dev/fuse, or negative errno; -EINVAL for an option that is
 * not known.
 */
int must_check mount_point_mount(struct mount_point *mp, const char *path, const char *source,
				 const char *options);

/**
 * mount_point_unmount() - unmount lazily, unless somebody did it before.
 *
 * Context: any thread. Blocks while the kernel writes back what it has, unless the FUSE connection has ended.
 */
void mount_point_unmount(const struct mount_point *mp);

/** mount_point_unmount_dead() - take away what is left where the kernel ended the connection, and not the mount. Context: as above. */
void mount_point_unmount_dead(const struct mount_point *mp);

#endif
