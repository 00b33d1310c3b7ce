/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An external engine for fio: jobs straight at a virtio-fs device, through the FUSE client.
 *
 * Theory of operation: a vhost-user device serves one front-end at a time, so the jobs of a process (thread=1) share one
 * client, made by the first and freed by the last. Each job has a request queue of its own, and is the only one that
 * touches it. fio asks for sizes before the jobs start; that is a short session of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "client/fuse_ops.h"
#include "fio/abi.h"

#define JOB_CALLS  256u
#define QUEUES_MAX 64u

struct fio_job {
	struct fuse_queue *queue;
	unsigned int index;
	unsigned int nr_out; /* with the device */
	unsigned int nr_done, nr_taken; /* complete, in @done; given to fio */
	struct io_u *done[JOB_CALLS];
};

struct node {
	uint64_t nodeid, fh;
	int flags;
};

/* fio fills it; the first field is fio's. */
struct engine_options {
	struct thread_data *td;
	char *socket;
	int queues;
	int poll;
	int packed;
	int read_only;
	struct fio_job *job;
};

/* Of the process. lock covers all. */
static struct {
	pthread_mutex_t lock;
	struct fuse_client *client;
	bool used[QUEUES_MAX];
	unsigned int nr_used;
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct fio_ops ops;

/* Copy through the kernel: what is no memory is an error and no crash. */
static bool peek(const void *at, void **ret_value)
{
	struct iovec to = { ret_value, sizeof(*ret_value) };
	struct iovec from = { (void *)(uintptr_t)at, sizeof(*ret_value) };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == sizeof(*ret_value);
}

static struct engine_options *options_of(struct thread_data *td)
{
	const uint8_t *base = (const uint8_t *)td;
	void *eo;

	memcpy(&eo, base + FIO_EO_OFFSET, sizeof(eo));
	return eo;
}

/* Are the two pointers where they have to be, before and behind most of what a build's options could move? */
static bool layout_is_known(struct thread_data *td)
{
	const uint8_t *base = (const uint8_t *)td;
	void *eo, *back, *engine;

	/* fio clears the way back when it has parsed all options. */
	if (peek(base + FIO_EO_OFFSET, &eo) && peek(eo, &back) && (!back || back == td) &&
	    peek(base + FIO_OPS_OFFSET, &engine) && engine == &ops)
		return true;
	log_error("this build of fio lays its jobs out differently from Debian's %s on x86-64",
		  FIO_VERSION_KNOWN);
	return false;
}

static int connect_device(const struct engine_options *o, unsigned int nr_queues,
			  struct fuse_client **ret_client)
{
	const struct fuse_client_config config = {
		.path = o->socket,
		.nr_queues = nr_queues,
		.queue_size = 1024,
		.format = o->packed ? VIRTQ_PACKED : VIRTQ_SPLIT,
		.nr_calls = JOB_CALLS,
		.data_bytes = FUSE_CLIENT_DATA_MAX,
		.busy_poll = o->poll,
	};
	const char *why;
	int err;

	if (!o->socket) {
		log_error("no --socket: give that of the device");
		return -EINVAL;
	}
	err = fuse_client_new(ret_client, &config, &why);
	if (err < 0)
		log_error("%s: %s: %s", o->socket, why, strerror(-err));
	return err;
}

/* Look a path up. */
static int find(struct fuse_queue *q, const char *path, uint64_t *ret_parent, const char **ret_name,
		struct fuse_entry_out *ret_entry)
{
	int err = fuse_op_walk(q, path, ret_parent, ret_name);

