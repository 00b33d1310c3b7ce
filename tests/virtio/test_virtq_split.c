/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split ring, device side, rule by rule: what a driver may do, and what breaks the ring. Tests have the
 * numbers of virtio 1.2's clauses.
 */
#include "world.h"

#define SIZE  8
#define IN    RING_DESC_WRITE
#define NEXT  RING_DESC_NEXT
#define TABLE RING_DESC_INDIRECT

static struct world w;

static struct split_avail *avail(void)
{
	return guest_strip(w.setup.driver);
}

static struct split_used *used(void)
{
	return guest_strip(w.setup.device);
}

static uint64_t data_gpa(uint32_t off)
{
	return WORLD_GPA + WORLD_RING_BYTES + off;
}

static void put(struct ring_desc *desc, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	*desc = (struct ring_desc){ cpu_to_le64(addr),
				    cpu_to_le64(desc_word_split(len, flags, next)) };
}

static void put_at(uint32_t index, uint32_t off, uint32_t len, uint16_t flags, uint16_t next)
{
	put(&world_desc(&w)[index], data_gpa(off), len, flags, next);
}

static void offer(uint16_t head)
{
	uint16_t idx = le16_to_cpu(avail()->idx);

	avail()->ring[idx % SIZE] = cpu_to_le16(head);
	avail()->idx = cpu_to_le16((uint16_t)(idx + 1));
}

static void start(bool indirect)
{
	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, SIZE, false, indirect ? 1 : 0, 0);
}

static void expect_broken(const char *why)
{
	assert_true(virtq_has_work(w.vq));
	assert_int_equal(world_pop(&w), -EBADMSG);
	assert_non_null(virtq_broken(w.vq));
	assert_string_equal(virtq_broken(w.vq), why);
	/* For good: also when the ring looks right again. */
	assert_int_equal(world_pop(&w), -EBADMSG);
	assert_true(virtq_has_work(w.vq));
	world_fini(&w);
}

static void expect_chain(uint32_t nr_out, uint32_t out_bytes, uint32_t nr_in, uint32_t in_bytes)
{
	assert_int_equal(world_pop(&w), 1);
	assert_int_equal(w.chain.nr_out, nr_out);
	assert_int_equal(w.chain.nr_in, nr_in);
	assert_int_equal(w.chain.out_bytes, out_bytes);
	assert_int_equal(w.chain.in_bytes, in_bytes);
	assert_null(virtq_broken(w.vq));
}

static void split_2_7_5_next_outside(void **state)
{
	start(false);
	put_at(0, 0, 8, NEXT, SIZE);
	offer(0);
	expect_broken("next outside of the descriptor table");
}

static void split_2_7_5_loop(void **state)
{
	start(false);
	for (uint16_t i = 0; i < SIZE; i++)
		put_at(i, 0, 8, NEXT, (i + 1) % SIZE);
	offer(3);
	expect_broken("loop in a descriptor chain");
}

/* As long as the ring is long is no loop. */
static void split_2_7_5_longest_chain(void **state)
{
	start(false);
	for (uint16_t i = 0; i < SIZE; i++)
		put_at(i, i * 16, 16, i + 1 < SIZE ? NEXT : 0, i + 1);
	offer(0);
	expect_chain(SIZE, SIZE * 16, 0, 0);
	world_fini(&w);
}

static void split_2_7_6_head_outside(void **state)
{
	start(false);
	offer(SIZE);
	expect_broken("head outside of the descriptor table");
}

static void split_2_7_6_index_at_limit(void **state)
{
	start(false);
	for (uint16_t i = 0; i < SIZE; i++) {
		put_at(i, 0, 8, 0, 0);
		offer(i);
	}
	for (uint16_t i = 0; i < SIZE; i++)
		expect_chain(1, 8, 0, 0);
	assert_int_equal(world_pop(&w), 0);
	world_fini(&w);
}

static void split_2_7_6_index_too_far(void **state)
{
	start(false);
	put_at(0, 0, 8, 0, 0);
	avail()->idx = cpu_to_le16(SIZE + 1);
	expect_broken("avail index too far ahead");
	start(false);
	avail()->idx = cpu_to_le16(0xffff);
	expect_broken("avail index too far ahead");
}

