/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE client over a virtio-fs device: behaves as a Linux guest's virtio-fs driver does, without a guest.
 *
 * One client is one session: INIT when it is made, DESTROY when it is freed. Each request queue belongs to one thread
 * at a time; FORGETs go to hiprio from any thread. The device is not trusted: replies are checked as Linux 7.2 checks
 * them, and nothing is read twice from shared memory, except the payload of READ and READDIR, which is the caller's.
 */
#ifndef FUSEWIRE_CLIENT_FUSE_CLIENT_H
#define FUSEWIRE_CLIENT_FUSE_CLIENT_H

#include "base/compiler.h"
#include "fuse/abi.h"
#include "virtio/virtq.h"

/** FUSE_CLIENT_PAGE - payload is described page by page, as a guest's page cache lies. */
#define FUSE_CLIENT_PAGE 4096u
/** FUSE_CLIENT_DATA_MAX - most payload of one request: 256 pages, what Linux takes at most by default. */
#define FUSE_CLIENT_DATA_MAX (1u << 20)
/** FUSE_CLIENT_ARGS_MAX - most bytes of arguments: names, and a structure. */
#define FUSE_CLIENT_ARGS_MAX 1024u
/** FUSE_CLIENT_CALLS_MAX - most calls of a queue. */
#define FUSE_CLIENT_CALLS_MAX 1024u
/** FUSE_CLIENT_TIMEOUT_NS - a device that answers nothing for so long is given up. */
#define FUSE_CLIENT_TIMEOUT_NS 10000000000ull

struct fuse_client;
struct fuse_queue;

/**
 * struct fuse_client_config - what to set up.
 * @path: the vhost-user socket of the device
 * @nr_queues: request queues, ≥ 1; hiprio comes in addition
 * @queue_size: descriptors per ring
 * @format: split or packed
 * @nr_calls: calls per queue, 1 to FUSE_CLIENT_CALLS_MAX
 * @data_bytes: payload that a call can hold, up to FUSE_CLIENT_DATA_MAX
 * @busy_poll: fuse_queue_wait() spins instead of sleeping
 * @poll_ns: without @busy_poll: how long it looks for a reply at most before it sleeps, nanoseconds. As for a vCPU that halts under KVM:
 *	less where that was for nothing, and not while others want the processor. 0: not at all
 */
struct fuse_client_config {
	const char *path;
	unsigned int nr_queues;
	uint32_t queue_size;
	enum virtq_format format;
	unsigned int nr_calls;
	uint32_t data_bytes;
	bool busy_poll;
	uint64_t poll_ns;
};

/** FUSE_CALL_REPLY_MAX - the longest reply without payload: that of CREATE. */
#define FUSE_CALL_REPLY_MAX (sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out))

/**
 * struct fuse_call - one request and its reply; taken from a queue, filled, submitted, completed, put back.
 * @opcode: FUSE_*
 * @nodeid: what it is about
 * @args: shared memory for FUSE_CLIENT_ARGS_MAX bytes of arguments
 * @args_bytes: how many are used
 * @ext_bytes: how many of these, at their end, are extensions; a multiple of 8
 * @data: shared memory for the configured payload, page-aligned
 * @out_bytes: payload for the device, behind the arguments (WRITE)
 * @reply_bytes: length of a fixed reply
 * @in_bytes: room for payload in the reply (READ, READDIR); then @reply_bytes is 0
 * @error: completed: 0 or negative errno from the device
 * @got_bytes: completed: bytes behind the reply's header
 * @reply: completed: a copy of a fixed reply, zero behind @got_bytes
 * @user: the caller's
 * @unique: of the request; the client's
 * @shared: headers and arguments as the device sees them; the client's
 * @next: in the list of free calls; the client's
 */
