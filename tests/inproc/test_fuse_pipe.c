/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pipes that are played for libfuse: the same bytes as of a real one, in whatever order they are asked for.
 *
 * This program's name begins as libfuse's does: its pipes count as libfuse's. Nobody serves: requests and replies are plain
 * memory, as in the channel; what is in the driver's memory is in test_splice.c and tests/examples/.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/abi.h"
#include "fuse_dev.h"
#include "fuse_pipe.h"
#include "marks.h"

#define SIZE (2u << 20)

/* What the daemon reads next, and what it wrote last. */
static const char *request;
static char reply[4096];
static size_t reply_bytes;
static unsigned int nr_waits;

struct service *fuse_dev_service(void)
{
	return NULL;
}

ssize_t fuse_dev_read_loan(struct service *svc, int fd, const struct iovec *iov,
			   struct inproc_loan *loan)
{
	return -ENODEV;
}

ssize_t fuse_dev_read(int fd, const struct iovec *iov, unsigned int nr)
{
	size_t len = strlen(request);

	if (iov[0].iov_len < len)
		return -EIO;
	memcpy(iov[0].iov_base, request, len);
	return (ssize_t)len;
}

ssize_t fuse_dev_write(int fd, const struct iovec *iov, unsigned int nr)
{
	struct fuse_out_header hdr;

	reply_bytes = iov[0].iov_len;
	assert_true(nr == 1 && reply_bytes <= sizeof(reply));
	memcpy(reply, iov[0].iov_base, reply_bytes);
	memcpy(&hdr, reply, sizeof(hdr));
	return hdr.len == reply_bytes ? (ssize_t)reply_bytes : -EINVAL;
}

void fuse_dev_wait_init(int fd)
{
	nr_waits++;
}

static int setup(void **state)
{
	static int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	fuse_pipe_made(fds, (const void *)(uintptr_t)setup);
	*state = fds;
	return 0;
}

static int teardown(void **state)
{
	const int *fds = *state;

	for (int i = 0; i < 2; i++) {
		unmark(fds[i]);
		close(fds[i]);
	}
	return 0;
}

static ssize_t put(int fd, const char *text)
{
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };

	return fuse_pipe_write(fd, &iov, 1);
}

static void get(int fd, size_t len, const char *expected)
{
	char text[100] = "";
	struct iovec iov[2] = { { text, len / 2 }, { text + len / 2, len - len / 2 } };

	assert_int_equal(fuse_pipe_read(fd, iov, 2), strlen(expected));
	assert_string_equal(text, expected);
}

/* Until libfuse asks for room it is a real pipe. */
static void test_real_at_first(void **state)
{
	const int *fds = *state;
	char c;
	struct iovec iov = { &c, 1 };

	assert_int_equal(fuse_pipe_read(fds[0], &iov, 1), -ENOTSUP);
	assert_int_equal(fuse_pipe_resize(fds[0], 65536), -ENOTSUP);
	assert_int_equal(fuse_pipe_resize(fds[0], (4u << 20) + 1), -ENOTSUP);
	assert_int_equal(fuse_pipe_size(fds[0]), -ENOTSUP);
	/* Nor does it become another while something is in it. */
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), -ENOTSUP);
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE - 5000), SIZE);
	assert_int_equal(fuse_pipe_read(fds[0], &iov, 1), -EAGAIN);
	assert_int_equal(fuse_pipe_size(fds[1]), SIZE);
}

static void test_others_pipes(void **state)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	/* libc's. */
	fuse_pipe_made(fds, dlsym(RTLD_DEFAULT, "getauxval"));
	assert_int_equal(mark_of(fds[0]), 0);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), -ENOTSUP);
	close(fds[0]);
	close(fds[1]);
}

static void test_bytes_in_order(void **state)
{
	const int *fds = *state;

	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(put(fds[1], "hello, "), 7);
	assert_int_equal(put(fds[1], "world"), 5);
	assert_int_equal(fuse_pipe_bytes(fds[0]), 12);
	get(fds[0], 3, "hel");
	request = "request";
	/* libfuse is asked first whether it meant it. */
	nr_waits = 0;
	assert_int_equal(fuse_pipe_receive(fds[1], 1000, 1 << 20), -EINTR);
	assert_int_equal(nr_waits, 1);
	assert_int_equal(fuse_pipe_bytes(fds[0]), 9);
	assert_int_equal(fuse_pipe_receive(fds[1], 1000, 1 << 20), 7);
	assert_int_equal(nr_waits, 1);
	get(fds[0], 50, "lo, worldrequest");
	/* The wrong end. */
	assert_int_equal(put(fds[0], "x"), -EBADF);
	assert_int_equal(fuse_pipe_reply(fds[1], 1000, 0), -EBADF);
}

