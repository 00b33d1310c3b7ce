/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mount namespaces: one of our own, and the one of another process.
 */
#ifndef FUSEWIRE_LAUNCH_NAMESPACE_H
#define FUSEWIRE_LAUNCH_NAMESPACE_H

#include <sys/types.h>

#include "base/compiler.h"

/**
 * namespace_unshare() - give the calling process mounts of its own.
 * @may_user: where mounting is not allowed, do it in a user namespace, too
 *
 * What others mount and unmount outside, where their mounts are shared, is seen inside; nothing that is mounted inside is seen
 * outside. In a user namespace user and group keep their numbers; those of all others show as 65534, no_new_privs
 * is set, and all capabilities last until the next exec.
 *
 * Context: a process with one thread; async-signal-safe. Return: 0 or negative errno; after an error with @may_user the process
 * may be in a user namespace without an identity: it is of no more use. See namespace_probe().
 */
int must_check namespace_unshare(bool may_user);

/** namespace_mounts_are_shared() - do mounts and unmounts of ours reach namespaces that are copies of this one? Of "/", which stands for all. */
bool must_check namespace_mounts_are_shared(void);

/** namespace_probe() - would namespace_unshare() work? Context: forks and waits. Return: 0 or negative errno. */
int must_check namespace_probe(bool may_user);

/**
 * struct namespace_fds - the namespaces of a process; -1 where they are the caller's.
 * @user: its user namespace
 * @mnt: its mount namespace
 */
struct namespace_fds {
	int user;
	int mnt;
};

/**
 * namespace_open() - the namespaces of thread @tid. While they are open, they and the mounts in them stay.
 *
 * Return: 0 with *@ret_fds to be closed by namespace_close(), or negative errno.
 */
int must_check namespace_open(pid_t tid, struct namespace_fds *ret_fds);
/** namespace_close() - counterpart of namespace_open(). */
void namespace_close(struct namespace_fds *fds);
/** namespace_enter() - go there. Context: a process with one thread; async-signal-safe. Return: 0 or negative errno. */
int must_check namespace_enter(const struct namespace_fds *fds);

#endif
