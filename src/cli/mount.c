/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire mount: mount a virtio-fs device on this machine, without a VM.
 *
 * Theory of operation. The bridge's threads forward; this thread waits for what ends that: the kernel (unmounted), the device
 * (connection closed, a ring given up), or a signal. For a signal the mount is taken away by a thread of its own: the
 * unmount waits for data that the kernel has to write back, which the bridge must go on serving, and a device that hangs
 * must not make us hang. Whatever comes, bridge_stop() then ends the FUSE connection, so that no process stays in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "bridge/bridge.h"
#include "cli/cli.h"
#include "cli/device_options.h"
#include "cli/mount_point.h"
#include "cli/serve.h"

/* After a signal: how long a device may answer nothing during write-back and unmounting before the connection is cut, how long it may
 * answer others but nothing of the write-back unless --stop-timeout says otherwise (file systems that upload may stall for a while),
 * how often that is looked at, and how long users of files that are still open have after a lazy unmount. */
#define UNMOUNT_MS	5000
#define STALL_SECONDS	120
#define UNMOUNT_STEP_MS 200
#define LINGER_MS	500

struct mount_options {
	struct bridge_config bridge;
	char options[MOUNT_OPTIONS_MAX];
	const char *mount_point;
	enum log_level log_level;
	int ready_fd;
	uint64_t stall_ns;
};

struct mount {
	struct mount_point point;
	uint64_t stall_ns;
	char stalled[96];
	struct bridge *bridge;
	int signal_fd;
	int unmounted_fd;
};

enum mount_option {
	MOUNT_OPTION_QUEUES = 0x100,
	MOUNT_OPTION_QUEUE_SIZE,
	MOUNT_OPTION_PACKED,
	MOUNT_OPTION_POLL_US,
	MOUNT_OPTION_STOP_TIMEOUT,
	MOUNT_OPTION_LOG_LEVEL,
	MOUNT_OPTION_READY_FD,
	MOUNT_OPTION_HELP,
};

static const struct option mount_long_options[] = {
	{ "options", required_argument, NULL, 'o' },
	{ "queues", required_argument, NULL, MOUNT_OPTION_QUEUES },
	{ "queue-size", required_argument, NULL, MOUNT_OPTION_QUEUE_SIZE },
	{ "packed", no_argument, NULL, MOUNT_OPTION_PACKED },
	{ "poll-us", required_argument, NULL, MOUNT_OPTION_POLL_US },
	{ "stop-timeout", required_argument, NULL, MOUNT_OPTION_STOP_TIMEOUT },
	{ "log-level", required_argument, NULL, MOUNT_OPTION_LOG_LEVEL },
	{ "ready-fd", required_argument, NULL, MOUNT_OPTION_READY_FD },
	{ "help", no_argument, NULL, MOUNT_OPTION_HELP },
	{},
};

static void mount_help(void)
{
	printf("Usage: fusewire mount [OPTION...] SOCKET MOUNTPOINT\n\n"
	       "Mounts the virtio-fs device behind a vhost-user socket on this machine, in the\n"
	       "foreground, until it is unmounted or SIGTERM comes.\n\n"
	       "  -o OPT[,OPT...]        ro, allow_other, noexec, noatime, sync, max_read=N, ...\n"
	       "  --queues N             request queues, with a thread each (default 2, or what "
	       "there is)\n"
	       "  --queue-size N         entries per ring (default 1024)\n"
	       "  --packed               packed rings\n"
	       "  --poll-us N            look for replies for up to N us before sleeping (default "
	       "20)\n"
	       "  --stop-timeout N       after SIGTERM, give a device up that writes back nothing "
	       "for N s\n"
	       "                         (default 120)\n"
	       "  --log-level LEVEL      off, error, warn, info (default) or debug\n"
	       "  --ready-fd N           write READY=1 to this descriptor when it is mounted\n"
	       "  --help                 this text\n");
}

