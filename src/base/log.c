/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's log: one line per event on stderr.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* Longer lines are cut: one line is one write(2), so that threads do not mix theirs. */
#define LOG_LINE_MAX 1024

static enum log_level log_max_level = LOG_LEVEL_WARN;
static const char *log_ident = "fusewire";

static const char *const level_names[] = {
	[LOG_LEVEL_OFF] = "off",   [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info", [LOG_LEVEL_DEBUG] = "debug",
};

void log_init(enum log_level level, const char *ident)
{
	log_max_level = level;
	log_ident = ident;
}

void log_set_level(enum log_level level)
{
	log_max_level = level;
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (size_t i = 0; i < array_size(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool log_enabled(enum log_level level)
{
	return level != LOG_LEVEL_OFF && level <= log_max_level;
}

static void log_strip_control(char *text)
{
	for (; *text; text++) {
		/* Bytes from 0x80 up stay: they are UTF-8, in names that people want to recognise. */
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
	}
}

void log_at(enum log_level level, const char *fmt, ...)
{
	int saved_errno = errno;
	char line[LOG_LINE_MAX];
	va_list args;
	int n, m;

	if (!log_enabled(level))
		return;
	n = snprintf(line, sizeof(line) - 1, "%s: %s%s", log_ident,
		     level == LOG_LEVEL_INFO ? "" : level_names[level],
		     level == LOG_LEVEL_INFO ? "" : ": ");
	if (n < 0 || (size_t)n >= sizeof(line) - 1)
		n = 0;
	errno = saved_errno;
	va_start(args, fmt);
	m = vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, fmt, args);
	va_end(args);
	if (m > 0)
		n = min_of(n + m, (int)sizeof(line) - 2);
	log_strip_control(line);
	line[n] = '\n';
	/* Nobody can be told that stderr is gone. */
	if (write(STDERR_FILENO, line, (size_t)n + 1) < 0)
		errno = saved_errno;
	errno = saved_errno;
}

bool log_ratelimit_pass(struct log_ratelimit *rl)
{
	uint64_t second =
		clock_now_ns() / NSEC_PER_SEC + 1; /* not 0: a zeroed struct is in the past */
	uint64_t old = __atomic_load_n(&rl->state, __ATOMIC_RELAXED);
	uint64_t new;
	uint32_t dropped;

	do {
		/* Another thread may have read a later clock: never go back, or the second counts twice. */
		new = old >> 8 >= second ? old + 1 : second << 8 | 1;
		if ((new & 0xff) > LOG_RATELIMIT_LINES) {
			__atomic_fetch_add(&rl->nr_dropped, 1, __ATOMIC_RELAXED);
			return false;
		}
	} while (!__atomic_compare_exchange_n(&rl->state, &old, new, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	dropped = __atomic_exchange_n(&rl->nr_dropped, 0, __ATOMIC_RELAXED);
	if (dropped)
		log_warn("%u similar messages suppressed", dropped);
	return true;
}
