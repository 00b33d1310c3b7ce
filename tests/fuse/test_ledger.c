/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ledger: a daemon that counts what it gave out, a driver that does as it likes, and the books at the end.
 */
#include "requests.h"

#include <fcntl.h>

#include "fuse/ledger.h"
#include "fuse/session_priv.h"

#define MODEL_NODES   64
#define MODEL_HANDLES 8

/* What a real daemon would count; it must never go below zero, and end at zero. */
struct model {
	uint64_t lookups[MODEL_NODES];
	unsigned int opens[MODEL_NODES][MODEL_HANDLES][2];
	uint64_t rng;
};

static uint32_t random_below(struct model *m, uint32_t n)
{
	m->rng ^= m->rng << 13;
	m->rng ^= m->rng >> 7;
	m->rng ^= m->rng << 17;
	return (uint32_t)(m->rng >> 33) % n;
}

static void model_forget(struct model *m, uint64_t id, uint64_t n)
{
	assert_true(id > 1 && id < MODEL_NODES);
	assert_true(n > 0 && m->lookups[id] >= n);
	m->lookups[id] -= n;
	/* Pointers as node ids: nothing may be open on a node that is freed. */
	for (unsigned int fh = 0; !m->lookups[id] && fh < MODEL_HANDLES; fh++)
		assert_true(!m->opens[id][fh][0] && !m->opens[id][fh][1]);
}

static void model_release(struct model *m, uint64_t id, uint64_t fh, bool dir)
{
	assert_true(id < MODEL_NODES && fh < MODEL_HANDLES);
	assert_true(m->opens[id][fh][dir] > 0);
	m->opens[id][fh][dir]--;
}

/* The daemon gets a message of the session: the request, or the pay-back at its end. */
static void model_hears(struct model *m, const struct fuse_request *req, const unsigned char *buf)
{
	const unsigned char *arg = buf + 40;

	switch (req->hdr.opcode) {
	case FUSE_FORGET:
		model_forget(m, req->hdr.nodeid, fuse_get64(arg, false));
		break;
	case FUSE_BATCH_FORGET:
		for (uint32_t i = 0; i < fuse_get32(arg, false); i++)
			model_forget(m, fuse_get64(arg + 8 + i * 16, false),
				     fuse_get64(arg + 16 + i * 16, false));
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		model_release(m, req->hdr.nodeid, fuse_get64(arg, false),
			      req->hdr.opcode == FUSE_RELEASEDIR);
		break;
	default:
		/* Anything else must be about a node that lives. */
		if (req->hdr.nodeid > 1)
			assert_true(m->lookups[req->hdr.nodeid] > 0);
		break;
	}
}

static void settle(struct peer *p, struct model *m)
{
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request req;
	unsigned int rank = 0;

	while (fuse_session_end_next(p->session, 4, buf, &req)) {
		const uint32_t op = req.hdr.opcode;
		const unsigned int now = op == FUSE_FLUSH			       ? 0
					 : op == FUSE_RELEASE || op == FUSE_RELEASEDIR ? 1
										       : 2;

		assert_true(now >= rank);
		rank = now;
		assert_true(req.msg_bytes <= sizeof(buf));
		assert_int_equal(req.hdr.len, req.msg_bytes);
		model_hears(m, &req, buf);
	}
	for (unsigned int i = 0; i < MODEL_NODES; i++) {
		assert_int_equal(m->lookups[i], 0);
		for (unsigned int fh = 0; fh < MODEL_HANDLES; fh++)
			assert_true(!m->opens[i][fh][0] && !m->opens[i][fh][1]);
	}
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	assert_int_equal(ledger_nr_handles(p->session->ledger), 0);
}

static void step_lookup(struct peer *p, struct model *m, bool valid)
{
	const uint64_t id = 1 + random_below(m, MODEL_NODES - 1);
	struct fuse_entry_out e = peer_entry(id, valid ? S_IFREG : 0);

	assert_int_equal(peer_send(p, FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, "n", 2), 0);
	if (id > 1)
		m->lookups[id]++;
	assert_int_equal(peer_reply(p, 0, &e, sizeof(e)), valid ? 0 : -EIO);
}

