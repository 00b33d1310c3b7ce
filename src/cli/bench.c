/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire bench: load a virtio-fs device as a guest would, without a guest.
 */
#include "cli/bench.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/device_options.h"

#define RUNTIME_MAX_S 86400.0
/* PID_MAX_LIMIT of the kernel: larger numbers do not fit into the id of a clock. */
#define PID_MAX (1u << 22)

enum bench_option {
	OPTION_RW = 0x100,
	OPTION_BS,
	OPTION_IODEPTH,
	OPTION_QUEUES,
	OPTION_QUEUE_SIZE,
	OPTION_SIZE,
	OPTION_FILE,
	OPTION_RUNTIME,
	OPTION_VERIFY,
	OPTION_END_FSYNC,
	OPTION_DIRECT,
	OPTION_POLL,
	OPTION_EVENT,
	OPTION_POLL_US,
	OPTION_PACKED,
	OPTION_PID,
	OPTION_CPU,
	OPTION_JSON,
	OPTION_HELP,
};

static const struct option bench_options[] = {
	{ "rw", required_argument, NULL, OPTION_RW },
	{ "bs", required_argument, NULL, OPTION_BS },
	{ "iodepth", required_argument, NULL, OPTION_IODEPTH },
	{ "queues", required_argument, NULL, OPTION_QUEUES },
	{ "queue-size", required_argument, NULL, OPTION_QUEUE_SIZE },
	{ "size", required_argument, NULL, OPTION_SIZE },
	{ "file", required_argument, NULL, OPTION_FILE },
	{ "runtime", required_argument, NULL, OPTION_RUNTIME },
	{ "verify", no_argument, NULL, OPTION_VERIFY },
	{ "end-fsync", no_argument, NULL, OPTION_END_FSYNC },
	{ "direct", no_argument, NULL, OPTION_DIRECT },
	{ "poll", no_argument, NULL, OPTION_POLL },
	{ "event", no_argument, NULL, OPTION_EVENT },
	{ "poll-us", required_argument, NULL, OPTION_POLL_US },
	{ "packed", no_argument, NULL, OPTION_PACKED },
	{ "pid", required_argument, NULL, OPTION_PID },
	{ "cpu", required_argument, NULL, OPTION_CPU },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, OPTION_HELP },
	{},
};

/* In the order of enum bench_rw. */
static const char *const rw_names[] = { "randread", "randwrite", "read",   "write",  "randrw",
					"getattr",  "lookup",	 "create", "readdir" };

static void bench_help(void)
{
	printf("Usage: fusewire bench [OPTION...] SOCKET\n\n"
	       "Loads the virtio-fs device on a vhost-user socket as a Linux guest would.\n\n"
	       "  --rw MODE              randread (default), randwrite, read, write, randrw, "
	       "getattr,\n"
	       "                         lookup, create or readdir\n"
	       "  --bs BYTES             of one request, up to 1M (default 4k)\n"
	       "  --iodepth N            operations under way per queue (default 32)\n"
	       "  --queues N             request queues, a thread each (default 1)\n"
	       "  --file NAME            path in the device (default 'data'); for readdir a "
	       "directory\n"
	       "  --size BYTES           of the file that are used (default all; 1G if created)\n"
	       "  --runtime SECONDS      (default 10)\n"
	       "  --verify               write a pattern and check it; destroys the file's "
	       "contents\n"
	       "  --end-fsync            fsync the file at the end; the time for it counts\n"
	       "  --direct               open the file with O_DIRECT\n"
	       "  --poll                 spin for replies instead of sleeping on an eventfd "
	       "(--event)\n"
	       "  --poll-us N            before sleeping look for replies so long, as a vCPU under "
	       "KVM "
	       "does\n"
	       "                         for 200 (default 0)\n"
	       "  --packed               packed rings\n"
	       "  --queue-size N         descriptors per ring (default 1024)\n"
	       "  --pid N                count CPU time of this device process; may be repeated\n"
	       "  --cpu LIST             CPUs of the threads in turn, as in 0,2-3\n"
	       "  --json                 results for programs\n"
	       "  --help                 this text\n");
}

