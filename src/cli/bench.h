/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private to `fusewire bench`: what its parts share.
 */
#ifndef FUSEWIRE_CLI_BENCH_H
#define FUSEWIRE_CLI_BENCH_H

#include <pthread.h>
#include <sched.h>
#include <sys/types.h>

#include "base/histogram.h"
#include "client/fuse_client.h"

#define BENCH_QUEUES_MAX  64
#define BENCH_POLL_US_MAX 1000000
#define BENCH_DEPTH_MAX	  FUSE_CLIENT_CALLS_MAX
#define BENCH_PIDS_MAX	  16
#define BENCH_CHUNK	  (128u << 10)

enum bench_rw {
	BENCH_RANDREAD,
	BENCH_RANDWRITE,
	BENCH_READ,
	BENCH_WRITE,
	BENCH_RANDRW,
	BENCH_GETATTR,
	BENCH_LOOKUP,
	BENCH_CREATE,
	BENCH_READDIR,
	/* Not for users: fill the range once, compare it once. */
	BENCH_LAYOUT,
	BENCH_CHECK,
};

struct bench_options {
	const char *socket;
	const char *file; /* NULL: not given */
	enum bench_rw rw;
	const char *rw_name;
	uint32_t block;
	unsigned int depth;
	unsigned int nr_queues;
	uint32_t queue_size;
	uint64_t size; /* 0: not given */
	uint64_t runtime_ns;
	bool verify;
	bool end_fsync;
	bool direct;
	bool busy_poll;
	uint64_t poll_us; /* without busy_poll */
	bool packed;
	bool json;
	pid_t pids[BENCH_PIDS_MAX];
	unsigned int nr_pids;
	int cpus[CPU_SETSIZE];
	unsigned int nr_cpus;
};

/* What one thread has under way: an operation of one or, for create, several requests. */
struct bench_slot {
	struct fuse_call *call;
	struct bench_slot *next_free;
	uint64_t begin_ns;
	uint64_t offset; /* of data, or of the next directory entry */
	uint64_t nodeid, fh; /* create, readdir */
	uint32_t bytes;
	uint32_t number;
};

struct bench;

struct bench_worker {
	struct bench *bench;
	struct fuse_queue *queue;
	unsigned int index;
	pthread_t thread;
	struct bench_slot *slots;
	struct bench_slot *free_slots;
	struct bench_slot *waiting; /* prepared; the ring had no room */
	unsigned int nr_out;
	uint64_t rng;
	uint64_t next, end; /* sequential: this worker's range of the file */
	uint64_t lookups;
	uint64_t *written; /* verify: a bit per block that this worker wrote in the run */
	char error[256]; /* "" is none */
	struct histogram latency;
	/* Read by the main thread while it runs. */
	cache_aligned uint64_t nr_ops;
	uint64_t nr_requests;
	uint64_t nr_bytes;
};

struct bench {
	struct bench_options opt;
	struct fuse_client *client;
	struct bench_worker *workers;
	uint64_t parent; /* directory of the file, or for create and readdir the directory itself */
	const char *name;
	uint64_t nodeid, fh;
	uint64_t file_bytes; /* as found */
	uint64_t range; /* bytes of the file that are used: whole blocks */
	bool created;
	bool opened;
	char dir_name[64]; /* create: a directory of our own */
	uint64_t seed_before, seed_run;
	enum bench_rw phase;
	uint64_t end_ns; /* of the phase; 0: until the range is done */
	bool stop;
	bool interrupted;
	/* Results of the run. */
	uint64_t elapsed_ns;
	double own_cpu_s, device_cpu_s;
	uint64_t nr_ops, nr_requests, nr_bytes;
	struct histogram latency;
};

/* Does a mode read or write file data? */
bool bench_is_data(enum bench_rw rw);
bool bench_writes(enum bench_rw rw);

/* bench_work.c: run one phase on all queues. Return: 0, or -1 after an error message. */
int must_check bench_run_phase(struct bench *b, enum bench_rw phase, uint64_t runtime_ns);
/* The first value of the pattern at an offset, a multiple of 8. */
uint64_t bench_pattern(uint64_t seed, uint64_t offset);

/* bench_file.c: find or make what the mode needs, write it back, and take it away. Return: 0, or -1 after an error message. */
int must_check bench_open(struct bench *b);
int must_check bench_fsync(struct bench *b);
int must_check bench_close(struct bench *b);

/* bench_report.c */
void bench_progress(const struct bench *b, uint64_t begin_ns);
void bench_report(const struct bench *b);

#endif