/* 2.7.13: a descriptor comes back before it is offered again. */
static void split_2_7_13_more_than_the_ring_has(void **state)
{
	struct virtq_chain first;

	start(false);
	put_at(0, 0, 8, 0, 0);
	for (uint16_t i = 0; i < SIZE; i++) {
		offer(0);
		expect_chain(1, 8, 0, 0);
	}
	first = w.chain;
	virtq_push(w.vq, &first, 0);
	virtq_flush(w.vq);
	offer(0);
	expect_chain(1, 8, 0, 0);
	offer(0);
	expect_broken("more chains than descriptors");
}

static void split_2_7_4_2_readable_behind_writable(void **state)
{
	start(false);
	put_at(0, 0, 8, IN | NEXT, 1);
	put_at(1, 8, 8, 0, 0);
	offer(0);
	expect_broken("readable descriptor behind a writable one");
}

static void split_2_7_5_outside_of_memory(void **state)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = {
		{ WORLD_GPA - 1, 1 },
		{ WORLD_GPA - 1, 2 },
		{ WORLD_GPA + WORLD_BYTES, 1 },
		{ WORLD_GPA + WORLD_BYTES - 1, 2 },
		{ UINT64_MAX, 1 },
		{ UINT64_MAX, 2 },
		{ UINT64_MAX - 7, 16 },
		{ 0, 1 },
		{ WORLD_GPA, WORLD_BYTES + 1 },
	};

	for (size_t i = 0; i < array_size(bad); i++) {
		start(false);
		put(&world_desc(&w)[0], bad[i].addr, bad[i].len, IN, 0);
		offer(0);
		expect_broken("descriptor outside of memory");
	}
	start(false);
	put(&world_desc(&w)[0], WORLD_GPA + WORLD_BYTES - 1, 1, 0, 0);
	offer(0);
	expect_chain(1, 1, 0, 0);
	world_fini(&w);
}

static void split_chain_bytes_cap(void **state)
{
	uint32_t all = WORLD_BYTES;
	uint32_t nr = VIRTQ_CHAIN_BYTES_MAX / all;
	uint32_t rest = VIRTQ_CHAIN_BYTES_MAX - nr * all;

	for (uint32_t extra = 0; extra < 2; extra++) {
		world_init(&w);
		world_start(&w, VIRTQ_SPLIT, 32, false, 0, 0);
		assert_true(nr < 31);
		for (uint16_t i = 0; i < nr; i++)
			put(&world_desc(&w)[i], WORLD_GPA, all, IN | NEXT, i + 1);
		put(&world_desc(&w)[nr], WORLD_GPA, rest + extra, IN, 0);
		avail()->ring[0] = cpu_to_le16(0);
		avail()->idx = cpu_to_le16(1);
		if (extra) {
			expect_broken("chain describes too many bytes");
			continue;
		}
		assert_int_equal(world_pop(&w), 1);
		assert_int_equal(w.chain.in_bytes, VIRTQ_CHAIN_BYTES_MAX);
		world_fini(&w);
	}
}

/* Neither forbidden nor of use: no segment, and no order to keep. */
static void split_2_7_5_empty_descriptors(void **state)
{
	start(false);
	put(&world_desc(&w)[0], 0, 0, NEXT, 1);
	put_at(1, 0, 8, NEXT, 2);
	put(&world_desc(&w)[2], UINT64_MAX, 0, IN | NEXT, 3);
	put_at(3, 8, 8, IN, 0);
	offer(0);
	expect_chain(1, 8, 1, 8);
	put_at(4, 0, 0, 0, 0);
	offer(4);
	expect_chain(0, 0, 0, 0);
	world_fini(&w);
}

