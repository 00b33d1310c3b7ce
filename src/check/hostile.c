/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every malformed input ends with: is the back-end alive, and does a fresh session work?
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check/check_impl.h"

/* How long a process that was seen to go is given to be gone. */
#define EXIT_MS 1000
/* One that closed only the connection is not waited for. */
#define GLANCE_MS 20

struct peer *check_victim(struct check *c, const struct peer_setup *setup)
{
	struct peer *p = check_peer(c, setup);

	/* That the connection does not come about is not the input's doing: it was not sent. */
	if (!p && c->no_peer == CHECK_DOES_NOT)
		c->no_peer = CHECK_NOT_CHECKED;
	return p;
}

/*
 * A back-end that ends when its connection is closed is not hurt, whatever it says; one that crashed is, and so is one that
 * closed the connection itself and ended with a failure.
 */
static bool has_died(struct check *c, bool gone, char *how, size_t size)
{
	int wait_ms = c->ends_with_front_end ? EXIT_MS : gone ? GLANCE_MS : 0;
	int ended = -1;

	if (c->config->ended)
		ended = c->config->ended(c->config->ctx, wait_ms, how, size);
	if (ended == CHECK_FAILED)
		return gone || !c->ends_with_front_end;
	return ended == CHECK_CRASHED;
}

enum check_status check_survived(struct check *c, struct peer *p, const char *reaction)
{
	const struct peer_setup fresh = { .format = VIRTQ_SPLIT, .queue_size = 64, .nr_queues = 2 };
	bool gone = p && peer_is_gone(p), hangs = p && !gone && !peer_answers(p);
	char how[CHECK_DETAIL_BYTES / 2] = "";
	unsigned int nr_restarts;
	struct peer *next;
	int err;

	/* Gone while it was asked: that is no hang. */
	if (hangs && peer_is_gone(p)) {
		gone = true;
		hangs = false;
	}
	check_drop_own(c);
	if (has_died(c, gone, how, sizeof(how))) {
		c->report->died = true;
		return check_fails(c, "%s; the back-end died: %s", reaction, how);
	}
	nr_restarts = c->nr_restarts;
	next = check_peer(c, &fresh);
	/* A crash can take its time. */
	if (c->nr_restarts != nr_restarts && !c->ends_with_front_end) {
		c->report->died = true;
		return check_fails(c, "%s; the back-end was gone and had to be started again",
				   reaction);
	}
	if (!next && c->lost)
		return check_fails(c, "%s; the back-end is gone", reaction);
	if (!next) {
		char why[CHECK_DETAIL_BYTES / 2];

		snprintf(why, sizeof(why), "%s", c->detail);
		return check_fails(c, "%s; no fresh session: %s", reaction, why);
	}
	err = peer_works(next, FIRST_QUEUE);
	if (err < 0)
		return check_fails(c, "%s; a fresh session does not work: %s", reaction,
				   next->problem[0] ? next->problem : strerror(-err));
	if (hangs)
		return check_fails(c, "%s; it did not answer messages within %d ms", reaction,
				   ANSWER_MS);
	return check_end(c, CHECK_HOLDS, "%s", gone ? "connection closed" : reaction);
}