	if (err == 0 && (!**ret_name || strlen(*ret_name) > 255))
		err = **ret_name ? -ENAMETOOLONG : -EISDIR;
	return err < 0 ? err : fuse_op_lookup(q, *ret_parent, *ret_name, ret_entry);
}

static int engine_get_file_size(struct thread_data *td, struct fio_file *f)
{
	struct fuse_entry_out entry = {};
	struct fuse_client *client;
	const char *name = NULL;
	uint64_t parent;
	int err;

	if (!layout_is_known(td))
		return EINVAL;
	err = connect_device(options_of(td), 1, &client);
	if (err < 0)
		return -err;
	err = find(fuse_client_queue(client, 0), f->name, &parent, &name, &entry);
	fuse_client_free(client);
	if (err == 0) {
		f->bytes = entry.attr.size;
		f->flags |= FIO_FILE_SIZE_KNOWN;
	} else if (err != -ENOENT) {
		log_error("cannot find '%s': %s", f->name, strerror(-err));
		return -err;
	}
	return 0;
}

static int take_queue(const struct engine_options *o, struct fio_job *job)
{
	int err = 0;

	pthread_mutex_lock(&shared.lock);
	if (!shared.client)
		err = connect_device(o, (unsigned int)o->queues, &shared.client);
	while (err == 0 && job->index < (unsigned int)o->queues && shared.used[job->index])
		job->index++;
	if (err == 0 && job->index == (unsigned int)o->queues) {
		log_error("more jobs than --queues=%d", o->queues);
		err = -EBUSY;
	}
	if (err == 0) {
		shared.used[job->index] = true;
		shared.nr_used++;
		job->queue = fuse_client_queue(shared.client, job->index);
	}
	pthread_mutex_unlock(&shared.lock);
	return err;
}

static int engine_init(struct thread_data *td)
{
	struct engine_options *o;
	struct fio_job *job;
	int err;

	if (!layout_is_known(td))
		return EINVAL;
	o = options_of(td);
	job = calloc(1, sizeof(*job));
	if (!job)
		return ENOMEM;
	err = take_queue(o, job);
	if (err < 0) {
		free(job);
		return -err;
	}
	o->job = job;
	return 0;
}

static void engine_cleanup(struct thread_data *td)
{
	struct engine_options *o = options_of(td);

	if (!o || !o->job)
		return;
	pthread_mutex_lock(&shared.lock);
	shared.used[o->job->index] = false;
	if (--shared.nr_used == 0) {
		fuse_client_free(shared.client);
		shared.client = NULL;
	}
	pthread_mutex_unlock(&shared.lock);
	free(o->job);
	o->job = NULL;
}

static void fill_sync(struct fuse_call *call, const struct node *node, bool data_only)
{
	const struct fuse_fsync_in in = { .fh = node->fh, .fsync_flags = data_only };

	call->opcode = FUSE_FSYNC;
	call->nodeid = node->nodeid;
	memcpy(call->args, &in, sizeof(in));
	call->args_bytes = sizeof(in);
}

static bool fill_call(const struct fio_job *job, struct fuse_call *call, const struct io_u *u)
{
	const struct fuse_client *client = fuse_queue_client(job->queue);
	const struct node *node = u->file->engine_data;

	switch (u->direction) {
	case FIO_READ:
		fuse_fill_read(call, node->nodeid, node->fh, u->offset,
			       (uint32_t)min_of(u->len, (uint64_t)fuse_client_max_read(client)));
		return true;
	case FIO_WRITE:
		fuse_fill_write(call, node->nodeid, node->fh, u->offset,
				(uint32_t)min_of(u->len, (uint64_t)fuse_client_max_write(client)));
		memcpy(call->data, u->buf, call->out_bytes);
		return true;
	case FIO_SYNC:
	case FIO_DATASYNC:
		fill_sync(call, node, u->direction == FIO_DATASYNC);
		return true;
	default:
		return false;
	}
}

static enum fio_queued engine_queue(struct thread_data *td, struct io_u *u)
{
	struct fio_job *job = options_of(td)->job;
	struct fuse_call *call =
		job->nr_out + job->nr_done < JOB_CALLS ? fuse_queue_get(job->queue) : NULL;
	int err;

