/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtqueue seen from the device: split or packed behind one interface.
 *
 * The interface has two sides that touch disjoint state and may run on two threads at once:
 * - the pop side (virtq_pop(), virtq_kick_*(), virtq_has_work()) belongs to one thread;
 * - the push side (virtq_push(), virtq_flush(), virtq_call_needed()) is serialised by the caller's lock.
 * An attached in-flight area, which both sides write, is locked inside.
 *
 * Nothing here trusts the ring. What no driver may do (virtio 1.2, 2.6-2.8) breaks the queue: pop returns
 * -EBADMSG from then on, virtq_broken() says why, and the device sets DEVICE_NEEDS_RESET.
 */
#ifndef FUSEWIRE_VIRTIO_VIRTQ_H
#define FUSEWIRE_VIRTIO_VIRTQ_H

#include "mem/dirty_log.h"
#include "mem/mem_table.h"

/** VIRTQ_SIZE_MAX - largest ring, in descriptors (virtio 1.2, 2.7 and 2.8.10.1). */
#define VIRTQ_SIZE_MAX 32768

/**
 * VIRTQ_TABLE_ANY - entries that an indirect table may have however small the ring is; else the ring's size is the limit.
 *
 * A driver must not go beyond the ring's size at all (virtio 1.2, 2.7.5.3.1, 2.8.19), but Linux does with small rings. Each
 * chain that is out costs us a segment for an entry, and a driver can make all of them from one table.
 */
#define VIRTQ_TABLE_ANY 1024u

/** VIRTQ_CHAIN_BYTES_MAX - bytes that one chain may describe, both directions together. */
#define VIRTQ_CHAIN_BYTES_MAX (64u << 20)

/** enum virtq_format - how the ring lies in memory. */
enum virtq_format {
	VIRTQ_SPLIT,
	VIRTQ_PACKED,
};

/**
 * struct virtq_setup - all that a ring needs to run; addresses are checked by virtq_init().
 * @format: split or packed (VIRTIO_F_RING_PACKED)
 * @size: descriptors; split: a power of two; packed: any; 1..VIRTQ_SIZE_MAX
 * @desc: split: descriptor table; packed: descriptor ring
 * @driver: split: avail ring; packed: driver event suppression
 * @device: split: used ring; packed: device event suppression
 * @event_idx: VIRTIO_F_EVENT_IDX was negotiated
 * @indirect: VIRTIO_F_INDIRECT_DESC was negotiated
 * @base: position to start at, in vhost's encoding: split: last avail index; packed: bits 0-14 avail
 *        position, bit 15 its wrap counter, bits 16-30 used position, bit 31 its wrap counter
 * @log: dirty log, or NULL
 * @log_addr: guest address of the used ring (split) or of the descriptor ring (packed), for @log
 * @inflight: area made by virtq_inflight_format(), or NULL; outlives the virtq
 */
struct virtq_setup {
	enum virtq_format format;
	uint32_t size;
	void __guest *desc;
	void __guest *driver;
	void __guest *device;
	bool event_idx;
	bool indirect;
	uint32_t base;
	struct dirty_log *log;
	uint64_t log_addr;
	void *inflight;
};

/** virtq_desc_bytes() - size of the descriptor area for @size descriptors. */
size_t virtq_desc_bytes(enum virtq_format format, uint32_t size);
/** virtq_driver_bytes() - size of the driver area, with the event field where event idx needs it. */
size_t virtq_driver_bytes(enum virtq_format format, uint32_t size);
/** virtq_device_bytes() - size of the device area, with the event field where event idx needs it. */
size_t virtq_device_bytes(enum virtq_format format, uint32_t size);

/**
 * struct virtq_chain - one buffer that the driver made available.
 * @iov: the caller's storage; @iov_cap segments. First @nr_out device-readable, then @nr_in
 *       device-writable ones. They point into driver memory: copy, never look.
 * @out_bytes: sum of the readable segments
 * @in_bytes: sum of the writable segments
 * @nr_needed: after -ENOBUFS: segments that would have been enough
 * @id: split: head descriptor index; packed: buffer id
 * @nr_desc: ring entries that the chain occupies
 * @inflight_slot: private to the in-flight record
 */
struct virtq_chain {
	struct iovec *iov;
	uint32_t iov_cap;
	uint32_t nr_out;
	uint32_t nr_in;
	uint32_t nr_needed;
	uint64_t out_bytes;
	uint64_t in_bytes;
	uint16_t id;
	uint16_t nr_desc;
	uint16_t inflight_slot;
};

struct virtq;

