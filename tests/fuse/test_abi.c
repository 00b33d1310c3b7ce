/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * abi.h against the system's <linux/fuse.h>, and the opcode table and architectures against both.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fuse/abi.h"
#include "fuse/arch.h"
#include "fuse/opcode.h"
#include "fuse/swap.h"

#include "abi_entry.h"

#define ENTRY(text, value)  \
	{                   \
		text, value \
	}
static const struct abi_entry ours[] = {
#include "abi_list.h"
	{ NULL, 0 },
};

static void test_against_linux(void **state)
{
	unsigned int nr = 0;

	(void)state;
	for (const struct abi_entry *theirs = abi_linux; theirs->what; theirs++, nr++) {
		const struct abi_entry *own = ours;

		while (own->what && strcmp(own->what, theirs->what))
			own++;
		if (!own->what || own->value != theirs->value)
			fail_msg("%s: Linux says %llu", theirs->what,
				 (unsigned long long)theirs->value);
	}
	assert_true(nr > 250);
}

/* What Debian's header is too old to say. */
static void test_newer_than_system(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct fuse_statx), 256);
	assert_int_equal(sizeof(struct fuse_statx_in), 24);
	assert_int_equal(sizeof(struct fuse_statx_out), 288);
	assert_int_equal(offsetof(struct fuse_statx, ino), 32);
	assert_int_equal(offsetof(struct fuse_statx, atime), 64);
	assert_int_equal(offsetof(struct fuse_statx, rdev_major), 128);
	assert_int_equal(offsetof(struct fuse_init_out, max_stack_depth), 36);
	assert_int_equal(offsetof(struct fuse_init_out, request_timeout), 40);
	assert_int_equal(sizeof(struct fuse_copy_file_range_out), 8);
	assert_int_equal(sizeof(struct fuse_notify_prune_out), 16);
	assert_int_equal(FUSE_STATX, 52);
	assert_int_equal(FUSE_EXT_GROUPS, 32);
	assert_int_equal(FUSE_MAX_NR_SECCTX, 31);
	assert_int_equal(offsetof(struct fuse_in_header, total_extlen), 36);
	assert_true(FUSE_CREATE_SUPP_GROUP == UINT64_C(1) << 34);
	assert_int_equal(FUSE_COPY_FILE_RANGE_64, 53);
	assert_true(FUSE_REQUEST_TIMEOUT == UINT64_C(1) << 42);
}

/* Size of the structure that @layout describes. */
static size_t layout_bytes(const char *layout)
{
	size_t sum = 0;

	for (; *layout; layout++)
		sum += (size_t)(*layout - '0');
	return sum;
}

static void test_opcode_table(void **state)
{
	unsigned int nr = 0;

	(void)state;
	for (uint32_t i = 0; i < 5000; i++) {
		const struct fuse_opcode_info *op = fuse_opcode_find(i);

		if (i == 0 || i == 7 || i == 19 || i > 53) {
			assert_null(op);
			continue;
		}
		assert_non_null(op);
		nr++;
		assert_int_equal(op->opcode, i);
		assert_int_equal(layout_bytes(op->arg_layout), op->arg_bytes);
		if (op->reply == FUSE_REPLY_FIXED || op->reply == FUSE_REPLY_INIT ||
		    op->reply == FUSE_REPLY_STRUCT_OR_DATA ||
		    op->reply == FUSE_REPLY_STRUCT_THEN_DATA)
			assert_int_equal(layout_bytes(op->reply_layout), op->reply_bytes);
		if (op->fh_off != FUSE_NO_FIELD)
			assert_true(op->fh_off + 8u <= op->arg_bytes);
		if (op->other_node_off != FUSE_NO_FIELD)
			assert_true(op->other_node_off + 8u <= op->arg_bytes);
		if (op->traits & FUSE_OP_RELEASES)
			assert_int_equal(op->fh_off, 0);
	}
	assert_int_equal(nr, 51);
	assert_null(fuse_opcode_find(UINT32_MAX));
}

static void test_swap_fields(void **state)
{
	unsigned char data[15] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	const unsigned char want[15] = { 1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8 };

	(void)state;
	fuse_swap_fields(data, sizeof(data), "1248");
	assert_memory_equal(data, want, sizeof(data));
	/* A field that is not there whole stays as it is. */
	fuse_swap_fields(data, 14, "1248");
	assert_int_equal(data[1], 2);
	assert_int_equal(data[7], 15);
}

