/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel service and daemons that garble, flood, die and guess.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/cm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "peer.h"

static void test_garbage(void **state)
{
	struct test *t = *state;
	struct channel_counts counts;
	struct fuse_attr_out attr = { 0 };
	struct request *req = getattr(2), *other = getattr(4), *third = getattr(6);

	attach_ready(t, 0);
	fake_submit(t->svc, req);
	fake_submit(t->svc, other);
	fake_submit(t->svc, third);
	assert_true(send(t->daemon, "", 0, MSG_NOSIGNAL) == 0);
	assert_true(send(t->daemon, "x", 1, MSG_NOSIGNAL) == 1);
	assert_true(send(t->daemon, &attr, 15, MSG_NOSIGNAL) == 15);
	daemon_reply(t->daemon, 98, 0, NULL, 0); /* never asked */
	daemon_reply(t->daemon, UINT64_C(1) << 62 | 4, 0, NULL, 0); /* DESTROY was not sent */
	daemon_reply(t->daemon, UINT64_C(1) << 62 | 16, 0, NULL, 0); /* no split */
	daemon_reply(t->daemon, 3, -EAGAIN, NULL, 0); /* answer to an interrupt */
	daemon_reply(t->daemon, 0, FUSE_NOTIFY_INVAL_INODE, &attr, 24);
	daemon_reply(t->daemon, 0, 1000, NULL, 0);
	daemon_send(t->daemon, 2, 0, &attr, sizeof(attr), 5); /* lies about its length */
	assert_int_equal(fake_wait(req), -EIO);
	daemon_reply(t->daemon, 4, 5, NULL, 0); /* positive error */
	assert_int_equal(fake_wait(other), -EIO);
	daemon_reply(t->daemon, 6, -ENOENT, &attr, sizeof(attr)); /* error with a body */
	assert_int_equal(fake_wait(third), -EIO);
	daemon_reply(t->daemon, 6, 0, &attr, sizeof(attr)); /* twice */
	for (int i = 0; i < 1000; i++) {
		channel_get_counts(t->svc, &counts);
		if (counts.nr_unknown >= 4)
			break;
		usleep(1000);
	}
	assert_int_equal(counts.nr_unknown, 4);
	assert_int_equal(counts.nr_malformed, 7);
	assert_int_equal(counts.nr_notifications, 2);
	assert_int_equal(third->nr_ends, 1);
	assert_int_equal(t->nr_stopped, 0);
	assert_int_equal(t->nr_lost, 0);
	fake_free(req);
	fake_free(other);
	fake_free(third);
}

/* A reply longer than anything that we take; the request ends, and the next one works. */
static void test_huge_reply(void **state)
{
	struct test *t = *state;
	struct request *req = getattr(2), *big = read_of(4, 0, 65536), *next = getattr(6);
	struct fuse_attr_out attr = { 0 };

	attach_ready(t, 0);
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 2, 0, t->buf, (1 << 20) + (512 << 10));
	assert_int_equal(fake_wait(req), -EIO);
	fake_submit(t->svc, big);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 4, 0, t->buf, (1 << 20) + (512 << 10));
	assert_int_equal(fake_wait(big), -EIO);
	fake_submit(t->svc, next);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 6, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(next), 0);
	fake_free(req);
	fake_free(big);
	fake_free(next);
}

static void test_out_of_order(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req[200];

	attach_ready(t, 0);
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = getattr(2 + 2 * i);
		fake_submit(t->svc, req[i]);
	}
	for (unsigned int i = array_size(req); i-- > 0;) {
		attr.attr.ino = i;
		daemon_reply(t->daemon, 2 + 2 * i, 0, &attr, sizeof(attr));
		assert_int_equal(fake_wait(req[i]), 0);
		assert_memory_equal(req[i]->body, &attr, sizeof(attr));
		fake_free(req[i]);
	}
}

