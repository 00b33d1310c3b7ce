/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scatter-gather lists against a byte-by-byte model, at every offset and length.
 */
#include "base/iov.h"

#include <stdlib.h>
#include <string.h>

#include "cm.h"

/* Segments of 3, 0, 1, 5 and 0 bytes, each followed by a guard byte that nobody may write. */
#define NR    5
#define BYTES 9
static const size_t seg_len[NR] = { 3, 0, 1, 5, 0 };

struct list {
	char store[BYTES + NR];
	struct iovec iov[NR];
};

static void list_init(struct list *l, char fill)
{
	size_t at = 0;

	memset(l->store, fill, sizeof(l->store));
	for (int i = 0; i < NR; i++) {
		l->iov[i] = (struct iovec){ .iov_base = l->store + at, .iov_len = seg_len[i] };
		at += seg_len[i] + 1;
	}
}

/* The byte at @off of the list. */
static char *list_at(struct list *l, size_t off)
{
	for (int i = 0; i < NR; i++) {
		if (off < seg_len[i])
			return (char *)l->iov[i].iov_base + off;
		off -= seg_len[i];
	}
	abort(); /* the test's own mistake */
}

static void assert_guards(const struct list *l, char fill)
{
	for (int i = 0; i < NR; i++)
		assert_int_equal(((char *)l->iov[i].iov_base)[seg_len[i]], fill);
}

static size_t covered(size_t off, size_t len)
{
	return off >= BYTES ? 0 : min_of(len, BYTES - off);
}

static void test_bytes(void **state)
{
	struct list l;

	list_init(&l, 0);
	assert_int_equal(iov_bytes(l.iov, NR), BYTES);
	assert_int_equal(iov_bytes(l.iov, 1), 3);
	assert_int_equal(iov_bytes(NULL, 0), 0);
}

static void test_copy_out(void **state)
{
	struct list l;

	list_init(&l, '-');
	for (size_t i = 0; i < BYTES; i++)
		*list_at(&l, i) = (char)('a' + i);
	for (size_t off = 0; off <= BYTES + 1; off++) {
		for (size_t len = 0; len <= BYTES + 1; len++) {
			char dst[BYTES + 2];
			size_t n = covered(off, len);

			memset(dst, '.', sizeof(dst));
			assert_int_equal(iov_copy_out(dst, l.iov, NR, off, len), n);
			for (size_t i = 0; i < sizeof(dst); i++)
				assert_int_equal(dst[i], i < n ? (char)('a' + off + i) : '.');
		}
	}
}

static void test_copy_in(void **state)
{
	static const char src[] = "ABCDEFGHIJ";

	for (size_t off = 0; off <= BYTES + 1; off++) {
		for (size_t len = 0; len < sizeof(src); len++) {
			struct list l;
			size_t n = covered(off, len);

			list_init(&l, '-');
			assert_int_equal(iov_copy_in(l.iov, NR, off, src, len), n);
			for (size_t i = 0; i < BYTES; i++) {
				bool in = i >= off && i - off < n;

				assert_int_equal(*list_at(&l, i), in ? src[i - off] : '-');
			}
			assert_guards(&l, '-');
		}
	}
}

static void test_huge_length(void **state)
{
	char byte = '.';
	struct list l;

	list_init(&l, '-');
	assert_int_equal(iov_copy_out(&byte, l.iov, NR, 8, SIZE_MAX), 1);
	assert_int_equal(byte, '-');
	assert_int_equal(iov_copy_out(&byte, l.iov, NR, SIZE_MAX, SIZE_MAX), 0);
	assert_int_equal(iov_copy_in(l.iov, NR, 8, &byte, SIZE_MAX), 1);
	assert_int_equal(iov_copy_in(l.iov, NR, SIZE_MAX, &byte, SIZE_MAX), 0);
	assert_guards(&l, '-');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_copy_out),
		cmocka_unit_test(test_copy_in),
		cmocka_unit_test(test_huge_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
