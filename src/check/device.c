/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of the file system device (virtio 1.2, 5.11): queues, config space, one session over all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "check/check_impl.h"
#include "fuse/swap.h"

#define TAG_BYTES    36u
#define RING_SIZE    64u
#define SECOND_QUEUE 2u
#define BULK_BYTES   65536u

static const struct fuse_getattr_in no_args;

/* Queues of a driver that takes no notifications; 0: it does not tell. */
static unsigned int nr_plain_queues(const struct check *c)
{
	const unsigned int nr = (unsigned int)c->report->nr_queues;

	return nr && c->report->features & bit64(VIRTIO_FS_F_NOTIFICATION) ? nr - 1 : nr;
}

static struct peer *device_peer(struct check *c, unsigned int nr_queues, bool no_session)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = nr_queues,
					  .no_session = no_session };

	const unsigned int has = nr_plain_queues(c);

	if (has && has < nr_queues) {
		c->no_peer = check_end(c, CHECK_NOT_OFFERED, "it has %u queues", has);
		return NULL;
	}
	return check_peer(c, &setup);
}

static enum check_status rule_version_1(struct check *c, uint64_t arg)
{
	/* Without it the first connection would not have come about. */
	return c->report->features & bit64(32) ? check_holds(c) : check_fails(c, "not offered");
}

/* Requests at their numbers, buffers in queue 1, which stay with the device until the file system has something to say. */
static enum check_status notification_session(struct check *c, struct peer *p, uint32_t bytes)
{
	int err = peer_give_buffers(p, bytes), nr;

	if (err < 0)
		return check_fails(c, "queue 1: %s", strerror(-err));
	err = peer_works(p, NOTIFYING_FIRST);
	if (err < 0)
		return check_error(c, p, err, "GETATTR on queue 2");
	err = peer_forget(p, FUSE_ROOT_ID, 1);
	if (err < 0)
		return check_error(c, p, err, "FORGET on queue 0");
	/* What it takes for requests is back by then. */
	poll(NULL, 0, QUIET_MS);
	nr = peer_take_buffers(p);
	if (nr < 0)
		return check_fails(c, "%s", p->problem);
	err = peer_works(p, NOTIFYING_FIRST);
	if (err < 0)
		return check_error(c, p, err, "GETATTR behind it");
	return check_end(c, CHECK_HOLDS, "buffers of %u bytes, %d notifications came", bytes, nr);
}

static enum check_status rule_notification(struct check *c, uint64_t arg)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .notifications = true };
	uint32_t bytes = 0;
	struct peer *p;
	int err;

	if (!(c->report->features & bit64(VIRTIO_FS_F_NOTIFICATION)))
		return check_end(c, CHECK_NOT_OFFERED, "%s", "");
	p = check_peer(c, &setup);
	if (!p)
		return check_no_peer(c);
	err = vhost_client_read_config(p->vhost, TAG_BYTES + 4, &bytes, sizeof(bytes));
	if (err < 0)
		return check_fails(c, "notify_buf_size: %s", strerror(-err));
	bytes = le32toh(bytes);
	if (bytes < sizeof(struct fuse_out_header))
		return check_fails(c, "notify_buf_size is %u", bytes);
	if (bytes > PEER_ROOM)
		return check_end(c, CHECK_NOT_CHECKED, "it wants buffers of %u bytes", bytes);
	return notification_session(c, p, bytes);
}

static enum check_status rule_tag(struct check *c, uint64_t arg)
{
	struct peer *p = check_shared(c);
	char tag[TAG_BYTES];
	size_t len;
	int err;

	if (!p)
		return check_no_peer(c);
	err = vhost_client_read_config(p->vhost, 0, tag, sizeof(tag));
	if (err == -EOPNOTSUPP)
		return check_end(c, CHECK_NOT_OFFERED, "no CONFIG");
	if (err < 0)
		return check_fails(c, "GET_CONFIG: %s", strerror(-err));
	len = strnlen(tag, sizeof(tag));
	for (size_t i = len; i < sizeof(tag); i++) {
		if (tag[i])
			return check_fails(c, "byte %zu behind the tag's NUL is %d", i, tag[i]);
	}
	return len ? check_end(c, CHECK_HOLDS, "'%.*s'", (int)len, tag)
		   : check_fails(c, "it is empty");
}

static enum check_status rule_nr_queues(struct check *c, uint64_t arg)
{
	struct peer *p = check_shared(c);
	uint32_t raw;
	int err;