/* More than the socket and the table hold: nothing blocks, nothing is lost, order is kept; FORGETs too. */
static void test_flood(void **state)
{
	struct test *t = *state;
	enum {
		NR = 6000
	};
	struct request **req = calloc(NR, sizeof(*req));
	struct fuse_attr_out attr = { 0 };
	struct fuse_forget_in forget = { .nlookup = 1 };
	uint64_t last = 0;

	attach_ready(t, 0);
	for (unsigned int i = 0; i < NR; i++) {
		if (i % 2)
			req[i] = fake_request(FUSE_FORGET, 2 + 2 * i, &forget, sizeof(forget), 0);
		else
			req[i] = getattr(2 + 2 * i);
		req[i]->body = realloc(req[i]->body, 4096);
		fake_submit(t->svc, req[i]);
	}
	for (unsigned int i = 0; i < NR; i++) {
		daemon_receive(t, t->daemon);
		assert_true(t->in.unique > last);
		last = t->in.unique;
		assert_int_equal(t->in.opcode, i % 2 ? FUSE_FORGET : FUSE_GETATTR);
		if (i % 2 == 0)
			daemon_reply(t->daemon, t->in.unique, 0, &attr, sizeof(attr));
	}
	for (unsigned int i = 0; i < NR; i++) {
		assert_int_equal(fake_wait(req[i]), 0);
		fake_free(req[i]);
	}
	free(req);
}

/* Large writes that do not fit the socket together. */
static void test_flood_large(void **state)
{
	struct test *t = *state;
	struct request *req[64];
	char *data = malloc(1 << 20);
	struct iovec iov = { data, 1 << 20 };
	struct fuse_write_in arg = { .size = 1 << 20 };
	struct fuse_write_out out = { .size = 1 << 20 };

	attach_ready(t, 0);
	fill(data, 0, 1 << 20);
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = fake_request(FUSE_WRITE, 2 + 2 * i, &arg, sizeof(arg), sizeof(out));
		req[i]->payload = &iov;
		req[i]->nr_payload = 1;
		fake_submit(t->svc, req[i]);
	}
	for (unsigned int i = 0; i < array_size(req); i++) {
		assert_int_equal(daemon_receive(t, t->daemon), 80 + (1 << 20));
		assert_int_equal(t->in.unique, 2 + 2 * i);
		daemon_reply(t->daemon, t->in.unique, 0, &out, sizeof(out));
	}
	for (unsigned int i = 0; i < array_size(req); i++) {
		assert_int_equal(fake_wait(req[i]), 0);
		fake_free(req[i]);
	}
	free(data);
}

/* Death with requests unsent, sent, split and half answered: each ends once with EIO; then a new daemon. */
static void test_death_and_restart(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req[1500], *split[20], *again = getattr(9998);

	attach_ready(t, 4096);
	for (unsigned int i = 0; i < array_size(split); i++) {
		split[i] = read_of(10002 + 2 * i, 0, 16384);
		fake_submit(t->svc, split[i]);
	}
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = getattr(2 + 2 * i);
		req[i]->body = realloc(req[i]->body, 4096);
		fake_submit(t->svc, req[i]);
	}
	daemon_receive(t, t->daemon);
	daemon_answer_read(t, t->daemon, SIZE_MAX);
	close_fd(&t->daemon);
	wait_count(&t->nr_lost, 1);
	for (unsigned int i = 0; i < array_size(split); i++) {
		int err = fake_wait(split[i]);

		/* The first has its first part. */
		assert_true(err == -EIO || (!err && !i));
		fake_free(split[i]);
	}
	for (unsigned int i = 0; i < array_size(req); i++) {
		assert_int_equal(fake_wait(req[i]), -EIO);
		fake_free(req[i]);
	}
	assert_int_equal(fake_nr_died, 1);
	fake_submit(t->svc, again);
	assert_int_equal(fake_wait(again), -EIO);
	fake_free(again);

	attach_ready(t, 0);
	assert_int_equal(fake_nr_restarted, 2);
	again = getattr(2);
	fake_submit(t->svc, again);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 2, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(again), 0);
	fake_free(again);
}

