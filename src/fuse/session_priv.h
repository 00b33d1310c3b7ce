/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the session share; for src/fuse only.
 */
#ifndef FUSEWIRE_FUSE_SESSION_PRIV_H
#define FUSEWIRE_FUSE_SESSION_PRIV_H

#include <pthread.h>

#include "fuse/ledger.h"
#include "fuse/session.h"

#define FUSE_HDR_BYTES sizeof(struct fuse_in_header)
#define FUSE_OUT_BYTES sizeof(struct fuse_out_header)

/**
 * FUSE_NAME_BYTES_MAX - bytes of a file's name, without its NUL: what the newest kernel lets pass (PATH_MAX - 1).
 *
 * Not NAME_MAX: a kernel does not know the file system's own limit (older ones pass 1024), and some have none (s3fs).
 */
#define FUSE_NAME_BYTES_MAX 4095
/** FUSE_XATTR_NAME_MAX - bytes of an extended attribute's name, without its NUL (XATTR_NAME_MAX). */
#define FUSE_XATTR_NAME_MAX 255
/** FUSE_TARGET_BYTES_MAX - bytes of a symbolic link's target, without its NUL (PATH_MAX - 1). */
#define FUSE_TARGET_BYTES_MAX 4095
/** FUSE_XATTR_BYTES_MAX - bytes of an extended attribute, or of the list of names (XATTR_SIZE_MAX). */
#define FUSE_XATTR_BYTES_MAX 65536
/** FUSE_IOCTL_BYTES_MAX - bytes of ioctl data per direction; fs-verity's signature needs 16 KiB and a bit. */
#define FUSE_IOCTL_BYTES_MAX 65536
/** FUSE_GROUPS_MAX - groups in one extension (NGROUPS_MAX; the whole is bounded by FUSE_ARGS_MAX before). */
#define FUSE_GROUPS_MAX 65536
/** FUSE_WRITE_MAX - largest WRITE that we agree to. */
#define FUSE_WRITE_MAX (1u << 20)
/**
 * FUSE_READ_MAX - most that a daemon is asked for at once.
 *
 * A driver is told how many of its pages that is. One whose pages are larger than we were told (no field says) may ask for more: it
 * gets a short reply, which direct I/O and READDIR allow. Buffered reads stay below: max_readahead is no larger. Where an
 * administrator has raised that in the guest they fail, rather than end early, and the guest reads page by page.
 */
#define FUSE_READ_MAX (1u << 20)
/** FUSE_WRITE_MIN - what every daemon must take. */
#define FUSE_WRITE_MIN 4096u
/** FUSE_PAGES_DEFAULT - pages per request without FUSE_MAX_PAGES. */
#define FUSE_PAGES_DEFAULT 32u
/** FUSE_PAGES_MAX - pages per request that we agree to. */
#define FUSE_PAGES_MAX 256u
/** FUSE_RETRIEVES_MAX - questions of a daemon for cached pages that may be open at a time. */
#define FUSE_RETRIEVES_MAX 64
/** FUSE_MINOR_MIN - oldest protocol minor that we speak, on both sides. */
#define FUSE_MINOR_MIN 12

/** enum fuse_end_phase - how far the pay-back is. */
enum fuse_end_phase {
	FUSE_END_IDLE,
	FUSE_END_LOCKS,
	FUSE_END_HANDLES,
	FUSE_END_FORGETS,
};

/** FUSE_RETRIEVE_GENERATION_SHIFT - uniques of a later process's RETRIEVEs differ above this bit. */
#define FUSE_RETRIEVE_GENERATION_SHIFT 44

/**
 * struct fuse_open_retrieve - a RETRIEVE that the driver has not answered.
 * @unique: towards the driver; of no other RETRIEVE that it may still answer, whichever daemon asked
 * @what: as the daemon sent it
 */
struct fuse_open_retrieve {
	uint64_t unique;
	struct fuse_notify_retrieve_out what;
};

/**
 * struct fuse_session - see session.h.
 * @config: fixed
 * @ledger: NULL without use_ledger
 * @active: INIT was answered
 * @swapped: the driver's byte order is not ours
 * @minor: protocol minor towards the driver: the smaller of both
 * @daemon_minor: what the daemon speaks
 * @flags: INIT flags that both sides agreed to
 * @driver_flags: INIT flags that the driver offered
 * @daemon_flags: INIT flags that the daemon took
 * @max_write: bytes of a WRITE
 * @read_max: bytes that a driver may ask for in READ or READDIR, whatever its pages have
 * @driver_pages: that it was told a request may have
 * @told_page_size: people were told that its pages are larger than @config says
 * @no_open: the daemon answered ENOSYS to OPEN ([0]) or OPENDIR ([1]): fh 0 needs no handle
 * @end_phase: of fuse_session_end_next()
 * @notify_allowed: the next session's @notify
 * @notify: the driver takes notifications
 * @retrieve_lock: of the next three
 * @retrieves: RETRIEVEs that the driver has not answered
 * @nr_retrieves: number of them
 * @last_retrieve: unique of the last one towards the driver
 *
 * All but @no_open, the open RETRIEVEs and the ledger change only while nothing is decoded.
 */
struct fuse_session {
	struct fuse_session_config config;
	struct ledger *ledger;
	bool active;
	bool swapped;
	uint32_t minor;
	uint32_t daemon_minor;
	uint64_t flags;
	uint64_t driver_flags;
	uint64_t daemon_flags;
	uint32_t max_write;
	uint32_t read_max;
	uint32_t driver_pages;
	bool told_page_size;
	bool no_open[2];
	enum fuse_end_phase end_phase;
	bool notify_allowed;
	bool notify;
	pthread_mutex_t retrieve_lock;
	struct fuse_open_retrieve retrieves[FUSE_RETRIEVES_MAX];
	unsigned int nr_retrieves;
	uint64_t last_retrieve;
};

/** fuse_request_unpin() - drop pins and what was kept ready. */
void fuse_request_unpin(struct fuse_request *req);

/**
 * fuse_retrieve_answer() - the driver answers a RETRIEVE: it is open no more.
 * @unique: of the NOTIFY_REPLY
 * @bytes: of its data
 * @ret_what: as the daemon asked
 *
 * Return: 0; -ENODATA: nobody asked; -EINVAL: more than was asked for.
 */
int must_check fuse_retrieve_answer(struct fuse_session *session, uint64_t unique, uint32_t bytes,
				    struct fuse_notify_retrieve_out *ret_what);

/** fuse_init_offered() - INIT flags that fuse_init_build() offers to a daemon. */
uint64_t fuse_init_offered(void);

#endif
