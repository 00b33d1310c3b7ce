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
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "launch/fdpass.h"
#include "launch/namespace.h"
#include "launch/placeholder_fs.h"
#include "launch/tracee.h"

/* Of the character device. */
#define FUSE_DEVICE_MAJOR 10
#define FUSE_DEVICE_MINOR 229
/* A child that takes longer over a report is killed, and is given so long to be gone. */
#define PLACEHOLDER_CHILD_S 3
#define PLACEHOLDER_REAP_MS 1000

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

/*
 * A child that goes into the namespaces of a thread. There, every path may be one that somebody laid out for us: what
 * is needed from outside is opened before. /proc is among it, by whose links descriptors are named.
 *
 * @tid: the thread
 * @identity: whose rights files are opened with inside, or NULL: ours
 * @still_waits: asked after the last look at @tid; or NULL: nobody can tell
 * @ctx: for @still_waits
 * @prepare: called before it enters; @same_user: it stays in our user namespace; or NULL
 * @run: called inside, with /proc as working directory; reports over @sock
 * @arg: for @prepare and @run
 */
struct child {
	pid_t tid;
	const struct tracee_identity *identity;
	bool (*still_waits)(void *ctx);
	void *ctx;
	int (*prepare)(void *arg, bool same_user);
	int (*run)(void *arg, int sock);
	void *arg;
	int proc;
	int sock; /* our end */
	pid_t pid;
};

/* Who has root's number, and not his rights in his namespace, must not open files as root. */
static int child_become(const struct tracee_identity *identity)
{
	if (!identity || (identity->fsuid == geteuid() && identity->fsgid == getegid()))
		return 0;
	if (syscall(SYS_setgroups, 0, NULL) < 0)
		return -errno;
	setfsgid(identity->fsgid);
	setfsuid(identity->fsuid);
	/* They say what was, not whether it worked. */
	return (uid_t)setfsuid((uid_t)-1) == identity->fsuid &&
			       (gid_t)setfsgid((gid_t)-1) == identity->fsgid
		       ? 0
		       : -EPERM;
}

static void __attribute__((noreturn))
child_main(const struct child *c, const struct namespace_fds *ns, int sock)
{
	int err = fchdir(c->proc) < 0 ? -errno : 0;

	if (!err && c->prepare)
		err = c->prepare(c->arg, ns->user < 0);
	if (!err)
		err = namespace_enter(ns);
	/* Once more: entering has left us in the root of that namespace. */
	if (!err && fchdir(c->proc) < 0)
		err = -errno;
	if (!err)
		err = c->run(c->arg, sock);
	_exit(err < 0 && fdpass_send(sock, err, -1) < 0);
}

