/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many threads on one session, a daemon that dies meanwhile, and memory that runs out.
 */
#include "requests.h"

#include <pthread.h>

#include "fuse/ledger.h"
#include "fuse/session_priv.h"

#define THREADS 4
#define ROUNDS	20000
#define NODES	40

/* Allocations of the code under test go through here (linker option --wrap). */
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool faults_on, faults_go_on;
static unsigned int fault_after, nr_faults;

static bool fails(void)
{
	if (!faults_on)
		return false;
	if (fault_after) {
		fault_after--;
		return false;
	}
	if (nr_faults && !faults_go_on)
		return false;
	nr_faults++;
	return true;
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

struct worker {
	struct fuse_session *session;
	uint64_t rng;
	int64_t balance; /* lookups counted by the daemon less those given back */
};

static uint32_t next(struct worker *w, uint32_t n)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (uint32_t)(w->rng >> 33) % n;
}

static int send_raw(struct worker *w, struct fuse_request *req, unsigned char *buf, uint32_t opcode,
		    uint64_t nodeid, const void *tail, size_t bytes)
{
	struct fuse_in_header hdr = {
		.len = (uint32_t)(40 + bytes), .opcode = opcode, .unique = 1, .nodeid = nodeid
	};
	int err = fuse_session_header(w->session, &hdr, 40 + bytes, 1u << 20, req);

	if (err)
		return err;
	memcpy(buf + 40, tail, bytes);
	req->hdr.unique = 2;
	return fuse_session_decode(w->session, req, buf, 512);
}

static void one_lookup(struct worker *w, unsigned char *buf)
{
	struct fuse_entry_out e = peer_entry(2 + next(w, NODES), S_IFREG);
	struct fuse_request req;

	if (send_raw(w, &req, buf, FUSE_LOOKUP, 1, "n", 2))
		return;
	if (fuse_session_finish(w->session, &req, 0, &e, sizeof(e), true) == 0)
		w->balance++;
}

static void one_forget(struct worker *w, unsigned char *buf)
{
	struct fuse_forget_in in = { .nlookup = 1 + next(w, 2) };
	struct fuse_request req;

	if (send_raw(w, &req, buf, FUSE_FORGET, 2 + next(w, NODES), &in, sizeof(in)))
		return;
	memcpy(&in, buf + 40, sizeof(in));
	w->balance -= (int64_t)in.nlookup;
	assert_int_equal(fuse_session_finish(w->session, &req, 0, NULL, 0, true), 0);
}

static void one_open(struct worker *w, unsigned char *buf)
{
	const uint64_t id = 2 + next(w, NODES);
	struct fuse_open_in in = { 0 };
	struct fuse_open_out out = { .fh = next(w, 4) };
	struct fuse_read_in rd = { .size = 1 };
	struct fuse_release_in rel = { 0 };
	struct fuse_request req;
	int err;

	if (send_raw(w, &req, buf, FUSE_OPEN, id, &in, sizeof(in)))
		return;
	if (fuse_session_finish(w->session, &req, 0, &out, sizeof(out), true))
		return;
	rd.fh = out.fh;
	rel.fh = out.fh;
	if (!send_raw(w, &req, buf, FUSE_READ, id, &rd, sizeof(rd))) {
		err = fuse_session_finish(w->session, &req, 0, NULL, 1, true);
		assert_int_equal(err, 0);
	}
	err = send_raw(w, &req, buf, FUSE_RELEASE, id, &rel, sizeof(rel));
	assert_true(err == 0 || err == -EBUSY || err == -EALREADY || err == -EBADF);
	if (!err)
		assert_int_equal(fuse_session_finish(w->session, &req, 0, NULL, 0, true), 0);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned char buf[512];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		switch (next(w, 4)) {
		case 0:
			one_lookup(w, buf);
			break;
		case 1:
			one_forget(w, buf);
			break;
		default:
			one_open(w, buf);
			break;
		}
	}
	return NULL;
}

static int64_t drain(struct fuse_session *session)
{
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request req;
	int64_t sum = 0;

	while (fuse_session_end_next(session, 2, buf, &req)) {
		if (req.hdr.opcode != FUSE_BATCH_FORGET)
			continue;
		for (uint32_t i = 0; i < fuse_get32(buf + 40, false); i++)
			sum += (int64_t)fuse_get64(buf + 56 + i * 16, false);
	}
	return sum;
}

