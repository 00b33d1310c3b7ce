/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers the system calls that the filter passes on: hands out sockets for /dev/fuse and accepts mounts.
 *
 * Theory of operation
 * -------------------
 * open("/dev/fuse") makes a pair of message sockets. One end is put into the process (ADDFD with SEND, one step
 * that also answers the call), the other waits in a table, under the inode number of the first. What the
 * process does with its end (passes it from fusermount3 to its parent, forks, dups it) is not our concern:
 * mount(2) names a descriptor, and /proc tells which socket that is. Then our end goes to the owner.
 *
 * A call that a signal interrupted comes a second time. Each answer can be given twice: an open leaves a
 * socket behind whose other end is closed, which is swept when room is needed; a mount or clone that was
 * done already is answered with success.
 *
 * This is no sandbox. Whoever runs the daemon trusts it with his rights, and calls that do not concern us
 * continue with arguments that another thread may have changed after we looked. Nothing that *we* do
 * depends on memory that was not copied first.
 */
#include "launch/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "launch/placeholder.h"
#include "launch/tracee.h"

/* Devices opened and not mounted or cloned yet, plus those mounted. A daemon needs one, and one for each thread that clones it. */
#define SUPERVISE_DEVICES 64
/*
 * Socket buffer, each way. A message must fit as a whole, and all replies that may be under way together
 * should. Where we may not raise it, the kernel's limit (net.core.wmem_max) holds.
 */
#define SUPERVISE_SOCKET_BYTES (16 << 20)

/* How long to wait for a call that was made to happen. */
#define SUPERVISE_REPLACE_NS NSEC_PER_SEC

/* Linux 6.6 */
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1ul
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS	   SECCOMP_IOW(4, __u64)
#endif

enum device_state {
	DEVICE_FREE,
	DEVICE_OPEN, /* opened, fd is our end */
	DEVICE_MOUNTED, /* fd was handed on */
};

struct opened_device {
	enum device_state state;
	int fd;
	int held; /* the daemon's end, once a dead descriptor has its number there; -1 */
	ino_t peer_ino;
	bool has_target;
	dev_t target_dev;
	ino_t target_ino;
};

struct supervisor {
	int notify_fd;
	struct supervisor_events events;
	struct seccomp_notif *req;
	size_t req_bytes;
	struct seccomp_notif_resp *resp;
	size_t resp_bytes;
	struct opened_device devices[SUPERVISE_DEVICES];
	bool placeholders;
	bool warned_unreadable;
	struct placeholder *placeholder;
	bool placeholder_due; /* the thread that mounted was interrupted before it got one */
	bool unmounted; /* and the owner was told */
	char path[PATH_MAX];
	struct launch_mount mnt;
	char data[LAUNCH_OPTIONS_BYTES];
	char options[LAUNCH_OPTIONS_BYTES]; /* data as it came */
};

/*
 * The caller sleeps until it has our answer: whoever of the two is next runs on the processor that the other leaves. Waking
 * up an idle one takes ten times as long as the rest, at each open(2) for reading and writing.
 */
static void supervisor_share_processor(int notify_fd)
{
	if (ioctl(notify_fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) < 0)
		log_debug("intercepted calls wake this program as usual: %s", strerror(errno));
}

int supervisor_new(struct supervisor **ret_sup, int notify_fd, bool placeholders,
		   const struct supervisor_events *events)
{
	struct seccomp_notif_sizes sizes;
	struct supervisor *sup;

	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
		return -errno;
	sup = calloc(1, sizeof(*sup));
	if (!sup)
		return -ENOMEM;
	sup->req_bytes = max_of((size_t)sizes.seccomp_notif, sizeof(*sup->req));
	sup->resp_bytes = max_of((size_t)sizes.seccomp_notif_resp, sizeof(*sup->resp));
	sup->req = calloc(1, sup->req_bytes);
	sup->resp = calloc(1, sup->resp_bytes);
	sup->notify_fd = -1;
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++)
		sup->devices[i].fd = sup->devices[i].held = -1;
	if (!sup->req || !sup->resp) {
		supervisor_free(sup);
		return -ENOMEM;
	}
	sup->notify_fd = notify_fd;
	sup->placeholders = placeholders;
	sup->events = *events;
	supervisor_share_processor(notify_fd);
	*ret_sup = sup;
	return 0;
}

void supervisor_free(struct supervisor *sup)
{
	if (!sup)
		return;
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		close_fd(&sup->devices[i].fd);
		close_fd(&sup->devices[i].held);
	}
	close_fd(&sup->notify_fd);
	placeholder_free(sup->placeholder);
	free(sup->req);
	free(sup->resp);
	free(sup);
}