static void test_init_refused(void **state)
{
	struct test *t = *state;
	struct fuse_init_out old = good_init;

	attach(t, 0);
	old.minor = 8;
	daemon_reply(t->daemon, t->in.unique, 0, &old, sizeof(old));
	wait_count(&t->nr_lost, 1);
	assert_non_null(t->why);
	assert_int_equal(t->nr_ready, 0);
	assert_int_equal(fake_nr_died, 0);
	assert_int_equal(daemon_receive(t, t->daemon), 0);
	close_fd(&t->daemon);

	attach(t, 0);
	close_fd(&t->daemon);
	wait_count(&t->nr_lost, 2);
	attach_ready(t, 0);
}

static void test_attach_twice(void **state)
{
	struct test *t = *state;
	int ours, theirs;

	attach_ready(t, 0);
	make_pair(&ours, &theirs);
	assert_int_equal(channel_attach(t->svc, ours, &no_limits), -EBUSY);
	close(ours);
	close(theirs);
}

static void test_stop(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req = getattr(2), *late = getattr(4);

	attach_ready(t, 0);
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	assert_int_equal(channel_stop(t->svc), 0);
	fake_submit(t->svc, late);
	assert_int_equal(fake_wait(late), -EIO);
	daemon_reply(t->daemon, 2, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(req), 0);
	daemon_receive(t, t->daemon);
	assert_int_equal(t->in.opcode, FUSE_DESTROY);
	daemon_reply(t->daemon, t->in.unique, 0, NULL, 0);
	daemon_reply(t->daemon, t->in.unique, 0, NULL, 0);
	wait_count(&t->nr_stopped, 1);
	channel_close(t->svc);
	wait_count(&t->nr_lost, 1);
	assert_int_equal(t->nr_stopped, 1);
	fake_free(req);
	fake_free(late);
}

static void ask_retrieve(int fd, uint64_t unique)
{
	struct fuse_notify_retrieve_out ask = {
		.notify_unique = unique, .nodeid = 7, .offset = 4096, .size = 65536
	};

	daemon_reply(fd, 0, FUSE_NOTIFY_RETRIEVE, &ask, sizeof(ask));
}

static void expect_retrieve_reply(struct test *t, int fd, uint64_t unique)
{
	struct fuse_notify_retrieve_in arg;

	assert_int_equal(daemon_receive(t, fd), sizeof(t->in) + sizeof(arg));
	memcpy(&arg, t->buf + sizeof(t->in), sizeof(arg));
	assert_int_equal(t->in.opcode, FUSE_NOTIFY_REPLY);
	assert_int_equal(t->in.unique, unique);
	assert_int_equal(t->in.nodeid, 7);
	assert_int_equal(arg.offset, 4096);
	assert_int_equal(arg.size, 0);
}

/* Who asks for cached pages gets an answer: there are none. */
static void test_retrieve(void **state)
{
	struct test *t = *state;
	struct fuse_notify_retrieve_out cut = { .nodeid = 7 };
	struct channel_counts counts;

	attach_ready(t, 0);
	ask_retrieve(t->daemon, 3);
	expect_retrieve_reply(t, t->daemon, 3);
	daemon_reply(t->daemon, 0, FUSE_NOTIFY_RETRIEVE, &cut, sizeof(cut) - 1);
	ask_retrieve(t->daemon, 4);
	expect_retrieve_reply(t, t->daemon, 4);
	channel_get_counts(t->svc, &counts);
	assert_int_equal(counts.nr_malformed, 1);
}

/* A daemon that asks and does not listen: what does not fit waits, within bounds, and requests come behind. */
static void test_retrieve_flood(void **state)
{
	struct test *t = *state;
	const unsigned int nr = 100000;
	struct request *req = getattr(2);
	struct fuse_attr_out attr = { 0 };
	struct channel_counts counts;
	unsigned int got = 0;
	uint64_t last = 0;

	attach_ready(t, 0);
	for (unsigned int i = 1; i <= nr; i++)
		ask_retrieve(t->daemon, i);
	do {
		channel_get_counts(t->svc, &counts);
	} while (counts.nr_not_passed_on < nr);
	assert_int_equal(counts.nr_notifications, nr);
	fake_submit(t->svc, req);
	do {
		daemon_receive(t, t->daemon);
		if (t->in.opcode == FUSE_NOTIFY_REPLY) {
			assert_true(t->in.unique > last);
			last = t->in.unique;
			got++;
		}
	} while (t->in.opcode != FUSE_GETATTR);
	assert_true(got > 64 && got < nr);
	daemon_reply(t->daemon, 2, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(req), 0);
	fake_free(req);
	ask_retrieve(t->daemon, nr + 1);
	do {
		daemon_receive(t, t->daemon);
	} while (t->in.unique != nr + 1);
}

