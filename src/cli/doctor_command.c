/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command that shall be served: its file, its libraries, its mount point. It is not run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/doctor.h"
#include "launch/program.h"

static const char *library_starting(const struct program *p, const char *prefix)
{
	for (unsigned int i = 0; i < p->nr_libraries; i++) {
		if (!strncmp(p->libraries[i], prefix, strlen(prefix)))
			return p->libraries[i];
	}
	return NULL;
}

static const char *describe(const struct program *p)
{
	if (p->is_go)
		return "a program of Go";
	if (library_starting(p, "libfuse3.so"))
		return "linked with libfuse 3";
	if (library_starting(p, "libfuse.so"))
		return "linked with libfuse 2";
	return p->interpreter[0] ? "a dynamic program" : "a static program";
}

/* The dynamic linker tells what it would load, and does not start the program. */
static void check_libraries(struct doctor *d, const struct program *p)
{
	const char *const argv[] = { p->interpreter, "--list", p->path, NULL };
	autofree char *text = malloc(64 << 10);
	char *missing, *line;

	if (!p->interpreter[0] || !text || doctor_output(argv, text, 64 << 10) < 0)
		return;
	missing = strstr(text, "not found");
	if (!missing)
		missing = strstr(text, "cannot open shared object");
	if (!missing)
		return;
	*strchrnul(missing, '\n') = '\0';
	line = memrchr(text, '\n', (size_t)(missing - text));
	line = line ? line + 1 : text;
	doctor_find(d, "libraries", DOCTOR_PROBLEM, "%s: %s", p->path, line + strspn(line, " \t"));
	doctor_mend(d, "install the package that has it");
}

static void check_setuid(struct doctor *d, const struct program *p)
{
	if (!(p->mode & (S_ISUID | S_ISGID)) || !geteuid())
		return;
	doctor_find(d, "setuid", DOCTOR_WARNING,
		    "%s is set%cid: started by an ordinary user it runs without these rights here",
		    p->path, p->mode & S_ISUID ? 'u' : 'g');
	doctor_mend(d, "run fusewire as root, or give user %u the rights that the daemon needs",
		    geteuid());
}

static void check_elf(struct doctor *d, const struct program *p)
{
	if (p->is_foreign) {
		doctor_find(d, "command", DOCTOR_PROBLEM,
			    "%s is of another architecture, or 32-bit: its system calls are not "
			    "intercepted",
			    p->path);
		doctor_mend(d, "a build for this machine");
		return;
	}
	doctor_find(d, "command", DOCTOR_OK, "%s is %s", p->path, describe(p));
	check_libraries(d, p);
}

static void check_script(struct doctor *d, const struct program *p)
{
	char path[PATH_MAX];
	int err = program_find(p->interpreter, path);

	if (err) {
		doctor_find(d, "command", DOCTOR_PROBLEM, "%s is a script of %s: %s", p->path,
			    p->interpreter, strerror(-err));
		doctor_mend(d, "install it, or mend the first line of the script");
		return;
	}
	doctor_find(d, "command", DOCTOR_OK, "%s is a script of %s", p->path, p->interpreter);
	doctor_mend(d, "only if what it starts does not find its mount: --placeholder always");
	if (!geteuid())
		d->findings[d->nr_findings - 1].mend[0] = '\0';
}

static bool check_program(struct doctor *d, struct program *p)
{
	int err = program_inspect(d->command[0], p);

	if (err) {
		doctor_find(d, "command", DOCTOR_PROBLEM, "%s: %s", d->command[0], strerror(-err));
		if (err == -ENOENT)
			doctor_mend(
				d,
				"install it, or give its path: PATH is searched as a shell does");
		else if (err == -EACCES)
			doctor_mend(d, "chmod +x, or run it as a user who may execute it");
		return false;
	}
	if (p->kind == PROGRAM_ELF) {
		check_elf(d, p);
	} else if (p->kind == PROGRAM_SCRIPT) {
		check_script(d, p);
	} else {
		doctor_find(d, "command", DOCTOR_WARNING, "%s is neither a program nor a script",
			    p->path);
	}
	check_setuid(d, p);
	return true;
}

/* Who does not mount by itself, and under which name the libraries look for who does. */
static void check_fusermount(struct doctor *d, const struct program *p)
{
	bool three = library_starting(p, "libfuse3.so");
	bool two = library_starting(p, "libfuse.so");
	char path[PATH_MAX];

	if (!p->is_go && (!geteuid() || (!two && !three)))
		return;
	if ((!three && program_find("fusermount", path) == 0) ||
	    (!two && program_find("fusermount3", path) == 0))
		return;
	doctor_find(d, "fusermount", DOCTOR_PROBLEM, "%s mounts by %s, which is not installed",
		    p->path, two ? "fusermount" : "fusermount3");
	doctor_mend(d, "apt install %s", two ? "fuse" : "fuse3");
}

