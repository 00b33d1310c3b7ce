/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One FUSE session between a driver that nobody trusts and a file system that nobody trusts.
 *
 * Decodes and validates what the driver sends, checks what the file system answers, translates between the
 * driver's byte order, architecture and protocol minor and the daemon's, and keeps the ledger: what the
 * driver believes to have (node ids with lookup counts, open handles, locks).
 *
 * Life of a request, all on the caller's memory (struct fuse_request has no allocation of its own):
 *
 *	fuse_session_header()   header read and checked; says how many bytes of arguments to copy
 *	fuse_session_decode()   arguments checked and translated, node ids and handles looked up and pinned
 *	   (the service works)
 *	fuse_session_finish()   reply checked and translated, ledger updated, pins dropped
 *
 * Context: header, decode and finish may run on any threads at once; init, end and restart exclude them all
 * (the device drains before).
 */
#ifndef FUSEWIRE_FUSE_SESSION_H
#define FUSEWIRE_FUSE_SESSION_H

#include <errno.h>

#include "base/compiler.h"
#include "fuse/abi.h"
#include "fuse/arch.h"
#include "fuse/opcode.h"

/** FUSE_ARGS_INLINE - bytes of header and arguments that every caller's buffer must hold. */
#define FUSE_ARGS_INLINE 4800
/** FUSE_ARGS_MAX - bytes of header and arguments of the largest request that is copied whole. */
#define FUSE_ARGS_MAX (72u << 10)
/** FUSE_NOTIFY_BYTES_MAX - bytes of the longest notification to a driver, header included. */
#define FUSE_NOTIFY_BYTES_MAX 8192u

struct fuse_session;
struct ledger_node;
struct ledger_handle;

/**
 * struct fuse_request - one request on its way through the session; embedded in the caller's.
 * @hdr: the daemon's view of the header: native byte order, ->unique set by the caller between header and
 *       decode, ->nodeid and ->len the daemon's
 * @driver_unique: what the driver's reply must carry
 * @op: table entry of the opcode
 * @copy_bytes: after header: bytes behind the 40-byte header to copy before decode (≤ FUSE_ARGS_MAX - 40)
 * @msg_bytes: after decode: header and arguments in the caller's buffer, for the daemon
 * @payload_off: after decode: offset in the driver's message where the payload begins
 * @payload_bytes: after decode: bytes of payload that follow, 0 for none
 * @reply_max: bytes of reply body (without header) that fit what the driver left and asked for
 * @in_bytes: bytes of the message as the driver sent it, header included
 * @driver_nodeid: node id as the driver named it
 * @swapped: the driver's byte order is not ours
 * @pins: ledger entries held, or kept ready for the reply, while the request is under way; private to the
 *        session
 * @args: copies of the few arguments that the reply check needs; private to the session
 */
struct fuse_request {
	struct fuse_in_header hdr;
	uint64_t driver_unique;
	const struct fuse_opcode_info *op;
	uint32_t copy_bytes;
	uint32_t msg_bytes;
	uint32_t payload_off;
	uint32_t payload_bytes;
	uint32_t reply_max;
	uint32_t in_bytes;
	uint64_t driver_nodeid;
	bool swapped;
	struct {
		struct ledger_node *node[2];
		struct ledger_handle *handle[2];
		struct ledger_node *spare_node;
		struct ledger_handle *spare_handle;
		uint32_t epoch;
	} pins;
	struct {
		uint64_t len;
		uint64_t lock_owner;
		uint32_t size;
		uint32_t flags;
		uint32_t mode;
		uint32_t lock;
	} args;
};

/**
 * struct fuse_session_record - what a successor in another process has to know of a session; in memory that both share.
 * @active: a session is under way
 * @swapped: the driver's byte order is not ours
 * @minor: the driver's
 * @no_open: bit 0: the daemon implements no OPEN; bit 1: no OPENDIR
 * @notify: the driver takes notifications
 * @driver_flags: INIT flags that the driver offered
 */
