/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's mount options become on a virtio-fs device, in words.
 *
 * max_read and ro are obeyed by the channel. The others are rules for the users of the machine that mounts, and that is
 * the driver's: nothing in virtio-fs tells them to it. So they are told to people.
 */
#include "cli/run_mount.h"

#include <sys/stat.h>

#include "base/log.h"

void run_mount_tell(const struct launch_mount *mnt)
{
	char flags[LAUNCH_FLAGS_BYTES];

	mount_options_flags(mnt, flags);
	log_info("the daemon mounts '%s', type %s%s%s", mnt->source, mnt->type,
		 flags[0] ? "; to the driver's mount belongs: -o " : "", flags);
	if (!mnt->allow_other)
		log_info(
			"without allow_other: on /dev/fuse only user %u may enter, on the driver's "
			"side all may",
			mnt->user_id);
	if (!mnt->default_permissions)
		log_info(
			"without default_permissions: the driver checks file modes all the same, "
			"and then the daemon");
	if (mnt->blksize)
		log_debug("blksize=%u: a driver takes the block size of each file", mnt->blksize);
	if (mnt->has_context)
		log_warn(
			"the security context among the mount options is not passed on: the "
			"driver's mount has to name it");
	if (!S_ISDIR(mnt->rootmode))
		log_warn("the root is no directory (rootmode=%o): no virtio-fs driver can mount it",
			 mnt->rootmode);
}
