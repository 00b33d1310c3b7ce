/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The codec alone, over a socketpair: reassembly, sizes, descriptors, and the table's own soundness.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "vhost/message.h"

struct pair {
	int peer;
	int sock;
	struct vhost_receiver rx;
	struct vhost_msg msg;
};

static int pair_setup(void **state)
{
	static struct pair p;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	p.peer = fds[0];
	p.sock = fds[1];
	vhost_receiver_init(&p.rx, VHOST_STREAM_REQUESTS);
	*state = &p;
	return 0;
}

static int pair_teardown(void **state)
{
	struct pair *p = *state;

	vhost_receiver_fini(&p->rx);
	close_fd(&p->peer);
	close_fd(&p->sock);
	return 0;
}

/* A message of @size payload bytes, of which the first are @words, with @nr_fds descriptors, beyond what vhost_send() would send. */
static void peer_send_words(struct pair *p, uint32_t request, uint32_t flags, uint32_t size,
			    unsigned int nr_fds, const uint32_t words[2])
{
	char control[CMSG_SPACE(sizeof(int) * 64)] = { 0 };
	struct vhost_header h = { request, flags, size };
	char payload[512] = { 0 };
	struct iovec iov[2] = { { &h, sizeof(h) }, { payload, min_of(size, 512u) } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	/* Of most messages the payload is one word of 64 bits. */
	if (request == VHOST_USER_SET_MEM_TABLE || request == VHOST_USER_SET_CONFIG)
		memcpy(payload, words, 2 * sizeof(*words));
	else
		memcpy(payload, &(uint64_t){ words[0] }, sizeof(uint64_t));
	if (nr_fds) {
		struct cmsghdr *c;

		mh.msg_control = control;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		for (unsigned int i = 0; i < nr_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &p->peer, sizeof(int));
	}
	assert_true(sendmsg(p->peer, &mh, MSG_DONTWAIT) > 0);
}

/* The same, saying of its descriptors what is true. */
static void peer_send(struct pair *p, uint32_t request, uint32_t flags, uint32_t size,
		      unsigned int nr_fds)
{
	uint32_t first = 0;

	if (request == VHOST_USER_SET_MEM_TABLE)
		first = nr_fds;
	else if (request >= VHOST_USER_SET_VRING_KICK && request <= VHOST_USER_SET_VRING_ERR)
		first = nr_fds ? 0 : VHOST_VRING_NOFD;
	peer_send_words(p, request, flags, size, nr_fds, (uint32_t[2]){ first });
}

static unsigned int nr_open_fds(void)
{
	unsigned int nr = 0;

	for (int fd = 0; fd < 256; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

static void test_table_is_sound(void **state)
{
	for (uint32_t id = 0; id < 1000; id++) {
		const struct vhost_msg_info *info = vhost_msg_info(id);

		if (!info) {
			assert_true(id == 0 || id >= VHOST_USER_REQUEST_END);
			continue;
		}
		assert_true(info->size_min <= info->size_max);
		assert_true(info->size_max <= sizeof(union vhost_payload));
		assert_true(info->fds_min <= info->fds_max && info->fds_max <= VHOST_FDS_MAX);
		assert_non_null(info->name);
	}
	assert_null(vhost_msg_info(UINT32_MAX));
	assert_null(vhost_msg_info(VHOST_USER_REQUEST_END));
	assert_non_null(vhost_msg_info(VHOST_USER_REQUEST_END - 1));
}

static void test_nothing_there(void **state)
{
	struct pair *p = *state;

	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 0);
	close_fd(&p->peer);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), -EPIPE);
}

static void test_every_size_of_every_message(void **state)
{
	struct pair *p = *state;

	for (uint32_t id = 1; id < VHOST_USER_REQUEST_END; id++) {
		const struct vhost_msg_info *info = vhost_msg_info(id);
		const unsigned int sizes[] = { info->size_min - 1u, info->size_min, info->size_max,
					       info->size_max + 1u };

		for (unsigned int i = 0; i < array_size(sizes); i++) {
			bool good = info->handler && sizes[i] >= info->size_min &&
				    sizes[i] <= info->size_max;

			if (info->size_min == 0 && i == 0)
				continue;
			peer_send(p, id, VHOST_FLAG_VERSION, sizes[i], info->fds_min);
			assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg),
					 good ? 1 : -EPROTO);
			if (good) {
				assert_int_equal(p->msg.header.request, id);
				assert_int_equal(p->msg.nr_fds, info->fds_min);
				vhost_msg_close_fds(&p->msg);
			} else {
				assert_non_null(p->rx.error);
				pair_teardown(state);
				assert_int_equal(pair_setup(state), 0);
			}
		}
	}
}