struct fuse_session_record {
	uint32_t active;
	uint32_t swapped;
	uint32_t minor;
	uint32_t no_open;
	uint64_t notify;
	uint64_t driver_flags;
};

/**
 * struct fuse_session_config - fixed for the life of a session object.
 * @arch: the driver's architecture
 * @page_bytes: of the driver's pages, in which it counts what a request may carry; 0: as this machine's
 * @use_ledger: track and check node ids and handles (struct service.checks_ids is false)
 * @record: kept up to date, or NULL; outlives the session
 */
struct fuse_session_config {
	enum fuse_arch arch;
	uint32_t page_bytes;
	bool use_ledger;
	struct fuse_session_record *record;
};

/** fuse_session_new() - no session yet: only INIT is accepted. Return: 0 or -ENOMEM. */
int must_check fuse_session_new(struct fuse_session **ret_session,
				const struct fuse_session_config *config);
/** fuse_session_free() - NULL is allowed; no request may be under way. */
void fuse_session_free(struct fuse_session *session);

/**
 * fuse_session_header() - read the header of a request.
 * @raw: the first 40 bytes, a private copy
 * @readable: bytes of the driver's whole message (the header's len must be equal)
 * @writable: bytes that the driver left for the reply, header included
 * @req: filled in
 *
 * When the message is too short for a header the caller cannot reply at all and does not come here.
 * On every error @req->driver_unique and @req->swapped are set, so that fuse_session_out_header() works.
 *
 * Return: 0; -EINVAL (bad length); -ENOSYS (opcode unknown); -EIO (no session: INIT must come first);
 * -E2BIG (arguments above FUSE_ARGS_MAX); -EINVAL when @writable cannot hold the smallest reply.
 */
int must_check fuse_session_header(struct fuse_session *session, const void *raw, size_t readable,
				   size_t writable, struct fuse_request *req);

/**
 * fuse_session_decode() - check and translate the arguments.
 * @buf: the caller's buffer: bytes 0-39 are free for the header, bytes from 40 on hold @req->copy_bytes bytes as copied from the
 *       driver; afterwards @req->msg_bytes bytes of message for the daemon
 * @cap: size of @buf, ≥ 40 + @req->copy_bytes + 64
 *
 * FORGET, BATCH_FORGET: the ledger is updated and the message cut to what the daemon must hear; -ENODATA when
 * that is nothing. NOTIFY_REPLY: -ENODATA when nobody asked. INIT and DESTROY are decoded but belong to the caller. INTERRUPT: the message holds the
 * driver's unique of the request that is meant; the caller translates it.
 *
 * Return: 0, with everything pinned that the request uses: fuse_session_finish() must follow. Nothing is
 * pinned and no finish follows otherwise:
 * -EALREADY: answer success with an empty body, without the service: RELEASE, RELEASEDIR or FLUSH of a handle
 * that the daemon does not have (it is gone, or never had one because it implements no OPEN).
 * -ENODATA: a FORGET that the daemon need not hear of; there is no reply.
 * Else the errno for the driver's reply: -EINVAL, -ENAMETOOLONG, -ESTALE (node unknown, or of a daemon that is
 * gone), -EBADF (handle unknown), -ENOSYS (not negotiated, or not possible here), -EIO, -EBUSY (RELEASE of a
 * handle in use), -EOPNOTSUPP (FALLOCATE mode), -ENOTTY (IOCTL of a directory), -ENOMEM, -ENFILE.
 */
int must_check fuse_session_decode(struct fuse_session *session, struct fuse_request *req,
				   void *buf, size_t cap);

