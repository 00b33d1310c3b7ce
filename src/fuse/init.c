/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INIT: the one that we send to a daemon, and the driver's, which is answered from the daemon's reply.
 *
 * The daemon hears INIT once, before any driver is there; so it is offered what a Linux kernel of today would
 * offer, and the driver that comes later may know less. A flag may therefore be offered only if a daemon that
 * takes it still works with a driver that never heard of it. Decisions:
 *
 * offered, a driver without it is served all the same
 *   ASYNC_READ, BIG_WRITES, ASYNC_DIO, PARALLEL_DIROPS   the driver does less at a time
 *   POSIX_LOCKS, FLOCK_LOCKS                             the driver locks on its own
 *   ATOMIC_O_TRUNC        the driver sends SETATTR of the size after OPEN
 *   EXPORT_SUPPORT, NO_EXPORT_SUPPORT                    concern LOOKUP of dots only, see decode.c
 *   DONT_MASK             the driver masks the mode itself; masking twice is the same as once
 *   IOCTL_DIR, DO_READDIRPLUS, READDIRPLUS_AUTO          the driver does not send it
 *   AUTO_INVAL_DATA, CACHE_SYMLINKS                      the driver's own cache
 *   WRITEBACK_CACHE       a daemon opens files for reading too and drops O_APPEND; the driver without it sends
 *                         the offsets of appends from its idea of the size: right while one driver writes
 *   HANDLE_KILLPRIV, HANDLE_KILLPRIV_V2                  the driver clears the bits by SETATTR
 *   POSIX_ACL             the driver checks modes only, as it would with any file system
 *   SUBMOUNTS, DIRECT_IO_ALLOW_MMAP                      hints for the driver
 *   SECURITY_CTX, CREATE_SUPP_GROUP                      the driver sends no extension
 *   ALLOW_IDMAP           the driver's uids are always valid
 * offered, and bridged
 *   NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT                  reply.c makes a handle 0 of ENOSYS
 *   MAX_PAGES             the driver without it sends 32 pages at most by itself
 *   SETXATTR_EXT          decode.c widens the short form
 *   INIT_EXT              each side has its own INIT
 *   EXPLICIT_INVAL_DATA   a driver that takes no notifications gets AUTO_INVAL_DATA instead: with the other it would keep
 *                         stale data for ever
 *   HAS_EXPIRE_ONLY       about notifications: a driver that takes none is not told of it
 * not offered
 *   SPLICE_*, OVER_IO_URING, PASSTHROUGH, ABORT_ERROR    are about /dev/fuse, as is all that came with 7.46
 *   HAS_RESEND            what a driver would send again is with the device, not in a queue of its own
 *   MAP_ALIGNMENT, HAS_INODE_DAX                         need a DAX window
 *   REQUEST_TIMEOUT       the driver's own business
 *   FILE_OPS              never used
 */
#include <string.h>

#include "fuse/session_priv.h"
#include "fuse/swap.h"

#define OFFERED                                                                                   \
	(FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |         \
	 FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_FLOCK_LOCKS | FUSE_HAS_IOCTL_DIR |               \
	 FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |    \
	 FUSE_WRITEBACK_CACHE | FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS |                     \
	 FUSE_HANDLE_KILLPRIV | FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |           \
	 FUSE_NO_OPENDIR_SUPPORT | FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | \
	 FUSE_INIT_EXT | FUSE_SECURITY_CTX | FUSE_CREATE_SUPP_GROUP | FUSE_DIRECT_IO_ALLOW_MMAP | \
	 FUSE_NO_EXPORT_SUPPORT | FUSE_ALLOW_IDMAP | FUSE_EXPLICIT_INVAL_DATA |                   \
	 FUSE_HAS_EXPIRE_ONLY)
/* Of use to drivers that take notifications. */
#define NEEDS_NOTIFY (FUSE_EXPLICIT_INVAL_DATA | FUSE_HAS_EXPIRE_ONLY)

/* Read-ahead that we ask for; the smallest of daemon's, driver's and this is used. */
#define READAHEAD_BYTES FUSE_READ_MAX
/* Asynchronous requests of a driver (read-ahead, direct I/O) where the daemon has no opinion. */
#define BACKGROUND_DEFAULT 64
#define CONGESTION_DEFAULT 48
#define TIME_GRAN_MAX	   1000000000u

uint64_t fuse_init_offered(void)
{
	return OFFERED;
}

size_t fuse_init_build(void *buf, uint64_t unique)
{
	const struct fuse_in_header hdr = {
		.len = sizeof(struct fuse_in_header) + sizeof(struct fuse_init_in),
		.opcode = FUSE_INIT,
		.unique = unique,
	};
	const struct fuse_init_in arg = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = READAHEAD_BYTES,
		.flags = (uint32_t)OFFERED,
		.flags2 = (uint32_t)(OFFERED >> 32),
	};

	memcpy(buf, &hdr, sizeof(hdr));
	memcpy((char *)buf + sizeof(hdr), &arg, sizeof(arg));
	return sizeof(hdr) + sizeof(arg);
}

