/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vhost-user protocol on the wire: numbers and structures of QEMU's docs/interop/vhost-user.rst.
 *
 * Both ends run on one machine: all words are in native byte order.
 */
#ifndef FUSEWIRE_VHOST_PROTOCOL_H
#define FUSEWIRE_VHOST_PROTOCOL_H

#include "base/compiler.h"

/** enum vhost_request_id - messages of a front-end. */
enum vhost_request_id {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_LOG_BASE = 6,
	VHOST_USER_SET_LOG_FD = 7,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SEND_RARP = 19,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_IOTLB_MSG = 22,
	VHOST_USER_SET_VRING_ENDIAN = 23,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_CREATE_CRYPTO_SESSION = 26,
	VHOST_USER_CLOSE_CRYPTO_SESSION = 27,
	VHOST_USER_POSTCOPY_ADVISE = 28,
	VHOST_USER_POSTCOPY_LISTEN = 29,
	VHOST_USER_POSTCOPY_END = 30,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD = 32,
	VHOST_USER_GPU_SET_SOCKET = 33,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_VRING_KICK = 35,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS = 40,
	VHOST_USER_GET_SHARED_OBJECT = 41,
	VHOST_USER_SET_DEVICE_STATE_FD = 42,
	VHOST_USER_CHECK_DEVICE_STATE = 43,
	VHOST_USER_GET_SHMEM_CONFIG = 44,
	VHOST_USER_REQUEST_END,
};

/** enum vhost_backend_id - messages of a back-end, on the channel of SET_BACKEND_REQ_FD. */
enum vhost_backend_id {
	VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2,
	VHOST_USER_BACKEND_VRING_CALL = 4,
	VHOST_USER_BACKEND_VRING_ERR = 5,
};

/** enum vhost_protocol_feature - bit numbers of GET/SET_PROTOCOL_FEATURES. */
enum vhost_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
	VHOST_USER_PROTOCOL_F_RARP = 2,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_MTU = 4,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6,
	VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7,
	VHOST_USER_PROTOCOL_F_PAGEFAULT = 8,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10,
	VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11,
	VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	VHOST_USER_PROTOCOL_F_STATUS = 16,
	VHOST_USER_PROTOCOL_F_XEN_MMAP = 17,
	VHOST_USER_PROTOCOL_F_SHARED_OBJECT = 18,
	VHOST_USER_PROTOCOL_F_DEVICE_STATE = 19,
	VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20,
	VHOST_USER_PROTOCOL_F_SHMEM = 21,
};

/** VHOST_F_LOG_ALL - feature bit: everything written to memory is marked in the dirty log. */
#define VHOST_F_LOG_ALL 26
/** VHOST_USER_F_PROTOCOL_FEATURES - feature bit: GET/SET_PROTOCOL_FEATURES exist; rings begin disabled. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30

/** VIRTIO_F_* - the feature bits that decide what a ring looks like (virtio 1.2, 6). */
#define VIRTIO_F_RING_INDIRECT	28
#define VIRTIO_F_RING_EVENT_IDX 29
#define VIRTIO_F_RING_PACKED	34
/** VIRTIO_FS_F_NOTIFICATION - virtqueue 1 is for notifications, and requests begin at 2 (virtio 1.2, 5.11.3). */
#define VIRTIO_FS_F_NOTIFICATION 0

/** bit64 - the mask of bit @n. */
#define bit64(n) (1ull << (n))

/** VHOST_FLAG_* - struct vhost_header.flags. */
#define VHOST_FLAG_VERSION_MASK 0x3u
#define VHOST_FLAG_VERSION	0x1u
#define VHOST_FLAG_REPLY	0x4u
#define VHOST_FLAG_NEED_REPLY	0x8u

/** VHOST_VRING_INDEX_MASK - queue number in the payload of SET_VRING_KICK, CALL, ERR. */
#define VHOST_VRING_INDEX_MASK 0xffu
/** VHOST_VRING_NOFD - same payload: no descriptor comes with the message. */
#define VHOST_VRING_NOFD 0x100u
/** VHOST_VRING_F_LOG - struct vhost_vring_addr.flags: writes to the used ring are marked in the log. */
#define VHOST_VRING_F_LOG 0x1u