	if (!p)
		return check_no_peer(c);
	err = vhost_client_read_config(p->vhost, TAG_BYTES, &raw, sizeof(raw));
	if (err == -EOPNOTSUPP)
		return check_end(c, CHECK_NOT_OFFERED, "no CONFIG");
	if (err < 0)
		return check_fails(c, "GET_CONFIG: %s", strerror(-err));
	raw = le32toh(raw);
	if (!raw)
		return check_fails(c, "0 request queues");
	if (nr_plain_queues(c) && raw > nr_plain_queues(c) - 1)
		return check_fails(c, "%u request queues, GET_QUEUE_NUM tells %u queues", raw,
				   (unsigned int)c->report->nr_queues);
	return check_end(c, CHECK_HOLDS, "%u", raw);
}

static enum check_status rule_hiprio_first(struct check *c, uint64_t arg)
{
	struct peer *p = check_shared(c);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_forget(p, FUSE_ROOT_ID, 1);
	return err < 0 ? check_error(c, p, err, "FORGET on queue 0") : check_holds(c);
}

static enum check_status rule_one_session(struct check *c, uint64_t arg)
{
	struct peer *p = device_peer(c, 3, false);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_works(p, SECOND_QUEUE);
	return err < 0 ? check_error(c, p, err, "GETATTR on the second request queue")
		       : check_holds(c);
}

static enum check_status rule_init_anywhere(struct check *c, uint64_t arg)
{
	struct peer *p = device_peer(c, 3, true);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_init(p, SECOND_QUEUE);
	if (err == 0)
		err = peer_works(p, FIRST_QUEUE);
	return err < 0 ? check_error(c, p, err, "INIT on the second request queue")
		       : check_holds(c);
}

static enum check_status rule_before_init(struct check *c, uint64_t arg)
{
	struct peer *p = device_peer(c, 2, true);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_works(p, FIRST_QUEUE);
	if (err == 0)
		return check_fails(c, "GETATTR succeeded");
	if (p->problem[0])
		return check_error(c, p, err, "GETATTR");
	err = peer_init(p, FIRST_QUEUE);
	if (err == 0)
		err = peer_works(p, FIRST_QUEUE);
	return err < 0 ? check_error(c, p, err, "INIT behind it") : check_holds(c);
}

static enum check_status rule_init_again(struct check *c, uint64_t destroy)
{
	struct peer *p = device_peer(c, 2, false);

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < 3; i++) {
		struct ask ask = { .opcode = FUSE_DESTROY };
		int err = destroy ? peer_ask(p, FIRST_QUEUE, &ask) : 0;

		/* Whether its reply is right is another row's. */
		if (err == -EPROTO) {
			p->problem[0] = '\0';
			err = 0;
		}
		if (err < 0)
			return check_error(c, p, err, "DESTROY");
		err = ask.error;
		if (err == 0)
			err = peer_init(p, FIRST_QUEUE);
		if (err == 0)
			err = peer_works(p, FIRST_QUEUE);
		if (err < 0)
			return check_error(c, p, err, "INIT again");
	}
	return check_holds(c);
}

/* An older driver: each is answered by a minor that it knows, and with the sizes of that time. */
static enum check_status rule_minors(struct check *c, uint64_t arg)
{
	static const uint32_t minors[] = { 31, 38, 45, 99 };
	struct peer *p = device_peer(c, 2, true);

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < array_size(minors); i++) {
		const struct fuse_init_in in = { .major = FUSE_KERNEL_VERSION,
						 .minor = minors[i],
						 .max_readahead = 65536 };
		struct ask ask = { .opcode = FUSE_INIT,
				   .args = &in,
				   .args_bytes =
					   minors[i] < 36 ? FUSE_COMPAT_INIT_IN_SIZE : sizeof(in),
				   .in_bytes = sizeof(struct fuse_init_out) };
		struct fuse_init_out out = {};
		int err = peer_ask(p, FIRST_QUEUE, &ask);

		if (err < 0 || ask.error)
			return check_fails(c, "7.%u: %s", minors[i],
					   err < 0 ? p->problem : strerror(-ask.error));
		memcpy(&out, ask.body, ask.got);
		/* A larger one is the driver's to lower; none is smaller than what FUSE ever was. */
		if (out.major != FUSE_KERNEL_VERSION || ask.got < FUSE_COMPAT_22_INIT_OUT_SIZE)
			return check_fails(c, "7.%u is answered by %u.%u in %u bytes", minors[i],
					   out.major, out.minor, ask.got);
		err = peer_works(p, FIRST_QUEUE);
		if (err < 0)
			return check_error(c, p, err, "GETATTR behind it");
	}
	return check_holds(c);
}

