/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The process's log: one line per event on stderr.
 */
#ifndef FUSEWIRE_BASE_LOG_H
#define FUSEWIRE_BASE_LOG_H

#include "base/compiler.h"

/** enum log_level - how much to say; each level includes those before it. */
enum log_level {
	LOG_LEVEL_OFF,
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/** LOG_RATELIMIT_LINES - lines per second that one struct log_ratelimit lets through. */
#define LOG_RATELIMIT_LINES 5

/**
 * struct log_ratelimit - bounds what a guest or peer can make us write.
 * @state: the clock second that is being counted, shifted left by 8, and in the low 8 bits the lines
 *         that passed in it; one word, so that several threads cannot pass more than the bound
 * @nr_dropped: lines suppressed since the last one written
 *
 * Zero-initialise. At most LOG_RATELIMIT_LINES pass in each second of the monotonic clock; one more line
 * says how many did not, before the next that passes. May be used from several threads.
 */
struct log_ratelimit {
	uint64_t state;
	uint32_t nr_dropped;
};

/**
 * log_init() - set what is logged.
 * @level: the last level that is written
 * @ident: short prefix of each line, e.g. "fusewire run"; must stay valid
 */
void log_init(enum log_level level, const char *ident);

/** log_set_level() - change the level alone. Context: before other threads run. */
void log_set_level(enum log_level level);

/**
 * log_level_parse() - "off", "error", "warn", "info", "debug" to a level.
 *
 * Return: 0, or -EINVAL with *@ret_level untouched.
 */
int must_check log_level_parse(const char *text, enum log_level *ret_level);

/** log_enabled() - would a line of @level be written? */
bool log_enabled(enum log_level level);

/**
 * log_at() - write one line; the newline is added.
 *
 * Control characters become '?': names and messages of guests and daemons can neither forge a line nor
 * drive the terminal. Long lines are cut. errno is kept, and "%m" works.
 *
 * Context: any thread; one write(2) per line.
 */
void printf_like(2, 3) log_at(enum log_level level, const char *fmt, ...);

/**
 * log_ratelimit_pass() - may the caller write a line now?
 *
 * For everything whose frequency a guest, VMM or daemon controls.
 */
bool log_ratelimit_pass(struct log_ratelimit *rl);

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                        \
	do {                                                  \
		if (unlikely(log_enabled(LOG_LEVEL_DEBUG)))   \
			log_at(LOG_LEVEL_DEBUG, __VA_ARGS__); \
	} while (0)
/** log_warn_ratelimited - a warning that a guest or peer can cause; @rl bounds it. */
#define log_warn_ratelimited(rl, ...)          \
	do {                                   \
		if (log_ratelimit_pass(rl))    \
			log_warn(__VA_ARGS__); \
	} while (0)

#endif
