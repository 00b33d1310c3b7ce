/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * READs larger than the daemon takes: several READs under way at once, joined in order.
 *
 * A part that came short ends the file: what stands behind it does not count. Of an error before that see rules_short_read().
 *
 * When the daemon has opened a file that cannot be read ahead (direct I/O, no seeking, stream), the next part is
 * sent only when the one before came in full.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "service/channel/private.h"
#include "service/rules/rules.h"

struct split_read {
	struct fuse_in_header in;
	struct fuse_read_in read;
};

struct channel_split *split_start(struct channel *ch, const struct channel_item *item)
{
	struct request *req = item->req;
	struct channel_split *split = ch->free_split;
	bool is_read = request_header(req)->opcode == FUSE_READ;
	uint32_t limit =
		is_read ? ch->read_limit : (uint32_t)min_of(ch->send_max, (size_t)CHANNEL_READ_MAX);
	size_t total = min_of(request_reply_max(req), (size_t)CHANNEL_READ_MAX);

	if (!split)
		return NULL;
	if (!split->buf)
		split->buf = malloc(CHANNEL_READ_MAX);
	if (!split->buf) {
		channel_retry_soon(ch);
		return NULL;
	}
	total = min_of(total, (size_t)limit * (is_read ? CHANNEL_PARTS : 1));
	ch->free_split = split->next_free;
	split->item = (struct channel_item){ .req = req,
					     .is_split = true,
					     .interrupted = item->interrupted };
	split->total_bytes = (uint32_t)total;
	split->part_bytes = limit;
	split->nr_parts = (uint32_t)((total + limit - 1) / limit);
	split->nr_sent = 0;
	split->nr_under_way = 0;
	split->sent_limit = ch->sequential ? 1 : split->nr_parts;
	split->queued = true;
	split->ended = false;
	split->error = 0;
	split->error_part = 0;
	split->nr_again = 0;
	return split;
}

bool split_next_part(const struct channel_split *split)
{
	return split->nr_again || (!split->ended && split->nr_sent < split->sent_limit);
}

uint32_t split_take_part(struct channel_split *split)
{
	split->nr_under_way++;
	return split->nr_again ? split->again[--split->nr_again] : split->nr_sent++;
}

void split_return_part(struct channel_split *split, uint32_t part)
{
	split->nr_under_way--;
	split->again[split->nr_again++] = (uint16_t)part;
}

static void split_fail_from(struct channel_split *split, uint32_t part, int error)
{
	if (!split->error || part < split->error_part) {
		split->error = error;
		split->error_part = part;
	}
	split->ended = true;
}

void split_give_up(struct channel_split *split, int error)
{
	while (split->nr_again)
		split_fail_from(split, split->again[--split->nr_again], error);
	split_fail_from(split, split->nr_sent, error);
}

uint32_t split_part_bytes(const struct channel_split *split, uint32_t part)
{
	return min_of(split->part_bytes, split->total_bytes - part * split->part_bytes);
}

void split_message(const struct channel_split *split, uint32_t part, uint64_t unique, void *buf)
{
	struct split_read msg = { 0 };
	size_t len;
	const void *whole = request_message(split->item.req, &len);

	/* READ, READDIR and READDIRPLUS have the same arguments; the session has checked the length. */
	memcpy(&msg, whole, min_of(len, sizeof(msg)));
	msg.in.len = sizeof(msg);
	msg.in.total_extlen = 0;
	msg.in.unique = unique;
	msg.read.offset += (uint64_t)part * split->part_bytes;
	msg.read.size = split_part_bytes(split, part);
	memcpy(buf, &msg, sizeof(msg));
}

bool split_part_done(struct channel *ch, struct channel_split *split, uint32_t part, int error,
		     uint32_t got)
{
	split->nr_under_way--;
	split->got[part] = got;
	if (error) {
		split_fail_from(split, part, error);
	} else if (got < split_part_bytes(split, part)) {
		split->ended = true;
	} else if (split->sent_limit < split->nr_parts) {
		split->sent_limit++;
	}
	if (split_next_part(split) && !split->queued) {
		split->queued = true;
		fifo_push_front(ch, &split->item);
	}
	return !split->nr_under_way && !split->queued;
}

/* Bytes up to the end of the file, or up to the first error; *@ret_error in that case. */
static uint32_t split_bytes(const struct channel_split *split, int *ret_error)
{
	uint32_t sum = 0;

	*ret_error = 0;
	for (uint32_t part = 0; part < split->nr_sent; part++) {
		if (split->error && part >= split->error_part)
			break;
		sum += split->got[part];
		if (split->got[part] < split_part_bytes(split, part))
			return sum;
	}
	*ret_error = split->error;
	return sum;
}

void split_finish(struct channel *ch, struct channel_split *split)
{
	struct request *req = split->item.req;
	struct iovec iov = { .iov_base = split->buf };
	int error;

	iov.iov_len = split_bytes(split, &error);
	if (error && !(iov.iov_len && rules_short_read(req)))
		request_reply(req, error, NULL, 0);
	else
		request_reply(req, 0, &iov, 1);
	pthread_mutex_lock(&ch->lock);
	split->next_free = ch->free_split;
	ch->free_split = split;
	/* Somebody may wait for it, and the reply thread for nothing. */
	if (!fifo_is_empty(ch))
		fd_signal(ch->wake_fd);
	pthread_mutex_unlock(&ch->lock);
}
