/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel service and a queue thread that is awake: it waits for replies, and what is held back meanwhile.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/cm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "peer.h"

static bool is_readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

/* A queue thread sleeps until a reply is there; it alone, and only for what is owed. */
static void test_wait(void **state)
{
	const struct service_ops *ops;
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req, *lost = getattr(2);
	bool ours = false;
	int fd = -1;

	attach_ready(t, 0);
	ops = t->svc->ops;
	assert_true(ops->poll_begin(t->svc));
	assert_int_equal(ops->wait_begin(t->svc), -1);
	/* Nobody else is told of replies. The reply thread may take one all the same, if it is at work at the moment: not each. */
	for (uint64_t i = 2; !ours; i++) {
		assert_true(i < 20);
		req = getattr(2 * i);
		fake_submit(t->svc, req);
		fd = ops->wait_begin(t->svc);
		assert_true(fd >= 0);
		assert_int_equal(ops->wait_begin(t->svc), -1);
		assert_false(is_readable(fd, 20));
		daemon_receive(t, t->daemon);
		daemon_reply(t->daemon, 2 * i, 0, &attr, sizeof(attr));
		usleep(20000);
		ours = is_readable(fd, 0) && ops->poll(t->svc);
		ops->wait_end(t->svc);
		assert_int_equal(fake_wait(req), 0);
		fake_free(req);
	}
	assert_int_equal(ops->wait_begin(t->svc), -1);
	fake_submit(t->svc, lost);
	assert_int_equal(ops->wait_begin(t->svc), fd);
	close_fd(&t->daemon);
	assert_int_equal(fake_wait(lost), -EIO);
	ops->wait_end(t->svc);
	assert_int_equal(ops->wait_begin(t->svc), -1);
	ops->poll_end(t->svc);
	fake_free(lost);
}

/* READs at a time, and their bytes: more than is handed out at once. */
enum {
	NR = 16,
	SIZE = 128 << 10
};

/* Messages that the daemon has not read. */
static unsigned int count_unread(int fd)
{
	int bytes;

	assert_int_equal(ioctl(fd, SIOCOUTQ, &bytes), 0);
	return (unsigned int)bytes / 768;
}

/* As attach_ready(). Return: our end of the socket, or -1 when the replies do not fit it: neither root nor a large net.core.wmem_max. */
static int attach_large(struct test *t)
{
	socklen_t len = sizeof(int);
	int ours = attach_ready(t, 0), room;

	assert_int_equal(getsockopt(ours, SOL_SOCKET, SO_SNDBUF, &room, &len), 0);
	return room < 4 * NR * SIZE ? -1 : ours;
}

static void submit_reads(struct test *t, struct request **req)
{
	for (uint64_t i = 0; i < NR; i++) {
		req[i] = read_of(2 + 2 * i, i * SIZE, SIZE);
		fake_submit(t->svc, req[i]);
	}
}

/* All come, in their order. @ours: with as many unread ones as are handed out, by a thread that looks for replies; -1: nobody looks. */
static void receive_reads(struct test *t, int ours)
{
	for (uint64_t i = 0; i < NR; i++) {
		daemon_receive(t, t->daemon);
		assert_int_equal(t->in.unique, 2 + 2 * i);
		if (ours < 0)
			continue;
		/* The reply thread may be at work for a moment. */
		for (int n = 0; n < 10000 && !count_unread(ours) && i + 1 < NR; n++)
			t->svc->ops->poll(t->svc);
		assert_in_range(count_unread(ours), i + 1 < NR, NR / 2);
	}
}

static void end_reads(struct test *t, struct request **req)
{
	for (uint64_t i = 0; i < NR; i++) {
		daemon_reply(t->daemon, 2 + 2 * i, -ENOENT, NULL, 0);
		t->svc->ops->poll(t->svc);
		assert_int_equal(fake_wait(req[i]), -ENOENT);
		fake_free(req[i]);
	}
}

static void test_not_held(void **state)
{
	struct test *t = *state;
	struct request *req[NR];
	int ours = attach_large(t);

	if (ours < 0)
		skip();
	submit_reads(t, req);
	assert_in_range(count_unread(ours), NR, 2 * NR);
	receive_reads(t, -1);
	for (uint64_t i = 0; i < NR; i++) {
		daemon_reply(t->daemon, 2 + 2 * i, -ENOENT, NULL, 0);
		assert_int_equal(fake_wait(req[i]), -ENOENT);
		fake_free(req[i]);
	}
}

/* The test is skipped where there is no room. Return: our end of the socket, with what was not held back. */
static int begin_held(struct test *t, struct request **req)
{
	int ours = attach_large(t);

	if (ours < 0)
		skip();
	assert_true(t->svc->ops->poll_begin(t->svc));
	submit_reads(t, req);
	assert_in_range(count_unread(ours), 2, NR / 2);
	return ours;
}

/* While somebody looks for replies the daemon is handed large requests as it reads: one that waits for a server with each gets all. */
static void test_hold(void **state)
{
	struct test *t = *state;
	struct request *req[NR];
	int ours = begin_held(t, req);

	/* There is more to look for than replies. */
	assert_int_equal(t->svc->ops->wait_begin(t->svc), -1);
	receive_reads(t, ours);
	end_reads(t, req);
	t->svc->ops->poll_end(t->svc);
}

/* Nobody looks any more: nothing stays behind. */
static void test_hold_ends(void **state)
{
	struct test *t = *state;
	struct request *req[NR];
	int ours = begin_held(t, req);

	t->svc->ops->poll_end(t->svc);
	for (int i = 0; i < 10000 && count_unread(ours) < NR; i++)
		usleep(1000);
	assert_in_range(count_unread(ours), NR, 2 * NR);
	receive_reads(t, -1);
	assert_true(t->svc->ops->poll_begin(t->svc));
	end_reads(t, req);
	t->svc->ops->poll_end(t->svc);
}

/* A daemon that ends with requests held back for it loses them as any others. */
static void test_hold_and_death(void **state)
{
	struct test *t = *state;
	struct request *req[16];

	attach_ready(t, 0);
	assert_true(t->svc->ops->poll_begin(t->svc));
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = read_of(2 + 2 * i, 0, 1 << 20);
		fake_submit(t->svc, req[i]);
	}
	close_fd(&t->daemon);
	for (unsigned int i = 0; i < array_size(req); i++) {
		assert_int_equal(fake_wait(req[i]), -EIO);
		fake_free(req[i]);
	}
	wait_count(&t->nr_lost, 1);
	t->svc->ops->poll_end(t->svc);
	attach_ready(t, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_wait),	   T(test_not_held),	   T(test_hold),
		T(test_hold_ends), T(test_hold_and_death),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
