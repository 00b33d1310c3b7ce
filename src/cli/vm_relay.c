/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The byte streams between a guest and the user: copying, the console's log, the status port.
 */
#include "cli/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A pipe that polls writable takes this much without blocking (POSIX PIPE_BUF). */
#define WRITE_PIECE 4096
/* Bytes that become one base64 line of 64 characters. */
#define BASE64_PIECE 48
/* VEOF: a tty in line mode ends the reader's file with it. */
#define TTY_EOF 4

void vm_log_add(struct vm_log *log, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		log->buf[log->total++ % VM_LOG_BYTES] = data[i];
}

/* The log from its oldest byte as a text; NUL bytes become '?'. NULL without memory. */
static char *log_text(const struct vm_log *log)
{
	size_t len = (size_t)min_of(log->total, (uint64_t)VM_LOG_BYTES);
	char *text = malloc(len + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		char c = log->buf[(log->total - len + i) % VM_LOG_BYTES];

		text[i] = c ? c : '?';
	}
	text[len] = '\0';
	return text;
}

void vm_log_print_tail(const struct vm_log *log, unsigned int nr_lines)
{
	autofree char *text = log_text(log);
	char *save = NULL;
	char *p;

	if (!text)
		return;
	p = text + strlen(text);
	for (unsigned int n = 0; p > text && n <= nr_lines; p--) {
		if (p[-1] == '\n')
			n++;
	}
	for (char *line = strtok_r(p, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
		/* Escape sequences of a guest have no business on the user's terminal. */
		for (char *c = line; *c; c++) {
			if ((unsigned char)*c < ' ' && *c != '\t')
				*c = '?';
		}
		fprintf(stderr, "| %s\n", line);
	}
}

bool vm_log_find(const struct vm_log *log, const char *text, char *ret, size_t size)
{
	autofree char *all = log_text(log);
	char *at = all ? strstr(all, text) : NULL;

	if (!at)
		return false;
	at[strcspn(at, "\r\n")] = '\0';
	snprintf(ret, size, "%s", at);
	return true;
}

static void status_line(struct vm_status *st)
{
	char *end;
	long value;

	if (strcmp(st->line, "boot") == 0) {
		st->nr_boots++;
		st->end = VM_END_NONE;
	} else if (strcmp(st->line, "ready") == 0) {
		st->ready = true;
		st->taken = true;
	} else if (strcmp(st->line, "taken") == 0) {
		st->taken = true;
	} else if (strncmp(st->line, "exit ", 5) == 0) {
		value = strtol(st->line + 5, &end, 10);
		if (end == st->line + 5 || *end || value < 0 || value > 255)
			return;
		st->end = VM_END_EXIT;
		st->exit_status = (int)value;
	} else if (strncmp(st->line, "failed ", 7) == 0) {
		st->end = VM_END_FAILED;
		snprintf(st->text, sizeof(st->text), "%s", st->line + 7);
	}
}

void vm_status_feed(struct vm_status *status, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (c == '\n') {
			status->line[status->len] = '\0';
			status_line(status);
			status->len = 0;
		} else if (status->len < sizeof(status->line) - 1) {
			status->line[status->len++] = (unsigned char)c < ' ' ? '?' : c;
		}
	}
}

bool vm_stream_wants_read(const struct vm_stream *s)
{
	return s->src >= 0 && s->len == 0 && !s->held;
}

bool vm_stream_wants_write(const struct vm_stream *s)
{
	return s->dst >= 0 && s->len > 0;
}

/* Base64 of @in, each BASE64_PIECE bytes and the last ones a line. */
static size_t encode_base64(char *out, const unsigned char *in, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *p = out;

	for (size_t i = 0; i < len; i += 3) {
		size_t n = min_of(len - i, (size_t)3);
		unsigned int v = (unsigned int)in[i] << 16;

		if (n > 1)
			v |= (unsigned int)in[i + 1] << 8;
		if (n > 2)
			v |= in[i + 2];
		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = n > 1 ? digits[v >> 6 & 63] : '=';
		*p++ = n > 2 ? digits[v & 63] : '=';
		if ((i + 3) % BASE64_PIECE == 0 || i + 3 >= len)
			*p++ = '\n';
	}
	return (size_t)(p - out);
}

static void stream_take_base64(struct vm_stream *s, size_t nr_read)
{
	static const char more[] = "more\n";
	const size_t begin = sizeof(more) - 1;

	static_assert(VM_BASE64_BYTES % BASE64_PIECE == 0 &&
			      VM_BASE64_BYTES / BASE64_PIECE * 65 + sizeof(more) < 4096 - 128,
		      "a tty takes it");
	memcpy(s->buf, more, begin);
	s->len = begin + encode_base64(s->buf + begin, s->raw, nr_read);
	s->buf[s->len++] = TTY_EOF;
	s->held = true;
}

static void stream_end(struct vm_stream *s)
{
	s->src = -1;
	if (s->base64)
		s->len = (size_t)snprintf(s->buf, sizeof(s->buf), "end\n");
	/* Not closed: QEMU drops unread bytes when its peer is gone altogether. */
	if (s->shut_dst)
		(void)shutdown(s->dst, SHUT_WR);
}

bool vm_stream_read(struct vm_stream *s)
{
	ssize_t n = s->base64 ? read(s->src, s->raw, sizeof(s->raw))
			      : read(s->src, s->buf, sizeof(s->buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	s->start = 0;
	if (n <= 0)
		stream_end(s);
	else if (s->base64)
		stream_take_base64(s, (size_t)n);
	else
		s->len = (size_t)n;
	return n > 0;
}

int vm_stream_write(struct vm_stream *s)
{
	ssize_t n = write(s->dst, s->buf + s->start, min_of(s->len, (size_t)WRITE_PIECE));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	s->start += (size_t)n;
	s->len -= (size_t)n;
	return 0;
}
