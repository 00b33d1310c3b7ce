/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guest suite's frame: results, options, and the list of tests.
 */
#ifndef TESTS_GUEST_SUITE_H
#define TESTS_GUEST_SUITE_H

#include <stdbool.h>

/** enum guest_result - what a test returns. */
enum guest_result {
	PASS,
	FAIL,
	SKIP,
};

/**
 * struct guest_options - what the command line says about the file system under test.
 * @mountpoint: where it is mounted
 * @folder: our folder on it, relative to @mountpoint
 * @tag: to mount it again, or NULL
 * @queues_used: request queues that must be seen in use; 0 to leave that out
 * @direct: in place of the tests, write and read so many MiB, one request at a time
 * @other_name_error: a name of 256 bytes gets another error than ENAMETOOLONG: the file system passes its server's on
 * @names_unchecked: a name of 256 bytes breaks the file system under test for good, here as on /dev/fuse
 * @no_xattr, @no_hardlink, @no_symlink: known not to be supported
 */
struct guest_options {
	const char *mountpoint;
	const char *folder;
	const char *tag;
	unsigned int queues_used;
	unsigned int direct;
	bool other_name_error;
	bool names_unchecked;
	bool no_xattr;
	bool no_hardlink;
	bool no_symlink;
};

/** struct guest_test - one test; it runs in our folder and leaves it empty. */
struct guest_test {
	const char *name;
	int (*fn)(void);
};

extern struct guest_options options;
extern const struct guest_test guest_tests[];

/** fail() - say why, once per test. Return: FAIL. */
int __attribute__((format(printf, 1, 2))) fail(const char *fmt, ...);
/** skip() - Return: SKIP; @why is reported. */
int skip(const char *why);
/** diag() - a TAP comment. */
void __attribute__((format(printf, 1, 2))) diag(const char *fmt, ...);

/** test_queues() - every request queue that should be used is (guest_main.c). */
int test_queues(void);

/**
 * CHECK - fail the calling test unless @x holds.
 * An errno that an earlier call left would make two equal results of a short write look different.
 */
#define CHECK(x)                                                                            \
	do {                                                                                \
		errno = 0;                                                                  \
		if (!(x))                                                                   \
			return fail("%s:%d: %s (errno %d)", __func__, __LINE__, #x, errno); \
	} while (0)

/** TRY - leave the calling test with the result of @x unless it is PASS. */
#define TRY(x)                      \
	do {                        \
		int _rc = (x);      \
		if (_rc != PASS)    \
			return _rc; \
	} while (0)

#endif
