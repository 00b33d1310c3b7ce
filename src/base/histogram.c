/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log-linear histogram: the index of a bucket is the exponent and the six bits behind the leading one.
 */
#include "base/histogram.h"

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_STEPS)
		return (unsigned int)value;
	shift = 63u - (unsigned int)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
	/* The leading one, seen as a step, is HISTOGRAM_STEPS: it moves the row by one, past the exact values. */
	return shift * HISTOGRAM_STEPS + (unsigned int)(value >> shift);
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_end(unsigned int index)
{
	unsigned int shift;
	uint64_t step;

	if (index < HISTOGRAM_STEPS)
		return index;
	shift = index / HISTOGRAM_STEPS - 1;
	step = index % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
	return (step << shift) + ((UINT64_C(1) << shift) - 1);
}

void histogram_add(struct histogram *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	h->max = max_of(h->max, value);
	h->bucket[bucket_of(value)]++;
}

void histogram_merge(struct histogram *h, const struct histogram *from)
{
	h->count += from->count;
	h->sum += from->sum;
	h->max = max_of(h->max, from->max);
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++)
		h->bucket[i] += from->bucket[i];
}

uint64_t histogram_quantile(const struct histogram *h, uint32_t ppm)
{
	/* In two parts: count * ppm may not fit. Rounded up: "at least this share". */
	uint64_t rest = h->count % 1000000 * ppm;
	uint64_t want = h->count / 1000000 * ppm + (rest + 999999) / 1000000;
	uint64_t seen = 0;

	assert(ppm <= 1000000);
	if (!h->count)
		return 0;
	want = max_of(want, UINT64_C(1));
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= want)
			return min_of(bucket_end(i), h->max);
	}
	return h->max;
}

double histogram_mean(const struct histogram *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0.0;
}
