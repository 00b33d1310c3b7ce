/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mount namespaces: one of our own, and the one of another process.
 */
#include "launch/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

static int write_file(const char *path, const char *text)
{
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

/* Without privilege only the own numbers can be mapped, and only to one number each. */
static int unshare_user(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char map[64];
	int err;

	if (uid != getuid() || gid != getgid())
		return -EPERM;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return -errno;
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	err = write_file("/proc/self/uid_map", map);
	if (!err)
		err = write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	if (!err)
		err = write_file("/proc/self/gid_map", map);
	/* Rights in this namespace are no reason to leave it out. */
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		err = -errno;
	return err;
}

int namespace_unshare(bool may_user)
{
	int err = unshare(CLONE_NEWNS) < 0 ? -errno : 0;

	if (err == -EPERM && may_user)
		err = unshare_user();
	if (!err && mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		err = -errno;
	return err;
}

/* A line of mountinfo: id, parent, device, root, mount point, options, optional fields such as "shared:1", "-", ... */
static bool is_shared_root(const char *line)
{
	char point[PATH_MAX];
	const char *end = strstr(line, " - "), *shared = strstr(line, " shared:");

	return sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && !strcmp(point, "/") &&
	       shared && end && shared < end;
}

bool namespace_mounts_are_shared(void)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t cap = 0;
	bool shared = false;

	while (file && !shared && getline(&line, &cap, file) > 0)
		shared = is_shared_root(line);
	free(line);
	if (file)
		fclose(file);
	return shared;
}

int namespace_probe(bool may_user)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(-namespace_unshare(may_user));
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

/* *@ret_fd stays as it is when the namespace is ours, too. */
static int open_foreign(pid_t tid, const char *kind, int *ret_fd)
{
	char path[64], own[64];
	struct stat theirs, ours;
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)tid, kind);
	snprintf(own, sizeof(own), "/proc/self/ns/%s", kind);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &theirs) < 0 || stat(own, &ours) < 0)
		return -errno;
	if (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino)
		*ret_fd = TAKE_FD(fd);
	return 0;
}

int namespace_open(pid_t tid, struct namespace_fds *ret_fds)
{
	struct namespace_fds fds = { -1, -1 };
	int err = open_foreign(tid, "user", &fds.user);

	if (!err)
		err = open_foreign(tid, "mnt", &fds.mnt);
	if (err) {
		namespace_close(&fds);
		return err;
	}
	*ret_fds = fds;
	return 0;
}

void namespace_close(struct namespace_fds *fds)
{
	close_fd(&fds->user);
	close_fd(&fds->mnt);
}

int namespace_enter(const struct namespace_fds *fds)
{
	if (fds->user >= 0 && setns(fds->user, CLONE_NEWUSER) < 0)
		return -errno;
	if (fds->mnt >= 0 && setns(fds->mnt, CLONE_NEWNS) < 0)
		return -errno;
	return 0;
}
