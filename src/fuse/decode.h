/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files that decode a request share; for src/fuse only.
 */
#ifndef FUSEWIRE_FUSE_DECODE_H
#define FUSEWIRE_FUSE_DECODE_H

#include "fuse/session_priv.h"

/**
 * struct decode - one request while it is decoded.
 * @session: its session
 * @req: the request
 * @op: table entry
 * @arg: argument structure, native order; INIT and SETXATTR in their short form have @arg_bytes only
 * @arg_bytes: bytes of it as the driver sent them
 * @pos: first byte of @arg not yet decoded
 * @end: bytes behind the header that were copied
 * @total: bytes behind the header in the driver's message
 * @name: the strings
 * @name_bytes: their lengths without NUL
 * @uses_fh: the handle at op->fh_off is used by this request
 * @dir_fh: it is a directory's
 * @answers: NOTIFY_REPLY: unique of the daemon's RETRIEVE
 */
struct decode {
	struct fuse_session *session;
	struct fuse_request *req;
	const struct fuse_opcode_info *op;
	unsigned char *arg;
	uint32_t arg_bytes;
	uint32_t pos;
	uint32_t end;
	uint32_t total;
	const char *name[2];
	uint32_t name_bytes[2];
	bool uses_fh;
	bool dir_fh;
	uint64_t answers;
};

/** decode_check_args() - what only this opcode asks of its arguments. Return: 0 or the driver's errno. */
int must_check decode_check_args(struct decode *d);

/** decode_extensions() - check and translate the extensions that begin at d->pos. Return: 0 or -EINVAL. */
int must_check decode_extensions(struct decode *d);

#endif
