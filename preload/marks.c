/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which of the process's descriptors stand for /dev/fuse.
 *
 * A child of vfork(2) has our memory, but descriptors of its own: those that it closes, or replaces, before it executes a program are
 * what they were here. So whose the marks are is written down, and a process that is somebody else changes none.
 */
#include "marks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuse_pipe.h"
#include "real.h"

uint8_t marks[MARKS_MAX];
unsigned int marks_nr;
/* In a page that is empty in the copy of a child that was forked without fork(3). NULL: not known. */
static pid_t *whose;

static void own(void)
{
	*whose = getpid();
}

static void __attribute__((constructor(101))) own_at_start(void)
{
	const size_t bytes = sizeof(*whose);
	void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	whose = page;
	own();
	if (madvise(page, bytes, MADV_WIPEONFORK) < 0 || pthread_atfork(NULL, NULL, own)) {
		whose = NULL;
		munmap(page, bytes);
	}
}

static bool somebody_elses(void)
{
	return whose && *whose && *whose != getpid();
}

void mark(int fd)
{
	int flags = REAL(fcntl)(fd, F_GETFL);
	uint8_t is = MARK_FUSE, was;

	if ((unsigned int)fd >= MARKS_MAX || somebody_elses())
		return;
	if (flags >= 0 && (flags & O_NONBLOCK))
		is |= MARK_NONBLOCK;
	was = __atomic_exchange_n(&marks[fd], is, __ATOMIC_ACQ_REL);
	if (was & MARK_PIPE)
		fuse_pipe_closed(fd);
	if (!(was & MARK_FUSE))
		__atomic_add_fetch(&marks_nr, 1, __ATOMIC_ACQ_REL);
}

bool unmark(int fd)
{
	uint8_t was;

	if (!mark_of(fd) || somebody_elses())
		return false;
	was = __atomic_exchange_n(&marks[fd], 0, __ATOMIC_ACQ_REL);
	if (was & MARK_PIPE)
		fuse_pipe_closed(fd);
	if (!(was & MARK_FUSE))
		return false;
	return __atomic_sub_fetch(&marks_nr, 1, __ATOMIC_ACQ_REL) == 0;
}

bool mark_copy(int from, int to)
{
	bool last;

	if (from == to || somebody_elses())
		return false;
	last = unmark(to);
	if (marked(from)) {
		mark(to);
		return false;
	}
	if (mark_of(from) & MARK_PIPE)
		fuse_pipe_dup(from, to);
	return last;
}

void mark_set_nonblock(int fd, bool on)
{
	if (on)
		__atomic_fetch_or(&marks[fd], MARK_NONBLOCK, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&marks[fd], (uint8_t)~MARK_NONBLOCK, __ATOMIC_RELAXED);
}

void mark_if_ours(int fd, int owner)
{
	const int saved = errno;
	struct ucred peer;
	socklen_t len = sizeof(int);
	int type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET) {
		len = sizeof(peer);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid == owner)
			mark(fd);
	}
	errno = saved;
}

void marks_scan(int owner)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		/* "." and ".." are 0, and not ours. */
		int fd = (int)strtol(d->d_name, NULL, 10);

		if (fd > 2 && fd != dirfd(dir))
			mark_if_ours(fd, owner);
	}
	if (dir)
		closedir(dir);
}