static uint32_t clamp_u32(uint32_t v, uint32_t low, uint32_t high)
{
	if (v < low)
		return low;
	return v > high ? high : v;
}

static uint64_t init_out_flags(const struct fuse_init_out *out)
{
	uint64_t flags = out->flags;

	if (flags & FUSE_INIT_EXT)
		flags |= (uint64_t)out->flags2 << 32;
	return flags;
}

/* Bring the numbers of a reply into the limits that we, and any driver, can live with. */
static void clean_init_out(struct fuse_init_out *out)
{
	const uint64_t flags = init_out_flags(out) & OFFERED;

	out->flags = (uint32_t)flags;
	out->flags2 = (uint32_t)(flags >> 32);
	out->minor = min_of(out->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION);
	out->max_write = clamp_u32(out->max_write, FUSE_WRITE_MIN, FUSE_WRITE_MAX);
	if (out->minor < 13) {
		out->max_background = 0;
		out->congestion_threshold = 0;
	}
	if (!out->max_background) {
		out->max_background = BACKGROUND_DEFAULT;
		out->congestion_threshold = CONGESTION_DEFAULT;
	}
	if (!out->congestion_threshold || out->congestion_threshold > out->max_background)
		out->congestion_threshold = (uint16_t)((out->max_background * 3u + 3) / 4);
	if (!out->time_gran || out->time_gran > TIME_GRAN_MAX)
		out->time_gran = 1;
	/* A daemon that did not take MAX_PAGES has seen no request above 32 pages, and shall not. */
	if (!(flags & FUSE_MAX_PAGES))
		out->max_pages = FUSE_PAGES_DEFAULT;
	out->max_pages = (uint16_t)clamp_u32(out->max_pages, 1, FUSE_PAGES_MAX);
	out->map_alignment = 0;
	out->max_stack_depth = 0;
	out->request_timeout = 0;
	memset(out->unused, 0, sizeof(out->unused));
}

int fuse_init_accept(const void *msg, size_t len, uint64_t unique, struct fuse_init_out *ret_out,
		     const char **ret_why)
{
	struct fuse_out_header hdr;
	struct fuse_init_out out = { 0 };
	const size_t body = len - sizeof(hdr);
	size_t known;

	*ret_why = "the reply to INIT is malformed";
	if (len < sizeof(hdr))
		return -EPROTO;
	memcpy(&hdr, msg, sizeof(hdr));
	if (hdr.len != len || hdr.unique != unique || hdr.error > 0 || hdr.error < -511)
		return -EPROTO;
	if (hdr.error) {
		*ret_why = "the file system refused INIT";
		return hdr.error;
	}
	if (body < FUSE_COMPAT_INIT_OUT_SIZE || body > sizeof(out))
		return -EPROTO;
	memcpy(&out, (const char *)msg + sizeof(hdr), body);
	if (out.major != FUSE_KERNEL_VERSION) {
		*ret_why = "the file system speaks another major version of FUSE than 7";
		return -EPROTO;
	}
	if (out.minor < FUSE_MINOR_MIN) {
		*ret_why = "the file system speaks FUSE older than 7.12";
		return -EPROTO;
	}
	/* Fields that came with 7.23 mean nothing in an older daemon's reply, however long it is. */
	known = out.minor < 23 ? FUSE_COMPAT_22_INIT_OUT_SIZE : sizeof(out);
	if (body < FUSE_COMPAT_22_INIT_OUT_SIZE)
		return -EPROTO;
	memset((char *)&out + known, 0, sizeof(out) - known);
	clean_init_out(&out);
	*ret_out = out;
	*ret_why = NULL;
	return 0;
}

/* A daemon counts this machine's pages, a driver its own. */
static uint32_t count_driver_pages(const struct fuse_session *session,
				   const struct fuse_init_out *daemon)
{
	const uint64_t bytes = (uint64_t)daemon->max_pages * fuse_arch_page_bytes(NULL);

	return clamp_u32((uint32_t)min_of(bytes, (uint64_t)FUSE_READ_MAX) /
				 session->config.page_bytes,
			 1, FUSE_PAGES_MAX);
}

