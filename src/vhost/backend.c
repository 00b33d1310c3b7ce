/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel on which we talk to the front-end unasked, and the descriptors that carry signals.
 *
 * The channel is a socket, or a pipe (User-mode Linux). Nothing here waits: what does not fit is dropped, since
 * the device's threads send. No reply is ever asked for: nobody would read it.
 */
#include "vhost/session.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

int vhost_event_fd_check(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	/*
	 * An eventfd has no file type. A file, a device node or a directory would always be readable, or block:
	 * it is no signal.
	 */
	if ((st.st_mode & S_IFMT) != 0 && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
		return -EINVAL;
	return fd_set_nonblock(fd, true);
}

int vhost_channel_send(int fd, bool is_pipe, const struct vhost_msg *msg)
{
	const size_t bytes = sizeof(msg->header) + msg->header.size;
	char buf[sizeof(msg->header) + sizeof(msg->payload)];
	ssize_t n;

	if (!is_pipe)
		return vhost_send(fd, msg);
	/* One write of less than PIPE_BUF bytes: all or nothing. */
	memcpy(buf, &msg->header, sizeof(msg->header));
	memcpy(buf + sizeof(msg->header), &msg->payload, msg->header.size);
	do {
		n = write(fd, buf, bytes);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* With the lock held. The channel is closed when nobody listens any more. */
static void backend_send_locked(struct vhost_session *s, const struct vhost_msg *msg)
{
	int err;

	if (s->backend_fd < 0)
		return;
	err = vhost_channel_send(s->backend_fd, s->backend_pipe, msg);
	if (err == 0)
		return;
	log_warn_ratelimited(s->ratelimit, "vhost-user: cannot send message %u: %s",
			     msg->header.request, strerror(-err));
	if (err != -EAGAIN)
		close_fd(&s->backend_fd);
}

static void backend_call(void *transport, unsigned int index)
{
	struct vhost_session *s = transport;
	struct vhost_msg msg = {
		.header = { VHOST_USER_BACKEND_VRING_CALL, VHOST_FLAG_VERSION,
			    sizeof(struct vhost_vring_state) },
		.payload.state = { .index = index },
	};

	pthread_mutex_lock(&s->lock);
	backend_send_locked(s, &msg);
	pthread_mutex_unlock(&s->lock);
}

static void backend_needs_reset(void *transport)
{
	struct vhost_session *s = transport;
	struct vhost_msg msg = {
		.header = { VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_FLAG_VERSION, 0 },
	};

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < s->nr_rings; i++) {
		if (s->rings[i].err_fd >= 0)
			fd_signal(s->rings[i].err_fd);
	}
	/* With STATUS the front-end finds the bit; the configuration interrupt makes the driver look. */
	if (s->config_change)
		backend_send_locked(s, &msg);
	pthread_mutex_unlock(&s->lock);
}

const struct transport_ops vhost_backend_ops = {
	.call = backend_call,
	.needs_reset = backend_needs_reset,
};

void vhost_backend_update(struct vhost_session *s)
{
	pthread_mutex_lock(&s->lock);
	s->config_change = vhost_has_protocol(s, VHOST_USER_PROTOCOL_F_CONFIG) &&
			   vhost_has_protocol(s, VHOST_USER_PROTOCOL_F_BACKEND_REQ);
	pthread_mutex_unlock(&s->lock);
}

void vhost_backend_close(struct vhost_session *s)
{
	pthread_mutex_lock(&s->lock);
	close_fd(&s->backend_fd);
	pthread_mutex_unlock(&s->lock);
}

int vhost_set_backend_req_fd(struct vhost_session *s, struct vhost_msg *msg,
			     struct vhost_msg *reply)
{
	struct stat st;
	int err;

	if (fstat(msg->fds[0], &st) < 0)
		return -errno;
	if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
		return vhost_refuse(s, -EINVAL, "SET_BACKEND_REQ_FD: neither a socket nor a pipe");
	err = fd_set_nonblock(msg->fds[0], true);
	if (err < 0)
		return err;
	pthread_mutex_lock(&s->lock);
	close_fd(&s->backend_fd);
	s->backend_fd = TAKE_FD(msg->fds[0]);
	s->backend_pipe = S_ISFIFO(st.st_mode);
	pthread_mutex_unlock(&s->lock);
	return 0;
}
