/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data of a WRITE on loan: they stay in driver memory until the daemon says where it wants them.
 *
 * Theory of operation
 * -------------------
 * A request's payload is valid until the request ends. It ends by a reply, which any thread of the daemon may give, or because the
 * service does. Whoever takes the reply settles the loan before anything else: what the daemon has not had yet is copied.
 *
 * The slot points to the loan, the loan to the request, and the loan's lock covers both ways. Who settles reads the pointer in
 * the slot without it: by the time that the lock is there the loan may be another request's, or nobody's, which `req` shows. So
 * a loan is never freed, only used again.
 *
 * A driver that was reset has its memory back, and what it puts there is not what was to be written: then the data are lost, as the
 * request is. A file that keeps its writer waiting for longer than a queue that stops waits (device_config.drain_ns) may still get some of it:
 * to hold the memory so long would hold up the driver.
 *
 * The lock is held while a file is written, which may take long. Others that want it are a reply to the very request whose data
 * are being written, and the end of the service, which waits for handlers anyway. A queue that stops does not wait: an
 * abandoned request keeps its memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/iov.h"
#include "service/inproc/private.h"

void loan_give(struct inproc_loan *loan, struct request *req)
{
	struct inproc_slot *slot = request_service_data(req);
	const struct iovec *payload;
	unsigned int nr;

	payload = request_payload(req, &nr);
	pthread_mutex_lock(&loan->lock);
	assert(!loan->req && !loan->bytes);
	loan->req = req;
	loan->bytes = iov_bytes(payload, nr);
	loan->done = 0;
	__atomic_store_n(&slot->loan, loan, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&loan->lock);
}

void loan_settle(struct request *req)
{
	struct inproc_slot *slot = request_service_data(req);
	struct inproc_loan *loan = __atomic_load_n(&slot->loan, __ATOMIC_ACQUIRE);
	const struct iovec *payload;
	unsigned int nr;

	if (likely(!loan))
		return;
	pthread_mutex_lock(&loan->lock);
	if (loan->req == req) {
		payload = request_payload(req, &nr);
		loan->saved = malloc(loan->bytes);
		if (loan->saved && request_hold(req)) {
			iov_copy_out(loan->saved, payload, nr, 0, loan->bytes);
			request_let_go(req);
		} else {
			free(loan->saved);
			loan->saved = NULL;
		}
		loan->req = NULL;
	}
	pthread_mutex_unlock(&loan->lock);
}

/* The lock's holder: @iov gets the next @len bytes. Return: segments; 0: they are lost. */
static unsigned int loan_segments(const struct inproc_loan *loan, struct iovec *iov, size_t len)
{
	const struct iovec *payload;
	size_t skip = loan->done;
	unsigned int nr, n = 0;

	if (!loan->req) {
		iov[0] = (struct iovec){ loan->saved ? loan->saved + skip : NULL, len };
		return loan->saved ? 1 : 0;
	}
	payload = request_payload(loan->req, &nr);
	for (unsigned int i = 0; i < nr && len; i++) {
		size_t bytes = payload[i].iov_len;

		if (skip >= bytes) {
			skip -= bytes;
			continue;
		}
		bytes = min_of(bytes - skip, len);
		iov[n++] = (struct iovec){ (char *)payload[i].iov_base + skip, bytes };
		len -= bytes;
		skip = 0;
	}
	return n;
}

/* The lock's holder: the request owes nothing any more. */
static void loan_clear(struct inproc_loan *loan)
{
	struct inproc_slot *slot;

	if (loan->req) {
		slot = request_service_data(loan->req);
		__atomic_store_n(&slot->loan, NULL, __ATOMIC_RELEASE);
		loan->req = NULL;
	}
	free(loan->saved);
	loan->saved = NULL;
	loan->bytes = 0;
	loan->done = 0;
}

static void loan_advance(struct inproc_loan *loan, size_t len)
{
	loan->done += len;
	if (loan->done == loan->bytes)
		loan_clear(loan);
}

/* The lock's holder: are the data still what they were? Until loan_let_go() they are. */
static bool loan_hold(struct inproc_loan *loan)
{
	return !loan->req || request_hold(loan->req);
}

static void loan_let_go(struct inproc_loan *loan)
{
	if (loan->req)
		request_let_go(loan->req);
}

/* The lock's holder. */
static ssize_t loan_write(struct inproc_loan *loan, int fd, off_t off, size_t len)
{
	struct iovec iov[LOAN_SEGMENTS_MAX];
	unsigned int nr = loan_segments(loan, iov, min_of(len, loan->bytes - loan->done));
	ssize_t n;

	if (!nr || !loan_hold(loan))
		return -EIO;
	/* A file may keep us waiting. */
	loan_let_go(loan);
	if (off < 0)
		n = writev(fd, iov, (int)nr);
	else
		n = pwritev(fd, iov, (int)nr, off);
	if (n > 0)
		loan_advance(loan, (size_t)n);
	return n < 0 ? -errno : n;
}

static void loan_unlock(void *arg)
{
	struct inproc_loan *loan = arg;

	pthread_mutex_unlock(&loan->lock);
}

ssize_t inproc_loan_write(struct inproc_loan *loan, int fd, off_t off, size_t len)
{
	ssize_t n;

	pthread_mutex_lock(&loan->lock);
	/* The daemon may cancel a thread whose file keeps it waiting. */
	pthread_cleanup_push(loan_unlock, loan);
	n = loan_write(loan, fd, off, len);
	pthread_cleanup_pop(1);
	return n;
}

ssize_t inproc_loan_read(struct inproc_loan *loan, void *buf, size_t len)
{
	struct iovec iov[LOAN_SEGMENTS_MAX];
	unsigned int nr;
	ssize_t n = -EIO;

	pthread_mutex_lock(&loan->lock);
	len = min_of(len, loan->bytes - loan->done);
	nr = loan_segments(loan, iov, len);
	if (nr && loan_hold(loan)) {
		iov_copy_out(buf, iov, nr, 0, len);
		loan_let_go(loan);
		loan_advance(loan, len);
		n = (ssize_t)len;
	}
	pthread_mutex_unlock(&loan->lock);
	return n;
}

void inproc_loan_end(struct inproc_loan *loan)
{
	pthread_mutex_lock(&loan->lock);
	loan_clear(loan);
	pthread_mutex_unlock(&loan->lock);
}
