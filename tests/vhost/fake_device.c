/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that only remembers what a transport does with it, and asserts what a transport must not do.
 */
#include "fake_device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"

static void __attribute__((format(printf, 2, 3))) record(struct device *dev, const char *fmt, ...)
{
	char line[256];
	va_list args;
	int n;

	if (dev->record < 0)
		return;
	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, args);
	va_end(args);
	line[n++] = '\n';
	if (write(dev->record, line, (size_t)n) != n)
		dev->record = -1;
}

void fake_device_init(struct device *dev)
{
	memset(dev, 0, sizeof(*dev));
	/* VERSION_1, EVENT_IDX, INDIRECT_DESC, RING_PACKED */
	dev->features = 1ull << 32 | 1ull << 29 | 1ull << 28 | 1ull << 34;
	dev->nr_queues = 3;
	dev->queue_size_max = 1024;
	dev->record = -1;
}

static struct fake_queue *queue_at(struct device *dev, unsigned int index)
{
	assert(dev->attached && index < dev->nr_queues && index < FAKE_QUEUES_MAX);
	return &dev->queues[index];
}

void device_attach(struct device *dev, const struct transport_ops *ops, void *transport)
{
	assert(!dev->attached);
	dev->attached = true;
	dev->ops = ops;
	dev->transport = transport;
	record(dev, "attach");
}

static void stop_all(struct device *dev)
{
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		dev->queues[i].running = false;
		dev->queues[i].enabled = false;
	}
}

void device_detach(struct device *dev)
{
	assert(dev->attached);
	stop_all(dev);
	mem_table_put(dev->mem);
	dirty_log_put(dev->log);
	dev->mem = NULL;
	dev->log = NULL;
	dev->acked = 0;
	dev->status = 0;
	dev->attached = false;
	record(dev, "detach");
}

uint64_t device_features(const struct device *dev)
{
	return dev->features;
}

int device_set_features(struct device *dev, uint64_t features)
{
	if (features & ~dev->features)
		return -EINVAL;
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		if (dev->queues[i].running)
			return -EBUSY;
	}
	dev->acked = features;
	record(dev, "features %#llx", (unsigned long long)features);
	return 0;
}

unsigned int device_nr_queues(const struct device *dev)
{
	return dev->nr_queues;
}

uint32_t device_queue_size_max(const struct device *dev)
{
	return dev->queue_size_max;
}

size_t device_config_bytes(const struct device *dev)
{
	return 40;
}

int device_config_read(const struct device *dev, uint32_t off, void *buf, uint32_t len)
{
	uint8_t config[40] = "fake";

	config[36] = (uint8_t)(dev->nr_queues - 1);
	if (!range_within(off, len, sizeof(config)))
		return -EINVAL;
	memcpy(buf, config + off, len);
	return 0;
}

static void check_rings(struct device *dev, const struct virtq_setup *setup)
{
	uint8_t byte;

	/* Touch both ends of each area: a wrong translation faults here. */
	guest_copy_from(&byte, setup->desc, 1);
	guest_copy_from(&byte,
			(uint8_t __guest *)setup->desc +
				virtq_desc_bytes(setup->format, setup->size) - 1,
			1);
	guest_copy_from(&byte,
			(uint8_t __guest *)setup->driver +
				virtq_driver_bytes(setup->format, setup->size) - 1,
			1);
	guest_copy_from(&byte,
			(uint8_t __guest *)setup->device +
				virtq_device_bytes(setup->format, setup->size) - 1,
			1);
	if (setup->inflight)
		((volatile uint8_t *)
			 setup->inflight)[virtq_inflight_bytes(setup->format, setup->size) - 1] |=
			0;
	if (setup->log)
		dirty_log_mark(setup->log, setup->log_addr, 4);
}

void device_set_mem(struct device *dev, struct mem_table *mem,
		    int (*resolve)(void *transport, unsigned int index, struct virtq_setup *setup))
{
	struct mem_table *old = dev->mem;

	assert(dev->attached);
	dev->mem = mem_table_get(mem);
	record(dev, "mem %u", mem_table_nr_regions(mem));
	for (unsigned int i = 0; i < dev->nr_queues; i++) {
		struct fake_queue *q = &dev->queues[i];
		int err;

		if (!q->running)
			continue;
		err = resolve(dev->transport, i, &q->setup);
		record(dev, "resolve %u %d log %d", i, err, err == 0 && q->setup.log);
		/* A ring that is outside goes on "running", broken, until it is stopped. */
		if (err == 0)
			check_rings(dev, &q->setup);
	}
	mem_table_put(old);
}

void device_set_log(struct device *dev, struct dirty_log *log)
{
	struct dirty_log *old = dev->log;

	dev->log = log ? dirty_log_get(log) : NULL;
	dirty_log_put(old);
	record(dev, "log %d", log != NULL);
}

int device_queue_start(struct device *dev, unsigned int index, const struct virtq_setup *setup,
		       const struct device_queue_fds *fds)
{
	struct fake_queue *q = queue_at(dev, index);

	if (q->running)
		return -EINVAL;
	if (dev->start_error)
		return dev->start_error;
	if (setup->format == VIRTQ_SPLIT && !is_power_of_two(setup->size))
		return -EINVAL;
	check_rings(dev, setup);
	q->setup = *setup;
	q->fds = *fds;
	q->running = true;
	record(dev,
	       "start %u size %u base %u format %d kick %d call %d inband %d inflight %d log %d",
	       index, setup->size, setup->base, setup->format, fds->kick_fd >= 0, fds->call_fd >= 0,
	       fds->call_in_band, setup->inflight != NULL, setup->log != NULL);
	return 0;
}

void device_queue_set_call(struct device *dev, unsigned int index, int call_fd)
{
	queue_at(dev, index)->fds.call_fd = call_fd;
	record(dev, "call %u %d", index, call_fd >= 0);
}

void device_queue_set_enabled(struct device *dev, unsigned int index, bool enabled)
{
	struct fake_queue *q = queue_at(dev, index);

	if (q->enabled != enabled)
		record(dev, "enabled %u %d", index, enabled);
	q->enabled = enabled;
}

void device_queue_kick(struct device *dev, unsigned int index)
{
	struct fake_queue *q = queue_at(dev, index);

	assert(q->running);
	if (q->fds.call_fd >= 0)
		fd_signal(q->fds.call_fd);
	else if (q->fds.call_in_band)
		dev->ops->call(dev->transport, index);
}

uint32_t device_queue_stop(struct device *dev, unsigned int index)
{
	struct fake_queue *q = queue_at(dev, index);

	if (q->running)
		q->base = q->setup.base + dev->advance;
	q->running = false;
	record(dev, "stop %u", index);
	return q->base;
}

bool device_queue_running(const struct device *dev, unsigned int index)
{
	return dev->queues[index].running;
}

void device_reset(struct device *dev)
{
	stop_all(dev);
	dev->acked = 0;
	dev->status = 0;
	record(dev, "reset");
}

uint8_t device_status(const struct device *dev)
{
	return dev->status;
}

void device_set_status(struct device *dev, uint8_t status)
{
	dev->status = status;
	record(dev, "status %#x", status);
	if (status & DEVICE_STATUS_FAILED)
		dev->ops->needs_reset(dev->transport);
}
