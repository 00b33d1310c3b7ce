/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stand-in for device/: implements device/transport.h, keeps the state that a transport can see, and records
 * each call as a line of text.
 */
#ifndef FUSEWIRE_TESTS_VHOST_FAKE_DEVICE_H
#define FUSEWIRE_TESTS_VHOST_FAKE_DEVICE_H

#include "device/transport.h"

/** FAKE_QUEUES_MAX - queues that the fake can have. */
#define FAKE_QUEUES_MAX 300

/** struct fake_queue - what the transport told about one queue. */
struct fake_queue {
	bool running;
	bool enabled;
	struct virtq_setup setup;
	struct device_queue_fds fds;
	uint32_t base;
};

/**
 * struct device - the fake.
 * @features: offered
 * @nr_queues: as device_nr_queues()
 * @queue_size_max: as device_queue_size_max()
 * @acked: features of device_set_features()
 * @status: status field; setting DEVICE_STATUS_FAILED makes the fake report needs_reset
 * @attached: between attach and detach
 * @record: where calls are written, or -1
 * @start_error: what device_queue_start() returns, when it is not 0
 * @advance: added to a ring's base when it stops
 *
 * device_queue_kick() interrupts the driver: through the call descriptor, or in band.
 */
struct device {
	uint64_t features;
	unsigned int nr_queues;
	uint32_t queue_size_max;
	uint64_t acked;
	uint8_t status;
	bool attached;
	int record;
	int start_error;
	uint32_t advance;
	const struct transport_ops *ops;
	void *transport;
	struct mem_table *mem;
	struct dirty_log *log;
	struct fake_queue queues[FAKE_QUEUES_MAX];
};

/** fake_device_init() - 3 queues of at most 1024, nothing recorded. */
void fake_device_init(struct device *dev);

#endif
