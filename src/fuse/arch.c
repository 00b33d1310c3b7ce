/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Open flags and lock types of the driver's architecture in our own values, and the size of its pages.
 *
 * Values from Linux, include/uapi/asm-generic/fcntl.h and the arch headers that differ from it.
 */
#include "fuse/arch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The flags that have a name; O_SYNC and O_TMPFILE as their single extra bits. */
enum {
	F_CREAT,
	F_EXCL,
	F_NOCTTY,
	F_TRUNC,
	F_APPEND,
	F_NONBLOCK,
	F_DSYNC,
	F_SYNC,
	F_ASYNC,
	F_DIRECT,
	F_LARGEFILE,
	F_DIRECTORY,
	F_NOFOLLOW,
	F_NOATIME,
	F_CLOEXEC,
	F_PATH,
	F_TMPFILE,
	NR_FLAGS
};

/* clang-format off */
#define GENERIC_HEAD \
	[F_CREAT] = 0100, [F_EXCL] = 0200, [F_NOCTTY] = 0400, [F_TRUNC] = 01000, [F_APPEND] = 02000, \
	[F_NONBLOCK] = 04000, [F_DSYNC] = 010000, [F_SYNC] = 04000000, [F_ASYNC] = 020000
#define GENERIC_TAIL \
	[F_NOATIME] = 01000000, [F_CLOEXEC] = 02000000, [F_PATH] = 010000000, [F_TMPFILE] = 020000000

static const uint32_t flag_values[FUSE_ARCH_END][NR_FLAGS] = {
	[FUSE_ARCH_GENERIC] = { GENERIC_HEAD, GENERIC_TAIL,
		[F_DIRECT] = 040000, [F_LARGEFILE] = 0100000, [F_DIRECTORY] = 0200000,
		[F_NOFOLLOW] = 0400000 },
	[FUSE_ARCH_ARM] = { GENERIC_HEAD, GENERIC_TAIL,
		[F_DIRECT] = 0200000, [F_LARGEFILE] = 0400000, [F_DIRECTORY] = 040000,
		[F_NOFOLLOW] = 0100000 },
	[FUSE_ARCH_POWERPC] = { GENERIC_HEAD, GENERIC_TAIL,
		[F_DIRECT] = 0400000, [F_LARGEFILE] = 0200000, [F_DIRECTORY] = 040000,
		[F_NOFOLLOW] = 0100000 },
	[FUSE_ARCH_MIPS] = { GENERIC_TAIL,
		[F_CREAT] = 0x100, [F_EXCL] = 0x400, [F_NOCTTY] = 0x800, [F_TRUNC] = 0x200,
		[F_APPEND] = 0x8, [F_NONBLOCK] = 0x80, [F_DSYNC] = 0x10, [F_SYNC] = 0x4000,
		[F_ASYNC] = 0x1000, [F_DIRECT] = 0x8000, [F_LARGEFILE] = 0x2000,
		[F_DIRECTORY] = 0200000, [F_NOFOLLOW] = 0400000 },
	[FUSE_ARCH_SPARC] = {
		[F_CREAT] = 0x200, [F_EXCL] = 0x800, [F_NOCTTY] = 0x8000, [F_TRUNC] = 0x400,
		[F_APPEND] = 0x8, [F_NONBLOCK] = 0x4000, [F_DSYNC] = 0x2000, [F_SYNC] = 0x800000,
		[F_ASYNC] = 0x40, [F_DIRECT] = 0x100000, [F_LARGEFILE] = 0x40000,
		[F_DIRECTORY] = 0200000, [F_NOFOLLOW] = 0400000, [F_NOATIME] = 0x200000,
		[F_CLOEXEC] = 0x400000, [F_PATH] = 0x1000000, [F_TMPFILE] = 0x2000000 },
	[FUSE_ARCH_ALPHA] = {
		[F_CREAT] = 01000, [F_EXCL] = 04000, [F_NOCTTY] = 010000, [F_TRUNC] = 02000,
		[F_APPEND] = 010, [F_NONBLOCK] = 04, [F_DSYNC] = 040000, [F_SYNC] = 020000000,
		[F_ASYNC] = 020000, [F_DIRECT] = 02000000, [F_LARGEFILE] = 0400000,
		[F_DIRECTORY] = 0100000, [F_NOFOLLOW] = 0200000, [F_NOATIME] = 04000000,
		[F_CLOEXEC] = 010000000, [F_PATH] = 040000000, [F_TMPFILE] = 0100000000 },
	[FUSE_ARCH_PARISC] = {
		[F_CREAT] = 0400, [F_EXCL] = 02000, [F_NOCTTY] = 0400000, [F_TRUNC] = 01000,
		[F_APPEND] = 010, [F_NONBLOCK] = 0200000, [F_DSYNC] = 01000000, [F_SYNC] = 0100000,
		[F_ASYNC] = 020000, [F_DIRECT] = 040000, [F_LARGEFILE] = 04000,
		[F_DIRECTORY] = 010000, [F_NOFOLLOW] = 0200, [F_NOATIME] = 04000000,
		[F_CLOEXEC] = 010000000, [F_PATH] = 020000000, [F_TMPFILE] = 040000000 },
};

