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

size_t iov_copy_out(void *dst, const struct iovec *iov, unsigned int nr, size_t off, size_t len)
{
	char *to = dst;
	size_t left = len;

	for (unsigned int i = 0; i < nr && left; i++) {
		size_t n;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		n = min_of(iov[i].iov_len - off, left);
		memcpy(to, (const char *)iov[i].iov_base + off, n);
		to += n;
		left -= n;
		off = 0;
	}
	return len - left;
}

size_t iov_copy_in(const struct iovec *iov, unsigned int nr, size_t off, const void *src,
		   size_t len)
{
	const char *from = src;
	size_t left = len;

	for (unsigned int i = 0; i < nr && left; i++) {
		size_t n;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		n = min_of(iov[i].iov_len - off, left);
		memcpy((char *)iov[i].iov_base + off, from, n);
		from += n;
		left -= n;
		off = 0;
	}
	return len - left;
}