/**
 * fuse_session_finish() - check and translate the reply, update the ledger, drop the pins.
 * @error: what the service said: 0 or a negative errno
 * @body: reply body, private memory, contiguous; changed in place. NULL for opaque bodies (op->reply ==
 *        FUSE_REPLY_DATA) that are already in place
 * @len: bytes of body
 * @delivered: false when nobody will see the reply any more; the ledger still learns of it
 *
 * An OPEN or OPENDIR that the daemon does not implement is, for a driver that did not offer to do without, a
 * success with handle 0: then @error was set, the return value is 0, and the body is all zeros: see
 * fuse_session_finish_zeros().
 *
 * Return: 0 or the negative errno that goes into the driver's reply (body left out then).
 */
int must_check fuse_session_finish(struct fuse_session *session, struct fuse_request *req,
				   int error, void *body, size_t len, bool delivered);

/**
 * fuse_session_finish_zeros() - bytes of zeros to answer with where the service gave an error and
 * fuse_session_finish() made a success of it (see there).
 */
static inline size_t fuse_session_finish_zeros(const struct fuse_request *req)
{
	return req->op->reply_bytes;
}

/**
 * fuse_session_out_header() - the reply's header in the driver's byte order.
 * @error: 0 or negative errno
 * @body_bytes: length of the body that follows
 */
void fuse_session_out_header(const struct fuse_request *req, int error, size_t body_bytes,
			     struct fuse_out_header *ret_out);

/**
 * fuse_session_init() - the driver sent INIT: begin a session.
 * @req: decoded INIT
 * @msg: its message as decode left it
 * @daemon: the file system's (cleaned) INIT reply
 * @ret_reply: reply body for the driver, in its byte order
 * @ret_len: bytes of it (the driver's minor decides)
 *
 * A session before it must have been ended (fuse_session_end_next() returned 0). To a driver of a later major
 * the reply says 7 and no session begins (fuse_session_active() stays false): it sends another INIT.
 *
 * Return: 0 or the negative errno for the driver: -EPROTO: major or minor that we do not speak; -EINVAL: no room for
 * the reply.
 */
int must_check fuse_session_init(struct fuse_session *session, const struct fuse_request *req,
				 const void *msg, const struct fuse_init_out *daemon,
				 struct fuse_init_out *ret_reply, size_t *ret_len);

/**
 * fuse_session_resume() - go on with the session that config.record tells of, which another process began.
 * @daemon: this process's file system's (cleaned) INIT reply
 * @generation: how many processes had the session before, ≥ 1
 *
 * Node ids and handles that the driver has are stale. The record is checked as what a stranger wrote. Context: before any request.
 *
 * Return: 0; -ENOENT: no session is under way; -EINVAL: the record is nonsense.
 */
int must_check fuse_session_resume(struct fuse_session *session, const struct fuse_init_out *daemon,
				   uint32_t generation);

/** fuse_session_active() - was INIT answered and not ended since? */
bool fuse_session_active(const struct fuse_session *session);

/**
 * fuse_session_end_next() - the session is over: the next message that pays back what the driver still had.
 * @unique: for the message
 * @buf: at least FUSE_ARGS_INLINE bytes
 * @ret_req: op, hdr, msg_bytes set as after decode; nothing pinned; the reply goes nowhere
 *
 * First posix locks (FLUSH), then RELEASE and RELEASEDIR, then FORGET. Context: one thread; nothing is decoded. Requests
 * of the session should have ended: what one still has pinned (a daemon that hangs) is left for the end of the
 * next session, and its fuse_session_finish() may come at any time.
 *
 * Return: 1 with a message, 0 when all that is not in use was paid back.
 */
int must_check fuse_session_end_next(struct fuse_session *session, uint64_t unique, void *buf,
				     struct fuse_request *ret_req);

/**
 * fuse_session_is_stale() - was a message of fuse_session_end_next() made for a daemon that is lost by now? Context: any thread.
 */
bool must_check fuse_session_is_stale(const struct fuse_session *session,
				      const struct fuse_request *req);

/**
 * fuse_session_daemon_lost() - all node ids and handles but the root are stale from now on: they get -ESTALE,
 * their FORGETs and RELEASEs are answered without the daemon, and a new daemon's equal numbers are told from
 * them. Context: may run beside header, decode and finish.
 */
