/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The functions that ours stand in front of.
 */
#ifndef FUSEWIRE_PRELOAD_REAL_H
#define FUSEWIRE_PRELOAD_REAL_H

#include "base/compiler.h"

/** real_find() - the next definition of @name behind this library; ends the program if there is none, which no libc lacks. */
void *real_find(const char *name);

/** REAL - the function that we stand in front of; found at the first call, which may come before any constructor. */
#define REAL(name)                                                  \
	({                                                          \
		static __typeof__(&name) _fn;                       \
		__typeof__(&name) _got = READ_ONCE(_fn);            \
		if (unlikely(!_got)) {                              \
			_got = (__typeof__(&name))real_find(#name); \
			WRITE_ONCE(_fn, _got);                      \
		}                                                   \
		_got;                                               \
	})

/** interposed - a function that the daemon calls in libc's place. */
#define interposed __attribute__((visibility("default")))

#endif
