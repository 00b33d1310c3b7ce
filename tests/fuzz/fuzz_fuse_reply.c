/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: bytes of a hostile daemon as the reply to a good request, of each opcode.
 *
 * Input: opcode, setup, error (both one byte), body. Opcode 26 takes the rest as a reply to our own INIT, 0 as a notification whose
 * code is the error.
 */
#define PEER_PLAIN
#include "../fuse/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_init(const uint8_t *data, size_t size)
{
	struct fuse_init_out out;
	const char *why;

	if (fuse_init_accept(data, size, 0, &out, &why) < 0) {
		assert_non_null(why);
		return;
	}
	assert_true(out.major == 7 && out.minor >= 12 && out.minor <= 45);
	assert_true(out.max_write >= 4096 && out.max_write <= 1u << 20);
	assert_true(out.max_pages >= 1 && out.max_pages <= 256);
}

/* Entries that came through: names without surprises; only the last record may be cut. */
static void check_dirents(const struct peer *p, const uint8_t *body, size_t len, size_t head)
{
	size_t off = 0;

	while (len - off >= head + 24) {
		uint32_t namelen;

		namelen = fuse_get32(body + off + head + 16, p->swapped);
		assert_true(namelen >= 1 && namelen <= 4095);
		if (FUSE_REC_ALIGN(head + 24 + namelen) > len - off)
			return;
		assert_true(!memchr(body + off + head + 24, '/', namelen));
		assert_true(!memchr(body + off + head + 24, 0, namelen));
		off += FUSE_REC_ALIGN(head + 24 + namelen);
	}
}

static void check_accepted(const struct peer *p, const uint8_t *body, size_t len)
{
	switch (p->req.op->reply) {
	case FUSE_REPLY_EMPTY:
		assert_true(len == 0);
		break;
	case FUSE_REPLY_FIXED:
		assert_true(len == p->req.op->reply_bytes);
		break;
	case FUSE_REPLY_DIRENTS:
		check_dirents(p, body, len, 0);
		break;
	case FUSE_REPLY_DIRENTPLUS:
		check_dirents(p, body, len, sizeof(struct fuse_entry_out));
		break;
	default:
		break;
	}
	if (p->req.op->reply != FUSE_REPLY_NONE)
		assert_true(len <= p->req.reply_max);
}

static void fuzz_reply(uint32_t opcode, uint8_t setup, int8_t error, const uint8_t *data,
		       size_t size)
{
	struct peer *p = good_peer((struct peer_setup){
		.swapped = setup & 1,
		.no_ledger = setup & 2,
		.driver_without = setup & 4 ? FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT : 0,
		.arch = setup & 8 ? FUSE_ARCH_ALPHA : FUSE_ARCH_NATIVE,
	});
	struct good g = good_request(opcode, p->swapped);
	uint8_t *body = malloc(size ? size : 1);
	struct fuse_request req;
	int err = good_send(p, opcode, &g);

	assert_non_null(body);
	memcpy(body, data, size);
	assert_true(err == good_result(opcode));
	if (!err) {
		if (setup & 16)
			fuse_session_daemon_lost(p->session);
		err = fuse_session_finish(p->session, &p->req, error, body, size, !(setup & 32));
		assert_true(err <= 0 && err > -512);
		if (!err && !error)
			check_accepted(p, body, size);
	}
	while (fuse_session_end_next(p->session, 4, p->buf, &req))
		assert_true(req.msg_bytes <= FUSE_ARGS_INLINE && req.hdr.len == req.msg_bytes);
	free(body);
	peer_free(p);
}

static void fuzz_notify(uint8_t setup, int8_t code, const uint8_t *data, size_t size)
{
	struct peer *p = good_peer((struct peer_setup){
		.swapped = setup & 1,
		.no_ledger = setup & 2,
		.driver_minor = setup & 4 ? 38 : 45,
		.notify = !(setup & 8),
	});
	uint8_t *body = malloc(size ? size : 1), msg[FUSE_NOTIFY_BYTES_MAX];
	struct fuse_notify n = { .code = code, .body = body, .len = size, .msg = msg };
	struct fuse_notify_retrieve_out lost;
	int err;

	assert_non_null(body);
	memcpy(body, data, size);
	err = fuse_notify_begin(p->session, &n);
	assert_true(err <= 0);
	for (size_t nr = 0; err == 0; nr++) {
		int ret = fuse_notify_next(p->session, &n);

		/* Each message has at least a byte of the body, but for the first. */
		assert_true(ret <= 1 && nr <= size + 1);
		if (ret <= 0)
			break;
		assert_true(n.msg_bytes >= 16 && n.msg_bytes <= sizeof(msg));
		assert_true(peer_order(p, fuse_get32(msg, false)) == n.msg_bytes);
	}
	while (fuse_session_retrieve_lost(p->session, 0, &lost)) {
	}
	free(body);
	peer_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t opcode;

	if (size < 3)
		return 0;
	opcode = data[0] % FUSE_OPCODES_END;
	if (opcode == FUSE_INIT)
		fuzz_init(data + 1, size - 1);
	else if (!opcode)
		fuzz_notify(data[1], (int8_t)data[2], data + 3, size - 3);
	else if (fuse_opcode_find(opcode))
		fuzz_reply(opcode, data[1], (int8_t)data[2], data + 3, size - 3);
	return 0;
}