static void test_full(void **state)
{
	const int *fds = *state;
	char *data = calloc(1, SIZE + 10);
	struct iovec iov = { data, SIZE + 10 };

	assert_non_null(data);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(fuse_pipe_write(fds[1], &iov, 1), SIZE);
	assert_int_equal(put(fds[1], "x"), -EAGAIN);
	assert_int_equal(fuse_pipe_resize(fds[0], 2 * SIZE), 2 * SIZE);
	assert_int_equal(put(fds[1], "x"), 1);
	iov.iov_len = SIZE;
	assert_int_equal(fuse_pipe_read(fds[0], &iov, 1), SIZE);
	get(fds[0], 5, "x");
	/* Room is made again where bytes were taken. */
	for (int i = 0; i < 10; i++) {
		assert_int_equal(fuse_pipe_write(fds[1], &iov, 1), SIZE);
		assert_int_equal(put(fds[1], "y"), 1);
		assert_int_equal(fuse_pipe_read(fds[0], &iov, 1), SIZE);
		get(fds[0], 1, "y");
	}
	free(data);
}

/* As libfuse replies: the header's length is corrected when the data are there. */
static void test_reply(void **state)
{
	const int *fds = *state;
	struct fuse_out_header hdr = { .len = 9999, .unique = 4 };
	struct iovec iov = { &hdr, sizeof(hdr) };
	char name[] = "pipe-XXXXXX";
	int file = mkstemp(name);
	off64_t off = 2;

	assert_true(file >= 0);
	unlink(name);
	assert_int_equal(write(file, "0123456789", 10), 10);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(fuse_pipe_vmsplice(fds[1], &iov, 1), sizeof(hdr));
	assert_int_equal(fuse_pipe_from_file(fds[1], file, &off, 5000), 8);
	assert_int_equal(off, 10);
	assert_int_equal(fuse_pipe_from_file(fds[1], file, &off, 5000), 0);
	hdr.len = sizeof(hdr) + 8;
	assert_int_equal(fuse_pipe_reply(fds[0], 1000, sizeof(hdr) + 9), -EINVAL);
	assert_int_equal(fuse_pipe_reply(fds[0], 1000, sizeof(hdr) + 8), sizeof(hdr) + 8);
	assert_memory_equal(reply + sizeof(hdr), "23456789", 8);
	/* A reply that is no good is gone. */
	assert_int_equal(fuse_pipe_vmsplice(fds[1], &iov, 1), sizeof(hdr));
	assert_int_equal(fuse_pipe_vmsplice(fds[1], &iov, 1), -EAGAIN);
	assert_int_equal(fuse_pipe_reply(fds[0], 1000, sizeof(hdr)), -EINVAL);
	assert_int_equal(fuse_pipe_bytes(fds[0]), 0);
	/* What splice(2) would not take, or wait for. */
	assert_int_equal(fuse_pipe_from_file(fds[1], fds[0], NULL, 10), -EINVAL);
	assert_int_equal(fuse_pipe_from_file(fds[1], 9999, NULL, 10), -EINVAL);
	close(file);
}

static void test_to_file(void **state)
{
	const int *fds = *state;
	char name[] = "pipe-XXXXXX", text[20] = "";
	int file = mkstemp(name);
	off64_t off = 3;

	assert_true(file >= 0);
	unlink(name);
	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(fuse_pipe_to_file(fds[0], file, &off, 10), -EAGAIN);
	assert_int_equal(put(fds[1], "0123456789"), 10);
	assert_int_equal(fuse_pipe_to_file(fds[0], 9999, &off, 4), -EBADF);
	assert_int_equal(fuse_pipe_to_file(fds[0], file, &off, 4), 4);
	assert_int_equal(off, 7);
	assert_int_equal(fuse_pipe_to_file(fds[0], file, NULL, 100), 6);
	/* The second went to where the file stands. */
	assert_int_equal(pread(file, text, sizeof(text), 0), 7);
	assert_string_equal(text, "4567893");
	close(file);
}