static void step_open(struct peer *p, struct model *m)
{
	const uint64_t id = 1 + random_below(m, MODEL_NODES - 1);
	const uint64_t fh = random_below(m, MODEL_HANDLES);
	const bool dir = random_below(m, 2);
	struct fuse_open_in in = { .flags = 0 };
	struct fuse_open_out out = { .fh = fh };

	if (peer_send(p, dir ? FUSE_OPENDIR : FUSE_OPEN, id, &in, sizeof(in), NULL, 0) < 0)
		return;
	model_hears(m, &p->req, p->buf);
	m->opens[id][fh][dir]++;
	assert_int_equal(fuse_session_finish(p->session, &p->req, 0, &out, sizeof(out),
					     random_below(m, 2)),
			 0);
}

static void step_use(struct peer *p, struct model *m)
{
	const uint64_t id = random_below(m, MODEL_NODES);
	struct fuse_read_in in = { .fh = random_below(m, MODEL_HANDLES), .size = 1 };
	int err;

	if (random_below(m, 2))
		err = peer_send(p, FUSE_READ, id, &in, sizeof(in), NULL, 0);
	else
		err = peer_send(p, FUSE_STATFS, id, NULL, 0, NULL, 0);
	if (err)
		return;
	model_hears(m, &p->req, p->buf);
	if (p->req.hdr.opcode == FUSE_READ)
		assert_true(m->opens[p->req.hdr.nodeid][in.fh][0] > 0);
	/* While it is under way, the driver forgets and releases what the request uses. */
	if (random_below(m, 2)) {
		struct fuse_request held = p->req;
		struct fuse_request *req = &held;

		if (peer_forget(p, id, 1 + random_below(m, 1000)) == 0)
			model_hears(m, &p->req, p->buf);
		if (req->hdr.nodeid > 1)
			assert_true(m->lookups[req->hdr.nodeid] > 0);
		if (peer_release(p, id, in.fh, false) == 0) {
			model_hears(m, &p->req, p->buf);
			assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
		}
		assert_int_equal(fuse_session_finish(p->session, req, -EIO, NULL, 0, true), -EIO);
		return;
	}
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
}

static void step_batch(struct peer *p, struct model *m)
{
	struct fuse_batch_forget_in in = { .count = random_below(m, 8) };
	uint64_t items[16];

	for (unsigned int i = 0; i < 2 * in.count; i += 2) {
		items[i] = random_below(m, MODEL_NODES);
		items[i + 1] = random_below(m, 3);
	}
	if (peer_send(p, FUSE_BATCH_FORGET, 0, &in, sizeof(in), items, in.count * 16u) == 0)
		model_hears(m, &p->req, p->buf);
}

static void run_model(uint64_t seed, uint32_t daemon_minor)
{
	struct peer *p = peer_new((struct peer_setup){ .daemon_minor = daemon_minor });
	struct model *m = calloc(1, sizeof(*m));

	m->rng = seed;
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 4000; i++) {
			switch (random_below(m, 8)) {
			case 0:
			case 1:
				step_lookup(p, m, true);
				break;
			case 2:
				step_lookup(p, m, false);
				break;
			case 3:
				step_open(p, m);
				break;
			case 4:
				if (peer_forget(p, random_below(m, MODEL_NODES),
						random_below(m, 4)) == 0)
					model_hears(m, &p->req, p->buf);
				break;
			case 5:
				step_batch(p, m);
				break;
			case 6:
				if (peer_release(p, 1 + random_below(m, MODEL_NODES - 1),
						 random_below(m, MODEL_HANDLES),
						 random_below(m, 2)) == 0) {
					model_hears(m, &p->req, p->buf);
					assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
				}
				break;
			default:
				step_use(p, m);
				break;
			}
		}
		settle(p, m);
		assert_int_equal(peer_init(p), 0);
	}
	free(m);
	peer_free(p);
}

static void test_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++)
		run_model(seed * 0x9e3779b97f4a7c15, seed & 1 ? 45 : 15);
}