static void split_2_7_5_crosses_regions(void **state)
{
	start(false);
	/* The data regions begin at 0, 777, 4099. */
	put_at(0, 770, 4000, IN, 0);
	offer(0);
	w.chain.iov_cap = 2;
	assert_int_equal(world_pop(&w), -ENOBUFS);
	assert_int_equal(w.chain.nr_needed, 3);
	w.chain.iov_cap = 3;
	expect_chain(0, 0, 3, 4000);
	assert_int_equal(w.chain.iov[0].iov_len, 7);
	assert_int_equal(w.chain.iov[1].iov_len, 4099 - 777);
	assert_int_equal(w.chain.iov[2].iov_len, 4000 - 7 - (4099 - 777));
	world_fini(&w);
}

static struct ring_desc *table_at(uint32_t off)
{
	return (struct ring_desc *)(void *)(w.data + off);
}

static void split_2_7_5_3_indirect(void **state)
{
	struct ring_desc *table;

	start(true);
	table = table_at(1024);
	put(&table[0], data_gpa(0), 8, NEXT, 2);
	put(&table[2], data_gpa(8), 8, IN | NEXT, 1);
	put(&table[1], data_gpa(16), 8, IN, 0);
	/* 2.7.5.3.2: WRITE counts for nothing beside INDIRECT; direct ones may come first. */
	put_at(0, 100, 4, NEXT, 1);
	put_at(1, 1024, 48, TABLE | IN, 0);
	offer(0);
	expect_chain(2, 12, 2, 16);
	assert_int_equal(w.chain.id, 0);
	world_fini(&w);
}

/* The table begins at an odd address, and one of its entries lies in two regions. */
static void split_2_7_5_3_indirect_crosses_regions(void **state)
{
	struct ring_desc table[3];

	start(true);
	put(&table[0], data_gpa(0), 8, NEXT, 1);
	put(&table[1], data_gpa(8), 8, NEXT, 2);
	put(&table[2], data_gpa(16), 8, IN, 0);
	memcpy(w.data + 777 - 21, table, sizeof(table));
	put_at(0, 777 - 21, sizeof(table), TABLE, 0);
	offer(0);
	expect_chain(2, 16, 1, 8);
	world_fini(&w);
}

static void indirect_case(bool feature, uint16_t flags, uint32_t len, uint32_t off, const char *why)
{
	start(feature);
	put(&table_at(1024)[0], data_gpa(0), 8, NEXT, 1);
	put(&table_at(1024)[1], data_gpa(8), 8, NEXT, 0);
	put_at(0, off, len, flags, 1);
	put_at(1, 0, 8, 0, 0);
	offer(0);
	expect_broken(why);
}

static void split_2_7_5_3_1_indirect_rules(void **state)
{
	uint32_t far = WORLD_DATA_BYTES;

	indirect_case(false, TABLE, 32, 1024, "indirect descriptor without the feature");
	indirect_case(true, TABLE | NEXT, 32, 1024, "indirect descriptor with a next one");
	indirect_case(true, TABLE, 31, 1024, "indirect table of a bad length");
	indirect_case(true, TABLE, 33, 1024, "indirect table of a bad length");
	indirect_case(true, TABLE, 0, 1024, "indirect table of a bad length");
	indirect_case(true, TABLE, (VIRTQ_TABLE_ANY + 1) * 16, 1024, "indirect table too long");
	indirect_case(true, TABLE, 32, far, "indirect table outside of memory");
	indirect_case(true, TABLE, 32, far - 16, "indirect table outside of memory");
	indirect_case(true, TABLE, 32, 1024, "loop in an indirect table");
	indirect_case(true, TABLE, 16, 1024, "next outside of the indirect table");
	start(true);
	put(&table_at(1024)[0], data_gpa(1024), 16, TABLE, 0);
	put_at(0, 1024, 16, TABLE, 0);
	offer(0);
	expect_broken("indirect descriptor inside an indirect table");
}

