/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: the device side of a virtqueue in front of a driver that the input plays.
 *
 * Input: a header (format, size, features, base), the first bytes of memory (ring, tables, in-flight area), then
 * operations of one byte, some with an operand. What must hold: no memory error, every pop bounded, no more
 * chains out than descriptors, a broken ring stays broken and says why.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "virtio/ring_layout.h"
#include "virtio/virtq.h"

#define CHECK(x)                 \
	do {                     \
		if (!(x))        \
			abort(); \
	} while (0)

#define MEM_BYTES  16384
#define DRIVER_OFF 4096
#define DEVICE_OFF 6144
#define AREA_OFF   8192
#define FILL_MAX   12288
#define IOV_MAX_   64

/** struct input - what is left of it. */
struct input {
	const uint8_t *data;
	size_t size;
};

static uint32_t take(struct input *in, size_t bytes)
{
	uint32_t v = 0;

	for (size_t i = 0; i < bytes && in->size; i++, in->data++, in->size--)
		v |= (uint32_t)*in->data << (8 * i);
	return v;
}

/* One piece of shared memory, in three regions with borders at odd places. */
static struct mem_table *memory(char **ret_base)
{
	static const uint64_t cuts[] = { 0, 12291, 13001, MEM_BYTES };
	static struct mem_table *table;
	static char *base;

	if (!table) {
		int fd = memfd_new("fuzz", MEM_BYTES);

		CHECK(fd >= 0 && mem_table_new(&table) == 0);
		base = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		CHECK(base != MAP_FAILED);
		for (size_t i = 0; i + 1 < array_size(cuts); i++) {
			struct mem_region_desc desc = { cuts[i], cuts[i + 1] - cuts[i], cuts[i],
							cuts[i] };
			struct mem_table *next;

			CHECK(mem_table_with_region(&next, table, &desc, fd) == 0);
			mem_table_put(table);
			table = next;
		}
		close(fd);
	}
	*ret_base = base;
	return table;
}

struct fuzz {
	struct virtq *vq;
	struct mem_table *mem;
	char *base;
	struct virtq_setup setup;
	struct virtq_chain out[256];
	uint32_t nr_out;
	struct iovec iov[IOV_MAX_];
};

static void pop(struct fuzz *f, uint32_t iov_cap)
{
	struct virtq_chain chain = { .iov = f->iov, .iov_cap = iov_cap };
	int ret = virtq_pop(f->vq, f->mem, &chain);

	CHECK(ret == 1 || ret == 0 || ret == -ENOBUFS || ret == -EBADMSG);
	CHECK((ret == -EBADMSG) == (virtq_broken(f->vq) != NULL));
	if (ret == -ENOBUFS)
		CHECK(chain.nr_needed > iov_cap);
	if (ret != 1)
		return;
	CHECK(chain.nr_out + chain.nr_in <= iov_cap);
	CHECK(chain.out_bytes + chain.in_bytes <= VIRTQ_CHAIN_BYTES_MAX);
	for (uint32_t i = 0; i < chain.nr_out + chain.nr_in; i++) {
		uint64_t addr;

		/* Both ends of each segment are inside the memory. */
		CHECK(chain.iov[i].iov_len);
		CHECK(mem_table_gpa_of(f->mem, chain.iov[i].iov_base, &addr));
		CHECK(mem_table_gpa_of(
			f->mem, (char *)chain.iov[i].iov_base + chain.iov[i].iov_len - 1, &addr));
	}
	CHECK(f->nr_out < f->setup.size);
	f->out[f->nr_out++] = chain;
}

static void push(struct fuzz *f, uint32_t which)
{
	if (!f->nr_out)
		return;
	which %= f->nr_out;
	virtq_push(f->vq, &f->out[which], which * 3);
	f->out[which] = f->out[--f->nr_out];
}

