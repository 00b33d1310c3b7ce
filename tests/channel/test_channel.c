/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel service and a daemon that behaves: requests, payloads, READs and their parts, INTERRUPTs.
 */
#include <errno.h>
#include <fcntl.h>
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

static void test_before_attach(void **state)
{
	struct test *t = *state;
	struct request *req = getattr(2);

	fake_submit(t->svc, req);
	assert_int_equal(fake_wait(req), -EIO);
	fake_free(req);
	assert_int_equal(channel_stop(t->svc), -ENOTCONN);
}

static void test_request(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { .attr = { .ino = 77 } };
	struct request *req = getattr(2);

	attach_ready(t, 0);
	assert_int_equal(t->svc->init_out.max_write, 1 << 20);
	fake_submit(t->svc, req);
	assert_int_equal(daemon_receive(t, t->daemon), req->len);
	assert_memory_equal(t->buf, req->msg, req->len);
	daemon_reply(t->daemon, 2, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(req), 0);
	assert_int_equal(req->body_len, sizeof(attr));
	assert_memory_equal(req->body, &attr, sizeof(attr));
	fake_free(req);
}

static void test_write_payload(void **state)
{
	struct test *t = *state;
	static const unsigned int counts[] = { 1, 2, 1022, 1023, 1024, 2000 };
	char *data = malloc(1 << 20);

	attach_ready(t, 0);
	fill(data, 0, 1 << 20);
	for (unsigned int i = 0; i < array_size(counts); i++) {
		struct fuse_write_in arg = { .size = 1 << 20 };
		struct request *req =
			fake_request(FUSE_WRITE, 2 + 2 * i, &arg, sizeof(arg), sizeof(arg));
		struct iovec *iov = calloc(counts[i], sizeof(*iov));
		size_t piece = (1 << 20) / counts[i];

		for (unsigned int j = 0; j < counts[i]; j++) {
			iov[j].iov_base = data + j * piece;
			iov[j].iov_len = j + 1 < counts[i] ? piece : (1 << 20) - j * piece;
		}
		req->payload = iov;
		req->nr_payload = counts[i];
		fake_submit(t->svc, req);
		assert_int_equal(daemon_receive(t, t->daemon), 80 + (1 << 20));
		check_pattern(t->buf + 80, 0, 1 << 20);
		daemon_reply(t->daemon, req->in->unique, -ENOSPC, NULL, 0);
		assert_int_equal(fake_wait(req), -ENOSPC);
		fake_free(req);
		free(iov);
	}
	free(data);
}

static void test_too_long_for_daemon(void **state)
{
	struct test *t = *state;
	struct fuse_write_in arg = { .size = (1 << 20) + 1 };
	char *data = calloc(1, arg.size);
	struct iovec iov = { data, arg.size };
	struct request *req = fake_request(FUSE_WRITE, 2, &arg, sizeof(arg), 8);

	attach_ready(t, 0);
	req->payload = &iov;
	req->nr_payload = 1;
	fake_submit(t->svc, req);
	assert_int_equal(fake_wait(req), -EIO);
	fake_free(req);
	free(data);
}

/* READs around the size from which data are received in place, in one and in many pieces. */
static void test_read(void **state)
{
	struct test *t = *state;
	static const uint32_t sizes[] = { 0, 1, 4096, 32767, 32768, 32769, 131072, 1 << 20 };
	static const unsigned int segments[] = { 1, 256, 1023, 1024 };
	uint64_t unique = 2;

	attach_ready(t, 0);
	for (unsigned int i = 0; i < array_size(sizes); i++) {
		for (unsigned int j = 0; j < array_size(segments); j++) {
			struct request *req = read_of(unique += 2, 5, sizes[i]);

			req->segments = segments[j];
			fake_submit(t->svc, req);
			daemon_receive(t, t->daemon);
			daemon_answer_read(t, t->daemon, SIZE_MAX);
			assert_int_equal(fake_wait(req), 0);
			assert_int_equal(req->body_len, sizes[i]);
			check_pattern(req->body, 5, sizes[i]);
			fake_free(req);
		}
	}
}

