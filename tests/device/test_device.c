/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of requests, queues and sessions in the device.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "rig.h"

static const struct device_config config = {
	.tag = "t",
	.nr_request_queues = RIG_QUEUES - 1,
	.queue_size_max = RIG_RING,
	.poll_ns = 0,
	.drain_ns = 300 * NSEC_PER_MSEC,
	.arch = FUSE_ARCH_NATIVE,
};

static bool packed;

static int setup(void **state)
{
	struct rig *rig = rig_new(&config, packed);

	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static int reply_error(const struct rig_slot *slot)
{
	struct fuse_out_header out;

	memcpy(&out, slot->reply, sizeof(out));
	return out.error;
}

static void send_getattr(struct rig *rig, unsigned int queue, unsigned int slot, uint64_t nodeid)
{
	struct fuse_getattr_in in = {};

	rig_send(rig, queue, rig_slot(rig, slot), FUSE_GETATTR, nodeid, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
}

static void test_config_space(void **state)
{
	struct rig *rig = *state;
	uint8_t space[44], expected[44] = { 't' };

	expected[36] = RIG_QUEUES - 1;
	/* The size of a notification's buffer. */
	expected[41] = 0x20;
	assert_int_equal(device_config_bytes(rig->dev), 44);
	assert_int_equal(device_config_read(rig->dev, 0, space, 44), 0);
	assert_memory_equal(space, expected, 44);
	assert_int_equal(device_config_read(rig->dev, 43, space, 1), 0);
	assert_int_equal(device_config_read(rig->dev, 43, space, 2), -EINVAL);
	assert_int_equal(device_config_read(rig->dev, 45, space, 0), -EINVAL);
}

/* User-mode Linux takes the number from here and fails above 64 queues; others ask for what they want. */
static void test_config_space_many_queues(void **state)
{
	struct device_config c = config;
	struct rig_service *rs = ((struct rig *)*state)->service;
	struct device *dev;
	uint8_t nr[4];

	for (unsigned int queues = 62; queues <= 65; queues++) {
		c.nr_request_queues = queues;
		assert_int_equal(device_new(&dev, &c, &rs->svc), 0);
		assert_int_equal(device_nr_queues(dev), queues + 2);
		assert_int_equal(device_config_read(dev, 36, nr, 4), 0);
		assert_int_equal(nr[0], min_of(queues, 63u));
		device_free(dev);
	}
}

static void test_tag_fills_field(void **state)
{
	struct device_config c = config;
	struct rig_service *rs = ((struct rig *)*state)->service;
	struct device *dev;
	char space[36];

	c.tag = "abcdefghijklmnopqrstuvwxyz0123456789";
	assert_int_equal(device_new(&dev, &c, &rs->svc), 0);
	assert_int_equal(device_config_read(dev, 0, space, 36), 0);
	assert_memory_equal(space, c.tag, 36);
	device_free(dev);
	c.tag = "abcdefghijklmnopqrstuvwxyz01234567890";
	assert_int_equal(device_new(&dev, &c, &rs->svc), -EINVAL);
	c.tag = "";
	assert_int_equal(device_new(&dev, &c, &rs->svc), -EINVAL);
}

static void test_nothing_before_init(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in in = {};

	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, 1, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 -EIO);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_GETATTR]), 0);
}

static void test_requests_on_all_queues(void **state)
{
	struct rig *rig = *state;
	struct fuse_attr_out out;
	struct fuse_getattr_in in = {};

	assert_int_equal(rig_init(rig), 0);
	for (unsigned int q = 0; q < RIG_QUEUES; q++) {
		assert_int_equal(rig_call(rig, q, FUSE_GETATTR, 1, &in, sizeof(in), sizeof(out),
					  &out, sizeof(out)),
				 0);
		assert_true(out.attr.ino == 1);
	}
}

