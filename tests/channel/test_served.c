/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel service with a real device in front of it and a daemon of ours behind it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/rig.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "service/channel/channel.h"

/* As an ordinary user has it: a few WRITEs fit, the others wait. */
#define SOCKET_BYTES 212992
#define WRITE_BYTES  (64u << 10)
#define NR_WRITES    16u

struct daemon {
	struct service *svc;
	struct rig *rig;
	pthread_t thread;
	int fd;
	bool ready, stalled; /* atomic */
	unsigned int nr_writes, nr_wrong; /* atomic */
	char buf[2 << 20];
};

static void on_ready(void *ctx, pid_t server)
{
	__atomic_store_n(&((struct daemon *)ctx)->ready, true, __ATOMIC_RELEASE);
}

static void on_stopped(void *ctx)
{
}

static void on_lost(void *ctx, const char *why)
{
}

static void reply(const struct daemon *d, uint64_t unique, const void *body, size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len), .unique = unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

	assert_true(sendmsg(d->fd, &msg, MSG_NOSIGNAL) > 0);
}

static void reply_write(struct daemon *d, uint64_t unique)
{
	const char *data = d->buf + sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);
	const struct fuse_write_out out = { .size = WRITE_BYTES };

	for (size_t i = 0; i < WRITE_BYTES; i++) {
		if (data[i] != 'o') {
			__atomic_fetch_add(&d->nr_wrong, 1, __ATOMIC_RELAXED);
			break;
		}
	}
	__atomic_fetch_add(&d->nr_writes, 1, __ATOMIC_RELAXED);
	reply(d, unique, &out, sizeof(out));
}

static void answer_one(struct daemon *d)
{
	const struct fuse_init_out init = { .major = 7,
					    .minor = 31,
					    .max_readahead = 131072,
					    .flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES,
					    .max_write = WRITE_BYTES,
					    .max_pages = 256,
					    .time_gran = 1,
					    .max_background = 12,
					    .congestion_threshold = 9 };
	const struct fuse_entry_out entry = {
		.nodeid = 77, .attr = { .ino = 77, .mode = S_IFREG | 0644, .nlink = 1 }
	};
	const struct fuse_open_out open = { .fh = 5 };
	struct fuse_in_header in;
	struct fuse_read_in read;

	memcpy(&in, d->buf, sizeof(in));
	memcpy(&read, d->buf + sizeof(in), sizeof(read));
	if (in.opcode == FUSE_INIT) {
		reply(d, in.unique, &init, sizeof(init));
	} else if (in.opcode == FUSE_LOOKUP) {
		reply(d, in.unique, &entry, sizeof(entry));
	} else if (in.opcode == FUSE_OPEN) {
		reply(d, in.unique, &open, sizeof(open));
	} else if (in.opcode == FUSE_WRITE) {
		reply_write(d, in.unique);
	} else if (in.opcode == FUSE_READ) {
		memset(d->buf, 'r', read.size);
		reply(d, in.unique, d->buf, read.size);
	} else if (in.opcode != FUSE_FORGET && in.opcode != FUSE_BATCH_FORGET) {
		reply(d, in.unique, NULL, 0);
	}
}

static void *serve(void *arg)
{
	struct daemon *d = arg;

	for (;;) {
		while (__atomic_load_n(&d->stalled, __ATOMIC_ACQUIRE))
			usleep(1000);
		if (recv(d->fd, d->buf, sizeof(d->buf), 0) <= 0)
			return NULL;
		answer_one(d);
	}
}

static int setup(void **state)
{
	static const struct device_config device_config = { .tag = "served",
							    .nr_request_queues = RIG_QUEUES - 1,
							    .queue_size_max = RIG_RING,
							    .drain_ns = 100 * NSEC_PER_MSEC };
	const struct channel_limits limits = { 0 };
	const int bytes = SOCKET_BYTES;
	struct daemon *d = calloc(1, sizeof(*d));
	struct channel_config config = {
		.events = { .ready = on_ready, .stopped = on_stopped, .lost = on_lost }, .ctx = d
	};
	int pair[2];

	assert_non_null(d);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)),
				 0);
	d->fd = pair[1];
	assert_int_equal(channel_new(&d->svc, &config), 0);
	assert_int_equal(channel_attach(d->svc, pair[0], &limits), 0);
	assert_int_equal(pthread_create(&d->thread, NULL, serve, d), 0);
	while (!__atomic_load_n(&d->ready, __ATOMIC_ACQUIRE))
		usleep(1000);
	d->rig = rig_new_with(&device_config, false, d->svc);
	channel_set_device(d->svc, d->rig->dev);
	assert_int_equal(rig_init(d->rig), 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct daemon *d = *state;

	channel_set_device(d->svc, NULL);
	rig_free(d->rig);
	d->svc->ops->free(d->svc);
	pthread_join(d->thread, NULL);
	close_fd(&d->fd);
	free(d);
	return 0;
}

