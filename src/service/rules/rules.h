/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel would keep from any daemon: changes of a read-only mount, and messages that its buffer would cut.
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

#endif
