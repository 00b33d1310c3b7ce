/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pointers into memory that a hostile driver writes at any time, and the only ways to follow them.
 *
 * A `T __guest *` cannot be dereferenced by accident: clang refuses (noderef), and only this header
 * strips the mark. Every read is a single load into a local; check and use the local.
 */
#ifndef FUSEWIRE_MEM_GUEST_H
#define FUSEWIRE_MEM_GUEST_H

#include <string.h>

#include "base/compiler.h"
#include "base/endian.h"

#if defined(__clang__)
#define __guest __attribute__((noderef, address_space(1)))
#else
#define __guest
#endif

/** struct gpa_t - an address in the driver's physical address space ("guest physical"). */
typedef struct {
	uint64_t v;
} gpa_t;

/** gpa() - make a gpa_t of a number. */
static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){ v };
}

/** guest_strip() - the plain pointer behind a guest pointer; for this header and iovec makers only. */
static inline void *guest_strip(const volatile void __guest *p)
{
	return (void *)(uintptr_t)p;
}

/** guest_mark() - mark a plain pointer into mapped driver memory. */
static inline void __guest *guest_mark(void *p)
{
	return (void __guest *)(uintptr_t)p;
}

/* Relaxed single loads and stores; ring code adds the barriers where pairs need them. */
static inline uint16_t guest_read16(const le16 __guest *p)
{
	return le16toh(READ_ONCE(((const le16 *)guest_strip(p))->raw));
}

static inline uint32_t guest_read32(const le32 __guest *p)
{
	return le32toh(READ_ONCE(((const le32 *)guest_strip(p))->raw));
}

static inline uint64_t guest_read64(const le64 __guest *p)
{
	return le64toh(READ_ONCE(((const le64 *)guest_strip(p))->raw));
}

static inline void guest_write16(le16 __guest *p, uint16_t v)
{
	WRITE_ONCE(((le16 *)guest_strip(p))->raw, htole16(v));
}

static inline void guest_write32(le32 __guest *p, uint32_t v)
{
	WRITE_ONCE(((le32 *)guest_strip(p))->raw, htole32(v));
}

static inline void guest_write64(le64 __guest *p, uint64_t v)
{
	WRITE_ONCE(((le64 *)guest_strip(p))->raw, htole64(v));
}

/* The halves of the barrier pairs with the driver; each use names its other half. */
static inline uint16_t guest_read16_acquire(const le16 __guest *p)
{
	return le16toh(__atomic_load_n(&((const le16 *)guest_strip(p))->raw, __ATOMIC_ACQUIRE));
}

static inline uint64_t guest_read64_acquire(const le64 __guest *p)
{
	return le64toh(__atomic_load_n(&((const le64 *)guest_strip(p))->raw, __ATOMIC_ACQUIRE));
}

static inline void guest_write16_release(le16 __guest *p, uint16_t v)
{
	__atomic_store_n(&((le16 *)guest_strip(p))->raw, htole16(v), __ATOMIC_RELEASE);
}

static inline void guest_write64_release(le64 __guest *p, uint64_t v)
{
	__atomic_store_n(&((le64 *)guest_strip(p))->raw, htole64(v), __ATOMIC_RELEASE);
}

/** guest_copy_from() - snapshot @len bytes of driver memory into @dst; check the snapshot. */
static inline void guest_copy_from(void *dst, const void __guest *src, size_t len)
{
	memcpy(dst, guest_strip(src), len);
	/* Keeps the compiler from loading the source again in place of the snapshot. */
	__asm__ volatile("" ::: "memory");
}

#endif
