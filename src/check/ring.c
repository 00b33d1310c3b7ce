/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of virtqueues: order and completeness, framing, sizes, indices that wrap, indirect tables.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/check_impl.h"

/* What a rule's argument says of the ring. */
#define PACKED	 1u
#define EVENT	 2u
#define INDIRECT 4u
#define FRAME(f) ((uint64_t)(f) << 8)

#define NR_LAPS	    100u
#define SPLIT_WRAP  0xffd0u
#define SMALL_RING  8u
#define MIDDLE_RING 64u

static struct peer_setup ring_setup(uint64_t arg, uint32_t queue_size)
{
	return (struct peer_setup){
		.format = arg & PACKED ? VIRTQ_PACKED : VIRTQ_SPLIT,
		.queue_size = queue_size,
		.nr_queues = 2,
		.event_idx = arg & EVENT,
		.indirect = arg & INDIRECT,
	};
}

static const struct fuse_getattr_in no_args;

static struct ask getattr_ask(enum peer_frame frame)
{
	return (struct ask){ .opcode = FUSE_GETATTR,
			     .nodeid = FUSE_ROOT_ID,
			     .args = &no_args,
			     .args_bytes = sizeof(no_args),
			     .in_bytes = sizeof(struct fuse_attr_out),
			     .exact = true,
			     .frame = frame };
}

/* Was a feature that the rule is about agreed on? */
static bool agreed(struct check *c, struct peer *p, uint64_t arg, enum check_status *ret_status)
{
	uint64_t features = vhost_client_features(p->vhost);

	if ((arg & EVENT && !(features & bit64(VIRTIO_F_RING_EVENT_IDX))) ||
	    (arg & INDIRECT && !(features & bit64(VIRTIO_F_RING_INDIRECT)))) {
		*ret_status = check_end(c, CHECK_NOT_OFFERED, "%s", "");
		return false;
	}
	return true;
}

static struct peer *ring_peer(struct check *c, uint64_t arg, uint32_t size, uint32_t base,
			      enum check_status *ret_status)
{
	struct peer_setup setup = ring_setup(arg, size);
	struct peer *p;

	setup.base = base;
	p = check_peer(c, &setup);
	if (!p)
		*ret_status = check_no_peer(c);
	else if (!agreed(c, p, arg, ret_status))
		return NULL;
	return p;
}

/* One after the other, so often that the ring's indices wrap. */
static enum check_status rule_wraps(struct check *c, uint64_t arg)
{
	enum check_status status;
	/* A split ring may begin anywhere; then 2^16 is near. A packed one wraps all the time. */
	struct peer *p = ring_peer(c, arg, SMALL_RING, arg & PACKED ? 0 : SPLIT_WRAP, &status);
	struct ask ask = getattr_ask(FRAME_LINUX);

	if (!p)
		return status;
	for (unsigned int i = 0; i < NR_LAPS; i++) {
		int err = peer_ask(p, FIRST_QUEUE, &ask);

		if (err < 0 || ask.error < 0)
			return check_fails(c, "request %u: %s", i,
					   err < 0 ? p->problem : strerror(-ask.error));
	}
	return check_holds(c);
}

static enum check_status rule_sizes(struct check *c, uint64_t arg)
{
	static const uint32_t split[] = { 4, 16, 128, 1024 }, packed[] = { 5, 64, 100, 1000 };
	const uint32_t *sizes = arg & PACKED ? packed : split;

	for (unsigned int i = 0; i < array_size(split); i++) {
		struct peer_setup setup = ring_setup(arg, sizes[i]);
		struct peer *p = check_peer(c, &setup);
		int err;

		if (!p)
			return check_no_peer(c);
		err = peer_works(p, FIRST_QUEUE);
		if (err < 0)
			return check_fails(c, "size %u: %s", sizes[i],
					   p->problem[0] ? p->problem : strerror(-err));
	}
	return check_holds(c);
}

/* All slots at once, with one notification: each comes back once. */
static enum check_status rule_batch(struct check *c, uint64_t arg)
{
	struct ask asks[PEER_SLOTS];
	bool done[PEER_SLOTS] = {};
	enum check_status status;
	struct peer *p = ring_peer(c, arg, MIDDLE_RING, 0, &status);

	if (!p)
		return status;
	for (unsigned int i = 0; i < PEER_SLOTS; i++) {
		asks[i] = getattr_ask(FRAME_LINUX);
		if (peer_submit(p, FIRST_QUEUE, i, &asks[i]) < 0)
			return check_fails(c, "%s", p->problem);
	}
	peer_kick(p, FIRST_QUEUE);
	for (unsigned int i = 0; i < PEER_SLOTS; i++) {
		unsigned int slot;
		int err = peer_wait(p, FIRST_QUEUE, ANSWER_MS, &slot);

		if (err < 0)
			return check_fails(c, "answer %u of %u: %s", i + 1, PEER_SLOTS, p->problem);
		if (done[slot])
			return check_fails(c, "a chain came back twice");
		done[slot] = true;
	}
	return check_holds(c);
}

static enum check_status rule_frame(struct check *c, uint64_t arg)
{
	enum check_status status;
	struct peer *p = ring_peer(c, arg, MIDDLE_RING, 0, &status);
	struct ask ask = getattr_ask((enum peer_frame)(arg >> 8));
	int err;

	if (!p)
		return status;
	err = peer_ask(p, FIRST_QUEUE, &ask);
	if (err < 0 || ask.error < 0)
		return check_fails(c, "GETATTR: %s", err < 0 ? p->problem : strerror(-ask.error));
	return check_holds(c);
}

