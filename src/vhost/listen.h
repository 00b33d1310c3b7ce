/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A listening AF_UNIX socket at a path: made safely, removed only if it is still ours.
 */
#ifndef FUSEWIRE_VHOST_LISTEN_H
#define FUSEWIRE_VHOST_LISTEN_H

#include <sys/types.h>

#include "base/compiler.h"

/** VHOST_LISTEN_TEXT - bytes for the message that goes with an error. */
#define VHOST_LISTEN_TEXT 256

/** VHOST_LISTEN_NO_GROUP - vhost_listen_open()'s @group: leave it as it comes. */
#define VHOST_LISTEN_NO_GROUP ((gid_t)-1)

/**
 * struct vhost_listener - a socket and the path that it was bound to.
 * @fd: listening socket, CLOEXEC and non-blocking, or -1
 * @path: where it was bound; ours to free
 * @dev: device of the socket's inode
 * @ino: number of the socket's inode
 */
struct vhost_listener {
	int fd;
	char *path;
	dev_t dev;
	ino_t ino;
};

/**
 * vhost_listen_open() - bind and listen.
 * @ret: filled in on success; closed with vhost_listen_close()
 * @path: place in the file system; relative to the current directory of now
 * @group: may connect, too (mode 0660), or VHOST_LISTEN_NO_GROUP (mode 0600)
 * @text: on error: what is wrong, for people, without a newline; VHOST_LISTEN_TEXT bytes
 *
 * The umask can only take permissions away. A socket at @path that nobody serves is replaced; one that is
 * served is not, nor is anything that is no socket.
 *
 * Return: 0; -ENAMETOOLONG (an address holds 107 bytes); -EINVAL for an empty path; -ENOENT or -ENOTDIR without the
 * parent folder; -EADDRINUSE when a process serves @path; -EEXIST when @path is no socket; negative errno of
 * socket(2), bind(2), listen(2), chown(2).
 */
int must_check vhost_listen_open(struct vhost_listener *ret, const char *path, gid_t group,
				 char text[VHOST_LISTEN_TEXT]);

/**
 * vhost_listen_close() - close the socket, and remove the path if it still leads to it.
 *
 * May be called twice, and for a listener with fd -1 and no path.
 */
void vhost_listen_close(struct vhost_listener *l);

#endif
