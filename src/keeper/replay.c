/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tells a back-end what the front-end has told another, in the order in which QEMU would.
 *
 * Theory of operation
 * -------------------
 * The replay has two parts. The head (features, memory, log, in-flight area) can be said while another
 * back-end still serves the rings; the rings begin when that one has stopped them. So a successor that does not
 * fit is found out before anything was stopped, and the driver waits for a short time only.
 *
 * A ring that starts needs a place in an in-flight area, or its position is lost with the back-end. A front-end that
 * brings an area of its own has its own idea of that; else the keeper has the back-end make one before the first ring
 * starts, and keeps it for as long as any ring runs. Its size is a guess then (AREA_RING_SIZE, all queues). A
 * ring that does not fit later makes the keeper stop all rings for a moment and begin with a larger area.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "keeper/keeper_impl.h"

/* Rings of virtio-fs drivers are rarely larger. */
#define AREA_RING_SIZE 1024u

static bool backend_has(const struct keeper_backend *be, unsigned int bit)
{
	return be->protocol & bit64(bit);
}

static int replay_slots(struct keeper *k, struct keeper_backend *be)
{
	int err = 0;

	for (unsigned int i = 0; i < k->state.nr_regions && err == 0; i++) {
		const struct keeper_region *r = &k->state.regions[i];
		struct vhost_mem_reg reg = { .region = r->region };

		err = keeper_tell(k, be, VHOST_USER_ADD_MEM_REG, &reg, sizeof(reg), r->fd);
	}
	return err;
}

static int replay_mem_table(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	struct vhost_msg msg = { .header = { .request = VHOST_USER_SET_MEM_TABLE } };
	struct vhost_msg reply;
	int err;

	for (unsigned int i = 0; i < s->nr_regions; i++) {
		msg.payload.mem.regions[i] = s->regions[i].region;
		msg.fds[i] = s->regions[i].fd;
	}
	msg.payload.mem.nr = msg.nr_fds = s->nr_regions;
	msg.header.size = (uint32_t)(offsetof(struct vhost_mem_table, regions) +
				     s->nr_regions * sizeof(struct vhost_region));
	err = keeper_ask(k, be, &msg, &reply);
	if (err < 0)
		return err;
	return reply.payload.u64 ? keeper_refuse(k, -EREMOTEIO, "the back-end refuses the memory")
				 : 0;
}

static int replay_memory(struct keeper *k, struct keeper_backend *be)
{
	if (!k->state.have_mem)
		return 0;
	return k->state.slots ? replay_slots(k, be) : replay_mem_table(k, be);
}

static int replay_log(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	int err = 0;

	if (s->log_base_fd >= 0)
		err = keeper_tell(k, be, VHOST_USER_SET_LOG_BASE, &s->log, sizeof(s->log),
				  s->log_base_fd);
	if (err == 0 && s->log_fd >= 0)
		err = keeper_tell(k, be, VHOST_USER_SET_LOG_FD, NULL, 0, s->log_fd);
	return err;
}