void fuse_session_daemon_lost(struct fuse_session *session);

/**
 * struct fuse_notify - a daemon's notification on its way to the driver.
 * @code: one of enum fuse_notify_code, or anything else
 * @body: what followed the header: private memory, native byte order, nothing checked
 * @len: bytes of @body
 * @msg: the caller's buffer, FUSE_NOTIFY_BYTES_MAX bytes
 * @msg_bytes: bytes of the message in @msg, the header included
 * @inode: node as the driver names it, where the message is an INVAL_INODE: a later one makes it superfluous; else 0
 * @retrieve: where the message is a RETRIEVE, its unique towards the driver: fuse_session_retrieve_lost() if it does not reach the driver; else 0
 * @done: how much of @body was dealt with; private to the session
 * @started: private to the session
 */
struct fuse_notify {
	int32_t code;
	const uint8_t *body;
	size_t len;
	uint8_t *msg;
	size_t msg_bytes;
	uint64_t inode;
	uint64_t retrieve;
	size_t done;
	bool started;
};

/**
 * fuse_session_allow_notify() - can the driver of the next session take notifications? Context: as fuse_session_init(), before it.
 *
 * A driver that cannot gets a POLL answered so that it never waits for a wake-up, and AUTO_INVAL_DATA in place of
 * EXPLICIT_INVAL_DATA.
 */
void fuse_session_allow_notify(struct fuse_session *session, bool allow);
/** fuse_session_notifies() - is there a session, and does its driver take notifications? */
bool fuse_session_notifies(const struct fuse_session *session);
/** fuse_notify_check() - is a notification well-formed, as far as its length tells? Return: -EOPNOTSUPP: yes; -EINVAL. */
int must_check fuse_notify_check(const struct fuse_notify *n);
/**
 * fuse_notify_begin() - check a notification; @n->code, body and len are set.
 *
 * Context: any thread; excludes fuse_session_init() and the end of the session, as for fuse_notify_next(). Return: 0; -EINVAL: malformed;
 * -EOPNOTSUPP: well-formed, and this driver takes no such one.
 */
int must_check fuse_notify_begin(const struct fuse_session *session, struct fuse_notify *n);
/**
 * fuse_notify_next() - the next message that the driver is to get, in its byte order and with its node ids.
 *
 * Return: 1: @n->msg; 0: that was all; -EINVAL, -ENAMETOOLONG: malformed; -ENOENT: the driver holds no such node; -EBUSY: too
 * many RETRIEVEs are open.
 */
int must_check fuse_notify_next(struct fuse_session *session, struct fuse_notify *n);
/**
 * fuse_session_retrieve_lost() - a RETRIEVE that the driver will not answer: take it out.
 * @unique: which, as struct fuse_notify says; 0: any
 * @ret_what: as the daemon sent it
 *
 * Context: any thread. Return: false when there is none.
 */
bool must_check fuse_session_retrieve_lost(struct fuse_session *session, uint64_t unique,
					   struct fuse_notify_retrieve_out *ret_what);

/**
 * fuse_init_build() - the INIT that we send to a daemon, as a Linux 7.45 kernel would, less what cannot work
 * over virtio.
 * @buf: at least 40 + sizeof(struct fuse_init_in) bytes
 *
 * Return: bytes of message.
 */
size_t fuse_init_build(void *buf, uint64_t unique);

/**
 * fuse_init_accept() - check a daemon's INIT reply.
 * @msg: the message, out header included, @len bytes
 * @ret_out: reply filled up to today's size, bits that cannot work over virtio removed, limits applied
 * @ret_why: on error a static text for people
 *
 * Return: 0, or -EPROTO (malformed, major other than 7, minor below 12), or the daemon's own error.
 */
int must_check fuse_init_accept(const void *msg, size_t len, uint64_t unique,
				struct fuse_init_out *ret_out, const char **ret_why);

#endif
