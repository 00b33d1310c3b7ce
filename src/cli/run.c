/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire run: serve the FUSE file system that a command would mount.
 *
 * Theory of operation
 * -------------------
 * Three things come and go on their own: the command's processes (launch/), the message socket to the daemon
 * (service/channel) and the device. The first two report from threads of their own; a report sets a bit and
 * wakes the control loop, which does everything else.
 *
 *	start:  launch -> mounted -> INIT answered -> device made, socket served
 *	death:  socket lost -> processes gone -> end, or start again after a pause (--restart)
 *	        or unmounted from its side -> still there after a while -> stop
 *	stop:   SIGTERM -> device freed (handles and lookups paid back) -> DESTROY -> the daemon is told that it was
 *	        unmounted -> processes gone -> end
 *
 * Each wait of the stop is bounded; what does not end by then is ended by signals, and only what the command
 * started.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/run_inproc.h"
#include "cli/run_mount.h"
#include "cli/serve.h"
#include "launch/launch.h"
#include "service/channel/channel.h"

#define RUN_PAUSE_MIN_NS (100 * NSEC_PER_MSEC)
#define RUN_PAUSE_MAX_NS (30 * NSEC_PER_SEC)
/* A daemon that lived so long was well: the next pause is short again. */
#define RUN_LIVED_NS (10 * NSEC_PER_SEC)
/*
 * --stop-timeout, all in all. What a daemon does at its end may be long (it uploads what it holds): its answer to DESTROY has at
 * most a third, and all that is left is its own. SIGTERM ends many daemons at once, and comes late: in the last third of what is
 * left, and not earlier than RUN_TERM_NS before SIGKILL.
 */
#define RUN_STOP_SECONDS 90
#define RUN_STOP_PARTS	 3
#define RUN_TERM_NS	 (10 * NSEC_PER_SEC)
/* A daemon that unmounts at its own end closes its device first: who still holds it then was unmounted by somebody. */
#define RUN_UNMOUNTED_NS (500 * NSEC_PER_MSEC)
/* What a daemon may take after SIGTERM until its socket is closed under it. */
#define RUN_TERMINATE_NS (2 * NSEC_PER_SEC)

enum run_event {
	RUN_READY = 1,
	RUN_STOPPED = 2,
	RUN_LOST = 4,
	RUN_EXITED = 8,
	RUN_UNMOUNTED = 16,
};

enum run_option {
	RUN_OPTION_RESTART = DEVICE_OPTION_END,
	RUN_OPTION_STOP_TIMEOUT,
	RUN_OPTION_PLACEHOLDER,
	RUN_OPTION_IN_PROCESS,
	RUN_OPTION_HELP,
};

/*
 * @stop_ns: how long stopping may take
 * @kill_ns: while stopping: when that is over, on clock_now_ns()
 * @events: bits of enum run_event, set by other threads
 * @attached: a socket was handed to the channel and not reported lost
 * @inproc: NULL where nothing is served in-process
 * @limits: of the daemon's mount; set before it is attached
 * @by_library: daemons are served from their own process, or not at all
 * @in_daemon: this one is
 * @status: exit status when the command ended; as a shell has it
 */
struct run {
	const struct device_options *opts;
	char **command;
	bool restart;
	enum launch_placeholder placeholder;
	enum run_inproc_mode in_process;
	uint64_t stop_ns;
	uint64_t kill_ns;
	struct serve *serve;
	struct service *svc;
	struct launch *launch;
	struct run_inproc *inproc;
	struct channel_limits limits;
	struct log_ratelimit second_mounts;
	struct loop_watch watch;
	struct loop_timer timer;
	unsigned int events;
	bool attached;
	pid_t server;
	int exit_status;

	bool ready;
	bool served;
	bool by_library;
	bool in_daemon;
	bool stopping;
	bool exited;
	uint64_t ready_ns;
	uint64_t pause_ns;
	int status;
};

static const struct option run_options[] = {
	DEVICE_OPTIONS_LONG,
	{ "restart", no_argument, NULL, RUN_OPTION_RESTART },
	{ "stop-timeout", required_argument, NULL, RUN_OPTION_STOP_TIMEOUT },
	{ "placeholder", required_argument, NULL, RUN_OPTION_PLACEHOLDER },
	{ "in-process", required_argument, NULL, RUN_OPTION_IN_PROCESS },
	{ "help", no_argument, NULL, RUN_OPTION_HELP },
	{},
};

