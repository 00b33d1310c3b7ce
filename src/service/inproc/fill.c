/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * READ data that are in place before the reply is: from the daemon's file to the driver's memory, with no copy in between.
 *
 * The reply is borrowed meanwhile: nobody else can end the request. The driver's memory is ours for as long as a copy takes, no
 * longer: a file that would have to be waited for, on a disk or a server, is not read this way.
 */
#include <errno.h>
#include <sys/uio.h>

#include "base/iov.h"
#include "base/thread.h"
#include "service/inproc/private.h"

/* Segments of a reply of 1 MiB in pages, and some. */
#define FILL_SEGMENTS 272u

/* What is done with the segments. Return: bytes or negative errno. */
typedef ssize_t (*fill_fn)(const struct iovec *iov, unsigned int nr, void *arg);

static ssize_t fill_segments(struct inproc *ip, uint64_t unique, size_t len, fill_fn fn, void *arg)
{
	/* Who is cancelled would keep the request. */
	autocancel int cancel_state = thread_cancel_off();
	struct iovec iov[FILL_SEGMENTS];
	struct request *req;
	ssize_t ret = -ENOENT;
	int nr;

	/* As for a reply. */
	inproc_busy(ip);
	req = __atomic_load_n(&ip->gone, __ATOMIC_SEQ_CST) ? NULL : request_find(ip->dev, unique);
	if (req && reply_borrow(req, unique)) {
		const struct inproc_slot *slot = request_service_data(req);

		nr = slot->split ? -EMSGSIZE : request_fill_begin(req, len, iov, FILL_SEGMENTS);
		ret = nr;
		if (nr > 0) {
			ret = fn(iov, (unsigned int)nr, arg);
			request_let_go(req);
		}
		reply_return(req, unique);
	}
	inproc_not_busy(ip);
	return ret;
}

struct fill_file {
	int fd;
	off_t off;
};

static ssize_t fill_from_file(const struct iovec *iov, unsigned int nr, void *arg)
{
	const struct fill_file *file = arg;
	ssize_t n = preadv2(file->fd, iov, (int)nr, file->off, RWF_NOWAIT);

	return n < 0 ? -errno : n;
}

ssize_t inproc_fill(struct service *svc, uint64_t unique, int fd, off_t off, size_t len)
{
	struct fill_file file = { .fd = fd, .off = off };

	return off < 0 ? -EINVAL
		       : fill_segments(inproc_of(svc), unique, len, fill_from_file, &file);
}

static ssize_t fill_to_memory(const struct iovec *iov, unsigned int nr, void *arg)
{
	return (ssize_t)iov_copy_out(arg, iov, nr, 0, iov_bytes(iov, nr));
}

ssize_t inproc_fill_read(struct service *svc, uint64_t unique, void *buf, size_t len)
{
	return fill_segments(inproc_of(svc), unique, len, fill_to_memory, buf) == (ssize_t)len
		       ? (ssize_t)len
		       : -EIO;
}
