/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Malformed vhost-user messages, and a front-end that takes away what it gave.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "check/raw.h"
#include "vhost/link.h"

#define RING_SIZE   64u
#define SETTLE_MS   60
#define HIGH	    (UINT64_C(1) << 63)
#define VERSION	    VHOST_FLAG_VERSION
#define NO_QUEUE    1000u
#define MESSAGES    5000u
#define CONNECTIONS 200u

/* What goes along with a message. */
enum fd_kind {
	NO_FD,
	FD_MEMORY,
	FD_EVENT,
	FD_PIPE,
	FD_DIR,
	FD_NULL,
	FD_SOCKET,
	FD_MANY
};

struct bad_message {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* in the header; 0: what is there; NONE: really 0 */
	const void *payload;
	uint32_t payload_bytes;
	enum fd_kind fd;
	bool set_up; /* behind all messages of a start, while rings run */
	uint64_t protocol; /* features to negotiate first */
};

#define NONE UINT32_MAX

static int make_fd(enum fd_kind kind)
{
	int pair[2] = { -1, -1 };

	switch (kind) {
	case FD_MEMORY:
		return memfd_new("fusewire-check", 65536);
	case FD_EVENT:
	case FD_MANY:
		return eventfd_new();
	case FD_DIR:
		return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case FD_NULL:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case FD_PIPE:
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -errno;
		break;
	case FD_SOCKET:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return -errno;
		break;
	default:
		return -1;
	}
	close(pair[0]);
	return pair[1];
}

/* As it is, without the checks of vhost_send(). */
static int send_message(int sock, const struct bad_message *bad)
{
	const struct vhost_header header = {
		.request = bad->request,
		.flags = bad->flags ? bad->flags : VERSION,
		.size = bad->size == NONE ? 0
			: bad->size	  ? bad->size
					  : bad->payload_bytes,
	};
	union {
		char buf[CMSG_SPACE(sizeof(int) * 250)];
		struct cmsghdr align;
	} control = {};
	struct iovec iov[2] = { { (void *)(uintptr_t)&header, sizeof(header) },
				{ (void *)(uintptr_t)bad->payload, bad->payload_bytes } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t nr = bad->fd == FD_MANY ? 250 : bad->fd == NO_FD ? 0 : 1;
	int fd = make_fd(bad->fd), err = 0;

	for (size_t i = 0; i < nr && fd >= 0; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &fd, sizeof(fd));
	if (nr && fd >= 0) {
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nr * sizeof(int));
	}
	if (sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		err = -errno;
	close_fd(&fd);
	return err;
}

/* What comes of it within a moment: an answer, the end of the connection, or nothing. */
static const char *settle(int sock)
{
	struct vhost_msg reply = {};
	int err = vhost_link_receive(sock, &reply, SETTLE_MS);

	if (err == 0)
		vhost_msg_close_fds(&reply);
	return err == 0 ? "answered" : err == -ETIMEDOUT ? "no answer" : "connection closed";
}

static struct peer *vhost_victim(struct check *c, uint64_t protocol)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .extra_protocol = protocol };

	return check_victim(c, &setup);
}

static enum check_status run_message(struct check *c, uint64_t arg)
{
	const struct bad_message *bad = c->rule->data;
	struct peer *p = NULL;
	const char *reaction;
	int sock;

	if (bad->protocol & ~c->report->protocol_features)
		return check_end(c, CHECK_NOT_OFFERED, "%s", "");
	if (bad->set_up) {
		p = vhost_victim(c, bad->protocol);
		sock = p ? vhost_client_socket(p->vhost) : -1;
	} else {
		sock = check_link(c);
		if (sock >= 0 && bad->protocol &&
		    vhost_link_send(sock, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &bad->protocol, 8,
				    -1) < 0)
			close_fd(&sock);
	}
	if (sock < 0)
		return check_no_peer(c);
	reaction = send_message(sock, bad) < 0 ? "not taken" : settle(sock);
	if (!p)
		close_fd(&sock);
	return check_survived(c, p, reaction);
}

/* A message of which @bytes arrive, and then the end. */
static enum check_status run_cut(struct check *c, uint64_t bytes)
{
	const struct {
		struct vhost_header header;
		struct vhost_mem_table table;
	} message = { .header = { VHOST_USER_SET_MEM_TABLE, VERSION, sizeof(message.table) } };
	int sock = check_link(c);

