/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper's thread: who is connected on either side, and what happens when a back-end comes or goes.
 *
 * Theory of operation
 * -------------------
 * One thread does it all, one thing after the other, and waits for back-ends while it does (bounded by config.reply_ms).
 * Other threads leave a back-end in the mailbox, which is looked at by the loop, or where the thread waits for one.
 *
 * A back-end is taken over in steps: ask what it offers; does it fit; replay all but the rings; stop the rings of its
 * predecessor, or read from the in-flight area where they are; replay the rings. Until the rings are touched an
 * error means that the new one is refused and everything is as before. After that, it is a death like any
 * other.
 *
 * The callbacks only ever fill the mailbox, so a death inside any of these steps needs no recursion.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "keeper/keeper_impl.h"

static enum keeper_lost lost_why(int err)
{
	if (err == -ETIMEDOUT)
		return KEEPER_LOST_HUNG;
	return err == -EPROTO ? KEEPER_LOST_LIED : KEEPER_LOST_GONE;
}

static void log_lost(struct keeper *k, const struct keeper_backend *be, int err)
{
	switch (lost_why(err)) {
	case KEEPER_LOST_HUNG:
		keeper_warn(k, "the back-end has not answered for %u ms", k->config.reply_ms);
		break;
	case KEEPER_LOST_LIED:
		keeper_warn(k, "the back-end breaks the protocol: %s",
			    be->rx.error ? be->rx.error : "it speaks unasked");
		break;
	case KEEPER_LOST_GONE:
		keeper_warn(k, "the back-end is gone");
		break;
	}
}

/* Part with @be, which failed with @err, and tell the owner. */
static void backend_lost(struct keeper *k, struct keeper_backend *be, int err)
{
	void *tag = be->tag;

	/* keeper_free() cut a wait short: nothing is lost but time. */
	if (err != -ECANCELED)
		log_lost(k, be, err);
	keeper_backend_free(k, be);
	if (err != -ECANCELED)
		k->config.on_backend_lost(k->config.ctx, tag, lost_why(err));
}

/* Where rings are whose back-end died is known from the in-flight area only; else the driver cannot go on. */
static void recover(struct keeper *k)
{
	k->was_killed = true;
	if (!keeper_front_connected(k) || keeper_state_recover(&k->state) == 0)
		return;
	keeper_warn(k, "where the rings were is lost with the back-end: dropping the front-end");
	/* A successor that was told the head lets go of it. */
	keeper_front_end(k);
}

void keeper_lose(struct keeper *k, int err)
{
	struct keeper_backend *be = TAKE_PTR(k->backend);

	backend_lost(k, be, err);
	recover(k);
}

/* The back-end says something unasked, or has gone. */
static void backend_ready(void *ctx, uint32_t events)
{
	struct keeper *k = ctx;
	char byte;
	ssize_t n = recv(k->backend->watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n > 0)
		keeper_lose(k, -EPROTO);
	else if (n == 0)
		keeper_lose(k, -EPIPE);
	else if (errno != EAGAIN && errno != EINTR)
		keeper_lose(k, -errno);
}

/* What comes before the predecessor's rings are touched. */
static int backend_try(struct keeper *k, struct keeper_backend *be)
{
	int err = keeper_backend_greet(k, be);

	if (err == 0 && keeper_front_connected(k))
		err = keeper_backend_fits(k, be);
	if (err == 0 && keeper_front_connected(k))
		err = keeper_replay_head(k, be);
	be->watch.fn = backend_ready;
	be->watch.ctx = k;
	if (err == 0)
		err = loop_add(k->loop, &be->watch, EPOLLIN);
	if (err == 0)
		be->watched = true;
	return err;
}

/* Take the rings from the back-end that served, if one did. */
static void retire_predecessor(struct keeper *k, struct keeper_backend *old)
{
	int err;

	if (!old)
		return;
	err = keeper_stop_rings(k, old);
	if (err == 0) {
		keeper_backend_free(k, old);
		return;
	}
	backend_lost(k, old, err);
	recover(k);
}

static void backend_take(struct keeper *k, int sock, void *tag)
{
	struct keeper_backend *be = keeper_backend_new(sock, tag);
	struct keeper_backend *old = k->backend;
	int err = be ? backend_try(k, be) : -ENOMEM;

	if (err < 0) {
		if (err != -ECANCELED)
			keeper_warn(k, "a new back-end is refused: %s", strerror(-err));
		keeper_backend_free(k, be);
		k->config.on_backend_set(k->config.ctx, tag, err);
		return;
	}
	k->backend = be;
	k->had_backend = true;
	k->offered = be->offered;
	k->nr_queues = be->nr_queues;
	retire_predecessor(k, old);
	/* The predecessor died only now, with chains in flight that this one cannot take over. */
	if (keeper_front_connected(k) && keeper_backend_fits(k, be) < 0)
		keeper_front_end(k);
	/* It died, too, when it was to let go of a front-end. */
	if (k->backend != be)
		return;
	/* What this one does not keep up would tell of the past at its own death. */
	if (k->state.inflight_own && !(be->protocol & bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)))
		keeper_state_drop_inflight(&k->state);
	if (keeper_front_connected(k))
		err = keeper_replay_rings(k, be);
	if (err < 0) {
		keeper_lose(k, err);
		return;
	}
	k->was_killed = false;
	if (log_ratelimit_pass(&k->ratelimit))
		log_info("keeper: a back-end serves");
	k->config.on_backend_set(k->config.ctx, tag, 0);
}

