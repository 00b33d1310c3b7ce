/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon finds on its mount point: an empty file system of ours, in its own mount namespace.
 *
 * Theory of operation
 * -------------------
 * Some daemons look at what they mounted: they open a file there, search /proc/mounts, wait for inode 1, or remount.
 * Since their mount(2) goes no further than to us, they would wait for ever. So a child of this process goes
 * into the namespace of the thread that mounts, and mounts there what it asked for, on a /dev/fuse of the
 * child's own. That descriptor comes back here, where a thread answers for it.
 *
 * Nothing is mounted for a process that shares our mount namespace: others would see it. No descriptor of the
 * namespace stays open here: it would keep alive what is mounted in it.
 *
 * The child only makes system calls: this process has other threads. That thread of ours must not wait for the
 * launch's, which waits for answers to what it asks about the mount point.
 */
#include "launch/placeholder.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "launch/fdpass.h"
#include "launch/namespace.h"
#include "launch/placeholder_fs.h"

/*
 * @dev: device number of the mount, which no other mount has
 * @path: mount point, from the root of its namespace
 */
struct placeholder_place {
	dev_t dev;
	char path[PATH_MAX];
};

struct placeholder {
	struct placeholder_fs fs; /* fd -1: a tmpfs, which needs no answers */
	struct placeholder_place place;
	void (*ended)(void *ctx);
	void *ctx;
	int wake_fd;
	pthread_t thread;
	bool thread_runs;
	bool has_ended; /* atomic */
};

/* Asks for nothing but the device number, which a FUSE mount tells without asking its daemon, and everybody. */
static int device_of(const char *path, dev_t *ret_dev)
{
	struct statx stx;

	if (statx(AT_FDCWD, path, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &stx) < 0)
		return -errno;
	*ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	return 0;
}

