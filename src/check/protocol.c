/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of vhost-user protocol features: each is offered or not, and what is offered works.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "check/check_impl.h"
#include "vhost/link.h"

#define F(name) VHOST_USER_PROTOCOL_F_##name

#define RING_SIZE 64u
/* A bit per page, up to behind the front-end's memory. */
#define LOG_BYTES   (1u << 20)
#define LOG_PAGE    4096u
#define EXTRA_GPA   UINT64_C(0x7000000000)
#define EXTRA_BYTES 65536u
#define STATUS_ACK  1u

static bool offered(const struct check *c, unsigned int feature)
{
	return c->report->protocol_features & bit64(feature);
}

static struct peer *protocol_peer(struct check *c, unsigned int feature)
{
	const struct peer_setup setup = { .format = VIRTQ_SPLIT,
					  .queue_size = RING_SIZE,
					  .nr_queues = 2,
					  .mem_slots = feature == F(CONFIGURE_MEM_SLOTS),
					  .inflight = feature == F(INFLIGHT_SHMFD),
					  .extra_protocol = bit64(feature) };

	if (!offered(c, feature)) {
		c->no_peer = check_end(c, CHECK_NOT_OFFERED, "%s", "");
		return NULL;
	}
	return check_peer(c, &setup);
}

static enum check_status works(struct check *c, struct peer *p, const char *when)
{
	int err = peer_works(p, FIRST_QUEUE);

	return err < 0 ? check_error(c, p, err, when) : check_holds(c);
}

static int ask_u64(struct peer *p, uint32_t request, uint64_t *ret)
{
	return vhost_link_ask(vhost_client_socket(p->vhost), request, NULL, 0, ret, sizeof(*ret),
			      ANSWER_MS);
}

static enum check_status rule_mq(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(MQ));
	uint64_t nr = 0;
	int err;

	if (!p)
		return check_no_peer(c);
	err = ask_u64(p, VHOST_USER_GET_QUEUE_NUM, &nr);
	if (err < 0)
		return check_fails(c, "GET_QUEUE_NUM: %s", strerror(-err));
	return nr < 2 ? check_fails(c, "%llu queues", (unsigned long long)nr)
		      : check_end(c, CHECK_HOLDS, "%llu queues", (unsigned long long)nr);
}

static enum check_status rule_reply_ack(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(REPLY_ACK));
	struct vhost_vring_state state = { .index = HIPRIO, .num = 1 };
	struct vhost_msg extra = {};
	int sock, err;

	if (!p)
		return check_no_peer(c);
	sock = vhost_client_socket(p->vhost);
	err = peer_tell(p, VHOST_USER_SET_VRING_ENABLE, &state, sizeof(state), -1);
	if (err)
		return check_fails(c, "SET_VRING_ENABLE: %s", err > 0 ? "refused" : strerror(-err));
	/* Without NEED_REPLY there is none. */
	err = vhost_link_send(sock, VHOST_USER_SET_VRING_ENABLE, 0, &state, sizeof(state), -1);
	if (err < 0)
		return check_fails(c, "%s", strerror(-err));
	if (vhost_link_receive(sock, &extra, QUIET_MS) != -ETIMEDOUT)
		return check_fails(c, "a message that did not ask for it was answered");
	return works(c, p, "behind it");
}

