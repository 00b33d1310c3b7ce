/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon's own threads on the rings: the inproc service between our driver side and threads that the test plays.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/rig.h"
#include "answer.h"
#include "base/clock.h"
#include "service/inproc/inproc.h"

#define THREADS_MAX 8
#define MESSAGE_MAX (64u << 10)
#define READ_MAX    8000u

struct daemon {
	struct service *svc;
	struct rig *rig;
	pthread_t threads[THREADS_MAX];
	unsigned int nr_threads;
	unsigned int nr_of[64]; /* atomic: requests by opcode */
	unsigned int nr_interrupted; /* atomic: -EINTR from inproc_read() */
	uint64_t nr_forgotten; /* atomic */
	uint64_t interrupted; /* atomic: what the last INTERRUPT meant */
	bool hold; /* atomic: GETATTR is kept until this is false */
	bool through_pipe;
	uint64_t fails_from; /* offset from which READs fail with -ENODATA; 0: none */
	bool destroyed; /* atomic */
	int readable; /* atomic: -1 before it was told */
	uint64_t next_id;
};

static struct device_config device_config = {
	.tag = "inproc",
	.nr_request_queues = RIG_QUEUES - 1,
	.queue_size_max = RIG_RING,
	.poll_ns = 50 * NSEC_PER_USEC,
	.drain_ns = 500 * NSEC_PER_MSEC,
	.arch = FUSE_ARCH_NATIVE,
	.takeable = inproc_takeable,
};

static unsigned int seen(struct daemon *d, uint32_t opcode)
{
	return __atomic_load_n(&d->nr_of[opcode], __ATOMIC_ACQUIRE);
}

static void answer_by_pipe(struct daemon *d, uint64_t unique, const void *body, size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len), .unique = unique };
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], &out, sizeof(out)), sizeof(out));
	assert_int_equal(write(fds[1], body, len), len);
	assert_int_equal(inproc_write_pipe(d->svc, fds[0], out.len), out.len);
	close(fds[0]);
	close(fds[1]);
}

/* What byte @off of the file is. */
static uint8_t pattern(uint64_t off)
{
	return (uint8_t)(off * 7 + off / 251);
}

static void answer_read(struct daemon *d, uint64_t unique, const struct fuse_read_in *in)
{
	uint8_t *data;

	if (d->fails_from && in->offset >= d->fails_from) {
		answer(d->svc, unique, -ENODATA, NULL, 0);
		return;
	}
	data = malloc(in->size);
	assert_non_null(data);
	for (uint32_t i = 0; i < in->size; i++)
		data[i] = pattern(in->offset + i);
	if (d->through_pipe)
		answer_by_pipe(d, unique, data, in->size);
	else
		assert_int_equal(answer(d->svc, unique, 0, data, in->size), in->size + 16);
	free(data);
}

static void count_forgets(struct daemon *d, uint32_t opcode, const uint8_t *args)
{
	uint64_t n = 0;

	if (opcode == FUSE_FORGET)
		n = ((const struct fuse_forget_in *)(const void *)args)->nlookup;
	else
		for (uint32_t i = 0;
		     i < ((const struct fuse_batch_forget_in *)(const void *)args)->count; i++)
			n += ((const struct fuse_forget_one *)(const void *)(args + 8))[i].nlookup;
	__atomic_add_fetch(&d->nr_forgotten, n, __ATOMIC_SEQ_CST);
}

static void answer_new_node(struct daemon *d, uint64_t unique)
{
	struct fuse_entry_out out = { .attr = { .mode = S_IFREG | 0644, .nlink = 1 } };

	out.nodeid = out.attr.ino = __atomic_add_fetch(&d->next_id, 1, __ATOMIC_RELAXED);
	answer(d->svc, unique, 0, &out, sizeof(out));
}

