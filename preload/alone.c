/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The library was preloaded by hand: it stands for /dev/fuse and mount(2) itself, and serves on a socket of its own.
 *
 * Environment: FUSEWIRE_SOCKET, FUSEWIRE_TAG, and what man fusewire-preload names besides.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "fuse/arch.h"
#include "fuse_dev.h"
#include "launch/mount_options.h"
#include "marks.h"
#include "real.h"
#include "vhost/listen.h"
#include "virtio/virtq.h"
#include "worker/gate.h"

/* How long a thread waits for another one's answer to INIT before it reads for itself. */
#define ALONE_INIT_MS 5000

static struct {
	struct gate
		*gate; /* atomic; made at the first read, after the daemon went to the background */
	pthread_mutex_t lock;
	int ours; /* the other end of the socket that the daemon has in place of /dev/fuse */
	int theirs;
	bool mounted;
	bool polled;
	uint32_t max_read;
	bool read_only;
	bool forked; /* atomic: a child of the process that serves, which has the gate's memory, but not its threads */
	char target[PATH_MAX];
	struct vhost_listener listener;
} alone = { .lock = PTHREAD_MUTEX_INITIALIZER, .ours = -1, .theirs = -1, .listener.fd = -1 };

static uint64_t env_number(const char *name, uint64_t otherwise, uint64_t max)
{
	const char *text = getenv(name);
	char *end;
	unsigned long long v;

	if (!text || !*text)
		return otherwise;
	v = strtoull(text, &end, 10);
	if (*end || v > max) {
		log_error("%s=%s is no number from 0 to %llu: taken as %llu", name, text,
			  (unsigned long long)max, (unsigned long long)otherwise);
		return otherwise;
	}
	return v;
}