static enum check_status rule_log(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(LOG_SHMFD));
	const struct vhost_log log = { .size = LOG_BYTES };
	autoclose int fd = memfd_new("fusewire-check-log", LOG_BYTES);
	uint64_t features, page;
	enum check_status status;
	struct vhost_region region;
	uint8_t *map, byte;
	struct vhost_msg reply = {};
	int sock, err;

	if (!p)
		return check_no_peer(c);
	if (fd < 0 || !(c->report->features & bit64(VHOST_F_LOG_ALL)))
		return check_end(c, CHECK_NOT_CHECKED, "VHOST_F_LOG_ALL is not offered");
	sock = vhost_client_socket(p->vhost);
	err = vhost_link_send(sock, VHOST_USER_SET_LOG_BASE, 0, &log, sizeof(log), fd);
	if (err == 0)
		err = vhost_link_receive(sock, &reply, ANSWER_MS);
	if (err < 0)
		return check_fails(c, "SET_LOG_BASE: %s", strerror(-err));
	vhost_msg_close_fds(&reply);
	features = vhost_client_features(p->vhost) | bit64(VHOST_F_LOG_ALL);
	err = peer_tell(p, VHOST_USER_SET_FEATURES, &features, sizeof(features), -1);
	if (err)
		return check_fails(c, "SET_FEATURES: %s", err > 0 ? "refused" : strerror(-err));
	status = works(c, p, "while logging");
	if (status != CHECK_HOLDS)
		return status;
	map = mmap(NULL, LOG_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return check_end(c, CHECK_NOT_CHECKED, "no memory");
	/* The page into which the reply was written. */
	vhost_client_memory(p->vhost, &region);
	page = (region.gpa + (uintptr_t)p->slots[0].in - region.user_addr) / LOG_PAGE;
	byte = READ_ONCE(map[page / 8]);
	munmap(map, LOG_BYTES);
	return byte >> page % 8 & 1 ? check_holds(c)
				    : check_fails(c, "a page that was written is not marked");
}

static enum check_status rule_backend_req(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(BACKEND_REQ));
	int pair[2], err;

	if (!p)
		return check_no_peer(c);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return check_end(c, CHECK_NOT_CHECKED, "socketpair: %s", strerror(errno));
	err = peer_tell(p, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, pair[1]);
	close_fd(&pair[1]);
	close_fd(&pair[0]);
	if (err)
		return check_fails(c, "SET_BACKEND_REQ_FD: %s",
				   err > 0 ? "refused" : strerror(-err));
	return works(c, p, "with a channel that is closed again");
}

static enum check_status rule_config(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(CONFIG));
	uint8_t byte, space[40];
	int err;

	if (!p)
		return check_no_peer(c);
	err = vhost_client_read_config(p->vhost, 0, space, sizeof(space));
	if (err < 0)
		return check_fails(c, "40 bytes: %s", strerror(-err));
	err = vhost_client_read_config(p->vhost, 39, &byte, 1);
	if (err < 0)
		return check_fails(c, "one byte: %s", strerror(-err));
	return byte == space[39] ? works(c, p, "behind it")
				 : check_fails(c, "a byte differs when it is read alone");
}

static enum check_status rule_inflight(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(INFLIGHT_SHMFD));

	return p ? works(c, p, "with a record") : check_no_peer(c);
}

static enum check_status rule_reset(struct check *c, uint64_t feature)
{
	struct peer_setup setup = { .format = VIRTQ_SPLIT,
				    .queue_size = RING_SIZE,
				    .nr_queues = 2,
				    /* The client takes the first where both are offered. */
				    .without_protocol =
					    feature == F(STATUS) ? bit64(F(RESET_DEVICE)) : 0 };
	struct peer *p;
	int err;

	if (!offered(c, (unsigned int)feature))
		return check_end(c, CHECK_NOT_OFFERED, "%s", "");
	p = check_peer(c, &setup);
	if (!p)
		return check_no_peer(c);
	for (unsigned int i = 0; i < 3; i++) {
		err = vhost_client_reset(p->vhost);
		if (err < 0)
			return check_fails(c, "reset: %s", strerror(-err));
		err = peer_init(p, FIRST_QUEUE);
		if (err < 0)
			return check_error(c, p, err, "INIT behind it");
	}
	return works(c, p, "behind it");
}

static enum check_status rule_mem_slots(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(CONFIGURE_MEM_SLOTS));
	const struct vhost_mem_reg reg = {
		.region = { .gpa = EXTRA_GPA, .size = EXTRA_BYTES, .user_addr = EXTRA_GPA }
	};
	autoclose int fd = memfd_new("fusewire-check", EXTRA_BYTES);
	uint64_t slots = 0;
	int err;

	if (!p)
		return check_no_peer(c);
	err = ask_u64(p, VHOST_USER_GET_MAX_MEM_SLOTS, &slots);
	if (err < 0)
		return check_fails(c, "GET_MAX_MEM_SLOTS: %s", strerror(-err));
	if (slots < 3)
		return check_end(c, slots ? CHECK_HOLDS : CHECK_DOES_NOT, "%llu slots",
				 (unsigned long long)slots);
	err = peer_tell(p, VHOST_USER_ADD_MEM_REG, &reg, sizeof(reg), fd);
	if (err == 0)
		err = peer_tell(p, VHOST_USER_REM_MEM_REG, &reg, sizeof(reg), -1);
	if (err)
		return check_fails(c, "ADD_MEM_REG, REM_MEM_REG: %s",
				   err > 0 ? "refused" : strerror(-err));
	if (works(c, p, "behind it") != CHECK_HOLDS)
		return CHECK_DOES_NOT;
	return check_end(c, CHECK_HOLDS, "%llu slots", (unsigned long long)slots);
}

