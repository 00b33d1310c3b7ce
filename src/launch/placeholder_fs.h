/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file system of a placeholder: a root, and a file that one library looks for.
 */
#ifndef FUSEWIRE_LAUNCH_PLACEHOLDER_FS_H
#define FUSEWIRE_LAUNCH_PLACEHOLDER_FS_H

#include <sys/types.h>

#include "base/compiler.h"

/** PLACEHOLDER_POLLED - name of the file that go-fuse opens and polls after it mounted, and gives up without. */
#define PLACEHOLDER_POLLED ".go-fuse-epoll-hack"

/** PLACEHOLDER_BUFFER - bytes of the longest request: FUSE_MIN_READ_BUFFER, more than one page of data. */
#define PLACEHOLDER_BUFFER 8192

/**
 * struct placeholder_fs - one of them.
 * @fd: the kernel's fuse device
 * @rootmode: file type of the root
 * @uid: its owner
 * @gid: its group
 */
struct placeholder_fs {
	int fd;
	mode_t rootmode;
	uid_t uid;
	gid_t gid;
};

/**
 * placeholder_fs_serve() - take one request from the kernel and answer it.
 *
 * @buf: PLACEHOLDER_BUFFER bytes. Context: does not block if @fs->fd does not. Return: 0; -EAGAIN; -ENODEV when it is unmounted.
 */
int must_check placeholder_fs_serve(const struct placeholder_fs *fs, char *buf);

#endif
