/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long to look for work before sleeping: see poll_time.h.
 */
#include "base/poll_time.h"

#include "base/compiler.h"

void poll_time_adapt(uint64_t *poll_ns, uint64_t slept_ns, uint64_t max_ns)
{
	if (slept_ns < max_ns) {
		uint64_t longer = max_of(*poll_ns * 2, POLL_FIRST_NS);

		*poll_ns = min_of(longer, max_ns);
	} else {
		*poll_ns = *poll_ns > POLL_FIRST_NS ? *poll_ns / 2 : 0;
	}
}