static void *unmount_thread(void *arg)
{
	struct mount *m = arg;
	int fd = open(m->point.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* Files that stay open keep a detached mount: what they wrote shall arrive nevertheless. */
	if (fd >= 0)
		syncfs(fd);
	close_fd(&fd);
	mount_point_unmount(&m->point);
	fd_signal(m->unmounted_fd);
	return NULL;
}

/* Wait until the kernel let go of us, or @fd is readable, at most @ms; the device's end is noticed meanwhile.
 * Return: whether @fd is readable. */
static bool wait_bridge(struct mount *m, int fd, int ms)
{
	struct pollfd pfds[3] = { { .fd = bridge_event_fd(m->bridge), .events = POLLIN },
				  { .fd = bridge_device_socket(m->bridge), .events = POLLIN },
				  { .fd = fd, .events = POLLIN } };

	if (poll(pfds, array_size(pfds), ms) <= 0)
		return false;
	if (pfds[1].revents)
		bridge_lose_device(m->bridge, "the device closed the connection");
	return pfds[2].revents;
}

/* What wait_answers() waits for. */
enum wait_for {
	WAIT_UNMOUNTED,
	WAIT_WRITTEN
};

/*
 * Wait as long as the write-back goes on: a slow device shall get all that the kernel has to write back. Files in use outlive a lazy
 * unmount, and syncfs() of FUSE does not wait for their pages. What their users ask for meanwhile shows that the device lives,
 * but may go on for ever.
 * Return: whether it came; if not, m->stalled says what did not, unless the bridge has ended.
 */
static bool wait_answers(struct mount *m, enum wait_for what)
{
	const uint64_t begin = clock_now_ns();
	uint64_t since = begin, seen = bridge_nr_replies(m->bridge);
	uint64_t written_since = begin, written = bridge_nr_written(m->bridge);
	bool done;

	m->stalled[0] = '\0';
	do {
		done = wait_bridge(m, what == WAIT_UNMOUNTED ? m->unmounted_fd : -1,
				   UNMOUNT_STEP_MS);
		if (what == WAIT_WRITTEN)
			done = !bridge_writes_back(m->bridge) &&
			       clock_now_ns() - begin >= LINGER_MS * NSEC_PER_MSEC;
		if (bridge_nr_replies(m->bridge) != seen) {
			seen = bridge_nr_replies(m->bridge);
			since = clock_now_ns();
		}
		if (bridge_nr_written(m->bridge) != written) {
			written = bridge_nr_written(m->bridge);
			written_since = clock_now_ns();
		}
		if (clock_now_ns() - since >= UNMOUNT_MS * NSEC_PER_MSEC)
			snprintf(m->stalled, sizeof(m->stalled),
				 "the device has answered nothing for %d s", UNMOUNT_MS / 1000);
		else if (clock_now_ns() - written_since >= m->stall_ns)
			snprintf(m->stalled, sizeof(m->stalled),
				 "the device answers, but has written back nothing for %u s",
				 (unsigned int)(m->stall_ns / NSEC_PER_SEC));
	} while (!done && bridge_state(m->bridge) == BRIDGE_RUNNING && !m->stalled[0]);
	return done || bridge_state(m->bridge) == BRIDGE_UNMOUNTED;
}

static void say_lost(const struct mount *m)
{
	const char *why = m->stalled;

	if (bridge_state(m->bridge) != BRIDGE_RUNNING)
		why = bridge_why(m->bridge);
	cli_error(
		"cannot unmount %s cleanly: %s; what was not written back is lost: see the "
		"device's messages",
		m->point.path, why);
}

/* Return: the exit status. */
static int end_by_signal(struct mount *m)
{
	pthread_t thread;
	bool done;

	if (pthread_create(&thread, NULL, unmount_thread, m) != 0) {
		bridge_stop(m->bridge);
		mount_point_unmount(&m->point);
		cli_error("cannot write back what %s holds: no thread for it; it is lost",
			  m->point.path);
		return CLI_FAILED;
	}
	done = wait_answers(m, WAIT_UNMOUNTED) && wait_answers(m, WAIT_WRITTEN);
	if (!done)
		say_lost(m);
	bridge_stop(m->bridge);
	pthread_join(thread, NULL);
	return done ? CLI_OK : CLI_FAILED;
}

/* Return: the exit status. */
static int mount_loop(struct mount *m)
{
	struct pollfd pfds[4] = { { .fd = m->signal_fd, .events = POLLIN },
				  { .fd = bridge_event_fd(m->bridge), .events = POLLIN },
				  { .fd = bridge_device_socket(m->bridge), .events = POLLIN },
				  { .fd = bridge_device_err_fd(m->bridge), .events = POLLIN } };

	while (poll(pfds, array_size(pfds), -1) < 0) {
	}
	if (pfds[2].revents)
		bridge_lose_device(m->bridge, "the device closed the connection");
	else if (pfds[3].revents)
		bridge_lose_device(m->bridge, "the device gave up a ring");
	if (bridge_state(m->bridge) == BRIDGE_RUNNING && pfds[0].revents)
		return end_by_signal(m);
	bridge_stop(m->bridge);
	if (bridge_state(m->bridge) == BRIDGE_UNMOUNTED) {
		/* Or the connection was aborted, as `umount -f` does before it finds files open. */
		mount_point_unmount_dead(&m->point);
		return CLI_OK;
	}
	cli_error("%s; %s is unmounted", bridge_why(m->bridge), m->point.path);
	mount_point_unmount(&m->point);
	return CLI_FAILED;
}

static int take_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static const char *connect_reason(const struct mount_options *opts, int err, const char *why,
				  char *buf, size_t size)
{
	const char *advice = "";

	if (err == -EINVAL)
		return "a ring of that size is not possible (split rings: a power of two)";
	if (err == -ERANGE)
		return "it has fewer queues; give a smaller --queues";
	if (err == -EPIPE || err == -ECONNRESET)
		return "it closed the connection: did what it serves end? See its messages";
	if (err == -ETIMEDOUT)
		return "it does not answer: does it serve another front-end, or is it no "
		       "vhost-user device? See its messages";
	if (err == -EOPNOTSUPP && opts->bridge.format == VIRTQ_PACKED)
		return "it has no packed rings; leave out --packed";
	if (err == -EREMOTEIO) {
		snprintf(buf, size, "%s; see the device's messages", why);
		return buf;
	}
	if (err == -ENOENT || err == -ECONNREFUSED)
		advice = ": start the device first";
	snprintf(buf, size, "%s: %s%s", why, strerror(-err), advice);
	return buf;
}

static int mount_run(const struct mount_options *opts)
{
	struct mount m = { .signal_fd = -1, .unmounted_fd = -1, .stall_ns = opts->stall_ns };
	const char *socket = opts->bridge.path;
	const char *why = "";
	char reason[256];
	int status = CLI_FAILED, err;

	m.signal_fd = take_signals();
	m.unmounted_fd = eventfd_new();
	if (m.signal_fd < 0 || m.unmounted_fd < 0) {
		cli_error("cannot make descriptors: %s", strerror(errno));
		goto out;
	}
	err = bridge_new(&m.bridge, &opts->bridge, &why);
	if (err < 0) {
		cli_error("%s: %s", socket, connect_reason(opts, err, why, reason, sizeof(reason)));
		goto out;
	}
	err = mount_point_mount(&m.point, opts->mount_point, socket, opts->options);
	if (err < 0) {
		status = err == -EINVAL ? CLI_USAGE : CLI_FAILED;
		goto out;
	}
	err = bridge_start(m.bridge, err, &why);
	if (err < 0) {
		cli_error("%s: %s: %s", socket, why, strerror(-err));
		bridge_stop(m.bridge);
		mount_point_unmount(&m.point);
		goto out;
	}
	log_info("%s is mounted at %s", socket, m.point.path);
	serve_notify_ready(opts->ready_fd);
	status = mount_loop(&m);
out:
	bridge_free(m.bridge);
	close_fd(&m.signal_fd);
	close_fd(&m.unmounted_fd);
	return status;
}

static int add_mount_options(struct mount_options *opts, const char *arg)
{
	size_t len = strlen(opts->options);

	if ((size_t)snprintf(opts->options + len, sizeof(opts->options) - len, "%s%s",
			     len ? "," : "", arg) < sizeof(opts->options) - len)
		return 0;
	cli_error("-o: more than %d bytes", MOUNT_OPTIONS_MAX - 1);
	return -EINVAL;
}

static int parse_option(struct mount_options *opts, int option, const char *arg)
{
	uint64_t v = 0;
	int err;

	switch (option) {
	case 'o':
		return add_mount_options(opts, arg);
	case MOUNT_OPTION_QUEUES:
		err = cli_parse_u64("queues", arg, 1, BRIDGE_QUEUES_MAX, &v);
		opts->bridge.nr_request_queues = (unsigned int)v;
		opts->bridge.fewer_queues = false;
		return err;
	case MOUNT_OPTION_QUEUE_SIZE:
		err = cli_parse_u64("queue-size", arg, BRIDGE_QUEUE_SIZE_MIN, VIRTQ_SIZE_MAX, &v);
		opts->bridge.queue_size = (uint32_t)v;
		return err;
	case MOUNT_OPTION_PACKED:
		opts->bridge.format = VIRTQ_PACKED;
		return 0;
	case MOUNT_OPTION_POLL_US:
		err = cli_parse_u64("poll-us", arg, 0, 1000000, &v);
		opts->bridge.spin_ns = v * NSEC_PER_USEC;
		return err;
	case MOUNT_OPTION_STOP_TIMEOUT:
		err = cli_parse_u64("stop-timeout", arg, 1, 86400, &v);
		opts->stall_ns = v * NSEC_PER_SEC;
		return err;
	case MOUNT_OPTION_LOG_LEVEL:
		if (log_level_parse(arg, &opts->log_level) == 0)
			return 0;
		cli_error("--log-level: '%s' is not off, error, warn, info or debug", arg);
		return -EINVAL;
	case MOUNT_OPTION_READY_FD:
		err = cli_parse_u64("ready-fd", arg, 0, INT32_MAX, &v);
		opts->ready_fd = (int)v;
		return err;
	default:
		return -EINVAL;
	}
}

int cli_mount(int argc, char **argv)
{
	struct mount_options opts = {
		.bridge = { .nr_request_queues = 2,
			    .fewer_queues = true,
			    .queue_size = 1024,
			    .format = VIRTQ_SPLIT,
			    .spin_ns = 20 * NSEC_PER_USEC },
		.log_level = LOG_LEVEL_INFO,
		.ready_fd = -1,
		.stall_ns = STALL_SECONDS * NSEC_PER_SEC,
	};
	int option;

	while ((option = getopt_long(argc, argv, "o:", mount_long_options, NULL)) != -1) {
		if (option == MOUNT_OPTION_HELP) {
			mount_help();
			return CLI_OK;
		}
		if (parse_option(&opts, option, optarg) < 0)
			return CLI_USAGE;
	}
	if (argc - optind != 2) {
		cli_error("two arguments are needed: SOCKET MOUNTPOINT");
		return CLI_USAGE;
	}
	opts.bridge.path = argv[optind];
	opts.mount_point = argv[optind + 1];
	log_set_level(opts.log_level);
	return mount_run(&opts);
}
