/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Drivers out of their minds, and threads: for the sanitizers above all.
 */
#include "world.h"

#include <pthread.h>
#include <sched.h>

#define SIZE 16
/* Behind the ring: nobody writes here. */
#define CANARY_BYTES 65536

static uint32_t interesting(uint64_t *rng)
{
	static const uint32_t words[] = {
		0,	    0xffffffff, 16,	    32,		0x8000,
		0x7fff,	    0x10000,	0x0001,	    0x0002,	0x0004,
		0x00800000, 0x80000000, 0x00810000, 0x40000000, 0x40400000,
	};

	if (rng_below(rng, 3))
		return words[rng_below(rng, array_size(words))];
	return (uint32_t)rng_next(rng);
}

static uint32_t *word_in(void __guest *area, size_t bytes, uint64_t *rng)
{
	return (uint32_t *)guest_strip(area) + rng_below(rng, (uint32_t)(bytes / 4));
}

/* Something that a driver in its right mind would write, so that the device gets somewhere. */
static void write_sense(struct world *w, uint64_t *rng)
{
	uint32_t i = rng_below(rng, SIZE);
	uint64_t addr = WORLD_GPA + WORLD_RING_BYTES + rng_below(rng, 65536);
	uint16_t flags = (uint16_t)rng_below(rng, 4);
	uint32_t len = rng_below(rng, 5000);
	struct ring_desc __guest *desc = (struct ring_desc __guest *)w->setup.desc;

	guest_write64(&desc[i].addr, addr);
	if (w->setup.format == VIRTQ_SPLIT) {
		struct split_avail *avail = guest_strip(w->setup.driver);

		guest_write64(&desc[i].word,
			      desc_word_split(len, flags, (uint16_t)rng_below(rng, SIZE)));
		WRITE_ONCE(avail->ring[rng_below(rng, SIZE)].raw, htole16(rng_below(rng, SIZE)));
		WRITE_ONCE(avail->idx.raw,
			   htole16((uint16_t)(w->setup.base + rng_below(rng, SIZE))));
	} else {
		flags |= rng_below(rng, 4) ? RING_DESC_AVAIL : RING_DESC_USED;
		guest_write64(&desc[i].word, desc_word_packed(len, (uint16_t)i, flags));
	}
}

/* One store somewhere in the ring's three areas. */
static void scribble(struct world *w, uint64_t *rng)
{
	enum virtq_format format = w->setup.format;
	uint32_t *word;

	if (rng_below(rng, 10)) {
		write_sense(w, rng);
		return;
	}
	switch (rng_below(rng, 4)) {
	case 0:
		word = word_in(w->setup.driver, virtq_driver_bytes(format, SIZE), rng);
		break;
	case 1:
		word = word_in(w->setup.device, virtq_device_bytes(format, SIZE), rng);
		break;
	default:
		word = word_in(w->setup.desc, virtq_desc_bytes(format, SIZE), rng);
	}
	__atomic_store_n(word, interesting(rng), __ATOMIC_RELAXED);
}

/* Drive the device for a few rounds, anew when it gave up. Return: chains popped. */
static uint32_t run_device(struct world *w, uint64_t *rng, uint32_t rounds)
{
	struct virtq_chain out[SIZE];
	uint32_t nr_out = 0, nr = 0;

	while (rounds--) {
		int ret = world_pop(w);

		if (ret == -ENOBUFS) {
			assert_true(w->chain.nr_needed > WORLD_IOV);
			break;
		}
		if (ret == -EBADMSG) {
			assert_non_null(virtq_broken(w->vq));
			break;
		}
		if (ret == 1) {
			assert_true(nr_out < SIZE);
			assert_true(w->chain.nr_out + w->chain.nr_in <= WORLD_IOV);
			assert_true(w->chain.out_bytes + w->chain.in_bytes <=
				    VIRTQ_CHAIN_BYTES_MAX);
			out[nr_out++] = w->chain;
			nr++;
		}
		if (nr_out && rng_below(rng, 2))
			virtq_push(w->vq, &out[--nr_out], rng_below(rng, 100));
		if (!rng_below(rng, 4)) {
			virtq_flush(w->vq);
			(void)!virtq_call_needed(w->vq);
			(void)!virtq_kick_enable(w->vq);
		}
	}
	while (nr_out)
		virtq_push(w->vq, &out[--nr_out], 0);
	virtq_flush(w->vq);
	virtq_free(w->vq);
	w->vq = NULL;
	return nr;
}

static void restart(struct world *w, uint64_t *rng)
{
	w->setup.base = w->setup.format == VIRTQ_SPLIT ? (uint32_t)rng_below(rng, 65536)
						       : VIRTQ_DRIVER_BASE_PACKED;
	assert_int_equal(virtq_new(&w->vq, &w->setup), 0);
}