struct fuse_call {
	uint32_t opcode;
	uint32_t args_bytes;
	uint64_t nodeid;
	void *args;
	uint8_t *data;
	uint32_t ext_bytes;
	uint32_t out_bytes;
	uint32_t reply_bytes;
	uint32_t in_bytes;
	int error;
	uint32_t got_bytes;
	union {
		uint8_t bytes[FUSE_CALL_REPLY_MAX];
		struct fuse_init_out init;
		struct fuse_entry_out entry;
		struct fuse_attr_out attr;
		struct fuse_open_out open;
		struct fuse_write_out write;
		struct {
			struct fuse_entry_out entry;
			struct fuse_open_out open;
		} create;
	} reply;
	void *user;
	uint64_t unique;
	struct fuse_call_shared *shared;
	struct fuse_call *next;
};

/**
 * fuse_client_new() - connect and begin a session.
 * @ret_why: on error a static text: which step failed
 *
 * Context: blocks. Return: 0; errors of vhost_client_new(); -EPROTO for a reply that is none; the device's own answer
 * to INIT; -ETIMEDOUT; -EPIPE when the device went away; -EINVAL for a configuration out of bounds.
 */
int must_check fuse_client_new(struct fuse_client **ret_client,
			       const struct fuse_client_config *config, const char **ret_why);

/**
 * fuse_client_free() - DESTROY, if the device still answers, and disconnect. NULL is allowed.
 *
 * Context: blocks; no other thread uses a queue any more, calls under way are abandoned.
 */
void fuse_client_free(struct fuse_client *client);

/** fuse_client_queue() - request queue @index, < config.nr_queues. */
struct fuse_queue *fuse_client_queue(struct fuse_client *client, unsigned int index);
/** fuse_client_flags() - INIT flags that both sides agreed to. */
uint64_t fuse_client_flags(const struct fuse_client *client);
/** fuse_client_minor() - the protocol minor that the device answered. */
uint32_t fuse_client_minor(const struct fuse_client *client);
/** fuse_client_max_read() - most bytes of one READ: the pages that were negotiated. */
uint32_t fuse_client_max_read(const struct fuse_client *client);
/** fuse_client_max_write() - most bytes of one WRITE. */
uint32_t fuse_client_max_write(const struct fuse_client *client);

/**
 * fuse_client_forget() - give @nlookup lookups of a node back, on hiprio, without waiting for the device.
 *
 * Context: any thread; waits only when very many FORGETs are under way. Return: 0; -ETIMEDOUT, -EPIPE, -EBADMSG: the
 * device is broken or gone.
 */
int must_check fuse_client_forget(struct fuse_client *client, uint64_t nodeid, uint64_t nlookup);

/** fuse_queue_client() - the client of a queue. */
struct fuse_client *fuse_queue_client(const struct fuse_queue *queue);

/** fuse_queue_get() - a free call, or NULL when all are in use. Its sizes are zero. */
struct fuse_call *fuse_queue_get(struct fuse_queue *queue);
/** fuse_queue_put() - give a call back that is not under way. */
void fuse_queue_put(struct fuse_queue *queue, struct fuse_call *call);

/**
 * fuse_queue_submit() - put a call into the ring; the device sees it after fuse_queue_flush().
 *
 * Return: 0; -ENOSPC when the ring is full: complete something first.
 */
int must_check fuse_queue_submit(struct fuse_queue *queue, struct fuse_call *call);
/** fuse_queue_flush() - show the device what was submitted, with at most one kick. */
void fuse_queue_flush(struct fuse_queue *queue);

/**
 * fuse_queue_wait() - until a completion is there.
 *
 * Return: 0; -ETIMEDOUT after FUSE_CLIENT_TIMEOUT_NS; -EPIPE when the device went away.
 */
int must_check fuse_queue_wait(struct fuse_queue *queue);

/**
 * fuse_queue_complete() - take one completed call.
 *
 * Return: 1, and its error and reply are set; 0 when there is none; -EBADMSG when the device broke the ring; -EPROTO
 * for a reply of wrong length, unique or error.
 */
int must_check fuse_queue_complete(struct fuse_queue *queue, struct fuse_call **ret_call);

/**
 * fuse_queue_call() - submit one call and wait for it, while no other of the queue is under way.
 *
 * Return: 0, and call->error has the device's answer; errors of the functions above.
 */
int must_check fuse_queue_call(struct fuse_queue *queue, struct fuse_call *call);

#endif
