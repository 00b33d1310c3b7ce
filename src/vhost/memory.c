/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver's memory and the dirty log, as the front-end hands them out.
 */
#include "vhost/session.h"

#include <errno.h>

static struct mem_region_desc region_desc(const struct vhost_region *r)
{
	return (struct mem_region_desc){
		.gpa = r->gpa,
		.size = r->size,
		.user_addr = r->user_addr,
		.mmap_offset = r->mmap_offset,
	};
}

/* Use @table, a reference that is ours, from now on. */
static void session_use_mem(struct vhost_session *s, struct mem_table *table)
{
	struct mem_table *old = s->mem;

	s->mem = table;
	device_set_mem(s->dev, table, vhost_ring_resolve);
	mem_table_put(old);
	vhost_rings_start_pending(s);
}

int vhost_set_mem_table(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const struct vhost_mem_table *m = &msg->payload.mem;
	struct mem_table *table, *next;
	int err;

	err = mem_table_new(&table);
	for (unsigned int i = 0; err == 0 && i < m->nr; i++) {
		struct mem_region_desc desc = region_desc(&m->regions[i]);

		err = mem_table_with_region(&next, table, &desc, msg->fds[i]);
		if (err < 0) {
			mem_table_put(table);
			break;
		}
		mem_table_put(table);
		table = next;
	}
	if (err < 0)
		return err;
	session_use_mem(s, table);
	return 0;
}

int vhost_get_max_mem_slots(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	reply->payload.u64 = MEM_REGIONS_MAX;
	reply->header.size = sizeof(uint64_t);
	return 0;
}

int vhost_add_mem_reg(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct mem_region_desc desc = region_desc(&msg->payload.reg.region);
	struct mem_table *table;
	int err = mem_table_with_region(&table, s->mem, &desc, msg->fds[0]);

	if (err < 0)
		return err;
	session_use_mem(s, table);
	return 0;
}

int vhost_rem_mem_reg(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct mem_region_desc desc = region_desc(&msg->payload.reg.region);
	struct mem_table *table;
	/* A descriptor may come along and means nothing ("should not be used", it is closed). */
	int err = mem_table_without_region(&table, s->mem, &desc);

	if (err < 0)
		return err;
	session_use_mem(s, table);
	return 0;
}

void vhost_log_update(struct vhost_session *s)
{
	struct dirty_log *log = s->features & bit64(VHOST_F_LOG_ALL) ? s->log_base : NULL;

	if (log == s->log_active)
		return;
	s->log_active = log;
	device_set_log(s->dev, log);
	/* The rings' own pages are logged through their setup: have it looked up again. */
	device_set_mem(s->dev, s->mem, vhost_ring_resolve);
}

int vhost_set_log_base(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	struct dirty_log *old = s->log_base, *log;
	int err = dirty_log_new(&log, msg->fds[0], msg->payload.log.size, msg->payload.log.offset);

	/* With LOG_SHMFD there is always a reply; its value is our errno, which QEMU does not look at. */
	reply->payload.u64 = err < 0 ? (uint64_t)-err : 0;
	reply->header.size = sizeof(uint64_t);
	if (err < 0)
		return err;
	s->log_base = log;
	vhost_log_update(s);
	dirty_log_put(old);
	return 0;
}

int vhost_set_log_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	/* For a log that is announced by a signal; with the log in shared memory nobody waits for one. */
	return 0;
}