static void test_read_refused_direct(void **state)
{
	struct test *t = *state;
	struct request *req = read_of(2, 0, 65536), *next = read_of(4, 0, 65536);

	attach_ready(t, 0);
	req->refuse_direct = -ECANCELED;
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	daemon_answer_read(t, t->daemon, SIZE_MAX);
	assert_int_equal(fake_wait(req), -EIO);
	fake_submit(t->svc, next);
	daemon_receive(t, t->daemon);
	daemon_answer_read(t, t->daemon, 40000);
	assert_int_equal(fake_wait(next), 0);
	assert_int_equal(next->body_len, 40000);
	fake_free(req);
	fake_free(next);
}

/* As Linux reads into its page cache. */
static struct request *cached(uint32_t size)
{
	return read_of(2, 100, size);
}

/* As it does for O_DIRECT, and without, for a file that the daemon opened with FOPEN_DIRECT_IO. */
static struct request *uncached(uint32_t size, uint32_t flags)
{
	struct fuse_read_in arg = {
		.fh = 7,
		.offset = 100,
		.size = size,
		.flags = flags,
		.read_flags = FUSE_READ_LOCKOWNER,
		.lock_owner = 9,
	};

	return fake_request(FUSE_READ, 2, &arg, sizeof(arg), size);
}

/* Split READs: full, short in the middle, error in the middle, error at the front. */
static void split_case(struct test *t, struct request *req, uint32_t part, int fail_part,
		       int fail_error, uint32_t fail_bytes, int want_error, size_t want_len)
{
	const uint32_t size = (uint32_t)req->reply_max, nr = (size + part - 1) / part;
	struct {
		uint64_t unique;
		struct fuse_read_in arg;
	} parts[256];

	fake_submit(t->svc, req);
	for (uint32_t i = 0; i < nr; i++) {
		daemon_receive(t, t->daemon);
		assert_int_equal(t->in.len, 80);
		parts[i].unique = t->in.unique;
		memcpy(&parts[i].arg, t->buf + sizeof(t->in), sizeof(parts[i].arg));
		assert_int_equal(parts[i].arg.offset, 100 + (uint64_t)i * part);
		assert_int_equal(parts[i].arg.size, min_of(part, size - i * part));
	}
	/* Last part first. */
	for (uint32_t i = nr; i-- > 0;) {
		uint32_t n = parts[i].arg.size;

		assert_false(fake_ended(req));
		if ((int)i == fail_part && fail_error) {
			daemon_reply(t->daemon, parts[i].unique, fail_error, NULL, 0);
			continue;
		}
		if ((int)i == fail_part)
			n = fail_bytes;
		fill(t->buf, parts[i].arg.offset, n);
		daemon_reply(t->daemon, parts[i].unique, 0, t->buf, n);
	}
	assert_int_equal(fake_wait(req), want_error);
	if (!want_error) {
		assert_int_equal(req->body_len, want_len);
		check_pattern(req->body, 100, want_len);
	}
	fake_free(req);
}

static void test_split(void **state)
{
	struct test *t = *state;

	attach_ready(t, 65536);
	split_case(t, cached(65537), 65536, -1, 0, 0, 0, 65537);
	split_case(t, cached(1 << 20), 65536, -1, 0, 0, 0, 1 << 20);
	split_case(t, cached(1 << 20), 65536, 3, 0, 1000, 0, 3 * 65536 + 1000);
	split_case(t, cached(1 << 20), 65536, 3, 0, 0, 0, 3 * 65536);
	split_case(t, cached(1 << 20), 65536, 15, 0, 1, 0, 15 * 65536 + 1);
	/* The driver's page cache would take a short reply for the file's end. */
	split_case(t, cached(1 << 20), 65536, 3, -ENODATA, 0, -ENODATA, 0);
	split_case(t, cached(1 << 20), 65536, 15, -ENODATA, 0, -ENODATA, 0);
	split_case(t, cached(1 << 20), 65536, 0, -ENODATA, 0, -ENODATA, 0);
	split_case(t, uncached(1 << 20, O_RDWR), 65536, 3, -ENODATA, 0, 0, 3 * 65536);
	split_case(t, uncached(1 << 20, O_RDWR), 65536, 0, -ENODATA, 0, -ENODATA, 0);
	split_case(t, uncached(1 << 20, O_DIRECT), 65536, 3, -ENODATA, 0, -ENODATA, 0);
}

/* A daemon that dies amid a READ leaves no short reply either. */
static void test_split_lost(void **state)
{
	struct test *t = *state;
	struct request *req = cached(4 * 65536);

	attach_ready(t, 65536);
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	daemon_answer_read(t, t->daemon, SIZE_MAX);
	daemon_receive(t, t->daemon);
	daemon_answer_read(t, t->daemon, SIZE_MAX);
	close_fd(&t->daemon);
	assert_int_equal(fake_wait(req), -EIO);
	assert_int_equal(req->body_len, 0);
	fake_free(req);
}

