/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE daemon with code of its own for /dev/fuse, no library, over a file system in memory (memfs.h).
 *
 *	memfuse [OPTION...] MOUNTPOINT
 *
 *	--threads N	serve with so many threads (4)
 *	--clone		each has a clone of the device
 *	--wait HOW	how a thread waits for requests: block (default), or with O_NONBLOCK: poll, ppoll, select, epoll
 *	--receive HOW	read (default), readv, splice
 *	--send HOW	writev (default), write, splice
 *	--stdio		duplicate the descriptor to 0, close the first, and serve there
 *	--background	go to the background after the mount
 *	--children	before each MKDIR, start a child that closes all descriptors, as who starts another program does
 *
 * Which calls a program makes on its descriptor is what differs between FUSE daemons. Serves until it is unmounted, by
 * somebody or on SIGTERM. Exit status: 0 after ENODEV, 3 after an end of file, 1 on errors, 2 for wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memfs.h"

#define THREADS_MAX  64
#define MAX_WRITE    (1u << 20)
#define SMALL_WRITE  (128u << 10)
#define HEADER_BYTES 4096u
#define BUFFER_BYTES (MAX_WRITE + HEADER_BYTES)
/* Pipes of 256 pages need no privilege, and each message begins a page. */
#define PIPE_BYTES  (1u << 20)
#define PIPE_WRITE  (512u << 10)
#define VALID_FOR_S 1
/* More than there are. */
#define CHILD_FDS 256

#ifndef FUSE_COMPAT_SETXATTR_IN_SIZE
#define FUSE_COMPAT_SETXATTR_IN_SIZE 8
#endif

enum wait_how {
	WAIT_BLOCK,
	WAIT_POLL,
	WAIT_PPOLL,
	WAIT_SELECT,
	WAIT_EPOLL,
};

enum receive_how {
	RECEIVE_READ,
	RECEIVE_READV,
	RECEIVE_SPLICE,
};

enum send_how {
	SEND_WRITEV,
	SEND_WRITE,
	SEND_SPLICE,
};

static const char *const wait_names[] = { "block", "poll", "ppoll", "select", "epoll", NULL };
static const char *const receive_names[] = { "read", "readv", "splice", NULL };
static const char *const send_names[] = { "writev", "write", "splice", NULL };

static struct {
	unsigned int threads;
	int clone, stdio, background, children;
	int wait, receive, send;
	const char *mountpoint;
} opts = { .threads = 4 };

/* buf: a request; out: a reply in one piece; in_pipe, out_pipe: of splice, -1 when not used. */
struct server {
	pthread_t thread;
	int fd;
	int epoll;
	int in_pipe[2], out_pipe[2];
	char *buf, *out;
	int status;
};

static void send_pieces(struct server *s, struct iovec *iov, int nr, size_t total)
{
	size_t at = 0;
	ssize_t n;

	if (opts.send == SEND_WRITE) {
		for (int i = 0; i < nr; i++) {
			memcpy(s->out + at, iov[i].iov_base, iov[i].iov_len);
			at += iov[i].iov_len;
		}
		n = write(s->fd, s->out, total);
	} else if (s->out_pipe[1] >= 0) {
		n = vmsplice(s->out_pipe[1], iov, (size_t)nr, 0);
		if (n == (ssize_t)total)
			n = splice(s->out_pipe[0], NULL, s->fd, NULL, total, 0);
	} else {
		n = writev(s->fd, iov, nr);
	}
	/* ENOENT: the request was interrupted and is gone. */
	if (n != (ssize_t)total &&
	    !(n < 0 && (errno == ENOENT || errno == ENODEV || errno == EPIPE)))
		fprintf(stderr, "memfuse: reply of %zu: %s\n", total,
			n < 0 ? strerror(errno) : "cut");
}

static void reply(struct server *s, const struct fuse_in_header *in, ssize_t result,
		  const void *body, size_t len)
{
	struct fuse_out_header out = {
		.unique = in->unique,
		.error = result < 0 ? (int32_t)result : 0,
	};
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };
	int nr = result < 0 || !len ? 1 : 2;

	out.len = (uint32_t)(sizeof(out) + (nr == 2 ? len : 0));
	send_pieces(s, iov, nr, out.len);
}