	if (!call)
		return FIO_Q_BUSY;
	call->user = u;
	err = fill_call(job, call, u) ? fuse_queue_submit(job->queue, call) : -EOPNOTSUPP;
	if (err == 0) {
		job->nr_out++;
		return FIO_Q_QUEUED;
	}
	fuse_queue_put(job->queue, call);
	if (err == -ENOSPC)
		return FIO_Q_BUSY;
	u->error = (uint32_t)-err;
	return FIO_Q_COMPLETED;
}

static int engine_commit(struct thread_data *td)
{
	fuse_queue_flush(options_of(td)->job->queue);
	return 0;
}

static void end_io(const struct fuse_call *call)
{
	struct io_u *u = call->user;
	uint64_t done = 0;

	u->error = (uint32_t)-call->error;
	u->resid = 0;
	if (call->opcode == FUSE_FSYNC) {
		/* As for the kernel: a device that cannot has nothing to do. */
		if (call->error == -ENOSYS)
			u->error = 0;
		return;
	}
	if (!call->error)
		done = call->opcode == FUSE_WRITE ? min_of(call->reply.write.size, call->out_bytes)
						  : call->got_bytes;
	if (call->opcode == FUSE_READ)
		memcpy(u->buf, call->data, done);
	u->resid = u->len - done;
}

/* Return: 1 when one was taken, 0 when none is there, negative errno. */
static int complete_one(struct fio_job *job)
{
	struct fuse_call *call;
	int n = fuse_queue_complete(job->queue, &call);

	if (n <= 0)
		return n;
	end_io(call);
	job->done[job->nr_done++] = call->user;
	job->nr_out--;
	fuse_queue_put(job->queue, call);
	return 1;
}

/* What fio took with the last call of getevents() makes room. */
static void drop_taken(struct fio_job *job)
{
	job->nr_done -= job->nr_taken;
	memmove(job->done, job->done + job->nr_taken, job->nr_done * sizeof(struct io_u *));
	job->nr_taken = 0;
}

static int wait_for(struct fio_job *job, unsigned int min)
{
	int n;

	fuse_queue_flush(job->queue);
	do {
		while ((n = complete_one(job)) > 0)
			;
		if (n < 0 || job->nr_done >= min || !job->nr_out)
			return n;
		n = fuse_queue_wait(job->queue);
	} while (n == 0);
	return n;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max,
			    const struct timespec *timeout)
{
	struct fio_job *job = options_of(td)->job;
	int err;

	drop_taken(job);
	err = wait_for(job, min);
	if (err < 0) {
		log_error("the device failed: %s", strerror(-err));
		return err;
	}
	job->nr_taken = min_of(job->nr_done, max);
	return (int)job->nr_taken;
}

static struct io_u *engine_event(struct thread_data *td, int index)
{
	return options_of(td)->job->done[index];
}

static int open_node(struct fuse_queue *q, const char *path, struct node *node)
{
	struct fuse_entry_out entry = {};
	const char *name = NULL;
	uint64_t parent;
	int err = find(q, path, &parent, &name, &entry);

	if (err == -ENOENT && name && node->flags == O_RDWR)
		return fuse_op_create(q, parent, name, 0644, O_RDWR, &node->nodeid, &node->fh);
	node->nodeid = entry.nodeid;
	return err < 0 ? err : fuse_op_open(q, node->nodeid, node->flags, &node->fh);
}

static int engine_open_file(struct thread_data *td, struct fio_file *f)
{
	const struct engine_options *o = options_of(td);
	struct node *node = calloc(1, sizeof(*node));
	int err;

	if (!node)
		return ENOMEM;
	node->flags = o->read_only ? O_RDONLY : O_RDWR;
	/* A request that is waited for has the queue to itself. */
	err = wait_for(o->job, JOB_CALLS + 1);
	if (err == 0)
		err = open_node(o->job->queue, f->name, node);
	if (err < 0) {
		log_error("cannot open '%s': %s", f->name, strerror(-err));
		free(node);
		return -err;
	}
	f->engine_data = node;
	return 0;
}

static int engine_close_file(struct thread_data *td, struct fio_file *f)
{
	struct fio_job *job = options_of(td)->job;
	struct node *node = f->engine_data;
	int err;

	f->engine_data = NULL;
	if (!node || !job) {
		free(node);
		return 0;
	}
	err = wait_for(job, JOB_CALLS + 1);
	if (err == 0)
		err = fuse_op_release(job->queue, node->nodeid, node->fh, node->flags);
	if (err == 0)
		err = fuse_client_forget(fuse_queue_client(job->queue), node->nodeid, 1);
	free(node);
	/* The kernel ignores what RELEASE answers; a device without handles says ENOSYS. */
	return err == -EPIPE || err == -ETIMEDOUT || err == -EBADMSG ? -err : 0;
}

static int engine_invalidate(struct thread_data *td, struct fio_file *f)
{
	return 0; /* nothing is cached on this side */
}

static int engine_unlink_file(struct thread_data *td, struct fio_file *f)
{
	return EOPNOTSUPP;
}

#define OPTION(n, t, field, text)                                      \
	.name = (n), .long_name = (text), .help = (text), .type = (t), \
	.offset = offsetof(struct engine_options, field), .category = FIO_CATEGORY_ENGINE

static struct fio_option engine_options[] = {
	{ OPTION("socket", FIO_OPTION_STORE, socket, "vhost-user socket of the device") },
	{ OPTION("queues", FIO_OPTION_INT, queues, "Request queues: one per job"), .def = "1",
	  .min = 1, .max = QUEUES_MAX },
	{ OPTION("poll", FIO_OPTION_SET, poll, "Spin for replies instead of sleeping") },
	{ OPTION("packed", FIO_OPTION_SET, packed, "Packed rings") },
	{ OPTION("open_readonly", FIO_OPTION_SET, read_only, "Open files for reading only") },
	{},
};

static struct fio_ops ops = {
	.name = "fusewire",
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_DISKLESSIO | FIO_NODISKUTIL,
	.init = engine_init,
	.queue = engine_queue,
	.commit = engine_commit,
	.getevents = engine_getevents,
	.event = engine_event,
	.cleanup = engine_cleanup,
	.open_file = engine_open_file,
	.close_file = engine_close_file,
	.invalidate = engine_invalidate,
	.unlink_file = engine_unlink_file,
	.get_file_size = engine_get_file_size,
	.option_struct_size = sizeof(struct engine_options),
	.options = engine_options,
};

void get_ioengine(struct fio_ops **ret_ops);

/* fio calls this, by name, when it has loaded the library. NULL refuses. */
void get_ioengine(struct fio_ops **ret_ops)
{
	const char *version = dlsym(RTLD_DEFAULT, "fio_version_string");

	*ret_ops = NULL;
	if (version && strcmp(version, FIO_VERSION_KNOWN) == 0)
		*ret_ops = &ops;
	else
		log_error("made for %s, whose binary interface it knows; this is %s",
			  FIO_VERSION_KNOWN, version ? version : "another program");
}
