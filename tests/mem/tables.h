/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables of memory for tests that check with assert_int_equal() and assert_null(), cmocka's or their own: those come first.
 */
#ifndef FUSEWIRE_TESTS_MEM_TABLES_H
#define FUSEWIRE_TESTS_MEM_TABLES_H

#include "mem/mem_table.h"

/** empty() - a table without regions. */
static inline struct mem_table *empty(void)
{
	struct mem_table *table = NULL;

	assert_int_equal(mem_table_new(&table), 0);
	return table;
}

/** add() - put a region of @fd, from @off on, into *@table. Return: as mem_table_with_region(). */
static inline int add(struct mem_table **table, uint64_t start, uint64_t size, uint64_t user,
		      uint64_t off, int fd)
{
	struct mem_region_desc desc = { start, size, user, off };
	struct mem_table *next = NULL;
	int ret = mem_table_with_region(&next, *table, &desc, fd);

	if (ret < 0) {
		assert_null(next);
		return ret;
	}
	mem_table_put(*table);
	*table = next;
	return 0;
}

/** at() - mem_table_map() as a pointer that may be followed. */
static inline const char *at(const struct mem_table *table, uint64_t addr, uint64_t len)
{
	return guest_strip(mem_table_map(table, gpa(addr), len));
}

#endif
