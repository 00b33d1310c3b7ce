/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ends that something gets in the way of: of sessions, of queues, of the daemon, of the driver's descriptors.
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
	.drain_ns = 600 * NSEC_PER_MSEC,
	.arch = FUSE_ARCH_NATIVE,
};

/*
 * The daemon dies while the forgets of a session that ended wait for its releases: they are not for the daemon that is
 * started in its place.
 */
static void test_payback_for_dead_daemon(void **state)
{
	struct rig *rig = rig_new(&config, false);
	struct rig_slot *slot = rig_slot(rig, 0);
	uint64_t node, fh;

	(void)state;
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	assert_int_equal(rig_open(rig, node, &fh), 0);
	rig_hold(rig, FUSE_RELEASE);
	rig_send_raw(rig, 1, slot, rig_message(rig, slot, FUSE_DESTROY, 0, NULL, 0), 16);
	while (!rig_count(rig, &rig->service->nr_held))
		usleep(1000);
	/* The forget is taken out of the ledger, and waits. */
	usleep(50000);
	device_service_died(rig->dev);
	request_reply(rig_take(rig), -ENODEV, NULL, 0);
	assert_int_equal(rig_wait(rig, 1, NULL), 16);
	assert_true(rig_count64(rig, &rig->service->nr_forgotten) == 0);
	rig_free(rig);
}

static void hang_getattr(struct rig *rig, unsigned int queue)
{
	struct fuse_getattr_in in = {};

	rig_send(rig, queue, rig_slot(rig, queue), FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
}

/* The daemon hangs, and every queue has a request with it: the driver waits for a reset as long as for one queue's. */
static void test_reset_waits_once(void **state)
{
	struct rig *rig = rig_new(&config, false);
	uint64_t begin;

	(void)state;
	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		hang_getattr(rig, i);
	while (rig_count(rig, &rig->service->nr_held) < RIG_QUEUES)
		usleep(1000);
	begin = clock_now_ns();
	device_reset(rig->dev);
	assert_in_range(clock_now_ns() - begin, config.drain_ns, 2 * config.drain_ns);
	/* Each was asked to hurry. */
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), RIG_QUEUES);
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		assert_int_equal(rig_wait(rig, i, NULL), 16);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_payback_for_dead_daemon),
		cmocka_unit_test(test_reset_waits_once),
	};

	log_init(LOG_LEVEL_OFF, "test");
	return cmocka_run_group_tests_name("device, ends", tests, NULL, NULL);
}
