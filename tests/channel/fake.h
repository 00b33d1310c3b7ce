/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's side of a service without a device: requests that a test makes, and counts how they end.
 */
#ifndef FUSEWIRE_TESTS_CHANNEL_FAKE_H
#define FUSEWIRE_TESTS_CHANNEL_FAKE_H

#include "device/device.h"

#define FAKE_BODY_MAX (2u << 20)

/*
 * @nr_ends: how often the service ended it: must become 1
 * @in_direct: between request_direct_begin() and _end()
 * @refuse_direct: what request_direct_begin() returns
 * @segments: a direct reply's body is cut into so many
 */
struct request {
	uint64_t service_data[4];
	struct fuse_in_header *in;
	char msg[4096];
	char *long_msg; /* in place of it */
	size_t len;
	struct iovec *payload;
	unsigned int nr_payload;
	bool abandoned; /* the driver has the payload's memory back */
	size_t reply_max;
	int refuse_direct;
	unsigned int segments;
	struct iovec *direct_iov;
	bool in_direct;
	unsigned int nr_ends;
	int error;
	char *body;
	size_t body_len;
};

extern unsigned int fake_nr_died, fake_nr_restarted;
/* Notifications that the device was given, and how many of them came when @fake_before had ended. */
extern struct request *fake_before;
extern unsigned int fake_nr_notified, fake_nr_notified_after;

struct request *fake_request(uint32_t opcode, uint64_t unique, const void *args, size_t len,
			     size_t reply_max);
/* Other arguments, of any length. */
void fake_set_message(struct request *req, const void *args, size_t len);
void fake_free(struct request *req);
/* Give it to the service. */
void fake_submit(struct service *svc, struct request *req);
/* Wait until it ended; fails the test after 10 s. Returns its error. */
int fake_wait(struct request *req);
bool fake_ended(struct request *req);

#endif