/* Read, write, unlock. */
static const uint32_t lock_types[FUSE_ARCH_END][3] = {
	[FUSE_ARCH_GENERIC] = { 0, 1, 2 }, [FUSE_ARCH_ARM] = { 0, 1, 2 },
	[FUSE_ARCH_POWERPC] = { 0, 1, 2 }, [FUSE_ARCH_MIPS] = { 0, 1, 2 },
	[FUSE_ARCH_SPARC] = { 1, 2, 3 },   [FUSE_ARCH_ALPHA] = { 1, 2, 8 },
	[FUSE_ARCH_PARISC] = { 1, 2, 3 },
};

static const struct {
	const char *name;
	enum fuse_arch arch;
} names[] = {
	{ "native", FUSE_ARCH_NATIVE },
	{ "generic", FUSE_ARCH_GENERIC }, { "x86", FUSE_ARCH_GENERIC },
	{ "x86_64", FUSE_ARCH_GENERIC }, { "x86-64", FUSE_ARCH_GENERIC },
	{ "amd64", FUSE_ARCH_GENERIC }, { "i386", FUSE_ARCH_GENERIC },
	{ "i486", FUSE_ARCH_GENERIC }, { "i586", FUSE_ARCH_GENERIC },
	{ "i686", FUSE_ARCH_GENERIC }, { "s390", FUSE_ARCH_GENERIC },
	{ "s390x", FUSE_ARCH_GENERIC }, { "riscv", FUSE_ARCH_GENERIC },
	{ "riscv32", FUSE_ARCH_GENERIC }, { "riscv64", FUSE_ARCH_GENERIC },
	{ "loongarch", FUSE_ARCH_GENERIC }, { "loongarch64", FUSE_ARCH_GENERIC },
	{ "loong64", FUSE_ARCH_GENERIC },
	{ "arm", FUSE_ARCH_ARM }, { "armel", FUSE_ARCH_ARM }, { "armhf", FUSE_ARCH_ARM },
	{ "armv7l", FUSE_ARCH_ARM }, { "arm64", FUSE_ARCH_ARM }, { "aarch64", FUSE_ARCH_ARM },
	{ "powerpc", FUSE_ARCH_POWERPC }, { "powerpc64", FUSE_ARCH_POWERPC },
	{ "ppc", FUSE_ARCH_POWERPC }, { "ppc64", FUSE_ARCH_POWERPC },
	{ "ppc64le", FUSE_ARCH_POWERPC }, { "ppc64el", FUSE_ARCH_POWERPC },
	{ "mips", FUSE_ARCH_MIPS }, { "mipsel", FUSE_ARCH_MIPS }, { "mips64", FUSE_ARCH_MIPS },
	{ "mips64el", FUSE_ARCH_MIPS },
	{ "sparc", FUSE_ARCH_SPARC }, { "sparc64", FUSE_ARCH_SPARC },
	{ "alpha", FUSE_ARCH_ALPHA },
	{ "parisc", FUSE_ARCH_PARISC }, { "parisc64", FUSE_ARCH_PARISC },
	{ "hppa", FUSE_ARCH_PARISC }, { "hppa64", FUSE_ARCH_PARISC },
};

