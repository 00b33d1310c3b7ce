/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Preloaded into a daemon of libfuse 3: its second thread looks whether messages are spliced while the first is in the midst of INIT.
 *
 * do_init() wants to splice, and calls the init operation of the high-level library, which does not for file systems without
 * write_buf. Between the two that library makes a context for its thread: there the first thread sleeps, and the second, which
 * came up late, does not.
 */

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define interposed __attribute__((visibility("default")))
#define LATE_US	   30000
#define WINDOW_US  100000

static int calls_libfuse(const void *from)
{
	Dl_info info;

	return dladdr(from, &info) && info.dli_fname && strstr(info.dli_fname, "libfuse3");
}

/* What a thread of libfuse calls first. */
interposed int pthread_setcancelstate(int state, int *old)
{
	static int (*real)(int, int *);
	static unsigned int nr_threads;
	static __thread int seen;

	if (!real)
		real = (int (*)(int, int *))dlsym(RTLD_NEXT, "pthread_setcancelstate");
	if (!seen && calls_libfuse(__builtin_return_address(0))) {
		seen = 1;
		if (__atomic_add_fetch(&nr_threads, 1, __ATOMIC_SEQ_CST) == 2)
			usleep(LATE_US);
	}
	return real(state, old);
}

interposed int pthread_setspecific(pthread_key_t key, const void *value)
{
	static int (*real)(pthread_key_t, const void *);
	static int once;

	if (!real)
		real = (int (*)(pthread_key_t, const void *))dlsym(RTLD_NEXT,
								   "pthread_setspecific");
	if (value && calls_libfuse(__builtin_return_address(0)) &&
	    !__atomic_exchange_n(&once, 1, __ATOMIC_SEQ_CST))
		usleep(WINDOW_US);
	return real(key, value);
}
