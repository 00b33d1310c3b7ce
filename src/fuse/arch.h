/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver's processor architecture, as far as FUSE lets it show: raw open(2) flags, lock types, and sizes in pages.
 */
#ifndef FUSEWIRE_FUSE_ARCH_H
#define FUSEWIRE_FUSE_ARCH_H

#include "base/compiler.h"

/**
 * enum fuse_arch - families of Linux architectures with the same open(2) flags.
 *
 * FUSE_ARCH_NATIVE: the driver's is the one that we were built for; nothing is translated.
 */
enum fuse_arch {
	FUSE_ARCH_NATIVE,
	FUSE_ARCH_GENERIC, /* x86, s390, riscv, loongarch: asm-generic values */
	FUSE_ARCH_ARM, /* arm, arm64 */
	FUSE_ARCH_POWERPC,
	FUSE_ARCH_MIPS,
	FUSE_ARCH_SPARC,
	FUSE_ARCH_ALPHA,
	FUSE_ARCH_PARISC,
};

/** FUSE_ARCH_END - one more than the last architecture. */
#define FUSE_ARCH_END (FUSE_ARCH_PARISC + 1)

/**
 * fuse_arch_parse() - the architecture with this name ("x86", "arm64", "s390x", "native", ...).
 *
 * Return: 0, or -EINVAL with *@ret_arch untouched.
 */
int must_check fuse_arch_parse(const char *name, enum fuse_arch *ret_arch);

/** FUSE_PAGE_BYTES_MIN, FUSE_PAGE_BYTES_MAX - what a page of a driver may have; powers of two. */
#define FUSE_PAGE_BYTES_MIN 4096u
#define FUSE_PAGE_BYTES_MAX 65536u

/** fuse_arch_name() - the names that fuse_arch_parse() takes, one after the other. Return: NULL after the last. */
const char *fuse_arch_name(size_t index);

/**
 * fuse_arch_page_bytes() - what a page of a driver probably has, by the name of its architecture as in fuse_arch_parse().
 *
 * NULL and "native" stand for this machine, whose own page size it is: 64 KiB pages on both sides are likelier than on one.
 */
uint32_t fuse_arch_page_bytes(const char *name);

/** fuse_arch_page_valid() - can a driver's page have so many bytes? */
bool fuse_arch_page_valid(uint64_t bytes);

/**
 * fuse_arch_open_flags() - the driver's open flags in our own values.
 *
 * Flags that have no name anywhere are passed as they are, unless that bit means something else here.
 */
uint32_t fuse_arch_open_flags(enum fuse_arch arch, uint32_t flags);

/**
 * fuse_arch_lock_type() - the driver's F_RDLCK, F_WRLCK or F_UNLCK in our own values.
 *
 * Return: 0 and *@ret_type, or -EINVAL for a number that is none of them.
 */
int must_check fuse_arch_lock_type(enum fuse_arch arch, uint32_t type, uint32_t *ret_type);

/**
 * fuse_arch_lock_type_back() - our own lock type in the driver's values.
 *
 * Return: 0 and *@ret_type, or -EINVAL for a number that is no lock type.
 */
int must_check fuse_arch_lock_type_back(enum fuse_arch arch, uint32_t type, uint32_t *ret_type);

#endif
