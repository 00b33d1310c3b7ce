/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Histogram: exact small values, bounded error of all others, quantiles against sorted values.
 */
#include "base/histogram.h"

#include <stdlib.h>
#include <string.h>

#include "cm.h"

static struct histogram h, other;

static uint64_t only(uint64_t value)
{
	memset(&h, 0, sizeof(h));
	histogram_add(&h, value);
	/* One larger value, so that the largest does not hide the end of the bucket. */
	histogram_add(&h, UINT64_MAX);
	return histogram_quantile(&h, 500000);
}

static void test_empty(void **state)
{
	memset(&h, 0, sizeof(h));
	assert_int_equal(histogram_quantile(&h, 0), 0);
	assert_int_equal(histogram_quantile(&h, 1000000), 0);
	assert_true(histogram_mean(&h) == 0.0);
}

static void test_small_values_are_exact(void **state)
{
	for (uint64_t v = 0; v < 2 * (uint64_t)HISTOGRAM_STEPS; v++)
		assert_int_equal(only(v), v);
	assert_int_equal(only(2 * HISTOGRAM_STEPS), 2 * HISTOGRAM_STEPS + 1);
}

static void test_error_is_bounded(void **state)
{
	for (unsigned int bit = 0; bit < 64; bit++) {
		uint64_t power = UINT64_C(1) << bit;
		const uint64_t near[] = { power - 1, power, power + 1, power + power / 3 };

		for (size_t i = 0; i < array_size(near); i++) {
			uint64_t got = only(near[i]);

			assert_true(got >= near[i]);
			assert_true(got - near[i] <= near[i] / HISTOGRAM_STEPS);
		}
	}
	assert_true(only(UINT64_MAX) == UINT64_MAX);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void test_quantiles(void **state)
{
	static const uint32_t shares[] = { 0, 1, 500000, 990000, 999000, 999999, 1000000 };
	static uint64_t values[10007];
	uint64_t rng = 88172645463325252ull;

	memset(&h, 0, sizeof(h));
	memset(&other, 0, sizeof(other));
	for (size_t i = 0; i < array_size(values); i++) {
		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		values[i] = rng >> (20 + rng % 30);
		histogram_add(i % 3 ? &h : &other, values[i]);
	}
	histogram_merge(&h, &other);
	assert_int_equal(h.count, array_size(values));
	qsort(values, array_size(values), sizeof(values[0]), by_value);
	for (size_t i = 0; i < array_size(shares); i++) {
		uint64_t rank = (array_size(values) * shares[i] + 999999) / 1000000;
		uint64_t want = values[rank ? rank - 1 : 0];
		uint64_t got = histogram_quantile(&h, shares[i]);

		assert_true(got >= want && got - want <= want / HISTOGRAM_STEPS);
	}
	assert_true(histogram_quantile(&h, 1000000) == values[array_size(values) - 1]);
}

static void test_mean(void **state)
{
	memset(&h, 0, sizeof(h));
	for (uint64_t v = 1000; v <= 2000; v++)
		histogram_add(&h, v);
	assert_true(histogram_mean(&h) == 1500.0);
	assert_int_equal(h.max, 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_small_values_are_exact),
		cmocka_unit_test(test_error_is_bounded),
		cmocka_unit_test(test_quantiles),
		cmocka_unit_test(test_mean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
