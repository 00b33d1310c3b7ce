/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device with a thread of its own for its transport.
 *
 * Theory of operation
 * -------------------
 * Where there is a daemon in this process, its threads do all the work on requests; the worker's thread is the device's transport thread (vhost-user
 * messages), nothing more. The end comes in steps, each driven by the one before:
 *
 *	worker_end() -> [loop] front-end dropped, session paid back by the daemon's threads -> DESTROY to the daemon
 *	-> its answer, or a time -> -ENODEV -> config.ended
 */
#include "worker/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/thread.h"
#include "vhost/server.h"
#include "vhost/session.h"

struct worker {
	struct worker_config config;
	struct service *svc;
	struct device *dev;
	struct loop *loop;
	struct loop_watch wake;
	struct loop_timer destroy_timer;
	struct vhost_server *server;
	struct vhost_session *session;
	struct log_ratelimit ratelimit;
	pthread_t thread;
	bool thread_runs;
	bool end_wanted; /* atomic */
	bool ending; /* loop thread */
	bool ended; /* atomic: config.ended was called */
};

/* After DESTROY, or without an answer to it. Context: any thread. */
static void worker_finish(struct worker *w)
{
	if (__atomic_exchange_n(&w->ended, true, __ATOMIC_ACQ_REL))
		return;
	inproc_unmount(w->svc);
	if (w->config.ended)
		w->config.ended(w->config.ctx);
}

static void on_destroyed(void *ctx)
{
	worker_finish(ctx);
}

static void on_readable(void *ctx, bool yes)
{
	struct worker *w = ctx;

	w->config.daemon.readable(w->config.ctx, yes);
}

static void on_destroy_late(void *ctx)
{
	log_warn("the daemon does not answer DESTROY");
	worker_finish(ctx);
}

/* The one front-end that there will be is gone: nobody can use the file system any more. */
static void session_closed(void *owner)
{
	struct worker *w = owner;

	vhost_session_free(w->session);
	w->session = NULL;
	if (!w->config.service)
		worker_end(w);
}

static void worker_disconnect(struct worker *w)
{
	vhost_server_free(w->server);
	w->server = NULL;
	vhost_session_free(w->session);
	w->session = NULL;
}

static void on_wake(void *ctx, uint32_t events)
{
	struct worker *w = ctx;

	if (fd_drain_signal(w->wake.fd) < 0 || w->ending ||
	    !__atomic_load_n(&w->end_wanted, __ATOMIC_ACQUIRE))
		return;
	w->ending = true;
	worker_disconnect(w);
	device_finish(w->dev);
	w->destroy_timer.fn = on_destroy_late;
	w->destroy_timer.ctx = w;
	loop_timer_arm(w->loop, &w->destroy_timer, w->config.device.drain_ns);
	inproc_destroy(w->svc);
}

static int worker_connect(struct worker *w)
{
	const struct vhost_server_config server = {
		.loop = w->loop,
		.listen_fd = w->config.listen_fd,
		.dev = w->dev,
		.inband_notifications = w->config.inband_notifications,
	};
	const struct vhost_session_config session = {
		.loop = w->loop,
		.dev = w->dev,
		.sock = w->config.sock,
		.inband_offered = w->config.inband_notifications,
		.ratelimit = &w->ratelimit,
		.on_close = session_closed,
		.owner = w,
	};

	if (w->config.sock >= 0)
		return vhost_session_new(&w->session, &session);
	return vhost_server_new(&w->server, &server);
}

static int worker_make_device(struct worker *w)
{
	struct inproc_config daemon = w->config.daemon;
	int err;

	if (w->config.service) {
		w->svc = w->config.service;
		return device_new(&w->dev, &w->config.device, w->svc);
	}
	daemon.destroyed = on_destroyed;
	daemon.readable = daemon.readable ? on_readable : NULL;
	daemon.ctx = w;
	err = inproc_new(&w->svc, &daemon);
	if (err < 0)
		return err;
	w->config.device.takeable = inproc_takeable;
	err = device_new(&w->dev, &w->config.device, w->svc);
	if (err == 0)
		inproc_set_device(w->svc, w->dev);
	return err;
}

static int worker_build(struct worker *w)
{
	int err = worker_make_device(w);

	if (err < 0)
		return err;
	if (w->config.generation) {
		err = device_resume(w->dev, w->config.generation);
		if (err < 0 && err != -ENOENT)
			return err;
	}
	err = loop_new(&w->loop);
	if (err == 0)
		err = w->wake.fd = eventfd_new();
	if (err < 0)
		return err;
	w->wake.fn = on_wake;
	w->wake.ctx = w;
	err = loop_add(w->loop, &w->wake, EPOLLIN);
	return err ? err : worker_connect(w);
}

int worker_new(struct worker **ret_worker, const struct worker_config *config)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->config = *config;
	w->wake.fd = -1;
	/* Call descriptors may be pipes whose reader is gone. */
	fd_ignore_sigpipe();
	err = worker_build(w);
	if (err < 0) {
		worker_free(w);
		return err;
	}
	*ret_worker = w;
	return 0;
}

struct service *worker_service(struct worker *w)
{
	return w->svc;
}

struct loop *worker_loop(struct worker *w)
{
	return w->loop;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	int err = loop_run(w->loop);

	if (err < 0)
		log_error("control loop: %s", strerror(-err));
	return NULL;
}

int worker_run(struct worker *w)
{
	int err = thread_start(&w->thread, worker_main, w);

	w->thread_runs = !err;
	return err;
}

void worker_end(struct worker *w)
{
	__atomic_store_n(&w->end_wanted, true, __ATOMIC_RELEASE);
	fd_signal(w->wake.fd);
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	if (w->thread_runs) {
		loop_stop(w->loop);
		pthread_join(w->thread, NULL);
	}
	/* Nobody reads any more: what the device still says fails at once. */
	if (w->svc && !w->config.service)
		inproc_unmount(w->svc);
	worker_disconnect(w);
	device_free(w->dev);
	if (w->svc && !w->config.service)
		w->svc->ops->free(w->svc);
	if (w->loop) {
		loop_timer_cancel(w->loop, &w->destroy_timer);
		if (w->wake.fd >= 0 && w->wake.fn)
			loop_remove(w->loop, &w->wake);
	}
	close_fd(&w->wake.fd);
	loop_free(w->loop);
	free(w);
}
