/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seccomp filter under which a daemon runs: the few system calls by which it would meet the kernel's FUSE.
 *
 * Only numbers can be looked at in a filter, not what pointers point to: so it passes on to the supervisor
 * what may concern us judged by number and flags, and the supervisor lets most of that continue. For calls
 * whose number alone decides "allow", the kernel remembers the answer: read, write and their like cost
 * nothing.
 *
 * Two rules need no supervisor. splice(2) cuts a long reply into several packets, which interleave between
 * threads. The libraries that splice fall back to writev(2) when vmsplice(2) is missing and when a pipe
 * cannot be made larger; leaving the SPLICE bits out of INIT does not stop them.
 */
#include "launch/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fuse.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#elif defined(__s390x__)
#define FILTER_ARCH AUDIT_ARCH_S390X
#else
#error "name this architecture's AUDIT_ARCH_* constant"
#endif

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* The low half of a 64-bit argument. All that is looked at here fits into 32 bits. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ARG_LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#else
#define ARG_LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n) + 4)
#endif

#define LOAD(off)	   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (off))
#define AND(mask)	   BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (mask))
#define RETURN(what)	   BPF_STMT(BPF_RET | BPF_K, (what))
#define UNLESS_EQ(v, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (v), 0, (skip))
#define IF_EQ(v, skip)	   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (v), (skip), 0)
#define ALLOW		   RETURN(SECCOMP_RET_ALLOW)
#define NOTIFY		   RETURN(SECCOMP_RET_USER_NOTIF)
#define FAIL(err)	   RETURN(SECCOMP_RET_ERRNO | (err))

/* A call that is always passed on, or always refused. The number is in the accumulator. */
#define RULE_ALWAYS(nr, what) UNLESS_EQ(nr, 1), what
/* A call that gets @what when its argument under @mask is @value. */
#define RULE_ARG(nr, arg, mask, value, what) \
	UNLESS_EQ(nr, 5), LOAD(ARG_LOW(arg)), AND(mask), UNLESS_EQ(value, 1), what, ALLOW

/* /dev/fuse is opened for reading and writing, and nobody asks for it to be created or truncated. */
#define OPEN_MASK (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH | O_DIRECTORY)
/* Changes of mounts that exist, other than a remount, are none of our business. */
#define MOUNT_MASK (MS_BIND | MS_MOVE | MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)

static const struct sock_filter filter_program[] = {
	LOAD(offsetof(struct seccomp_data, arch)),
	IF_EQ(FILTER_ARCH, 1),
	ALLOW,
	LOAD(offsetof(struct seccomp_data, nr)),
#ifdef SYS_open
	RULE_ARG(SYS_open, 1, OPEN_MASK, O_RDWR, NOTIFY),
#endif
	RULE_ARG(SYS_openat, 2, OPEN_MASK, O_RDWR, NOTIFY),
	RULE_ARG(SYS_ioctl, 1, UINT32_MAX, FUSE_DEV_IOC_CLONE, NOTIFY),
	RULE_ARG(SYS_fcntl, 1, UINT32_MAX, F_SETPIPE_SZ, FAIL(EPERM)),
	RULE_ARG(SYS_mount, 3, MOUNT_MASK, 0, NOTIFY),
	RULE_ALWAYS(SYS_umount2, NOTIFY),
	RULE_ALWAYS(SYS_openat2, NOTIFY),
	RULE_ALWAYS(SYS_fsopen, NOTIFY),
	RULE_ALWAYS(SYS_vmsplice, FAIL(ENOSYS)),
	ALLOW,
};

static int filter_load(unsigned long flags)
{
	struct sock_fprog prog = {
		.len = array_size(filter_program),
		.filter = (struct sock_filter *)(uintptr_t)filter_program,
	};
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);

	return fd < 0 ? -errno : (int)fd;
}

static int filter_load_killable(void)
{
	/*
	 * WAIT_KILLABLE_RECV (Linux 5.19): a signal does not interrupt a call that the supervisor has already
	 * taken up. Without it the call is restarted and the supervisor sees it twice, which it survives.
	 */
	int fd = filter_load(SECCOMP_FILTER_FLAG_NEW_LISTENER |
			     SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

	if (fd == -EINVAL)
		fd = filter_load(SECCOMP_FILTER_FLAG_NEW_LISTENER);
	return fd;
}

int filter_install(void)
{
	int fd = filter_load_killable();

	if (fd != -EACCES)
		return fd;
	/* Without CAP_SYS_ADMIN a filter is only for those who give up setuid programs. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return filter_load_killable();
}
