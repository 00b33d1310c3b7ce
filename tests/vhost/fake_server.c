/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Serves the fake device on a socket, for the Python peers: fake_server SOCKET [inband|-] [queues] [queue-size-max].
 * What the server does with the device goes to stdout, a call a line.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_device.h"
#include "base/log.h"
#include "vhost/listen.h"
#include "vhost/server.h"

static struct loop *loop;

static void stop(int sig)
{
	loop_stop(loop);
}

int main(int argc, char **argv)
{
	struct vhost_listener listener = { .fd = -1 };
	struct vhost_server *server = NULL;
	char text[VHOST_LISTEN_TEXT];
	static struct device dev;
	int err;

	if (argc < 2)
		return 2;
	log_init(LOG_LEVEL_DEBUG, "fake_server");
	fake_device_init(&dev);
	dev.record = STDOUT_FILENO;
	dev.advance = 7;
	if (argc > 3)
		dev.nr_queues = (unsigned int)strtoul(argv[3], NULL, 10);
	if (argc > 4)
		dev.queue_size_max = (uint32_t)strtoul(argv[4], NULL, 10);
	if (loop_new(&loop) < 0)
		return 1;
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = stop }, NULL);
	/* Last: who sees the socket counts our descriptors, and may send the signal. */
	err = vhost_listen_open(&listener, argv[1], VHOST_LISTEN_NO_GROUP, text);
	if (err < 0) {
		fprintf(stderr, "%s\n", text);
		return 1;
	}
	err = vhost_server_new(&server, &(struct vhost_server_config){
						.loop = loop,
						.listen_fd = listener.fd,
						.dev = &dev,
						.inband_notifications =
							argc > 2 && !strcmp(argv[2], "inband"),
					});
	if (err == 0)
		err = loop_run(loop);
	vhost_server_free(server);
	vhost_listen_close(&listener);
	loop_free(loop);
	return err < 0;
}