static void test_not_split_at_limit(void **state)
{
	struct test *t = *state;
	struct request *req = read_of(2, 0, 65536);

	attach_ready(t, 65536);
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	assert_int_equal(t->in.unique, 2);
	daemon_answer_read(t, t->daemon, SIZE_MAX);
	assert_int_equal(fake_wait(req), 0);
	fake_free(req);
}

/* After an open with direct I/O the parts come one after the other, and end at a short one. */
static void test_split_sequential(void **state)
{
	struct test *t = *state;
	struct fuse_open_in arg = { 0 };
	struct fuse_open_out out = { .fh = 1, .open_flags = FOPEN_DIRECT_IO };
	struct request *open = fake_request(FUSE_OPEN, 2, &arg, sizeof(arg), sizeof(out));
	struct request *req = read_of(4, 0, 4 * 4096);

	attach_ready(t, 4096);
	fake_submit(t->svc, open);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 2, 0, &out, sizeof(out));
	assert_int_equal(fake_wait(open), 0);
	fake_submit(t->svc, req);
	for (int i = 0; i < 3; i++) {
		char byte;

		daemon_receive(t, t->daemon);
		assert_int_equal(recv(t->daemon, &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
		daemon_answer_read(t, t->daemon, i < 2 ? 4096 : 10);
	}
	assert_int_equal(fake_wait(req), 0);
	assert_int_equal(req->body_len, 2 * 4096 + 10);
	check_pattern(req->body, 0, req->body_len);
	fake_free(open);
	fake_free(req);
}

/* READs that take long, as many as there is room for and more, keep nothing else from the daemon. */
static void test_small_beside_large(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *read[8], *other[8];
	unsigned int nr_reads = 0;
	uint64_t unique[8];

	attach_small(t, 106496);
	for (unsigned int i = 0; i < array_size(read); i++) {
		read[i] = read_of(2 + 2 * i, (uint64_t)i << 20, 32768);
		fake_submit(t->svc, read[i]);
	}
	for (unsigned int i = 0; i < array_size(other); i++) {
		other[i] = getattr(100 + 2 * i);
		fake_submit(t->svc, other[i]);
	}
	for (unsigned int i = 0; i < array_size(other);) {
		daemon_receive(t, t->daemon);
		if (t->in.opcode == FUSE_READ) {
			assert_true(nr_reads < array_size(read));
			unique[nr_reads++] = t->in.unique;
			continue;
		}
		assert_int_equal(t->in.unique, 100 + 2 * i);
		daemon_reply(t->daemon, 100 + 2 * i, 0, &attr, sizeof(attr));
		assert_int_equal(fake_wait(other[i]), 0);
		fake_free(other[i++]);
	}
	assert_true(nr_reads > 0 && nr_reads < array_size(read));
	for (unsigned int i = 0; i < array_size(read); i++) {
		if (i >= nr_reads) {
			daemon_receive(t, t->daemon);
			unique[nr_reads++] = t->in.unique;
		}
		assert_int_equal(unique[i], 2 + 2 * i);
		fill(t->buf, (uint64_t)i << 20, 32768);
		daemon_reply(t->daemon, unique[i], 0, t->buf, 32768);
		assert_int_equal(fake_wait(read[i]), 0);
		check_pattern(read[i]->body, (uint64_t)i << 20, 32768);
		fake_free(read[i]);
	}
}

/* More splits than there is room for, answered in the order in which they come. */
static void many_splits(struct test *t)
{
	struct request *req[40];

	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = read_of(2 + 2 * i, (uint64_t)i << 20, 256 << 10);
		fake_submit(t->svc, req[i]);
	}
	for (unsigned int i = 0; i < 4 * array_size(req); i++) {
		daemon_receive(t, t->daemon);
		daemon_answer_read(t, t->daemon, SIZE_MAX);
	}
	for (unsigned int i = 0; i < array_size(req); i++) {
		assert_int_equal(fake_wait(req[i]), 0);
		assert_int_equal(req[i]->body_len, 256 << 10);
		check_pattern(req[i]->body, (uint64_t)i << 20, 256 << 10);
		fake_free(req[i]);
	}
}