static void reply_attr(struct server *s, const struct fuse_in_header *in, int err,
		       const struct fuse_attr *attr)
{
	struct fuse_attr_out out = { .attr_valid = VALID_FOR_S };

	if (!err)
		out.attr = *attr;
	reply(s, in, err, &out, sizeof(out));
}

static void do_init(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_init_in *init = args;
	const uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
				FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS |
				FUSE_MAX_PAGES | FUSE_SPLICE_READ | FUSE_SPLICE_WRITE;
	uint32_t most =
		opts.receive == RECEIVE_SPLICE || opts.send == SEND_SPLICE ? PIPE_WRITE : MAX_WRITE;
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_readahead = init->max_readahead,
		.flags = init->flags & wanted,
		.max_write = init->flags & FUSE_MAX_PAGES ? most : SMALL_WRITE,
		.max_pages = (uint16_t)(most / 4096),
		.time_gran = 1,
	};

	reply(s, in, 0, &out, sizeof(out));
}

static void do_setattr(struct server *s, const struct fuse_in_header *in, const void *args)
{
	struct fuse_attr attr;
	int err = memfs_setattr(in->nodeid, args, &attr);

	reply_attr(s, in, err, &attr);
}

static void do_getattr(struct server *s, const struct fuse_in_header *in)
{
	struct fuse_attr attr;
	int err = memfs_getattr(in->nodeid, &attr);

	reply_attr(s, in, err, &attr);
}

static void do_create(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_create_in *create = args;
	const char *name = (const char *)(create + 1);
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	int err = memfs_make(in->nodeid, name, (create->mode & 07777) | S_IFREG, in, NULL,
			     &out.entry);

	if (err == -EEXIST && !(create->flags & O_EXCL))
		err = memfs_lookup(in->nodeid, name, &out.entry);
	if (!err) {
		err = memfs_open(out.entry.nodeid, create->flags);
		if (err)
			memfs_forget(out.entry.nodeid, 1);
	}
	reply(s, in, err, &out, sizeof(out));
}

static void do_open(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_open_in *open_in = args;
	struct fuse_open_out out = { .fh = in->nodeid };

	reply(s, in, memfs_open(in->nodeid, open_in->flags), &out, sizeof(out));
}

static void do_read(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_read_in *r = args;
	const char *data = NULL;
	ssize_t n = memfs_read(in->nodeid, r->offset, r->size, &data);

	reply(s, in, n, data, n > 0 ? (size_t)n : 0);
	if (n >= 0)
		memfs_read_end(in->nodeid);
}

static void do_write(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_write_in *w = args;
	ssize_t n = memfs_write(in->nodeid, w->offset, w + 1, w->size);
	struct fuse_write_out out = { .size = n > 0 ? (uint32_t)n : 0 };

	reply(s, in, n, &out, sizeof(out));
}

static void do_readdir(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_read_in *r = args;
	size_t size = r->size < MAX_WRITE ? r->size : MAX_WRITE;
	char *buf = malloc(size);
	ssize_t n = buf ? memfs_readdir(in->nodeid, r->offset, buf, size,
					in->opcode == FUSE_READDIRPLUS)
			: -ENOMEM;

	reply(s, in, n, buf, n > 0 ? (size_t)n : 0);
	free(buf);
}

static void do_readlink(struct server *s, const struct fuse_in_header *in)
{
	char target[4096];
	ssize_t n = memfs_readlink(in->nodeid, target, sizeof(target));

	reply(s, in, n, target, n > 0 ? (size_t)n : 0);
}

/* Return: 0, or -EIO when the child has not come to its end. */
static int run_child(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(5);
		for (int fd = 3; fd < CHILD_FDS; fd++)
			close(fd);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -EIO;
}

static int do_mkdir(const struct fuse_in_header *in, const void *args, struct fuse_entry_out *out)
{
	const struct fuse_mkdir_in *mkdir_in = args;
	int err = opts.children ? run_child() : 0;

	return err ? err
		   : memfs_make(in->nodeid, (const char *)(mkdir_in + 1),
				(mkdir_in->mode & 07777) | S_IFDIR, in, NULL, out);
}

