/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtqueue seen from the driver: what a guest kernel does, for the load generator, the mount bridge, the relay
 * and the tests.
 *
 * One thread at a time. The ring and all buffers lie in memory that driver and device share; who hands out pieces
 * of it is the caller's business. The device is not trusted: what it must not do makes
 * virtq_driver_get() return -EBADMSG.
 */
#ifndef FUSEWIRE_VIRTIO_VIRTQ_DRIVER_H
#define FUSEWIRE_VIRTIO_VIRTQ_DRIVER_H

#include "virtio/virtq.h"

/**
 * struct virtq_driver_mem - one piece of shared memory.
 * @base: where it is mapped here
 * @gpa: the guest address of its first byte
 * @bytes: its size
 */
struct virtq_driver_mem {
	void *base;
	uint64_t gpa;
	uint64_t bytes;
};

/**
 * struct virtq_driver_setup - what a ring is made of.
 * @format: split or packed
 * @size: descriptors, as in struct virtq_setup
 * @event_idx: VIRTIO_F_EVENT_IDX was negotiated
 * @indirect_max: VIRTIO_F_INDIRECT_DESC was negotiated: chains of 2 to this many segments take one descriptor and a
 *                table; 0: not negotiated
 * @base: where to start, in the encoding of struct virtq_setup; 0 for split, VIRTQ_DRIVER_BASE_PACKED for packed
 * @mem: the memory; copied
 * @ring: virtq_driver_ring_bytes() of @mem, aligned to 16; need not be zero
 */
struct virtq_driver_setup {
	enum virtq_format format;
	uint32_t size;
	bool event_idx;
	uint32_t indirect_max;
	uint32_t base;
	struct virtq_driver_mem mem;
	void *ring;
};

/** VIRTQ_DRIVER_BASE_PACKED - a fresh packed ring: both positions 0, both wrap counters 1 (virtio 1.2, 2.8.1). */
#define VIRTQ_DRIVER_BASE_PACKED 0x80008000u

struct virtq_driver;

/** virtq_driver_ring_bytes() - memory for the three areas and the indirect tables of a ring. */
size_t virtq_driver_ring_bytes(enum virtq_format format, uint32_t size, uint32_t indirect_max);

/**
 * virtq_driver_new() - make an empty ring in shared memory.
 *
 * Return: 0; -EINVAL for a size or base that the format does not allow, or a ring outside of the memory or
 * misaligned; -ENOMEM.
 */
int must_check virtq_driver_new(struct virtq_driver **ret_drv,
				const struct virtq_driver_setup *setup);
/** virtq_driver_free() - forget the ring; shared memory is left as it is. NULL is allowed. */
void virtq_driver_free(struct virtq_driver *drv);

/**
 * virtq_driver_areas() - format, size, features, base, and the three areas as mapped here, for the device's side.
 *
 * Guest addresses follow from struct virtq_driver_mem. Log and in-flight area of *@ret_setup are empty.
 */
void virtq_driver_areas(const struct virtq_driver *drv, struct virtq_setup *ret_setup);

/**
 * virtq_driver_add() - make a chain available.
 * @segs: @nr_out device-readable segments, then @nr_in device-writable ones, inside the memory of the setup
 * @cookie: handed back by virtq_driver_get(); not NULL
 *
 * The device sees it after virtq_driver_publish(). Does not allocate.
 *
 * Return: 0; -ENOSPC when descriptors are short; -EINVAL for no segment, a segment outside of the memory or one
 * of 4 GiB or more.
 */
int must_check virtq_driver_add(struct virtq_driver *drv, const struct iovec *segs,
				unsigned int nr_out, unsigned int nr_in, void *cookie);

/**
 * virtq_driver_publish() - show the device all chains added since the last call.
 *
 * Return: true when the device wants to be kicked for them (virtio 1.2, 2.7.10, 2.8.10).
 */
bool must_check virtq_driver_publish(struct virtq_driver *drv);

/**
 * virtq_driver_get() - take a chain that the device gave back.
 * @ret_written: bytes that the device says it wrote; never more than the writable segments have
 *
 * Return: 1; 0 when there is none; -EBADMSG when the device broke a rule, from then on always.
 */
int must_check virtq_driver_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written);

/** virtq_driver_has_used() - would virtq_driver_get() find something? Cheap; for polling. */
bool virtq_driver_has_used(const struct virtq_driver *drv);

/** virtq_driver_call_disable() - no interrupts, please (a hint: some may still come). */
void virtq_driver_call_disable(struct virtq_driver *drv);
/**
 * virtq_driver_call_enable() - interrupt at the next chain that comes back.
 *
 * Return: true when one came back meanwhile: then no interrupt may come, so get again before sleeping.
 */
bool must_check virtq_driver_call_enable(struct virtq_driver *drv);

/**
 * virtq_driver_device_base() - where a device that takes the ring over goes on, in the encoding of struct virtq_setup.
 *
 * That is behind the last chain that came back, whether or not virtq_driver_get() took it. Chains that are out are
 * offered behind it; a device that had taken some of them out of order needs an in-flight record to know.
 */
uint32_t virtq_driver_device_base(const struct virtq_driver *drv);

/** virtq_driver_nr_free() - free descriptors. */
uint32_t virtq_driver_nr_free(const struct virtq_driver *drv);
/** virtq_driver_nr_out() - chains that are with the device, or added and not yet published. */
uint32_t virtq_driver_nr_out(const struct virtq_driver *drv);

/**
 * virtq_driver_detach() - take a chain back from a device that is gone for good; for clean-up.
 *
 * Return: a cookie, or NULL when none is out. Afterwards the ring is of no use but to be freed.
 */
void *virtq_driver_detach(struct virtq_driver *drv);

#endif