static enum check_status rule_status(struct check *c, uint64_t arg)
{
	struct peer *p = protocol_peer(c, F(STATUS));
	uint64_t status = STATUS_ACK | 2, got = 0;
	int err;

	if (!p)
		return check_no_peer(c);
	err = peer_tell(p, VHOST_USER_SET_STATUS, &status, sizeof(status), -1);
	if (err == 0)
		err = ask_u64(p, VHOST_USER_GET_STATUS, &got);
	if (err)
		return check_fails(c, "%s", err > 0 ? "refused" : strerror(-err));
	return got == status ? works(c, p, "behind it")
			     : check_fails(c, "%#llx was set, %#llx is told",
					   (unsigned long long)status, (unsigned long long)got);
}

/* A feature whose use needs a VMM's part, or another kind of device. */
static enum check_status rule_offered(struct check *c, uint64_t feature)
{
	struct peer *p = protocol_peer(c, (unsigned int)feature);

	if (!p)
		return check_no_peer(c);
	if (works(c, p, "with the feature") != CHECK_HOLDS)
		return CHECK_DOES_NOT;
	return check_end(c, CHECK_HOLDS, "offered; only that it disturbs nothing was tried");
}

static enum check_status rule_inband(struct check *c, uint64_t arg)
{
	if (!offered(c, F(INBAND_NOTIFICATIONS)))
		return check_end(c, CHECK_NOT_OFFERED, "%s", "");
	return check_end(c, CHECK_NOT_CHECKED, "offered, but rings here have eventfds");
}

#define FEATURE(name, what, fn, arg)                                     \
	{                                                                \
		"protocol feature", #name, what, TURN_OWN, fn, arg, NULL \
	}
#define OTHER(name) FEATURE(name, "", rule_offered, F(name))

/* clang-format off */
static const struct check_rule rules[] = {
	FEATURE(MQ, "GET_QUEUE_NUM tells at least 2 queues", rule_mq, 0),
	FEATURE(LOG_SHMFD, "pages that are written are marked in the dirty log", rule_log, 0),
	FEATURE(REPLY_ACK, "who asks for an acknowledgement gets one, nobody else", rule_reply_ack, 0),
	FEATURE(BACKEND_REQ, "takes a channel; closing it harms nothing", rule_backend_req, 0),
	FEATURE(CONFIG, "any part of the config space can be read", rule_config, 0),
	FEATURE(INFLIGHT_SHMFD, "gives a record and works with it", rule_inflight, 0),
	FEATURE(RESET_DEVICE, "a new session after each reset", rule_reset, F(RESET_DEVICE)),
	FEATURE(CONFIGURE_MEM_SLOTS, "memory slot by slot; slots come and go while rings run", rule_mem_slots, 0),
	FEATURE(STATUS, "the status field is kept", rule_status, 0),
	FEATURE(STATUS, "a new session after status 0", rule_reset, F(STATUS)),
	OTHER(RARP),
	OTHER(MTU),
	OTHER(CROSS_ENDIAN),
	OTHER(CRYPTO_SESSION),
	OTHER(PAGEFAULT),
	OTHER(BACKEND_SEND_FD),
	OTHER(HOST_NOTIFIER),
	OTHER(XEN_MMAP),
	OTHER(SHARED_OBJECT),
	OTHER(DEVICE_STATE),
	OTHER(GET_VRING_BASE_INFLIGHT),
	OTHER(SHMEM),
	FEATURE(INBAND_NOTIFICATIONS, "", rule_inband, 0),
};
/* clang-format on */

const struct check_table check_protocol_rules = { rules, array_size(rules) };