static int thread_path(pid_t tid, const char *path, char *buf, size_t size)
{
	int n = snprintf(buf, size, "/proc/%d/%s/%s", (int)tid, path[0] == '/' ? "root" : "cwd",
			 path);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Run @fn in a child that is in the namespaces of @tid; it reports over the socket that is returned. */
static int run_inside(pid_t tid, int (*fn)(void *arg, int sock), void *arg, int *ret_sock,
		      pid_t *ret_pid)
{
	struct namespace_fds ns = { -1, -1 };
	int err = namespace_open(tid, &ns);
	int pair[2];
	pid_t pid;

	if (!err && ns.mnt < 0)
		err = -EXDEV;
	if (!err && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		err = -errno;
	if (err) {
		namespace_close(&ns);
		return err;
	}
	pid = fork();
	if (pid == 0) {
		err = namespace_enter(&ns);
		if (!err)
			err = fn(arg, pair[1]);
		_exit(err < 0 && fdpass_send(pair[1], err, -1) < 0);
	}
	err = pid < 0 ? -errno : 0;
	namespace_close(&ns);
	close(pair[1]);
	if (err)
		close(pair[0]);
	*ret_sock = pair[0];
	*ret_pid = pid;
	return err;
}

struct mount_call {
	const struct placeholder_config *config;
	int target; /* O_PATH, opened before the namespace was entered: it is the thread's */
	char at[64]; /* path of that descriptor */
	char options[LAUNCH_OPTIONS_BYTES + 32];
};

/* Return: descriptor of the kernel's fuse device, or negative errno. */
static int child_mount_fuse(struct mount_call *call)
{
	const struct launch_mount *mnt = call->config->mnt;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (mount_options_replace_fd(call->config->options, fd, call->options,
				     sizeof(call->options)) < 0)
		return -ENAMETOOLONG;
	if (mount(mnt->source, call->at, mnt->type, call->config->flags, call->options) == 0)
		return fd;
	/* What is no block device is refused as the source of a fuseblk. */
	if (!strncmp(mnt->type, "fuseblk", 7)) {
		char type[LAUNCH_NAME_BYTES];

		snprintf(type, sizeof(type), "fuse%s", mnt->type + 7);
		if (mount(mnt->source, call->at, type, call->config->flags, call->options) == 0)
			return fd;
	}
	return -errno;
}

static int child_mount_tmpfs(struct mount_call *call, const char *path)
{
	const struct launch_mount *mnt = call->config->mnt;
	char name[PATH_MAX + sizeof(PLACEHOLDER_POLLED) + 1];

	if (mount(mnt->source, call->at, "tmpfs", call->config->flags & ~(unsigned long)MS_RDONLY,
		  "size=4k,nr_inodes=8,mode=0755") < 0)
		return -errno;
	snprintf(name, sizeof(name), "%s/%s", path, PLACEHOLDER_POLLED);
	close(open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	return 0;
}

static int child_mount(void *arg, int sock)
{
	struct mount_call *call = arg;
	struct placeholder_place place;
	int fd, err = 0;
	ssize_t n;

	memset(&place, 0, sizeof(place));
	/* By its name from this namespace's root: who looks at the descriptor's own path sees what lies beneath. */
	n = readlink(call->at, place.path, sizeof(place.path) - 1);
	if (n < 0)
		return -errno;
	fd = child_mount_fuse(call);
	if (fd < 0)
		err = child_mount_tmpfs(call, place.path);
	if (!err)
		err = device_of(place.path, &place.dev);
	if (err)
		/* The first reason tells more, unless there is no FUSE at all. */
		return fd == -ENOENT ? err : fd < 0 ? fd : err;
	err = fdpass_send(sock, 0, fd < 0 ? -1 : fd);
	if (!err && send(sock, &place, sizeof(place), MSG_NOSIGNAL) < 0)
		err = -errno;
	return err;
}

static void wait_child(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
}

/* Return: 0 with @ph's place and descriptor set, or negative errno. */
static int mount_by_child(struct placeholder *ph, const struct placeholder_config *config)
{
	struct mount_call call = { .config = config, .target = -1 };
	char path[PATH_MAX + 64];
	int sock, n, error = -ECHILD;
	pid_t pid;
	int err = thread_path(config->tid, config->mnt->target, path, sizeof(path));

	if (err)
		return err;
	call.target = open(path, O_PATH | O_CLOEXEC);
	if (call.target < 0)
		return -errno;
	snprintf(call.at, sizeof(call.at), "/proc/self/fd/%d", call.target);
	err = run_inside(config->tid, child_mount, &call, &sock, &pid);
	close(call.target);
	if (err)
		return err;
	n = fdpass_receive(sock, &error, &ph->fs.fd);
	if (n > 0 && !error &&
	    recv(sock, &ph->place, sizeof(ph->place), 0) != (ssize_t)sizeof(ph->place))
		error = -EPROTO;
	close(sock);
	wait_child(pid);
	return n > 0 ? error : n < 0 ? n : -ECHILD;
}

static void *placeholder_thread(void *arg)
{
	struct placeholder *ph = arg;
	struct pollfd p[] = {
		{ .fd = ph->fs.fd, .events = POLLIN },
		{ .fd = ph->wake_fd, .events = POLLIN },
	};
	char buf[PLACEHOLDER_BUFFER];
	int err = -EAGAIN;

	while ((!err || err == -EAGAIN) && !p[1].revents) {
		if (poll(p, array_size(p), -1) < 0)
			continue;
		do {
			err = p[0].revents ? placeholder_fs_serve(&ph->fs, buf) : -EAGAIN;
		} while (!err);
	}
	if (err == -ENODEV) {
		__atomic_store_n(&ph->has_ended, true, __ATOMIC_RELEASE);
		ph->ended(ph->ctx);
	}
	return NULL;
}

static int start_thread(struct placeholder *ph)
{
	int err;

	ph->wake_fd = eventfd_new();
	if (ph->wake_fd < 0)
		return ph->wake_fd;
	err = thread_start(&ph->thread, placeholder_thread, ph);
	ph->thread_runs = !err;
	return err;
}

int placeholder_mount(struct placeholder **ret_ph, const struct placeholder_config *config)
{
	struct placeholder *ph = calloc(1, sizeof(*ph));
	int err;

	if (!ph)
		return -ENOMEM;
	ph->fs = (struct placeholder_fs){
		.fd = -1,
		.rootmode = config->mnt->rootmode & S_IFMT,
		.uid = config->mnt->user_id,
		.gid = config->mnt->group_id,
	};
	ph->wake_fd = -1;
	ph->ended = config->ended;
	ph->ctx = config->ctx;
	err = mount_by_child(ph, config);
	if (!err && ph->fs.fd >= 0)
		err = start_thread(ph);
	if (err) {
		placeholder_free(ph);
		return err;
	}
	log_debug("a placeholder (%s) is on %s in the namespace of process %d",
		  ph->fs.fd >= 0 ? config->mnt->type : "tmpfs", ph->place.path, (int)config->tid);
	*ret_ph = ph;
	return 0;
}

bool placeholder_is_at(const struct placeholder *ph, pid_t tid, const char *path)
{
	char full[PATH_MAX + 64];
	dev_t dev;

	return ph && !placeholder_has_ended(ph) &&
	       thread_path(tid, path, full, sizeof(full)) == 0 && device_of(full, &dev) == 0 &&
	       dev == ph->place.dev;
}

static int child_unmount(void *arg, int sock)
{
	const struct placeholder_place *place = arg;
	dev_t dev;
	int err = device_of(place->path, &dev);

	if (err)
		return err;
	if (dev != place->dev)
		return -EINVAL;
	if (umount2(place->path, MNT_DETACH) < 0)
		return -errno;
	return fdpass_send(sock, 0, -1);
}

int placeholder_unmount(struct placeholder *ph, pid_t pid)
{
	int sock, n, error = -ECHILD, unused = -1;
	pid_t child;
	int err = run_inside(pid, child_unmount, &ph->place, &sock, &child);

	if (err)
		return err;
	n = fdpass_receive(sock, &error, &unused);
	close(sock);
	wait_child(child);
	if (n <= 0)
		return n < 0 ? n : -ECHILD;
	if (!error && ph->fs.fd < 0)
		__atomic_store_n(&ph->has_ended, true, __ATOMIC_RELEASE);
	return error;
}

bool placeholder_has_ended(const struct placeholder *ph)
{
	return ph && __atomic_load_n(&ph->has_ended, __ATOMIC_ACQUIRE);
}

void placeholder_free(struct placeholder *ph)
{
	if (!ph)
		return;
	if (ph->thread_runs) {
		fd_signal(ph->wake_fd);
		pthread_join(ph->thread, NULL);
	}
	close_fd(&ph->fs.fd);
	close_fd(&ph->wake_fd);
	free(ph);
}