static void run_help(void)
{
	printf("Usage: fusewire run --socket PATH --tag TAG [OPTION...] -- COMMAND [ARG...]\n\n"
	       "Serves the FUSE file system that COMMAND would mount. The mount point named there\n"
	       "is not touched. Ends with the daemon and its exit status; SIGTERM unmounts.\n\n"
	       "  --restart              start COMMAND anew when the daemon dies\n"
	       "  --stop-timeout N       kill the daemon N s after SIGTERM to us (default 90)\n"
	       "  --placeholder WHEN     auto, always or never: let COMMAND find a file system on "
	       "its\n"
	       "                         mount point, in mounts of its own (default auto)\n"
	       "  --in-process WHEN      auto, always or never: serve COMMAND from within its own "
	       "process\n"
	       "                         (default auto: where that works)\n"
	       "  --help                 this text\n\n" DEVICE_OPTIONS_HELP);
}

/* From any thread. */
static void run_report(struct run *r, enum run_event event)
{
	__atomic_fetch_or(&r->events, (unsigned int)event, __ATOMIC_ACQ_REL);
	fd_signal(r->watch.fd);
}

static void on_ready(void *ctx, pid_t server)
{
	struct run *r = ctx;

	__atomic_store_n(&r->server, server, __ATOMIC_RELAXED);
	run_report(r, RUN_READY);
}

static void on_stopped(void *ctx)
{
	run_report(ctx, RUN_STOPPED);
}

static void on_lost(void *ctx, const char *why)
{
	struct run *r = ctx;

	if (why)
		cli_error("the daemon's answer to INIT cannot be accepted: %s", why);
	__atomic_store_n(&r->attached, false, __ATOMIC_RELEASE);
	run_report(r, RUN_LOST);
}

static void on_library(void *ctx, const void *msg, size_t len)
{
	struct run *r = ctx;

	run_inproc_library(r->inproc, msg, len);
}

static int on_mounted(void *ctx, const struct launch_mount *mnt, int fd)
{
	const struct channel_limits limits = {
		.max_read = mnt->max_read,
		.read_only = mnt->read_only,
	};
	struct run *r = ctx;
	int err;

	if (!__atomic_load_n(&r->attached, __ATOMIC_ACQUIRE))
		r->limits = limits;
	__atomic_store_n(&r->attached, true, __ATOMIC_RELEASE);
	err = channel_attach(r->svc, fd, &limits);
	if (err == -EBUSY) {
		log_warn_ratelimited(
			&r->second_mounts,
			"the command mounts a second file system on %s: only the first is served",
			mnt->target);
	} else if (err) {
		__atomic_store_n(&r->attached, false, __ATOMIC_RELEASE);
		cli_error("cannot talk to the daemon: %s", strerror(-err));
	} else {
		run_mount_tell(mnt);
	}
	return err;
}

static void on_unmounted(void *ctx)
{
	log_debug("the file system was unmounted from the daemon's side");
	run_report(ctx, RUN_UNMOUNTED);
}

static void on_exited(void *ctx, int status)
{
	struct run *r = ctx;

	__atomic_store_n(&r->exit_status, status, __ATOMIC_RELAXED);
	run_report(r, RUN_EXITED);
}

static int run_launch(struct run *r)
{
	static const struct launch_events events = { on_mounted, on_unmounted, on_exited };
	const char *why;
	int err;

	r->ready = false;
	r->in_daemon = false;
	r->exited = false;
	run_inproc_begin(r->inproc);
	err = launch_start(&r->launch, r->command, r->placeholder, &events, r, &why);
	if (err)
		cli_error("%s: %s: %s", r->command[0], why, strerror(-err));
	return err;
}

static void run_again(void *ctx);

static void run_pause(struct run *r)
{
	if (r->ready && clock_now_ns() - r->ready_ns >= RUN_LIVED_NS)
		r->pause_ns = 0;
	r->pause_ns = min_of(max_of(r->pause_ns * 2, RUN_PAUSE_MIN_NS), RUN_PAUSE_MAX_NS);
	log_warn("starting %s again in %llu ms", r->command[0],
		 (unsigned long long)(r->pause_ns / NSEC_PER_MSEC));
	r->timer.fn = run_again;
	r->timer.ctx = r;
	loop_timer_arm(serve_loop(r->serve), &r->timer, r->pause_ns);
}