/* What makes a name: MKNOD, MKDIR, SYMLINK, LINK. */
static void do_make(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_mknod_in *mknod_in = args;
	const struct fuse_link_in *link_in = args;
	const char *name = args;
	struct fuse_entry_out out;
	int err;

	if (in->opcode == FUSE_MKNOD)
		err = memfs_make(in->nodeid, (const char *)(mknod_in + 1), mknod_in->mode, in, NULL,
				 &out);
	else if (in->opcode == FUSE_MKDIR)
		err = do_mkdir(in, args, &out);
	else if (in->opcode == FUSE_SYMLINK)
		err = memfs_make(in->nodeid, name, S_IFLNK | 0777, in, name + strlen(name) + 1,
				 &out);
	else
		err = memfs_link(link_in->oldnodeid, in->nodeid, (const char *)(link_in + 1), &out);
	reply(s, in, err, &out, sizeof(out));
}

static void do_rename(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_rename2_in *r2 = args;
	const struct fuse_rename_in *r1 = args;
	int second = in->opcode == FUSE_RENAME2;
	const char *name = second ? (const char *)(r2 + 1) : (const char *)(r1 + 1);
	int err = memfs_rename(in->nodeid, name, second ? r2->newdir : r1->newdir,
			       name + strlen(name) + 1, second ? r2->flags : 0);

	reply(s, in, err, NULL, 0);
}

static void do_setxattr(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_setxattr_in *x = args;
	const char *name = (const char *)args + FUSE_COMPAT_SETXATTR_IN_SIZE;
	int err = memfs_setxattr(in->nodeid, name, name + strlen(name) + 1, x->size, (int)x->flags);

	reply(s, in, err, NULL, 0);
}

static void do_getxattr(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_getxattr_in *x = args;
	size_t size = x->size < MAX_WRITE ? x->size : MAX_WRITE;
	char *value = malloc(size ? size : 1);
	ssize_t n = -ENOMEM;

	if (value)
		n = memfs_getxattr(in->nodeid,
				   in->opcode == FUSE_GETXATTR ? (const char *)(x + 1) : NULL,
				   value, size);
	if (size || n < 0) {
		reply(s, in, n, value, n > 0 ? (size_t)n : 0);
	} else {
		struct fuse_getxattr_out out = { .size = (uint32_t)n };

		reply(s, in, 0, &out, sizeof(out));
	}
	free(value);
}

static void do_statfs(struct server *s, const struct fuse_in_header *in)
{
	struct fuse_statfs_out out = { 0 };

	memfs_statfs(&out.st);
	reply(s, in, 0, &out, sizeof(out));
}

static void do_lookup(struct server *s, const struct fuse_in_header *in, const void *args)
{
	struct fuse_entry_out out;

	reply(s, in, memfs_lookup(in->nodeid, args, &out), &out, sizeof(out));
}

static void do_forget(const struct fuse_in_header *in, const void *args)
{
	const struct fuse_batch_forget_in *batch = args;
	const struct fuse_forget_one *one = (const void *)(batch + 1);

	if (in->opcode == FUSE_FORGET) {
		memfs_forget(in->nodeid, ((const struct fuse_forget_in *)args)->nlookup);
		return;
	}
	for (uint32_t i = 0; i < batch->count; i++)
		memfs_forget(one[i].nodeid, one[i].nlookup);
}

static void do_fallocate(struct server *s, const struct fuse_in_header *in, const void *args)
{
	const struct fuse_fallocate_in *f = args;

	reply(s, in, memfs_fallocate(in->nodeid, f->offset, f->length, f->mode), NULL, 0);
}

static void answer_name(struct server *s, const struct fuse_in_header *in, const void *args)
{
	switch (in->opcode) {
	case FUSE_LOOKUP:
		do_lookup(s, in, args);
		break;
	case FUSE_CREATE:
		do_create(s, in, args);
		break;
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
		do_make(s, in, args);
		break;
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		reply(s, in, memfs_unlink(in->nodeid, args, in->opcode == FUSE_RMDIR), NULL, 0);
		break;
	case FUSE_RENAME:
	case FUSE_RENAME2:
		do_rename(s, in, args);
		break;
	case FUSE_SETXATTR:
		do_setxattr(s, in, args);
		break;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		do_getxattr(s, in, args);
		break;
	case FUSE_REMOVEXATTR:
		reply(s, in, memfs_removexattr(in->nodeid, args), NULL, 0);
		break;
	default:
		reply(s, in, -ENOSYS, NULL, 0);
	}
}