static void test_many_splits(void **state)
{
	attach_ready(*state, 65536);
	many_splits(*state);
}

/* One after the other: the next part of each must not wait behind a READ that waits for one of them to end. */
static void test_many_splits_sequential(void **state)
{
	struct test *t = *state;
	const struct fuse_open_out out = { .open_flags = FOPEN_DIRECT_IO };
	struct fuse_open_in in = { 0 };
	struct request *open = fake_request(FUSE_OPEN, 1000, &in, sizeof(in), sizeof(out));

	attach_ready(t, 65536);
	fake_submit(t->svc, open);
	daemon_receive(t, t->daemon);
	daemon_reply(t->daemon, 1000, 0, &out, sizeof(out));
	assert_int_equal(fake_wait(open), 0);
	fake_free(open);
	many_splits(t);
}

/* The next message is an INTERRUPT for the request. */
static void expect_interrupt(struct test *t, int fd, uint64_t unique)
{
	struct fuse_interrupt_in arg;

	assert_int_equal(daemon_receive(t, fd), 48);
	assert_int_equal(t->in.opcode, FUSE_INTERRUPT);
	assert_int_equal(t->in.unique, unique | 1);
	memcpy(&arg, t->buf + sizeof(t->in), sizeof(arg));
	assert_int_equal(arg.unique, unique);
}

static void test_interrupt(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req = getattr(2);

	attach_ready(t, 0);
	t->svc->ops->interrupt(t->svc, 2); /* not there yet: nothing is sent */
	fake_submit(t->svc, req);
	daemon_receive(t, t->daemon);
	t->svc->ops->interrupt(t->svc, 2);
	expect_interrupt(t, t->daemon, 2);
	/* Not yet, says the daemon. */
	daemon_reply(t->daemon, 3, -EAGAIN, NULL, 0);
	expect_interrupt(t, t->daemon, 2);
	daemon_reply(t->daemon, 3, -ENOSYS, NULL, 0);
	daemon_reply(t->daemon, 2, 0, &attr, sizeof(attr));
	assert_int_equal(fake_wait(req), 0);
	fake_free(req);
}

/* One that waits for room is interrupted when the daemon has it, not before, and not forgotten. */
static void test_interrupt_waiting(void **state)
{
	struct test *t = *state;
	struct fuse_attr_out attr = { 0 };
	struct request *req[200];
	const uint64_t last = 2 * array_size(req);

	attach_small(t, 32768);
	for (unsigned int i = 0; i < array_size(req); i++) {
		req[i] = getattr(2 * (i + 1));
		fake_submit(t->svc, req[i]);
	}
	t->svc->ops->interrupt(t->svc, last);
	for (unsigned int i = 0; i < array_size(req); i++) {
		daemon_receive(t, t->daemon);
		assert_int_equal(t->in.opcode, FUSE_GETATTR);
		assert_int_equal(t->in.unique, 2 * (i + 1));
		if (t->in.unique == last)
			expect_interrupt(t, t->daemon, last);
		daemon_reply(t->daemon, 2 * (i + 1), 0, &attr, sizeof(attr));
		assert_int_equal(fake_wait(req[i]), 0);
		fake_free(req[i]);
	}
}

static void test_interrupt_parts(void **state)
{
	struct test *t = *state;
	struct request *req = read_of(2, 0, 3 * 65536);
	uint64_t unique[3];

	attach_ready(t, 65536);
	fake_submit(t->svc, req);
	for (int i = 0; i < 3; i++) {
		daemon_receive(t, t->daemon);
		unique[i] = t->in.unique;
	}
	t->svc->ops->interrupt(t->svc, 2);
	for (int i = 0; i < 3; i++) {
		expect_interrupt(t, t->daemon, unique[i]);
		daemon_reply(t->daemon, unique[i], -EINTR, NULL, 0);
	}
	assert_int_equal(fake_wait(req), -EINTR);
	fake_free(req);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_before_attach),
		T(test_request),
		T(test_write_payload),
		T(test_too_long_for_daemon),
		T(test_read),
		T(test_read_refused_direct),
		T(test_split),
		T(test_split_lost),
		T(test_not_split_at_limit),
		T(test_split_sequential),
		T(test_many_splits),
		T(test_small_beside_large),
		T(test_many_splits_sequential),
		T(test_interrupt),
		T(test_interrupt_waiting),
		T(test_interrupt_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
