/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device between our driver side and a service that the test commands.
 */
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define WAIT_NS (10 * NSEC_PER_SEC)

static struct rig_service *to_rig(struct service *svc)
{
	return container_of(svc, struct rig_service, svc);
}

static void reply_body(struct request *req, void *body, size_t len)
{
	struct iovec iov = { body, len };

	request_reply(req, 0, &iov, 1);
}

static void answer_entry(struct rig_service *rs, struct request *req)
{
	struct fuse_entry_out out = { .attr = { .mode = S_IFREG | 0644, .nlink = 1 } };

	pthread_mutex_lock(&rs->lock);
	out.nodeid = out.attr.ino = rs->next_nodeid++;
	pthread_mutex_unlock(&rs->lock);
	reply_body(req, &out, sizeof(out));
}

static void answer_open(struct rig_service *rs, struct request *req)
{
	struct fuse_open_out out = {};

	pthread_mutex_lock(&rs->lock);
	out.fh = rs->next_fh++;
	pthread_mutex_unlock(&rs->lock);
	reply_body(req, &out, sizeof(out));
}

static void answer_read(struct request *req, const struct fuse_read_in *in)
{
	const struct iovec *to;
	unsigned int nr;

	if (request_direct_begin(req, in->size, &to, &nr) < 0) {
		request_reply(req, -EIO, NULL, 0);
		return;
	}
	for (unsigned int i = 0; i < nr; i++)
		memset(to[i].iov_base, 'r', to[i].iov_len);
	request_direct_end(req, 0);
}

static void service_answer(struct rig_service *rs, struct request *req)
{
	size_t len;
	const char *msg = request_message(req, &len);
	const void *args = msg + sizeof(struct fuse_in_header);
	struct fuse_attr_out attr = { .attr = { .mode = S_IFREG | 0644, .nlink = 1 } };

	switch (request_header(req)->opcode) {
	case FUSE_LOOKUP:
		answer_entry(rs, req);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		answer_open(rs, req);
		break;
	case FUSE_READ:
		answer_read(req, args);
		break;
	case FUSE_GETATTR:
		attr.attr.ino = request_header(req)->nodeid;
		reply_body(req, &attr, sizeof(attr));
		break;
	default:
		request_reply(req, 0, NULL, 0);
	}
}

static void count_forgets(struct rig_service *rs, const struct request *req)
{
	size_t len;
	const uint8_t *msg = request_message(req, &len);
	const uint8_t *args = msg + sizeof(struct fuse_in_header);

	if (request_header(req)->opcode == FUSE_FORGET) {
		rs->nr_forgotten += ((const struct fuse_forget_in *)args)->nlookup;
		return;
	}
	for (uint32_t i = 0; i < ((const struct fuse_batch_forget_in *)args)->count; i++)
		rs->nr_forgotten += ((const struct fuse_forget_one *)(args + 8))[i].nlookup;
}

static void service_submit(struct service *svc, struct request *req)
{
	struct rig_service *rs = to_rig(svc);
	uint32_t opcode = request_header(req)->opcode;
	bool keep;

	pthread_mutex_lock(&rs->lock);
	rs->nr_of[opcode]++;
	if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET)
		count_forgets(rs, req);
	keep = rs->hold && (!rs->hold_opcode || rs->hold_opcode == opcode) &&
	       rs->nr_held < RIG_HELD;
	if (keep)
		rs->held[rs->nr_held++] = req;
	pthread_cond_broadcast(&rs->changed);
	pthread_mutex_unlock(&rs->lock);
	if (!keep)
		service_answer(rs, req);
}

static void service_interrupt(struct service *svc, uint64_t unique)
{
	struct rig_service *rs = to_rig(svc);

	pthread_mutex_lock(&rs->lock);
	rs->nr_interrupts++;
	rs->last_interrupt = unique;
	pthread_mutex_unlock(&rs->lock);
}

static void service_retrieve_none(struct service *svc, const struct fuse_notify_retrieve_out *what)
{
	struct rig_service *rs = to_rig(svc);

	pthread_mutex_lock(&rs->lock);
	rs->nr_none++;
	pthread_mutex_unlock(&rs->lock);
}