static void handle(struct daemon *d, const uint8_t *msg, ssize_t len)
{
	struct fuse_in_header hdr;
	const uint8_t *args = msg + sizeof(hdr);
	struct fuse_attr_out attr = { .attr = { .mode = S_IFREG | 0644, .nlink = 1 } };
	struct fuse_open_out open_out = {};

	memcpy(&hdr, msg, sizeof(hdr));
	assert_int_equal(hdr.len, len);
	/* Before the answer: who has that may look. */
	__atomic_add_fetch(&d->nr_of[hdr.opcode], 1, __ATOMIC_SEQ_CST);
	switch (hdr.opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		count_forgets(d, hdr.opcode, args);
		break;
	case FUSE_INTERRUPT:
		__atomic_store_n(&d->interrupted,
				 ((const struct fuse_interrupt_in *)(const void *)args)->unique,
				 __ATOMIC_RELEASE);
		break;
	case FUSE_LOOKUP:
		answer_new_node(d, hdr.unique);
		break;
	case FUSE_OPEN:
		open_out.fh = __atomic_add_fetch(&d->next_id, 1, __ATOMIC_RELAXED);
		answer(d->svc, hdr.unique, 0, &open_out, sizeof(open_out));
		break;
	case FUSE_READ:
		answer_read(d, hdr.unique, (const void *)args);
		break;
	case FUSE_GETATTR:
		while (__atomic_load_n(&d->hold, __ATOMIC_ACQUIRE))
			usleep(1000);
		attr.attr.ino = hdr.nodeid;
		answer(d->svc, hdr.unique, 0, &attr, sizeof(attr));
		break;
	default:
		answer(d->svc, hdr.unique, 0, NULL, 0);
	}
}

static void *daemon_main(void *arg)
{
	struct daemon *d = arg;
	uint8_t *msg = malloc(MESSAGE_MAX);
	struct iovec iov = { msg, MESSAGE_MAX };
	ssize_t n;

	assert_non_null(msg);
	pthread_cleanup_push(free, msg);
	for (;;) {
		int unused;

		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &unused);
		n = inproc_read(d->svc, &iov, 1, false);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
		if (n == -ENODEV)
			break;
		if (n == -EINTR)
			__atomic_add_fetch(&d->nr_interrupted, 1, __ATOMIC_SEQ_CST);
		else
			handle(d, msg, n);
	}
	pthread_cleanup_pop(1);
	return NULL;
}

static void on_readable(void *ctx, bool yes)
{
	struct daemon *d = ctx;

	__atomic_store_n(&d->readable, yes, __ATOMIC_RELEASE);
}

static void on_destroyed(void *ctx)
{
	struct daemon *d = ctx;

	__atomic_store_n(&d->destroyed, true, __ATOMIC_RELEASE);
}

static void daemon_start(struct daemon *d, unsigned int nr_threads)
{
	for (unsigned int i = 0; i < nr_threads; i++)
		assert_int_equal(pthread_create(&d->threads[d->nr_threads++], NULL, daemon_main, d),
				 0);
}

static struct daemon *daemon_new(struct inproc_config *config, unsigned int nr_threads)
{
	struct daemon *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	d->next_id = 100;
	d->readable = -1;
	config->ctx = d;
	config->readable = on_readable;
	config->destroyed = on_destroyed;
	config->init_out = (struct fuse_init_out){
		.major = 7,
		.minor = 40,
		.max_readahead = 131072,
		.flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES | FUSE_ASYNC_READ,
		.max_write = 1 << 20,
		.max_pages = 256,
		.max_background = 12,
		.congestion_threshold = 9,
		.time_gran = 1,
	};
	assert_int_equal(inproc_new(&d->svc, config), 0);
	d->rig = rig_new_with(&device_config, false, d->svc);
	inproc_set_device(d->svc, d->rig->dev);
	daemon_start(d, nr_threads);
	return d;
}

static void daemon_join(struct daemon *d)
{
	for (unsigned int i = 0; i < d->nr_threads; i++)
		pthread_join(d->threads[i], NULL);
	d->nr_threads = 0;
}

static void daemon_free(struct daemon *d)
{
	__atomic_store_n(&d->hold, false, __ATOMIC_RELEASE);
	rig_free(d->rig);
	daemon_join(d);
	d->svc->ops->free(d->svc);
	free(d);
}

static bool wait_for(const unsigned int *counter, unsigned int value)
{
	uint64_t end = clock_now_ns() + 5 * NSEC_PER_SEC;

	while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < value) {
		if (clock_now_ns() > end)
			return false;
		usleep(500);
	}
	return true;
}