/* What the device may write is the device area and, packed, descriptors. Nothing else changes. */
static void only_device_areas_are_written(void **state)
{
	static char before[WORLD_RING_BYTES];

	for (int format = VIRTQ_SPLIT; format <= VIRTQ_PACKED; format++) {
		uint64_t rng = 99 + (uint64_t)format;
		uint32_t nr = 0;
		struct world w;
		size_t from, to;

		world_init(&w);
		world_start(&w, format, SIZE, true, 4, format ? VIRTQ_DRIVER_BASE_PACKED : 0);
		virtq_free(w.vq);
		memset(w.base + virtq_driver_ring_bytes(format, SIZE, 4), 0x5a, CANARY_BYTES);
		for (uint32_t i = 0; i < 3000; i++) {
			restart(&w, &rng);
			for (uint32_t k = 0; k < 30; k++)
				scribble(&w, &rng);
			memcpy(before, w.base, CANARY_BYTES);
			nr += run_device(&w, &rng, 40);
			from = (size_t)((char *)guest_strip(w.setup.device) -
					(char *)guest_strip(w.setup.desc));
			to = from + virtq_device_bytes(format, SIZE);
			assert_memory_equal(w.base + to, before + to, CANARY_BYTES - to);
			if (format == VIRTQ_SPLIT) {
				assert_memory_equal(w.base, before, from);
			} else {
				size_t ring = virtq_desc_bytes(format, SIZE);

				assert_memory_equal(w.base + ring, before + ring, from - ring);
			}
		}
		/* The soup is not so thin that nothing is ever popped. */
		assert_true(nr > 500);
		world_fini(&w);
	}
}

struct scribbler {
	struct world *w;
	uint64_t rng;
	bool stop;
};

static void *scribble_thread(void *arg)
{
	struct scribbler *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED))
		scribble(s->w, &s->rng);
	return NULL;
}

static void scribbling_thread(void **state)
{
	for (int format = VIRTQ_SPLIT; format <= VIRTQ_PACKED; format++) {
		uint64_t rng = 5 + (uint64_t)format;
		struct scribbler s;
		uint32_t nr = 0;
		pthread_t thread;
		struct world w;

		world_init(&w);
		world_start(&w, format, SIZE, true, 4, format ? VIRTQ_DRIVER_BASE_PACKED : 0);
		virtq_free(w.vq);
		w.vq = NULL;
		s = (struct scribbler){ &w, 77, false };
		assert_int_equal(pthread_create(&thread, NULL, scribble_thread, &s), 0);
		/* On a busy machine the scribbler may not run for long: go on until it was met often enough. */
		for (uint32_t i = 0; i < 20000 || nr <= 500; i++) {
			if (i % 64 == 0)
				sched_yield();
			assert_int_equal(virtq_new(&w.vq, &w.setup), 0);
			nr += run_device(&w, &rng, 60);
		}
		__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
		world_fini(&w);
	}
}

#define PIPE_JOBS 100000
#define PIPE_ROOM 64

/* Pop thread to push thread; the caller's lock of virtq.h is @lock. */
struct pipe_line {
	struct world w;
	pthread_mutex_t lock;
	struct virtq_chain queue[PIPE_ROOM];
	uint32_t head, tail;
};

static void *pop_thread(void *arg)
{
	struct pipe_line *p = arg;
	struct iovec iov[8];
	struct virtq_chain chain = { .iov = iov, .iov_cap = array_size(iov) };

	for (uint32_t nr = 0; nr < PIPE_JOBS;) {
		int ret = virtq_pop(p->w.vq, p->w.mem, &chain);

		assert_true(ret == 0 || ret == 1);
		if (ret == 0) {
			(void)!virtq_kick_enable(p->w.vq);
			sched_yield();
			continue;
		}
		while (p->tail - __atomic_load_n(&p->head, __ATOMIC_ACQUIRE) == PIPE_ROOM)
			sched_yield();
		p->queue[p->tail % PIPE_ROOM] = chain;
		__atomic_store_n(&p->tail, p->tail + 1, __ATOMIC_RELEASE);
		nr++;
	}
	return NULL;
}

