/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What `fusewire run` and the library in the daemon's process say to each other over the message socket that stands in for
 * /dev/fuse, and over the control socket that comes with it.
 *
 * The library reads INIT from the socket as the daemon would have, and says HELLO behind the daemon's back. Once INIT is
 * answered, fusewire run sends ATTACH with the descriptors of a front-end connection: from then on the daemon's reads are
 * served from the queues, and the socket only carries wake-ups. Without HELLO nothing of this happens.
 *
 * Both come from one build; WORKER_ATTACH_VERSION guards against a mixture.
 */
#ifndef FUSEWIRE_WORKER_ATTACH_H
#define FUSEWIRE_WORKER_ATTACH_H

#include "device/device.h"
#include "fuse/abi.h"
#include "service/channel/channel.h"

/** WORKER_ATTACH_VERSION - changes with any structure here. */
#define WORKER_ATTACH_VERSION 2
/** WORKER_UNIQUE - unique of all messages of ours; no daemon and no device uses it. */
#define WORKER_UNIQUE CHANNEL_UNIQUE_LIBRARY
/** WORKER_OPCODE_ATTACH - an opcode that FUSE does not have. */
#define WORKER_OPCODE_ATTACH 0xf05e0001u
/** WORKER_ENV - environment variable: process id of the fusewire that the library belongs to. */
#define WORKER_ENV "FUSEWIRE_RUN"

/**
 * struct worker_hello - library to fusewire run: I am here.
 * @hdr: @unique is WORKER_UNIQUE
 * @version: WORKER_ATTACH_VERSION
 * @pid: process that reads
 */
struct worker_hello {
	struct fuse_out_header hdr;
	uint32_t version;
	uint32_t pid;
};

/** enum worker_attach_fd - descriptors that come with ATTACH, in this order. */
enum worker_attach_fd {
	WORKER_FD_VHOST, /* a connected front-end */
	WORKER_FD_RECORD, /* memory of a struct fuse_session_record */
	WORKER_FD_CONTROL, /* SEQPACKET: one byte from enum worker_control */
	WORKER_FD_PEER, /* the other end of the socket that this comes from: what is sent here makes it readable */
	WORKER_NR_FDS,
};

/** enum worker_control - bytes on the control socket. */
enum worker_control {
	WORKER_CONTROL_END = 'e', /* to the library: unmount */
	WORKER_CONTROL_ENDED = 'd', /* from the library: done */
};

/**
 * struct worker_attach - fusewire run to the library.
 * @hdr: @opcode is WORKER_OPCODE_ATTACH, @unique WORKER_UNIQUE
 * @version: WORKER_ATTACH_VERSION
 * @log_level: enum log_level
 * @nr_request_queues: struct device_config, as those that follow
 * @queue_size_max: ring size
 * @poll_ns: ns
 * @drain_ns: ns
 * @arch: enum fuse_arch
 * @page_bytes: bytes
 * @max_read: struct inproc_config
 * @read_only: struct inproc_config
 * @inband_notifications: struct worker_config
 * @generation: struct worker_config
 * @tag: NUL-terminated
 * @init_out: struct inproc_config
 */
struct worker_attach {
	struct fuse_in_header hdr;
	uint32_t version;
	uint32_t log_level;
	uint32_t nr_request_queues;
	uint32_t queue_size_max;
	uint64_t poll_ns;
	uint64_t drain_ns;
	uint32_t arch;
	uint32_t page_bytes;
	uint32_t max_read;
	uint32_t read_only;
	uint32_t inband_notifications;
	uint32_t generation;
	char tag[DEVICE_TAG_BYTES + 4];
	struct fuse_init_out init_out;
};

#endif
