/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lets a daemon see what it would see after an unmount: ENODEV from its /dev/fuse.
 *
 * Theory of operation
 * -------------------
 * A socket that is closed at the other end reads as end of file. To libfuse and others that is a broken device:
 * they end with an error status, and some leave out what they would do at an orderly end. Only a fuse
 * descriptor gives ENODEV. So we make a dead one (deadfuse.c) and put it in the socket's place.
 *
 * The kernel lets a seccomp supervisor install a descriptor in a process that waits in an intercepted call. So
 * one thread of the daemon is stopped with ptrace(2) and made to call ioctl(fd, FUSE_DEV_IOC_CLONE), which the
 * filter passes on; the supervisor answers by replacing that very descriptor. Then the thread's registers
 * are put back. Every thread is stopped before and let go afterwards: a read(2) that was blocked in the socket
 * is restarted by the kernel with the same number, which now is the dead descriptor.
 *
 * Who waits in epoll_wait(2) waits for the socket, not for its number, and an epoll set forgets a socket whose last descriptor
 * is gone. So the socket stays open in a duplicate of ours, which is shut down at the end: the daemon wakes, reads its
 * number, and finds the dead descriptor.
 *
 * Threads that cannot be stopped in time are left alone. A signal that comes meanwhile is for the one thread that runs, ours: it
 * blocks all of them as long as it calls for us.
 */
#include "launch/unmount.h"

#include <errno.h>

#if defined(__x86_64__)

#include <dirent.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "launch/deadfuse.h"
#include "launch/processes.h"
#include "launch/tracee.h"

/* For all that is done in all processes; what has begun by then may take another second or two. */
#define UNMOUNT_NS (3 * NSEC_PER_SEC)
/* For all threads of a process together. */
#define UNMOUNT_STOP_NS	    (500 * NSEC_PER_MSEC)
#define UNMOUNT_RETRY_NS    (500 * NSEC_PER_MSEC)
#define UNMOUNT_THREADS_MAX 512
#define UNMOUNT_FDS_MAX	    64
#define UNMOUNT_OTHERS_MAX  256
#define UNMOUNT_PASSES_MAX  8
/* The two bytes of the `syscall` instruction. */
#define SYSCALL_INSN 0x050f

/* A thread of the daemon that stands still. */
struct stopped {
	pid_t tid;
	int sig; /* what was about to be delivered when it stopped; 0: nothing */
};

/* How it died is launch.c's to hear: it stays a zombie. */
static bool has_died(pid_t tid)
{
	siginfo_t info = { .si_pid = 0 };

	return waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0
		       ? errno != EINTR
		       : info.si_pid == tid;
}

/*
 * @end_ns: until then, on clock_now_ns(); looks once in any case
 * @ret_sig: the signal whose delivery is the cause of the stop, or 0; NULL where that is our own doing
 */
static bool wait_for_stop(pid_t tid, uint64_t end_ns, int *ret_sig)
{
	const struct timespec pause = { .tv_nsec = 200 * 1000 };

	do {
		siginfo_t info = { .si_pid = 0 };

		if (waitid(P_PID, (id_t)tid, &info, WSTOPPED | WNOHANG | __WALL) == 0 &&
		    info.si_pid == tid) {
			/* Above the signal is the event, for stops of ptrace(2)'s own. */
			if (ret_sig)
				*ret_sig = info.si_status >> 8 ? 0 : info.si_status;
			return true;
		}
		if (has_died(tid))
			return false;
		nanosleep(&pause, NULL);
	} while (clock_now_ns() < end_ns);
	return false;
}

static bool thread_interrupt(pid_t tid)
{
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0)
		return false;
	/* Also where it cannot be interrupted, as when it is ending: whoever waits for it sees why. */
	(void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	return true;
}

/* Return: how many of @tids stand still, in @stopped. */
static int stop_threads(const int *tids, int nr, struct stopped *stopped)
{
	const uint64_t end_ns = clock_now_ns() + UNMOUNT_STOP_NS;
	bool interrupted[UNMOUNT_THREADS_MAX];
	int nr_stopped = 0;

	for (int i = 0; i < nr; i++)
		interrupted[i] = thread_interrupt(tids[i]);
	for (int i = 0; i < nr; i++) {
		struct stopped *s = &stopped[nr_stopped];

		*s = (struct stopped){ .tid = tids[i] };
		if (!interrupted[i])
			continue;
		if (wait_for_stop(tids[i], end_ns, &s->sig))
			nr_stopped++;
		else
			/* Only works when it stopped after all; else it stays traced and runs on when it does. */
			ptrace(PTRACE_DETACH, tids[i], NULL, NULL);
	}
	return nr_stopped;
}

