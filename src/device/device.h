/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-fs device: joins the queues (virtio/), the FUSE session (fuse/) and a service.
 */
#ifndef FUSEWIRE_DEVICE_DEVICE_H
#define FUSEWIRE_DEVICE_DEVICE_H

#include "device/service.h"
#include "fuse/session.h"

/** DEVICE_REQUEST_QUEUES_MAX - request queues of one device. */
#define DEVICE_REQUEST_QUEUES_MAX 256
/** DEVICE_TAG_BYTES - size of the tag field; a tag of this length has no NUL (virtio 1.2, 5.11.4). */
#define DEVICE_TAG_BYTES 36

/**
 * struct device_config - what the user chose.
 * @tag: 1..36 bytes; the name that the driver mounts
 * @nr_request_queues: 1..DEVICE_REQUEST_QUEUES_MAX offered
 * @queue_size_max: largest ring accepted, ≤ VIRTQ_SIZE_MAX
 * @poll_ns: how long to look for more work after work before sleeping, ns
 * @drain_ns: how long a stopping queue waits for requests under way, ns
 * @arch: the driver's architecture, for open flags
 */
struct device_config {
	const char *tag;
	unsigned int nr_request_queues;
	uint32_t queue_size_max;
	uint64_t poll_ns;
	uint64_t drain_ns;
	enum fuse_arch arch;
};

/**
 * device_new() - make a device in front of @svc; no thread runs before a queue is started.
 * @svc: stays the caller's; outlives the device
 *
 * Return: 0; -EINVAL for a bad config; -ENOMEM.
 */
int must_check device_new(struct device **ret_dev, const struct device_config *config,
			  struct service *svc);
/** device_free() - detach, end the session towards the service (bounded by drain_ns), free. NULL is allowed. */
void device_free(struct device *dev);

/**
 * device_service_died() - the service lost its file system: it has ended (or will end, with an error) every
 * request itself; node ids and handles given out so far mean nothing any more. Call it
 * before a fresh file system gets requests. Context: any thread but a queue's; waits for the queue threads' current batches.
 */
void device_service_died(struct device *dev);
/**
 * device_service_restarted() - a fresh file system answers from now on; @svc->init_out was updated.
 * Old node ids answer -ESTALE, the root goes on working. Context: any thread.
 */
void device_service_restarted(struct device *dev);

#endif
