/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looks into a process that waits in an intercepted system call: its memory, descriptors and paths.
 *
 * All of it may change under our eyes when the process has other threads, or is gone when a signal came.
 * The caller asks SECCOMP_IOCTL_NOTIF_ID_VALID after the last look and before it acts: the process whose
 * number was used then was the right one.
 */
#ifndef FUSEWIRE_LAUNCH_TRACEE_H
#define FUSEWIRE_LAUNCH_TRACEE_H

#include <sys/stat.h>
#include <sys/types.h>

#include "base/compiler.h"

/** tracee_read() - copy @len bytes at @addr of thread @tid. Return: 0, -EFAULT, -ESRCH, -EPERM. */
int must_check tracee_read(pid_t tid, uint64_t addr, void *buf, size_t len);

/**
 * tracee_read_string() - copy a NUL-terminated string.
 * @cap: size of @buf, > 0
 *
 * Return: its length; -ENAMETOOLONG when no NUL is among the first @cap bytes; errors of tracee_read().
 */
int must_check tracee_read_string(pid_t tid, uint64_t addr, char *buf, size_t cap);

/** tracee_socket_inode() - inode number of the socket that is descriptor @fd there. Return: 0; -ENOTSOCK; -EBADF; negative errno. */
int must_check tracee_socket_inode(pid_t tid, int fd, ino_t *ret_ino);

/** tracee_process() - the process that thread @tid belongs to. Return: its id; negative errno. */
pid_t must_check tracee_process(pid_t tid);

/** tracee_take_fd() - a duplicate of process @pid's descriptor @fd. Return: the descriptor; -EPERM, -EBADF, -ESRCH, -ENOSYS, ... */
int must_check tracee_take_fd(pid_t pid, int fd);

/**
 * tracee_open_path() - an O_PATH descriptor of @path as the thread would resolve it, from its root or working directory.
 *
 * Absolute links lead from the thread's root, not from ours. Return: the descriptor or negative errno.
 */
int must_check tracee_open_path(pid_t tid, const char *path);

/**
 * tracee_device() - device number of what @fd, an O_PATH descriptor, names.
 *
 * Asks for nothing else: that a FUSE mount tells without asking its daemon, and everybody. Return: 0 or negative errno.
 */
int must_check tracee_device(int fd, dev_t *ret_dev);

/**
 * tracee_place() - device and inode number of @path, as the thread would resolve it.
 *
 * A file system whose daemon does not answer is not asked. Return: 0 or negative errno.
 */
int must_check tracee_place(pid_t tid, const char *path, dev_t *ret_dev, ino_t *ret_ino);

/**
 * struct tracee_identity - as whom a thread acts; numbers of our user namespace.
 * @euid: effective user
 * @fsuid: user that files are opened as
 * @fsgid: group that files are opened as
 * @may_mount: has CAP_SYS_ADMIN in its own user namespace
 */
struct tracee_identity {
	uid_t euid;
	uid_t fsuid;
	gid_t fsgid;
	bool may_mount;
};

/** tracee_identify() - as whom does thread @tid act? Return: 0 or negative errno. */
int must_check tracee_identify(pid_t tid, struct tracee_identity *ret_identity);

#endif
