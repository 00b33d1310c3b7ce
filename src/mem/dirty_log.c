/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sets bits in the front-end's dirty bitmap for what we wrote.
 */
#include "mem/dirty_log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "mem/sigbus.h"

/**
 * struct dirty_log - a mapped bitmap.
 * @refs: holders
 * @bits: the bitmap
 * @bytes: its length
 * @map: start of the mapping, @map_bytes long
 * @map_bytes: length of the mapping
 */
struct dirty_log {
	unsigned int refs;
	uint8_t *bits;
	uint64_t bytes;
	void *map;
	size_t map_bytes;
};

static int map_log(struct dirty_log *log, int fd, uint64_t size, uint64_t offset)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t skip = offset & (page - 1);
	uint64_t end, bytes;
	struct stat st;
	int ret;

	if (!size || ckd_add(&end, size, offset) || end > INT64_MAX || size > SIZE_MAX / 2 - page)
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < end)
		return -ERANGE;
	bytes = round_up_to(size + skip, page);
	log->map =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(offset - skip));
	if (log->map == MAP_FAILED)
		return -errno;
	log->map_bytes = bytes;
	log->bits = (uint8_t *)log->map + skip;
	log->bytes = size;
	ret = sigbus_guard_add(log->map, bytes);
	if (ret < 0)
		munmap(log->map, bytes);
	return ret;
}

int dirty_log_new(struct dirty_log **ret_log, int fd, uint64_t size, uint64_t offset)
{
	struct dirty_log *log = calloc(1, sizeof(*log));
	int ret;

	if (!log)
		return -ENOMEM;
	log->refs = 1;
	ret = map_log(log, fd, size, offset);
	if (ret < 0) {
		free(log);
		return ret;
	}
	*ret_log = log;
	return 0;
}

struct dirty_log *dirty_log_get(struct dirty_log *log)
{
	__atomic_add_fetch(&log->refs, 1, __ATOMIC_RELAXED);
	return log;
}

void dirty_log_put(struct dirty_log *log)
{
	if (!log || __atomic_sub_fetch(&log->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	sigbus_guard_remove(log->map);
	munmap(log->map, log->map_bytes);
	free(log);
}

void dirty_log_mark(struct dirty_log *log, uint64_t addr, uint64_t len)
{
	uint64_t page = addr / DIRTY_LOG_PAGE;
	uint64_t nr_bits = log->bytes > UINT64_MAX / 8 ? UINT64_MAX : log->bytes * 8;
	uint64_t end, last;

	if (!len)
		return;
	if (ckd_add(&end, addr, len - 1))
		end = UINT64_MAX;
	last = min_of(end / DIRTY_LOG_PAGE, nr_bits - 1);
	/*
	 * Always a locked operation, also where the bit seems to be set: its full barrier orders the data
	 * before the bit, against a front-end that clears the bit and then copies the page.
	 */
	for (; page <= last; page++)
		__atomic_fetch_or(&log->bits[page / 8], (uint8_t)(1u << (page % 8)),
				  __ATOMIC_SEQ_CST);
}

void dirty_log_mark_iov(struct dirty_log *log, const struct mem_table *table,
			const struct iovec *iov, unsigned int nr, size_t bytes)
{
	for (unsigned int i = 0; i < nr && bytes; i++) {
		size_t part = min_of(bytes, iov[i].iov_len);
		uint64_t addr;

		if (part && mem_table_gpa_of(table, iov[i].iov_base, &addr))
			dirty_log_mark(log, addr, part);
		bytes -= part;
	}
}
