/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holds large requests back while the daemon has enough unread ones before it.
 *
 * Theory of operation
 * -------------------
 * A daemon that shares a processor with us, or is slower than we are, takes its requests when it comes to them. With all of them in its
 * socket it also answers all of them before we come to its replies: a few MiB of data then lie between the two, in memory that no
 * cache next to a processor holds, and each copy fetches them from afar. Handed out few at a time the same work is done in the same
 * few buffers (bench/README.md has the figures).
 *
 * A daemon loses nothing by it: what counts is what it has not read yet. One that reads its requests at once and waits for a server with
 * each gets them all. And nothing waits for long: requests are held only while a queue thread looks for replies (poll.c), which
 * looks whether the daemon has read on, too. Before the last such thread sleeps the reply thread is told to send everything.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "service/channel/private.h"

/* Smaller ones stay in the cache, many as they are. */
#define HOLD_MIN_BYTES (64u << 10)
/* Data of unread requests: what a level 2 cache holds, beside what the daemon does with one. At least two requests, so that there is always one to go on with. */
#define HOLD_UNREAD_BYTES (512u << 10)
/* What the kernel accounts for a message without data (truesize). */
#define HOLD_SMALL_MESSAGE 768u

bool hold_wanted(struct channel *ch, size_t message_bytes, size_t reply_bytes)
{
	const size_t bytes = max_of(message_bytes, reply_bytes);
	size_t unread;
	int queued;

	if (!ch->nr_pollers || ch->waited_for || bytes < HOLD_MIN_BYTES)
		return false;
	if (ioctl(ch->fd, SIOCOUTQ, &queued) < 0 || queued < 0)
		return false;
	/* Where the reply has the data, what is unread is taken to be its like. */
	unread = (size_t)queued;
	if (message_bytes < reply_bytes)
		unread = unread / HOLD_SMALL_MESSAGE * reply_bytes;
	if (unread < max_of((size_t)HOLD_UNREAD_BYTES, 2 * bytes))
		return false;
	WRITE_ONCE(ch->held, true);
	return true;
}
