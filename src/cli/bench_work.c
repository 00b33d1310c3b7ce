/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire bench: the load. One thread per queue keeps a fixed number of operations under way.
 *
 * Theory of operation: a phase is the run that is measured, or a pass over the file that fills or compares it. Each
 * thread fills its queue, shows the device all that was added with at most one kick, waits, and takes everything that
 * is complete. The clock is read once per such round: an operation begins and ends at the time of its round.
 *
 * Verifying: before the run the range holds the pattern of one seed, writes of the run carry another, and each thread
 * notes the blocks that it wrote; so a write that went nowhere is found as well as one that went astray.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "client/fuse_ops.h"

#define FORGET_EVERY 1024

bool bench_is_data(enum bench_rw rw)
{
	return rw <= BENCH_RANDRW || rw >= BENCH_LAYOUT;
}

bool bench_writes(enum bench_rw rw)
{
	return rw == BENCH_RANDWRITE || rw == BENCH_WRITE || rw == BENCH_RANDRW ||
	       rw == BENCH_LAYOUT;
}

uint64_t bench_pattern(uint64_t seed, uint64_t offset)
{
	return (offset + seed) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill_pattern(uint8_t *data, uint32_t bytes, uint64_t seed, uint64_t offset)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t v = bench_pattern(seed, offset + i);

		memcpy(data + i, &v, min_of(8u, bytes - i));
	}
}

static uint64_t next_random(struct bench_worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng;
}

static void printf_like(2, 3) worker_fail(struct bench_worker *w, const char *fmt, ...)
{
	va_list args;

	if (!w->error[0]) {
		va_start(args, fmt);
		vsnprintf(w->error, sizeof(w->error), fmt, args);
		va_end(args);
	}
	WRITE_ONCE(w->bench->stop, true);
}

static bool was_written(const struct bench *b, uint64_t block)
{
	for (unsigned int i = 0; i < b->opt.nr_queues; i++) {
		if (b->workers[i].written[block / 64] >> (block % 64) & 1)
			return true;
	}
	return false;
}

/* Reads of the run may meet writes of the run: then either pattern is right. */
static bool data_is_right(const struct bench *b, const struct bench_slot *slot)
{
	bool running = b->phase != BENCH_CHECK;

	for (uint32_t i = 0; i < slot->bytes; i += 8) {
		uint64_t at = slot->offset + i, have;
		bool is_old, is_new;

		memcpy(&have, slot->call->data + i, sizeof(have));
		is_old = have == bench_pattern(b->seed_before, at);
		is_new = have == bench_pattern(b->seed_run, at);
		if (running ? !(is_old || (is_new && bench_writes(b->phase)))
			    : !(was_written(b, at / b->opt.block) ? is_new : is_old))
			return false;
	}
	return true;
}

/* Choose the next piece of the file. False when a pass is done. */
static bool pick_piece(struct bench_worker *w, struct bench_slot *slot)
{
	const struct bench *b = w->bench;
	uint64_t block = b->opt.block, nr = b->range / block;

	slot->bytes = b->opt.block;
	switch (b->phase) {
	case BENCH_READ:
	case BENCH_WRITE:
		if (w->next >= w->end) {
			w->next = nr * w->index / b->opt.nr_queues * block;
			/* More queues than blocks: all use the first. */
			if (w->next >= w->end)
				w->next = 0;
		}
		slot->offset = w->next;
		w->next += block;
		return true;
	case BENCH_LAYOUT:
	case BENCH_CHECK:
		if (w->next >= w->end)
			return false;
		slot->bytes = max_of(block, BENCH_CHUNK / block * block);
		slot->bytes = (uint32_t)min_of((uint64_t)slot->bytes, w->end - w->next);
		slot->offset = w->next;
		w->next += slot->bytes;
		return true;
	default:
		slot->offset = next_random(w) % nr * block;
		return true;
	}
}

