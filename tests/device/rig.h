/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device between our driver side and a service that the test commands.
 *
 * The service keeps every request until the test says how it ends, unless told to answer at once. The driver
 * side is one thread: the test's.
 */
#ifndef FUSEWIRE_TESTS_DEVICE_RIG_H
#define FUSEWIRE_TESTS_DEVICE_RIG_H

#include <pthread.h>

#include "../base/cm.h"
#include "device/device.h"
#include "device/transport.h"
#include "virtio/virtq_driver.h"

#define RIG_QUEUES     3 /* hiprio and two request queues */
#define RIG_RING       64
#define RIG_BYTES      (8u << 20)
#define RIG_GPA	       0x80000000ull
#define RIG_USER       0x7000000000ull
#define RIG_HELD       128
#define RIG_SLOT_BYTES 16384
#define RIG_SLOT_REPLY 8192

struct rig_service {
	struct service svc;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hold; /* keep requests of opcode hold_opcode (0: all) */
	uint32_t hold_opcode;
	struct request *held[RIG_HELD];
	unsigned int nr_held; /* under lock, as all that follows; rig_count() looks */
	uint64_t next_nodeid;
	uint64_t next_fh;
	unsigned int nr_of[64]; /* requests seen by opcode */
	uint64_t nr_forgotten;
	unsigned int nr_interrupts;
	uint64_t last_interrupt;
	unsigned int nr_none; /* RETRIEVEs that the driver did not answer */
};

struct rig {
	int fd;
	uint8_t *mem;
	size_t used;
	struct mem_table *table; /* the driver uses the same mapping: sanitizers see one memory */
	struct mem_table *next_table;
	struct rig_service *service;
	struct device *dev;
	struct virtq_driver *drv[RIG_QUEUES];
	struct virtq_setup setup[RIG_QUEUES];
	int kick[RIG_QUEUES];
	int call[RIG_QUEUES];
	unsigned int nr_needs_reset;
	uint8_t *slots;
	uint64_t unique;
};

/* A request's place in shared memory: message at the front, reply behind. */
struct rig_slot {
	uint8_t msg[RIG_SLOT_REPLY];
	uint8_t reply[RIG_SLOT_BYTES - RIG_SLOT_REPLY];
};

struct rig *rig_new(const struct device_config *config, bool packed);
struct rig *rig_new_with(const struct device_config *config, bool packed, struct service *svc);
void rig_free(struct rig *rig);
/* Start all rings afresh (as after a reset). */
void rig_start(struct rig *rig);

struct rig_slot *rig_slot(struct rig *rig, unsigned int i);
/* Put a message together; returns its length. */
size_t rig_message(struct rig *rig, struct rig_slot *slot, uint32_t opcode, uint64_t nodeid,
		   const void *args, size_t len);
void rig_send_raw(struct rig *rig, unsigned int queue, struct rig_slot *slot, size_t len,
		  size_t reply_bytes);
/* Message and send; returns the driver's unique. */
uint64_t rig_send(struct rig *rig, unsigned int queue, struct rig_slot *slot, uint32_t opcode,
		  uint64_t nodeid, const void *args, size_t len, size_t reply_bytes);
/* Wait for any completion on a queue; returns bytes written. Fails the test after 10 s. */
uint32_t rig_wait(struct rig *rig, unsigned int queue, struct rig_slot **ret_slot);
/* Is nothing completed within @ms? */
bool rig_quiet(struct rig *rig, unsigned int queue, unsigned int ms);
/* Send and wait; returns the reply's error. */
int rig_call(struct rig *rig, unsigned int queue, uint32_t opcode, uint64_t nodeid,
	     const void *args, size_t len, size_t reply_bytes, void *ret_body, size_t body_cap);
/* INIT; returns error. */
int rig_init(struct rig *rig);
int rig_lookup(struct rig *rig, const char *name, uint64_t *ret_nodeid);
int rig_open(struct rig *rig, uint64_t nodeid, uint64_t *ret_fh);

/* A counter of the service, read under its lock. */
unsigned int rig_count(struct rig *rig, const unsigned int *counter);
uint64_t rig_count64(struct rig *rig, const uint64_t *counter);
void rig_hold(struct rig *rig, uint32_t opcode);
/* Hold no more. */
void rig_release(struct rig *rig);
void rig_set_next_nodeid(struct rig *rig, uint64_t nodeid);
/* Take one held request, waiting for it up to 10 s. */
struct request *rig_take(struct rig *rig);
/* End a held request as the service would have at once. */
void rig_answer(struct rig *rig, struct request *req);

#endif
