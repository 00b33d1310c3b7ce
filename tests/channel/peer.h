/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon that a test plays, at the other end of the channel's socket.
 */
#ifndef FUSEWIRE_TESTS_CHANNEL_PEER_H
#define FUSEWIRE_TESTS_CHANNEL_PEER_H

#include "../base/cm.h"
#include "fake.h"
#include "service/channel/channel.h"

#define DAEMON_BUF (2u << 20)

struct test {
	struct service *svc;
	int daemon; /* the daemon's end */
	unsigned int nr_ready, nr_stopped, nr_lost;
	const char *why;
	bool read_only;
	uint32_t max_write;
	char *buf;
	size_t buf_len;
	struct fuse_in_header in;
};

extern const struct fuse_init_out good_init;
extern const struct channel_limits no_limits;

void wait_count(const unsigned int *count, unsigned int want);
size_t daemon_receive(struct test *t, int fd);
void daemon_send(int fd, uint64_t unique, int error, const void *body, size_t len,
		 uint32_t claimed_len);
void daemon_reply(int fd, uint64_t unique, int error, const void *body, size_t len);
void make_pair(int *ret_ours, int *ret_theirs);
/* Return: our end of the socket, which the channel owns. */
int attach(struct test *t, uint32_t max_read);
int attach_ready(struct test *t, uint32_t max_read);
/* As attach_ready(), with a send buffer of @bytes at our end, as the kernel counts them. */
void attach_small(struct test *t, int bytes);
int setup(void **state);
int teardown(void **state);
struct request *getattr(uint64_t unique);
struct request *read_of(uint64_t unique, uint64_t offset, uint32_t size);
char pattern(uint64_t i);
void fill(char *buf, uint64_t off, size_t len);
void check_pattern(const char *buf, uint64_t off, size_t len);
void daemon_answer_read(struct test *t, int fd, size_t max);

#endif
