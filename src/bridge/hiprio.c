/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue 0 of the device: FORGET and INTERRUPT, from all threads.
 *
 * The kernel hands out FORGETs in batches. A virtio-fs driver sends single ones (virtio 1.2, 5.11.6.1 does not know
 * more), so batches are taken apart. FORGET has no reply: chains that came back are collected when the next one needs
 * room. An INTERRUPT may have overtaken the request that it names, which is in another queue. A device that finds no such
 * request may answer EAGAIN, whereupon the kernel sends the INTERRUPT again if the request is still unanswered; one that
 * knows no INTERRUPT answers ENOSYS, whereupon the kernel sends no more. So while INTERRUPTs are under way, the first
 * request queue's thread looks after this ring too.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "bridge/bridge_impl.h"

/* How long a full ring is slept on before it is looked at again, ms. */
#define FULL_POLL_MS 100

int bridge_hiprio_init(struct bridge *b, uint8_t *arena)
{
	struct bridge_hiprio *hp = &b->hiprio;
	int err = pthread_mutex_init(&hp->lock, NULL);

	if (err)
		return -err;
	hp->ring = vhost_client_ring(b->client, 0);
	hp->arena = arena;
	for (unsigned int i = 0; i < BRIDGE_HIPRIO_SLOTS; i++)
		hp->slots[hp->nr++] = arena + (size_t)i * BRIDGE_HIPRIO_BYTES;
	virtq_driver_call_disable(hp->ring->drv);
	return 0;
}

static uint64_t *hiprio_interrupt(struct bridge_hiprio *hp, const uint8_t *slot)
{
	return &hp->interrupts[(size_t)(slot - hp->arena) / BRIDGE_HIPRIO_BYTES];
}

/* Pass a reply on. The kernel knows a request only at the clone of /dev/fuse where it was read, which may be any. */
static void pass_to_kernel(const struct bridge *b, const struct fuse_out_header *hdr)
{
	for (unsigned int i = 0; i < b->config.nr_request_queues; i++) {
		if (write(b->queues[i].fuse_fd, hdr, sizeof(*hdr)) == (ssize_t)sizeof(*hdr))
			break;
	}
}

/* Under the lock: a chain came back. */
static void hiprio_done(struct bridge *b, uint8_t *slot, uint32_t written)
{
	struct bridge_hiprio *hp = &b->hiprio;
	uint64_t *interrupt = hiprio_interrupt(hp, slot);
	struct fuse_out_header hdr;

	if (*interrupt) {
		memcpy(&hdr, slot + BRIDGE_HIPRIO_BYTES / 2, sizeof(hdr));
		if (written == sizeof(hdr) && hdr.len == sizeof(hdr) && hdr.unique == *interrupt &&
		    (hdr.error == -EAGAIN || hdr.error == -ENOSYS))
			pass_to_kernel(b, &hdr);
		*interrupt = 0;
		WRITE_ONCE(hp->nr_interrupts, hp->nr_interrupts - 1);
	}
	hp->slots[hp->nr++] = slot;
}

static int hiprio_collect(struct bridge *b)
{
	uint32_t written = 0;
	void *cookie = NULL;
	int ret;

	while ((ret = virtq_driver_get(b->hiprio.ring->drv, &cookie, &written)) > 0)
		hiprio_done(b, cookie, written);
	return ret;
}

/* Under the lock: be told of what comes back as long as an INTERRUPT may be answered. */
static int hiprio_watch(struct bridge *b)
{
	struct bridge_hiprio *hp = &b->hiprio;
	int err = 0;

	while (err == 0 && hp->nr_interrupts && virtq_driver_call_enable(hp->ring->drv))
		err = hiprio_collect(b);
	if (!hp->nr_interrupts)
		virtq_driver_call_disable(hp->ring->drv);
	return err;
}

int bridge_hiprio_collect(struct bridge *b)
{
	int err;

	pthread_mutex_lock(&b->hiprio.lock);
	err = hiprio_collect(b);
	if (err == 0)
		err = hiprio_watch(b);
	pthread_mutex_unlock(&b->hiprio.lock);
	return err;
}

