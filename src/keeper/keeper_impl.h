/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper's insides. All on the keeper's thread but what stands behind keeper.lock.
 */
#ifndef FUSEWIRE_KEEPER_KEEPER_IMPL_H
#define FUSEWIRE_KEEPER_KEEPER_IMPL_H

#include <pthread.h>

#include "base/log.h"
#include "base/loop.h"
#include "keeper/keeper.h"
#include "keeper/state.h"
#include "vhost/acceptor.h"

/**
 * struct keeper_backend - a connection to a back-end.
 * @watch: the socket; watched while it serves
 * @watched: @watch is added
 * @rx: reply under way
 * @tag: the owner's name for it
 * @features: what it offers
 * @offered: protocol features that it offers, and the keeper lets through
 * @own: those of @offered that the keeper uses itself
 * @protocol: protocol features that it was told
 * @nr_queues: what it has; VHOST_QUEUES_MAX when it cannot be asked
 * @nr_slots: memory regions that it takes; 0 when it cannot be asked
 * @owned: SET_OWNER was sent: some refuse it twice
 */
struct keeper_backend {
	struct loop_watch watch;
	bool watched;
	struct vhost_receiver rx;
	void *tag;
	uint64_t features;
	uint64_t offered;
	uint64_t own;
	uint64_t protocol;
	unsigned int nr_queues;
	uint64_t nr_slots;
	bool owned;
};

/**
 * struct keeper - see keeper.h.
 * @config: with the defaults filled in
 * @loop: of @thread
 * @thread: runs everything
 * @acceptor: listening socket
 * @accepting: @acceptor was started
 * @ratelimit: for what front-ends and back-ends can make us log
 * @front: the front-end's socket; fd -1 without one
 * @front_rx: its message under way
 * @state: what it said
 * @backend: serves, or NULL
 * @was_killed: the back-end before died: bases of running rings must be recovered
 * @had_backend: one has served: @offered and @nr_queues are known
 * @offered: of the last back-end, for checks while there is none
 * @nr_queues: likewise
 * @wake: eventfd: the mailbox was filled
 * @quit_fd: eventfd: keeper_free() was called; stays readable
 * @lock: guards the mailbox
 * @mail: a back-end's socket to take over, or -1
 * @mail_tag: its name
 */
struct keeper {
	struct keeper_config config;
	struct loop *loop;
	pthread_t thread;
	struct vhost_acceptor acceptor;
	bool accepting;
	struct log_ratelimit ratelimit;
	struct loop_watch front;
	struct vhost_receiver front_rx;
	struct keeper_state state;
	struct keeper_backend *backend;
	bool was_killed;
	bool had_backend;
	uint64_t offered;
	unsigned int nr_queues;
	struct loop_watch wake;
	int quit_fd;
	pthread_mutex_t lock;
	int mail;
	void *mail_tag;
};

/** keeper_warn() - a line in the log that a peer can cause. */
#define keeper_warn(k, ...) log_warn_ratelimited(&(k)->ratelimit, "keeper: " __VA_ARGS__)
/** keeper_refuse() - the same. Return: @err. */
#define keeper_refuse(k, err, ...)             \
	({                                     \
		keeper_warn((k), __VA_ARGS__); \
		(err);                         \
	})

/* keeper.c */
/** keeper_make() - keeper_new() without the thread. */
int must_check keeper_make(struct keeper **ret_keeper, const struct keeper_config *config);
/** keeper_destroy() - after the thread has ended, or without one. */
void keeper_destroy(struct keeper *k);
/** keeper_lose() - @k->backend is of no use any more: drop it, tell the owner. @err: what vhost_ask() said. May end the front-end. */
void keeper_lose(struct keeper *k, int err);
/** keeper_take_mail() - take over the back-end in the mailbox, if there is one. */
void keeper_take_mail(struct keeper *k);
/** keeper_wait_backend() - wait for a back-end, at most config.backend_ms. Return: 0, -ETIMEDOUT, -ECANCELED; -EPIPE: the front-end hung up. */
int must_check keeper_wait_backend(struct keeper *k);

