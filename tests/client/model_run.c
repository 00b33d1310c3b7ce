/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random operations on a device, each compared with what a model answers:
 *
 *	model_run SOCKET SEED OPERATIONS [packed] [file] [threads=N]
 *
 * Threads, 2 by default, work on a request queue and in a directory of their own each; with "file", on a part each of the file "data",
 * which is all that `fusewire null` has. The first difference is told, and ends the run with status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/fuse_ops.h"
#include "model.h"

#define THREADS_MAX 16
#define LIST_BYTES  32768u
#define TOP_NAME    "model-%u"
#define NR_NAMES    6u
#define DEPTH_MAX   4
#define WRITE_BYTES 8192u

struct run {
	unsigned int index;
	struct fuse_client *client;
	struct fuse_queue *q;
	struct model model;
	uint64_t rng;
	unsigned int nr_ops, op;
	const char *what;
	bool failed;
	bool file_only;
};

static uint32_t below(struct run *r, uint32_t n)
{
	r->rng ^= r->rng << 13;
	r->rng ^= r->rng >> 7;
	r->rng ^= r->rng << 17;
	return (uint32_t)((r->rng * 0x2545f4914f6cdd1dull >> 32) % n);
}

static void __attribute__((format(printf, 2, 3))) differ(struct run *r, const char *fmt, ...)
{
	va_list args;

	if (r->failed)
		return;
	r->failed = true;
	flockfile(stderr);
	fprintf(stderr, "thread %u, operation %u (%s): ", r->index, r->op, r->what);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	funlockfile(stderr);
}

static bool same_error(struct run *r, int got, int wanted)
{
	if (got != wanted)
		differ(r, "%s instead of %s", got ? strerror(-got) : "success",
		       wanted ? strerror(-wanted) : "success");
	return got == wanted && got == 0;
}

static void forget(struct run *r, struct model_entry *e)
{
	if (e->nr_lookups && fuse_client_forget(r->client, e->nodeid, e->nr_lookups) < 0)
		differ(r, "FORGET failed");
	e->nr_lookups = 0;
}

static void know(struct run *r, int entry, uint64_t nodeid)
{
	struct model_entry *e = &r->model.entries[entry];

	if (e->nodeid != nodeid)
		forget(r, e);
	e->nodeid = nodeid;
	e->nr_lookups++;
}

static uint64_t node_of(const struct run *r, int entry)
{
	return r->model.entries[entry].nodeid;
}

static char *put_name(char *at, const char *name)
{
	size_t bytes = strlen(name) + 1;

	memcpy(at, name, bytes);
	return at + bytes;
}

/* A request with a structure and up to two names. Its reply stays readable until the next one. */
static int request(struct run *r, struct fuse_call **ret_call, uint32_t opcode, uint64_t nodeid,
		   const void *args, size_t bytes, const char *one, const char *two,
		   uint32_t reply_bytes)
{
	static const struct fuse_secctx_header no_contexts = { .size = sizeof(no_contexts) };
	struct fuse_call *call = fuse_queue_get(r->q);
	char *at = call->args;
	int err;

	memcpy(at, args, bytes);
	at += bytes;
	if (one)
		at = put_name(at, one);
	if (two)
		at = put_name(at, two);
	if (opcode == FUSE_SYMLINK && fuse_client_flags(r->client) & FUSE_SECURITY_CTX) {
		memcpy(at, &no_contexts, sizeof(no_contexts));
		at += sizeof(no_contexts);
		call->ext_bytes = sizeof(no_contexts);
	}
	call->opcode = opcode;
	call->nodeid = nodeid;
	call->args_bytes = (uint32_t)(at - (char *)call->args);
	if (reply_bytes <= FUSE_CALL_REPLY_MAX)
		call->reply_bytes = reply_bytes;
	else
		call->in_bytes = reply_bytes;
	err = fuse_queue_call(r->q, call);
	fuse_queue_put(r->q, call);
	*ret_call = call;
	return err < 0 ? err : call->error;
}

static int transfer(struct run *r, bool write, uint64_t nodeid, uint64_t fh, uint64_t offset,
		    uint8_t *data, uint32_t bytes, uint32_t *ret_bytes)
{
	struct fuse_call *call = fuse_queue_get(r->q);
	int err;

	if (write) {
		fuse_fill_write(call, nodeid, fh, offset, bytes);
		memcpy(call->data, data, bytes);
	} else {
		fuse_fill_read(call, nodeid, fh, offset, bytes);
	}
	err = fuse_queue_call(r->q, call);
	if (err == 0)
		err = call->error;
	*ret_bytes = write ? call->reply.write.size : call->got_bytes;
	if (err == 0 && !write)
		memcpy(data, call->data, call->got_bytes);
	fuse_queue_put(r->q, call);
	return err;
}

