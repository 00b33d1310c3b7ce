/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lib/attach.c needs of a worker. Apart from it because libfuse's headers and ours have names in common.
 */
#ifndef FUSEWIRE_LIB_SERVING_H
#define FUSEWIRE_LIB_SERVING_H

#include <sys/types.h>
#include <sys/uio.h>

#include "fusewire.h"

struct serving;

/** serving_new() - listen; served once INIT is answered. @options: filled up to today's size. Return: as fusewire_attach(). */
int serving_new(struct serving **ret_serving, const struct fusewire_options *options);
/** serving_free() - stop, remove the socket. NULL is allowed. */
void serving_free(struct serving *serving);
/** serving_read() - gate_read(). */
ssize_t serving_read(struct serving *serving, void *buf, size_t len);
/** serving_write() - gate_write(). */
ssize_t serving_write(struct serving *serving, const struct iovec *iov, unsigned int nr);
/** serving_write_pipe() - gate_write_pipe(). */
ssize_t serving_write_pipe(struct serving *serving, int pipe_fd, size_t len);

#endif
