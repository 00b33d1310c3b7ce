/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon's mount(2) says about its file system, and its INIT does not.
 */
#include "launch/mount_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int option_apply(const char *key, const char *value, struct launch_mount *mnt)
{
	uint32_t v = 0;
	int err = 0;

	if (!strcmp(key, "default_permissions")) {
		mnt->default_permissions = true;
	} else if (!strcmp(key, "allow_other")) {
		mnt->allow_other = true;
	} else if (!strcmp(key, "fd")) {
		err = option_number(value, 10, &v);
		if (!err && v > INT_MAX)
			err = -EINVAL;
		mnt->fd = (int)v;
	} else if (!strcmp(key, "max_read")) {
		err = option_number(value, 10, &mnt->max_read);
	} else if (!strcmp(key, "blksize")) {
		err = option_number(value, 10, &mnt->blksize);
	} else if (!strcmp(key, "rootmode")) {
		err = option_number(value, 8, &v);
		mnt->rootmode = v;
	} else if (!strcmp(key, "user_id")) {
		err = option_number(value, 10, &mnt->user_id);
	} else if (!strcmp(key, "group_id")) {
		err = option_number(value, 10, &mnt->group_id);
	} else if (strcmp(key, "subtype") && strcmp(key, "context") && strcmp(key, "fscontext") &&
		   strcmp(key, "defcontext") && strcmp(key, "rootcontext")) {
		err = -EINVAL;
	}
	return err;
}

int mount_options_parse(char *data, struct launch_mount *mnt)
{
	char *save = NULL;

	mnt->fd = -1;
	for (char *opt = strtok_r(data, ",", &save); opt; opt = strtok_r(NULL, ",", &save)) {
		char *value = strchr(opt, '=');
		int err;

		if (value)
			*value++ = '\0';
		err = option_apply(opt, value, mnt);
		if (err)
			return err;
	}
	return mnt->fd < 0 ? -EINVAL : 0;
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
