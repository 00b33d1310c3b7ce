/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vhost-user message table, and the codec that it rules.
 *
 * Theory of operation
 * -------------------
 * A message is a header of 12 bytes and a payload. The receiver reads at most up to the end of the part it is
 * in, so it never takes bytes of the next message, and descriptors that the kernel hands out belong to this
 * message. It is called again when the socket is readable; nothing ever waits for the rest of a message.
 *
 * Descriptors may come with the header only. Whatever exceeds VHOST_FDS_MAX is closed at once, and the
 * message is refused.
 */
#include "vhost/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "vhost/session.h"

#define ROW(id, fn, smin, smax, fmin, fmax, feat, ...) \
	[VHOST_USER_##id] = { #id, fn, smin, smax, fmin, fmax, feat, __VA_ARGS__ }
/* What a front-end waits for: kind, payload bytes and descriptors of the reply. */
#define ACK			VHOST_REPLY_ACK, U64, U64, 0
#define ANSWER(rmin, rmax, fds) VHOST_REPLY_ALWAYS, rmin, rmax, fds
/* A message of a feature that we never offer: known by name, refused. */
#define NOT_OFFERED(id) [VHOST_USER_##id] = { #id, NULL, 0, 0, 0, 0, VHOST_NO_FEATURE, ACK }
#define F(name)		VHOST_USER_PROTOCOL_F_##name
#define NONE		VHOST_NO_FEATURE

enum {
	U64 = sizeof(uint64_t),
	STATE = sizeof(struct vhost_vring_state),
	ADDR = sizeof(struct vhost_vring_addr),
	REG = sizeof(struct vhost_mem_reg),
	MEM_MIN = offsetof(struct vhost_mem_table, regions),
	MEM_MAX = sizeof(struct vhost_mem_table),
	CFG_MIN = VHOST_CONFIG_HEAD,
	CFG_MAX = VHOST_CONFIG_HEAD + VHOST_CONFIG_MAX,
	INF_MIN = VHOST_INFLIGHT_MIN,
	INF_MAX = sizeof(struct vhost_inflight),
};

/* clang-format off */
static const struct vhost_msg_info requests[VHOST_USER_REQUEST_END] = {
	/*  message               handler                  payload bytes     fds   needs                   waits for */
	ROW(GET_FEATURES,          vhost_get_features,          0, 0,             0, 0, NONE,                   ANSWER(U64, U64, 0)),
	ROW(SET_FEATURES,          vhost_set_features,          U64, U64,         0, 0, NONE,                   ACK),
	ROW(SET_OWNER,             vhost_set_owner,             0, 0,             0, 0, NONE,                   ACK),
	ROW(RESET_OWNER,           vhost_reset_owner,           0, 0,             0, 0, NONE,                   ACK),
	ROW(SET_MEM_TABLE,         vhost_set_mem_table,         MEM_MIN, MEM_MAX, 0, 8, NONE,                   ACK),
	ROW(SET_LOG_BASE,          vhost_set_log_base,          sizeof(struct vhost_log),
							sizeof(struct vhost_log),         1, 1, F(LOG_SHMFD),           ANSWER(0, U64, 0)),
	ROW(SET_LOG_FD,            vhost_set_log_fd,            0, U64,           0, 1, NONE,                   ACK),
	ROW(SET_VRING_NUM,         vhost_set_vring_num,         STATE, STATE,     0, 0, NONE,                   ACK),
	ROW(SET_VRING_ADDR,        vhost_set_vring_addr,        ADDR, ADDR,       0, 0, NONE,                   ACK),
	ROW(SET_VRING_BASE,        vhost_set_vring_base,        STATE, STATE,     0, 0, NONE,                   ACK),
	ROW(GET_VRING_BASE,        vhost_get_vring_base,        STATE, STATE,     0, 0, NONE,                   ANSWER(STATE, STATE, 0)),
	ROW(SET_VRING_KICK,        vhost_set_vring_kick,        U64, U64,         0, 1, NONE,                   ACK),
	ROW(SET_VRING_CALL,        vhost_set_vring_call,        U64, U64,         0, 1, NONE,                   ACK),
	ROW(SET_VRING_ERR,         vhost_set_vring_err,         U64, U64,         0, 1, NONE,                   ACK),
	ROW(GET_PROTOCOL_FEATURES, vhost_get_protocol_features, 0, 0,             0, 0, NONE,                   ANSWER(U64, U64, 0)),
	ROW(SET_PROTOCOL_FEATURES, vhost_set_protocol_features, U64, U64,         0, 0, NONE,                   ACK),
	ROW(GET_QUEUE_NUM,         vhost_get_queue_num,         0, 0,             0, 0, F(MQ),                  ANSWER(U64, U64, 0)),
	ROW(SET_VRING_ENABLE,      vhost_set_vring_enable,      STATE, STATE,     0, 0, NONE,                   ACK),
	ROW(SET_BACKEND_REQ_FD,    vhost_set_backend_req_fd,    0, 0,             1, 1, F(BACKEND_REQ),         ACK),
	ROW(GET_CONFIG,            vhost_get_config,            CFG_MIN, CFG_MAX, 0, 0, F(CONFIG),              ANSWER(0, CFG_MAX, 0)),
	ROW(SET_CONFIG,            vhost_set_config,            CFG_MIN, CFG_MAX, 0, 0, F(CONFIG),              ACK),
	ROW(GET_INFLIGHT_FD,       vhost_get_inflight_fd,       INF_MIN, INF_MAX, 0, 0, F(INFLIGHT_SHMFD),      ANSWER(INF_MIN, INF_MAX, 1)),
	ROW(SET_INFLIGHT_FD,       vhost_set_inflight_fd,       INF_MIN, INF_MAX, 1, 1, F(INFLIGHT_SHMFD),      ACK),
	ROW(RESET_DEVICE,          vhost_reset_device,          0, 0,             0, 0, F(RESET_DEVICE),        ACK),
	ROW(VRING_KICK,            vhost_vring_kick,            STATE, STATE,     0, 0, F(INBAND_NOTIFICATIONS), ACK),
	ROW(GET_MAX_MEM_SLOTS,     vhost_get_max_mem_slots,     0, 0,             0, 0, F(CONFIGURE_MEM_SLOTS), ANSWER(U64, U64, 0)),
	ROW(ADD_MEM_REG,           vhost_add_mem_reg,           REG, REG,         1, 1, F(CONFIGURE_MEM_SLOTS), ACK),
	ROW(REM_MEM_REG,           vhost_rem_mem_reg,           REG, REG,         0, 1, F(CONFIGURE_MEM_SLOTS), ACK),
	ROW(SET_STATUS,            vhost_set_status,            U64, U64,         0, 0, F(STATUS),              ACK),
	ROW(GET_STATUS,            vhost_get_status,            0, 0,             0, 0, F(STATUS),              ANSWER(U64, U64, 0)),
	NOT_OFFERED(SEND_RARP),
	NOT_OFFERED(NET_SET_MTU),
	NOT_OFFERED(IOTLB_MSG),
	NOT_OFFERED(SET_VRING_ENDIAN),
	NOT_OFFERED(CREATE_CRYPTO_SESSION),
	NOT_OFFERED(CLOSE_CRYPTO_SESSION),
	NOT_OFFERED(POSTCOPY_ADVISE),
	NOT_OFFERED(POSTCOPY_LISTEN),
	NOT_OFFERED(POSTCOPY_END),
	NOT_OFFERED(GPU_SET_SOCKET),
	NOT_OFFERED(GET_SHARED_OBJECT),
	NOT_OFFERED(SET_DEVICE_STATE_FD),
	NOT_OFFERED(CHECK_DEVICE_STATE),
	NOT_OFFERED(GET_SHMEM_CONFIG),
};
/* clang-format on */

const struct vhost_msg_info *vhost_msg_info(uint32_t request)
{
	if (request >= array_size(requests) || !requests[request].name)
		return NULL;
	return &requests[request];
}

const char *vhost_msg_name(uint32_t request)
{
	const struct vhost_msg_info *info = vhost_msg_info(request);

	return info ? info->name : "?";
}

void vhost_msg_close_fds(struct vhost_msg *msg)
{
	for (unsigned int i = 0; i < msg->nr_fds; i++)
		close_fd(&msg->fds[i]);
	msg->nr_fds = 0;
}

void vhost_receiver_init(struct vhost_receiver *rx, enum vhost_stream stream)
{
	memset(rx, 0, sizeof(*rx));
	rx->stream = stream;
}

void vhost_receiver_fini(struct vhost_receiver *rx)
{
	vhost_msg_close_fds(&rx->msg);
	rx->got = 0;
}

/* Keep up to @cap descriptors of a received message in @fds, close the rest. Return: how many came. */
static unsigned int take_fds(struct msghdr *mh, int *fds, unsigned int cap)
{
	unsigned int nr = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++, nr++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (nr < cap)
				fds[nr] = fd;
			else
				close_fd(&fd);
		}
	}
	return nr;
}