/* check.c */
/** keeper_check() - is @msg what a front-end may send now? Return: 0; -EPROTO, logged: close the connection; -EINVAL, logged: refuse the message. */
int must_check keeper_check(struct keeper *k, struct vhost_msg *msg);
/** keeper_lets_through() - protocol features that a front-end may see. */
uint64_t keeper_lets_through(const struct keeper *k);

/* backend.c */
/** keeper_backend_new() - take over @sock. Return: NULL without memory; @sock is closed then. */
struct keeper_backend *keeper_backend_new(int sock, void *tag);
/** keeper_backend_free() - close the connection. NULL is allowed. */
void keeper_backend_free(struct keeper *k, struct keeper_backend *be);
/**
 * keeper_ask() - send @msg, wait for what is due.
 * @msg: flags are set here; descriptors stay the caller's
 * @reply: the reply; u64 0 where none is due. The caller closes its descriptors
 *
 * Return: 0; negative errno of vhost_ask(): the back-end is of no more use.
 */
int must_check keeper_ask(struct keeper *k, struct keeper_backend *be, struct vhost_msg *msg,
			  struct vhost_msg *reply);
/**
 * keeper_tell() - keeper_ask() for messages of the keeper's own.
 * @payload: @size bytes
 * @fd: descriptor to pass, or -1
 *
 * Return: 0; -EREMOTEIO: refused, logged; else as keeper_ask().
 */
int must_check keeper_tell(struct keeper *k, struct keeper_backend *be, uint32_t request,
			   const void *payload, size_t size, int fd);
/** keeper_backend_greet() - learn what it offers, tell it the protocol features. Return: 0 or negative errno. */
int must_check keeper_backend_greet(struct keeper *k, struct keeper_backend *be);
/** keeper_backend_fits() - does it offer all that the front-end acknowledged and uses? Return: 0, -EOPNOTSUPP, logged. */
int must_check keeper_backend_fits(struct keeper *k, const struct keeper_backend *be);
/** keeper_backend_reset() - the front-end is gone: stop all, let go of its memory. Return: 0 or negative errno. */
int must_check keeper_backend_reset(struct keeper *k, struct keeper_backend *be);

/* replay.c */
/** keeper_replay_head() - all but the rings. Return: 0 or negative errno. */
int must_check keeper_replay_head(struct keeper *k, struct keeper_backend *be);
/** keeper_replay_rings() - in-flight area if there is none, rings, status; then wake both sides. Return: 0 or negative errno. */
int must_check keeper_replay_rings(struct keeper *k, struct keeper_backend *be);
/** keeper_stop_rings() - GET_VRING_BASE for each running ring; the state keeps their bases, and that they are to run. Return: 0 or negative errno. */
int must_check keeper_stop_rings(struct keeper *k, struct keeper_backend *be);
/** keeper_need_area() - before ring @index with @num descriptors (0: not known) starts: see to an in-flight area that has a place for it. Return: 0 or negative errno: the back-end is of no more use. */
int must_check keeper_need_area(struct keeper *k, struct keeper_backend *be, unsigned int index,
				uint32_t num);

/* front.c */
/** keeper_front_begin() - serve the front-end on *@sock, which is taken over on success. */
void keeper_front_begin(struct keeper *k, int *sock);
/** keeper_front_connected() - is there one? */
static inline bool keeper_front_connected(const struct keeper *k)
{
	return k->front.fd >= 0;
}
/** keeper_front_hung_up() - has it closed its end? */
bool keeper_front_hung_up(const struct keeper *k);
/** keeper_front_close() - close the connection; the back-end hears nothing. */
void keeper_front_close(struct keeper *k);
/** keeper_front_end() - close the connection, make the back-end ready for the next. */
void keeper_front_end(struct keeper *k);

#endif