/*
 * Daemons die at random while the driver goes on with whatever numbers it has. The model is of the living
 * one; numbers given out by dead ones must never reach it.
 */
static void test_model_with_losses(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct model *m = calloc(1, sizeof(*m));
	uint64_t held[512];
	unsigned int nr = 0, refused = 0;

	(void)state;
	m->rng = 4711;
	for (unsigned int i = 0; i < 60000; i++) {
		const unsigned int k = nr ? random_below(m, nr) : 0;
		const uint64_t id = 2 + random_below(m, MODEL_NODES - 2);
		struct fuse_open_in in = { 0 };
		struct fuse_open_out out = { .fh = random_below(m, MODEL_HANDLES) };

		switch (random_below(m, 400) ? random_below(m, 4) : 4) {
		case 0:
			if (nr == array_size(held))
				break;
			m->lookups[id]++;
			held[nr++] = peer_lookup(p, id, S_IFREG);
			break;
		case 1:
			if (!nr)
				break;
			if (peer_forget(p, held[k], 1) == 0)
				model_hears(m, &p->req, p->buf);
			held[k] = held[--nr];
			break;
		case 2:
			if (!nr)
				break;
			if (peer_send(p, FUSE_OPEN, held[k], &in, sizeof(in), NULL, 0) < 0) {
				refused++;
				break;
			}
			model_hears(m, &p->req, p->buf);
			m->opens[p->req.hdr.nodeid][out.fh][0]++;
			assert_int_equal(peer_reply(p, 0, &out, sizeof(out)), 0);
			break;
		case 3:
			if (nr && peer_release(p, held[k], out.fh, false) == 0) {
				model_hears(m, &p->req, p->buf);
				assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
			}
			break;
		default:
			fuse_session_daemon_lost(p->session);
			memset(m->lookups, 0, sizeof(m->lookups));
			memset(m->opens, 0, sizeof(m->opens));
			break;
		}
	}
	assert_true(refused > 100);
	settle(p, m);
	free(m);
	peer_free(p);
}

static void test_forget(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_lookup(p, 10, S_IFREG);
	assert_int_equal(peer_forget(p, 10, 0), -ENODATA);
	assert_int_equal(peer_forget(p, 10, 1), 0);
	assert_int_equal(PEER_ARG(p, fuse_forget_in)->nlookup, 1);
	assert_int_equal(peer_forget(p, 10, UINT64_MAX), 0);
	assert_int_equal(PEER_ARG(p, fuse_forget_in)->nlookup, 1);
	assert_int_equal(peer_forget(p, 10, 1), -ENODATA);
	assert_int_equal(peer_forget(p, FUSE_ROOT_ID, 1), -ENODATA);
	assert_int_equal(peer_forget(p, 0, 1), -ENODATA);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	/* While the root is in use it is as it always is; another node stays for the daemon. */
	peer_lookup(p, 11, S_IFREG);
	assert_int_equal(peer_send(p, FUSE_STATFS, 11, NULL, 0, NULL, 0), 0);
	struct fuse_request held = p->req;

	assert_int_equal(peer_forget(p, 11, 1), -ENODATA);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 1);
	assert_int_equal(peer_send(p, FUSE_STATFS, 11, NULL, 0, NULL, 0), -ESTALE);
	assert_int_equal(fuse_session_finish(p->session, &held, -EIO, NULL, 0, true), -EIO);
	peer_free(p);
}

