/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service whose requests a daemon answers over a message socket that stands in for /dev/fuse.
 */
#ifndef FUSEWIRE_SERVICE_CHANNEL_CHANNEL_H
#define FUSEWIRE_SERVICE_CHANNEL_CHANNEL_H

#include <sys/types.h>

#include "device/service.h"

/** CHANNEL_FDS_MAX - descriptors that channel_hand_over() passes on. */
#define CHANNEL_FDS_MAX 7
/** CHANNEL_UNIQUE_LIBRARY - unique of what a library of ours in the daemon's process says for itself. */
#define CHANNEL_UNIQUE_LIBRARY (UINT64_C(3) << 62)

/**
 * struct channel_events - what happens to the daemon; called on the channel's reply thread. None of them may
 * call channel_free().
 * @ready: the daemon answered INIT, the service's init_out is set and requests are taken. @server is the process that answered,
 *         0 when unknown
 * @stopped: the daemon answered the DESTROY of channel_stop()
 * @lost: the daemon closed its end, refused INIT (@why says how; else NULL), or channel_close() was called.
 *        Every request was ended with -EIO, and new ones will be, until channel_attach()
 * @library: before @ready: a message with CHANNEL_UNIQUE_LIBRARY, @len bytes that nobody checked. May be NULL
 */
struct channel_events {
	void (*ready)(void *ctx, pid_t server);
	void (*stopped)(void *ctx);
	void (*lost)(void *ctx, const char *why);
	void (*library)(void *ctx, const void *msg, size_t len);
};

/**
 * struct channel_config - how to serve.
 * @events: copied
 * @ctx: for the events
 * @poll_ns: after a reply, look for the next one for so long before sleeping, ns
 */
struct channel_config {
	struct channel_events events;
	void *ctx;
	uint64_t poll_ns;
};

/**
 * struct channel_counts - what the daemon did wrong or unasked, since the channel was made.
 * @nr_unknown: replies to what was not asked, or was answered before
 * @nr_malformed: replies of a wrong length or form
 * @nr_notifications: messages with unique 0
 * @nr_not_passed_on: of these, malformed, or of no use to the driver, or it takes none
 */
struct channel_counts {
	uint64_t nr_unknown;
	uint64_t nr_malformed;
	uint64_t nr_notifications;
	uint64_t nr_not_passed_on;
};

/**
 * struct channel_limits - what the kernel would see to, for the daemon that mounted with these options.
 * @max_read: bytes that a READ may ask for; 0 for no limit
 * @read_only: refuse with -EROFS what would change anything, as the VFS does on a mount with MS_RDONLY
 */
struct channel_limits {
	uint32_t max_read;
	bool read_only;
};

/** channel_new() - a service without a daemon: every request gets -EIO. Return: 0, -ENOMEM, negative errno. */
int must_check channel_new(struct service **ret_svc, const struct channel_config *config);

/** channel_set_device() - the device to tell when the daemon dies and is there again; NULL for none. When it returns, the device before it is not told any more. Context: any thread that the device does not wait for. */
void channel_set_device(struct service *svc, struct device *dev);

/**
 * channel_attach() - a daemon is there: send INIT. The events say how it goes on.
 * @fd: message socket; taken over on success. Its send buffer's size is taken for both directions
 * @limits: copied
 *
 * Context: any thread. Return: 0; -EBUSY while there is one already; negative errno.
 */
int must_check channel_attach(struct service *svc, int fd, const struct channel_limits *limits);

/**
 * channel_stop() - send DESTROY and take no more requests; the daemon sees its end of the socket open until channel_close().
 *
 * Context: any thread. Return: 0: stopped, or lost, will be called; -ENOTCONN without a daemon that answered INIT; -EAGAIN when the
 * socket is full.
 */
int must_check channel_stop(struct service *svc);

/**
 * channel_hand_over() - the daemon is served another way from now on: say so to the library in its process.
 * @msg: goes to the socket, with @fds and our end of that socket (in this order) beside it
 * @len: bytes of it
 * @fds: stay the caller's
 * @nr_fds: at most CHANNEL_FDS_MAX
 *
 * Every request gets -EIO afterwards; lost is called as ever. Context: any thread. Return: 0; -ENOTCONN without a
 * daemon that answered INIT; negative errno.
 */
int must_check channel_hand_over(struct service *svc, const void *msg, size_t len, const int *fds,
				 unsigned int nr_fds);

/** channel_close() - close the socket; lost will be called if there was a daemon. Context: any thread. */
void channel_close(struct service *svc);

/** channel_get_counts() - Context: any thread. */
void channel_get_counts(struct service *svc, struct channel_counts *ret_counts);

#endif
