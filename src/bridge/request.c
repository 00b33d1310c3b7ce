/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One request's way: from /dev/fuse into a slot of shared memory, to the device, and its reply back.
 *
 * Theory of operation. A request's kind is known only when it was read, so each is read into a large slot, the
 * landing. A request that is small, with a small reply, moves to a small slot (a copy of some hundred bytes) and the
 * landing serves again: hundreds of requests may be under way while large slots, which a megabyte of payload needs,
 * are few. Headers lie so that payload begins at a page.
 *
 * Where only the reply is large (READ), the last free large slot stays the landing, and the request waits in a small slot until
 * another is given back: what is read after it may be small, and goes past. A large request (WRITE) takes the landing itself;
 * then nothing is read until the device gives a slot back. If others wait for that, too, they and the landing take turns.
 *
 * The slots are shared with the device, which may write to them at any time. The header is copied before it is looked
 * at; a size in the arguments is read once and bounded by the slot. Of a reply, the header that was checked is what the kernel gets.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "bridge/bridge_impl.h"

#define OUT_HDR	    sizeof(struct fuse_out_header)
#define IN_HDR	    sizeof(struct fuse_in_header)
#define SMALL_BYTES (BRIDGE_PAGE + BRIDGE_SMALL_OUT)
/* A page before each payload, which its header lies at the end of; a page after the first for what WRITE has not. */
#define LARGE_BYTES (2 * (BRIDGE_PAGE + BRIDGE_DATA_MAX))
/* errno values of Linux end below; the kernel takes no other. */
#define ERRNO_END 512

static_assert(BRIDGE_SMALL_IN + OUT_HDR <= BRIDGE_PAGE, "the parts of a small slot overlap");

size_t bridge_queue_arena_bytes(void)
{
	return (size_t)BRIDGE_NR_SMALL * SMALL_BYTES + (size_t)BRIDGE_NR_LARGE * LARGE_BYTES;
}

void bridge_slots_init(struct bridge_queue *q, uint8_t *arena)
{
	for (unsigned int i = 0; i < BRIDGE_NR_SMALL; i++, arena += SMALL_BYTES) {
		q->slots[i] = (struct bridge_slot){ .in = arena,
						    .in_room = BRIDGE_SMALL_IN,
						    .out = arena + BRIDGE_PAGE - OUT_HDR,
						    .out_room = OUT_HDR + BRIDGE_SMALL_OUT };
		q->small[q->nr_small++] = &q->slots[i];
	}
	for (unsigned int i = 0; i < BRIDGE_NR_LARGE; i++, arena += LARGE_BYTES) {
		struct bridge_slot *slot = &q->slots[BRIDGE_NR_SMALL + i];
		uint8_t *out = arena + BRIDGE_PAGE + BRIDGE_DATA_MAX;

		*slot = (struct bridge_slot){ .in = arena + BRIDGE_PAGE - BRIDGE_HDR_WRITE,
					      .in_room = BRIDGE_HDR_WRITE + BRIDGE_DATA_MAX,
					      .out = out + BRIDGE_PAGE - OUT_HDR,
					      .out_room = OUT_HDR + BRIDGE_DATA_MAX,
					      .large = true };
		q->large[q->nr_large++] = slot;
	}
}

struct bridge_slot *bridge_slot_get(struct bridge_queue *q, bool large)
{
	if (large)
		return q->nr_large ? q->large[--q->nr_large] : NULL;
	return q->nr_small ? q->small[--q->nr_small] : NULL;
}

void bridge_slot_put(struct bridge_queue *q, struct bridge_slot *slot)
{
	if (slot->large)
		q->large[q->nr_large++] = slot;
	else
		q->small[q->nr_small++] = slot;
}

