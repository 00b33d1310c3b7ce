/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log: what reaches stderr, byte by byte, and the bound on lines that a guest can cause.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cm.h"

static int real_stderr = -1;
static int capture[2];

static int setup(void **state)
{
	if (pipe2(capture, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	real_stderr = dup(STDERR_FILENO);
	dup2(capture[1], STDERR_FILENO);
	log_init(LOG_LEVEL_WARN, "fusewire test");
	return 0;
}

static int teardown(void **state)
{
	dup2(real_stderr, STDERR_FILENO);
	close_fd(&real_stderr);
	close_fd(&capture[0]);
	close_fd(&capture[1]);
	return 0;
}

/* What was logged since the last call, as a string. */
static const char *logged(void)
{
	static char text[8192];
	ssize_t n = read(capture[0], text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void test_levels(void **state)
{
	log_error("number %d", 1);
	assert_string_equal(logged(), "fusewire test: error: number 1\n");
	log_warn("two");
	assert_string_equal(logged(), "fusewire test: warn: two\n");
	log_info("three");
	log_debug("four");
	assert_string_equal(logged(), "");

	log_init(LOG_LEVEL_DEBUG, "x");
	log_info("three");
	assert_string_equal(logged(), "x: three\n");
	log_debug("four");
	assert_string_equal(logged(), "x: debug: four\n");

	log_init(LOG_LEVEL_OFF, "x");
	log_error("five");
	assert_string_equal(logged(), "");
	assert_false(log_enabled(LOG_LEVEL_OFF));
	assert_false(log_enabled(LOG_LEVEL_ERROR));
}

static void test_parse(void **state)
{
	enum log_level level = LOG_LEVEL_INFO;

	assert_int_equal(log_level_parse("verbose", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_INFO);
	assert_int_equal(log_level_parse("off", &level), 0);
	assert_int_equal(level, LOG_LEVEL_OFF);
	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
}

static void test_errno_kept(void **state)
{
	errno = ENOENT;
	log_error("%m");
	assert_int_equal(errno, ENOENT);
	assert_string_equal(logged(), "fusewire test: error: No such file or directory\n");
	close_fd(&capture[0]); /* EAGAIN or EPIPE must not show either */
	log_init(LOG_LEVEL_OFF, "x");
	log_error("%m");
	assert_int_equal(errno, ENOENT);
}

static void test_control_characters(void **state)
{
	log_warn("name 'a\nfusewire: error: forged\r\t\033[2J\177\xc3\xa4'");
	assert_string_equal(logged(),
			    "fusewire test: warn: name 'a?fusewire: error: "
			    "forged???[2J?\xc3\xa4'\n");
}

static void test_long_line(void **state)
{
	char text[3000];
	const char *line;

	memset(text, 'x', sizeof(text));
	for (size_t len = 980; len < sizeof(text); len += len < 1040 ? 1 : 500) {
		log_warn("%.*s", (int)len, text);
		line = logged();
		/* One line, ended, whole or cut. */
		assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
		assert_in_range(strlen(line), 1000, 1024);
	}
}

static unsigned int count_lines(const char *text)
{
	unsigned int n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void wait_for_new_second(void)
{
	uint64_t second = clock_now_ns() / NSEC_PER_SEC;

	while (clock_now_ns() / NSEC_PER_SEC == second)
		usleep(1000);
}

static void test_ratelimit(void **state)
{
	struct log_ratelimit rl = { 0 };

	wait_for_new_second();
	for (int i = 0; i < 1000; i++)
		log_warn_ratelimited(&rl, "flood");
	assert_int_equal(count_lines(logged()), LOG_RATELIMIT_LINES);
	assert_int_equal(rl.nr_dropped, 1000 - LOG_RATELIMIT_LINES);

	wait_for_new_second();
	log_warn_ratelimited(&rl, "again");
	assert_string_equal(logged(),
			    "fusewire test: warn: 995 similar messages suppressed\n"
			    "fusewire test: warn: again\n");
	for (int i = 0; i < 1000; i++)
		log_warn_ratelimited(&rl, "flood");
	assert_int_equal(count_lines(logged()), LOG_RATELIMIT_LINES - 1);
}

static struct log_ratelimit shared_rl;
static uint32_t nr_passed;

static void *flood(void *arg)
{
	for (int i = 0; i < 100000; i++) {
		if (log_ratelimit_pass(&shared_rl))
			__atomic_fetch_add(&nr_passed, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void test_ratelimit_threads(void **state)
{
	uint64_t begin, seconds;
	pthread_t thread[4];

	wait_for_new_second();
	begin = clock_now_ns() / NSEC_PER_SEC;
	for (size_t i = 0; i < array_size(thread); i++)
		assert_int_equal(pthread_create(&thread[i], NULL, flood, NULL), 0);
	for (size_t i = 0; i < array_size(thread); i++)
		pthread_join(thread[i], NULL);
	seconds = clock_now_ns() / NSEC_PER_SEC - begin + 1;
	assert_true(nr_passed >= LOG_RATELIMIT_LINES);
	assert_true(nr_passed <= seconds * LOG_RATELIMIT_LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parse, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errno_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control_characters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ratelimit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ratelimit_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