static int pick(struct run *r, enum model_type type)
{
	int at = (int)below(r, MODEL_ENTRIES);

	for (int i = 0; i < MODEL_ENTRIES; i++, at = (at + 1) % MODEL_ENTRIES) {
		if (r->model.entries[at].used && r->model.entries[at].inode->type == type)
			return at;
	}
	return -1;
}

static int depth(const struct run *r, int entry)
{
	int n = 0;

	for (; entry > 0; entry = r->model.entries[entry].dir)
		n++;
	return n;
}

static void pick_name(struct run *r, char *name)
{
	snprintf(name, MODEL_NAME_BYTES, "n%u", below(r, NR_NAMES));
}

static void op_create(struct run *r, int dir, const char *name)
{
	uint64_t nodeid = 0, fh = 0;
	int err = fuse_op_create(r->q, node_of(r, dir), name, 0644, O_RDWR | O_EXCL, &nodeid, &fh);

	if (!same_error(r, err, model_may_make(&r->model, dir, name)))
		return;
	know(r, model_make(&r->model, dir, name, MODEL_FILE), nodeid);
	same_error(r, fuse_op_release(r->q, nodeid, fh, O_RDWR), 0);
}

static void op_mkdir(struct run *r, int dir, const char *name)
{
	uint64_t nodeid = 0;
	int err = fuse_op_mkdir(r->q, node_of(r, dir), name, 0755, &nodeid);

	if (same_error(r, err, model_may_make(&r->model, dir, name)))
		know(r, model_make(&r->model, dir, name, MODEL_DIR), nodeid);
}

static void op_symlink(struct run *r, int dir, const char *name)
{
	char target[32];
	struct fuse_call *call;
	struct model_inode *inode;
	int err, entry;

	snprintf(target, sizeof(target), "to/%u", below(r, 1000000));
	err = request(r, &call, FUSE_SYMLINK, node_of(r, dir), "", 0, name, target,
		      sizeof(struct fuse_entry_out));
	if (!same_error(r, err, model_may_make(&r->model, dir, name)))
		return;
	entry = model_make(&r->model, dir, name, MODEL_SYMLINK);
	know(r, entry, call->reply.entry.nodeid);
	inode = r->model.entries[entry].inode;
	model_write(inode, 0, (const uint8_t *)target, (uint32_t)strlen(target));
}

static void op_link(struct run *r, int dir, const char *name)
{
	int file = pick(r, MODEL_FILE), err;
	struct fuse_link_in in;
	struct fuse_call *call;

	if (file < 0)
		return;
	in.oldnodeid = node_of(r, file);
	err = request(r, &call, FUSE_LINK, node_of(r, dir), &in, sizeof(in), name, NULL,
		      sizeof(struct fuse_entry_out));
	if (same_error(r, err, model_may_make(&r->model, dir, name)))
		know(r, model_link(&r->model, file, dir, name), call->reply.entry.nodeid);
}

static void op_remove(struct run *r, int dir, const char *name, bool rmdir)
{
	int entry = model_find(&r->model, dir, name);
	int wanted = rmdir ? model_may_rmdir(&r->model, entry) : model_may_unlink(&r->model, entry);
	int err = rmdir ? fuse_op_rmdir(r->q, node_of(r, dir), name)
			: fuse_op_unlink(r->q, node_of(r, dir), name);

	if (!same_error(r, err, wanted))
		return;
	forget(r, &r->model.entries[entry]);
	model_remove(&r->model, entry);
}

static void op_rename(struct run *r, int dir, const char *name)
{
	int to_dir = pick(r, MODEL_DIR), from = model_find(&r->model, dir, name), to, err, wanted;
	struct fuse_rename_in in = { .newdir = node_of(r, to_dir) };
	char to_name[MODEL_NAME_BYTES];
	struct fuse_call *call;

	pick_name(r, to_name);
	to = model_find(&r->model, to_dir, to_name);
	/* Two names of one file: rename(2) does nothing, and node ids change places. */
	if (from >= 0 && to >= 0 && r->model.entries[from].inode == r->model.entries[to].inode)
		return;
	/* A kernel finds these out itself; libfuse's path locks would wait for each other for ever. */
	wanted = model_may_rename(&r->model, from, to_dir, to);
	if (wanted == -EINVAL || (to >= 0 && model_is_below(&r->model, dir, to)))
		return;
	/* A tree that gets ever deeper is of no use. */
	if (from >= 0 && depth(r, to_dir) >= DEPTH_MAX &&
	    r->model.entries[from].inode->type == MODEL_DIR)
		return;
	err = request(r, &call, FUSE_RENAME, node_of(r, dir), &in, sizeof(in), name, to_name, 0);
	if (!same_error(r, err, wanted))
		return;
	if (to >= 0) {
		forget(r, &r->model.entries[to]);
		model_remove(&r->model, to);
	}
	model_move(&r->model, from, to_dir, to_name);
}

