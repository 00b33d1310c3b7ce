/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight record: a device that dies at any store, and the one that goes on from what it left.
 *
 * virtq_inflight.c is built into this test with a hook behind each store to the area. The hook keeps a copy of
 * ring and area; later a new device starts from each copy, and has to find exactly the chains that the driver made
 * available and did not get back, in order. While it starts, the hook makes copies again: dying during the
 * recovery is recovered from as well. Since a flush of a split ring may happen while a chain is being taken, the hook makes
 * that happen.
 */
#include <pthread.h>

static void test_step(void);
static int test_lock(pthread_mutex_t *lock);
#define INFLIGHT_STEP()	   test_step()
#define pthread_mutex_lock test_lock
#include "../../src/virtio/virtq_inflight.c"
#undef pthread_mutex_lock

#include "world.h"

#include "base/iov.h"

#define AREA_OFF   (3u << 20)
#define LOG_MAX	   4000
#define SNAP_BYTES 4096
#define JOBS	   32

/** struct snap - shared memory at one moment. */
struct snap {
	uint32_t nr_avail;
	uint32_t nr_used;
	char ring[SNAP_BYTES];
	char area[SNAP_BYTES];
};

static struct world w;
static uint64_t rng;
static struct snap *snaps;
static uint32_t nr_snaps, cap_snaps;
static bool recording;
/* Chains in the order in which the driver made them available, and in which the device flushed them. */
static uint32_t avail_log[LOG_MAX], used_log[LOG_MAX];
static uint32_t nr_avail, nr_pushed;
static uint16_t desc_of[LOG_MAX];
/* Chains of used_log before the batch under way, and where that begins in a packed ring. */
static uint32_t nr_flushed;
static uint16_t used_pos;
static bool used_wrap;
static size_t ring_bytes, area_bytes;
/* Chains that the device holds. */
static struct virtq_chain out[JOBS];
static uint32_t out_job[JOBS];
static uint32_t nr_out;
/* A chain is being taken; two threads are at work. */
static bool taking, racing;

static void flush_some(uint32_t nr);

static char *area(void)
{
	return w.base + AREA_OFF;
}

/* How many of used_log the driver can see, from the ring alone. */
static uint32_t visible_used(void)
{
	if (w.setup.format == VIRTQ_SPLIT) {
		struct split_used *used = guest_strip(w.setup.device);

		return (uint16_t)(le16_to_cpu(used->idx) - (uint16_t)w.setup.base);
	}
	struct desc desc = desc_packed(0, le64_to_cpu(world_desc(&w)[used_pos].word));

	/* The first descriptor of the batch shows it, or not, as a whole. */
	if (!!(desc.flags & RING_DESC_AVAIL) == used_wrap &&
	    !!(desc.flags & RING_DESC_USED) == used_wrap)
		return nr_pushed;
	return nr_flushed;
}

static void test_step(void)
{
	struct snap *snap;

	if (racing)
		sched_yield();
	if (!recording)
		return;
	if (taking) {
		taking = false;
		flush_some(rng_below(&rng, 3));
	}
	if (nr_snaps == cap_snaps) {
		cap_snaps = cap_snaps ? cap_snaps * 2 : 256;
		snaps = realloc(snaps, cap_snaps * sizeof(*snaps));
		assert_non_null(snaps);
	}
	snap = &snaps[nr_snaps++];
	snap->nr_avail = nr_avail;
	snap->nr_used = visible_used();
	memcpy(snap->ring, w.base, ring_bytes);
	memcpy(snap->area, area(), area_bytes);
}

/* What the other thread does right before this one gets the lock, once. */
static void (*before_lock)(void);

static int test_lock(pthread_mutex_t *lock)
{
	void (*other)(void) = before_lock;

	before_lock = NULL;
	if (other)
		other();
	return pthread_mutex_lock(lock);
}

static void restore(const struct snap *snap)
{
	memcpy(w.base, snap->ring, ring_bytes);
	memcpy(area(), snap->area, area_bytes);
}

