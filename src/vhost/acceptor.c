/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Accepts front-ends.
 *
 * Theory of operation
 * -------------------
 * The listening socket is always watched. A front-end that connects while another one is served is accepted and
 * closed at once: left in the backlog it would wait without a word, for as long as the other VM lives. One
 * exception, which is the owner's to look for: the old front-end may have gone already while we have not got round
 * to reading that (a VM that is restarted connects within milliseconds); then it is dropped first, and the new
 * one is served.
 */
#include "vhost/acceptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"

/* Pause after accept(2) failed for want of descriptors or memory: the socket stays readable meanwhile. */
#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

static void acceptor_pause(struct vhost_acceptor *a, int err)
{
	log_warn_ratelimited(a->ratelimit, "vhost-user: accept: %s", strerror(-err));
	loop_remove(a->loop, &a->watch);
	a->listening = false;
	loop_timer_arm(a->loop, &a->timer, ACCEPT_RETRY_NS);
}

static void acceptor_timer(void *ctx)
{
	struct vhost_acceptor *a = ctx;
	int err = loop_add(a->loop, &a->watch, EPOLLIN);

	if (err < 0)
		loop_timer_arm(a->loop, &a->timer, ACCEPT_RETRY_NS);
	else
		a->listening = true;
}

static void acceptor_ready(void *ctx, uint32_t events)
{
	struct vhost_acceptor *a = ctx;
	autoclose int sock = accept4(a->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			acceptor_pause(a, -errno);
		return;
	}
	a->on_connect(a->owner, &sock);
}

void vhost_acceptor_refuse(struct vhost_acceptor *a)
{
	log_warn_ratelimited(a->ratelimit,
			     "vhost-user: refused a second front-end while one is connected");
}

int vhost_acceptor_start(struct vhost_acceptor *a, int listen_fd)
{
	int err;

	a->watch = (struct loop_watch){ listen_fd, acceptor_ready, a };
	a->timer = (struct loop_timer){ .fn = acceptor_timer, .ctx = a };
	err = fd_set_nonblock(listen_fd, true);
	if (err == 0)
		err = loop_add(a->loop, &a->watch, EPOLLIN);
	if (err < 0)
		return err;
	a->listening = true;
	fd_ignore_sigpipe();
	return 0;
}

void vhost_acceptor_stop(struct vhost_acceptor *a)
{
	if (a->listening)
		loop_remove(a->loop, &a->watch);
	a->listening = false;
	loop_timer_cancel(a->loop, &a->timer);
}
