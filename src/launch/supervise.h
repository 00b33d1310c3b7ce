/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers the system calls that the filter passes on: hands out sockets for /dev/fuse and accepts mounts.
 */
#ifndef FUSEWIRE_LAUNCH_SUPERVISE_H
#define FUSEWIRE_LAUNCH_SUPERVISE_H

#include "launch/mount_options.h"

struct supervisor;

/**
 * struct supervisor_events - what the supervisor tells its owner; all called from supervisor_handle().
 * @mounted: a FUSE file system was mounted. @fd, our end of its socket, is the callee's if it returns 0; a negative errno is
 *           what the daemon's mount(2) fails with
 * @unmounted: somebody unmounted it
 * @changed: on another thread, at any time: call supervisor_check() soon
 * @ctx: for all of them
 */
struct supervisor_events {
	int (*mounted)(void *ctx, const struct launch_mount *mnt, int fd);
	void (*unmounted)(void *ctx);
	void (*changed)(void *ctx);
	void *ctx;
};

/**
 * supervisor_new() - answer for the filter behind @notify_fd.
 * @notify_fd: from filter_install(); taken over on success
 * @placeholders: who mounts in a mount namespace that is not ours finds a placeholder there
 * @events: copied
 *
 * Return: 0, -ENOMEM, or negative errno.
 */
int must_check supervisor_new(struct supervisor **ret_sup, int notify_fd, bool placeholders,
			      const struct supervisor_events *events);
/** supervisor_free() - NULL is allowed. Intercepted calls fail with ENOSYS from now on. */
void supervisor_free(struct supervisor *sup);

/** supervisor_fd() - descriptor to poll: POLLIN for a call to answer, POLLHUP when no process is left under the filter. */
int supervisor_fd(const struct supervisor *sup);

/** supervisor_handle() - answer one call. Context: supervisor's thread; blocks until there is one. */
void supervisor_handle(struct supervisor *sup);

/** supervisor_check() - has something happened that no intercepted call tells? Context: supervisor's thread. */
void supervisor_check(struct supervisor *sup);

/** supervisor_unmount() - take the placeholder away, in which process @pid finds it. Context: supervisor's thread. */
void supervisor_unmount(struct supervisor *sup, pid_t pid);

/** supervisor_knows() - is this socket inode the other end of one that was mounted? */
bool supervisor_knows(const struct supervisor *sup, ino_t ino);

/**
 * supervisor_replace() - wait until thread @tid calls ioctl(@fd, FUSE_DEV_IOC_CLONE, 0) and put @src in the place of @fd.
 *
 * Other calls that come meanwhile are answered. Context: supervisor's thread; waits at most a second.
 * Return: 0; -ETIMEDOUT; negative errno of the installation.
 */
int must_check supervisor_replace(struct supervisor *sup, pid_t tid, int fd, int src);

/**
 * supervisor_hold() - keep a daemon's end of a socket open until the supervisor is freed: an epoll set there that has it
 * forgets it when its last descriptor is gone, and whoever waits in that set would wait for ever.
 * @fd: a duplicate of ours; taken over
 */
void supervisor_hold(struct supervisor *sup, int fd);

/** supervisor_hang_up() - wake who waits for sockets that are held, in epoll, poll or select. They read, and meet what is there now. */
void supervisor_hang_up(struct supervisor *sup);

#endif