static void op_lookup(struct run *r, int dir, const char *name)
{
	int entry = model_find(&r->model, dir, name);
	struct fuse_entry_out out;
	int err = fuse_op_lookup(r->q, node_of(r, dir), name, &out);

	if (same_error(r, err, entry < 0 ? -ENOENT : 0))
		know(r, entry, out.nodeid);
}

/* All lookups are given back; then the name is found again. */
static void op_forget(struct run *r, int dir, const char *name)
{
	int entry = model_find(&r->model, dir, name);

	if (entry < 0)
		return;
	forget(r, &r->model.entries[entry]);
	op_lookup(r, dir, name);
}

static void op_getattr(struct run *r)
{
	int entry = pick(r, (enum model_type)below(r, 3));
	const struct model_inode *inode;
	struct fuse_attr attr;

	if (entry < 0 || !same_error(r, fuse_op_getattr(r->q, node_of(r, entry), &attr), 0))
		return;
	inode = r->model.entries[entry].inode;
	if (S_ISDIR(attr.mode) != (inode->type == MODEL_DIR) ||
	    S_ISLNK(attr.mode) != (inode->type == MODEL_SYMLINK))
		differ(r, "mode %o", attr.mode);
	else if (inode->type != MODEL_DIR &&
		 (attr.size != inode->size || attr.nlink != inode->nr_links))
		differ(r, "%llu bytes, %u links instead of %u, %u", (unsigned long long)attr.size,
		       attr.nlink, inode->size, inode->nr_links);
}

static void op_readlink(struct run *r)
{
	int entry = pick(r, MODEL_SYMLINK);
	const struct model_inode *inode;
	struct fuse_call *call;

	if (entry < 0)
		return;
	inode = r->model.entries[entry].inode;
	if (same_error(r,
		       request(r, &call, FUSE_READLINK, node_of(r, entry), "", 0, NULL, NULL, 4096),
		       0) &&
	    (call->got_bytes != inode->size || memcmp(call->data, inode->data, inode->size) != 0))
		differ(r, "another target");
}

static void op_truncate(struct run *r)
{
	struct fuse_setattr_in in = { .valid = FATTR_SIZE };
	int entry = pick(r, MODEL_FILE);
	struct fuse_call *call;

	if (entry < 0)
		return;
	in.size = below(r, MODEL_FILE_BYTES + 1);
	if (same_error(r,
		       request(r, &call, FUSE_SETATTR, node_of(r, entry), &in, sizeof(in), NULL,
			       NULL, sizeof(struct fuse_attr_out)),
		       0))
		model_resize(r->model.entries[entry].inode, (uint32_t)in.size);
}

static void op_write(struct run *r)
{
	int entry = pick(r, MODEL_FILE);
	uint32_t bytes = 1 + below(r, WRITE_BYTES), done = 0;
	uint32_t offset = below(r, MODEL_FILE_BYTES - bytes);
	uint8_t data[WRITE_BYTES];
	uint64_t fh;

	if (entry < 0)
		return;
	for (uint32_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)below(r, 256);
	if (!same_error(r, fuse_op_open(r->q, node_of(r, entry), O_RDWR, &fh), 0))
		return;
	if (same_error(r, transfer(r, true, node_of(r, entry), fh, offset, data, bytes, &done),
		       0) &&
	    done != bytes)
		differ(r, "%u of %u bytes written", done, bytes);
	model_write(r->model.entries[entry].inode, offset, data, bytes);
	same_error(r, fuse_op_release(r->q, node_of(r, entry), fh, O_RDWR), 0);
}

