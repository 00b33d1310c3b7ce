/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Feeds a vhost-user connection with made-up messages, in front of a device that checks what a transport may do.
 *
 * Input: a byte of settings (bit 0: in-band notifications, 1: 65 queues, 2: rings do not start, 3-7: advance of a
 * stopping ring), then records:
 * - request
 * - flags: bit 3: NEED_REPLY; 4: bits 0-3 are the header's flags as they are; 5: the header's size is not adapted to the
 *   table; 6: cut the message off; 7: the number of descriptors is not adapted to the table
 * - descriptors: bits 4-7: how many; 0-1: kind of the first; 2-3: step to the next one's kind; bits 0-3: where to cut
 * - bytes of payload, and these bytes
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../vhost/fake_device.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "vhost/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SHARED_BYTES (4u << 20)
#define RECORDS_MAX  200

static struct log_ratelimit ratelimit;
static struct vhost_session *session;
static int memory_fd = -1, event_fd = -1, pipe_fd = -1, small_fd = -1;

/* The session's owner: frees it as the server does. */
static void on_close(void *owner)
{
	vhost_session_free(TAKE_PTR(session));
}

static void make_fds(void)
{
	int fds[2];

	if (memory_fd >= 0)
		return;
	log_init(LOG_LEVEL_OFF, "fuzz");
	memory_fd = memfd_create("memory", MFD_CLOEXEC);
	small_fd = memfd_create("small", MFD_CLOEXEC);
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (memory_fd < 0 || small_fd < 0 || event_fd < 0 ||
	    ftruncate(memory_fd, SHARED_BYTES) < 0 || ftruncate(small_fd, 4096) < 0 ||
	    pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		abort();
	/* Both ends stay open: the write end is what is passed. */
	pipe_fd = fds[1];
}

static int fd_of_kind(unsigned int kind)
{
	const int fds[] = { memory_fd, event_fd, pipe_fd, small_fd };

	return fds[kind % 4];
}

static void send_bytes(int sock, const void *data, size_t len, const int *fds, unsigned int nr_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 16)];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nr_fds) {
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * nr_fds);
	}
	/* The session may have closed its end: that is for the caller to notice. */
	if (sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

static void drain_replies(int sock)
{
	char buf[4096];
	/* Descriptors in replies are lost with the ancillary data that nobody takes: the kernel closes them. */
	while (recv(sock, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

/* Send the record at @rec. Return: bytes of it, 0 at the end. */
static size_t play_record(int sock, const uint8_t *rec, size_t left)
{
	const struct vhost_msg_info *info;
	struct vhost_header h;
	uint8_t whole[sizeof(h) + 256] = { 0 };
	unsigned int nr_fds, payload;
	int fds[16];
	size_t cut;

	if (left < 4 || left < 4u + rec[3])
		return 0;
	payload = rec[3];
	info = vhost_msg_info(rec[0]);
	h.request = rec[0];
	h.flags = rec[1] & 0x10 ? rec[1] & 0xf : ((rec[1] & 0x8) | VHOST_FLAG_VERSION);
	h.size = payload;
	nr_fds = rec[2] >> 4;
	if (info && !(rec[1] & 0x80)) {
		nr_fds = min_of(nr_fds, (unsigned int)info->fds_max);
		nr_fds = max_of(nr_fds, (unsigned int)info->fds_min);
	}
	if (info && !(rec[1] & 0x20)) {
		h.size = max_of(payload, (unsigned int)info->size_min);
		h.size = min_of(h.size, 256u);
	}
	for (unsigned int i = 0; i < nr_fds; i++)
		fds[i] = fd_of_kind((rec[2] + (i ? i * (rec[2] >> 2 & 3) : 0)) & 3);
	memcpy(whole, &h, sizeof(h));
	memcpy(whole + sizeof(h), rec + 4, payload);
	cut = sizeof(h) + min_of(h.size, 256u);
	if (rec[1] & 0x40)
		cut = cut * (rec[2] & 0xf) / 16;
	send_bytes(sock, whole, cut, fds, nr_fds);
	return 4u + payload;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct device dev;
	struct loop *loop;
	int pair[2];
	struct vhost_session_config config = { .dev = &dev,
					       .ratelimit = &ratelimit,
					       .on_close = on_close };

	make_fds();
	fake_device_init(&dev);
	if (size == 0 || loop_new(&loop) < 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	config.loop = loop;
	config.sock = pair[1];
	config.inband_offered = data[0] & 1;
	dev.nr_queues = data[0] & 2 ? 65 : 3;
	dev.start_error = data[0] & 4 ? -ENOMEM : 0;
	dev.advance = data[0] >> 3;
	if (vhost_session_new(&session, &config) < 0)
		abort();
	data++;
	size--;
	for (int i = 0; i < RECORDS_MAX && session; i++) {
		size_t n = play_record(pair[0], data, size);

		if (n == 0)
			break;
		data += n;
		size -= n;
		/* A turn of the loop by hand. */
		session->watch.fn(session->watch.ctx, EPOLLIN);
		drain_replies(pair[0]);
	}
	/* The timer of polled rings, too. */
	if (session)
		session->poll_timer.fn(session->poll_timer.ctx);
	vhost_session_free(TAKE_PTR(session));
	close(pair[0]);
	loop_free(loop);
	assert(!dev.attached && !dev.mem && !dev.log);
	return 0;
}
