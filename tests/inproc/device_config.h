/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device before a daemon that a test plays in its own threads.
 */
#ifndef FUSEWIRE_TESTS_INPROC_DEVICE_CONFIG_H
#define FUSEWIRE_TESTS_INPROC_DEVICE_CONFIG_H

#include "../device/rig.h"
#include "base/clock.h"
#include "service/inproc/inproc.h"

static const struct device_config device_config = {
	.tag = "inproc",
	.nr_request_queues = RIG_QUEUES - 1,
	.queue_size_max = RIG_RING,
	.drain_ns = 100 * NSEC_PER_MSEC,
	.arch = FUSE_ARCH_NATIVE,
	.takeable = inproc_takeable,
};

#endif