static bool fill_data_call(struct bench_worker *w, struct bench_slot *slot)
{
	struct bench *b = w->bench;
	bool write = bench_writes(b->phase);

	if (!pick_piece(w, slot))
		return false;
	if (b->phase == BENCH_RANDRW)
		write = next_random(w) >> 32 & 1;
	if (!write) {
		fuse_fill_read(slot->call, b->nodeid, b->fh, slot->offset, slot->bytes);
		return true;
	}
	if (b->opt.verify || b->phase == BENCH_LAYOUT)
		fill_pattern(slot->call->data, slot->bytes,
			     b->phase == BENCH_LAYOUT ? b->seed_before : b->seed_run, slot->offset);
	fuse_fill_write(slot->call, b->nodeid, b->fh, slot->offset, slot->bytes);
	return true;
}

static void slot_name(const struct bench_worker *w, const struct bench_slot *slot, char name[32])
{
	snprintf(name, 32, "q%u-%u", w->index, slot->number);
}

/* Prepare the next operation of a slot. False when there is none any more. */
static bool begin_op(struct bench_worker *w, struct bench_slot *slot)
{
	struct bench *b = w->bench;
	char name[32];

	switch (b->phase) {
	case BENCH_GETATTR:
		fuse_fill_getattr(slot->call, b->nodeid);
		return true;
	case BENCH_LOOKUP:
		fuse_fill_lookup(slot->call, b->parent, b->name);
		return true;
	case BENCH_CREATE:
		slot_name(w, slot, name);
		fuse_fill_create(w->queue, slot->call, b->nodeid, name, 0644,
				 fuse_open_flags(O_CREAT | O_EXCL | O_WRONLY));
		return true;
	case BENCH_READDIR:
		fuse_fill_readdir(slot->call, b->nodeid, slot->fh, slot->offset, b->opt.block);
		return true;
	default:
		return fill_data_call(w, slot);
	}
}

static int forget(struct bench_worker *w, uint64_t nodeid, uint64_t nlookup)
{
	int err = fuse_client_forget(w->bench->client, nodeid, nlookup);

	if (err < 0)
		worker_fail(w, "FORGET: %s", strerror(-err));
	return err;
}

static int end_lookup(struct bench_worker *w, const struct bench_slot *slot)
{
	uint64_t nodeid = slot->call->reply.entry.nodeid;

	if (nodeid != w->bench->nodeid)
		return nodeid ? forget(w, nodeid, 1) : 0;
	/* The kernel counts lookups of an inode that it has, and gives them back at once. */
	if (++w->lookups < FORGET_EVERY)
		return 0;
	w->lookups = 0;
	return forget(w, nodeid, FORGET_EVERY);
}

/* Where the next READDIR of a slot goes on: the last entry's offset, or the begin again at the end. */
static int end_readdir(struct bench_worker *w, struct bench_slot *slot)
{
	uint32_t left = slot->call->got_bytes;
	const uint8_t *at = slot->call->data;

	if (!left)
		slot->offset = 0;
	while (left >= FUSE_NAME_OFFSET) {
		struct fuse_dirent entry;
		size_t bytes;

		memcpy(&entry, at, FUSE_NAME_OFFSET);
		bytes = FUSE_REC_ALIGN(FUSE_NAME_OFFSET + (size_t)entry.namelen);
		if (bytes > left || !entry.namelen)
			break;
		slot->offset = entry.off;
		at += bytes;
		left -= (uint32_t)bytes;
	}
	if (left) {
		worker_fail(w, "READDIR: entries that are none");
		return -EPROTO;
	}
	return 0;
}

/* CREATE, RELEASE, UNLINK. Return: 1 when the next of them is prepared, 0 at the end of the last. */
static int next_of_create(struct bench_worker *w, struct bench_slot *slot)
{
	char name[32];

	switch (slot->call->opcode) {
	case FUSE_CREATE:
		slot->nodeid = slot->call->reply.create.entry.nodeid;
		slot->fh = slot->call->reply.create.open.fh;
		fuse_fill_release(slot->call, slot->nodeid, slot->fh, fuse_open_flags(O_WRONLY));
		return 1;
	case FUSE_RELEASE:
		slot_name(w, slot, name);
		fuse_fill_unlink(slot->call, w->bench->nodeid, name);
		return 1;
	default:
		return forget(w, slot->nodeid, 1);
	}
}

