/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's side of a service without a device: requests that a test makes, and counts how they end.
 */
#include "fuse/session.h"
#include "fake.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../base/cm.h"
#include "base/iov.h"

static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fake_ended_cond = PTHREAD_COND_INITIALIZER;
unsigned int fake_nr_died, fake_nr_restarted;
struct request *fake_before;
unsigned int fake_nr_notified, fake_nr_notified_after;

struct request *fake_request(uint32_t opcode, uint64_t unique, const void *args, size_t len,
			     size_t reply_max)
{
	struct request *req = calloc(1, sizeof(*req));

	assert_non_null(req);
	req->in = (struct fuse_in_header *)(void *)req->msg;
	*req->in = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(*req->in) + len),
		.opcode = opcode,
		.unique = unique,
		.nodeid = FUSE_ROOT_ID,
	};
	if (len)
		memcpy(req->msg + sizeof(*req->in), args, len);
	req->len = sizeof(*req->in) + len;
	req->reply_max = reply_max;
	req->body = malloc(FAKE_BODY_MAX);
	req->segments = 1;
	assert_non_null(req->body);
	return req;
}

void fake_set_message(struct request *req, const void *args, size_t len)
{
	req->len = sizeof(*req->in) + len;
	req->long_msg = malloc(req->len);
	memcpy(req->long_msg + sizeof(*req->in), args, len);
}

void fake_free(struct request *req)
{
	free(req->long_msg);
	free(req->direct_iov);
	free(req->body);
	free(req);
}

void fake_submit(struct service *svc, struct request *req)
{
	req->in->len = (uint32_t)(req->len + iov_bytes(req->payload, req->nr_payload));
	if (req->long_msg)
		memcpy(req->long_msg, req->in, sizeof(*req->in));
	svc->ops->submit(svc, req);
}

int fake_wait(struct request *req)
{
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&fake_lock);
	while (!req->nr_ends && !err)
		err = pthread_cond_timedwait(&fake_ended_cond, &fake_lock, &until);
	pthread_mutex_unlock(&fake_lock);
	assert_int_equal(err, 0);
	assert_int_equal(req->nr_ends, 1);
	return req->error;
}

bool fake_ended(struct request *req)
{
	bool ended;

	pthread_mutex_lock(&fake_lock);
	ended = req->nr_ends;
	pthread_mutex_unlock(&fake_lock);
	return ended;
}

static void fake_end(struct request *req, int error, size_t len)
{
	pthread_mutex_lock(&fake_lock);
	req->nr_ends++;
	req->error = error;
	req->body_len = len;
	pthread_cond_broadcast(&fake_ended_cond);
	pthread_mutex_unlock(&fake_lock);
}

const struct fuse_in_header *request_header(const struct request *req)
{
	return req->in;
}

const void *request_message(const struct request *req, size_t *ret_len)
{
	*ret_len = req->len;
	return req->long_msg ? req->long_msg : req->msg;
}

const struct iovec *request_payload(const struct request *req, unsigned int *ret_nr)
{
	*ret_nr = req->nr_payload;
	return req->payload;
}

bool request_hold(struct request *req)
{
	return !req->abandoned;
}

void request_let_go(struct request *req)
{
}

size_t request_reply_max(const struct request *req)
{
	return req->reply_max;
}

void request_reply(struct request *req, int error, struct iovec *iov, unsigned int nr)
{
	size_t len = error ? 0 : iov_bytes(iov, nr);

	assert_true(len <= FAKE_BODY_MAX);
	if (len)
		iov_copy_out(req->body, iov, nr, 0, len);
	fake_end(req, error, len);
}

void request_reply_none(struct request *req)
{
	fake_end(req, 0, 0);
}

bool request_is_direct(const struct request *req)
{
	return req->in->opcode == FUSE_READ;
}

int request_direct_begin(struct request *req, size_t len, const struct iovec **ret_iov,
			 unsigned int *ret_nr)
{
	size_t piece = len / req->segments;

	if (req->refuse_direct)
		return req->refuse_direct;
	if (len > req->reply_max)
		return -EMSGSIZE;
	assert_false(req->in_direct);
	req->in_direct = true;
	req->body_len = len;
	free(req->direct_iov);
	req->direct_iov = calloc(req->segments, sizeof(*req->direct_iov));
	for (unsigned int i = 0; i < req->segments; i++) {
		req->direct_iov[i].iov_base = req->body + i * piece;
		req->direct_iov[i].iov_len = i + 1 < req->segments ? piece : len - i * piece;
	}
	*ret_iov = req->direct_iov;
	*ret_nr = req->segments;
	return 0;
}

void request_direct_end(struct request *req, int error)
{
	assert_true(req->in_direct);
	req->in_direct = false;
	fake_end(req, error, req->body_len);
}

void *request_service_data(struct request *req)
{
	return req->service_data;
}

int device_notify(struct device *dev, int32_t code, const void *body, size_t len)
{
	const struct fuse_notify notify = { .code = code, .body = body, .len = len };

	if (fake_before && fake_ended(fake_before))
		__atomic_fetch_add(&fake_nr_notified_after, 1, __ATOMIC_RELEASE);
	__atomic_fetch_add(&fake_nr_notified, 1, __ATOMIC_RELEASE);
	return fuse_notify_check(&notify);
}

void device_service_died(struct device *dev)
{
	__atomic_fetch_add(&fake_nr_died, 1, __ATOMIC_RELAXED);
}

void device_service_restarted(struct device *dev)
{
	__atomic_fetch_add(&fake_nr_restarted, 1, __ATOMIC_RELAXED);
}