static void test_descriptors(void **state)
{
	struct pair *p = *state;
	unsigned int before = nr_open_fds();

	/* The limit, and one and many more; nothing stays open after a refusal. */
	peer_send(p, VHOST_USER_SET_MEM_TABLE, VHOST_FLAG_VERSION, 264, 8);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 1);
	assert_int_equal(p->msg.nr_fds, 8);
	for (unsigned int i = 0; i < 8; i++)
		assert_true(fcntl(p->msg.fds[i], F_GETFD) & FD_CLOEXEC);
	vhost_msg_close_fds(&p->msg);
	assert_int_equal(nr_open_fds(), before);
	for (unsigned int nr = 9; nr <= 64; nr += 11) {
		peer_send(p, VHOST_USER_SET_MEM_TABLE, VHOST_FLAG_VERSION, 264, nr);
		assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), -EPROTO);
		pair_teardown(state);
		assert_int_equal(pair_setup(state), 0);
		/* qemu-user takes more descriptors from the kernel than it hands on, and leaves them open. */
		if (!getenv("FUSEWIRE_EMULATED"))
			assert_int_equal(nr_open_fds(), before);
	}
}

static void test_parts_that_do_not_agree(void **state)
{
	static const struct {
		uint32_t request;
		uint32_t size;
		unsigned int nr_fds;
		uint32_t words[2];
		bool good;
	} cases[] = {
		{ VHOST_USER_SET_VRING_KICK, 8, 1, { 3 }, true },
		{ VHOST_USER_SET_VRING_KICK, 8, 1, { 3 | VHOST_VRING_NOFD }, false },
		{ VHOST_USER_SET_VRING_CALL, 8, 0, { 3 | VHOST_VRING_NOFD }, true },
		{ VHOST_USER_SET_VRING_CALL, 8, 0, { 3 }, false },
		{ VHOST_USER_SET_VRING_ERR, 8, 0, { 0 }, false },
		{ VHOST_USER_SET_MEM_TABLE, 8, 0, { 0 }, true },
		{ VHOST_USER_SET_MEM_TABLE, 8, 0, { 1 }, false },
		{ VHOST_USER_SET_MEM_TABLE, 40, 1, { 1 }, true },
		{ VHOST_USER_SET_MEM_TABLE, 72, 1, { 1 }, true },
		{ VHOST_USER_SET_MEM_TABLE, 39, 1, { 1 }, false },
		{ VHOST_USER_SET_MEM_TABLE, 72, 1, { 2 }, false },
		{ VHOST_USER_SET_MEM_TABLE, 264, 8, { 8 }, true },
		{ VHOST_USER_SET_MEM_TABLE, 264, 8, { 9 }, false },
		{ VHOST_USER_SET_MEM_TABLE, 264, 8, { UINT32_MAX }, false },
		{ VHOST_USER_SET_CONFIG, 12, 0, { 0, 0 }, true },
		{ VHOST_USER_SET_CONFIG, 12, 0, { 0, 1 }, false },
		{ VHOST_USER_SET_CONFIG, 268, 0, { 0, 256 }, true },
		{ VHOST_USER_SET_CONFIG, 268, 0, { 0, UINT32_MAX }, false },
		{ VHOST_USER_SET_PROTOCOL_FEATURES, 8, 0, { 1u << 14 | 1u << 3 | 1u << 5 }, true },
		{ VHOST_USER_SET_PROTOCOL_FEATURES, 8, 0, { 1u << 14 | 1u << 3 }, false },
	};
	struct pair *p = *state;
	unsigned int before = nr_open_fds();

	for (unsigned int i = 0; i < array_size(cases); i++) {
		peer_send_words(p, cases[i].request, VHOST_FLAG_VERSION, cases[i].size,
				cases[i].nr_fds, cases[i].words);
		assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg),
				 cases[i].good ? 1 : -EPROTO);
		if (cases[i].good) {
			vhost_msg_close_fds(&p->msg);
		} else {
			pair_teardown(state);
			assert_int_equal(pair_setup(state), 0);
		}
		assert_int_equal(nr_open_fds(), before);
	}
}