static int replay_inflight(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;

	if (s->inflight_fd < 0 || !backend_has(be, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
		return 0;
	return keeper_tell(k, be, VHOST_USER_SET_INFLIGHT_FD, &s->inflight, sizeof(s->inflight),
			   s->inflight_fd);
}

int keeper_replay_head(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	int err = 0;

	if (s->owner) {
		err = keeper_tell(k, be, VHOST_USER_SET_OWNER, NULL, 0, -1);
		be->owned = err == 0;
	}
	if (err == 0 && s->channel_fd >= 0)
		err = keeper_tell(k, be, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, s->channel_fd);
	if (err == 0 && s->have_features)
		err = keeper_tell(k, be, VHOST_USER_SET_FEATURES, &s->features, sizeof(uint64_t),
				  -1);
	if (err == 0)
		err = replay_memory(k, be);
	if (err == 0)
		err = replay_log(k, be);
	if (err == 0)
		err = replay_inflight(k, be);
	return err;
}

static int tell_state(struct keeper *k, struct keeper_backend *be, uint32_t request,
		      unsigned int index, uint32_t num)
{
	const struct vhost_vring_state state = { .index = index, .num = num };

	return keeper_tell(k, be, request, &state, sizeof(state), -1);
}

static int tell_fd(struct keeper *k, struct keeper_backend *be, uint32_t request,
		   unsigned int index, int fd)
{
	const uint64_t word = index | (fd < 0 ? VHOST_VRING_NOFD : 0);

	return keeper_tell(k, be, request, &word, sizeof(word), fd);
}

/* One ring that cannot run must not take the others along: its predecessor may have refused the same. */
static int unless_refused(int err)
{
	return err == -EREMOTEIO ? 0 : err;
}

/* What a ring is; it starts afterwards. */
static int replay_ring_setup(struct keeper *k, struct keeper_backend *be, unsigned int index)
{
	const struct keeper_ring *r = &k->state.rings[index];
	int err = 0;

	if (r->num)
		err = unless_refused(tell_state(k, be, VHOST_USER_SET_VRING_NUM, index, r->num));
	if (err == 0 && (r->num || r->base))
		err = unless_refused(tell_state(k, be, VHOST_USER_SET_VRING_BASE, index, r->base));
	if (err == 0 && r->have_addr)
		err = unless_refused(keeper_tell(k, be, VHOST_USER_SET_VRING_ADDR, &r->addr,
						 sizeof(r->addr), -1));
	if (err == 0 && r->call_fd >= 0)
		err = unless_refused(tell_fd(k, be, VHOST_USER_SET_VRING_CALL, index, r->call_fd));
	if (err == 0 && r->err_fd >= 0)
		err = unless_refused(tell_fd(k, be, VHOST_USER_SET_VRING_ERR, index, r->err_fd));
	return err;
}

static int replay_ring_start(struct keeper *k, struct keeper_backend *be, unsigned int index)
{
	const struct keeper_ring *r = &k->state.rings[index];
	int err = 0;

	if (r->run == KEEPER_RING_BY_FD)
		err = tell_fd(k, be, VHOST_USER_SET_VRING_KICK, index, r->kick_fd);
	else if (r->run == KEEPER_RING_BY_MESSAGE)
		err = tell_state(k, be, VHOST_USER_VRING_KICK, index, 0);
	if (err == -EREMOTEIO && r->err_fd >= 0)
		fd_signal(r->err_fd);
	err = unless_refused(err);
	if (err == 0 && r->have_enabled)
		err = unless_refused(
			tell_state(k, be, VHOST_USER_SET_VRING_ENABLE, index, r->enabled));
	return err;
}

/* In band, the driver is called through the channel. */
static void call_inband(struct keeper *k, unsigned int index)
{
	struct vhost_msg msg = { .header = { VHOST_USER_BACKEND_VRING_CALL, VHOST_FLAG_VERSION,
					     sizeof(struct vhost_vring_state) },
				 .payload.state = { .index = index } };
	struct stat st;

	if (k->state.channel_fd < 0 || fstat(k->state.channel_fd, &st) < 0 ||
	    fd_set_nonblock(k->state.channel_fd, true) < 0)
		return;
	if (vhost_channel_send(k->state.channel_fd, S_ISFIFO(st.st_mode), &msg) < 0)
		log_debug("keeper: the front-end's channel takes no call");
}

/*
 * A kick or a call may have been lost with the old back-end: what it had taken from the eventfd and not acted upon.
 * One too many does no harm.
 */
static void wake_both_sides(struct keeper *k)
{
	const bool inband = keeper_state_has(&k->state, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);

	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		const struct keeper_ring *r = &k->state.rings[i];

		if (!r->run)
			continue;
		if (r->kick_fd >= 0 && fd_signal(r->kick_fd) < 0)
			log_debug("keeper: queue %u cannot be kicked", i);
		if (r->call_fd >= 0 && fd_signal(r->call_fd) < 0)
			log_debug("keeper: queue %u cannot be called", i);
		if (r->call_fd < 0 && inband)
			call_inband(k, i);
	}
}

/* Ask for an area of @d's counts. Return: 1: made; 0: refused; negative errno. */
static int get_area(struct keeper *k, struct keeper_backend *be, struct vhost_inflight *d,
		    int *ret_fd)
{
	struct vhost_msg msg = { .header = { .request = VHOST_USER_GET_INFLIGHT_FD,
					     .size = sizeof(*d) },
				 .payload.inflight = *d };
	struct vhost_msg reply;
	int err = keeper_ask(k, be, &msg, &reply);

	if (err < 0)
		return err;
	if (reply.nr_fds == 1 && reply.payload.inflight.mmap_size) {
		d->mmap_size = reply.payload.inflight.mmap_size;
		d->mmap_offset = reply.payload.inflight.mmap_offset;
		*ret_fd = TAKE_FD(reply.fds[0]);
		return 1;
	}
	vhost_msg_close_fds(&reply);
	return 0;
}

static uint32_t largest_ring(const struct keeper_state *s, uint32_t num)
{
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++)
		num = max_of(num, s->rings[i].num);
	return num;
}

