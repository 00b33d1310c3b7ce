/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Little-endian words as types of their own, so that a missing conversion does not compile.
 */
#ifndef FUSEWIRE_BASE_ENDIAN_H
#define FUSEWIRE_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>

/** struct le16 - a 16-bit word stored little-endian (virtio 1.2, 1.4). */
typedef struct {
	uint16_t raw;
} le16;
/** struct le32 - a 32-bit word stored little-endian. */
typedef struct {
	uint32_t raw;
} le32;
/** struct le64 - a 64-bit word stored little-endian. */
typedef struct {
	uint64_t raw;
} le64;

/* The only ways in and out; nothing on a little-endian machine. */
static inline uint16_t le16_to_cpu(le16 v)
{
	return le16toh(v.raw);
}

static inline uint32_t le32_to_cpu(le32 v)
{
	return le32toh(v.raw);
}

static inline uint64_t le64_to_cpu(le64 v)
{
	return le64toh(v.raw);
}

static inline le16 cpu_to_le16(uint16_t v)
{
	return (le16){ htole16(v) };
}

static inline le32 cpu_to_le32(uint32_t v)
{
	return (le32){ htole32(v) };
}

static inline le64 cpu_to_le64(uint64_t v)
{
	return (le64){ htole64(v) };
}

#endif
