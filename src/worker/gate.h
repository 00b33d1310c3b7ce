/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker that begins when the daemon has answered INIT: for daemons that nobody launched.
 */
#ifndef FUSEWIRE_WORKER_GATE_H
#define FUSEWIRE_WORKER_GATE_H

#include "worker/worker.h"

struct gate;

/** gate_new() - nothing is served yet. @config: copied; @daemon.init_out is filled in later. Return: 0 or -ENOMEM. */
int must_check gate_new(struct gate **ret_gate, const struct worker_config *config);
/** gate_free() - as worker_free(). NULL is allowed. */
void gate_free(struct gate *gate);
/** gate_set_mount() - what the daemon's mount(2) said (struct inproc_config). Context: before INIT is answered. */
void gate_set_mount(struct gate *gate, uint32_t max_read, bool read_only);

/**
 * gate_read() - as inproc_read(); the first message is INIT.
 *
 * Until that is answered others get -EINTR now and then. Return: as inproc_read(); -ENODEV after INIT failed.
 */
ssize_t gate_read(struct gate *gate, const struct iovec *iov, unsigned int nr, bool nonblock);
/** gate_write() - as inproc_write(); the answer to INIT starts the worker. */
ssize_t gate_write(struct gate *gate, const struct iovec *iov, unsigned int nr);
/** gate_write_pipe() - as inproc_write_pipe(), and gate_write(). */
ssize_t gate_write_pipe(struct gate *gate, int pipe_fd, size_t len);
/** gate_worker() - NULL until INIT is answered. */
struct worker *gate_worker(struct gate *gate);

#endif
