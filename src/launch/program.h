/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What can be told of a program by looking at its file.
 */
#ifndef FUSEWIRE_LAUNCH_PROGRAM_H
#define FUSEWIRE_LAUNCH_PROGRAM_H

#include <limits.h>
#include <sys/types.h>

#include "base/compiler.h"

/** PROGRAM_LIBRARIES_MAX - libraries that a program names, as far as we look. */
#define PROGRAM_LIBRARIES_MAX 64

/** enum program_kind - how the kernel would run it. */
enum program_kind {
	PROGRAM_ELF,
	PROGRAM_SCRIPT,
	PROGRAM_OTHER,
};

/**
 * struct program - one executable file.
 * @path: where it was found
 * @kind: by its first bytes
 * @mode: type and permissions
 * @uid: its owner
 * @gid: its group
 * @interpreter: script: the program behind "#!", without arguments; ELF: the dynamic linker, "" for a static program
 * @is_foreign: ELF of another architecture or word size than ours
 * @is_go: built by the Go compiler: has a note of the owner "Go"
 * @libraries: names of the libraries that it is linked with (DT_NEEDED), in @strings
 * @nr_libraries: how many
 * @strings: private
 */
struct program {
	char path[PATH_MAX];
	enum program_kind kind;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	char interpreter[PATH_MAX];
	bool is_foreign;
	bool is_go;
	const char *libraries[PROGRAM_LIBRARIES_MAX];
	unsigned int nr_libraries;
	char strings[4096];
};

/**
 * program_find() - the file that execvp(3) would execute.
 * @name: with a slash a path, else looked up in PATH
 * @path: PATH_MAX bytes
 *
 * Return: 0; -ENOENT; -EACCES when there is one that may not be executed; -EISDIR; -ENAMETOOLONG.
 */
int must_check program_find(const char *name, char *path);

/** program_inspect() - look at the file of @name. Return: 0; errors of program_find(); negative errno when it cannot be read. */
int must_check program_inspect(const char *name, struct program *ret_program);

/**
 * program_refuses_preload() - would it end at its start with a library preloaded that is linked with glibc?
 *
 * A static runtime of AddressSanitizer does not mind. Return: why, a static text for people; NULL: it takes one, or does not care.
 */
const char *program_refuses_preload(const struct program *program);

#endif