static int end_data(struct bench_worker *w, struct bench_slot *slot)
{
	const struct bench *b = w->bench;
	const struct fuse_call *call = slot->call;
	bool write = call->opcode == FUSE_WRITE;
	uint32_t done = write ? call->reply.write.size : call->got_bytes;

	if (done != slot->bytes) {
		worker_fail(w, "%s of %u bytes at %llu: only %u", write ? "WRITE" : "READ",
			    slot->bytes, (unsigned long long)slot->offset, done);
		return -EIO;
	}
	if (!write && b->opt.verify && !data_is_right(b, slot)) {
		worker_fail(w, "verify: wrong data in the %u bytes at %llu", slot->bytes,
			    (unsigned long long)slot->offset);
		return -EIO;
	}
	if (write && w->written && b->phase != BENCH_LAYOUT)
		w->written[slot->offset / b->opt.block / 64] |=
			UINT64_C(1) << (slot->offset / b->opt.block % 64);
	WRITE_ONCE(w->nr_bytes, w->nr_bytes + done);
	return 0;
}

/* A request of @slot is complete. Return: 1 when the operation goes on, 0 when it is done, negative after worker_fail(). */
static int end_request(struct bench_worker *w, struct bench_slot *slot)
{
	const struct fuse_call *call = slot->call;

	if (call->error) {
		worker_fail(w, "request with opcode %u failed: %s", call->opcode,
			    strerror(-call->error));
		return call->error;
	}
	switch (w->bench->phase) {
	case BENCH_GETATTR:
		return 0;
	case BENCH_LOOKUP:
		return end_lookup(w, slot);
	case BENCH_CREATE:
		return next_of_create(w, slot);
	case BENCH_READDIR:
		return end_readdir(w, slot);
	default:
		return end_data(w, slot);
	}
}

static int submit_slot(struct bench_worker *w, struct bench_slot *slot)
{
	int err = fuse_queue_submit(w->queue, slot->call);

	if (err < 0 && err != -ENOSPC)
		worker_fail(w, "cannot queue a request: %s", strerror(-err));
	return err;
}

/* Keep the queue full. What does not fit into the ring now waits, prepared, in @waiting: it goes first. */
static void begin_ops(struct bench_worker *w, uint64_t now)
{
	for (;;) {
		if (!w->waiting) {
			if (!w->free_slots || !begin_op(w, w->free_slots))
				return;
			w->waiting = w->free_slots;
			w->free_slots = w->waiting->next_free;
		}
		w->waiting->begin_ns = now;
		if (submit_slot(w, w->waiting) < 0)
			return;
		w->waiting = NULL;
		w->nr_out++;
	}
}

static void end_op(struct bench_worker *w, struct bench_slot *slot, uint64_t now)
{
	w->nr_out--;
	slot->next_free = w->free_slots;
	w->free_slots = slot;
	histogram_add(&w->latency, now - slot->begin_ns);
	WRITE_ONCE(w->nr_ops, w->nr_ops + 1);
}

/*
 * Take all that is complete; after a failed request no more are begun. False when the queue is broken: what is under
 * way is then left to the end of the connection.
 */
static bool take_completions(struct bench_worker *w, uint64_t now)
{
	struct fuse_call *call;
	int n;

	while ((n = fuse_queue_complete(w->queue, &call)) > 0) {
		struct bench_slot *slot = call->user;

		WRITE_ONCE(w->nr_requests, w->nr_requests + 1);
		n = end_request(w, slot);
		if (n == 0)
			end_op(w, slot, now);
		/* The request before had at least as many segments and has left its place. */
		else if (n < 0 || submit_slot(w, slot) < 0)
			w->nr_out--;
	}
	if (n < 0)
		worker_fail(w, "the device %s: %s",
			    n == -EBADMSG ? "broke the ring" : "answered nonsense", strerror(-n));
	return n == 0;
}

