/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tries the interception itself: a command of ours opens /dev/fuse, mounts and looks, and says by its exit status how far
 * it came.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "cli/doctor.h"
#include "launch/launch.h"

#define PROBE_TIMEOUT_MS 10000
/* Every machine has it, and nobody else sees what is put on it. Not /proc, which sanitizers need. */
#define PROBE_MOUNT_POINT "/dev"

/* Bits of the exit status. A program that cannot even be started ends with other ones. */
enum probe_bit {
	PROBE_RAN = 64,
	PROBE_SOCKET = 1,
	PROBE_MOUNTED = 2,
	PROBE_FUSE = 4, /* a placeholder of FUSE */
	PROBE_TMPFS = 8,
};

int doctor_probe(void)
{
	autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int status = PROBE_RAN;
	struct statfs sfs;
	char options[96];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode))
		return status;
	status |= PROBE_SOCKET;
	/* A socket: where this were not intercepted the kernel would refuse it. */
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fd,
		 getuid(), getgid());
	if (mount("fusewire-doctor", PROBE_MOUNT_POINT, "fuse.doctor", MS_NOSUID | MS_NODEV,
		  options) < 0)
		return status;
	status |= PROBE_MOUNTED;
	if (statfs(PROBE_MOUNT_POINT, &sfs) == 0) {
		status |= sfs.f_type == FUSE_SUPER_MAGIC ? PROBE_FUSE : 0;
		status |= sfs.f_type == TMPFS_MAGIC ? PROBE_TMPFS : 0;
	}
	return status;
}

struct probe {
	int event_fd;
	int status;
};

static int on_mounted(void *ctx, const struct launch_mount *mnt, int fd)
{
	close(fd);
	return 0;
}

static void on_unmounted(void *ctx)
{
}

static void on_exited(void *ctx, int status)
{
	struct probe *p = ctx;

	p->status = status;
	fd_signal(p->event_fd);
}

/* Return: bits of the exit status; -ETIMEDOUT; negative errno with *@ret_why. */
static int probe_run(enum launch_placeholder placeholder, const char **ret_why)
{
	static const struct launch_events events = { on_mounted, on_unmounted, on_exited };
	static char program[] = "/proc/self/exe", command[] = "doctor", option[] = "--probe";
	char *const argv[] = { program, command, option, NULL };
	struct probe p = { .event_fd = eventfd_new() };
	struct pollfd pfd = { .fd = p.event_fd, .events = POLLIN };
	struct launch *launch = NULL;
	int err;

	*ret_why = "cannot make an eventfd";
	if (p.event_fd < 0)
		return p.event_fd;
	err = launch_start(&launch, argv, placeholder, &events, &p, ret_why);
	if (!err && poll(&pfd, 1, PROBE_TIMEOUT_MS) <= 0) {
		*ret_why = "a command of ours does not end";
		err = -ETIMEDOUT;
	}
	launch_free(launch);
	close_fd(&p.event_fd);
	if (err)
		return err;
	return WIFEXITED(p.status) && (WEXITSTATUS(p.status) & PROBE_RAN) ? WEXITSTATUS(p.status)
									  : 0;
}

static void find_not_started(struct doctor *d, const char *why, int err)
{
	doctor_find(d, "interception", DOCTOR_PROBLEM, "%s: %s", why, strerror(-err));
	if (err == -EBUSY)
		doctor_mend(
			d,
			"this already runs under a program that intercepts system calls (another "
			"fusewire run, a container's supervisor): run it outside");
	else if (err == -EPERM || err == -EACCES)
		doctor_mend(d,
			    "a container forbids seccomp(2): docker and podman run --security-opt "
			    "seccomp=unconfined");
	else if (err == -EINVAL || err == -ENOSYS)
		doctor_mend(d, "a kernel of Linux 5.14 or later, with CONFIG_SECCOMP_FILTER");
}

static bool check_basic(struct doctor *d)
{
	const char *why;
	int bits = probe_run(LAUNCH_PLACEHOLDER_NEVER, &why);

	if (bits < 0) {
		find_not_started(d, why, bits);
		return false;
	}
	if ((bits & (PROBE_SOCKET | PROBE_MOUNTED)) == (PROBE_SOCKET | PROBE_MOUNTED)) {
		doctor_find(d, "interception", DOCTOR_OK,
			    "a command meets us in place of /dev/fuse, and its mount is taken");
		return true;
	}
	doctor_find(d, "interception", DOCTOR_PROBLEM,
		    bits & PROBE_SOCKET ? "a command's mount(2) is not intercepted"
					: "a command's open of /dev/fuse is not intercepted");
	doctor_mend(d,
		    "the kernel has to let us look into our own child "
		    "(process_vm_readv(2), /proc/PID): sysctl kernel.yama.ptrace_scope=1, no "
		    "hidepid on /proc, and, in a container, ptrace allowed");
	return false;
}

static bool says(const char *path, const char *text)
{
	char buf[64];

	return doctor_read(path, buf, sizeof(buf)) >= 0 && !strcmp(buf, text);
}

static void mend_namespaces(struct doctor *d)
{
	if (says("/proc/sys/user/max_mnt_namespaces", "0"))
		doctor_mend(d, "sysctl -w user.max_mnt_namespaces=10000");
	else if (says("/proc/sys/kernel/unprivileged_userns_clone", "0"))
		doctor_mend(d, "sysctl -w kernel.unprivileged_userns_clone=1, or run it as root");
	else if (says("/proc/sys/user/max_user_namespaces", "0"))
		doctor_mend(d, "sysctl -w user.max_user_namespaces=10000, or run it as root");
	else if (says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"))
		doctor_mend(d,
			    "an AppArmor profile for fusewire that allows userns, or sysctl -w "
			    "kernel.apparmor_restrict_unprivileged_userns=0, or run it as root");
	else
		doctor_mend(d,
			    "run it as root, or in a container that may unshare(2): "
			    "--security-opt seccomp=unconfined, --cap-add SYS_ADMIN");
}

static void check_placeholder(struct doctor *d)
{
	static const char whom[] = "gocryptfs, JuiceFS, rclone --daemon, ceph-fuse";
	const char *why;
	int bits = probe_run(LAUNCH_PLACEHOLDER_ALWAYS, &why);

	if (bits < 0) {
		doctor_find(
			d, "placeholder", DOCTOR_WARNING,
			"no mounts for a command of its own (%s): those that look at their mount "
			"point fail (%s)",
			strerror(-bits), whom);
		mend_namespaces(d);
	} else if (bits & PROBE_FUSE) {
		doctor_find(
			d, "placeholder", DOCTOR_OK,
			"a command that looks at its mount point finds a FUSE file system there");
	} else if (bits & PROBE_TMPFS) {
		doctor_find(d, "placeholder", DOCTOR_NOTE,
			    "a command that looks at its mount point finds a tmpfs there: rclone "
			    "--daemon "
			    "is not content with it");
		doctor_mend(d, "see fuse-device");
	} else {
		doctor_find(d, "placeholder", DOCTOR_WARNING,
			    "nothing can be mounted for a command: those that look at their mount "
			    "point "
			    "fail (%s)",
			    whom);
	}
}

void doctor_check_interception(struct doctor *d)
{
	int err = launch_prepare();

	if (err) {
		doctor_find(d, "interception", DOCTOR_PROBLEM, "cannot prepare: %s",
			    strerror(-err));
		return;
	}
	/* What goes wrong is told as findings. */
	log_set_level(LOG_LEVEL_OFF);
	if (check_basic(d))
		check_placeholder(d);
}
