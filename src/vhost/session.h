/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One front-end's connection: negotiated features, memory, rings, and the handlers of its messages.
 * Private to vhost/.
 *
 * Everything runs on the control thread but vhost_backend_call() and vhost_backend_needs_reset(), which the
 * device calls from any thread; what those two use stands behind vhost_session.lock.
 */
#ifndef FUSEWIRE_VHOST_SESSION_H
#define FUSEWIRE_VHOST_SESSION_H

#include <pthread.h>

#include "base/log.h"
#include "base/loop.h"
#include "device/transport.h"
#include "vhost/message.h"

/**
 * struct vhost_ring - what the front-end said about one queue.
 * @num: descriptors; 0 before SET_VRING_NUM
 * @addr: SET_VRING_ADDR as it came
 * @have_addr: @addr is set
 * @base: SET_VRING_BASE, or where the ring stopped
 * @enabled: the last SET_VRING_ENABLE
 * @want_start: SET_VRING_KICK came: run as soon as size, addresses and memory are there
 * @poll: runs without a kick descriptor and without in-band kicks: the server kicks by timer
 * @kick_fd: descriptor to wait on, or -1
 * @call_fd: descriptor to interrupt the driver with, or -1
 * @err_fd: descriptor to report a broken ring with, or -1; under the session's lock
 */
struct vhost_ring {
	uint32_t num;
	struct vhost_vring_addr addr;
	bool have_addr;
	uint32_t base;
	bool enabled;
	bool want_start;
	bool poll;
	int kick_fd;
	int call_fd;
	int err_fd;
};

/**
 * struct vhost_inflight_map - the front-end's in-flight area, mapped.
 * @map: what mmap(2) gave, or NULL
 * @map_bytes: its size
 * @area: first queue's area
 * @stride: bytes from one queue's area to the next
 * @nr_queues: areas
 * @is_made: it is the area of vhost_session.made_fd
 * @replaced_fd: the area if we made it and then another, or -1: its memory is given back at its end
 */
struct vhost_inflight_map {
	void *map;
	size_t map_bytes;
	uint8_t *area;
	size_t stride;
	unsigned int nr_queues;
	bool is_made;
	int replaced_fd;
};

/**
 * struct vhost_session - a connection.
 * @loop: the control thread's loop
 * @dev: attached for as long as the session lives
 * @inband_offered: the user wants INBAND_NOTIFICATIONS to be offered
 * @on_close: tells the owner that the connection is over; it calls vhost_session_free()
 * @owner: for @on_close
 * @watch: the socket
 * @rx: message under way
 * @ratelimit: for all that the front-end can make us log
 * @features: virtio and vhost features that were acknowledged
 * @protocol_features: likewise
 * @mem: current table; never NULL
 * @log_base: dirty log of SET_LOG_BASE, or NULL; in use while VHOST_F_LOG_ALL is acknowledged
 * @log_active: what the device has as its dirty log: @log_base or NULL
 * @inflight: in-flight area
 * @made_fd: the area that GET_INFLIGHT_FD gave last, or -1
 * @poll_timer: kicks the rings that have @poll set
 * @nr_rings: queues of the device, at most VHOST_QUEUES_MAX
 * @rings: each queue
 * @lock: guards @backend_fd, @backend_pipe and every err_fd; a leaf: nothing is called with it held
 * @backend_fd: channel to the front-end, or -1
 * @backend_pipe: @backend_fd is a pipe, not a socket (User-mode Linux)
 * @config_change: a needs_reset is told by CONFIG_CHANGE_MSG; under @lock
 */
struct vhost_session {
	struct loop *loop;
	struct device *dev;
	bool inband_offered;
	void (*on_close)(void *owner);
	void *owner;
	struct loop_watch watch;
	struct vhost_receiver rx;
	struct log_ratelimit *ratelimit;
	uint64_t features;
	uint64_t protocol_features;
	struct mem_table *mem;
	struct dirty_log *log_base;
	struct dirty_log *log_active;
	struct vhost_inflight_map inflight;
	int made_fd;
	struct loop_timer poll_timer;
	unsigned int nr_rings;
	struct vhost_ring rings[VHOST_QUEUES_MAX];
	pthread_mutex_t lock;
	int backend_fd;
	bool backend_pipe;
	bool config_change;
};

/**
 * struct vhost_session_config - how to serve a connection.
 * @loop: control loop
 * @dev: attached by vhost_session_new(), detached by vhost_session_free()
 * @sock: connected socket; taken over on success
 * @inband_offered: offer INBAND_NOTIFICATIONS
 * @ratelimit: bounds the log; outlives the session
 * @on_close: the connection is over; must end in vhost_session_free(), at once or later
 * @owner: for @on_close
 */
struct vhost_session_config {
	struct loop *loop;
	struct device *dev;
	int sock;
	bool inband_offered;
	struct log_ratelimit *ratelimit;
	void (*on_close)(void *owner);
	void *owner;
};