static void service_stop(struct service *svc)
{
	struct rig_service *rs = to_rig(svc);

	while (rs->nr_held)
		request_reply(rs->held[--rs->nr_held], -EIO, NULL, 0);
}

static const struct service_ops rig_ops = {
	.name = "rig",
	.submit = service_submit,
	.interrupt = service_interrupt,
	.retrieve_none = service_retrieve_none,
	.stop = service_stop,
};

static struct rig_service *service_new(void)
{
	struct rig_service *rs = calloc(1, sizeof(*rs));

	assert_non_null(rs);
	rs->svc.ops = &rig_ops;
	rs->svc.init_out = (struct fuse_init_out){
		.major = 7,
		.minor = 40,
		.max_readahead = 131072,
		.flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES | FUSE_ASYNC_READ,
		.max_write = 1 << 20,
		.max_pages = 256,
		.max_background = 12,
		.congestion_threshold = 9,
		.time_gran = 1,
	};
	rs->next_nodeid = 100;
	rs->next_fh = 7;
	pthread_mutex_init(&rs->lock, NULL);
	pthread_cond_init(&rs->changed, NULL);
	return rs;
}

static void rig_call_in_band(void *transport, unsigned int index)
{
	struct rig *rig = transport;

	fd_signal(rig->call[index]);
}

static void rig_needs_reset(void *transport)
{
	struct rig *rig = transport;

	__atomic_fetch_add(&rig->nr_needs_reset, 1, __ATOMIC_RELEASE);
}

static const struct transport_ops rig_transport = {
	.call = rig_call_in_band,
	.needs_reset = rig_needs_reset,
};

static void rig_memory(struct rig *rig)
{
	struct mem_region_desc desc = { .gpa = RIG_GPA, .size = RIG_BYTES, .user_addr = RIG_USER };
	struct mem_table *empty;

	rig->fd = memfd_new("rig", RIG_BYTES);
	assert_true(rig->fd >= 0);
	assert_int_equal(mem_table_new(&empty), 0);
	assert_int_equal(mem_table_with_region(&rig->table, empty, &desc, rig->fd), 0);
	mem_table_put(empty);
	rig->mem = guest_strip(mem_table_map(rig->table, gpa(RIG_GPA), RIG_BYTES));
	assert_non_null(rig->mem);
}

static void rig_make_ring(struct rig *rig, unsigned int i, bool packed)
{
	struct virtq_driver_setup setup = {
		.format = packed ? VIRTQ_PACKED : VIRTQ_SPLIT,
		.size = RIG_RING,
		.event_idx = true,
		.indirect_max = 8,
		.base = packed ? VIRTQ_DRIVER_BASE_PACKED : 0,
		.mem = { rig->mem, RIG_GPA, RIG_BYTES },
		.ring = rig->mem + i * 65536,
	};
	struct virtq_setup *s = &rig->setup[i];

	virtq_driver_free(rig->drv[i]);
	rig->drv[i] = NULL;
	memset(setup.ring, 0, 65536);
	assert_int_equal(virtq_driver_new(&rig->drv[i], &setup), 0);
	virtq_driver_areas(rig->drv[i], s);
}

void rig_start(struct rig *rig)
{
	bool packed = rig->setup[0].format == VIRTQ_PACKED;

	for (unsigned int i = 0; i < RIG_QUEUES; i++) {
		struct device_queue_fds fds = { rig->kick[i], rig->call[i], false };

		rig_make_ring(rig, i, packed);
		assert_int_equal(device_queue_start(rig->dev, i, &rig->setup[i], &fds), 0);
		device_queue_set_enabled(rig->dev, i, true);
	}
}

