/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Compiler attributes, single-copy loads and stores, and the small macros that every file uses.
 */
#ifndef FUSEWIRE_BASE_COMPILER_H
#define FUSEWIRE_BASE_COMPILER_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** must_check - the caller has to look at the return value. */
#define must_check __attribute__((warn_unused_result))
/** printf_like - @fmt is the index of the format argument, @args of the first variable one. */
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
/** cold_path - the function is rarely called: keep it out of the way of the hot code. */
#define cold_path __attribute__((cold, noinline))

/** likely, unlikely - tell the compiler which way a branch on the hot path goes. */
#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/** prefetch_write() - @p is about to be written: fetch its cache line for this core alone. A hint: no address is wrong. */
static inline void prefetch_write(const void *p)
{
#ifdef __x86_64__
	/* The compiler's own leaves the line shared, unless told of a newer processor; an old one passes over it. */
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}

/** CACHE_LINE - bytes that two cores cannot write at the same time without disturbing each other. */
#define CACHE_LINE 64
/** cache_aligned - begin the variable or field on a line of its own. */
#define cache_aligned __attribute__((aligned(CACHE_LINE)))

/**
 * READ_ONCE - load @x exactly once, without tearing (for naturally aligned words).
 *
 * Memory that somebody else can write (a guest, another thread) is loaded with this into a local,
 * and only the local is checked and used.
 */
#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
/** WRITE_ONCE - store @v into @x exactly once. */
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

/** array_size - number of elements of the array @a (not of a pointer). */
#define array_size(a) (sizeof(a) / sizeof((a)[0]))

/* clang-format 14 takes "(ptr) -" for a cast. */
/* clang-format off */
/** container_of - the structure of @type whose member @member is at @ptr. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/** round_up_to - @x rounded up to a multiple of @align, a power of two. The caller rules out overflow. */
#define round_up_to(x, align) (((x) + ((align) - 1)) & ~((__typeof__(x))(align) - 1))
/* clang-format on */

/** paste - the two tokens, after macros in them were expanded, as one. */
#define paste(a, b)	   paste_tokens(a, b)
#define paste_tokens(a, b) a##b
#define pick_of(a, op, b, va, vb)     \
	({                            \
		__auto_type va = (a); \
		__auto_type vb = (b); \
		va op vb ? va : vb;   \
	})
/**
 * min_of - the smaller of @a and @b, each evaluated once; compare numbers of the same signedness.
 *
 * The inner names differ from use to use: one may stand inside another.
 */
#define min_of(a, b) pick_of(a, <, b, paste(_a, __COUNTER__), paste(_b, __COUNTER__))
/** max_of - the larger of @a and @b, as min_of. */
#define max_of(a, b) pick_of(a, >, b, paste(_a, __COUNTER__), paste(_b, __COUNTER__))

/** cpu_relax() - tell the core that this is a spin loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

#endif
