/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a command so that it, and all that it starts, meets a message socket in place of /dev/fuse.
 */
#ifndef FUSEWIRE_LAUNCH_LAUNCH_H
#define FUSEWIRE_LAUNCH_LAUNCH_H

#include <sys/types.h>

#include "launch/mount_options.h"

struct launch;

/**
 * enum launch_placeholder - does the command find a file system on its mount point? It takes a mount namespace of its own.
 * @LAUNCH_PLACEHOLDER_AUTO: if we may mount and "/" is shared, so that nobody else's unmount is held up; else only for programs of the
 *                          kind that look, if need be in a user namespace
 * @LAUNCH_PLACEHOLDER_ALWAYS: or the command is not started
 * @LAUNCH_PLACEHOLDER_NEVER: the command sees the mounts that we see; in namespaces that it makes itself, too, nothing of ours is mounted
 */
enum launch_placeholder {
	LAUNCH_PLACEHOLDER_AUTO,
	LAUNCH_PLACEHOLDER_ALWAYS,
	LAUNCH_PLACEHOLDER_NEVER,
};

/**
 * struct launch_events - what happens to the command; called on the launch's own thread, except where it says
 * otherwise. None of them may call launch_free().
 * @mounted: the command mounted a FUSE file system. @fd is our end of an AF_UNIX SOCK_SEQPACKET pair whose
 *           other end the daemon reads as /dev/fuse; it is the callee's if it returns 0. The daemon's mount(2) waits for the
 *           return, and fails with a negative errno
 * @unmounted: somebody unmounted it, or, with a placeholder, the last process that saw it is gone
 * @exited: nothing of what was started is left. @status as from waitpid(2): of the process that
 *          launch_set_server() named, if it was ours to reap, else of the command itself; exit status 1 where something is left
 *          that SIGKILL does not end. The last call
 */
struct launch_events {
	int (*mounted)(void *ctx, const struct launch_mount *mnt, int fd);
	void (*unmounted)(void *ctx);
	void (*exited)(void *ctx, int status);
};

/**
 * launch_prepare() - once per process, before its first thread: block SIGCHLD, become the reaper of orphans.
 *
 * Children that this process has already, from before exec(2), are let be, with all that they start; every later one is taken for a
 * launch's. Return: 0 or negative errno.
 */
int must_check launch_prepare(void);

/**
 * launch_start() - start a command.
 * @argv: NULL-terminated; looked up in PATH
 * @placeholder: see there
 * @events: copied
 * @ctx: for the events
 * @ret_why: on error a static text for people: what could not be done
 *
 * The command gets our standard streams, environment, working directory and process group. One launch at
 * a time. Context: any thread of a process that called launch_prepare().
 *
 * Return: 0; -ENOENT, -EACCES, ... when the command cannot be executed; other negative errno.
 */
int must_check launch_start(struct launch **ret_launch, char *const *argv,
			    enum launch_placeholder placeholder, const struct launch_events *events,
			    void *ctx, const char **ret_why);

/** launch_set_server() - the process that answers FUSE requests, whose exit status counts. Context: any thread. */
void launch_set_server(struct launch *launch, pid_t pid);

/**
 * launch_unmount() - let the daemon see that it was unmounted: reading its device gives ENODEV from now on.
 *
 * It then ends as after an orderly unmount, with the exit status of one. Its sockets see the other end closed.
 * Call it after the daemon answered DESTROY. Context: any thread but the launch's; waits, at most ten seconds.
 *
 * Return: 0; -ESRCH when the process that serves is not known or gone; -ETIMEDOUT when the launch's thread is held up; -EPERM, -ENOSYS, ... where it
 * cannot be done (no FUSE in this kernel, no right to mount or to trace): launch_finish() with SIGTERM is next best.
 */
int must_check launch_unmount(struct launch *launch);

/**
 * launch_finish() - all shall be gone soon: nothing for @grace_ns, then SIGTERM, @term_ns after that SIGKILL, for a few seconds.
 * @terminate: SIGTERM at once to the process that serves (or, before there is one, to the command)
 *
 * Signals only processes that descend from the command. Context: any thread; may be called again, and the
 * shorter times hold.
 */
void launch_finish(struct launch *launch, uint64_t grace_ns, uint64_t term_ns, bool terminate);

/** launch_free() - end what is left by SIGKILL, reap it, free. Context: not from an event. NULL is allowed. */
void launch_free(struct launch *launch);

#endif