static int rig_getattr(struct rig *rig, uint64_t nodeid)
{
	struct fuse_getattr_in in = {};
	struct fuse_attr_out out = {};
	int err = rig_call(rig, 1, FUSE_GETATTR, nodeid, &in, sizeof(in), sizeof(out), &out,
			   sizeof(out));

	if (!err)
		assert_true(out.attr.ino == nodeid);
	return err;
}

static int rig_read(struct rig *rig, uint64_t nodeid, uint64_t fh, uint64_t off, uint32_t size)
{
	struct fuse_read_in in = { .fh = fh, .offset = off, .size = size };
	uint8_t data[READ_MAX];
	int err = rig_call(rig, 1, FUSE_READ, nodeid, &in, sizeof(in), size, data, sizeof(data));

	for (uint32_t i = 0; !err && i < size; i++)
		assert_int_equal(data[i], pattern(off + i));
	return err;
}

static void open_one(struct rig *rig, uint64_t *ret_node, uint64_t *ret_fh)
{
	assert_int_equal(rig_init(rig), 0);
	assert_int_equal(rig_lookup(rig, "a", ret_node), 0);
	assert_int_equal(rig_open(rig, *ret_node, ret_fh), 0);
}

static void test_session(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 1);
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	assert_int_equal(rig_getattr(d->rig, node), 0);
	assert_int_equal(rig_read(d->rig, node, fh, 4096, READ_MAX), 0);
	/* The driver goes without a word: all is paid back, by the daemon's own thread. */
	device_reset(d->rig->dev);
	assert_true(wait_for(&d->nr_of[FUSE_RELEASE], 1));
	rig_start(d->rig);
	assert_int_equal(rig_init(d->rig), 0);
	assert_int_equal(__atomic_load_n(&d->nr_forgotten, __ATOMIC_ACQUIRE), 1);
	assert_int_equal(rig_getattr(d->rig, node), -ESTALE);
	daemon_free(d);
}

/* Requests of all kinds under way side by side, in every number of threads. */
static void load(struct daemon *d, uint64_t node, uint64_t fh, uint64_t ns)
{
	uint64_t end = clock_now_ns() + ns;
	unsigned int under_way = 0, next = 0;
	struct rig_slot *idle[48];
	unsigned int nr_idle = 0;

	for (unsigned int i = 0; i < 48; i++)
		idle[nr_idle++] = rig_slot(d->rig, i);
	while (under_way || clock_now_ns() < end) {
		struct fuse_read_in in = { .fh = fh, .offset = next * 4096ull, .size = 4096 };
		struct fuse_getattr_in attr = {};
		struct rig_slot *slot;

		if (nr_idle && clock_now_ns() < end) {
			slot = idle[--nr_idle];
			if (next++ % 3)
				rig_send(d->rig, 2, slot, FUSE_READ, node, &in, sizeof(in), 4096);
			else
				rig_send(d->rig, 2, slot, FUSE_GETATTR, node, &attr, sizeof(attr),
					 sizeof(struct fuse_attr_out));
			under_way++;
			continue;
		}
		rig_wait(d->rig, 2, &slot);
		assert_int_equal(((struct fuse_out_header *)(void *)slot->reply)->error, 0);
		idle[nr_idle++] = slot;
		under_way--;
	}
}

static void test_load(void **state)
{
	for (unsigned int threads = 1; threads <= THREADS_MAX; threads *= 2) {
		struct inproc_config config = {};
		struct daemon *d = daemon_new(&config, threads);
		uint64_t node, fh;

		open_one(d->rig, &node, &fh);
		load(d, node, fh, 200 * NSEC_PER_MSEC);
		daemon_free(d);
	}
}

static int resolve_again(void *transport, unsigned int index, struct virtq_setup *setup)
{
	struct rig *rig = transport;

	*setup = rig->setup[index];
	return 0;
}

static bool mover_stop;

