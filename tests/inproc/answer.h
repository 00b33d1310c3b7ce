/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A reply of the daemon that a test plays.
 */
#ifndef FUSEWIRE_TESTS_INPROC_ANSWER_H
#define FUSEWIRE_TESTS_INPROC_ANSWER_H

#include "fuse/abi.h"
#include "service/inproc/inproc.h"

/* Return: as inproc_write(). */
static inline ssize_t answer(struct service *svc, uint64_t unique, int error, const void *body,
			     size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len),
				       .error = error,
				       .unique = unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };

	return inproc_write(svc, iov, len ? 2 : 1);
}

#endif
