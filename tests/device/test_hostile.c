/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver that writes what it likes over rings and requests while the device works on them.
 *
 * Rounds of: a well-behaved session works; a scribbling thread runs beside a driver that sends mutated
 * requests and kicks; reset. What counts: the process lives (the sanitizers watch), no queue hangs, and the next round's
 * well-behaved session finds a working device. Not for the thread sanitizer: the races are the test.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "rig.h"
#include "service/null/null.h"

#define ROUNDS	 20
#define ROUND_NS (150 * NSEC_PER_MSEC)

static const struct device_config config = {
	.tag = "hostile",
	.nr_request_queues = RIG_QUEUES - 1,
	.queue_size_max = RIG_RING,
	.poll_ns = 20 * NSEC_PER_USEC,
	.drain_ns = 500 * NSEC_PER_MSEC,
	.arch = FUSE_ARCH_NATIVE,
};

struct scribbler {
	struct rig *rig;
	uint64_t seed;
	bool stop;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Small numbers, borders and noise: what lengths, indices and ids are most likely to be mishandled with. */
static uint32_t nasty_number(uint64_t *rng)
{
	static const uint32_t numbers[] = { 0,	       1,      15,	 16,	       39,
					    40,	       41,     4096,	 65535,	       65536,
					    0x7f,      0x8000, RIG_RING, RIG_RING - 1, 0xffffffff,
					    0x7fffffff };

	switch (next_random(rng) % 3) {
	case 0:
		return numbers[next_random(rng) % array_size(numbers)];
	case 1:
		return (uint32_t)(next_random(rng) % 128);
	default:
		return (uint32_t)next_random(rng);
	}
}

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint64_t rng = s->seed;

	while (!READ_ONCE(s->stop)) {
		uint32_t ring = (uint32_t)(next_random(&rng) % RIG_QUEUES);
		uint8_t *at = s->rig->mem + ring * 65536;
		size_t off = next_random(&rng) % (next_random(&rng) % 2 ? 4096 : 65536);
		uint32_t *word = (uint32_t *)(void *)(at + off / 4 * 4);

		/* Seldom in rings, or they would break at once; often in requests. */
		if (next_random(&rng) % 64 == 0)
			WRITE_ONCE(*word, nasty_number(&rng));
		word = (uint32_t *)(void *)(s->rig->slots +
					    next_random(&rng) % 64 * sizeof(struct rig_slot) +
					    next_random(&rng) % 30 * 4);
		WRITE_ONCE(*word, nasty_number(&rng));
		if (next_random(&rng) % 256 == 0)
			fd_signal(s->rig->kick[ring]);
	}
	return NULL;
}

static void send_mutated(struct rig *rig, uint64_t *rng)
{
	unsigned int queue = (unsigned int)(next_random(rng) % RIG_QUEUES);
	struct rig_slot *slot = rig_slot(rig, (unsigned int)(next_random(rng) % 60));
	uint32_t words[32];
	size_t len = next_random(rng) % sizeof(words);
	struct iovec iov[3];
	void *cookie;
	uint32_t written;
	size_t bytes;

	for (unsigned int i = 0; i < array_size(words); i++)
		words[i] = nasty_number(rng);
	bytes = rig_message(rig, slot, (uint32_t)(next_random(rng) % 56), 1 + next_random(rng) % 3,
			    words, len);
	iov[0] = (struct iovec){ slot->msg, next_random(rng) % 8 ? bytes : 1 + bytes / 2 };
	iov[1] = (struct iovec){ slot->reply, 16 };
	iov[2] = (struct iovec){ slot->reply + 16, 1 + next_random(rng) % 4096 };
	/* A ring that was scribbled on may refuse us, or hand back nonsense: that is the point. */
	if (virtq_driver_add(rig->drv[queue], iov, 1, (unsigned int)(next_random(rng) % 3), slot) ==
		    0 &&
	    virtq_driver_publish(rig->drv[queue]))
		fd_signal(rig->kick[queue]);
	while (virtq_driver_get(rig->drv[queue], &cookie, &written) == 1)
		continue;
}

static void behave(struct rig *rig)
{
	struct fuse_getattr_in in = {};
	struct fuse_attr_out out;

	assert_int_equal(rig_init(rig), 0);
	for (unsigned int q = 0; q < RIG_QUEUES; q++) {
		for (unsigned int i = 0; i < 100; i++)
			assert_int_equal(rig_call(rig, q, FUSE_GETATTR, 1, &in, sizeof(in),
						  sizeof(out), &out, sizeof(out)),
					 0);
	}
}

static void run_rounds(struct rig *rig)
{
	uint64_t rng = 0x9e3779b97f4a7c15ull;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct scribbler scribbler = { rig, next_random(&rng) | 1, false };
		uint64_t end = clock_now_ns() + ROUND_NS;
		pthread_t thread;

		behave(rig);
		assert_int_equal(pthread_create(&thread, NULL, scribble, &scribbler), 0);
		while (clock_now_ns() < end)
			send_mutated(rig, &rng);
		WRITE_ONCE(scribbler.stop, true);
		pthread_join(thread, NULL);
		device_reset(rig->dev);
		rig_start(rig);
	}
	behave(rig);
}

static void test_ledger(void **state)
{
	struct rig *rig = rig_new(&config, *(bool *)*state);

	run_rounds(rig);
	rig_free(rig);
}

static void test_null(void **state)
{
	struct service *svc;
	struct rig *rig;

	assert_int_equal(null_service_new(&svc, 1 << 20), 0);
	rig = rig_new_with(&config, *(bool *)*state, svc);
	run_rounds(rig);
	rig_free(rig);
	svc->ops->free(svc);
}

/* Answers come late and from another thread, while everything is scribbled on and reset. */
static void *answer_held(void *arg)
{
	struct scribbler *s = arg;
	struct rig_service *rs = s->rig->service;

	while (!READ_ONCE(s->stop)) {
		struct request *req = NULL;

		pthread_mutex_lock(&rs->lock);
		if (rs->nr_held)
			req = rs->held[--rs->nr_held];
		pthread_mutex_unlock(&rs->lock);
		if (req)
			rig_answer(s->rig, req);
		else
			usleep(100);
	}
	return NULL;
}

static void test_late_answers(void **state)
{
	struct rig *rig = rig_new(&config, *(bool *)*state);
	struct scribbler answerer = { .rig = rig };
	pthread_t thread;

	rig_hold(rig, 0);
	assert_int_equal(pthread_create(&thread, NULL, answer_held, &answerer), 0);
	run_rounds(rig);
	WRITE_ONCE(answerer.stop, true);
	pthread_join(thread, NULL);
	rig_free(rig);
}

int main(void)
{
	static bool split = false, packed = true;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_null, &split),
		cmocka_unit_test_prestate(test_null, &packed),
		cmocka_unit_test_prestate(test_ledger, &split),
		cmocka_unit_test_prestate(test_ledger, &packed),
		cmocka_unit_test_prestate(test_late_answers, &split),
		cmocka_unit_test_prestate(test_late_answers, &packed),
	};

	log_init(LOG_LEVEL_OFF, "test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
