/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A transport shows a device to a driver.
 *
 * All device_*() calls here come from one thread, the transport's control thread (the owner's loop). They may
 * wait for the queue threads and, where it says so, for requests under way; never for ever.
 */
#ifndef FUSEWIRE_DEVICE_TRANSPORT_H
#define FUSEWIRE_DEVICE_TRANSPORT_H

#include "mem/dirty_log.h"
#include "mem/mem_table.h"
#include "virtio/virtq.h"

struct device;

/** enum device_status - bits of the virtio device status field (virtio 1.2, 2.1). */
enum device_status {
	DEVICE_STATUS_ACKNOWLEDGE = 1,
	DEVICE_STATUS_DRIVER = 2,
	DEVICE_STATUS_DRIVER_OK = 4,
	DEVICE_STATUS_FEATURES_OK = 8,
	DEVICE_STATUS_NEEDS_RESET = 64,
	DEVICE_STATUS_FAILED = 128,
};

/**
 * struct transport_ops - how the device reaches the driver.
 * @call: interrupt the driver for queue @index; only used for queues that were started without a call
 *        descriptor. Context: any thread; must not block.
 * @needs_reset: the device set DEVICE_NEEDS_RESET; tell the driver if there is a way. Context: any thread.
 */
struct transport_ops {
	void (*call)(void *transport, unsigned int index);
	void (*needs_reset)(void *transport);
};

/** device_attach() - the transport takes the device; at most one at a time. @ops and @transport stay valid until device_detach(). */
void device_attach(struct device *dev, const struct transport_ops *ops, void *transport);
/**
 * device_detach() - the driver is gone without a goodbye: stop all queues, end the session, drop memory.
 *
 * The file system is told in the background that lookups and handles are gone; a new transport may attach at once.
 */
void device_detach(struct device *dev);

/** device_features() - virtio feature bits that the device offers. */
uint64_t device_features(const struct device *dev);
/** device_set_features() - bits that the driver accepted. Return: 0, or -EINVAL for a bit not offered, or -EBUSY while a queue runs (a change of VHOST_F_LOG_ALL is allowed). */
int must_check device_set_features(struct device *dev, uint64_t features);

/**
 * device_nr_queues() - all virtqueues: hiprio, the notification queue, and the request queues.
 *
 * A driver that does not take VIRTIO_FS_F_NOTIFICATION has one request queue more than the config space tells of, for which it
 * need not have a use.
 */
unsigned int device_nr_queues(const struct device *dev);
/** device_queue_size_max() - largest ring that the device accepts. */
uint32_t device_queue_size_max(const struct device *dev);

/** device_config_bytes() - size of the config space. */
size_t device_config_bytes(const struct device *dev);
/** device_config_read() - bytes [@off, @off + @len) of the config space. Return: 0, or -EINVAL when outside. */
int must_check device_config_read(const struct device *dev, uint32_t off, void *buf, uint32_t len);

/**
 * device_set_mem() - use another memory table from now on; the device takes its own reference.
 *
 * Running queues are paused, their rings looked up again at the addresses that @resolve gives, and go on. Requests under way keep the old
 * table. A queue whose ring is no longer inside the table stops as broken.
 * @resolve: fill desc/driver/device of @setup for queue @index from the transport's addresses. Return 0 or negative errno.
 */
void device_set_mem(struct device *dev, struct mem_table *mem,
		    int (*resolve)(void *transport, unsigned int index, struct virtq_setup *setup));

/** device_set_log() - dirty log for everything written from now on; NULL for none. The device takes its own reference. */
void device_set_log(struct device *dev, struct dirty_log *log);

/**
 * struct device_queue_fds - how a queue talks with the driver; the descriptors stay the transport's and
 * must live until the queue was stopped.
 * @kick_fd: eventfd or pipe to read, or -1: the transport calls device_queue_kick()
 * @call_fd: eventfd or pipe to write 8 bytes to, or -1: transport_ops.call is used, if @call_in_band
 * @call_in_band: without @call_fd, use transport_ops.call; else the driver polls
 */
struct device_queue_fds {
	int kick_fd;
	int call_fd;
	bool call_in_band;
};

/**
 * device_queue_start() - start a ring. Return: 0; -EINVAL (bad setup, index, running already); -ENOMEM; negative errno.
 */
int must_check device_queue_start(struct device *dev, unsigned int index,
				  const struct virtq_setup *setup,
				  const struct device_queue_fds *fds);
/** device_queue_set_call() - exchange the call descriptor of a running or stopped queue; -1 for none. */
void device_queue_set_call(struct device *dev, unsigned int index, int call_fd);
/** device_queue_set_enabled() - a disabled ring runs but takes no new requests (vhost-user SET_VRING_ENABLE). */
void device_queue_set_enabled(struct device *dev, unsigned int index, bool enabled);
/** device_queue_kick() - the driver kicked in band. */
void device_queue_kick(struct device *dev, unsigned int index);
/**
 * device_queue_stop() - stop a ring: nothing is taken or written afterwards, all that was taken is completed.
 *
 * Waits for requests under way, at most the device's drain time; what is then left is completed with an error.
 * Return: the ring's base (virtq_base()), for a stopped ring the base it was stopped at, 0 if it never ran.
 */
uint32_t device_queue_stop(struct device *dev, unsigned int index);
/** device_queue_running() - was the ring started and not stopped? */
bool device_queue_running(const struct device *dev, unsigned int index);

/** device_reset() - virtio device reset: queues stop, features and status are cleared, the FUSE session ends. */
void device_reset(struct device *dev);
/** device_status() - the status field. */
uint8_t device_status(const struct device *dev);
/** device_set_status() - the driver writes the status field; 0 resets. */
void device_set_status(struct device *dev, uint8_t status);

#endif
