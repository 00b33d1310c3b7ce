/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Data that a daemon never copies: READ data that are in place before the reply, and those of a WRITE on loan.
 *
 * The test is driver and daemon in one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../device/rig.h"
#include "answer.h"
#include "device_config.h"
#include "service/inproc/inproc.h"

#define FILE_BYTES  5000u
#define WRITE_BYTES 6000u

struct daemon {
	struct service *svc;
	struct rig *rig;
	struct inproc_loan loan;
	uint8_t msg[64 << 10];
	uint64_t node, fh;
	int file; /* of FILE_BYTES, each the low byte of its offset times 3 */
};

static ssize_t answer_filled(struct daemon *d, uint64_t unique, size_t len)
{
	const struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len),
					     .unique = unique };

	return inproc_write_filled(d->svc, &out);
}

/* Read a message of @opcode. Return: its unique. */
static uint64_t take(struct daemon *d, uint32_t opcode)
{
	struct iovec iov = { d->msg, sizeof(d->msg) };
	struct fuse_in_header hdr;
	ssize_t n;

	do
		n = inproc_read_loan(d->svc, &iov, 1, false, &d->loan);
	while (n == -EINTR);
	assert_true(n >= (ssize_t)sizeof(hdr));
	memcpy(&hdr, d->msg, sizeof(hdr));
	assert_int_equal(hdr.len, n);
	assert_int_equal(hdr.opcode, opcode);
	return hdr.unique;
}

static void *open_file(void *arg)
{
	struct daemon *d = arg;

	assert_int_equal(rig_init(d->rig), 0);
	assert_int_equal(rig_lookup(d->rig, "a", &d->node), 0);
	assert_int_equal(rig_open(d->rig, d->node, &d->fh), 0);
	return NULL;
}

static int setup(void **state)
{
	struct daemon *d = calloc(1, sizeof(*d));
	struct fuse_entry_out entry = { .nodeid = 7,
					.attr = { .ino = 7, .mode = S_IFREG | 0644, .nlink = 1 } };
	struct fuse_open_out open_out = { .fh = 9 };
	struct inproc_config config = {
		.init_out = { .major = 7,
			      .minor = 40,
			      .max_readahead = 131072,
			      .flags = FUSE_BIG_WRITES,
			      .max_write = 65536,
			      .max_background = 12,
			      .congestion_threshold = 9,
			      .time_gran = 1 },
	};
	char name[] = "splice-XXXXXX";
	pthread_t driver;

	assert_non_null(d);
	assert_int_equal(inproc_new(&d->svc, &config), 0);
	d->rig = rig_new_with(&device_config, false, d->svc);
	inproc_set_device(d->svc, d->rig->dev);
	assert_int_equal(pthread_mutex_init(&d->loan.lock, NULL), 0);
	assert_int_equal(pthread_create(&driver, NULL, open_file, d), 0);
	answer(d->svc, take(d, FUSE_LOOKUP), 0, &entry, sizeof(entry));
	answer(d->svc, take(d, FUSE_OPEN), 0, &open_out, sizeof(open_out));
	pthread_join(driver, NULL);
	/* Beside the build: what /tmp is may know no RWF_NOWAIT. */
	d->file = mkstemp(name);
	assert_true(d->file >= 0);
	unlink(name);
	for (unsigned int i = 0; i < FILE_BYTES; i++) {
		uint8_t byte = (uint8_t)(i * 3);

		assert_int_equal(write(d->file, &byte, 1), 1);
	}
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct daemon *d = *state;

	if (d->rig)
		rig_free(d->rig);
	inproc_loan_end(&d->loan);
	d->svc->ops->free(d->svc);
	close(d->file);
	free(d);
	return 0;
}

static uint64_t read_begin(struct daemon *d, uint32_t size)
{
	struct fuse_read_in in = { .fh = d->fh, .size = size };

	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_READ, d->node, &in, sizeof(in), size);
	return take(d, FUSE_READ);
}