static void run_threads(unsigned int losses)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct worker w[THREADS];
	pthread_t threads[THREADS];
	int64_t balance = 0;

	for (unsigned int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .session = p->session,
					.rng = 88172645463325252ull + i * 977 };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
	}
	for (unsigned int i = 0; i < losses; i++) {
		struct timespec pause = { .tv_nsec = 2000000 };

		nanosleep(&pause, NULL);
		fuse_session_daemon_lost(p->session);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		balance += w[i].balance;
	}
	/* The daemon got back what it counted, to the last one. */
	if (!losses)
		assert_int_equal(drain(p->session), balance);
	else
		drain(p->session);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	assert_int_equal(ledger_nr_handles(p->session->ledger), 0);
	peer_free(p);
}

static uint64_t guess;

static void *forget_guess(void *arg)
{
	struct worker *w = arg;
	const struct fuse_forget_in in = { .nlookup = 1 };
	unsigned char buf[512];
	struct fuse_request req;
	uint64_t id;

	while ((id = __atomic_load_n(&guess, __ATOMIC_RELAXED))) {
		if (!send_raw(w, &req, buf, FUSE_FORGET, id, &in, sizeof(in)))
			assert_int_equal(fuse_session_finish(w->session, &req, 0, NULL, 0, true),
					 0);
	}
	return NULL;
}

static void create(struct worker *w, uint64_t id)
{
	const struct fuse_create_in in = { .mode = S_IFREG | 0644 };
	const struct fuse_entry_out entry = peer_entry(id, S_IFREG);
	struct fuse_release_in rel = { .fh = id };
	unsigned char body[sizeof(entry) + sizeof(struct fuse_open_out)] = { 0 };
	unsigned char args[sizeof(in) + 2] = { 0 }, buf[512];
	struct fuse_request req;

	memcpy(args, &in, sizeof(in));
	args[sizeof(in)] = 'n';
	memcpy(body, &entry, sizeof(entry));
	fuse_put64(body + sizeof(entry), rel.fh);
	assert_int_equal(send_raw(w, &req, buf, FUSE_CREATE, 1, args, sizeof(args)), 0);
	assert_int_equal(fuse_session_finish(w->session, &req, 0, body, sizeof(body), true), 0);
	assert_int_equal(send_raw(w, &req, buf, FUSE_RELEASE, id, &rel, sizeof(rel)), 0);
	assert_int_equal(fuse_session_finish(w->session, &req, 0, NULL, 0, true), 0);
}

