/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the channel service share.
 *
 * Theory of operation
 * -------------------
 * Queue threads send: a request's message goes into the socket at once, by sendmsg() from where it lies. One
 * reply thread receives, and sends what could not be sent at once (`fifos`).
 *
 * A *slot* is one message that the daemon owes a reply to. Slots are found by unique, in a hash table of our own. Who takes
 * a slot out of the table (under the lock) owns the request and ends it: a second reply finds nothing. So a
 * request ends exactly once, whatever the daemon says and whenever it dies.
 *
 * A slot is entered before its message is sent, and marked until sendmsg() is back: so long the request is the
 * sender's. A reply that comes before that (the daemon was fast and the sender was preempted, or the daemon
 * guesses) waits for the sender, who never waits. After a failed send the sender takes the slot out again.
 *
 * A READ above the daemon's limit becomes a *split*: several READs with uniques of our own (bit 62), whose data are
 * joined in a buffer. A split is finished by who drops its last part.
 *
 *   IDLE --attach--> STARTING --INIT answered--> READY --stop--> STOPPING
 *     ^-------------------- end of file, channel_close() ---------'
 *
 * Teardown: state IDLE first, so that nobody enters; then nr_senders falls to 0; then the socket is closed
 * and everything that was taken ends with -EIO. Only the reply thread tears down.
 */
#ifndef FUSEWIRE_SERVICE_CHANNEL_PRIVATE_H
#define FUSEWIRE_SERVICE_CHANNEL_PRIVATE_H

#include <pthread.h>

#include "base/log.h"
#include "service/channel/channel.h"

/* Messages that the daemon may owe replies to at a time. */
#define CHANNEL_SLOTS 1024
#define CHANNEL_HASH  2048
/* Data of the largest READ to a daemon, and what a driver gets at most for one READ. */
#define CHANNEL_READ_MAX (1u << 20)
/* Largest message taken from a daemon. */
#define CHANNEL_RECV_MAX (CHANNEL_READ_MAX + (64u << 10))
/* Questions of the daemon for cached pages that wait for room in its socket. */
#define CHANNEL_RETRIEVES 64
/* READs under way that are split. */
#define CHANNEL_SPLITS 16
#define CHANNEL_PARTS  256
/* From this size on, READ data are received where they belong; below, a copy costs less than a look ahead. */
#define CHANNEL_PEEK_MIN (32u << 10)
/* Replies up to this size, so many of them, find room whatever large ones are under way. */
#define CHANNEL_SMALL_REPLY 8192u
#define CHANNEL_SMALL_NR    8u
/* One piece of a BATCH_FORGET; every daemon's buffer holds as much (FUSE_MIN_READ_BUFFER). */
#define CHANNEL_FORGET_BYTES 8192
/* How often and how long apart to try when the kernel has no memory for a message. */
#define CHANNEL_RETRIES	 200
#define CHANNEL_RETRY_MS 2

/* Uniques of our own messages; the device's stay below. */
#define CHANNEL_UNIQUE_OWN     (UINT64_C(1) << 62)
#define CHANNEL_UNIQUE_INIT    (CHANNEL_UNIQUE_OWN | 2)
#define CHANNEL_UNIQUE_DESTROY (CHANNEL_UNIQUE_OWN | 4)
#define CHANNEL_UNIQUE_PART    (CHANNEL_UNIQUE_OWN | 16)

enum channel_state {
	CHANNEL_IDLE,
	CHANNEL_STARTING,
	CHANNEL_READY,
	CHANNEL_STOPPING,
};

/* What waits to be sent: lies in request_service_data(), or in a split. */
struct channel_item {
	struct channel_item *next;
	struct request *req;
	bool is_split;
	bool is_long; /* a READ above the limit: needs a split */
	bool is_large; /* waits for room for its reply, maybe long */
	bool interrupted; /* while it waited: an INTERRUPT follows it */
	uint16_t retries;
	uint32_t nr_forgotten; /* entries of a BATCH_FORGET that were sent */
};

/* Its requests in the order in which they came; fifo.c. */
struct channel_fifo {
	struct channel_item *head;
	struct channel_item **tail;
};

enum {
	FIFO_SMALL,
	FIFO_LARGE,
	FIFO_NR
};

struct channel_split {
	struct channel_item item;
	struct channel_split *next_free;
	char *buf; /* CHANNEL_READ_MAX bytes, allocated at first use and kept */
	uint32_t total_bytes; /* to read */
	uint32_t part_bytes; /* of every part but the last */
	uint32_t nr_parts;
	uint32_t nr_sent;
	uint32_t nr_under_way;
	uint32_t sent_limit; /* parts that may be sent now: all, or one after the other */
	bool queued; /* in the fifo */
	bool ended; /* no more parts: error, short part, lost */
	int error;
	uint32_t error_part;
	uint32_t nr_again; /* parts that could not be sent, to be tried once more */
	uint16_t again[CHANNEL_PARTS];
	uint32_t got[CHANNEL_PARTS];
};