static void thread_release(const struct stopped *thread)
{
	ptrace(PTRACE_DETACH, thread->tid, NULL, (void *)(intptr_t)thread->sig);
}

/* Numbers in a /proc directory. */
static int list_numbers(const char *path, int *numbers, int cap)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int nr = 0;

	if (!dir)
		return -errno;
	while (nr < cap && (e = readdir(dir))) {
		if (process_number(e->d_name, &numbers[nr]))
			nr++;
	}
	closedir(dir);
	return nr;
}

/* Descriptors of @pid that are ends of the supervisor's sockets. */
static int list_sockets(struct supervisor *sup, pid_t pid, int *fds, int cap)
{
	int all[4096], nr_all, nr = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	nr_all = list_numbers(path, all, array_size(all));
	for (int i = 0; i < nr_all && nr < cap; i++) {
		ino_t ino;

		if (tracee_socket_inode(pid, all[i], &ino) == 0 && supervisor_knows(sup, ino))
			fds[nr++] = all[i];
	}
	return nr_all < 0 ? nr_all : nr;
}

static bool wait_for_own_stop(pid_t tid)
{
	return wait_for_stop(tid, clock_now_ns() + UNMOUNT_STOP_NS, NULL);
}

/* A stopped thread calls ioctl(@fd, FUSE_DEV_IOC_CLONE, 0), and the supervisor replaces @fd. */
static int inject_replace(struct supervisor *sup, pid_t tid, const struct user_regs_struct *saved,
			  int fd, int dead)
{
	struct user_regs_struct regs = *saved;
	int err;

	regs.rip -= 2;
	regs.rax = SYS_ioctl;
	/* Not in a system call: the kernel must not restart the one that was interrupted. */
	regs.orig_rax = (unsigned long long)-1;
	regs.rdi = (unsigned long long)fd;
	regs.rsi = FUSE_DEV_IOC_CLONE;
	regs.rdx = 0;
	if (ptrace(PTRACE_SETREGS, tid, NULL, &regs) < 0 ||
	    ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) < 0)
		return -errno;
	err = supervisor_replace(sup, tid, fd, dead);
	/* Where nobody answered, it waits in the call, or the call went past the supervisor. It must stop all the same. */
	if (!wait_for_own_stop(tid) &&
	    (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 || !wait_for_own_stop(tid)))
		return err ? err : -ETIMEDOUT;
	return err;
}

/* All but what single-stepping ends with; the kernel would force that, and forget its handler. */
static int block_signals(pid_t tid, uint64_t *ret_was)
{
	uint64_t all = ~(UINT64_C(1) << (SIGTRAP - 1));
	void *const bytes = (void *)sizeof(all);

	if (ptrace(PTRACE_GETSIGMASK, tid, bytes, ret_was) < 0 ||
	    ptrace(PTRACE_SETSIGMASK, tid, bytes, &all) < 0)
		return -errno;
	return 0;
}

/* Return: 0 with all of @fds replaced, -EAGAIN when this thread cannot be used, other negative errno. */
static int replace_by_thread(struct supervisor *sup, pid_t tid, const int *fds, int nr, int dead)
{
	struct user_regs_struct saved;
	uint64_t mask;
	uint16_t insn;
	int err;

	if (ptrace(PTRACE_GETREGS, tid, NULL, &saved) < 0)
		return -errno;
	/* Stopped elsewhere than in a system call: there is no instruction to use. */
	if ((long long)saved.orig_rax < 0 ||
	    tracee_read(tid, saved.rip - 2, &insn, sizeof(insn)) < 0 || insn != SYSCALL_INSN)
		return -EAGAIN;
	err = block_signals(tid, &mask);
	if (err)
		return err;
	for (int i = 0; i < nr && !err; i++)
		err = inject_replace(sup, tid, &saved, fds[i], dead);
	/* Also after an error: it would take our call's result for its own. */
	if ((ptrace(PTRACE_SETREGS, tid, NULL, &saved) < 0 ||
	     ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof(mask), &mask) < 0) &&
	    !err)
		err = -errno;
	return err;
}

/* Without it, daemons that wait in epoll_wait(2) would have to be ended by a signal. */
static void take_sockets(pid_t pid, const int *fds, int *held, int nr)
{
	for (int i = 0; i < nr; i++) {
		held[i] = tracee_take_fd(pid, fds[i]);
		if (held[i] < 0)
			log_debug("cannot hold a socket of process %d: %s", (int)pid,
				  strerror(-held[i]));
	}
}