/** vhost_session_new() - begin to serve a connection. Return: 0 or negative errno; then @config->sock is untouched. */
int must_check vhost_session_new(struct vhost_session **ret_session,
				 const struct vhost_session_config *config);
/** vhost_session_free() - detach the device, release everything. NULL is allowed. */
void vhost_session_free(struct vhost_session *s);
/** vhost_session_hung_up() - has the front-end closed its end? What it said last may be unread still. */
bool vhost_session_hung_up(const struct vhost_session *s);

/** vhost_has_protocol() - was protocol feature number @bit negotiated? */
static inline bool vhost_has_protocol(const struct vhost_session *s, unsigned int bit)
{
	return s->protocol_features & bit64(bit);
}

/** vhost_refuse() - log why a message is refused (rate-limited). Return: @err. */
#define vhost_refuse(s, err, ...)                                                 \
	({                                                                        \
		log_warn_ratelimited((s)->ratelimit, "vhost-user: " __VA_ARGS__); \
		(err);                                                            \
	})

/** log_info_ratelimited - what a front-end can make us say by coming and going; @rl bounds it. */
#define log_info_ratelimited(rl, ...)          \
	do {                                   \
		if (log_ratelimit_pass(rl))    \
			log_info(__VA_ARGS__); \
	} while (0)

/* rings.c */
/** vhost_rings_init() - all rings as they are at the start of a connection. */
void vhost_rings_init(struct vhost_session *s);
/** vhost_rings_fini() - close all descriptors; the device must have been detached. */
void vhost_rings_fini(struct vhost_session *s);
/** vhost_ring_stop() - stop ring @index if it runs, keep its base, drop its kick descriptor. */
void vhost_ring_stop(struct vhost_session *s, unsigned int index);
/** vhost_rings_busy() - does a ring run that is enabled? */
bool vhost_rings_busy(const struct vhost_session *s);
/** vhost_rings_stop() - stop all rings that run. */
void vhost_rings_stop(struct vhost_session *s);
/** vhost_rings_start_pending() - start the rings that waited for memory. */
void vhost_rings_start_pending(struct vhost_session *s);
/** vhost_rings_reset() - stop and disable all, forget sizes, addresses and positions; call descriptors stay. */
void vhost_rings_reset(struct vhost_session *s);
/** vhost_ring_enabled() - is the ring enabled, explicitly or because the feature was not negotiated? */
bool vhost_ring_enabled(const struct vhost_session *s, unsigned int index);
/** vhost_rings_update_enabled() - tell the device about every running ring again (features changed). */
void vhost_rings_update_enabled(struct vhost_session *s);
/** vhost_ring_resolve() - device_set_mem()'s resolve: addresses of ring @index in the current table. */
int vhost_ring_resolve(void *session, unsigned int index, struct virtq_setup *setup);

/* memory.c */
/** vhost_log_update() - give the device the dirty log that features and SET_LOG_BASE ask for. */
void vhost_log_update(struct vhost_session *s);

/* inflight.c */
/** vhost_inflight_init() - there is none. */
void vhost_inflight_init(struct vhost_session *s);
/** vhost_inflight_area() - the in-flight area of ring @index. Return: 0, *@ret_area NULL when there is none; -EINVAL when it is too small. */
int must_check vhost_inflight_area(struct vhost_session *s, unsigned int index,
				   enum virtq_format format, void **ret_area);
/** vhost_inflight_fini() - forget all areas; the device must have been detached. */
void vhost_inflight_fini(struct vhost_session *s);

/* backend.c */
/** vhost_backend_ops - what the device gets at device_attach(); the transport is the session. */
extern const struct transport_ops vhost_backend_ops;
/** vhost_backend_close() - drop the channel. */
void vhost_backend_close(struct vhost_session *s);
/** vhost_backend_update() - protocol features changed: decide anew what may be sent. */
void vhost_backend_update(struct vhost_session *s);

/* Handlers, see vhost_handler. */
int vhost_get_features(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_features(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_owner(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_reset_owner(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_mem_table(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_log_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_log_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_num(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_addr(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_get_vring_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_kick(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_call(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_err(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_get_protocol_features(struct vhost_session *s, struct vhost_msg *msg,
				struct vhost_msg *reply);
int vhost_set_protocol_features(struct vhost_session *s, struct vhost_msg *msg,
				struct vhost_msg *reply);
int vhost_get_queue_num(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_vring_enable(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_backend_req_fd(struct vhost_session *s, struct vhost_msg *msg,
			     struct vhost_msg *reply);
int vhost_get_config(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_config(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_get_inflight_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_inflight_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_reset_device(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_vring_kick(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_get_max_mem_slots(struct vhost_session *s, struct vhost_msg *msg,
			    struct vhost_msg *reply);
int vhost_add_mem_reg(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_rem_mem_reg(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_set_status(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);
int vhost_get_status(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply);

#endif
