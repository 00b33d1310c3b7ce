/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the check share.
 */
#ifndef FUSEWIRE_CHECK_CHECK_IMPL_H
#define FUSEWIRE_CHECK_CHECK_IMPL_H

#include "check/check.h"
#include "check/peer.h"

/* How long a device may take for a request, and the back-end for a message. */
#define ANSWER_MS 5000
/* How long nothing must happen until it is taken for certain that nothing does. */
#define QUIET_MS 60

/* When a rule is tried. */
enum check_turn {
	TURN_SHARED, /* on the connection that all of these share: first */
	TURN_SHARED_LAST, /* the same, for what some do not survive */
	TURN_OWN, /* on connections of its own */
	TURN_LAST, /* sums up what all others saw */
	TURN_HOSTILE,
	TURN_END,
};

struct check;

struct check_rule {
	const char *area;
	const char *clause;
	const char *rule;
	enum check_turn turn;
	enum check_status (*run)(struct check *c, uint64_t arg);
	uint64_t arg;
	const void *data; /* what is wrong with the input, for the rules of hostile_*.c */
};

struct check_table {
	const struct check_rule *rules;
	unsigned int nr;
};

extern const struct check_table check_ring_rules;
extern const struct check_table check_notify_rules;
extern const struct check_table check_device_rules;
extern const struct check_table check_vhost_rules;
extern const struct check_table check_protocol_rules;
extern const struct check_table check_op_rules;
extern const struct check_table check_hostile_split;
extern const struct check_table check_hostile_packed;
extern const struct check_table check_hostile_fuse;
extern const struct check_table check_hostile_vhost;

/* The file system behind the device, as far as the opcode rules need it. Node ids are those of one session. */
struct check_fs {
	struct peer *peer; /* whose session it is; NULL: none */
	unsigned int peer_serial;
	uint64_t next_name;
	bool read_only; /* no directory of our own could be made; why_read_only says why */
	int why_read_only;
	bool scratch_made;
	bool closed; /* nothing is made any more */
	char scratch_name[48];
	uint64_t scratch;
	uint64_t file; /* a file that may be written; 0: none */
	uint64_t file_fh;
	bool file_borrowed; /* it is config.file: put back as it was */
	uint64_t reader, reader_fh; /* some regular file, opened for reading; 0: none */
	uint64_t reader_size;
	char some_name[256]; /* an entry of the root; "" is none */
};

struct check {
	const struct check_config *config;
	struct check_report *report;
	struct peer *shared; /* the connection of TURN_SHARED; NULL: none now */
	struct peer *own; /* of the rule that runs; closed behind it */
	struct peer_setup shared_setup;
	unsigned int peer_serial;
	struct check_fs fs;
	bool lost; /* nobody answers any more */
	char lost_how[CHECK_DETAIL_BYTES / 2];
	unsigned int nr_silent; /* connections in a row that were not answered on */
	unsigned int nr_restarts;
	bool ends_with_front_end; /* it had to be started again before anything hostile was sent */
	const struct check_rule *rule; /* the one that runs */
	char *detail; /* of its row */
	enum check_status no_peer; /* why check_peer() gave none */
	struct peer_seen seen;
};

/* End a rule: @fmt goes into the detail of its row. */
enum check_status printf_like(3, 4)
	check_end(struct check *c, enum check_status status, const char *fmt, ...);
enum check_status printf_like(2, 3) check_fails(struct check *c, const char *fmt, ...);
enum check_status check_holds(struct check *c);

/*
 * A connection as @setup says, with a session unless it says otherwise. check_shared() keeps it from rule to rule;
 * what check_peer() gives ends with the rule, or when the next one is asked for. Return: NULL, and check_no_peer() is the
 * rule's result.
 */
struct peer *check_peer(struct check *c, const struct peer_setup *setup);
struct peer *check_shared(struct check *c);
enum check_status check_no_peer(struct check *c);
/* The shared connection was used up, or disturbed: the next rule gets a new one. */
void check_drop_shared(struct check *c);
void check_drop_own(struct check *c);

/* A front-end's socket without anything negotiated; -1, and check_no_peer() is the result. The caller closes it. */
int check_link(struct check *c);

/* The result of a rule whose request ended with @err: from peer_ask(), or an error that the file system answered. */
enum check_status check_error(struct check *c, struct peer *p, int err, const char *what);

/* fs.c: find or make what the opcodes work on, on the shared connection. NULL: check_no_peer(). */
struct check_fs *check_fs(struct check *c);
/* Remove all that was made; from then on nothing is made any more. */
void check_fs_clean(struct check *c);
/* Requests of the file system, waited for. Return: 0; the errno that was answered; errors of peer_ask(). */
int fs_ask(struct peer *p, struct ask *ask);
int fs_lookup(struct peer *p, uint64_t parent, const char *name, struct fuse_entry_out *ret_entry);
int fs_getattr(struct peer *p, uint64_t nodeid, struct fuse_attr *ret_attr);
int fs_open(struct peer *p, uint32_t opcode, uint64_t nodeid, int flags, uint64_t *ret_fh);
int fs_release(struct peer *p, uint32_t opcode, uint64_t nodeid, uint64_t fh, int flags);
int fs_mkdir(struct peer *p, uint64_t parent, const char *name, uint64_t *ret_nodeid);
int fs_create(struct peer *p, uint64_t parent, const char *name, uint64_t *ret_nodeid,
	      uint64_t *ret_fh);
int fs_mknod(struct peer *p, uint64_t parent, const char *name, uint32_t mode,
	     struct fuse_entry_out *ret_entry);
int fs_symlink(struct peer *p, uint64_t parent, const char *name, const char *target,
	       struct fuse_entry_out *ret_entry);
int fs_tmpfile(struct peer *p, uint64_t parent, uint64_t *ret_nodeid, uint64_t *ret_fh);
int fs_remove(struct peer *p, uint32_t opcode, uint64_t parent, const char *name);
/* What came is ask->got bytes at ask->body. */
int fs_read(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, uint32_t size,
	    struct ask *ask);
int fs_write(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, const void *data,
	     uint32_t size);

/* READDIR; then entry by entry from *@at = 0 on. */
int fs_list(struct peer *p, uint64_t nodeid, uint64_t fh, uint64_t offset, struct ask *ask);
bool fs_next_entry(const struct ask *ask, uint32_t *at, char *ret_name, uint64_t *ret_off,
		   uint32_t *ret_type);

/*
 * hostile.c: what every malformed input ends with. Is the back-end alive, and does a fresh session work?
 * @p: where it was sent; NULL: on a connection that is closed
 * @reaction: what the device did, "" if that is not known
 */
enum check_status check_survived(struct check *c, struct peer *p, const char *reaction);
/* A connection to be hostile on. NULL: check_no_peer(). */
struct peer *check_victim(struct check *c, const struct peer_setup *setup);

#endif
