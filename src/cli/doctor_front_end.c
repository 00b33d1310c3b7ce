/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The other side of the vhost-user socket: where it lies, who may connect, and what a QEMU says of its device.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/doctor.h"
#include "launch/processes.h"

/* A front-end's command line is long; what concerns us is in the first part of it. */
#define COMMAND_LINE_BYTES (64 << 10)

static void split_path(const char *path, char *dir, size_t size)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(dir, size, ".");
	else if (slash == path)
		snprintf(dir, size, "/");
	else
		snprintf(dir, size, "%.*s", (int)(slash - path), path);
}

/* Is somebody there? Return: 0 when somebody listens; negative errno. */
static int try_connect(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)(void *)&sun, sizeof(sun)) == 0 || errno == EAGAIN)
		return 0;
	return -errno;
}

static void check_socket_file(struct doctor *d, const struct stat *st)
{
	int err;

	if (!S_ISSOCK(st->st_mode)) {
		doctor_find(d, "socket", DOCTOR_PROBLEM, "%s is there and is no socket", d->socket);
		doctor_mend(d, "another path, or remove it");
		return;
	}
	err = try_connect(d->socket);
	if (!err)
		doctor_find(d, "socket", DOCTOR_NOTE,
			    "%s is served already: a second fusewire cannot use it", d->socket);
	else if (err == -ECONNREFUSED)
		doctor_find(d, "socket", DOCTOR_OK, "%s is a left-over that will be replaced",
			    d->socket);
	else
		doctor_find(d, "socket", DOCTOR_WARNING,
			    "%s is there and cannot be connected to: %s", d->socket,
			    strerror(-err));
}

static bool check_directory(struct doctor *d, const char *dir)
{
	struct stat st;

	if (stat(dir, &st) < 0) {
		doctor_find(d, "socket", DOCTOR_PROBLEM, "the folder %s of the socket: %s", dir,
			    strerror(errno));
		doctor_mend(d, "mkdir -p %s", dir);
		return false;
	}
	if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) < 0) {
		doctor_find(d, "socket", DOCTOR_PROBLEM,
			    "user %u may not make the socket in the folder %s: %s", geteuid(), dir,
			    strerror(errno));
		doctor_mend(
			d,
			"a folder of the user's own, such as $XDG_RUNTIME_DIR, or one that root "
			"makes: install -d -o %u /run/fusewire",
			geteuid());
		return false;
	}
	return true;
}

/* May other users come through to @dir at all? Return: NULL, or the folder that keeps them out. */
static const char *closed_to_others(char *dir)
{
	struct stat st;

	for (;;) {
		char *slash;

		if (stat(dir, &st) == 0 && !(st.st_mode & S_IXOTH))
			return dir;
		slash = strrchr(dir, '/');
		if (!slash || slash == dir)
			return NULL;
		*slash = '\0';
	}
}

/* libvirt starts QEMU as a user of its own. */
static void check_libvirt_user(struct doctor *d, const char *dir)
{
	static const char *const names[] = { "libvirt-qemu", "qemu" };
	char real[PATH_MAX];
	const struct passwd *pw = NULL;
	const char *closed;

	for (size_t i = 0; i < array_size(names) && !pw; i++)
		pw = getpwnam(names[i]);
	if (!pw || pw->pw_uid == geteuid())
		return;
	doctor_find(d, "qemu-user", DOCTOR_WARNING,
		    "libvirt runs QEMU as '%s', and the socket is user %u's alone (mode 0600)",
		    pw->pw_name, geteuid());
	closed = realpath(dir, real) ? closed_to_others(real) : NULL;
	doctor_mend(d, "after the start: setfacl -m u:%s:rw %s%s%s%s; or run fusewire as that user",
		    pw->pw_name, d->socket, closed ? "; chmod o+x " : "", closed ? closed : "",
		    closed ? " (it is closed to others)" : "");
}

static void check_socket(struct doctor *d)
{
	char dir[PATH_MAX];
	struct stat st;

	if (strlen(d->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		doctor_find(d, "socket", DOCTOR_PROBLEM,
			    "the path of a socket has at most %zu bytes",
			    sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		doctor_mend(d, "a shorter path, such as /run/NAME.sock");
		return;
	}
	split_path(d->socket, dir, sizeof(dir));
	if (!check_directory(d, dir))
		return;
	if (lstat(d->socket, &st) == 0)
		check_socket_file(d, &st);
	else
		doctor_find(d, "socket", DOCTOR_OK, "%s can be made", d->socket);
	check_libvirt_user(d, dir);
}

static bool has_any(const char *text, const char *const words[], size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		if (strstr(text, words[i]))
			return true;
	}
	return false;
}

static void check_user_of_socket(struct doctor *d, const char *name, int pid, const char *line)
{
	static const char *const shared[] = { "share=on",	"share=yes", "share=true",
					      "\"share\":true", "shared=on", "shared=true" };
	static const char *const sized[] = { "queue-size=", "\"queue-size\":", "queue_size=" };

	if (has_any(line, shared, array_size(shared))) {
		doctor_find(d, "guest-memory", DOCTOR_OK, "%s (process %d) shares its memory", name,
			    pid);
	} else {
		doctor_find(d, "guest-memory", DOCTOR_PROBLEM,
			    "%s (process %d) uses the socket and does not share its memory", name,
			    pid);
		doctor_mend(d,
			    "QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine "
			    "memory-backend=mem; libvirt: <memoryBacking><source type='memfd'/>"
			    "<access mode='shared'/></memoryBacking>; cloud-hypervisor: --memory "
			    "size=SIZE,shared=on");
	}
	if (has_any(line, sized, array_size(sized))) {
		doctor_find(d, "queue-size", DOCTOR_OK, "%s (process %d) sets the queue size", name,
			    pid);
	} else {
		doctor_find(d, "queue-size", DOCTOR_WARNING,
			    "%s (process %d) leaves the queue size at its default, 128 for QEMU: "
			    "requests "
			    "of 1 MiB need more",
			    name, pid);
		doctor_mend(d,
			    "QEMU: -device vhost-user-fs-pci,...,queue-size=1024; libvirt: <driver "
			    "type='virtiofs' queue='1024'/>; cloud-hypervisor: queue_size=1024");
	}
}

/* The command line of process @pid, each argument with its NUL. Return: bytes, 0 for none. */
static size_t read_command_line(int pid, char *buf, size_t size)
{
	char path[64];
	autoclose int fd = -1;
	size_t have = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && have + 1 < size && (n = read(fd, buf + have, size - 1 - have)) > 0)
		have += (size_t)n;
	buf[have] = '\0';
	return have;
}

