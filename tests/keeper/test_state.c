/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The record of what a front-end said: each message's effect, the descriptors that are kept, and where rings are found.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "keeper/state.h"

/* Too large for the stack of every test. */
static struct keeper_state state;

static int setup(void **ctx)
{
	keeper_state_init(&state);
	return 0;
}

static int teardown(void **ctx)
{
	keeper_state_fini(&state);
	return 0;
}

static int note_msg(struct vhost_msg *msg, uint32_t request)
{
	struct vhost_msg reply = { 0 };
	int err;

	msg->header.request = request;
	err = keeper_state_note(&state, msg, &reply);
	vhost_msg_close_fds(msg);
	return err;
}

static void note_u64(uint32_t request, uint64_t value, int fd)
{
	struct vhost_msg msg = { .payload.u64 = value, .fds = { fd }, .nr_fds = fd >= 0 };

	assert_int_equal(note_msg(&msg, request), 0);
}

static void note_state(uint32_t request, uint32_t index, uint32_t num)
{
	struct vhost_msg msg = { .payload.state = { index, num } };

	assert_int_equal(note_msg(&msg, request), 0);
}

static void note_base(uint32_t index, uint32_t base)
{
	struct vhost_msg msg = { .header.request = VHOST_USER_GET_VRING_BASE,
				 .payload.state = { index, 0 } };
	struct vhost_msg reply = { .payload.state = { index, base } };

	assert_int_equal(keeper_state_note(&state, &msg, &reply), 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void start_ring(uint32_t index, uint32_t num)
{
	struct vhost_msg addr = { .payload.addr = { .index = index, .desc = 0x1000 } };

	note_state(VHOST_USER_SET_VRING_NUM, index, num);
	assert_int_equal(note_msg(&addr, VHOST_USER_SET_VRING_ADDR), 0);
	note_u64(VHOST_USER_SET_VRING_KICK, index, eventfd_new());
}

static void test_fds_replace_each_other(void **ctx)
{
	int first = eventfd_new(), second = eventfd_new();

	note_u64(VHOST_USER_SET_VRING_CALL, 3, first);
	assert_int_equal(state.rings[3].call_fd, first);
	note_u64(VHOST_USER_SET_VRING_CALL, 3, second);
	assert_false(is_open(first));
	assert_true(is_open(second));
	note_u64(VHOST_USER_SET_VRING_CALL, 3 | VHOST_VRING_NOFD, -1);
	assert_false(is_open(second));
	assert_int_equal(state.rings[3].call_fd, -1);
	assert_int_equal(keeper_state_nr_rings(&state), 0);
	note_state(VHOST_USER_SET_VRING_ENABLE, 255, 1);
	assert_int_equal(keeper_state_nr_rings(&state), 256);
}

static void test_stop(void **ctx)
{
	int kick;

	start_ring(0, 64);
	kick = state.rings[0].kick_fd;
	assert_true(keeper_state_running(&state));
	note_base(0, 17);
	assert_false(keeper_state_running(&state));
	assert_false(is_open(kick));
	assert_int_equal(state.rings[0].base, 17);
}

static void test_disabled_ring_is_set_up_again(void **ctx)
{
	note_u64(VHOST_USER_SET_FEATURES, bit64(VHOST_USER_F_PROTOCOL_FEATURES), -1);
	start_ring(0, 64);
	start_ring(1, 64);
	note_state(VHOST_USER_SET_VRING_ENABLE, 1, 1);
	assert_true(keeper_state_ring_busy(&state, 1));
	/* The first is disabled still: it stops; the other one runs. */
	note_state(VHOST_USER_SET_VRING_NUM, 0, 32);
	assert_int_equal(state.rings[0].run, KEEPER_RING_STOPPED);
	note_state(VHOST_USER_SET_VRING_BASE, 1, 9);
	assert_int_equal(state.rings[1].run, KEEPER_RING_BY_FD);
	note_state(VHOST_USER_SET_VRING_ENABLE, 1, 0);
	/* The log alone stops nothing. */
	note_u64(VHOST_USER_SET_FEATURES,
		 bit64(VHOST_USER_F_PROTOCOL_FEATURES) | bit64(VHOST_F_LOG_ALL), -1);
	assert_int_equal(state.rings[1].run, KEEPER_RING_BY_FD);
	note_u64(VHOST_USER_SET_FEATURES,
		 bit64(VHOST_USER_F_PROTOCOL_FEATURES) | bit64(VIRTIO_F_RING_PACKED), -1);
	assert_int_equal(state.rings[1].run, KEEPER_RING_STOPPED);
	assert_int_equal(keeper_state_format(&state), VIRTQ_PACKED);
}

static void test_memory(void **ctx)
{
	struct vhost_msg table = { .payload.mem = { .nr = 2 }, .nr_fds = 2 };
	struct vhost_msg reg = { .payload.reg.region = { .gpa = 3 }, .nr_fds = 1 };
	int old[2];

	for (unsigned int i = 0; i < 2; i++) {
		table.payload.mem.regions[i].gpa = i;
		old[i] = table.fds[i] = eventfd_new();
	}
	assert_int_equal(note_msg(&table, VHOST_USER_SET_MEM_TABLE), 0);
	assert_int_equal(state.nr_regions, 2);
	assert_false(state.slots);
	reg.fds[0] = eventfd_new();
	assert_int_equal(note_msg(&reg, VHOST_USER_ADD_MEM_REG), 0);
	assert_int_equal(state.nr_regions, 3);
	assert_true(state.slots);
	reg.payload.reg.region.gpa = 0;
	reg.nr_fds = 0;
	assert_int_equal(note_msg(&reg, VHOST_USER_REM_MEM_REG), 0);
	assert_int_equal(state.nr_regions, 2);
	assert_false(is_open(old[0]));
	assert_true(is_open(old[1]));
	/* A table of one closes all that was before. */
	table.payload.mem.nr = table.nr_fds = 1;
	table.fds[0] = eventfd_new();
	assert_int_equal(note_msg(&table, VHOST_USER_SET_MEM_TABLE), 0);
	assert_false(is_open(old[1]));
	assert_int_equal(state.nr_regions, 1);
}

static void test_memory_is_bounded(void **ctx)
{
	for (unsigned int i = 0; i <= MEM_REGIONS_MAX; i++) {
		struct vhost_msg reg = { .payload.reg.region = { .gpa = i },
					 .fds = { eventfd_new() },
					 .nr_fds = 1 };

		assert_int_equal(note_msg(&reg, VHOST_USER_ADD_MEM_REG),
				 i < MEM_REGIONS_MAX ? 0 : -ENOSPC);
	}
}

static void test_reset(void **ctx)
{
	int call = eventfd_new();

	note_u64(VHOST_USER_SET_FEATURES, bit64(VHOST_USER_F_PROTOCOL_FEATURES) | bit64(32), -1);
	note_u64(VHOST_USER_SET_STATUS, 15, -1);
	start_ring(2, 8);
	note_u64(VHOST_USER_SET_VRING_CALL, 2, call);
	note_u64(VHOST_USER_SET_STATUS, 0, -1);
	assert_false(keeper_state_running(&state));
	assert_false(state.have_status);
	assert_int_equal(state.rings[2].num, 0);
	assert_int_equal(state.rings[2].call_fd, call);
	assert_true(state.features == bit64(VHOST_USER_F_PROTOCOL_FEATURES));
}

/* An area for one ring, as a device left it. Return: its file. */
static int make_area(struct vhost_inflight *d, const void *bytes, size_t len, uint32_t size)
{
	int fd = memfd_new("area", 1 << 16);

	assert_true(fd >= 0);
	*d = (struct vhost_inflight){ 1 << 16, 64, 1, (uint16_t)size };
	assert_int_equal(pwrite(fd, bytes, len, 64), (ssize_t)len);
	return fd;
}

static void test_own_area_goes_with_the_last_ring(void **ctx)
{
	struct vhost_inflight d;
	int fd = make_area(&d, "", 1, 64);

	keeper_state_set_inflight(&state, &d, fd, true);
	start_ring(0, 64);
	start_ring(1, 64);
	assert_true(keeper_state_inflight_covers(&state, 0, 64));
	assert_false(keeper_state_inflight_covers(&state, 0, 65));
	assert_false(keeper_state_inflight_covers(&state, 1, 64));
	assert_int_equal(keeper_state_recover(&state), -ENODATA);
	note_base(1, 0);
	assert_int_equal(keeper_state_recover(&state), 0);
	note_base(0, 0);
	assert_false(is_open(fd));
	/* The front-end's stays. */
	fd = make_area(&d, "", 1, 64);
	keeper_state_set_inflight(&state, &d, fd, false);
	start_ring(0, 64);
	note_base(0, 0);
	assert_true(is_open(fd));
}

static void test_recover_split(void **ctx)
{
	/* features, version and descriptors, last batch and used index. */
	uint16_t area[8 + 8 * 64] = { 0, 0, 0, 0, 1, 64, 3, 500 };
	struct vhost_inflight d;

	keeper_state_set_inflight(&state, &d, make_area(&d, area, sizeof(area), 64), true);
	start_ring(0, 64);
	assert_int_equal(keeper_state_recover(&state), 0);
	assert_int_equal(state.rings[0].base, 500);
	/* Marked as uninitialised by a device that left in order: its index is right all the same. */
	area[4] = 0;
	area[7] = 501;
	assert_int_equal(pwrite(state.inflight_fd, area, sizeof(area), 64), (ssize_t)sizeof(area));
	assert_int_equal(keeper_state_recover(&state), 0);
	assert_int_equal(state.rings[0].base, 501);
	/* Nothing was taken: as the front-end said. */
	memset(area, 0, sizeof(area));
	state.rings[0].base = 77;
	assert_int_equal(pwrite(state.inflight_fd, area, sizeof(area), 64), (ssize_t)sizeof(area));
	assert_int_equal(keeper_state_recover(&state), 0);
	assert_int_equal(state.rings[0].base, 77);
}

/* One entry of a packed ring's area: its mark, and the descriptors of the chain that begins with it. */
static void packed_entry(uint8_t *area, unsigned int index, uint8_t inflight, uint16_t num)
{
	area[32 + 32 * index] = inflight;
	memcpy(area + 32 + 32 * index + 6, &num, sizeof(num));
}

static void test_recover_packed(void **ctx)
{
	uint8_t area[32 + 32 * 64] = { 0 };
	/* Used position before and after a flush that was interrupted; wrap counters behind. */
	const uint16_t pos[2] = { 62, 60 };
	struct vhost_inflight d;
	struct keeper_ring *r = &state.rings[0];

	memcpy(area + 16, pos, sizeof(pos));
	area[20] = area[21] = 1;
	packed_entry(area, 0, 1, 3);
	packed_entry(area, 5, 0, 9);
	packed_entry(area, 7, 1, 2);
	note_u64(VHOST_USER_SET_FEATURES, bit64(VIRTIO_F_RING_PACKED), -1);
	keeper_state_set_inflight(&state, &d, make_area(&d, area, sizeof(area), 64), true);
	start_ring(0, 64);
	assert_int_equal(keeper_state_recover(&state), 0);
	/* 60 used in the first lap; 5 in flight behind it: 1 in the second. */
	assert_int_equal(r->base, 1u | 60u << 16 | 1u << 31);
	/* More in flight than there is: not believed. */
	packed_entry(area, 9, 1, 64);
	r->base = 5;
	assert_int_equal(pwrite(state.inflight_fd, area, sizeof(area), 64), (ssize_t)sizeof(area));
	assert_int_equal(keeper_state_recover(&state), 0);
	assert_int_equal(r->base, 5);
}

static void test_recover_reads_memory_only(void **ctx)
{
	struct vhost_inflight d;

	close(make_area(&d, "", 1, 64));
	keeper_state_set_inflight(&state, &d, open("/dev/zero", O_RDWR | O_CLOEXEC), false);
	start_ring(0, 64);
	assert_int_equal(keeper_state_recover(&state), -ENODATA);
	/* Shorter than it says. */
	keeper_state_set_inflight(&state, &d, memfd_new("short", 100), false);
	assert_int_equal(keeper_state_recover(&state), -ENODATA);
	d.mmap_offset = UINT64_MAX - 100;
	keeper_state_set_inflight(&state, &d, memfd_new("far", 1 << 16), false);
	assert_int_equal(keeper_state_recover(&state), -ENODATA);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_fds_replace_each_other),
		TEST(test_stop),
		TEST(test_disabled_ring_is_set_up_again),
		TEST(test_memory),
		TEST(test_memory_is_bounded),
		TEST(test_reset),
		TEST(test_own_area_goes_with_the_last_ring),
		TEST(test_recover_split),
		TEST(test_recover_packed),
		TEST(test_recover_reads_memory_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