/* Return: 0; -ENOSPC; -EBADMSG. */
static int hiprio_try(struct bridge *b, const struct fuse_in_header *hdr, uint64_t arg)
{
	struct bridge_hiprio *hp = &b->hiprio;
	struct iovec segs[2];
	uint8_t *slot;
	int err = 0;

	if (!hp->nr || virtq_driver_nr_free(hp->ring->drv) < array_size(segs))
		err = hiprio_collect(b);
	if (err == 0 && !hp->nr)
		err = -ENOSPC;
	if (err < 0)
		return err;
	slot = hp->slots[hp->nr - 1];
	memcpy(slot, hdr, sizeof(*hdr));
	memcpy(slot + sizeof(*hdr), &arg, sizeof(arg));
	segs[0] = (struct iovec){ .iov_base = slot, .iov_len = sizeof(*hdr) + sizeof(arg) };
	/* An INTERRUPT may be answered (EAGAIN, ENOSYS); what has no room for it would look broken. */
	segs[1] = (struct iovec){ .iov_base = slot + BRIDGE_HIPRIO_BYTES / 2,
				  .iov_len = sizeof(struct fuse_out_header) };
	err = virtq_driver_add(hp->ring->drv, segs, 1, hdr->opcode == FUSE_INTERRUPT, slot);
	if (err < 0)
		return err;
	hp->nr--;
	if (hdr->opcode == FUSE_INTERRUPT) {
		*hiprio_interrupt(hp, slot) = hdr->unique;
		WRITE_ONCE(hp->nr_interrupts, hp->nr_interrupts + 1);
	}
	return 0;
}

/* Add one; when the ring is full, wake the device and wait. */
static int hiprio_add(struct bridge *b, const struct fuse_in_header *hdr, uint64_t arg)
{
	struct bridge_hiprio *hp = &b->hiprio;
	int err = hiprio_try(b, hdr, arg);

	while (err == -ENOSPC) {
		struct pollfd pfds[3] = { { .fd = hp->ring->call_fd, .events = POLLIN },
					  { .fd = b->stop_fd, .events = POLLIN },
					  /* Only the end of the mount (POLLERR). */
					  { .fd = b->queues[0].fuse_fd } };
		bool more;

		if (virtq_driver_publish(hp->ring->drv))
			fd_signal(hp->ring->kick_fd);
		more = virtq_driver_call_enable(hp->ring->drv);
		pthread_mutex_unlock(&hp->lock);
		if (!more && poll(pfds, array_size(pfds), FULL_POLL_MS) > 0) {
			if (pfds[1].revents)
				err = -ESHUTDOWN;
			else if (pfds[2].revents & POLLERR)
				err = -ENODEV;
		}
		pthread_mutex_lock(&hp->lock);
		if (err == -ENODEV)
			return err;
		if (err == -ESHUTDOWN || fd_drain_signal(hp->ring->call_fd) < 0)
			return -ESHUTDOWN;
		virtq_driver_call_disable(hp->ring->drv);
		err = hiprio_try(b, hdr, arg);
	}
	return err;
}

static int hiprio_add_batch(struct bridge *b, const struct fuse_in_header *hdr, const uint8_t *arg,
			    size_t len)
{
	struct fuse_in_header one = *hdr;
	struct fuse_batch_forget_in batch;
	struct fuse_forget_one forget;
	int err = 0;

	if (len < sizeof(batch))
		return -EPROTO;
	memcpy(&batch, arg, sizeof(batch));
	if (batch.count > (len - sizeof(batch)) / sizeof(forget))
		return -EPROTO;
	one.opcode = FUSE_FORGET;
	one.len = sizeof(one) + sizeof(struct fuse_forget_in);
	for (uint32_t i = 0; i < batch.count && err == 0; i++) {
		memcpy(&forget, arg + sizeof(batch) + i * sizeof(forget), sizeof(forget));
		one.nodeid = forget.nodeid;
		err = hiprio_add(b, &one, forget.nlookup);
	}
	return err;
}

int bridge_hiprio_send(struct bridge *b, const struct fuse_in_header *hdr, const uint8_t *arg,
		       size_t len)
{
	struct bridge_hiprio *hp = &b->hiprio;
	uint64_t value;
	int err = -EPROTO;

	pthread_mutex_lock(&hp->lock);
	if (hdr->opcode == FUSE_BATCH_FORGET) {
		err = hiprio_add_batch(b, hdr, arg, len);
	} else if (len >= sizeof(value)) {
		memcpy(&value, arg, sizeof(value));
		err = hiprio_add(b, hdr, value);
	}
	if (virtq_driver_publish(hp->ring->drv))
		fd_signal(hp->ring->kick_fd);
	if (err == 0)
		err = hiprio_watch(b);
	pthread_mutex_unlock(&hp->lock);
	return err;
}
