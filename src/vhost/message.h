/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sends and receives vhost-user messages, and the one table that says what each message must look like.
 */
#ifndef FUSEWIRE_VHOST_MESSAGE_H
#define FUSEWIRE_VHOST_MESSAGE_H

#include "vhost/protocol.h"

struct vhost_session;

/**
 * struct vhost_msg - one message with the descriptors that came with it, or go with it.
 * @header: as on the wire
 * @payload: @header.size bytes are valid
 * @fds: descriptors; a received message owns them until the handler takes one with TAKE_FD()
 * @nr_fds: entries of @fds
 */
struct vhost_msg {
	struct vhost_header header;
	union vhost_payload payload;
	int fds[VHOST_FDS_MAX];
	unsigned int nr_fds;
};

/** vhost_msg_close_fds() - close the descriptors that nobody took. */
void vhost_msg_close_fds(struct vhost_msg *msg);

/**
 * enum vhost_reply_kind - what a front-end waits for after a message.
 * @VHOST_REPLY_ACK: nothing; a u64 (0: done) when it set NEED_REPLY and negotiated REPLY_ACK
 * @VHOST_REPLY_ALWAYS: a reply of its own, whatever NEED_REPLY says
 */
enum vhost_reply_kind {
	VHOST_REPLY_ACK,
	VHOST_REPLY_ALWAYS,
};

/** VHOST_NO_FEATURE - struct vhost_msg_info.feature: the message needs none. */
#define VHOST_NO_FEATURE 0xff

/**
 * vhost_handler - does what a message asks.
 * @session: the connection
 * @msg: the message, sizes and number of descriptors checked
 * @reply: VHOST_REPLY_ALWAYS: the payload, its header.size, fds; zeroed before
 *
 * Return: 0; -EPROTO when the front-end broke the protocol (the connection is closed); other negative errno
 * when it could not be done (the acknowledgement says so, if one is wanted).
 */
typedef int (*vhost_handler)(struct vhost_session *session, struct vhost_msg *msg,
			     struct vhost_msg *reply);

/**
 * struct vhost_msg_info - one row of the message table.
 * @name: without the VHOST_USER_ prefix
 * @handler: NULL when we do not offer the message: it is a violation then
 * @size_min: smallest payload, bytes
 * @size_max: largest payload, bytes
 * @fds_min: fewest descriptors
 * @fds_max: most descriptors
 * @feature: protocol feature that must have been negotiated, or VHOST_NO_FEATURE
 * @reply: what the front-end waits for
 * @reply_min: smallest payload of the reply, bytes
 * @reply_max: largest payload of the reply, bytes
 * @reply_fds_max: most descriptors that the reply carries
 */
struct vhost_msg_info {
	const char *name;
	vhost_handler handler;
	uint16_t size_min;
	uint16_t size_max;
	uint8_t fds_min;
	uint8_t fds_max;
	uint8_t feature;
	enum vhost_reply_kind reply;
	uint8_t reply_min;
	uint16_t reply_max;
	uint8_t reply_fds_max;
};

/** vhost_msg_info() - the row of message @request. Return: NULL for a number that no spec has. */
const struct vhost_msg_info *vhost_msg_info(uint32_t request);
/** vhost_msg_name() - its name. Return: "?" for a number that no spec has. */
const char *vhost_msg_name(uint32_t request);

/**
 * enum vhost_stream - what a peer may send, beside the form of a message.
 * @VHOST_STREAM_REQUESTS: a front-end's messages, as the table has them
 * @VHOST_STREAM_REPLIES: a back-end's replies, as the table has them
 * @VHOST_STREAM_ANY: for those who look closer themselves
 */
enum vhost_stream {
	VHOST_STREAM_REQUESTS,
	VHOST_STREAM_REPLIES,
	VHOST_STREAM_ANY,
};

/**
 * struct vhost_receiver - puts one message after another together from a stream.
 * @msg: the message under way
 * @got: bytes of header and payload so far
 * @stream: what may come
 * @error: what was wrong, after -EPROTO; static text
 */