/* The driver's READ has ended with @len bytes of the file from @off on. */
static void check_read(struct daemon *d, off_t off, size_t len)
{
	struct fuse_out_header out;
	struct rig_slot *slot;

	assert_int_equal(rig_wait(d->rig, 1, &slot), sizeof(out) + len);
	memcpy(&out, slot->reply, sizeof(out));
	assert_int_equal(out.len, sizeof(out) + len);
	assert_int_equal(out.error, 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(slot->reply[sizeof(out) + i], (uint8_t)((off + (off_t)i) * 3));
}

/* The kernel may have dropped a page of the file meanwhile: then there is nothing to be had without waiting. */
static ssize_t fill(struct daemon *d, uint64_t unique, off_t off, size_t len)
{
	uint8_t page[4096];
	ssize_t n;

	while ((n = inproc_fill(d->svc, unique, d->file, off, len)) == -EAGAIN) {
		for (off_t at = 0; pread(d->file, page, sizeof(page), at) > 0;
		     at += (off_t)sizeof(page))
			continue;
	}
	return n;
}

static void need_nowait(struct daemon *d, ssize_t n)
{
	if (n == -EOPNOTSUPP)
		skip();
	assert_true(n >= 0);
}

static void test_fill(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = read_begin(d, 4096);
	uint8_t back[100];
	ssize_t n = fill(d, unique, 11, 4096);

	need_nowait(d, n);
	assert_int_equal(n, 4096);
	assert_true(rig_quiet(d->rig, 1, 20));
	assert_int_equal(inproc_fill_read(d->svc, unique, back, sizeof(back)), sizeof(back));
	for (unsigned int i = 0; i < sizeof(back); i++)
		assert_int_equal(back[i], (uint8_t)((i + 11) * 3));
	assert_int_equal(answer_filled(d, unique, 4096), 4096 + 16);
	check_read(d, 11, 4096);
	/* It has ended. */
	assert_int_equal(inproc_fill(d->svc, unique, d->file, 0, 10), -ENOENT);
	assert_int_equal(inproc_fill_read(d->svc, unique, back, 10), -EIO);
	assert_int_equal(answer_filled(d, unique, 4096), -ENOENT);
}

static void test_fill_at_the_end(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = read_begin(d, 4096);
	ssize_t n = fill(d, unique, FILE_BYTES - 77, 4096);

	need_nowait(d, n);
	assert_int_equal(n, 77);
	assert_int_equal(inproc_fill(d->svc, unique, d->file, FILE_BYTES, 4096), 0);
	assert_int_equal(answer_filled(d, unique, 77), 77 + 16);
	check_read(d, FILE_BYTES - 77, 77);
}

/* What cannot be, and another reply than was begun. */
static void test_fill_refused(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = read_begin(d, 4096);
	struct fuse_out_header out;
	struct rig_slot *slot;
	int fds[2], byte;

	/* Where no read can be told not to wait, it is refused before anything else is looked at. */
	if (preadv2(d->file, &(struct iovec){ &byte, 1 }, 1, 0, RWF_NOWAIT) < 0)
		need_nowait(d, -errno);
	assert_int_equal(inproc_fill(d->svc, unique, d->file, 0, 4097), -EMSGSIZE);
	assert_int_equal(inproc_fill(d->svc, unique, d->file, 0, 0), -EMSGSIZE);
	assert_int_equal(inproc_fill(d->svc, unique, d->file, -1, 10), -EINVAL);
	assert_int_equal(inproc_fill(d->svc, unique, -1, 0, 10), -EBADF);
	assert_int_equal(inproc_fill(d->svc, unique + 2, d->file, 0, 10), -ENOENT);
	assert_int_equal(pipe(fds), 0);
	assert_true(inproc_fill(d->svc, unique, fds[0], 0, 10) < 0);
	close(fds[0]);
	close(fds[1]);
	assert_true(inproc_fill(d->svc, unique, d->file, 0, 4096) != 0);
	assert_int_equal(answer(d->svc, unique, -EIO, NULL, 0), 16);
	assert_int_equal(rig_wait(d->rig, 1, &slot), sizeof(out));
	memcpy(&out, slot->reply, sizeof(out));
	assert_int_equal(out.error, -EIO);
}

/* The queue stops between data and reply: the driver's memory is let alone. */
static void test_fill_and_reset(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = read_begin(d, 4096);
	uint8_t *reply = rig_slot(d->rig, 0)->reply;

	need_nowait(d, fill(d, unique, 0, 4096));
	device_reset(d->rig->dev);
	memset(reply, 0x55, 4096);
	assert_int_equal(inproc_fill(d->svc, unique, d->file, 0, 4096), -ECANCELED);
	assert_int_equal(answer_filled(d, unique, 4096), 4096 + 16);
	for (unsigned int i = 0; i < 4096; i++)
		assert_int_equal(reply[i], 0x55);
}

/* What a thread does that was cancelled, and does not know it yet. */
struct cancelled {
	struct daemon *d;
	uint64_t unique;
	int pipe;
	bool done;
};

static void *fill_cancelled(void *arg)
{
	struct cancelled *c = arg;

	pthread_cancel(pthread_self());
	c->done = inproc_fill(c->d->svc, c->unique, c->d->file, 11, 4096) == 4096 &&
		  answer_filled(c->d, c->unique, 4096) == 4096 + 16;
	return NULL;
}

static void *answer_cancelled(void *arg)
{
	struct cancelled *c = arg;
	uint8_t data[100];

	for (unsigned int i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 3);
	pthread_cancel(pthread_self());
	c->done = answer(c->d->svc, c->unique, 0, data, sizeof(data)) == 16 + sizeof(data);
	return NULL;
}

static void *pipe_cancelled(void *arg)
{
	struct cancelled *c = arg;

	pthread_cancel(pthread_self());
	c->done = inproc_write_pipe(c->d->svc, c->pipe, 116) == 116;
	return NULL;
}

static void *poll_cancelled(void *arg)
{
	struct cancelled *c = arg;

	pthread_cancel(pthread_self());
	inproc_poll_begin(c->d->svc);
	c->done = true;
	return NULL;
}

static void run_cancelled(struct cancelled *c, void *(*fn)(void *))
{
	pthread_t thread;

	c->done = false;
	assert_int_equal(pthread_create(&thread, NULL, fn, c), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(c->done);
}

/* A thread is cancelled while it answers: no lock stays with it, and no request. */
static void test_answers_cancelled(void **state)
{
	struct daemon *d = *state;
	struct cancelled c = { .d = d };
	struct fuse_out_header out = { .len = 116 };
	uint8_t data[100];
	int fds[2];

	for (unsigned int i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 3);
	for (int i = 0; i < 3; i++) {
		c.unique = read_begin(d, 4096);
		run_cancelled(&c, answer_cancelled);
		check_read(d, 0, sizeof(data));
		assert_int_equal(pipe(fds), 0);
		out.unique = c.unique = read_begin(d, 4096);
		assert_int_equal(write(fds[1], &out, sizeof(out)), sizeof(out));
		assert_int_equal(write(fds[1], data, sizeof(data)), sizeof(data));
		c.pipe = fds[0];
		run_cancelled(&c, pipe_cancelled);
		check_read(d, 0, sizeof(data));
		close(fds[0]);
		close(fds[1]);
	}
}

static void test_fill_cancelled(void **state)
{
	struct daemon *d = *state;
	struct cancelled c = { .d = d, .unique = read_begin(d, 4096) };
	uint8_t byte;

	if (preadv2(d->file, &(struct iovec){ &byte, 1 }, 1, 0, RWF_NOWAIT) < 0)
		need_nowait(d, -errno);
	run_cancelled(&c, fill_cancelled);
	check_read(d, 11, 4096);
}

/* Nobody reads, so the guard leads: it is woken under the lock. */
static void test_poll_cancelled(void **state)
{
	struct daemon *d = *state;
	struct cancelled c = { .d = d };

	usleep(20000);
	run_cancelled(&c, poll_cancelled);
	c.unique = read_begin(d, 4096);
	run_cancelled(&c, answer_cancelled);
	check_read(d, 0, 100);
}

static uint64_t write_begin(struct daemon *d, size_t len)
{
	struct {
		struct fuse_write_in in;
		uint8_t data[WRITE_BYTES];
	} args = { .in = { .fh = d->fh, .size = (uint32_t)len } };

	for (size_t i = 0; i < len; i++)
		args.data[i] = (uint8_t)(i * 5);
	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_WRITE, d->node, &args, sizeof(args.in) + len,
		 sizeof(struct fuse_write_out));
	return take(d, FUSE_WRITE);
}

static void write_end(struct daemon *d, uint64_t unique, size_t len)
{
	const struct fuse_write_out out = { .size = (uint32_t)len };
	struct rig_slot *slot;

	assert_int_equal(answer(d->svc, unique, 0, &out, sizeof(out)), 16 + sizeof(out));
	rig_wait(d->rig, 1, &slot);
	memset(slot->msg, 0xcc, sizeof(slot->msg));
}

static void check_bytes(const uint8_t *data, size_t from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], (uint8_t)((from + i) * 5));
}