static void worker_loop(struct bench_worker *w)
{
	const struct bench *b = w->bench;
	uint64_t now = clock_now_ns();

	for (;;) {
		int err;

		if (!READ_ONCE(b->stop) && (!b->end_ns || now < b->end_ns))
			begin_ops(w, now);
		if (!w->nr_out)
			break;
		fuse_queue_flush(w->queue);
		err = fuse_queue_wait(w->queue);
		if (err < 0) {
			worker_fail(w, "%s",
				    err == -EPIPE	? "the device closed the connection"
				    : err == -ETIMEDOUT ? "the device does not answer"
							: strerror(-err));
			break;
		}
		now = clock_now_ns();
		if (!take_completions(w, now))
			break;
	}
	if (w->lookups)
		forget(w, b->nodeid, w->lookups);
	w->lookups = 0;
}

static void *worker_main(void *arg)
{
	struct bench_worker *w = arg;
	const struct bench_options *opt = &w->bench->opt;

	if (opt->nr_cpus) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((unsigned int)opt->cpus[w->index % opt->nr_cpus], &set);
		if (sched_setaffinity(0, sizeof(set), &set) < 0) {
			worker_fail(w, "--cpu: cannot use CPU %d: %m",
				    opt->cpus[w->index % opt->nr_cpus]);
			return NULL;
		}
	}
	worker_loop(w);
	return NULL;
}

static void reset_worker(struct bench_worker *w)
{
	const struct bench *b = w->bench;
	uint64_t nr = b->range / b->opt.block, n = b->opt.nr_queues;

	w->next = nr * w->index / n * b->opt.block;
	w->end = nr * (w->index + 1) / n * b->opt.block;
	/* The second pass of readers on more queues than blocks. */
	if (w->next == w->end && (b->phase == BENCH_READ || b->phase == BENCH_WRITE))
		w->end = b->opt.block;
	w->nr_ops = w->nr_requests = w->nr_bytes = w->nr_out = 0;
	memset(&w->latency, 0, sizeof(w->latency));
	w->free_slots = w->waiting = NULL;
	for (unsigned int i = b->opt.depth; i-- > 0;) {
		struct bench_slot *slot = &w->slots[i];

		slot->offset = 0;
		slot->next_free = w->free_slots;
		w->free_slots = slot;
	}
}

/* Wait for a thread, with a progress line meanwhile. */
static void join_worker(struct bench *b, struct bench_worker *w, uint64_t begin_ns)
{
	struct timespec until;

	do {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 500 * (long)NSEC_PER_MSEC;
		until.tv_sec += until.tv_nsec / (long)NSEC_PER_SEC;
		until.tv_nsec %= (long)NSEC_PER_SEC;
		bench_progress(b, begin_ns);
	} while (pthread_timedjoin_np(w->thread, NULL, &until) == ETIMEDOUT);
}

int bench_run_phase(struct bench *b, enum bench_rw phase, uint64_t runtime_ns)
{
	unsigned int nr_started = 0;
	uint64_t begin;
	int err = 0;

	b->phase = phase;
	for (unsigned int i = 0; i < b->opt.nr_queues; i++)
		reset_worker(&b->workers[i]);
	begin = clock_now_ns();
	b->end_ns = runtime_ns ? begin + runtime_ns : 0;
	for (; nr_started < b->opt.nr_queues && err == 0; nr_started += err == 0)
		err = pthread_create(&b->workers[nr_started].thread, NULL, worker_main,
				     &b->workers[nr_started]);
	if (err)
		WRITE_ONCE(b->stop, true);
	for (unsigned int i = 0; i < nr_started; i++)
		join_worker(b, &b->workers[i], begin);
	b->elapsed_ns = clock_now_ns() - begin;
	if (err) {
		cli_error("cannot start a thread: %s", strerror(err));
		return -1;
	}
	for (unsigned int i = 0; i < nr_started; i++) {
		if (b->workers[i].error[0]) {
			cli_error("%s", b->workers[i].error);
			return -1;
		}
	}
	return 0;
}
