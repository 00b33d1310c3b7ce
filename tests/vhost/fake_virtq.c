// SPDX-License-Identifier: BSD-3-Clause
/*
 * Sizes of rings, for as long as virtio/ is not there.
 */
#include "virtio/virtq.h"

size_t virtq_desc_bytes(enum virtq_format format, uint32_t size)
{
	return 16ul * size;
}

size_t virtq_driver_bytes(enum virtq_format format, uint32_t size)
{
	return format == VIRTQ_SPLIT ? 6 + 2ul * size : 4;
}

size_t virtq_device_bytes(enum virtq_format format, uint32_t size)
{
	return format == VIRTQ_SPLIT ? 6 + 8ul * size : 4;
}

size_t virtq_inflight_bytes(enum virtq_format format, uint32_t size)
{
	return format == VIRTQ_SPLIT ? 16 + 16ul * size : 32 + 32ul * size;
}

void virtq_inflight_format(void *area, enum virtq_format format, uint32_t size)
{
	memset(area, 0, virtq_inflight_bytes(format, size));
	((uint16_t *)area)[4] = 1;
	((uint16_t *)area)[5] = (uint16_t)size;
}
