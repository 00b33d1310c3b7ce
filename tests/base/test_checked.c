/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checked arithmetic and the small macros of base/compiler.h, at their limits.
 */
#include "base/checked.h"

#include "cm.h"

static void test_range_within(void **state)
{
	assert_true(range_within(0, 0, 0));
	assert_false(range_within(0, 1, 0));
	assert_false(range_within(1, 0, 0));

	assert_true(range_within(0, 4095, 4096));
	assert_true(range_within(0, 4096, 4096));
	assert_false(range_within(0, 4097, 4096));
	assert_true(range_within(4095, 1, 4096));
	assert_false(range_within(4095, 2, 4096));
	assert_true(range_within(4096, 0, 4096));
	assert_false(range_within(4097, 0, 4096));

	/* Sums that wrap to something small. */
	assert_false(range_within(UINT64_MAX, 1, 4096));
	assert_false(range_within(UINT64_MAX, UINT64_MAX, 4096));
	assert_false(range_within(1, UINT64_MAX, 4096));
	assert_false(range_within(2, UINT64_MAX - 1, UINT64_MAX));
	assert_true(range_within(1, UINT64_MAX - 1, UINT64_MAX));
	assert_true(range_within(UINT64_MAX, 0, UINT64_MAX));
}

static void test_checked_sums(void **state)
{
	uint32_t u32;
	uint64_t u64;

	assert_false(ckd_add(&u32, UINT32_MAX - 1, 1u));
	assert_int_equal(u32, UINT32_MAX);
	assert_true(ckd_add(&u32, UINT32_MAX, 1u));
	/* The result's type decides, not the operands'. */
	assert_true(ckd_add(&u32, (uint64_t)UINT32_MAX, (uint64_t)1));
	assert_false(ckd_add(&u64, (uint64_t)UINT32_MAX, (uint64_t)1));

	assert_false(ckd_sub(&u32, 1u, 1u));
	assert_int_equal(u32, 0);
	assert_true(ckd_sub(&u32, 0u, 1u));

	assert_false(ckd_mul(&u64, UINT64_MAX / 16, (uint64_t)16));
	assert_true(ckd_mul(&u64, UINT64_MAX / 16 + 1, (uint64_t)16));
}

static void test_power_of_two(void **state)
{
	assert_false(is_power_of_two(0));
	for (int i = 0; i < 64; i++)
		assert_true(is_power_of_two(1ull << i));
	for (int i = 2; i < 64; i++) {
		assert_false(is_power_of_two((1ull << i) - 1));
		assert_false(is_power_of_two((1ull << i) + 1));
	}
}

static void test_round_up(void **state)
{
	assert_int_equal(round_up_to(0u, 8), 0);
	assert_int_equal(round_up_to(1u, 8), 8);
	assert_int_equal(round_up_to(7u, 8), 8);
	assert_int_equal(round_up_to(8u, 8), 8);
	assert_int_equal(round_up_to(9u, 8), 16);
	/* The mask must not be cut to the width of the alignment. */
	assert_true(round_up_to((uint64_t)0x123456789, 4096u) == 0x123457000ull);
}

static void test_min_max(void **state)
{
	int a = 1, b = 2;

	/* Arguments are evaluated once. */
	assert_int_equal(min_of(a++, b++), 1);
	assert_int_equal(a, 2);
	assert_int_equal(b, 3);
	assert_int_equal(max_of(a, b), 3);
	assert_int_equal(min_of(max_of(5, min_of(1, 2)), 4), 4);
}

static void test_container_of(void **state)
{
	struct {
		char pad[3];
		int member;
	} outer;

	assert_ptr_equal(container_of(&outer.member, __typeof__(outer), member), &outer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_within), cmocka_unit_test(test_checked_sums),
		cmocka_unit_test(test_power_of_two), cmocka_unit_test(test_round_up),
		cmocka_unit_test(test_min_max),	     cmocka_unit_test(test_container_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
