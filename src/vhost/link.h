/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end's end of a vhost-user connection: messages out, replies in, every wait bounded.
 *
 * Nothing here knows what a message means: for vhost_client.c, and for those who send what no front-end should.
 */
#ifndef FUSEWIRE_VHOST_LINK_H
#define FUSEWIRE_VHOST_LINK_H

#include "vhost/message.h"

/**
 * vhost_link_connect() - connect to a back-end's socket.
 * @timeout_ms: how long a back-end that accepts nobody is waited for
 *
 * Return: the socket; -ENAMETOOLONG; -ETIMEDOUT; negative errno of connect(2).
 */
int must_check vhost_link_connect(const char *path, int timeout_ms);

/**
 * vhost_link_send() - one message, header and payload in one go.
 * @flags: beside the version: VHOST_FLAG_NEED_REPLY or 0
 * @fd: goes along, stays the caller's; -1: none
 *
 * Return: 0; -EAGAIN when the back-end does not read; -EPIPE; negative errno.
 */
int must_check vhost_link_send(int sock, uint32_t request, uint32_t flags, const void *payload,
			       size_t size, int fd);

/**
 * vhost_link_receive() - one message of the back-end.
 * @ret_msg: its descriptors are the caller's on success: vhost_msg_close_fds()
 *
 * Return: 0; -ETIMEDOUT; -EPIPE at the end of the connection; -EPROTO for a size that no payload has, or a version other
 * than 1; negative errno.
 */
int must_check vhost_link_receive(int sock, struct vhost_msg *ret_msg, int timeout_ms);

/**
 * vhost_link_ask() - send @request, and wait for a reply to it of exactly @reply_size bytes.
 *
 * Return: 0; -EPROTO for another message, size or a descriptor; errors of the functions above.
 */
int must_check vhost_link_ask(int sock, uint32_t request, const void *payload, size_t size,
			      void *reply, size_t reply_size, int timeout_ms);

#endif