struct channel_slot {
	uint64_t unique;
	struct request *req;
	struct channel_split *split; /* NULL: a whole request */
	uint32_t part;
	uint32_t reply_max;
	uint16_t next; /* in the hash chain or the free list; CHANNEL_NO_SLOT ends it */
	bool look_ahead;
	bool sending; /* a thread is inside sendmsg() with it */
};

#define CHANNEL_NO_SLOT UINT16_MAX

struct channel {
	struct service svc;
	struct channel_config config;
	pthread_t thread;
	bool thread_runs;
	int epoll_fd;
	int wake_fd;
	int readable_fd; /* an epoll of the socket that is never disarmed: for a queue thread that waits */
	char *recv_buf; /* reply thread's, CHANNEL_RECV_MAX + header */
	struct log_ratelimit log_reply, log_send;

	unsigned int nr_senders; /* atomic: threads inside sendmsg() */
	pthread_mutex_t
		work_lock; /* held by the reply thread but while it waits; taken before all others */

	uint64_t nr_received; /* messages; under work_lock */

	pthread_mutex_t dev_lock; /* held while the device is told something; taken before no other */
	struct device *dev;

	pthread_mutex_t lock; /* of all that follows */
	enum channel_state state;
	bool close_wanted;
	bool free_wanted;
	bool destroy_sent; /* and not answered */
	unsigned int
		nr_pollers; /* queue threads that look for replies: nobody is to be woken for them */
	bool waited_for; /* one of them sleeps on readable_fd: no other has to be woken, too */
	int fd; /* the socket; -1: none */
	uint32_t events; /* that epoll shall watch on it, EPOLLIN aside */
	uint32_t armed; /* that it watches */
	size_t send_max; /* bytes of message that fit the socket */
	size_t message_max; /* bytes that the daemon's buffer surely holds */
	uint32_t read_limit; /* bytes that a READ may ask for */
	bool read_only; /* the daemon mounted with MS_RDONLY */
	bool sequential; /* the daemon opened files whose READs must come one by one */
	const char *why; /* reply thread's: what is wrong with the INIT reply */

	uint64_t part_counter;
	uint16_t hash[CHANNEL_HASH];
	struct channel_slot slots[CHANNEL_SLOTS];
	uint16_t free_slot;
	unsigned int nr_slots_used;
	unsigned int nr_look_ahead;
	size_t reply_bytes; /* that may come for slots in use */
	unsigned int nr_small, nr_large; /* slots in use, by the size of their replies */
	size_t reply_bytes_max; /* beyond which nothing is sent */

	struct fuse_notify_retrieve_out retrieves[CHANNEL_RETRIEVES];
	unsigned int nr_retrieves;
	struct channel_fifo fifos[FIFO_NR];
	bool held; /* its head waits until the daemon has read on, or nobody polls */
	bool retry_soon; /* no memory for a message: try again in CHANNEL_RETRY_MS */
	uint64_t retried_ns; /* when a try was last counted */
	struct channel_split *free_split;
	struct channel_split splits[CHANNEL_SPLITS];

	char *bounce; /* for payloads of too many segments */
	pthread_mutex_t bounce_lock;
	struct channel_counts counts;
};

static inline struct channel *channel_of(struct service *svc)
{
	return (struct channel *)(void *)svc;
}

/* slots.c; under the lock. */
/** slot_init() - all slots free. */
void slot_init(struct channel *ch);
/** slot_enter() - a slot for @unique, or NULL when all are in use or the daemon's replies would take too much room. */
struct channel_slot *slot_enter(struct channel *ch, uint64_t unique, struct request *req,
				uint32_t reply_max);
/** slot_find() - NULL when nothing is owed for @unique. */
struct channel_slot *slot_find(struct channel *ch, uint64_t unique);
/** slot_find_sent() - as slot_find(), and waits until its message was sent. Context: drops the lock meanwhile. */
struct channel_slot *slot_find_sent(struct channel *ch, uint64_t unique);
/** slot_remove() - the caller owns what was in *@ret_copy. */
void slot_remove(struct channel *ch, struct channel_slot *slot, struct channel_slot *ret_copy);

/* send.c */
/** channel_submit() - struct service_ops. */
void channel_submit(struct service *svc, struct request *req);
/** channel_send_queued() - send what waits and fits. Context: reply thread, without the lock. */
void channel_send_queued(struct channel *ch);
/** channel_retry_soon() - there was no memory: have the reply thread try again in CHANNEL_RETRY_MS. Context: under the lock. */
void channel_retry_soon(struct channel *ch);
/** channel_send_plain() - one message of our own. Return: 0 or negative errno. */
int must_check channel_send_plain(int fd, const void *msg, size_t len);
/** channel_watch() - set what epoll watches on the socket, beside EPOLLIN. Context: under the lock. */
void channel_watch(struct channel *ch, uint32_t events);

