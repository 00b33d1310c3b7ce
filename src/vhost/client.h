/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end side of vhost-user: connects to a back-end as a VMM does, with memory and rings of our own.
 *
 * Context: one thread; calls block until the back-end answers, at most VHOST_CLIENT_TIMEOUT_MS for one message.
 */
#ifndef FUSEWIRE_VHOST_CLIENT_H
#define FUSEWIRE_VHOST_CLIENT_H

#include "vhost/protocol.h"
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
 * @nr_queues_min: so many are enough where the back-end tells that it has fewer than @nr_queues; 0: it must have all
 * @queue_size: descriptors per ring
 * @format: split or packed; packed needs the back-end to offer it
 * @notifications: take VIRTIO_FS_F_NOTIFICATION if the back-end offers it: then ring 1 is one more than @nr_queues tells of, for
 *                 notifications, and requests begin at ring 2
 * @event_idx: use event indices if the back-end offers them
 * @indirect_max: segments of the longest chain that goes into an indirect table, if the back-end offers those; 0: none
 * @arena_bytes: shared memory for requests, beside the rings
 * @watch_errors: give the back-end a descriptor for the errors of all rings: vhost_client_err_fd()
 * @mem_slots: share memory slot by slot, rings and arena each their own, instead of as a table; the back-end must offer it
 * @inflight: have the back-end record what is under way, where it offers that: vhost_client_reconnect() then loses nothing
 * @no_protocol: do without protocol features even if they are offered: rings are enabled from the start
 * @extra_protocol: protocol feature bits to negotiate where offered, for messages that the caller sends itself
 * @without_protocol: protocol feature bits to leave out even if they are offered
 * @base: position at which all rings start, in the encoding of struct virtq_setup; 0: that of a fresh ring
 */
struct vhost_client_config {
	const char *path;
	unsigned int nr_queues;
	unsigned int nr_queues_min;
	uint32_t queue_size;
	enum virtq_format format;
	bool notifications;
	bool event_idx;
	uint32_t indirect_max;
	size_t arena_bytes;
	bool watch_errors;
	bool mem_slots;
	bool inflight;
	bool no_protocol;
	uint64_t extra_protocol;
	uint64_t without_protocol;
	uint32_t base;
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
 * that it has fewer queues; -EPROTO for a wrong reply; -EREMOTEIO when it says that it could not do what it was asked;
 * -ETIMEDOUT; negative errno.
 */
int must_check vhost_client_new(struct vhost_client **ret_client,
				const struct vhost_client_config *config, const char **ret_why);

/**
 * vhost_client_reconnect() - the back-end is gone: connect to its successor, with the same features, memory and rings.
 * @ret_why: on error a static text: which step failed
 *
 * With a record of what is under way (config.inflight) all rings go on where they are: each chain that is out comes back
 * once. Without, the rings are made anew, and what was out is lost: get what had come back, and
 * virtq_driver_detach() the rest, before. After an error it may be called again.
 *
 * Return: 1: the rings go on; 0: they are new; errors of vhost_client_new().
 */
int must_check vhost_client_reconnect(struct vhost_client *client, const char **ret_why);

/**
 * vhost_client_reset() - reset the device, by RESET_DEVICE or the status field, and start it again on new rings.
 *
 * What is out is lost, as above. Return: 0; -EOPNOTSUPP when the back-end offers neither; errors of vhost_client_new().
 */
int must_check vhost_client_reset(struct vhost_client *client);

/**
 * vhost_client_read_config() - part of the device's config space.
 *
 * Return: 0; -EOPNOTSUPP when the back-end does not offer it; -EPROTO when there is nothing at that place.
 */
int must_check vhost_client_read_config(struct vhost_client *client, uint32_t offset, void *buf,
					uint32_t len);

/** vhost_client_free() - stop the rings, close the connection. NULL is allowed. */
void vhost_client_free(struct vhost_client *client);

/** vhost_client_nr_queues() - queues in use: config.nr_queues, or what the back-end has of them (config.nr_queues_min), and that of notifications. */
unsigned int vhost_client_nr_queues(const struct vhost_client *client);
/** vhost_client_notifies() - is ring 1 for notifications? */
bool vhost_client_notifies(const struct vhost_client *client);
/** vhost_client_ring() - ring @index, < vhost_client_nr_queues(). */
const struct vhost_client_ring *vhost_client_ring(const struct vhost_client *client,
						  unsigned int index);
/**
 * vhost_client_start_ring() - give one ring to the back-end, at the position that it has: once more, after GET_VRING_BASE.
 *
 * Return: errors of vhost_client_new().
 */
int must_check vhost_client_start_ring(struct vhost_client *client, unsigned int index);
/** vhost_client_features() - feature bits that were negotiated. */
uint64_t vhost_client_features(const struct vhost_client *client);
/** vhost_client_protocol_features() - protocol feature bits that were negotiated. */
uint64_t vhost_client_protocol_features(const struct vhost_client *client);
/** vhost_client_socket() - the connection, for poll(2): at this point every reply was read, so readable means gone or wrong. */
int vhost_client_socket(const struct vhost_client *client);
/** vhost_client_err_fd() - non-blocking; readable when the back-end gave up a ring. -1 without config.watch_errors. */
int vhost_client_err_fd(const struct vhost_client *client);
/**
 * vhost_client_memory() - all of the shared memory, as it is told to the back-end.
 *
 * Return: its descriptor, which stays the client's.
 */
int vhost_client_memory(const struct vhost_client *client, struct vhost_region *ret_region);
/** vhost_client_arena() - config.arena_bytes of shared memory for requests, page-aligned. */
void *vhost_client_arena(const struct vhost_client *client);

#endif
