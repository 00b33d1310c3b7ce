/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long to look for work before sleeping.
 */
#ifndef FUSEWIRE_BASE_POLL_TIME_H
#define FUSEWIRE_BASE_POLL_TIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"

/** POLL_FIRST_NS - the shortest time but none. Looking so long costs nobody anything; after it others may have the processor. */
#define POLL_FIRST_NS (4 * NSEC_PER_USEC)

/**
 * poll_time_left() - between two looks
 * @begin_ns: when the first one was
 * @poll_ns: how long to look
 * @ret_crowded: set to true if somebody else ran on this processor meanwhile, and left alone if not; NULL if that does not matter
 *
 * Who else wants this processor, a daemon for one, comes first after the first moments: we only keep it from falling asleep.
 * Under a peer that keeps us busy that is not reached. Return: false when the time is up.
 */
bool must_check poll_time_left(uint64_t begin_ns, uint64_t poll_ns, bool *ret_crowded);

/**
 * poll_time_adapt() - after a sleep, longer if polling would have caught the work, shorter if not
 * @poll_ns: how long to look; 0 to begin with, and again where sleeps are long
 * @slept_ns: how long the sleep was
 * @max_ns: the longest time to look; 0 for never
 */
void poll_time_adapt(uint64_t *poll_ns, uint64_t slept_ns, uint64_t max_ns);

#endif