/* The transport's thread: the memory map changes, and rings are switched off and on, under load. */
static void *move_memory(void *arg)
{
	struct daemon *d = arg;

	while (!__atomic_load_n(&mover_stop, __ATOMIC_ACQUIRE)) {
		device_set_mem(d->rig->dev, d->rig->table, resolve_again);
		device_queue_set_enabled(d->rig->dev, 2, false);
		usleep(300);
		device_queue_set_enabled(d->rig->dev, 2, true);
		usleep(300);
	}
	return NULL;
}

static void test_memory_moves_under_load(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 3);
	uint64_t node, fh;
	pthread_t mover;

	open_one(d->rig, &node, &fh);
	mover_stop = false;
	assert_int_equal(pthread_create(&mover, NULL, move_memory, d), 0);
	load(d, node, fh, 500 * NSEC_PER_MSEC);
	__atomic_store_n(&mover_stop, true, __ATOMIC_RELEASE);
	pthread_join(mover, NULL);
	daemon_free(d);
}

/* One handler waits: other requests go to other threads, at once. */
static void test_blocked_handler_stops_nobody(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 2);
	struct fuse_getattr_in in = {};
	uint64_t node, fh, begin;

	open_one(d->rig, &node, &fh);
	__atomic_store_n(&d->hold, true, __ATOMIC_RELEASE);
	rig_send(d->rig, 2, rig_slot(d->rig, 0), FUSE_GETATTR, node, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
	assert_true(wait_for(&d->nr_of[FUSE_GETATTR], 1));
	begin = clock_now_ns();
	for (int i = 0; i < 20; i++)
		assert_int_equal(rig_read(d->rig, node, fh, 0, 4096), 0);
	/* Generous: a tick is 0.2 ms. */
	assert_true(clock_now_ns() - begin < 2 * NSEC_PER_SEC);
	__atomic_store_n(&d->hold, false, __ATOMIC_RELEASE);
	rig_wait(d->rig, 2, NULL);
	daemon_free(d);
}

/* The only thread hangs: what the device answers itself, and FORGET, are taken all the same, and a new session begins. */
static void test_hanging_daemon(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 1);
	struct fuse_forget_in forget = { .nlookup = 1 };
	struct fuse_getattr_in in = {};
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	__atomic_store_n(&d->hold, true, __ATOMIC_RELEASE);
	rig_send(d->rig, 2, rig_slot(d->rig, 0), FUSE_GETATTR, node, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
	assert_true(wait_for(&d->nr_of[FUSE_GETATTR], 1));
	/* hiprio's chain waits for a reader, as in /dev/fuse; a request that is none of the daemon's business is answered. */
	rig_send(d->rig, 0, rig_slot(d->rig, 1), FUSE_FORGET, node, &forget, sizeof(forget), 0);
	assert_int_equal(rig_call(d->rig, 1, 4000, node, NULL, 0, 0, NULL, 0), -ENOSYS);
	/* INIT waits for what is under way, for the drain time, and no longer; the only thread reads nothing meanwhile. */
	assert_int_equal(rig_init(d->rig), 0);
	__atomic_store_n(&d->hold, false, __ATOMIC_RELEASE);
	assert_int_equal(rig_lookup(d->rig, "b", &node), 0);
	daemon_free(d);
}

/* The thread sanitizer does not see what a cancelled thread locks on its way out. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CANCEL_IS_NOT_SEEN 1
#endif
#endif
#ifndef CANCEL_IS_NOT_SEEN
#define CANCEL_IS_NOT_SEEN 0
#endif

static void test_cancelled_readers(void **state)
{
	struct inproc_config config = {};
	struct daemon *d;
	uint64_t node, fh;

	if (CANCEL_IS_NOT_SEEN)
		skip();
	d = daemon_new(&config, 4);
	open_one(d->rig, &node, &fh);
	/* Whoever leads is among them, sooner or later. */
	for (int i = 0; i < 20; i++) {
		unsigned int victim = (unsigned int)i % 4;

		assert_int_equal(pthread_cancel(d->threads[victim]), 0);
		pthread_join(d->threads[victim], NULL);
		assert_int_equal(rig_getattr(d->rig, node), 0);
		assert_int_equal(pthread_create(&d->threads[victim], NULL, daemon_main, d), 0);
	}
	daemon_free(d);
}

static void on_signal(int signo)
{
}

