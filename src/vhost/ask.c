/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front-end's question and the back-end's answer, with a bound on the wait.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "vhost/message.h"

/* Wait until @sock is ready for @events. Return: 0, -ETIMEDOUT, -ECANCELED or negative errno of poll(2). */
static int wait_ready(int sock, short events, uint64_t deadline_ns, int cancel_fd)
{
	for (;;) {
		/* A negative descriptor is ignored by poll(2). */
		struct pollfd p[2] = { { .fd = sock, .events = events },
				       { .fd = cancel_fd, .events = POLLIN } };
		uint64_t now = clock_now_ns();
		struct timespec left;
		int n;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		left.tv_sec = (time_t)((deadline_ns - now) / NSEC_PER_SEC);
		left.tv_nsec = (long)((deadline_ns - now) % NSEC_PER_SEC);
		n = ppoll(p, 2, &left, NULL);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			return p[1].revents ? -ECANCELED : 0;
	}
}

static int send_all(int sock, const struct vhost_msg *msg, uint64_t deadline_ns, int cancel_fd)
{
	for (;;) {
		int err = vhost_send(sock, msg);

		if (err != -EAGAIN)
			return err;
		err = wait_ready(sock, POLLOUT, deadline_ns, cancel_fd);
		if (err < 0)
			return err;
	}
}

int vhost_await(struct vhost_receiver *rx, int sock, uint64_t deadline_ns, int cancel_fd,
		struct vhost_msg *ret_msg)
{
	for (;;) {
		int err = wait_ready(sock, POLLIN, deadline_ns, cancel_fd);

		if (err == 0)
			err = vhost_receive(rx, sock, ret_msg);
		if (err)
			return min_of(err, 0);
	}
}

int vhost_ask(int sock, struct vhost_receiver *rx, const struct vhost_msg *msg,
	      uint64_t deadline_ns, int cancel_fd, struct vhost_msg *ret_reply)
{
	struct vhost_msg reply;
	int err = send_all(sock, msg, deadline_ns, cancel_fd);

	if (err < 0 || !ret_reply)
		return err;
	err = vhost_await(rx, sock, deadline_ns, cancel_fd, &reply);
	if (err < 0)
		return err;
	if (reply.header.request != msg->header.request) {
		vhost_msg_close_fds(&reply);
		rx->error = "reply to another message";
		return -EPROTO;
	}
	*ret_reply = reply;
	return 0;
}
