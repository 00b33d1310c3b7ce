/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte order: turns the fields of structures around in place.
 */
#ifndef FUSEWIRE_FUSE_SWAP_H
#define FUSEWIRE_FUSE_SWAP_H

#include <string.h>

#include "base/compiler.h"

/**
 * fuse_swap_fields() - reverse the bytes of each field of a structure.
 * @data: the structure, any alignment
 * @len: bytes of it that are there; fields that do not fit whole are left alone
 * @layout: widths of the fields in bytes, one digit each: "1", "2", "4", "8"
 */
void fuse_swap_fields(void *data, size_t len, const char *layout);

/** fuse_get32() - load 32 bits from any address, turned around when @swapped. */
static inline uint32_t fuse_get32(const void *p, bool swapped)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return swapped ? __builtin_bswap32(v) : v;
}

/** fuse_get64() - load 64 bits from any address, turned around when @swapped. */
static inline uint64_t fuse_get64(const void *p, bool swapped)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return swapped ? __builtin_bswap64(v) : v;
}

/** fuse_put32() - store 32 bits at any address, in native order. */
static inline void fuse_put32(void *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

/** fuse_put64() - store 64 bits at any address, in native order. */
static inline void fuse_put64(void *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

#endif
