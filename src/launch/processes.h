/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The descendants of this process that are the command's: without those that this process had before it started one.
 */
#ifndef FUSEWIRE_LAUNCH_PROCESSES_H
#define FUSEWIRE_LAUNCH_PROCESSES_H

#include <sys/types.h>

#include "base/compiler.h"

/**
 * processes_prepare() - remember who is there: none of the command's, and what they start is neither.
 *
 * Context: before the command is started, and before another thread runs.
 */
void processes_prepare(void);

/**
 * processes_left() - may there be a process of the command?
 *
 * waitpid(2) says so by itself where all children are the command's; this is for who has others, too. Context: the thread that reaps.
 * Return: false when all children that are left are others'.
 */
bool processes_left(void);

/**
 * processes_signal() - send @sig to every process of the command.
 *
 * Descendants come from the parent field of /proc/PID/stat, walked from us downwards; a process that was reaped and whose number
 * was given anew while we looked is not signalled, since a pidfd is opened before its parent is looked up.
 * Processes that we may not signal are left out.
 *
 * Return: number of processes signalled, or negative errno when /proc cannot be read.
 */
int processes_signal(int sig);

/**
 * processes_list() - the processes of the command, as they are now.
 * @pids: room for @cap of them
 *
 * Return: how many there are in @pids, or negative errno when /proc cannot be read.
 */
int must_check processes_list(pid_t *pids, unsigned int cap);

/** process_signal() - send @sig to @pid if it is the command's: a descendant, not only a child, of this process. Return: was it sent? */
bool process_signal(pid_t pid, int sig);

/** process_number() - is the name of a directory entry in /proc a whole number? */
bool process_number(const char *name, int *ret_number);

#endif