static int parse_rw(struct bench_options *o, const char *arg)
{
	for (unsigned int i = 0; i < array_size(rw_names); i++) {
		if (strcmp(arg, rw_names[i]) == 0) {
			o->rw = (enum bench_rw)i;
			o->rw_name = rw_names[i];
			return 0;
		}
	}
	cli_error(
		"--rw: '%s' is not randread, randwrite, read, write, randrw, getattr, lookup, "
		"create or readdir",
		arg);
	return -EINVAL;
}

static int parse_runtime(struct bench_options *o, const char *arg)
{
	char *end;
	double seconds = strtod(arg, &end);

	if (end == arg || *end || !(seconds >= 0.01 && seconds <= RUNTIME_MAX_S)) {
		cli_error("--runtime: '%s' is not a number of seconds from 0.01 to 86400", arg);
		return -EINVAL;
	}
	o->runtime_ns = (uint64_t)(seconds * 1e9);
	return 0;
}

static int parse_pid(struct bench_options *o, const char *arg)
{
	uint64_t pid;
	int err = cli_parse_u64("pid", arg, 1, PID_MAX, &pid);
	clockid_t clock;

	if (err < 0)
		return err;
	if (o->nr_pids == BENCH_PIDS_MAX) {
		cli_error("--pid: at most %d processes", BENCH_PIDS_MAX);
		return -EINVAL;
	}
	if (clock_getcpuclockid((pid_t)pid, &clock) != 0) {
		cli_error("--pid: there is no process %s", arg);
		return -EINVAL;
	}
	o->pids[o->nr_pids++] = (pid_t)pid;
	return 0;
}

static int parse_cpus(struct bench_options *o, const char *arg)
{
	const char *at = arg;

	o->nr_cpus = 0;
	do {
		char *end;
		unsigned long first = strtoul(at, &end, 10), last = first;
		bool ok = *at >= '0' && *at <= '9';

		if (ok && *end == '-') {
			at = end + 1;
			ok = *at >= '0' && *at <= '9';
			last = strtoul(at, &end, 10);
		}
		if (!ok || (*end && *end != ',') || first > last || last >= CPU_SETSIZE ||
		    last - first >= CPU_SETSIZE - o->nr_cpus) {
			cli_error("--cpu: '%s' is not a list of CPUs as in 0,2-3", arg);
			return -EINVAL;
		}
		for (; first <= last; first++)
			o->cpus[o->nr_cpus++] = (int)first;
		at = *end ? end + 1 : NULL;
	} while (at);
	return 0;
}

static int parse_number(struct bench_options *o, int option, const char *arg)
{
	uint64_t v = 0;
	int err;

	switch (option) {
	case OPTION_BS:
		err = cli_parse_size("bs", arg, 1, FUSE_CLIENT_DATA_MAX, &v);
		o->block = (uint32_t)v;
		break;
	case OPTION_IODEPTH:
		err = cli_parse_u64("iodepth", arg, 1, BENCH_DEPTH_MAX - 1, &v);
		o->depth = (unsigned int)v;
		break;
	case OPTION_QUEUES:
		err = cli_parse_u64("queues", arg, 1, BENCH_QUEUES_MAX, &v);
		o->nr_queues = (unsigned int)v;
		break;
	case OPTION_QUEUE_SIZE:
		err = cli_parse_u64("queue-size", arg, 2, VIRTQ_SIZE_MAX, &v);
		o->queue_size = (uint32_t)v;
		break;
	case OPTION_POLL_US:
		err = cli_parse_u64("poll-us", arg, 0, BENCH_POLL_US_MAX, &o->poll_us);
		break;
	default:
		err = cli_parse_size("size", arg, 1, INT64_MAX, &o->size);
	}
	return err;
}

static int parse_option(struct bench_options *o, int option, const char *arg)
{
	switch (option) {
	case OPTION_RW:
		return parse_rw(o, arg);
	case OPTION_RUNTIME:
		return parse_runtime(o, arg);
	case OPTION_PID:
		return parse_pid(o, arg);
	case OPTION_CPU:
		return parse_cpus(o, arg);
	case OPTION_FILE:
		o->file = arg;
		return 0;
	case OPTION_VERIFY:
		o->verify = true;
		return 0;
	case OPTION_END_FSYNC:
		o->end_fsync = true;
		return 0;
	case OPTION_DIRECT:
		o->direct = true;
		return 0;
	case OPTION_POLL:
	case OPTION_EVENT:
		o->busy_poll = option == OPTION_POLL;
		return 0;
	case OPTION_PACKED:
		o->packed = true;
		return 0;
	case OPTION_JSON:
		o->json = true;
		return 0;
	case OPTION_BS:
	case OPTION_IODEPTH:
	case OPTION_QUEUES:
	case OPTION_QUEUE_SIZE:
	case OPTION_SIZE:
	case OPTION_POLL_US:
		return parse_number(o, option, arg);
	default:
		return -EINVAL;
	}
}