static int receiver_refuse(struct vhost_receiver *rx, const char *why)
{
	rx->error = why;
	return -EPROTO;
}

static int receiver_check_header(struct vhost_receiver *rx)
{
	const struct vhost_header *h = &rx->msg.header;
	const struct vhost_msg_info *info = vhost_msg_info(h->request);
	const bool replies = rx->stream == VHOST_STREAM_REPLIES;

	if ((h->flags & VHOST_FLAG_VERSION_MASK) != VHOST_FLAG_VERSION)
		return receiver_refuse(rx, "protocol version is not 1");
	if (h->size > sizeof(rx->msg.payload))
		return receiver_refuse(rx, "payload too long");
	if (rx->stream == VHOST_STREAM_ANY)
		return 0;
	if (!!(h->flags & VHOST_FLAG_REPLY) != replies)
		return receiver_refuse(rx, replies ? "a request where a reply must be"
						   : "a reply where a request must be");
	if (!info)
		return receiver_refuse(rx, "unknown message");
	if (!info->handler)
		return receiver_refuse(rx, "message of a feature that is not offered");
	if (h->size < (replies ? info->reply_min : info->size_min))
		return receiver_refuse(rx, "payload too short");
	if (h->size > (replies ? info->reply_max : info->size_max))
		return receiver_refuse(rx, "payload too long");
	if (rx->msg.nr_fds < (replies ? 0 : info->fds_min))
		return receiver_refuse(rx, "file descriptors missing");
	if (rx->msg.nr_fds > (replies ? info->reply_fds_max : info->fds_max))
		return receiver_refuse(rx, "too many file descriptors");
	return 0;
}