static void test_loan(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = write_begin(d, WRITE_BYTES);
	uint8_t data[WRITE_BYTES];

	assert_int_equal(d->loan.bytes, WRITE_BYTES);
	assert_int_equal(inproc_loan_read(&d->loan, data, 10), 10);
	check_bytes(data, 0, 10);
	assert_int_equal(inproc_loan_write(&d->loan, -1, 0, 100), -EBADF);
	assert_int_equal(inproc_loan_write(&d->loan, d->file, 30000, 1000), 1000);
	assert_int_equal(lseek(d->file, 31000, SEEK_SET), 31000);
	assert_int_equal(inproc_loan_write(&d->loan, d->file, -1, 1 << 20), WRITE_BYTES - 1010);
	assert_int_equal(d->loan.bytes, 0);
	write_end(d, unique, WRITE_BYTES);
	assert_int_equal(pread(d->file, data, sizeof(data), 30000), WRITE_BYTES - 10);
	check_bytes(data, 10, WRITE_BYTES - 10);
}

static void test_small_write_is_copied(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = write_begin(d, INPROC_LOAN_MIN - 1);

	assert_int_equal(d->loan.bytes, 0);
	check_bytes(d->msg + sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in), 0,
		    INPROC_LOAN_MIN - 1);
	write_end(d, unique, INPROC_LOAN_MIN - 1);
}

