/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Little-endian words: the bytes in memory, whatever machine runs this.
 */
#include "base/endian.h"

#include "cm.h"

static void test_bytes(void **state)
{
	const le16 v16 = cpu_to_le16(0x0102);
	const le32 v32 = cpu_to_le32(0x01020304);
	const le64 v64 = cpu_to_le64(0x0102030405060708);
	const uint8_t bytes[] = { 8, 7, 6, 5, 4, 3, 2, 1 };

	assert_memory_equal(&v16, bytes + 6, 2);
	assert_memory_equal(&v32, bytes + 4, 4);
	assert_memory_equal(&v64, bytes, 8);
}

static void test_round_trip(void **state)
{
	assert_int_equal(le16_to_cpu(cpu_to_le16(0xfedc)), 0xfedc);
	assert_int_equal(le32_to_cpu(cpu_to_le32(0xfedcba98)), 0xfedcba98);
	assert_true(le64_to_cpu(cpu_to_le64(0xfedcba9876543210)) == 0xfedcba9876543210);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