struct rig *rig_new_with(const struct device_config *config, bool packed, struct service *svc)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig_memory(rig);
	rig->slots = rig->mem + RIG_QUEUES * 65536;
	rig->setup[0].format = packed ? VIRTQ_PACKED : VIRTQ_SPLIT;
	assert_int_equal(device_new(&rig->dev, config, svc), 0);
	device_attach(rig->dev, &rig_transport, rig);
	assert_int_equal(device_set_features(rig->dev, device_features(rig->dev) & ~UINT64_C(1)),
			 0);
	device_set_mem(rig->dev, rig->table, NULL);
	for (unsigned int i = 0; i < RIG_QUEUES; i++) {
		rig->kick[i] = eventfd_new();
		rig->call[i] = eventfd_new();
		assert_true(rig->kick[i] >= 0 && rig->call[i] >= 0);
	}
	rig_start(rig);
	return rig;
}

struct rig *rig_new(const struct device_config *config, bool packed)
{
	struct rig_service *rs = service_new();
	struct rig *rig = rig_new_with(config, packed, &rs->svc);

	rig->service = rs;
	return rig;
}

void rig_free(struct rig *rig)
{
	device_free(rig->dev);
	if (rig->service) {
		assert_int_equal(rig->service->nr_held, 0);
		pthread_mutex_destroy(&rig->service->lock);
		pthread_cond_destroy(&rig->service->changed);
		free(rig->service);
	}
	for (unsigned int i = 0; i < RIG_QUEUES; i++) {
		virtq_driver_free(rig->drv[i]);
		close(rig->kick[i]);
		close(rig->call[i]);
	}
	mem_table_put(rig->table);
	mem_table_put(rig->next_table);
	close(rig->fd);
	free(rig);
}

struct rig_slot *rig_slot(struct rig *rig, unsigned int i)
{
	return (struct rig_slot *)(rig->slots + (size_t)i * sizeof(struct rig_slot));
}

size_t rig_message(struct rig *rig, struct rig_slot *slot, uint32_t opcode, uint64_t nodeid,
		   const void *args, size_t len)
{
	struct fuse_in_header hdr = {
		.len = (uint32_t)(sizeof(hdr) + len),
		.opcode = opcode,
		.unique = rig->unique += 2,
		.nodeid = nodeid,
	};

	memcpy(slot->msg, &hdr, sizeof(hdr));
	if (len)
		memcpy(slot->msg + sizeof(hdr), args, len);
	return sizeof(hdr) + len;
}

void rig_send_raw(struct rig *rig, unsigned int queue, struct rig_slot *slot, size_t len,
		  size_t reply_bytes)
{
	struct iovec iov[2] = { { slot->msg, len }, { slot->reply, reply_bytes } };
	unsigned int out = len ? 1 : 0;

	memset(slot->reply, 0xee, sizeof(slot->reply));
	assert_int_equal(virtq_driver_add(rig->drv[queue], out ? iov : iov + 1, out,
					  reply_bytes ? 1 : 0, slot),
			 0);
	if (virtq_driver_publish(rig->drv[queue]))
		fd_signal(rig->kick[queue]);
}

uint64_t rig_send(struct rig *rig, unsigned int queue, struct rig_slot *slot, uint32_t opcode,
		  uint64_t nodeid, const void *args, size_t len, size_t reply_bytes)
{
	size_t bytes = rig_message(rig, slot, opcode, nodeid, args, len);

	rig_send_raw(rig, queue, slot, bytes, reply_bytes ? reply_bytes + 16 : 0);
	return rig->unique;
}

bool rig_quiet(struct rig *rig, unsigned int queue, unsigned int ms)
{
	uint64_t end = clock_now_ns() + ms * NSEC_PER_MSEC;

	while (!virtq_driver_has_used(rig->drv[queue])) {
		struct pollfd pfd = { .fd = rig->call[queue], .events = POLLIN };
		uint64_t now = clock_now_ns();

		if (now >= end)
			return true;
		if (virtq_driver_call_enable(rig->drv[queue]))
			break;
		poll(&pfd, 1, (int)((end - now) / NSEC_PER_MSEC) + 1);
		assert_true(fd_drain_signal(rig->call[queue]) >= 0);
	}
	return false;
}

