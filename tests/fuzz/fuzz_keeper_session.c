/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Feeds a keeper with made-up messages of a front-end, and made-up replies of back-ends that come and go.
 *
 * Input: a byte of settings (bit 0: in-band notifications), then records:
 * - what: 0-1: a message of the front-end; 2: bytes of the back-end, unasked; 3: another back-end, over the one that serves;
 *   bits 2-3: how the back-end answers what is asked in this record: 0: well; 1: well, but with another payload; 2: with
 *   another header; 3: by closing
 * - request, descriptors (bits 4-7: how many; 0-1: kind), bytes of payload, and these bytes
 *
 * The back-end is a thread that answers at once, so that the keeper waits for nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "keeper/keeper_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORDS_MAX 60
#define OFFERED                                                                                    \
	(bit64(VHOST_USER_PROTOCOL_F_MQ) | bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                \
	 bit64(VHOST_USER_PROTOCOL_F_LOG_SHMFD) | bit64(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |       \
	 bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | bit64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) | \
	 bit64(VHOST_USER_PROTOCOL_F_STATUS) | bit64(VHOST_USER_PROTOCOL_F_CONFIG) |               \
	 bit64(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |                                        \
	 bit64(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS))

/** struct back - the back-end's thread and what it is told to do. */
struct back {
	pthread_t thread;
	int sock;
	unsigned int manner; /* atomic */
	uint8_t noise[280];
};

static int memory_fd = -1, event_fd = -1, pipe_fd = -1;

static void make_fds(void)
{
	int fds[2];

	if (memory_fd >= 0)
		return;
	log_init(LOG_LEVEL_OFF, "fuzz");
	memory_fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (memory_fd < 0 || event_fd < 0 || ftruncate(memory_fd, 1 << 20) < 0 ||
	    pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	/* Both ends stay open: the write end is what is passed. */
	pipe_fd = fds[1];
}

/* A right reply to @msg. Return: is one due? */
static bool good_reply(const struct vhost_msg *msg, struct vhost_msg *reply)
{
	*reply = (struct vhost_msg){ .header = msg->header };
	reply->header.flags = VHOST_FLAG_VERSION | VHOST_FLAG_REPLY;
	reply->header.size = sizeof(uint64_t);
	switch (msg->header.request) {
	case VHOST_USER_GET_FEATURES:
		reply->payload.u64 = UINT64_MAX;
		return true;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		reply->payload.u64 = OFFERED;
		return true;
	case VHOST_USER_GET_QUEUE_NUM:
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		reply->payload.u64 = 8;
		return true;
	case VHOST_USER_GET_VRING_BASE:
		reply->payload.state = msg->payload.state;
		return true;
	case VHOST_USER_GET_INFLIGHT_FD:
		reply->payload.inflight = msg->payload.inflight;
		reply->payload.inflight.mmap_size = 1 << 20;
		reply->payload.inflight.mmap_offset = 0;
		reply->header.size = msg->header.size;
		reply->fds[reply->nr_fds++] = memory_fd;
		return true;
	case VHOST_USER_GET_CONFIG:
		reply->header.size = msg->header.size;
		return true;
	default:
		return vhost_msg_info(msg->header.request)->reply == VHOST_REPLY_ALWAYS ||
		       (msg->header.flags & VHOST_FLAG_NEED_REPLY);
	}
}

static void *back_main(void *arg)
{
	struct back *b = arg;
	struct vhost_receiver rx;
	struct vhost_msg msg, reply;
	unsigned int manner = 0;
	int err = 0;

	vhost_receiver_init(&rx, VHOST_STREAM_REQUESTS);
	while (err >= 0 && manner != 3) {
		struct pollfd p = { .fd = b->sock, .events = POLLIN };

		if (poll(&p, 1, -1) < 0)
			break;
		err = vhost_receive(&rx, b->sock, &msg);
		if (err <= 0)
			continue;
		vhost_msg_close_fds(&msg);
		manner = __atomic_load_n(&b->manner, __ATOMIC_ACQUIRE);
		if (!good_reply(&msg, &reply))
			continue;
		if (manner == 1)
			memcpy(&reply.payload, b->noise, sizeof(reply.payload));
		if (manner == 2)
			memcpy(&reply.header, b->noise, sizeof(uint64_t));
		if (manner != 3)
			err = vhost_send(b->sock, &reply);
	}
	shutdown(b->sock, SHUT_RDWR);
	vhost_receiver_fini(&rx);
	return NULL;
}

static struct back *back_new(struct keeper *k)
{
	struct back *b = calloc(1, sizeof(*b));
	int pair[2];

	if (!b || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	b->sock = pair[0];
	if (pthread_create(&b->thread, NULL, back_main, b) != 0 ||
	    keeper_set_backend(k, pair[1], b) < 0)
		abort();
	return b;
}

static void back_free(struct back *b)
{
	shutdown(b->sock, SHUT_RDWR);
	pthread_join(b->thread, NULL);
	close(b->sock);
	free(b);
}

static void on_lost(void *ctx, void *tag, enum keeper_lost why)
{
}

static void on_set(void *ctx, void *tag, int err)
{
}

/* Send the front-end's message in @rec. */
static void send_message(int sock, const uint8_t *rec, unsigned int payload)
{
	const int kinds[] = { memory_fd, event_fd, pipe_fd, event_fd };
	const struct vhost_msg_info *info = vhost_msg_info(rec[1]);
	struct vhost_msg msg = { .header = { rec[1], VHOST_FLAG_VERSION | VHOST_FLAG_NEED_REPLY,
					     payload } };

	memcpy(&msg.payload, rec + 4, payload);
	msg.nr_fds = min_of(rec[2] >> 4, VHOST_FDS_MAX);
	if (info) {
		msg.header.size = max_of(payload, (unsigned int)info->size_min);
		msg.nr_fds = min_of(msg.nr_fds, (unsigned int)info->fds_max);
		msg.nr_fds = max_of(msg.nr_fds, (unsigned int)info->fds_min);
	}
	for (unsigned int i = 0; i < msg.nr_fds; i++)
		msg.fds[i] = kinds[(rec[2] + i) & 3];
	/* The keeper may have closed its end: that is for the caller to notice. */
	if (vhost_send(sock, &msg) < 0)
		return;
}

static void drain(int sock)
{
	char buf[4096];

	while (recv(sock, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

/* One record. Return: bytes of it, 0 at the end. */
static size_t play(struct keeper *k, struct back **b, int front, const uint8_t *rec, size_t left)
{
	unsigned int payload;

	if (left < 4 || left < 4u + rec[3])
		return 0;
	payload = rec[3];
	memcpy((*b)->noise, rec + 4, payload);
	__atomic_store_n(&(*b)->manner, rec[0] >> 2 & 3, __ATOMIC_RELEASE);
	if ((rec[0] & 3) == 3) {
		struct back *old = *b;

		*b = back_new(k);
		keeper_take_mail(k);
		back_free(old);
	} else if ((rec[0] & 3) == 2) {
		if (send((*b)->sock, rec, 4 + payload, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return 4 + payload;
	} else {
		send_message(front, rec, payload);
	}
	/* A turn of the loop by hand: what it would have called. */
	if (k->backend && k->backend->watched)
		k->backend->watch.fn(k->backend->watch.ctx, EPOLLIN);
	if (keeper_front_connected(k))
		k->front.fn(k->front.ctx, EPOLLIN);
	drain(front);
	return 4 + payload;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keeper_config config = { .reply_ms = 2000,
					.backend_ms = 1,
					.on_backend_lost = on_lost,
					.on_backend_set = on_set };
	int pair[2], listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct keeper *k;
	struct back *b;

	make_fds();
	if (size == 0) {
		close(listener);
		return 0;
	}
	config.inband_notifications = data[0] & 1;
	config.listen_fd = listener;
	/* A name of the kernel's choice. */
	if (bind(listener, (struct sockaddr *)&(struct sockaddr_un){ AF_UNIX, "" },
		 sizeof(sa_family_t)) < 0 ||
	    listen(listener, 1) < 0 || keeper_make(&k, &config) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	b = back_new(k);
	keeper_take_mail(k);
	keeper_front_begin(k, &pair[1]);
	data++;
	size--;
	for (int i = 0; i < RECORDS_MAX && keeper_front_connected(k); i++) {
		size_t n = play(k, &b, pair[0], data, size);

		if (n == 0)
			break;
		data += n;
		size -= n;
	}
	keeper_front_end(k);
	keeper_destroy(k);
	back_free(b);
	close(pair[0]);
	close(listener);
	return 0;
}