int bridge_submit(struct bridge_queue *q, struct bridge_slot *slot, size_t len, size_t reply_bytes)
{
	struct iovec segs[BRIDGE_SEGS_MAX];
	unsigned int nr_out = 0, nr_in = 0;
	size_t off = IN_HDR;
	int err;

	/* As Linux' driver does it, which is what devices are tried with. */
	segs[nr_out++] = (struct iovec){ .iov_base = slot->in, .iov_len = IN_HDR };
	if (slot->opcode == FUSE_WRITE && len > BRIDGE_HDR_WRITE) {
		segs[nr_out++] = (struct iovec){ .iov_base = slot->in + IN_HDR,
						 .iov_len = sizeof(struct fuse_write_in) };
		off = BRIDGE_HDR_WRITE;
	}
	if (len > off)
		segs[nr_out++] = (struct iovec){ .iov_base = slot->in + off, .iov_len = len - off };
	if (reply_bytes)
		segs[nr_out + nr_in++] =
			(struct iovec){ .iov_base = slot->out, .iov_len = OUT_HDR };
	if (reply_bytes > OUT_HDR)
		segs[nr_out + nr_in++] = (struct iovec){ .iov_base = slot->out + OUT_HDR,
							 .iov_len = reply_bytes - OUT_HDR };
	err = virtq_driver_add(q->ring->drv, segs, nr_out, nr_in, slot);
	if (err == 0) {
		slot->busy = true;
		WRITE_ONCE(q->nr_writebacks, q->nr_writebacks + slot->writeback);
	}
	return err;
}

/* A 32-bit field of the arguments; 0 when the request ends before it. */
static uint32_t arg_u32(const uint8_t *in, size_t len, size_t off)
{
	uint32_t value;

	if (len < IN_HDR + off + sizeof(value))
		return 0;
	memcpy(&value, in + IN_HDR + off, sizeof(value));
	return value;
}

/* Room that the reply may need, with its header; 0 when there is none. */
static size_t reply_room(const struct fuse_opcode_info *op, const uint8_t *in, size_t len)
{
	size_t size;

	switch (op->reply) {
	case FUSE_REPLY_NONE:
		return 0;
	case FUSE_REPLY_EMPTY:
		return OUT_HDR;
	case FUSE_REPLY_LINK:
		return OUT_HDR + BRIDGE_PAGE;
	case FUSE_REPLY_DATA:
	case FUSE_REPLY_DIRENTS:
	case FUSE_REPLY_DIRENTPLUS:
		return OUT_HDR + arg_u32(in, len, offsetof(struct fuse_read_in, size));
	case FUSE_REPLY_STRUCT_OR_DATA:
		size = arg_u32(in, len, offsetof(struct fuse_getxattr_in, size));
		return OUT_HDR + (size ? size : op->reply_bytes);
	case FUSE_REPLY_STRUCT_THEN_DATA:
		size = arg_u32(in, len, offsetof(struct fuse_ioctl_in, out_size));
		return OUT_HDR + op->reply_bytes + size;
	case FUSE_REPLY_FIXED:
	case FUSE_REPLY_INIT:
		break;
	}
	return OUT_HDR + op->reply_bytes;
}

static void write_reply(const struct bridge_queue *q, const struct fuse_out_header *hdr,
			const uint8_t *body)
{
	struct fuse_out_header copy = *hdr;
	const struct iovec iov[2] = {
		{ .iov_base = &copy, .iov_len = OUT_HDR },
		{ .iov_base = (void *)(uintptr_t)body, .iov_len = hdr->len - OUT_HDR },
	};

	/* ENOENT: nobody waits any more. EINVAL: the kernel found it wrong, and may wait on. */
	if (writev(q->fuse_fd, iov, hdr->len > OUT_HDR ? 2 : 1) < 0 && errno == EINVAL && body)
		bridge_reply_error(q, hdr->unique, -EIO);
}

void bridge_reply_error(const struct bridge_queue *q, uint64_t unique, int error)
{
	const struct fuse_out_header hdr = { .len = OUT_HDR, .error = error, .unique = unique };

	write_reply(q, &hdr, NULL);
}