static int new_area(struct keeper *k, struct keeper_backend *be, unsigned int index, uint32_t num)
{
	struct keeper_state *s = &k->state;
	const uint32_t least = max_of(largest_ring(s, num), 1u);
	const unsigned int nr = max_of(keeper_state_nr_rings(s), index + 1);
	struct vhost_inflight d = {
		.nr_queues =
			(uint16_t)(backend_has(be, VHOST_USER_PROTOCOL_F_MQ) ? be->nr_queues : nr),
		.queue_size = (uint16_t)max_of(least, AREA_RING_SIZE),
	};
	int fd = -1;
	int err = get_area(k, be, &d, &fd);

	if (err == 0 && d.queue_size > least) {
		d.queue_size = (uint16_t)least;
		err = get_area(k, be, &d, &fd);
	}
	if (err < 0)
		return err;
	if (err == 0) {
		keeper_warn(
			k,
			"the back-end makes no in-flight area: its death will end the front-end");
		keeper_state_drop_inflight(s);
		return 0;
	}
	keeper_state_set_inflight(s, &d, fd, true);
	err = replay_inflight(k, be);
	if (err == -EREMOTEIO) {
		keeper_state_drop_inflight(s);
		err = 0;
	}
	return err;
}

static int start_rings(struct keeper *k, struct keeper_backend *be)
{
	const unsigned int nr = keeper_state_nr_rings(&k->state);
	int err = 0;

	for (unsigned int i = 0; i < nr && err == 0; i++) {
		err = replay_ring_setup(k, be, i);
		if (err == 0)
			err = replay_ring_start(k, be, i);
	}
	return err;
}

static bool wants_area(const struct keeper *k, const struct keeper_backend *be)
{
	return backend_has(be, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) &&
	       (k->state.inflight_fd < 0 || k->state.inflight_own);
}

int keeper_need_area(struct keeper *k, struct keeper_backend *be, unsigned int index, uint32_t num)
{
	const bool running = keeper_state_running(&k->state);
	int err = 0;

	if (num > VIRTQ_SIZE_MAX || !wants_area(k, be) ||
	    keeper_state_inflight_covers(&k->state, index, num))
		return 0;
	if (running)
		err = keeper_stop_rings(k, be);
	if (err == 0)
		err = new_area(k, be, index, num);
	if (err == 0 && running) {
		err = start_rings(k, be);
		wake_both_sides(k);
	}
	return err;
}

int keeper_replay_rings(struct keeper *k, struct keeper_backend *be)
{
	const struct keeper_state *s = &k->state;
	int err = 0;

	/* A predecessor without one had its rings stopped: nothing is in flight, begin to record. */
	if (wants_area(k, be) && s->inflight_fd < 0 && keeper_state_running(s))
		err = new_area(k, be, 0, 0);
	if (err == 0)
		err = start_rings(k, be);
	if (err == 0 && s->have_status)
		err = keeper_tell(k, be, VHOST_USER_SET_STATUS, &s->status, sizeof(s->status), -1);
	err = unless_refused(err);
	if (err == 0)
		wake_both_sides(k);
	return err;
}

int keeper_stop_rings(struct keeper *k, struct keeper_backend *be)
{
	for (unsigned int i = 0; i < VHOST_QUEUES_MAX; i++) {
		struct keeper_ring *r = &k->state.rings[i];
		struct vhost_msg msg = { .header = { .request = VHOST_USER_GET_VRING_BASE,
						     .size = sizeof(struct vhost_vring_state) },
					 .payload.state = { .index = i } };
		struct vhost_msg reply;
		int err;

		if (!r->run)
			continue;
		err = keeper_ask(k, be, &msg, &reply);
		if (err < 0)
			return err;
		if (reply.payload.state.index != i) {
			be->rx.error = "position of another queue";
			return -EPROTO;
		}
		r->base = reply.payload.state.num;
	}
	return 0;
}
