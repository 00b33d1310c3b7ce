/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's mount(2) says about its file system, and its INIT does not.
 */
#include "launch/mount_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

bool mount_options_is_fuse(const char *type)
{
	return !strcmp(type, "fuse") || !strcmp(type, "fuseblk") || !strncmp(type, "fuse.", 5) ||
	       !strncmp(type, "fuseblk.", 8);
}

static int option_number(const char *text, int base, uint32_t *ret_value)
{
	unsigned long v;
	char *end;

	if (!text || text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(text, &end, base);
	if (errno || *end || v > UINT32_MAX)
		return -EINVAL;
	*ret_value = (uint32_t)v;
	return 0;
}

/* Names of struct launch_mount's options that the kernel insists on. */
enum option_seen {
	SEEN_FD = 1,
	SEEN_ROOTMODE = 2,
	SEEN_USER_ID = 4,
	SEEN_GROUP_ID = 8,
	SEEN_ALL = 15,
};

/* The VFS takes these of every file system, security modules the contexts. */
static bool option_is_general(const char *key, const char *value, struct launch_mount *mnt)
{
	static const char *const flags[] = { "ro",	 "rw",	       "sync", "async", "dirsync",
					     "lazytime", "nolazytime", "mand", "nomand" };
	static const char *const contexts[] = { "context", "fscontext", "defcontext",
						"rootcontext" };

	for (size_t i = 0; i < array_size(flags); i++) {
		if (strcmp(key, flags[i]) != 0)
			continue;
		if (i < 2)
			mnt->read_only = i == 0;
		return true;
	}
	for (size_t i = 0; i < array_size(contexts); i++) {
		if (strcmp(key, contexts[i]) == 0) {
			mnt->has_context = true;
			return value;
		}
	}
	return false;
}

static int option_flag(const char *value, bool *ret_flag)
{
	*ret_flag = true;
	return value ? -EINVAL : 0;
}

static int option_id(const char *value, uint32_t *ret_id)
{
	int err = option_number(value, 10, ret_id);

	/* No user and no group has this number. */
	return !err && *ret_id == UINT32_MAX ? -EINVAL : err;
}

static int option_rootmode(const char *value, mode_t *ret_mode)
{
	uint32_t v = 0;
	int err = option_number(value, 8, &v);

	*ret_mode = v;
	if (!err && !(S_ISREG(v) || S_ISDIR(v) || S_ISLNK(v) || S_ISCHR(v) || S_ISBLK(v) ||
		      S_ISFIFO(v) || S_ISSOCK(v)))
		err = -EINVAL;
	return err;
}

static int option_apply(const char *key, const char *value, struct launch_mount *mnt,
			unsigned int *seen)
{
	uint32_t v = 0;
	int err = 0;

	if (!strcmp(key, "default_permissions")) {
		err = option_flag(value, &mnt->default_permissions);
	} else if (!strcmp(key, "allow_other")) {
		err = option_flag(value, &mnt->allow_other);
	} else if (!strcmp(key, "fd")) {
		*seen |= SEEN_FD;
		err = option_number(value, 10, &v);
		if (!err && v > INT_MAX)
			err = -EINVAL;
		mnt->fd = (int)v;
	} else if (!strcmp(key, "max_read")) {
		err = option_number(value, 10, &v);
		mnt->max_read = max_of(v, 4096u);
	} else if (!strcmp(key, "blksize")) {
		err = option_number(value, 10, &mnt->blksize);
	} else if (!strcmp(key, "rootmode")) {
		*seen |= SEEN_ROOTMODE;
		err = option_rootmode(value, &mnt->rootmode);
	} else if (!strcmp(key, "user_id")) {
		*seen |= SEEN_USER_ID;
		err = option_id(value, &mnt->user_id);
	} else if (!strcmp(key, "group_id")) {
		*seen |= SEEN_GROUP_ID;
		err = option_id(value, &mnt->group_id);
	} else if (strcmp(key, "subtype") != 0 && !option_is_general(key, value, mnt)) {
		err = -EINVAL;
	}
	return err;
}

int mount_options_parse(char *data, struct launch_mount *mnt)
{
	unsigned int seen = 0;
	char *save = NULL;

	mnt->fd = -1;
	for (char *opt = strtok_r(data, ",", &save); opt; opt = strtok_r(NULL, ",", &save)) {
		char *value = strchr(opt, '=');
		int err;

		if (value)
			*value++ = '\0';
		/* The kernel skips a value without a name. */
		err = *opt ? option_apply(opt, value, mnt, &seen) : 0;
		if (err)
			return err;
	}
	return seen == SEEN_ALL ? 0 : -EINVAL;
}

void mount_options_flags(const struct launch_mount *mnt, char *buf)
{
	static const struct {
		unsigned long flag;
		const char *name;
	} names[] = {
		{ MS_NOSUID, "nosuid" },	 { MS_NODEV, "nodev" },
		{ MS_NOEXEC, "noexec" },	 { MS_SYNCHRONOUS, "sync" },
		{ MS_DIRSYNC, "dirsync" },	 { MS_NOATIME, "noatime" },
		{ MS_NODIRATIME, "nodiratime" },
	};
	size_t used = 0;

	buf[0] = '\0';
	if (mnt->read_only)
		used = (size_t)snprintf(buf, LAUNCH_FLAGS_BYTES, "ro");
	for (size_t i = 0; i < array_size(names); i++) {
		if (mnt->flags & names[i].flag)
			used += (size_t)snprintf(buf + used, LAUNCH_FLAGS_BYTES - used, "%s%s",
						 used ? "," : "", names[i].name);
	}
}

int mount_options_replace_fd(const char *data, int fd, char *buf, size_t size)
{
	int n = snprintf(buf, size, "fd=%d", fd);
	size_t used = (size_t)n;

	while (n >= 0 && used < size && *data) {
		size_t len = strcspn(data, ",");

		if (len && strncmp(data, "fd=", 3) != 0) {
			n = snprintf(buf + used, size - used, ",%.*s", (int)len, data);
			used += (size_t)n;
		}
		data += len + (data[len] == ',');
	}
	return n < 0 || used >= size ? -ENAMETOOLONG : 0;
}
