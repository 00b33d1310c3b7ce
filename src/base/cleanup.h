/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scope-bound release of memory and file descriptors, and hand-over of ownership.
 */
#ifndef FUSEWIRE_BASE_CLEANUP_H
#define FUSEWIRE_BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/** autofree - free() the pointer variable when it leaves scope. */
#define autofree __attribute__((cleanup(cleanup_free)))
/** autoclose - close() the descriptor variable when it leaves scope; -1 is none. */
#define autoclose __attribute__((cleanup(cleanup_close)))

/** TAKE_PTR - the value of the pointer variable @p, which is NULL afterwards. */
#define TAKE_PTR(p)                       \
	({                                \
		__auto_type _taken = (p); \
		(p) = NULL;               \
		_taken;                   \
	})

/** TAKE_FD - the value of the descriptor variable @fd, which is -1 afterwards. */
#define TAKE_FD(fd)                \
	({                         \
		int _taken = (fd); \
		(fd) = -1;         \
		_taken;            \
	})

/** cleanup_free() - what autofree calls. */
static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

/**
 * close_fd() - close *@fd unless it is -1, and set it to -1; errno stays as it was.
 * @fd: the variable that owns the descriptor
 */
static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

/** cleanup_close() - what autoclose calls. */
static inline void cleanup_close(int *fd)
{
	close_fd(fd);
}

#endif
