/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the driver side share; private to them.
 */
#ifndef FUSEWIRE_VIRTIO_VIRTQ_DRIVER_IMPL_H
#define FUSEWIRE_VIRTIO_VIRTQ_DRIVER_IMPL_H

#include "virtio/ring_layout.h"
#include "virtio/virtq_driver.h"

/**
 * struct driver_slot - one descriptor (split) or buffer id (packed).
 * @cookie: of the chain whose head or id this is; NULL when it is none
 * @in_bytes: writable bytes of that chain
 * @nr_desc: descriptors of that chain
 * @next: split: next descriptor of the chain or of the free list; packed: next free id
 * @last: split: last descriptor of the chain
 */
struct driver_slot {
	void *cookie;
	uint64_t in_bytes;
	uint16_t nr_desc;
	uint16_t next;
	uint16_t last;
};

/**
 * struct virtq_driver - the ring.
 * @setup: as given
 * @desc: descriptor area
 * @driver: driver area
 * @device: device area
 * @tables: indirect tables, @setup.indirect_max entries for each slot
 * @slots: @setup.size of them
 * @free_head: first free slot
 * @nr_free: free descriptors
 * @nr_out: chains out
 * @avail: split: avail index, free running; packed: position
 * @avail_wrap: packed: wrap counter at @avail
 * @nr_added: ring entries added since the last publication (split: chains; packed: descriptors)
 * @first_pos: packed: position of the first descriptor that is not published
 * @first_word: packed: its second word, withheld until then
 * @used: split: used index, free running; packed: position
 * @used_wrap: packed: wrap counter at @used
 * @used_seen: split: used index when it was last loaded
 * @broken: the device broke a rule
 */
struct virtq_driver {
	struct virtq_driver_setup setup;
	struct ring_desc __guest *desc;
	void __guest *driver;
	void __guest *device;
	struct ring_desc __guest *tables;
	struct driver_slot *slots;
	uint16_t free_head;
	uint32_t nr_free;
	uint32_t nr_out;
	uint16_t avail;
	bool avail_wrap;
	uint32_t nr_added;
	uint16_t first_pos;
	uint64_t first_word;
	uint16_t used;
	bool used_wrap;
	uint16_t used_seen;
	bool broken;
};

/** driver_addr() - guest address of a pointer into the memory. */
static inline uint64_t driver_addr(const struct virtq_driver *drv, const volatile void __guest *p)
{
	return drv->setup.mem.gpa +
	       (uint64_t)((char *)guest_strip(p) - (char *)drv->setup.mem.base);
}

/** driver_table() - the indirect table of @slot. */
static inline struct ring_desc __guest *driver_table(const struct virtq_driver *drv, uint32_t slot)
{
	return drv->tables + (size_t)slot * drv->setup.indirect_max;
}

/** driver_use_indirect() - does a chain of @nr segments go into a table? */
static inline bool driver_use_indirect(const struct virtq_driver *drv, unsigned int nr)
{
	return nr > 1 && nr <= drv->setup.indirect_max;
}

/* The format's part of the functions in virtq_driver.h; arguments were checked. */

void driver_split_add(struct virtq_driver *drv, const struct iovec *segs, unsigned int nr_out,
		      unsigned int nr, void *cookie);
bool driver_split_publish(struct virtq_driver *drv);
int driver_split_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written);
bool driver_split_has_used(const struct virtq_driver *drv);
void driver_split_call(struct virtq_driver *drv, bool on);
uint32_t driver_split_base(const struct virtq_driver *drv);

void driver_packed_add(struct virtq_driver *drv, const struct iovec *segs, unsigned int nr_out,
		       unsigned int nr, void *cookie);
bool driver_packed_publish(struct virtq_driver *drv);
int driver_packed_get(struct virtq_driver *drv, void **ret_cookie, uint32_t *ret_written);
bool driver_packed_has_used(const struct virtq_driver *drv);
void driver_packed_call(struct virtq_driver *drv, bool on);
uint32_t driver_packed_base(const struct virtq_driver *drv);

#endif
