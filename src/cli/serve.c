/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every serving subcommand does: control loop, signals, socket, device, vhost-user, readiness.
 */
#include "cli/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "vhost/listen.h"
#include "vhost/server.h"

struct serve {
	const struct device_options *opts;
	struct loop *loop;
	struct loop_watch signals;
	void (*on_signal)(void *ctx, int signo);
	void *on_signal_ctx;
	struct vhost_listener listener;
	struct device *dev;
	struct vhost_server *server;
	int status;
};

static void serve_signal(void *ctx, uint32_t events)
{
	struct serve *s = ctx;
	struct signalfd_siginfo info;

	if (read(s->signals.fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (s->on_signal)
		s->on_signal(s->on_signal_ctx, (int)info.ssi_signo);
	else
		serve_end(s, CLI_OK);
}

static int serve_take_signals(struct serve *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	s->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals.fd < 0)
		return -errno;
	s->signals.fn = serve_signal;
	s->signals.ctx = s;
	return loop_add(s->loop, &s->signals, EPOLLIN);
}

int serve_new(struct serve **ret_serve, const struct device_options *opts)
{
	struct serve *s = calloc(1, sizeof(*s));
	int err;

	if (!s) {
		cli_error("no memory");
		return -ENOMEM;
	}
	log_set_level(opts->log_level);
	/* Before the first line of the log: its reader may be gone, and the socket's file must not stay. */
	fd_ignore_sigpipe();
	s->opts = opts;
	s->signals.fd = -1;
	s->listener.fd = -1;
	err = loop_new(&s->loop);
	if (err == 0)
		err = serve_take_signals(s);
	if (err < 0) {
		cli_error("cannot set up the control loop: %s", strerror(-err));
		serve_free(s);
		return err;
	}
	*ret_serve = s;
	return 0;
}

void serve_free(struct serve *s)
{
	if (!s)
		return;
	vhost_server_free(s->server);
	/* The path goes first: nobody new connects while the session is paid back. */
	vhost_listen_close(&s->listener);
	device_free(s->dev);
	if (s->signals.fd >= 0)
		loop_remove(s->loop, &s->signals);
	close_fd(&s->signals.fd);
	loop_free(s->loop);
	free(s);
}

struct loop *serve_loop(struct serve *s)
{
	return s->loop;
}

struct device *serve_device(struct serve *s)
{
	return s->dev;
}

void serve_on_signal(struct serve *s, void (*fn)(void *ctx, int signo), void *ctx)
{
	s->on_signal = fn;
	s->on_signal_ctx = ctx;
}

int serve_listen(struct serve *s)
{
	char text[VHOST_LISTEN_TEXT];
	int err;

	if (!s->opts->socket_path)
		return 0;
	err = vhost_listen_open(&s->listener, s->opts->socket_path, VHOST_LISTEN_NO_GROUP, text);
	if (err < 0)
		cli_error("%s", text);
	return err;
}

/* systemd's readiness protocol: one datagram to the socket that $NOTIFY_SOCKET names. */
static void notify_systemd(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	autoclose int sock = -1;
	size_t len;

	if (!path || (path[0] != '/' && path[0] != '@'))
		return;
	len = strlen(path);
	if (len >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || sendto(sock, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&addr,
			       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_warn("cannot tell NOTIFY_SOCKET %s that we are ready: %s", path,
			 strerror(errno));
}

void serve_notify_ready(int fd)
{
	static const char ready[] = "READY=1\n";

	if (fd >= 0 && write(fd, ready, sizeof(ready) - 1) < 0)
		log_warn("cannot write to --ready-fd %d: %s", fd, strerror(errno));
	if (fd >= 0)
		close(fd);
	notify_systemd();
}

int serve_listen_fd(const struct serve *s)
{
	return s->opts->socket_path ? s->listener.fd : s->opts->listen_fd;
}

void serve_announce(struct serve *s)
{
	log_info("serving tag '%s' on %s", s->opts->device.tag,
		 s->opts->socket_path ? s->opts->socket_path : "the given descriptor");
	serve_notify_ready(s->opts->ready_fd);
}

int serve_start(struct serve *s, struct service *svc)
{
	struct vhost_server_config config = {
		.loop = s->loop,
		.listen_fd = serve_listen_fd(s),
		.inband_notifications = s->opts->inband_notifications,
	};
	int err = device_new(&s->dev, &s->opts->device, svc);

	if (err < 0) {
		cli_error("cannot make the device: %s", strerror(-err));
		return err;
	}
	config.dev = s->dev;
	err = vhost_server_new(&s->server, &config);
	if (err < 0) {
		cli_error("cannot serve on the socket: %s", strerror(-err));
		return err;
	}
	serve_announce(s);
	return 0;
}

int serve_run(struct serve *s)
{
	int err = loop_run(s->loop);

	if (err < 0) {
		cli_error("control loop: %s", strerror(-err));
		return CLI_FAILED;
	}
	return s->status;
}

void serve_end(struct serve *s, int status)
{
	s->status = status;
	loop_stop(s->loop);
}