int supervisor_fd(const struct supervisor *sup)
{
	return sup->notify_fd;
}

static bool supervisor_still_waits(struct supervisor *sup)
{
	return ioctl(sup->notify_fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &sup->req->id) == 0;
}

/* @error: 0 for success, negative errno, or 1: the kernel shall do the call itself. */
static void supervisor_answer(struct supervisor *sup, int error)
{
	memset(sup->resp, 0, sup->resp_bytes);
	sup->resp->id = sup->req->id;
	if (error > 0)
		sup->resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	else
		sup->resp->error = error;
	/* ENOENT: a signal took the thread out of the call, or killed it. */
	if (ioctl(sup->notify_fd, SECCOMP_IOCTL_NOTIF_SEND, sup->resp) < 0 && errno != ENOENT)
		log_error("cannot answer an intercepted system call: %s", strerror(errno));
}

static struct opened_device *device_find(struct supervisor *sup, ino_t peer_ino)
{
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		struct opened_device *d = &sup->devices[i];

		if (d->state != DEVICE_FREE && d->peer_ino == peer_ino)
			return d;
	}
	return NULL;
}

static void device_forget(struct opened_device *d)
{
	close_fd(&d->fd);
	close_fd(&d->held);
	*d = (struct opened_device){ .state = DEVICE_FREE, .fd = -1, .held = -1 };
}

/* The process closed its end, or never got it. */
static bool device_is_stale(const struct opened_device *d)
{
	struct pollfd p = { .fd = d->fd };

	return d->state == DEVICE_OPEN && poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

static struct opened_device *device_new_entry(struct supervisor *sup)
{
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		struct opened_device *d = &sup->devices[i];

		if (device_is_stale(d))
			device_forget(d);
		if (d->state == DEVICE_FREE)
			return d;
	}
	return NULL;
}

static void socket_set_buffers(int fd)
{
	const int bytes = SUPERVISE_SOCKET_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0)
		log_warn("cannot enlarge a socket's buffer: %s", strerror(errno));
}

