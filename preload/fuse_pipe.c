/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pipes through which libfuse splices messages: see fuse_pipe.h.
 */
#include "fuse_pipe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/log.h"
#include "fuse_dev.h"
#include "marks.h"
#include "real.h"
#include "service/inproc/inproc.h"

/* A pipe of this size, or a smaller one, is left to the kernel: nobody needs to ask for it. */
#define PIPE_NEW_BYTES (16u * 4096)
/* More than any message is long; a power of two, as a pipe's size is. */
#define PIPE_MAX_BYTES (4u << 20)
#define PAGE	       4096u
/* Where a message begins, so that what follows a reply's header begins at a page, as O_DIRECT wants it. */
#define HEAD (PAGE - sizeof(struct fuse_out_header))
/* Segments of one vmsplice(2): libfuse has one or two. */
#define REFS_MAX 4u

/* Where what comes behind `buf` is. */
enum tail {
	TAIL_NONE,
	TAIL_FILL, /* the driver's memory, by inproc_fill() */
	TAIL_LOAN, /* the driver's memory, by inproc_read_loan() */
};

/*
 * @idle, @nr_fds and @next are under pipes_lock; all else is of who has @busy. Objects are used again, and never freed: who looked up a
 * descriptor that is closed at this moment finds an object, if not his own.
 */
struct fuse_pipe {
	bool busy; /* atomic */
	bool idle; /* in the list */
	unsigned int nr_fds; /* atomic */
	struct fuse_pipe *next; /* of those that nobody has */
	size_t size; /* what libfuse was told; 0: it is a real pipe as yet. Atomic: others look at it first */
	char *buf; /* HEAD and size, with room for a page in front */
	size_t start, end; /* of what is in buf */
	bool asked_again; /* libfuse has made up its mind to splice with INIT answered */
	enum tail tail;
	uint64_t fill_unique;
	size_t fill_bytes;
	struct inproc_loan loan;
	/* The first bytes from start on are also these, and may change there. */
	struct iovec refs[REFS_MAX];
	unsigned int nr_refs;
};

static pthread_mutex_t pipes_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fuse_pipe *pipes[MARKS_MAX];
static struct fuse_pipe *idle_pipes;

static bool enter(struct fuse_pipe *p)
{
	return p && !__atomic_exchange_n(&p->busy, true, __ATOMIC_ACQUIRE);
}

static void forget(struct fuse_pipe *p)
{
	if (p->tail == TAIL_LOAN)
		inproc_loan_end(&p->loan);
	p->tail = TAIL_NONE;
	p->start = p->end = HEAD;
	p->nr_refs = 0;
}

/* Without a descriptor, and with nobody inside. Under pipes_lock. */
static void retire(struct fuse_pipe *p)
{
	forget(p);
	free(p->buf);
	p->buf = NULL;
	WRITE_ONCE(p->size, 0);
	p->asked_again = false;
	p->idle = true;
	p->next = idle_pipes;
	idle_pipes = p;
}

