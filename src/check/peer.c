/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection to the back-end: requests in any framing, and a close look at what comes back.
 *
 * Theory of operation: a slot is shared memory for one request: a readable part and a writable part, each followed by guard
 * bytes. A private copy of the readable part is kept. When the chain comes back, both are compared: a device
 * writes into the writable part alone.
 */
#include "check/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "check/check_impl.h"
#include "vhost/link.h"

#define GUARD_BYTES  64u
#define GUARD	     0xa5
#define PART_BYTES   (PEER_ROOM + GUARD_BYTES)
#define PIECE_BYTES  7u
#define SEGMENTS_MAX 512u
#define SPINS	     200u
#define SLICE_MS     5
#define LINUX_MINOR  45
/* What Linux 7.2 says over virtio-fs, without DAX. */
#define LINUX_FLAGS  UINT64_C(0x5fd7bfffffb)
#define INIT_OUT_MIN FUSE_COMPAT_22_INIT_OUT_SIZE
#define ERRNO_MAX    511

static void take_slots(struct peer *p)
{
	uint8_t *arena = vhost_client_arena(p->vhost);

	for (unsigned int i = 0; i < PEER_SLOTS; i++) {
		struct peer_slot *s = &p->slots[i];

		s->out = arena + (size_t)2 * i * PART_BYTES;
		s->in = s->out + PART_BYTES;
		s->sent = p->copies + (size_t)2 * i * PART_BYTES;
		s->back = s->sent + PART_BYTES;
	}
}

int peer_new(struct peer **ret_peer, const char *path, const struct peer_setup *setup,
	     struct peer_seen *seen, const char **ret_why)
{
	const struct vhost_client_config config = {
		.path = path,
		.nr_queues = setup->nr_queues,
		.queue_size = setup->queue_size,
		.format = setup->format,
		.event_idx = setup->event_idx,
		.indirect_max = setup->indirect ? 64 : 0,
		.arena_bytes = (size_t)2 * PEER_SLOTS * PART_BYTES,
		.watch_errors = true,
		.notifications = setup->notifications,
		.mem_slots = setup->mem_slots,
		.inflight = setup->inflight,
		.no_protocol = setup->no_protocol,
		.extra_protocol = setup->extra_protocol,
		.without_protocol = setup->without_protocol,
		.base = setup->base,
	};
	struct peer *p = calloc(1, sizeof(*p));
	int err;

	*ret_why = "no memory";
	if (!p)
		return -ENOMEM;
	p->setup = *setup;
	p->seen = seen;
	p->unique = 2;
	p->copies = malloc((size_t)2 * PEER_SLOTS * PART_BYTES);
	err = p->copies ? vhost_client_new(&p->vhost, &config, ret_why) : -ENOMEM;
	if (err == 0) {
		take_slots(p);
		p->setup.nr_queues = vhost_client_nr_queues(p->vhost);
		*ret_why = "INIT";
		err = setup->no_session
			      ? 0
			      : peer_init(p, vhost_client_notifies(p->vhost) ? NOTIFYING_FIRST
									     : FIRST_QUEUE);
	}
	if (err < 0) {
		peer_free(p);
		return err;
	}
	*ret_peer = p;
	return 0;
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	vhost_client_free(p->vhost);
	free(p->copies);
	free(p);
}

int peer_init(struct peer *p, unsigned int queue)
{
	const struct fuse_init_in in = {
		.major = FUSE_KERNEL_VERSION,
		.minor = LINUX_MINOR,
		.max_readahead = 128u << 10,
		.flags = (uint32_t)LINUX_FLAGS,
		.flags2 = (uint32_t)(LINUX_FLAGS >> 32),
	};
	struct ask ask = { .opcode = FUSE_INIT,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_init_out) };
	int err = peer_ask(p, queue, &ask);

	if (err < 0)
		return err;
	if (ask.error)
		return ask.error;
	memset(&p->init, 0, sizeof(p->init));
	memcpy(&p->init, ask.body, ask.got);
	if (ask.got < INIT_OUT_MIN || p->init.major != FUSE_KERNEL_VERSION) {
		snprintf(p->problem, sizeof(p->problem), "INIT reply of %u bytes, major %u",
			 ask.got, p->init.major);
		return -EPROTO;
	}
	p->flags = p->init.flags;
	if (p->flags & FUSE_INIT_EXT)
		p->flags |= (uint64_t)p->init.flags2 << 32;
	return 0;
}

static uint32_t put(uint8_t *to, uint32_t at, const void *from, uint32_t bytes)
{
	if (bytes)
		memcpy(to + at, from, bytes);
	return at + bytes;
}