static int check_options(const struct bench_options *o)
{
	if (o->verify && !bench_is_data(o->rw)) {
		cli_error("--verify is for modes that read or write data, not for %s", o->rw_name);
		return -EINVAL;
	}
	if (o->end_fsync && !bench_writes(o->rw)) {
		cli_error("--end-fsync is for modes that write data, not for %s", o->rw_name);
		return -EINVAL;
	}
	if (o->direct && !bench_is_data(o->rw)) {
		cli_error("--direct is for modes that read or write data, not for %s", o->rw_name);
		return -EINVAL;
	}
	if (o->busy_poll && o->poll_us) {
		cli_error("--poll-us is for a driver that sleeps: it does not go with --poll");
		return -EINVAL;
	}
	if (o->verify && o->block % 8) {
		cli_error("--verify needs a --bs that is a multiple of 8");
		return -EINVAL;
	}
	if (o->rw == BENCH_READDIR && o->block < FUSE_CLIENT_PAGE) {
		cli_error("readdir needs a --bs of at least 4k: an entry must fit");
		return -EINVAL;
	}
	if (!o->packed && (o->queue_size & (o->queue_size - 1))) {
		cli_error("--queue-size: a split ring needs a power of two");
		return -EINVAL;
	}
	return 0;
}

static int connect_device(struct bench *b)
{
	const struct bench_options *o = &b->opt;
	const struct fuse_client_config config = {
		.path = o->socket,
		.nr_queues = o->nr_queues,
		.queue_size = o->queue_size,
		.format = o->packed ? VIRTQ_PACKED : VIRTQ_SPLIT,
		/* One for requests beside the load. */
		.nr_calls = o->depth + 1,
		.data_bytes = max_of(o->block, BENCH_CHUNK),
		.busy_poll = o->busy_poll,
		.poll_ns = o->poll_us * NSEC_PER_USEC,
	};
	const char *why;
	int err = fuse_client_new(&b->client, &config, &why);

	if (err == -ERANGE)
		cli_error("the device has fewer request queues than --queues %u", o->nr_queues);
	else if (err == -EOPNOTSUPP)
		cli_error("the device does not offer %s",
			  o->packed ? "packed rings" : "virtio 1.0");
	else if (err < 0)
		cli_error("%s: %s: %s", o->socket, why, strerror(-err));
	return err < 0 ? -1 : 0;
}

static int make_workers(struct bench *b)
{
	size_t bytes = sizeof(*b->workers) * b->opt.nr_queues;

	b->workers = aligned_alloc(CACHE_LINE, bytes);
	if (b->workers)
		memset(b->workers, 0, bytes);
	for (unsigned int i = 0; b->workers && i < b->opt.nr_queues; i++) {
		struct bench_worker *w = &b->workers[i];

		w->bench = b;
		w->index = i;
		w->queue = fuse_client_queue(b->client, i);
		w->rng = bench_pattern(b->seed_run, 8 * (uint64_t)i) | 1;
		w->slots = calloc(b->opt.depth, sizeof(*w->slots));
		for (unsigned int k = 0; w->slots && k < b->opt.depth; k++) {
			struct bench_slot *slot = &w->slots[k];

			slot->call = fuse_queue_get(w->queue);
			slot->call->user = slot;
			slot->number = k;
			/* Real pages from the start, and no zeros on the wire. */
			if (bench_is_data(b->opt.rw))
				memset(slot->call->data, 0x5a, b->opt.block);
		}
		if (!w->slots)
			break;
	}
	if (b->workers && b->workers[b->opt.nr_queues - 1].slots)
		return 0;
	cli_error("no memory");
	return -1;
}

