/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon that a test plays, at the other end of the channel's socket.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/cm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "peer.h"

static void on_ready(void *ctx, pid_t server)
{
	struct test *t = ctx;

	assert_int_equal(server, getpid());
	__atomic_fetch_add(&t->nr_ready, 1, __ATOMIC_RELEASE);
}

static void on_stopped(void *ctx)
{
	__atomic_fetch_add(&((struct test *)ctx)->nr_stopped, 1, __ATOMIC_RELEASE);
}

static void on_lost(void *ctx, const char *why)
{
	struct test *t = ctx;

	t->why = why;
	__atomic_fetch_add(&t->nr_lost, 1, __ATOMIC_RELEASE);
}

void wait_count(const unsigned int *count, unsigned int want)
{
	for (int i = 0; i < 10000 && __atomic_load_n(count, __ATOMIC_ACQUIRE) < want; i++)
		usleep(1000);
	assert_int_equal(__atomic_load_n(count, __ATOMIC_ACQUIRE), want);
}

/* The daemon takes one message. Returns its length, 0 at end of file. */
size_t daemon_receive(struct test *t, int fd)
{
	ssize_t n = recv(fd, t->buf, DAEMON_BUF, 0);

	assert_true(n >= 0);
	t->buf_len = (size_t)n;
	memcpy(&t->in, t->buf, min_of((size_t)n, sizeof(t->in)));
	if (n)
		assert_int_equal(t->in.len, n);
	return (size_t)n;
}

void daemon_send(int fd, uint64_t unique, int error, const void *body, size_t len,
		 uint32_t claimed_len)
{
	struct fuse_out_header out = { .len = claimed_len, .error = error, .unique = unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

	assert_true(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)(sizeof(out) + len));
}

void daemon_reply(int fd, uint64_t unique, int error, const void *body, size_t len)
{
	daemon_send(fd, unique, error, body, len, (uint32_t)(sizeof(struct fuse_out_header) + len));
}

const struct fuse_init_out good_init = {
	.major = 7,
	.minor = 31,
	.max_readahead = 131072,
	.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES,
	.max_background = 12,
	.congestion_threshold = 9,
	.max_write = 1 << 20,
	.time_gran = 1,
	.max_pages = 256,
};

const struct channel_limits no_limits;

void make_pair(int *ret_ours, int *ret_theirs)
{
	const int bytes = 8 << 20;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 2; i++) {
		if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
			setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	}
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
}

int attach(struct test *t, uint32_t max_read)
{
	struct channel_limits limits = { .max_read = max_read, .read_only = t->read_only };
	int ours;

	make_pair(&ours, &t->daemon);
	assert_int_equal(channel_attach(t->svc, ours, &limits), 0);
	assert_true(daemon_receive(t, t->daemon) > 0);
	assert_int_equal(t->in.opcode, FUSE_INIT);
	return ours;
}

int attach_ready(struct test *t, uint32_t max_read)
{
	struct fuse_init_out init = good_init;
	unsigned int before = t->nr_ready;
	int ours;

	if (t->max_write)
		init.max_write = t->max_write;
	ours = attach(t, max_read);
	daemon_reply(t->daemon, t->in.unique, 0, &init, sizeof(init));
	wait_count(&t->nr_ready, before + 1);
	return ours;
}

void attach_small(struct test *t, int bytes)
{
	int ours;

	make_pair(&ours, &t->daemon);
	assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
	assert_int_equal(channel_attach(t->svc, ours, &no_limits), 0);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, t->in.unique, 0, &good_init, sizeof(good_init));
	wait_count(&t->nr_ready, 1);
}

int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	struct channel_config config = {
		.events = { .ready = on_ready, .stopped = on_stopped, .lost = on_lost }
	};

	t->buf = malloc(DAEMON_BUF);
	t->daemon = -1;
	config.ctx = t;
	assert_int_equal(channel_new(&t->svc, &config), 0);
	channel_set_device(t->svc, (struct device *)t);
	fake_nr_died = 0;
	fake_nr_restarted = 0;
	fake_nr_notified = fake_nr_notified_after = 0;
	fake_before = NULL;
	*state = t;
	return 0;
}

int teardown(void **state)
{
	struct test *t = *state;

	t->svc->ops->free(t->svc);
	close_fd(&t->daemon);
	free(t->buf);
	free(t);
	return 0;
}

struct request *getattr(uint64_t unique)
{
	struct fuse_getattr_in arg = { 0 };

	return fake_request(FUSE_GETATTR, unique, &arg, sizeof(arg), sizeof(struct fuse_attr_out));
}

struct request *read_of(uint64_t unique, uint64_t offset, uint32_t size)
{
	struct fuse_read_in arg = { .offset = offset, .size = size };

	return fake_request(FUSE_READ, unique, &arg, sizeof(arg), size);
}

char pattern(uint64_t i)
{
	return (char)(i * 7 + (i >> 8) * 13 + (i >> 16) * 29);
}

void fill(char *buf, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(off + i);
}

void check_pattern(const char *buf, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (buf[i] != pattern(off + i))
			fail_msg("byte %zu is wrong", i);
	}
}

/* The daemon answers the READ that it took last, from the pattern. */
void daemon_answer_read(struct test *t, int fd, size_t max)
{
	struct fuse_read_in arg;
	size_t n;

	assert_int_equal(t->in.opcode, FUSE_READ);
	memcpy(&arg, t->buf + sizeof(t->in), sizeof(arg));
	n = min_of((size_t)arg.size, max);
	fill(t->buf, arg.offset, n);
	daemon_reply(fd, t->in.unique, 0, t->buf, n);
}
