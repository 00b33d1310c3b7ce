/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scatter-gather lists: lengths and copies.
 *
 * A list may point into memory that a guest writes at the same time. Nothing here looks at the bytes;
 * a copy out is a snapshot, and the caller checks the copy.
 */
#ifndef FUSEWIRE_BASE_IOV_H
#define FUSEWIRE_BASE_IOV_H

#include <sys/uio.h>

#include "base/compiler.h"

/**
 * iov_bytes() - total length of @iov[0 .. @nr), in bytes.
 *
 * The lists of this project come from chain walks that bound the sum; it does not wrap.
 */
size_t iov_bytes(const struct iovec *iov, unsigned int nr);

/**
 * iov_copy_out() - copy bytes [@off, @off + @len) of a list to @dst.
 * @dst: at least @len bytes
 * @iov: source list of @nr segments
 *
 * Return: bytes copied; less than @len only when the list ends before.
 */
size_t iov_copy_out(void *dst, const struct iovec *iov, unsigned int nr, size_t off, size_t len);

/**
 * iov_copy_in() - copy @len bytes from @src into a list, beginning at byte @off of it.
 *
 * Return: bytes copied; less than @len only when the list ends before.
 */
size_t iov_copy_in(const struct iovec *iov, unsigned int nr, size_t off, const void *src,
		   size_t len);

#endif
