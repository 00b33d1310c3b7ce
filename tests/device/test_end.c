/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ends that something gets in the way of: of sessions, of queues, of the daemon, of the driver's descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

/* A driver that was reset while its INIT waited for its turn has no session when it comes back. */
static void test_init_of_reset_driver(void **state)
{
	const struct fuse_init_in init = { .major = 7, .minor = 38 };
	struct rig *rig = rig_new(&config, false);
	struct rig_slot *slot = rig_slot(rig, 0);
	struct fuse_getattr_in in = {};
	uint64_t node;

	(void)state;
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "f", &node), 0);
	rig_hold(rig, FUSE_BATCH_FORGET);
	/* Both are taken at once. */
	device_queue_set_enabled(rig->dev, 1, false);
	rig_send_raw(rig, 1, slot, rig_message(rig, slot, FUSE_DESTROY, 0, NULL, 0), 16);
	rig_send(rig, 1, rig_slot(rig, 1), FUSE_INIT, 0, &init, sizeof(init),
		 sizeof(struct fuse_init_out));
	device_queue_set_enabled(rig->dev, 1, true);
	while (!rig_count(rig, &rig->service->nr_held))
		usleep(1000);
	device_reset(rig->dev);
	request_reply_none(rig_take(rig));
	rig_start(rig);
	/* Behind all that is still to be done. */
	usleep(50000);
	assert_int_equal(rig_call(rig, 1, FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in),
				  sizeof(struct fuse_attr_out), NULL, 0),
			 -EIO);
	assert_int_equal(rig_init(rig), 0);
	rig_free(rig);
}

static void hang_getattr(struct rig *rig, unsigned int queue)
{
	struct fuse_getattr_in in = {};

	rig_send(rig, queue, rig_slot(rig, queue), FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
}

/* The file system answers when it was asked to hurry with all that it has. */
static void *answer_in_a_hurry(void *arg)
{
	struct rig *rig = arg;

	while (rig_count(rig, &rig->service->nr_interrupts) < RIG_QUEUES)
		usleep(1000);
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		rig_answer(rig, rig_take(rig));
	return NULL;
}

/* A request hangs on each queue. */
static struct rig *hung_rig(uint64_t drain_ns)
{
	struct device_config patient = config;
	struct rig *rig;

	patient.drain_ns = drain_ns;
	rig = rig_new(&patient, false);
	assert_int_equal(rig_init(rig), 0);
	rig_hold(rig, FUSE_GETATTR);
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		hang_getattr(rig, i);
	while (rig_count(rig, &rig->service->nr_held) < RIG_QUEUES)
		usleep(1000);
	return rig;
}

/* A reset waits for all queues at once: as long as for one, and each request has its time. */
static void test_reset_waits_once(void **state)
{
	struct rig *rig = hung_rig(4 * NSEC_PER_SEC);
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, answer_in_a_hurry, rig), 0);
	device_reset(rig->dev);
	pthread_join(thread, NULL);
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		assert_int_equal(rig_wait(rig, i, NULL), 16 + sizeof(struct fuse_attr_out));
	rig_free(rig);
}

int __real_thread_start(pthread_t *ret_thread, void *(*main)(void *arg), void *arg);
int __wrap_thread_start(pthread_t *ret_thread, void *(*main)(void *arg), void *arg);

static unsigned int nr_threads_refused;

int __wrap_thread_start(pthread_t *ret_thread, void *(*main)(void *arg), void *arg)
{
	if (!nr_threads_refused)
		return __real_thread_start(ret_thread, main, arg);
	nr_threads_refused--;
	return -EAGAIN;
}

/* No thread for the session: INIT is told so, nothing is left to end, and the next INIT finds one. */
static void test_no_control_thread(void **state)
{
	struct rig *rig = rig_new(&config, false);

	(void)state;
	nr_threads_refused = 2;
	assert_int_equal(rig_init(rig), -ENOMEM);
	assert_int_equal(rig_init(rig), -ENOMEM);
	assert_int_equal(nr_threads_refused, 0);
	device_reset(rig->dev);
	rig_start(rig);
	assert_int_equal(rig_init(rig), 0);
	rig_free(rig);
}

static uint64_t stop_took_ns(struct rig *rig, unsigned int queue)
{
	uint64_t begin = clock_now_ns();

	device_queue_stop(rig->dev, queue);
	return clock_now_ns() - begin;
}

static void end_hung_rig(struct rig *rig)
{
	while (rig_count(rig, &rig->service->nr_held))
		request_reply_none(rig_take(rig));
	rig_free(rig);
}