/* Answers the call if it returns 0. */
static int supervisor_inject(struct supervisor *sup, struct opened_device *d, int open_flags)
{
	struct seccomp_notif_addfd add = {
		.id = sup->req->id,
		.flags = SECCOMP_ADDFD_FLAG_SEND,
		.newfd_flags = (uint32_t)open_flags & O_CLOEXEC,
	};
	autoclose int ours = -1;
	autoclose int theirs = -1;
	struct stat st;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	socket_set_buffers(ours);
	socket_set_buffers(theirs);
	if (fstat(theirs, &st) < 0)
		return -errno;
	if ((open_flags & O_NONBLOCK) && fcntl(theirs, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return -errno;
	add.srcfd = (uint32_t)theirs;
	if (ioctl(sup->notify_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0)
		return errno == ENOENT ? 0 : -errno;
	d->state = DEVICE_OPEN;
	d->peer_ino = st.st_ino;
	d->fd = TAKE_FD(ours);
	return 0;
}

/* A process that cannot be looked at is left to the kernel: a daemon among them mounts there, or fails, and is not served. */
static void warn_unreadable(struct supervisor *sup, int err)
{
	if (err != -EPERM || sup->warned_unreadable)
		return;
	sup->warned_unreadable = true;
	log_warn(
		"the memory of process %u cannot be read: if it is the daemon, it meets the "
		"kernel's /dev/fuse and is not served: run fusewire as root (CAP_SYS_PTRACE), or "
		"the daemon without prctl(PR_SET_DUMPABLE, 0), from a file that may be read, and "
		"with kernel.yama.ptrace_scope at most 1",
		sup->req->pid);
}

static int handle_open(struct supervisor *sup, uint64_t path_addr, int flags)
{
	static const char device[] = "/dev/fuse";
	char path[sizeof(device)];
	struct opened_device *d;
	int err;

	err = tracee_read_string((pid_t)sup->req->pid, path_addr, path, sizeof(path));
	warn_unreadable(sup, err);
	if (err < 0 || strcmp(path, device) || !supervisor_still_waits(sup))
		return 1;
	d = device_new_entry(sup);
	if (!d)
		return -ENFILE;
	err = supervisor_inject(sup, d, flags);
	if (err)
		return err;
	log_debug("process %u opened /dev/fuse", sup->req->pid);
	return -EINPROGRESS;
}

static int handle_openat2(struct supervisor *sup)
{
	const struct seccomp_data *sc = &sup->req->data;
	uint64_t flags;
	int err;

	/* struct open_how begins with the flags. */
	if (sc->args[3] < sizeof(flags))
		return 1;
	err = tracee_read((pid_t)sup->req->pid, sc->args[2], &flags, sizeof(flags));
	warn_unreadable(sup, err);
	if (err < 0 || (flags & O_ACCMODE) != O_RDWR)
		return 1;
	return handle_open(sup, sc->args[1], (int)flags);
}

static bool at_placeholder(struct supervisor *sup)
{
	return placeholder_is_at(sup->placeholder, (pid_t)sup->req->pid, sup->path);
}

/* The mounted device whose mount point is sup->path, where there is no placeholder. */
static struct opened_device *device_find_target(struct supervisor *sup)
{
	bool any = false;
	dev_t dev;
	ino_t ino;

	/* Most unmounts are of something else, which may hang: not even its path is looked at. */
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++)
		any |= sup->devices[i].has_target;
	if (!any || tracee_place((pid_t)sup->req->pid, sup->path, &dev, &ino) < 0)
		return NULL;
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		struct opened_device *d = &sup->devices[i];

		if (d->state == DEVICE_MOUNTED && d->has_target && d->target_dev == dev &&
		    d->target_ino == ino)
			return d;
	}
	return NULL;
}

static int read_mount_arguments(struct supervisor *sup)
{
	const struct seccomp_data *sc = &sup->req->data;
	pid_t tid = (pid_t)sup->req->pid;
	struct launch_mount *mnt = &sup->mnt;
	int err;

	memset(mnt, 0, sizeof(*mnt));
	if (sc->args[0] &&
	    tracee_read_string(tid, sc->args[0], mnt->source, sizeof(mnt->source)) < 0)
		mnt->source[0] = '\0';
	err = tracee_read_string(tid, sc->args[1], mnt->target, sizeof(mnt->target));
	if (err < 0)
		return err;
	sup->data[0] = '\0';
	if (sc->args[4])
		err = tracee_read_string(tid, sc->args[4], sup->data, sizeof(sup->data));
	if (err < 0)
		return err;
	mnt->read_only = sc->args[3] & MS_RDONLY;
	mnt->flags = sc->args[3] & ~(unsigned long)MS_RDONLY;
	return 0;
}

static void place_changed(void *ctx)
{
	struct supervisor *sup = ctx;

	sup->events.changed(sup->events.ctx);
}

static bool place_still_waits(void *ctx)
{
	return supervisor_still_waits(ctx);
}

/* What cannot be had is no reason to refuse the mount: most daemons never look. */
static void mount_placeholder(struct supervisor *sup)
{
	const struct placeholder_config config = {
		.tid = (pid_t)sup->req->pid,
		.mnt = &sup->mnt,
		.flags = sup->req->data.args[3],
		.options = sup->options,
		.ended = place_changed,
		.still_waits = place_still_waits,
		.ctx = sup,
	};
	int err;

	placeholder_free(sup->placeholder);
	sup->placeholder = NULL;
	sup->unmounted = false;
	if (!sup->placeholders)
		return;
	err = placeholder_mount(&sup->placeholder, &config);
	sup->placeholder_due = err == -ESRCH;
	if (err == -EXDEV || err == -ESRCH)
		log_debug("no placeholder on %s: %s", sup->mnt.target,
			  err == -ESRCH ? "a signal interrupted the mount"
					: "the command has no mounts of its own");
	else if (err)
		log_warn("the daemon does not find its file system on %s: no placeholder: %s",
			 sup->mnt.target, strerror(-err));
}

static int mount_device(struct supervisor *sup)
{
	struct launch_mount *mnt = &sup->mnt;
	pid_t tid = (pid_t)sup->req->pid;
	struct opened_device *d;
	bool has_target;
	dev_t dev = 0;
	ino_t ino, target = 0;
	int err;

	if (tracee_socket_inode(tid, mnt->fd, &ino) < 0)
		return -EINVAL;
	d = device_find(sup, ino);
	if (!d)
		return -EINVAL;
	has_target = d->state == DEVICE_OPEN && tracee_place(tid, mnt->target, &dev, &target) == 0;
	if (!supervisor_still_waits(sup))
		return -EINVAL;
	if (d->state == DEVICE_MOUNTED) {
		/* A signal came when it was mounted, but not yet here. */
		if (sup->placeholder_due)
			mount_placeholder(sup);
		return 0;
	}
	if (d->state != DEVICE_OPEN)
		return -EINVAL;
	d->has_target = has_target;
	d->target_dev = dev;
	d->target_ino = target;
	err = sup->events.mounted(sup->events.ctx, mnt, d->fd);
	if (err)
		return err;
	d->fd = -1;
	d->state = DEVICE_MOUNTED;
	mount_placeholder(sup);
	return 0;
}

static int handle_mount(struct supervisor *sup)
{
	const struct seccomp_data *sc = &sup->req->data;
	pid_t tid = (pid_t)sup->req->pid;
	char type[LAUNCH_NAME_BYTES];
	int err;

	if (sc->args[3] & MS_REMOUNT) {
		if (tracee_read_string(tid, sc->args[1], sup->path, sizeof(sup->path)) < 0)
			return 1;
		return (at_placeholder(sup) || device_find_target(sup)) &&
				       supervisor_still_waits(sup)
			       ? 0
			       : 1;
	}
	if (!sc->args[2])
		return 1;
	err = tracee_read_string(tid, sc->args[2], type, sizeof(type));
	warn_unreadable(sup, err);
	if (err < 0 || !mount_options_is_fuse(type))
		return 1;
	err = read_mount_arguments(sup);
	if (err)
		return err;
	memcpy(sup->mnt.type, type, sizeof(type));
	memcpy(sup->options, sup->data, sizeof(sup->options));
	log_debug("process %u mounts %s on %s, type %s: %s", sup->req->pid, sup->mnt.source,
		  sup->mnt.target, type, sup->data);
	err = mount_options_parse(sup->data, &sup->mnt);
	return err ? err : mount_device(sup);
}

static void tell_unmounted(struct supervisor *sup)
{
	if (!sup->unmounted)
		sup->events.unmounted(sup->events.ctx);
	sup->unmounted = true;
}

void supervisor_check(struct supervisor *sup)
{
	if (placeholder_has_ended(sup->placeholder))
		tell_unmounted(sup);
}

void supervisor_unmount(struct supervisor *sup, pid_t pid)
{
	int err;

	if (!sup->placeholder || placeholder_has_ended(sup->placeholder))
		return;
	err = placeholder_unmount(sup->placeholder, pid);
	if (err)
		log_debug("the placeholder cannot be unmounted: %s", strerror(-err));
	supervisor_check(sup);
}

static int handle_umount(struct supervisor *sup)
{
	struct opened_device *d;

	if (tracee_read_string((pid_t)sup->req->pid, sup->req->data.args[0], sup->path,
			       sizeof(sup->path)) < 0)
		return 1;
	if (at_placeholder(sup)) {
		if (!supervisor_still_waits(sup))
			return 1;
		/* The daemon may lack the right, as its fusermount does that is not setuid here. */
		supervisor_unmount(sup, (pid_t)sup->req->pid);
		tell_unmounted(sup);
		return 0;
	}
	d = device_find_target(sup);
	if (!d || !supervisor_still_waits(sup))
		return 1;
	d->has_target = false;
	tell_unmounted(sup);
	return 0;
}

/*
 * The new mount calls begin with fsopen(2). libfuse up to 3.17 does not use them; those who do fall back to mount(2)
 * on a kernel that does not have them.
 */
static int handle_fsopen(struct supervisor *sup)
{
	char type[LAUNCH_NAME_BYTES];

	if (tracee_read_string((pid_t)sup->req->pid, sup->req->data.args[0], type, sizeof(type)) <
		    0 ||
	    !mount_options_is_fuse(type))
		return 1;
	return -ENOSYS;
}

/* Put @src in the place of the caller's descriptor @fd. The call still waits for its answer. */
static int supervisor_put(struct supervisor *sup, int fd, int src)
{
	struct seccomp_notif_addfd add = {
		.id = sup->req->id,
		.flags = SECCOMP_ADDFD_FLAG_SETFD,
		.srcfd = (uint32_t)src,
		.newfd = (uint32_t)fd,
		.newfd_flags = O_CLOEXEC,
	};

	return ioctl(sup->notify_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0 ? -errno : 0;
}

/* The caller's end of the socket that was mounted. Return: a descriptor or negative errno. */
static int take_master(struct supervisor *sup, pid_t tid, int fd)
{
	const pid_t pid = tracee_process(tid);
	autoclose int theirs = pid < 0 ? -1 : tracee_take_fd(pid, fd);
	const struct opened_device *master;
	struct stat st;

	if (theirs < 0)
		return pid < 0 ? pid : theirs;
	if (fstat(theirs, &st) < 0)
		return -errno;
	master = device_find(sup, st.st_ino);
	if (!master || master->state != DEVICE_MOUNTED)
		return -EINVAL;
	return TAKE_FD(theirs);
}

/*
 * FUSE_DEV_IOC_CLONE. All clones of a device take requests from one queue: the caller gets one more descriptor of the
 * socket that was mounted, in the place of the one that it has opened.
 */
static int handle_clone(struct supervisor *sup)
{
	const struct seccomp_data *sc = &sup->req->data;
	const pid_t tid = (pid_t)sup->req->pid;
	autoclose int theirs = -1;
	struct opened_device *clone;
	uint32_t master_fd;
	ino_t ino;
	int err;

	if (tracee_socket_inode(tid, (int)sc->args[0], &ino) < 0)
		return 1;
	clone = device_find(sup, ino);
	if (!clone)
		return 1;
	if (tracee_read(tid, sc->args[2], &master_fd, sizeof(master_fd)) < 0)
		return -EFAULT;
	theirs = take_master(sup, tid, (int)master_fd);
	if (!supervisor_still_waits(sup))
		return -EINVAL;
	if (theirs < 0)
		return theirs == -EPERM ? -EPERM : -EINVAL;
	/* A signal came after it was done, and the call is made again. */
	if (clone->state == DEVICE_MOUNTED)
		return master_fd != (uint32_t)sc->args[0] ? 0 : -EINVAL;
	err = supervisor_put(sup, (int)sc->args[0], theirs);
	if (!err)
		device_forget(clone);
	return err;
}

static int supervisor_dispatch(struct supervisor *sup)
{
	const struct seccomp_data *sc = &sup->req->data;

	switch (sc->nr) {
#ifdef SYS_open
	case SYS_open:
		return handle_open(sup, sc->args[0], (int)sc->args[1]);
#endif
	case SYS_openat:
		return handle_open(sup, sc->args[1], (int)sc->args[2]);
	case SYS_openat2:
		return handle_openat2(sup);
	case SYS_mount:
		return handle_mount(sup);
	case SYS_umount2:
		return handle_umount(sup);
	case SYS_fsopen:
		return handle_fsopen(sup);
	case SYS_ioctl:
		return handle_clone(sup);
	default:
		return 1;
	}
}

static int supervisor_receive(struct supervisor *sup)
{
	/* The kernel refuses a buffer that is not zero. */
	memset(sup->req, 0, sup->req_bytes);
	if (ioctl(sup->notify_fd, SECCOMP_IOCTL_NOTIF_RECV, sup->req) == 0)
		return 0;
	if (errno != ENOENT && errno != EINTR)
		log_error("cannot receive an intercepted system call: %s", strerror(errno));
	return -errno;
}

static void supervisor_serve(struct supervisor *sup)
{
	int error = supervisor_dispatch(sup);

	/* An injected descriptor was the answer. */
	if (error != -EINPROGRESS)
		supervisor_answer(sup, error);
}

void supervisor_handle(struct supervisor *sup)
{
	if (supervisor_receive(sup) == 0)
		supervisor_serve(sup);
}

bool supervisor_knows(const struct supervisor *sup, ino_t ino)
{
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		const struct opened_device *d = &sup->devices[i];

		if (d->state >= DEVICE_MOUNTED && d->peer_ino == ino)
			return true;
	}
	return false;
}

int supervisor_replace(struct supervisor *sup, pid_t tid, int fd, int src)
{
	struct pollfd p = { .fd = sup->notify_fd, .events = POLLIN };
	const uint64_t end_ns = clock_now_ns() + SUPERVISE_REPLACE_NS;
	const struct seccomp_data *sc = &sup->req->data;
	uint64_t now_ns;
	int err;

	while ((now_ns = clock_now_ns()) < end_ns) {
		if (poll(&p, 1, (int)((end_ns - now_ns) / NSEC_PER_MSEC + 1)) <= 0)
			return -ETIMEDOUT;
		if (supervisor_receive(sup) < 0)
			continue;
		if ((pid_t)sup->req->pid != tid || sc->nr != SYS_ioctl || (int)sc->args[0] != fd) {
			supervisor_serve(sup);
			continue;
		}
		err = supervisor_put(sup, fd, src);
		supervisor_answer(sup, 0);
		return err;
	}
	return -ETIMEDOUT;
}

void supervisor_hold(struct supervisor *sup, int fd)
{
	struct opened_device *d;
	struct stat st;

	d = fstat(fd, &st) < 0 ? NULL : device_find(sup, st.st_ino);
	if (d && d->held < 0)
		d->held = TAKE_FD(fd);
	close_fd(&fd);
}

void supervisor_hang_up(struct supervisor *sup)
{
	for (unsigned int i = 0; i < SUPERVISE_DEVICES; i++) {
		/* ENOTCONN: ours is closed already, and that woke who waited. */
		if (sup->devices[i].held >= 0)
			(void)shutdown(sup->devices[i].held, SHUT_RDWR);
	}
}
