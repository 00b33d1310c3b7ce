/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device with a thread of its own for its transport: in a daemon's process, with the inproc service; or with any other
 * service, which brings its own threads.
 */
#ifndef FUSEWIRE_WORKER_WORKER_H
#define FUSEWIRE_WORKER_WORKER_H

#include "base/loop.h"
#include "service/inproc/inproc.h"

struct worker;

/**
 * struct worker_config - what to serve, and to whom.
 * @device: as for device_new(); @takeable is filled in
 * @daemon: as for inproc_new(); @destroyed and @ctx are the worker's own
 * @service: what answers instead of a daemon in this process, and stays the caller's; NULL: inproc_new() makes it of @daemon
 * @sock: a connected front-end, taken over on success; when it goes, worker_end() follows. Or -1
 * @listen_fd: a listening socket where front-ends come and go, the caller's; if @sock is -1
 * @inband_notifications: offer INBAND_NOTIFICATIONS (User-mode Linux)
 * @generation: how many processes had the session of @device.record before; 0: it is nobody's, begin afresh
 * @ended: worker_end() is done: what the driver held was paid back, and the daemon answered DESTROY, or had the time to. Context: any thread
 * @ctx: for @ended and @daemon.readable
 */
struct worker_config {
	struct device_config device;
	struct inproc_config daemon;
	struct service *service;
	int sock;
	int listen_fd;
	bool inband_notifications;
	uint32_t generation;
	void (*ended)(void *ctx);
	void *ctx;
};

/** worker_new() - begin to serve; starts threads, with all signals blocked. Return: 0; negative errno. */
int must_check worker_new(struct worker **ret_worker, const struct worker_config *config);
/** worker_service() - for inproc_read(), inproc_write() if there is a daemon; valid until worker_free(). */
struct service *worker_service(struct worker *worker);
/**
 * worker_end() - unmount: no front-end any more, what its session held is paid back, then DESTROY, then -ENODEV for who
 * reads. Only with a daemon, whose threads have to go on reading meanwhile. Context: any thread; does not wait.
 */
void worker_end(struct worker *worker);
/** worker_free() - stop at once and free; requests under way end with EIO. Context: no thread is inside the service's calls, nor enters them. NULL is allowed. */
void worker_free(struct worker *worker);
/** worker_loop() - the loop of the worker's thread, for watches of the owner's that are added before worker_run(). */
struct loop *worker_loop(struct worker *worker);
/** worker_run() - start the thread; after worker_new(). Return: 0 or negative errno. */
int must_check worker_run(struct worker *worker);

#endif
