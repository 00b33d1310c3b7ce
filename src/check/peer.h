/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private to the check: a connection to the back-end, with rings and a FUSE session, on which requests of any form are sent.
 *
 * Unlike client/, it reports what is wrong with an answer and goes on; and it watches what the device writes where.
 */
#ifndef FUSEWIRE_CHECK_PEER_H
#define FUSEWIRE_CHECK_PEER_H

#include "fuse/abi.h"
#include "vhost/client.h"

#define PEER_SLOTS	8u
#define PEER_ROOM	(96u << 10)
#define PEER_QUEUES_MAX 3u
#define HIPRIO		0u
#define FIRST_QUEUE	1u
/* Where notifications are taken: their queue, and the first for requests. */
#define NOTIFY_QUEUE	1u
#define NOTIFYING_FIRST 2u

struct peer_setup {
	enum virtq_format format;
	uint32_t queue_size;
	unsigned int nr_queues; /* hiprio included */
	bool event_idx;
	bool indirect;
	bool mem_slots;
	bool inflight;
	bool notifications; /* take them if offered: then there is one queue more, and NOTIFYING_FIRST takes requests */
	bool no_protocol;
	bool no_session;
	uint64_t extra_protocol, without_protocol;
	uint32_t base;
};

/* What was seen over all requests of a check. */
struct peer_seen {
	uint64_t nr_requests;
	uint64_t nr_wrote_outside; /* of the writable part of a chain */
	uint64_t nr_wrote_readable;
	uint64_t nr_wrong_length;
};

enum peer_frame {
	FRAME_LINUX, /* header, arguments, data; header, reply */
	FRAME_ONE, /* one descriptor each way */
	FRAME_ODD, /* pieces of 7 bytes */
};

/* One request. Results are valid after peer_ask() or peer_wait() returned 0. */
struct ask {
	uint32_t opcode;
	uint64_t nodeid;
	const void *args;
	uint32_t args_bytes;
	const char *name[2];
	const void *data;
	uint32_t data_bytes;
	uint32_t ext_bytes; /* how many of the last bytes are extensions; a multiple of 8 */
	uint32_t in_bytes; /* room for the reply's body */
	bool exact; /* a good reply fills it; otherwise it is at most so long */
	bool no_reply; /* FORGET: no writable part */
	bool swapped; /* opcode, node id and arguments are in the other byte order: so is the rest of the header */
	enum peer_frame frame;
	/* Results. */
	int error; /* the header's */
	uint32_t got; /* bytes of the body */
	const void *body; /* until the slot is used again */
};

struct peer_slot {
	uint8_t *out; /* shared; behind both are guard bytes */
	uint8_t *in;
	uint8_t *sent; /* private copies of them */
	uint8_t *back;
	uint32_t out_bytes, in_bytes;
	uint32_t written;
	uint64_t unique;
	struct ask *ask;
	unsigned int queue;
	bool busy;
};

struct peer {
	struct vhost_client *vhost;
	struct peer_setup setup;
	struct peer_seen *seen;
	unsigned int serial;
	uint64_t unique;
	struct fuse_init_out init;
	uint64_t flags;
	struct peer_slot slots[PEER_SLOTS];
	uint8_t *copies;
	uint32_t nr_desc[PEER_QUEUES_MAX]; /* ring entries used so far */
	char problem[120]; /* what was wrong with the last answer */
};

/*
 * Connect, set up, and begin a session unless setup.no_session. Return: 0; errors of vhost_client_new() with *@ret_why;
 * -EPROTO, *@ret_why being "INIT", when that was not answered well.
 */
int must_check peer_new(struct peer **ret_peer, const char *path, const struct peer_setup *setup,
			struct peer_seen *seen, const char **ret_why);
void peer_free(struct peer *p);

/* Send INIT on @queue. Return: 0, -EPROTO, or errors of peer_ask(). */
int must_check peer_init(struct peer *p, unsigned int queue);

/* Fill the slot and add its chain; the device sees it after peer_kick(). Return: 0, -ENOSPC. */
int must_check peer_submit(struct peer *p, unsigned int queue, unsigned int slot, struct ask *ask);
void peer_kick(struct peer *p, unsigned int queue);
/*
 * Wait for any chain of @queue. Return: 0 and *@ret_slot, its answer taken; -ETIMEDOUT; -EPIPE: connection lost; -EBADMSG: the
 * device broke the ring; -EPROTO: the answer is none. peer->problem has the words for it.
 */
int must_check peer_wait(struct peer *p, unsigned int queue, int timeout_ms,
			 unsigned int *ret_slot);
/* Submit in slot 0 of an idle queue and wait. Return: 0: *@ask is answered; the errors above. */
int must_check peer_ask(struct peer *p, unsigned int queue, struct ask *ask);

/*
 * Where notifications are taken: give the device all slots but 0 as buffers of @bytes. peer_take_buffers(): look at what it gave
 * back and at what it has. Return: errors of virtq_driver_add(); how many came back; -EPROTO with peer->problem.
 */
int must_check peer_give_buffers(struct peer *p, uint32_t bytes);
int must_check peer_take_buffers(struct peer *p);

/* GETATTR of the root: does the session work? Return: 0; the device's errno; errors of peer_ask(). */
int must_check peer_works(struct peer *p, unsigned int queue);
/* Give lookups back on hiprio. Return: errors of peer_ask(). */
int must_check peer_forget(struct peer *p, uint64_t nodeid, uint64_t nlookup);
/* Send a message, and wait for the back-end's acknowledgement if REPLY_ACK was offered. Return: 0; 1: refused; negative errno. */
int must_check peer_tell(struct peer *p, uint32_t request, const void *payload, size_t size,
			 int fd);
/* Is the connection closed? */
bool peer_is_gone(const struct peer *p);
/* Does the back-end still answer messages? */
bool peer_answers(struct peer *p);

#endif