static void test_release(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct fuse_read_in in = { .fh = 3, .size = 1 };
	struct fuse_request held;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_open(p, 10, 3, false);
	assert_int_equal(peer_release(p, 10, 4, false), -EBADF);
	assert_int_equal(peer_release(p, 10, 3, true), -EBADF);
	assert_int_equal(peer_release(p, 11, 3, false), -EBADF);
	assert_int_equal(peer_send(p, FUSE_READ, 10, &in, sizeof(in), NULL, 0), 0);
	held = p->req;
	assert_int_equal(peer_release(p, 10, 3, false), -EBUSY);
	assert_int_equal(fuse_session_finish(p->session, &held, -EIO, NULL, 0, true), -EIO);
	assert_int_equal(peer_release(p, 10, 3, false), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	assert_int_equal(peer_release(p, 10, 3, false), -EBADF);
	/* A daemon that gives all opens one number. */
	peer_open(p, 10, 0, false);
	peer_open(p, 10, 0, false);
	in.fh = 0;
	assert_int_equal(peer_send(p, FUSE_READ, 10, &in, sizeof(in), NULL, 0), 0);
	held = p->req;
	assert_int_equal(peer_release(p, 10, 0, false), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	assert_int_equal(peer_release(p, 10, 0, false), -EBUSY);
	assert_int_equal(fuse_session_finish(p->session, &held, -EIO, NULL, 0, true), -EIO);
	peer_free(p);
}

/* A daemon that hangs: its request outlives the session, and what it uses must too. */
static void test_late_request(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_read_in in = { .fh = 3, .size = 1 };
	struct fuse_request late_read, late_stat, req;
	unsigned int nr = 0;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_lookup(p, 11, S_IFREG);
	peer_lookup(p, 12, S_IFREG);
	peer_open(p, 10, 3, false);
	peer_open(p, 10, 4, false);
	assert_int_equal(peer_send(p, FUSE_READ, 10, &in, sizeof(in), NULL, 0), 0);
	late_read = p->req;
	assert_int_equal(peer_send(p, FUSE_STATFS, 11, NULL, 0, NULL, 0), 0);
	late_stat = p->req;
	/* Only handle 4 and node 12 are not in use. */
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 1);
	assert_int_equal(req.hdr.opcode, FUSE_RELEASE);
	assert_true(fuse_get64(buf + 40, false) == 4);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 1);
	assert_int_equal(fuse_get32(buf + 40, false), 1);
	assert_true(fuse_get64(buf + 48, false) == 12);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 0);
	assert_int_equal(peer_init(p), 0);
	peer_lookup(p, 11, S_IFREG);
	assert_int_equal(fuse_session_finish(p->session, &late_read, 0, NULL, 1, false), 0);
	assert_int_equal(fuse_session_finish(p->session, &late_stat, -EIO, NULL, 0, false), -EIO);
	while (fuse_session_end_next(p->session, 2, buf, &req))
		nr++;
	assert_int_equal(nr, 2);
	assert_int_equal(req.hdr.opcode, FUSE_BATCH_FORGET);
	assert_int_equal(fuse_get32(buf + 40, false), 2);
	assert_true(fuse_get64(buf + 56, false) + fuse_get64(buf + 72, false) == 3);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	assert_int_equal(ledger_nr_handles(p->session->ledger), 0);
	peer_free(p);
}

/* The same with everything stale. */
static void test_late_request_of_lost_daemon(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request late, req;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	assert_int_equal(peer_send(p, FUSE_STATFS, 10, NULL, 0, NULL, 0), 0);
	late = p->req;
	fuse_session_daemon_lost(p->session);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 0);
	assert_int_equal(peer_init(p), 0);
	assert_true(peer_lookup(p, 10, S_IFREG) != 10);
	assert_int_equal(fuse_session_finish(p->session, &late, -EIO, NULL, 0, false), -EIO);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 1);
	assert_int_equal(fuse_get32(buf + 40, false), 1);
	assert_true(fuse_get64(buf + 48, false) == 10);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 0);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	assert_int_equal(peer_init(p), 0);
	assert_true(peer_lookup(p, 10, S_IFREG) == 10);
	peer_free(p);
}

