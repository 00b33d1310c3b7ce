/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Device against driver, seeded random: sizes, formats, features, arrangements, orders, restarts.
 */
#include "world.h"

#include "base/iov.h"

#define SLOTS	   64
#define SLOT_BYTES 1024
#define SEGS_MAX   12

/* A chain under way; the cookie is its address. */
struct job {
	bool used;
	bool pushed;
	uint32_t tag;
	uint32_t nr_out;
	uint32_t nr_in;
	uint32_t out_bytes;
	uint32_t in_bytes;
	uint32_t written;
	struct iovec segs[SEGS_MAX];
};

struct run {
	struct world w;
	uint64_t rng;
	struct job jobs[SLOTS];
	struct virtq_chain popped[SLOTS];
	struct job *popped_job[SLOTS];
	uint32_t nr_popped;
	uint32_t nr_visible;
	bool kick_armed;
	bool call_armed;
	uint64_t nr_done;
};

static uint8_t pattern(uint32_t tag, uint32_t i)
{
	return (uint8_t)(tag * 31 + i * 7 + (i >> 8));
}

static uint32_t job_segments(struct run *r, struct job *job, char *at, uint32_t nr, uint32_t first)
{
	uint32_t bytes = 0;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t len = rng_below(&r->rng, 8) ? 1 + rng_below(&r->rng, 40) : 0;

		job->segs[first + i] = (struct iovec){ at + bytes, len };
		bytes += len;
	}
	return bytes;
}

/* The tag is the first four readable bytes: the device learns from it which job this is. */
static bool add_one(struct run *r)
{
	uint32_t slot = rng_below(&r->rng, SLOTS);
	struct job *job = &r->jobs[slot];
	/* Slots lie where the regions are cut. */
	char *at = r->w.data + slot * SLOT_BYTES;
	uint32_t limit = min_of(r->w.setup.size, (uint32_t)SEGS_MAX);
	uint32_t nr = 1 + rng_below(&r->rng, r->w.setup.indirect ? SEGS_MAX : limit);
	int ret;

	if (job->used)
		return false;
	memset(job, 0, sizeof(*job));
	job->tag = slot | (uint32_t)rng_next(&r->rng) << 8;
	job->nr_out = 1 + rng_below(&r->rng, nr);
	job->nr_in = nr - job->nr_out;
	job->out_bytes = job_segments(r, job, at, job->nr_out, 0);
	while (job->out_bytes < 4) {
		job->segs[0].iov_len += 4;
		for (uint32_t i = 1; i < job->nr_out; i++)
			job->segs[i].iov_base = (char *)job->segs[i].iov_base + 4;
		job->out_bytes += 4;
	}
	job->in_bytes = job_segments(r, job, at + SLOT_BYTES / 2, job->nr_in, job->nr_out);
	for (uint32_t i = 0; i < job->out_bytes; i++)
		at[i] = (char)pattern(job->tag, i);
	memcpy(at, &job->tag, sizeof(job->tag));
	memset(at + SLOT_BYTES / 2, 0xee, SLOT_BYTES / 2);
	ret = virtq_driver_add(r->w.drv, job->segs, job->nr_out, job->nr_in, job);
	if (ret == -ENOSPC)
		return false;
	assert_int_equal(ret, 0);
	job->used = true;
	r->nr_visible++;
	return true;
}

static void step_add(struct run *r)
{
	uint32_t nr = 1 + rng_below(&r->rng, 6);
	bool added = false;
	bool kick;

	while (nr--)
		added |= add_one(r);
	kick = virtq_driver_publish(r->w.drv);
	if (added && r->kick_armed) {
		/* 2.7.10, 2.8.10: whoever asked for a kick gets it. */
		assert_true(kick);
		r->kick_armed = false;
	}
}

static void step_pop(struct run *r)
{
	uint32_t nr = 1 + rng_below(&r->rng, 6);

	while (nr--) {
		struct virtq_chain *chain = &r->w.chain;
		struct job *job;
		uint8_t buf[SLOT_BYTES];
		uint32_t tag, cap;
		int ret;

		cap = chain->iov_cap = rng_below(&r->rng, 4) ? WORLD_IOV : rng_below(&r->rng, 3);
		ret = world_pop(&r->w);
		if (ret == -ENOBUFS) {
			assert_true(chain->nr_needed > cap);
			chain->iov_cap = chain->nr_needed;
			ret = world_pop(&r->w);
			assert_int_equal(ret, 1);
		}
		if (ret == 0) {
			assert_int_equal(r->nr_visible, 0);
			return;
		}
		assert_int_equal(ret, 1);
		r->nr_visible--;
		r->kick_armed = false;
		assert_int_equal(iov_copy_out(buf, chain->iov, chain->nr_out, 0, sizeof(buf)),
				 chain->out_bytes);
		memcpy(&tag, buf, sizeof(tag));
		job = &r->jobs[tag % SLOTS];
		assert_true(job->used && !job->pushed && job->tag == tag);
		assert_int_equal(chain->out_bytes, job->out_bytes);
		assert_int_equal(chain->in_bytes, job->in_bytes);
		for (uint32_t i = sizeof(tag); i < job->out_bytes; i++)
			assert_int_equal(buf[i], pattern(tag, i));
		job->written = rng_below(&r->rng, job->in_bytes + 1);
		for (uint32_t i = 0; i < job->written; i++)
			buf[i] = pattern(~tag, i);
		assert_int_equal(iov_copy_in(chain->iov + chain->nr_out, chain->nr_in, 0, buf,
					     job->written),
				 job->written);
		r->popped[r->nr_popped] = *chain;
		r->popped_job[r->nr_popped++] = job;
	}
}