static void test_direct_read(void **state)
{
	struct rig *rig = *state;
	struct fuse_read_in in = { .size = 5000 };
	struct rig_slot *slot = rig_slot(rig, 0);
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_open(rig, node, &in.fh), 0);
	rig_send(rig, 1, slot, FUSE_READ, node, &in, sizeof(in), 5000);
	assert_int_equal(rig_wait(rig, 1, &slot), 5016);
	assert_int_equal(reply_error(slot), 0);
	for (unsigned int i = 0; i < 5000; i++)
		assert_int_equal(slot->reply[16 + i], 'r');
	assert_int_equal(slot->reply[5016], 0xee);
}

static void test_out_of_order(void **state)
{
	struct rig *rig = *state;
	struct request *held[4];
	struct rig_slot *slot;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	for (unsigned int i = 0; i < 4; i++) {
		send_getattr(rig, 1, i, 1);
		held[i] = rig_take(rig);
	}
	for (unsigned int i = 4; i-- > 0;) {
		rig_answer(rig, held[i]);
		rig_wait(rig, 1, &slot);
		assert_ptr_equal(slot, rig_slot(rig, i));
		assert_int_equal(reply_error(slot), 0);
	}
}

static void test_hiprio_passes_waiting_queues(void **state)
{
	struct rig *rig = *state;
	struct fuse_forget_in in = { .nlookup = 1 };
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	rig_hold(rig, FUSE_GETATTR);
	for (unsigned int i = 0; i < 30; i++)
		send_getattr(rig, 1, i, 1);
	rig_send(rig, 0, rig_slot(rig, 50), FUSE_FORGET, node, &in, sizeof(in), 0);
	assert_int_equal(rig_wait(rig, 0, NULL), 0);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 1);
	for (unsigned int i = 0; i < 30; i++) {
		rig_answer(rig, rig_take(rig));
		rig_wait(rig, 1, NULL);
	}
}

/* GET_VRING_BASE: what is in flight ends first; what ends too late does not touch memory. */
static void test_stop_waits(void **state)
{
	struct rig *rig = *state;
	struct request *req;
	struct rig_slot *slot;
	uint64_t begin;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	send_getattr(rig, 1, 0, 1);
	req = rig_take(rig);
	begin = clock_now_ns();
	device_queue_stop(rig->dev, 1);
	assert_in_range(clock_now_ns() - begin, config.drain_ns, 20 * config.drain_ns);
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), 1);
	assert_true(rig_count64(rig, &rig->service->last_interrupt) == request_header(req)->unique);
	assert_int_equal(rig_wait(rig, 1, &slot), 16);
	assert_int_equal(reply_error(slot), -EIO);
	memset(slot->reply, 0xee, 64);
	rig_answer(rig, req);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(slot->reply[i], 0xee);
}

static void *answer_later(void *arg)
{
	struct rig *rig = arg;
	struct request *req = rig_take(rig);

	usleep(100000);
	rig_answer(rig, req);
	return NULL;
}

static void test_stop_gets_answer_in_time(void **state)
{
	struct rig *rig = *state;
	struct rig_slot *slot;
	pthread_t thread;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	send_getattr(rig, 1, 0, 1);
	/* It must have been taken: a stopped ring takes nothing any more. */
	while (!rig_count(rig, &rig->service->nr_held))
		usleep(1000);
	pthread_create(&thread, NULL, answer_later, rig);
	device_queue_stop(rig->dev, 1);
	pthread_join(thread, NULL);
	rig_wait(rig, 1, &slot);
	assert_int_equal(reply_error(slot), 0);
}

static void test_direct_after_abandon(void **state)
{
	struct rig *rig = *state;
	struct fuse_read_in in = { .size = 64 };
	const struct iovec *iov;
	struct request *req;
	unsigned int nr;
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_open(rig, node, &in.fh), 0);
	rig_hold(rig, FUSE_READ);
	rig_send(rig, 2, rig_slot(rig, 0), FUSE_READ, node, &in, sizeof(in), 64);
	req = rig_take(rig);
	device_queue_stop(rig->dev, 2);
	assert_int_equal(request_direct_begin(req, 65, &iov, &nr), -EMSGSIZE);
	assert_int_equal(request_direct_begin(req, 64, &iov, &nr), -ECANCELED);
	request_reply(req, -EIO, NULL, 0);
}

