/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replies of the daemon: from the buffers, or the pipe, of its write(2) to the driver.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/thread.h"
#include "service/inproc/private.h"
#include "service/rules/rules.h"

/* Replies other than READ data that need no allocation. */
#define REPLY_SMALL 512u
/* Segments of one reply. libfuse takes two or three; its iovec interface allows more. */
#define REPLY_SEGMENTS_MAX 1024u
/* Segments that one readv(2) of a pipe fills: all of 1 MiB in pages. */
#define PIPE_SEGMENTS 272u

/*
 * Where a reply's body comes from: segments of the daemon's memory, of which the header's 16 bytes are skipped, or a pipe.
 * @pipe_fd: -1 for segments
 * @filled: or it is there already
 */
struct reply_source {
	const struct iovec *iov;
	unsigned int nr;
	int pipe_fd;
	bool filled;
};

bool reply_take(struct request *req)
{
	struct inproc_slot *slot = request_service_data(req);
	uint64_t unique = __atomic_load_n(&slot->owed, __ATOMIC_ACQUIRE);

	return unique && __atomic_compare_exchange_n(&slot->owed, &unique, 0, false,
						     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

bool reply_borrow(struct request *req, uint64_t unique)
{
	struct inproc_slot *slot = request_service_data(req);

	return __atomic_compare_exchange_n(&slot->owed, &unique, 0, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

void reply_return(struct request *req, uint64_t unique)
{
	struct inproc_slot *slot = request_service_data(req);

	__atomic_store_n(&slot->owed, unique, __ATOMIC_SEQ_CST);
}

/* Fill a list, of @len bytes in all, from a pipe. */
static bool pipe_read_all(int fd, const struct iovec *iov, unsigned int nr, size_t len)
{
	struct iovec rest[PIPE_SEGMENTS];
	unsigned int i = 0;
	size_t skip = 0;

	while (len) {
		size_t want = 0;
		unsigned int n = 0;
		ssize_t got;

		for (; n < PIPE_SEGMENTS && i + n < nr && want < len; n++) {
			rest[n].iov_base = (char *)iov[i + n].iov_base + (n ? 0 : skip);
			rest[n].iov_len = min_of(iov[i + n].iov_len - (n ? 0 : skip), len - want);
			want += rest[n].iov_len;
		}
		got = want ? readv(fd, rest, (int)n) : 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		len -= (size_t)got;
		skip += (size_t)got;
		while (i < nr && skip >= iov[i].iov_len)
			skip -= iov[i++].iov_len;
	}
	return true;
}

/* Put bytes [@off, @off + @len) of the body at @dst. Of a pipe all is taken, in order. Return: it was all there. */
static bool source_copy(const struct reply_source *src, size_t off, const struct iovec *dst,
			unsigned int nr_dst, size_t len)
{
	size_t skip = sizeof(struct fuse_out_header) + off, to = 0;

	if (src->pipe_fd >= 0)
		return pipe_read_all(src->pipe_fd, dst, nr_dst, len);
	for (unsigned int i = 0; i < src->nr && to < len; i++) {
		size_t n = src->iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = min_of(n - skip, len - to);
		iov_copy_in(dst, nr_dst, to, (const char *)src->iov[i].iov_base + skip, n);
		to += n;
		skip = 0;
	}
	return to == len;
}

/* READ data: straight into the driver's memory. Return: false when the driver does not take it that way. */
static bool reply_direct(struct request *req, const struct reply_source *src, size_t len)
{
	const struct iovec *dst;
	unsigned int nr;

	if (!len || !request_is_direct(req) || request_direct_begin(req, len, &dst, &nr) < 0)
		return false;
	request_direct_end(req, src->filled || source_copy(src, 0, dst, nr, len) ? 0 : -EIO);
	return true;
}

static void reply_copied(struct request *req, const struct reply_source *src, size_t len)
{
	char small[REPLY_SMALL] __attribute__((aligned(8)));
	struct iovec body = { .iov_base = small, .iov_len = len };
	char *heap = NULL;

	if (len > sizeof(small)) {
		heap = len <= INPROC_READ_MAX ? malloc(len) : NULL;
		body.iov_base = heap;
	}
	if (!body.iov_base || !source_copy(src, 0, &body, 1, len))
		request_reply(req, -EIO, NULL, 0);
	else
		request_reply(req, 0, &body, 1);
	free(heap);
}

/* A part of a READ came: ask for the next, or answer the whole. */
static void reply_part(struct inproc *ip, struct request *req, int error,
		       const struct reply_source *src, size_t len)
{
	struct inproc_slot *slot = request_service_data(req);
	struct inproc_split *split = slot->split;
	struct iovec to = { .iov_base = split->data + split->got, .iov_len = len };

	if (!error && (len > split->asked || !source_copy(src, 0, &to, 1, len)))
		error = -EIO;
	if (!error)
		split->got += (uint32_t)len;
	if (!error && len == split->asked && split->got < split->total) {
		lead_add_request(ip, req, true);
		return;
	}
	if (split->got && rules_short_read(req))
		error = 0;
	slot->split = NULL;
	to = (struct iovec){ .iov_base = split->data, .iov_len = split->got };
	request_reply(req, error, &to, 1);
	free(split);
}

static void reply_body(struct inproc *ip, struct request *req, const struct fuse_out_header *hdr,
		       const struct reply_source *src)
{
	const struct inproc_slot *slot = request_service_data(req);
	const size_t len = hdr->len - sizeof(*hdr);

	if (slot->split)
		reply_part(ip, req, hdr->error, src, len);
	else if (hdr->error)
		request_reply(req, hdr->error, NULL, 0);
	else if (!reply_direct(req, src, len))
		reply_copied(req, src, len);
}

static ssize_t reply_malformed(struct inproc *ip, const char *what)
{
	log_warn_ratelimited(&ip->log_reply, "the daemon wrote a malformed reply (%s)", what);
	return -EINVAL;
}

/* Take out of a pipe what nobody wants, so that it can be used again. */
static void pipe_discard(int fd, size_t len)
{
	char sink[4096];

	while (len) {
		ssize_t n = read(fd, sink, min_of(len, sizeof(sink)));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		len -= (size_t)n;
	}
}

/*
 * Where no driver takes notifications the daemon hears what a kernel says that has cached nothing of what it names; but
 * success, since its author may never have seen another answer.
 */
static ssize_t reply_notification(struct inproc *ip, const struct fuse_out_header *hdr,
				  const struct reply_source *src)
{
	const size_t len = hdr->len - sizeof(*hdr);
	char *body = len <= INPROC_NOTIFY_MAX ? malloc(len + 1) : NULL;
	struct iovec to = { .iov_base = body, .iov_len = len };
	struct fuse_notify_retrieve_out what;
	int err = -EINVAL;

	__atomic_add_fetch(&ip->nr_notifications, 1, __ATOMIC_RELAXED);
	if (!body && src->pipe_fd >= 0)
		pipe_discard(src->pipe_fd, len);
	if (body && source_copy(src, 0, &to, 1, len)) {
		/* Busy first, as for replies. */
		inproc_busy(ip);
		err = -EOPNOTSUPP;
		if (!__atomic_load_n(&ip->gone, __ATOMIC_SEQ_CST))
			err = device_notify(ip->dev, hdr->error, body, len);
		inproc_not_busy(ip);
	}
	if (err < 0 && err != -EINVAL && hdr->error == FUSE_NOTIFY_RETRIEVE &&
	    len == sizeof(what)) {
		memcpy(&what, body, sizeof(what));
		inproc_retrieve_none(&ip->svc, &what);
		err = 0;
	}
	free(body);
	return err == -EINVAL || err == -ENAMETOOLONG || err == -ENOENT ? err : (ssize_t)hdr->len;
}

/* EAGAIN to an INTERRUPT: the daemon has not met the request yet. As a kernel does, we say it again while that is under way. */
static ssize_t reply_interrupt(struct inproc *ip, const struct fuse_out_header *hdr)
{
	const uint64_t unique = hdr->unique & ~INPROC_UNIQUE_INTERRUPT;
	bool found;

	inproc_busy(ip);
	found = !__atomic_load_n(&ip->gone, __ATOMIC_SEQ_CST) && request_find(ip->dev, unique);
	if (found && hdr->error == -EAGAIN)
		inproc_interrupt(&ip->svc, unique);
	inproc_not_busy(ip);
	return found ? (ssize_t)hdr->len : -ENOENT;
}

static ssize_t reply_handle(struct inproc *ip, const struct fuse_out_header *hdr,
			    const struct reply_source *src)
{
	struct request *req;
	ssize_t ret = -ENOENT;

	if (hdr->unique == 0)
		return reply_notification(ip, hdr, src);
	if (hdr->error > 0 || hdr->error < -1000 || (hdr->error && hdr->len != sizeof(*hdr)))
		return reply_malformed(ip, "its error");
	if (hdr->unique == INPROC_UNIQUE_DESTROY) {
		if (ip->config.destroyed)
			ip->config.destroyed(ip->config.ctx);
		return (ssize_t)hdr->len;
	}
	if (hdr->unique & INPROC_UNIQUE_INTERRUPT)
		return reply_interrupt(ip, hdr);
	/* Busy first: who ends the service says so and then waits. */
	inproc_busy(ip);
	req = __atomic_load_n(&ip->gone, __ATOMIC_SEQ_CST) ? NULL
							   : request_find(ip->dev, hdr->unique);
	if (req && reply_borrow(req, hdr->unique)) {
		loan_settle(req);
		reply_body(ip, req, hdr, src);
		ret = (ssize_t)hdr->len;
	}
	inproc_not_busy(ip);
	return ret;
}

static ssize_t write_segments(struct inproc *ip, const struct iovec *iov, unsigned int nr)
{
	struct reply_source src = { .iov = iov, .nr = nr, .pipe_fd = -1 };
	struct fuse_out_header hdr;

	if (nr > REPLY_SEGMENTS_MAX)
		return -EINVAL;
	if (iov_copy_out(&hdr, iov, nr, 0, sizeof(hdr)) < sizeof(hdr))
		return reply_malformed(ip, "shorter than its header");
	if (hdr.len != iov_bytes(iov, nr))
		return reply_malformed(ip, "its length");
	return reply_handle(ip, &hdr, &src);
}

/* A thread that were cancelled with a reply half given would leave the request, or a lock, to nobody. */
ssize_t inproc_write(struct service *svc, const struct iovec *iov, unsigned int nr)
{
	autocancel int cancel_state = thread_cancel_off();

	return write_segments(inproc_of(svc), iov, nr);
}

ssize_t inproc_write_filled(struct service *svc, const struct fuse_out_header *hdr)
{
	/* The segments are for who is not answered directly any more: the driver's memory is gone then, and so is who waits. */
	struct reply_source src = { .pipe_fd = -1, .filled = true };
	autocancel int cancel_state = thread_cancel_off();

	return reply_handle(inproc_of(svc), hdr, &src);
}

static ssize_t write_from_pipe(struct inproc *ip, int pipe_fd, size_t len)
{
	struct reply_source src = { .pipe_fd = pipe_fd };
	struct fuse_out_header hdr;
	struct iovec to = { .iov_base = &hdr, .iov_len = sizeof(hdr) };
	ssize_t ret;

	if (len < sizeof(hdr) || !pipe_read_all(pipe_fd, &to, 1, sizeof(hdr)))
		return reply_malformed(ip, "shorter than its header");
	if (hdr.len != len)
		ret = reply_malformed(ip, "its length");
	else
		ret = reply_handle(ip, &hdr, &src);
	/* Of a notification nothing is left. */
	if (ret < 0 && (hdr.unique || hdr.len != len))
		pipe_discard(pipe_fd, len - sizeof(hdr));
	return ret;
}

ssize_t inproc_write_pipe(struct service *svc, int pipe_fd, size_t len)
{
	autocancel int cancel_state = thread_cancel_off();

	return write_from_pipe(inproc_of(svc), pipe_fd, len);
}
