/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon finds on its mount point: an empty file system of ours, in its own mount namespace.
 */
#ifndef FUSEWIRE_LAUNCH_PLACEHOLDER_H
#define FUSEWIRE_LAUNCH_PLACEHOLDER_H

#include "launch/mount_options.h"

struct placeholder;

/**
 * struct placeholder_config - one mount.
 * @tid: thread that called mount(2) and waits in it: its namespace, root and working directory count
 * @mnt: what it asked for
 * @flags: mount(2)'s
 * @options: mount(2)'s data, as the daemon gave it
 * @ended: called on a thread of the placeholder's when somebody unmounted it, or its namespace is gone. May be called
 *         before placeholder_mount() returns; must not call into the placeholder
 * @still_waits: does @tid still wait, so that its number is no other thread's? Called on the caller's thread
 * @ctx: for both
 */
struct placeholder_config {
	pid_t tid;
	const struct launch_mount *mnt;
	unsigned long flags;
	const char *options;
	void (*ended)(void *ctx);
	bool (*still_waits)(void *ctx);
	void *ctx;
};

/**
 * placeholder_mount() - put it there: a FUSE mount of the daemon's own source, type and options, or, where that
 * cannot be, a tmpfs. A thread that may not mount by itself gets it where fusermount would let it mount, nosuid and nodev.
 *
 * Context: forks and waits for the child, some seconds at most. Return: 0; -EXDEV when the thread has no mount namespace of
 * its own; -ESRCH when it no longer waits; negative errno when nothing can be mounted there.
 */
int must_check placeholder_mount(struct placeholder **ret_ph,
				 const struct placeholder_config *config);

/**
 * placeholder_is_at() - does @path, as thread @tid would resolve it, lie in the placeholder?
 *
 * Asks the file system nothing. Context: any thread. @ph may be NULL: false.
 */
bool placeholder_is_at(const struct placeholder *ph, pid_t tid, const char *path);

/**
 * placeholder_unmount() - take it away.
 * @pid: a process in its namespace
 *
 * Context: forks and waits for the child. Return: 0 or negative errno.
 */
int must_check placeholder_unmount(struct placeholder *ph, pid_t pid);

/** placeholder_has_ended() - was it unmounted? Context: any thread. @ph may be NULL: false. */
bool placeholder_has_ended(const struct placeholder *ph);

/** placeholder_free() - answer no more; what is still mounted is dead from now on. NULL is allowed. */
void placeholder_free(struct placeholder *ph);

#endif
