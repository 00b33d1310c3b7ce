/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: bytes of a hostile driver as FUSE requests.
 *
 * Input: one byte of setup, then messages: room for the reply (2 bytes, little-endian, times 16), length
 * (2 bytes), bytes. Every message that is let through is checked again, by other code.
 */
#define PEER_PLAIN
#include "../fuse/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint64_t features[] = {
	0,
	FUSE_SETXATTR_EXT,
	FUSE_SECURITY_CTX,
	FUSE_EXPORT_SUPPORT | FUSE_HAS_IOCTL_DIR | FUSE_CREATE_SUPP_GROUP,
};

static bool name_is_fine(enum fuse_name_rule rule, const char *name, size_t len)
{
	if (!len || len > (rule == FUSE_NAME_TARGET ? 4095u : 255u))
		return false;
	if (rule == FUSE_NAME_TARGET || rule == FUSE_NAME_XATTR)
		return true;
	if (rule == FUSE_NAME_TMPFILE && !strcmp(name, "/"))
		return true;
	if (strchr(name, '/'))
		return false;
	return rule == FUSE_NAME_LOOKUP || (strcmp(name, ".") && strcmp(name, ".."));
}

static void check_names(const struct peer *p, size_t arg_bytes)
{
	const struct fuse_opcode_info *op = p->req.op;
	size_t pos = 40 + arg_bytes;

	for (unsigned int i = 0; i < 2 && op->names[i]; i++) {
		const char *name = (const char *)p->buf + pos;
		size_t len = strnlen(name, p->req.msg_bytes - pos);

		assert_true(pos + len < p->req.msg_bytes);
		assert_true(name_is_fine(op->names[i], name, len));
		pos += len + 1;
	}
	assert_true(pos + p->req.hdr.total_extlen * 8u == p->req.msg_bytes ||
		    (op->traits & FUSE_OP_TAIL));
}

static bool node_is_known(uint64_t id)
{
	return id == FUSE_ROOT_ID || id == NODE_FILE || id == NODE_OUT || id == NODE_DIR;
}

static void check_message(const struct peer *p, size_t sent, size_t writable, bool ledger,
			  uint64_t without)
{
	const struct fuse_request *req = &p->req;
	struct fuse_in_header hdr;
	size_t arg_bytes = req->op->arg_bytes;

	if (req->op->opcode == FUSE_SETXATTR && (without & FUSE_SETXATTR_EXT))
		arg_bytes = 8;
	memcpy(&hdr, p->buf, sizeof(hdr));
	assert_true(!memcmp(&hdr, &req->hdr, sizeof(hdr)));
	assert_true(req->msg_bytes >= 40 && req->msg_bytes <= 40 + req->copy_bytes + 64);
	assert_true(hdr.len == req->msg_bytes + req->payload_bytes);
	assert_true(req->payload_off <= sent && req->payload_bytes <= sent - req->payload_off);
	if (req->op->reply != FUSE_REPLY_NONE)
		assert_true(req->reply_max <= writable - 16);
	assert_true(!(req->op->traits & FUSE_OP_NEVER));
	assert_true(!hdr.total_extlen || (req->op->traits & FUSE_OP_EXT));
	check_names(p, arg_bytes);
	if (!ledger)
		return;
	if (req->op->traits & FUSE_OP_NODE)
		assert_true(node_is_known(hdr.nodeid));
	if (req->op->other_node_off != FUSE_NO_FIELD)
		assert_true(
			node_is_known(fuse_get64(p->buf + 40 + req->op->other_node_off, false)));
	if (req->op->opcode == FUSE_BATCH_FORGET)
		assert_true(req->msg_bytes == 48 + 16u * fuse_get32(p->buf + 40, false));
}

static void one_message(struct peer *p, const uint8_t *msg, size_t len, size_t writable,
			bool ledger, uint64_t without)
{
	uint8_t *exact = malloc(40 + FUSE_ARGS_MAX + 64);
	struct fuse_out_header out;
	int err = fuse_session_header(p->session, msg, len, writable, &p->req);

	fuse_session_out_header(&p->req, err, 0, &out);
	if (!err) {
		/* As large as promised and no larger, for the address sanitizer. */
		exact = realloc(exact, 40 + p->req.copy_bytes + 64);
		assert_true(exact && p->req.copy_bytes <= len - 40);
		memcpy(exact + 40, msg + 40, p->req.copy_bytes);
		p->req.hdr.unique = 2;
		err = fuse_session_decode(p->session, &p->req, exact, 40 + p->req.copy_bytes + 64);
		if (!err) {
			memcpy(p->buf, exact, p->req.msg_bytes);
			check_message(p, len, writable, ledger, without);
			if (p->req.op->opcode == FUSE_INIT)
				err = fuse_session_init(p->session, &p->req, exact, &p->daemon,
							&p->reply, &p->reply_len);
			err = fuse_session_finish(p->session, &p->req, -EIO, NULL, 0, true);
		}
	}
	assert_true(err <= 0 && err > -512);
	free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t minors[] = { 45, 12, 16, 31 };
	struct fuse_request req;
	struct peer_setup setup = { 0 };
	struct peer *p;

	if (size < 1)
		return 0;
	setup.swapped = data[0] & 1;
	setup.no_ledger = data[0] & 2;
	setup.daemon_minor = minors[data[0] >> 2 & 3];
	setup.daemon_without = features[data[0] >> 4 & 3];
	setup.arch = data[0] >> 6 ? FUSE_ARCH_MIPS : FUSE_ARCH_NATIVE;
	p = good_peer(setup);
	data++;
	size--;
	while (size >= 4) {
		size_t writable = (size_t)(data[0] | data[1] << 8) * 16;
		size_t len = data[2] | (size_t)data[3] << 8;

		data += 4;
		size -= 4;
		len = min_of(len, size);
		if (len >= 40)
			one_message(p, data, len, writable, !setup.no_ledger, setup.daemon_without);
		data += len;
		size -= len;
	}
	while (fuse_session_end_next(p->session, 4, p->buf, &req))
		assert_true(node_is_known(req.hdr.nodeid) || req.hdr.opcode == FUSE_BATCH_FORGET);
	peer_free(p);
	return 0;
}
