/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system in memory, as memfuse serves it: the tree, without FUSE's messages.
 *
 * Context: every function may be called from any thread. Functions that return int give 0 or a negative errno.
 */
#ifndef TESTS_INPROC_MEMFS_H
#define TESTS_INPROC_MEMFS_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** MEMFS_ROOT - node id of the root directory. */
#define MEMFS_ROOT 1u

/** memfs_init() - make the root directory. */
void memfs_init(void);
/** memfs_lookup() - find @name in @dir; the entry counts as a lookup. */
int memfs_lookup(uint64_t dir, const char *name, struct fuse_entry_out *ret_entry);
/** memfs_forget() - take @nlookup lookups back. */
void memfs_forget(uint64_t id, uint64_t nlookup);
/** memfs_getattr() - attributes. */
int memfs_getattr(uint64_t id, struct fuse_attr *ret_attr);
/** memfs_setattr() - change what @in says. */
int memfs_setattr(uint64_t id, const struct fuse_setattr_in *in, struct fuse_attr *ret_attr);
/**
 * memfs_make() - make a file, directory, symbolic link or other node.
 * @mode: with S_IFMT bits
 * @target: of a symbolic link, or NULL
 */
int memfs_make(uint64_t dir, const char *name, uint32_t mode, const struct fuse_in_header *in,
	       const char *target, struct fuse_entry_out *ret_entry);
/** memfs_link() - another name for @id. */
int memfs_link(uint64_t id, uint64_t dir, const char *name, struct fuse_entry_out *ret_entry);
/** memfs_unlink() - remove a name; with @rmdir an empty directory's, else another's. */
int memfs_unlink(uint64_t dir, const char *name, bool rmdir);
/** memfs_rename() - as renameat2(2); @flags may be 0 or RENAME_NOREPLACE. */
int memfs_rename(uint64_t dir, const char *name, uint64_t new_dir, const char *new_name,
		 unsigned int flags);
/** memfs_open() - an open file or directory keeps its node; O_TRUNC in @flags empties it. */
int memfs_open(uint64_t id, uint32_t flags);
/** memfs_release() - the end of memfs_open(). */
void memfs_release(uint64_t id);
/**
 * memfs_read() - lend the content from @off on.
 * @ret_data: stays valid, and the file's lock is held, until memfs_read_end()
 * Return: bytes at *@ret_data, at most @size; after an error there is nothing to end.
 */
ssize_t memfs_read(uint64_t id, uint64_t off, size_t size, const char **ret_data);
/** memfs_read_end() - the end of memfs_read(). */
void memfs_read_end(uint64_t id);
/** memfs_write() - write at @off. Return: bytes. */
ssize_t memfs_write(uint64_t id, uint64_t off, const void *data, size_t size);
/** memfs_fallocate() - as fallocate(2), with @mode 0 or FALLOC_FL_KEEP_SIZE. */
int memfs_fallocate(uint64_t id, uint64_t off, uint64_t len, uint32_t mode);
/** memfs_readlink() - the target goes into @buf. Return: its length, without an end. */
ssize_t memfs_readlink(uint64_t id, char *buf, size_t size);
/**
 * memfs_readdir() - entries behind the position @off, as FUSE has them.
 * @plus: with attributes; each entry counts as a lookup
 * Return: bytes in @buf.
 */
ssize_t memfs_readdir(uint64_t id, uint64_t off, char *buf, size_t size, bool plus);
/** memfs_setxattr() - @flags as setxattr(2). */
int memfs_setxattr(uint64_t id, const char *name, const void *value, size_t size, int flags);
/** memfs_getxattr() - as getxattr(2), size 0 included; with @name NULL as listxattr(2). */
ssize_t memfs_getxattr(uint64_t id, const char *name, void *buf, size_t size);
/** memfs_removexattr() - remove one. */
int memfs_removexattr(uint64_t id, const char *name);
/** memfs_statfs() - sizes. */
void memfs_statfs(struct fuse_kstatfs *ret_st);

#endif
