/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Decoding of requests: from bytes of a driver that nobody trusts to a message that a kernel would send.
 *
 * Theory of operation: the opcode table drives everything that opcodes have in common. In this order: the
 * fixed structure (length, byte order), the names, the length of what follows, the rules of the single
 * opcode (args.c), and only when all that holds, the ledger: nothing has to be undone before. The bytes were
 * copied out of driver memory before; only payload, which nobody parses, stays there.
 */
#include <string.h>

#include "base/checked.h"
#include "fuse/decode.h"
#include "fuse/swap.h"

/* Argument structures that exist in two sizes. */
static uint32_t arg_bytes_of(const struct decode *d)
{
	switch (d->op->opcode) {
	case FUSE_SETXATTR:
		return d->session->flags & FUSE_SETXATTR_EXT ? sizeof(struct fuse_setxattr_in)
							     : FUSE_COMPAT_SETXATTR_IN_SIZE;
	case FUSE_INIT:
		return FUSE_COMPAT_INIT_IN_SIZE;
	default:
		return d->op->arg_bytes;
	}
}

static bool is_dots(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static int check_name(const struct decode *d, enum fuse_name_rule rule, const char *name,
		      uint32_t len)
{
	const uint32_t max = rule == FUSE_NAME_TARGET  ? FUSE_TARGET_BYTES_MAX
			     : rule == FUSE_NAME_XATTR ? FUSE_XATTR_NAME_MAX
						       : FUSE_NAME_BYTES_MAX;

	if (!len)
		return -EINVAL;
	if (len > max)
		return -ENAMETOOLONG;
	if (rule == FUSE_NAME_TARGET || rule == FUSE_NAME_XATTR)
		return 0;
	if (rule == FUSE_NAME_TMPFILE && len == 1 && name[0] == '/')
		return 0;
	if (memchr(name, '/', len))
		return -EINVAL;
	if (!is_dots(name, len))
		return 0;
	/* Only an exported file system (NFS server in the driver) is asked for its dots. */
	if (rule != FUSE_NAME_LOOKUP || !(d->session->flags & FUSE_EXPORT_SUPPORT))
		return -EINVAL;
	/* The root has no parent: no kernel asks for it, and libfuse 2 does not survive the question. */
	return len == 2 && d->req->hdr.nodeid == FUSE_ROOT_ID ? -EINVAL : 0;
}

static int decode_names(struct decode *d)
{
	for (unsigned int i = 0; i < 2 && d->op->names[i] != FUSE_NAME_NONE; i++) {
		const char *name = (const char *)d->arg + d->pos;
		const char *nul = memchr(name, 0, d->end - d->pos);
		int err;

		if (!nul) {
			/* SETXATTR is copied up to its longest name: what goes on is too long. */
			return d->end < d->total ? -ENAMETOOLONG : -EINVAL;
		}
		d->name[i] = name;
		d->name_bytes[i] = (uint32_t)(nul - name);
		err = check_name(d, d->op->names[i], name, d->name_bytes[i]);
		if (err < 0)
			return err;
		d->pos += d->name_bytes[i] + 1;
	}
	return 0;
}

/* What follows structure and names: payload, array, extensions, or nothing. */
static int decode_rest(struct decode *d)
{
	struct fuse_request *req = d->req;
	const bool ext = req->hdr.total_extlen != 0;

	if (ext && !(d->op->traits & FUSE_OP_EXT))
		return -EINVAL;
	if (d->op->payload != FUSE_PAYLOAD_NONE) {
		req->payload_off = (uint32_t)(FUSE_HDR_BYTES + d->pos);
		req->payload_bytes = d->total - d->pos;
		return 0;
	}
	if (ext)
		return decode_extensions(d);
	if (d->op->traits & FUSE_OP_TAIL || d->op->opcode == FUSE_INIT)
		return 0;
	return d->pos == d->end ? 0 : -EINVAL;
}

static int check_opcode(const struct decode *d)
{
	const struct fuse_session *session = d->session;

	if (d->op->opcode == FUSE_INIT)
		return 0;
	if (d->op->needs && (session->flags & d->op->needs) != d->op->needs)
		return -ENOSYS;
	/* An array of FORGETs is the one request that a driver chooses by the minor alone. */
	if (d->op->opcode == FUSE_BATCH_FORGET && session->minor < d->op->min_minor)
		return -ENOSYS;
	return 0;
}

static int pin_other(struct decode *d)
{
	struct fuse_request *req = d->req;
	struct ledger *ledger = d->session->ledger;
	const uint8_t node_off = d->op->other_node_off, fh_off = d->op->other_fh_off;
	uint64_t id, fh;
	int err;

	if (node_off == FUSE_NO_FIELD)
		return 0;
	id = fuse_get64(d->arg + node_off, false);
	if (fh_off == FUSE_NO_FIELD) {
		err = ledger_pin_node(ledger, req->pins.epoch, &id, &req->pins.node[1]);
	} else {
		fh = fuse_get64(d->arg + fh_off, false);
		err = ledger_pin_handle(ledger, req->pins.epoch, &id, &fh, false,
					&req->pins.handle[1]);
		if (err == -EBADF && !fh && READ_ONCE(d->session->no_open[0]))
			err = ledger_pin_node(ledger, req->pins.epoch, &id, &req->pins.node[1]);
		fuse_put64(d->arg + fh_off, fh);
	}
	fuse_put64(d->arg + node_off, id);
	return err;
}

static int pin_release(struct decode *d, uint64_t *fh)
{
	struct fuse_request *req = d->req;
	int err = ledger_release(d->session->ledger, req->pins.epoch, &req->hdr.nodeid, fh,
				 d->dir_fh, &req->pins.node[0]);

	/* Without OPEN there is no RELEASE; but a driver that does not know that sends one. */
	if (err == -EBADF && !*fh && READ_ONCE(d->session->no_open[d->dir_fh]))
		return -EALREADY;
	return err;
}

static int pin_fh(struct decode *d)
{
	struct fuse_request *req = d->req;
	struct ledger *ledger = d->session->ledger;
	uint64_t fh = fuse_get64(d->arg + d->op->fh_off, false);
	int err;

	if (d->op->traits & FUSE_OP_RELEASES) {
		err = pin_release(d, &fh);
	} else {
		err = ledger_pin_handle(ledger, req->pins.epoch, &req->hdr.nodeid, &fh, d->dir_fh,
					&req->pins.handle[0]);
		if (err == -EBADF && !fh && READ_ONCE(d->session->no_open[d->dir_fh]))
			err = ledger_pin_node(ledger, req->pins.epoch, &req->hdr.nodeid,
					      &req->pins.node[0]);
		if (err == -ESTALE && d->op->opcode == FUSE_FLUSH)
			err = -EALREADY;
	}
	if (err < 0)
		return err;
	fuse_put64(d->arg + d->op->fh_off, fh);
	return 0;
}

static int pin_all(struct decode *d)
{
	struct fuse_request *req = d->req;
	struct ledger *ledger = d->session->ledger;
	int err = 0;

	if (!(d->op->traits & FUSE_OP_NODE))
		return 0;
	req->pins.epoch = ledger_epoch(ledger);
	if (d->op->traits & FUSE_OP_ENTRY)
		err = ledger_reserve_node(ledger, &req->pins.spare_node);
	if (!err && (d->op->traits & FUSE_OP_OPENS))
		err = ledger_reserve_handle(ledger, &req->pins.spare_handle);
	if (!err)
		err = pin_other(d);
	/* A release changes the ledger for good, so it comes last. */
	if (!err && d->uses_fh)
		err = pin_fh(d);
	else if (!err)
		err = ledger_pin_node(ledger, req->pins.epoch, &req->hdr.nodeid,
				      &req->pins.node[0]);
	if (err < 0)
		fuse_request_unpin(req);
	return err;
}

static int forget_one(struct decode *d)
{
	struct fuse_request *req = d->req;
	struct ledger *ledger = d->session->ledger;
	uint64_t nr = fuse_get64(d->arg, false);

	if (ledger)
		nr = ledger_forget(ledger, &req->hdr.nodeid, nr);
	else if (req->hdr.nodeid == FUSE_ROOT_ID)
		nr = 0;
	fuse_put64(d->arg, nr);
	return nr ? 0 : -ENODATA;
}

static int forget_many(struct decode *d)
{
	struct ledger *ledger = d->session->ledger;
	const uint32_t nr = fuse_get32(d->arg, false);
	unsigned char *src = d->arg + d->pos, *dst = src;
	uint32_t kept = 0;

	if (nr != (d->end - d->pos) / sizeof(struct fuse_forget_one) ||
	    (d->end - d->pos) % sizeof(struct fuse_forget_one))
		return -EINVAL;
	for (uint32_t i = 0; i < nr; i++, src += sizeof(struct fuse_forget_one)) {
		uint64_t id = fuse_get64(src, d->req->swapped);
		uint64_t nlookup = fuse_get64(src + 8, d->req->swapped);

		if (ledger)
			nlookup = ledger_forget(ledger, &id, nlookup);
		if (!nlookup || id == FUSE_ROOT_ID)
			continue;
		fuse_put64(dst, id);
		fuse_put64(dst + 8, nlookup);
		dst += sizeof(struct fuse_forget_one);
		kept++;
	}
	fuse_put32(d->arg, kept);
	d->end = (uint32_t)(dst - d->arg);
	return kept ? 0 : -ENODATA;
}

/* INIT is as long as the driver's minor made it; the rest reads as zeros. */
static int widen_init(struct decode *d)
{
	const uint32_t full = sizeof(struct fuse_init_in);
	const uint32_t have = min_of(d->end, full);

	memset(d->arg + have, 0, full - have);
	if (d->req->swapped)
		fuse_swap_fields(d->arg + d->arg_bytes, full - d->arg_bytes,
				 d->op->arg_layout + d->arg_bytes / 4);
	d->end = full;
	return 0;
}

/* The daemon knows the long SETXATTR, the driver does not. */
static void widen_setxattr(struct decode *d)
{
	const uint32_t old = FUSE_COMPAT_SETXATTR_IN_SIZE;
	const uint32_t more = sizeof(struct fuse_setxattr_in) - old;

	if (d->arg_bytes != old || !(d->session->daemon_flags & FUSE_SETXATTR_EXT))
		return;
	memmove(d->arg + old + more, d->arg + old, d->end - old);
	memset(d->arg + old, 0, more);
	d->end += more;
}

static int decode_args(struct decode *d)
{
	int err = check_opcode(d);

	if (err < 0)
		return err;
	d->arg_bytes = arg_bytes_of(d);
	/* GETATTR before 7.9 had no arguments; nothing that old gets a session. */
	if (d->end < d->arg_bytes)
		return -EINVAL;
	if (unlikely(d->req->swapped))
		fuse_swap_fields(d->arg, d->arg_bytes, d->op->arg_layout);
	d->pos = d->arg_bytes;
	err = decode_names(d);
	if (err < 0)
		return err;
	err = decode_rest(d);
	if (err < 0)
		return err;
	return decode_check_args(d);
}

static int decode_finish(struct decode *d)
{
	switch (d->op->opcode) {
	case FUSE_FORGET:
		return forget_one(d);
	case FUSE_BATCH_FORGET:
		return forget_many(d);
	case FUSE_INIT:
		return widen_init(d);
	default:
		break;
	}
	if (d->session->ledger)
		return pin_all(d);
	return 0;
}

int fuse_session_decode(struct fuse_session *session, struct fuse_request *req, void *buf,
			size_t cap)
{
	struct decode d = {
		.session = session,
		.req = req,
		.op = req->op,
		.arg = (unsigned char *)buf + FUSE_HDR_BYTES,
		.end = req->copy_bytes,
		.total = req->in_bytes - (uint32_t)FUSE_HDR_BYTES,
		.uses_fh = req->op->fh_off != FUSE_NO_FIELD,
		.dir_fh = req->op->traits & FUSE_OP_DIR_FH,
	};
	int err;

	assert(cap >= FUSE_HDR_BYTES + req->copy_bytes + 64);
	err = decode_args(&d);
	if (err < 0)
		return err;
	if (d.op->traits & FUSE_OP_NEVER)
		return -ENOSYS;
	err = decode_finish(&d);
	if (err < 0)
		return err;
	/* Of what was copied, payload that lies behind the names stays with the payload. */
	if (d.op->payload != FUSE_PAYLOAD_NONE)
		d.end = d.pos;
	if (d.op->opcode == FUSE_SETXATTR)
		widen_setxattr(&d);
	req->msg_bytes = (uint32_t)FUSE_HDR_BYTES + d.end;
	req->hdr.len = req->msg_bytes + req->payload_bytes;
	req->hdr.padding = 0;
	memcpy(buf, &req->hdr, sizeof(req->hdr));
	/* It answers the daemon, which knows its question by that. */
	if (d.op->opcode == FUSE_NOTIFY_REPLY)
		fuse_put64((uint8_t *)buf + offsetof(struct fuse_in_header, unique), d.answers);
	return 0;
}
