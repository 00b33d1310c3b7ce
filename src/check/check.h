/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Conformance of a vhost-user-fs back-end: rule by rule, and how it takes malformed input.
 *
 * The back-end may be anybody's and is not trusted: nothing that it does makes a check wait without bound or fall over.
 */
#ifndef FUSEWIRE_CHECK_CHECK_H
#define FUSEWIRE_CHECK_CHECK_H

#include "base/compiler.h"

/** enum check_status - what was found of one rule. */
enum check_status {
	CHECK_HOLDS,
	CHECK_DOES_NOT,
	CHECK_NOT_OFFERED, /* an optional part that the back-end says not to have */
	CHECK_NOT_CHECKED, /* it could not be tried; the detail says why */
	CHECK_STATUS_END,
};

/** enum check_end_kind - how a back-end ended. */
enum check_end_kind {
	CHECK_ENDED, /* exit status 0 */
	CHECK_FAILED, /* another exit status */
	CHECK_CRASHED, /* a signal */
};

/** CHECK_DETAIL_BYTES - room for what was seen, NUL included. */
#define CHECK_DETAIL_BYTES 200

/**
 * struct check_row - one line of the report.
 * @area: "split ring", "FUSE opcode", ...
 * @clause: the spec's number or heading
 * @rule: what has to hold
 * @status: whether it does
 * @detail: what was seen, "" for nothing to add
 */
struct check_row {
	const char *area;
	const char *clause;
	const char *rule;
	enum check_status status;
	char detail[CHECK_DETAIL_BYTES];
};

/**
 * struct check_config - what to check.
 * @path: the vhost-user socket
 * @file: path, below the device's root, of a file that may be overwritten where none can be created; or NULL
 * @hostile: also send malformed input
 * @progress: called before each rule: rules done, rules altogether, the next one; or NULL
 * @restart: nobody answers at @path any more: start the back-end once more. Return: 1 when it was; 0 when the one that is
 *           there should be asked again; negative errno. NULL when only somebody else can do that
 * @ended: how did the back-end that @restart started end, if it did within @wait_ms? Writes a few words, and returns
 *         enum check_end_kind; -1 when it has not ended. NULL without @restart
 * @interrupted: set from outside, to end early
 * @ctx: for the callbacks
 */
struct check_config {
	const char *path;
	const char *file;
	bool hostile;
	void (*progress)(void *ctx, unsigned int done, unsigned int total,
			 const struct check_row *next);
	int (*restart)(void *ctx);
	int (*ended)(void *ctx, int wait_ms, char *text, size_t size);
	const bool *interrupted;
	void *ctx;
};

/**
 * struct check_report - what was found.
 * @rows: in the order of the tables
 * @nr_rows: how many
 * @counts: rows by status
 * @died: the back-end crashed, hung, or went away for good during the check
 * @features: feature bits that it offers
 * @protocol_features: protocol feature bits that it offers
 * @nr_queues: queues that it says to have, 0 if it cannot say
 * @fuse_minor: protocol minor of its INIT reply, 0 without one
 * @fuse_flags: INIT flags of its reply
 */
struct check_report {
	struct check_row *rows;
	unsigned int nr_rows;
	unsigned int counts[CHECK_STATUS_END];
	bool died;
	uint64_t features;
	uint64_t protocol_features;
	uint64_t nr_queues;
	uint32_t fuse_minor;
	uint64_t fuse_flags;
};

/**
 * check_run() - try everything.
 * @ret_why: on error a static text: what could not be done
 *
 * Creates a directory in the device's root, where that can be written, and removes it.
 *
 * Context: blocks; each wait is bounded. SIGPIPE must be ignored.
 *
 * Return: 0 with a report, however it looks; negative errno when there is no back-end that could be checked.
 */
int must_check check_run(struct check_report **ret_report, const struct check_config *config,
			 const char **ret_why);
/** check_report_free() - NULL is allowed. */
void check_report_free(struct check_report *report);

/** check_status_name() - "holds", "does not", "not offered", "not checked". */
const char *check_status_name(enum check_status status);

#endif
