/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who leads when: somebody begins to poll while a thread of the daemon waits in read(2), or none of its threads comes back.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/rig.h"
#include "answer.h"
#include "device_config.h"
#include "service/inproc/inproc.h"

#define NR_TRIES   20
#define NR_DRIVERS 4
/* in advance */
#define NR_TAKEN 64

static void reply(struct service *svc, const struct fuse_in_header *in)
{
	const struct fuse_entry_out entry = {
		.nodeid = 7, .attr = { .ino = 7, .mode = S_IFREG | 0644, .nlink = 1 }
	};
	const struct fuse_attr_out attr = { .attr = entry.attr };

	if (in->opcode == FUSE_LOOKUP)
		answer(svc, in->unique, 0, &entry, sizeof(entry));
	else if (in->opcode == FUSE_GETATTR)
		answer(svc, in->unique, 0, &attr, sizeof(attr));
	else if (in->opcode != FUSE_FORGET && in->opcode != FUSE_BATCH_FORGET)
		answer(svc, in->unique, 0, NULL, 0);
}

static void *serve(void *arg)
{
	struct service *svc = arg;
	char msg[64 << 10];
	struct iovec iov = { msg, sizeof(msg) };
	struct fuse_in_header in;
	ssize_t n;

	while ((n = inproc_read(svc, &iov, 1, false)) != -ENODEV) {
		if (n < (ssize_t)sizeof(in))
			continue;
		memcpy(&in, msg, sizeof(in));
		reply(svc, &in);
	}
	return NULL;
}

/* @wait_us: until the reader leads, looking for requests or asleep */
static void begin_to_poll(unsigned int wait_us)
{
	const struct inproc_config config = {
		.init_out = { .major = 7, .minor = 40, .max_write = 65536, .time_gran = 1 },
	};
	struct fuse_getattr_in in = { 0 };
	struct service *svc;
	struct rig *rig;
	pthread_t reader;
	uint64_t node;

	assert_int_equal(inproc_new(&svc, &config), 0);
	rig = rig_new_with(&device_config, false, svc);
	inproc_set_device(svc, rig->dev);
	assert_int_equal(pthread_create(&reader, NULL, serve, svc), 0);
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "a", &node), 0);
	usleep(wait_us);
	inproc_poll_begin(svc);
	usleep(5000);
	/* rig_wait() gives up after a while. */
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, node, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 0);
	inproc_unmount(svc);
	assert_int_equal(pthread_join(reader, NULL), 0);
	rig_free(rig);
	svc->ops->free(svc);
}

static void test_while_a_reader_looks(void **state)
{
	for (int i = 0; i < NR_TRIES; i++)
		begin_to_poll(5000);
}

static void test_while_a_reader_sleeps(void **state)
{
	for (int i = 0; i < NR_TRIES; i++)
		begin_to_poll(40000);
}

/* @nr requests are taken in advance, or more are there; then the driver is reset, and the next one begins, time and again. */
static void hang(bool polled, unsigned int nr)
{
	const struct inproc_config config = {
		.init_out = { .major = 7, .minor = 40, .max_write = 65536, .time_gran = 1 },
	};
	struct fuse_getattr_in in = { 0 };
	struct service *svc;
	char msg[8192];
	struct rig *rig;

	assert_int_equal(inproc_new(&svc, &config), 0);
	rig = rig_new_with(&device_config, false, svc);
	inproc_set_device(svc, rig->dev);
	/* The daemon has been here once. */
	assert_int_equal(inproc_read(svc, &(struct iovec){ msg, sizeof(msg) }, 1, true), -EAGAIN);
	if (polled)
		inproc_poll_begin(svc);
	for (unsigned int i = 0; i < NR_DRIVERS; i++) {
		assert_int_equal(rig_init(rig), 0);
		for (unsigned int j = 0; j < nr; j++)
			rig_send(rig, 1 + j % 2, rig_slot(rig, j), FUSE_GETATTR, FUSE_ROOT_ID, &in,
				 sizeof(in), sizeof(struct fuse_attr_out));
		assert_true(rig_quiet(rig, 1, 50));
		device_reset(rig->dev);
		rig_start(rig);
	}
	assert_int_equal(rig_init(rig), 0);
	inproc_unmount(svc);
	rig_free(rig);
	svc->ops->free(svc);
}

static void test_nobody_reads(void **state)
{
	hang(false, NR_TAKEN - 4);
	hang(false, NR_TAKEN + 16);
}

static void test_nobody_reads_who_polls(void **state)
{
	hang(true, NR_TAKEN - 4);
	hang(true, NR_TAKEN + 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_while_a_reader_looks),
		cmocka_unit_test(test_while_a_reader_sleeps),
		cmocka_unit_test(test_nobody_reads),
		cmocka_unit_test(test_nobody_reads_who_polls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