static bool user_allow_other(void)
{
	char line[256];
	bool found = false;
	FILE *f = fopen("/etc/fuse.conf", "re");

	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line + strspn(line, " \t"), "user_allow_other", 16);
	if (f)
		fclose(f);
	return found;
}

/* Is it said in @arg: as a word of -o, alone (-oWORD, -WORD, --WORD), and not taken back (--no-WORD, --WORD=false)? */
static bool has_option(const char *arg, const char *word)
{
	const size_t len = strlen(word);

	for (const char *at = strstr(arg, word); at; at = strstr(at + 1, word)) {
		const char *rest = at + len;
		const size_t dashes = strspn(arg, "-");
		const bool begins = at == arg + dashes || strchr(",=", at[-1]) ||
				    (at == arg + 2 && !strncmp(arg, "-o", 2));
		const bool off =
			!strcmp(rest, "=false") || !strcmp(rest, "=no") || !strcmp(rest, "=0");

		if (begins && (!*rest || strchr(",=", *rest)) && !off)
			return true;
	}
	return false;
}

static void check_allow_other(struct doctor *d)
{
	static const char *const words[] = { "allow_other", "allow-other", "allow_root",
					     "allow-root" };
	bool wanted = false;

	for (char **arg = d->command + 1; *arg; arg++) {
		for (size_t i = 0; i < array_size(words); i++)
			wanted = wanted || has_option(*arg, words[i]);
	}
	if (!wanted || !geteuid() || user_allow_other())
		return;
	doctor_find(d, "allow-other", DOCTOR_PROBLEM,
		    "fusermount refuses allow_other to ordinary users");
	doctor_mend(d,
		    "leave it out: a guest's users may enter in any case; or user_allow_other in "
		    "/etc/fuse.conf");
}

static bool directory_is_empty(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	bool empty = true;

	while (dir && empty && (e = readdir(dir)))
		empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	if (dir)
		closedir(dir);
	return empty;
}

static bool is_mounted(const char *path, const struct stat *st)
{
	char up[PATH_MAX];
	struct stat parent;
	int n = snprintf(up, sizeof(up), "%s/..", path);

	return n > 0 && (size_t)n < sizeof(up) && stat(up, &parent) == 0 &&
	       (parent.st_dev != st->st_dev || parent.st_ino == st->st_ino);
}

static void check_mount_point(struct doctor *d, const struct program *p)
{
	const char *found = NULL;
	struct stat st, last;

	for (char **arg = d->command + 1; *arg; arg++) {
		if ((*arg)[0] == '-')
			continue;
		if (stat(*arg, &st) == 0 && S_ISDIR(st.st_mode)) {
			found = *arg;
			last = st;
		} else if (errno == ENOTCONN) {
			doctor_find(d, "mount-point", DOCTOR_PROBLEM,
				    "%s has the mount of a daemon that died", *arg);
			doctor_mend(d, "fusermount3 -u %s (or umount -l)", *arg);
			return;
		}
	}
	if (!found) {
		doctor_find(d, "mount-point", DOCTOR_NOTE,
			    "none of the arguments is a folder: most daemons insist on a mount "
			    "point that "
			    "exists, though nothing is mounted on it");
		doctor_mend(d, "mkdir it");
	} else if (is_mounted(found, &last)) {
		doctor_find(
			d, "mount-point", DOCTOR_WARNING,
			"on %s, the last folder among the arguments, something is mounted already",
			found);
		doctor_mend(d, "another, empty folder: any will do");
	} else if (!directory_is_empty(found)) {
		bool refuses = library_starting(p, "libfuse.so");

		doctor_find(d, "mount-point", refuses ? DOCTOR_WARNING : DOCTOR_NOTE,
			    "%s, the last folder among the arguments, is not empty%s", found,
			    refuses ? ": libfuse 2 refuses that of a mount point" : "");
		doctor_mend(d, "another, empty folder: any will do; or -o nonempty");
	} else {
		doctor_find(d, "mount-point", DOCTOR_OK, "%s is an empty folder", found);
	}
}

void doctor_check_command(struct doctor *d)
{
	static struct program p;

	if (!d->command || !check_program(d, &p))
		return;
	check_fusermount(d, &p);
	check_allow_other(d);
	check_mount_point(d, &p);
}
