/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests on their way to the daemon: from the device into the buffer of a read(2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "service/inproc/private.h"
#include "service/rules/rules.h"

/* Bytes of a message that is cut to the daemon's buffer: BATCH_FORGET. */
#define MESSAGE_CUT_MAX 8192u

static bool has_no_reply(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_NOTIFY_REPLY;
}

/* Copy a list of segments into another at @off. The caller has checked that it fits. */
static void copy_segments(const struct iovec *dst, unsigned int nr_dst, size_t off,
			  const struct iovec *src, unsigned int nr_src)
{
	for (unsigned int i = 0; i < nr_src; i++)
		off += iov_copy_in(dst, nr_dst, off, src[i].iov_base, src[i].iov_len);
}

/* A BATCH_FORGET that is longer than the buffer: a part of it. The rest is for who reads next. */
static ssize_t copy_forget_part(struct inproc *ip, struct request *req, const struct iovec *iov,
				unsigned int nr, size_t room)
{
	struct inproc_slot *slot = request_service_data(req);
	char msg[MESSAGE_CUT_MAX];
	uint32_t nr_sent = 0;
	size_t len = rules_forget_message(req, (uint32_t)slot->nr_forgotten, msg,
					  min_of(room, sizeof(msg)), &nr_sent);

	if (!len) {
		request_reply_none(req);
		return 0;
	}
	slot->nr_forgotten += nr_sent;
	iov_copy_in(iov, nr, 0, msg, len);
	lead_add_request(ip, req, true);
	return (ssize_t)len;
}

/* A READ above the daemon's limit begins. Return: 0 or -ENOMEM. */
static int split_begin(const struct inproc *ip, struct request *req)
{
	struct inproc_slot *slot = request_service_data(req);
	struct fuse_read_in arg;
	struct inproc_split *split;
	size_t len;
	const char *msg = request_message(req, &len);

	if (slot->split || request_header(req)->opcode != FUSE_READ ||
	    len < sizeof(struct fuse_in_header) + sizeof(arg))
		return 0;
	memcpy(&arg, msg + sizeof(struct fuse_in_header), sizeof(arg));
	if (arg.size <= ip->config.max_read)
		return 0;
	arg.size = min_of(arg.size, INPROC_READ_MAX);
	split = malloc(sizeof(*split) + arg.size);
	if (!split)
		return -ENOMEM;
	split->total = arg.size;
	split->got = 0;
	split->asked = 0;
	slot->split = split;
	return 0;
}

static ssize_t copy_split_part(const struct inproc *ip, struct request *req,
			       const struct iovec *iov, unsigned int nr)
{
	struct inproc_slot *slot = request_service_data(req);
	struct inproc_split *split = slot->split;
	struct {
		struct fuse_in_header hdr;
		struct fuse_read_in arg;
	} msg;
	size_t len;

	memcpy(&msg, request_message(req, &len), sizeof(msg));
	split->asked = min_of(split->total - split->got, ip->config.max_read);
	msg.arg.offset += split->got;
	msg.arg.size = split->asked;
	msg.hdr.len = sizeof(msg);
	return (ssize_t)iov_copy_in(iov, nr, 0, &msg, sizeof(msg));
}

/* Return: bytes; -ECANCELED: the driver has the payload's memory back. */
static ssize_t copy_whole(struct request *req, const struct iovec *iov, unsigned int nr)
{
	const struct iovec *payload;
	unsigned int nr_payload;
	size_t len;
	const void *msg = request_message(req, &len);

	iov_copy_in(iov, nr, 0, msg, len);
	payload = request_payload(req, &nr_payload);
	if (nr_payload) {
		if (!request_hold(req))
			return -ECANCELED;
		copy_segments(iov, nr, len, payload, nr_payload);
		request_let_go(req);
	}
	return (ssize_t)request_header(req)->len;
}

/* All but the payload. */
static ssize_t copy_lent(struct request *req, const struct iovec *iov, unsigned int nr,
			 struct inproc_loan *loan)
{
	size_t len;
	const void *msg = request_message(req, &len);

	iov_copy_in(iov, nr, 0, msg, len);
	loan_give(loan, req);
	return (ssize_t)request_header(req)->len;
}

static ssize_t copy_message(const struct inproc *ip, struct request *req, const struct iovec *iov,
			    unsigned int nr, struct inproc_loan *loan)
{
	const struct inproc_slot *slot = request_service_data(req);
	const struct iovec *payload;
	unsigned int nr_payload;

	if (slot->split)
		return copy_split_part(ip, req, iov, nr);
	if (loan && request_header(req)->opcode == FUSE_WRITE) {
		payload = request_payload(req, &nr_payload);
		if (nr_payload && nr_payload <= LOAN_SEGMENTS_MAX &&
		    iov_bytes(payload, nr_payload) >= INPROC_LOAN_MIN)
			return copy_lent(req, iov, nr, loan);
	}
	return copy_whole(req, iov, nr);
}

/* Why the daemon does not get the request. Return: 0 or negative errno. */
static int message_check(const struct inproc *ip, struct request *req, size_t room)
{
	const struct fuse_in_header *hdr = request_header(req);

	if (ip->config.read_only && rules_changes(req))
		return -EROFS;
	/* As fuse_dev_do_read() does. */
	if (hdr->len > room)
		return hdr->opcode == FUSE_SETXATTR ? -E2BIG : -EIO;
	return ip->config.max_read ? split_begin(ip, req) : 0;
}

/* Once `owed` is set the request may end at any moment: nothing of it is touched after that. */
ssize_t message_copy(struct inproc *ip, struct request *req, const struct iovec *iov,
		     unsigned int nr, struct inproc_loan *loan)
{
	struct inproc_slot *slot = request_service_data(req);
	const struct fuse_in_header *hdr = request_header(req);
	const bool no_reply = has_no_reply(hdr->opcode);
	const uint64_t unique = hdr->unique;
	const size_t room = iov_bytes(iov, nr);
	ssize_t len;
	int err;

	if (hdr->opcode == FUSE_BATCH_FORGET && (hdr->len > room || slot->nr_forgotten))
		return copy_forget_part(ip, req, iov, nr, room);
	err = message_check(ip, req, room);
	if (err) {
		request_reply(req, err, NULL, 0);
		return 0;
	}
	len = copy_message(ip, req, iov, nr, loan);
	if (len < 0) {
		request_reply(req, (int)len, NULL, 0);
		return 0;
	}
	if (no_reply)
		request_reply_none(req);
	else
		__atomic_store_n(&slot->owed, unique, __ATOMIC_RELEASE);
	return len;
}
