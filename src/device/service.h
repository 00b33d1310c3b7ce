/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A service answers the FUSE requests of one device.
 *
 * The device hands a request to the service with ->submit(); the service ends it, from any thread and at any
 * time, with exactly one of request_reply(), request_reply_none(), or request_direct_begin() +
 * request_direct_end(). Until then the request and all that its accessors return stay valid; afterwards
 * nothing of it may be touched.
 *
 * A service sees well-formed requests only: native byte order, lengths and names checked, node ids and
 * handles that it gave out itself, one INIT which it did on its own (see ->init_out).
 */
#ifndef FUSEWIRE_DEVICE_SERVICE_H
#define FUSEWIRE_DEVICE_SERVICE_H

#include <sys/uio.h>

#include "base/compiler.h"
#include "fuse/abi.h"

struct device;
struct request;
struct service;

/**
 * struct service_ops - what a kind of service does.
 * @name: "channel", "null", ...
 * @submit: start to serve @req. Never blocks: it runs in the queue's thread. May end the request before it
 *          returns.
 * @flush: end of a batch of ->submit() from one queue thread; send what was held back. NULL if not needed.
 * @interrupt: the driver, or the device while it drains, wants the request with this unique to end early.
 *          Best effort, as FUSE_INTERRUPT is. NULL if the service never waits.
 * @poll_begin: a queue thread is awake and will call @poll now and then: the service's own thread need not be woken by
 *          what @poll would find. Return: whether @poll may be called. NULL if there is nothing to poll
 * @poll: end requests for which replies are there. Never blocks. Return: did it do anything?
 * @poll_end: the queue thread that called @poll_begin goes to sleep
 * @wait_begin: the queue thread that called @poll_begin wants to sleep until @poll would find something. Return: a descriptor that is
 *          readable then, and as long as the service is there; -1 when nothing is awaited, or another thread waits already. NULL
 *          where @poll_begin is, or where there is none
 * @wait_end: it does not sleep any more; after each @wait_begin that gave a descriptor
 * @retrieve_none: answer a RETRIEVE that device_notify() took with a NOTIFY_REPLY of no bytes: the driver has not answered it. Any
 *          thread; never blocks. NULL if the service sends none
 * @stop: the device goes away: end every request that is under way, now, with an error; no more will come.
 *          NULL if ->submit() always ends them itself.
 * @free: release everything; called when no request is under way.
 */
struct service_ops {
	const char *name;
	void (*submit)(struct service *svc, struct request *req);
	void (*flush)(struct service *svc);
	void (*interrupt)(struct service *svc, uint64_t unique);
	bool (*poll_begin)(struct service *svc);
	bool (*poll)(struct service *svc);
	void (*poll_end)(struct service *svc);
	int (*wait_begin)(struct service *svc);
	void (*wait_end)(struct service *svc);
	void (*retrieve_none)(struct service *svc, const struct fuse_notify_retrieve_out *what);
	void (*stop)(struct service *svc);
	void (*free)(struct service *svc);
};

/**
 * struct service - embedded at the start of each implementation.
 * @ops: what it does
 * @init_out: the INIT reply that the file system behind it gave, in native byte order; the device answers the
 *            driver's INIT from it. Set before the service is given to a device; after a restart the service
 *            calls device_service_restarted() with the new one.
 * @unavailable: there is no file system: a driver's INIT fails
 * @checks_ids: the service itself survives any node id and handle, and keeps no lookup counts: the device
 *              leaves out the ledger
 */
struct service {
	const struct service_ops *ops;
	struct fuse_init_out init_out;
	bool unavailable;
	bool checks_ids;
};

/**
 * request_header() - header of the request, as a daemon may see it.
 *
 * Native byte order; ->unique is ours (unique among all requests of the device that are under way, even,
 * never 0, below 2^62), not the driver's; ->nodeid is the daemon's. ->len counts header, arguments and payload.
 */
const struct fuse_in_header *request_header(const struct request *req);

/**
 * request_message() - header and checked arguments, contiguous, in native byte order, sized for the daemon's
 * protocol minor.
 * @ret_len: bytes; the header's 40 included
 *
 * With the payload behind it, it is what a daemon would read from /dev/fuse.
 */
const void *request_message(const struct request *req, size_t *ret_len);

/**
 * request_payload() - the rest of the request: bytes that need no check (WRITE data, SETXATTR value, ...).
 * @ret_nr: number of segments, 0 for none
 *
 * Points into driver memory, which may change at any time: hand it on or copy it, do not parse it. Between request_hold() and
 * request_let_go(), since a driver that was reset uses its memory for something else.
 */
const struct iovec *request_payload(const struct request *req, unsigned int *ret_nr);

