/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Begin and end of the FUSE session: INIT, and the DESTROY that /dev/fuse does not have.
 *
 * The kernel's INIT goes to the device with what cannot be forwarded taken out, and the device's reply to the kernel in the same
 * way, so that both agree on what works: nothing that is about /dev/fuse itself (SPLICE_*, OVER_IO_URING, PASSTHROUGH,
 * ABORT_ERROR), no HAS_RESEND, since requests are with the device, no DAX window (MAP_ALIGNMENT, HAS_INODE_DAX), no
 * REQUEST_TIMEOUT, whose aborts the device would not hear of, and nothing newer than the protocol that we know. What needs
 * notifications (EXPLICIT_INVAL_DATA, HAS_EXPIRE_ONLY) goes to devices that have them.
 *
 * An unmount shows as ENODEV; the kernel sends DESTROY to block devices and virtio-fs only. The device expects one.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "bridge/bridge_impl.h"

#define NOT_FORWARDED                                                                      \
	(FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE | FUSE_SPLICE_READ | FUSE_ABORT_ERROR |      \
	 FUSE_MAP_ALIGNMENT | FUSE_INIT_RESERVED | FUSE_HAS_INODE_DAX | FUSE_PASSTHROUGH | \
	 FUSE_HAS_RESEND | FUSE_OVER_IO_URING | FUSE_REQUEST_TIMEOUT)
#define NEEDS_NOTIFICATIONS (FUSE_EXPLICIT_INVAL_DATA | FUSE_HAS_EXPIRE_ONLY)
/* Flags up to the newest that we know. */
#define KNOWN (2 * FUSE_REQUEST_TIMEOUT - 1)

/* The oldest minor that is spoken, as everywhere in this project. */
#define MINOR_MIN	12
#define MAX_WRITE_MIN	4096u
#define INIT_TIMEOUT_MS 10000
#define END_TIMEOUT_MS	5000
/* For a device that has not even answered what was under way. */
#define HUNG_TIMEOUT_MS 500
#define DRAIN_MS	2000

static int take_back(struct bridge_queue *q, const struct bridge_slot *mine, uint32_t *ret_written)
{
	void *cookie = NULL;
	int ret;

	while ((ret = virtq_driver_get(q->ring->drv, &cookie, ret_written)) > 0) {
		struct bridge_slot *slot = cookie;

		slot->busy = false;
		if (slot == mine)
			return 1;
		bridge_slot_put(q, slot);
	}
	return ret;
}

/* Give @slot to the device and wait for it; no thread runs. */
static int exchange(struct bridge_queue *q, struct bridge_slot *slot, size_t len, size_t room,
		    int timeout_ms, struct fuse_out_header *ret_hdr)
{
	const uint64_t deadline = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	struct pollfd pfds[2] = { { .fd = q->ring->call_fd, .events = POLLIN },
				  { .fd = vhost_client_socket(q->bridge->client),
				    .events = POLLIN } };
	uint32_t written = 0;
	int ret = bridge_submit(q, slot, len, room);

	if (ret < 0)
		return ret;
	if (virtq_driver_publish(q->ring->drv))
		fd_signal(q->ring->kick_fd);
	while ((ret = take_back(q, slot, &written)) == 0) {
		uint64_t now = clock_now_ns();

		if (now >= deadline)
			return -ETIMEDOUT;
		if (virtq_driver_call_enable(q->ring->drv))
			continue;
		if (poll(pfds, array_size(pfds), (int)((deadline - now) / NSEC_PER_MSEC) + 1) > 0 &&
		    pfds[1].revents)
			return -ENOTCONN;
		if (fd_drain_signal(q->ring->call_fd) < 0)
			return -EIO;
	}
	if (ret < 0)
		return ret;
	return bridge_reply_check(slot, written, ret_hdr) ? 0 : -EPROTO;
}

static void mask_flags(const struct bridge *b, uint32_t *flags, uint32_t *flags2)
{
	uint64_t all = *flags;

	if (all & FUSE_INIT_EXT)
		all |= (uint64_t)*flags2 << 32;
	all &= KNOWN & ~NOT_FORWARDED;
	if (!vhost_client_notifies(b->client))
		all &= ~NEEDS_NOTIFICATIONS;
	*flags = (uint32_t)all;
	*flags2 = (uint32_t)(all >> 32);
}

/* The kernel's INIT in @slot, as the device shall see it. Return: its flags. */
static uint64_t mask_request(const struct bridge *b, struct bridge_slot *slot, size_t len)
{
	struct fuse_init_in arg = { 0 };
	uint8_t *at = slot->in + sizeof(struct fuse_in_header);
	const size_t bytes = min_of(len - sizeof(struct fuse_in_header), sizeof(arg));

	memcpy(&arg, at, bytes);
	mask_flags(b, &arg.flags, &arg.flags2);
	if (arg.major == FUSE_KERNEL_VERSION)
		arg.minor = min_of(arg.minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION);
	memcpy(at, &arg, bytes);
	return arg.flags | (uint64_t)arg.flags2 << 32;
}

