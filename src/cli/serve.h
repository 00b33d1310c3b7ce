/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every serving subcommand does: control loop, signals, socket, device, vhost-user, readiness.
 */
#ifndef FUSEWIRE_CLI_SERVE_H
#define FUSEWIRE_CLI_SERVE_H

#include "base/loop.h"
#include "cli/device_options.h"

struct serve;

/**
 * serve_new() - take over SIGTERM, SIGINT and SIGHUP (blocked in all later threads) and make the control loop.
 * @opts: checked; must stay valid
 *
 * Call before any thread or child is made. Children inherit the blocked signals: unblock them before exec.
 * Return: 0, or negative errno after an error message.
 */
int must_check serve_new(struct serve **ret_serve, const struct device_options *opts);
/** serve_free() - end the device, close and remove the socket. NULL is allowed. */
void serve_free(struct serve *serve);

/** serve_loop() - the control loop, for further watches and timers. */
struct loop *serve_loop(struct serve *serve);
/** serve_device() - the device; NULL before serve_start(). */
struct device *serve_device(struct serve *serve);

/**
 * serve_on_signal() - call @fn in the loop when a terminating signal arrives, instead of ending the loop with status 0.
 */
void serve_on_signal(struct serve *serve, void (*fn)(void *ctx, int signo), void *ctx);

/**
 * serve_listen() - make the socket; nothing answers there before serve_start().
 *
 * Early, so that a path that cannot be had is known before a daemon is started.
 * Return: 0, or negative errno after an error message.
 */
int must_check serve_listen(struct serve *serve);

/**
 * serve_start() - make the device in front of @svc, serve it on the socket, tell --ready-fd and NOTIFY_SOCKET.
 *
 * Return: 0, or negative errno after an error message.
 */
int must_check serve_start(struct serve *serve, struct service *svc);

/** serve_listen_fd() - the listening socket, of serve_listen() or the user's. */
int serve_listen_fd(const struct serve *serve);
/** serve_announce() - it is served: say so in the log, to --ready-fd and NOTIFY_SOCKET. serve_start() does it itself. */
void serve_announce(struct serve *serve);

/**
 * serve_notify_ready() - tell whoever started us that we are ready: a line to @fd, and systemd's NOTIFY_SOCKET.
 * @fd: of --ready-fd, closed here; -1 for none
 */
void serve_notify_ready(int fd);

/** serve_run() - run the control loop until serve_end(). Return: its status. */
int serve_run(struct serve *serve);
/** serve_end() - make serve_run() return @status. Context: loop thread. */
void serve_end(struct serve *serve, int status);

#endif
