/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel, its limits and its security modules allow.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/doctor.h"
#include "launch/deadfuse.h"

/* The largest request, and what the channel wants a socket to hold before it makes requests smaller. */
#define REQUEST_BYTES (1 << 20)
#define BUFFER_BYTES  (2 * REQUEST_BYTES)
/* What launch/ asks for. */
#define BUFFER_WANTED (16 << 20)
/* Sockets, rings and memory regions of one device, and a daemon with its own. */
#define FILES_WANTED 1024
/* A guest's memory is mapped, and our own. */
#define ADDRESS_SPACE_WANTED (UINT64_C(1) << 40)

static void check_kernel(struct doctor *d)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;

	if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2) {
		doctor_find(d, "kernel", DOCTOR_WARNING, "its version cannot be told");
		return;
	}
	if (major > 5 || (major == 5 && minor >= 14)) {
		doctor_find(d, "kernel", DOCTOR_OK, "Linux %s", u.release);
		return;
	}
	doctor_find(d, "kernel", DOCTOR_PROBLEM,
		    "Linux %s cannot put a descriptor into a process that waits in a system call",
		    u.release);
	doctor_mend(d, "Linux 5.14 or later");
}

static void check_device(struct doctor *d)
{
	autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int err = errno;

	if (fd >= 0) {
		doctor_find(d, "fuse-device", DOCTOR_OK, "/dev/fuse can be opened");
		return;
	}
	doctor_find(
		d, "fuse-device", DOCTOR_NOTE,
		"/dev/fuse cannot be opened (%s): serving works without, but a daemon is then "
		"ended "
		"by SIGTERM where an unmount would end it, which libfuse 3 reports with status 1",
		strerror(err));
	if (err == EACCES || err == EPERM)
		doctor_mend(d,
			    "chmod 666 /dev/fuse, as it is on most systems; in a container: "
			    "--device /dev/fuse");
	else
		doctor_mend(d, "modprobe fuse; in a container: --device /dev/fuse");
}

static bool try_ptrace(int *ret_errno)
{
	pid_t pid = fork();
	bool works;

	if (pid == 0) {
		pause();
		_exit(0);
	}
	if (pid < 0) {
		*ret_errno = errno;
		return false;
	}
	works = ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;
	*ret_errno = errno;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	return works;
}

static void check_unmount(struct doctor *d)
{
	autoclose int dead = deadfuse_open();
	int err = 0;

#if !defined(__x86_64__)
	doctor_find(d, "unmount", DOCTOR_NOTE,
		    "on this architecture daemons are ended by SIGTERM where an unmount would end "
		    "them");
	return;
#endif
	if (!try_ptrace(&err)) {
		doctor_find(d, "unmount", DOCTOR_WARNING,
			    "a child cannot be traced (%s): daemons are ended by SIGTERM where an "
			    "unmount "
			    "would end them",
			    strerror(err));
		doctor_mend(d,
			    "sysctl kernel.yama.ptrace_scope=1; in a container: --cap-add "
			    "SYS_PTRACE");
	} else if (dead >= 0) {
		doctor_find(
			d, "unmount", DOCTOR_OK,
			"a daemon can be told that it was unmounted: it ends with its own status");
	} else {
		doctor_find(d, "unmount", DOCTOR_NOTE,
			    "a FUSE mount that is gone cannot be made (%s): daemons are ended by "
			    "SIGTERM "
			    "where an unmount would end them",
			    strerror(-dead));
		doctor_mend(d, "see fuse-device and placeholder");
	}
}

/* As much as launch/ gets, by the same way. */
static int buffer_bytes(void)
{
	const int wanted = BUFFER_WANTED;
	socklen_t len = sizeof(int);
	autoclose int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int got = 0;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof(wanted)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof(wanted)) < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &got, &len) < 0)
		return -errno;
	return got;
}