/* Do the parts of a complete request agree with each other? Return: NULL, or what does not. */
static const char *request_error(const struct vhost_msg *msg)
{
	const uint64_t inband = bit64(F(INBAND_NOTIFICATIONS));
	const uint64_t inband_needs = bit64(F(REPLY_ACK)) | bit64(F(BACKEND_REQ));
	const union vhost_payload *p = &msg->payload;

	switch (msg->header.request) {
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		if (!(p->u64 & VHOST_VRING_NOFD) != (msg->nr_fds == 1))
			return "descriptor and no-descriptor bit do not agree";
		return NULL;
	case VHOST_USER_SET_MEM_TABLE:
		/* A payload longer than its regions is allowed: User-mode Linux always sends room for two. */
		if (p->mem.nr > VHOST_FDS_MAX || p->mem.nr != msg->nr_fds ||
		    msg->header.size < MEM_MIN + p->mem.nr * sizeof(p->mem.regions[0]))
			return "number of regions, payload and descriptors do not agree";
		return NULL;
	case VHOST_USER_SET_CONFIG:
		return p->config.size > msg->header.size - CFG_MIN ? "more than its payload" : NULL;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		/* The spec asks for the connection to be closed: there is no other way to report it. */
		if ((p->u64 & inband) && (p->u64 & inband_needs) != inband_needs)
			return "INBAND_NOTIFICATIONS without REPLY_ACK and BACKEND_REQ";
		return NULL;
	default:
		return NULL;
	}
}

static int receiver_check_whole(struct vhost_receiver *rx)
{
	const char *why = rx->stream == VHOST_STREAM_REQUESTS ? request_error(&rx->msg) : NULL;

	return why ? receiver_refuse(rx, why) : 0;
}

/* Read once into [@buf, @buf + @len). Return: bytes, 0 when none is there, negative errno. */
static int receiver_read(struct vhost_receiver *rx, int sock, void *buf, size_t len)
{
	/* One more than we take, so that one too many is seen as such and closed. */
	union {
		char buf[CMSG_SPACE(sizeof(int) * (VHOST_FDS_MAX + 1))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, len };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf) };
	bool first = rx->got == 0;
	unsigned int nr_fds;
	ssize_t n;

	do {
		n = recvmsg(sock, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	nr_fds = take_fds(&mh, rx->msg.fds, first ? VHOST_FDS_MAX : 0);
	if (first)
		rx->msg.nr_fds = min_of(nr_fds, (unsigned int)VHOST_FDS_MAX);
	if (nr_fds > VHOST_FDS_MAX || (mh.msg_flags & MSG_CTRUNC))
		return receiver_refuse(rx, "too many file descriptors");
	if (nr_fds && !first)
		return receiver_refuse(rx, "file descriptors in the middle of a message");
	return n ? (int)n : -EPIPE;
}

int vhost_receive(struct vhost_receiver *rx, int sock, struct vhost_msg *ret_msg)
{
	const size_t head = sizeof(rx->msg.header);

	for (;;) {
		bool in_head = rx->got < head;
		size_t end = in_head ? head : head + rx->msg.header.size;
		char *part = in_head ? (char *)&rx->msg.header + rx->got
				     : (char *)rx->msg.payload.bytes + (rx->got - head);
		int n;

		if (rx->got < end) {
			n = receiver_read(rx, sock, part, end - rx->got);
			if (n == -EPIPE && rx->got)
				return receiver_refuse(rx, "connection closed inside a message");
			if (n <= 0)
				return n;
			rx->got += (size_t)n;
			if (in_head && rx->got == head) {
				n = receiver_check_header(rx);
				if (n < 0)
					return n;
			}
			continue;
		}
		n = receiver_check_whole(rx);
		if (n < 0)
			return n;
		*ret_msg = rx->msg;
		memset(&rx->msg, 0, sizeof(rx->msg));
		rx->got = 0;
		return 1;
	}
}

int vhost_send(int sock, const struct vhost_msg *msg)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov[2] = {
		{ (void *)(uintptr_t)&msg->header, sizeof(msg->header) },
		{ (void *)(uintptr_t)msg->payload.bytes, msg->header.size },
	};
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	assert(msg->header.size <= sizeof(msg->payload) && msg->nr_fds <= VHOST_FDS_MAX);
	if (msg->nr_fds) {
		size_t bytes = sizeof(int) * msg->nr_fds;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(&control.align), msg->fds, bytes);
	}
	do {
		n = sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return (size_t)n == sizeof(msg->header) + msg->header.size ? 0 : -EMSGSIZE;
}