/* A driver forgets what it was not told of yet: the daemon's file is open all the same, and gets closed. */
static void test_forget_beside_create(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct worker w = { .session = p->session };
	pthread_t thread;

	(void)state;
	guess = 2;
	assert_int_equal(pthread_create(&thread, NULL, forget_guess, &w), 0);
	for (uint64_t id = 2; id < 2 + ROUNDS; id++) {
		__atomic_store_n(&guess, id, __ATOMIC_RELAXED);
		create(&w, id);
	}
	__atomic_store_n(&guess, 0, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	drain(p->session);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	assert_int_equal(ledger_nr_handles(p->session->ledger), 0);
	peer_free(p);
}

static void test_threads(void **state)
{
	(void)state;
	run_threads(0);
}

static void test_threads_with_losses(void **state)
{
	(void)state;
	run_threads(8);
}

#define LATE 2000

struct late {
	struct fuse_session *session;
	struct fuse_request reqs[LATE];
};

static void *finish_late(void *arg)
{
	struct late *late = arg;

	for (unsigned int i = 0; i < LATE; i++) {
		struct fuse_entry_out e = peer_entry(2 + i % 97, S_IFREG);
		struct fuse_request *req = &late->reqs[i];
		int err;

		if (req->hdr.opcode == FUSE_LOOKUP)
			err = fuse_session_finish(late->session, req, 0, &e, sizeof(e), false);
		else
			err = fuse_session_finish(late->session, req, -EIO, NULL, 0, false);
		assert_int_equal(err, req->hdr.opcode == FUSE_LOOKUP ? 0 : -EIO);
	}
	return NULL;
}

/* Replies of a daemon that hung come in while the session is ended, and after the next one began. */
static void test_late_replies(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	struct late *late = calloc(1, sizeof(*late));
	int64_t counted = 50 + LATE / 2, sum = 0;
	pthread_t thread;

	(void)state;
	late->session = p->session;
	for (uint64_t id = 2; id < 52; id++)
		peer_lookup(p, id, S_IFREG);
	for (unsigned int i = 0; i < LATE; i++) {
		const uint64_t node = i & 1 ? 1 : 2 + i / 2 % 50;

		assert_int_equal(peer_send(p, i & 1 ? FUSE_LOOKUP : FUSE_STATFS, node, NULL, 0, "n",
					   i & 1 ? 2 : 0),
				 0);
		late->reqs[i] = p->req;
	}
	assert_int_equal(pthread_create(&thread, NULL, finish_late, late), 0);
	for (unsigned int i = 0; i < 20; i++) {
		sum += drain(p->session);
		assert_int_equal(peer_init(p), 0);
	}
	pthread_join(thread, NULL);
	sum += drain(p->session);
	assert_int_equal(sum, counted);
	assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
	free(late);
	peer_free(p);
}

/* One driver's life; everything that can fail for want of memory may. */
static void life(struct peer *p, int64_t *balance)
{
	unsigned char buf[2048];
	struct worker w = { .session = p->session };
	struct fuse_request req;
	struct fuse_entry_out e;
	struct fuse_open_in in = { 0 };
	struct fuse_open_out out;
	struct fuse_lk_in lk = { .lk = { .end = INT64_MAX, .type = 1 } };
	unsigned char plus[160] = { 0 };
	struct fuse_dirent d = { .namelen = 1 };
	struct fuse_read_in rd = { .fh = 9, .size = 160 };
	int err;

	for (uint64_t id = 2; id < 30; id++) {
		e = peer_entry(id, S_IFREG);
		err = send_raw(&w, &req, buf, FUSE_LOOKUP, 1, "n", 2);
		assert_true(!err || err == -ENOMEM);
		if (err)
			continue;
		err = fuse_session_finish(p->session, &req, 0, &e, sizeof(e), true);
		assert_int_equal(err, 0);
		++*balance;
		err = send_raw(&w, &req, buf, FUSE_OPEN, id, &in, sizeof(in));
		assert_true(!err || err == -ENOMEM);
		if (err)
			continue;
		out = (struct fuse_open_out){ .fh = id };
		assert_int_equal(fuse_session_finish(p->session, &req, 0, &out, sizeof(out), true),
				 0);
		lk.fh = id;
		assert_int_equal(send_raw(&w, &req, buf, FUSE_SETLK, id, &lk, sizeof(lk)), 0);
		assert_int_equal(fuse_session_finish(p->session, &req, 0, NULL, 0, true), 0);
	}
	/* READDIRPLUS cannot say beforehand how much it needs: the entry loses its node instead. */
	err = send_raw(&w, &req, buf, FUSE_OPENDIR, 1, &in, sizeof(in));
	if (err)
		return;
	out = (struct fuse_open_out){ .fh = 9 };
	assert_int_equal(fuse_session_finish(p->session, &req, 0, &out, sizeof(out), true), 0);
	assert_int_equal(send_raw(&w, &req, buf, FUSE_READDIRPLUS, 1, &rd, sizeof(rd)), 0);
	e = peer_entry(77, S_IFREG);
	memcpy(plus, &e, sizeof(e));
	memcpy(plus + sizeof(e), &d, sizeof(d));
	plus[sizeof(e) + sizeof(d)] = 'f';
	assert_int_equal(fuse_session_finish(p->session, &req, 0, plus, sizeof(plus), true), 0);
	++*balance;
}

static void test_no_memory(void **state)
{
	(void)state;
	for (unsigned int n = 0;; n++) {
		struct peer *p = peer_new((struct peer_setup){ 0 });
		int64_t balance = 0;

		fault_after = n;
		nr_faults = 0;
		faults_on = true;
		life(p, &balance);
		faults_on = false;
		assert_int_equal(drain(p->session), balance);
		assert_int_equal(ledger_nr_nodes(p->session->ledger), 0);
		peer_free(p);
		if (!nr_faults)
			break;
		assert_true(n < 2000);
	}
}

/* From the n-th allocation on, all fail. */
static void test_no_memory_for_long(void **state)
{
	(void)state;
	faults_go_on = true;
	for (unsigned int n = 0; n < 120; n++) {
		struct peer *p = peer_new((struct peer_setup){ 0 });
		struct fuse_session *session;
		const struct fuse_session_config config = { .use_ledger = true };
		int64_t balance = 0;

		faults_on = true;
		fault_after = 0;
		assert_int_equal(fuse_session_new(&session, &config), -ENOMEM);
		fault_after = n;
		life(p, &balance);
		faults_on = false;
		assert_int_equal(drain(p->session), balance);
		peer_free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_forget_beside_create),
		cmocka_unit_test(test_threads_with_losses),
		cmocka_unit_test(test_late_replies),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_no_memory_for_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
