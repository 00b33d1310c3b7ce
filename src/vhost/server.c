// SPDX-License-Identifier: BSD-3-Clause
/*
 * Accepts front-ends, one at a time.
 *
 * Theory of operation
 * -------------------
 * The listening socket is always watched. A front-end that connects while another one is served is accepted and
 * closed at once: left in the backlog it would wait without a word, for as long as the other VM lives. One
 * exception: the old front-end may have gone already while we have not got round to reading that (a VM that is
 * restarted connects within milliseconds); then it is dropped first, and the new one is served.
 */
#include "vhost/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "vhost/session.h"

/* Pause after accept(2) failed for want of descriptors or memory: the socket stays readable meanwhile. */
#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

struct vhost_server {
	struct vhost_server_config config;
	struct loop_watch listen_watch;
	bool listening;
	struct loop_timer accept_timer;
	struct vhost_session *session;
	struct log_ratelimit ratelimit;
};

static void server_drop_session(void *owner)
{
	struct vhost_server *server = owner;

	vhost_session_free(TAKE_PTR(server->session));
}

static void server_begin_session(struct vhost_server *server, int *sock)
{
	const struct vhost_session_config config = {
		.loop = server->config.loop,
		.dev = server->config.dev,
		.sock = *sock,
		.inband_offered = server->config.inband_notifications,
		.ratelimit = &server->ratelimit,
		.on_close = server_drop_session,
		.owner = server,
	};
	int err = vhost_session_new(&server->session, &config);

	if (err < 0) {
		log_error("vhost-user: cannot serve a front-end: %s", strerror(-err));
		return;
	}
	*sock = -1;
	log_info_ratelimited(&server->ratelimit, "vhost-user: front-end connected");
}

static void server_pause_accept(struct vhost_server *server, int err)
{
	log_warn_ratelimited(&server->ratelimit, "vhost-user: accept: %s", strerror(-err));
	loop_remove(server->config.loop, &server->listen_watch);
	server->listening = false;
	loop_timer_arm(server->config.loop, &server->accept_timer, ACCEPT_RETRY_NS);
}

static void server_accept_timer(void *ctx)
{
	struct vhost_server *server = ctx;
	int err = loop_add(server->config.loop, &server->listen_watch, EPOLLIN);

	if (err < 0)
		loop_timer_arm(server->config.loop, &server->accept_timer, ACCEPT_RETRY_NS);
	else
		server->listening = true;
}

static void server_accept(void *ctx, uint32_t events)
{
	struct vhost_server *server = ctx;
	autoclose int sock =
		accept4(server->config.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			server_pause_accept(server, -errno);
		return;
	}
	if (server->session && vhost_session_hung_up(server->session))
		server_drop_session(server);
	if (server->session) {
		log_warn_ratelimited(
			&server->ratelimit,
			"vhost-user: refused a second front-end while one is connected");
		return;
	}
	server_begin_session(server, &sock);
}

/* Call descriptors and the backend channel may be pipes, whose reader may die. */
static void ignore_sigpipe(void)
{
	struct sigaction old;

	if (sigaction(SIGPIPE, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
	    old.sa_handler == SIG_DFL) {
		old.sa_handler = SIG_IGN;
		sigaction(SIGPIPE, &old, NULL);
	}
}

int vhost_server_new(struct vhost_server **ret_server, const struct vhost_server_config *config)
{
	struct vhost_server *server = calloc(1, sizeof(*server));
	int err;

	if (!server)
		return -ENOMEM;
	server->config = *config;
	server->listen_watch = (struct loop_watch){ config->listen_fd, server_accept, server };
	server->accept_timer.fn = server_accept_timer;
	server->accept_timer.ctx = server;
	err = fd_set_nonblock(config->listen_fd, true);
	if (err == 0)
		err = loop_add(config->loop, &server->listen_watch, EPOLLIN);
	if (err < 0) {
		free(server);
		return err;
	}
	server->listening = true;
	ignore_sigpipe();
	*ret_server = server;
	return 0;
}

void vhost_server_free(struct vhost_server *server)
{
	if (!server)
		return;
	if (server->listening)
		loop_remove(server->config.loop, &server->listen_watch);
	loop_timer_cancel(server->config.loop, &server->accept_timer);
	server_drop_session(server);
	free(server);
}
