/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Forwards between this machine's FUSE client (/dev/fuse) and a virtio-fs device behind a vhost-user socket.
 *
 * The owner mounts and unmounts; the bridge knows descriptors only. All functions are called by one thread, the
 * owner's; the bridge's own threads, one per request queue, tell it through bridge_event_fd().
 */
#ifndef FUSEWIRE_BRIDGE_BRIDGE_H
#define FUSEWIRE_BRIDGE_BRIDGE_H

#include "base/compiler.h"
#include "virtio/virtq.h"

/** BRIDGE_QUEUES_MAX - request queues that one bridge uses. */
#define BRIDGE_QUEUES_MAX 64
/** BRIDGE_QUEUE_SIZE_MIN - entries that the longest chain and one more need without indirect descriptors. */
#define BRIDGE_QUEUE_SIZE_MIN 8

struct bridge;

/**
 * struct bridge_config - what to join.
 * @path: the device's vhost-user socket
 * @nr_request_queues: 1 to BRIDGE_QUEUES_MAX; one thread each
 * @fewer_queues: do with what the device has, if that is less
 * @queue_size: entries per ring, BRIDGE_QUEUE_SIZE_MIN or more; split: a power of two
 * @format: split or packed
 * @spin_ns: how long a thread with requests under way looks for replies before it sleeps; it stops doing so where
 *           that is in vain
 */
struct bridge_config {
	const char *path;
	unsigned int nr_request_queues;
	bool fewer_queues;
	uint32_t queue_size;
	enum virtq_format format;
	uint64_t spin_ns;
};

/** enum bridge_state - what became of the two sides. */
enum bridge_state {
	BRIDGE_RUNNING,
	BRIDGE_UNMOUNTED, /* the kernel has ended the FUSE connection */
	BRIDGE_DEVICE_LOST, /* the device broke a rule, gave up a ring, or closed the connection */
	BRIDGE_FAILED, /* /dev/fuse does not work as it should */
};

/**
 * bridge_new() - connect to the device and start its rings.
 * @ret_why: on error a static text
 *
 * Context: blocks, bounded by VHOST_CLIENT_TIMEOUT_MS per message. Return: 0 or negative errno.
 */
int must_check bridge_new(struct bridge **ret_bridge, const struct bridge_config *config,
			  const char **ret_why);
/** bridge_free() - after bridge_stop(), or instead of it before bridge_start(). NULL is allowed. */
void bridge_free(struct bridge *bridge);

/**
 * bridge_start() - pass the kernel's INIT on, then begin to forward.
 * @fuse_fd: /dev/fuse, mounted, O_NONBLOCK; the bridge's from now on, also on error
 * @ret_why: on error a static text
 *
 * Context: blocks for the device's reply to INIT, at most 10 s. Return: 0 or negative errno.
 */
int must_check bridge_start(struct bridge *bridge, int fuse_fd, const char **ret_why);

/** bridge_event_fd() - an eventfd that is readable once bridge_state() is not BRIDGE_RUNNING. */
int bridge_event_fd(const struct bridge *bridge);
/** bridge_device_socket() - readable when the device closed the connection. */
int bridge_device_socket(const struct bridge *bridge);
/** bridge_device_err_fd() - readable when the device gave up a ring. */
int bridge_device_err_fd(const struct bridge *bridge);

/** bridge_state() - the first thing that happened. */
enum bridge_state bridge_state(const struct bridge *bridge);
/** bridge_why() - a static text to bridge_state(), for people. */
const char *bridge_why(const struct bridge *bridge);
/** bridge_nr_replies() - how many the device has given so far: whether it still does something. */
uint64_t bridge_nr_replies(const struct bridge *bridge);
/**
 * bridge_nr_written() - how many of the kernel's own requests the device has answered: write-back of pages, and, while none is under
 * way, SETATTR, which may be that of times. Whether the write-back goes on, whatever else the device answers.
 */
uint64_t bridge_nr_written(const struct bridge *bridge);
/** bridge_writes_back() - does the device have pages that the kernel writes back? */
bool bridge_writes_back(const struct bridge *bridge);
/** bridge_lose_device() - the owner saw that the device is gone. @why: static text */
void bridge_lose_device(struct bridge *bridge, const char *why);

/**
 * bridge_stop() - end the threads, end the kernel's FUSE connection, take leave of the device.
 *
 * A device that is still there first gets 2 s to end what is under way, then DESTROY, and 5 s to answer.
 * Requests that the kernel still waits for end with ENOTCONN. After it, no process hangs on the mount.
 * Context: blocks, bounded.
 */
void bridge_stop(struct bridge *bridge);

#endif
