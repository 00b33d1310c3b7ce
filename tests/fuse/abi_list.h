/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes, offsets and values that two headers have in common; included once with each of them.
 *
 * MINOR: protocol minor of the header. ENTRY(text, value) makes one line.
 */
/* clang-format off */
#define SZ(t)	  ENTRY("sizeof " #t, sizeof(struct t))
#define OF(t, f)  ENTRY(#t "." #f, offsetof(struct t, f))
#define VAL(name) ENTRY(#name, (uint64_t)(name))

SZ(fuse_in_header), OF(fuse_in_header, unique), OF(fuse_in_header, nodeid), OF(fuse_in_header, uid),
OF(fuse_in_header, gid), OF(fuse_in_header, pid), SZ(fuse_out_header), OF(fuse_out_header, error),
OF(fuse_out_header, unique), SZ(fuse_attr), OF(fuse_attr, atime), OF(fuse_attr, atimensec),
OF(fuse_attr, mode), OF(fuse_attr, nlink), OF(fuse_attr, uid), OF(fuse_attr, gid), OF(fuse_attr, rdev),
OF(fuse_attr, blksize), OF(fuse_attr, flags), SZ(fuse_kstatfs), OF(fuse_kstatfs, bsize),
OF(fuse_kstatfs, namelen), OF(fuse_kstatfs, frsize), OF(fuse_kstatfs, spare), SZ(fuse_file_lock),
OF(fuse_file_lock, type), OF(fuse_file_lock, pid), SZ(fuse_entry_out), OF(fuse_entry_out, generation),
OF(fuse_entry_out, entry_valid), OF(fuse_entry_out, attr_valid), OF(fuse_entry_out, entry_valid_nsec),
OF(fuse_entry_out, attr), SZ(fuse_forget_in), SZ(fuse_forget_one), OF(fuse_forget_one, nlookup),
SZ(fuse_batch_forget_in), SZ(fuse_getattr_in), OF(fuse_getattr_in, fh), SZ(fuse_attr_out),
OF(fuse_attr_out, attr), SZ(fuse_mknod_in), OF(fuse_mknod_in, rdev), OF(fuse_mknod_in, umask),
SZ(fuse_mkdir_in), OF(fuse_mkdir_in, umask), SZ(fuse_rename_in), SZ(fuse_rename2_in),
OF(fuse_rename2_in, flags), SZ(fuse_link_in), SZ(fuse_setattr_in), OF(fuse_setattr_in, fh),
OF(fuse_setattr_in, size), OF(fuse_setattr_in, lock_owner), OF(fuse_setattr_in, atime),
OF(fuse_setattr_in, mtime), OF(fuse_setattr_in, ctime), OF(fuse_setattr_in, atimensec),
OF(fuse_setattr_in, mtimensec), OF(fuse_setattr_in, ctimensec), OF(fuse_setattr_in, mode),
OF(fuse_setattr_in, uid), OF(fuse_setattr_in, gid), SZ(fuse_open_in), OF(fuse_open_in, open_flags),
SZ(fuse_create_in), OF(fuse_create_in, mode), OF(fuse_create_in, umask),
OF(fuse_create_in, open_flags), SZ(fuse_open_out), OF(fuse_open_out, open_flags),
SZ(fuse_release_in), OF(fuse_release_in, flags), OF(fuse_release_in, release_flags),
OF(fuse_release_in, lock_owner), SZ(fuse_flush_in), OF(fuse_flush_in, lock_owner), SZ(fuse_read_in),
OF(fuse_read_in, offset), OF(fuse_read_in, size), OF(fuse_read_in, read_flags),
OF(fuse_read_in, lock_owner), OF(fuse_read_in, flags), SZ(fuse_write_in), OF(fuse_write_in, offset),
OF(fuse_write_in, size), OF(fuse_write_in, write_flags), OF(fuse_write_in, lock_owner),
OF(fuse_write_in, flags), SZ(fuse_write_out), SZ(fuse_statfs_out), SZ(fuse_fsync_in),
OF(fuse_fsync_in, fsync_flags), SZ(fuse_setxattr_in), OF(fuse_setxattr_in, flags),
OF(fuse_setxattr_in, setxattr_flags), SZ(fuse_getxattr_in), SZ(fuse_getxattr_out), SZ(fuse_lk_in),
OF(fuse_lk_in, owner), OF(fuse_lk_in, lk), OF(fuse_lk_in, lk_flags), SZ(fuse_lk_out),
SZ(fuse_access_in), SZ(fuse_init_in), OF(fuse_init_in, max_readahead), OF(fuse_init_in, flags),
OF(fuse_init_in, flags2), SZ(fuse_init_out), OF(fuse_init_out, max_background),
OF(fuse_init_out, congestion_threshold), OF(fuse_init_out, max_write), OF(fuse_init_out, time_gran),
OF(fuse_init_out, max_pages), OF(fuse_init_out, map_alignment), OF(fuse_init_out, flags2),
SZ(fuse_interrupt_in), SZ(fuse_bmap_in), OF(fuse_bmap_in, blocksize), SZ(fuse_bmap_out),
SZ(fuse_ioctl_in), OF(fuse_ioctl_in, flags), OF(fuse_ioctl_in, cmd), OF(fuse_ioctl_in, arg),
OF(fuse_ioctl_in, in_size), OF(fuse_ioctl_in, out_size), SZ(fuse_ioctl_iovec), SZ(fuse_ioctl_out),
OF(fuse_ioctl_out, flags), OF(fuse_ioctl_out, in_iovs), OF(fuse_ioctl_out, out_iovs),
SZ(fuse_poll_in), OF(fuse_poll_in, kh), OF(fuse_poll_in, flags), OF(fuse_poll_in, events),
SZ(fuse_poll_out), SZ(fuse_fallocate_in), OF(fuse_fallocate_in, offset),
OF(fuse_fallocate_in, length), OF(fuse_fallocate_in, mode), SZ(fuse_lseek_in),
OF(fuse_lseek_in, whence), SZ(fuse_lseek_out), SZ(fuse_copy_file_range_in),
OF(fuse_copy_file_range_in, off_in), OF(fuse_copy_file_range_in, nodeid_out),
OF(fuse_copy_file_range_in, fh_out), OF(fuse_copy_file_range_in, off_out),
OF(fuse_copy_file_range_in, len), OF(fuse_copy_file_range_in, flags), SZ(fuse_setupmapping_in),
OF(fuse_setupmapping_in, moffset), SZ(fuse_removemapping_in), SZ(fuse_removemapping_one),
SZ(fuse_syncfs_in), SZ(fuse_dirent), OF(fuse_dirent, off), OF(fuse_dirent, namelen),
OF(fuse_dirent, type), OF(fuse_dirent, name), SZ(fuse_direntplus), OF(fuse_direntplus, dirent),
SZ(fuse_secctx_header), SZ(fuse_secctx), SZ(fuse_notify_poll_wakeup_out),
SZ(fuse_notify_inval_inode_out), SZ(fuse_notify_inval_entry_out), SZ(fuse_notify_delete_out),
OF(fuse_notify_delete_out, namelen), SZ(fuse_notify_store_out), OF(fuse_notify_store_out, size),
SZ(fuse_notify_retrieve_out), OF(fuse_notify_retrieve_out, size), SZ(fuse_notify_retrieve_in),
OF(fuse_notify_retrieve_in, offset), OF(fuse_notify_retrieve_in, size),
ENTRY("NAME_OFFSET", FUSE_NAME_OFFSET), ENTRY("NAME_OFFSET_DIRENTPLUS", FUSE_NAME_OFFSET_DIRENTPLUS),

