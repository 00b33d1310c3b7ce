/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables of mapped driver memory: immutable, counted, their regions shared between tables.
 */
#include "mem/mem_table.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "mem/sigbus.h"

/**
 * struct mem_region - one mapping, shared by all tables that contain it.
 * @refs: tables that contain it
 * @desc: as the peer described it; checked
 * @ptr: where the region's first byte is mapped
 * @map: start of the mapping; before @ptr when the file offset is not a multiple of the page size
 * @map_bytes: length of the mapping
 */
struct mem_region {
	unsigned int refs;
	struct mem_region_desc desc;
	char *ptr;
	void *map;
	size_t map_bytes;
};

/**
 * struct mem_span - one region in one of the three orders of a table, with what a lookup needs.
 * @start: first address of the order's address space
 * @size: bytes
 * @region: behind it
 */
struct mem_span {
	uint64_t start;
	uint64_t size;
	struct mem_region *region;
};

enum mem_order {
	BY_GPA,
	BY_USER,
	BY_PTR,
	NR_ORDERS
};

/**
 * struct mem_table - the snapshot.
 * @refs: holders
 * @nr: regions
 * @spans: @nr spans per order, each ascending, none overlapping
 */
struct mem_table {
	unsigned int refs;
	unsigned int nr;
	struct mem_span spans[];
};

static void region_put(struct mem_region *region)
{
	/* Acq_rel: what other holders did to the region happens before the unmapping. */
	if (__atomic_sub_fetch(&region->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	sigbus_guard_remove(region->map);
	munmap(region->map, region->map_bytes);
	free(region);
}

static void region_get(struct mem_region *region)
{
	__atomic_add_fetch(&region->refs, 1, __ATOMIC_RELAXED);
}

/* Return: page size of mappings of @fd, or negative errno; refuses a file that ends before @end. */
static int64_t file_page_size(int fd, uint64_t end)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	/* Devices (/dev/dax*) have no size; mmap(2) decides there. */
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < end)
		return -ERANGE;
	if ((uint64_t)fs.f_type == HUGETLBFS_MAGIC)
		return (int64_t)fs.f_bsize;
	return sysconf(_SC_PAGESIZE);
}

static int region_map(struct mem_region *region, int fd)
{
	uint64_t end = region->desc.mmap_offset + region->desc.size;
	int64_t page = file_page_size(fd, end);
	uint64_t skip, bytes;
	int ret;

	if (page < 0)
		return (int)page;
	if (page == 0 || !is_power_of_two((uint64_t)page))
		return -EINVAL;
	skip = region->desc.mmap_offset & ((uint64_t)page - 1);
	if (ckd_add(&bytes, region->desc.size, skip) || bytes > SIZE_MAX / 2 - (uint64_t)page)
		return -EINVAL;
	bytes = round_up_to(bytes, (uint64_t)page);
	region->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
			   (off_t)(region->desc.mmap_offset - skip));
	if (region->map == MAP_FAILED)
		return -errno;
	region->map_bytes = bytes;
	region->ptr = (char *)region->map + skip;
	/* A driver's memory has no place in our core files. Old kernels may refuse: no harm. */
	(void)madvise(region->map, bytes, MADV_DONTDUMP);
	ret = sigbus_guard_add_paged(region->map, bytes, (size_t)page);
	if (ret < 0)
		munmap(region->map, bytes);
	return ret;
}

static int region_new(struct mem_region **ret_region, const struct mem_region_desc *desc, int fd)
{
	struct mem_region *region = calloc(1, sizeof(*region));
	int ret;

	if (!region)
		return -ENOMEM;
	region->refs = 1;
	region->desc = *desc;
	ret = region_map(region, fd);
	if (ret < 0) {
		free(region);
		return ret;
	}
	*ret_region = region;
	return 0;
}

static const struct mem_span *order_spans(const struct mem_table *table, enum mem_order order)
{
	return table->spans + (size_t)order * table->nr;
}

