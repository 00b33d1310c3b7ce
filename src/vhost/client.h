/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end side of vhost-user: connects to a back-end as a VMM does, with memory and rings of our own.
 *
 * Used by the load generator and by tests. Context: one thread; calls block until the back-end answers, at
 * most VHOST_CLIENT_TIMEOUT_MS for one message.
 */
#ifndef FUSEWIRE_VHOST_CLIENT_H
#define FUSEWIRE_VHOST_CLIENT_H

#include "virtio/virtq_driver.h"

/** VHOST_CLIENT_TIMEOUT_MS - how long a back-end may take for one reply. */
#define VHOST_CLIENT_TIMEOUT_MS 10000
/** VHOST_CLIENT_GPA - where the client's memory begins in the address space that it shows. */
#define VHOST_CLIENT_GPA 0x100000000ull

struct vhost_client;

/**
 * struct vhost_client_config - what to set up.
 * @path: the back-end's socket
 * @nr_queues: queues to use, hiprio included, ≥ 1
 * @queue_size: descriptors per ring
 * @format: split or packed; packed needs the back-end to offer it
 * @event_idx: use event indices if the back-end offers them
 * @indirect_max: segments of the longest chain that goes into an indirect table, if the back-end offers those; 0: none
 * @arena_bytes: shared memory for requests, beside the rings
 * @watch_errors: give the back-end a descriptor for the errors of all rings: vhost_client_err_fd()
 */
struct vhost_client_config {
	const char *path;
	unsigned int nr_queues;
	uint32_t queue_size;
	enum virtq_format format;
	bool event_idx;
	uint32_t indirect_max;
	size_t arena_bytes;
	bool watch_errors;
};

/**
 * struct vhost_client_ring - one queue.
 * @drv: the driver's side of the ring; addresses of segments are those of the client's memory
 * @kick_fd: write to wake the device
 * @call_fd: non-blocking; readable when the device interrupts
 */
struct vhost_client_ring {
	struct virtq_driver *drv;
	int kick_fd;
	int call_fd;
};

/**
 * vhost_client_new() - connect, negotiate, share memory, start all rings.
 * @ret_why: on error a static text: which step failed
 *
 * Return: 0; -EOPNOTSUPP when the back-end does not offer what @config insists on; -ERANGE when it says
 * that it has fewer queues; -EPROTO for a wrong reply;
 * -ETIMEDOUT; negative errno.
 */
int must_check vhost_client_new(struct vhost_client **ret_client,
				const struct vhost_client_config *config, const char **ret_why);
/** vhost_client_free() - stop the rings, close the connection. NULL is allowed. */
void vhost_client_free(struct vhost_client *client);

/** vhost_client_ring() - ring @index, < config.nr_queues. */
const struct vhost_client_ring *vhost_client_ring(const struct vhost_client *client,
						  unsigned int index);
/** vhost_client_socket() - the connection, for poll(2): at this point every reply was read, so readable means gone or wrong. */
int vhost_client_socket(const struct vhost_client *client);
/** vhost_client_err_fd() - non-blocking; readable when the back-end gave up a ring. -1 without config.watch_errors. */
int vhost_client_err_fd(const struct vhost_client *client);
/** vhost_client_arena() - config.arena_bytes of shared memory for requests, page-aligned. */
void *vhost_client_arena(const struct vhost_client *client);

#endif
