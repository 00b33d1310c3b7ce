/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memory table and the dirty log.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "mem/dirty_log.h"
#include "tables.h"

#define FILE_BYTES (1u << 20)

static void lookup_at_the_limits(void **state)
{
	int fd = memfd_new("mem", FILE_BYTES);
	struct mem_table *table = empty();
	char *file = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t addr = 0;

	/* An offset that is no multiple of a page, a size that is not either. */
	assert_null(at(table, 0x10000, 1));
	assert_int_equal(add(&table, 0x10000, 0x1235, 0x70000, 0x777, fd), 0);
	memcpy(file + 0x777, "first", 5);
	assert_memory_equal(at(table, 0x10000, 5), "first", 5);
	assert_non_null(at(table, 0x10000, 0x1235));
	assert_null(at(table, 0x10000, 0x1236));
	assert_null(at(table, 0xffff, 1));
	assert_null(at(table, 0xffff, 2));
	assert_non_null(at(table, 0x11234, 1));
	assert_null(at(table, 0x11234, 2));
	assert_null(at(table, 0x11235, 1));
	assert_null(at(table, 0x10000, 0));
	assert_null(at(table, 0x10001, UINT64_MAX));
	assert_null(at(table, UINT64_MAX, 2));
	assert_non_null(guest_strip(mem_table_map_user(table, 0x70000, 0x1235)));
	assert_null(guest_strip(mem_table_map_user(table, 0x70001, 0x1235)));
	assert_null(guest_strip(mem_table_map_user(table, 0x10000, 1)));
	assert_true(mem_table_gpa_of(table, at(table, 0x10100, 1), &addr));
	assert_int_equal(addr, 0x10100);
	assert_false(mem_table_gpa_of(table, file, &addr));
	assert_false(mem_table_gpa_of(table, at(table, 0x11234, 1) + 1, &addr));
	mem_table_put(table);
	munmap(file, FILE_BYTES);
	close_fd(&fd);
}

static void bad_regions_are_refused(void **state)
{
	static const struct {
		struct mem_region_desc desc;
		int ret;
	} cases[] = {
		{ { 0x50000, 0, 0x50000, 0 }, -EINVAL },
		{ { UINT64_MAX - 0xffe, 0x1000, 0x50000, 0 }, -EINVAL },
		{ { 0x50000, 0x1000, UINT64_MAX - 0xffe, 0 }, -EINVAL },
		{ { 0x50000, 0x1000, 0x50000, UINT64_MAX - 0xffe }, -EINVAL },
		{ { 0x50000, 0x1000, 0x50000, INT64_MAX }, -EINVAL },
		{ { 0x50000, UINT64_MAX, 0x50000, 0 }, -EINVAL },
		{ { 0x50000, 0x1000, 0x50000, FILE_BYTES - 0xfff }, -ERANGE },
		{ { 0x50000, 0x1000, 0x50000, FILE_BYTES - 0x1000 }, 0 },
		{ { 0x0f001, 0x1000, 0x50000, 0 }, -EINVAL },
		{ { 0x0f000, 0x1000, 0x50000, 0 }, 0 },
		{ { 0x10fff, 0x1000, 0x50000, 0 }, -EINVAL },
		{ { 0x11000, 0x1000, 0x50000, 0 }, 0 },
		{ { 0x0f000, 0x4000, 0x50000, 0 }, -EINVAL },
		{ { 0x50000, 0x1000, 0x20fff, 0 }, -EINVAL },
		{ { 0x50000, 0x1000, 0x21000, 0 }, 0 },
	};
	int fd = memfd_new("mem", FILE_BYTES);
	int pipes[2];

	for (size_t i = 0; i < array_size(cases); i++) {
		struct mem_table *table = empty();

		assert_int_equal(add(&table, 0x10000, 0x1000, 0x20000, 0, fd), 0);
		assert_int_equal(add(&table, cases[i].desc.gpa, cases[i].desc.size,
				     cases[i].desc.user_addr, cases[i].desc.mmap_offset, fd),
				 cases[i].ret);
		assert_int_equal(mem_table_nr_regions(table), cases[i].ret ? 1 : 2);
		mem_table_put(table);
	}
	assert_int_equal(pipe(pipes), 0);
	struct mem_table *table = empty();

	assert_true(add(&table, 0x10000, 0x1000, 0x20000, 0, pipes[0]) < 0);
	assert_int_equal(add(&table, 0x10000, 0x1000, 0x20000, 0, -1), -EBADF);
	mem_table_put(table);
	close(pipes[0]);
	close(pipes[1]);
	close_fd(&fd);
}

