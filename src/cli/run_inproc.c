/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire run, in-process: the daemon's process becomes the device's, and a keeper here stands between it and the front-end.
 *
 * Theory of operation
 * -------------------
 * Whether a daemon can be served so shows by itself: the library that is preloaded into it says HELLO through the channel
 * before INIT is answered. Then it gets ATTACH, with one end of a vhost-user connection whose other end is the keeper's
 * back-end. The keeper has the socket where front-ends connect, and goes on when the back-end dies: then its back-end is a
 * device of ours that answers everything with EIO, until the daemon was started anew.
 *
 * What a new daemon's device has to know of the driver's session is in the record, memory that all of them share with us.
 * The generation counts daemons, so that no number which a driver has from a dead one means anything to the next.
 */
#include "cli/run_inproc.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "keeper/keeper.h"
#include "launch/program.h"
#include "service/gone/gone.h"
#include "worker/attach.h"
#include "worker/worker.h"

/* How long a daemon may take to be gone after SIGKILL. */
#define KILL_MS	     5000
#define LIBRARY_NAME "libfusewire-preload.so"

struct run_inproc {
	struct serve *serve;
	const struct device_options *opts;
	void (*lost)(void *ctx);
	void *ctx;
	bool offered; /* atomic */
	bool served;
	uint32_t generation;
	int record_fd;
	struct loop_watch control;
	bool control_watched;
	struct keeper *keeper;
	struct worker *fallback; /* keeper's thread, until that is gone */
	pthread_mutex_t server_lock; /* of server_fd */
	int server_fd; /* pidfd of the daemon, or -1 */
};

/* A library with a sanitizer in it can only be loaded into a program that has the same one. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* What the keeper calls its back-ends. */
static char tag_daemon, tag_fallback;

int run_inproc_parse_mode(const char *text, enum run_inproc_mode *ret_mode)
{
	static const char *const names[] = { "auto", "always", "never" };

	for (unsigned int i = 0; i < array_size(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret_mode = (enum run_inproc_mode)i;
			return 0;
		}
	}
	cli_error("--in-process: '%s' is none of auto, always, never", text);
	return -EINVAL;
}

/* Beside us in a build folder, or where it was installed to. Return: 0 with the path, or negative errno. */
static int find_library(char *path, size_t cap)
{
	static const char *const places[] = { "/../../preload/" LIBRARY_NAME,
					      "/../" FUSEWIRE_LIBDIR "/fusewire/" LIBRARY_NAME };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return -errno;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return -ENOENT;
	*slash = '\0';
	for (unsigned int i = 0; i < array_size(places); i++) {
		char try[2 * PATH_MAX], real[PATH_MAX];

		snprintf(try, sizeof(try), "%s%s", self, places[i]);
		/* ld.so splits the list at blanks and colons. */
		if (realpath(try, real) && !strpbrk(real, " :") && strlen(real) < cap) {
			memcpy(path, real, strlen(real) + 1);
			return 0;
		}
	}
	return -ENOENT;
}

/* The daemon is started with our environment. */
static int set_environment(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char list[3 * PATH_MAX], pid[16];
	int n = snprintf(list, sizeof(list), "%s%s%s", library, before && *before ? ":" : "",
			 before ? before : "");

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (n < 0 || (size_t)n >= sizeof(list))
		return -E2BIG;
	return setenv("LD_PRELOAD", list, 1) < 0 || setenv(WORKER_ENV, pid, 1) < 0 ? -errno : 0;
}

static void unwatch_control(struct run_inproc *ri)
{
	if (ri->control_watched)
		loop_remove(serve_loop(ri->serve), &ri->control);
	ri->control_watched = false;
}