static void test_byte_by_byte(void **state)
{
	struct pair *p = *state;
	struct {
		struct vhost_header h;
		uint64_t payload;
	} __attribute__((packed))
	m = { { VHOST_USER_SET_FEATURES, VHOST_FLAG_VERSION, 8 }, 0x1234 };

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < sizeof(m); i++) {
			assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 0);
			assert_int_equal(write(p->peer, (char *)&m + i, 1), 1);
		}
		assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 1);
		assert_int_equal(p->msg.payload.u64, 0x1234);
	}
}

static void test_messages_do_not_mix(void **state)
{
	struct pair *p = *state;

	peer_send(p, VHOST_USER_GET_FEATURES, VHOST_FLAG_VERSION, 0, 0);
	peer_send(p, VHOST_USER_SET_LOG_FD, VHOST_FLAG_VERSION, 0, 1);
	peer_send(p, VHOST_USER_SET_FEATURES, VHOST_FLAG_VERSION, 8, 0);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 1);
	assert_int_equal(p->msg.header.request, VHOST_USER_GET_FEATURES);
	assert_int_equal(p->msg.nr_fds, 0);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 1);
	assert_int_equal(p->msg.header.request, VHOST_USER_SET_LOG_FD);
	assert_int_equal(p->msg.nr_fds, 1);
	vhost_msg_close_fds(&p->msg);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 1);
	assert_int_equal(p->msg.header.request, VHOST_USER_SET_FEATURES);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 0);
}

static void test_flags(void **state)
{
	struct pair *p = *state;
	const struct {
		uint32_t flags;
		int result;
	} cases[] = { { 0, -EPROTO }, { 1, 1 },	      { 2, -EPROTO }, { 3, -EPROTO },
		      { 5, -EPROTO }, { 8, -EPROTO }, { 9, 1 },	      { 13, -EPROTO } };

	for (unsigned int i = 0; i < array_size(cases); i++) {
		peer_send(p, VHOST_USER_GET_FEATURES, cases[i].flags, 0, 0);
		assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), cases[i].result);
		pair_teardown(state);
		assert_int_equal(pair_setup(state), 0);
	}
}

static void test_closed_inside(void **state)
{
	struct pair *p = *state;
	struct vhost_header h = { VHOST_USER_SET_FEATURES, VHOST_FLAG_VERSION, 8 };

	assert_int_equal(write(p->peer, &h, sizeof(h)), sizeof(h));
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), 0);
	close_fd(&p->peer);
	assert_int_equal(vhost_receive(&p->rx, p->sock, &p->msg), -EPROTO);
}

static void test_send_and_full_socket(void **state)
{
	struct pair *p = *state;
	struct vhost_msg m = { .header = { 1, VHOST_FLAG_VERSION | VHOST_FLAG_REPLY, 8 },
			       .payload.u64 = 0x55 };
	struct {
		struct vhost_header h;
		uint64_t payload;
	} __attribute__((packed)) got;
	int err = 0;

	assert_int_equal(vhost_send(p->sock, &m), 0);
	assert_int_equal(read(p->peer, &got, sizeof(got)), sizeof(got));
	assert_memory_equal(&got.h, &m.header, sizeof(got.h));
	assert_int_equal(got.payload, 0x55);
	for (int i = 0; i < 100000 && err == 0; i++)
		err = vhost_send(p->sock, &m);
	assert_true(err == -EAGAIN || err == -EMSGSIZE);
	close_fd(&p->peer);
	assert_true(vhost_send(p->sock, &m) == -EPIPE || vhost_send(p->sock, &m) == -ECONNRESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_is_sound),
#define PAIR(fn) cmocka_unit_test_setup_teardown(fn, pair_setup, pair_teardown)
		PAIR(test_nothing_there),
		PAIR(test_every_size_of_every_message),
		PAIR(test_descriptors),
		PAIR(test_parts_that_do_not_agree),
		PAIR(test_byte_by_byte),
		PAIR(test_messages_do_not_mix),
		PAIR(test_flags),
		PAIR(test_closed_inside),
		PAIR(test_send_and_full_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