static enum check_status rule_next_major(struct check *c, uint64_t arg)
{
	const struct fuse_init_in in = { .major = FUSE_KERNEL_VERSION + 1 };
	struct ask ask = { .opcode = FUSE_INIT,
			   .args = &in,
			   .args_bytes = sizeof(in),
			   .in_bytes = sizeof(struct fuse_init_out) };
	struct peer *p = device_peer(c, 2, true);
	uint32_t major = 0;
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_ask(p, FIRST_QUEUE, &ask);
	if (err < 0)
		return check_error(c, p, err, "INIT 8.0");
	if (!ask.error)
		memcpy(&major, ask.body, min_of(ask.got, (uint32_t)sizeof(major)));
	if (!ask.error && major != FUSE_KERNEL_VERSION)
		return check_fails(c, "answered by major %u", major);
	err = peer_init(p, FIRST_QUEUE);
	return err < 0 ? check_error(c, p, err, "INIT 7.45 behind it") : check_holds(c);
}

/* A request in the other byte order. */
static int ask_swapped(struct peer *p, uint32_t opcode, uint64_t nodeid, void *args, uint32_t bytes,
		       const char *layout, struct ask *ask)
{
	fuse_swap_fields(args, bytes, layout);
	*ask = (struct ask){ .opcode = __builtin_bswap32(opcode),
			     .nodeid = __builtin_bswap64(nodeid),
			     .args = args,
			     .args_bytes = bytes,
			     .in_bytes = 200,
			     .swapped = true };
	return peer_ask(p, FIRST_QUEUE, ask);
}

static enum check_status rule_byte_order(struct check *c, uint64_t arg)
{
	struct fuse_init_in init = { .major = FUSE_KERNEL_VERSION, .minor = 38 };
	struct fuse_getattr_in getattr = {};
	struct peer *p = device_peer(c, 2, true);
	uint32_t word = 0;
	struct ask ask;
	int err;

	if (!p)
		return check_no_peer(c);
	err = ask_swapped(p, FUSE_INIT, 0, &init, sizeof(init), "4444444444444444", &ask);
	if (err < 0)
		return check_fails(c, "INIT: %s", p->problem);
	if (ask.error)
		return check_fails(c, "INIT: %s", strerror(-ask.error));
	memcpy(&word, ask.body, min_of(ask.got, (uint32_t)sizeof(word)));
	if (word != __builtin_bswap32(FUSE_KERNEL_VERSION))
		return check_fails(c, "INIT is answered by major %#x", word);
	err = ask_swapped(p, FUSE_GETATTR, FUSE_ROOT_ID, &getattr, sizeof(getattr), "448", &ask);
	if (err < 0 || ask.error)
		return check_fails(c, "GETATTR: %s", err < 0 ? p->problem : strerror(-ask.error));
	return check_holds(c);
}

static enum check_status rule_unknown_opcode(struct check *c, uint64_t arg)
{
	struct ask ask = { .opcode = 9999, .nodeid = FUSE_ROOT_ID, .in_bytes = 64 };
	struct peer *p = check_shared(c);
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_ask(p, FIRST_QUEUE, &ask);
	if (err < 0)
		return check_error(c, p, err, "opcode 9999");
	return ask.error == -ENOSYS ? check_holds(c)
				    : check_fails(c, "answered by %s",
						  ask.error ? strerror(-ask.error) : "success");
}

/* While the request queue has all it can take, a FORGET passes. */
static enum check_status rule_hiprio_passes(struct check *c, uint64_t arg)
{
	struct fuse_read_in in = { .size = BULK_BYTES };
	struct peer *p = device_peer(c, 2, false);
	struct ask asks[PEER_SLOTS];
	uint64_t begin, passed_ms;
	int err;