void keeper_take_mail(struct keeper *k)
{
	void *tag;
	int sock;

	pthread_mutex_lock(&k->lock);
	sock = TAKE_FD(k->mail);
	tag = k->mail_tag;
	pthread_mutex_unlock(&k->lock);
	if (sock >= 0)
		backend_take(k, sock, tag);
}

static void keeper_woken(void *ctx, uint32_t events)
{
	struct keeper *k = ctx;

	if (fd_drain_signal(k->wake.fd) < 0)
		log_debug("keeper: no signal");
	keeper_take_mail(k);
}

int keeper_wait_backend(struct keeper *k)
{
	const uint64_t deadline = clock_now_ns() + k->config.backend_ms * NSEC_PER_MSEC;

	for (;;) {
		struct pollfd p[3] = { { .fd = k->wake.fd, .events = POLLIN },
				       { .fd = k->quit_fd, .events = POLLIN },
				       { .fd = k->front.fd, .events = POLLRDHUP } };
		uint64_t now = clock_now_ns();

		if (k->backend)
			return 0;
		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(p, 3, (int)((deadline - now) / NSEC_PER_MSEC) + 1) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents)
			return -ECANCELED;
		if (p[0].revents)
			keeper_woken(k, EPOLLIN);
		else if (p[2].revents)
			return -EPIPE;
	}
}

static void keeper_connected(void *owner, int *sock)
{
	struct keeper *k = owner;

	if (keeper_front_connected(k) && keeper_front_hung_up(k))
		keeper_front_end(k);
	if (keeper_front_connected(k))
		vhost_acceptor_refuse(&k->acceptor);
	else
		keeper_front_begin(k, sock);
}

int keeper_set_backend(struct keeper *k, int sock, void *tag)
{
	void *old_tag;
	int old, err = fd_set_nonblock(sock, true);

	if (err < 0) {
		close_fd(&sock);
		return err;
	}
	pthread_mutex_lock(&k->lock);
	old = k->mail;
	old_tag = k->mail_tag;
	k->mail = sock;
	k->mail_tag = tag;
	pthread_mutex_unlock(&k->lock);
	if (old >= 0) {
		close_fd(&old);
		k->config.on_backend_set(k->config.ctx, old_tag, -ECANCELED);
	}
	fd_signal(k->wake.fd);
	return 0;
}

static void *keeper_main(void *arg)
{
	struct keeper *k = arg;
	int err = loop_run(k->loop);

	if (err < 0)
		log_error("keeper: %s", strerror(-err));
	return NULL;
}

static int keeper_start(struct keeper *k)
{
	int err = loop_new(&k->loop);

	if (err < 0)
		return err;
	k->quit_fd = eventfd_new();
	k->wake = (struct loop_watch){ eventfd_new(), keeper_woken, k };
	if (k->quit_fd < 0 || k->wake.fd < 0)
		return -EMFILE;
	err = loop_add(k->loop, &k->wake, EPOLLIN);
	if (err < 0) {
		close_fd(&k->wake.fd);
		return err;
	}
	k->acceptor.loop = k->loop;
	k->acceptor.ratelimit = &k->ratelimit;
	k->acceptor.on_connect = keeper_connected;
	k->acceptor.owner = k;
	err = vhost_acceptor_start(&k->acceptor, k->config.listen_fd);
	if (err == 0)
		k->accepting = true;
	return err;
}

void keeper_destroy(struct keeper *k)
{
	keeper_front_close(k);
	keeper_backend_free(k, k->backend);
	if (k->accepting)
		vhost_acceptor_stop(&k->acceptor);
	if (k->wake.fd >= 0)
		loop_remove(k->loop, &k->wake);
	close_fd(&k->wake.fd);
	close_fd(&k->quit_fd);
	close_fd(&k->mail);
	loop_free(k->loop);
	keeper_state_fini(&k->state);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

int keeper_make(struct keeper **ret_keeper, const struct keeper_config *config)
{
	struct keeper *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return -ENOMEM;
	k->config = *config;
	if (!k->config.reply_ms)
		k->config.reply_ms = KEEPER_REPLY_MS;
	if (!k->config.backend_ms)
		k->config.backend_ms = KEEPER_BACKEND_MS;
	k->front.fd = k->wake.fd = k->quit_fd = k->mail = -1;
	k->nr_queues = VHOST_QUEUES_MAX;
	keeper_state_init(&k->state);
	pthread_mutex_init(&k->lock, NULL);
	err = keeper_start(k);
	if (err < 0) {
		keeper_destroy(k);
		return err;
	}
	*ret_keeper = k;
	return 0;
}

int keeper_new(struct keeper **ret_keeper, const struct keeper_config *config)
{
	struct keeper *k;
	int err = keeper_make(&k, config);

	if (err < 0)
		return err;
	err = -pthread_create(&k->thread, NULL, keeper_main, k);
	if (err < 0) {
		keeper_destroy(k);
		return err;
	}
	*ret_keeper = k;
	return 0;
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	fd_signal(k->quit_fd);
	loop_stop(k->loop);
	pthread_join(k->thread, NULL);
	keeper_destroy(k);
}
