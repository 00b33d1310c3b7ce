/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon was started by fusewire run: meet it on the message socket, and take the device over from it.
 *
 * Theory of operation
 * -------------------
 * Until ATTACH comes, reads and writes go to the socket as if we were not here; behind the first INIT that is read goes
 * HELLO. ATTACH is taken by whichever thread happens to read; others may be inside recvmsg(2) then, and are woken by one
 * byte each, sent through the socket's other end, which came with ATTACH. From then on the socket is not read any more,
 * but for pollers: a byte lies in it as long as there is something to read.
 *
 * fusewire run never answers what it reads here as a daemon's reply once it has sent ATTACH, and sends ATTACH only after
 * INIT was answered: so no message is lost at the change.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "fuse_dev.h"
#include "marks.h"
#include "real.h"
#include "worker/attach.h"
#include "worker/worker.h"

/* How often a thread that waits for INIT's answer looks whether it was given. */
#define RUN_LOOK_MS 20

enum run_state {
	RUN_NEW,
	RUN_GREETED, /* HELLO was sent */
	RUN_CHANNEL, /* requests come through the socket: it stays so */
	RUN_ATTACHED,
	RUN_FORKED, /* a child of a process that is attached: its device is elsewhere */
};

static struct {
	enum run_state state; /* atomic */
	struct worker *worker;
	int socket; /* the descriptor that ATTACH came through */
	int peer;
	struct loop_watch control;
	unsigned int nr_receiving; /* atomic: threads that may be inside recvmsg(2) */
	bool polled; /* atomic */
} run = { .socket = -1, .peer = -1, .control.fd = -1 };

static enum run_state run_state(void)
{
	return __atomic_load_n(&run.state, __ATOMIC_SEQ_CST);
}