static uint32_t fill_out(struct peer_slot *s, const struct ask *ask)
{
	struct fuse_in_header hdr = { .opcode = ask->opcode,
				      .unique = s->unique,
				      .nodeid = ask->nodeid,
				      .uid = getuid(),
				      .gid = getgid(),
				      .pid = 1 };
	uint32_t at = put(s->sent, sizeof(hdr), ask->args, ask->args_bytes);

	for (unsigned int i = 0; i < 2 && ask->name[i]; i++)
		at = put(s->sent, at, ask->name[i], (uint32_t)strlen(ask->name[i]) + 1);
	at = put(s->sent, at, ask->data, ask->data_bytes);
	hdr.len = at;
	hdr.total_extlen = (uint16_t)(ask->ext_bytes / 8);
	if (ask->swapped) {
		hdr.len = __builtin_bswap32(hdr.len);
		hdr.unique = __builtin_bswap64(hdr.unique);
		hdr.uid = __builtin_bswap32(hdr.uid);
		hdr.gid = __builtin_bswap32(hdr.gid);
		hdr.pid = __builtin_bswap32(hdr.pid);
	}
	put(s->sent, 0, &hdr, sizeof(hdr));
	memset(s->sent + at, GUARD, GUARD_BYTES);
	memcpy(s->out, s->sent, at + GUARD_BYTES);
	return at;
}

/* Cut @bytes at @data into segments of @piece bytes. */
static unsigned int cut(struct iovec *iov, uint8_t *data, uint32_t bytes, uint32_t piece)
{
	unsigned int n = 0;

	for (uint32_t at = 0; at < bytes; at += piece)
		iov[n++] = (struct iovec){ data + at, min_of(piece, bytes - at) };
	return n;
}

/* As Linux does: the header apart, the rest page by page. */
static unsigned int cut_linux(struct iovec *iov, uint8_t *data, uint32_t bytes, uint32_t header)
{
	unsigned int n = cut(iov, data, min_of(header, bytes), header);

	return bytes > header ? n + cut(iov + n, data + header, bytes - header, 4096) : n;
}

static unsigned int cut_part(struct iovec *iov, uint8_t *data, uint32_t bytes, uint32_t header,
			     enum peer_frame frame)
{
	switch (frame) {
	case FRAME_ONE:
		return cut(iov, data, bytes, UINT32_MAX / 2);
	case FRAME_ODD:
		return cut(iov, data, bytes, PIECE_BYTES);
	default:
		return cut_linux(iov, data, bytes, header);
	}
}

int peer_submit(struct peer *p, unsigned int queue, unsigned int slot, struct ask *ask)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, queue);
	bool table = vhost_client_features(p->vhost) & bit64(VIRTIO_F_RING_INDIRECT);
	struct peer_slot *s = &p->slots[slot];
	struct iovec iov[SEGMENTS_MAX];
	unsigned int nr_out, nr_in;
	int err;

	assert(!s->busy && queue < p->setup.nr_queues);
	s->unique = p->unique;
	s->out_bytes = fill_out(s, ask);
	s->in_bytes = ask->no_reply ? 0 : (uint32_t)sizeof(struct fuse_out_header) + ask->in_bytes;
	assert(s->out_bytes <= PEER_ROOM && s->in_bytes <= PEER_ROOM);
	memset(s->in, GUARD, s->in_bytes + GUARD_BYTES);
	nr_out = cut_part(iov, s->out, s->out_bytes, sizeof(struct fuse_in_header), ask->frame);
	nr_in = cut_part(iov + nr_out, s->in, s->in_bytes, sizeof(struct fuse_out_header),
			 ask->frame);
	assert(nr_out + nr_in <= SEGMENTS_MAX);
	err = virtq_driver_add(ring->drv, iov, nr_out, nr_in, s);
	if (err < 0) {
		snprintf(p->problem, sizeof(p->problem), "the ring is full");
		return err;
	}
	p->unique += 2;
	p->nr_desc[queue] += table ? 1 : nr_out + nr_in;
	s->ask = ask;
	s->queue = queue;
	s->busy = true;
	return 0;
}

void peer_kick(struct peer *p, unsigned int queue)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, queue);

	if (virtq_driver_publish(ring->drv))
		fd_signal(ring->kick_fd);
}

static bool all_are(const uint8_t *bytes, size_t nr, uint8_t value)
{
	for (size_t i = 0; i < nr; i++) {
		if (bytes[i] != value)
			return false;
	}
	return true;
}