static void test_session_end_pays_back(void **state)
{
	struct rig *rig = *state;
	struct fuse_release_in in = {};
	uint64_t node[3], fh;

	assert_int_equal(rig_init(rig), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(rig_lookup(rig, "f", &node[i]), 0);
	assert_int_equal(rig_open(rig, node[0], &fh), 0);
	assert_int_equal(rig_call(rig, 1, FUSE_DESTROY, 0, &in, 0, 0, NULL, 0), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_RELEASE]), 1);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 3);
	/* The daemon never sees the driver's DESTROY or INIT. */
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_DESTROY]), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_INIT]), 0);
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node[0]), 0);
}

/* A daemon with threads must not hear that a node is forgotten while it releases a file of it. */
static void test_payback_in_order(void **state)
{
	struct rig *rig = *state;
	struct rig_slot *slot = rig_slot(rig, 0);
	uint64_t node, fh[3];

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(rig_open(rig, node, &fh[i]), 0);
	rig_hold(rig, FUSE_RELEASE);
	rig_send_raw(rig, 1, slot, rig_message(rig, slot, FUSE_DESTROY, 0, NULL, 0), 16);
	for (unsigned int i = 0; i < 3; i++) {
		struct request *req = rig_take(rig);

		assert_true(rig_quiet(rig, 1, 20));
		assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 0);
		rig_answer(rig, req);
	}
	assert_int_equal(rig_wait(rig, 1, NULL), 16);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_RELEASE]), 3);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 1);
}

static void test_second_init_ends_session(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in in = {};
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_init(rig), 0);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 1);
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, node, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 -ESTALE);
}

static void test_reset_ends_session(void **state)
{
	struct rig *rig = *state;
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	device_reset(rig->dev);
	rig_start(rig);
	assert_int_equal(rig_init(rig), 0);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 1);
}

/* The file system hangs while a session ends: the next driver waits for a bounded time, then goes on. */
static void test_payback_without_answer(void **state)
{
	struct rig *rig = *state;
	uint64_t node, begin;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	rig_hold(rig, FUSE_BATCH_FORGET);
	begin = clock_now_ns();
	assert_int_equal(rig_init(rig), 0);
	assert_in_range(clock_now_ns() - begin, config.drain_ns, 20 * config.drain_ns);
	request_reply_none(rig_take(rig));
}

/*
 * The daemon hangs on a node and a handle while the driver goes and another comes: what is in use must not be given
 * back, and the late answers find everything they need.
 */
static void test_hanging_daemon_outlives_session(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in attr = {};
	struct fuse_read_in in = { .size = 8 };
	struct request *held[3];
	uint64_t node, again;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_open(rig, node, &in.fh), 0);
	rig_hold(rig, FUSE_READ);
	rig_send(rig, 1, rig_slot(rig, 0), FUSE_READ, node, &in, sizeof(in), 8);
	held[0] = rig_take(rig);
	rig_hold(rig, FUSE_GETATTR);
	rig_send(rig, 1, rig_slot(rig, 1), FUSE_GETATTR, node, &attr, sizeof(attr),
		 sizeof(struct fuse_attr_out));
	held[1] = rig_take(rig);
	rig_hold(rig, FUSE_LOOKUP);
	rig_send(rig, 1, rig_slot(rig, 2), FUSE_LOOKUP, FUSE_ROOT_ID, "g", 2,
		 sizeof(struct fuse_entry_out));
	held[2] = rig_take(rig);
	rig_release(rig);
	device_reset(rig->dev);
	rig_start(rig);
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_RELEASE]), 0);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 0);
	for (unsigned int i = 0; i < 3; i++)
		rig_answer(rig, held[i]);
	assert_int_equal(rig_lookup(rig, "h", &again), 0);
	assert_int_equal(rig_init(rig), 0);
	/* What was in use, what the late LOOKUP counted and what is new: all of it is paid back now. */
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 3);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_RELEASE]), 1);
}