/* Is @socket one of the values in @arg, rather than a part of a longer path? */
static bool has_value(const char *arg, const char *socket)
{
	const size_t len = strlen(socket);

	for (const char *at = strstr(arg, socket); at; at = strstr(at + 1, socket)) {
		if ((at == arg || strchr("=:\"", at[-1])) && (!at[len] || strchr(",\"", at[len])))
			return true;
	}
	return false;
}

/*
 * Is it a virtual machine with a device at @socket? Its options are arguments of their own; a shell, and whoever else
 * was told of such a command, has them in the middle of one. That of `fusewire vm --fs TAG=PATH` is none of a VMM.
 */
static bool is_front_end(const char *args, size_t size, const char *socket)
{
	bool device = false, value = false, fs = false;
	const char *before = "";

	for (const char *arg = args; arg < args + size; before = arg, arg += strlen(arg) + 1) {
		const bool named = has_value(arg, socket);
		const bool json = arg[0] == '{' && strstr(arg, "\"vhost-user-fs");

		/* cloud-hypervisor: one --fs may have several values. */
		if (!strncmp(arg, "--", 2))
			fs = !strcmp(arg, "--fs") || !strncmp(arg, "--fs=", 5);
		if (fs && named && strstr(arg, "socket=") && strstr(arg, "tag="))
			return true;
		if (!strcmp(before, "-device") || !strcmp(before, "--device"))
			device = device || json || !strncmp(arg, "vhost-user-fs", 13);
		value = value || named;
	}
	return device && value;
}

static void join_arguments(char *args, size_t size)
{
	for (size_t i = 0; i < size; i++)
		args[i] = args[i] ? args[i] : ' ';
}

/* Virtual machines that are there already and name the socket. */
static void check_users_of_socket(struct doctor *d)
{
	autofree char *line = malloc(COMMAND_LINE_BYTES);
	DIR *dir = opendir("/proc");
	const struct dirent *e;

	while (line && dir && (e = readdir(dir))) {
		char name[32];
		size_t size;
		int pid;

		if (!process_number(e->d_name, &pid) || pid == getpid())
			continue;
		size = read_command_line(pid, line, COMMAND_LINE_BYTES);
		if (!is_front_end(line, size, d->socket) ||
		    d->nr_findings + 2 > DOCTOR_FINDINGS_MAX / 2)
			continue;
		snprintf(name, sizeof(name), "%s", line);
		join_arguments(line, size);
		check_user_of_socket(d, name, pid, line);
	}
	if (dir)
		closedir(dir);
}

static void check_qemu(struct doctor *d)
{
	static const char *const version_argv[] = { "qemu-system-x86_64", "--version", NULL };
	static const char *const device_argv[] = { "qemu-system-x86_64", "-device",
						   "vhost-user-fs-pci,help", NULL };
	char text[4096];
	const char *version;

	if (doctor_output(version_argv, text, sizeof(text)) != 0) {
		doctor_find(d, "qemu", DOCTOR_NOTE, "qemu-system-x86_64 is not installed here");
		return;
	}
	text[strcspn(text, "\n")] = '\0';
	version = strstr(text, "version ");
	version = strdupa(version ? version + 8 : text);
	if (doctor_output(device_argv, text, sizeof(text)) != 0 || !strstr(text, "queue-size")) {
		doctor_find(d, "qemu", DOCTOR_WARNING, "QEMU %s has no vhost-user-fs-pci", version);
		doctor_mend(d, "QEMU 4.2 or later, with vhost-user");
		return;
	}
	doctor_find(d, "qemu", DOCTOR_OK,
		    "QEMU %s; give its device queue-size=1024 (the default is 128) and the guest "
		    "shared "
		    "memory",
		    version);
}

void doctor_check_front_end(struct doctor *d)
{
	check_qemu(d);
	if (!d->socket)
		return;
	check_socket(d);
	check_users_of_socket(d);
}
