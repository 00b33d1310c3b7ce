/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes the listening socket of a device, and removes it.
 */
#include "vhost/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"

/* Front-ends that connect at the same time: more than one is refused anyway. */
#define LISTEN_BACKLOG 16

static int say(char *text, int err, const char *path, const char *what)
{
	snprintf(text, VHOST_LISTEN_TEXT, "%s: %s", path, what);
	return err;
}

static int say_errno(char *text, int err, const char *path, const char *what)
{
	snprintf(text, VHOST_LISTEN_TEXT, "%s: %s: %s", path, what, strerror(-err));
	return err;
}

/* Does somebody serve the socket at @addr? Return: 1, 0 (stale), -ENOENT (gone), negative errno. */
static int socket_is_served(const struct sockaddr_un *addr)
{
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN)
		return 1;
	/* A socket of another type is served too, or was: EPROTOTYPE does not tell. Leave it alone. */
	return errno == ECONNREFUSED ? 0 : -errno;
}

/* Make room at @path: remove a socket that nobody serves. */
static int remove_stale(const struct sockaddr_un *addr, char *text)
{
	const char *path = addr->sun_path;
	struct stat st;
	int err;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : say_errno(text, -errno, path, "cannot be looked at");
	if (!S_ISSOCK(st.st_mode))
		return say(text, -EEXIST, path, "exists and is not a socket");
	err = socket_is_served(addr);
	if (err == 1)
		return say(text, -EADDRINUSE, path, "another process serves this socket");
	if (err < 0 && err != -ENOENT)
		return say_errno(text, err, path, "cannot find out whether this socket is served");
	if (err == 0 && unlink(path) < 0 && errno != ENOENT)
		return say_errno(text, -errno, path, "cannot remove the stale socket");
	return 0;
}

/* @path is what the user knows, for @text. */
static int bind_at(int fd, const struct sockaddr_un *addr, const char *path, char *text)
{
	/* The new inode takes its mode from the socket's own: it is never open to others for a moment. */
	if (fchmod(fd, 0600) < 0)
		return say_errno(text, -errno, path, "cannot set the socket's mode");
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return 0;
	if (errno == ENOENT || errno == ENOTDIR)
		return say_errno(text, -errno, path, "no folder to put the socket in");
	return say_errno(text, -errno, path, "cannot bind the socket");
}

/* Move the socket from where it was bound to @to, unless somebody serves that. */
static int move_into_place(const char *from, const struct sockaddr_un *to, char *text)
{
	const char *path = to->sun_path;

	/* Once more after a stale one was removed; whoever is faster than us then has won. */
	for (int i = 0; i < 2; i++) {
		int err = remove_stale(to, text);

		if (err < 0)
			return err;
		if (renameat2(AT_FDCWD, from, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
			return 0;
		/* A file system without that flag: the moment between look and move is left. */
		if (errno == EINVAL && rename(from, path) == 0)
			return 0;
		if (errno != EEXIST)
			return say_errno(text, -errno, path, "cannot move the socket into place");
	}
	return say(text, -EADDRINUSE, path, "another process serves this socket");
}

/* Give the socket to @group, through a handle on the inode that cannot be exchanged meanwhile. */
static int share_with_group(int handle, const char *path, gid_t group, char *text)
{
	char self[64];

	if (fchownat(handle, "", (uid_t)-1, group, AT_EMPTY_PATH) < 0)
		return say_errno(text, -errno, path, "cannot give the socket to the group");
	snprintf(self, sizeof(self), "/proc/self/fd/%d", handle);
	if (chmod(self, 0660) < 0)
		return say_errno(text, -errno, path, "cannot open the socket to the group");
	return 0;
}

static int listen_bound(struct vhost_listener *l, gid_t group, char *text)
{
	autoclose int handle = open(l->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int err;

	if (handle < 0 || fstat(handle, &st) < 0)
		return say_errno(text, -errno, l->path, "cannot find the socket just made");
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	if (group != VHOST_LISTEN_NO_GROUP) {
		err = share_with_group(handle, l->path, group, text);
		if (err < 0)
			return err;
	}
	if (listen(l->fd, LISTEN_BACKLOG) < 0)
		return say_errno(text, -errno, l->path, "cannot listen");
	return 0;
}

static int address_of(struct sockaddr_un *ret, const char *path)
{
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

int vhost_listen_open(struct vhost_listener *ret, const char *path, gid_t group,
		      char text[VHOST_LISTEN_TEXT])
{
	struct vhost_listener l = { .fd = -1 };
	struct sockaddr_un final, first;
	int err;

	if (!*path)
		return say(text, -EINVAL, "socket", "the path is empty");
	if (address_of(&final, path) < 0)
		return say(text, -ENAMETOOLONG, path, "path of a socket has at most 107 bytes");
	/* Bound beside its place: who waits for the path to appear must be able to connect at once. */
	if (asprintf(&l.path, "%s.%d", path, (int)getpid()) < 0)
		return say_errno(text, -ENOMEM, path, "cannot listen");
	if (address_of(&first, l.path) < 0) {
		l.path[strlen(path)] = 0;
		first = final;
	}
	l.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l.fd < 0) {
		err = say_errno(text, -errno, path, "cannot make a socket");
		goto fail;
	}
	err = remove_stale(&first, text);
	if (err == 0)
		err = bind_at(l.fd, &first, path, text);
	if (err == 0)
		err = listen_bound(&l, group, text);
	if (err == 0 && strcmp(l.path, path) != 0)
		err = move_into_place(l.path, &final, text);
	if (err < 0)
		goto fail;
	l.path[strlen(path)] = 0;
	*ret = l;
	return 0;
fail:
	vhost_listen_close(&l);
	return err;
}

void vhost_listen_close(struct vhost_listener *l)
{
	struct stat st;

	/* While the socket is open its inode lives, and no other file can have its number. */
	if (l->fd >= 0 && l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
	    st.st_ino == l->ino)
		unlink(l->path);
	close_fd(&l->fd);
	free(TAKE_PTR(l->path));
}