static unsigned int interrupted(struct daemon *d)
{
	return __atomic_load_n(&d->nr_interrupted, __ATOMIC_ACQUIRE);
}

/* Wait for more than @before. */
static bool interrupted_again(struct daemon *d, unsigned int before)
{
	for (int i = 0; i < 2000 && interrupted(d) <= before; i++)
		usleep(1000);
	return interrupted(d) > before;
}

/* A signal may have come while the reader did not sleep: once after each time of work it looks round, and then stays. */
static void test_reader_looks_round(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 1);
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	for (int i = 0; i < 3; i++) {
		unsigned int before = interrupted(d);

		assert_int_equal(rig_getattr(d->rig, node), 0);
		assert_true(interrupted_again(d, before));
		before = interrupted(d);
		usleep(100000);
		assert_int_equal(interrupted(d), before);
	}
	daemon_free(d);
}

/* A signal after the reader was sent back, and once more, finds it asleep, not looking at the rings for as long as it may. */
static void test_signal_after_work(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal }, old;
	const uint64_t poll_ns = device_config.poll_ns;
	struct inproc_config config = {};
	struct daemon *d;
	uint64_t node, fh;

	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	device_config.poll_ns = 400 * NSEC_PER_MSEC;
	d = daemon_new(&config, 1);
	device_config.poll_ns = poll_ns;
	open_one(d->rig, &node, &fh);
	for (int i = 0; i < 3; i++) {
		unsigned int before = interrupted(d);

		/* Short sleeps: it would look for longer and longer. */
		for (int n = 0; n < 30; n++, usleep(1000))
			assert_int_equal(rig_getattr(d->rig, node), 0);
		assert_true(interrupted_again(d, before + 1));
		usleep(20000);
		before = interrupted(d);
		pthread_kill(d->threads[0], SIGUSR1);
		assert_true(interrupted_again(d, before));
	}
	daemon_free(d);
	sigaction(SIGUSR1, &old, NULL);
}

static void test_interrupted_readers(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal }, old;
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 3);
	uint64_t node, fh;

	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	open_one(d->rig, &node, &fh);
	for (int i = 0; i < 30; i++) {
		pthread_kill(d->threads[i % 3], SIGUSR1);
		assert_int_equal(rig_getattr(d->rig, node), 0);
		usleep(1000);
	}
	/* All asleep, whoever leads. */
	usleep(100000);
	for (unsigned int i = 0; i < 3; i++) {
		unsigned int before = interrupted(d);

		pthread_kill(d->threads[i], SIGUSR1);
		assert_true(interrupted_again(d, before));
	}
	daemon_free(d);
	sigaction(SIGUSR1, &old, NULL);
}

static void test_wrong_replies(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 1);
	struct fuse_out_header out = { .len = 16, .unique = 0x1234567890 };
	struct iovec iov = { &out, sizeof(out) };
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	assert_int_equal(inproc_write(d->svc, &iov, 1), -ENOENT);
	out.len = 17;
	assert_int_equal(inproc_write(d->svc, &iov, 1), -EINVAL);
	out.len = 16;
	out.error = 5;
	assert_int_equal(inproc_write(d->svc, &iov, 1), -EINVAL);
	iov.iov_len = 15;
	assert_int_equal(inproc_write(d->svc, &iov, 1), -EINVAL);
	/* A notification without what it says; then one that goes nowhere. */
	out = (struct fuse_out_header){ .len = 16, .error = FUSE_NOTIFY_INVAL_INODE };
	iov.iov_len = 16;
	assert_int_equal(inproc_write(d->svc, &iov, 1), -EINVAL);
	out.error = FUSE_NOTIFY_INC_EPOCH;
	assert_int_equal(inproc_write(d->svc, &iov, 1), 16);
	assert_int_equal(rig_getattr(d->rig, node), 0);
	daemon_free(d);
}