/* A reset while INIT waits for a slow end of the last session. */
static void test_reset_during_init(void **state)
{
	struct rig *rig = *state;
	struct fuse_init_in in = { .major = 7, .minor = 38 };
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	rig_hold(rig, FUSE_BATCH_FORGET);
	rig_send(rig, 1, rig_slot(rig, 0), FUSE_INIT, 0, &in, sizeof(in),
		 sizeof(struct fuse_init_out));
	while (!rig_count(rig, &rig->service->nr_held))
		usleep(1000);
	device_reset(rig->dev);
	rig_start(rig);
	request_reply_none(rig_take(rig));
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
}

static void test_interrupt(void **state)
{
	struct rig *rig = *state;
	struct fuse_interrupt_in in = {};
	struct fuse_getattr_in attr = {};
	struct request *req;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	in.unique = rig_send(rig, 1, rig_slot(rig, 0), FUSE_GETATTR, 1, &attr, sizeof(attr),
			     sizeof(struct fuse_attr_out));
	req = rig_take(rig);
	rig_send(rig, 0, rig_slot(rig, 1), FUSE_INTERRUPT, 0, &in, sizeof(in), 0);
	assert_int_equal(rig_wait(rig, 0, NULL), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), 1);
	assert_true(rig_count64(rig, &rig->service->last_interrupt) == request_header(req)->unique);
	in.unique += 1000;
	rig_send(rig, 0, rig_slot(rig, 1), FUSE_INTERRUPT, 0, &in, sizeof(in), 0);
	assert_int_equal(rig_wait(rig, 0, NULL), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), 1);
	/* Room for a reply: the driver hears whether there was something to interrupt. */
	assert_int_equal(rig_call(rig, 0, FUSE_INTERRUPT, 0, &in, sizeof(in), 0, NULL, 0), -EAGAIN);
	in.unique -= 1000;
	rig_send_raw(rig, 0, rig_slot(rig, 1),
		     rig_message(rig, rig_slot(rig, 1), FUSE_INTERRUPT, 0, &in, sizeof(in)), 16);
	assert_int_equal(rig_wait(rig, 0, NULL), 0);
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), 2);
	rig_answer(rig, req);
	rig_wait(rig, 1, NULL);
}

static void test_find_by_unique(void **state)
{
	struct rig *rig = *state;
	struct request *req;
	uint64_t unique;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	send_getattr(rig, 1, 0, 1);
	req = rig_take(rig);
	unique = request_header(req)->unique;
	assert_int_equal(unique & 1, 0);
	assert_true(unique < UINT64_C(1) << 62);
	assert_ptr_equal(request_find(rig->dev, unique), req);
	assert_null(request_find(rig->dev, unique | 1));
	assert_null(request_find(rig->dev, unique + 2));
	assert_null(request_find(rig->dev, 0));
	assert_null(request_find(rig->dev, UINT64_MAX));
	rig_answer(rig, req);
	rig_wait(rig, 1, NULL);
	assert_null(request_find(rig->dev, unique));
}