/* The queues of a hung file system are stopped one by one: all together take the time of one. */
static void test_stops_wait_once(void **state)
{
	const uint64_t drain_ns = 3 * NSEC_PER_SEC;
	struct rig *rig = hung_rig(drain_ns);
	uint64_t all = 0;

	(void)state;
	for (unsigned int i = 0; i < RIG_QUEUES; i++)
		all += stop_took_ns(rig, i);
	assert_in_range(all, drain_ns, 2 * drain_ns - 1);
	assert_int_equal(rig_count(rig, &rig->service->nr_interrupts), RIG_QUEUES);
	end_hung_rig(rig);
}

static void hang_another(struct rig *rig, unsigned int queue)
{
	hang_getattr(rig, queue);
	while (rig_count(rig, &rig->service->nr_held) < RIG_QUEUES + 1)
		usleep(1000);
}

/* What was taken after an earlier stop had begun has its time. */
static void test_stop_of_later_request(void **state)
{
	const uint64_t drain_ns = NSEC_PER_SEC;
	struct rig *rig = hung_rig(drain_ns);

	(void)state;
	assert_true(stop_took_ns(rig, 0) >= drain_ns);
	hang_another(rig, 1);
	assert_true(stop_took_ns(rig, 1) >= drain_ns);
	end_hung_rig(rig);
}

static void *answer_the_last(void *arg)
{
	usleep(300000);
	rig_answer(arg, rig_take(arg));
	return NULL;
}

/* A file system that has answered anything while a queue stopped has time for the next queue. */
static void test_stop_after_progress(void **state)
{
	const uint64_t drain_ns = 2 * NSEC_PER_SEC;
	struct rig *rig = hung_rig(drain_ns);
	pthread_t thread;

	(void)state;
	hang_another(rig, 1);
	assert_int_equal(pthread_create(&thread, NULL, answer_the_last, rig), 0);
	assert_true(stop_took_ns(rig, 0) >= drain_ns);
	pthread_join(thread, NULL);
	assert_true(stop_took_ns(rig, 1) >= drain_ns);
	end_hung_rig(rig);
}

static void may_take_again(struct service *svc)
{
	(void)svc;
}

struct taker {
	struct rig *rig;
	pthread_t thread;
	bool give_up;
};

static void *take_all(void *arg)
{
	struct taker *t = arg;
	bool more;

	while (!READ_ONCE(t->give_up)) {
		if (device_take(t->rig->dev, &t->give_up, DEVICE_TAKE_LOOK, false, &more) == -EBUSY)
			usleep(1000);
	}
	return NULL;
}

static uint64_t cpu_ns(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	assert_int_equal(clock_gettime(clock, &ts), 0);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* The other end of a ring's kick pipe is gone: who takes requests from all rings sleeps on, and in-band kicks work. */
static void test_taker_and_dead_kick(void **state)
{
	struct device_config takeable = config;
	struct rig *rig;
	struct taker t = { 0 };
	struct device_queue_fds fds = { 0 };
	struct fuse_getattr_in in = {};
	int pipe_fds[2];
	uint64_t used;

	(void)state;
	takeable.takeable = may_take_again;
	t.rig = rig = rig_new(&takeable, false);
	assert_int_equal(pthread_create(&t.thread, NULL, take_all, &t), 0);
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
	fds = (struct device_queue_fds){ pipe_fds[0], rig->call[2], false };
	rig->setup[2].base = device_queue_stop(rig->dev, 2);
	assert_int_equal(device_queue_start(rig->dev, 2, &rig->setup[2], &fds), 0);
	close(pipe_fds[1]);
	usleep(20000);
	used = cpu_ns(t.thread);
	usleep(200000);
	assert_in_range(cpu_ns(t.thread) - used, 0, 20 * NSEC_PER_MSEC);
	rig_send(rig, 2, rig_slot(rig, 0), FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
	device_queue_kick(rig->dev, 2);
	assert_int_equal(rig_wait(rig, 2, NULL), 16 + sizeof(struct fuse_attr_out));
	device_queue_stop(rig->dev, 2);
	close(pipe_fds[0]);
	WRITE_ONCE(t.give_up, true);
	device_take_wake(rig->dev);
	pthread_join(t.thread, NULL);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_payback_for_dead_daemon),
		cmocka_unit_test(test_init_of_reset_driver),
		cmocka_unit_test(test_reset_waits_once),
		cmocka_unit_test(test_no_control_thread),
		cmocka_unit_test(test_stops_wait_once),
		cmocka_unit_test(test_stop_of_later_request),
		cmocka_unit_test(test_stop_after_progress),
		cmocka_unit_test(test_taker_and_dead_kick),
	};

	log_init(LOG_LEVEL_OFF, "test");
	return cmocka_run_group_tests_name("device, ends", tests, NULL, NULL);
}
