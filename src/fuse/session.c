/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The FUSE session object, request headers, and the pay-back at a session's end.
 */
#include "fuse/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "fuse/session_priv.h"
#include "fuse/swap.h"

#define LAYOUT_IN_HEADER \
	"4488444"        \
	"22"

/* Bytes of SETXATTR that are looked at: the structure, the name and its NUL. */
#define SETXATTR_COPY_MAX (sizeof(struct fuse_setxattr_in) + FUSE_XATTR_NAME_MAX + 1)

int fuse_session_new(struct fuse_session **ret_session, const struct fuse_session_config *config)
{
	struct fuse_session *session = calloc(1, sizeof(*session));
	int err;

	if (!session)
		return -ENOMEM;
	session->config = *config;
	if (!config->page_bytes)
		session->config.page_bytes = fuse_arch_page_bytes(NULL);
	pthread_mutex_init(&session->retrieve_lock, NULL);
	if (config->use_ledger) {
		err = ledger_new(&session->ledger);
		if (err < 0) {
			pthread_mutex_destroy(&session->retrieve_lock);
			free(session);
			return err;
		}
	}
	*ret_session = session;
	return 0;
}

void fuse_session_free(struct fuse_session *session)
{
	if (!session)
		return;
	ledger_free(session->ledger);
	pthread_mutex_destroy(&session->retrieve_lock);
	free(session);
}

bool fuse_session_active(const struct fuse_session *session)
{
	return session->active;
}

void fuse_session_daemon_lost(struct fuse_session *session)
{
	/* no_open stays: a driver that learned it asks no more, and the next daemon is the same program. */
	if (session->ledger)
		ledger_lost(session->ledger);
	/* Who asked is gone. */
	pthread_mutex_lock(&session->retrieve_lock);
	session->nr_retrieves = 0;
	pthread_mutex_unlock(&session->retrieve_lock);
}

void fuse_request_unpin(struct fuse_request *req)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (req->pins.node[i])
			ledger_unpin_node(req->pins.node[i]);
		if (req->pins.handle[i])
			ledger_unpin_handle(req->pins.handle[i]);
	}
	if (req->pins.spare_node)
		ledger_unreserve_node(req->pins.spare_node);
	if (req->pins.spare_handle)
		ledger_unreserve_handle(req->pins.spare_handle);
	memset(&req->pins, 0, sizeof(req->pins));
}

/* Bytes of reply that a driver must at least have room for. */
static size_t reply_bytes_min(const struct fuse_opcode_info *op)
{
	switch (op->reply) {
	case FUSE_REPLY_NONE:
		return 0;
	case FUSE_REPLY_FIXED:
	case FUSE_REPLY_STRUCT_THEN_DATA:
		return FUSE_OUT_BYTES + op->reply_bytes;
	case FUSE_REPLY_INIT:
		return FUSE_OUT_BYTES + FUSE_COMPAT_22_INIT_OUT_SIZE;
	default:
		return FUSE_OUT_BYTES;
	}
}

static size_t copy_bytes(const struct fuse_opcode_info *op, size_t args)
{
	switch (op->payload) {
	case FUSE_PAYLOAD_AFTER_ARGS:
		return min_of(args, (size_t)op->arg_bytes);
	case FUSE_PAYLOAD_AFTER_NAME:
		return min_of(args, SETXATTR_COPY_MAX);
	default:
		return args;
	}
}

int fuse_session_header(struct fuse_session *session, const void *raw, size_t readable,
			size_t writable, struct fuse_request *req)
{
	struct fuse_in_header *hdr = &req->hdr;
	size_t copy;

	memset(req, 0, sizeof(*req));
	memcpy(hdr, raw, sizeof(*hdr));
	/* INIT tells the byte order, and may come at any time; its numbers are no other opcode's in either. */
	if (hdr->opcode == FUSE_INIT)
		req->swapped = false;
	else if (hdr->opcode == FUSE_INIT_BSWAP_RESERVED)
		req->swapped = true;
	else
		req->swapped = session->swapped;
	if (unlikely(req->swapped))
		fuse_swap_fields(hdr, sizeof(*hdr), LAYOUT_IN_HEADER);
	req->driver_unique = hdr->unique;
	req->driver_nodeid = hdr->nodeid;
	req->in_bytes = hdr->len;
	req->op = fuse_opcode_find(hdr->opcode);

	if (hdr->len != readable || readable < sizeof(*hdr))
		return -EINVAL;
	if (!req->op)
		return -ENOSYS;
	if (unlikely(!session->active) && hdr->opcode != FUSE_INIT)
		return -EIO;
	if (writable < reply_bytes_min(req->op))
		return -EINVAL;
	copy = copy_bytes(req->op, readable - sizeof(*hdr));
	if (copy > FUSE_ARGS_MAX - sizeof(*hdr))
		return -E2BIG;
	req->copy_bytes = (uint32_t)copy;
	if (req->op->reply != FUSE_REPLY_NONE)
		req->reply_max = (uint32_t)min_of(writable - FUSE_OUT_BYTES,
						  (size_t)UINT32_MAX - FUSE_OUT_BYTES);
	return 0;
}

