/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The packed ring, device side, rule by rule. Tests have the numbers of virtio 1.2's clauses.
 */
#include "world.h"

#define SIZE  5
#define IN    RING_DESC_WRITE
#define NEXT  RING_DESC_NEXT
#define TABLE RING_DESC_INDIRECT
/* Available in the first lap, whose wrap counter is 1, and in the second. */
#define LAP1 RING_DESC_AVAIL
#define LAP2 RING_DESC_USED

static struct world w;

static uint64_t data_gpa(uint32_t off)
{
	return WORLD_GPA + WORLD_RING_BYTES + off;
}

static void put(struct ring_desc *desc, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	*desc = (struct ring_desc){ cpu_to_le64(addr),
				    cpu_to_le64(desc_word_packed(len, id, flags)) };
}

static void put_at(uint32_t index, uint32_t len, uint16_t id, uint16_t flags)
{
	put(&world_desc(&w)[index], data_gpa(index * 64), len, id, flags);
}

static struct desc get_at(uint32_t index)
{
	return desc_packed(le64_to_cpu(world_desc(&w)[index].addr),
			   le64_to_cpu(world_desc(&w)[index].word));
}

static void start_at(bool indirect, uint32_t base)
{
	world_init(&w);
	world_start(&w, VIRTQ_PACKED, SIZE, false, indirect ? 1 : 0, base);
}

static void start(bool indirect)
{
	start_at(indirect, VIRTQ_DRIVER_BASE_PACKED);
}

static void expect_broken(const char *why)
{
	assert_true(virtq_has_work(w.vq));
	assert_int_equal(world_pop(&w), -EBADMSG);
	assert_non_null(virtq_broken(w.vq));
	assert_string_equal(virtq_broken(w.vq), why);
	assert_int_equal(world_pop(&w), -EBADMSG);
	world_fini(&w);
}

static void expect_chain(uint16_t id, uint16_t nr_desc, uint32_t out_bytes, uint32_t in_bytes)
{
	assert_int_equal(world_pop(&w), 1);
	assert_int_equal(w.chain.id, id);
	assert_int_equal(w.chain.nr_desc, nr_desc);
	assert_int_equal(w.chain.out_bytes, out_bytes);
	assert_int_equal(w.chain.in_bytes, in_bytes);
}

/* 2.8.1: only AVAIL != USED, and AVAIL as the wrap counter, is available. */
static void packed_2_8_1_available(void **state)
{
	start(false);
	put_at(0, 8, 0, 0);
	assert_int_equal(world_pop(&w), 0);
	put_at(0, 8, 0, LAP1 | LAP2);
	assert_int_equal(world_pop(&w), 0);
	put_at(0, 8, 0, LAP2);
	assert_int_equal(world_pop(&w), 0);
	assert_false(virtq_has_work(w.vq));
	put_at(0, 8, 0, LAP1);
	assert_true(virtq_has_work(w.vq));
	expect_chain(0, 1, 8, 0);
	world_fini(&w);
}

/* 2.8.6: the id is in the last descriptor; the list goes on over the ring's end with the next lap's flags. */
static void packed_2_8_6_list_wraps(void **state)
{
	start_at(false, 0x80038003u);
	put_at(3, 8, 77, LAP1 | NEXT);
	put_at(4, 8, 78, LAP1 | NEXT);
	put_at(0, 8, 41, LAP2 | IN);
	expect_chain(41, 3, 16, 8);
	assert_int_equal(virtq_base(w.vq), 0x80030001u);
	virtq_push(w.vq, &w.chain, 5);
	assert_int_equal(get_at(3).flags, LAP1 | NEXT);
	virtq_flush(w.vq);
	assert_int_equal(get_at(3).flags, LAP1 | LAP2 | IN);
	assert_int_equal(get_at(3).id, 41);
	assert_int_equal(get_at(3).len, 5);
	assert_int_equal(virtq_base(w.vq), 0x00010001u);
	world_fini(&w);
}

static void packed_2_8_6_rest_not_available(void **state)
{
	start(false);
	put_at(0, 8, 0, LAP1 | NEXT);
	put_at(1, 8, 0, LAP2);
	expect_broken("chain goes on in a descriptor that is not available");
	/* Over the end of the ring the flags must turn round. */
	start_at(false, 0x80048004u);
	put_at(4, 8, 0, LAP1 | NEXT);
	put_at(0, 8, 0, LAP1);
	expect_broken("chain goes on in a descriptor that is not available");
}

