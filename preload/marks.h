/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which of the process's descriptors stand for /dev/fuse, and which are pipes of its library. All others are none of our business: for them an interposed call
 * costs one load.
 */
#ifndef FUSEWIRE_PRELOAD_MARKS_H
#define FUSEWIRE_PRELOAD_MARKS_H

#include "base/compiler.h"

/** MARKS_MAX - descriptors from here on are never taken for /dev/fuse. */
#define MARKS_MAX 65536

enum {
	MARK_FUSE = 1,
	MARK_NONBLOCK = 2,
	MARK_PIPE = 4, /* not /dev/fuse, but a pipe that libfuse has made (fuse_pipe.h) */
	MARK_PIPE_END = 8, /* where it is written */
};

extern uint8_t marks[MARKS_MAX];
/** marks_nr - descriptors that stand for /dev/fuse. */
extern unsigned int marks_nr;

/** mark_of() - what is known of @fd; 0: nothing. */
static inline uint8_t mark_of(int fd)
{
	return likely((unsigned int)fd < MARKS_MAX) ? READ_ONCE(marks[fd]) : 0;
}

/** marked() - does @fd stand for /dev/fuse? */
static inline bool marked(int fd)
{
	return unlikely(mark_of(fd) & MARK_FUSE);
}

/** mark() - @fd stands for /dev/fuse; notes whether it blocks. */
void mark(int fd);
/** unmark() - @fd was, or is about to be, closed. Return: it was the last that stood for /dev/fuse. */
bool unmark(int fd);
/** mark_copy() - @to became a duplicate of @from, whatever it was before. Return: it was the last that stood for /dev/fuse, and none does now. */
bool mark_copy(int from, int to);
/** mark_set_nonblock() - O_NONBLOCK of @fd was set or cleared. */
void mark_set_nonblock(int fd, bool on);
/** mark_if_ours() - mark @fd if it is an end of a message socket that process @owner made. */
void mark_if_ours(int fd, int owner);
/** marks_scan() - mark_if_ours() for all descriptors that the process was started with. */
void marks_scan(int owner);

#endif