/* 5.11.6.1: a chain too short for a header goes back empty, and nothing else suffers. */
static void test_short_and_odd_chains(void **state)
{
	struct rig *rig = *state;
	struct rig_slot *slot = rig_slot(rig, 0);
	struct fuse_getattr_in in = {};
	size_t len;

	assert_int_equal(rig_init(rig), 0);
	rig_message(rig, slot, FUSE_GETATTR, 1, &in, sizeof(in));
	rig_send_raw(rig, 1, slot, 39, 200);
	assert_int_equal(rig_wait(rig, 1, NULL), 0);
	rig_send_raw(rig, 1, slot, 0, 200);
	assert_int_equal(rig_wait(rig, 1, NULL), 0);
	/* No room for a reply. */
	len = rig_message(rig, slot, FUSE_GETATTR, 1, &in, sizeof(in));
	rig_send_raw(rig, 1, slot, len, 0);
	assert_int_equal(rig_wait(rig, 1, NULL), 0);
	rig_send_raw(rig, 1, slot, len, 15);
	assert_int_equal(rig_wait(rig, 1, NULL), 0);
	/* Room for the header only: an error fits. */
	rig_send_raw(rig, 1, slot, len, 16);
	assert_int_equal(rig_wait(rig, 1, &slot), 16);
	assert_int_equal(reply_error(slot), -EINVAL);
	/* Header says more than there is. */
	rig_message(rig, slot, FUSE_GETATTR, 1, &in, sizeof(in));
	((struct fuse_in_header *)slot->msg)->len++;
	rig_send_raw(rig, 1, slot, len, 200);
	assert_int_equal(rig_wait(rig, 1, &slot), 16);
	assert_int_equal(reply_error(slot), -EINVAL);
	assert_int_equal(rig_count(rig, &rig->service->nr_of[FUSE_GETATTR]), 0);
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, 1, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 0);
}

static void test_many_tiny_segments(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in in = {};
	struct rig_slot *slot = rig_slot(rig, 0);
	struct iovec iov[RIG_RING];
	size_t len;
	unsigned int out = 0, n;

	assert_int_equal(rig_init(rig), 0);
	len = rig_message(rig, slot, FUSE_GETATTR, 1, &in, sizeof(in));
	for (size_t at = 0; at < len; at += 3)
		iov[out++] = (struct iovec){ slot->msg + at, min_of(len - at, (size_t)3) };
	n = out;
	for (size_t at = 0; at < 16 + sizeof(struct fuse_attr_out); at += 5)
		iov[n++] = (struct iovec){ slot->reply + at, 5 };
	assert_int_equal(virtq_driver_add(rig->drv[1], iov, out, n - out, slot), 0);
	if (virtq_driver_publish(rig->drv[1]))
		fd_signal(rig->kick[1]);
	assert_int_equal(rig_wait(rig, 1, NULL), 16 + sizeof(struct fuse_attr_out));
	assert_int_equal(reply_error(slot), 0);
}