static void run_again(void *ctx)
{
	struct run *r = ctx;

	/* A package that is being upgraded is whole again a little later. */
	if (run_launch(r) < 0)
		run_pause(r);
}

static void run_describe_end(const struct run *r, int wait_status)
{
	if (WIFSIGNALED(wait_status))
		log_error("%s: ended by signal %d (%s)", r->command[0], WTERMSIG(wait_status),
			  strsignal(WTERMSIG(wait_status)));
	else if (!r->ready)
		log_error("%s: ended with status %d before its file system was there",
			  r->command[0], WEXITSTATUS(wait_status));
	else
		log_info("%s: ended with status %d", r->command[0], WEXITSTATUS(wait_status));
}

/* The processes are gone and so is the socket. */
static void run_command_ended(struct run *r)
{
	int st = __atomic_load_n(&r->exit_status, __ATOMIC_RELAXED);

	if (!r->stopping)
		run_describe_end(r, st);
	launch_free(r->launch);
	r->launch = NULL;
	r->status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
	if (!r->status && !r->ready && !r->stopping)
		r->status = CLI_FAILED;
	if (r->stopping)
		return;
	if (r->restart && r->served)
		run_pause(r);
	else
		serve_end(r->serve, r->status);
}

static int run_serve_in_daemon(struct run *r)
{
	int err;

	if (!run_inproc_offered(r->inproc)) {
		cli_error("%s was served in-process before, and cannot be any more", r->command[0]);
		return -EOPNOTSUPP;
	}
	err = run_inproc_take_over(r->inproc, r->svc, &r->limits,
				   __atomic_load_n(&r->server, __ATOMIC_RELAXED));
	if (err)
		return err;
	r->by_library = true;
	r->in_daemon = true;
	r->served = true;
	return 0;
}

static int run_serve(struct run *r)
{
	int err;

	r->ready = true;
	r->ready_ns = clock_now_ns();
	launch_set_server(r->launch, __atomic_load_n(&r->server, __ATOMIC_RELAXED));
	if (r->served)
		log_info("the daemon is there again");
	if (r->by_library || (!r->served && run_inproc_offered(r->inproc)))
		return run_serve_in_daemon(r);
	if (r->served)
		return 0;
	if (r->in_process == RUN_INPROC_ALWAYS) {
		cli_error(
			"--in-process always: %s cannot be served in-process: it is linked "
			"statically or "
			"set-user-ID, or makes its system calls itself (Go)",
			r->command[0]);
		return -EOPNOTSUPP;
	}
	log_info("served through a channel, from outside the daemon's process");
	err = serve_start(r->serve, r->svc);
	if (err)
		return err;
	r->served = true;
	channel_set_device(r->svc, serve_device(r->serve));
	return 0;
}

/* All shall be gone in @left_ns. */
static void run_finish(struct run *r, uint64_t left_ns, bool terminate)
{
	uint64_t term_ns = min_of(left_ns / RUN_STOP_PARTS, RUN_TERM_NS);

	launch_finish(r->launch, left_ns - term_ns, term_ns, terminate);
}

/* The daemon answered INIT. When it cannot be served, it ends; that it has ended is why, most of the time. */
static void run_ready(struct run *r)
{
	int err = run_serve(r);

	if (err >= 0)
		return;
	if ((r->restart && r->served) || err == -ENOTCONN || err == -EPIPE || err == -ECONNRESET) {
		r->ready = false;
		run_finish(r, r->stop_ns, true);
	} else {
		serve_end(r->serve, CLI_FAILED);
	}
}

static void run_set_stopping(struct run *r)
{
	if (!r->stopping)
		r->kill_ns = clock_now_ns() + r->stop_ns;
	r->stopping = true;
}

static void run_stop(struct run *r)
{
	run_set_stopping(r);
	serve_end(r->serve, CLI_OK);
}

static void run_unmounted(void *ctx)
{
	struct run *r = ctx;

	if (r->stopping || !r->launch || !__atomic_load_n(&r->attached, __ATOMIC_ACQUIRE))
		return;
	log_info("the file system was unmounted from the daemon's side: stopping");
	run_stop(r);
}

