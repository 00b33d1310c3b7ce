/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Turns descriptors into segments; the walk of indirect tables, for both ring formats.
 */
#include "virtio/virtq_impl.h"

#include <errno.h>

/** INDIRECT_DESC_BYTES - size of one entry of an indirect table. */
#define INDIRECT_DESC_BYTES sizeof(struct ring_desc)

/* Add @len bytes at @addr that are not inside one region, or for which there is no room. */
static cold_path const char *add_slowly(struct virtq_chain *chain, const struct mem_table *mem,
					const struct desc *desc, uint32_t *ret_nr)
{
	int nr = mem_table_count_iov(mem, gpa(desc->addr), desc->len);

	if (nr < 0)
		return "descriptor outside of memory";
	chain->nr_needed += (uint32_t)nr;
	*ret_nr = 0;
	if (chain->nr_needed > chain->iov_cap)
		return NULL;
	nr = mem_table_map_iov(mem, gpa(desc->addr), desc->len,
			       chain->iov + chain->nr_out + chain->nr_in, (unsigned int)nr);
	assert(nr > 0);
	*ret_nr = (uint32_t)nr;
	return NULL;
}

const char *virtq_chain_add(struct virtq_chain *chain, const struct mem_table *mem,
			    const struct desc *desc)
{
	bool write = desc->flags & RING_DESC_WRITE;
	uint32_t at = chain->nr_out + chain->nr_in;
	uint32_t nr = 1;
	void __guest *p;

	if (unlikely(!write && chain->in_bytes))
		return "readable descriptor behind a writable one";
	if (unlikely(!desc->len))
		return NULL;
	if (unlikely(chain->out_bytes + chain->in_bytes + desc->len > VIRTQ_CHAIN_BYTES_MAX))
		return "chain describes too many bytes";
	p = mem_table_map(mem, gpa(desc->addr), desc->len);
	if (likely(p && chain->nr_needed < chain->iov_cap)) {
		chain->iov[at] = (struct iovec){ guest_strip(p), desc->len };
		chain->nr_needed++;
	} else {
		const char *why = add_slowly(chain, mem, desc, &nr);

		if (why)
			return why;
	}
	if (write) {
		chain->in_bytes += desc->len;
		chain->nr_in += nr;
	} else {
		chain->out_bytes += desc->len;
		chain->nr_out += nr;
	}
	return NULL;
}

/* Copy @len bytes, few, from @addr, wherever the region borders are. */
static cold_path bool copy_pieces(const struct mem_table *mem, uint64_t addr, void *buf, size_t len)
{
	struct iovec iov[INDIRECT_DESC_BYTES];
	int nr = mem_table_map_iov(mem, gpa(addr), len, iov, array_size(iov));
	char *to = buf;

	if (nr < 0)
		return false;
	for (int i = 0; i < nr; i++) {
		guest_copy_from(to, guest_mark(iov[i].iov_base), iov[i].iov_len);
		to += iov[i].iov_len;
	}
	return true;
}

/*
 * One entry of the table at @addr. @table: the whole table, if it is in one piece here. The two words are
 * snapshots on their own: an entry that changes under us gives some entry, which is checked like any other.
 */
static inline bool read_entry(const struct mem_table *mem, const void __guest *table, uint64_t addr,
			      uint32_t index, uint64_t words[2])
{
	uint64_t off = (uint64_t)index * INDIRECT_DESC_BYTES;
	struct ring_desc raw;

	if (likely(table && !((uintptr_t)table & (sizeof(uint64_t) - 1)))) {
		const struct ring_desc __guest *entry = (const struct ring_desc __guest *)table;

		words[0] = guest_read64(&entry[index].addr);
		words[1] = guest_read64(&entry[index].word);
		return true;
	}
	if (!copy_pieces(mem, addr + off, &raw, sizeof(raw)))
		return false;
	words[0] = le64_to_cpu(raw.addr);
	words[1] = le64_to_cpu(raw.word);
	return true;
}

const char *virtq_chain_add_indirect(const struct virtq *vq, struct virtq_chain *chain,
				     const struct mem_table *mem, const struct desc *desc)
{
	uint32_t nr = desc->len / INDIRECT_DESC_BYTES;
	bool split = vq->format == VIRTQ_SPLIT;
	const void __guest *table;
	uint32_t index = 0;

	if (unlikely(!vq->indirect))
		return "indirect descriptor without the feature";
	if (unlikely(!nr || desc->len % INDIRECT_DESC_BYTES))
		return "indirect table of a bad length";
	if (unlikely(nr > max_of(vq->size, VIRTQ_TABLE_ANY)))
		return "indirect table too long";
	table = mem_table_map(mem, gpa(desc->addr), desc->len);
	if (unlikely(!table && mem_table_count_iov(mem, gpa(desc->addr), desc->len) < 0))
		return "indirect table outside of memory";

	/* A split table is a list inside the table, at most as long as that; a packed one is read in order. */
	for (uint32_t i = 0; i < nr; i++) {
		const char *why;
		uint64_t words[2];
		struct desc entry;

		if (unlikely(!read_entry(mem, table, desc->addr, index, words)))
			return "indirect table outside of memory";
		entry = split ? desc_split(words[0], words[1]) : desc_packed(words[0], words[1]);
		/* Packed: WRITE is the only flag that counts, all others are ignored (2.8.7). */
		if (unlikely(split && (entry.flags & RING_DESC_INDIRECT)))
			return "indirect descriptor inside an indirect table";
		why = virtq_chain_add(chain, mem, &entry);
		if (unlikely(why))
			return why;
		if (!split) {
			index++;
			continue;
		}
		if (!(entry.flags & RING_DESC_NEXT))
			return NULL;
		index = entry.id;
		if (unlikely(index >= nr))
			return "next outside of the indirect table";
	}
	return split ? "loop in an indirect table" : NULL;
}
