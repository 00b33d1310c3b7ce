/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The data argument of a FUSE mount: what the kernel takes and what it refuses.
 */
#include "../base/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/mount_options.h"

/* Without these the kernel refuses. */
#define NEEDED ",rootmode=40000,user_id=0,group_id=0"

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
	assert_int_equal(parse("fd=0" NEEDED, &m), 0);
	assert_int_equal(m.max_read, 0);
	assert_false(m.allow_other || m.default_permissions || m.read_only || m.has_context);
	assert_int_equal(parse("fd=2147483647,max_read=4294967295" NEEDED, &m), 0);
	assert_int_equal(m.max_read, UINT32_MAX);
	assert_int_equal(parse("fd=1,max_read=0" NEEDED, &m), 0);
	assert_int_equal(m.max_read, 4096);
	assert_int_equal(parse("fd=1,ro,context=a:b" NEEDED, &m), 0);
	assert_true(m.read_only && m.has_context);
	assert_int_equal(parse("fd=1,ro,rw" NEEDED, &m), 0);
	assert_false(m.read_only);
}

/* Each is taken or refused as the kernel does it; @refused says what that is where there is no kernel to ask. */
static const struct {
	const char *text; /* behind "fd=" and a number */
	bool refused;
} samples[] = {
	{ NEEDED, false },
	{ ",max_read=1" NEEDED, false },
	{ ",max_read=0,allow_other,default_permissions" NEEDED, false },
	{ ",subtype=x" NEEDED, false },
	{ "," NEEDED ",,", false },
	{ ",ro,sync,async,dirsync,lazytime,nolazytime,rw,mand,nomand" NEEDED, false },
	{ "", true },
	{ ",rootmode=40000,user_id=0", true },
	{ ",rootmode=40000,group_id=0", true },
	{ ",user_id=0,group_id=0", true },
	{ ",rootmode=0,user_id=0,group_id=0", true },
	{ ",rootmode=40755,user_id=0,group_id=0", false },
	{ ",rootmode=8,user_id=0,group_id=0", true },
	{ ",rootmode=40000,user_id=4294967295,group_id=0", true },
	{ ",rootmode=40000,user_id=0,group_id=-1", true },
	{ ",rootmode=40000,user_id=x,group_id=0", true },
	{ ",rootmode=40000,user_id,group_id=0", true },
	{ ",allow_other=1" NEEDED, true },
	{ ",bogus" NEEDED, true },
	{ ",nosuid" NEEDED, true },
	{ ",fsname=x" NEEDED, true },
	{ ",nonempty" NEEDED, true },
	{ ",auto_unmount" NEEDED, true },
	{ ",max_read=" NEEDED, true },
	{ ",max_read" NEEDED, true },
	{ ",max_read=4294967296" NEEDED, true },
	{ ",max_read=99999999999999999999" NEEDED, true },
	{ ",max_read=4k" NEEDED, true },
	{ ",=1" NEEDED, false },
};

static void test_samples(void **state)
{
	struct launch_mount m;
	char text[512];

	for (unsigned int i = 0; i < array_size(samples); i++) {
		snprintf(text, sizeof(text), "fd=4%s", samples[i].text);
		if ((parse(text, &m) == -EINVAL) != samples[i].refused)
			fail_msg("'%s' was %s", text, samples[i].refused ? "taken" : "refused");
	}
}

static void test_kernel(void **state)
{
	char text[512];

	if (geteuid() || access("/dev/fuse", W_OK) < 0 || unshare(CLONE_NEWNS) < 0)
		skip();
	assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	for (unsigned int i = 0; i < array_size(samples); i++) {
		int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
		int err;

		snprintf(text, sizeof(text), "fd=%d%s", fd, samples[i].text);
		err = mount("x", "/tmp", "fuse", 0, text) < 0 ? errno : 0;
		if (!err)
			assert_int_equal(umount2("/tmp", MNT_DETACH), 0);
		close(fd);
		if ((err == EINVAL) != samples[i].refused || (err && err != EINVAL))
			fail_msg("'%s': the kernel says %d", text, err);
	}
}

static void test_bad_fd(void **state)
{
	static const char *const bad[] = {
		"" NEEDED,	"fd=" NEEDED,		"fd" NEEDED,
		"fd=-1" NEEDED, "fd=x" NEEDED,		"fd=4x" NEEDED,
		"fd= 4" NEEDED, "fd=2147483648" NEEDED, "fd=+4" NEEDED,
	};
	struct launch_mount m;

	for (unsigned int i = 0; i < array_size(bad); i++) {
		if (parse(bad[i], &m) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	}
}

static void test_flags(void **state)
{
	struct launch_mount m = { .flags = 0 };
	char buf[LAUNCH_FLAGS_BYTES];

	mount_options_flags(&m, buf);
	assert_string_equal(buf, "");
	m.flags = MS_NODEV | MS_NOEXEC;
	m.read_only = true;
	mount_options_flags(&m, buf);
	assert_string_equal(buf, "ro,nodev,noexec");
	m.flags = ~0ul;
	mount_options_flags(&m, buf);
	assert_string_equal(buf, "ro,nosuid,nodev,noexec,sync,dirsync,noatime,nodiratime");
}

static void test_replace_fd(void **state)
{
	char buf[64];

	assert_int_equal(mount_options_replace_fd("", 3, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "fd=3");
	assert_int_equal(mount_options_replace_fd("a,fd=17,b=fd=2,,fdx=1", 3, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "fd=3,a,b=fd=2,fdx=1");
	assert_int_equal(mount_options_replace_fd("abc", 3, buf, 9), 0);
	assert_string_equal(buf, "fd=3,abc");
	assert_int_equal(mount_options_replace_fd("abc", 3, buf, 8), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),	   cmocka_unit_test(test_all),
		cmocka_unit_test(test_samples),	   cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_bad_fd),	   cmocka_unit_test(test_flags),
		cmocka_unit_test(test_replace_fd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