static void longest_table(uint32_t size, uint32_t nr)
{
	struct iovec *iov = calloc(nr, sizeof(*iov));
	struct ring_desc *table;

	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, size, false, 1, 0);
	table = (struct ring_desc *)(void *)(w.base + (2 << 20));
	for (uint32_t i = 0; i < nr; i++)
		put(&table[i], data_gpa(i), 1, i + 1 < nr ? IN | NEXT : IN, (uint16_t)(i + 1));
	put(&world_desc(&w)[0], WORLD_GPA + (2 << 20), nr * 16, TABLE, 0);
	offer(0);
	w.chain.iov = iov;
	w.chain.iov_cap = nr - 1;
	assert_int_equal(world_pop(&w), -ENOBUFS);
	assert_int_equal(w.chain.nr_needed, nr);
	w.chain.iov_cap = nr;
	expect_chain(0, 0, nr, nr);
	free(iov);
}

/* A table may be longer than a small ring; of a chain in a large one it may be as long as the ring. */
static void split_2_7_5_3_longest_table(void **state)
{
	longest_table(SIZE, VIRTQ_TABLE_ANY);
	world_fini(&w);
	longest_table(VIRTQ_SIZE_MAX, VIRTQ_SIZE_MAX);
	world_fini(&w);
	longest_table(2 * VIRTQ_TABLE_ANY, 2 * VIRTQ_TABLE_ANY);
	put(&world_desc(&w)[0], WORLD_GPA + (2 << 20), (2 * VIRTQ_TABLE_ANY + 1) * 16, TABLE, 0);
	offer(0);
	expect_broken("indirect table too long");
}

static void split_2_7_8_used_ring(void **state)
{
	struct virtq_chain chains[3];

	start(false);
	for (uint16_t i = 0; i < 3; i++) {
		put_at(i, 0, 100, IN, 0);
		offer(i);
		assert_int_equal(world_pop(&w), 1);
		chains[i] = w.chain;
	}
	virtq_push(w.vq, &chains[2], 7);
	virtq_push(w.vq, &chains[0], 0);
	assert_int_equal(le16_to_cpu(used()->idx), 0);
	virtq_flush(w.vq);
	assert_int_equal(le16_to_cpu(used()->idx), 2);
	assert_int_equal(le32_to_cpu(used()->ring[0].id), 2);
	assert_int_equal(le32_to_cpu(used()->ring[0].len), 7);
	assert_int_equal(le32_to_cpu(used()->ring[1].id), 0);
	assert_int_equal(le32_to_cpu(used()->ring[1].len), 0);
	assert_int_equal(virtq_base(w.vq), 3);
	world_fini(&w);
}

static void split_2_7_7_flags_suppress(void **state)
{
	start(false);
	put_at(0, 0, 8, 0, 0);
	virtq_kick_disable(w.vq);
	assert_int_equal(le16_to_cpu(used()->flags), RING_NO_NOTIFY);
	assert_false(virtq_kick_enable(w.vq));
	assert_int_equal(le16_to_cpu(used()->flags), 0);
	offer(0);
	assert_true(virtq_kick_enable(w.vq));
	assert_int_equal(world_pop(&w), 1);
	avail()->flags = cpu_to_le16(RING_NO_NOTIFY);
	virtq_push(w.vq, &w.chain, 0);
	virtq_flush(w.vq);
	assert_false(virtq_call_needed(w.vq));
	avail()->flags = cpu_to_le16(0);
	offer(0);
	assert_int_equal(world_pop(&w), 1);
	virtq_push(w.vq, &w.chain, 0);
	virtq_flush(w.vq);
	assert_true(virtq_call_needed(w.vq));
	assert_false(virtq_call_needed(w.vq));
	world_fini(&w);
}

/* Interrupt exactly when the used index passes used_event, over the index's end. */
static void split_2_7_7_2_used_event(void **state)
{
	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, SIZE, true, 0, 65532);
	put_at(0, 0, 8, 0, 0);
	for (uint16_t i = 65532; i != 8; i++) {
		avail()->ring[SIZE] = cpu_to_le16(2);
		offer(0);
		assert_int_equal(world_pop(&w), 1);
		virtq_push(w.vq, &w.chain, 0);
		virtq_flush(w.vq);
		/* The first answer after the start is always yes. */
		assert_int_equal(virtq_call_needed(w.vq), i == 65532 || i == 2);
	}
	world_fini(&w);
}