static uint64_t span_start(const struct mem_region *region, enum mem_order order)
{
	switch (order) {
	case BY_GPA:
		return region->desc.gpa;
	case BY_USER:
		return region->desc.user_addr;
	default:
		return (uintptr_t)region->ptr;
	}
}

/* The span of @order that contains @addr, or NULL. */
static inline const struct mem_span *find_span(const struct mem_table *table, enum mem_order order,
					       uint64_t addr)
{
	const struct mem_span *spans = order_spans(table, order);
	unsigned int lo = 0;
	unsigned int hi = table->nr;

	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (addr < spans[mid].start)
			hi = mid;
		else if (addr - spans[mid].start >= spans[mid].size)
			lo = mid + 1;
		else
			return &spans[mid];
	}
	return NULL;
}

/* Does [@start, @start + @size) touch any span of @order? The sum was checked. */
static bool overlaps(const struct mem_table *table, enum mem_order order, uint64_t start,
		     uint64_t size)
{
	const struct mem_span *spans = order_spans(table, order);

	for (unsigned int i = 0; i < table->nr; i++) {
		if (start < spans[i].start + spans[i].size && spans[i].start < start + size)
			return true;
	}
	return false;
}

static struct mem_table *table_alloc(unsigned int nr)
{
	struct mem_table *table =
		calloc(1, sizeof(*table) + (size_t)nr * NR_ORDERS * sizeof(struct mem_span));

	if (!table)
		return NULL;
	table->refs = 1;
	table->nr = nr;
	return table;
}

/*
 * Fill @table, one order after the other, with the regions of @old except @drop, and with @add in its place.
 * Both may be NULL. Takes no references.
 */
static void table_fill(struct mem_table *table, const struct mem_table *old,
		       const struct mem_region *drop, struct mem_region *add)
{
	for (enum mem_order order = BY_GPA; order < NR_ORDERS; order++) {
		const struct mem_span *from = order_spans(old, order);
		struct mem_span *to = table->spans + (size_t)order * table->nr;
		struct mem_span new = { 0 };
		bool pending = add != NULL;

		if (add)
			new = (struct mem_span){ span_start(add, order), add->desc.size, add };
		for (unsigned int i = 0; i < old->nr; i++) {
			if (from[i].region == drop)
				continue;
			if (pending && new.start < from[i].start) {
				*to++ = new;
				pending = false;
			}
			*to++ = from[i];
		}
		if (pending)
			*to = new;
	}
}

int mem_table_new(struct mem_table **ret_table)
{
	struct mem_table *table = table_alloc(0);

	if (!table)
		return -ENOMEM;
	*ret_table = table;
	return 0;
}

static int check_desc(const struct mem_table *old, const struct mem_region_desc *desc)
{
	uint64_t end;

	if (!desc->size || ckd_add(&end, desc->gpa, desc->size) ||
	    ckd_add(&end, desc->user_addr, desc->size) ||
	    ckd_add(&end, desc->mmap_offset, desc->size) || end > INT64_MAX)
		return -EINVAL;
	if (overlaps(old, BY_GPA, desc->gpa, desc->size) ||
	    overlaps(old, BY_USER, desc->user_addr, desc->size))
		return -EINVAL;
	return old->nr < MEM_REGIONS_MAX ? 0 : -ENOSPC;
}

int mem_table_with_region(struct mem_table **ret_table, const struct mem_table *old,
			  const struct mem_region_desc *desc, int fd)
{
	struct mem_region *region;
	struct mem_table *table;
	int ret = check_desc(old, desc);

	if (ret < 0)
		return ret;
	table = table_alloc(old->nr + 1);
	if (!table)
		return -ENOMEM;
	ret = region_new(&region, desc, fd);
	if (ret < 0) {
		free(table);
		return ret;
	}
	for (unsigned int i = 0; i < old->nr; i++)
		region_get(old->spans[i].region);
	table_fill(table, old, NULL, region);
	*ret_table = table;
	return 0;
}

