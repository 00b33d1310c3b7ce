/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a kernel would do on behalf of any daemon: keep changes of a read-only mount from it, and messages that its buffer would cut;
 * and what it makes of an error among several READs.
 */
#ifndef FUSEWIRE_SERVICE_RULES_RULES_H
#define FUSEWIRE_SERVICE_RULES_RULES_H

#include "device/service.h"

/** rules_changes() - would the VFS refuse the request on a read-only mount, before it asks the file system? */
bool must_check rules_changes(const struct request *req);

/**
 * rules_forget_message() - the next message of a BATCH_FORGET that is sent in pieces.
 * @done: entries that were sent already
 * @buf: for the message
 * @cap: bytes of @buf
 * @ret_nr: entries in it
 *
 * Return: bytes of message; 0 when all were sent, or not even one fits.
 */
size_t must_check rules_forget_message(const struct request *req, uint32_t done, void *buf,
				       size_t cap, uint32_t *ret_nr);

/**
 * rules_short_read() - is a short reply to this READ right where its data end with an error, not with the file?
 *
 * A driver that reads into its page cache takes a short reply for the end of the file: it sets the size to that, and the rest is lost
 * to its applications without an error (Linux: fuse_short_read()). One that reads past its cache since the daemon told it to
 * (FOPEN_DIRECT_IO) gives the application what there is, as read(2) does; one that does so for O_DIRECT makes an error of any part
 * the read(2)'s (fuse_aio_complete()). Of a file that is both the request does not tell: it is taken for the latter.
 *
 * Return: false when the reply has to be the error. True for what is no READ.
 */
bool must_check rules_short_read(const struct request *req);

#endif