void fuse_session_out_header(const struct fuse_request *req, int error, size_t body_bytes,
			     struct fuse_out_header *ret_out)
{
	ret_out->len = (uint32_t)(FUSE_OUT_BYTES + (error ? 0 : body_bytes));
	ret_out->error = error;
	ret_out->unique = req->driver_unique;
	if (unlikely(req->swapped))
		fuse_swap_fields(ret_out, sizeof(*ret_out), "448");
}

/* A message of our own: header and @arg_bytes zeroed bytes of arguments. */
static void *begin_message(struct fuse_request *req, void *buf, uint32_t opcode, uint64_t unique,
			   uint64_t nodeid, size_t arg_bytes)
{
	size_t bytes = FUSE_HDR_BYTES + arg_bytes;

	memset(req, 0, sizeof(*req));
	memset(buf, 0, bytes);
	req->op = fuse_opcode_find(opcode);
	req->hdr.len = (uint32_t)bytes;
	req->hdr.opcode = opcode;
	req->hdr.unique = unique;
	req->hdr.nodeid = nodeid;
	req->driver_unique = unique;
	req->driver_nodeid = nodeid;
	req->msg_bytes = (uint32_t)bytes;
	memcpy(buf, &req->hdr, sizeof(req->hdr));
	return (char *)buf + FUSE_HDR_BYTES;
}

static bool end_lock(struct fuse_session *session, uint64_t unique, void *buf,
		     struct fuse_request *req)
{
	struct fuse_flush_in arg = { 0 };
	struct ledger_payback item;
	void *dst;

	if (!ledger_end_lock(session->ledger, &item))
		return false;
	dst = begin_message(req, buf, FUSE_FLUSH, unique, item.nodeid, sizeof(arg));
	arg.fh = item.fh;
	arg.lock_owner = item.owner;
	memcpy(dst, &arg, sizeof(arg));
	return true;
}

static bool end_handle(struct fuse_session *session, uint64_t unique, void *buf,
		       struct fuse_request *req)
{
	struct fuse_release_in arg = { 0 };
	struct ledger_payback item;
	void *dst;

	if (!ledger_end_handle(session->ledger, &item))
		return false;
	dst = begin_message(req, buf, item.dir ? FUSE_RELEASEDIR : FUSE_RELEASE, unique,
			    item.nodeid, sizeof(arg));
	arg.fh = item.fh;
	arg.flags = item.flags;
	if (item.flocked) {
		arg.release_flags = FUSE_RELEASE_FLOCK_UNLOCK;
		arg.lock_owner = item.owner;
	}
	memcpy(dst, &arg, sizeof(arg));
	return true;
}

static bool end_forgets(struct fuse_session *session, uint64_t unique, void *buf,
			struct fuse_request *req)
{
	const bool batch = session->daemon_minor >= 16;
	const size_t room = FUSE_ARGS_INLINE - FUSE_HDR_BYTES - sizeof(struct fuse_batch_forget_in);
	const unsigned int max = batch ? (unsigned int)(room / sizeof(struct fuse_forget_one)) : 1;
	struct fuse_forget_one items[FUSE_ARGS_INLINE / sizeof(struct fuse_forget_one)];
	unsigned int nr = ledger_end_forgets(session->ledger, items, max);
	char *dst;

	if (!nr)
		return false;
	if (!batch) {
		struct fuse_forget_in arg = { .nlookup = items[0].nlookup };

		dst = begin_message(req, buf, FUSE_FORGET, unique, items[0].nodeid, sizeof(arg));
		memcpy(dst, &arg, sizeof(arg));
	} else {
		struct fuse_batch_forget_in arg = { .count = nr };

		dst = begin_message(req, buf, FUSE_BATCH_FORGET, unique, 0,
				    sizeof(arg) + nr * sizeof(items[0]));
		memcpy(dst, &arg, sizeof(arg));
		memcpy(dst + sizeof(arg), items, nr * sizeof(items[0]));
	}
	return true;
}

int fuse_session_end_next(struct fuse_session *session, uint64_t unique, void *buf,
			  struct fuse_request *ret_req)
{
	struct fuse_request req;
	uint32_t epoch;
	int found = 0;

	session->active = false;
	if (session->config.record)
		__atomic_store_n(&session->config.record->active, false, __ATOMIC_RELEASE);
	if (!session->ledger)
		return 0;
	epoch = ledger_epoch(session->ledger);
	if (session->end_phase == FUSE_END_IDLE) {
		ledger_end_begin(session->ledger);
		session->end_phase = FUSE_END_LOCKS;
	}
	if (session->end_phase == FUSE_END_LOCKS) {
		found = end_lock(session, unique, buf, &req);
		if (!found)
			session->end_phase = FUSE_END_HANDLES;
	}
	if (session->end_phase == FUSE_END_HANDLES && !found) {
		found = end_handle(session, unique, buf, &req);
		if (!found)
			session->end_phase = FUSE_END_FORGETS;
	}
	if (session->end_phase == FUSE_END_FORGETS && !found)
		found = end_forgets(session, unique, buf, &req);
	if (!found) {
		ledger_end_done(session->ledger);
		session->end_phase = FUSE_END_IDLE;
		return 0;
	}
	req.pins.epoch = epoch;
	*ret_req = req;
	return 1;
}

bool fuse_session_is_stale(const struct fuse_session *session, const struct fuse_request *req)
{
	return session->ledger && req->pins.epoch != ledger_epoch(session->ledger);
}
