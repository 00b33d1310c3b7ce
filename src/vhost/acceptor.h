/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Takes connections from a listening socket on a loop, for owners that serve one at a time.
 */
#ifndef FUSEWIRE_VHOST_ACCEPTOR_H
#define FUSEWIRE_VHOST_ACCEPTOR_H

#include "base/log.h"
#include "base/loop.h"

/**
 * struct vhost_acceptor - embedded in its owner, which fills in the first four.
 * @loop: where the socket is watched
 * @ratelimit: bounds what connections can make us log
 * @on_connect: a connection, non-blocking and CLOEXEC; who keeps it sets *@sock to -1, else it is closed
 * @owner: for @on_connect
 * @watch: the listening socket; private
 * @timer: watches again after a pause; private
 * @listening: @watch is added; private
 */
struct vhost_acceptor {
	struct loop *loop;
	struct log_ratelimit *ratelimit;
	void (*on_connect)(void *owner, int *sock);
	void *owner;
	struct loop_watch watch;
	struct loop_timer timer;
	bool listening;
};

/**
 * vhost_acceptor_start() - begin to accept on @listen_fd, which stays the caller's and becomes non-blocking.
 *
 * Ignores SIGPIPE if it has its default disposition. Return: 0 or negative errno.
 */
int must_check vhost_acceptor_start(struct vhost_acceptor *a, int listen_fd);
/** vhost_acceptor_stop() - accept no more. */
void vhost_acceptor_stop(struct vhost_acceptor *a);
/** vhost_acceptor_refuse() - log that a second front-end was sent away. */
void vhost_acceptor_refuse(struct vhost_acceptor *a);

#endif
