/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's mount(2) says about its file system, and its INIT does not.
 */
#ifndef FUSEWIRE_LAUNCH_MOUNT_OPTIONS_H
#define FUSEWIRE_LAUNCH_MOUNT_OPTIONS_H

#include <limits.h>
#include <sys/types.h>

#include "base/compiler.h"

/** LAUNCH_NAME_BYTES - room for a mount's source and type, with NUL; longer ones are cut. */
#define LAUNCH_NAME_BYTES 256
/** LAUNCH_OPTIONS_BYTES - longest data argument of mount(2), with NUL: the kernel takes one page. */
#define LAUNCH_OPTIONS_BYTES 4096

/**
 * struct launch_mount - one intercepted mount of a FUSE file system.
 * @source: first argument of mount(2), what /proc/mounts would show; may be empty
 * @type: "fuse", "fuse.sshfs", "fuseblk", ...
 * @target: mount point as the daemon named it; may be relative ("." from fusermount3)
 * @fd: the daemon's descriptor number of its /dev/fuse
 * @max_read: bytes that a READ may ask for at most; 0 for no limit
 * @blksize: fuseblk's block size; 0 when not given
 * @rootmode: file type of the root, S_IFDIR or S_IFREG
 * @user_id: owner of the mount
 * @group_id: group of the mount
 * @default_permissions: the kernel checks permissions
 * @allow_other: users other than the owner may come in
 * @read_only: MS_RDONLY, or "ro" among the options
 * @has_context: an option names a security context
 * @flags: of mount(2), without MS_RDONLY's
 */
struct launch_mount {
	char source[LAUNCH_NAME_BYTES];
	char type[LAUNCH_NAME_BYTES];
	char target[PATH_MAX];
	int fd;
	uint32_t max_read;
	uint32_t blksize;
	mode_t rootmode;
	uid_t user_id;
	gid_t group_id;
	bool default_permissions;
	bool allow_other;
	bool read_only;
	bool has_context;
	unsigned long flags;
};

/** LAUNCH_FLAGS_BYTES - enough for mount_options_flags(). */
#define LAUNCH_FLAGS_BYTES 128

/** mount_options_is_fuse() - does a mount of this type concern us: "fuse", "fuseblk", and both with a subtype behind a dot? */
bool mount_options_is_fuse(const char *type);

/**
 * mount_options_parse() - read the data argument of a FUSE mount into @mnt (Linux, fs/fuse/inode.c).
 * @data: comma-separated options; changed
 *
 * Return: 0 with the fields from @mnt->fd on set that are named in @data; -EINVAL for what the kernel would
 * refuse: an unknown option, a bad number, no fd, rootmode, user_id or group_id.
 */
int must_check mount_options_parse(char *data, struct launch_mount *mnt);

/**
 * mount_options_flags() - what of the mount's flags another mount of the file system has to repeat.
 * @buf: LAUNCH_FLAGS_BYTES: options of mount(8), comma-separated: "ro,nosuid,nodev"; "" for none
 */
void mount_options_flags(const struct launch_mount *mnt, char *buf);

/**
 * mount_options_replace_fd() - the same options with another descriptor.
 * @data: as mount_options_parse() takes it
 *
 * Async-signal-safe. Return: 0, or -ENAMETOOLONG when @size does not suffice.
 */
int must_check mount_options_replace_fd(const char *data, int fd, char *buf, size_t size);

#endif
