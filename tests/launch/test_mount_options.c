/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The data argument of a FUSE mount: what the kernel takes and what it refuses.
 */
#include "../base/cm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "launch/mount_options.h"

static int parse(const char *text, struct launch_mount *mnt)
{
	char data[512];

	memset(mnt, 0, sizeof(*mnt));
	snprintf(data, sizeof(data), "%s", text);
	return mount_options_parse(data, mnt);
}

static void test_types(void **state)
{
	static const char *const yes[] = { "fuse", "fuseblk", "fuse.sshfs", "fuseblk.ntfs",
					   "fuse." };
	static const char *const no[] = { "",	   "fus",      "fusectl", "fusex",
					  "tmpfs", "fuseblkx", "xfuse" };

	for (unsigned int i = 0; i < array_size(yes); i++)
		assert_true(mount_options_is_fuse(yes[i]));
	for (unsigned int i = 0; i < array_size(no); i++)
		assert_false(mount_options_is_fuse(no[i]));
}

static void test_all(void **state)
{
	struct launch_mount m;

	assert_int_equal(parse("allow_other,default_permissions,fd=4,rootmode=100000,user_id=1,"
			       "group_id=2,max_read=131072,blksize=512,subtype=x",
			       &m),
			 0);
	assert_int_equal(m.fd, 4);
	assert_int_equal(m.rootmode, S_IFREG);
	assert_int_equal(m.user_id, 1);
	assert_int_equal(m.group_id, 2);
	assert_int_equal(m.max_read, 131072);
	assert_int_equal(m.blksize, 512);
	assert_true(m.allow_other && m.default_permissions);
	assert_int_equal(parse("fd=0", &m), 0);
	assert_int_equal(m.max_read, 0);
	assert_false(m.allow_other || m.default_permissions);
	assert_int_equal(parse("fd=2147483647,max_read=4294967295", &m), 0);
	assert_int_equal(m.max_read, UINT32_MAX);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"max_read=1",
		"fd=",
		"fd",
		"fd=-1",
		"fd=x",
		"fd=4x",
		"fd= 4",
		"fd=2147483648",
		"fd=4,bogus",
		"fd=4,max_read=4294967296",
		"fd=4,max_read=99999999999999999999",
		"fd=4,rootmode=8",
		"fd=4,=1",
		"fd=+4",
	};
	struct launch_mount m;

	for (unsigned int i = 0; i < array_size(bad); i++) {
		if (parse(bad[i], &m) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