/* A notification takes back what a reply before it said: it must not overtake it. */
static void test_in_order(void **state)
{
	const struct fuse_notify_inval_inode_out inval = { .ino = FUSE_ROOT_ID };
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };

	attach_ready(t, 0);
	for (uint64_t i = 1; i <= 20; i++) {
		struct request *req = getattr(2 * i);

		fake_submit(t->svc, req);
		daemon_receive(t, t->daemon);
		fake_before = req;
		assert_true(t->svc->ops->poll_begin(t->svc));
		daemon_reply(t->daemon, 2 * i, 0, &attr, sizeof(attr));
		daemon_reply(t->daemon, 0, FUSE_NOTIFY_INVAL_INODE, &inval, sizeof(inval));
		t->svc->ops->poll(t->svc);
		t->svc->ops->poll_end(t->svc);
		wait_count(&fake_nr_notified, (unsigned int)i);
		assert_int_equal(fake_nr_notified_after, i);
		fake_before = NULL;
		assert_int_equal(fake_wait(req), 0);
		fake_free(req);
	}
}

/* A WRITE that waits for room, and whose driver was reset meanwhile: what is in its memory now is not what was to be written. */
static void test_abandoned(void **state)
{
	struct test *t = *state;
	static char data[65536];
	struct iovec payload = { data, sizeof(data) };
	struct fuse_write_in arg = { .size = sizeof(data) };
	struct fuse_write_out out = { .size = sizeof(data) };
	struct request *req[300];
	unsigned int nr_sent = 0;

	attach_ready(t, 0);
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = fake_request(FUSE_WRITE, 2 * (i + 1), &arg, sizeof(arg), sizeof(out));
		req[i]->payload = &payload;
		req[i]->nr_payload = 1;
		req[i]->in->len += sizeof(data);
		fake_submit(t->svc, req[i]);
	}
	for (unsigned int i = 0; i < array_size(req); i++)
		req[i]->abandoned = true;
	while (!fake_ended(req[array_size(req) - 1]) ||
	       recv(t->daemon, t->buf, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
		daemon_receive(t, t->daemon);
		daemon_reply(t->daemon, t->in.unique, 0, &out, sizeof(out));
		nr_sent++;
	}
	assert_true(nr_sent > 0 && nr_sent < array_size(req));
	for (unsigned int i = 0; i < array_size(req); i++) {
		/* What lay in the socket was as it was meant. */
		assert_int_equal(fake_wait(req[i]), i < nr_sent ? 0 : -EIO);
		fake_free(req[i]);
	}
}

/* Who was handed our end keeps it, and the reply thread has nothing to do with it any more. */
static void test_hand_over(void **state)
{
	struct test *t = *state;
	const struct fuse_in_header msg = { .len = sizeof(msg) };
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { t->buf, DAEMON_BUF };
	struct msghdr hdr = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct rusage before, after;
	int fds[2], passed = eventfd_new();

	attach_ready(t, 0);
	assert_int_equal(channel_hand_over(t->svc, &msg, sizeof(msg), &passed, 1), 0);
	assert_int_equal(recvmsg(t->daemon, &hdr, MSG_CMSG_CLOEXEC), sizeof(msg));
	assert_int_equal(control.align.cmsg_len, CMSG_LEN(sizeof(fds)));
	memcpy(fds, CMSG_DATA(&control.align), sizeof(fds));
	close_fd(&t->daemon);
	wait_count(&t->nr_lost, 1);
	assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
	usleep(300000);
	assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
	assert_true((after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
		     before.ru_stime.tv_sec) *
				    1000000 +
			    after.ru_utime.tv_usec - before.ru_utime.tv_usec +
			    after.ru_stime.tv_usec - before.ru_stime.tv_usec <
		    100000);
	close_fd(&fds[0]);
	close_fd(&fds[1]);
	close_fd(&passed);
}

