/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel would keep from a daemon: changes of a read-only mount, and messages that its buffer would cut.
 */
#include <errno.h>

#include "service/channel/private.h"
#include "service/rules/rules.h"

bool limits_cut_forget(const struct channel *ch, struct request *req)
{
	const struct fuse_in_header *in = request_header(req);

	return in->opcode == FUSE_BATCH_FORGET && in->len > ch->message_max;
}

int limits_check(const struct channel *ch, struct request *req)
{
	const struct fuse_in_header *in = request_header(req);

	if (ch->read_only && rules_changes(req))
		return -EROFS;
	if (in->len <= ch->message_max || limits_cut_forget(ch, req))
		return 0;
	/* As fuse_dev_do_read() does. */
	return in->opcode == FUSE_SETXATTR ? -E2BIG : -EIO;
}