static void run_handle(struct run *r, unsigned int events)
{
	bool attached;

	if ((events & RUN_READY) && !r->stopping && r->launch)
		run_ready(r);
	if ((events & RUN_LOST) && r->launch) {
		if (!r->stopping && r->ready)
			log_error(
				"the daemon closed its end: requests fail until it is there again");
		/* A stop sees to it by itself, with the time that it has left. */
		if (!r->stopping)
			run_finish(r, r->stop_ns, false);
	}
	if ((events & RUN_UNMOUNTED) && !r->stopping && r->ready) {
		r->timer.fn = run_unmounted;
		r->timer.ctx = r;
		loop_timer_arm(serve_loop(r->serve), &r->timer, RUN_UNMOUNTED_NS);
	}
	r->exited = r->exited || (events & RUN_EXITED);
	attached = __atomic_load_n(&r->attached, __ATOMIC_ACQUIRE);
	if (r->exited && attached)
		/* A process that is not ours to reap holds the other end, or the report is on its way. */
		channel_close(r->svc);
	if (r->exited && !attached && r->launch)
		run_command_ended(r);
}

static void run_wake(void *ctx, uint32_t unused)
{
	struct run *r = ctx;

	if (fd_drain_signal(r->watch.fd) < 0)
		return;
	run_handle(r, __atomic_exchange_n(&r->events, 0, __ATOMIC_ACQ_REL));
}

static void run_signal(void *ctx, int signo)
{
	struct run *r = ctx;

	log_info("%s: stopping", strsignal(signo));
	run_stop(r);
}

/* Without the control loop. Return: true when one of @events came within @ns. */
static bool run_await(struct run *r, unsigned int events, uint64_t ns)
{
	uint64_t end_ns = clock_now_ns() + ns, now_ns;

	while (r->launch && (now_ns = clock_now_ns()) < end_ns) {
		struct pollfd p = { .fd = r->watch.fd, .events = POLLIN };
		unsigned int got;

		if (poll(&p, 1, (int)((end_ns - now_ns) / NSEC_PER_MSEC + 1)) <= 0)
			continue;
		if (fd_drain_signal(r->watch.fd) < 0)
			break;
		got = __atomic_exchange_n(&r->events, 0, __ATOMIC_ACQ_REL);
		run_handle(r, got);
		if (got & events)
			return true;
	}
	return !r->launch;
}

/* End the daemon as an unmount would, or by SIGTERM, and wait until nothing is left. */
static void run_shutdown(struct run *r)
{
	uint64_t part_ns = r->stop_ns / RUN_STOP_PARTS, now_ns;
	bool unmounted = r->in_daemon;

	run_set_stopping(r);
	if (!r->launch)
		return;
	if (r->in_daemon)
		run_inproc_end(r->inproc, part_ns);
	else if (channel_stop(r->svc) == 0 &&
		 !run_await(r, RUN_STOPPED | RUN_LOST | RUN_EXITED, part_ns))
		log_warn("the daemon does not answer DESTROY");
	if (r->launch && !r->in_daemon && __atomic_load_n(&r->attached, __ATOMIC_ACQUIRE))
		unmounted = launch_unmount(r->launch) == 0;
	now_ns = clock_now_ns();
	if (r->launch)
		run_finish(r, max_of(r->kill_ns, now_ns + NSEC_PER_SEC) - now_ns, !unmounted);
	run_await(r, RUN_LOST | RUN_EXITED, RUN_TERMINATE_NS);
	channel_close(r->svc);
	/* The launch ends what is left, and says so in any case. */
	while (r->launch)
		run_await(r, RUN_EXITED, r->stop_ns);
}

static int run_prepare(struct run *r)
{
	struct channel_config config = {
		.events = { .ready = on_ready,
			    .stopped = on_stopped,
			    .lost = on_lost,
			    .library = on_library },
		.ctx = r,
		.poll_ns = 0,
	};
	int err;

	/* What we were given for ourselves is not the daemon's. */
	if (r->opts->ready_fd >= 0 && fcntl(r->opts->ready_fd, F_SETFD, FD_CLOEXEC) < 0) {
		cli_error("--ready-fd %d: %s", r->opts->ready_fd, strerror(errno));
		return -EBADF;
	}
	if (r->opts->listen_fd >= 0 && fcntl(r->opts->listen_fd, F_SETFD, FD_CLOEXEC) < 0) {
		cli_error("--fd %d: %s", r->opts->listen_fd, strerror(errno));
		return -EBADF;
	}
	err = launch_prepare();
	if (!err) {
		r->watch.fd = err = eventfd_new();
		err = min_of(err, 0);
	}
	if (!err)
		err = channel_new(&r->svc, &config);
	if (err)
		cli_error("cannot prepare: %s", strerror(-err));
	return err;
}

