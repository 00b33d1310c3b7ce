/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options that every serving subcommand has: socket, tag, queues, polling, log.
 */
#include "cli/device_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cli/cli.h"

void device_options_init(struct device_options *opts)
{
	*opts = (struct device_options){
		.listen_fd = -1,
		.ready_fd = -1,
		.log_level = LOG_LEVEL_INFO,
		.device = {
			.nr_request_queues = 64,
			.queue_size_max = 1024,
			.poll_ns = 300 * NSEC_PER_USEC,
			.drain_ns = 5 * NSEC_PER_SEC,
			.arch = FUSE_ARCH_NATIVE,
		},
	};
}

static int parse_scaled(const char *name, const char *text, bool suffix, uint64_t min, uint64_t max,
			uint64_t *ret_value)
{
	static const char suffixes[] = "kMGT";
	unsigned long long value;
	uint64_t scaled;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (end == text || text[0] < '0' || text[0] > '9' || errno)
		goto bad;
	scaled = value;
	if (suffix && *end) {
		const char *s = strchr(suffixes, *end == 'K' ? 'k' : *end);

		if (!s || end[1])
			goto bad;
		if (ckd_mul(&scaled, scaled, UINT64_C(1) << (10 * (s - suffixes + 1))))
			goto bad;
	} else if (*end) {
		goto bad;
	}
	if (scaled < min || scaled > max)
		goto bad;
	*ret_value = scaled;
	return 0;
bad:
	cli_error("--%s: '%s' is not a number from %llu to %llu", name, text,
		  (unsigned long long)min, (unsigned long long)max);
	return -EINVAL;
}

int cli_parse_u64(const char *name, const char *text, uint64_t min, uint64_t max,
		  uint64_t *ret_value)
{
	return parse_scaled(name, text, false, min, max, ret_value);
}

int cli_parse_size(const char *name, const char *text, uint64_t min, uint64_t max,
		   uint64_t *ret_value)
{
	return parse_scaled(name, text, true, min, max, ret_value);
}

static int parse_arch(struct device_options *opts, const char *arg)
{
	char list[512] = "";
	size_t len = 0;

	opts->arch_name = arg;
	if (fuse_arch_parse(arg, &opts->device.arch) == 0)
		return 1;
	for (size_t i = 0; fuse_arch_name(i) && len < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "",
					fuse_arch_name(i));
	cli_error("--arch: '%s' is none of %s", arg, list);
	return -EINVAL;
}

static int parse_text(struct device_options *opts, int option, const char *arg)
{
	switch (option) {
	case DEVICE_OPTION_SOCKET:
		opts->socket_path = arg;
		if (arg[0])
			return 1;
		cli_error("--socket: a path is needed");
		return -EINVAL;
	case DEVICE_OPTION_TAG:
		opts->device.tag = arg;
		if (arg[0] && strlen(arg) <= DEVICE_TAG_BYTES)
			return 1;
		cli_error("--tag: '%s' must have 1 to %d bytes", arg, DEVICE_TAG_BYTES);
		return -EINVAL;
	case DEVICE_OPTION_ARCH:
		return parse_arch(opts, arg);
	case DEVICE_OPTION_LOG_LEVEL:
		if (log_level_parse(arg, &opts->log_level) == 0)
			return 1;
		cli_error("--log-level: '%s' is not off, error, warn, info or debug", arg);
		return -EINVAL;
	default:
		return 0;
	}
}

int device_options_parse(struct device_options *opts, int option, const char *arg)
{
	uint64_t v = 0;
	int err;

	switch (option) {
	case DEVICE_OPTION_FD:
		err = cli_parse_u64("fd", arg, 0, INT32_MAX, &v);
		opts->listen_fd = (int)v;
		break;
	case DEVICE_OPTION_READY_FD:
		err = cli_parse_u64("ready-fd", arg, 0, INT32_MAX, &v);
		opts->ready_fd = (int)v;
		break;
	case DEVICE_OPTION_QUEUES:
		err = cli_parse_u64("queues", arg, 1, DEVICE_REQUEST_QUEUES_MAX, &v);
		opts->device.nr_request_queues = (unsigned int)v;
		break;
	case DEVICE_OPTION_QUEUE_SIZE:
		err = cli_parse_u64("queue-size", arg, 1, VIRTQ_SIZE_MAX, &v);
		opts->device.queue_size_max = (uint32_t)v;
		break;
	case DEVICE_OPTION_POLL_US:
		err = cli_parse_u64("poll-us", arg, 0, 1000000, &v);
		opts->device.poll_ns = v * NSEC_PER_USEC;
		break;
	case DEVICE_OPTION_DRAIN_MS:
		err = cli_parse_u64("drain-ms", arg, 1, 600000, &v);
		opts->device.drain_ns = v * NSEC_PER_MSEC;
		break;
	case DEVICE_OPTION_PAGE_SIZE:
		err = cli_parse_size("page-size", arg, FUSE_PAGE_BYTES_MIN, FUSE_PAGE_BYTES_MAX,
				     &v);
		opts->device.page_bytes = (uint32_t)v;
		if (!err && !fuse_arch_page_valid(v)) {
			cli_error("--page-size: '%s' is no power of two", arg);
			err = -EINVAL;
		}
		break;
	case DEVICE_OPTION_INBAND:
		opts->inband_notifications = true;
		return 1;
	default:
		return parse_text(opts, option, arg);
	}
	return err ? err : 1;
}

/*
 * A standard stream that was given to us as --fd or --ready-fd moves out of the way: its number must not become another file's
 * when it is closed, since a log or a command writes there. Standard error stays, too: the log has no other place.
 */
static int free_stream(const char *name, int *fd)
{
	autoclose int null_fd = -1;
	int stream = *fd, moved;

	if (stream < 0 || stream > STDERR_FILENO)
		return 0;
	moved = fcntl(stream, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (moved >= 0 && stream != STDERR_FILENO) {
		null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null_fd < 0 || dup2(null_fd, stream) < 0)
			close_fd(&moved);
	}
	if (moved < 0) {
		cli_error("--%s %d: %s", name, stream, strerror(errno));
		return -EINVAL;
	}
	*fd = moved;
	return 0;
}

int device_options_check(struct device_options *opts, const char *default_tag)
{
	if (!opts->socket_path && opts->listen_fd < 0) {
		cli_error("no socket: give --socket PATH (or --fd N)");
		return -EINVAL;
	}
	if (opts->socket_path && opts->listen_fd >= 0) {
		cli_error("--socket and --fd exclude each other");
		return -EINVAL;
	}
	if (free_stream("fd", &opts->listen_fd) < 0 || free_stream("ready-fd", &opts->ready_fd) < 0)
		return -EINVAL;
	if (!opts->device.page_bytes)
		opts->device.page_bytes = fuse_arch_page_bytes(opts->arch_name);
	if (!opts->device.tag)
		opts->device.tag = default_tag;
	if (!opts->device.tag) {
		cli_error("no tag: give --tag TAG, the name that the guest mounts");
		return -EINVAL;
	}
	return 0;
}