static enum check_status rule_indirect(struct check *c, uint64_t arg)
{
	enum check_status status;
	struct peer *p = ring_peer(c, arg, MIDDLE_RING, 0, &status);

	if (!p)
		return status;
	for (unsigned int i = 0; i < MIDDLE_RING + 2; i++) {
		struct ask ask = getattr_ask(i % 2 ? FRAME_LINUX : FRAME_ODD);
		int err = peer_ask(p, FIRST_QUEUE, &ask);

		if (err < 0 || ask.error < 0)
			return check_fails(c, "request %u: %s", i,
					   err < 0 ? p->problem : strerror(-ask.error));
	}
	return check_holds(c);
}

/* A good answer, an error, and one without a reply: what is used is what was written. */
static enum check_status rule_used_length(struct check *c, uint64_t arg)
{
	enum check_status status;
	struct peer *p = ring_peer(c, arg, MIDDLE_RING, 0, &status);
	struct ask good = getattr_ask(FRAME_LINUX);
	struct ask bad = { .opcode = FUSE_LOOKUP,
			   .nodeid = FUSE_ROOT_ID,
			   .name = { ".fusewire-check-none" },
			   .in_bytes = sizeof(struct fuse_entry_out) };
	int err;

	if (!p)
		return status;
	err = peer_ask(p, FIRST_QUEUE, &good);
	if (err == 0)
		err = peer_ask(p, FIRST_QUEUE, &bad);
	if (err == 0)
		err = peer_forget(p, FUSE_ROOT_ID, 1);
	return err < 0 ? check_fails(c, "%s", p->problem) : check_holds(c);
}

static enum check_status rule_readable_kept(struct check *c, uint64_t arg)
{
	if (c->seen.nr_wrote_readable)
		return check_fails(c, "changed by %llu of %llu requests",
				   (unsigned long long)c->seen.nr_wrote_readable,
				   (unsigned long long)c->seen.nr_requests);
	return check_end(c, CHECK_HOLDS, "looked at after %llu requests",
			 (unsigned long long)c->seen.nr_requests);
}

static enum check_status rule_inside(struct check *c, uint64_t arg)
{
	if (c->seen.nr_wrote_outside)
		return check_fails(c, "by %llu of %llu requests",
				   (unsigned long long)c->seen.nr_wrote_outside,
				   (unsigned long long)c->seen.nr_requests);
	return check_end(c, CHECK_HOLDS, "looked at after %llu requests",
			 (unsigned long long)c->seen.nr_requests);
}

static enum check_status rule_lengths(struct check *c, uint64_t arg)
{
	if (c->seen.nr_wrong_length)
		return check_fails(c, "not so in %llu of %llu requests",
				   (unsigned long long)c->seen.nr_wrong_length,
				   (unsigned long long)c->seen.nr_requests);
	return check_end(c, CHECK_HOLDS, "looked at after %llu requests",
			 (unsigned long long)c->seen.nr_requests);
}

/* The same rule of both formats, each with its clause. */
#define SPLIT(clause, what, fn, arg)                                \
	{                                                           \
		"split ring", clause, what, TURN_OWN, fn, arg, NULL \
	}
#define PACK(clause, what, fn, arg)                                             \
	{                                                                       \
		"packed ring", clause, what, TURN_OWN, fn, PACKED | (arg), NULL \
	}

/* clang-format off */
static const struct check_rule rules[] = {
	SPLIT("2.7", "available and used index wrap at 2^16", rule_wraps, 0),
	SPLIT("2.7", "the same with event indices", rule_wraps, EVENT),
	SPLIT("2.7", "rings of 4 to 1024 descriptors", rule_sizes, 0),
	SPLIT("2.7.4.1", "no assumption on framing: one descriptor each way", rule_frame, FRAME(FRAME_ONE)),
	SPLIT("2.7.4.1", "no assumption on framing: pieces of 7 bytes", rule_frame, FRAME(FRAME_ODD)),
	SPLIT("2.7.5.3", "indirect descriptor tables", rule_indirect, INDIRECT),
	SPLIT("2.7.8.2", "used length is what was written; 0 without a reply", rule_used_length, 0),
	SPLIT("2.7.13", "chains offered at once each come back once", rule_batch, 0),
	SPLIT("2.7.13", "the same with event indices", rule_batch, EVENT),
	PACK("2.8.1", "wrap counters over many laps", rule_wraps, 0),
	PACK("2.8.1", "the same with event suppression by descriptor", rule_wraps, EVENT),
	PACK("2.8", "rings of 5 to 1000 descriptors, not only powers of two", rule_sizes, 0),
	PACK("2.8.4", "chains offered at once each come back once", rule_batch, 0),
	PACK("2.8.4", "the same with event suppression by descriptor", rule_batch, EVENT),
	PACK("2.8.6", "used length is what was written; 0 without a reply", rule_used_length, 0),
	PACK("2.8.7", "indirect descriptor tables", rule_indirect, INDIRECT),
	PACK("2.8.9", "no assumption on framing: one descriptor each way", rule_frame, FRAME(FRAME_ONE)),
	PACK("2.8.9", "no assumption on framing: pieces of 7 bytes", rule_frame, FRAME(FRAME_ODD)),
	{ "any ring", "2.7.5.1", "device-readable memory is not written", TURN_LAST, rule_readable_kept, 0, NULL },
	{ "any ring", "2.7.5.1", "nothing outside of a chain's writable part is written", TURN_LAST, rule_inside, 0, NULL },
	{ "any ring", "2.7.8.2", "used length and the reply's own length agree", TURN_LAST, rule_lengths, 0, NULL },
};
/* clang-format on */

const struct check_table check_ring_rules = { rules, array_size(rules) };