static void add(struct rig *rig, struct iovec *iov, unsigned int nr_out, unsigned int nr_in,
		struct rig_slot *slot)
{
	assert_int_equal(virtq_driver_add(rig->drv[1], iov, nr_out, nr_in, slot), 0);
	if (virtq_driver_publish(rig->drv[1]))
		fd_signal(rig->kick[1]);
}

/* WRITEs that wait for the daemon when the driver is reset: what the next driver puts into that memory goes nowhere. */
static void test_reset_with_writes(void **state)
{
	struct daemon *d = *state;
	uint8_t *data = d->rig->mem + (4u << 20);
	uint64_t node, fh;

	assert_int_equal(rig_lookup(d->rig, "f", &node), 0);
	assert_int_equal(rig_open(d->rig, node, &fh), 0);
	memset(data, 'o', (size_t)NR_WRITES * WRITE_BYTES);
	__atomic_store_n(&d->stalled, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < NR_WRITES; i++) {
		struct fuse_write_in in = { .fh = fh,
					    .offset = i * WRITE_BYTES,
					    .size = WRITE_BYTES };
		struct rig_slot *slot = rig_slot(d->rig, i);
		size_t len = rig_message(d->rig, slot, FUSE_WRITE, node, &in, sizeof(in));
		struct iovec iov[3] = { { slot->msg, len },
					{ data + (size_t)i * WRITE_BYTES, WRITE_BYTES },
					{ slot->reply, sizeof(struct fuse_out_header) +
							       sizeof(struct fuse_write_out) } };
		struct fuse_in_header hdr;

		memcpy(&hdr, slot->msg, sizeof(hdr));
		hdr.len += WRITE_BYTES;
		memcpy(slot->msg, &hdr, sizeof(hdr));
		add(d->rig, iov, 2, 1, slot);
	}
	usleep(100000);
	device_reset(d->rig->dev);
	memset(data, 'N', (size_t)NR_WRITES * WRITE_BYTES);
	__atomic_store_n(&d->stalled, false, __ATOMIC_RELEASE);
	usleep(300000);
	assert_true(__atomic_load_n(&d->nr_writes, __ATOMIC_RELAXED) > 0);
	assert_true(__atomic_load_n(&d->nr_writes, __ATOMIC_RELAXED) < NR_WRITES);
	assert_int_equal(__atomic_load_n(&d->nr_wrong, __ATOMIC_RELAXED), 0);
}

/* A driver may cut its buffer wherever it likes, in the midst of the reply's header, too. */
static void test_header_in_two_segments(void **state)
{
	struct daemon *d = *state;
	uint8_t *data = d->rig->mem + (4u << 20);
	uint64_t node, fh;

	assert_int_equal(rig_lookup(d->rig, "f", &node), 0);
	assert_int_equal(rig_open(d->rig, node, &fh), 0);
	for (uint32_t size = 4096; size <= 65536; size *= 2) {
		struct fuse_read_in in = { .fh = fh, .size = size };
		struct rig_slot *slot = rig_slot(d->rig, 0);
		size_t len = rig_message(d->rig, slot, FUSE_READ, node, &in, sizeof(in));
		struct iovec iov[3] = { { slot->msg, len },
					{ slot->reply, 8 },
					{ data, 8 + size } };
		struct fuse_out_header out;

		memset(data, 0, 8 + size);
		add(d->rig, iov, 1, 2, slot);
		assert_int_equal(rig_wait(d->rig, 1, NULL), sizeof(out) + size);
		memcpy(&out, slot->reply, 8);
		assert_int_equal(out.error, 0);
		for (uint32_t i = 0; i < size; i++)
			assert_int_equal(data[8 + i], 'r');
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reset_with_writes),
		TEST(test_header_in_two_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
