/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Accepts front-ends, one at a time.
 */
#include "vhost/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "vhost/acceptor.h"
#include "vhost/session.h"

struct vhost_server {
	struct vhost_server_config config;
	struct vhost_acceptor acceptor;
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
		log_warn_ratelimited(&server->ratelimit, "vhost-user: cannot serve a front-end: %s",
				     strerror(-err));
		return;
	}
	*sock = -1;
	log_info_ratelimited(&server->ratelimit, "vhost-user: front-end connected");
}

static void server_connected(void *owner, int *sock)
{
	struct vhost_server *server = owner;

	if (server->session && vhost_session_hung_up(server->session))
		server_drop_session(server);
	if (server->session)
		vhost_acceptor_refuse(&server->acceptor);
	else
		server_begin_session(server, sock);
}

int vhost_server_new(struct vhost_server **ret_server, const struct vhost_server_config *config)
{
	struct vhost_server *server = calloc(1, sizeof(*server));
	int err;

	if (!server)
		return -ENOMEM;
	server->config = *config;
	server->acceptor.loop = config->loop;
	server->acceptor.ratelimit = &server->ratelimit;
	server->acceptor.on_connect = server_connected;
	server->acceptor.owner = server;
	err = vhost_acceptor_start(&server->acceptor, config->listen_fd);
	if (err < 0) {
		free(server);
		return err;
	}
	*ret_server = server;
	return 0;
}

void vhost_server_free(struct vhost_server *server)
{
	if (!server)
		return;
	vhost_acceptor_stop(&server->acceptor);
	server_drop_session(server);
	free(server);
}
