/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio-fs device as its transport and its owner see it: features, config space, status, life.
 */
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "device/device_impl.h"

/* Virtio feature bits (virtio 1.2, 6). */
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
#define VIRTIO_F_RING_PACKED   (UINT64_C(1) << 34)

#define DEVICE_FEATURES                                                        \
	(DEVICE_F_NOTIFICATION | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | \
	 VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

/*
 * Most request queues that the config space speaks of; more are served to those who ask for them. Of the known
 * front-ends only User-mode Linux takes the number from here, and it cannot set up more than 64 virtqueues.
 */
#define CONFIG_REQUEST_QUEUES_MAX 63u

/* The config space of device type 26 (virtio 1.2, 5.11.4). */
struct virtio_fs_config {
	char tag[DEVICE_TAG_BYTES];
	le32 num_request_queues;
	le32 notify_buf_size;
};

_Static_assert(sizeof(struct virtio_fs_config) == 44, "virtio 1.2, 5.11.4");

static bool config_valid(const struct device_config *config)
{
	size_t tag_len = config->tag ? strlen(config->tag) : 0;

	return tag_len >= 1 && tag_len <= DEVICE_TAG_BYTES && config->nr_request_queues >= 1 &&
	       config->nr_request_queues <= DEVICE_REQUEST_QUEUES_MAX &&
	       config->queue_size_max >= 1 && config->queue_size_max <= VIRTQ_SIZE_MAX &&
	       (!config->page_bytes || fuse_arch_page_valid(config->page_bytes));
}

static int device_init_queues(struct device *dev)
{
	int err;

	dev->queues = aligned_alloc(CACHE_LINE, dev->nr_queues * sizeof(*dev->queues));
	if (!dev->queues)
		return -ENOMEM;
	memset(dev->queues, 0, dev->nr_queues * sizeof(*dev->queues));
	/* Whatever fails here, device_free() finds all queues at least zeroed. */
	for (unsigned int i = 0; i < dev->nr_queues; i++)
		dev->queues[i].wake_fd = -1;
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		err = queue_init(&dev->queues[i], dev, i, dev->config.queue_size_max);
		if (err < 0)
			return err;
	}
	return queue_init(&dev->internal, dev, DEVICE_REQUEST_QUEUES_MAX + 2, 64);
}

int device_new(struct device **ret_dev, const struct device_config *config, struct service *svc)
{
	struct fuse_session_config session_config = { .arch = config->arch,
						      .page_bytes = config->page_bytes,
						      .use_ledger = !svc->checks_ids,
						      .record = config->record };
	struct device *dev;
	int err;

	if (!config_valid(config))
		return -EINVAL;
	dev = aligned_alloc(CACHE_LINE, round_up_to(sizeof(*dev), CACHE_LINE));
	if (!dev)
		return -ENOMEM;
	memset(dev, 0, sizeof(*dev));
	dev->config = *config;
	memcpy(dev->tag, config->tag, strlen(config->tag));
	dev->config.tag = NULL;
	dev->svc = svc;
	dev->internal.wake_fd = -1;
	/* One that is for notifications, or that nobody uses. */
	dev->nr_queues = dev->config.nr_request_queues + 2;
	pthread_mutex_init(&dev->queues_lock, NULL);
	pthread_mutex_init(&dev->control_lock, NULL);
	pthread_cond_init(&dev->control_cond, NULL);
	pthread_mutex_init(&dev->payback_lock, NULL);
	notify_init(dev);
	err = take_init(dev);
	if (err == 0)
		err = device_init_queues(dev);
	if (err == 0)
		err = fuse_session_new(&dev->session, &session_config);
	if (err < 0) {
		device_free(dev);
		return err;
	}
	*ret_dev = dev;
	return 0;
}

int device_resume(struct device *dev, uint32_t generation)
{
	int err = fuse_session_resume(dev->session, &dev->svc->init_out, generation);

	if (err < 0)
		return err;
	notify_open(dev);
	/* Its end is the control thread's. */
	err = control_start(dev);
	return err;
}

/* The service still owns requests that were abandoned, or that ended a session: it has to let go of them. */
static void device_stop_service(struct device *dev)
{
	if (dev->svc->ops->stop)
		dev->svc->ops->stop(dev->svc);
	for (unsigned int i = 0; dev->queues && i < dev->nr_queues; i++)
		assert(queue_slots_free(&dev->queues[i]));
	assert(queue_slots_free(&dev->internal));
}

