/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The notification queue under a driver that does with it what it likes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "rig.h"

#define NOTIFY	     1
#define REQUESTS     2
#define BUFFER	     8192
#define BACKLOG	     1024
#define ENTRY_BYTES  (16 + sizeof(struct fuse_notify_inval_entry_out) + 2)
#define INODE_BYTES  (16 + sizeof(struct fuse_notify_inval_inode_out))
#define NOTIFICATION UINT64_C(1)

static bool packed;

static int init(struct rig *rig)
{
	const struct fuse_init_in in = { .major = 7, .minor = 45, .max_readahead = 65536 };

	return rig_call(rig, REQUESTS, FUSE_INIT, 0, &in, sizeof(in),
			16 + sizeof(struct fuse_init_out), NULL, 0);
}

static void start(struct rig *rig)
{
	device_reset(rig->dev);
	assert_int_equal(device_set_features(rig->dev, device_features(rig->dev)), 0);
	rig_start(rig);
	assert_int_equal(init(rig), 0);
}

static int setup(void **state)
{
	const struct device_config config = { .tag = "t",
					      .nr_request_queues = 1,
					      .queue_size_max = RIG_RING };
	struct rig *rig = rig_new(&config, packed);

	start(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static int works(struct rig *rig)
{
	const struct fuse_getattr_in in = {};

	return rig_call(rig, REQUESTS, FUSE_GETATTR, 1, &in, sizeof(in),
			sizeof(struct fuse_attr_out), NULL, 0);
}

static int say_entry(struct rig *rig)
{
	const struct {
		struct fuse_notify_inval_entry_out what;
		char name[2];
	} body = { { .parent = 1, .namelen = 1 }, "a" };

	return device_notify(rig->dev, FUSE_NOTIFY_INVAL_ENTRY, &body, sizeof(body.what) + 2);
}

static int say_inode(struct rig *rig, uint64_t ino, int64_t off)
{
	const struct fuse_notify_inval_inode_out what = { .ino = ino, .off = off, .len = 1 };

	return device_notify(rig->dev, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what));
}

static int say_retrieve(struct rig *rig, uint64_t unique)
{
	const struct fuse_notify_retrieve_out what = { .notify_unique = unique,
						       .nodeid = 1,
						       .size = 100 };

	return device_notify(rig->dev, FUSE_NOTIFY_RETRIEVE, &what, sizeof(what));
}

static void give(struct rig *rig, unsigned int slot, size_t bytes)
{
	rig_send_raw(rig, NOTIFY, rig_slot(rig, slot), 0, bytes);
}

/* Wait for a notification of that code and length. */
static const void *got(struct rig *rig, int32_t code, uint32_t bytes)
{
	struct fuse_out_header hdr;
	struct rig_slot *slot;

	assert_int_equal(rig_wait(rig, NOTIFY, &slot), bytes);
	memcpy(&hdr, slot->reply, sizeof(hdr));
	assert_int_equal(hdr.len, bytes);
	assert_int_equal(hdr.error, code);
	assert_true(hdr.unique == 0);
	return slot->reply + sizeof(hdr);
}

static void test_before_and_after_buffers(void **state)
{
	struct rig *rig = *state;

	give(rig, 0, BUFFER);
	assert_true(rig_quiet(rig, NOTIFY, 50));
	assert_int_equal(say_entry(rig), 0);
	got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
	assert_int_equal(say_entry(rig), 0);
	assert_int_equal(say_inode(rig, 1, 7), 0);
	assert_true(rig_quiet(rig, NOTIFY, 50));
	give(rig, 0, BUFFER);
	give(rig, 1, BUFFER);
	got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
	got(rig, FUSE_NOTIFY_INVAL_INODE, INODE_BYTES);
	assert_int_equal(works(rig), 0);
}

static void test_malformed_and_unknown(void **state)
{
	struct rig *rig = *state;

	give(rig, 0, BUFFER);
	assert_int_equal(say_inode(rig, 4242, 0), -ENOENT);
	assert_int_equal(device_notify(rig->dev, 99, "x", 1), -EINVAL);
	assert_int_equal(device_notify(rig->dev, FUSE_NOTIFY_STORE, "x", 1), -EINVAL);
	assert_int_equal(device_notify(rig->dev, FUSE_NOTIFY_RESEND, NULL, 0), -EOPNOTSUPP);
	assert_true(rig_quiet(rig, NOTIFY, 50));
}

/* Ranges of one file become all of it. */
static void test_merged(void **state)
{
	struct fuse_notify_inval_inode_out what;
	struct rig *rig = *state;

	assert_int_equal(say_inode(rig, 1, 7), 0);
	assert_int_equal(say_inode(rig, 1, 9000), 0);
	assert_int_equal(say_entry(rig), 0);
	give(rig, 0, BUFFER);
	give(rig, 1, BUFFER);
	memcpy(&what, got(rig, FUSE_NOTIFY_INVAL_INODE, INODE_BYTES), sizeof(what));
	assert_true(what.ino == 1 && what.off == 0 && what.len == 0);
	got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
}

/* Too small by a byte, a header, none that may be written: what it was for is lost, the queue goes on. */
static void test_small_buffers(void **state)
{
	struct rig *rig = *state;
	struct rig_slot *slot;

	give(rig, 0, INODE_BYTES - 1);
	give(rig, 1, 1);
	rig_send_raw(rig, NOTIFY, rig_slot(rig, 2), 40, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(say_inode(rig, 1, i), 0);
		assert_int_equal(rig_wait(rig, NOTIFY, &slot), 0);
		assert_int_equal(slot->reply[0], 0xee);
	}
	/* What may be read in front of what may be written is not looked at. */
	rig_send_raw(rig, NOTIFY, rig_slot(rig, 0), 40, INODE_BYTES);
	assert_int_equal(say_inode(rig, 1, 0), 0);
	got(rig, FUSE_NOTIFY_INVAL_INODE, INODE_BYTES);
	assert_int_equal(works(rig), 0);
}

/* The daemon waits for an answer: it gets one. */
static void test_retrieve_is_answered(void **state)
{
	struct rig *rig = *state;

	give(rig, 0, 20);
	assert_int_equal(say_retrieve(rig, 11), 0);
	assert_int_equal(rig_wait(rig, NOTIFY, NULL), 0);
	for (unsigned int i = 0; i < 5000 && !rig_count(rig, &rig->service->nr_none); i++)
		usleep(1000);
	assert_int_equal(rig_count(rig, &rig->service->nr_none), 1);
	/* One that waits, and one that the driver has and has not answered: so do both when it goes. */
	give(rig, 0, BUFFER);
	assert_int_equal(say_retrieve(rig, 12), 0);
	got(rig, FUSE_NOTIFY_RETRIEVE, 16 + sizeof(struct fuse_notify_retrieve_out));
	assert_int_equal(say_retrieve(rig, 13), 0);
	device_reset(rig->dev);
	assert_int_equal(rig_count(rig, &rig->service->nr_none), 3);
}

static void test_full_backlog(void **state)
{
	struct rig *rig = *state;

	for (unsigned int i = 0; i < BACKLOG; i++)
		assert_int_equal(say_entry(rig), 0);
	assert_int_equal(say_entry(rig), -ENOSPC);
	assert_int_equal(say_retrieve(rig, 1), -ENOSPC);
	assert_int_equal(rig_count(rig, &rig->service->nr_none), 0);
	assert_int_equal(works(rig), 0);
	for (unsigned int i = 0; i < BACKLOG; i++) {
		give(rig, 0, BUFFER);
		got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
	}
	give(rig, 0, BUFFER);
	assert_true(rig_quiet(rig, NOTIFY, 50));
	assert_int_equal(say_inode(rig, 1, 0), 0);
	got(rig, FUSE_NOTIFY_INVAL_INODE, INODE_BYTES);
}

/* Numbers of nodes mean nothing to the next session. */
static void test_end_with_backlog(void **state)
{
	struct rig *rig = *state;

	for (unsigned int i = 0; i < 100; i++)
		assert_int_equal(say_entry(rig), 0);
	assert_int_equal(init(rig), 0);
	give(rig, 0, BUFFER);
	assert_true(rig_quiet(rig, NOTIFY, 50));
	assert_int_equal(say_inode(rig, 1, 0), 0);
	got(rig, FUSE_NOTIFY_INVAL_INODE, INODE_BYTES);
	for (unsigned int i = 0; i < 100; i++)
		assert_int_equal(say_entry(rig), 0);
	device_reset(rig->dev);
	assert_int_equal(say_entry(rig), -EOPNOTSUPP);
	start(rig);
	give(rig, 0, BUFFER);
	assert_true(rig_quiet(rig, NOTIFY, 50));
	assert_int_equal(say_entry(rig), 0);
	got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
	/* The device ends with a backlog. */
	assert_int_equal(say_entry(rig), 0);
}

static void test_broken_queue(void **state)
{
	struct rig *rig = *state;
	uint64_t *desc = guest_strip(rig->setup[NOTIFY].desc);

	/* Descriptors are written when the chain is added: spoil them before the device is told. */
	assert_int_equal(virtq_driver_add(rig->drv[NOTIFY],
					  (struct iovec[]){ { rig_slot(rig, 0)->reply, BUFFER } },
					  0, 1, rig_slot(rig, 0)),
			 0);
	for (unsigned int i = 0; i < RIG_RING; i++)
		desc[2 * i] = 0x10;
	if (virtq_driver_publish(rig->drv[NOTIFY]))
		fd_signal(rig->kick[NOTIFY]);
	assert_int_equal(say_entry(rig), 0);
	for (unsigned int i = 0; i < 10000 && !READ_ONCE(rig->nr_needs_reset); i++)
		usleep(1000);
	assert_int_equal(READ_ONCE(rig->nr_needs_reset), 1);
	/* Requests go on, and notifications are taken until there is no room. */
	assert_int_equal(say_entry(rig), 0);
	assert_int_equal(works(rig), 0);
	start(rig);
	give(rig, 0, BUFFER);
	assert_int_equal(say_entry(rig), 0);
	got(rig, FUSE_NOTIFY_INVAL_ENTRY, ENTRY_BYTES);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(before_and_after_buffers),
		T(malformed_and_unknown),
		T(merged),
		T(small_buffers),
		T(retrieve_is_answered),
		T(full_backlog),
		T(end_with_backlog),
		T(broken_queue),
	};

	packed = argc > 1 && strcmp(argv[1], "packed") == 0;
	log_init(LOG_LEVEL_OFF, "test");
	return cmocka_run_group_tests_name("notification queue", tests, NULL, NULL);
}