uint32_t rig_wait(struct rig *rig, unsigned int queue, struct rig_slot **ret_slot)
{
	uint32_t written = 0;
	void *cookie = NULL;

	assert_false(rig_quiet(rig, queue, (unsigned int)(WAIT_NS / NSEC_PER_MSEC)));
	assert_int_equal(virtq_driver_get(rig->drv[queue], &cookie, &written), 1);
	if (ret_slot)
		*ret_slot = cookie;
	return written;
}

int rig_call(struct rig *rig, unsigned int queue, uint32_t opcode, uint64_t nodeid,
	     const void *args, size_t len, size_t reply_bytes, void *ret_body, size_t body_cap)
{
	struct rig_slot *slot = rig_slot(rig, 60);
	size_t bytes = rig_message(rig, slot, opcode, nodeid, args, len);
	uint64_t unique = rig->unique;
	struct fuse_out_header out;
	uint32_t written;

	rig_send_raw(rig, queue, slot, bytes, 16 + reply_bytes);
	written = rig_wait(rig, queue, &slot);
	assert_true(written >= sizeof(out));
	memcpy(&out, slot->reply, sizeof(out));
	assert_int_equal(out.len, written);
	assert_true(out.unique == unique);
	if (ret_body)
		memcpy(ret_body, slot->reply + sizeof(out),
		       min_of((size_t)written - sizeof(out), body_cap));
	return out.error;
}

int rig_init(struct rig *rig)
{
	struct fuse_init_in in = { .major = 7,
				   .minor = 38,
				   .max_readahead = 131072,
				   .flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES };

	return rig_call(rig, 1, FUSE_INIT, 0, &in, sizeof(in), sizeof(struct fuse_init_out), NULL,
			0);
}

int rig_lookup(struct rig *rig, const char *name, uint64_t *ret_nodeid)
{
	struct fuse_entry_out out = {};
	int err = rig_call(rig, 1, FUSE_LOOKUP, FUSE_ROOT_ID, name, strlen(name) + 1, sizeof(out),
			   &out, sizeof(out));

	*ret_nodeid = out.nodeid;
	return err;
}

int rig_open(struct rig *rig, uint64_t nodeid, uint64_t *ret_fh)
{
	struct fuse_open_in in = {};
	struct fuse_open_out out = {};
	int err = rig_call(rig, 1, FUSE_OPEN, nodeid, &in, sizeof(in), sizeof(out), &out,
			   sizeof(out));

	*ret_fh = out.fh;
	return err;
}

unsigned int rig_count(struct rig *rig, const unsigned int *counter)
{
	unsigned int n;

	pthread_mutex_lock(&rig->service->lock);
	n = *counter;
	pthread_mutex_unlock(&rig->service->lock);
	return n;
}

uint64_t rig_count64(struct rig *rig, const uint64_t *counter)
{
	uint64_t n;

	pthread_mutex_lock(&rig->service->lock);
	n = *counter;
	pthread_mutex_unlock(&rig->service->lock);
	return n;
}

void rig_hold(struct rig *rig, uint32_t opcode)
{
	pthread_mutex_lock(&rig->service->lock);
	rig->service->hold = true;
	rig->service->hold_opcode = opcode;
	pthread_mutex_unlock(&rig->service->lock);
}

void rig_release(struct rig *rig)
{
	pthread_mutex_lock(&rig->service->lock);
	rig->service->hold = false;
	pthread_mutex_unlock(&rig->service->lock);
}

void rig_set_next_nodeid(struct rig *rig, uint64_t nodeid)
{
	pthread_mutex_lock(&rig->service->lock);
	rig->service->next_nodeid = nodeid;
	pthread_mutex_unlock(&rig->service->lock);
}

struct request *rig_take(struct rig *rig)
{
	struct rig_service *rs = rig->service;
	struct request *req = NULL;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&rs->lock);
	while (!rs->nr_held && pthread_cond_timedwait(&rs->changed, &rs->lock, &until) == 0)
		continue;
	if (rs->nr_held)
		req = rs->held[--rs->nr_held];
	pthread_mutex_unlock(&rs->lock);
	assert_non_null(req);
	return req;
}

void rig_answer(struct rig *rig, struct request *req)
{
	service_answer(rig->service, req);
}
