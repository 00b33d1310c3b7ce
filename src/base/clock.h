/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Monotonic time in nanoseconds.
 */
#ifndef FUSEWIRE_BASE_CLOCK_H
#define FUSEWIRE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC  1000000000ull

/** clock_now_ns() - CLOCK_MONOTONIC, in nanoseconds; served by the vDSO, no syscall. */
static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

#endif
