/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options that every serving subcommand has: socket, tag, queues, polling, log.
 */
#ifndef FUSEWIRE_CLI_DEVICE_OPTIONS_H
#define FUSEWIRE_CLI_DEVICE_OPTIONS_H

#include <getopt.h>

#include "base/log.h"
#include "device/device.h"
#include "virtio/virtq.h"

/**
 * struct device_options - what the user chose.
 * @socket_path: where to listen, or NULL with @listen_fd
 * @listen_fd: an already listening socket, or -1
 * @ready_fd: write "READY=1\n" here when serving begins, or -1
 * @inband_notifications: offer them (User-mode Linux needs it for time travel mode only)
 * @log_level: how much to log
 * @arch_name: of @device.arch, or NULL
 * @device: for device_new(); @device.tag points into argv
 */
struct device_options {
	const char *socket_path;
	int listen_fd;
	int ready_fd;
	bool inband_notifications;
	enum log_level log_level;
	const char *arch_name;
	struct device_config device;
};

/* getopt_long() values of the device options; a subcommand's own begin at DEVICE_OPTION_END. */
enum device_option {
	DEVICE_OPTION_SOCKET = 0x100,
	DEVICE_OPTION_FD,
	DEVICE_OPTION_TAG,
	DEVICE_OPTION_QUEUES,
	DEVICE_OPTION_QUEUE_SIZE,
	DEVICE_OPTION_POLL_US,
	DEVICE_OPTION_DRAIN_MS,
	DEVICE_OPTION_ARCH,
	DEVICE_OPTION_PAGE_SIZE,
	DEVICE_OPTION_INBAND,
	DEVICE_OPTION_LOG_LEVEL,
	DEVICE_OPTION_READY_FD,
	DEVICE_OPTION_END,
};

/** DEVICE_OPTIONS_LONG - entries for a subcommand's struct option array. */
#define DEVICE_OPTIONS_LONG                                                          \
	{ "socket", required_argument, NULL, DEVICE_OPTION_SOCKET },                 \
		{ "socket-path", required_argument, NULL, DEVICE_OPTION_SOCKET },    \
		{ "fd", required_argument, NULL, DEVICE_OPTION_FD },                 \
		{ "tag", required_argument, NULL, DEVICE_OPTION_TAG },               \
		{ "queues", required_argument, NULL, DEVICE_OPTION_QUEUES },         \
		{ "queue-size", required_argument, NULL, DEVICE_OPTION_QUEUE_SIZE }, \
		{ "poll-us", required_argument, NULL, DEVICE_OPTION_POLL_US },       \
		{ "drain-ms", required_argument, NULL, DEVICE_OPTION_DRAIN_MS },     \
		{ "arch", required_argument, NULL, DEVICE_OPTION_ARCH },             \
		{ "page-size", required_argument, NULL, DEVICE_OPTION_PAGE_SIZE },   \
		{ "inband-notifications", no_argument, NULL, DEVICE_OPTION_INBAND }, \
		{ "log-level", required_argument, NULL, DEVICE_OPTION_LOG_LEVEL },   \
	{                                                                            \
		"ready-fd", required_argument, NULL, DEVICE_OPTION_READY_FD          \
	}

/** DEVICE_OPTIONS_HELP - lines for --help. */
#define DEVICE_OPTIONS_HELP                                                                      \
	"Device options:\n"                                                                      \
	"  --socket PATH          listen for a VMM on this vhost-user socket\n"                  \
	"  --fd N                 serve on this already listening socket instead\n"              \
	"  --tag TAG              name that the guest mounts, 1-36 bytes\n"                      \
	"  --queues N             request queues offered (default 64)\n"                         \
	"  --queue-size N         largest ring accepted (default 1024)\n"                        \
	"  --poll-us N            look for more work for up to N us before sleeping (default "   \
	"300)\n"                                                                                 \
	"  --drain-ms N           wait N ms for requests when a queue stops (default 5000)\n"    \
	"  --arch NAME            the guest's architecture: x86_64, arm64, ppc64le, s390x and\n" \
	"                         others, see fusewire(1) (default: this machine's)\n"           \
	"  --page-size N          bytes of the guest's memory pages (default: by --arch)\n"      \
	"  --inband-notifications offer them; for User-mode Linux only\n"                        \
	"  --log-level LEVEL      off, error, warn, info (default) or debug\n"                   \
	"  --ready-fd N           write READY=1 to this descriptor when serving begins\n"

/** device_options_init() - defaults. */
void device_options_init(struct device_options *opts);

/**
 * device_options_parse() - take one option that getopt_long() returned.
 *
 * Return: 1 when taken, 0 when it is not a device option, -EINVAL after an error message.
 */
int must_check device_options_parse(struct device_options *opts, int option, const char *arg);

/**
 * device_options_check() - are the required options there?
 * @default_tag: used when the user gave none, or NULL to insist on one
 *
 * Descriptors that are standard streams are moved to other numbers; /dev/null takes the place of the input and the output.
 * Return: 0, or -EINVAL after an error message.
 */
int must_check device_options_check(struct device_options *opts, const char *default_tag);

/**
 * cli_parse_u64() - a whole decimal number within [@min, @max].
 * @name: of the option, for the message
 *
 * Return: 0, or -EINVAL after an error message.
 */
int must_check cli_parse_u64(const char *name, const char *text, uint64_t min, uint64_t max,
			     uint64_t *ret_value);

/**
 * cli_parse_size() - like cli_parse_u64() with an optional suffix k, M, G or T (powers of 1024).
 */
int must_check cli_parse_size(const char *name, const char *text, uint64_t min, uint64_t max,
			      uint64_t *ret_value);

#endif
