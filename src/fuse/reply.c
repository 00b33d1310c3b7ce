/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking of replies: from bytes of a daemon that nobody trusts to what a driver may believe.
 *
 * Theory of operation: a reply is checked in the daemon's (native) byte order and view, the ledger learns of
 * lookups and handles that it brings, ids are exchanged for the driver's, and at last the bytes are turned
 * around for a driver of the other byte order. What the daemon has counted is counted here too, even when the
 * rest of the reply is wrong or nobody waits for it: it is paid back at the end of the session.
 */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/session_priv.h"
#include "fuse/swap.h"

/* The largest errno that a kernel takes from a daemon; what lies above is its own. */
#define ERROR_MAX 511

/* PASSTHROUGH needs a descriptor of the driver's own kernel; unknown bits mean nothing to us. */
#define OPEN_FLAGS_ALLOWED                                                                         \
	(FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE | FOPEN_NONSEEKABLE | FOPEN_CACHE_DIR | FOPEN_STREAM | \
	 FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES)

/* Bits of fuse_statx.mask (STATX_TYPE, STATX_SIZE). */
#define SX_TYPE 0x1u
#define SX_SIZE 0x200u

/* What a kernel says of a file whose daemon knows no POLL (DEFAULT_POLLMASK). */
#define POLL_EVENTS_READY ((uint32_t)(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM))

/* dirent_bytes(): the reply ends inside the record. */
#define DIRENT_CUT SIZE_MAX

struct reply {
	struct fuse_session *session;
	struct fuse_request *req;
	unsigned char *body;
	size_t len;
};