static void test_replies_once(void **state)
{
	struct inproc_config config = {};
	struct daemon *d;
	struct fuse_getattr_in in = {};
	uint8_t msg[4096];
	struct iovec iov = { msg, sizeof(msg) };
	struct fuse_in_header hdr;
	struct fuse_attr_out attr = {};

	if (CANCEL_IS_NOT_SEEN)
		skip();
	d = daemon_new(&config, 0);
	daemon_start(d, 1);
	assert_int_equal(rig_init(d->rig), 0);
	inproc_unmount(d->svc);
	daemon_join(d);
	daemon_free(d);

	d = daemon_new(&config, 0);
	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_GETATTR, 1, &in, sizeof(in), sizeof(attr));
	/* No session yet: the device's own answer, and nothing to read. */
	assert_int_equal(inproc_read(d->svc, &iov, 1, true), -EAGAIN);
	rig_wait(d->rig, 1, NULL);
	daemon_start(d, 1);
	assert_int_equal(rig_init(d->rig), 0);
	pthread_cancel(d->threads[0]);
	daemon_join(d);
	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_GETATTR, 1, &in, sizeof(in), sizeof(attr));
	assert_int_equal(inproc_read(d->svc, &iov, 1, false), sizeof(hdr) + sizeof(in));
	memcpy(&hdr, msg, sizeof(hdr));
	assert_int_equal(answer(d->svc, hdr.unique, 0, &attr, sizeof(attr)), 16 + sizeof(attr));
	assert_int_equal(answer(d->svc, hdr.unique, 0, &attr, sizeof(attr)), -ENOENT);
	rig_wait(d->rig, 1, NULL);
	daemon_free(d);
}

static void test_interrupt_reaches_the_daemon(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 2);
	struct fuse_getattr_in in = {};
	struct fuse_interrupt_in interrupt;
	uint64_t node, fh, end = clock_now_ns() + 5 * NSEC_PER_SEC;

	open_one(d->rig, &node, &fh);
	__atomic_store_n(&d->hold, true, __ATOMIC_RELEASE);
	interrupt.unique = rig_send(d->rig, 2, rig_slot(d->rig, 0), FUSE_GETATTR, node, &in,
				    sizeof(in), sizeof(struct fuse_attr_out));
	assert_true(wait_for(&d->nr_of[FUSE_GETATTR], 1));
	rig_send(d->rig, 0, rig_slot(d->rig, 1), FUSE_INTERRUPT, 0, &interrupt, sizeof(interrupt),
		 0);
	while (!__atomic_load_n(&d->interrupted, __ATOMIC_ACQUIRE) && clock_now_ns() < end)
		usleep(500);
	assert_true(__atomic_load_n(&d->interrupted, __ATOMIC_ACQUIRE) != 0);
	__atomic_store_n(&d->hold, false, __ATOMIC_RELEASE);
	rig_wait(d->rig, 2, NULL);
	daemon_free(d);
}

static void test_limits(void **state)
{
	struct inproc_config config = { .max_read = 3000, .read_only = true };
	struct daemon *d = daemon_new(&config, 1);
	struct fuse_mkdir_in mkdir_in = {};
	char args[sizeof(mkdir_in) + 2] = {};
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	/* In parts of 3000, 3000 and 2000 bytes, joined. */
	assert_int_equal(rig_read(d->rig, node, fh, 500, 8000), 0);
	assert_int_equal(seen(d, FUSE_READ), 3);
	args[sizeof(mkdir_in)] = 'x';
	assert_int_equal(rig_call(d->rig, 1, FUSE_MKDIR, 1, args, sizeof(args),
				  sizeof(struct fuse_entry_out), NULL, 0),
			 -EROFS);
	assert_int_equal(seen(d, FUSE_MKDIR), 0);
	daemon_free(d);
}

/* A part fails: the driver's page cache must not take what came before for the whole file. Past the cache it is a short read. */
static void test_part_fails(void **state)
{
	struct inproc_config config = { .max_read = 3000 };
	struct daemon *d = daemon_new(&config, 1);
	struct fuse_read_in in = { .size = 8000, .read_flags = FUSE_READ_LOCKOWNER };
	uint8_t data[READ_MAX];
	uint64_t node, fh;

	d->fails_from = 3000;
	open_one(d->rig, &node, &fh);
	assert_int_equal(rig_read(d->rig, node, fh, 0, 8000), -ENODATA);
	in.fh = fh;
	assert_int_equal(rig_call(d->rig, 1, FUSE_READ, node, &in, sizeof(in), in.size, data, 3000),
			 0);
	for (uint32_t i = 0; i < 3000; i++)
		assert_int_equal(data[i], pattern(i));
	assert_int_equal(seen(d, FUSE_READ), 4);
	in.offset = 3000;
	assert_int_equal(rig_call(d->rig, 1, FUSE_READ, node, &in, sizeof(in), in.size, data, 3000),
			 -ENODATA);
	daemon_free(d);
}

