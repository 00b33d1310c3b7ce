/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arithmetic on numbers that a guest or peer chose.
 */
#ifndef FUSEWIRE_BASE_CHECKED_H
#define FUSEWIRE_BASE_CHECKED_H

#include "base/compiler.h"

/** ckd_add - *@res = @a + @b; Return: true when the sum does not fit (C23's name and sense). */
#define ckd_add(res, a, b) __builtin_add_overflow((a), (b), (res))
/** ckd_sub - *@res = @a - @b; Return: true when the difference does not fit. */
#define ckd_sub(res, a, b) __builtin_sub_overflow((a), (b), (res))
/** ckd_mul - *@res = @a * @b; Return: true when the product does not fit. */
#define ckd_mul(res, a, b) __builtin_mul_overflow((a), (b), (res))

/**
 * range_within() - is [@off, @off + @len) inside [0, @size)?
 *
 * Never adds the two untrusted numbers, so it cannot wrap. An empty range at @off == @size is inside.
 */
static inline must_check bool range_within(uint64_t off, uint64_t len, uint64_t size)
{
	return len <= size && off <= size - len;
}

/** is_power_of_two() - is @v a power of two (and not 0)? */
static inline bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

#endif
