/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stands between a front-end and a vhost-user back-end, and survives the back-end's death and its exchange.
 *
 * The keeper speaks for the back-end towards a front-end that never reconnects, remembers what the front-end said
 * (its descriptors included), and says it all again to the next back-end. It forwards messages, never data: kick, call
 * and memory descriptors go straight through, and guest memory is not even mapped here.
 *
 * docs/keeper.md says in which order, and how rings are recovered.
 */
#ifndef FUSEWIRE_KEEPER_KEEPER_H
#define FUSEWIRE_KEEPER_KEEPER_H

#include "base/compiler.h"

/** KEEPER_REPLY_MS - default of struct keeper_config.reply_ms. */
#define KEEPER_REPLY_MS 20000
/** KEEPER_BACKEND_MS - default of struct keeper_config.backend_ms. */
#define KEEPER_BACKEND_MS 30000

struct keeper;

/**
 * enum keeper_lost - why a back-end is the keeper's no longer.
 * @KEEPER_LOST_GONE: it closed the connection, or its process has ended
 * @KEEPER_LOST_HUNG: no reply in time; it may still run
 * @KEEPER_LOST_LIED: it sent what no back-end may send; it may still run
 */
enum keeper_lost {
	KEEPER_LOST_GONE,
	KEEPER_LOST_HUNG,
	KEEPER_LOST_LIED,
};

/**
 * struct keeper_config - what to keep.
 * @listen_fd: a listening AF_UNIX stream socket where front-ends come and go; stays the caller's
 * @inband_notifications: let INBAND_NOTIFICATIONS through, if the back-end offers it (User-mode Linux only)
 * @reply_ms: how long a back-end may take for one reply, ms; more than what it may need to stop its rings (the
 *            device's drain time); 0: KEEPER_REPLY_MS
 * @backend_ms: how long a message of the front-end waits for a back-end when there is none; 0: KEEPER_BACKEND_MS
 * @on_backend_lost: the back-end @tag is lost. Before it returns the owner makes sure that this back-end is dead: its
 *                   successor is given the same rings. Call keeper_set_backend() here or later; soon, for the
 *                   driver's requests wait, and messages of the front-end, too, but only for @backend_ms
 * @on_backend_set: outcome for the back-end @tag: 0: it serves. Negative: it was refused and its socket closed, and what was
 *                  before is as it was (a back-end, or none): -EOPNOTSUPP: it lacks what the front-end has
 *                  acknowledged; -ECANCELED: another one was set meanwhile (told
 *                  from within the keeper_set_backend() that set it), or the keeper ends; else it did not answer as it should.
 *                  A back-end that fails later than that is reported by @on_backend_lost alone
 * @ctx: for both
 *
 * The callbacks run on the keeper's thread, and may call keeper_set_backend(), but not keeper_free().
 */
struct keeper_config {
	int listen_fd;
	bool inband_notifications;
	unsigned int reply_ms;
	unsigned int backend_ms;
	void (*on_backend_lost)(void *ctx, void *tag, enum keeper_lost why);
	void (*on_backend_set)(void *ctx, void *tag, int err);
	void *ctx;
};

/**
 * keeper_new() - begin to accept front-ends, on a thread of the keeper's own.
 *
 * Makes @config->listen_fd non-blocking and ignores SIGPIPE, as vhost_server_new().
 *
 * Return: 0 or negative errno, with *@ret_keeper untouched.
 */
int must_check keeper_new(struct keeper **ret_keeper, const struct keeper_config *config);

/**
 * keeper_set_backend() - use another back-end from now on.
 * @sock: AF_UNIX stream socket connected to it; taken over, closed even on error
 * @tag: names it in the callbacks
 *
 * If one serves it is asked to stop its rings first, after its successor has been found to fit; if one died, its rings are
 * recovered from the in-flight area. Returns at once; config.on_backend_set tells the outcome. When one hangs that is to
 * be replaced, on_backend_lost is called for it (its tag tells) before the successor gets its rings.
 *
 * Context: any thread. Return: 0; negative errno of fcntl(2) for a bad descriptor.
 */
int must_check keeper_set_backend(struct keeper *keeper, int sock, void *tag);

/** keeper_free() - close both sides, stop the thread. NULL is allowed. Context: any thread but the keeper's. */
void keeper_free(struct keeper *keeper);

#endif
