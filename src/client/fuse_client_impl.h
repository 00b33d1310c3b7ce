/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the FUSE client share.
 */
#ifndef FUSEWIRE_CLIENT_FUSE_CLIENT_IMPL_H
#define FUSEWIRE_CLIENT_FUSE_CLIENT_IMPL_H

#include <pthread.h>

#include "client/fuse_client.h"
#include "vhost/client.h"

#define HIPRIO	      0
#define FIRST_REQUEST 1
#define FORGETS_MAX   256u

/* What the device reads and what it writes are on cache lines of their own. */
struct fuse_call_shared {
	struct fuse_in_header in;
	uint8_t args[FUSE_CLIENT_ARGS_MAX];
	cache_aligned struct fuse_out_header out;
	uint8_t reply[FUSE_CALL_REPLY_MAX];
};

struct forget_shared {
	cache_aligned struct fuse_in_header in;
	struct fuse_forget_in forget;
};

/* Unique numbers of a session differ: each queue counts in steps of twice the number of queues. */
struct fuse_queue {
	struct fuse_client *client;
	const struct vhost_client_ring *ring;
	struct fuse_call *calls;
	struct fuse_call *free_calls;
	uint64_t unique;
	uint64_t unique_step;
	bool busy_poll;
	bool failed;
	uint64_t poll_ns, poll_max_ns;
} cache_aligned;

struct fuse_client {
	struct fuse_client_config config;
	struct vhost_client *vhost;
	struct fuse_queue *queues;
	struct fuse_init_out init;
	uint64_t flags;
	bool in_session;
	uint32_t uid, gid;
	/* hiprio: forget_lock covers the ring and all below. */
	pthread_mutex_t forget_lock;
	struct forget_shared *forgets;
	uint16_t free_forgets[FORGETS_MAX];
	unsigned int nr_free_forgets;
	uint64_t forget_unique;
};

/* Fill a header as the kernel does: who asks, and a unique number. */
void fuse_client_fill_header(const struct fuse_client *client, struct fuse_in_header *header,
			     uint32_t opcode, uint64_t nodeid, uint64_t unique, size_t len);
/* Has the device closed the connection? */
bool fuse_client_is_gone(const struct fuse_client *client);
/* INIT on the first request queue. Return: 0; the device's error; errors of fuse_queue_call(). */
int must_check fuse_session_begin(struct fuse_client *client);
/* DESTROY, unless the first request queue has failed. */
void fuse_session_end(struct fuse_client *client);

#endif