/* Return: 0 with @c's sock and pid set, or negative errno. */
static int child_start(struct child *c)
{
	const struct timeval limit = { .tv_sec = PLACEHOLDER_CHILD_S };
	struct namespace_fds ns = { -1, -1 };
	int err = namespace_open(c->tid, &ns);
	int pair[2];

	if (!err && ns.mnt < 0)
		err = -EXDEV;
	if (!err && c->still_waits && !c->still_waits(c->ctx))
		err = -ESRCH;
	if (!err && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		err = -errno;
	if (err) {
		namespace_close(&ns);
		return err;
	}
	(void)setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	c->pid = fork();
	if (c->pid == 0)
		child_main(c, &ns, pair[1]);
	err = c->pid < 0 ? -errno : 0;
	namespace_close(&ns);
	close(pair[1]);
	if (err)
		close(pair[0]);
	c->sock = pair[0];
	return err;
}

/* It may stand still, or wait for a file system that does not answer: a process of that namespace can make it so. */
static void child_end(const struct child *c)
{
	const struct timespec pause = { .tv_nsec = 1000 * 1000 };

	close(c->sock);
	kill(c->pid, SIGKILL);
	for (int i = 0; i < PLACEHOLDER_REAP_MS; i++) {
		if (waitpid(c->pid, NULL, WNOHANG) != 0)
			return;
		nanosleep(&pause, NULL);
	}
}

/* @ret: what the child sends after a success, @size bytes. Return: 0, what the child reports, -ETIMEDOUT, ... */
static int child_result(const struct child *c, int *ret_fd, void *ret, size_t size)
{
	int error = -ECHILD;
	int n = fdpass_receive(c->sock, &error, ret_fd);

	if (n > 0 && !error && size && recv(c->sock, ret, size, 0) != (ssize_t)size)
		error = -EPROTO;
	if (n == -EAGAIN)
		return -ETIMEDOUT;
	return n > 0 ? error : n < 0 ? n : -ECHILD;
}

struct mount_call {
	const struct placeholder_config *config;
	struct tracee_identity identity;
	bool checked; /* the thread may not mount by itself: as fusermount would do it for him */
	unsigned long flags;
	int target; /* O_PATH, opened before the namespace was entered: it is the thread's */
	int device; /* O_PATH of /dev/fuse, the true one; -1 where there is none */
	int fuse; /* opened; a mount wants it opened in its user namespace */
	char at[64]; /* path of target, from /proc */
	char options[LAUNCH_OPTIONS_BYTES + 32];
};

/* Return: an O_PATH descriptor, or -ENOENT when that is not FUSE's device. */
static int open_device(void)
{
	autoclose int fd = open("/dev/fuse", O_PATH | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != makedev(FUSE_DEVICE_MAJOR, FUSE_DEVICE_MINOR))
		return -ENOENT;
	return TAKE_FD(fd);
}

/* Only ever reopens what open_device() has looked at. Return: 0 with call->fuse set, or negative errno. */
static int child_open_fuse(struct mount_call *call)
{
	char path[64];

	if (call->device < 0)
		return call->device;
	snprintf(path, sizeof(path), "self/fd/%d", call->device);
	call->fuse = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	return call->fuse < 0 ? -errno : 0;
}

/* fusermount's rule: the mount point is the user's, or he may write to it. */
static int child_may_cover(const struct mount_call *call)
{
	struct statfs sfs;
	struct stat st;

	if (fstatfs(call->target, &sfs) < 0 || fstat(call->target, &st) < 0)
		return -errno;
	if (sfs.f_type == PROC_SUPER_MAGIC)
		return -EPERM;
	if (st.st_uid == call->identity.fsuid)
		return 0;
	if (S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX))
		return -EPERM;
	return syscall(SYS_faccessat2, AT_FDCWD, call->at, W_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static int child_mount_prepare(void *arg, bool same_user)
{
	struct mount_call *call = arg;
	int err;

	/* Before it is somebody else: he need not have the right to open it. */
	if (same_user)
		(void)child_open_fuse(call);
	err = child_become(&call->identity);
	if (!err && call->checked)
		err = child_may_cover(call);
	return err;
}

/* Return: descriptor of the kernel's fuse device, or negative errno. */
static int child_mount_fuse(struct mount_call *call)
{
	const struct launch_mount *mnt = call->config->mnt;
	const bool block = !strncmp(mnt->type, "fuseblk", 7);
	int err = call->fuse < 0 ? child_open_fuse(call) : 0;

	if (err)
		return err;
	if (mount_options_replace_fd(call->config->options, call->fuse, call->options,
				     sizeof(call->options)) < 0)
		return -ENAMETOOLONG;
	/* A block device would be opened with our rights. */
	if (!(block && call->checked) &&
	    mount(mnt->source, call->at, mnt->type, call->flags, call->options) == 0)
		return call->fuse;
	/* What is no block device is refused as the source of a fuseblk. */
	if (block) {
		char type[LAUNCH_NAME_BYTES];

		snprintf(type, sizeof(type), "fuse%s", mnt->type + 7);
		if (mount(mnt->source, call->at, type, call->flags, call->options) == 0)
			return call->fuse;
	}
	return -errno;
}

static int child_mount_tmpfs(struct mount_call *call, const char *path)
{
	const struct launch_mount *mnt = call->config->mnt;
	char name[PATH_MAX + sizeof(PLACEHOLDER_POLLED) + 1];

	if (mount(mnt->source, call->at, "tmpfs", call->flags & ~(unsigned long)MS_RDONLY,
		  "size=4k,nr_inodes=8,mode=0755") < 0)
		return -errno;
	snprintf(name, sizeof(name), "%s/%s", path, PLACEHOLDER_POLLED);
	close(open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
	return 0;
}

static int device_of(const char *path, dev_t *ret_dev)
{
	autoclose int fd = open(path, O_PATH | O_CLOEXEC);

	return fd < 0 ? -errno : tracee_device(fd, ret_dev);
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

static int mount_with(struct placeholder *ph, struct mount_call *call, int proc)
{
	struct child child = {
		.tid = call->config->tid,
		.still_waits = call->config->still_waits,
		.ctx = call->config->ctx,
		.prepare = child_mount_prepare,
		.run = child_mount,
		.arg = call,
		.proc = proc,
	};
	int err = child_start(&child);

	if (err)
		return err;
	err = child_result(&child, &ph->fs.fd, &ph->place, sizeof(ph->place));
	child_end(&child);
	return err;
}

/* Return: 0 with @ph's place and descriptor set, or negative errno. */
static int mount_by_child(struct placeholder *ph, const struct placeholder_config *config)
{
	struct mount_call call = { .config = config, .fuse = -1, .flags = config->flags };
	autoclose int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	autoclose int target = tracee_open_path(config->tid, config->mnt->target);
	autoclose int device = open_device();
	int err = tracee_identify(config->tid, &call.identity);

	if (proc < 0 || target < 0 || err)
		return err ? err : target < 0 ? target : -ENOENT;
	call.target = target;
	call.device = device;
	/* Where all are one user's processes there is nobody to protect. */
	call.checked = !call.identity.may_mount && call.identity.euid != geteuid();
	if (call.checked)
		call.flags |= MS_NOSUID | MS_NODEV;
	snprintf(call.at, sizeof(call.at), "self/fd/%d", target);
	return mount_with(ph, &call, proc);
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
	autoclose int fd = -1;
	dev_t dev;

	if (!ph || placeholder_has_ended(ph))
		return false;
	fd = tracee_open_path(tid, path);
	return fd >= 0 && tracee_device(fd, &dev) == 0 && dev == ph->place.dev;
}

static int child_unmount(void *arg, int sock)
{
	const struct placeholder_place *place = arg;
	autoclose int fd = open(place->path, O_PATH | O_CLOEXEC);
	char at[64];
	dev_t dev;
	int err = fd < 0 ? -errno : tracee_device(fd, &dev);

	if (err)
		return err;
	if (dev != place->dev)
		return -EINVAL;
	/* By the descriptor: the path may lead elsewhere by now. */
	snprintf(at, sizeof(at), "self/fd/%d", fd);
	if (umount2(at, MNT_DETACH) < 0)
		return -errno;
	return fdpass_send(sock, 0, -1);
}

int placeholder_unmount(struct placeholder *ph, pid_t pid)
{
	autoclose int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct child child = {
		.tid = pid,
		.run = child_unmount,
		.arg = &ph->place,
		.proc = proc,
	};
	int unused = -1, err;

	if (proc < 0)
		return -errno;
	err = child_start(&child);
	if (err)
		return err;
	err = child_result(&child, &unused, NULL, 0);
	child_end(&child);
	if (!err && ph->fs.fd < 0)
		__atomic_store_n(&ph->has_ended, true, __ATOMIC_RELEASE);
	return err;
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