/* To the supervisor, if they were replaced. */
static void hand_sockets_on(struct supervisor *sup, int *held, int nr, bool replaced)
{
	for (int i = 0; i < nr; i++) {
		if (replaced && held[i] >= 0)
			supervisor_hold(sup, TAKE_FD(held[i]));
		close_fd(&held[i]);
	}
}

static int unmount_with(struct supervisor *sup, pid_t pid, int dead)
{
	int fds[UNMOUNT_FDS_MAX], held[UNMOUNT_FDS_MAX], tids[UNMOUNT_THREADS_MAX], nr_fds, nr_tids,
		nr_stopped;
	struct stopped stopped[UNMOUNT_THREADS_MAX];
	char path[64];
	int err = -EAGAIN;

	nr_fds = list_sockets(sup, pid, fds, array_size(fds));
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	nr_tids = list_numbers(path, tids, array_size(tids));
	if (nr_fds <= 0 || nr_tids <= 0)
		return nr_fds < 0 ? nr_fds : -ESRCH;
	/*
	 * All stand still before the first descriptor is replaced: that closes a socket which could not be taken, upon which the
	 * channel closes the others, and a thread that still waits in one would read an end of file.
	 */
	nr_stopped = stop_threads(tids, nr_tids, stopped);
	take_sockets(pid, fds, held, nr_fds);
	for (int i = 0; i < nr_stopped && err == -EAGAIN; i++)
		err = replace_by_thread(sup, stopped[i].tid, fds, nr_fds, dead);
	for (int i = 0; i < nr_stopped; i++)
		thread_release(&stopped[i]);
	hand_sockets_on(sup, held, nr_fds, !err);
	return err;
}

/* @all_ns: the end of all, on clock_now_ns(). A process whose threads were all on their way between two system calls is met in one soon. */
static int unmount_process(struct supervisor *sup, pid_t pid, int dead, uint64_t all_ns)
{
	const struct timespec pause = { .tv_nsec = NSEC_PER_MSEC };
	const uint64_t end_ns = min_of(clock_now_ns() + UNMOUNT_RETRY_NS, all_ns);
	int err;

	while ((err = unmount_with(sup, pid, dead)) == -EAGAIN && clock_now_ns() < end_ns)
		nanosleep(&pause, NULL);
	return err;
}

/* Return: how many processes had it replaced. */
static int unmount_pass(struct supervisor *sup, pid_t done, int dead, uint64_t end_ns)
{
	pid_t pids[UNMOUNT_OTHERS_MAX];
	int nr = processes_list(pids, array_size(pids)), nr_replaced = 0;

	for (int i = 0; i < nr && clock_now_ns() < end_ns; i++) {
		int fds[1];

		if (pids[i] == done || list_sockets(sup, pids[i], fds, 1) <= 0)
			continue;
		if (unmount_process(sup, pids[i], dead, end_ns) < 0)
			log_debug("process %d keeps the daemon's device", (int)pids[i]);
		else
			nr_replaced++;
	}
	return nr_replaced;
}

/*
 * A daemon of several processes, whose workers all read the device. What only holds it open does not mind. A process
 * that was being forked while we looked has the old descriptor: look again until nobody is left.
 */
static void unmount_others(struct supervisor *sup, pid_t done, int dead, uint64_t end_ns)
{
	for (int i = 0; i < UNMOUNT_PASSES_MAX && unmount_pass(sup, done, dead, end_ns) > 0; i++)
		continue;
}

int unmount_daemon(struct supervisor *sup, pid_t pid)
{
	const uint64_t end_ns = clock_now_ns() + UNMOUNT_NS;
	autoclose int dead = deadfuse_open();
	int err;

	if (dead < 0) {
		log_debug("no dead fuse descriptor can be made: error %d", -dead);
		return dead;
	}
	/* As the kernel does it: first the mount is gone, then the device says so. */
	supervisor_unmount(sup, pid);
	err = unmount_process(sup, pid, dead, end_ns);
	if (err) {
		log_debug("the daemon's device cannot be replaced: error %d", -err);
		return err;
	}
	unmount_others(sup, pid, dead, end_ns);
	supervisor_hang_up(sup);
	return 0;
}

#else

int unmount_daemon(struct supervisor *sup, pid_t pid)
{
	return -ENOSYS;
}

#endif