int mem_table_without_region(struct mem_table **ret_table, const struct mem_table *old,
			     const struct mem_region_desc *desc)
{
	const struct mem_span *span = find_span(old, BY_GPA, desc->gpa);
	struct mem_table *table;

	if (!span || span->start != desc->gpa || span->size != desc->size ||
	    span->region->desc.user_addr != desc->user_addr)
		return -ENOENT;
	table = table_alloc(old->nr - 1);
	if (!table)
		return -ENOMEM;
	table_fill(table, old, span->region, NULL);
	for (unsigned int i = 0; i < table->nr; i++)
		region_get(table->spans[i].region);
	*ret_table = table;
	return 0;
}

struct mem_table *mem_table_get(struct mem_table *table)
{
	__atomic_add_fetch(&table->refs, 1, __ATOMIC_RELAXED);
	return table;
}

void mem_table_put(struct mem_table *table)
{
	/* Acq_rel: what other holders did through the table happens before the unmapping. */
	if (!table || __atomic_sub_fetch(&table->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (unsigned int i = 0; i < table->nr; i++)
		region_put(table->spans[i].region);
	free(table);
}

unsigned int mem_table_nr_regions(const struct mem_table *table)
{
	return table->nr;
}

static inline void __guest *map_in(const struct mem_table *table, enum mem_order order,
				   uint64_t addr, uint64_t len)
{
	const struct mem_span *span = find_span(table, order, addr);

	if (unlikely(!span || !len || !range_within(addr - span->start, len, span->size)))
		return NULL;
	return guest_mark(span->region->ptr + (addr - span->start));
}

void __guest *mem_table_map(const struct mem_table *table, gpa_t addr, uint64_t len)
{
	return map_in(table, BY_GPA, addr.v, len);
}

void __guest *mem_table_map_user(const struct mem_table *table, uint64_t user_addr, uint64_t len)
{
	return map_in(table, BY_USER, user_addr, len);
}

/* Walks @len bytes; @iov NULL only counts. */
static int walk_iov(const struct mem_table *table, gpa_t addr, uint64_t len, struct iovec *iov,
		    unsigned int iov_cap)
{
	const struct mem_span *span = find_span(table, BY_GPA, addr.v);
	const struct mem_span *end = order_spans(table, BY_GPA) + table->nr;
	uint64_t at = addr.v;
	unsigned int nr = 0;

	if (!span || !len)
		return -EFAULT;
	for (;;) {
		uint64_t off = at - span->start;
		uint64_t part = min_of(len, span->size - off);

		if (iov) {
			if (nr == iov_cap)
				return -ENOBUFS;
			iov[nr] = (struct iovec){ span->region->ptr + off, part };
		}
		nr++;
		len -= part;
		if (!len)
			return (int)nr;
		at = span->start + span->size;
		if (++span == end || span->start != at)
			return -EFAULT;
	}
}

int mem_table_map_iov(const struct mem_table *table, gpa_t addr, uint64_t len, struct iovec *iov,
		      unsigned int iov_cap)
{
	int ret = walk_iov(table, addr, len, NULL, 0);

	/* Counted first: a bad address is reported as such, however small @iov is. */
	if (ret < 0)
		return ret;
	if ((unsigned int)ret > iov_cap)
		return -ENOBUFS;
	return walk_iov(table, addr, len, iov, iov_cap);
}

int mem_table_count_iov(const struct mem_table *table, gpa_t addr, uint64_t len)
{
	return walk_iov(table, addr, len, NULL, 0);
}

bool mem_table_gpa_of(const struct mem_table *table, const void *ptr, uint64_t *ret_gpa)
{
	const struct mem_span *span = find_span(table, BY_PTR, (uintptr_t)ptr);

	if (!span)
		return false;
	*ret_gpa = span->region->desc.gpa + ((uintptr_t)ptr - span->start);
	return true;
}