static uint32_t chain_job(const struct virtq_chain *chain)
{
	uint32_t job;

	assert_int_equal(iov_copy_out(&job, chain->iov, chain->nr_out, 0, sizeof(job)),
			 sizeof(job));
	return job;
}

/* A new device on what @snap holds finds what is owed, in order, and nothing else. */
static void check_recovery(const struct snap *snap)
{
	struct virtq_setup setup = w.setup;
	struct virtq *vq;

	restore(snap);
	setup.inflight = area();
	assert_int_equal(virtq_new(&vq, &setup), 0);
	recording = false;
	for (uint32_t i = 0; i < snap->nr_avail; i++) {
		bool back = false;

		for (uint32_t k = 0; k < snap->nr_used && !back; k++)
			back = used_log[k] == avail_log[i];
		if (back)
			continue;
		assert_int_equal(virtq_pop(vq, w.mem, &w.chain), 1);
		assert_int_equal(chain_job(&w.chain), avail_log[i]);
	}
	assert_int_equal(virtq_pop(vq, w.mem, &w.chain), 0);
	virtq_free(vq);
}

static void check_all(void)
{
	struct snap *first = snaps;
	uint32_t nr_first = nr_snaps;
	uint32_t nr_second;

	for (uint32_t i = 0; i < nr_first; i++) {
		snaps = NULL;
		nr_snaps = cap_snaps = 0;
		nr_avail = first[i].nr_avail;
		recording = true;
		check_recovery(&first[i]);
		nr_second = nr_snaps;
		for (uint32_t k = 0; k < nr_second; k++) {
			snaps[k].nr_used = first[i].nr_used;
			check_recovery(&snaps[k]);
		}
		free(snaps);
	}
	free(first);
	snaps = NULL;
	nr_snaps = cap_snaps = 0;
}

static void do_add(uint32_t max_segs)
{
	uint32_t job = nr_avail;
	uint32_t nr = 1 + rng_below(&rng, max_segs);
	struct iovec segs[4];

	assert_true(job < LOG_MAX);
	for (uint32_t i = 0; i < nr; i++)
		segs[i] = (struct iovec){ w.data + job * 16 + i * 4, 4 };
	memcpy(segs[0].iov_base, &job, sizeof(job));
	if (virtq_driver_add(w.drv, segs, 1, nr - 1, (void *)(uintptr_t)(job + 1)) == -ENOSPC)
		return;
	desc_of[job] = (uint16_t)nr;
	avail_log[nr_avail++] = job;
	(void)!virtq_driver_publish(w.drv);
}

static void flush_some(uint32_t nr)
{
	for (uint32_t i = 0; i < nr && nr_out; i++) {
		uint32_t at = rng_below(&rng, nr_out);

		used_log[nr_pushed++] = out_job[at];
		virtq_push(w.vq, &out[at], 0);
		nr_out--;
		out[at] = out[nr_out];
		out_job[at] = out_job[nr_out];
	}
	virtq_flush(w.vq);
	for (; nr_flushed < nr_pushed; nr_flushed++) {
		used_pos += desc_of[used_log[nr_flushed]];
		if (used_pos >= w.setup.size) {
			used_pos -= w.setup.size;
			used_wrap = !used_wrap;
		}
	}
}

static void run_session(enum virtq_format format, uint32_t size, uint32_t base)
{
	void *cookie;
	uint32_t len;

	world_init(&w);
	world_start(&w, format, size, false, 0, base);
	virtq_free(w.vq);
	ring_bytes = virtq_driver_ring_bytes(format, size, 0);
	area_bytes = virtq_inflight_bytes(format, size);
	assert_true(ring_bytes <= SNAP_BYTES && area_bytes <= SNAP_BYTES);
	virtq_inflight_format(area(), format, size);
	w.setup.inflight = area();
	assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
	nr_avail = nr_pushed = nr_flushed = nr_out = 0;
	used_pos = 0;
	used_wrap = true;
	recording = true;
	for (uint32_t i = 0; i < 120; i++) {
		switch (rng_below(&rng, 5)) {
		case 0:
		case 1:
			do_add(min_of(size, 3u));
			break;
		case 2:
			taking = format == VIRTQ_SPLIT && rng_below(&rng, 2);
			if (world_pop(&w) == 1) {
				out[nr_out] = w.chain;
				out_job[nr_out++] = chain_job(&w.chain);
			}
			taking = false;
			break;
		case 3:
			flush_some(1 + rng_below(&rng, 3));
			break;
		default:
			while (virtq_driver_get(w.drv, &cookie, &len) == 1)
				;
		}
	}
	recording = false;
	check_all();
	world_fini(&w);
}