static void answer(struct server *s, const struct fuse_in_header *in, const void *args)
{
	switch (in->opcode) {
	case FUSE_INIT:
		do_init(s, in, args);
		break;
	case FUSE_GETATTR:
		do_getattr(s, in);
		break;
	case FUSE_SETATTR:
		do_setattr(s, in, args);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		do_open(s, in, args);
		break;
	case FUSE_READ:
		do_read(s, in, args);
		break;
	case FUSE_WRITE:
		do_write(s, in, args);
		break;
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		do_readdir(s, in, args);
		break;
	case FUSE_READLINK:
		do_readlink(s, in);
		break;
	case FUSE_STATFS:
		do_statfs(s, in);
		break;
	case FUSE_FALLOCATE:
		do_fallocate(s, in, args);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		do_forget(in, args);
		break;
	case FUSE_INTERRUPT:
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		memfs_release(in->nodeid);
		reply(s, in, 0, NULL, 0);
		break;
	case FUSE_DESTROY:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		reply(s, in, 0, NULL, 0);
		break;
	default:
		answer_name(s, in, args);
	}
}

static void wait_readable(struct server *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	struct epoll_event event;
	fd_set set;
	int rc = 0;

	switch (opts.wait) {
	case WAIT_BLOCK:
		break;
	case WAIT_POLL:
		rc = poll(&p, 1, -1);
		break;
	case WAIT_PPOLL:
		rc = ppoll(&p, 1, NULL, NULL);
		break;
	case WAIT_SELECT:
		FD_ZERO(&set);
		FD_SET(s->fd, &set);
		rc = select(s->fd + 1, &set, NULL, NULL, NULL);
		break;
	case WAIT_EPOLL:
		rc = epoll_wait(s->epoll, &event, 1, -1);
		break;
	}
	if (rc < 0 && errno != EINTR)
		perror("memfuse: wait");
}

static ssize_t receive(struct server *s)
{
	/* As programs do that want a WRITE's data at an address of their own. */
	struct iovec iov[2] = {
		{ s->buf, sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) },
		{ s->buf + sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
		  BUFFER_BYTES - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in) },
	};
	size_t got = 0;
	ssize_t n;

	if (opts.receive == RECEIVE_READV)
		return readv(s->fd, iov, 2);
	if (s->in_pipe[1] < 0)
		return read(s->fd, s->buf, BUFFER_BYTES);
	n = splice(s->fd, NULL, s->in_pipe[1], NULL, BUFFER_BYTES, 0);
	while (n > 0 && got < (size_t)n) {
		ssize_t piece = read(s->in_pipe[0], s->buf + got, (size_t)n - got);

		if (piece <= 0)
			return -1;
		got += (size_t)piece;
	}
	return n;
}

static void *serve(void *arg)
{
	struct server *s = arg;
	const struct fuse_in_header *in = (const void *)s->buf;

	for (;;) {
		ssize_t n;

		wait_readable(s);
		n = receive(s);
		if (n == 0) {
			s->status = 3;
			return NULL;
		}
		if (n < 0 && errno == ENODEV)
			return NULL;
		/* ENOENT: a request was interrupted before we had it. */
		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (n < (ssize_t)sizeof(*in) || n != (ssize_t)in->len) {
			fprintf(stderr, "memfuse: receive: %s\n",
				n < 0 ? strerror(errno) : "not a request");
			s->status = 1;
			return NULL;
		}
		answer(s, in, in + 1);
	}
}

/* A pipe that holds the largest message; without it, and with a note, we do without splice. */
static void open_pipe(int pipes[2])
{
	if (pipe2(pipes, O_CLOEXEC) == 0 && fcntl(pipes[0], F_SETPIPE_SZ, PIPE_BYTES) >= 0)
		return;
	perror("memfuse: no splice: pipe");
	pipes[0] = pipes[1] = -1;
}

/* vmsplice(2) may be forbidden although pipes are not. */
static void try_vmsplice(struct server *s)
{
	char c = 0;
	struct iovec iov = { &c, 1 };

	if (s->out_pipe[1] >= 0 &&
	    (vmsplice(s->out_pipe[1], &iov, 1, 0) != 1 || read(s->out_pipe[0], &c, 1) != 1)) {
		perror("memfuse: no splice: vmsplice");
		s->out_pipe[0] = s->out_pipe[1] = -1;
	}
}

