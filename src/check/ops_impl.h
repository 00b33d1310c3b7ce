/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of FUSE opcodes: what their parts share.
 */
#ifndef FUSEWIRE_CHECK_OPS_IMPL_H
#define FUSEWIRE_CHECK_OPS_IMPL_H

#include "check/check_impl.h"

#define OP_NAME_BYTES 64

typedef enum check_status (*check_op)(struct check *c, struct check_fs *fs);

/* A name that nothing has, for use in op_place(): our directory, or the root where we have none. */
void op_new_name(struct check_fs *fs, char *name);
uint64_t op_place(const struct check_fs *fs);
/* A file of ours with @bytes of pattern, closed. Return: 0, or what was answered. */
int op_make_file(struct check_fs *fs, char *name, uint32_t bytes, uint64_t *ret_nodeid);
/* The byte of the pattern at an offset. */
uint8_t op_pattern(uint64_t offset);
/* A handle for anything, and for writing. false: there is none, and *@ret_status says so. */
bool op_any_handle(struct check *c, const struct check_fs *fs, uint64_t *ret_nodeid,
		   uint64_t *ret_fh, enum check_status *ret_status);
bool op_write_handle(struct check *c, const struct check_fs *fs, enum check_status *ret_status);
/* A request that makes something was answered in a file system that cannot be written: is the name away? */
enum check_status op_not_tried(struct check *c, const struct check_fs *fs);

enum check_status op_lookup(struct check *c, struct check_fs *fs);
enum check_status op_forget(struct check *c, struct check_fs *fs);
enum check_status op_batch_forget(struct check *c, struct check_fs *fs);
enum check_status op_getattr(struct check *c, struct check_fs *fs);
enum check_status op_setattr(struct check *c, struct check_fs *fs);
enum check_status op_statx(struct check *c, struct check_fs *fs);
enum check_status op_readlink(struct check *c, struct check_fs *fs);
enum check_status op_symlink(struct check *c, struct check_fs *fs);
enum check_status op_mknod(struct check *c, struct check_fs *fs);
enum check_status op_mkdir(struct check *c, struct check_fs *fs);
enum check_status op_unlink(struct check *c, struct check_fs *fs);
enum check_status op_rmdir(struct check *c, struct check_fs *fs);
enum check_status op_rename(struct check *c, struct check_fs *fs);
enum check_status op_rename2(struct check *c, struct check_fs *fs);
enum check_status op_link(struct check *c, struct check_fs *fs);
enum check_status op_statfs(struct check *c, struct check_fs *fs);
enum check_status op_access(struct check *c, struct check_fs *fs);
enum check_status op_setxattr(struct check *c, struct check_fs *fs);
enum check_status op_getxattr(struct check *c, struct check_fs *fs);
enum check_status op_listxattr(struct check *c, struct check_fs *fs);
enum check_status op_removexattr(struct check *c, struct check_fs *fs);
enum check_status op_opendir(struct check *c, struct check_fs *fs);
enum check_status op_readdir(struct check *c, struct check_fs *fs);
enum check_status op_readdirplus(struct check *c, struct check_fs *fs);
enum check_status op_releasedir(struct check *c, struct check_fs *fs);
enum check_status op_fsyncdir(struct check *c, struct check_fs *fs);

enum check_status op_open(struct check *c, struct check_fs *fs);
enum check_status op_create(struct check *c, struct check_fs *fs);
enum check_status op_tmpfile(struct check *c, struct check_fs *fs);
enum check_status op_read(struct check *c, struct check_fs *fs);
enum check_status op_write(struct check *c, struct check_fs *fs);
enum check_status op_release(struct check *c, struct check_fs *fs);
enum check_status op_fsync(struct check *c, struct check_fs *fs);
enum check_status op_flush(struct check *c, struct check_fs *fs);
enum check_status op_getlk(struct check *c, struct check_fs *fs);
enum check_status op_setlk(struct check *c, struct check_fs *fs);
enum check_status op_setlkw(struct check *c, struct check_fs *fs);
enum check_status op_bmap(struct check *c, struct check_fs *fs);
enum check_status op_ioctl(struct check *c, struct check_fs *fs);
enum check_status op_poll(struct check *c, struct check_fs *fs);
enum check_status op_fallocate(struct check *c, struct check_fs *fs);
enum check_status op_lseek(struct check *c, struct check_fs *fs);
enum check_status op_copy_file_range(struct check *c, struct check_fs *fs);
enum check_status op_copy_file_range_64(struct check *c, struct check_fs *fs);
enum check_status op_syncfs(struct check *c, struct check_fs *fs);

enum check_status op_init(struct check *c, struct check_fs *fs);
enum check_status op_destroy(struct check *c, struct check_fs *fs);
enum check_status op_interrupt(struct check *c, struct check_fs *fs);
enum check_status op_notify_reply(struct check *c, struct check_fs *fs);
enum check_status op_setupmapping(struct check *c, struct check_fs *fs);
enum check_status op_removemapping(struct check *c, struct check_fs *fs);

#endif