static void *push_thread(void *arg)
{
	struct pipe_line *p = arg;

	for (uint32_t nr = 0; nr < PIPE_JOBS;) {
		uint32_t tail = __atomic_load_n(&p->tail, __ATOMIC_ACQUIRE);

		if (tail == p->head) {
			sched_yield();
			continue;
		}
		pthread_mutex_lock(&p->lock);
		for (; p->head != tail; nr++) {
			virtq_push(p->w.vq, &p->queue[p->head % PIPE_ROOM], 4);
			__atomic_store_n(&p->head, p->head + 1, __ATOMIC_RELEASE);
		}
		virtq_flush(p->w.vq);
		(void)!virtq_call_needed(p->w.vq);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static void drive(struct pipe_line *p)
{
	struct iovec segs[2] = { { p->w.data, 8 }, { p->w.data + 16, 8 } };
	uint32_t added = 0, done = 0;

	while (done < PIPE_JOBS) {
		uint32_t written;
		void *cookie;
		int ret;

		while (added < PIPE_JOBS && virtq_driver_add(p->w.drv, segs, 1, 1, p) == 0)
			added++;
		(void)!virtq_driver_publish(p->w.drv);
		while ((ret = virtq_driver_get(p->w.drv, &cookie, &written)) == 1) {
			assert_int_equal(written, 4);
			done++;
		}
		assert_int_equal(ret, 0);
		if (!virtq_driver_call_enable(p->w.drv))
			sched_yield();
	}
}

static void pop_and_push_threads(void **state)
{
	for (int variant = 0; variant < 4; variant++) {
		struct pipe_line *p = calloc(1, sizeof(*p));
		bool packed = variant & 1;
		pthread_t pop, push;

		assert_non_null(p);
		pthread_mutex_init(&p->lock, NULL);
		world_init(&p->w);
		world_start(&p->w, packed ? VIRTQ_PACKED : VIRTQ_SPLIT, 64, true,
			    variant & 2 ? 2 : 0, packed ? VIRTQ_DRIVER_BASE_PACKED : 0);
		if (variant & 2) {
			virtq_free(p->w.vq);
			p->w.setup.inflight = p->w.base + (3u << 20);
			assert_int_equal(virtq_new(&p->w.vq, &p->w.setup), 0);
		}
		assert_int_equal(pthread_create(&pop, NULL, pop_thread, p), 0);
		assert_int_equal(pthread_create(&push, NULL, push_thread, p), 0);
		drive(p);
		pthread_join(pop, NULL);
		pthread_join(push, NULL);
		assert_null(virtq_broken(p->w.vq));
		world_fini(&p->w);
		pthread_mutex_destroy(&p->lock);
		free(p);
	}
}

/* The driver does not trust the device either. */
static void driver_refuses(void **state)
{
	for (uint32_t i = 0; i < 5; i++) {
		struct split_used *used;
		struct iovec seg;
		struct world w;
		uint32_t len;
		void *cookie;

		world_init(&w);
		world_start(&w, VIRTQ_SPLIT, SIZE, false, 0, 0);
		used = guest_strip(w.setup.device);
		seg = (struct iovec){ w.data, 8 };
		assert_int_equal(virtq_driver_add(w.drv, &seg, 0, 1, &w), 0);
		(void)!virtq_driver_publish(w.drv);
		used->ring[0] = (struct split_used_elem){ cpu_to_le32(i == 1   ? SIZE
								      : i == 2 ? 1
									       : 0),
							  cpu_to_le32(i == 3 ? 9 : 8) };
		used->idx = cpu_to_le16(i == 4 ? 2 : 1);
		assert_true(virtq_driver_has_used(w.drv));
		assert_int_equal(virtq_driver_get(w.drv, &cookie, &len), i ? -EBADMSG : 1);
		if (i) {
			assert_int_equal(virtq_driver_get(w.drv, &cookie, &len), -EBADMSG);
			assert_ptr_equal(virtq_driver_detach(w.drv), &w);
		}
		assert_null(virtq_driver_detach(w.drv));
		seg.iov_base = w.base - 1;
		assert_int_equal(virtq_driver_add(w.drv, &seg, 0, 1, &w), -EINVAL);
		seg = (struct iovec){ w.base + WORLD_BYTES - 7, 8 };
		assert_int_equal(virtq_driver_add(w.drv, &seg, 0, 1, &w), -EINVAL);
		assert_int_equal(virtq_driver_add(w.drv, &seg, 0, 0, &w), -EINVAL);
		world_fini(&w);
	}
}

/* A ring that begins in the middle, at a device that has not looked at it: the first chain needs a kick. */
static void first_chain_is_kicked(void **state)
{
	for (uint32_t base = 0; base < 5; base++) {
		struct world w;
		struct iovec seg;

		world_init(&w);
		world_start(&w, VIRTQ_SPLIT, SIZE, true, 0, base * 0x3fff);
		seg = (struct iovec){ w.data, 8 };
		assert_int_equal(virtq_driver_device_base(w.drv), base * 0x3fff);
		assert_int_equal(virtq_driver_add(w.drv, &seg, 0, 1, &w), 0);
		assert_true(virtq_driver_publish(w.drv));
		world_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_device_areas_are_written),
		cmocka_unit_test(scribbling_thread),
		cmocka_unit_test(pop_and_push_threads),
		cmocka_unit_test(driver_refuses),
		cmocka_unit_test(first_chain_is_kicked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