static bool restart(struct fuzz *f, bool keep_base)
{
	if (f->vq && keep_base)
		f->setup.base = virtq_base(f->vq);
	virtq_free(f->vq);
	f->vq = NULL;
	f->nr_out = 0;
	return virtq_new(&f->vq, &f->setup) == 0;
}

/* Return: false when there is no ring any more. */
static bool operate(struct fuzz *f, struct input *in)
{
	uint32_t op = take(in, 1);
	uint32_t at;

	switch (op & 7) {
	case 0:
	case 1:
		pop(f, op & 8 ? op >> 4 : IOV_MAX_);
		return true;
	case 2:
		push(f, op >> 3);
		return true;
	case 3:
		virtq_flush(f->vq);
		(void)!virtq_call_needed(f->vq);
		return true;
	case 4:
		if (op & 8)
			(void)!virtq_kick_enable(f->vq);
		else
			virtq_kick_disable(f->vq);
		(void)!virtq_has_work(f->vq);
		return true;
	case 5:
		return restart(f, op & 8);
	case 6:
		/* The driver writes a word somewhere. */
		at = take(in, 2) % (MEM_BYTES - 4);
		op = take(in, 4);
		memcpy(f->base + at, &op, 4);
		return true;
	default:
		/* The driver makes more available. */
		if (f->setup.format == VIRTQ_SPLIT) {
			f->base[DRIVER_OFF + 2] = (char)(f->base[DRIVER_OFF + 2] + (op >> 3));
		} else {
			at = (op >> 3) % f->setup.size * 16 + 14;
			f->base[at] ^= (char)RING_DESC_AVAIL;
			f->base[at + 1] ^= (char)(RING_DESC_USED >> 8);
		}
		return true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct fuzz f = { .vq = NULL };
	uint32_t features = take(&in, 1);
	uint32_t ring = take(&in, 1);
	uint32_t fill;

	f.mem = memory(&f.base);
	f.setup.format = features & 1 ? VIRTQ_PACKED : VIRTQ_SPLIT;
	f.setup.size = features & 1 ? ring + (features >> 7) : 1u << (ring % 9);
	f.setup.event_idx = features & 2;
	f.setup.indirect = features & 4;
	f.setup.base = take(&in, 4);
	if (features & 8)
		f.setup.base = features & 1 ? 0x80008000u : 0;
	f.setup.desc = mem_table_map(f.mem, gpa(0), DRIVER_OFF);
	f.setup.driver = mem_table_map(f.mem, gpa(DRIVER_OFF), DEVICE_OFF - DRIVER_OFF);
	f.setup.device = mem_table_map(f.mem, gpa(DEVICE_OFF), AREA_OFF - DEVICE_OFF);
	fill = take(&in, 2) % FILL_MAX;
	memset(f.base, 0, MEM_BYTES);
	fill = (uint32_t)min_of((size_t)fill, in.size);
	/* Half of what is filled goes to the rings, the rest to the in-flight area. */
	if (features & 16) {
		uint32_t area = min_of(fill / 2, (uint32_t)(FILL_MAX - AREA_OFF));

		/* Not for the largest rings: their area would not fit. */
		if (virtq_inflight_bytes(f.setup.format, f.setup.size) <= FILL_MAX - AREA_OFF) {
			f.setup.inflight = f.base + AREA_OFF;
			if (features & 32)
				virtq_inflight_format(f.setup.inflight, f.setup.format,
						      f.setup.size);
			else
				memcpy(f.base + AREA_OFF, in.data, area);
			in.data += area;
			in.size -= area;
			fill -= area;
		}
	}
	memcpy(f.base, in.data, min_of(fill, (uint32_t)AREA_OFF));
	in.data += fill;
	in.size -= fill;
	if (restart(&f, false)) {
		for (int i = 0; i < 2000 && in.size; i++) {
			if (!operate(&f, &in))
				break;
		}
	}
	virtq_free(f.vq);
	return 0;
}