static void on_control(void *ctx, uint32_t events)
{
	struct run_inproc *ri = ctx;
	char byte;
	ssize_t n = recv(ri->control.fd, &byte, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* ENDED means that the daemon unmounted itself. */
	if (n <= 0) {
		unwatch_control(ri);
		ri->lost(ri->ctx);
	}
}

/* Of a script the interpreter is looked at; what that starts shows no earlier than when it fails. */
static const char *refuses_library(const char *command)
{
	struct program program;
	char interpreter[PATH_MAX];

	if (program_inspect(command, &program) < 0)
		return NULL;
	if (program.kind == PROGRAM_SCRIPT) {
		memcpy(interpreter, program.interpreter, sizeof(interpreter));
		if (program_inspect(interpreter, &program) < 0)
			return NULL;
	}
	return program_refuses_preload(&program);
}

int run_inproc_new(struct run_inproc **ret_inproc, enum run_inproc_mode mode, const char *command,
		   struct serve *serve, const struct device_options *opts, void (*lost)(void *ctx),
		   void *ctx)
{
	char library[PATH_MAX];
	struct run_inproc *ri;
	const char *why;
	int err;

	*ret_inproc = NULL;
	if (mode == RUN_INPROC_NEVER || (SANITIZED && mode == RUN_INPROC_AUTO))
		return 0;
	why = refuses_library(command);
	if (why && mode == RUN_INPROC_ALWAYS) {
		cli_error("--in-process always: %s cannot be served in-process: %s", command, why);
		return -EOPNOTSUPP;
	}
	if (why) {
		log_info("%s gets no library preloaded: %s", command, why);
		return 0;
	}
	err = find_library(library, sizeof(library));
	if (err && mode == RUN_INPROC_ALWAYS)
		cli_error("--in-process always: %s is not installed beside this program",
			  LIBRARY_NAME);
	if (err)
		return mode == RUN_INPROC_ALWAYS ? err : 0;
	ri = calloc(1, sizeof(*ri));
	err = ri ? set_environment(library) : -ENOMEM;
	if (!err)
		err = ri->record_fd =
			memfd_new("fusewire-session", sizeof(struct fuse_session_record));
	if (err < 0) {
		cli_error("cannot prepare to serve in-process: %s", strerror(-err));
		free(ri);
		return err;
	}
	ri->serve = serve;
	ri->opts = opts;
	ri->lost = lost;
	ri->ctx = ctx;
	ri->control.fd = -1;
	ri->server_fd = -1;
	pthread_mutex_init(&ri->server_lock, NULL);
	ri->control.fn = on_control;
	ri->control.ctx = ri;
	*ret_inproc = ri;
	return 0;
}

void run_inproc_stop(struct run_inproc *ri)
{
	if (!ri)
		return;
	keeper_free(ri->keeper);
	ri->keeper = NULL;
	worker_free(ri->fallback);
	ri->fallback = NULL;
	unwatch_control(ri);
}

void run_inproc_free(struct run_inproc *ri)
{
	if (!ri)
		return;
	close_fd(&ri->control.fd);
	close_fd(&ri->record_fd);
	close_fd(&ri->server_fd);
	pthread_mutex_destroy(&ri->server_lock);
	free(ri);
}

void run_inproc_begin(struct run_inproc *ri)
{
	if (ri)
		__atomic_store_n(&ri->offered, false, __ATOMIC_RELEASE);
}

void run_inproc_library(struct run_inproc *ri, const void *msg, size_t len)
{
	struct worker_hello hello;

	if (!ri || len != sizeof(hello))
		return;
	memcpy(&hello, msg, sizeof(hello));
	if (hello.version == WORKER_ATTACH_VERSION)
		__atomic_store_n(&ri->offered, true, __ATOMIC_RELEASE);
}

bool run_inproc_offered(const struct run_inproc *ri)
{
	return ri && __atomic_load_n(&ri->offered, __ATOMIC_ACQUIRE);
}

/* A device that hangs must be gone before another one gets its rings. */
static void kill_daemon(struct run_inproc *ri)
{
	struct pollfd p = { .events = POLLIN };

	pthread_mutex_lock(&ri->server_lock);
	p.fd = ri->server_fd;
	if (p.fd >= 0 && syscall(SYS_pidfd_send_signal, p.fd, SIGKILL, NULL, 0) == 0)
		log_error("the daemon's device does not answer: the daemon was killed");
	if (p.fd >= 0 && poll(&p, 1, KILL_MS) <= 0)
		log_warn("the daemon is not gone yet");
	pthread_mutex_unlock(&ri->server_lock);
}

/* Return: 0 or negative errno. */
static int set_fallback(struct run_inproc *ri)
{
	struct worker_config config = {
		.device = ri->opts->device,
		.service = gone_service(),
		.inband_notifications = ri->opts->inband_notifications,
		.listen_fd = -1,
	};
	int pair[2];
	int err = 0;

	/* The one before is not connected any more. */
	worker_free(ri->fallback);
	ri->fallback = NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	config.sock = pair[0];
	err = worker_new(&ri->fallback, &config);
	if (err < 0)
		close(pair[0]);
	else
		err = worker_run(ri->fallback);
	if (err < 0) {
		close(pair[1]);
		return err;
	}
	return keeper_set_backend(ri->keeper, pair[1], &tag_fallback);
}

/* The daemon died: what the driver asks gets EIO from us. Context: keeper's thread. */
static void on_backend_lost(void *ctx, void *tag, enum keeper_lost why)
{
	struct run_inproc *ri = ctx;
	int err;

	if (tag == &tag_daemon && why != KEEPER_LOST_GONE)
		kill_daemon(ri);
	err = set_fallback(ri);
	if (err < 0)
		log_error("cannot go on without the daemon: %s", strerror(-err));
}

/* Context: keeper's thread. */
static void on_backend_set(void *ctx, void *tag, int err)
{
	struct run_inproc *ri = ctx;

	if (err >= 0 || err == -ECANCELED)
		return;
	log_error("%s cannot take the driver's rings over: %s",
		  tag == &tag_daemon ? "the daemon's device" : "our device in its place",
		  strerror(-err));
	if (tag == &tag_daemon)
		kill_daemon(ri);
}

static void fill_attach(const struct run_inproc *ri, const struct service *channel,
			const struct channel_limits *limits, struct worker_attach *a)
{
	const struct device_config *device = &ri->opts->device;

	*a = (struct worker_attach){
		.hdr = { .len = sizeof(*a),
			 .opcode = WORKER_OPCODE_ATTACH,
			 .unique = WORKER_UNIQUE },
		.version = WORKER_ATTACH_VERSION,
		.log_level = ri->opts->log_level,
		.nr_request_queues = device->nr_request_queues,
		.queue_size_max = device->queue_size_max,
		.poll_ns = device->poll_ns,
		.drain_ns = device->drain_ns,
		.arch = device->arch,
		.page_bytes = device->page_bytes,
		.max_read = limits->max_read,
		.read_only = limits->read_only,
		.inband_notifications = ri->opts->inband_notifications,
		.generation = ri->generation,
		.init_out = channel->init_out,
	};
	snprintf(a->tag, sizeof(a->tag), "%s", device->tag);
}

/* Give the daemon its ends. Return: 0 with our end of the vhost-user connection, or negative errno. */
static int attach(struct run_inproc *ri, struct service *channel,
		  const struct channel_limits *limits, int *ret_sock)
{
	autoclose int vhost_ours = -1, vhost_theirs = -1, control_ours = -1, control_theirs = -1;
	struct worker_attach a;
	int pair[2], fds[WORKER_NR_FDS - 1], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	vhost_ours = pair[0];
	vhost_theirs = pair[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	control_ours = pair[0];
	control_theirs = pair[1];
	fill_attach(ri, channel, limits, &a);
	fds[WORKER_FD_VHOST] = vhost_theirs;
	fds[WORKER_FD_RECORD] = ri->record_fd;
	fds[WORKER_FD_CONTROL] = control_theirs;
	err = channel_hand_over(channel, &a, sizeof(a), fds, array_size(fds));
	if (err < 0)
		return err;
	unwatch_control(ri);
	close_fd(&ri->control.fd);
	ri->control.fd = TAKE_FD(control_ours);
	err = loop_add(serve_loop(ri->serve), &ri->control, EPOLLIN);
	ri->control_watched = err == 0;
	if (err == 0)
		*ret_sock = TAKE_FD(vhost_ours);
	return err;
}

static int begin_to_serve(struct run_inproc *ri)
{
	const struct keeper_config config = {
		.listen_fd = serve_listen_fd(ri->serve),
		.inband_notifications = ri->opts->inband_notifications,
		.on_backend_lost = on_backend_lost,
		.on_backend_set = on_backend_set,
		.ctx = ri,
	};

	return keeper_new(&ri->keeper, &config);
}

int run_inproc_take_over(struct run_inproc *ri, struct service *channel,
			 const struct channel_limits *limits, pid_t server)
{
	int sock = -1;
	int err = ri->keeper ? 0 : begin_to_serve(ri);

	pthread_mutex_lock(&ri->server_lock);
	close_fd(&ri->server_fd);
	ri->server_fd = server > 0 ? (int)syscall(SYS_pidfd_open, server, 0) : -1;
	pthread_mutex_unlock(&ri->server_lock);
	if (err == 0)
		err = attach(ri, channel, limits, &sock);
	if (err == 0)
		err = keeper_set_backend(ri->keeper, sock, &tag_daemon);
	if (err < 0) {
		cli_error("cannot serve in-process: %s", strerror(-err));
		return err;
	}
	ri->generation++;
	log_info("served in-process, by the daemon's own threads");
	if (!ri->served)
		serve_announce(ri->serve);
	ri->served = true;
	return 0;
}

void run_inproc_end(struct run_inproc *ri, uint64_t timeout_ns)
{
	struct pollfd p = { .fd = ri->control.fd, .events = POLLIN };
	char byte = WORKER_CONTROL_END;

	if (p.fd < 0 || send(p.fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
	/* Its answer, or its end. */
	if (poll(&p, 1, (int)min_of(timeout_ns / NSEC_PER_MSEC, (uint64_t)INT_MAX)) == 0)
		log_warn("the daemon does not answer DESTROY");
}
