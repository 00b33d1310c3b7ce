/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire doctor: what on this machine stands in the way, and how to mend it.
 *
 * Wherever it can be, the thing itself is tried rather than a version compared.
 */
#include "cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/json.h"

enum doctor_option {
	OPTION_SOCKET = 256,
	OPTION_JSON,
	OPTION_PROBE,
	OPTION_HELP,
};

static const struct option doctor_options[] = {
	{ "socket", required_argument, NULL, OPTION_SOCKET },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "probe", no_argument, NULL, OPTION_PROBE },
	{ "help", no_argument, NULL, OPTION_HELP },
	{},
};

static const char *const level_names[] = { "ok", "note", "warning", "problem" };

static void doctor_help(void)
{
	printf("Usage: fusewire doctor [--socket PATH] [--json] [-- COMMAND [ARG...]]\n\n"
	       "Says what on this machine stands in the way of serving, and how to mend it.\n"
	       "Run it as the user that shall serve. COMMAND is looked at, not run.\n\n"
	       "  --socket PATH          the vhost-user socket that shall be used\n"
	       "  --json                 results for programs\n"
	       "  --help                 this text\n\n"
	       "Exit status: 0 when nothing is in the way, 1 on a problem.\n");
}

void doctor_find(struct doctor *d, const char *check, enum doctor_level level, const char *fmt, ...)
{
	struct doctor_finding *f;
	va_list args;

	assert(d->nr_findings < DOCTOR_FINDINGS_MAX);
	f = &d->findings[d->nr_findings++];
	f->check = check;
	f->level = level;
	f->mend[0] = '\0';
	va_start(args, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, args);
	va_end(args);
}

void doctor_mend(struct doctor *d, const char *fmt, ...)
{
	struct doctor_finding *f = &d->findings[d->nr_findings - 1];
	va_list args;

	va_start(args, fmt);
	vsnprintf(f->mend, sizeof(f->mend), fmt, args);
	va_end(args);
}

int doctor_read(const char *path, char *buf, size_t size)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return (int)strlen(buf);
}

static int spawn_into(const char *const argv[], int out, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	int err;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_adddup2(&actions, out, 2);
	err = posix_spawnp(ret_pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv,
			   environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

int doctor_output(const char *const argv[], char *buf, size_t size)
{
	size_t have = 0;
	int pipes[2], status, err;
	char rest[512];
	pid_t pid;
	ssize_t n;

	buf[0] = '\0';
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	err = spawn_into(argv, pipes[1], &pid);
	close(pipes[1]);
	while (!err) {
		bool full = have + 1 >= size;

		n = full ? read(pipes[0], rest, sizeof(rest))
			 : read(pipes[0], buf + have, size - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += full ? 0 : (size_t)n;
	}
	buf[have] = '\0';
	close(pipes[0]);
	if (err)
		return err;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static unsigned int count(const struct doctor *d, enum doctor_level level)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < d->nr_findings; i++)
		nr += d->findings[i].level == level;
	return nr;
}

static void print_text(const struct doctor *d)
{
	unsigned int warnings = count(d, DOCTOR_WARNING), problems = count(d, DOCTOR_PROBLEM);

	for (unsigned int i = 0; i < d->nr_findings; i++) {
		const struct doctor_finding *f = &d->findings[i];

		printf("%-8s %-14s %s\n", level_names[f->level], f->check, f->text);
		if (f->mend[0])
			printf("%-8s %-14s to mend it: %s\n", "", "", f->mend);
	}
	printf("\n%u problem%s, %u warning%s\n", problems, problems == 1 ? "" : "s", warnings,
	       warnings == 1 ? "" : "s");
}

static void print_json(const struct doctor *d)
{
	printf("{\"problems\": %u, \"warnings\": %u, \"findings\": [", count(d, DOCTOR_PROBLEM),
	       count(d, DOCTOR_WARNING));
	for (unsigned int i = 0; i < d->nr_findings; i++) {
		const struct doctor_finding *f = &d->findings[i];

		printf("%s\n {\"check\": \"%s\", \"level\": \"%s\", \"text\": ", i ? "," : "",
		       f->check, level_names[f->level]);
		cli_json_string(f->text);
		printf(", \"mend\": ");
		cli_json_string(f->mend);
		printf("}");
	}
	printf("\n]}\n");
}

int cli_doctor(int argc, char **argv)
{
	static struct doctor d;
	bool json = false;
	int option;

	while ((option = getopt_long(argc, argv, "+", doctor_options, NULL)) != -1) {
		switch (option) {
		case OPTION_SOCKET:
			d.socket = optarg;
			break;
		case OPTION_JSON:
			json = true;
			break;
		case OPTION_PROBE:
			return doctor_probe();
		case OPTION_HELP:
			doctor_help();
			return CLI_OK;
		default:
			return CLI_USAGE;
		}
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0) {
		cli_error("'%s': put the command behind --", argv[optind]);
		return CLI_USAGE;
	}
	d.command = optind < argc ? argv + optind : NULL;
	/* Before any thread, and before the launches below take every child for theirs. */
	doctor_check_system(&d);
	doctor_check_front_end(&d);
	doctor_check_command(&d);
	doctor_check_interception(&d);
	if (json)
		print_json(&d);
	else
		print_text(&d);
	return count(&d, DOCTOR_PROBLEM) ? CLI_FAILED : CLI_OK;
}