static void test_broken_ring_needs_reset(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in in = {};
	uint64_t *desc = guest_strip(rig->setup[1].desc);

	assert_int_equal(rig_init(rig), 0);
	rig_message(rig, rig_slot(rig, 0), FUSE_GETATTR, 1, &in, sizeof(in));
	for (unsigned int i = 0; i < RIG_RING; i++)
		desc[2 * i] = 0;
	/* Descriptors are written when the chain is added: spoil them before the device is told. */
	assert_int_equal(virtq_driver_add(rig->drv[1],
					  (struct iovec[]){ { rig_slot(rig, 0)->msg, 40 } }, 1, 0,
					  rig_slot(rig, 0)),
			 0);
	for (unsigned int i = 0; i < RIG_RING; i++)
		desc[2 * i] = 0x10;
	if (virtq_driver_publish(rig->drv[1]))
		fd_signal(rig->kick[1]);
	for (unsigned int i = 0; i < 10000 && !READ_ONCE(rig->nr_needs_reset); i++)
		usleep(1000);
	assert_int_equal(READ_ONCE(rig->nr_needs_reset), 1);
	assert_true(device_status(rig->dev) & DEVICE_STATUS_NEEDS_RESET);
	/* The other queue still works; after a reset, all do. */
	assert_int_equal(rig_call(rig, 2, FUSE_GETATTR, 1, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 0);
	device_set_status(rig->dev, 0);
	assert_int_equal(device_status(rig->dev), 0);
	rig_start(rig);
	assert_int_equal(rig_init(rig), 0);
}

static struct rig *resolving;

static int resolve(void *transport, unsigned int index, struct virtq_setup *setup_out)
{
	*setup_out = resolving->setup[index];
	return 0;
}

static int resolve_fails(void *transport, unsigned int index, struct virtq_setup *setup_out)
{
	return -EFAULT;
}

static void test_memory_changes_under_requests(void **state)
{
	struct rig *rig = *state;
	struct mem_region_desc desc = { .gpa = RIG_GPA, .size = RIG_BYTES, .user_addr = RIG_USER };
	struct mem_table *empty, *table;
	struct request *req;
	struct rig_slot *slot;

	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	send_getattr(rig, 1, 0, 1);
	req = rig_take(rig);
	assert_int_equal(mem_table_new(&empty), 0);
	assert_int_equal(mem_table_with_region(&table, empty, &desc, rig->fd), 0);
	mem_table_put(empty);
	for (unsigned int i = 0; i < RIG_QUEUES; i++) {
		struct virtq_setup *s = &rig->setup[i];
		void __guest *base = mem_table_map(rig->table, gpa(RIG_GPA), 1);
		void __guest *moved = mem_table_map(table, gpa(RIG_GPA), 1);
		ptrdiff_t delta = (char *)guest_strip(moved) - (char *)guest_strip(base);

		s->desc = guest_mark((char *)guest_strip(s->desc) + delta);
		s->driver = guest_mark((char *)guest_strip(s->driver) + delta);
		s->device = guest_mark((char *)guest_strip(s->device) + delta);
	}
	resolving = rig;
	device_set_mem(rig->dev, table, resolve);
	rig->next_table = table;
	/* The old mapping lives until the request that came through it is answered. */
	rig_answer(rig, req);
	rig_wait(rig, 1, &slot);
	assert_int_equal(reply_error(slot), 0);
	rig_release(rig);
	send_getattr(rig, 1, 1, 1);
	rig_wait(rig, 1, &slot);
	assert_int_equal(reply_error(slot), 0);
	device_set_mem(rig->dev, table, resolve_fails);
	assert_int_equal(READ_ONCE(rig->nr_needs_reset), RIG_QUEUES);
}

static bool log_has(const uint8_t *log, const struct rig *rig, const void *p)
{
	uint64_t page = (RIG_GPA + (uint64_t)((const uint8_t *)p - rig->mem)) / DIRTY_LOG_PAGE;

	return log[page / 8] & 1 << page % 8;
}

static void test_dirty_log(void **state)
{
	struct rig *rig = *state;
	size_t bytes = (RIG_GPA + RIG_BYTES) / DIRTY_LOG_PAGE / 8;
	struct fuse_read_in in = { .size = 8 };
	int fd = memfd_new("log", bytes);
	struct dirty_log *log;
	uint8_t *seen = malloc(bytes);
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_open(rig, node, &in.fh), 0);
	assert_int_equal(dirty_log_new(&log, fd, bytes, 0), 0);
	device_set_log(rig->dev, log);
	dirty_log_put(log);
	send_getattr(rig, 1, 3, 1);
	rig_wait(rig, 1, NULL);
	rig_send(rig, 1, rig_slot(rig, 5), FUSE_READ, node, &in, sizeof(in), 8);
	rig_wait(rig, 1, NULL);
	device_set_log(rig->dev, NULL);
	send_getattr(rig, 1, 7, 1);
	rig_wait(rig, 1, NULL);
	assert_int_equal(pread(fd, seen, bytes, 0), bytes);
	assert_true(log_has(seen, rig, rig_slot(rig, 3)->reply));
	assert_true(log_has(seen, rig, rig_slot(rig, 5)->reply));
	assert_false(log_has(seen, rig, rig_slot(rig, 3)->msg));
	assert_false(log_has(seen, rig, rig_slot(rig, 7)->reply));
	free(seen);
	close(fd);
}

