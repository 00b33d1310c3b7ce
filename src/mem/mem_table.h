/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memory table: which parts of the driver's address space we see, and where they are mapped here.
 *
 * A table is an immutable snapshot with a reference count. Who changes the map makes a new table and
 * swaps it in; requests hold a reference to the table that their iovecs point into, so a mapping lives as
 * long as anything uses it. This is the one place that turns a guest address into a pointer.
 *
 * A peer that truncates the file behind a region cannot crash us: a SIGBUS inside a mapped region
 * replaces the missing page by a private page of zeros (see sigbus.h).
 */
#ifndef FUSEWIRE_MEM_MEM_TABLE_H
#define FUSEWIRE_MEM_MEM_TABLE_H

#include <sys/uio.h>

#include "mem/guest.h"

/** MEM_REGIONS_MAX - regions in one table; QEMU on x86 allows 509 slots with CONFIGURE_MEM_SLOTS. */
#define MEM_REGIONS_MAX 509

struct mem_table;

/**
 * struct mem_region_desc - one region as a peer describes it; nothing is checked yet.
 * @gpa: start in the driver's physical address space
 * @size: bytes
 * @user_addr: start in the peer's own address space (vhost-user names ring addresses in it)
 * @mmap_offset: offset of the region in the file, bytes
 */
struct mem_region_desc {
	uint64_t gpa;
	uint64_t size;
	uint64_t user_addr;
	uint64_t mmap_offset;
};

/**
 * mem_table_new() - an empty table, reference count 1.
 *
 * Return: 0, or -ENOMEM with *@ret_table untouched.
 */
int must_check mem_table_new(struct mem_table **ret_table);

/**
 * mem_table_with_region() - a copy of @old plus one region mapped from @fd, reference count 1.
 * @ret_table: the new table; @old is unchanged, and its regions are shared, not mapped again
 * @desc: checked here: not empty, nothing wraps, overlaps no region of @old in either address space
 * @fd: shared memory file; stays the caller's, may be closed afterwards
 *
 * Return: 0; -EINVAL for a bad @desc; -ENOSPC beyond MEM_REGIONS_MAX; -ERANGE when the file is shorter than
 * the region; -ENOMEM or the negative errno of mmap(2).
 */
int must_check mem_table_with_region(struct mem_table **ret_table, const struct mem_table *old,
				     const struct mem_region_desc *desc, int fd);

/**
 * mem_table_without_region() - a copy of @old less the region with this gpa, size and user_addr.
 *
 * Return: 0; -ENOENT when no region matches exactly; -ENOMEM.
 */
int must_check mem_table_without_region(struct mem_table **ret_table, const struct mem_table *old,
					const struct mem_region_desc *desc);

/** mem_table_get() - one more reference. Context: any thread. Return: @table. */
struct mem_table *mem_table_get(struct mem_table *table);
/** mem_table_put() - drop a reference; the last one unmaps. NULL is allowed. Context: any thread. */
void mem_table_put(struct mem_table *table);

/** mem_table_nr_regions() - number of regions in the table. */
unsigned int mem_table_nr_regions(const struct mem_table *table);

/**
 * mem_table_map() - @len bytes at @addr as one contiguous range here.
 *
 * Return: the pointer, or NULL when the range is not wholly inside one region (@len 0 included).
 */
void __guest *mem_table_map(const struct mem_table *table, gpa_t addr, uint64_t len);

/**
 * mem_table_map_user() - like mem_table_map() for an address in the peer's own address space.
 */
void __guest *mem_table_map_user(const struct mem_table *table, uint64_t user_addr, uint64_t len);

/**
 * mem_table_map_iov() - @len bytes at @addr as a list; adjacent regions may each give a segment.
 * @iov: room for @iov_cap segments
 *
 * Return: number of segments (≥ 1); -EFAULT when any byte is outside the table or @len is 0;
 * -ENOBUFS when @iov_cap is too small.
 */
int must_check mem_table_map_iov(const struct mem_table *table, gpa_t addr, uint64_t len,
				 struct iovec *iov, unsigned int iov_cap);

/**
 * mem_table_count_iov() - how many segments mem_table_map_iov() would give.
 *
 * Return: the number (≥ 1); -EFAULT when any byte is outside the table or @len is 0.
 */
int must_check mem_table_count_iov(const struct mem_table *table, gpa_t addr, uint64_t len);

/**
 * mem_table_gpa_of() - the guest address of a pointer that this table mapped; for the dirty log.
 *
 * Return: true and *@ret_gpa, or false for a pointer outside.
 */
bool must_check mem_table_gpa_of(const struct mem_table *table, const void *ptr, uint64_t *ret_gpa);

#endif
