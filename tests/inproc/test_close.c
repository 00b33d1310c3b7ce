/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors that stand for /dev/fuse are closed many at once: what is known of them goes with them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse_dev.h"
#include "marks.h"

static unsigned int nr_closed;

enum fuse_dev_way fuse_dev_way(void)
{
	return FUSE_DEV_OFF;
}

int fuse_dev_owner(void)
{
	return 0;
}

void fuse_dev_closed(void)
{
	nr_closed++;
}

struct service *fuse_dev_service(void)
{
	return NULL;
}

ssize_t fuse_dev_read_loan(struct service *svc, int fd, const struct iovec *iov,
			   struct inproc_loan *loan)
{
	return -ENODEV;
}

ssize_t fuse_dev_read(int fd, const struct iovec *iov, unsigned int nr)
{
	return -ENODEV;
}

ssize_t fuse_dev_write(int fd, const struct iovec *iov, unsigned int nr)
{
	return -ENODEV;
}

void fuse_dev_wait_init(int fd)
{
}

int alone_open(int flags)
{
	return -ENODEV;
}

int alone_mount(const char *source, const char *target, const char *type, unsigned long flags,
		const char *data)
{
	return -ENODEV;
}

bool alone_umount(const char *target)
{
	return false;
}

/* Two, with nothing above them. */
static int setup(void **state)
{
	static int fds[2];

	for (int i = 0; i < 2; i++) {
		fds[i] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 900 + i);
		assert_int_equal(fds[i], 900 + i);
		mark(fds[i]);
	}
	nr_closed = 0;
	*state = fds;
	return 0;
}

static int teardown(void **state)
{
	const int *fds = *state;

	for (int i = 0; i < 2; i++)
		close(fds[i]);
	return 0;
}

static void check_closed(const int *fds)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFD), -1);
		assert_false(marked(fds[i]));
	}
	assert_int_equal(nr_closed, 1);
}

static void test_close_range(void **state)
{
	const int *fds = *state;

	assert_int_equal(close_range(901, 901, 0), 0);
	assert_true(marked(fds[0]));
	assert_false(marked(fds[1]));
	assert_int_equal(nr_closed, 0);
	assert_int_equal(close_range(900, ~0u, 0), 0);
	check_closed(fds);
}

static void test_closefrom(void **state)
{
	closefrom(900);
	check_closed(*state);
}

/* They are open still. */
static void test_nothing_closed(void **state)
{
	const int *fds = *state;

	assert_int_equal(close_range(900, ~0u, CLOSE_RANGE_CLOEXEC), 0);
	assert_int_equal(close_range(901, 900, 0), -1);
	assert_int_equal(close_range(900, ~0u, 1 << 20), -1);
	assert_true(marked(fds[0]) && marked(fds[1]));
	assert_int_equal(nr_closed, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_close_range),
		TEST(test_closefrom),
		TEST(test_nothing_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
