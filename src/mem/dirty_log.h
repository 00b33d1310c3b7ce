/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dirty log: a bitmap in shared memory, one bit per 4 KiB page of driver memory that we wrote.
 *
 * Source: vhost-user protocol, "Migration": bit N of the log stands for the page at N * 0x1000, bits are
 * set atomically in bytes. Marks beyond the log's end are dropped: the front-end chose its size.
 */
#ifndef FUSEWIRE_MEM_DIRTY_LOG_H
#define FUSEWIRE_MEM_DIRTY_LOG_H

#include "mem/mem_table.h"

/** DIRTY_LOG_PAGE - bytes that one bit stands for (VHOST_LOG_PAGE). */
#define DIRTY_LOG_PAGE 0x1000

struct dirty_log;

/**
 * dirty_log_new() - map a log, reference count 1.
 * @fd: shared memory; stays the caller's
 * @size: bytes of log, @offset: where it begins in @fd
 *
 * Return: 0; -EINVAL for size 0 or an offset that wraps; -ERANGE when the file is too short; negative errno.
 */
int must_check dirty_log_new(struct dirty_log **ret_log, int fd, uint64_t size, uint64_t offset);
/** dirty_log_get() - one more reference. Return: @log. */
struct dirty_log *dirty_log_get(struct dirty_log *log);
/** dirty_log_put() - drop a reference; the last one unmaps. NULL is allowed. */
void dirty_log_put(struct dirty_log *log);

/** dirty_log_mark() - [@addr, @addr + @len) was written. Context: any thread. */
void dirty_log_mark(struct dirty_log *log, uint64_t addr, uint64_t len);

/**
 * dirty_log_mark_iov() - the first @bytes bytes of @iov, which @table mapped, were written.
 */
void dirty_log_mark_iov(struct dirty_log *log, const struct mem_table *table,
			const struct iovec *iov, unsigned int nr, size_t bytes);

#endif