/* The VFS would keep these from a daemon that mounted read-only. */
static void test_read_only(void **state)
{
	struct test *t = *state;
	static const struct {
		uint32_t opcode, flags;
		int error;
	} cases[] = {
		{ FUSE_OPEN, 0, 0 },
		{ FUSE_OPEN, 02, -EROFS },
		{ FUSE_OPEN, 01, -EROFS },
		{ FUSE_OPEN, 01000, -EROFS },
		{ FUSE_CREATE, 0, -EROFS },
		{ FUSE_UNLINK, 0, -EROFS },
		{ FUSE_SETATTR, 0, -EROFS },
		{ FUSE_WRITE, 0, -EROFS },
		{ FUSE_COPY_FILE_RANGE_64, 0, -EROFS },
		{ FUSE_READLINK, 0, 0 },
	};

	t->read_only = true;
	attach_ready(t, 0);
	for (unsigned int i = 0; i < array_size(cases); i++) {
		struct fuse_open_in arg = { .flags = cases[i].flags };
		struct request *req =
			fake_request(cases[i].opcode, 2 + 2 * i, &arg, sizeof(arg), 4096);

		fake_submit(t->svc, req);
		if (!cases[i].error) {
			daemon_receive(t, t->daemon);
			daemon_reply(t->daemon, req->in->unique, 0, NULL, 0);
		}
		assert_int_equal(fake_wait(req), cases[i].error);
		fake_free(req);
	}
}

/* The socket's buffer could not be enlarged: the driver is told to keep to what fits, and larger READs are split. */
static void test_small_socket(void **state)
{
	struct test *t = *state;
	struct request *req = read_of(2, 0, 256 << 10);
	uint32_t max_write;

	attach_small(t, 100 << 10);
	max_write = t->svc->init_out.max_write;
	assert_in_range(max_write, 4096, 51200);
	assert_int_equal(max_write % 4096, 0);
	assert_int_equal(t->svc->init_out.max_pages, max_write / 4096);
	fake_submit(t->svc, req);
	while (!fake_ended(req)) {
		struct fuse_read_in arg;

		/* All parts but the last are as large as it gets. */
		daemon_receive(t, t->daemon);
		memcpy(&arg, t->buf + sizeof(t->in), sizeof(arg));
		assert_in_range(arg.size, 1, 51200);
		daemon_answer_read(t, t->daemon, SIZE_MAX);
		if (arg.offset + arg.size == 256 << 10)
			break;
	}
	assert_int_equal(fake_wait(req), 0);
	assert_int_equal(req->body_len, 256 << 10);
	check_pattern(req->body, 0, 256 << 10);
	fake_free(req);
}

/* The smallest buffer that is taken at all holds a page of each of several READs. */
static void test_smallest_socket(void **state)
{
	struct test *t = *state;
	int ours, bytes = 8192, err;

	make_pair(&ours, &t->daemon);
	/* The kernel doubles what it is told. */
	do {
		assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
		err = channel_attach(t->svc, ours, &no_limits);
	} while (err == -EMSGSIZE && (bytes += 8) < 10000);
	assert_int_equal(err, 0);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, t->in.unique, 0, &good_init, sizeof(good_init));
	wait_count(&t->nr_ready, 1);
	assert_int_equal(t->svc->init_out.max_write, 4096);
	assert_int_equal(t->svc->init_out.max_pages, 1);
}