/** VHOST_QUEUES_MAX - queues that SET_VRING_KICK can name. */
#define VHOST_QUEUES_MAX 256
/** VHOST_FDS_MAX - descriptors with one message; the protocol's number of SET_MEM_TABLE regions. */
#define VHOST_FDS_MAX 8
/** VHOST_CONFIG_MAX - bytes of config space that one message carries. */
#define VHOST_CONFIG_MAX 256
/** VHOST_INFLIGHT_ALIGN - each queue's in-flight area begins at a multiple of this many bytes. */
#define VHOST_INFLIGHT_ALIGN 64

/**
 * struct vhost_header - begins each message.
 * @request: enum vhost_request_id or vhost_backend_id
 * @flags: VHOST_FLAG_*
 * @size: bytes of payload that follow
 */
struct vhost_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
};

/** struct vhost_vring_state - SET_VRING_NUM, BASE, ENABLE, GET_VRING_BASE, VRING_KICK. */
struct vhost_vring_state {
	uint32_t index;
	uint32_t num;
};

/**
 * struct vhost_vring_addr - SET_VRING_ADDR; ring addresses are the front-end's own.
 * @index: queue
 * @flags: VHOST_VRING_F_*
 * @desc: descriptor area
 * @used: device area
 * @avail: driver area
 * @log: guest address of the used ring, for the dirty log
 */
struct vhost_vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};

/** struct vhost_region - one memory region; the file descriptor comes beside it. */
struct vhost_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t user_addr;
	uint64_t mmap_offset;
};

/** struct vhost_mem_table - SET_MEM_TABLE. */
struct vhost_mem_table {
	uint32_t nr;
	uint32_t padding;
	struct vhost_region regions[VHOST_FDS_MAX];
};

/** struct vhost_mem_reg - ADD_MEM_REG, REM_MEM_REG. */
struct vhost_mem_reg {
	uint64_t padding;
	struct vhost_region region;
};

/** struct vhost_log - SET_LOG_BASE. */
struct vhost_log {
	uint64_t size;
	uint64_t offset;
};

/** struct vhost_config - GET_CONFIG, SET_CONFIG; on the wire @size bytes of @region. */
struct vhost_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t region[VHOST_CONFIG_MAX];
};

/** VHOST_CONFIG_HEAD - bytes of struct vhost_config before the config space. */
#define VHOST_CONFIG_HEAD 12

/** struct vhost_inflight - GET_INFLIGHT_FD, SET_INFLIGHT_FD; some send the 20 bytes without padding. */
struct vhost_inflight {
	uint64_t mmap_size;
	uint64_t mmap_offset;
	uint16_t nr_queues;
	uint16_t queue_size;
};

/** VHOST_INFLIGHT_MIN - bytes of struct vhost_inflight that carry something. */
#define VHOST_INFLIGHT_MIN 20

/** union vhost_payload - room for every payload that either side may send. */
union vhost_payload {
	uint64_t u64;
	struct vhost_vring_state state;
	struct vhost_vring_addr addr;
	struct vhost_mem_table mem;
	struct vhost_mem_reg reg;
	struct vhost_log log;
	struct vhost_config config;
	struct vhost_inflight inflight;
	uint8_t bytes[280];
};

static_assert(sizeof(struct vhost_header) == 12, "header on the wire");
static_assert(sizeof(struct vhost_vring_addr) == 40, "vring address on the wire");
static_assert(sizeof(struct vhost_mem_table) == 264, "memory table on the wire");
static_assert(sizeof(struct vhost_mem_reg) == 40, "memory region on the wire");
static_assert(offsetof(struct vhost_config, region) == VHOST_CONFIG_HEAD, "config on the wire");
static_assert(sizeof(struct vhost_inflight) == 24, "in-flight description on the wire");

#endif