/**
 * virtq_new() - start a ring.
 *
 * Checks size, alignment (split: desc 16, driver 2, device 4 bytes; packed: 16, 4, 4) and @setup->base. With an
 * in-flight area that has unfinished chains, virtq_pop() hands those out first, oldest first, and the
 * used index is taken from the area (vhost-user, "Inflight I/O tracking").
 *
 * Return: 0; -EINVAL for a setup that no ring can have; -ENOMEM.
 */
int must_check virtq_new(struct virtq **ret_vq, const struct virtq_setup *setup);
/**
 * virtq_free() - forget a ring; driver memory is left as it is. NULL is allowed.
 *
 * An in-flight area in which no chain is left is marked as uninitialised, so that the next virtq_new() goes by
 * @base; with chains left, or after a crash, it goes by the area.
 */
void virtq_free(struct virtq *vq);

/**
 * virtq_move() - the memory of a live ring was mapped anew, or its dirty log changed: use other addresses.
 * @setup: desc, driver, device, log and log_addr are taken over; format and size must be the same; all else
 *         (positions, chains that are out, in-flight area) stays as it is
 *
 * Context: excludes the pop and the push side. Return: 0, or -EINVAL with the ring unchanged.
 */
int must_check virtq_move(struct virtq *vq, const struct virtq_setup *setup);

/**
 * virtq_pop() - take the next available chain.
 * @mem: the table that the addresses are looked up in; the chain's iovecs live as long as it does
 * @chain: @iov and @iov_cap set by the caller, the rest is filled in
 *
 * Return: 1 with a chain; 0 when none is available; -ENOBUFS when @iov_cap is too small (nothing is
 * consumed, call again with @nr_needed); -EBADMSG when the ring is broken.
 */
int must_check virtq_pop(struct virtq *vq, const struct mem_table *mem, struct virtq_chain *chain);

/** virtq_has_work() - would virtq_pop() find something (a chain, or that the ring is broken)? Cheap; for polling. */
bool virtq_has_work(struct virtq *vq);

/**
 * virtq_kick_disable() - tell the driver that it need not kick (a hint: kicks may still come).
 */
void virtq_kick_disable(struct virtq *vq);
/**
 * virtq_kick_enable() - ask for a kick at the next chain.
 *
 * Return: true when a chain arrived meanwhile: then no kick may come, so pop again before sleeping.
 */
bool must_check virtq_kick_enable(struct virtq *vq);

/**
 * virtq_push() - give a chain back.
 * @chain: @id, @nr_desc and @inflight_slot as virtq_pop() set them; the iovecs are not used
 * @written: bytes written into the writable part, as they are, never more
 *
 * The driver sees it after virtq_flush(). Chains may come back in any order.
 */
void virtq_push(struct virtq *vq, const struct virtq_chain *chain, uint32_t written);
/**
 * virtq_push_soon() - a chain will be given back as soon as its data are there: fetch what the driver read last.
 *
 * Context: any thread that has a chain of @vq; no lock, since a wrong guess costs nothing but time.
 */
void virtq_push_soon(const struct virtq *vq);
/** virtq_flush() - publish all pushed chains to the driver at once. */
void virtq_flush(struct virtq *vq);
/**
 * virtq_call_needed() - does the driver want an interrupt for what was flushed since the last call of this?
 */
bool must_check virtq_call_needed(struct virtq *vq);

/** virtq_base() - the position to restart at, in the encoding of struct virtq_setup. */
uint32_t virtq_base(const struct virtq *vq);

/** virtq_broken() - NULL, or in a few words which rule the driver broke. */
const char *virtq_broken(const struct virtq *vq);

/**
 * virtq_inflight_bytes() - size of the in-flight area of one ring (vhost-user's layout), a multiple of 64: the
 * distance from one ring's area to the next in the shared file.
 */
size_t virtq_inflight_bytes(enum virtq_format format, uint32_t size);
/**
 * virtq_inflight_format() - make a zeroed area valid: version, number of descriptors, free list.
 *
 * An area that a front-end hands back is checked by virtq_new() instead; version 0 is formatted there. The area may
 * have been made for a larger ring than the one that uses it, not for a smaller one.
 */
void virtq_inflight_format(void *area, enum virtq_format format, uint32_t size);
/**
 * virtq_inflight_base() - where a ring goes on whose device has ended without saying so.
 * @area: copy of virtq_inflight_bytes() bytes of the ring's area; anything may be in it
 * @base: where the ring was started: the answer as long as nothing was taken since
 *
 * An area that virtq_free() marked as uninitialised tells, too: its positions are those of the end. Chains in flight lie
 * between used and available position of a packed ring; for a split ring the answer is the used index: devices
 * that record find the rest in the area.
 *
 * Return: a base in the encoding of struct virtq_setup.
 */
uint32_t virtq_inflight_base(const void *area, enum virtq_format format, uint32_t size,
			     uint32_t base);

#endif
