/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File descriptors: small wrappers that return negative errno and retry on EINTR.
 */
#ifndef FUSEWIRE_BASE_FD_H
#define FUSEWIRE_BASE_FD_H

#include "base/compiler.h"

/** fd_set_nonblock() - set or clear O_NONBLOCK. Return: 0 or negative errno. */
int must_check fd_set_nonblock(int fd, bool on);

/**
 * fd_signal() - make the reader of an eventfd, or of a pipe that stands in for one, wake up.
 *
 * Writes 8 bytes. The process must ignore SIGPIPE: the reader of a pipe may be gone. Context: any thread;
 * does not block when @fd is O_NONBLOCK. A full counter or pipe
 * (EAGAIN) is success: the reader has a wake-up waiting. Return: 0 or negative errno.
 */
int fd_signal(int fd);

/** fd_ignore_sigpipe() - what fd_signal() on pipes needs: SIGPIPE is ignored from now on, if it has its default disposition. */
void fd_ignore_sigpipe(void);

/**
 * fd_drain_signal() - consume what fd_signal() left, without blocking when @fd is O_NONBLOCK.
 *
 * Return: 1 if there was a signal, 0 if not (EAGAIN), -EPIPE at end of file, other negative errno.
 */
int must_check fd_drain_signal(int fd);

/** eventfd_new() - a non-blocking CLOEXEC eventfd. Return: the descriptor or negative errno. */
int must_check eventfd_new(void);

/**
 * memfd_new() - an anonymous CLOEXEC file of @size bytes that cannot be shrunk or grown any more.
 * @name: shown in /proc/PID/fd
 *
 * Return: the descriptor or negative errno.
 */
int must_check memfd_new(const char *name, uint64_t size);

#endif