static int read_request(struct bridge_queue *q, const struct bridge_slot *slot, size_t *ret_len)
{
	ssize_t n = read(q->fuse_fd, slot->in, slot->in_room);

	if (n >= (ssize_t)IN_HDR) {
		*ret_len = (size_t)n;
		return 1;
	}
	if (n >= 0)
		return -EPROTO;
	if (errno == EAGAIN)
		return 0;
	/* ENOENT: interrupted before we had it. EIO, E2BIG: the kernel ended one that was too large. */
	if (errno == EINTR || errno == ENOENT || errno == EIO || errno == E2BIG)
		return -EAGAIN;
	/* An abort that came while we read: the same end as ENODEV. */
	return errno == ECONNABORTED ? -ENODEV : -errno;
}

/* Choose the slot: the landing itself, or a small one with a copy. */
static struct bridge_slot *place_request(struct bridge_queue *q, size_t len, size_t room)
{
	struct bridge_slot *slot;

	if (len <= BRIDGE_SMALL_IN && room <= OUT_HDR + BRIDGE_SMALL_OUT) {
		slot = bridge_slot_get(q, false);
		memcpy(slot->in, q->landing->in, len);
		return slot;
	}
	return TAKE_PTR(q->landing);
}

/* The last large slot remains the landing for a request that can wait elsewhere. */
static bool must_wait(const struct bridge_queue *q, size_t len, size_t room)
{
	return len <= BRIDGE_SMALL_IN && room > OUT_HDR + BRIDGE_SMALL_OUT && !q->nr_large;
}

/* Locks that wait must leave room in the ring for what ends them; each takes three descriptors, and half is theirs. */
static unsigned int locks_max(const struct bridge_queue *q)
{
	const uint32_t fit = (q->bridge->config.queue_size - BRIDGE_SEGS_MAX) / 3 / 2;

	return max_of(min_of(fit, (uint32_t)BRIDGE_LOCKS_MAX), 1u);
}

static int forward(struct bridge_queue *q, const struct fuse_opcode_info *op,
		   const struct fuse_in_header *hdr, size_t len)
{
	size_t room = reply_room(op, q->landing->in, len);
	/* An unlock comes as SETLKW too, and waits for nothing. */
	const bool waits =
		hdr->opcode == FUSE_SETLKW &&
		arg_u32(q->landing->in, len, offsetof(struct fuse_lk_in, lk.type)) != F_UNLCK;
	struct bridge_slot *slot;
	int err;

	if (room > q->landing->out_room) {
		bridge_reply_error(q, hdr->unique, -EIO);
		return 1;
	}
	if (waits && q->nr_locks >= locks_max(q)) {
		bridge_reply_error(q, hdr->unique, -ENOLCK);
		return 1;
	}
	if (must_wait(q, len, room) && bridge_put_off(q, hdr, len, room))
		return 1;
	slot = place_request(q, len, room);
	slot->unique = hdr->unique;
	slot->opcode = hdr->opcode;
	slot->writeback = hdr->opcode == FUSE_WRITE &&
			  arg_u32(slot->in, len, offsetof(struct fuse_write_in, write_flags)) &
				  FUSE_WRITE_CACHE;
	err = bridge_submit(q, slot, len, room);
	if (err < 0) {
		bridge_slot_put(q, slot);
		return err;
	}
	slot->waits = waits;
	q->nr_locks += waits;
	return 1;
}

bool bridge_can_take(struct bridge_queue *q)
{
	if (!q->landing)
		q->landing = bridge_slot_get(q, true);
	return q->landing && q->nr_small && virtq_driver_nr_free(q->ring->drv) >= BRIDGE_SEGS_MAX;
}