static void test_duplicates(void **state)
{
	const int *fds = *state;
	int to;

	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(put(fds[1], "abc"), 3);
	to = dup(fds[0]);
	mark_copy(fds[0], to);
	get(to, 1, "a");
	get(fds[0], 1, "b");
	unmark(fds[0]);
	get(to, 1, "c");
	assert_int_equal(put(fds[1], "d"), 1);
	get(to, 1, "d");
	unmark(to);
	close(to);
}

/* A child's is real, and empty; the parent's is what it was. */
static void test_fork(void **state)
{
	const int *fds = *state;
	int status = -1;
	pid_t pid;

	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(put(fds[1], "abc"), 3);
	pid = fork();
	if (pid == 0)
		_exit(mark_of(fds[0]) || mark_of(fds[1]));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	get(fds[0], 3, "abc");
}

/* A child that has our memory closes its own descriptors, and none of ours. */
static void test_vfork(void **state)
{
	const int *fds = *state;
	int status = -1;
	pid_t pid;

	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(put(fds[1], "abc"), 3);
	pid = vfork();
	if (pid == 0) {
		unmark(fds[0]);
		mark_copy(STDIN_FILENO, fds[1]);
		mark_copy(fds[1], STDIN_FILENO);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(mark_of(STDIN_FILENO), 0);
	get(fds[0], 3, "abc");
	assert_int_equal(put(fds[1], "d"), 1);
	/* As well in a process that was forked. */
	pid = fork();
	if (pid == 0) {
		mark(fds[0]);
		if (vfork() == 0) {
			unmark(fds[0]);
			_exit(0);
		}
		_exit(!marked(fds[0]) || !unmark(fds[0]));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	get(fds[0], 1, "d");
}

struct stuck {
	int pipe;
	int file;
};

static void *write_to_file(void *arg)
{
	const struct stuck *s = arg;

	/* The other thread, which looks whether we are in, may be in at the moment. */
	while (fuse_pipe_to_file(s->pipe, s->file, NULL, 3) == -EAGAIN)
		continue;
	return NULL;
}

/* A thread that is cancelled where its file keeps it waiting leaves the pipe as it was. */
static void test_cancelled(void **state)
{
	const int *fds = *state;
	static char fill[4096];
	struct stuck s;
	pthread_t thread;
	int full[2];
	void *result;

	assert_int_equal(fuse_pipe_resize(fds[0], SIZE), SIZE);
	assert_int_equal(put(fds[1], "abc"), 3);
	assert_int_equal(pipe2(full, O_NONBLOCK), 0);
	while (write(full[1], fill, sizeof(fill)) > 0)
		continue;
	assert_int_equal(fcntl(full[1], F_SETFL, 0), 0);
	s = (struct stuck){ fds[0], full[1] };
	assert_int_equal(pthread_create(&thread, NULL, write_to_file, &s), 0);
	while (fuse_pipe_bytes(fds[0]) != -EAGAIN)
		usleep(1000);
	assert_int_equal(pthread_cancel(thread), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	get(fds[0], 3, "abc");
	close(full[0]);
	close(full[1]);
}

static pthread_barrier_t both;

static void *count_refusals(void *arg)
{
	const int fd = *(const int *)arg;
	const uint8_t end = mark_of(fd) & MARK_PIPE_END;
	uintptr_t nr = 0;

	pthread_barrier_wait(&both);
	for (int i = 0; i < 1000000; i++)
		nr += (end ? put(fd, "x") : fuse_pipe_bytes(fd)) != -ENOTSUP;
	return (void *)nr;
}

/* A pipe that is real is the kernel's to do, whoever else uses it at the moment. */
static void test_real_from_two_threads(void **state)
{
	int *fds = *state;
	pthread_t reader;
	void *nr_reader;

	assert_int_equal(pthread_barrier_init(&both, NULL, 2), 0);
	assert_int_equal(pthread_create(&reader, NULL, count_refusals, &fds[0]), 0);
	assert_null(count_refusals(&fds[1]));
	assert_int_equal(pthread_join(reader, &nr_reader), 0);
	assert_null(nr_reader);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_real_at_first),  TEST(test_others_pipes),
		TEST(test_bytes_in_order), TEST(test_full),
		TEST(test_reply),	   TEST(test_to_file),
		TEST(test_duplicates),	   TEST(test_fork),
		TEST(test_vfork),	   TEST(test_real_from_two_threads),
		TEST(test_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
