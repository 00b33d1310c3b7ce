/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end's end of a vhost-user connection.
 *
 * A reply's header is read first, with its descriptors; then exactly its payload: what comes behind belongs to the next.
 */
#include "vhost/link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"

int vhost_link_connect(const char *path, int timeout_ms)
{
	struct timeval wait = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	autoclose int sock = -1;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A full backlog would otherwise be waited for without end. */
	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return TAKE_FD(sock);
}

int vhost_link_send(int sock, uint32_t request, uint32_t flags, const void *payload, size_t size,
		    int fd)
{
	struct vhost_msg msg = { .header = { .request = request,
					     .flags = VHOST_FLAG_VERSION | flags,
					     .size = (uint32_t)size } };

	if (size)
		memcpy(&msg.payload, payload, size);
	if (fd >= 0) {
		msg.fds[0] = fd;
		msg.nr_fds = 1;
	}
	return vhost_send(sock, &msg);
}

static int wait_readable(int sock, uint64_t end_ns)
{
	for (;;) {
		struct pollfd pfd = { .fd = sock, .events = POLLIN };
		uint64_t now = clock_now_ns();
		int n;

		if (now >= end_ns)
			return -ETIMEDOUT;
		n = poll(&pfd, 1, (int)((end_ns - now) / NSEC_PER_MSEC) + 1);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/* Descriptors beyond what a message can have are closed by nobody else: they count as none that we know. */
static void take_fds(struct vhost_msg *msg, struct msghdr *mh)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (msg->nr_fds < VHOST_FDS_MAX)
				msg->fds[msg->nr_fds++] = fd;
			else
				close_fd(&fd);
		}
	}
}

static int receive_part(int sock, struct vhost_msg *msg, void *to, size_t len, uint64_t end_ns)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
		struct cmsghdr align;
	} control;

	while (len) {
		struct iovec iov = { to, len };
		struct msghdr mh = { .msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control.buf,
				     .msg_controllen = sizeof(control.buf) };
		int err = wait_readable(sock, end_ns);
		ssize_t n;

		if (err < 0)
			return err;
		n = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return errno == ECONNRESET ? -EPIPE : -errno;
		if (n > 0) {
			take_fds(msg, &mh);
			to = (char *)to + n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int vhost_link_receive(int sock, struct vhost_msg *ret_msg, int timeout_ms)
{
	uint64_t end_ns = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	struct vhost_msg msg = {};
	int err = receive_part(sock, &msg, &msg.header, sizeof(msg.header), end_ns);

	if (err == 0 && (msg.header.size > sizeof(msg.payload) ||
			 (msg.header.flags & VHOST_FLAG_VERSION_MASK) != VHOST_FLAG_VERSION))
		err = -EPROTO;
	if (err == 0)
		err = receive_part(sock, &msg, &msg.payload, msg.header.size, end_ns);
	if (err < 0) {
		vhost_msg_close_fds(&msg);
		return err;
	}
	*ret_msg = msg;
	return 0;
}

int vhost_link_ask(int sock, uint32_t request, const void *payload, size_t size, void *reply,
		   size_t reply_size, int timeout_ms)
{
	struct vhost_msg msg = {};
	int err = vhost_link_send(sock, request, 0, payload, size, -1);

	if (err == 0)
		err = vhost_link_receive(sock, &msg, timeout_ms);
	if (err < 0)
		return err;
	if (msg.header.request != request || msg.header.size != reply_size || msg.nr_fds ||
	    !(msg.header.flags & VHOST_FLAG_REPLY)) {
		vhost_msg_close_fds(&msg);
		return -EPROTO;
	}
	memcpy(reply, &msg.payload, reply_size);
	return 0;
}
