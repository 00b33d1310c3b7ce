/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device side of vhost-user: serves one device to one front-end at a time on a listening socket.
 */
#ifndef FUSEWIRE_VHOST_SERVER_H
#define FUSEWIRE_VHOST_SERVER_H

#include "base/loop.h"
#include "device/transport.h"

struct vhost_server;

/**
 * struct vhost_server_config - how to serve.
 * @loop: control loop of the thread that owns the device; everything runs on it
 * @listen_fd: a listening AF_UNIX stream socket; stays the caller's
 * @dev: the device to show
 * @inband_notifications: offer INBAND_NOTIFICATIONS (User-mode Linux; never offer it to QEMU)
 */
struct vhost_server_config {
	struct loop *loop;
	int listen_fd;
	struct device *dev;
	bool inband_notifications;
};

/**
 * vhost_server_new() - begin to accept front-ends.
 *
 * The device is attached while a front-end is connected. A second front-end is accepted and closed at once,
 * unless the first has hung up. Makes @config->listen_fd non-blocking, and ignores SIGPIPE if it has its default
 * disposition (call descriptors may be pipes): who executes programs sets it back for them.
 *
 * Return: 0 or negative errno, with *@ret_server untouched.
 */
int must_check vhost_server_new(struct vhost_server **ret_server,
				const struct vhost_server_config *config);
/** vhost_server_free() - close the connection, if any, and stop accepting. NULL is allowed. */
void vhost_server_free(struct vhost_server *server);

#endif