static void tables_share_regions(void **state)
{
	int fd = memfd_new("mem", FILE_BYTES);
	struct mem_region_desc a = { 0x10000, 0x1000, 0x10000, 0 };
	struct mem_region_desc b = { 0x8000, 0x1000, 0x20000, 0x1000 };
	struct mem_region_desc wrong = { 0x8000, 0x1000, 0x20001, 0x1000 };
	struct mem_table *t0 = empty(), *t1, *t2, *t3;
	char *p;

	assert_int_equal(mem_table_with_region(&t1, t0, &a, fd), 0);
	assert_int_equal(mem_table_with_region(&t2, t1, &b, fd), 0);
	close_fd(&fd);
	p = (char *)(uintptr_t)at(t1, 0x10000, 1);
	assert_ptr_equal(p, at(t2, 0x10000, 1));
	assert_int_equal(mem_table_without_region(&t3, t2, &wrong), -ENOENT);
	assert_int_equal(mem_table_without_region(&t3, t0, &b), -ENOENT);
	assert_int_equal(mem_table_without_region(&t3, t2, &a), 0);
	assert_null(at(t3, 0x10000, 1));
	assert_non_null(at(t3, 0x8000, 1));
	assert_int_equal(mem_table_nr_regions(t0), 0);
	assert_int_equal(mem_table_nr_regions(t3), 1);
	mem_table_put(t1);
	mem_table_put(t0);
	/* t2 keeps it mapped. */
	*p = 7;
	mem_table_put(mem_table_get(t2));
	*p = 8;
	mem_table_put(t2);
	mem_table_put(t3);
	mem_table_put(NULL);
}

static void lists_over_adjacent_regions(void **state)
{
	int fd = memfd_new("mem", FILE_BYTES);
	struct mem_table *table = empty();
	struct iovec iov[3];

	assert_int_equal(add(&table, 0x12000, 0x1000, 0x90000, 0x5000, fd), 0);
	assert_int_equal(add(&table, 0x10000, 0x1001, 0x10000, 0, fd), 0);
	assert_int_equal(add(&table, 0x11001, 0xfff, 0x50000, 0x3000, fd), 0);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10ff0), 0x1020, iov, 3), 3);
	assert_int_equal(iov[0].iov_len, 0x11);
	assert_int_equal(iov[1].iov_len, 0xfff);
	assert_int_equal(iov[2].iov_len, 0x10);
	assert_ptr_equal(iov[2].iov_base, at(table, 0x12000, 1));
	assert_int_equal(mem_table_count_iov(table, gpa(0x10ff0), 0x1020), 3);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10ff0), 0x1020, iov, 2), -ENOBUFS);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10000), 0x3000, iov, 3), 3);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10000), 0x3001, iov, 3), -EFAULT);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10000), 0x3001, iov, 0), -EFAULT);
	assert_int_equal(mem_table_map_iov(table, gpa(0x10000), 0, iov, 3), -EFAULT);
	assert_int_equal(mem_table_map_iov(table, gpa(0xffff), 2, iov, 3), -EFAULT);
	assert_int_equal(mem_table_map_iov(table, gpa(0x12fff), UINT64_MAX, iov, 3), -EFAULT);
	mem_table_put(table);
	close_fd(&fd);
}

static void as_many_regions_as_there_may_be(void **state)
{
	int fd = memfd_new("mem", FILE_BYTES);
	struct mem_table *table = empty();

	/* In an order that is neither up nor down. */
	for (uint64_t i = 0; i < MEM_REGIONS_MAX; i++) {
		uint64_t k = i * 200 % MEM_REGIONS_MAX;

		assert_int_equal(
			add(&table, k * 0x2000, 0x1000, (MEM_REGIONS_MAX - k) * 0x1000, k, fd), 0);
	}
	assert_int_equal(add(&table, 1ull << 40, 0x1000, 1ull << 40, 0, fd), -ENOSPC);
	for (uint64_t k = 0; k < MEM_REGIONS_MAX; k++) {
		uint64_t addr;

		assert_non_null(at(table, k * 0x2000, 0x1000));
		assert_null(at(table, k * 0x2000 + 0x1000, 1));
		assert_ptr_equal(
			at(table, k * 0x2000, 1),
			guest_strip(mem_table_map_user(table, (MEM_REGIONS_MAX - k) * 0x1000, 1)));
		assert_true(mem_table_gpa_of(table, at(table, k * 0x2000 + 5, 1), &addr));
		assert_int_equal(addr, k * 0x2000 + 5);
	}
	mem_table_put(table);
	close_fd(&fd);
}

