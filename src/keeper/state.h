/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a front-end has said so far: all that a fresh back-end must be told.
 */
#ifndef FUSEWIRE_KEEPER_STATE_H
#define FUSEWIRE_KEEPER_STATE_H

#include "mem/mem_table.h"
#include "vhost/message.h"
#include "virtio/virtq.h"

/**
 * enum keeper_ring_run - what started a ring.
 * @KEEPER_RING_STOPPED: nothing, or it was stopped
 * @KEEPER_RING_BY_FD: SET_VRING_KICK, with a descriptor or the word that there is none
 * @KEEPER_RING_BY_MESSAGE: VRING_KICK, in band
 */
enum keeper_ring_run {
	KEEPER_RING_STOPPED,
	KEEPER_RING_BY_FD,
	KEEPER_RING_BY_MESSAGE,
};

/**
 * struct keeper_ring - one queue.
 * @num: descriptors; 0 before SET_VRING_NUM
 * @base: SET_VRING_BASE, or where it stopped
 * @addr: SET_VRING_ADDR
 * @have_addr: @addr is set
 * @have_enabled: SET_VRING_ENABLE was sent
 * @enabled: its last value
 * @run: does it run?
 * @kick_fd: or -1
 * @call_fd: or -1
 * @err_fd: or -1
 */
struct keeper_ring {
	uint32_t num;
	uint32_t base;
	struct vhost_vring_addr addr;
	bool have_addr;
	bool have_enabled;
	bool enabled;
	enum keeper_ring_run run;
	int kick_fd;
	int call_fd;
	int err_fd;
};

/**
 * struct keeper_region - one memory region.
 * @region: as the front-end described it
 * @fd: its file
 */
struct keeper_region {
	struct vhost_region region;
	int fd;
};

/**
 * struct keeper_state - one front-end's.
 * @owner: SET_OWNER came
 * @features: SET_FEATURES
 * @have_features: @features is set
 * @protocol: SET_PROTOCOL_FEATURES
 * @slots: the memory was set by ADD_MEM_REG, or changed since SET_MEM_TABLE
 * @have_mem: SET_MEM_TABLE or ADD_MEM_REG came
 * @nr_regions: entries of @regions
 * @regions: the memory
 * @log: SET_LOG_BASE
 * @log_base_fd: file of the dirty log, or -1
 * @log_fd: SET_LOG_FD, or -1
 * @channel_fd: SET_BACKEND_REQ_FD, or -1
 * @status: SET_STATUS
 * @have_status: @status is set
 * @inflight: the in-flight area, if @inflight_fd is there
 * @inflight_fd: its file, or -1
 * @inflight_own: the area is the keeper's, not the front-end's
 * @rings: each queue
 */
struct keeper_state {
	bool owner;
	uint64_t features;
	bool have_features;
	uint64_t protocol;
	bool slots;
	bool have_mem;
	unsigned int nr_regions;
	struct keeper_region regions[MEM_REGIONS_MAX];
	struct vhost_log log;
	int log_base_fd;
	int log_fd;
	int channel_fd;
	uint64_t status;
	bool have_status;
	struct vhost_inflight inflight;
	int inflight_fd;
	bool inflight_own;
	struct keeper_ring rings[VHOST_QUEUES_MAX];
};

/** keeper_state_init() - nothing was said. */
void keeper_state_init(struct keeper_state *s);
/** keeper_state_fini() - close all descriptors. */
void keeper_state_fini(struct keeper_state *s);

/**
 * keeper_state_note() - remember what a message that was done has changed.
 * @msg: checked by keeper_check(); descriptors that must be kept are taken out of it
 * @reply: the back-end's reply; of GET_VRING_BASE the base is taken
 *
 * Return: 0; -ENOSPC: more memory regions than MEM_REGIONS_MAX.
 */
int must_check keeper_state_note(struct keeper_state *s, struct vhost_msg *msg,
				 const struct vhost_msg *reply);

/** keeper_state_has() - was protocol feature number @bit acknowledged by the front-end? */
static inline bool keeper_state_has(const struct keeper_state *s, unsigned int bit)
{
	return s->protocol & bit64(bit);
}

/** keeper_state_format() - of the rings. */
enum virtq_format keeper_state_format(const struct keeper_state *s);
/** keeper_state_nr_rings() - index of the last ring of which anything was said, plus 1. */
unsigned int keeper_state_nr_rings(const struct keeper_state *s);
/** keeper_state_ring_busy() - does ring @index run, enabled? Then it cannot be set up anew. */
bool keeper_state_ring_busy(const struct keeper_state *s, unsigned int index);
/** keeper_state_running() - does any ring run? */
bool keeper_state_running(const struct keeper_state *s);

/** keeper_state_inflight_covers() - has ring @index, with @num descriptors, a place in the in-flight area? */
bool keeper_state_inflight_covers(const struct keeper_state *s, unsigned int index, uint32_t num);
/** keeper_state_set_inflight() - use the area @d in @fd, which is taken over; @own: the keeper's. */
void keeper_state_set_inflight(struct keeper_state *s, const struct vhost_inflight *d, int fd,
			       bool own);
/** keeper_state_drop_inflight() - forget the area. */
void keeper_state_drop_inflight(struct keeper_state *s);

/**
 * keeper_state_recover() - set the base of each running ring to where its dead device left it.
 *
 * Reads the in-flight area, which may be a hostile peer's file: only memory files are read. Return: 0; -ENODATA: a ring that
 * runs has no area, so that its position is unknown.
 */
int must_check keeper_state_recover(struct keeper_state *s);

#endif
