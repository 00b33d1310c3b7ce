/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scatter-gather lists: lengths and copies.
 */
#include "base/iov.h"

#include <string.h>

size_t iov_bytes(const struct iovec *iov, unsigned int nr)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < nr; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Copy up to @len bytes between @buf and what lies behind byte @off of the list. Return: bytes. */
static inline size_t copy(const struct iovec *iov, unsigned int nr, size_t off, char *buf,
			  size_t len, bool into_list)
{
	size_t left = len;

	for (unsigned int i = 0; i < nr && left; i++) {
		char *at;
		size_t n;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		at = (char *)iov[i].iov_base + off;
		n = min_of(iov[i].iov_len - off, left);
		if (into_list)
			memcpy(at, buf, n);
		else
			memcpy(buf, at, n);
		buf += n;
		left -= n;
		off = 0;
	}
	return len - left;
}

size_t iov_copy_out(void *dst, const struct iovec *iov, unsigned int nr, size_t off, size_t len)
{
	return copy(iov, nr, off, dst, len, false);
}

size_t iov_copy_in(const struct iovec *iov, unsigned int nr, size_t off, const void *src,
		   size_t len)
{
	return copy(iov, nr, off, (char *)(uintptr_t)src, len, true);
}
