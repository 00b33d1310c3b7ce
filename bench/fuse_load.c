/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loads a virtio-fs device over vhost-user as a guest would, without a guest.
 *
 * Usage: fuse_load SOCKET read|write|getattr FILE BLOCK_BYTES DEPTH SECONDS poll|event [CPU]
 * Keeps DEPTH requests under way on one queue; small blocks go to random places, blocks of 128 KiB and more to
 * consecutive ones. Prints requests per second. FILE is a path below the root of the device.
 *
 * A request has the segments that a Linux guest makes: header, arguments, pages of 4 KiB each.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "fuse/abi.h"
#include "vhost/client.h"

#define PAGE		4096
#define DEPTH_MAX	256
#define BLOCK_MAX	(1u << 20)
#define SEQUENTIAL_FROM (128u << 10)
#define REQUEST_QUEUE	1

struct slot {
	struct fuse_in_header hdr;
	union {
		struct fuse_init_in init;
		struct fuse_read_in read;
		struct fuse_write_in write;
		struct fuse_getattr_in getattr;
		struct fuse_open_in open;
		char name[256];
	} args;
	struct fuse_out_header out;
	union {
		struct fuse_init_out init;
		struct fuse_entry_out entry;
		struct fuse_attr_out attr;
		struct fuse_open_out open;
		struct fuse_write_out write;
	} reply;
};

struct load {
	struct vhost_client *client;
	const struct vhost_client_ring *ring;
	uint8_t *arena;
	size_t stride;
	size_t block;
	unsigned int depth;
	uint32_t opcode;
	bool busy_poll;
	uint64_t nodeid, fh, file_bytes, next_block, rng, unique;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "fuse_load: %s: %s\n", what, strerror(-err));
	exit(1);
}

static struct slot *slot_at(const struct load *l, unsigned int i)
{
	return (struct slot *)(l->arena + i * l->stride);
}

static uint8_t *slot_pages(const struct load *l, const struct slot *s)
{
	return (uint8_t *)s + round_up_to(sizeof(*s), (size_t)PAGE);
}

static unsigned int add_pages(struct iovec *iov, uint8_t *pages, size_t bytes)
{
	unsigned int n = 0;

	for (; bytes; n++) {
		iov[n] = (struct iovec){ pages, min_of(bytes, (size_t)PAGE) };
		pages += iov[n].iov_len;
		bytes -= iov[n].iov_len;
	}
	return n;
}

static void begin(struct load *l, struct slot *s, uint32_t opcode, uint64_t nodeid, size_t bytes)
{
	s->hdr = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(s->hdr) + bytes),
		.opcode = opcode,
		.unique = l->unique += 2,
		.nodeid = nodeid,
		.pid = 1,
	};
}

static void submit(struct load *l, struct slot *s, const struct iovec *iov, unsigned int out,
		   unsigned int in)
{
	int err = virtq_driver_add(l->ring->drv, iov, out, in, s);

	if (err < 0)
		die("cannot queue a request", err);
}

static void publish(struct load *l)
{
	if (virtq_driver_publish(l->ring->drv))
		fd_signal(l->ring->kick_fd);
}

static void wait_used(struct load *l)
{
	struct pollfd pfd = { .fd = l->ring->call_fd, .events = POLLIN };

	while (!virtq_driver_has_used(l->ring->drv)) {
		if (l->busy_poll) {
			cpu_relax();
			continue;
		}
		if (virtq_driver_call_enable(l->ring->drv))
			break;
		if (poll(&pfd, 1, 10000) <= 0)
			die("no answer", -ETIMEDOUT);
		if (fd_drain_signal(l->ring->call_fd) < 0)
			die("interrupt", -EIO);
	}
	if (!l->busy_poll)
		virtq_driver_call_disable(l->ring->drv);
}

static struct slot *complete(struct load *l)
{
	uint32_t written;
	void *cookie;
	struct slot *s;
	int n = virtq_driver_get(l->ring->drv, &cookie, &written);

