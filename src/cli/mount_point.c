/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE mount of our own: mount(2) as root, fusermount3 otherwise.
 */
#include "cli/mount_point.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/cli.h"

#define FS_TYPE "fuse.fusewire"

static const struct {
	const char *name;
	unsigned long set;
	unsigned long clear;
} flag_options[] = {
	{ "ro", MS_RDONLY, 0 },
	{ "rw", 0, MS_RDONLY },
	{ "nosuid", MS_NOSUID, 0 },
	{ "suid", 0, MS_NOSUID },
	{ "nodev", MS_NODEV, 0 },
	{ "dev", 0, MS_NODEV },
	{ "noexec", MS_NOEXEC, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "noatime", MS_NOATIME, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "sync", MS_SYNCHRONOUS, 0 },
	{ "async", 0, MS_SYNCHRONOUS },
	{ "dirsync", MS_DIRSYNC, 0 },
};

/* Options of the kernel's FUSE that go into the text; those that take a number end with '='. */
static const char *const text_options[] = { "allow_other", "default_permissions", "max_read=" };

static bool is_flag_option(const char *word, unsigned long *flags)
{
	for (size_t i = 0; i < array_size(flag_options); i++) {
		if (strcmp(word, flag_options[i].name) == 0) {
			*flags = (*flags | flag_options[i].set) & ~flag_options[i].clear;
			return true;
		}
	}
	return false;
}

static bool is_text_option(const char *word)
{
	for (size_t i = 0; i < array_size(text_options); i++) {
		size_t len = strlen(text_options[i]);

		if (text_options[i][len - 1] != '=') {
			if (strcmp(word, text_options[i]) == 0)
				return true;
		} else if (strncmp(word, text_options[i], len) == 0 && word[len] &&
			   strspn(word + len, "0123456789") == strlen(word + len)) {
			return true;
		}
	}
	return false;
}

/* Check what the user gave; divide it into flags of mount(2) and the rest, with ours in front. */
static int parse_options(const char *options, unsigned long *ret_flags, char *rest, size_t size)
{
	char copy[MOUNT_OPTIONS_MAX];
	char *save = NULL;
	size_t len;

	if (strlen(options) >= sizeof(copy)) {
		cli_error("-o: more than %d bytes", MOUNT_OPTIONS_MAX - 1);
		return -EINVAL;
	}
	snprintf(copy, sizeof(copy), "%s", options);
	/* The driver checks modes, as every virtio-fs driver does; a later max_read wins. */
	len = (size_t)snprintf(rest, size, "default_permissions,max_read=1048576");
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (is_flag_option(word, ret_flags))
			continue;
		if (!is_text_option(word)) {
			cli_error("-o: '%s' is not an option that we know", word);
			return -EINVAL;
		}
		len += (size_t)snprintf(rest + len, size - len, ",%s", word);
	}
	return 0;
}

/* Blanks and backslashes in mountinfo's paths are written as octal: \\040. */
static void decode_path(char *path)
{
	static const char *const escapes[] = { "\\040", "\\011", "\\012", "\\134" };
	static const char chars[] = " \t\n\\";
	char *to = path;

	for (const char *from = path; *from; to++) {
		*to = *from;
		for (size_t i = 0; i < array_size(escapes); i++) {
			if (strncmp(from, escapes[i], 4) == 0) {
				*to = chars[i];
				from += 3;
				break;
			}
		}
		from++;
	}
	*to = '\0';
}

/* The device number of what is mounted last at @path: "0:57"; "" when nothing is. */
static void find_mount(const char *path, char *dev, size_t size)
{
	autofree char *line = NULL;
	size_t cap = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	dev[0] = '\0';
	while (f && getline(&line, &cap, f) > 0) {
		char number[32], at[4 * PATH_MAX];

		if (sscanf(line, "%*d %*d %31s %*s %16383s", number, at) != 2)
			continue;
		decode_path(at);
		if (strcmp(at, path) == 0)
			snprintf(dev, size, "%s", number);
	}
	if (f)
		fclose(f);
}

