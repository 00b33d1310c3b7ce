/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptor helpers: wake-ups on eventfds and pipes, sealed memory, hand-over of ownership.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "cm.h"

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_eventfd(void **state)
{
	autoclose int fd = eventfd_new();

	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fd_drain_signal(fd), 0);
	assert_int_equal(fd_signal(fd), 0);
	assert_int_equal(fd_signal(fd), 0);
	/* Both signals are one wake-up. */
	assert_int_equal(fd_drain_signal(fd), 1);
	assert_int_equal(fd_drain_signal(fd), 0);
}

static void test_eventfd_full(void **state)
{
	const uint64_t full = UINT64_MAX - 1;
	autoclose int fd = eventfd_new();

	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	assert_int_equal(fd_signal(fd), 0);
	assert_int_equal(fd_drain_signal(fd), 1);
}

static void test_pipe(void **state)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(fd_drain_signal(fds[0]), 0);
	assert_int_equal(fd_signal(fds[1]), 0);
	assert_int_equal(fd_drain_signal(fds[0]), 1);
	assert_int_equal(fd_drain_signal(fds[0]), 0);

	/* A full pipe has a wake-up waiting. */
	for (int i = 0; i < 1 << 17; i++)
		assert_int_equal(fd_signal(fds[1]), 0);
	assert_int_equal(fd_drain_signal(fds[0]), 1);

	close_fd(&fds[0]);
	assert_int_equal(fd_signal(fds[1]), -EPIPE);
	close_fd(&fds[1]);

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	close_fd(&fds[1]);
	assert_int_equal(fd_drain_signal(fds[0]), -EPIPE);
	close_fd(&fds[0]);
}

static void test_bad_fd(void **state)
{
	assert_int_equal(fd_signal(-1), -EBADF);
	assert_int_equal(fd_drain_signal(-1), -EBADF);
	assert_int_equal(fd_set_nonblock(-1, true), -EBADF);
}

static void test_nonblock(void **state)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fd_set_nonblock(fds[0], true), 0);
	assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_set_nonblock(fds[0], true), 0);
	assert_int_equal(fd_set_nonblock(fds[0], false), 0);
	assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	close_fd(&fds[0]);
	close_fd(&fds[1]);
}

static void test_memfd(void **state)
{
	autoclose int fd = memfd_new("test", 8192);
	struct stat st;

	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	/* Nobody who gets the descriptor can take the memory away under a mapping. */
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 16384), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);

	assert_int_equal(memfd_new("test", (uint64_t)INT64_MAX + 1), -EFBIG);
}

static void test_close_fd(void **state)
{
	int fd = eventfd_new(), copy = fd, none = -1;

	errno = ENOTTY;
	close_fd(&fd);
	assert_int_equal(fd, -1);
	assert_false(is_open(copy));
	errno = ENOTTY;
	close_fd(&fd);
	close_fd(&none);
	assert_int_equal(errno, ENOTTY);
}

static int hand_over(int *inner)
{
	autoclose int fd = eventfd_new();
	autoclose int lost = eventfd_new();

	*inner = lost;
	return TAKE_FD(fd);
}

static void test_ownership(void **state)
{
	autofree char *text = strdup("x");
	char *taken = TAKE_PTR(text);
	int lost;
	int fd = hand_over(&lost);

	assert_null(text);
	assert_string_equal(taken, "x");
	free(taken);
	assert_true(is_open(fd));
	assert_false(is_open(lost));
	close_fd(&fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_eventfd),	 cmocka_unit_test(test_eventfd_full),
		cmocka_unit_test(test_pipe),	 cmocka_unit_test(test_bad_fd),
		cmocka_unit_test(test_nonblock), cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_close_fd), cmocka_unit_test(test_ownership),
	};
	const struct sigaction ignore = { .sa_handler = SIG_IGN };

	/* As every fusewire process does: a peer may close its end of a pipe. */
	sigaction(SIGPIPE, &ignore, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