/* Bound the device's reply, a private copy, by what was asked for and what slots hold. */
static void mask_reply(const struct bridge *b, struct fuse_init_out *out, uint64_t asked)
{
	const uint32_t pages = BRIDGE_DATA_MAX / (uint32_t)sysconf(_SC_PAGESIZE);

	mask_flags(b, &out->flags, &out->flags2);
	out->flags &= (uint32_t)asked;
	out->flags2 &= (uint32_t)(asked >> 32);
	out->minor = min_of(out->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION);
	out->max_write = max_of(min_of(out->max_write, BRIDGE_DATA_MAX), MAX_WRITE_MIN);
	if (!(out->flags & FUSE_MAX_PAGES))
		out->max_pages = 0;
	else
		out->max_pages = (uint16_t)max_of(min_of((uint32_t)out->max_pages, pages), 1u);
	out->map_alignment = 0;
	out->max_stack_depth = 0;
	out->request_timeout = 0;
	memset(out->unused, 0, sizeof(out->unused));
}

static int read_init(struct bridge_queue *q, const struct bridge_slot *slot, size_t *ret_len)
{
	struct pollfd pfd = { .fd = q->fuse_fd, .events = POLLIN };
	struct fuse_in_header hdr;
	ssize_t n;

	if (poll(&pfd, 1, INIT_TIMEOUT_MS) <= 0)
		return -ETIMEDOUT;
	n = read(q->fuse_fd, slot->in, slot->in_room);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(hdr) + FUSE_COMPAT_INIT_IN_SIZE)
		return -EPROTO;
	memcpy(&hdr, slot->in, sizeof(hdr));
	if (hdr.opcode != FUSE_INIT)
		return -EPROTO;
	*ret_len = (size_t)n;
	return 0;
}

static int check_init_reply(const struct bridge_slot *slot, const struct fuse_out_header *hdr,
			    struct fuse_init_out *ret_out, const char **ret_why)
{
	const size_t body = hdr->len - sizeof(*hdr);

	if (hdr->error) {
		*ret_why = "the device refused INIT";
		return hdr->error;
	}
	*ret_why = "the device's reply to INIT is malformed";
	if (body < FUSE_COMPAT_22_INIT_OUT_SIZE || body > sizeof(*ret_out))
		return -EPROTO;
	memset(ret_out, 0, sizeof(*ret_out));
	memcpy(ret_out, slot->out + sizeof(*hdr), body);
	if (ret_out->major != FUSE_KERNEL_VERSION || ret_out->minor < MINOR_MIN) {
		*ret_why = "the device speaks another version of FUSE than 7.12 to 7.45";
		return -EPROTO;
	}
	return 0;
}

int bridge_init(struct bridge *b, const char **ret_why)
{
	struct bridge_queue *q = &b->queues[0];
	struct bridge_slot *slot = bridge_slot_get(q, true);
	struct { /* no padding between the two */
		struct fuse_out_header hdr;
		struct fuse_init_out out;
	} reply = { 0 };
	uint64_t asked;
	size_t len = 0;
	int err;

	*ret_why = "the kernel sent no INIT";
	err = read_init(q, slot, &len);
	if (err < 0)
		return err;
	memcpy(&slot->unique, slot->in + offsetof(struct fuse_in_header, unique),
	       sizeof(slot->unique));
	slot->opcode = FUSE_INIT;
	asked = mask_request(b, slot, len);
	*ret_why = "the device does not answer INIT";
	err = exchange(q, slot, len, sizeof(reply), INIT_TIMEOUT_MS, &reply.hdr);
	if (err == 0)
		err = check_init_reply(slot, &reply.hdr, &reply.out, ret_why);
	if (err < 0) {
		bridge_reply_error(q, slot->unique, -EPROTO);
		return err;
	}
	b->started = true;
	mask_reply(b, &reply.out, asked);
	*ret_why = "the kernel does not take the device's reply to INIT";
	if (write(q->fuse_fd, &reply, reply.hdr.len) < 0)
		return -errno;
	bridge_slot_put(q, slot);
	return 0;
}

void bridge_destroy(struct bridge *b, bool hangs)
{
	struct bridge_queue *q = &b->queues[0];
	struct bridge_slot *slot = bridge_slot_get(q, false);
	const struct fuse_in_header in = {
		.len = sizeof(in),
		.opcode = FUSE_DESTROY,
		/* The kernel's are even and count up from 2: this is none of them. */
		.unique = UINT64_MAX - 1,
	};
	struct fuse_out_header hdr;

	if (!slot)
		return;
	memcpy(slot->in, &in, sizeof(in));
	slot->unique = in.unique;
	slot->opcode = in.opcode;
	/* A device without an answer is as gone as it can be: nothing to be done about it. */
	if (exchange(q, slot, sizeof(in), sizeof(hdr), hangs ? HUNG_TIMEOUT_MS : END_TIMEOUT_MS,
		     &hdr) < 0)
		b->started = false;
}

bool bridge_drain(struct bridge *b)
{
	const struct timespec pause = { .tv_nsec = NSEC_PER_MSEC };
	const uint64_t deadline = clock_now_ns() + DRAIN_MS * NSEC_PER_MSEC;
	unsigned int nr_out;

	do {
		nr_out = 0;
		for (unsigned int i = 0; i < b->config.nr_request_queues; i++) {
			struct bridge_queue *q = &b->queues[i];

			if (bridge_return_replies(q) < 0 || bridge_submit_waiting(q) < 0)
				continue;
			if (virtq_driver_publish(q->ring->drv))
				fd_signal(q->ring->kick_fd);
			nr_out += virtq_driver_nr_out(q->ring->drv);
		}
		if (nr_out)
			nanosleep(&pause, NULL);
	} while (nr_out && clock_now_ns() < deadline);
	return nr_out == 0;
}