/**
 * request_hold() - until request_let_go() the driver's memory is ours, and stopping the queue waits: only copy, never wait.
 *
 * Context: nobody else may end the request meanwhile. Return: false: the driver was told that the request failed, and has its
 * memory back; the service ends it with an error that nobody hears.
 */
bool must_check request_hold(struct request *req);
/** request_let_go() - the driver's memory is not touched any more. */
void request_let_go(struct request *req);

/** request_reply_max() - bytes of body (without the 16-byte header) that the reply may have at most. */
size_t request_reply_max(const struct request *req);

/**
 * request_reply() - end the request.
 * @error: 0 or a negative errno in the range that FUSE allows (anything else becomes -EIO)
 * @iov: body, @nr segments in private memory of the service; ignored when @error is set. May be changed in
 *       place (byte order). The bytes are checked as a hostile daemon's.
 *
 * Context: any thread; does not block.
 */
void request_reply(struct request *req, int error, struct iovec *iov, unsigned int nr);

/** request_reply_none() - end a request that has no reply (FORGET, BATCH_FORGET, INTERRUPT, NOTIFY_REPLY). */
void request_reply_none(struct request *req);

/**
 * request_is_direct() - is the reply's body opaque data (READ), which may be put straight into driver
 * memory?
 */
bool request_is_direct(const struct request *req);

/**
 * request_direct_begin() - claim the reply's body for writing.
 * @len: bytes that will be written, ≤ request_reply_max()
 * @ret_iov: segments of driver memory that make up exactly @len bytes; valid until request_direct_end()
 * @ret_nr: number of segments
 *
 * Between begin and end the driver's memory is ours, and stopping the queue waits: only copy, never wait.
 *
 * Return: 0; -ECANCELED when nobody waits for the reply any more (device reset, timed out): consume the data
 * elsewhere and end with request_reply(req, -EIO, NULL, 0); -EMSGSIZE: not possible for this @len, or the segments that the driver
 * gave: request_reply() with a copy, which checks the length, too.
 */
int must_check request_direct_begin(struct request *req, size_t len, const struct iovec **ret_iov,
				    unsigned int *ret_nr);
/** request_direct_end() - end the request; the @len bytes of request_direct_begin() were written, or @error happened. */
void request_direct_end(struct request *req, int error);

/**
 * request_fill_begin() - write a part of the reply's body before there is a reply.
 * @len: bytes from the body's beginning, ≤ request_reply_max()
 * @iov: room for @nr segments; gets the segments of driver memory that make up exactly @len bytes
 * @nr: what @iov has room for
 *
 * As after request_hold(), the driver's memory is ours until request_let_go(). Afterwards the request is as before: the service ends it in whatever way, and who ends it with
 * request_direct_begin() finds the bytes where it would put them.
 *
 * Context: nobody else may end the request meanwhile. Return: segments; -EMSGSIZE: not possible for this request and @len; -ECANCELED
 * when nobody waits for the reply any more.
 */
int must_check request_fill_begin(struct request *req, size_t len, struct iovec *iov,
				  unsigned int nr);

/**
 * request_is_awaited() - does a driver wait for its end?
 *
 * Not when its queue was stopped meanwhile, nor with what pays back a session that is over. Context: who has the request.
 */
bool must_check request_is_awaited(const struct request *req);

/**
 * request_service_data() - a word for the service's own use while it has the request (list link, ...).
 *
 * Return: pointer to 32 bytes, zero at submit, aligned for pointers.
 */
void *request_service_data(struct request *req);

/**
 * device_notify() - the file system says something unasked: leave it for the driver.
 * @code: enum fuse_notify_code, or anything else
 * @body: what followed the header, in native byte order; checked as a hostile daemon's
 * @len: bytes of @body
 *
 * Never waits for the driver. Context: any thread that a request may be ended on; calls neither back into the service.
 *
 * Return: 0: the driver will get it. Otherwise it goes nowhere, and a RETRIEVE is the caller's to answer: -EOPNOTSUPP: this driver
 * takes no such notifications; -EINVAL, -ENAMETOOLONG: malformed; -ENOENT: the driver does not hold the node; -EBUSY: too many
 * RETRIEVEs are open; -ENOSPC, -ENOMEM: the driver leaves too many unread.
 */
int must_check device_notify(struct device *dev, int32_t code, const void *body, size_t len);

/**
 * request_find() - the request under way with this unique.
 *
 * For services that get replies from outside. A unique that no request of this service has gives NULL:
 * a daemon may say anything. The service makes sure that one reply at a time is looked up and ended for a
 * request. Context: any thread.
 */
struct request *request_find(struct device *dev, uint64_t unique);

#endif