static void set_lock(struct peer *p, uint64_t fh, uint64_t owner, uint32_t type, uint32_t flags,
		     int error)
{
	struct fuse_lk_in in = { .fh = fh,
				 .owner = owner,
				 .lk = { .end = INT64_MAX, .type = type },
				 .lk_flags = flags };

	assert_int_equal(peer_send(p, FUSE_SETLK, 10, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(peer_reply(p, error, NULL, 0), error);
}

static void test_end_pays_locks(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_flush_in flush = { .fh = 3, .lock_owner = 72 };
	struct fuse_release_in rel;
	struct fuse_request req;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_open(p, 10, 3, false);
	set_lock(p, 3, 70, F_WRLCK, 0, 0);
	set_lock(p, 3, 71, F_WRLCK, 0, -EAGAIN);
	set_lock(p, 3, 72, F_RDLCK, 0, 0);
	set_lock(p, 3, 73, F_RDLCK, 0, 0);
	set_lock(p, 3, 73, F_UNLCK, 0, 0);
	set_lock(p, 3, 80, F_WRLCK, FUSE_LK_FLOCK, 0);
	assert_int_equal(peer_send(p, FUSE_FLUSH, 10, &flush, sizeof(flush), NULL, 0), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);

	assert_int_equal(fuse_session_end_next(p->session, 6, buf, &req), 1);
	assert_false(fuse_session_active(p->session));
	assert_int_equal(req.hdr.opcode, FUSE_FLUSH);
	assert_int_equal(req.hdr.unique, 6);
	memcpy(&flush, buf + 40, sizeof(flush));
	assert_int_equal(flush.fh, 3);
	assert_int_equal(flush.lock_owner, 70);
	assert_int_equal(fuse_session_end_next(p->session, 8, buf, &req), 1);
	assert_int_equal(req.hdr.opcode, FUSE_RELEASE);
	memcpy(&rel, buf + 40, sizeof(rel));
	assert_int_equal(rel.fh, 3);
	assert_int_equal(rel.flags, 2);
	assert_int_equal(rel.release_flags, FUSE_RELEASE_FLOCK_UNLOCK);
	assert_int_equal(rel.lock_owner, 80);
	assert_int_equal(fuse_session_end_next(p->session, 10, buf, &req), 1);
	assert_int_equal(req.hdr.opcode, FUSE_BATCH_FORGET);
	assert_int_equal(fuse_get32(buf + 40, false), 1);
	assert_true(fuse_get64(buf + 48, false) == 10);
	assert_true(fuse_get64(buf + 56, false) == 1);
	assert_int_equal(fuse_session_end_next(p->session, 12, buf, &req), 0);
	assert_int_equal(fuse_session_end_next(p->session, 14, buf, &req), 0);
	peer_free(p);
}

static void test_end_batches(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request req;
	unsigned int nodes = 0, messages = 0;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		peer_lookup(p, 1000 + i * 8, S_IFREG);
	while (fuse_session_end_next(p->session, 2, buf, &req)) {
		assert_int_equal(req.hdr.opcode, FUSE_BATCH_FORGET);
		assert_int_equal(req.msg_bytes, 48 + 16 * fuse_get32(buf + 40, false));
		nodes += fuse_get32(buf + 40, false);
		messages++;
	}
	assert_int_equal(nodes, 1000);
	assert_true(messages <= 4);
	peer_free(p);
}

/* A new daemon's numbers are told from those that the driver has of the dead one. */
static void test_daemon_lost(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct fuse_open_out out = { .fh = 3 };
	struct fuse_entry_out e = peer_entry(20, S_IFREG);
	struct fuse_flush_in flush = { .fh = 3 };
	struct fuse_open_in in = { 0 };
	struct fuse_request late, late_open;
	uint64_t alias, fh;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_open(p, 10, 3, false);
	peer_open(p, FUSE_ROOT_ID, 3, true);
	assert_int_equal(peer_send(p, FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, "n", 2), 0);
	late = p->req;
	assert_int_equal(peer_send(p, FUSE_OPEN, 10, &in, sizeof(in), NULL, 0), 0);
	late_open = p->req;
	fuse_session_daemon_lost(p->session);
	/* What the dead one said last counts for nothing. */
	assert_int_equal(fuse_session_finish(p->session, &late, 0, &e, sizeof(e), true), -EIO);
	assert_int_equal(fuse_session_finish(p->session, &late_open, 0, &out, sizeof(out), true),
			 -EIO);
	assert_int_equal(peer_send(p, FUSE_STATFS, 10, NULL, 0, NULL, 0), -ESTALE);
	assert_int_equal(peer_send(p, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
	assert_int_equal(peer_send(p, FUSE_FLUSH, 10, &flush, sizeof(flush), NULL, 0), -EALREADY);

	alias = peer_lookup(p, 10, S_IFREG);
	assert_true(alias != 10);
	assert_true(peer_lookup(p, 10, S_IFREG) == alias);
	assert_true(peer_lookup(p, 11, S_IFREG) == 11);
	assert_int_equal(peer_send(p, FUSE_STATFS, alias, NULL, 0, NULL, 0), 0);
	assert_int_equal(p->req.hdr.nodeid, 10);
	assert_true(p->req.driver_nodeid == alias);
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
	/* A number of the daemon's that happens to be an alias. */
	assert_true(peer_lookup(p, alias, S_IFREG) != alias);
	/* Handles: of the alias, and of the root, where the stale one still has the number. */
	assert_true(peer_open(p, alias, 3, false) == 3);
	fh = peer_open(p, FUSE_ROOT_ID, 3, true);
	assert_true(fh != 3);
	assert_int_equal(peer_release(p, FUSE_ROOT_ID, fh, true), 0);
	assert_int_equal(PEER_ARG(p, fuse_release_in)->fh, 3);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	assert_int_equal(peer_release(p, FUSE_ROOT_ID, 3, true), -EALREADY);
	assert_int_equal(peer_release(p, 10, 3, false), -EALREADY);
	assert_int_equal(peer_release(p, alias, 3, false), 0);
	assert_int_equal(peer_reply(p, 0, NULL, 0), 0);
	/* Forgetting the stale one frees its number for good. */
	assert_int_equal(peer_forget(p, 10, 1), -ENODATA);
	assert_int_equal(peer_forget(p, alias, 2), 0);
	assert_int_equal(p->req.hdr.nodeid, 10);
	assert_true(peer_lookup(p, 10, S_IFREG) == 10);
	peer_free(p);
}

static void test_end_after_loss(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request req;

	(void)state;
	peer_lookup(p, 10, S_IFREG);
	peer_open(p, 10, 3, false);
	set_lock(p, 3, 70, F_WRLCK, 0, 0);
	fuse_session_daemon_lost(p->session);
	peer_lookup(p, 10, S_IFREG);
	/* Only what the living daemon gave. */
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 1);
	assert_int_equal(req.hdr.opcode, FUSE_BATCH_FORGET);
	assert_int_equal(fuse_get32(buf + 40, false), 1);
	assert_true(fuse_get64(buf + 48, false) == 10);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 0);
	peer_free(p);
}

/* Many losses, with the driver holding on to everything: every number it has means one thing. */
static void test_many_losses(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	uint64_t ids[20][50];

	(void)state;
	for (unsigned int epoch = 0; epoch < 20; epoch++) {
		for (unsigned int i = 0; i < 50; i++) {
			ids[epoch][i] = peer_lookup(p, 10 + i, S_IFREG);
			for (unsigned int e = 0; e <= epoch; e++) {
				for (unsigned int k = 0; k < (e < epoch ? 50 : i); k++)
					assert_true(ids[e][k] != ids[epoch][i]);
			}
			assert_int_equal(peer_send(p, FUSE_STATFS, ids[epoch][i], NULL, 0, NULL, 0),
					 0);
			assert_int_equal(p->req.hdr.nodeid, 10 + i);
			assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
		}
		fuse_session_daemon_lost(p->session);
	}
	for (unsigned int epoch = 0; epoch < 20; epoch++) {
		for (unsigned int i = 0; i < 50; i++)
			assert_int_equal(peer_forget(p, ids[epoch][i], 1), -ENODATA);
	}
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_with_losses),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_end_pays_locks),
		cmocka_unit_test(test_late_request),
		cmocka_unit_test(test_late_request_of_lost_daemon),
		cmocka_unit_test(test_end_batches),
		cmocka_unit_test(test_daemon_lost),
		cmocka_unit_test(test_end_after_loss),
		cmocka_unit_test(test_many_losses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