static void inflight_split_every_step(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 4, 8 };

	for (uint64_t seed = 1; seed <= 10; seed++) {
		rng = seed * 7919;
		run_session(VIRTQ_SPLIT, sizes[seed % 4], 0);
	}
}

static void inflight_packed_every_step(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 3, 5, 8 };

	for (uint64_t seed = 1; seed <= 20; seed++) {
		rng = seed * 104729;
		run_session(VIRTQ_PACKED, sizes[seed % 5], VIRTQ_DRIVER_BASE_PACKED);
	}
}

#define RACE_CHAINS 20000u

/* What the pop side hands to the push side. */
static struct {
	struct virtq_chain chain;
	struct iovec iov[4];
	bool full; /* atomic */
} hand[2];

static void *race_push(void *unused)
{
	for (uint32_t i = 0; i < RACE_CHAINS; i++) {
		while (!__atomic_load_n(&hand[i % 2].full, __ATOMIC_ACQUIRE))
			sched_yield();
		virtq_push(w.vq, &hand[i % 2].chain, 0);
		virtq_flush(w.vq);
		__atomic_store_n(&hand[i % 2].full, false, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* The pop side, and a driver that makes a chain available again the moment that it has it back. */
static void race_pop(const struct split_area *split)
{
	struct iovec seg = { w.data, 8 };
	uint32_t nr_added = 0, nr_taken = 0, len;
	void *cookie;

	while (nr_taken < RACE_CHAINS) {
		uint32_t at = nr_taken % 2;

		while (virtq_driver_get(w.drv, &cookie, &len) == 1)
			continue;
		while (nr_added < RACE_CHAINS && virtq_driver_add(w.drv, &seg, 1, 0, &w) == 0)
			nr_added++;
		(void)!virtq_driver_publish(w.drv);
		if (__atomic_load_n(&hand[at].full, __ATOMIC_ACQUIRE)) {
			sched_yield();
			continue;
		}
		hand[at].chain = (struct virtq_chain){ .iov = hand[at].iov, .iov_cap = 4 };
		if (virtq_pop(w.vq, w.mem, &hand[at].chain) != 1)
			continue;
		/* Give a late flush time to clear what is not its own. */
		sched_yield();
		assert_int_equal(READ_ONCE(split->desc[hand[at].chain.inflight_slot].inflight), 1);
		nr_taken++;
		__atomic_store_n(&hand[at].full, true, __ATOMIC_RELEASE);
	}
}

/* A chain is taken again in one thread while its last life ends in the other: it stays marked. */
static void inflight_split_race(void **state)
{
	struct split_area *split = (struct split_area *)(void *)calloc(1, 65536);
	pthread_t thread;

	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, 1, false, 0, 0);
	virtq_free(w.vq);
	virtq_inflight_format(split, VIRTQ_SPLIT, 1);
	w.setup.inflight = split;
	assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
	racing = true;
	assert_int_equal(pthread_create(&thread, NULL, race_push, NULL), 0);
	race_pop(split);
	pthread_join(thread, NULL);
	racing = false;
	assert_int_equal(split->desc[0].inflight, 0);
	world_fini(&w);
	free(split);
}

/* Ends in good order leave an area that the next start does not go by. */
static void inflight_orderly_end(void **state)
{
	for (int format = VIRTQ_SPLIT; format <= VIRTQ_PACKED; format++) {
		struct iovec seg;
		void *cookie;
		uint32_t len;

		world_init(&w);
		world_start(&w, format, 8, false, 0,
			    format == VIRTQ_PACKED ? VIRTQ_DRIVER_BASE_PACKED : 0);
		virtq_free(w.vq);
		w.setup.inflight = area();
		for (uint32_t i = 0; i < 30; i++) {
			assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
			seg = (struct iovec){ w.data, 8 };
			assert_int_equal(virtq_driver_add(w.drv, &seg, 1, 0, &w), 0);
			(void)!virtq_driver_publish(w.drv);
			assert_int_equal(world_pop(&w), 1);
			if (i % 3 == 0) {
				/* Dies with the chain in its hands. */
				virtq_free(w.vq);
				assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
				assert_true(virtq_has_work(w.vq));
				assert_int_equal(world_pop(&w), 1);
			}
			virtq_push(w.vq, &w.chain, 0);
			virtq_flush(w.vq);
			assert_int_equal(virtq_driver_get(w.drv, &cookie, &len), 1);
			w.setup.base = virtq_base(w.vq);
			virtq_free(w.vq);
		}
		w.vq = NULL;
		world_fini(&w);
	}
}

static void inflight_layout(void **state)
{
	struct split_area *split = (struct split_area *)(void *)calloc(1, 65536);
	struct packed_area *packed = (struct packed_area *)(void *)split;

	assert_int_equal(virtq_inflight_bytes(VIRTQ_SPLIT, 128), 16 + 128 * 16 + 48);
	assert_int_equal(virtq_inflight_bytes(VIRTQ_PACKED, 128), 32 + 128 * 32 + 32);
	assert_int_equal(offsetof(struct split_area, used_idx), 14);
	assert_int_equal(offsetof(struct packed_area, old_free_head), 14);
	assert_int_equal(offsetof(struct packed_state, addr), 24);
	virtq_inflight_format(split, VIRTQ_SPLIT, 128);
	assert_int_equal(split->version, 1);
	assert_int_equal(split->desc_num, 128);
	virtq_inflight_format(packed, VIRTQ_PACKED, 128);
	assert_int_equal(packed->version, 1);
	assert_int_equal(packed->desc_num, 128);
	assert_int_equal(packed->desc[5].next, 6);
	assert_int_equal(((uint8_t *)&packed->pos)[4], 1);
	assert_int_equal(((uint8_t *)&packed->pos)[5], 1);
	free(split);
}

/* One bad field each; nothing of a refused area is changed but marks. */
static void inflight_refuses_split(void **state)
{
	struct split_area *split;
	struct virtq *vq = NULL;

	world_init(&w);
	world_start(&w, VIRTQ_SPLIT, 8, false, 0, 0);
	split = (struct split_area *)(void *)area();
	w.setup.inflight = split;
	for (int i = 0; i < 6; i++) {
		virtq_inflight_format(split, VIRTQ_SPLIT, 8);
		split->desc[1].inflight = 1;
		switch (i) {
		case 0:
			split->version = 2;
			break;
		case 1:
			split->desc_num = 7;
			break;
		case 2: /* 9 flushed at once */
			split->used_idx = (uint16_t)-9;
			break;
		case 3: /* outside */
			split->used_idx = (uint16_t)-2;
			split->last_batch_head = 8;
			break;
		case 4: /* loop */
			split->used_idx = (uint16_t)-3;
			split->desc[0].next = 2;
			split->desc[2].next = 0;
			break;
		default: /* fine: made for a larger ring */
			split->desc_num = 16;
		}
		assert_int_equal(virtq_new(&vq, &w.setup), i < 5 ? -EINVAL : 0);
	}
	virtq_free(vq);
	world_fini(&w);
}

static void inflight_refuses_packed(void **state)
{
	struct packed_area *packed;
	struct virtq *vq = NULL;

	world_init(&w);
	world_start(&w, VIRTQ_PACKED, 8, false, 0, VIRTQ_DRIVER_BASE_PACKED);
	packed = (struct packed_area *)(void *)area();
	w.setup.inflight = packed;
	for (int i = 0; i < 7; i++) {
		struct packed_pos pos = { 0, 0, 1, 1, { 0 } };

		virtq_inflight_format(packed, VIRTQ_PACKED, 8);
		packed->desc[1] = (struct packed_state){ .inflight = 1, .num = 1, .next = 2 };
		switch (i) {
		case 0:
			pos.used_idx = pos.old_used_idx = 8;
			break;
		case 1:
			pos.used_wrap = 2;
			break;
		case 2: /* backwards */
			pos.old_used_idx = 3;
			break;
		case 3:
			packed->desc[1].num = 9;
			break;
		case 4:
			packed->desc[1].num = 2;
			packed->desc[1].next = 8;
			break;
		case 5: /* two chains share an entry */
			packed->desc[1].num = 2;
			packed->desc[2] = (struct packed_state){ .inflight = 1, .num = 1 };
			break;
		default:
			packed->desc_num = 7;
		}
		packed->pos = pos_pack(pos);
		assert_int_equal(virtq_new(&vq, &w.setup), -EINVAL);
	}
	world_fini(&w);
}

static void pop_too_early(void)
{
	assert_int_equal(virtq_pop(w.vq, w.mem, &w.chain), -EBADMSG);
}

/*
 * A driver makes descriptors available again that it did not have back: while they are given back, the record has no
 * place for another chain yet. The links of these chains lead out of the area.
 */
static void inflight_packed_reuse_too_early(void **state)
{
	struct packed_area *packed;
	struct virtq_chain chain[4];

	world_init(&w);
	world_start(&w, VIRTQ_PACKED, 4, false, 0, VIRTQ_DRIVER_BASE_PACKED);
	virtq_free(w.vq);
	packed = (struct packed_area *)(void *)area();
	virtq_inflight_format(packed, VIRTQ_PACKED, 4);
	for (uint32_t i = 0; i < 4; i++) {
		packed->desc[i] = (struct packed_state){ .inflight = 1, .num = 1, .next = 60000 };
		/* Available in the lap that follows. */
		world_desc(&w)[i].word = cpu_to_le64(desc_word_packed(0, 0, RING_DESC_USED));
	}
	w.setup.inflight = packed;
	assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(world_pop(&w), 1);
		chain[i] = w.chain;
	}
	virtq_push(w.vq, &chain[0], 0);
	before_lock = pop_too_early;
	virtq_flush(w.vq);
	assert_null(before_lock);
	world_fini(&w);
}

/* Whatever is in the area: started or refused, and bounded. */
static void inflight_random_areas(void **state)
{
	rng = 4711;
	world_init(&w);
	for (uint32_t i = 0; i < 20000; i++) {
		bool packed = i & 1;
		uint8_t *bytes = (uint8_t *)area();
		struct virtq_setup setup;
		struct virtq *vq;
		uint32_t nr = 0;

		world_start(&w, packed ? VIRTQ_PACKED : VIRTQ_SPLIT, 4, false, 0,
			    packed ? VIRTQ_DRIVER_BASE_PACKED : 0);
		virtq_inflight_format(bytes, w.setup.format, 4);
		for (uint32_t k = 0; k < 8; k++)
			bytes[rng_below(&rng, 128)] = (uint8_t)rng_below(&rng, 6);
		setup = w.setup;
		setup.inflight = bytes;
		if (virtq_new(&vq, &setup) == 0) {
			while (virtq_pop(vq, w.mem, &w.chain) == 1) {
				virtq_push(vq, &w.chain, 0);
				virtq_flush(vq);
				assert_true(++nr <= 4);
			}
			virtq_free(vq);
		}
		world_stop(&w);
	}
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inflight_layout),
		cmocka_unit_test(inflight_orderly_end),
		cmocka_unit_test(inflight_refuses_split),
		cmocka_unit_test(inflight_refuses_packed),
		cmocka_unit_test(inflight_packed_reuse_too_early),
		cmocka_unit_test(inflight_random_areas),
		cmocka_unit_test(inflight_split_every_step),
		cmocka_unit_test(inflight_split_race),
		cmocka_unit_test(inflight_packed_every_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