static void look_for_stray_writes(struct peer *p, struct peer_slot *s)
{
	p->seen->nr_requests++;
	if (memcmp(s->out, s->sent, s->out_bytes) != 0)
		p->seen->nr_wrote_readable++;
	if (!all_are(s->out + s->out_bytes, GUARD_BYTES, GUARD) ||
	    !all_are(s->in + s->in_bytes, GUARD_BYTES, GUARD))
		p->seen->nr_wrote_outside++;
}

static int bad_answer(struct peer *p, const char *what, uint64_t got, uint64_t wanted)
{
	snprintf(p->problem, sizeof(p->problem), "%s %llu instead of %llu", what,
		 (unsigned long long)got, (unsigned long long)wanted);
	return -EPROTO;
}

int peer_give_buffers(struct peer *p, uint32_t bytes)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, NOTIFY_QUEUE);

	for (unsigned int i = 1; i < PEER_SLOTS; i++) {
		struct peer_slot *s = &p->slots[i];
		const struct iovec iov = { s->in, bytes };
		int err;

		assert(!s->busy && bytes <= PEER_ROOM);
		memset(s->in, GUARD, bytes + GUARD_BYTES);
		s->in_bytes = bytes;
		err = virtq_driver_add(ring->drv, &iov, 0, 1, s);
		if (err < 0)
			return err;
		s->busy = true;
	}
	peer_kick(p, NOTIFY_QUEUE);
	return 0;
}

/* What came in a buffer. Return: -EPROTO: it is none. */
static int look_at_notification(struct peer *p, const struct peer_slot *s, uint32_t written)
{
	struct fuse_out_header hdr;

	memcpy(&hdr, s->in, sizeof(hdr));
	if (written < sizeof(hdr) || written > s->in_bytes || hdr.len != written)
		return bad_answer(p, "a notification's length", hdr.len, written);
	if (hdr.unique)
		return bad_answer(p, "a notification's unique", hdr.unique, 0);
	if (hdr.error <= 0 || hdr.error > FUSE_NOTIFY_PRUNE) {
		snprintf(p->problem, sizeof(p->problem), "%d as a notification's code", hdr.error);
		return -EPROTO;
	}
	if (!all_are(s->in + written, s->in_bytes + GUARD_BYTES - written, GUARD))
		return bad_answer(p, "bytes behind a notification", 1, 0);
	return 0;
}

int peer_take_buffers(struct peer *p)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, NOTIFY_QUEUE);
	uint32_t written = 0;
	void *cookie = NULL;
	int nr = 0, err;

	while ((err = virtq_driver_get(ring->drv, &cookie, &written)) > 0) {
		struct peer_slot *s = cookie;

		s->busy = false;
		err = look_at_notification(p, s, written);
		if (err < 0)
			return err;
		nr++;
	}
	if (err < 0)
		return bad_answer(p, "a used element of queue", NOTIFY_QUEUE, 0);
	for (unsigned int i = 1; i < PEER_SLOTS; i++) {
		const struct peer_slot *s = &p->slots[i];

		if (s->busy && !all_are(s->in, s->in_bytes + GUARD_BYTES, GUARD))
			return bad_answer(p, "bytes in a buffer that it has not given back", 1, 0);
	}
	return nr;
}

static int take_answer(struct peer *p, struct peer_slot *s)
{
	struct ask *ask = s->ask;
	struct fuse_out_header hdr;

	if (ask->no_reply)
		return s->written ? bad_answer(p, "used length", s->written, 0) : 0;
	if (s->written < sizeof(hdr)) {
		p->seen->nr_wrong_length++;
		return bad_answer(p, "used length", s->written, sizeof(hdr));
	}
	memcpy(s->back, s->in, s->written);
	memcpy(&hdr, s->back, sizeof(hdr));
	if (ask->swapped && hdr.len == s->written) {
		snprintf(p->problem, sizeof(p->problem), "a reply in this machine's byte order");
		return -EPROTO;
	}
	if (ask->swapped) {
		hdr.len = __builtin_bswap32(hdr.len);
		hdr.error = (int32_t)__builtin_bswap32((uint32_t)hdr.error);
		hdr.unique = __builtin_bswap64(hdr.unique);
	}
	if (hdr.len != s->written) {
		/* Without a common byte order the length means nothing. */
		p->seen->nr_wrong_length += !ask->swapped;
		return bad_answer(p, "used length", s->written, hdr.len);
	}
	if (hdr.unique != s->unique)
		return bad_answer(p, "unique", hdr.unique, s->unique);
	ask->error = hdr.error;
	ask->got = hdr.len - (uint32_t)sizeof(hdr);
	ask->body = s->back + sizeof(hdr);
	if (hdr.error > 0 || hdr.error < -ERRNO_MAX) {
		snprintf(p->problem, sizeof(p->problem), "%d as an error", hdr.error);
		return -EPROTO;
	}
	if (hdr.error && ask->got)
		return bad_answer(p, "bytes with an error:", ask->got, 0);
	if (!hdr.error && ask->exact && ask->got != ask->in_bytes)
		return bad_answer(p, "reply of", ask->got, ask->in_bytes);
	return 0;
}