static void check_buffer(struct doctor *d)
{
	int bytes = buffer_bytes();

	if (bytes < 0) {
		doctor_find(d, "socket-buffer", DOCTOR_PROBLEM, "cannot make a message socket: %s",
			    strerror(-bytes));
	} else if (bytes < BUFFER_BYTES + 64) {
		doctor_find(d, "socket-buffer", DOCTOR_WARNING,
			    "requests are cut to about %d KiB: a socket's buffer is %d KiB at most "
			    "(net.core.wmem_max)",
			    (bytes - 64) / 4 / 4096 * 4, bytes / 1024);
		doctor_mend(d,
			    "echo net.core.wmem_max=%d >/etc/sysctl.d/50-fusewire.conf; sysctl "
			    "--system. Or run it as root",
			    BUFFER_WANTED);
	} else {
		doctor_find(d, "socket-buffer", DOCTOR_OK,
			    "requests of 1 MiB fit a message socket");
	}
}

static void check_files(struct doctor *d)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < FILES_WANTED) {
		doctor_find(d, "open-files", DOCTOR_WARNING,
			    "only %llu files may be open: many queues or a busy daemon need more",
			    (unsigned long long)l.rlim_cur);
		doctor_mend(d, "ulimit -n %d; systemd: LimitNOFILE=", FILES_WANTED * 64);
		return;
	}
	doctor_find(d, "open-files", DOCTOR_OK, "%llu files may be open",
		    (unsigned long long)l.rlim_cur);
}

static void check_memory(struct doctor *d)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_AS, &l) == 0 && l.rlim_cur != RLIM_INFINITY &&
	    l.rlim_cur < ADDRESS_SPACE_WANTED) {
		doctor_find(d, "address-space", DOCTOR_WARNING,
			    "limited to %llu MiB: the guest's whole memory is mapped, and a guest "
			    "that is "
			    "larger is refused",
			    (unsigned long long)l.rlim_cur >> 20);
		doctor_mend(d, "ulimit -v unlimited; systemd: LimitAS=infinity");
		return;
	}
	doctor_find(d, "address-space", DOCTOR_OK, "a guest's memory can be mapped");
}

static void check_selinux(struct doctor *d)
{
	char enforce[8];

	if (doctor_read("/sys/fs/selinux/enforce", enforce, sizeof(enforce)) <= 0)
		return;
	if (enforce[0] != '1') {
		doctor_find(d, "selinux", DOCTOR_OK, "permissive");
		return;
	}
	doctor_find(
		d, "selinux", DOCTOR_WARNING,
		"enforcing: a QEMU that libvirt starts (svirt_t) may not connect to the socket");
	doctor_mend(d,
		    "chcon -t svirt_image_t SOCKET after the start; `ausearch -m avc -ts recent` "
		    "shows denials");
}

static void check_apparmor(struct doctor *d)
{
	char enabled[8], profile[256];

	if (doctor_read("/sys/module/apparmor/parameters/enabled", enabled, sizeof(enabled)) <= 0 ||
	    enabled[0] != 'Y')
		return;
	if (doctor_read("/proc/self/attr/apparmor/current", profile, sizeof(profile)) > 0 &&
	    strstr(profile, "(enforce)")) {
		doctor_find(d, "apparmor", DOCTOR_WARNING,
			    "this runs under the profile %s, which may deny what the checks here "
			    "do not try",
			    profile);
		doctor_mend(
			d, "aa-complain, or run it outside; `dmesg | grep apparmor` shows denials");
	} else if (access("/etc/apparmor.d/abstractions/libvirt-qemu", F_OK) == 0) {
		doctor_find(d, "apparmor", DOCTOR_NOTE,
			    "in force: a QEMU that libvirt starts may connect to sockets that its "
			    "profile "
			    "names");
		doctor_mend(d,
			    "add `\"SOCKET\" rw,` to "
			    "/etc/apparmor.d/local/abstractions/libvirt-qemu");
	} else {
		doctor_find(d, "apparmor", DOCTOR_OK, "in force, and not for us");
	}
}

void doctor_check_system(struct doctor *d)
{
	check_kernel(d);
	check_device(d);
	check_unmount(d);
	check_buffer(d);
	check_files(d);
	check_memory(d);
	check_selinux(d);
	check_apparmor(d);
}
