/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds the functions that ours stand in front of.
 */
#include "real.h"

#include <dlfcn.h>
#include <stdlib.h>

void *real_find(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn)
		abort();
	return fn;
}
