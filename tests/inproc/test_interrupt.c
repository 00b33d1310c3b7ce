/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INTERRUPTs, and what the daemon says of them. The daemon is the test's own thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../device/rig.h"
#include "answer.h"
#include "device_config.h"
#include "service/inproc/inproc.h"

struct daemon {
	struct service *svc;
	struct rig *rig;
};

static int setup(void **state)
{
	const struct inproc_config config = {
		.init_out = { .major = 7, .minor = 40, .max_write = 65536, .time_gran = 1 },
	};
	struct daemon *d = calloc(1, sizeof(*d));
	char msg[8192];

	assert_non_null(d);
	assert_int_equal(inproc_new(&d->svc, &config), 0);
	d->rig = rig_new_with(&device_config, false, d->svc);
	inproc_set_device(d->svc, d->rig->dev);
	/* Without a reader there is the guard, as soon as there was one. */
	assert_int_equal(inproc_read(d->svc, &(struct iovec){ msg, sizeof(msg) }, 1, true),
			 -EAGAIN);
	assert_int_equal(rig_init(d->rig), 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct daemon *d = *state;

	inproc_unmount(d->svc);
	rig_free(d->rig);
	d->svc->ops->free(d->svc);
	free(d);
	return 0;
}

/* Read a message of @opcode. Return: its unique. */
static uint64_t take(struct daemon *d, uint32_t opcode)
{
	char msg[8192];
	struct iovec iov = { msg, sizeof(msg) };
	struct fuse_in_header hdr;
	ssize_t n;

	do
		n = inproc_read(d->svc, &iov, 1, false);
	while (n == -EINTR);
	assert_true(n >= (ssize_t)sizeof(hdr));
	memcpy(&hdr, msg, sizeof(hdr));
	assert_int_equal(hdr.opcode, opcode);
	return hdr.unique;
}

static void assert_nothing(struct daemon *d)
{
	char msg[8192];
	struct iovec iov = { msg, sizeof(msg) };
	ssize_t n;

	do
		n = inproc_read(d->svc, &iov, 1, true);
	while (n == -EINTR);
	assert_int_equal(n, -EAGAIN);
}

static uint64_t begin(struct daemon *d)
{
	struct fuse_getattr_in in = { 0 };

	rig_send(d->rig, 1, rig_slot(d->rig, 0), FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in),
		 sizeof(struct fuse_attr_out));
	return take(d, FUSE_GETATTR);
}

static void end(struct daemon *d, uint64_t unique)
{
	assert_int_equal(answer(d->svc, unique, -EINTR, NULL, 0), sizeof(struct fuse_out_header));
	rig_wait(d->rig, 1, NULL);
}

/* As often as it asks, while there is something to interrupt. */
static void test_said_again(void **state)
{
	struct daemon *d = *state;
	const uint64_t unique = begin(d), interrupt = unique | 1;

	d->svc->ops->interrupt(d->svc, unique);
	for (int i = 0; i < 3; i++) {
		assert_true(take(d, FUSE_INTERRUPT) == interrupt);
		assert_int_equal(answer(d->svc, interrupt, -EAGAIN, NULL, 0),
				 sizeof(struct fuse_out_header));
	}
	assert_true(take(d, FUSE_INTERRUPT) == interrupt);
	end(d, unique);
	assert_int_equal(answer(d->svc, interrupt, -EAGAIN, NULL, 0), -ENOENT);
	assert_nothing(d);
}

static void test_other_answers(void **state)
{
	struct daemon *d = *state;
	const uint64_t unique = begin(d), interrupt = unique | 1;

	d->svc->ops->interrupt(d->svc, unique);
	assert_true(take(d, FUSE_INTERRUPT) == interrupt);
	assert_int_equal(answer(d->svc, interrupt, -ENOSYS, NULL, 0),
			 sizeof(struct fuse_out_header));
	assert_int_equal(answer(d->svc, interrupt, 0, NULL, 0), sizeof(struct fuse_out_header));
	assert_nothing(d);
	end(d, unique);
}

/* One that was not read yet is enough. */
static void test_said_once(void **state)
{
	struct daemon *d = *state;
	const uint64_t unique = begin(d);

	for (int i = 0; i < 100; i++)
		d->svc->ops->interrupt(d->svc, unique);
	assert_true(take(d, FUSE_INTERRUPT) == (unique | 1));
	assert_nothing(d);
	end(d, unique);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { T(said_again), T(other_answers), T(said_once) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
