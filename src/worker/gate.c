/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker that begins when the daemon has answered INIT: for daemons that nobody launched.
 */
#include "worker/gate.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/session.h"

#define GATE_UNIQUE_INIT ((UINT64_C(1) << 62) | 2)
/* How long a reader waits for another's answer to INIT before it looks whether it shall end. */
#define GATE_WAIT_NS (100 * NSEC_PER_MSEC)

enum gate_state {
	GATE_NEW,
	GATE_ASKED, /* INIT was read */
	GATE_SERVING,
	GATE_FAILED,
};

struct gate {
	struct worker_config config;
	struct worker *worker;
	enum gate_state state; /* atomic; changes under the lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

int gate_new(struct gate **ret_gate, const struct worker_config *config)
{
	struct gate *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;

	if (!g)
		return -ENOMEM;
	g->config = *config;
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret_gate = g;
	return 0;
}

void gate_free(struct gate *g)
{
	if (!g)
		return;
	worker_free(g->worker);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->changed);
	free(g);
}

void gate_set_mount(struct gate *g, uint32_t max_read, bool read_only)
{
	g->config.daemon.max_read = max_read;
	g->config.daemon.read_only = read_only;
}

static enum gate_state gate_state(struct gate *g)
{
	return __atomic_load_n(&g->state, __ATOMIC_ACQUIRE);
}

struct worker *gate_worker(struct gate *g)
{
	return gate_state(g) == GATE_SERVING ? g->worker : NULL;
}

/* Under the lock. */
static ssize_t gate_wait(struct gate *g)
{
	struct timespec until;
	uint64_t ns = clock_now_ns() + GATE_WAIT_NS;
	autocancel int cancel_state = thread_cancel_off();

	until.tv_sec = (time_t)(ns / NSEC_PER_SEC);
	until.tv_nsec = (long)(ns % NSEC_PER_SEC);
	pthread_cond_timedwait(&g->changed, &g->lock, &until);
	return -EINTR;
}

static ssize_t gate_read_init(struct gate *g, const struct iovec *iov, unsigned int nr,
			      bool nonblock)
{
	char msg[sizeof(struct fuse_in_header) + sizeof(struct fuse_init_in)];
	ssize_t ret = -ENODEV;

	pthread_mutex_lock(&g->lock);
	if (g->state == GATE_NEW) {
		size_t len = fuse_init_build(msg, GATE_UNIQUE_INIT);

		ret = (ssize_t)iov_copy_in(iov, nr, 0, msg, len);
		__atomic_store_n(&g->state, GATE_ASKED, __ATOMIC_RELEASE);
	} else if (g->state == GATE_ASKED) {
		ret = nonblock ? -EAGAIN : gate_wait(g);
	} else if (g->state == GATE_SERVING) {
		ret = -EINTR;
	}
	pthread_mutex_unlock(&g->lock);
	return ret;
}

ssize_t gate_read(struct gate *g, const struct iovec *iov, unsigned int nr, bool nonblock)
{
	if (likely(gate_state(g) == GATE_SERVING))
		return inproc_read(worker_service(g->worker), iov, nr, nonblock);
	return gate_read_init(g, iov, nr, nonblock);
}

static int gate_start(struct gate *g, const void *msg, size_t len)
{
	const char *why = NULL;
	int err = fuse_init_accept(msg, len, GATE_UNIQUE_INIT, &g->config.daemon.init_out, &why);

	if (err) {
		log_error("the daemon's answer to INIT cannot be accepted: %s", why);
		return err;
	}
	err = worker_new(&g->worker, &g->config);
	if (!err)
		err = worker_run(g->worker);
	if (err)
		log_error("cannot serve: %s", strerror(-err));
	return err;
}

static ssize_t gate_write_init(struct gate *g, const struct iovec *iov, unsigned int nr)
{
	char msg[sizeof(struct fuse_out_header) + sizeof(struct fuse_init_out)];
	size_t len = iov_bytes(iov, nr);
	struct fuse_out_header hdr;
	int err;

	if (len > sizeof(msg) || iov_copy_out(msg, iov, nr, 0, len) < sizeof(hdr))
		return -EINVAL;
	memcpy(&hdr, msg, sizeof(hdr));
	if (hdr.unique != GATE_UNIQUE_INIT)
		return hdr.unique ? -ENOENT : (ssize_t)len;
	pthread_mutex_lock(&g->lock);
	if (g->state != GATE_ASKED) {
		pthread_mutex_unlock(&g->lock);
		return -ENOENT;
	}
	err = gate_start(g, msg, len);
	__atomic_store_n(&g->state, err ? GATE_FAILED : GATE_SERVING, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	return (ssize_t)len;
}

ssize_t gate_write(struct gate *g, const struct iovec *iov, unsigned int nr)
{
	if (likely(gate_state(g) == GATE_SERVING))
		return inproc_write(worker_service(g->worker), iov, nr);
	return gate_write_init(g, iov, nr);
}

ssize_t gate_write_pipe(struct gate *g, int pipe_fd, size_t len)
{
	char msg[sizeof(struct fuse_out_header) + sizeof(struct fuse_init_out)];
	struct iovec iov = { .iov_base = msg, .iov_len = len };

	if (likely(gate_state(g) == GATE_SERVING))
		return inproc_write_pipe(worker_service(g->worker), pipe_fd, len);
	/* The answer to INIT: the pipe holds it whole, or it is none. */
	if (len > sizeof(msg) || read(pipe_fd, msg, len) != (ssize_t)len)
		return -EINVAL;
	return gate_write_init(g, &iov, 1);
}