	if (n == 0)
		return NULL;
	if (n < 0)
		die("the device broke the ring", n);
	s = cookie;
	if (written < sizeof(s->out) || s->out.len != written || s->out.unique != s->hdr.unique)
		die("malformed reply", -EPROTO);
	return s;
}

/* One request, waited for. */
static int call(struct load *l, uint32_t opcode, uint64_t nodeid, size_t arg_bytes,
		size_t reply_bytes)
{
	struct slot *s = slot_at(l, 0);
	struct iovec iov[4] = { { &s->hdr, sizeof(s->hdr) },
				{ &s->args, arg_bytes },
				{ &s->out, sizeof(s->out) },
				{ &s->reply, reply_bytes } };

	begin(l, s, opcode, nodeid, arg_bytes);
	submit(l, s, iov, 2, 2);
	publish(l);
	wait_used(l);
	if (complete(l) != s)
		die("wrong completion", -EPROTO);
	return s->out.error;
}

static void open_session(struct load *l)
{
	struct slot *s = slot_at(l, 0);
	int err;

	memset(&s->args, 0, sizeof(s->args));
	s->args.init = (struct fuse_init_in){
		.major = 7,
		.minor = 38,
		.max_readahead = 1 << 20,
		.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_INIT_EXT |
			 FUSE_PARALLEL_DIROPS | FUSE_NO_OPEN_SUPPORT | FUSE_ASYNC_DIO,
	};
	err = call(l, FUSE_INIT, 0, sizeof(s->args.init), sizeof(s->reply.init));
	if (err)
		die("INIT", err);
	if (l->opcode == FUSE_WRITE && s->reply.init.max_write < l->block)
		l->block = s->reply.init.max_write;
}