static void begin_session(struct fuse_session *session, bool swapped, uint32_t minor,
			  uint64_t driver_flags, const struct fuse_init_out *daemon)
{
	session->daemon_minor = daemon->minor;
	session->notify = session->notify_allowed;
	/* A late reply of the session before may look at these. */
	WRITE_ONCE(session->daemon_flags, init_out_flags(daemon));
	WRITE_ONCE(session->driver_flags, driver_flags);
	WRITE_ONCE(session->no_open[0], false);
	WRITE_ONCE(session->no_open[1], false);
	session->minor = min_of(minor, daemon->minor);
	session->flags = session->daemon_flags & driver_flags & OFFERED;
	if (!session->notify) {
		if (session->daemon_flags & FUSE_EXPLICIT_INVAL_DATA)
			session->flags |= driver_flags & FUSE_AUTO_INVAL_DATA;
		session->flags &= ~NEEDS_NOTIFY;
	}
	/* These follow the driver alone: its INIT is not the one that the daemon answered, nor are its pages the daemon's. */
	session->flags &= ~FUSE_INIT_EXT;
	session->flags |= driver_flags & FUSE_INIT_EXT;
	session->driver_pages = count_driver_pages(session, daemon);
	if (session->driver_pages < FUSE_PAGES_DEFAULT)
		session->flags |= driver_flags & FUSE_MAX_PAGES;
	if (!(session->flags & FUSE_MAX_PAGES))
		session->driver_pages = FUSE_PAGES_DEFAULT;
	session->max_write = clamp_u32(daemon->max_write, FUSE_WRITE_MIN, FUSE_WRITE_MAX);
	session->read_max = session->driver_pages * FUSE_PAGE_BYTES_MAX;
	session->swapped = swapped;
	session->end_phase = FUSE_END_IDLE;
	session->active = true;
}

static void write_record(struct fuse_session_record *record, bool swapped, bool notify,
			 uint32_t minor, uint64_t driver_flags)
{
	if (!record)
		return;
	WRITE_ONCE(record->swapped, swapped);
	WRITE_ONCE(record->minor, minor);
	WRITE_ONCE(record->driver_flags, driver_flags);
	WRITE_ONCE(record->no_open, 0);
	WRITE_ONCE(record->notify, notify);
	/* Last: who dies before has begun nothing. */
	__atomic_store_n(&record->active, true, __ATOMIC_RELEASE);
}

int fuse_session_resume(struct fuse_session *session, const struct fuse_init_out *daemon,
			uint32_t generation)
{
	const struct fuse_session_record *shared = session->config.record;
	struct fuse_session_record record;

	if (!shared || !__atomic_load_n(&shared->active, __ATOMIC_ACQUIRE))
		return -ENOENT;
	record.swapped = READ_ONCE(shared->swapped);
	record.minor = READ_ONCE(shared->minor);
	record.driver_flags = READ_ONCE(shared->driver_flags);
	record.no_open = READ_ONCE(shared->no_open);
	record.notify = READ_ONCE(shared->notify);
	if (record.swapped > 1 || record.notify > 1 || record.minor < FUSE_MINOR_MIN)
		return -EINVAL;
	session->notify_allowed = record.notify;
	begin_session(session, record.swapped, record.minor, record.driver_flags, daemon);
	session->no_open[0] = record.no_open & 1;
	session->no_open[1] = record.no_open & 2;
	session->last_retrieve = (uint64_t)generation << FUSE_RETRIEVE_GENERATION_SHIFT;
	if (session->ledger)
		ledger_succeed(session->ledger, generation);
	return 0;
}

static void make_reply(const struct fuse_session *session, const struct fuse_init_in *arg,
		       const struct fuse_init_out *daemon, struct fuse_init_out *out)
{
	*out = *daemon;
	out->major = FUSE_KERNEL_VERSION;
	out->minor = session->minor;
	/* A buffered read must not be cut short: see FUSE_READ_MAX. */
	out->max_readahead = clamp_u32(arg->max_readahead, 0,
				       clamp_u32(daemon->max_readahead, 0, FUSE_READ_MAX));
	out->flags = (uint32_t)session->flags;
	out->flags2 = session->flags & FUSE_INIT_EXT ? (uint32_t)(session->flags >> 32) : 0;
	out->max_write = session->max_write;
	out->max_pages = session->flags & FUSE_MAX_PAGES ? (uint16_t)session->driver_pages : 0;
}

int fuse_session_init(struct fuse_session *session, const struct fuse_request *req, const void *msg,
		      const struct fuse_init_out *daemon, struct fuse_init_out *ret_reply,
		      size_t *ret_len)
{
	struct fuse_init_in arg;
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
				     .minor = FUSE_KERNEL_MINOR_VERSION };
	uint64_t flags;
	size_t len;

	memcpy(&arg, (const char *)msg + FUSE_HDR_BYTES, sizeof(arg));
	if (arg.major < FUSE_KERNEL_VERSION)
		return -EPROTO;
	if (arg.major == FUSE_KERNEL_VERSION && arg.minor < FUSE_MINOR_MIN)
		return -EPROTO;
	len = arg.major == FUSE_KERNEL_VERSION && arg.minor < 23 ? FUSE_COMPAT_22_INIT_OUT_SIZE
								 : sizeof(out);
	if (len > req->reply_max)
		return -EINVAL;
	if (arg.major == FUSE_KERNEL_VERSION) {
		flags = arg.flags;
		if (flags & FUSE_INIT_EXT)
			flags |= (uint64_t)arg.flags2 << 32;
		begin_session(session, req->swapped, arg.minor, flags, daemon);
		write_record(session->config.record, req->swapped, session->notify, arg.minor,
			     flags);
		make_reply(session, &arg, daemon, &out);
	}
	if (req->swapped)
		fuse_swap_fields(&out, sizeof(out), req->op->reply_layout);
	*ret_reply = out;
	*ret_len = len;
	return 0;
}
