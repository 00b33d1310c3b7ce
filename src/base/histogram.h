/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A log-linear histogram: counts of 64-bit values with a bounded relative error, for latencies.
 *
 * Values below HISTOGRAM_STEPS are exact; above, each power of two is cut into HISTOGRAM_STEPS equal buckets, so that a
 * value read back is at most 1/64 too high. Context: one thread at a time.
 */
#ifndef FUSEWIRE_BASE_HISTOGRAM_H
#define FUSEWIRE_BASE_HISTOGRAM_H

#include "base/compiler.h"

/** HISTOGRAM_STEP_BITS - log2 of HISTOGRAM_STEPS. */
#define HISTOGRAM_STEP_BITS 6
/** HISTOGRAM_STEPS - buckets per power of two. */
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
/** HISTOGRAM_BUCKETS - one row of exact values, one row per power of two above. */
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

/**
 * struct histogram - all zero is empty.
 * @count: values added
 * @sum: their sum; the caller's values do not let it wrap
 * @max: the largest
 * @bucket: values per bucket
 */
struct histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t max;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

/** histogram_add() - count @value. */
void histogram_add(struct histogram *h, uint64_t value);

/** histogram_merge() - add all values of @from to @h. */
void histogram_merge(struct histogram *h, const struct histogram *from);

/**
 * histogram_quantile() - the smallest value that at least a share of all values do not exceed.
 * @ppm: the share in millionths, up to 1000000
 *
 * Return: the upper end of the value's bucket, but never more than the largest value; 0 when empty.
 */
uint64_t histogram_quantile(const struct histogram *h, uint32_t ppm);

/** histogram_mean() - arithmetic mean; 0 when empty. */
double histogram_mean(const struct histogram *h);

#endif
