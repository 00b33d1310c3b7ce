/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long to look for work before sleeping: see poll_time.h.
 */
#include "base/poll_time.h"

#include <sched.h>

bool poll_time_left(uint64_t begin_ns, uint64_t poll_ns)
{
	const uint64_t looked_ns = clock_now_ns() - begin_ns;

	if (looked_ns >= POLL_FIRST_NS)
		sched_yield();
	return looked_ns < poll_ns;
}

void poll_time_adapt(uint64_t *poll_ns, uint64_t slept_ns, uint64_t max_ns)
{
	if (slept_ns < max_ns) {
		uint64_t longer = max_of(*poll_ns * 2, POLL_FIRST_NS);

		*poll_ns = min_of(longer, max_ns);
	} else {
		*poll_ns = *poll_ns > POLL_FIRST_NS ? *poll_ns / 2 : 0;
	}
}