static int mount_as_root(struct mount_point *mp, const struct stat *st, const char *source,
			 unsigned long flags, const char *rest)
{
	char data[MOUNT_OPTIONS_MAX + 256];
	autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u,%s", fd,
		 st->st_mode & S_IFMT, getuid(), getgid(), rest);
	if (mount(source, mp->path, FS_TYPE, flags, data) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Run fusermount3, with @sock as its descriptor 3 unless it is -1. Return: its exit status, or negative errno. */
static int run_helper(const char *const argv[], int sock)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int status, err;
	pid_t pid;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	if (sock >= 0)
		posix_spawn_file_actions_adddup2(&actions, sock, 3);
	err = posix_spawnp(&pid, argv[0], &actions, &attr, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	if (err)
		return -err;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -EIO;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(sizeof(fd)))
		return -EIO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

static int mount_by_helper(struct mount_point *mp, const char *source, unsigned long flags,
			   const char *rest)
{
	char opts[2 * MOUNT_OPTIONS_MAX + PATH_MAX];
	const char *const argv[] = { "fusermount3", "-o", opts, "--", mp->path, NULL };
	size_t len;
	int pair[2], fd = -EIO;

	len = (size_t)snprintf(opts, sizeof(opts), "%s,subtype=fusewire", rest);
	for (size_t i = 0; i < array_size(flag_options); i++) {
		if (flags & flag_options[i].set)
			len += (size_t)snprintf(opts + len, sizeof(opts) - len, ",%s",
						flag_options[i].name);
	}
	/* It takes a backslash before a comma. */
	len += (size_t)snprintf(opts + len, sizeof(opts) - len, ",fsname=");
	for (const char *s = source; *s && len + 3 < sizeof(opts); s++) {
		if (*s == ',' || *s == '\\')
			opts[len++] = '\\';
		opts[len++] = *s;
	}
	opts[len] = '\0';
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	setenv("_FUSE_COMMFD", "3", 1);
	if (run_helper(argv, pair[1]) == 0)
		fd = receive_fd(pair[0]);
	unsetenv("_FUSE_COMMFD");
	close_fd(&pair[0]);
	close_fd(&pair[1]);
	if (fd >= 0 && fd_set_nonblock(fd, true) < 0)
		close_fd(&fd);
	return fd;
}

int mount_point_mount(struct mount_point *mp, const char *path, const char *source,
		      const char *options)
{
	unsigned long flags = MS_NOSUID | MS_NODEV;
	char rest[MOUNT_OPTIONS_MAX + 64];
	struct stat st;
	int fd = parse_options(options, &flags, rest, sizeof(rest));

	mp->path[0] = mp->dev[0] = '\0';
	mp->helper = false;
	if (fd < 0)
		return fd;
	if (!realpath(path, mp->path) || stat(mp->path, &st) < 0) {
		fd = -errno;
		cli_error("mount point %s: %s", path, strerror(errno));
		mp->path[0] = '\0';
		return fd;
	}
	/* The kernel mounts FUSE at a file, too, and then finds that the device's root is a directory. */
	if (!S_ISDIR(st.st_mode)) {
		cli_error("mount point %s: %s: give a directory", path, strerror(ENOTDIR));
		mp->path[0] = '\0';
		return -ENOTDIR;
	}
	fd = mount_as_root(mp, &st, source, flags, rest);
	if (fd == -EPERM || fd == -EACCES) {
		mp->helper = true;
		fd = mount_by_helper(mp, source, flags, rest);
	}
	if (fd < 0) {
		cli_error("cannot mount at %s: %s", path,
			  mp->helper ? "fusermount3 failed" : strerror(-fd));
		mp->path[0] = '\0';
		return fd;
	}
	find_mount(mp->path, mp->dev, sizeof(mp->dev));
	return fd;
}

void mount_point_unmount(const struct mount_point *mp)
{
	const char *const argv[] = { "fusermount3", "-u", "-z", "-q", "--", mp->path, NULL };
	char dev[sizeof(mp->dev)];

	if (!mp->path[0])
		return;
	find_mount(mp->path, dev, sizeof(dev));
	if (!dev[0] || strcmp(dev, mp->dev) != 0)
		return;
	if (!mp->helper && umount2(mp->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		cli_error("cannot unmount %s: %s", mp->path, strerror(errno));
	if (mp->helper && run_helper(argv, -1) != 0)
		cli_error("cannot unmount %s: fusermount3 failed", mp->path);
}

void mount_point_unmount_dead(const struct mount_point *mp)
{
	struct statfs st;

	/* What somebody mounted there meanwhile may have our device number, but answers. */
	if (statfs(mp->path, &st) < 0 && errno == ENOTCONN)
		mount_point_unmount(mp);
}