static void send_byte(int fd)
{
	const char byte = 0;

	/* A full socket is as good: there is something to read. */
	if (send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		log_debug("cannot wake a reader: %s", strerror(errno));
}

static void on_readable(void *ctx, bool yes)
{
	char sink[64];

	if (yes)
		send_byte(run.peer);
	else
		while (recv(run.socket, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			continue;
}

/* Everything is over, as told by WORKER_CONTROL_END. */
static void on_ended(void *ctx)
{
	const char byte = WORKER_CONTROL_ENDED;

	if (send(run.control.fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("cannot tell fusewire run of the end: %s", strerror(errno));
}

static void on_control(void *ctx, uint32_t events)
{
	char byte;
	ssize_t n = recv(run.control.fd, &byte, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* Whoever had started us is gone: an unmount, too. */
	if (n <= 0)
		loop_remove(worker_loop(run.worker), &run.control);
	else if (byte != WORKER_CONTROL_END)
		return;
	worker_end(run.worker);
}

static int worker_config_fill(struct worker_config *c, const struct worker_attach *a, void *record)
{
	if (a->hdr.len != sizeof(*a) || a->version != WORKER_ATTACH_VERSION ||
	    !memchr(a->tag, 0, sizeof(a->tag)))
		return -EPROTO;
	*c = (struct worker_config){
		.device = {
			.tag = a->tag,
			.nr_request_queues = a->nr_request_queues,
			.queue_size_max = a->queue_size_max,
			.poll_ns = a->poll_ns,
			.drain_ns = a->drain_ns,
			.arch = (enum fuse_arch)a->arch,
			.page_bytes = a->page_bytes,
			.record = record,
		},
		.daemon = {
			.init_out = a->init_out,
			.max_read = a->max_read,
			.read_only = a->read_only,
			.readable = on_readable,
		},
		.sock = -1,
		.listen_fd = -1,
		.inband_notifications = a->inband_notifications,
		.generation = a->generation,
		.ended = on_ended,
	};
	return 0;
}

static void in_child(void)
{
	if (run_state() == RUN_ATTACHED)
		__atomic_store_n(&run.state, RUN_FORKED, __ATOMIC_SEQ_CST);
}

static int attach(const struct worker_attach *a, int socket, int *fds)
{
	struct worker_config config;
	void *record = mmap(NULL, sizeof(struct fuse_session_record), PROT_READ | PROT_WRITE,
			    MAP_SHARED, fds[WORKER_FD_RECORD], 0);
	int err;

	if (record == MAP_FAILED)
		return -errno;
	log_init((enum log_level)a->log_level, "fusewire");
	err = worker_config_fill(&config, a, record);
	if (err)
		return err;
	run.socket = socket;
	run.peer = fds[WORKER_FD_PEER];
	config.sock = fds[WORKER_FD_VHOST];
	err = worker_new(&run.worker, &config);
	if (err)
		return err;
	fds[WORKER_FD_VHOST] = -1;
	run.control.fd = fds[WORKER_FD_CONTROL];
	run.control.fn = on_control;
	err = loop_add(worker_loop(run.worker), &run.control, EPOLLIN);
	if (!err)
		err = pthread_atfork(NULL, NULL, in_child) ? -ENOMEM : 0;
	if (!err)
		err = worker_run(run.worker);
	if (err)
		return err;
	fds[WORKER_FD_PEER] = -1;
	fds[WORKER_FD_CONTROL] = -1;
	return 0;
}

static void take_attach(int socket, const struct iovec *iov, unsigned int nr, size_t len, int *fds,
			unsigned int nr_fds)
{
	struct worker_attach a;
	unsigned int waiting;
	int err = -EPROTO;

	if (len == sizeof(a) && nr_fds == WORKER_NR_FDS) {
		iov_copy_out(&a, iov, nr, 0, sizeof(a));
		err = attach(&a, socket, fds);
	}
	/* What the worker did not take; fusewire run sees that its ends were closed. */
	for (unsigned int i = 0; i < nr_fds; i++)
		close_fd(&fds[i]);
	if (err) {
		log_error("cannot serve inside of the daemon: %s", strerror(-err));
		__atomic_store_n(&run.state, RUN_CHANNEL, __ATOMIC_SEQ_CST);
		return;
	}
	fuse_dev_keep_buffers();
	__atomic_store_n(&run.state, RUN_ATTACHED, __ATOMIC_SEQ_CST);
	/* Before the bytes, which it would take away. */
	if (__atomic_load_n(&run.polled, __ATOMIC_SEQ_CST))
		inproc_poll_begin(worker_service(run.worker));
	waiting = __atomic_load_n(&run.nr_receiving, __ATOMIC_SEQ_CST);
	while (waiting--)
		send_byte(run.peer);
}

static void greet(int fd)
{
	struct worker_hello hello = {
		.hdr = { .len = sizeof(hello), .unique = WORKER_UNIQUE },
		.version = WORKER_ATTACH_VERSION,
		.pid = (uint32_t)getpid(),
	};

	if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello))
		__atomic_store_n(&run.state, RUN_GREETED, __ATOMIC_SEQ_CST);
}

static unsigned int take_fds(struct msghdr *msg, int *fds)
{
	unsigned int nr = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), nr * sizeof(int));
	}
	return nr;
}

static void receiving_cancelled(void *unused)
{
	__atomic_sub_fetch(&run.nr_receiving, 1, __ATOMIC_SEQ_CST);
}

/* Return: as recvmsg(2), or 1 at once when the device has come meanwhile. */
static ssize_t receive(int fd, struct msghdr *msg)
{
	ssize_t n;

	__atomic_add_fetch(&run.nr_receiving, 1, __ATOMIC_SEQ_CST);
	if (run_state() == RUN_ATTACHED) {
		receiving_cancelled(NULL);
		return 1;
	}
	pthread_cleanup_push(receiving_cancelled, NULL);
	n = REAL(recvmsg)(fd, msg, MSG_CMSG_CLOEXEC);
	pthread_cleanup_pop(1);
	return n < 0 ? -errno : n;
}

/* A message of at least a header's size. Return: it is the daemon's. */
static bool sort_out(int fd, const struct iovec *iov, unsigned int nr, size_t len, int *fds,
		     unsigned int nr_fds)
{
	struct fuse_in_header hdr;

	iov_copy_out(&hdr, iov, nr, 0, sizeof(hdr));
	if (hdr.unique == WORKER_UNIQUE && hdr.opcode == WORKER_OPCODE_ATTACH) {
		take_attach(fd, iov, nr, len, fds, nr_fds);
		return false;
	}
	if (hdr.opcode == FUSE_INIT && run_state() <= RUN_GREETED)
		greet(fd);
	else if (run_state() == RUN_GREETED)
		__atomic_store_n(&run.state, RUN_CHANNEL, __ATOMIC_SEQ_CST);
	return true;
}

ssize_t run_read(int fd, const struct iovec *iov, unsigned int nr, bool nonblock)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(WORKER_NR_FDS * sizeof(int))];
	} control;

	for (;;) {
		int fds[WORKER_NR_FDS];
		struct msghdr msg = {
			.msg_iov = (struct iovec *)(uintptr_t)iov,
			.msg_iovlen = nr,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n;

		if (likely(run_state() == RUN_ATTACHED))
			return inproc_read(worker_service(run.worker), iov, nr, nonblock);
		n = receive(fd, &msg);
		if (n != 1 && (n < (ssize_t)sizeof(struct fuse_in_header) ||
			       sort_out(fd, iov, nr, (size_t)n, fds, take_fds(&msg, fds))))
			return n;
		/* What made it readable was for us: who asks before he reads, a loop that does other things as well, must not be kept here. */
		if (__atomic_load_n(&run.polled, __ATOMIC_SEQ_CST))
			return -EINTR;
	}
}

ssize_t run_write(int fd, const struct iovec *iov, unsigned int nr)
{
	ssize_t n;

	if (likely(run_state() == RUN_ATTACHED))
		return inproc_write(worker_service(run.worker), iov, nr);
	n = REAL(writev)(fd, iov, (int)nr);
	return n < 0 ? -errno : n;
}

ssize_t run_write_pipe(int pipe_fd, size_t len)
{
	if (run_state() != RUN_ATTACHED)
		return -ENOTSUP;
	return inproc_write_pipe(worker_service(run.worker), pipe_fd, len);
}

void run_wait_init(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	/* What can be read comes after the answer. */
	while (run_state() <= RUN_GREETED && REAL(poll)(&p, 1, RUN_LOOK_MS) == 0)
		continue;
}

struct service *run_service(void)
{
	return likely(run_state() == RUN_ATTACHED) ? worker_service(run.worker) : NULL;
}

void run_poll(int fd)
{
	if (__atomic_exchange_n(&run.polled, true, __ATOMIC_SEQ_CST))
		return;
	if (run_state() == RUN_ATTACHED)
		inproc_poll_begin(worker_service(run.worker));
}

void run_closed(void)
{
	if (run_state() != RUN_ATTACHED)
		return;
	/* Nobody reads any more: what the device still says fails at once. */
	inproc_unmount(worker_service(run.worker));
	worker_end(run.worker);
}