/* Return: unique of the request that an INTERRUPT names, 0 for none. */
static uint64_t interrupted(const struct bridge_queue *q, size_t len)
{
	struct fuse_interrupt_in in = { .unique = 0 };

	if (len >= IN_HDR + sizeof(in))
		memcpy(&in, q->landing->in + IN_HDR, sizeof(in));
	return in.unique;
}

int bridge_take_request(struct bridge_queue *q)
{
	const struct fuse_opcode_info *op;
	struct fuse_in_header hdr;
	size_t len = 0;
	int ret = read_request(q, q->landing, &len);

	if (ret == -EAGAIN)
		return 1;
	if (ret <= 0)
		return ret;
	memcpy(&hdr, q->landing->in, sizeof(hdr));
	op = fuse_opcode_find(hdr.opcode);
	if (hdr.opcode == FUSE_INTERRUPT &&
	    bridge_interrupt_waiting(q->bridge, interrupted(q, len)))
		return 1;
	if (op && op->traits & FUSE_OP_HIPRIO) {
		ret = bridge_hiprio_send(q->bridge, &hdr, q->landing->in + IN_HDR, len - IN_HDR);
		return ret < 0 && ret != -EPROTO ? ret : 1;
	}
	if (op && op->reply == FUSE_REPLY_NONE && hdr.opcode != FUSE_NOTIFY_REPLY)
		return 1;
	if (!op || hdr.opcode == FUSE_INIT || op->traits & FUSE_OP_NEVER) {
		bridge_reply_error(q, hdr.unique, -ENOSYS);
		return 1;
	}
	return forward(q, op, &hdr, len);
}

bool bridge_reply_check(const struct bridge_slot *slot, uint32_t written,
			struct fuse_out_header *ret_hdr)
{
	struct fuse_out_header hdr;

	if (written < OUT_HDR)
		return false;
	memcpy(&hdr, slot->out, sizeof(hdr));
	if (hdr.len < OUT_HDR || hdr.len > written || hdr.unique != slot->unique)
		return false;
	if (hdr.error > 0 || hdr.error <= -ERRNO_END || (hdr.error && hdr.len != OUT_HDR))
		return false;
	*ret_hdr = hdr;
	return true;
}

int bridge_return_replies(struct bridge_queue *q)
{
	static struct log_ratelimit limit;
	struct fuse_out_header hdr;
	uint32_t written = 0;
	void *cookie = NULL;
	int nr = 0, ret;

	while ((ret = virtq_driver_get(q->ring->drv, &cookie, &written)) > 0) {
		struct bridge_slot *slot = cookie;

		slot->busy = false;
		q->nr_locks -= slot->waits;
		slot->waits = false;
		WRITE_ONCE(q->nr_writebacks, q->nr_writebacks - slot->writeback);
		WRITE_ONCE(q->nr_written, q->nr_written + slot->writeback);
		WRITE_ONCE(q->nr_setattrs, q->nr_setattrs + (slot->opcode == FUSE_SETATTR));
		slot->writeback = false;
		if (slot->opcode == FUSE_NOTIFY_REPLY) {
			/* Nobody waits. */
		} else if (bridge_reply_check(slot, written, &hdr)) {
			write_reply(q, &hdr, slot->out + OUT_HDR);
		} else {
			log_warn_ratelimited(&limit, "the device's reply to opcode %u is malformed",
					     slot->opcode);
			bridge_reply_error(q, slot->unique, -EIO);
		}
		bridge_slot_put(q, slot);
		nr++;
	}
	if (nr)
		WRITE_ONCE(q->nr_replies, q->nr_replies + (unsigned int)nr);
	return ret < 0 ? ret : nr;
}

void bridge_fail_all(struct bridge_queue *q)
{
	for (unsigned int i = 0; i < array_size(q->slots); i++) {
		if (q->slots[i].busy && q->slots[i].opcode != FUSE_NOTIFY_REPLY)
			bridge_reply_error(q, q->slots[i].unique, -ENOTCONN);
	}
	bridge_fail_waiting(q);
}
