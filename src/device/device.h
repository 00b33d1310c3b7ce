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
 * @drain_ns: how long a stopping queue waits for requests under way, ns; much shorter for those that have waited for
 *            another queue's stop already, in which nothing was answered
 * @arch: the driver's architecture, for open flags
 * @page_bytes: struct fuse_session_config
 * @record: kept up to date for a successor (fuse_session_resume()), or NULL; outlives the device
 * @takeable: NULL: each queue has a thread that calls the service. Else queues have none, and threads of the
 *            service's call device_take(); this is called when one may do so again after -EBUSY, from any thread
 */
struct device_config {
	const char *tag;
	unsigned int nr_request_queues;
	uint32_t queue_size_max;
	uint64_t poll_ns;
	uint64_t drain_ns;
	enum fuse_arch arch;
	uint32_t page_bytes;
	struct fuse_session_record *record;
	void (*takeable)(struct service *svc);
};

/**
 * device_new() - make a device in front of @svc; no thread runs before a queue is started.
 * @svc: stays the caller's; outlives the device
 *
 * Return: 0; -EINVAL for a bad config; -ENOMEM.
 */
int must_check device_new(struct device **ret_dev, const struct device_config *config,
			  struct service *svc);
/**
 * device_resume() - the driver is in the midst of a session with a device that another process had: go on, as
 * fuse_session_resume() says. Context: before a queue is started. Return: as fuse_session_resume().
 */
int must_check device_resume(struct device *dev, uint32_t generation);
/**
 * device_finish() - detach, and end the session towards the service; only device_free() may follow.
 *
 * The service goes on serving meanwhile. Context: the transport thread; waits, bounded by drain_ns.
 */
void device_finish(struct device *dev);
/** device_free() - detach, end the session towards the service (bounded by drain_ns), free. NULL is allowed. */
void device_free(struct device *dev);

/**
 * enum device_take_wait - what device_take() does when there is no request.
 * @DEVICE_TAKE_NO_WAIT: leave
 * @DEVICE_TAKE_SLEEP: sleep until there is one
 * @DEVICE_TAKE_LOOK: look for one for config.poll_ns at most, then sleep
 */
enum device_take_wait {
	DEVICE_TAKE_NO_WAIT,
	DEVICE_TAKE_SLEEP,
	DEVICE_TAKE_LOOK,
};

/**
 * device_take() - take one request from any ring, in this thread; with config.takeable only.
 * @give_up: leave when this becomes true; who sets it calls device_take_wake()
 * @wait: what to do when there is none
 * @cancelable: pthread_cancel(3) may end the thread while it sleeps (cancellation is disabled when this is called);
 *              the device is left in order
 * @ret_more: with 1: there is more to take already, as far as a glance tells
 *
 * The service's submit is called in this thread before it returns, unless the device ended the request itself.
 * Context: any thread, one at a time: the caller sees to that.
 *
 * Return: 1: one was taken; -EAGAIN: @give_up, or nothing there and DEVICE_TAKE_NO_WAIT; -EBUSY: not now, config.takeable
 * will be called; -EINTR: a signal handler ran while it slept.
 */
int must_check device_take(struct device *dev, const bool *give_up, enum device_take_wait wait,
			   bool cancelable, bool *ret_more);
/** device_take_wake() - make the thread inside device_take() look at its @give_up. Context: any thread, or a signal handler. */
void device_take_wake(struct device *dev);

/**
 * device_end_requests() - end all requests that the service has, with @error.
 * @take: the service gives up a request: true if it was still its own to end
 *
 * For services that cannot name what they have. Context: no request is submitted meanwhile.
 */
void device_end_requests(struct device *dev, int error, bool (*take)(struct request *req));

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