static void op_read(struct run *r)
{
	int entry = pick(r, MODEL_FILE);
	uint32_t offset = below(r, MODEL_FILE_BYTES), bytes = 1 + below(r, MODEL_FILE_BYTES),
		 got = 0;
	static __thread uint8_t data[MODEL_FILE_BYTES];
	const struct model_inode *inode;
	uint32_t wanted;
	uint64_t fh;

	if (entry < 0 || !same_error(r, fuse_op_open(r->q, node_of(r, entry), O_RDONLY, &fh), 0))
		return;
	inode = r->model.entries[entry].inode;
	wanted = offset < inode->size ? min_of(bytes, inode->size - offset) : 0;
	if (same_error(r, transfer(r, false, node_of(r, entry), fh, offset, data, bytes, &got),
		       0)) {
		if (got != wanted)
			differ(r, "%u bytes at %u of %u instead of %u", got, offset, inode->size,
			       wanted);
		else if (memcmp(data, inode->data + offset, got) != 0)
			differ(r, "other bytes in the %u at %u", got, offset);
	}
	same_error(r, fuse_op_release(r->q, node_of(r, entry), fh, O_RDONLY), 0);
}

/* Every name that is listed is in the model. Return: how many are, without the dots. */
static unsigned int compare_list(struct run *r, int dir, const uint8_t *list, uint32_t bytes)
{
	unsigned int nr = 0;

	for (uint32_t at = 0; at + FUSE_NAME_OFFSET <= bytes;) {
		char name[256] = "";
		struct fuse_dirent e;

		memcpy(&e, list + at, FUSE_NAME_OFFSET);
		memcpy(name, list + at + FUSE_NAME_OFFSET, min_of(e.namelen, 255u));
		at += (uint32_t)FUSE_REC_ALIGN(FUSE_NAME_OFFSET + e.namelen);
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		nr++;
		if (model_find(&r->model, dir, name) < 0)
			differ(r, "'%s' is listed", name);
	}
	return nr;
}

static void op_list(struct run *r, int dir)
{
	struct fuse_call *call;
	unsigned int nr, wanted = 0;
	uint64_t fh;

	if (!same_error(r, fuse_op_opendir(r->q, node_of(r, dir), &fh), 0))
		return;
	call = fuse_queue_get(r->q);
	fuse_fill_readdir(call, node_of(r, dir), fh, 0, LIST_BYTES);
	if (same_error(r, fuse_queue_call(r->q, call), 0) && same_error(r, call->error, 0)) {
		nr = compare_list(r, dir, call->data, call->got_bytes);
		for (int i = 0; i < MODEL_ENTRIES; i++)
			wanted += r->model.entries[i].used && r->model.entries[i].dir == dir;
		if (nr != wanted)
			differ(r, "%u names instead of %u", nr, wanted);
	}
	fuse_queue_put(r->q, call);
	same_error(r, fuse_op_releasedir(r->q, node_of(r, dir), fh), 0);
}

static const char *const op_names[] = { "create",   "mkdir",	"symlink", "link",   "unlink",
					"rmdir",    "rename",	"lookup",  "forget", "getattr",
					"readlink", "truncate", "write",   "read",   "list" };

static void one_operation(struct run *r)
{
	unsigned int op = below(r, array_size(op_names));
	int dir = pick(r, MODEL_DIR);
	char name[MODEL_NAME_BYTES];

	pick_name(r, name);
	if (op < 4 && (model_nr_free(&r->model) < 2 || depth(r, dir) > DEPTH_MAX))
		op = 4 + op % 2;
	r->what = op_names[op];
	switch (op) {
	case 0:
		return op_create(r, dir, name);
	case 1:
		return op_mkdir(r, dir, name);
	case 2:
		return op_symlink(r, dir, name);
	case 3:
		return op_link(r, dir, name);
	case 4:
	case 5:
		return op_remove(r, dir, name, op == 5);
	case 6:
		return op_rename(r, dir, name);
	case 7:
		return op_lookup(r, dir, name);
	case 8:
		return op_forget(r, dir, name);
	case 9:
		return op_getattr(r);
	case 10:
		return op_readlink(r);
	case 11:
		return op_truncate(r);
	case 12:
		return op_write(r);
	case 13:
		return op_read(r);
	default:
		return op_list(r, dir);
	}
}

static void remove_all(struct run *r, int dir)
{
	for (int i = 1; i < MODEL_ENTRIES && !r->failed; i++) {
		struct model_entry *e = &r->model.entries[i];
		char name[MODEL_NAME_BYTES];

		if (!e->used || e->dir != dir)
			continue;
		remove_all(r, i);
		memcpy(name, e->name, sizeof(name));
		op_remove(r, dir, name, e->inode->type == MODEL_DIR);
	}
}