bool peer_is_gone(const struct peer *p)
{
	struct pollfd pfd = { .fd = vhost_client_socket(p->vhost), .events = POLLIN };

	/* Nothing is asked at this point: what there is to read is the end. */
	return poll(&pfd, 1, 0) > 0;
}

static int wait_used(struct peer *p, unsigned int queue, int timeout_ms)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, queue);
	uint64_t end = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

	for (unsigned int i = 0; !virtq_driver_has_used(ring->drv); i++) {
		struct pollfd pfd = { .fd = ring->call_fd, .events = POLLIN };

		if (i < SPINS) {
			cpu_relax();
			continue;
		}
		/* A device that forgets to interrupt is found by a rule of its own: look again soon in any case. */
		if (virtq_driver_call_enable(ring->drv))
			break;
		if (poll(&pfd, 1, SLICE_MS) > 0 && fd_drain_signal(ring->call_fd) < 0)
			return -EPIPE;
		if (virtq_driver_has_used(ring->drv))
			break;
		if (peer_is_gone(p)) {
			snprintf(p->problem, sizeof(p->problem), "it closed the connection");
			return -EPIPE;
		}
		if (clock_now_ns() > end) {
			snprintf(p->problem, sizeof(p->problem), "no answer within %d ms",
				 timeout_ms);
			return -ETIMEDOUT;
		}
	}
	return 0;
}

int peer_wait(struct peer *p, unsigned int queue, int timeout_ms, unsigned int *ret_slot)
{
	const struct vhost_client_ring *ring = vhost_client_ring(p->vhost, queue);
	struct peer_slot *s;
	uint32_t written;
	void *cookie;
	int err = wait_used(p, queue, timeout_ms);

	if (err < 0)
		return err;
	err = virtq_driver_get(ring->drv, &cookie, &written);
	if (err <= 0) {
		snprintf(p->problem, sizeof(p->problem),
			 "a used element that names no chain, or too many bytes");
		return -EBADMSG;
	}
	s = cookie;
	s->busy = false;
	s->written = written;
	*ret_slot = (unsigned int)(s - p->slots);
	look_for_stray_writes(p, s);
	return take_answer(p, s);
}

int peer_ask(struct peer *p, unsigned int queue, struct ask *ask)
{
	unsigned int slot;
	int err = peer_submit(p, queue, 0, ask);

	if (err < 0)
		return err;
	peer_kick(p, queue);
	return peer_wait(p, queue, ANSWER_MS, &slot);
}

int peer_works(struct peer *p, unsigned int queue)
{
	const struct fuse_getattr_in in = {};
	struct ask ask = { .opcode = FUSE_GETATTR,
			   .nodeid = FUSE_ROOT_ID,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_attr_out),
			   .exact = true };
	int err = peer_ask(p, queue, &ask);

	return err < 0 ? err : ask.error;
}

int peer_forget(struct peer *p, uint64_t nodeid, uint64_t nlookup)
{
	const struct fuse_forget_in in = { .nlookup = nlookup };
	struct ask ask = { .opcode = FUSE_FORGET,
			   .nodeid = nodeid,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .no_reply = true };

	return peer_ask(p, HIPRIO, &ask);
}

int peer_tell(struct peer *p, uint32_t request, const void *payload, size_t size, int fd)
{
	int sock = vhost_client_socket(p->vhost);
	bool ack =
		vhost_client_protocol_features(p->vhost) & bit64(VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct vhost_msg reply;
	int err =
		vhost_link_send(sock, request, ack ? VHOST_FLAG_NEED_REPLY : 0, payload, size, fd);

	if (err < 0 || !ack)
		return err;
	err = vhost_link_receive(sock, &reply, ANSWER_MS);
	if (err < 0)
		return err;
	vhost_msg_close_fds(&reply);
	if (reply.header.request != request || reply.header.size != sizeof(uint64_t))
		return -EPROTO;
	return reply.payload.u64 != 0;
}

bool peer_answers(struct peer *p)
{
	uint64_t features;

	return vhost_link_ask(vhost_client_socket(p->vhost), VHOST_USER_GET_FEATURES, NULL, 0,
			      &features, sizeof(features), ANSWER_MS) == 0;
}