static void test_service_restart_makes_stale(void **state)
{
	struct rig *rig = *state;
	struct fuse_getattr_in in = {};
	uint64_t old, fresh;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &old), 0);
	device_service_died(rig->dev);
	rig_set_next_nodeid(rig, old);
	device_service_restarted(rig->dev);
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, old, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 -ESTALE);
	/* The new daemon gives the same number to another file: the driver must get another one. */
	assert_int_equal(rig_lookup(rig, "g", &fresh), 0);
	assert_true(fresh != old);
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, fresh, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 0);
}

/* A driver that does not know files without OPEN is told that the file is open. */
static void test_open_not_implemented(void **state)
{
	struct rig *rig = *state;
	struct fuse_open_in in = {};
	struct rig_slot *slot = rig_slot(rig, 0);
	uint64_t node;

	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	rig_hold(rig, FUSE_OPEN);
	rig_send(rig, 1, slot, FUSE_OPEN, node, &in, sizeof(in), sizeof(struct fuse_open_out));
	request_reply(rig_take(rig), -ENOSYS, NULL, 0);
	assert_int_equal(rig_wait(rig, 1, &slot), 32);
	assert_int_equal(reply_error(slot), 0);
	for (unsigned int i = 16; i < 32; i++)
		assert_int_equal(slot->reply[i], 0);
}

static void test_disabled_queue_takes_nothing(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_init(rig), 0);
	device_queue_set_enabled(rig->dev, 1, false);
	usleep(20000);
	send_getattr(rig, 1, 0, 1);
	assert_true(rig_quiet(rig, 1, 100));
	device_queue_set_enabled(rig->dev, 1, true);
	assert_int_equal(rig_wait(rig, 1, NULL), 16 + sizeof(struct fuse_attr_out));
}

static void test_kick_descriptor_closed(void **state)
{
	struct rig *rig = *state;
	struct device_queue_fds fds = { -1, rig->call[1], false };
	int pipe_fds[2];

	assert_int_equal(rig_init(rig), 0);
	device_queue_stop(rig->dev, 1);
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(fd_set_nonblock(pipe_fds[0], true), 0);
	fds.kick_fd = pipe_fds[0];
	rig->setup[1].base = rig->dev ? device_queue_stop(rig->dev, 1) : 0;
	assert_int_equal(device_queue_start(rig->dev, 1, &rig->setup[1], &fds), 0);
	close(pipe_fds[1]);
	usleep(50000);
	/* No busy loop, and in-band kicks still work. */
	send_getattr(rig, 1, 0, 1);
	device_queue_kick(rig->dev, 1);
	assert_int_equal(rig_wait(rig, 1, NULL), 16 + sizeof(struct fuse_attr_out));
	device_queue_stop(rig->dev, 1);
	close(pipe_fds[0]);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(config_space),
		T(config_space_many_queues),
		T(tag_fills_field),
		T(nothing_before_init),
		T(requests_on_all_queues),
		T(direct_read),
		T(out_of_order),
		T(hiprio_passes_waiting_queues),
		T(stop_waits),
		T(stop_gets_answer_in_time),
		T(direct_after_abandon),
		T(session_end_pays_back),
		T(payback_in_order),
		T(second_init_ends_session),
		T(reset_ends_session),
		T(payback_without_answer),
		T(reset_during_init),
		T(hanging_daemon_outlives_session),
		T(interrupt),
		T(find_by_unique),
		T(short_and_odd_chains),
		T(many_tiny_segments),
		T(broken_ring_needs_reset),
		T(memory_changes_under_requests),
		T(dirty_log),
		T(service_restart_makes_stale),
		T(open_not_implemented),
		T(disabled_queue_takes_nothing),
		T(kick_descriptor_closed),
	};

	packed = argc > 1 && strcmp(argv[1], "packed") == 0;
	log_init(LOG_LEVEL_OFF, "test");
	return cmocka_run_group_tests_name(packed ? "device, packed ring" : "device, split ring",
					   tests, NULL, NULL);
}
