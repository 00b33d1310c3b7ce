/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end's end of a vhost-user connection.
 */
#include "vhost/link.h"

#include <errno.h>
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

static struct vhost_msg link_msg(uint32_t request, uint32_t flags, const void *payload, size_t size,
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
	return msg;
}

int vhost_link_send(int sock, uint32_t request, uint32_t flags, const void *payload, size_t size,
		    int fd)
{
	struct vhost_msg msg = link_msg(request, flags, payload, size, fd);

	return vhost_send(sock, &msg);
}

/* A message of whatever form: the callers look. */
static uint64_t begin(struct vhost_receiver *rx, int timeout_ms)
{
	vhost_receiver_init(rx, VHOST_STREAM_ANY);
	return clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
}

/* However it was that the connection ended. */
static int end(struct vhost_receiver *rx, int err)
{
	vhost_receiver_fini(rx);
	return err == -ECONNRESET ? -EPIPE : err;
}

int vhost_link_receive(int sock, struct vhost_msg *ret_msg, int timeout_ms)
{
	struct vhost_receiver rx;
	uint64_t deadline_ns = begin(&rx, timeout_ms);

	return end(&rx, vhost_await(&rx, sock, deadline_ns, VHOST_NO_CANCEL, ret_msg));
}

int vhost_link_ask(int sock, uint32_t request, const void *payload, size_t size, void *reply,
		   size_t reply_size, int timeout_ms)
{
	struct vhost_msg msg = link_msg(request, 0, payload, size, -1), answer;
	struct vhost_receiver rx;
	uint64_t deadline_ns = begin(&rx, timeout_ms);
	int err = end(&rx, vhost_ask(sock, &rx, &msg, deadline_ns, VHOST_NO_CANCEL, &answer));

	if (err < 0)
		return err;
	if (answer.header.size != reply_size || answer.nr_fds ||
	    !(answer.header.flags & VHOST_FLAG_REPLY)) {
		vhost_msg_close_fds(&answer);
		return -EPROTO;
	}
	memcpy(reply, &answer.payload, reply_size);
	return 0;
}