	if (!p)
		return check_no_peer(c);
	err = fs_open(p, FUSE_OPENDIR, FUSE_ROOT_ID, O_RDONLY | O_DIRECTORY, &in.fh);
	if (err < 0)
		return check_error(c, p, err, "OPENDIR before it");
	for (unsigned int i = 1; i < PEER_SLOTS && err == 0; i++) {
		asks[i] = (struct ask){ .opcode = FUSE_READDIR,
					.nodeid = FUSE_ROOT_ID,
					.args = &in,
					.args_bytes = sizeof(in),
					.in_bytes = BULK_BYTES,
					.frame = FRAME_ONE };
		err = peer_submit(p, FIRST_QUEUE, i, &asks[i]);
	}
	if (err < 0)
		return check_fails(c, "%s", p->problem);
	peer_kick(p, FIRST_QUEUE);
	begin = clock_now_ns();
	err = peer_forget(p, FUSE_ROOT_ID, 1);
	passed_ms = (clock_now_ns() - begin) / NSEC_PER_MSEC;
	if (err < 0)
		return check_error(c, p, err, "FORGET");
	for (unsigned int i = 1; i < PEER_SLOTS; i++) {
		unsigned int slot;

		err = peer_wait(p, FIRST_QUEUE, ANSWER_MS, &slot);
		if (err < 0)
			return check_error(c, p, err, "READDIR");
	}
	return check_end(c, CHECK_HOLDS, "after %llu ms", (unsigned long long)passed_ms);
}

/* Both request queues full at once: each is served. */
static enum check_status rule_queues_at_once(struct check *c, uint64_t arg)
{
	struct peer *p = device_peer(c, 3, false);
	struct ask asks[PEER_SLOTS];
	int err = 0;

	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < PEER_SLOTS && err == 0; i++) {
		asks[i] = (struct ask){ .opcode = FUSE_GETATTR,
					.nodeid = FUSE_ROOT_ID,
					.args = &no_args,
					.args_bytes = sizeof(no_args),
					.in_bytes = sizeof(struct fuse_attr_out) };
		err = peer_submit(p, FIRST_QUEUE + i % 2, i, &asks[i]);
	}
	if (err < 0)
		return check_fails(c, "%s", p->problem);
	peer_kick(p, FIRST_QUEUE);
	peer_kick(p, SECOND_QUEUE);
	for (unsigned int i = 0; i < PEER_SLOTS; i++) {
		unsigned int slot;

		err = peer_wait(p, FIRST_QUEUE + i % 2, ANSWER_MS, &slot);
		if (err < 0)
			return check_error(c, p, err, "GETATTR");
	}
	return check_holds(c);
}

#define DEVICE(clause, what, turn, fn, arg)                 \
	{                                                   \
		"device", clause, what, turn, fn, arg, NULL \
	}

/* clang-format off */
static const struct check_rule rules[] = {
	DEVICE("6.1", "VIRTIO_F_VERSION_1", TURN_SHARED, rule_version_1, 0),
	DEVICE("5.11.2", "queue 0 is hiprio, queue 1 takes requests", TURN_SHARED, rule_hiprio_first, 0),
	DEVICE("5.11.3", "VIRTIO_FS_F_NOTIFICATION: queue 1 takes buffers, requests begin at 2", TURN_OWN, rule_notification, 0),
	DEVICE("5.11.4", "the tag is not empty, and padded with NUL", TURN_SHARED, rule_tag, 0),
	DEVICE("5.11.4.2", "num_request_queues is at least 1, and as many as there are", TURN_SHARED, rule_nr_queues, 0),
	DEVICE("5.11.6", "requests before INIT are refused", TURN_OWN, rule_before_init, 0),
	DEVICE("5.11.6", "INIT on any request queue", TURN_OWN, rule_init_anywhere, 0),
	DEVICE("5.11.6", "one session over all request queues", TURN_OWN, rule_one_session, 0),
	DEVICE("5.11.6", "INIT begins a new session at any time", TURN_OWN, rule_init_again, 0),
	DEVICE("5.11.6", "INIT begins a new session after DESTROY", TURN_OWN, rule_init_again, 1),
	DEVICE("5.11.6", "drivers of 7.31 to 7.45, and later ones", TURN_OWN, rule_minors, 0),
	DEVICE("5.11.6", "a driver of the next major is told ours, or refused", TURN_OWN, rule_next_major, 0),
	DEVICE("5.11.6", "byte order is the driver's: INIT in the other one", TURN_OWN, rule_byte_order, 0),
	DEVICE("5.11.6", "an opcode that does not exist is answered by ENOSYS", TURN_SHARED, rule_unknown_opcode, 0),
	DEVICE("5.11.6.1", "two request queues are served at the same time", TURN_OWN, rule_queues_at_once, 0),
	DEVICE("5.11.6.2", "hiprio does not wait for a request queue", TURN_OWN, rule_hiprio_passes, 0),
};
/* clang-format on */

const struct check_table check_device_rules = { rules, array_size(rules) };