static void step_push(struct run *r)
{
	uint32_t nr = 1 + rng_below(&r->rng, 6);
	bool pushed = false;
	bool call;

	while (nr-- && r->nr_popped) {
		uint32_t at = rng_below(&r->rng, r->nr_popped);

		virtq_push(r->w.vq, &r->popped[at], r->popped_job[at]->written);
		r->popped_job[at]->pushed = true;
		r->nr_popped--;
		r->popped[at] = r->popped[r->nr_popped];
		r->popped_job[at] = r->popped_job[r->nr_popped];
		pushed = true;
	}
	virtq_flush(r->w.vq);
	call = virtq_call_needed(r->w.vq);
	if (pushed && r->call_armed) {
		assert_true(call);
		r->call_armed = false;
	}
	if (!pushed)
		assert_false(call);
}

static void step_get(struct run *r)
{
	uint32_t nr = 1 + rng_below(&r->rng, 6);

	while (nr--) {
		uint32_t written = ~0u;
		void *cookie = NULL;
		struct job *job;
		uint8_t *in;
		int ret = virtq_driver_get(r->w.drv, &cookie, &written);

		if (ret == 0)
			return;
		assert_int_equal(ret, 1);
		r->call_armed = false;
		job = cookie;
		assert_true(job->used && job->pushed);
		assert_int_equal(written, job->written);
		in = (uint8_t *)r->w.data + (job - r->jobs) * SLOT_BYTES + SLOT_BYTES / 2;
		for (uint32_t i = 0; i < SLOT_BYTES / 2; i++)
			assert_int_equal(in[i], i < written ? pattern(~job->tag, i) : 0xee);
		job->used = false;
		r->nr_done++;
	}
}

static void step_notify(struct run *r)
{
	switch (rng_below(&r->rng, 4)) {
	case 0:
		virtq_kick_disable(r->w.vq);
		r->kick_armed = false;
		break;
	case 1:
		assert_int_equal(virtq_has_work(r->w.vq), r->nr_visible > 0);
		r->kick_armed = !virtq_kick_enable(r->w.vq);
		assert_int_equal(r->kick_armed, r->nr_visible == 0);
		break;
	case 2:
		virtq_driver_call_disable(r->w.drv);
		r->call_armed = false;
		break;
	default:
		r->call_armed = !virtq_driver_call_enable(r->w.drv);
	}
}

/* 2.2 of vhost-user's "Rings": a drained ring goes on from its base. */
static void step_restart(struct run *r)
{
	if (r->nr_popped)
		return;
	r->w.setup.base = virtq_base(r->w.vq);
	virtq_free(r->w.vq);
	assert_int_equal(virtq_new(&r->w.vq, &r->w.setup), 0);
	assert_int_equal(virtq_base(r->w.vq), r->w.setup.base);
	r->kick_armed = false;
	r->call_armed = false;
}

static void run_random(enum virtq_format format, uint32_t size, bool event_idx,
		       uint32_t indirect_max, uint32_t base, uint64_t nr_chains)
{
	struct run *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->rng = 88172645463325252ull ^ ((uint64_t)size << 20) ^ indirect_max ^ base;
	world_init(&r->w);
	world_start(&r->w, format, size, event_idx, indirect_max, base);
	while (r->nr_done < nr_chains) {
		switch (rng_below(&r->rng, 10)) {
		case 0:
		case 1:
			step_add(r);
			break;
		case 2:
		case 3:
			step_pop(r);
			break;
		case 4:
		case 5:
			step_push(r);
			break;
		case 6:
		case 7:
			step_get(r);
			break;
		case 8:
			step_notify(r);
			break;
		default:
			if (!rng_below(&r->rng, 8))
				step_restart(r);
		}
	}
	assert_null(virtq_broken(r->w.vq));
	world_fini(&r->w);
	free(r);
}

/* Sizes that the formats allow, each with all features and both ends of the index. */
static void run_all(enum virtq_format format, const uint32_t *sizes, size_t nr_sizes)
{
	for (size_t i = 0; i < nr_sizes; i++) {
		for (unsigned int bits = 0; bits < 4; bits++) {
			uint32_t size = sizes[i];
			bool event_idx = bits & 1;
			uint32_t indirect = bits & 2 ? min_of(8u, (3u << 20) / 16 / size) : 0;
			bool packed = format == VIRTQ_PACKED;

			run_random(format, size, event_idx, indirect,
				   packed ? VIRTQ_DRIVER_BASE_PACKED : 0, 5000);
			run_random(format, size, event_idx, indirect,
				   packed ? (size - 1) * 0x10001u : 65530, 5000);
		}
	}
}

static void split_2_7(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 4, 256, 32768 };

	run_all(VIRTQ_SPLIT, sizes, array_size(sizes));
}

static void packed_2_8(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 3, 7, 256, 32767, 32768 };

	run_all(VIRTQ_PACKED, sizes, array_size(sizes));
}

/* The 16-bit index goes round twice. */
static void split_2_7_index_wraps(void **state)
{
	run_random(VIRTQ_SPLIT, 16, true, 8, 0, 140000);
}

static void packed_2_8_1_wrap_counters(void **state)
{
	run_random(VIRTQ_PACKED, 13, true, 8, VIRTQ_DRIVER_BASE_PACKED, 140000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(split_2_7),
		cmocka_unit_test(packed_2_8),
		cmocka_unit_test(split_2_7_index_wraps),
		cmocka_unit_test(packed_2_8_1_wrap_counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