static bool mode_is_valid(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

static bool attr_is_valid(const struct fuse_attr *attr)
{
	return mode_is_valid(attr->mode) && attr->size <= INT64_MAX;
}

/* FUSE_ATTR_DAX without a DAX window, and bits that we do not know, are not passed on. */
static void clean_attr(struct fuse_attr *attr)
{
	attr->flags &= FUSE_ATTR_SUBMOUNT;
}

/* Is it an entry that the driver may have? A kernel makes the same checks. */
static bool entry_is_valid(const struct reply *r, const struct fuse_entry_out *entry)
{
	const uint32_t want = r->req->args.mode;

	if (!attr_is_valid(&entry->attr))
		return false;
	if (r->req->op->opcode == FUSE_LOOKUP)
		return true;
	return entry->nodeid != FUSE_ROOT_ID && (!want || (entry->attr.mode & S_IFMT) == want);
}

static int check_entry(struct reply *r, uint64_t *ret_driver_id)
{
	struct ledger *ledger = r->session->ledger;
	struct fuse_request *req = r->req;
	struct ledger_lookup what = { .epoch = req->pins.epoch, .spare = &req->pins.spare_node };
	struct fuse_entry_out entry;
	bool valid;
	int err = 0;

	*ret_driver_id = 0;
	/* Until its handle is counted, too, the node is not forgotten. */
	if (req->op->traits & FUSE_OP_OPENS)
		what.ret_node = &req->pins.node[1];
	memcpy(&entry, r->body, sizeof(entry));
	if (!entry.nodeid) {
		/* "Does not exist, and you may remember that": only for LOOKUP. */
		if (req->op->opcode != FUSE_LOOKUP)
			return -EIO;
		memset(&entry.attr, 0, sizeof(entry.attr));
		memcpy(r->body, &entry, sizeof(entry));
		return 0;
	}
	valid = entry_is_valid(r, &entry);
	what.owed = !valid;
	if (ledger && entry.nodeid != FUSE_ROOT_ID)
		err = ledger_add_lookup(ledger, &what, &entry.nodeid);
	if (!err)
		*ret_driver_id = entry.nodeid;
	if (!valid)
		return -EIO;
	if (err < 0)
		return err;
	clean_attr(&entry.attr);
	memcpy(r->body, &entry, sizeof(entry));
	return 0;
}

static int check_open(struct reply *r, size_t off, uint64_t driver_id)
{
	struct fuse_request *req = r->req;
	struct fuse_open_out out;
	int err = 0;

	memcpy(&out, r->body + off, sizeof(out));
	if (r->session->ledger)
		err = ledger_add_handle(r->session->ledger, req->pins.epoch, driver_id, &out.fh,
					req->op->traits & FUSE_OP_DIR_FH, req->args.flags,
					&req->pins.spare_handle);
	if (err < 0)
		return err;
	out.open_flags &= OPEN_FLAGS_ALLOWED;
	out.backing_id = 0;
	memcpy(r->body + off, &out, sizeof(out));
	return 0;
}

/* CREATE and TMPFILE: the file is open even if its entry cannot be used, so both are counted. */
static int check_create(struct reply *r)
{
	uint64_t driver_id;
	int err, open_err;

	err = check_entry(r, &driver_id);
	if (!driver_id)
		return err < 0 ? err : -EIO;
	open_err = check_open(r, sizeof(struct fuse_entry_out), driver_id);
	return err < 0 ? err : open_err;
}

/* The reply of the busiest opcodes: only the fields that matter are touched. */
static int check_attr(struct reply *r)
{
	unsigned char *attr = r->body + offsetof(struct fuse_attr_out, attr);
	unsigned char *flags = attr + offsetof(struct fuse_attr, flags);

	if (!mode_is_valid(fuse_get32(attr + offsetof(struct fuse_attr, mode), false)) ||
	    fuse_get64(attr + offsetof(struct fuse_attr, size), false) > INT64_MAX)
		return -EIO;
	fuse_put32(flags, fuse_get32(flags, false) & FUSE_ATTR_SUBMOUNT);
	return 0;
}

static int check_statx(struct reply *r)
{
	struct fuse_statx_out out;

	memcpy(&out, r->body, sizeof(out));
	if ((out.stat.mask & SX_SIZE) && out.stat.size > INT64_MAX)
		return -EIO;
	if ((out.stat.mask & SX_TYPE) && !mode_is_valid(out.stat.mode))
		return -EIO;
	return 0;
}

static int check_count32(struct reply *r, uint64_t max)
{
	struct fuse_write_out out;

	memcpy(&out, r->body, sizeof(out));
	if (out.size > max)
		return -EIO;
	out.padding = 0;
	memcpy(r->body, &out, sizeof(out));
	return 0;
}

static int check_lock(struct reply *r)
{
	struct fuse_lk_out out;
	uint32_t type;

	memcpy(&out, r->body, sizeof(out));
	if (fuse_arch_lock_type_back(r->session->config.arch, out.lk.type, &type) < 0)
		return -EIO;
	if (out.lk.type != F_UNLCK && (out.lk.start > out.lk.end || out.lk.end > INT64_MAX))
		return -EIO;
	out.lk.type = type;
	memcpy(r->body, &out, sizeof(out));
	return 0;
}

/*
 * A driver that takes no notifications, and is going to sleep until FUSE_NOTIFY_POLL, would sleep for ever. So where
 * nothing is ready it is told that what it waits for is, as a kernel says of files whose daemon knows no POLL: what it
 * does next waits in the daemon, or gets EAGAIN.
 */
static int check_poll(struct reply *r)
{
	const uint32_t wanted = r->req->args.size ? r->req->args.size : POLL_EVENTS_READY;
	struct fuse_poll_out out;

	memcpy(&out, r->body, sizeof(out));
	if (r->req->args.flags && !(out.revents & (wanted | POLLERR | POLLHUP)))
		out.revents |= wanted & POLL_EVENTS_READY;
	out.padding = 0;
	memcpy(r->body, &out, sizeof(out));
	return 0;
}

static int check_fixed(struct reply *r)
{
	const struct fuse_opcode_info *op = r->req->op;
	uint64_t driver_id;

	if (r->len != op->reply_bytes)
		return -EIO;
	if ((op->traits & FUSE_OP_ENTRY) && (op->traits & FUSE_OP_OPENS))
		return check_create(r);
	if (op->traits & FUSE_OP_ENTRY)
		return check_entry(r, &driver_id);
	if (op->traits & FUSE_OP_OPENS)
		return check_open(r, 0, r->req->driver_nodeid);
	if (op->traits & FUSE_OP_ATTR)
		return check_attr(r);
	switch (op->opcode) {
	case FUSE_STATX:
		return check_statx(r);
	case FUSE_WRITE:
		return check_count32(r, r->req->args.size);
	case FUSE_COPY_FILE_RANGE:
		return check_count32(r, r->req->args.len);
	case FUSE_COPY_FILE_RANGE_64:
		return fuse_get64(r->body, false) <= r->req->args.len ? 0 : -EIO;
	case FUSE_LSEEK:
		return fuse_get64(r->body, false) <= INT64_MAX ? 0 : -EIO;
	case FUSE_GETLK:
		return check_lock(r);
	case FUSE_POLL:
		return check_poll(r);
	default:
		return 0;
	}
}

static int check_link(struct reply *r)
{
	return r->len <= r->req->reply_max && (!r->len || !memchr(r->body, 0, r->len)) ? 0 : -EIO;
}

/* Names, each with its NUL and not empty. */
static int check_name_list(const unsigned char *p, size_t len)
{
	while (len) {
		const unsigned char *nul = memchr(p, 0, len);

		if (!nul || nul == p)
			return -EIO;
		len -= (size_t)(nul - p) + 1;
		p = nul + 1;
	}
	return 0;
}

static int check_xattr(struct reply *r)
{
	if (!r->req->args.size) {
		struct fuse_getxattr_out out;

		if (r->len != sizeof(out))
			return -EIO;
		memcpy(&out, r->body, sizeof(out));
		out.size = min_of(out.size, (uint32_t)FUSE_XATTR_BYTES_MAX);
		out.padding = 0;
		memcpy(r->body, &out, sizeof(out));
		return 0;
	}
	if (r->len > r->req->args.size)
		return -EIO;
	return r->req->op->opcode == FUSE_LISTXATTR ? check_name_list(r->body, r->len) : 0;
}

static int check_ioctl(struct reply *r)
{
	struct fuse_ioctl_out out;

	if (r->len < sizeof(out) || r->len > r->req->reply_max)
		return -EIO;
	memcpy(&out, r->body, sizeof(out));
	/* Retrying with other memory is for unrestricted ioctls, which no driver of ours sends. */
	if (out.flags & FUSE_IOCTL_RETRY)
		return -EIO;
	out.in_iovs = 0;
	out.out_iovs = 0;
	memcpy(r->body, &out, sizeof(out));
	return 0;
}

/*
 * Bytes of the record at @off; 0 when it is malformed; DIRENT_CUT when the reply ends before it does. @head: bytes before
 * its struct fuse_dirent.
 *
 * A last record that is cut is no error: libfuse 2 fills the buffer that it was asked for to the last byte, and a
 * kernel takes the whole records and asks again from there.
 */
static size_t dirent_bytes(const struct reply *r, size_t off, size_t head)
{
	const size_t left = r->len - off;
	uint32_t namelen;
	size_t bytes;
	const unsigned char *name;

	if (left < head + FUSE_NAME_OFFSET)
		return DIRENT_CUT;
	namelen = fuse_get32(r->body + off + head + offsetof(struct fuse_dirent, namelen), false);
	if (!namelen || namelen > FUSE_NAME_BYTES_MAX)
		return 0;
	bytes = FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + namelen);
	if (bytes > left)
		return DIRENT_CUT;
	name = r->body + off + head + FUSE_NAME_OFFSET;
	if (memchr(name, '/', namelen) || memchr(name, 0, namelen))
		return 0;
	return bytes;
}