static void test_through_pipe(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 1);
	uint64_t node, fh;

	d->through_pipe = true;
	open_one(d->rig, &node, &fh);
	assert_int_equal(rig_read(d->rig, node, fh, 123, READ_MAX), 0);
	daemon_free(d);
}

/* Who polls is told, and finds what was promised. */
static void test_poller(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 0);
	uint8_t msg[4096];
	struct iovec iov = { msg, sizeof(msg) };
	struct fuse_init_in init = { .major = 7, .minor = 38 };
	struct fuse_getattr_in in = {};
	uint64_t end;

	inproc_poll_begin(d->svc);
	assert_int_equal(d->readable, 0);
	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_INIT, 0, &init, sizeof(init),
		 sizeof(struct fuse_init_out));
	rig_wait(d->rig, 1, NULL);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(inproc_read(d->svc, &iov, 1, true), -EAGAIN);
		rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_GETATTR, 1, &in, sizeof(in),
			 sizeof(struct fuse_attr_out));
		end = clock_now_ns() + 5 * NSEC_PER_SEC;
		while (__atomic_load_n(&d->readable, __ATOMIC_ACQUIRE) != 1 && clock_now_ns() < end)
			usleep(100);
		assert_int_equal(inproc_read(d->svc, &iov, 1, false), 40 + sizeof(in));
		assert_int_equal(__atomic_load_n(&d->readable, __ATOMIC_ACQUIRE), 0);
		handle(d, msg, 40 + sizeof(in));
		rig_wait(d->rig, 1, NULL);
	}
	inproc_unmount(d->svc);
	assert_int_equal(d->readable, 1);
	assert_int_equal(inproc_read(d->svc, &iov, 1, true), -ENODEV);
	daemon_free(d);
}

static void test_destroy(void **state)
{
	struct inproc_config config = {};
	struct daemon *d = daemon_new(&config, 2);
	uint64_t node, fh;

	open_one(d->rig, &node, &fh);
	device_finish(d->rig->dev);
	assert_int_equal(seen(d, FUSE_RELEASE), 1);
	assert_int_equal(seen(d, FUSE_DESTROY), 0);
	inproc_destroy(d->svc);
	assert_true(wait_for(&d->nr_of[FUSE_DESTROY], 1));
	assert_true(__atomic_load_n(&d->destroyed, __ATOMIC_ACQUIRE));
	inproc_unmount(d->svc);
	daemon_join(d);
	daemon_free(d);
}

/* The device goes while requests are with the daemon, and while it answers them. */
static void test_free_under_load(void **state)
{
	for (int i = 0; i < 10; i++) {
		struct inproc_config config = {};
		struct daemon *d = daemon_new(&config, 4);
		struct fuse_getattr_in in = {};
		uint64_t node, fh;

		open_one(d->rig, &node, &fh);
		for (unsigned int n = 0; n < 32; n++)
			rig_send(d->rig, 1 + n % 2, rig_slot(d->rig, n), FUSE_GETATTR, node, &in,
				 sizeof(in), sizeof(struct fuse_attr_out));
		daemon_free(d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_memory_moves_under_load),
		cmocka_unit_test(test_blocked_handler_stops_nobody),
		cmocka_unit_test(test_hanging_daemon),
		cmocka_unit_test(test_cancelled_readers),
		cmocka_unit_test(test_interrupted_readers),
		cmocka_unit_test(test_reader_looks_round),
		cmocka_unit_test(test_signal_after_work),
		cmocka_unit_test(test_wrong_replies),
		cmocka_unit_test(test_replies_once),
		cmocka_unit_test(test_interrupt_reaches_the_daemon),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_part_fails),
		cmocka_unit_test(test_through_pipe),
		cmocka_unit_test(test_poller),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_free_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
