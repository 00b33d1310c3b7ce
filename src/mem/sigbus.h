/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Survives a peer that truncates memory which it shared with us.
 *
 * Touching a mapped page behind the end of its file raises SIGBUS. For addresses inside a guarded range the
 * handler maps a private page of zeros there and returns: the access goes on, the peer has lost its data.
 * A SIGBUS anywhere else takes its default course.
 */
#ifndef FUSEWIRE_MEM_SIGBUS_H
#define FUSEWIRE_MEM_SIGBUS_H

#include "base/compiler.h"

/**
 * sigbus_guard_add() - guard [@addr, @addr + @len); installs the process's handler at the first call.
 *
 * Return: 0; -ENOSPC when SIGBUS_GUARDS_MAX ranges are guarded; negative errno of sigaction(2).
 */
int must_check sigbus_guard_add(void *addr, size_t len);
/**
 * sigbus_guard_add_paged() - sigbus_guard_add() for a mapping with pages of its own size (hugetlbfs).
 * @page_bytes: granularity of a repair, a power of two; @addr and @len are multiples of it
 *
 * Return: as sigbus_guard_add().
 */
int must_check sigbus_guard_add_paged(void *addr, size_t len, size_t page_bytes);
/** sigbus_guard_remove() - stop guarding the range that begins at @addr; call before munmap(2). */
void sigbus_guard_remove(void *addr);
/** sigbus_nr_repaired() - faults repaired so far, in the whole process. */
uint64_t sigbus_nr_repaired(void);

/**
 * SIGBUS_PIECES_MAX - pages replaced one by one that there may be at a time, in all guarded ranges; beyond, a range is
 * replaced as a whole, its pages that are still there included: each piece costs mappings, and a process that has no
 * more of them would die of the next fault.
 */
#define SIGBUS_PIECES_MAX 8192

/** SIGBUS_GUARDS_MAX - ranges guarded at a time. */
#define SIGBUS_GUARDS_MAX 2048

#endif
