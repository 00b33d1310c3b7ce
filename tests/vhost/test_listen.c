/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket: what stands in its way, its mode, and that only our own path is removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "vhost/listen.h"

static char dir[] = "/tmp/fusewire-listen-XXXXXX";
static char text[VHOST_LISTEN_TEXT];

static int group_setup(void **state)
{
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int group_teardown(void **state)
{
	return chdir("/") < 0 || rmdir(dir) < 0;
}

static int open_at(struct vhost_listener *l, const char *path)
{
	text[0] = 0;
	return vhost_listen_open(l, path, VHOST_LISTEN_NO_GROUP, text);
}

static bool can_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static void test_mode_and_removal(void **state)
{
	mode_t masks[] = { 0, 022, 077 };
	struct vhost_listener l;
	struct stat st;

	for (unsigned int i = 0; i < array_size(masks); i++) {
		mode_t old = umask(masks[i]);

		assert_int_equal(open_at(&l, "s"), 0);
		umask(old);
		assert_int_equal(stat("s", &st), 0);
		assert_int_equal(st.st_mode, S_IFSOCK | 0600);
		assert_true(fcntl(l.fd, F_GETFD) & FD_CLOEXEC);
		assert_true(can_connect("s"));
		vhost_listen_close(&l);
		assert_int_equal(stat("s", &st), -1);
		vhost_listen_close(&l);
	}
}

static void test_group(void **state)
{
	struct vhost_listener l;
	struct stat st;

	assert_int_equal(vhost_listen_open(&l, "s", getgid(), text), 0);
	assert_int_equal(stat("s", &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0660);
	assert_int_equal(st.st_gid, getgid());
	vhost_listen_close(&l);
}

static void test_stale_is_replaced(void **state)
{
	struct vhost_listener l, stale;

	assert_int_equal(open_at(&stale, "s"), 0);
	close_fd(&stale.fd);
	assert_int_equal(open_at(&l, "s"), 0);
	assert_true(can_connect("s"));
	vhost_listen_close(&stale);
	assert_true(can_connect("s"));
	vhost_listen_close(&l);
}

static void test_path_of_another_is_kept(void **state)
{
	struct vhost_listener first, second;

	assert_int_equal(open_at(&first, "s"), 0);
	assert_int_equal(unlink("s"), 0);
	assert_int_equal(open_at(&second, "s"), 0);
	vhost_listen_close(&first);
	assert_true(can_connect("s"));
	vhost_listen_close(&second);
	assert_false(can_connect("s"));
}

static void test_served_is_left_alone(void **state)
{
	struct vhost_listener l, other;

	assert_int_equal(open_at(&l, "s"), 0);
	assert_int_equal(open_at(&other, "s"), -EADDRINUSE);
	assert_non_null(strstr(text, "another process serves"));
	assert_true(can_connect("s"));
	/* Also when its backlog is full. */
	for (int i = 0; i < 20; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "s" };

		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
			close(fd);
			break;
		}
		close(fd);
	}
	assert_int_equal(open_at(&other, "s"), -EADDRINUSE);
	vhost_listen_close(&l);
}

static void test_not_a_socket(void **state)
{
	struct vhost_listener l;
	struct stat st;
	int fd = open("file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	close(fd);
	assert_int_equal(open_at(&l, "file"), -EEXIST);
	assert_non_null(strstr(text, "not a socket"));
	assert_int_equal(stat("file", &st), 0);
	unlink("file");
	assert_int_equal(symlink("nowhere", "link"), 0);
	assert_int_equal(open_at(&l, "link"), -EEXIST);
	assert_int_equal(lstat("link", &st), 0);
	unlink("link");
}

static void test_paths(void **state)
{
	char path[110];
	struct vhost_listener l;

	assert_int_equal(open_at(&l, ""), -EINVAL);
	assert_int_equal(open_at(&l, "missing/s"), -ENOENT);
	assert_non_null(strstr(text, "missing/s: no folder"));
	memset(path, 'x', sizeof(path));
	path[107] = 0;
	assert_int_equal(open_at(&l, path), 0);
	vhost_listen_close(&l);
	path[107] = 'x';
	path[108] = 0;
	assert_int_equal(open_at(&l, path), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mode_and_removal),
		cmocka_unit_test(test_group),
		cmocka_unit_test(test_stale_is_replaced),
		cmocka_unit_test(test_served_is_left_alone),
		cmocka_unit_test(test_path_of_another_is_kept),
		cmocka_unit_test(test_not_a_socket),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