VAL(FUSE_KERNEL_VERSION), VAL(FUSE_ROOT_ID), VAL(FUSE_LOOKUP), VAL(FUSE_FORGET), VAL(FUSE_GETATTR),
VAL(FUSE_SETATTR), VAL(FUSE_READLINK), VAL(FUSE_SYMLINK), VAL(FUSE_MKNOD), VAL(FUSE_MKDIR),
VAL(FUSE_UNLINK), VAL(FUSE_RMDIR), VAL(FUSE_RENAME), VAL(FUSE_LINK), VAL(FUSE_OPEN), VAL(FUSE_READ),
VAL(FUSE_WRITE), VAL(FUSE_STATFS), VAL(FUSE_RELEASE), VAL(FUSE_FSYNC), VAL(FUSE_SETXATTR),
VAL(FUSE_GETXATTR), VAL(FUSE_LISTXATTR), VAL(FUSE_REMOVEXATTR), VAL(FUSE_FLUSH), VAL(FUSE_INIT),
VAL(FUSE_OPENDIR), VAL(FUSE_READDIR), VAL(FUSE_RELEASEDIR), VAL(FUSE_FSYNCDIR), VAL(FUSE_GETLK),
VAL(FUSE_SETLK), VAL(FUSE_SETLKW), VAL(FUSE_ACCESS), VAL(FUSE_CREATE), VAL(FUSE_INTERRUPT),
VAL(FUSE_BMAP), VAL(FUSE_DESTROY), VAL(FUSE_IOCTL), VAL(FUSE_POLL), VAL(FUSE_NOTIFY_REPLY),
VAL(FUSE_BATCH_FORGET), VAL(FUSE_FALLOCATE), VAL(FUSE_READDIRPLUS), VAL(FUSE_RENAME2),
VAL(FUSE_LSEEK), VAL(FUSE_COPY_FILE_RANGE), VAL(FUSE_SETUPMAPPING), VAL(FUSE_REMOVEMAPPING),
VAL(FUSE_SYNCFS), VAL(FUSE_TMPFILE), VAL(CUSE_INIT), VAL(CUSE_INIT_BSWAP_RESERVED),
VAL(FUSE_INIT_BSWAP_RESERVED), VAL(FUSE_NOTIFY_POLL), VAL(FUSE_NOTIFY_INVAL_INODE),
VAL(FUSE_NOTIFY_INVAL_ENTRY), VAL(FUSE_NOTIFY_STORE), VAL(FUSE_NOTIFY_RETRIEVE),
VAL(FUSE_NOTIFY_DELETE), VAL(FUSE_ASYNC_READ), VAL(FUSE_POSIX_LOCKS), VAL(FUSE_FILE_OPS),
VAL(FUSE_ATOMIC_O_TRUNC), VAL(FUSE_EXPORT_SUPPORT), VAL(FUSE_BIG_WRITES), VAL(FUSE_DONT_MASK),
VAL(FUSE_SPLICE_WRITE), VAL(FUSE_SPLICE_MOVE), VAL(FUSE_SPLICE_READ), VAL(FUSE_FLOCK_LOCKS),
VAL(FUSE_HAS_IOCTL_DIR), VAL(FUSE_AUTO_INVAL_DATA), VAL(FUSE_DO_READDIRPLUS),
VAL(FUSE_READDIRPLUS_AUTO), VAL(FUSE_ASYNC_DIO), VAL(FUSE_WRITEBACK_CACHE),
VAL(FUSE_NO_OPEN_SUPPORT), VAL(FUSE_PARALLEL_DIROPS), VAL(FUSE_HANDLE_KILLPRIV), VAL(FUSE_POSIX_ACL),
VAL(FUSE_ABORT_ERROR), VAL(FUSE_MAX_PAGES), VAL(FUSE_CACHE_SYMLINKS), VAL(FUSE_NO_OPENDIR_SUPPORT),
VAL(FUSE_EXPLICIT_INVAL_DATA), VAL(FUSE_MAP_ALIGNMENT), VAL(FUSE_SUBMOUNTS),
VAL(FUSE_HANDLE_KILLPRIV_V2), VAL(FUSE_SETXATTR_EXT), VAL(FUSE_INIT_EXT), VAL(FUSE_SECURITY_CTX),
VAL(FUSE_HAS_INODE_DAX), VAL(FATTR_MODE), VAL(FATTR_UID), VAL(FATTR_GID), VAL(FATTR_SIZE),
VAL(FATTR_ATIME), VAL(FATTR_MTIME), VAL(FATTR_FH), VAL(FATTR_ATIME_NOW), VAL(FATTR_MTIME_NOW),
VAL(FATTR_LOCKOWNER), VAL(FATTR_CTIME), VAL(FATTR_KILL_SUIDGID), VAL(FOPEN_DIRECT_IO),
VAL(FOPEN_KEEP_CACHE), VAL(FOPEN_NONSEEKABLE), VAL(FOPEN_CACHE_DIR), VAL(FOPEN_STREAM),
VAL(FOPEN_NOFLUSH), VAL(FUSE_GETATTR_FH),
VAL(FUSE_OPEN_KILL_SUIDGID), VAL(FUSE_RELEASE_FLUSH), VAL(FUSE_RELEASE_FLOCK_UNLOCK),
VAL(FUSE_LK_FLOCK), VAL(FUSE_WRITE_CACHE), VAL(FUSE_WRITE_LOCKOWNER), VAL(FUSE_WRITE_KILL_SUIDGID),
VAL(FUSE_READ_LOCKOWNER), VAL(FUSE_FSYNC_FDATASYNC), VAL(FUSE_SETXATTR_ACL_KILL_SGID),
VAL(FUSE_POLL_SCHEDULE_NOTIFY), VAL(FUSE_ATTR_SUBMOUNT), VAL(FUSE_ATTR_DAX),
VAL(FUSE_SETUPMAPPING_FLAG_WRITE), VAL(FUSE_SETUPMAPPING_FLAG_READ), VAL(FUSE_IOCTL_COMPAT),
VAL(FUSE_IOCTL_UNRESTRICTED), VAL(FUSE_IOCTL_RETRY), VAL(FUSE_IOCTL_32BIT), VAL(FUSE_IOCTL_DIR),
VAL(FUSE_IOCTL_COMPAT_X32), VAL(FUSE_IOCTL_MAX_IOV), VAL(FUSE_MIN_READ_BUFFER),
VAL(FUSE_COMPAT_ENTRY_OUT_SIZE), VAL(FUSE_COMPAT_ATTR_OUT_SIZE), VAL(FUSE_COMPAT_MKNOD_IN_SIZE),
VAL(FUSE_COMPAT_WRITE_IN_SIZE), VAL(FUSE_COMPAT_STATFS_SIZE), VAL(FUSE_COMPAT_SETXATTR_IN_SIZE),
VAL(FUSE_COMPAT_INIT_OUT_SIZE), VAL(FUSE_COMPAT_22_INIT_OUT_SIZE),
ENTRY("REC_ALIGN 1", FUSE_REC_ALIGN(1)), ENTRY("REC_ALIGN 8", FUSE_REC_ALIGN(8)),
ENTRY("REC_ALIGN 9", FUSE_REC_ALIGN(9)),