static bool dirent_is_dots(const unsigned char *dirent)
{
	const uint32_t len = fuse_get32(dirent + offsetof(struct fuse_dirent, namelen), false);
	const unsigned char *name = dirent + FUSE_NAME_OFFSET;

	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

/*
 * One entry of READDIRPLUS. @owed: the reply is bad, only count.
 *
 * An entry that no driver can have leaves its name, as it does with a kernel: else one such file would hide all others of
 * its directory.
 */
static int check_plus(struct reply *r, unsigned char *rec, bool owed)
{
	struct fuse_entry_out entry;
	struct fuse_request *req = r->req;
	bool valid;
	int err = 0;

	memcpy(&entry, rec, sizeof(entry));
	/* No lookup is counted for dots, nor where the daemon gives a plain entry. */
	if (!entry.nodeid || dirent_is_dots(rec + sizeof(entry)))
		return 0;
	valid = entry.nodeid != FUSE_ROOT_ID && attr_is_valid(&entry.attr);
	if (r->session->ledger && entry.nodeid != FUSE_ROOT_ID) {
		const struct ledger_lookup what = { .epoch = req->pins.epoch,
						    .owed = owed || !valid };

		err = ledger_add_lookup(r->session->ledger, &what, &entry.nodeid);
		if (err == -EIO)
			return err;
	}
	/* Nor is there memory to remember it: the driver looks it up if it cares. */
	if (!valid || err < 0)
		memset(&entry, 0, sizeof(entry));
	else
		clean_attr(&entry.attr);
	memcpy(rec, &entry, sizeof(entry));
	return 0;
}

/*
 * Two turns: the records are measured first, so that a reply that is malformed at its end gives the driver
 * nothing; what the daemon counted in the entries before is owed to it.
 */
static int check_dirents(struct reply *r, bool plus)
{
	const size_t head = plus ? sizeof(struct fuse_entry_out) : 0;
	size_t off = 0, good, bytes;
	int err = 0;

	if (r->len > r->req->reply_max)
		return -EIO;
	while (off < r->len) {
		bytes = dirent_bytes(r, off, head);
		if (!bytes)
			err = -EIO;
		if (!bytes || bytes == DIRENT_CUT)
			break;
		off += bytes;
	}
	good = off;
	for (off = 0; plus && off < good; off += bytes) {
		int ret;

		bytes = dirent_bytes(r, off, head);
		ret = check_plus(r, r->body + off, err < 0);
		if (ret < 0)
			err = ret;
	}
	return err;
}

static int check_body(struct reply *r)
{
	if (!r->body && r->len && r->req->op->reply != FUSE_REPLY_DATA)
		return -EIO;
	switch (r->req->op->reply) {
	case FUSE_REPLY_EMPTY:
		return r->len ? -EIO : 0;
	case FUSE_REPLY_FIXED:
		return check_fixed(r);
	case FUSE_REPLY_DATA:
		return r->len <= r->req->reply_max ? 0 : -EIO;
	case FUSE_REPLY_LINK:
		return check_link(r);
	case FUSE_REPLY_STRUCT_OR_DATA:
		return check_xattr(r);
	case FUSE_REPLY_STRUCT_THEN_DATA:
		return check_ioctl(r);
	case FUSE_REPLY_DIRENTS:
		return check_dirents(r, false);
	case FUSE_REPLY_DIRENTPLUS:
		return check_dirents(r, true);
	default:
		/* FUSE_REPLY_INIT: the service never sees INIT. */
		return -EIO;
	}
}

static void swap_dirents(struct reply *r, size_t head)
{
	const char *layout = r->req->op->reply_layout;
	size_t off = 0, bytes;

	while (r->len - off >= head + FUSE_NAME_OFFSET) {
		bytes = dirent_bytes(r, off, head);
		/* The head of a record that is cut, too: the driver looks at it to find that out. */
		fuse_swap_fields(r->body + off, head + FUSE_NAME_OFFSET, layout);
		if (bytes == DIRENT_CUT)
			break;
		off += bytes;
	}
}

static void swap_body(struct reply *r)
{
	switch (r->req->op->reply) {
	case FUSE_REPLY_FIXED:
	case FUSE_REPLY_STRUCT_THEN_DATA:
		fuse_swap_fields(r->body, r->req->op->reply_bytes, r->req->op->reply_layout);
		break;
	case FUSE_REPLY_STRUCT_OR_DATA:
		if (!r->req->args.size)
			fuse_swap_fields(r->body, r->len, r->req->op->reply_layout);
		break;
	case FUSE_REPLY_DIRENTS:
		swap_dirents(r, 0);
		break;
	case FUSE_REPLY_DIRENTPLUS:
		swap_dirents(r, sizeof(struct fuse_entry_out));
		break;
	default:
		break;
	}
}

static int finish_error(struct fuse_session *session, const struct fuse_request *req, int error)
{
	const bool dir = req->op->opcode == FUSE_OPENDIR;
	uint64_t without;

	if (error > 0 || error < -ERROR_MAX)
		return -EIO;
	if (error != -ENOSYS || (req->op->opcode != FUSE_OPEN && !dir))
		return error;
	/* The daemon needs no handles, as INIT told it that it may do without. */
	without = dir ? FUSE_NO_OPENDIR_SUPPORT : FUSE_NO_OPEN_SUPPORT;
	if (!(READ_ONCE(session->daemon_flags) & without) && !(fuse_init_offered() & without))
		return error;
	if (!session->ledger || req->pins.epoch == ledger_epoch(session->ledger)) {
		WRITE_ONCE(session->no_open[dir], true);
		if (session->config.record)
			__atomic_fetch_or(&session->config.record->no_open, dir ? 2u : 1u,
					  __ATOMIC_RELAXED);
	}
	return READ_ONCE(session->driver_flags) & without ? error : 0;
}

static void note_lock(struct fuse_session *session, struct fuse_request *req)
{
	if (!req->pins.handle[0])
		return;
	if (req->args.lock)
		ledger_note_lock(session->ledger, req->pins.handle[0],
				 (enum ledger_lock)(req->args.lock - 1), req->args.lock_owner);
	else if (req->op->opcode == FUSE_FLUSH)
		ledger_note_lock(session->ledger, req->pins.handle[0], LEDGER_POSIX_UNLOCKED,
				 req->args.lock_owner);
}

int fuse_session_finish(struct fuse_session *session, struct fuse_request *req, int error,
			void *body, size_t len, bool delivered)
{
	struct reply r = { .session = session, .req = req, .body = body, .len = len };
	int err;

	/* Nobody waits, but the daemon has counted all the same: there is no difference here. */
	(void)delivered;
	if (req->op->reply == FUSE_REPLY_NONE) {
		err = 0;
	} else if (error) {
		err = finish_error(session, req, error);
	} else {
		err = check_body(&r);
		if (!err)
			note_lock(session, req);
		if (!err && unlikely(req->swapped) && len)
			swap_body(&r);
	}
	if (session->ledger)
		fuse_request_unpin(req);
	return err;
}