	if (sock < 0)
		return check_no_peer(c);
	if (send(sock, &message, (size_t)bytes, MSG_NOSIGNAL) < 0)
		return check_end(c, CHECK_NOT_CHECKED, "send: %s", strerror(errno));
	close(sock);
	return check_survived(c, NULL, "cut off");
}

static enum check_status run_noise(struct check *c, uint64_t seed)
{
	unsigned int state = (unsigned int)seed;
	int sock = check_link(c);
	uint8_t noise[4096];

	if (sock < 0)
		return check_no_peer(c);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)rand_r(&state);
	/* The first version bits are right, so that more than a glance is spent on it. */
	noise[4] = VERSION;
	if (send(sock, noise, sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return check_end(c, CHECK_NOT_CHECKED, "send: %s", strerror(errno));
	poll(NULL, 0, 10);
	close(sock);
	return check_survived(c, NULL, "noise");
}

/* Questions without end, and nobody reads the answers. */
static enum check_status run_unread(struct check *c, uint64_t arg)
{
	int sock = check_link(c);

	if (sock < 0)
		return check_no_peer(c);
	for (unsigned int i = 0; i < MESSAGES; i++) {
		if (vhost_link_send(sock, VHOST_USER_GET_FEATURES, 0, NULL, 0, -1) < 0)
			break;
	}
	poll(NULL, 0, 20);
	close(sock);
	return check_survived(c, NULL, "not read");
}

static enum check_status run_connections(struct check *c, uint64_t arg)
{
	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		int sock = vhost_link_connect(c->config->path, SETTLE_MS);

		close_fd(&sock);
	}
	return check_survived(c, NULL, "nothing to answer");
}

/* A ring whose descriptor of any kind is one of the wrong sort, or gone. */
static enum check_status run_ring_fd(struct check *c, uint64_t request)
{
	struct peer *p = vhost_victim(c, 0);
	autoclose int fd = make_fd(FD_PIPE);
	uint64_t index = FIRST_QUEUE;
	int err;

	if (!p)
		return check_no_peer(c);
	/* A pipe whose reader is gone: who writes into it gets SIGPIPE or EPIPE. */
	err = peer_tell(p, (uint32_t)request, &index, 8, fd);
	if (!err && peer_works(p, FIRST_QUEUE) == 0)
		return check_survived(c, p, "the ring goes on");
	return check_survived(c, p, err ? "refused" : "the ring stands still");
}

enum take {
	TAKE_EMPTY_TABLE,
	TAKE_OTHER_PLACE
};

/* Memory is taken away under running rings, and a request is made in what was. */
static enum check_status run_take_memory(struct check *c, uint64_t how)
{
	struct peer *p = vhost_victim(c, 0);
	struct vhost_mem_table table = {};
	struct vhost_region region;
	const char *reaction;
	struct raw r;
	int fd, err = 0;

	if (!p)
		return check_no_peer(c);
	raw_begin(&r, p, FIRST_QUEUE);
	raw_desc(&r, 0, r.out, r.out_bytes, RING_DESC_NEXT, 1);
	raw_desc(&r, 1, r.in, r.in_bytes, RING_DESC_WRITE, 0);
	raw_offer(&r, 0);
	fd = vhost_client_memory(p->vhost, &region);
	if (how == TAKE_EMPTY_TABLE) {
		err = peer_tell(p, VHOST_USER_SET_MEM_TABLE, &table,
				offsetof(struct vhost_mem_table, regions), -1);
	} else if (how == TAKE_OTHER_PLACE) {
		table.nr = 1;
		table.regions[0] = region;
		table.regions[0].gpa += region.size;
		table.regions[0].user_addr += region.size;
		err = peer_tell(
			p, VHOST_USER_SET_MEM_TABLE, &table,
			offsetof(struct vhost_mem_table, regions) + sizeof(table.regions[0]), fd);
	}
	raw_publish(&r);
	reaction = err ? "refused" : raw_settle(&r);
	return check_survived(c, p, reaction);
}