/* The library in the daemon's process could not serve, or the daemon has died. */
static void on_inproc_lost(void *ctx)
{
	struct run *r = ctx;

	if (r->launch && !r->stopping)
		run_finish(r, r->stop_ns, true);
}

static int run_main(struct run *r)
{
	int err = serve_new(&r->serve, r->opts);

	if (err < 0)
		return CLI_FAILED;
	err = run_prepare(r);
	if (err < 0)
		return CLI_FAILED;
	r->watch.fn = run_wake;
	r->watch.ctx = r;
	serve_on_signal(r->serve, run_signal, r);
	if (run_inproc_new(&r->inproc, r->in_process, r->command[0], r->serve, r->opts,
			   on_inproc_lost, r) < 0)
		return CLI_FAILED;
	if (serve_listen(r->serve) < 0 || loop_add(serve_loop(r->serve), &r->watch, EPOLLIN) < 0)
		return CLI_FAILED;
	if (run_launch(r) < 0)
		return CLI_FAILED;
	return serve_run(r->serve);
}

static int run_start(struct run *r)
{
	int status = run_main(r);

	if (r->svc)
		channel_set_device(r->svc, NULL);
	if (r->serve && r->watch.fn) {
		loop_timer_cancel(serve_loop(r->serve), &r->timer);
		loop_remove(serve_loop(r->serve), &r->watch);
	}
	run_inproc_stop(r->inproc);
	/* The session is paid back while the daemon is there; then the daemon goes. */
	serve_free(r->serve);
	r->serve = NULL;
	if (r->svc && r->launch) {
		run_shutdown(r);
		if (!status)
			status = r->status;
	}
	run_inproc_free(r->inproc);
	if (r->svc)
		r->svc->ops->free(r->svc);
	close_fd(&r->watch.fd);
	return status;
}

static int run_parse_placeholder(const char *text, enum launch_placeholder *ret_placeholder)
{
	if (!strcmp(text, "auto")) {
		*ret_placeholder = LAUNCH_PLACEHOLDER_AUTO;
	} else if (!strcmp(text, "always")) {
		*ret_placeholder = LAUNCH_PLACEHOLDER_ALWAYS;
	} else if (!strcmp(text, "never")) {
		*ret_placeholder = LAUNCH_PLACEHOLDER_NEVER;
	} else {
		cli_error("--placeholder: '%s' is none of auto, always, never", text);
		return -EINVAL;
	}
	return 0;
}

int cli_run(int argc, char **argv)
{
	struct device_options opts;
	struct run r = { .opts = &opts, .watch.fd = -1 };
	uint64_t seconds = RUN_STOP_SECONDS;
	int option;

	device_options_init(&opts);
	while ((option = getopt_long(argc, argv, "+", run_options, NULL)) != -1) {
		int taken = device_options_parse(&opts, option, optarg);

		if (taken < 0)
			return CLI_USAGE;
		if (taken)
			continue;
		switch (option) {
		case RUN_OPTION_RESTART:
			r.restart = true;
			break;
		case RUN_OPTION_STOP_TIMEOUT:
			if (cli_parse_u64("stop-timeout", optarg, 1, 86400, &seconds) < 0)
				return CLI_USAGE;
			break;
		case RUN_OPTION_PLACEHOLDER:
			if (run_parse_placeholder(optarg, &r.placeholder) < 0)
				return CLI_USAGE;
			break;
		case RUN_OPTION_IN_PROCESS:
			if (run_inproc_parse_mode(optarg, &r.in_process) < 0)
				return CLI_USAGE;
			break;
		case RUN_OPTION_HELP:
			run_help();
			return CLI_OK;
		default:
			return CLI_USAGE;
		}
	}
	if (optind >= argc) {
		cli_error("what to run? Put the daemon's command line behind --");
		return CLI_USAGE;
	}
	if (device_options_check(&opts, NULL) < 0)
		return CLI_USAGE;
	r.command = argv + optind;
	r.stop_ns = seconds * NSEC_PER_SEC;
	return run_start(&r);
}