struct vhost_receiver {
	struct vhost_msg msg;
	size_t got;
	enum vhost_stream stream;
	const char *error;
};

/** vhost_receiver_init() - before the first message. */
void vhost_receiver_init(struct vhost_receiver *rx, enum vhost_stream stream);
/** vhost_receiver_fini() - close descriptors of a message that was not complete. */
void vhost_receiver_fini(struct vhost_receiver *rx);

/**
 * vhost_receive() - read what is there, without blocking.
 * @sock: stream socket
 * @ret_msg: the complete message; the caller closes the descriptors left in it
 *
 * The header is checked as soon as it is complete, before the payload is waited for: version, size, and, unless anything may
 * come, reply bit, known number, payload and descriptors within the table's bounds for this direction. Descriptors belong to the
 * first bytes of a message. Of a complete request the parts have to agree: what counts descriptors or bytes of the same message.
 *
 * Return: 1 with a message; 0 when more must come first; -EPIPE at the end of the stream; -EPROTO with
 * @rx->error for what no peer may send; negative errno of recvmsg(2).
 */
int must_check vhost_receive(struct vhost_receiver *rx, int sock, struct vhost_msg *ret_msg);

/**
 * vhost_send() - send a message with its descriptors, which stay the caller's.
 *
 * Does not block: a peer whose socket is full gets -EAGAIN and no part of the message, or -EMSGSIZE when only
 * a part of it went out; then the stream is of no more use.
 *
 * Return: 0; -EAGAIN; -EMSGSIZE; negative errno of sendmsg(2).
 */
int must_check vhost_send(int sock, const struct vhost_msg *msg);

/** VHOST_NO_CANCEL - @cancel_fd of those that wait: nothing cuts the wait short. */
#define VHOST_NO_CANCEL (-1)

/**
 * vhost_await() - wait for the next message.
 * @deadline_ns: CLOCK_MONOTONIC
 * @cancel_fd: give up when this becomes readable, or VHOST_NO_CANCEL
 *
 * Context: blocks. Return: 0 with the message, as vhost_receive(); -ETIMEDOUT; -ECANCELED; errors of vhost_receive() and poll(2).
 */
int must_check vhost_await(struct vhost_receiver *rx, int sock, uint64_t deadline_ns, int cancel_fd,
			   struct vhost_msg *ret_msg);

/**
 * vhost_ask() - as a front-end: send a message and wait for its reply.
 * @sock: stream socket to the back-end
 * @rx: for replies, or anything; no message is under way in it
 * @msg: the message; descriptors stay the caller's
 * @deadline_ns: CLOCK_MONOTONIC
 * @cancel_fd: give up when this becomes readable, or VHOST_NO_CANCEL
 * @ret_reply: the reply, whose descriptors the caller closes; NULL: none is due, return once the message is sent
 *
 * After an error the stream is of no more use. Context: blocks.
 *
 * Return: 0; -EPIPE or -ECONNRESET when the back-end is gone; -ETIMEDOUT; -ECANCELED; -EPROTO with @rx->error; negative errno.
 */
int must_check vhost_ask(int sock, struct vhost_receiver *rx, const struct vhost_msg *msg,
			 uint64_t deadline_ns, int cancel_fd, struct vhost_msg *ret_reply);

/**
 * vhost_channel_send() - send a message on the channel of SET_BACKEND_REQ_FD.
 * @fd: socket, or pipe (User-mode Linux); non-blocking
 *
 * Return: 0; -EAGAIN when it is full; else it is of no more use: negative errno.
 */
int must_check vhost_channel_send(int fd, bool is_pipe, const struct vhost_msg *msg);

/** vhost_event_fd_check() - may @fd be waited on or signalled (eventfd, pipe, socket)? Makes it non-blocking. Return: 0, -EINVAL or negative errno. */
int must_check vhost_event_fd_check(int fd);

#endif
