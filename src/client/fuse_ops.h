/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Single FUSE requests on a queue, waited for: to find, make, open and remove files.
 *
 * Context: the queue's thread, with no call of the queue under way; they block. Return of all: 0; the device's negative
 * errno; -EBUSY when no call is free; errors of fuse_queue_call().
 */
#ifndef FUSEWIRE_CLIENT_FUSE_OPS_H
#define FUSEWIRE_CLIENT_FUSE_OPS_H

#include "client/fuse_client.h"

/* Each fills the arguments of a call for fuse_queue_submit(), for load; those with a name insist on 1 to 255 bytes. */
void fuse_fill_getattr(struct fuse_call *call, uint64_t nodeid);
void fuse_fill_lookup(struct fuse_call *call, uint64_t parent, const char *name);
void fuse_fill_unlink(struct fuse_call *call, uint64_t parent, const char *name);
void fuse_fill_release(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint32_t flags);
void fuse_fill_readdir(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		       uint32_t size);
void fuse_fill_read(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		    uint32_t size);
void fuse_fill_write(struct fuse_call *call, uint64_t nodeid, uint64_t fh, uint64_t offset,
		     uint32_t size);

/**
 * fuse_fill_create() - CREATE with the extension that the session agreed to.
 * @mode: permissions; the type is a regular file
 */
void fuse_fill_create(struct fuse_queue *q, struct fuse_call *call, uint64_t parent,
		      const char *name, uint32_t mode, uint32_t flags);

/** fuse_open_flags() - open(2) flags as a 64-bit Linux guest sends them: with its O_LARGEFILE. */
uint32_t fuse_open_flags(int flags);

/** fuse_op_lookup() - a name in a directory; the node then has one lookup more. -ENOENT for a negative entry, too. */
int must_check fuse_op_lookup(struct fuse_queue *q, uint64_t parent, const char *name,
			      struct fuse_entry_out *ret_entry);

/**
 * fuse_op_walk() - the directory that a path ends in.
 * @path: below the root; slashes at the begin and doubled ones are nothing
 * @ret_parent: directory of the last component
 * @ret_name: the last component, inside @path; "" for the root itself
 *
 * -ENAMETOOLONG for components of more than 255 bytes.
 */
int must_check fuse_op_walk(struct fuse_queue *q, const char *path, uint64_t *ret_parent,
			    const char **ret_name);

/** fuse_op_getattr() - attributes of a node. */
int must_check fuse_op_getattr(struct fuse_queue *q, uint64_t nodeid, struct fuse_attr *ret_attr);
/** fuse_op_open() - OPEN; handle 0 where the device needs none (ENOSYS). @flags: of open(2) */
int must_check fuse_op_open(struct fuse_queue *q, uint64_t nodeid, int flags, uint64_t *ret_fh);
/** fuse_op_opendir() - OPENDIR; handle 0 where the device needs none (ENOSYS). */
int must_check fuse_op_opendir(struct fuse_queue *q, uint64_t nodeid, uint64_t *ret_fh);
/** fuse_op_create() - CREATE; where the device has none (ENOSYS) MKNOD and OPEN, as the kernel does. */
int must_check fuse_op_create(struct fuse_queue *q, uint64_t parent, const char *name,
			      uint32_t mode, int flags, uint64_t *ret_nodeid, uint64_t *ret_fh);
/** fuse_op_release() - RELEASE. @flags: of open(2) */
int must_check fuse_op_release(struct fuse_queue *q, uint64_t nodeid, uint64_t fh, int flags);
/** fuse_op_releasedir() - RELEASEDIR. */
int must_check fuse_op_releasedir(struct fuse_queue *q, uint64_t nodeid, uint64_t fh);
/** fuse_op_fsync() - FSYNC of data and attributes. */
int must_check fuse_op_fsync(struct fuse_queue *q, uint64_t nodeid, uint64_t fh);
/** fuse_op_mkdir() - MKDIR. */
int must_check fuse_op_mkdir(struct fuse_queue *q, uint64_t parent, const char *name, uint32_t mode,
			     uint64_t *ret_nodeid);
/** fuse_op_unlink() - UNLINK. */
int must_check fuse_op_unlink(struct fuse_queue *q, uint64_t parent, const char *name);
/** fuse_op_rmdir() - RMDIR. */
int must_check fuse_op_rmdir(struct fuse_queue *q, uint64_t parent, const char *name);

#endif