/* The daemon answers before it has had the data: they are what they were. */
static void test_reply_before_the_data(void **state)
{
	struct daemon *d = *state;
	uint64_t unique = write_begin(d, WRITE_BYTES);
	uint8_t data[WRITE_BYTES];

	assert_int_equal(inproc_loan_read(&d->loan, data, 500), 500);
	write_end(d, unique, WRITE_BYTES);
	assert_int_equal(inproc_loan_read(&d->loan, data, 500), 500);
	check_bytes(data, 500, 500);
	assert_int_equal(inproc_loan_write(&d->loan, d->file, 0, WRITE_BYTES), WRITE_BYTES - 1000);
	assert_int_equal(pread(d->file, data, WRITE_BYTES, 0), WRITE_BYTES - 1000);
	check_bytes(data, 1000, WRITE_BYTES - 1000);
	/* The loan is free for the next. */
	unique = write_begin(d, WRITE_BYTES);
	inproc_loan_end(&d->loan);
	write_end(d, unique, WRITE_BYTES);
}

struct stuck {
	struct daemon *d;
	int file;
	bool begun;
};

static void *write_loan(void *arg)
{
	struct stuck *s = arg;

	__atomic_store_n(&s->begun, true, __ATOMIC_RELEASE);
	inproc_loan_write(&s->d->loan, s->file, -1, WRITE_BYTES);
	return NULL;
}