static void leave(struct fuse_pipe *p)
{
	__atomic_store_n(&p->busy, false, __ATOMIC_SEQ_CST);
	if (likely(__atomic_load_n(&p->nr_fds, __ATOMIC_SEQ_CST)))
		return;
	/* The last descriptor was closed meanwhile; or the object is retired, or another's, already. */
	pthread_mutex_lock(&pipes_lock);
	if (!p->nr_fds && !p->idle && enter(p)) {
		retire(p);
		__atomic_store_n(&p->busy, false, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&pipes_lock);
}

/* For a thread that is cancelled inside. */
static void leave_arg(void *arg)
{
	leave(arg);
}

void fuse_pipe_closed(int fd)
{
	struct fuse_pipe *p;

	pthread_mutex_lock(&pipes_lock);
	p = pipes[fd];
	pipes[fd] = NULL;
	if (p && __atomic_sub_fetch(&p->nr_fds, 1, __ATOMIC_SEQ_CST) == 0 && enter(p)) {
		retire(p);
		__atomic_store_n(&p->busy, false, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&pipes_lock);
}

static struct fuse_pipe *take_idle(void)
{
	struct fuse_pipe *p = idle_pipes;

	if (p) {
		idle_pipes = p->next;
		p->idle = false;
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (p && pthread_mutex_init(&p->loan.lock, NULL)) {
		free(p);
		p = NULL;
	}
	return p;
}

/* In a child, whose parent may have a thread inside: it is not here, and neither is the request that it lends from. */
static void abandon(struct fuse_pipe *p)
{
	p->loan = (struct inproc_loan){ .lock = PTHREAD_MUTEX_INITIALIZER };
	p->tail = TAIL_NONE;
	retire(p);
	__atomic_store_n(&p->busy, false, __ATOMIC_SEQ_CST);
}

/* The lock is the forking thread's. */
static void in_child(void)
{
	for (int fd = 0; fd < MARKS_MAX; fd++) {
		struct fuse_pipe *p = pipes[fd];

		if (!(marks[fd] & MARK_PIPE))
			continue;
		marks[fd] = 0;
		pipes[fd] = NULL;
		if (p && __atomic_sub_fetch(&p->nr_fds, 1, __ATOMIC_SEQ_CST) == 0)
			abandon(p);
	}
	pthread_mutex_unlock(&pipes_lock);
}

static void before_fork(void)
{
	pthread_mutex_lock(&pipes_lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&pipes_lock);
}

static void mind_forks(void)
{
	(void)!pthread_atfork(before_fork, in_parent, in_child);
}

static bool is_libfuse(const void *address)
{
	const char *name;
	Dl_info info;

	if (!dladdr(address, &info) || !info.dli_fname)
		return false;
	name = strrchr(info.dli_fname, '/');
	return strncmp(name ? name + 1 : info.dli_fname, "libfuse", 7) == 0;
}

void fuse_pipe_made(const int fds[2], const void *caller)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct fuse_pipe *p;

	if ((unsigned int)fds[0] >= MARKS_MAX || (unsigned int)fds[1] >= MARKS_MAX ||
	    !is_libfuse(caller))
		return;
	pthread_once(&once, mind_forks);
	pthread_mutex_lock(&pipes_lock);
	p = take_idle();
	if (p) {
		__atomic_store_n(&p->nr_fds, 2, __ATOMIC_SEQ_CST);
		pipes[fds[0]] = p;
		pipes[fds[1]] = p;
		__atomic_store_n(&marks[fds[0]], MARK_PIPE, __ATOMIC_RELEASE);
		__atomic_store_n(&marks[fds[1]], MARK_PIPE | MARK_PIPE_END, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&pipes_lock);
}

void fuse_pipe_dup(int from, int to)
{
	struct fuse_pipe *p;

	if ((unsigned int)to >= MARKS_MAX)
		return;
	pthread_mutex_lock(&pipes_lock);
	p = pipes[from];
	pipes[to] = p;
	if (p) {
		__atomic_add_fetch(&p->nr_fds, 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&marks[to], marks[from], __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&pipes_lock);
}

/* Return: the pipe, of which the caller is inside; NULL and why not: -EAGAIN, -EBADF, -ENOTSUP. */
static struct fuse_pipe *enter_fd(int fd, uint8_t end, int *ret_err)
{
	struct fuse_pipe *p = pipes[fd];

	/* Both ends of a real pipe are used at the same time, and nobody needs to be kept out. */
	*ret_err = -ENOTSUP;
	if (!p || unlikely(!READ_ONCE(p->size)))
		return NULL;
	*ret_err = -EAGAIN;
	if (!enter(p))
		return NULL;
	if (likely(p->size) && likely((marks[fd] & MARK_PIPE_END) == end))
		return p;
	*ret_err = p->size ? -EBADF : -ENOTSUP;
	leave(p);
	return NULL;
}

static size_t tail_bytes(const struct fuse_pipe *p)
{
	if (p->tail == TAIL_FILL)
		return p->fill_bytes;
	return p->tail == TAIL_LOAN ? p->loan.bytes - p->loan.done : 0;
}

static size_t pipe_bytes(const struct fuse_pipe *p)
{
	return p->end - p->start + tail_bytes(p);
}

/* The bytes of vmsplice(2) are what its caller's memory holds now. */
static void refresh(struct fuse_pipe *p)
{
	size_t at = p->start;

	for (unsigned int i = 0; i < p->nr_refs; i++) {
		memcpy(p->buf + at, p->refs[i].iov_base, p->refs[i].iov_len);
		at += p->refs[i].iov_len;
	}
}

/* @len bytes of buf are gone. */
static void consume(struct fuse_pipe *p, size_t len)
{
	p->nr_refs = 0;
	p->start += len;
	if (p->start == p->end)
		p->start = p->end = HEAD;
}

/* Make room for up to @len more bytes behind what is in buf. Return: bytes. */
static size_t make_room(struct fuse_pipe *p, size_t len)
{
	const size_t bytes = p->end - p->start;

	if (bytes + tail_bytes(p) >= p->size)
		return 0;
	len = min_of(len, p->size - bytes - tail_bytes(p));
	if (HEAD + p->size - p->end < len) {
		memmove(p->buf + HEAD, p->buf + p->start, bytes);
		p->start = HEAD;
		p->end = HEAD + bytes;
	}
	return len;
}

/* Get what is behind buf into it. Return: 0; -EIO: it is lost, and the pipe empty. */
static int gather(struct fuse_pipe *p)
{
	const enum tail tail = p->tail;
	size_t len = tail_bytes(p);
	struct service *svc;
	ssize_t n = -EIO;

	if (tail == TAIL_NONE)
		return 0;
	/* Room for the tail itself; both together are no more than the size. */
	p->tail = TAIL_NONE;
	if (make_room(p, len) < len)
		n = -EIO;
	else if (tail == TAIL_LOAN)
		n = inproc_loan_read(&p->loan, p->buf + p->end, len);
	else if ((svc = fuse_dev_service()))
		n = inproc_fill_read(svc, p->fill_unique, p->buf + p->end, len);
	if (n == (ssize_t)len) {
		p->end += len;
		return 0;
	}
	if (tail == TAIL_LOAN)
		inproc_loan_end(&p->loan);
	forget(p);
	return -EIO;
}

int fuse_pipe_resize(int fd, size_t bytes)
{
	struct fuse_pipe *p;
	int held = 0, ret;
	size_t size = PAGE;

	if ((unsigned int)fd >= MARKS_MAX || !(p = pipes[fd]))
		return -ENOTSUP;
	if (!enter(p))
		return -EBUSY;
	while (size < bytes && size < PIPE_MAX_BYTES)
		size *= 2;
	if (!p->size && (bytes <= PIPE_NEW_BYTES || bytes > PIPE_MAX_BYTES ||
			 REAL(ioctl)(fd, FIONREAD, &held) < 0 || held)) {
		ret = -ENOTSUP;
	} else if (bytes > PIPE_MAX_BYTES) {
		ret = -EPERM;
	} else if (p->size && size <= p->size) {
		/* It does not shrink. */
		ret = (int)p->size;
	} else {
		char *buf = aligned_alloc(PAGE, PAGE + size);

		ret = -ENOMEM;
		if (buf && p->size)
			memcpy(buf + p->start, p->buf + p->start, p->end - p->start);
		if (buf) {
			free(p->buf);
			p->buf = buf;
			if (!p->size)
				forget(p);
			WRITE_ONCE(p->size, size);
			ret = (int)size;
		}
	}
	leave(p);
	return ret;
}

/* What a call on a pipe is about. */
struct transfer {
	const struct iovec *iov;
	unsigned int nr;
	int fd; /* the other side of a splice(2) */
	off64_t *off; /* in fd, or NULL */
	size_t len;
};

/* The daemon may cancel a thread that waits inside. */
static ssize_t inside(int fd, uint8_t end,
		      ssize_t (*fn)(struct fuse_pipe *p, const struct transfer *t),
		      const struct transfer *t)
{
	struct fuse_pipe *p;
	ssize_t ret;
	int err;

	p = enter_fd(fd, end, &err);
	if (!p)
		return err;
	pthread_cleanup_push(leave_arg, p);
	ret = fn(p, t);
	pthread_cleanup_pop(1);
	return ret;
}

static ssize_t size_of(struct fuse_pipe *p, const struct transfer *t)
{
	return (ssize_t)p->size;
}

static ssize_t bytes_of(struct fuse_pipe *p, const struct transfer *t)
{
	return (ssize_t)pipe_bytes(p);
}

int fuse_pipe_size(int fd)
{
	return (int)inside(fd, marks[fd] & MARK_PIPE_END, size_of, NULL);
}

int fuse_pipe_bytes(int fd)
{
	return (int)inside(fd, marks[fd] & MARK_PIPE_END, bytes_of, NULL);
}

/* Inside: up to @len bytes at @dst. */
static ssize_t take(struct fuse_pipe *p, char *dst, size_t len)
{
	size_t n = min_of(p->end - p->start, len);
	ssize_t more = 0;

	if (n) {
		refresh(p);
		memcpy(dst, p->buf + p->start, n);
		consume(p, n);
	}
	if (n == len || p->tail == TAIL_NONE)
		return (ssize_t)n;
	if (p->tail == TAIL_FILL) {
		int err = gather(p);

		return err && !n ? err : (ssize_t)n + (err ? 0 : take(p, dst + n, len - n));
	}
	more = inproc_loan_read(&p->loan, dst + n, len - n);
	if (more < 0)
		inproc_loan_end(&p->loan);
	if (!tail_bytes(p))
		p->tail = TAIL_NONE;
	return more < 0 && !n ? more : (ssize_t)n + (more < 0 ? 0 : more);
}

static ssize_t read_inside(struct fuse_pipe *p, const struct transfer *t)
{
	ssize_t done = 0;

	if (!pipe_bytes(p) && iov_bytes(t->iov, t->nr))
		return -EAGAIN;
	for (unsigned int i = 0; i < t->nr && pipe_bytes(p); i++) {
		ssize_t n = take(p, t->iov[i].iov_base, t->iov[i].iov_len);

		if (n < 0)
			return done ? done : n;
		done += n;
	}
	return done;
}

ssize_t fuse_pipe_read(int fd, const struct iovec *iov, unsigned int nr)
{
	static struct log_ratelimit log_lost;
	ssize_t n = inside(fd, 0, read_inside, &(struct transfer){ .iov = iov, .nr = nr });

	/* libfuse reads what it has put there, and drops a request that it cannot read. */
	if (n == -EAGAIN)
		log_warn_ratelimited(&log_lost, "libfuse reads from its pipe %d, which %s", fd,
				     fuse_pipe_bytes(fd) < 0 ? "another call is busy with"
							     : "is empty");
	return n;
}

/* Inside, for what is to come behind everything: up to @len bytes of room. Return: bytes; negative errno. */
static ssize_t begin_append(struct fuse_pipe *p, size_t len)
{
	int err = gather(p);
	size_t room;

	if (err)
		return err;
	room = make_room(p, len);
	return room || !len ? (ssize_t)room : -EAGAIN;
}

static ssize_t write_inside(struct fuse_pipe *p, const struct transfer *t)
{
	ssize_t room = begin_append(p, iov_bytes(t->iov, t->nr));

	if (room > 0)
		p->end += iov_copy_out(p->buf + p->end, t->iov, t->nr, 0, (size_t)room);
	return room;
}

ssize_t fuse_pipe_write(int fd, const struct iovec *iov, unsigned int nr)
{
	return inside(fd, MARK_PIPE_END, write_inside, &(struct transfer){ .iov = iov, .nr = nr });
}

static ssize_t vmsplice_inside(struct fuse_pipe *p, const struct transfer *t)
{
	const size_t len = iov_bytes(t->iov, t->nr);
	ssize_t room;

	/* What changes behind other bytes, or in many places, nobody has: it is refused. */
	if (pipe_bytes(p) || t->nr > REFS_MAX)
		return -EAGAIN;
	room = begin_append(p, len);
	if (room <= 0)
		return room;
	if ((size_t)room < len)
		return -EAGAIN;
	memcpy(p->refs, t->iov, t->nr * sizeof(*t->iov));
	p->nr_refs = t->nr;
	p->end += len;
	refresh(p);
	return room;
}

ssize_t fuse_pipe_vmsplice(int fd, const struct iovec *iov, unsigned int nr)
{
	return inside(fd, MARK_PIPE_END, vmsplice_inside,
		      &(struct transfer){ .iov = iov, .nr = nr });
}

static ssize_t receive_inside(struct fuse_pipe *p, const struct transfer *t)
{
	struct service *svc = fuse_dev_service();
	struct iovec iov;
	ssize_t n;

	if (unlikely(!p->asked_again)) {
		if (!svc)
			fuse_dev_wait_init(t->fd);
		p->asked_again = true;
		return -EINTR;
	}
	n = begin_append(p, t->len);
	if (n <= 0)
		return n;
	iov = (struct iovec){ p->buf + p->end, (size_t)n };
	n = svc ? fuse_dev_read_loan(svc, t->fd, &iov, &p->loan) : fuse_dev_read(t->fd, &iov, 1);
	if (n > 0) {
		p->end += (size_t)n - p->loan.bytes;
		p->tail = p->loan.bytes ? TAIL_LOAN : TAIL_NONE;
	}
	return n;
}

ssize_t fuse_pipe_receive(int fd, int fuse_fd, size_t len)
{
	return inside(fd, MARK_PIPE_END, receive_inside,
		      &(struct transfer){ .fd = fuse_fd, .len = len });
}

/* Inside: all that is there is a reply whose data are in place. Return: as writev(2). */
static ssize_t reply_filled(struct fuse_pipe *p, size_t len)
{
	struct service *svc = fuse_dev_service();
	struct fuse_out_header hdr;

	memcpy(&hdr, p->buf + p->start, sizeof(hdr));
	if (!svc || p->end - p->start != sizeof(hdr) || hdr.len != len || len != pipe_bytes(p) ||
	    hdr.error || hdr.unique != p->fill_unique)
		return -ENOTSUP;
	return inproc_write_filled(svc, &hdr);
}

static ssize_t reply_inside(struct fuse_pipe *p, const struct transfer *t)
{
	struct iovec iov;
	ssize_t n = -ENOTSUP;

	if (t->len > pipe_bytes(p))
		return -EINVAL;
	refresh(p);
	if (p->tail == TAIL_FILL)
		n = reply_filled(p, t->len);
	if (n != -ENOTSUP) {
		forget(p);
	} else if ((n = gather(p)) == 0) {
		iov = (struct iovec){ p->buf + p->start, t->len };
		n = fuse_dev_write(t->fd, &iov, 1);
		/* As the kernel has it, what was no good is gone, too. */
		consume(p, t->len);
	}
	return n;
}

ssize_t fuse_pipe_reply(int fd, int fuse_fd, size_t len)
{
	return inside(fd, 0, reply_inside, &(struct transfer){ .fd = fuse_fd, .len = len });
}

/* Inside, behind a reply's header: READ data straight to the driver. Return: bytes, 0: nothing more is there; negative errno. */
static ssize_t fill(struct fuse_pipe *p, int file, off64_t off, size_t len)
{
	struct service *svc = fuse_dev_service();
	struct fuse_out_header hdr;
	ssize_t n, more;

	if (!svc || p->tail != TAIL_NONE || p->end - p->start != sizeof(hdr))
		return -ENOTSUP;
	refresh(p);
	memcpy(&hdr, p->buf + p->start, sizeof(hdr));
	if (hdr.error || hdr.len != sizeof(hdr) + len)
		return -ENOTSUP;
	n = inproc_fill(svc, hdr.unique, file, off, len);
	if (n <= 0)
		return -ENOTSUP;
	/* The end of the file, or of what needs no waiting? */
	if ((size_t)n < len) {
		more = REAL(pread64)(file, p->buf + p->end + n, len - (size_t)n, off + n);
		if (more > 0)
			return -ENOTSUP;
	}
	p->fill_unique = hdr.unique;
	p->fill_bytes = (size_t)n;
	p->tail = TAIL_FILL;
	return n;
}

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

static ssize_t from_file(struct fuse_pipe *p, const struct transfer *t)
{
	ssize_t room = mark_of(t->fd) & MARK_PIPE ? -EINVAL : begin_append(p, t->len);
	ssize_t n = room;

	if (room > 0 && t->off) {
		n = fill(p, t->fd, *t->off, (size_t)room);
		if (n == -ENOTSUP) {
			n = REAL(pread64)(t->fd, p->buf + p->end, (size_t)room, *t->off);
			p->end += n > 0 ? (size_t)n : 0;
			n = n < 0 ? -errno : n;
		}
		*t->off += n > 0 ? n : 0;
	} else if (room > 0) {
		/* What may wait, a pipe or a socket, is not for here. */
		n = is_file(t->fd) ? REAL(read)(t->fd, p->buf + p->end, (size_t)room) : -EINVAL;
		p->end += n > 0 ? (size_t)n : 0;
		n = n == -1 ? -errno : n;
	}
	return n;
}

ssize_t fuse_pipe_from_file(int fd, int file, off64_t *off, size_t len)
{
	return inside(fd, MARK_PIPE_END, from_file,
		      &(struct transfer){ .fd = file, .off = off, .len = len });
}

static ssize_t to_file(struct fuse_pipe *p, const struct transfer *t)
{
	const size_t len = min_of(t->len, pipe_bytes(p));
	const off64_t at = t->off ? *t->off : -1;
	ssize_t n;

	if (mark_of(t->fd) & MARK_PIPE || at < -1 || (t->off && at < 0)) {
		n = -EINVAL;
	} else if (!len) {
		n = -EAGAIN;
	} else if (p->tail == TAIL_LOAN && p->start == p->end) {
		n = inproc_loan_write(&p->loan, t->fd, at, len);
		p->tail = tail_bytes(p) ? TAIL_LOAN : TAIL_NONE;
	} else if ((n = gather(p)) == 0) {
		refresh(p);
		n = t->off ? REAL(pwrite64)(t->fd, p->buf + p->start, len, at)
			   : REAL(write)(t->fd, p->buf + p->start, len);
		if (n > 0)
			consume(p, (size_t)n);
		n = n < 0 ? -errno : n;
	}
	if (t->off && n > 0)
		*t->off += n;
	return n;
}

ssize_t fuse_pipe_to_file(int fd, int file, off64_t *off, size_t len)
{
	return inside(fd, 0, to_file, &(struct transfer){ .fd = file, .off = off, .len = len });
}