/* The file behind the memory becomes shorter: who touches it then gets SIGBUS. */
static enum check_status run_truncate(struct check *c, uint64_t arg)
{
	autoclose int fd = memfd_create("fusewire-check", MFD_CLOEXEC);
	struct vhost_mem_table table = { .nr = 1 };
	struct vhost_vring_state num = { 0, 4 }, base = {}, on = { 0, 1 };
	struct vhost_vring_addr addr = { .desc = 0x10000, .avail = 0x11000, .used = 0x12000 };
	uint64_t features = bit64(32), zero = 0;
	autoclose int kick = eventfd_new();
	int sock = check_link(c), err;

	if (sock < 0)
		return check_no_peer(c);
	table.regions[0] = (struct vhost_region){ .size = 0x4000, .user_addr = 0x10000 };
	features |= c->report->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES);
	err = fd < 0 || kick < 0 || ftruncate(fd, 0x4000) < 0;
	err = err ? err : vhost_link_send(sock, VHOST_USER_SET_FEATURES, 0, &features, 8, -1);
	err = err ? err : vhost_link_send(sock, VHOST_USER_SET_MEM_TABLE, 0, &table, 40, fd);
	err = err ? err : vhost_link_send(sock, VHOST_USER_SET_VRING_NUM, 0, &num, 8, -1);
	err = err ? err : vhost_link_send(sock, VHOST_USER_SET_VRING_BASE, 0, &base, 8, -1);
	err = err ? err
		  : vhost_link_send(sock, VHOST_USER_SET_VRING_ADDR, 0, &addr, sizeof(addr), -1);
	err = err ? err : vhost_link_send(sock, VHOST_USER_SET_VRING_KICK, 0, &zero, 8, kick);
	if (features & bit64(VHOST_USER_F_PROTOCOL_FEATURES))
		err = err ? err : vhost_link_send(sock, VHOST_USER_SET_VRING_ENABLE, 0, &on, 8, -1);
	/* All of it was taken when the last one is answered. */
	err = err ? err
		  : vhost_link_ask(sock, VHOST_USER_GET_FEATURES, NULL, 0, &features, 8, ANSWER_MS);
	if (err || ftruncate(fd, 0) < 0) {
		close(sock);
		return check_survived(c, NULL, "refused");
	}
	for (unsigned int i = 0; i < 5; i++) {
		fd_signal(kick);
		poll(NULL, 0, 5);
	}
	close(sock);
	return check_survived(c, NULL, "truncated");
}

/* A ring where none can be, with all that a start needs. */
static enum check_status run_bad_ring(struct check *c, uint64_t where)
{
	struct peer *p = vhost_victim(c, 0);
	struct vhost_vring_addr addr = { .index = FIRST_QUEUE };
	struct vhost_vring_state state = { .index = FIRST_QUEUE };
	struct vhost_region region;
	struct vhost_vring_state got;
	uint64_t index = FIRST_QUEUE;
	int err;

	if (!p)
		return check_no_peer(c);
	vhost_client_memory(p->vhost, &region);
	err = vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_VRING_BASE, &state,
			     sizeof(state), &got, sizeof(got), ANSWER_MS);
	addr.desc = addr.avail = addr.used = where < HIGH ? region.user_addr + where : where;
	if (err == 0)
		err = peer_tell(p, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	if (err == 0)
		err = peer_tell(p, VHOST_USER_SET_VRING_KICK, &index, 8,
				vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	fd_signal(vhost_client_ring(p->vhost, FIRST_QUEUE)->kick_fd);
	poll(NULL, 0, 10);
	return check_survived(c, p, err ? "refused" : "taken");
}

/* An in-flight record full of nonsense, and rings that start with it. */
static enum check_status run_bad_record(struct check *c, uint64_t byte)
{
	const uint64_t feature = bit64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
	const struct vhost_inflight record = { .mmap_size = 65536,
					       .nr_queues = 2,
					       .queue_size = RING_SIZE };
	struct vhost_vring_state state = { .index = FIRST_QUEUE }, got;
	autoclose int fd = memfd_new("fusewire-check", 65536);
	struct peer *p;
	void *map;
	int err;

	if (!(c->report->protocol_features & feature))
		return check_end(c, CHECK_NOT_OFFERED, "%s", "");
	p = vhost_victim(c, feature);
	if (!p)
		return check_no_peer(c);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return check_end(c, CHECK_NOT_CHECKED, "no memory");
	memset(map, (int)byte, 65536);
	/* The version and the number of descriptors are right. */
	memcpy((uint8_t *)map + 8, &(const uint16_t[]){ 1, RING_SIZE }, 4);
	munmap(map, 65536);
	err = vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_VRING_BASE, &state,
			     sizeof(state), &got, sizeof(got), ANSWER_MS);
	state.index = HIPRIO;
	if (err == 0)
		err = vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_VRING_BASE,
				     &state, sizeof(state), &got, sizeof(got), ANSWER_MS);
	if (err == 0)
		err = peer_tell(p, VHOST_USER_SET_INFLIGHT_FD, &record, sizeof(record), fd);
	if (err == 0)
		err = vhost_client_start_ring(p->vhost, FIRST_QUEUE);
	return check_survived(c, p, err ? "refused" : "taken");
}

