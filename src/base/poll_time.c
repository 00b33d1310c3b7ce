/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long to look for work before sleeping: see poll_time.h.
 */
#include "base/poll_time.h"

#include <sched.h>

/* A yield to nobody takes a fraction of it, one to a thread that does something more. */
#define POLL_YIELDED_NS (10 * NSEC_PER_USEC)

bool poll_time_left(uint64_t begin_ns, uint64_t poll_ns, bool *ret_crowded)
{
	const uint64_t now = clock_now_ns(), looked_ns = now - begin_ns;

	if (looked_ns >= POLL_FIRST_NS) {
		sched_yield();
		if (ret_crowded && clock_now_ns() - now >= POLL_YIELDED_NS)
			*ret_crowded = true;
	}
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