/* A thread that is cancelled where its file keeps it waiting: the end of the service does not wait for it. */
static void test_loan_writer_cancelled(void **state)
{
	struct daemon *d = *state;
	static char fill[4096];
	uint8_t data[WRITE_BYTES];
	struct stuck s = { .d = d };
	pthread_t thread;
	int full[2];

	assert_int_equal(pipe2(full, O_NONBLOCK), 0);
	while (write(full[1], fill, sizeof(fill)) > 0)
		continue;
	assert_int_equal(fcntl(full[1], F_SETFL, 0), 0);
	s.file = full[1];
	write_begin(d, WRITE_BYTES);
	assert_int_equal(pthread_create(&thread, NULL, write_loan, &s), 0);
	while (!__atomic_load_n(&s.begun, __ATOMIC_ACQUIRE))
		usleep(1000);
	usleep(10000);
	assert_int_equal(pthread_cancel(thread), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(inproc_loan_read(&d->loan, data, WRITE_BYTES - 1), WRITE_BYTES - 1);
	check_bytes(data, 0, WRITE_BYTES - 1);
	rig_free(d->rig);
	d->rig = NULL;
	close(full[0]);
	close(full[1]);
}

/*
 * The driver is reset and uses its memory for something else: nothing of that is written. Then the whole device goes away, and the loan
 * is still there to be asked.
 */
static void test_loan_and_reset(void **state)
{
	struct daemon *d = *state;
	const off_t end = lseek(d->file, 0, SEEK_END);
	uint8_t data[WRITE_BYTES];

	write_begin(d, WRITE_BYTES);
	assert_int_equal(inproc_loan_read(&d->loan, data, 100), 100);
	check_bytes(data, 0, 100);
	device_reset(d->rig->dev);
	memset(rig_slot(d->rig, 0)->msg, 0x55, RIG_SLOT_REPLY);
	assert_int_equal(inproc_loan_read(&d->loan, data, 100), -EIO);
	assert_int_equal(inproc_loan_write(&d->loan, d->file, end, 1000), -EIO);
	rig_free(d->rig);
	d->rig = NULL;
	assert_int_equal(inproc_loan_read(&d->loan, data, 100), -EIO);
	assert_int_equal(inproc_loan_write(&d->loan, d->file, end, 1000), -EIO);
	assert_int_equal(lseek(d->file, 0, SEEK_END), end);
}

/* The same, before the daemon comes to read the request: it never sees it. */
static void test_write_after_reset(void **state)
{
	struct daemon *d = *state;
	const struct {
		struct fuse_write_in in;
		uint8_t data[96];
	} args = { .in = { .fh = d->fh, .size = sizeof(args.data) } };
	struct iovec iov = { d->msg, sizeof(d->msg) };
	struct fuse_in_header hdr;
	ssize_t n;

	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_WRITE, d->node, &args, sizeof(args),
		 sizeof(struct fuse_write_out));
	/* The guard takes it, since nobody reads. */
	inproc_poll_begin(d->svc);
	usleep(200000);
	device_reset(d->rig->dev);
	memset(rig_slot(d->rig, 0)->msg, 0x55, RIG_SLOT_REPLY);
	while ((n = inproc_read(d->svc, &iov, 1, true)) != -EAGAIN) {
		if (n == -EINTR)
			continue;
		assert_true(n >= (ssize_t)sizeof(hdr));
		memcpy(&hdr, d->msg, sizeof(hdr));
		assert_int_not_equal(hdr.opcode, FUSE_WRITE);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fill),
		TEST(test_fill_at_the_end),
		TEST(test_fill_refused),
		TEST(test_fill_and_reset),
		TEST(test_fill_cancelled),
		TEST(test_answers_cancelled),
		TEST(test_poll_cancelled),
		TEST(test_loan),
		TEST(test_small_write_is_copied),
		TEST(test_reply_before_the_data),
		TEST(test_loan_and_reset),
		TEST(test_write_after_reset),
		TEST(test_loan_writer_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