static void setup_is_checked(void **state)
{
	struct virtq_setup setup;
	struct virtq *vq = (struct virtq *)&setup;

	start(false);
	setup = w.setup;
	static const uint32_t bad_sizes[] = { 0, 3, 6, 32769, 65536, UINT32_MAX };

	for (size_t i = 0; i < array_size(bad_sizes); i++) {
		setup.size = bad_sizes[i];
		assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	}
	setup = w.setup;
	setup.base = 65536;
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	setup = w.setup;
	setup.desc = guest_mark((char *)guest_strip(w.setup.desc) + 8);
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	setup = w.setup;
	setup.driver = guest_mark((char *)guest_strip(w.setup.driver) + 1);
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	setup = w.setup;
	setup.device = guest_mark((char *)guest_strip(w.setup.device) + 2);
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	setup = w.setup;
	setup.desc = guest_mark(NULL);
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	assert_ptr_equal(vq, &setup);
	assert_int_equal(virtq_desc_bytes(VIRTQ_SPLIT, 256), 4096);
	assert_int_equal(virtq_driver_bytes(VIRTQ_SPLIT, 256), 6 + 2 * 256);
	assert_int_equal(virtq_device_bytes(VIRTQ_SPLIT, 256), 6 + 8 * 256);
	world_fini(&w);
}

static bool bit(const uint8_t *bits, uint64_t addr)
{
	return bits[addr / 4096 / 8] >> (addr / 4096 % 8) & 1;
}

static void used_ring_is_logged(void **state)
{
	int fd = memfd_new("log", 4096);
	uint8_t *bits = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, 1024, false, 0, 510);
	assert_int_equal(dirty_log_new(&w.setup.log, fd, 4096, 0), 0);
	w.setup.log_addr = 0x10000 - 4;
	assert_int_equal(virtq_move(w.vq, &w.setup), 0);
	put_at(0, 0, 8, 0, 0);
	for (uint16_t i = 0; i < 4; i++) {
		avail()->ring[510 + i] = cpu_to_le16(0);
		avail()->idx = cpu_to_le16(511 + i);
		assert_int_equal(world_pop(&w), 1);
		virtq_push(w.vq, &w.chain, 0);
	}
	assert_false(bit(bits, 0x10000));
	virtq_flush(w.vq);
	/* Elements 510..513 lie at 0x10ff0..0x1100f, idx at 0xfffe. */
	assert_true(bit(bits, 0xf000));
	assert_true(bit(bits, 0x10000));
	assert_true(bit(bits, 0x11000));
	assert_false(bit(bits, 0x12000));
	w.setup.size = 512;
	assert_int_equal(virtq_move(w.vq, &w.setup), -EINVAL);
	dirty_log_put(w.setup.log);
	world_fini(&w);
	munmap(bits, 4096);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_2_7_5_next_outside),
		cmocka_unit_test(split_2_7_5_loop),
		cmocka_unit_test(split_2_7_5_longest_chain),
		cmocka_unit_test(split_2_7_6_head_outside),
		cmocka_unit_test(split_2_7_6_index_at_limit),
		cmocka_unit_test(split_2_7_6_index_too_far),
		cmocka_unit_test(split_2_7_13_more_than_the_ring_has),
		cmocka_unit_test(split_2_7_4_2_readable_behind_writable),
		cmocka_unit_test(split_2_7_5_outside_of_memory),
		cmocka_unit_test(split_chain_bytes_cap),
		cmocka_unit_test(split_2_7_5_empty_descriptors),
		cmocka_unit_test(split_2_7_5_crosses_regions),
		cmocka_unit_test(split_2_7_5_3_indirect),
		cmocka_unit_test(split_2_7_5_3_indirect_crosses_regions),
		cmocka_unit_test(split_2_7_5_3_1_indirect_rules),
		cmocka_unit_test(split_2_7_5_3_longest_table),
		cmocka_unit_test(split_2_7_8_used_ring),
		cmocka_unit_test(split_2_7_7_flags_suppress),
		cmocka_unit_test(split_2_7_7_2_used_event),
		cmocka_unit_test(setup_is_checked),
		cmocka_unit_test(used_ring_is_logged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