#define KIND(clause, what, fn, arg)                                              \
	{                                                                        \
		"hostile: vhost-user", clause, what, TURN_HOSTILE, fn, arg, NULL \
	}
#define MESSAGE(req, what, ...)                                                  \
	{                                                                        \
		"hostile: vhost-user", #req, what, TURN_HOSTILE, run_message, 0, \
			&(const struct bad_message)                              \
		{                                                                \
			.request = VHOST_USER_##req, __VA_ARGS__                 \
		}                                                                \
	}
#define NUMBER(what, nr, ...)                                                        \
	{                                                                            \
		"hostile: vhost-user", "Header", what, TURN_HOSTILE, run_message, 0, \
			&(const struct bad_message)                                  \
		{                                                                    \
			.request = (nr), __VA_ARGS__                                 \
		}                                                                    \
	}
#define PAYLOAD(type, ...) \
	.payload = &(const struct type){ __VA_ARGS__ }, .payload_bytes = sizeof(struct type)
#define U64(v)	    .payload = &(const uint64_t){ v }, .payload_bytes = 8
#define STATE(i, n) PAYLOAD(vhost_vring_state, i, n)
#define RUNNING	    .set_up = true
#define WITH(f)	    .protocol = bit64(VHOST_USER_PROTOCOL_F_##f)
#define REGION(...) PAYLOAD(vhost_mem_table, .nr = 1, .regions = { { __VA_ARGS__ } })