/* A list as long as the ring is right, one that goes on into its own beginning is not. */
static void packed_2_8_5_longest_list(void **state)
{
	for (unsigned int round = 0; round < 2; round++) {
		bool too_long = round == 0;

		start(false);
		for (uint16_t i = 0; i < SIZE; i++)
			put_at(i, 8, i, i + 1 < SIZE || too_long ? LAP1 | NEXT : LAP1);
		if (too_long)
			expect_broken("chain goes on in a descriptor that is not available");
	}
	expect_chain(SIZE - 1, SIZE, 8 * SIZE, 0);
	assert_int_equal(virtq_base(w.vq), 0x80000000u);
	world_fini(&w);
}

/* 2.8.21: a driver overwrites what did not come back. */
static void packed_2_8_21_more_than_the_ring_has(void **state)
{
	start(false);
	for (uint16_t i = 0; i < SIZE; i++) {
		put_at(i, 8, i, LAP1);
		expect_chain(i, 1, 8, 0);
	}
	put_at(0, 8, 0, LAP2);
	expect_broken("more descriptors than the ring has");
}

static void packed_2_8_7_indirect(void **state)
{
	struct ring_desc *table;

	start(true);
	/* At an odd place, over a region's border; all flags but WRITE count for nothing. */
	table = calloc(3, sizeof(*table));
	put(&table[0], data_gpa(0), 8, 9, NEXT | LAP2 | TABLE);
	put(&table[1], data_gpa(8), 8, 9, 0);
	put(&table[2], data_gpa(16), 8, 9, IN);
	memcpy(w.data + 777 - 21, table, 48);
	put(&world_desc(&w)[0], data_gpa(777 - 21), 48, 3, LAP1 | TABLE | IN);
	expect_chain(3, 1, 16, 8);
	free(table);
	world_fini(&w);
}

static void indirect_case(bool feature, uint32_t at, uint16_t flags, uint32_t len, const char *why)
{
	start(feature);
	if (at)
		put_at(0, 8, 0, LAP1 | NEXT);
	put(&world_desc(&w)[at], data_gpa(512), len, 3, LAP1 | flags);
	put_at(at + 1, 8, 0, LAP1);
	expect_broken(why);
}

static void packed_2_8_7_indirect_rules(void **state)
{
	indirect_case(false, 0, TABLE, 32, "indirect descriptor without the feature");
	indirect_case(true, 0, TABLE | NEXT, 32, "indirect descriptor in a list");
	indirect_case(true, 1, TABLE, 32, "indirect descriptor in a list");
	indirect_case(true, 0, TABLE, 0, "indirect table of a bad length");
	indirect_case(true, 0, TABLE, 15, "indirect table of a bad length");
	indirect_case(true, 0, TABLE, (VIRTQ_TABLE_ANY + 1) * 16, "indirect table too long");
	indirect_case(true, 0, TABLE, VIRTQ_SIZE_MAX * 16 * 3, "indirect table too long");
}

static void packed_descriptor_rules(void **state)
{
	start(false);
	put(&world_desc(&w)[0], WORLD_GPA + WORLD_BYTES - 1, 2, 0, LAP1);
	expect_broken("descriptor outside of memory");
	start(false);
	put(&world_desc(&w)[0], UINT64_MAX, 2, 0, LAP1);
	expect_broken("descriptor outside of memory");
	start(false);
	put_at(0, 8, 0, LAP1 | IN | NEXT);
	put_at(1, 8, 0, LAP1);
	expect_broken("readable descriptor behind a writable one");
	start(false);
	put(&world_desc(&w)[0], 0, 0, 4, LAP1);
	expect_chain(4, 1, 0, 0);
	world_fini(&w);
}