#if FUSE_KERNEL_MINOR_VERSION >= 38
VAL(FOPEN_PARALLEL_DIRECT_WRITES),
#endif
/* Some kernels of 7.38 have half of these. */
#if FUSE_KERNEL_MINOR_VERSION >= 39
VAL(FUSE_CREATE_SUPP_GROUP), VAL(FUSE_HAS_EXPIRE_ONLY), VAL(FUSE_EXPIRE_ONLY),
VAL(FUSE_MAX_NR_SECCTX), VAL(FUSE_EXT_GROUPS), SZ(fuse_ext_header), SZ(fuse_supp_groups),
OF(fuse_in_header, total_extlen),
VAL(FUSE_STATX), SZ(fuse_statx), OF(fuse_statx, mode), OF(fuse_statx, ino), OF(fuse_statx, atime),
OF(fuse_statx, rdev_major), SZ(fuse_statx_in), OF(fuse_statx_in, sx_mask), SZ(fuse_statx_out),
OF(fuse_statx_out, stat), VAL(FUSE_DIRECT_IO_ALLOW_MMAP),
#endif
#if FUSE_KERNEL_MINOR_VERSION >= 40
VAL(FUSE_PASSTHROUGH), VAL(FUSE_NO_EXPORT_SUPPORT), VAL(FUSE_HAS_RESEND), VAL(FUSE_NOTIFY_RESEND),
VAL(FOPEN_PASSTHROUGH), OF(fuse_init_out, max_stack_depth), OF(fuse_open_out, backing_id),
#endif
#if FUSE_KERNEL_MINOR_VERSION >= 41
VAL(FUSE_ALLOW_IDMAP),
#endif
#if FUSE_KERNEL_MINOR_VERSION >= 43
VAL(FUSE_OVER_IO_URING), VAL(FUSE_REQUEST_TIMEOUT), OF(fuse_init_out, request_timeout),
#endif
#if FUSE_KERNEL_MINOR_VERSION >= 45
VAL(FUSE_COPY_FILE_RANGE_64), SZ(fuse_copy_file_range_out), VAL(FUSE_NOTIFY_INC_EPOCH),
VAL(FUSE_NOTIFY_PRUNE), SZ(fuse_notify_prune_out),
#endif