static double timespec_s(struct timespec ts)
{
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double device_cpu_s(const struct bench *b)
{
	double sum = 0;

	for (unsigned int i = 0; i < b->opt.nr_pids; i++) {
		struct timespec ts;
		clockid_t clock;

		if (clock_getcpuclockid(b->opt.pids[i], &clock) == 0 &&
		    clock_gettime(clock, &ts) == 0)
			sum += timespec_s(ts);
	}
	return sum;
}

static double own_cpu_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return timespec_s(ts);
}

static int measure(struct bench *b)
{
	double own = own_cpu_s(), device = device_cpu_s(b);
	uint64_t elapsed, begin = clock_now_ns();

	if (bench_run_phase(b, b->opt.rw, b->opt.runtime_ns) < 0)
		return -1;
	if (b->opt.end_fsync) {
		if (bench_fsync(b) < 0)
			return -1;
		b->elapsed_ns = clock_now_ns() - begin;
	}
	b->own_cpu_s = own_cpu_s() - own;
	b->device_cpu_s = device_cpu_s(b) - device;
	for (unsigned int i = 0; i < b->opt.nr_queues; i++) {
		const struct bench_worker *w = &b->workers[i];

		b->nr_ops += w->nr_ops;
		b->nr_requests += w->nr_requests;
		b->nr_bytes += w->nr_bytes;
		histogram_merge(&b->latency, &w->latency);
	}
	elapsed = b->elapsed_ns;
	if (b->opt.verify && !b->interrupted && bench_run_phase(b, BENCH_CHECK, 0) < 0)
		return -1;
	b->elapsed_ns = elapsed;
	return 0;
}

/* The only way from a signal handler to the run. */
static struct bench *running;

static void on_signal(int signo)
{
	WRITE_ONCE(running->interrupted, true);
	WRITE_ONCE(running->stop, true);
}

static void catch_signals(struct bench *b)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	running = b;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static int bench_run(struct bench *b)
{
	bool idle = true;
	int err;

	if (connect_device(b) < 0)
		return CLI_FAILED;
	if (make_workers(b) < 0)
		return CLI_FAILED;
	catch_signals(b);
	err = bench_open(b);
	if (err == 0 && !b->interrupted)
		err = measure(b);
	if (isatty(STDERR_FILENO) && !b->opt.json)
		fprintf(stderr, "\r\033[K");
	for (unsigned int i = 0; i < b->opt.nr_queues; i++)
		idle = idle && !b->workers[i].nr_out;
	if (idle && bench_close(b) < 0)
		err = -1;
	if (err == 0)
		bench_report(b);
	return err < 0 || b->interrupted ? CLI_FAILED : CLI_OK;
}

static void bench_free(struct bench *b)
{
	fuse_client_free(b->client);
	for (unsigned int i = 0; b->workers && i < b->opt.nr_queues; i++) {
		free(b->workers[i].slots);
		free(b->workers[i].written);
	}
	free(b->workers);
	free(b);
}

int cli_bench(int argc, char **argv)
{
	struct bench_options o = {
		.rw = BENCH_RANDREAD,
		.rw_name = rw_names[BENCH_RANDREAD],
		.block = 4096,
		.depth = 32,
		.nr_queues = 1,
		.queue_size = 1024,
		.runtime_ns = 10 * NSEC_PER_SEC,
	};
	struct bench *b;
	int option, status;

	while ((option = getopt_long(argc, argv, "", bench_options, NULL)) != -1) {
		if (option == OPTION_HELP) {
			bench_help();
			return CLI_OK;
		}
		if (parse_option(&o, option, optarg) < 0)
			return CLI_USAGE;
	}
	if (check_options(&o) < 0)
		return CLI_USAGE;
	if (optind != argc - 1) {
		cli_error(optind < argc ? "one SOCKET only" : "no SOCKET: give that of the device");
		return CLI_USAGE;
	}
	o.socket = argv[optind];
	b = calloc(1, sizeof(*b));
	if (!b) {
		cli_error("no memory");
		return CLI_FAILED;
	}
	b->opt = o;
	b->seed_run = clock_now_ns() & ~UINT64_C(7);
	b->seed_before = b->seed_run + (UINT64_C(1) << 62);
	status = bench_run(b);
	bench_free(b);
	return status;
}