static int open_clone(int fd)
{
	uint32_t master = (uint32_t)fd;
	int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (clone < 0 || ioctl(clone, FUSE_DEV_IOC_CLONE, &master) < 0) {
		perror("memfuse: clone");
		exit(1);
	}
	return clone;
}

static void open_server(struct server *s, int fd, bool first)
{
	struct epoll_event event = { .events = EPOLLIN };
	void *buf;

	s->fd = opts.clone && !first ? open_clone(fd) : fd;
	s->epoll = s->in_pipe[0] = s->in_pipe[1] = s->out_pipe[0] = s->out_pipe[1] = -1;
	if (opts.receive == RECEIVE_SPLICE)
		open_pipe(s->in_pipe);
	if (opts.send == SEND_SPLICE) {
		open_pipe(s->out_pipe);
		try_vmsplice(s);
	}
	if (posix_memalign(&buf, 4096, 2 * (size_t)BUFFER_BYTES)) {
		perror("memfuse");
		exit(1);
	}
	s->buf = buf;
	s->out = s->buf + BUFFER_BYTES;
	if (opts.wait != WAIT_BLOCK &&
	    fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_NONBLOCK) < 0) {
		perror("memfuse: O_NONBLOCK");
		exit(1);
	}
	if (opts.wait == WAIT_EPOLL) {
		s->epoll = epoll_create1(EPOLL_CLOEXEC);
		if (s->epoll < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->fd, &event) < 0) {
			perror("memfuse: epoll");
			exit(1);
		}
	}
}

static void *unmount_on_signal(void *arg)
{
	const sigset_t *signals = arg;
	int number;

	sigwait(signals, &number);
	if (umount2(opts.mountpoint, MNT_DETACH) < 0)
		perror("memfuse: umount");
	return NULL;
}

static int mount_device(void)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[128];

	if (fd < 0) {
		perror("memfuse: /dev/fuse");
		exit(1);
	}
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions", fd,
		 getuid(), getgid());
	if (mount("memfuse", opts.mountpoint, "fuse.memfuse", MS_NOSUID | MS_NODEV, options) < 0) {
		perror("memfuse: mount");
		exit(1);
	}
	if (opts.stdio) {
		if (dup2(fd, 0) < 0) {
			perror("memfuse: dup2");
			exit(1);
		}
		close(fd);
		fd = 0;
	}
	return fd;
}

static int choose(const char *const *names, const char *name)
{
	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], name) == 0)
			return i;
	}
	fprintf(stderr, "memfuse: %s: not a way\n", name);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "wait", required_argument, NULL, 'w' },
		{ "receive", required_argument, NULL, 'r' },
		{ "send", required_argument, NULL, 's' },
		{ "clone", no_argument, &opts.clone, 1 },
		{ "stdio", no_argument, &opts.stdio, 1 },
		{ "background", no_argument, &opts.background, 1 },
		{ "children", no_argument, &opts.children, 1 },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 't')
			opts.threads = (unsigned int)strtoul(optarg, NULL, 10);
		else if (c == 'w')
			opts.wait = choose(wait_names, optarg);
		else if (c == 'r')
			opts.receive = choose(receive_names, optarg);
		else if (c == 's')
			opts.send = choose(send_names, optarg);
		else if (c)
			exit(2);
	}
	if (optind + 1 != argc || !opts.threads || opts.threads > THREADS_MAX) {
		fprintf(stderr, "usage: memfuse [OPTION...] MOUNTPOINT\n");
		exit(2);
	}
	opts.mountpoint = argv[optind];
}

int main(int argc, char **argv)
{
	static struct server servers[THREADS_MAX];
	static sigset_t signals;
	pthread_t waiter;
	int fd, status = 0;

	parse(argc, argv);
	memfs_init();
	fd = mount_device();
	/* The descriptor is served by a process that did not open it. */
	if (opts.background && daemon(1, 1) < 0) {
		perror("memfuse: daemon");
		return 1;
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	if (pthread_create(&waiter, NULL, unmount_on_signal, &signals))
		return 1;
	for (unsigned int i = 0; i < opts.threads; i++) {
		open_server(&servers[i], fd, i == 0);
		if (pthread_create(&servers[i].thread, NULL, serve, &servers[i]))
			return 1;
	}
	for (unsigned int i = 0; i < opts.threads; i++) {
		pthread_join(servers[i].thread, NULL);
		if (!status)
			status = servers[i].status;
	}
	return status;
}
