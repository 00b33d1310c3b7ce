/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queue 0 of the device: FORGET and INTERRUPT, from all threads.
 *
 * The kernel hands out FORGETs in batches. A virtio-fs driver sends single ones (virtio 1.2, 5.11.6.1 does not know
 * more), so batches are taken apart. Neither kind has a reply that anybody waits for: chains that came back are
 * collected when the next one needs room.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

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
	for (unsigned int i = 0; i < BRIDGE_HIPRIO_SLOTS; i++)
		hp->slots[hp->nr++] = arena + (size_t)i * BRIDGE_HIPRIO_BYTES;
	virtq_driver_call_disable(hp->ring->drv);
	return 0;
}

static int hiprio_collect(struct bridge_hiprio *hp)
{
	uint32_t written;
	void *cookie;
	int ret;

	while ((ret = virtq_driver_get(hp->ring->drv, &cookie, &written)) > 0)
		hp->slots[hp->nr++] = cookie;
	return ret;
}

/* Return: 0; -ENOSPC; -EBADMSG. */
static int hiprio_try(struct bridge_hiprio *hp, const struct fuse_in_header *hdr, uint64_t arg)
{
	struct iovec segs[2];
	uint8_t *slot;
	int err = 0;

	if (!hp->nr || virtq_driver_nr_free(hp->ring->drv) < array_size(segs))
		err = hiprio_collect(hp);
	if (err == 0 && !hp->nr)
		err = -ENOSPC;
	if (err < 0)
		return err;
	slot = hp->slots[hp->nr - 1];
	memcpy(slot, hdr, sizeof(*hdr));
	memcpy(slot + sizeof(*hdr), &arg, sizeof(arg));
	segs[0] = (struct iovec){ .iov_base = slot, .iov_len = sizeof(*hdr) + sizeof(arg) };
	/* An INTERRUPT may be answered (with EAGAIN); what has no room for it would look broken. */
	segs[1] = (struct iovec){ .iov_base = slot + BRIDGE_HIPRIO_BYTES / 2,
				  .iov_len = sizeof(struct fuse_out_header) };
	err = virtq_driver_add(hp->ring->drv, segs, 1, hdr->opcode == FUSE_INTERRUPT, slot);
	if (err == 0)
		hp->nr--;
	return err;
}

/* Add one; when the ring is full, wake the device and wait. */
static int hiprio_add(struct bridge *b, const struct fuse_in_header *hdr, uint64_t arg)
{
	struct bridge_hiprio *hp = &b->hiprio;
	int err = hiprio_try(hp, hdr, arg);

	while (err == -ENOSPC) {
		struct pollfd pfds[2] = { { .fd = hp->ring->call_fd, .events = POLLIN },
					  { .fd = b->stop_fd, .events = POLLIN } };
		bool more;

		if (virtq_driver_publish(hp->ring->drv))
			fd_signal(hp->ring->kick_fd);
		more = virtq_driver_call_enable(hp->ring->drv);
		pthread_mutex_unlock(&hp->lock);
		if (!more && poll(pfds, array_size(pfds), FULL_POLL_MS) > 0 && pfds[1].revents)
			err = -ESHUTDOWN;
		pthread_mutex_lock(&hp->lock);
		if (err == -ESHUTDOWN || fd_drain_signal(hp->ring->call_fd) < 0)
			return -ESHUTDOWN;
		virtq_driver_call_disable(hp->ring->drv);
		err = hiprio_try(hp, hdr, arg);
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
	pthread_mutex_unlock(&hp->lock);
	return err;
}
