/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire run, in-process: the daemon's process becomes the device's, and a keeper here stands between it and the front-end.
 */
#ifndef FUSEWIRE_CLI_RUN_INPROC_H
#define FUSEWIRE_CLI_RUN_INPROC_H

#include "cli/serve.h"
#include "device/service.h"
#include "service/channel/channel.h"

struct run_inproc;

/** enum run_inproc_mode - --in-process. */
enum run_inproc_mode {
	RUN_INPROC_AUTO,
	RUN_INPROC_ALWAYS,
	RUN_INPROC_NEVER,
};

/** run_inproc_parse_mode() - Return: 0, or -EINVAL after an error message. */
int must_check run_inproc_parse_mode(const char *text, enum run_inproc_mode *ret_mode);

/**
 * run_inproc_new() - what is started from now on gets the library preloaded.
 * @command: the program; one that could not be started with the library does not get it
 * @lost: the library in the daemon's process is gone, or could not serve. Context: loop thread
 *
 * Return: 0, with NULL where there is no library, or the command does not take it, and @mode does not insist; negative errno after an error message.
 */
int must_check run_inproc_new(struct run_inproc **ret_inproc, enum run_inproc_mode mode,
			      const char *command, struct serve *serve,
			      const struct device_options *opts, void (*lost)(void *ctx),
			      void *ctx);
/** run_inproc_stop() - no front-end any more; before serve_free(). NULL is allowed. */
void run_inproc_stop(struct run_inproc *inproc);
/** run_inproc_free() - after run_inproc_stop(). NULL is allowed. */
void run_inproc_free(struct run_inproc *inproc);

/** run_inproc_begin() - a daemon is about to be started. NULL is allowed. */
void run_inproc_begin(struct run_inproc *inproc);
/** run_inproc_library() - struct channel_events.library. Context: any thread. NULL is allowed. */
void run_inproc_library(struct run_inproc *inproc, const void *msg, size_t len);
/** run_inproc_offered() - did the library of this daemon say that it is there? NULL: no. */
bool run_inproc_offered(const struct run_inproc *inproc);

/**
 * run_inproc_take_over() - the daemon answered INIT through @channel: serve it from its own process.
 * @limits: of the daemon's mount
 * @server: the daemon's process; killed when its device hangs or misbehaves
 *
 * Return: 0; negative errno after an error message.
 */
int must_check run_inproc_take_over(struct run_inproc *inproc, struct service *channel,
				    const struct channel_limits *limits, pid_t server);
/**
 * run_inproc_end() - unmount: the daemon is told what the driver's session still held, then DESTROY, then ENODEV.
 * @timeout_ns: for all of it
 *
 * Context: after run_inproc_stop(); waits.
 */
void run_inproc_end(struct run_inproc *inproc, uint64_t timeout_ns);

#endif
