/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of opcodes that belong to the session, and of those that need more than the request queues.
 */
#include <errno.h>
#include <string.h>

#include "check/ops_impl.h"

#define MINOR_MIN     12u
#define MAX_WRITE_MIN 4096u
#define RING_SIZE     64u

enum check_status op_init(struct check *c, struct check_fs *fs)
{
	const struct fuse_init_out *out = &fs->peer->init;

	if (out->minor < MINOR_MIN || out->minor > FUSE_KERNEL_MINOR_VERSION)
		return check_fails(c, "minor %u", out->minor);
	if (out->max_write < MAX_WRITE_MIN)
		return check_fails(c, "max_write %u", out->max_write);
	if (fs->peer->flags & FUSE_MAX_PAGES && !out->max_pages)
		return check_fails(c, "MAX_PAGES without a number");
	return check_end(c, CHECK_HOLDS, "7.%u, max_write %u, flags %#llx", out->minor,
			 out->max_write, (unsigned long long)fs->peer->flags);
}

enum check_status op_destroy(struct check *c, struct check_fs *fs)
{
	struct ask ask = { .opcode = FUSE_DESTROY };
	int err;

	/* The session is over afterwards, and with it all nodes of those who share it. */
	fs->peer = NULL;
	err = fs_ask(c->shared, &ask);
	if (err < 0)
		return check_error(c, c->shared, err, "DESTROY");
	err = peer_init(c->shared, FIRST_QUEUE);
	return err < 0 ? check_error(c, c->shared, err, "INIT behind it") : check_holds(c);
}

enum check_status op_interrupt(struct check *c, struct check_fs *fs)
{
	/* Of a request that is not under way any more: there is nothing to interrupt. */
	const struct fuse_interrupt_in in = { .unique = fs->peer->unique - 2 };
	struct ask ask = {
		.opcode = FUSE_INTERRUPT, .args = &in, .args_bytes = sizeof(in), .no_reply = true
	};
	int err = peer_ask(fs->peer, HIPRIO, &ask);

	if (err < 0)
		return check_error(c, fs->peer, err, "INTERRUPT");
	err = peer_works(fs->peer, FIRST_QUEUE);
	return err < 0 ? check_error(c, fs->peer, err, "GETATTR behind it") : check_holds(c);
}

enum check_status op_notify_reply(struct check *c, struct check_fs *fs)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .notifications = true };
	const struct fuse_notify_retrieve_in in = {};
	struct ask ask = { .opcode = FUSE_NOTIFY_REPLY,
			   .nodeid = FUSE_ROOT_ID,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .no_reply = true };
	struct peer *p;
	int err;

	if (!(c->report->features & bit64(VIRTIO_FS_F_NOTIFICATION)))
		return check_end(c, CHECK_NOT_OFFERED, "no notification queue");
	p = check_peer(c, &setup);
	if (!p)
		return check_no_peer(c);
	err = peer_ask(p, NOTIFYING_FIRST, &ask);
	if (err < 0)
		return check_error(c, p, err, "the chain");
	err = peer_works(p, NOTIFYING_FIRST);
	if (err < 0)
		return check_error(c, p, err, "GETATTR behind it");
	return check_end(c, CHECK_HOLDS,
			 "nobody had asked; only that it disturbs nothing was tried");
}

/* Without a window the least is that they are refused. */
static enum check_status mapping(struct check *c, struct check_fs *fs, struct ask *ask)
{
	int err;

	ask->nodeid = FUSE_ROOT_ID;
	err = fs_ask(fs->peer, ask);
	if (err == 0)
		return check_fails(c, "it succeeded without a window");
	if (err == -EPIPE || err == -ETIMEDOUT || err == -EPROTO || err == -EBADMSG)
		return check_error(c, fs->peer, err, "its request");
	return check_end(c, CHECK_NOT_OFFERED, "no DAX window: %s", strerror(-err));
}

enum check_status op_setupmapping(struct check *c, struct check_fs *fs)
{
	const struct fuse_setupmapping_in in = { .len = 2u << 20,
						 .flags = FUSE_SETUPMAPPING_FLAG_READ };
	struct ask ask = { .opcode = FUSE_SETUPMAPPING, .args = &in, .args_bytes = sizeof(in) };

	return mapping(c, fs, &ask);
}

enum check_status op_removemapping(struct check *c, struct check_fs *fs)
{
	const struct fuse_removemapping_in in = { .count = 1 };
	const struct fuse_removemapping_one one = { .len = 2u << 20 };
	struct ask ask = { .opcode = FUSE_REMOVEMAPPING,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .data = &one,
			   .data_bytes = sizeof(one) };

	return mapping(c, fs, &ask);
}