/* A daemon with a small buffer gets the forgets in pieces, none is lost, and longer messages are refused. */
static void test_small_buffer(void **state)
{
	struct test *t = *state;
	struct {
		struct fuse_batch_forget_in in;
		struct fuse_forget_one one[250];
	} arg = { .in = { .count = 250 } };
	/* 509 entries fit one message, 510 do not. */
	static const unsigned int counts[] = { 509, 510, 2000 };
	char *args = calloc(1, 8 + 2000 * 16);
	uint64_t next = 1;

	t->max_write = 4096;
	attach_ready(t, 0);
	for (unsigned int i = 0; i < array_size(counts); i++) {
		struct request *req = fake_request(FUSE_BATCH_FORGET, 2, &arg, sizeof(arg), 0);
		unsigned int seen = 0, nr_messages = 0;
		struct fuse_batch_forget_in *in = (void *)args;
		struct fuse_forget_one *one = (void *)(args + sizeof(*in));

		in->count = counts[i];
		for (unsigned int j = 0; j < counts[i]; j++)
			one[j].nodeid = next + j;
		fake_set_message(req, args, sizeof(*in) + counts[i] * sizeof(*one));
		fake_submit(t->svc, req);
		while (seen < counts[i]) {
			assert_in_range(daemon_receive(t, t->daemon), 48, 8192);
			memcpy(&arg.in, t->buf + sizeof(t->in), sizeof(arg.in));
			assert_int_equal(t->in.len, 48 + arg.in.count * 16);
			for (unsigned int j = 0; j < arg.in.count; j++) {
				struct fuse_forget_one f;

				memcpy(&f, t->buf + 48 + j * 16, sizeof(f));
				assert_int_equal(f.nodeid, next++);
			}
			seen += arg.in.count;
			nr_messages++;
		}
		assert_int_equal(seen, counts[i]);
		assert_int_equal(nr_messages, (counts[i] + 508) / 509);
		assert_int_equal(fake_wait(req), 0);
		fake_free(req);
	}
	free(args);
}

/* A daemon's thread that answers everything as fast as it can, also what it was not asked. */
struct hostile {
	int fd;
	bool stop;
};

static void *hostile_run(void *arg)
{
	struct hostile *h = arg;
	uint64_t unique = 2;

	while (!__atomic_load_n(&h->stop, __ATOMIC_RELAXED)) {
		struct fuse_out_header out = { .len = 16, .error = -ENOENT, .unique = unique };

		unique = unique % 64 + 2;
		if (send(h->fd, &out, sizeof(out), MSG_NOSIGNAL) < 0)
			break;
	}
	return NULL;
}

static void *drain_run(void *arg)
{
	struct hostile *h = arg;
	static char buf[4096];

	while (recv(h->fd, buf, sizeof(buf), 0) > 0)
		continue;
	return NULL;
}

static void test_hostile_early_replies(void **state)
{
	struct test *t = *state;
	struct hostile h = { 0 };
	pthread_t sender, drain;

	attach_ready(t, 0);
	h.fd = t->daemon;
	assert_int_equal(pthread_create(&sender, NULL, hostile_run, &h), 0);
	assert_int_equal(pthread_create(&drain, NULL, drain_run, &h), 0);
	for (unsigned int i = 0; i < 3000; i++) {
		struct request *req = getattr(2 + i * 2 % 64);

		fake_submit(t->svc, req);
		assert_int_equal(fake_wait(req), -ENOENT);
		fake_free(req);
	}
	__atomic_store_n(&h.stop, true, __ATOMIC_RELAXED);
	channel_close(t->svc);
	pthread_join(sender, NULL);
	pthread_join(drain, NULL);
	wait_count(&t->nr_lost, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_garbage),
		T(test_huge_reply),
		T(test_out_of_order),
		T(test_flood),
		T(test_flood_large),
		T(test_death_and_restart),
		T(test_init_refused),
		T(test_attach_twice),
		T(test_stop),
		T(test_retrieve),
		T(test_retrieve_flood),
		T(test_in_order),
		T(test_abandoned),
		T(test_hand_over),
		T(test_read_only),
		T(test_small_buffer),
		T(test_small_socket),
		T(test_smallest_socket),
		T(test_hostile_early_replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
