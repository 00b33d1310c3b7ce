/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service whose requests a daemon's own threads take: its life, read(2), and the device's wishes.
 */
#include "service/inproc/inproc.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/iov.h"
#include "base/thread.h"
#include "service/inproc/private.h"

/* One handler in so many is timed: looking at the clock costs as much as a short one. */
#define HANDLERS_PER_SAMPLE 8u

/* When this thread left inproc_read() with a request; 0 when it did not, or is not timed. */
static __thread uint64_t left_ns;
static __thread unsigned int nr_handled;

/* One share in 8 of the mean is the last handler's. */
static void note_handler_time(struct inproc *ip)
{
	uint64_t mean = READ_ONCE(ip->handler_ns), ns;

	if (!left_ns)
		return;
	ns = min_of(clock_now_ns() - left_ns, (uint64_t)INPROC_HANDLER_MAX_NS);
	WRITE_ONCE(ip->handler_ns, mean - mean / 8 + ns / 8);
	left_ns = 0;
}

static ssize_t read_note(struct inproc_note *note, const struct iovec *iov, unsigned int nr)
{
	ssize_t len = (ssize_t)iov_copy_in(iov, nr, 0, note->msg, note->len);

	free(note);
	return len;
}

/* The reader is the leader, or busy, before, and neither afterwards. */
static ssize_t read_request(struct inproc *ip, struct inproc_item *item, const struct iovec *iov,
			    unsigned int nr, struct inproc_loan *loan)
{
	ssize_t len;

	if (item->leads && request_header(item->req)->len > INPROC_LEAD_COPY_MAX) {
		inproc_busy(ip);
		lead_leave(ip, item->more);
		item->leads = false;
	}
	len = message_copy(ip, item->req, iov, nr, loan);
	if (item->leads)
		lead_leave(ip, item->more);
	else
		inproc_not_busy(ip);
	return len;
}

ssize_t inproc_read_loan(struct service *svc, const struct iovec *iov, unsigned int nr,
			 bool nonblock, struct inproc_loan *loan)
{
	struct inproc *ip = inproc_of(svc);
	struct inproc_item item;
	int cancel_state;
	ssize_t ret;

	pthread_testcancel();
	cancel_state = thread_cancel_off();
	note_handler_time(ip);
	do {
		ret = lead_next(ip, nonblock, cancel_state == PTHREAD_CANCEL_ENABLE, &item);
		if (ret == 0)
			ret = item.note ? read_note(item.note, iov, nr)
					: read_request(ip, &item, iov, nr, loan);
	} while (ret == 0);
	if (ret > 0 && nr_handled++ % HANDLERS_PER_SAMPLE == 0)
		left_ns = clock_now_ns();
	thread_cancel_restore(&cancel_state);
	return ret;
}

ssize_t inproc_read(struct service *svc, const struct iovec *iov, unsigned int nr, bool nonblock)
{
	return inproc_read_loan(svc, iov, nr, nonblock, NULL);
}

static struct inproc_note *note_new(uint32_t opcode, uint64_t unique, const void *args,
				    uint32_t len)
{
	struct inproc_note *note = calloc(1, sizeof(*note));
	struct fuse_in_header hdr = {
		.len = (uint32_t)sizeof(hdr) + len,
		.opcode = opcode,
		.unique = unique,
	};

	if (!note)
		return NULL;
	assert(hdr.len <= sizeof(note->msg));
	note->len = hdr.len;
	memcpy(note->msg, &hdr, sizeof(hdr));
	if (len)
		memcpy(note->msg + sizeof(hdr), args, len);
	return note;
}

void inproc_interrupt(struct service *svc, uint64_t unique)
{
	const struct fuse_interrupt_in arg = { .unique = unique };
	struct inproc_note *note =
		note_new(FUSE_INTERRUPT, unique | INPROC_UNIQUE_INTERRUPT, &arg, sizeof(arg));

	if (note)
		lead_add_note(inproc_of(svc), note);
}

