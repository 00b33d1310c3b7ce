/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of `fusewire doctor` share.
 */
#ifndef FUSEWIRE_CLI_DOCTOR_H
#define FUSEWIRE_CLI_DOCTOR_H

#include <sys/types.h>

#include "base/compiler.h"

/** DOCTOR_FINDINGS_MAX - lines of one run; there are far fewer checks. */
#define DOCTOR_FINDINGS_MAX 64
/** DOCTOR_TEXT_BYTES - longest text of a finding. */
#define DOCTOR_TEXT_BYTES 512

/**
 * enum doctor_level - what a finding means.
 * @DOCTOR_OK: as it should be
 * @DOCTOR_NOTE: something to know
 * @DOCTOR_WARNING: it works, but slower, or not in every case
 * @DOCTOR_PROBLEM: it does not work
 */
enum doctor_level {
	DOCTOR_OK,
	DOCTOR_NOTE,
	DOCTOR_WARNING,
	DOCTOR_PROBLEM,
};

/**
 * struct doctor_finding - the result of one check.
 * @check: its name, for programs
 * @level: what it means
 * @text: what was found, for people
 * @mend: what to do; "" for nothing
 */
struct doctor_finding {
	const char *check;
	enum doctor_level level;
	char text[DOCTOR_TEXT_BYTES];
	char mend[DOCTOR_TEXT_BYTES];
};

/**
 * struct doctor - one run.
 * @socket: --socket, or NULL
 * @command: what is behind --, or NULL
 * @findings: so far
 * @nr_findings: how many
 */
struct doctor {
	const char *socket;
	char **command;
	struct doctor_finding findings[DOCTOR_FINDINGS_MAX];
	unsigned int nr_findings;
};

/** doctor_find() - add a finding; doctor_mend() may follow. */
void printf_like(4, 5) doctor_find(struct doctor *d, const char *check, enum doctor_level level,
				   const char *fmt, ...);
/** doctor_mend() - what to do about the last finding. */
void printf_like(2, 3) doctor_mend(struct doctor *d, const char *fmt, ...);

/** doctor_read() - the first line of a file of the kernel's. Return: its length, or negative errno. */
int must_check doctor_read(const char *path, char *buf, size_t size);

/**
 * doctor_output() - what a program says on both its outputs.
 * @argv: NULL-terminated; looked up in PATH
 * @buf: @size bytes, NUL-terminated; what is too long is cut
 *
 * Return: its exit status, or negative errno.
 */
int must_check doctor_output(const char *const argv[], char *buf, size_t size);

/** doctor_check_interception() - can a command be started so that it meets us? The real thing, with a command of ours. */
void doctor_check_interception(struct doctor *d);
/** doctor_probe() - what that command does. Return: its exit status. */
int doctor_probe(void);
/** doctor_check_system() - kernel, devices, limits, security modules. */
void doctor_check_system(struct doctor *d);
/** doctor_check_front_end() - socket, QEMU and those that already use the socket. */
void doctor_check_front_end(struct doctor *d);
/** doctor_check_command() - the command behind --. */
void doctor_check_command(struct doctor *d);

#endif