static void open_file(struct load *l, const char *path)
{
	struct slot *s = slot_at(l, 0);
	char *copy = strdup(path), *save = NULL;
	int err;

	l->nodeid = FUSE_ROOT_ID;
	for (char *name = strtok_r(copy, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		snprintf(s->args.name, sizeof(s->args.name), "%s", name);
		err = call(l, FUSE_LOOKUP, l->nodeid, strlen(s->args.name) + 1,
			   sizeof(s->reply.entry));
		if (err)
			die(name, err);
		l->nodeid = s->reply.entry.nodeid;
		l->file_bytes = s->reply.entry.attr.size;
	}
	free(copy);
	memset(&s->args, 0, sizeof(s->args));
	s->args.open.flags = l->opcode == FUSE_WRITE ? 2 : 0;
	err = call(l, FUSE_OPEN, l->nodeid, sizeof(s->args.open), sizeof(s->reply.open));
	if (err)
		die("OPEN", err);
	l->fh = s->reply.open.fh;
	if (l->file_bytes < l->block)
		die("file smaller than a block", -EINVAL);
}

static uint64_t pick_offset(struct load *l)
{
	uint64_t nr = l->file_bytes / l->block;

	if (l->block >= SEQUENTIAL_FROM)
		return l->next_block++ % nr * l->block;
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	return l->rng % nr * l->block;
}

static void send_one(struct load *l, struct slot *s)
{
	struct iovec iov[4 + BLOCK_MAX / PAGE];
	unsigned int n = 0, out;

	iov[n++] = (struct iovec){ &s->hdr, sizeof(s->hdr) };
	switch (l->opcode) {
	case FUSE_READ:
		s->args.read = (struct fuse_read_in){ .fh = l->fh,
						      .offset = pick_offset(l),
						      .size = (uint32_t)l->block };
		iov[n++] = (struct iovec){ &s->args.read, sizeof(s->args.read) };
		begin(l, s, FUSE_READ, l->nodeid, sizeof(s->args.read));
		out = n;
		iov[n++] = (struct iovec){ &s->out, sizeof(s->out) };
		n += add_pages(iov + n, slot_pages(l, s), l->block);
		break;
	case FUSE_WRITE:
		s->args.write = (struct fuse_write_in){ .fh = l->fh,
							.offset = pick_offset(l),
							.size = (uint32_t)l->block };
		iov[n++] = (struct iovec){ &s->args.write, sizeof(s->args.write) };
		n += add_pages(iov + n, slot_pages(l, s), l->block);
		begin(l, s, FUSE_WRITE, l->nodeid, sizeof(s->args.write) + l->block);
		out = n;
		iov[n++] = (struct iovec){ &s->out, sizeof(s->out) };
		iov[n++] = (struct iovec){ &s->reply.write, sizeof(s->reply.write) };
		break;
	default:
		s->args.getattr = (struct fuse_getattr_in){};
		iov[n++] = (struct iovec){ &s->args.getattr, sizeof(s->args.getattr) };
		begin(l, s, FUSE_GETATTR, l->nodeid, sizeof(s->args.getattr));
		out = n;
		iov[n++] = (struct iovec){ &s->out, sizeof(s->out) };
		iov[n++] = (struct iovec){ &s->reply.attr, sizeof(s->reply.attr) };
	}
	submit(l, s, iov, out, n - out);
}

static double run(struct load *l, uint64_t run_ns)
{
	uint64_t start = clock_now_ns(), nr = 0, end = start + run_ns;
	unsigned int out = l->depth;
	bool more = true;

	for (unsigned int i = 0; i < l->depth; i++)
		send_one(l, slot_at(l, i));
	publish(l);
	while (out) {
		struct slot *s;

		wait_used(l);
		while ((s = complete(l))) {
			if (s->out.error)
				die("request", s->out.error);
			nr++;
			/* The clock costs as much as a request: look now and then. */
			if (more && (nr % 64 == 0 || l->depth < 8))
				more = clock_now_ns() < end;
			if (more)
				send_one(l, s);
			else
				out--;
		}
		publish(l);
	}
	return (double)nr * 1e9 / (double)(clock_now_ns() - start);
}

static void connect_device(struct load *l, const char *path)
{
	struct vhost_client_config config = {
		.path = path,
		.nr_queues = 2,
		.queue_size = 1024,
		.format = VIRTQ_SPLIT,
		.event_idx = true,
		.indirect_max = 4 + BLOCK_MAX / PAGE,
	};
	const char *why;
	int err;

	l->stride = round_up_to(sizeof(struct slot), (size_t)PAGE) +
		    round_up_to(l->block, (size_t)PAGE);
	config.arena_bytes = l->stride * l->depth;
	err = vhost_client_new(&l->client, &config, &why);
	if (err < 0)
		die(why, err);
	l->ring = vhost_client_ring(l->client, REQUEST_QUEUE);
	l->arena = vhost_client_arena(l->client);
	memset(l->arena, 0x5a, config.arena_bytes);
	virtq_driver_call_disable(l->ring->drv);
}

static void pin(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(strtoul(cpu, NULL, 10), &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("sched_setaffinity", -errno);
}

int main(int argc, char **argv)
{
	struct load l = { .rng = 88172645463325252ull, .opcode = FUSE_GETATTR };

	if (argc < 8) {
		fprintf(stderr,
			"Usage: fuse_load SOCKET read|write|getattr FILE BLOCK DEPTH "
			"SECONDS poll|event [CPU]\n");
		return 2;
	}
	if (argc > 8)
		pin(argv[8]);
	if (strcmp(argv[2], "read") == 0)
		l.opcode = FUSE_READ;
	else if (strcmp(argv[2], "write") == 0)
		l.opcode = FUSE_WRITE;
	l.block = strtoul(argv[4], NULL, 10);
	l.depth = (unsigned int)strtoul(argv[5], NULL, 10);
	l.busy_poll = strcmp(argv[7], "poll") == 0;
	if (!l.block || l.block > BLOCK_MAX || !l.depth || l.depth > DEPTH_MAX)
		die("block or depth", -EINVAL);
	connect_device(&l, argv[1]);
	open_session(&l);
	open_file(&l, argv[3]);
	printf("%.1f\n", run(&l, (uint64_t)(strtod(argv[6], NULL) * 1e9)));
	vhost_client_free(l.client);
	return 0;
}