static void test_arch_names(void **state)
{
	static const char *const names[] = { "native",	"x86",	   "x86_64",	 "i386",
					     "s390x",	"riscv64", "arm",	 "arm64",
					     "aarch64", "ppc64le", "mips64",	 "sparc64",
					     "alpha",	"hppa",	   "loongarch64" };
	enum fuse_arch arch = FUSE_ARCH_ALPHA;

	(void)state;
	for (size_t i = 0; i < array_size(names); i++)
		assert_int_equal(fuse_arch_parse(names[i], &arch), 0);
	arch = FUSE_ARCH_SPARC;
	assert_int_equal(fuse_arch_parse("X86", &arch), -EINVAL);
	assert_int_equal(fuse_arch_parse("", &arch), -EINVAL);
	assert_int_equal(arch, FUSE_ARCH_SPARC);
}

static void test_page_bytes(void **state)
{
	(void)state;
	assert_int_equal(fuse_arch_page_bytes(NULL), sysconf(_SC_PAGESIZE));
	assert_int_equal(fuse_arch_page_bytes("native"), sysconf(_SC_PAGESIZE));
	assert_int_equal(fuse_arch_page_bytes("x86_64"), 4096);
	assert_int_equal(fuse_arch_page_bytes("arm64"), 4096);
	assert_int_equal(fuse_arch_page_bytes("ppc64le"), 65536);
	assert_int_equal(fuse_arch_page_bytes("loongarch64"), 16384);
	assert_true(fuse_arch_page_valid(4096) && fuse_arch_page_valid(16384) &&
		    fuse_arch_page_valid(65536));
	assert_false(fuse_arch_page_valid(0) || fuse_arch_page_valid(2048) ||
		     fuse_arch_page_valid(12288) || fuse_arch_page_valid(131072));
}

#if defined(__x86_64__)
static void test_arch_flags(void **state)
{
	(void)state;
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_NATIVE, 0xdeadbeef), 0xdeadbeef);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_GENERIC, 0xdeadbeef), 0xdeadbeef);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ARM, 040000), O_DIRECTORY);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ARM, 0100000), O_NOFOLLOW);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ARM, 0200000 | O_RDWR), O_DIRECT | O_RDWR);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ARM, 0400000), 0100000);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_POWERPC, 0400000), O_DIRECT);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_MIPS, 0x8 | 0x100 | 0x200),
			 O_APPEND | O_CREAT | O_TRUNC);
	/* O_SYNC is two bits everywhere. */
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_MIPS, 0x4010), O_SYNC);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_SPARC, 0x4000 | O_WRONLY),
			 O_NONBLOCK | O_WRONLY);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ALPHA, 0200000), O_NOFOLLOW);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_PARISC, 0200), O_NOFOLLOW);
	/* FMODE_EXEC and other bits without a name pass; a bit that would get another name does not. */
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_ARM, 0x40000000), 0x40000000);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_MIPS, 0x400 | 0x20000), O_EXCL | 0x20000);
	assert_int_equal(fuse_arch_open_flags(FUSE_ARCH_MIPS, 0x40), 0);
}
#endif

static void test_arch_locks(void **state)
{
	uint32_t type = 77;

	(void)state;
	assert_int_equal(fuse_arch_lock_type(FUSE_ARCH_ALPHA, 8, &type), 0);
	assert_int_equal(type, F_UNLCK);
	assert_int_equal(fuse_arch_lock_type_back(FUSE_ARCH_ALPHA, F_RDLCK, &type), 0);
	assert_int_equal(type, 1);
	assert_int_equal(fuse_arch_lock_type(FUSE_ARCH_NATIVE, F_WRLCK, &type), 0);
	assert_int_equal(type, F_WRLCK);
	type = 77;
	assert_int_equal(fuse_arch_lock_type(FUSE_ARCH_GENERIC, 3, &type), -EINVAL);
	assert_int_equal(fuse_arch_lock_type(FUSE_ARCH_SPARC, 0, &type), -EINVAL);
	assert_int_equal(fuse_arch_lock_type_back(FUSE_ARCH_SPARC, 9, &type), -EINVAL);
	assert_int_equal(type, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_linux),
		cmocka_unit_test(test_newer_than_system),
		cmocka_unit_test(test_opcode_table),
		cmocka_unit_test(test_swap_fields),
		cmocka_unit_test(test_arch_names),
		cmocka_unit_test(test_page_bytes),
#if defined(__x86_64__)
		cmocka_unit_test(test_arch_flags),
#endif
		cmocka_unit_test(test_arch_locks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