void device_finish(struct device *dev)
{
	if (dev->transport_ops)
		device_detach(dev);
	control_stop(dev);
}

void device_free(struct device *dev)
{
	if (!dev)
		return;
	device_finish(dev);
	if (dev->session)
		notify_close(dev);
	device_stop_service(dev);
	notify_fini(dev);
	fuse_session_free(dev->session);
	for (unsigned int i = 0; dev->queues && i < dev->nr_queues; i++)
		queue_fini(&dev->queues[i]);
	queue_fini(&dev->internal);
	take_fini(dev);
	free(dev->queues);
	pthread_mutex_destroy(&dev->queues_lock);
	pthread_mutex_destroy(&dev->control_lock);
	pthread_cond_destroy(&dev->control_cond);
	pthread_mutex_destroy(&dev->payback_lock);
	free(dev);
}

void device_attach(struct device *dev, const struct transport_ops *ops, void *transport)
{
	assert(!dev->transport_ops);
	dev->transport_ops = ops;
	dev->transport = transport;
}

void device_detach(struct device *dev)
{
	device_reset(dev);
	device_set_mem(dev, NULL, NULL);
	device_set_log(dev, NULL);
	dev->transport_ops = NULL;
	dev->transport = NULL;
}

void device_reset(struct device *dev)
{
	queue_stop_all(dev);
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		device_queue_set_enabled(dev, i, false);
		dev->queues[i].base = 0;
	}
	WRITE_ONCE(dev->features, 0);
	/* What waits is the old driver's; the session's end takes its time. */
	notify_close(dev);
	__atomic_store_n(&dev->status, 0, __ATOMIC_RELAXED);
	control_end_session(dev);
}

uint64_t device_features(const struct device *dev)
{
	return DEVICE_FEATURES;
}

int device_set_features(struct device *dev, uint64_t features)
{
	if (features & ~DEVICE_FEATURES)
		return -EINVAL;
	if (features != dev->features) {
		for (unsigned int i = 0; i < dev->nr_queues; i++) {
			if (device_queue_running(dev, i))
				return -EBUSY;
		}
	}
	WRITE_ONCE(dev->features, features);
	return 0;
}

unsigned int device_nr_queues(const struct device *dev)
{
	return dev->nr_queues;
}

uint32_t device_queue_size_max(const struct device *dev)
{
	return dev->config.queue_size_max;
}

size_t device_config_bytes(const struct device *dev)
{
	return sizeof(struct virtio_fs_config);
}

int device_config_read(const struct device *dev, uint32_t off, void *buf, uint32_t len)
{
	struct virtio_fs_config config;

	if (!range_within(off, len, sizeof(config)))
		return -EINVAL;
	memcpy(config.tag, dev->tag, sizeof(config.tag));
	config.num_request_queues =
		cpu_to_le32(min_of(dev->config.nr_request_queues, CONFIG_REQUEST_QUEUES_MAX));
	config.notify_buf_size = cpu_to_le32(FUSE_NOTIFY_BYTES_MAX);
	memcpy(buf, (const char *)&config + off, len);
	return 0;
}

uint8_t device_status(const struct device *dev)
{
	return __atomic_load_n(&dev->status, __ATOMIC_RELAXED);
}

void device_set_status(struct device *dev, uint8_t status)
{
	uint8_t needs_reset = device_status(dev) & DEVICE_STATUS_NEEDS_RESET;

	if (status == 0)
		device_reset(dev);
	else
		/* The driver cannot clear what only a reset clears (virtio 1.2, 2.1.2). */
		__atomic_store_n(&dev->status, status | needs_reset, __ATOMIC_RELAXED);
}

void device_service_died(struct device *dev)
{
	fuse_session_daemon_lost(dev->session);
	/*
	 * A queue thread may hold a request whose ids it has looked up before that. Once it has parked, the request was
	 * submitted: to the daemon that is gone, not to the next one.
	 */
	queue_pause_all(dev);
	queue_resume_all(dev);
	/* So may the control thread. */
	pthread_mutex_lock(&dev->payback_lock);
	pthread_mutex_unlock(&dev->payback_lock);
}

void device_service_restarted(struct device *dev)
{
	/* svc->init_out is read when the next driver says INIT; a running session keeps what it agreed. */
	log_info("the file system was started anew; old node ids and handles are stale");
}