static bool bit(const uint8_t *bits, uint64_t page)
{
	return bits[page / 8] >> page % 8 & 1;
}

static unsigned int nr_bits(const uint8_t *bits, size_t bytes)
{
	unsigned int nr = 0;

	for (size_t i = 0; i < bytes; i++)
		nr += (unsigned int)__builtin_popcount(bits[i]);
	return nr;
}

static void dirty_log_marks_pages(void **state)
{
	int fd = memfd_new("log", 8192);
	uint8_t *bits =
		(uint8_t *)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) + 100;
	struct dirty_log *log = NULL;

	assert_int_equal(dirty_log_new(&log, fd, 0, 0), -EINVAL);
	assert_int_equal(dirty_log_new(&log, fd, 8193, 0), -ERANGE);
	assert_int_equal(dirty_log_new(&log, fd, 1, 8192), -ERANGE);
	assert_int_equal(dirty_log_new(&log, fd, 2, UINT64_MAX), -EINVAL);
	assert_null(log);
	assert_int_equal(dirty_log_new(&log, fd, 2, 100), 0);
	dirty_log_mark(log, 0x1000, 0);
	assert_int_equal(nr_bits(bits - 100, 8192), 0);
	dirty_log_mark(log, 0x1fff, 1);
	assert_true(bit(bits, 1));
	assert_int_equal(nr_bits(bits - 100, 8192), 1);
	dirty_log_mark(log, 0x2fff, 2);
	assert_true(bit(bits, 2) && bit(bits, 3));
	/* The log ends behind page 15. */
	dirty_log_mark(log, 0xf000, 0x1001);
	assert_true(bit(bits, 15));
	dirty_log_mark(log, 0x10000, 1);
	dirty_log_mark(log, UINT64_MAX, 1);
	assert_int_equal(nr_bits(bits - 100, 8192), 4);
	dirty_log_mark(log, 0x5000, UINT64_MAX);
	assert_int_equal(nr_bits(bits - 100, 8192), 3 + 11);
	dirty_log_put(dirty_log_get(log));
	dirty_log_put(log);
	dirty_log_put(NULL);
	munmap(bits - 100, 8192);
	close_fd(&fd);
}

static void dirty_log_marks_lists(void **state)
{
	int fd = memfd_new("mem", FILE_BYTES);
	int log_fd = memfd_new("log", 4096);
	uint8_t *bits = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0);
	struct mem_table *table = empty();
	struct dirty_log *log;
	struct iovec iov[2];
	char stray[16];

	assert_int_equal(dirty_log_new(&log, log_fd, 4096, 0), 0);
	assert_int_equal(add(&table, 0x10000, 0x4000, 0, 0, fd), 0);
	assert_int_equal(add(&table, 0x14000, 0x4000, 0x8000, 0x8000, fd), 0);
	assert_int_equal(mem_table_map_iov(table, gpa(0x13ffe), 0x3000, iov, 2), 2);
	dirty_log_mark_iov(log, table, iov, 2, 3);
	assert_true(bit(bits, 0x13) && bit(bits, 0x14));
	assert_int_equal(nr_bits(bits, 4096), 2);
	dirty_log_mark_iov(log, table, iov, 2, 0);
	iov[0] = (struct iovec){ stray, sizeof(stray) };
	dirty_log_mark_iov(log, table, iov, 1, sizeof(stray));
	assert_int_equal(nr_bits(bits, 4096), 2);
	dirty_log_put(log);
	mem_table_put(table);
	munmap(bits, 4096);
	close_fd(&log_fd);
	close_fd(&fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lookup_at_the_limits),
		cmocka_unit_test(bad_regions_are_refused),
		cmocka_unit_test(tables_share_regions),
		cmocka_unit_test(lists_over_adjacent_regions),
		cmocka_unit_test(as_many_regions_as_there_may_be),
		cmocka_unit_test(dirty_log_marks_pages),
		cmocka_unit_test(dirty_log_marks_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