static void run_tree(struct run *r)
{
	char top[32];
	uint64_t nodeid = 0;

	snprintf(top, sizeof(top), TOP_NAME, r->index);
	r->what = "begin";
	model_init(&r->model, 0);
	if (same_error(r, fuse_op_mkdir(r->q, FUSE_ROOT_ID, top, 0755, &nodeid), 0))
		know(r, MODEL_TOP, nodeid);
	for (; r->op < r->nr_ops && !r->failed; r->op++)
		one_operation(r);
	r->what = "end";
	if (!r->failed)
		remove_all(r, MODEL_TOP);
	if (!r->failed)
		same_error(r, fuse_op_rmdir(r->q, FUSE_ROOT_ID, top), 0);
	forget(r, &r->model.entries[MODEL_TOP]);
	model_fini(&r->model);
}

/* One file of a size that does not change: each thread has a part of it. */
static void run_file(struct run *r)
{
	static __thread uint8_t model[MODEL_FILE_BYTES], data[MODEL_FILE_BYTES];
	const uint64_t begin = (uint64_t)r->index * MODEL_FILE_BYTES;
	struct fuse_entry_out entry = {};
	uint32_t done = 0;
	uint64_t fh = 0;

	r->what = "open";
	if (!same_error(r, fuse_op_lookup(r->q, FUSE_ROOT_ID, "data", &entry), 0) ||
	    !same_error(r, fuse_op_open(r->q, entry.nodeid, O_RDWR, &fh), 0) ||
	    !same_error(r, transfer(r, true, entry.nodeid, fh, begin, model, sizeof(model), &done),
			0))
		return;
	for (; r->op < r->nr_ops && !r->failed; r->op++) {
		uint32_t bytes = 1 + below(r, MODEL_FILE_BYTES),
			 at = below(r, MODEL_FILE_BYTES - bytes + 1);
		bool write = below(r, 2);

		r->what = write ? "write" : "read";
		for (uint32_t i = 0; i < bytes && write; i++)
			model[at + i] = data[i] = (uint8_t)below(r, 256);
		if (!same_error(
			    r, transfer(r, write, entry.nodeid, fh, begin + at, data, bytes, &done),
			    0))
			continue;
		if (done != bytes || (!write && memcmp(data, model + at, bytes) != 0))
			differ(r, "%u bytes at %u: %u came, or others", bytes, at, done);
	}
	r->what = "release";
	same_error(r, fuse_op_release(r->q, entry.nodeid, fh, O_RDWR), 0);
}

static void *run_thread(void *arg)
{
	struct run *r = arg;

	if (r->file_only)
		run_file(r);
	else
		run_tree(r);
	return NULL;
}

struct options {
	unsigned int nr_threads;
	bool packed, file_only;
};

static bool parse(struct options *o, int argc, char **argv)
{
	for (int i = 4; i < argc; i++) {
		if (strcmp(argv[i], "packed") == 0)
			o->packed = true;
		else if (strcmp(argv[i], "file") == 0)
			o->file_only = true;
		else if (strncmp(argv[i], "threads=", 8) == 0)
			o->nr_threads = (unsigned int)strtoul(argv[i] + 8, NULL, 10);
	}
	return argc >= 4 && o->nr_threads >= 1 && o->nr_threads <= THREADS_MAX;
}

int main(int argc, char **argv)
{
	struct fuse_client_config config = { .queue_size = 64,
					     .nr_calls = 2,
					     .data_bytes = MODEL_FILE_BYTES };
	struct options options = { .nr_threads = 2 };
	struct run runs[THREADS_MAX] = {};
	pthread_t threads[THREADS_MAX];
	struct fuse_client *client;
	const char *why = "";
	bool failed = false;
	int err;

	if (!parse(&options, argc, argv))
		return 2;
	config.path = argv[1];
	config.nr_queues = options.nr_threads;
	if (options.packed)
		config.format = VIRTQ_PACKED;
	signal(SIGPIPE, SIG_IGN);
	err = fuse_client_new(&client, &config, &why);
	if (err < 0) {
		fprintf(stderr, "%s: %s\n", why, strerror(-err));
		return 2;
	}
	for (unsigned int i = 0; i < options.nr_threads; i++) {
		runs[i] = (struct run){ .index = i,
					.client = client,
					.q = fuse_client_queue(client, i),
					.rng = strtoull(argv[2], NULL, 10) * THREADS_MAX + i + 1,
					.nr_ops = (unsigned int)strtoul(argv[3], NULL, 10),
					.what = "",
					.file_only = options.file_only };
		if (pthread_create(&threads[i], NULL, run_thread, &runs[i]) != 0)
			return 2;
	}
	for (unsigned int i = 0; i < options.nr_threads; i++) {
		pthread_join(threads[i], NULL);
		failed = failed || runs[i].failed;
	}
	fuse_client_free(client);
	return failed;
}