/* clang-format off */
static const struct check_rule rules[] = {
	NUMBER("version 0", VHOST_USER_GET_FEATURES, .flags = 8),
	NUMBER("version 3", VHOST_USER_GET_FEATURES, .flags = 3),
	NUMBER("a reply where a request must be", VHOST_USER_GET_FEATURES, .flags = VERSION | VHOST_FLAG_REPLY),
	NUMBER("a payload of 4 GiB - 1", VHOST_USER_SET_FEATURES, .size = UINT32_MAX - 1, U64(0)),
	NUMBER("request 0", 0, U64(0)),
	NUMBER("request 200", 200, U64(0)),
	NUMBER("request 2^32 - 1", UINT32_MAX, U64(0)),
	NUMBER("250 descriptors", VHOST_USER_GET_FEATURES, .fd = FD_MANY),
	NUMBER("a descriptor that nobody wants", VHOST_USER_SET_OWNER, .fd = FD_EVENT),
	KIND("Header", "5 bytes, then the end", run_cut, 5),
	KIND("Header", "a header, then the end", run_cut, 12),
	KIND("Header", "half of a payload, then the end", run_cut, 100),
	KIND("Header", "random bytes", run_noise, 1),
	KIND("Header", "random bytes, others", run_noise, 2),
	KIND("Header", "5000 questions, and nobody reads the answers", run_unread, 0),
	KIND("Communication", "200 connections that say nothing", run_connections, 0),
	MESSAGE(GET_FEATURES, "with a payload", U64(0)),
	MESSAGE(SET_FEATURES, "all 64 bits", U64(UINT64_MAX)),
	MESSAGE(SET_FEATURES, "no payload", .size = NONE),
	MESSAGE(SET_FEATURES, "all 64 bits, while rings run", U64(UINT64_MAX), RUNNING),
	MESSAGE(SET_PROTOCOL_FEATURES, "all 64 bits", U64(UINT64_MAX)),
	MESSAGE(SET_MEM_TABLE, "9 regions", PAYLOAD(vhost_mem_table, .nr = 9), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "4294967295 regions", PAYLOAD(vhost_mem_table, .nr = UINT32_MAX), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a region without a descriptor", REGION(.size = 65536), RUNNING),
	MESSAGE(SET_MEM_TABLE, "a region of no bytes", REGION(.size = 0), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a region longer than its file", REGION(.size = 1u << 30), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a region of 2^63 bytes", REGION(.size = HIGH), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a region over 2^64", REGION(.gpa = UINT64_MAX - 4095, .size = 65536), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "an offset over 2^64", REGION(.size = 65536, .mmap_offset = UINT64_MAX - 4095), .fd = FD_MEMORY, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a pipe as memory", REGION(.size = 65536), .fd = FD_PIPE, RUNNING),
	MESSAGE(SET_MEM_TABLE, "a directory as memory", REGION(.size = 65536), .fd = FD_DIR, RUNNING),
	KIND("SET_MEM_TABLE", "no region, while rings run", run_take_memory, TAKE_EMPTY_TABLE),
	KIND("SET_MEM_TABLE", "another place, while rings run", run_take_memory, TAKE_OTHER_PLACE),
	KIND("Memory access", "the file behind a ring is truncated", run_truncate, 0),
	MESSAGE(SET_VRING_NUM, "size 0", STATE(1, 0), RUNNING),
	MESSAGE(SET_VRING_NUM, "size 3 of a split ring", STATE(1, 3), RUNNING),
	MESSAGE(SET_VRING_NUM, "size 2^32 - 1", STATE(1, UINT32_MAX), RUNNING),
	MESSAGE(SET_VRING_NUM, "queue 1000", STATE(NO_QUEUE, 64), RUNNING),
	MESSAGE(SET_VRING_NUM, "queue 2^32 - 1", STATE(UINT32_MAX, 64), RUNNING),
	MESSAGE(SET_VRING_BASE, "65536, while the ring runs", STATE(1, 65536), RUNNING),
	MESSAGE(SET_VRING_BASE, "queue 1000", STATE(NO_QUEUE, 0), RUNNING),
	MESSAGE(GET_VRING_BASE, "queue 1000", STATE(NO_QUEUE, 0), RUNNING),
	MESSAGE(SET_VRING_ADDR, "queue 1000", PAYLOAD(vhost_vring_addr, .index = NO_QUEUE), RUNNING),
	MESSAGE(SET_VRING_ADDR, "without memory", PAYLOAD(vhost_vring_addr, .index = 0, .desc = 4096, .used = 8192, .avail = 12288)),
	KIND("SET_VRING_ADDR", "a ring at its front-end's address 2^63", run_bad_ring, HIGH),
	KIND("SET_VRING_ADDR", "a ring over 2^64", run_bad_ring, UINT64_MAX - 15),
	KIND("SET_VRING_ADDR", "a misaligned ring", run_bad_ring, 1),
	KIND("SET_VRING_ADDR", "a ring behind the memory", run_bad_ring, UINT64_C(1) << 32),
	MESSAGE(SET_VRING_KICK, "before there is memory", U64(0), .fd = FD_EVENT),
	MESSAGE(SET_VRING_KICK, "queue 255", U64(255), .fd = FD_EVENT, RUNNING),
	MESSAGE(SET_VRING_KICK, "a descriptor that does not come", U64(1), RUNNING),
	MESSAGE(SET_VRING_KICK, "/dev/null, which is always ready", U64(1), .fd = FD_NULL, RUNNING),
	MESSAGE(SET_VRING_KICK, "a directory", U64(1), .fd = FD_DIR, RUNNING),
	KIND("SET_VRING_KICK", "a pipe whose other end is gone", run_ring_fd, VHOST_USER_SET_VRING_KICK),
	MESSAGE(SET_VRING_CALL, "queue 255", U64(255), .fd = FD_EVENT, RUNNING),
	MESSAGE(SET_VRING_CALL, "memory", U64(1), .fd = FD_MEMORY, RUNNING),
	KIND("SET_VRING_CALL", "a pipe that nobody reads", run_ring_fd, VHOST_USER_SET_VRING_CALL),
	KIND("SET_VRING_ERR", "a pipe that nobody reads", run_ring_fd, VHOST_USER_SET_VRING_ERR),
	MESSAGE(SET_VRING_ENABLE, "2", STATE(1, 2), RUNNING),
	MESSAGE(SET_VRING_ENABLE, "queue 1000", STATE(NO_QUEUE, 1), RUNNING),
	MESSAGE(GET_CONFIG, "offset 2^32 - 1", PAYLOAD(vhost_config, .offset = UINT32_MAX, .size = 256), WITH(CONFIG)),
	MESSAGE(GET_CONFIG, "size 2^32 - 1", PAYLOAD(vhost_config, .size = UINT32_MAX), WITH(CONFIG)),
	MESSAGE(SET_CONFIG, "a field that cannot be written", PAYLOAD(vhost_config, .size = 40), WITH(CONFIG)),
	MESSAGE(SET_CONFIG, "more bytes than are there", .payload = &(const struct vhost_config){ .size = 256 }, .payload_bytes = 20, WITH(CONFIG)),
	MESSAGE(SET_LOG_BASE, "size 2^64 - 1", PAYLOAD(vhost_log, .size = UINT64_MAX), .fd = FD_MEMORY, WITH(LOG_SHMFD), RUNNING),
	MESSAGE(SET_LOG_BASE, "offset behind the file", PAYLOAD(vhost_log, .size = 4096, .offset = HIGH), .fd = FD_MEMORY, WITH(LOG_SHMFD), RUNNING),
	MESSAGE(SET_LOG_BASE, "no descriptor", PAYLOAD(vhost_log, .size = 4096), WITH(LOG_SHMFD), RUNNING),
	MESSAGE(SET_BACKEND_REQ_FD, "no descriptor", .size = NONE, WITH(BACKEND_REQ)),
	MESSAGE(SET_BACKEND_REQ_FD, "memory", .size = NONE, .fd = FD_MEMORY, WITH(BACKEND_REQ)),
	MESSAGE(SET_BACKEND_REQ_FD, "a socket whose other end is gone", .size = NONE, .fd = FD_SOCKET, WITH(BACKEND_REQ)),
	MESSAGE(GET_INFLIGHT_FD, "65535 queues of 65535", PAYLOAD(vhost_inflight, .nr_queues = 65535, .queue_size = 65535), WITH(INFLIGHT_SHMFD)),
	MESSAGE(SET_INFLIGHT_FD, "a record of 2^63 bytes", PAYLOAD(vhost_inflight, .mmap_size = HIGH, .nr_queues = 2, .queue_size = 64), .fd = FD_MEMORY, WITH(INFLIGHT_SHMFD)),
	MESSAGE(SET_INFLIGHT_FD, "a record behind its file", PAYLOAD(vhost_inflight, .mmap_size = 65536, .mmap_offset = HIGH, .nr_queues = 2, .queue_size = 64), .fd = FD_MEMORY, WITH(INFLIGHT_SHMFD)),
	KIND("SET_INFLIGHT_FD", "a record of zeros with a version", run_bad_record, 0),
	KIND("SET_INFLIGHT_FD", "a record in which all is under way", run_bad_record, 1),
	KIND("SET_INFLIGHT_FD", "a record of ones", run_bad_record, 255),
	MESSAGE(ADD_MEM_REG, "no descriptor", PAYLOAD(vhost_mem_reg, .region = { .size = 4096 }), WITH(CONFIGURE_MEM_SLOTS), RUNNING),
	MESSAGE(ADD_MEM_REG, "2^63 bytes", PAYLOAD(vhost_mem_reg, .region = { .size = HIGH }), .fd = FD_MEMORY, WITH(CONFIGURE_MEM_SLOTS), RUNNING),
	MESSAGE(REM_MEM_REG, "a region that is not there", PAYLOAD(vhost_mem_reg, .region = { .gpa = 1, .size = 4096 }), WITH(CONFIGURE_MEM_SLOTS), RUNNING),
	MESSAGE(SET_STATUS, "2^64 - 1", U64(UINT64_MAX), WITH(STATUS), RUNNING),
	MESSAGE(RESET_OWNER, "while rings run", .size = NONE, RUNNING),
	MESSAGE(IOTLB_MSG, "of a feature that was not negotiated", U64(0)),
	MESSAGE(POSTCOPY_ADVISE, "of a feature that was not negotiated", .size = NONE),
	MESSAGE(SET_DEVICE_STATE_FD, "of a feature that was not negotiated", U64(0), .fd = FD_PIPE),
	MESSAGE(VRING_KICK, "of a feature that was not negotiated", STATE(1, 0), RUNNING),
};
/* clang-format on */

const struct check_table check_hostile_vhost = { rules, array_size(rules) };