void inproc_retrieve_none(struct service *svc, const struct fuse_notify_retrieve_out *what)
{
	const struct fuse_notify_retrieve_in arg = { .offset = what->offset };
	struct inproc_note *note =
		note_new(FUSE_NOTIFY_REPLY, what->notify_unique, &arg, sizeof(arg));

	if (!note)
		return;
	memcpy(note->msg + offsetof(struct fuse_in_header, nodeid), &what->nodeid,
	       sizeof(what->nodeid));
	lead_add_note(inproc_of(svc), note);
}

void inproc_destroy(struct service *svc)
{
	struct inproc_note *note = note_new(FUSE_DESTROY, INPROC_UNIQUE_DESTROY, NULL, 0);

	if (note)
		lead_add_note(inproc_of(svc), note);
}

void inproc_unmount(struct service *svc)
{
	/* What wakes readers are cancellation points, under the lock. */
	autocancel int cancel_state = thread_cancel_off();
	struct inproc *ip = inproc_of(svc);

	inproc_lock(ip);
	__atomic_store_n(&ip->gone, true, __ATOMIC_SEQ_CST);
	if (ip->polled && ip->config.readable)
		ip->config.readable(ip->config.ctx, true);
	lead_wake_all(ip);
	inproc_unlock(ip);
}

void inproc_poll_begin(struct service *svc)
{
	/* As in inproc_unmount(). */
	autocancel int cancel_state = thread_cancel_off();
	struct inproc *ip = inproc_of(svc);

	inproc_lock(ip);
	if (!ip->polled) {
		ip->polled = true;
		ip->is_readable = ip->nr_pending || ip->gone;
		if (ip->config.readable)
			ip->config.readable(ip->config.ctx, ip->is_readable);
		lead_wake_all(ip);
	}
	inproc_unlock(ip);
}

static bool split_take(struct request *req)
{
	struct inproc_slot *slot = request_service_data(req);

	if (!reply_take(req))
		return false;
	loan_settle(req);
	free(slot->split);
	slot->split = NULL;
	return true;
}

/* Whoever leads is inside the device. */
static bool somebody_leads(struct inproc *ip)
{
	bool leads;

	inproc_lock(ip);
	leads = lead_of(ip) != LEAD_NONE;
	inproc_unlock(ip);
	return leads;
}

/*
 * The device goes away, and no more requests come. The daemon may go on reading (it finds nothing) and writing (it
 * finds nobody), so whoever is inside the device, or holds a request, is waited for: neither waits for anything.
 */
static void inproc_stop(struct service *svc)
{
	struct inproc *ip = inproc_of(svc);

	inproc_unmount(svc);
	lead_fail_pending(ip, -EIO);
	/* In this order: who leads and has a request is busy before the lead is left, and nobody takes that any more. */
	while (somebody_leads(ip) || __atomic_load_n(&ip->nr_busy, __ATOMIC_SEQ_CST))
		sched_yield();
	device_end_requests(ip->dev, -EIO, split_take);
}

static void inproc_free(struct service *svc)
{
	struct inproc *ip = inproc_of(svc);

	lead_fini(ip);
	free(ip);
}

static const struct service_ops inproc_ops = {
	.name = "inproc",
	.submit = lead_submit,
	.retrieve_none = inproc_retrieve_none,
	.interrupt = inproc_interrupt,
	.stop = inproc_stop,
	.free = inproc_free,
};

int inproc_new(struct service **ret_svc, const struct inproc_config *config)
{
	struct inproc *ip = aligned_alloc(CACHE_LINE, round_up_to(sizeof(*ip), CACHE_LINE));
	cpu_set_t cpus;
	int err;

	if (!ip)
		return -ENOMEM;
	memset(ip, 0, sizeof(*ip));
	ip->svc.ops = &inproc_ops;
	ip->svc.init_out = config->init_out;
	ip->config = *config;
	ip->nr_cpus =
		sched_getaffinity(0, sizeof(cpus), &cpus) < 0 ? 1 : (unsigned)CPU_COUNT(&cpus);
	err = lead_init(ip);
	if (err < 0) {
		inproc_free(&ip->svc);
		return err;
	}
	*ret_svc = &ip->svc;
	return 0;
}

void inproc_set_device(struct service *svc, struct device *dev)
{
	inproc_of(svc)->dev = dev;
}