/* fifo.c; under the lock */
/** fifo_init() - both are empty. */
void fifo_init(struct channel *ch);
/** fifo_is_empty() - does nothing wait? Context: any. */
bool fifo_is_empty(const struct channel *ch);
/** fifo_blocks() - does something wait that came before @item and comes first? */
bool fifo_blocks(struct channel *ch, const struct channel_item *item);
/** fifo_append() - it waits behind all of its kind. */
void fifo_append(struct channel *ch, struct channel_item *item);
/** fifo_push_front() - for what is under way: what waits may wait for it, for one of the splits for instance. */
void fifo_push_front(struct channel *ch, struct channel_item *item);
/** fifo_take() - the first, or NULL. */
struct channel_item *fifo_take(struct channel_fifo *fifo);

/* poll.c */
/** channel_arm() - tell epoll what to watch on the socket: EPOLLIN only while no queue thread polls. Context: under the lock. */
void channel_arm(struct channel *ch);
/** channel_poll_begin() ... channel_wait_end() - struct service_ops. */
bool channel_poll_begin(struct service *svc);
bool channel_poll(struct service *svc);
void channel_poll_end(struct service *svc);
int channel_wait_begin(struct service *svc);
void channel_wait_end(struct service *svc);
/** channel_fail() - end a request with an error, or without one if it has no reply. */
void channel_fail(struct request *req, int error);
/** channel_has_reply() - does the daemon answer this opcode? */
bool channel_has_reply(uint32_t opcode);

/* limits.c */
/** limits_check() - may the daemon get this request? Context: under the lock. Return: 0, -EROFS, -E2BIG, -EIO. */
int must_check limits_check(const struct channel *ch, struct request *req);
/** limits_cut_forget() - is it a BATCH_FORGET that the daemon's buffer cannot hold as a whole? */
bool limits_cut_forget(const struct channel *ch, struct request *req);
/* split.c */
/** split_start() - a split for a READ, in place of its @item. Context: under the lock. Return: NULL when none is free. */
struct channel_split *split_start(struct channel *ch, const struct channel_item *item);
/** split_next_part() - may another part be sent? Context: under the lock. */
bool split_next_part(const struct channel_split *split);
/** split_take_part() - the part to send next, which is under way from now on. Context: under the lock, after split_next_part(). */
uint32_t split_take_part(struct channel_split *split);
/** split_return_part() - it was not sent, or not taken: it is to be sent again. Context: under the lock. */
void split_return_part(struct channel_split *split, uint32_t part);
/** split_give_up() - no part is sent any more, and those that wait fail with @error. Context: under the lock. */
void split_give_up(struct channel_split *split, int error);
/** split_message() - message of part @part. @buf: 80 bytes. */
void split_message(const struct channel_split *split, uint32_t part, uint64_t unique, void *buf);
/** split_part_bytes() - data that part @part asks for. */
uint32_t split_part_bytes(const struct channel_split *split, uint32_t part);
/**
 * split_part_done() - a part came, or will not come.
 * @error: 0 or negative errno
 * @got: bytes in the split's buffer
 *
 * Context: under the lock. Return: true when the split is over: the caller calls split_finish() without the lock.
 */
bool must_check split_part_done(struct channel *ch, struct channel_split *split, uint32_t part,
				int error, uint32_t got);
/** split_finish() - end the request and free the split. Context: without the lock. */
void split_finish(struct channel *ch, struct channel_split *split);

/* notify.c */
/** notify_handle() - take a notification. Context: reply thread, without the lock. Return: false when it is malformed. */
bool must_check notify_handle(struct channel *ch, const struct fuse_out_header *out,
			      const char *body, size_t len);
/** channel_retrieve_none() - struct service_ops. */
void channel_retrieve_none(struct service *svc, const struct fuse_notify_retrieve_out *what);
/** notify_send_queued() - answers that wait. Context: under the lock. Return: 0, or -EAGAIN when the socket is full. */
int notify_send_queued(struct channel *ch);

/* interrupt.c */
/** channel_interrupt() - struct service_ops. */
void channel_interrupt(struct service *svc, uint64_t unique);
/** interrupt_answered() - @unique, odd, is that of an INTERRUPT. Context: reply thread, without the lock. */
void interrupt_answered(struct channel *ch, uint64_t unique, int error);
/** interrupt_slot() - an INTERRUPT for a message that was sent. Context: under the lock. */
void interrupt_slot(const struct channel *ch, const struct channel_slot *slot);

/* hold.c */
/**
 * hold_wanted() - is a request to wait, since the daemon has enough to read?
 * @message_bytes: of the request, its data included
 * @reply_bytes: that its reply may have
 *
 * Context: under the lock. Return: true to leave it in the fifo; whoever polls sends it later.
 */
bool hold_wanted(struct channel *ch, size_t message_bytes, size_t reply_bytes);

/* receive.c */
/** channel_receive() - take all messages of the socket. Context: reply thread. Return: 0 or -EPIPE at its end. */
int must_check channel_receive(struct channel *ch, int fd);

/* channel.c */
/** channel_init_reply() - the answer to INIT. Context: reply thread. Return: 0 or negative errno with *@ret_why. */
int must_check channel_init_reply(struct channel *ch, const void *msg, size_t len, pid_t server,
				  const char **ret_why);

#endif