/* 2.8.10: the first descriptor of a batch is published last. */
static void packed_2_8_4_batch(void **state)
{
	struct virtq_chain chains[3];

	start(false);
	for (uint16_t i = 0; i < 3; i++) {
		put_at(i, 8, i, LAP1 | IN);
		assert_int_equal(world_pop(&w), 1);
		chains[i] = w.chain;
	}
	virtq_push(w.vq, &chains[1], 4);
	virtq_push(w.vq, &chains[0], 0);
	assert_int_equal(get_at(0).flags, LAP1 | IN);
	virtq_flush(w.vq);
	assert_int_equal(get_at(0).flags, LAP1 | LAP2 | IN);
	assert_int_equal(get_at(0).id, 1);
	assert_int_equal(get_at(0).len, 4);
	/* Nothing written: no WRITE flag. */
	assert_int_equal(get_at(1).flags, LAP1 | LAP2);
	assert_int_equal(get_at(1).id, 0);
	assert_int_equal(virtq_base(w.vq), 0x80028003u);
	world_fini(&w);
}

static void packed_2_8_10_suppression(void **state)
{
	struct ring_event *driver, *device;
	static const struct {
		uint32_t word;
		bool call;
	} cases[] = {
		{ RING_EVENT_ENABLE << 16, true },
		{ RING_EVENT_DISABLE << 16, false },
		{ RING_EVENT_DESC << 16 | 2 | 1 << 15, true },
		{ RING_EVENT_DESC << 16 | 1 | 1 << 15, false },
		{ RING_EVENT_DESC << 16 | 2, false },
		{ RING_EVENT_DESC << 16 | 3 | 1 << 15, false },
	};

	for (size_t i = 0; i < array_size(cases); i++) {
		world_init(&w);
		world_start(&w, VIRTQ_PACKED, SIZE, true, 0, VIRTQ_DRIVER_BASE_PACKED);
		driver = guest_strip(w.setup.driver);
		device = guest_strip(w.setup.device);
		for (uint16_t k = 0; k < 3; k++) {
			put_at(k, 8, k, LAP1);
			assert_int_equal(world_pop(&w), 1);
			virtq_push(w.vq, &w.chain, 0);
			virtq_flush(w.vq);
			driver->word = cpu_to_le32(cases[i].word);
			if (k == 2)
				assert_int_equal(virtq_call_needed(w.vq), cases[i].call);
			else
				(void)!virtq_call_needed(w.vq);
		}
		assert_false(virtq_kick_enable(w.vq));
		assert_int_equal(le32_to_cpu(device->word), RING_EVENT_DESC << 16 | 3 | 1 << 15);
		virtq_kick_disable(w.vq);
		assert_int_equal(le32_to_cpu(device->word), RING_EVENT_DISABLE << 16);
		world_fini(&w);
	}
}

static void setup_is_checked(void **state)
{
	static const struct {
		uint32_t base;
		int ret;
	} bases[] = {
		{ 0x80008000u, 0 },	  { 0x80000000u, 0 },	    { 0x80048004u, 0 },
		{ 0x80058000u, -EINVAL }, { 0x80008005u, -EINVAL }, { 0x80028001u, -EINVAL },
		{ 0x80018002u, 0 },	  { 0x80020001u, 0 },	    { 0x80010002u, -EINVAL },
		{ 0x80010001u, 0 },
	};
	struct virtq_setup setup;
	struct virtq *vq;

	start(false);
	for (size_t i = 0; i < array_size(bases); i++) {
		setup = w.setup;
		setup.base = bases[i].base;
		assert_int_equal(virtq_new(&vq, &setup), bases[i].ret);
		if (!bases[i].ret) {
			assert_int_equal(virtq_base(vq), bases[i].base);
			virtq_free(vq);
		}
	}
	setup = w.setup;
	setup.driver = guest_mark((char *)guest_strip(w.setup.driver) + 2);
	assert_int_equal(virtq_new(&vq, &setup), -EINVAL);
	assert_int_equal(virtq_driver_bytes(VIRTQ_PACKED, 256), 4);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_2_8_1_available),
		cmocka_unit_test(packed_2_8_6_list_wraps),
		cmocka_unit_test(packed_2_8_6_rest_not_available),
		cmocka_unit_test(packed_2_8_5_longest_list),
		cmocka_unit_test(packed_2_8_21_more_than_the_ring_has),
		cmocka_unit_test(packed_2_8_7_indirect),
		cmocka_unit_test(packed_2_8_7_indirect_rules),
		cmocka_unit_test(packed_descriptor_rules),
		cmocka_unit_test(packed_2_8_4_batch),
		cmocka_unit_test(packed_2_8_10_suppression),
		cmocka_unit_test(setup_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
