/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pipes through which libfuse splices messages of its session: bytes in our memory, or in the driver's, and no pipe at all.
 *
 * Theory of operation
 * -------------------
 * For each thread libfuse makes a pipe, wants it to be as large as a message, and splices requests into it and from it into the
 * file system's files, and replies the other way. A real pipe costs a copy more than that, where it is allowed at all: it holds pages
 * of ours, not the driver's, and 1 MiB with a header is above /proc/sys/fs/pipe-max-size. So the pipe is only played:
 *
 * - what is spliced into it from /dev/fuse is a request: its header is in `buf`, the data of a WRITE stay where the driver has
 *   them (struct inproc_loan) and go into the file from there;
 * - what is spliced into it from a file behind a reply's header goes to where the driver wants it (inproc_fill()), if it can be had
 *   without waiting, else into `buf`;
 * - all else is in `buf`. In whatever order it is taken out, and by whatever call, it is the same bytes.
 *
 * Which pipes. One that libfuse has made (pipe2(2) was called from a library of that name), that has never held anything, from
 * the moment that libfuse asks for more room than a new pipe has. libfuse shows such a pipe to nobody but the write_buf
 * operation of the file system, which hands it back to libfuse, or reads or splices it. An application's own pipe is never one.
 *
 * The first request that libfuse wants to splice into a pipe it does not get, but EINTR, when INIT was answered: it looks again then whether
 * it wants to splice at all. While one thread handles INIT it says that it does, for a moment, of file systems of which it does not (those
 * without write_buf). Another thread that meets that moment would get one request in its pipe, read all others, and look for each of
 * them in the pipe, for fuse_session_receive_buf() of libfuse 3.2 to 3.18 leaves FUSE_BUF_IS_FD set when it reads: the requests are lost.
 *
 * Who is inside of an object has `busy`; a second thread gets EAGAIN, as from a pipe that does not block: libfuse has a pipe for
 * each thread. A forked child has no thread that is inside of a message: its pipes are real again, and empty.
 *
 * Rejected: a real pipe with the header kept beside it, and readv(2) of it into the driver's memory: one copy as well, but twice the
 * system calls, 256 references to pages taken and dropped, and no room for data that do not begin at a page. Raising the limit: it
 * takes CAP_SYS_RESOURCE, or a change for the whole machine.
 */
#ifndef FUSEWIRE_PRELOAD_FUSE_PIPE_H
#define FUSEWIRE_PRELOAD_FUSE_PIPE_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"

/**
 * fuse_pipe_made() - pipe(2) or pipe2(2) has made @fds.
 * @caller: who called it: a return address
 */
void fuse_pipe_made(const int fds[2], const void *caller);
/**
 * fuse_pipe_resize() - F_SETPIPE_SZ of a descriptor with MARK_PIPE_MADE or MARK_PIPE.
 * Return: bytes; negative errno; -ENOTSUP: it is the kernel's to do.
 */
int fuse_pipe_resize(int fd, size_t bytes);
/** fuse_pipe_size() - F_GETPIPE_SZ. */
int fuse_pipe_size(int fd);
/** fuse_pipe_bytes() - FIONREAD. */
int fuse_pipe_bytes(int fd);
/** fuse_pipe_dup() - @to, which has no mark, became a duplicate of @from. */
void fuse_pipe_dup(int from, int to);
/** fuse_pipe_closed() - @fd has lost its marks. */
void fuse_pipe_closed(int fd);

/*
 * What calls on a descriptor with MARK_PIPE become. All return what the call returns, with a negative errno in place of -1.
 */
/** fuse_pipe_read() - readv(2). */
ssize_t fuse_pipe_read(int fd, const struct iovec *iov, unsigned int nr);
/** fuse_pipe_write() - writev(2). */
ssize_t fuse_pipe_write(int fd, const struct iovec *iov, unsigned int nr);
/** fuse_pipe_vmsplice() - vmsplice(2) into it: the bytes are read again when they are taken out. */
ssize_t fuse_pipe_vmsplice(int fd, const struct iovec *iov, unsigned int nr);
/** fuse_pipe_receive() - splice(2) from @fuse_fd, which stands for /dev/fuse. A cancellation point. */
ssize_t fuse_pipe_receive(int fd, int fuse_fd, size_t len);
/** fuse_pipe_reply() - splice(2) to @fuse_fd. */
ssize_t fuse_pipe_reply(int fd, int fuse_fd, size_t len);
/** fuse_pipe_from_file() - splice(2) from anything else. @off: NULL for where the file stands */
ssize_t fuse_pipe_from_file(int fd, int file, off64_t *off, size_t len);
/** fuse_pipe_to_file() - splice(2) to anything else. */
ssize_t fuse_pipe_to_file(int fd, int file, off64_t *off, size_t len);

#endif