static void on_readable(void *ctx, bool yes)
{
	const char byte = 0;
	char sink[64];

	if (yes && send(alone.ours, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("cannot wake a reader: %s", strerror(errno));
	while (!yes && recv(alone.theirs, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		continue;
}

static void on_ended(void *ctx)
{
	vhost_listen_close(&alone.listener);
}

static uint32_t page_bytes(const char *arch)
{
	const uint32_t by_arch = fuse_arch_page_bytes(arch);
	const uint64_t v = env_number("FUSEWIRE_PAGE_SIZE", by_arch, FUSE_PAGE_BYTES_MAX);

	if (fuse_arch_page_valid(v))
		return (uint32_t)v;
	log_error("FUSEWIRE_PAGE_SIZE=%s is no power of two from %u on: taken as %u",
		  getenv("FUSEWIRE_PAGE_SIZE"), FUSE_PAGE_BYTES_MIN, by_arch);
	return by_arch;
}

static void read_environment(struct worker_config *config)
{
	const char *level = getenv("FUSEWIRE_LOG_LEVEL"), *arch = getenv("FUSEWIRE_ARCH");
	enum log_level log_level = LOG_LEVEL_INFO;

	if (level && log_level_parse(level, &log_level) < 0)
		log_level = LOG_LEVEL_INFO;
	log_init(log_level, "fusewire");
	config->device = (struct device_config){
		.tag = getenv("FUSEWIRE_TAG"),
		.nr_request_queues = (unsigned int)env_number("FUSEWIRE_QUEUES", 64, 256),
		.queue_size_max = (uint32_t)env_number("FUSEWIRE_QUEUE_SIZE", 1024, VIRTQ_SIZE_MAX),
		.poll_ns = env_number("FUSEWIRE_POLL_US", 300, 1000000) * NSEC_PER_USEC,
		.drain_ns = env_number("FUSEWIRE_DRAIN_MS", 5000, 3600000) * NSEC_PER_MSEC,
		.arch = FUSE_ARCH_NATIVE,
	};
	if (!config->device.tag)
		config->device.tag = "fusewire";
	if (arch && fuse_arch_parse(arch, &config->device.arch) < 0)
		log_error("FUSEWIRE_ARCH=%s is no architecture that is known", arch);
	config->device.page_bytes = page_bytes(arch);
}

static bool is_forked(void)
{
	return READ_ONCE(alone.forked);
}

/*
 * In a child. The socket, and whoever waits at it, are the parent's; and what other threads had locked at the fork stays locked
 * here. A daemon that goes to the background does so before there is a gate: it serves in the child.
 */
static void in_child(void)
{
	if (alone.gate || alone.listener.fd >= 0)
		WRITE_ONCE(alone.forked, true);
}

/* Once: a daemon may mount again after a failure. */
static int watch_forks(void)
{
	static bool watched;

	if (!watched && pthread_atfork(NULL, NULL, in_child))
		return -ENOMEM;
	watched = true;
	return 0;
}

/* Under the lock. */
static int make_gate(void)
{
	char text[VHOST_LISTEN_TEXT];
	struct worker_config config = {
		.daemon = { .readable = on_readable,
			    .max_read = alone.max_read,
			    .read_only = alone.read_only },
		.sock = -1,
		.ended = on_ended,
	};
	struct gate *gate;
	int err;

	read_environment(&config);
	err = watch_forks();
	if (err < 0)
		return err;
	err = vhost_listen_open(&alone.listener, getenv("FUSEWIRE_SOCKET"), VHOST_LISTEN_NO_GROUP,
				text);
	if (err < 0) {
		log_error("%s", text);
		return err;
	}
	config.listen_fd = alone.listener.fd;
	err = gate_new(&gate, &config);
	if (err < 0)
		return err;
	fuse_dev_keep_buffers();
	log_info("serving tag '%s' on %s", config.device.tag, getenv("FUSEWIRE_SOCKET"));
	__atomic_store_n(&alone.gate, gate, __ATOMIC_RELEASE);
	return 0;
}

static struct gate *get_gate(void)
{
	struct gate *gate = __atomic_load_n(&alone.gate, __ATOMIC_ACQUIRE);

	if (likely(gate))
		return gate;
	pthread_mutex_lock(&alone.lock);
	if (!alone.gate && alone.mounted && make_gate() < 0)
		alone.mounted = false;
	gate = alone.gate;
	pthread_mutex_unlock(&alone.lock);
	return gate;
}

int alone_open(int flags)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	if (!(flags & O_CLOEXEC) && REAL(fcntl)(pair[0], F_SETFD, 0) < 0)
		log_debug("cannot let the descriptor be inherited: %s", strerror(errno));
	if ((flags & O_NONBLOCK) && REAL(fcntl)(pair[0], F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		log_debug("cannot make the descriptor non-blocking: %s", strerror(errno));
	pthread_mutex_lock(&alone.lock);
	/* Those of clones have nobody at the other end. */
	if (alone.ours < 0) {
		alone.theirs = pair[0];
		alone.ours = pair[1];
	} else {
		close(pair[1]);
	}
	pthread_mutex_unlock(&alone.lock);
	mark(pair[0]);
	return pair[0];
}

int alone_mount(const char *source, const char *target, const char *type, unsigned long flags,
		const char *data)
{
	struct launch_mount mnt = { .read_only = flags & MS_RDONLY };
	char *copy = strdup(data ? data : "");
	int err = copy ? mount_options_parse(copy, &mnt) : -ENOMEM;

	free(copy);
	if (err)
		return err;
	if (!marked(mnt.fd))
		return -EINVAL;
	pthread_mutex_lock(&alone.lock);
	if (alone.mounted) {
		err = -EBUSY;
	} else if (!realpath(target, alone.target)) {
		err = -errno;
	} else {
		alone.mounted = true;
		alone.max_read = mnt.max_read;
		alone.read_only = mnt.read_only;
	}
	pthread_mutex_unlock(&alone.lock);
	return err;
}

bool alone_umount(const char *target)
{
	char path[PATH_MAX];
	struct worker *worker;

	if (is_forked() || !alone.mounted || !realpath(target, path) || strcmp(path, alone.target))
		return false;
	worker = alone.gate ? gate_worker(alone.gate) : NULL;
	if (worker)
		worker_end(worker);
	return true;
}

ssize_t alone_read(const struct iovec *iov, unsigned int nr, bool nonblock)
{
	struct gate *gate;

	if (unlikely(is_forked()))
		return -ENODEV;
	gate = get_gate();
	/* As the kernel has it before the mount. */
	if (!gate)
		return alone.mounted ? -EINTR : -EPERM;
	return gate_read(gate, iov, nr, nonblock);
}

struct service *alone_service(void)
{
	struct gate *gate = __atomic_load_n(&alone.gate, __ATOMIC_ACQUIRE);
	struct worker *worker = gate && !is_forked() ? gate_worker(gate) : NULL;

	return worker ? worker_service(worker) : NULL;
}

void alone_wait_init(void)
{
	/* Of a daemon that refuses INIT nothing comes, and its threads end. */
	for (int ms = 0; !alone_service() && !is_forked() && ms < ALONE_INIT_MS; ms++)
		usleep(1000);
}

static void begin_poll(struct gate *gate)
{
	struct worker *worker = gate_worker(gate);

	if (worker && READ_ONCE(alone.polled))
		inproc_poll_begin(worker_service(worker));
}

/* From @iov, or from a pipe if that is NULL. */
static ssize_t write_reply(const struct iovec *iov, unsigned int nr, int pipe_fd, size_t len)
{
	struct gate *gate = __atomic_load_n(&alone.gate, __ATOMIC_ACQUIRE);
	bool served;
	ssize_t n;

	if (unlikely(is_forked()))
		return -ENODEV;
	if (!gate)
		return -EPERM;
	served = gate_worker(gate);
	n = iov ? gate_write(gate, iov, nr) : gate_write_pipe(gate, pipe_fd, len);
	/* The daemon has answered INIT, and wants to poll. */
	if (!served)
		begin_poll(gate);
	return n;
}

ssize_t alone_write(const struct iovec *iov, unsigned int nr)
{
	return write_reply(iov, nr, -1, 0);
}

ssize_t alone_write_pipe(int pipe_fd, size_t len)
{
	return write_reply(NULL, 0, pipe_fd, len);
}

void alone_poll(void)
{
	struct gate *gate;

	if (READ_ONCE(alone.polled) || is_forked())
		return;
	WRITE_ONCE(alone.polled, true);
	gate = get_gate();
	if (!gate)
		return;
	if (gate_worker(gate))
		begin_poll(gate);
	else
		/* INIT is there to be read. */
		on_readable(NULL, true);
}

void alone_closed(void)
{
	struct worker *worker;

	if (is_forked())
		return;
	worker = alone.gate ? gate_worker(alone.gate) : NULL;
	if (worker) {
		inproc_unmount(worker_service(worker));
		worker_end(worker);
	}
	vhost_listen_close(&alone.listener);
}