/* Kernels that distributions ship for these have pages of more than 4 KiB; the larger ones where it varies. */
static const struct {
	const char *name;
	uint32_t bytes;
} large_pages[] = {
	{ "loongarch", 16384 }, { "loongarch64", 16384 }, { "loong64", 16384 },
	{ "powerpc64", 65536 }, { "ppc64", 65536 },
	{ "ppc64le", 65536 }, { "ppc64el", 65536 },
	{ "mips64", 16384 }, { "mips64el", 16384 },
	{ "sparc64", 8192 }, { "alpha", 8192 },
};
/* clang-format on */

#if defined(__arm__) || defined(__aarch64__)
#define OWN_ARCH FUSE_ARCH_ARM
#elif defined(__powerpc__)
#define OWN_ARCH FUSE_ARCH_POWERPC
#elif defined(__mips__)
#define OWN_ARCH FUSE_ARCH_MIPS
#elif defined(__sparc__)
#define OWN_ARCH FUSE_ARCH_SPARC
#elif defined(__alpha__)
#define OWN_ARCH FUSE_ARCH_ALPHA
#elif defined(__hppa__)
#define OWN_ARCH FUSE_ARCH_PARISC
#else
#define OWN_ARCH FUSE_ARCH_GENERIC
#endif

int fuse_arch_parse(const char *name, enum fuse_arch *ret_arch)
{
	for (size_t i = 0; i < array_size(names); i++) {
		if (!strcmp(name, names[i].name)) {
			*ret_arch = names[i].arch;
			return 0;
		}
	}
	return -EINVAL;
}

const char *fuse_arch_name(size_t index)
{
	return index < array_size(names) ? names[index].name : NULL;
}

uint32_t fuse_arch_page_bytes(const char *name)
{
	if (!name || !strcmp(name, "native"))
		return (uint32_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < array_size(large_pages); i++) {
		if (!strcmp(name, large_pages[i].name))
			return large_pages[i].bytes;
	}
	return FUSE_PAGE_BYTES_MIN;
}

bool fuse_arch_page_valid(uint64_t bytes)
{
	return bytes >= FUSE_PAGE_BYTES_MIN && bytes <= FUSE_PAGE_BYTES_MAX &&
	       !(bytes & (bytes - 1));
}

uint32_t fuse_arch_open_flags(enum fuse_arch arch, uint32_t flags)
{
	const uint32_t *theirs = flag_values[arch];
	const uint32_t *ours = flag_values[OWN_ARCH];
	uint32_t named_there = 0, named_here = 0, out = 0;

	if (likely(arch == FUSE_ARCH_NATIVE || arch == OWN_ARCH))
		return flags;
	for (unsigned int i = 0; i < NR_FLAGS; i++) {
		named_there |= theirs[i];
		named_here |= ours[i];
		if (flags & theirs[i])
			out |= ours[i];
	}
	/* The access mode is the same everywhere; a nameless bit must not turn into a named one. */
	return out | (flags & O_ACCMODE) |
	       (flags & ~named_there & ~named_here & ~(uint32_t)O_ACCMODE);
}

static int map_lock(enum fuse_arch from, enum fuse_arch to, uint32_t type, uint32_t *ret_type)
{
	for (unsigned int i = 0; i < 3; i++) {
		if (lock_types[from][i] == type) {
			*ret_type = lock_types[to][i];
			return 0;
		}
	}
	return -EINVAL;
}

int fuse_arch_lock_type(enum fuse_arch arch, uint32_t type, uint32_t *ret_type)
{
	return map_lock(arch == FUSE_ARCH_NATIVE ? OWN_ARCH : arch, OWN_ARCH, type, ret_type);
}

int fuse_arch_lock_type_back(enum fuse_arch arch, uint32_t type, uint32_t *ret_type)
{
	return map_lock(OWN_ARCH, arch == FUSE_ARCH_NATIVE ? OWN_ARCH : arch, type, ret_type);
}
