/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a command so that it, and all that it starts, meets a message socket in place of /dev/fuse.
 *
 * Theory of operation
 * -------------------
 * One thread per launch answers intercepted calls and reaps children. It must not be the thread that stops
 * queues: that one waits for the daemon, and the daemon may wait in an intercepted open(2).
 *
 * Daemons go to the background: the command's process ends with status 0 and a grandchild serves. Since this
 * process is the reaper of orphans (PR_SET_CHILD_SUBREAPER), waitpid(2) sees all of them sooner or later, and
 * says ECHILD when nothing is left. That, and no list of ours, is the end of the launch. Only where this process had
 * children before it was this program (`helper & exec fusewire run ...`), which are nobody's to end or to wait for, it is
 * asked in /proc whether one of those that are left is the command's: who is at the top of the command's processes is our child, and stays
 * in /proc until we reap it.
 *
 * A command that fails before it mounted anything ends the launch: what it left running gets a short time.
 * Winding up goes in steps: nothing, SIGTERM, SIGKILL again and again, give up.
 */
#include "launch/launch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "launch/namespace.h"
#include "launch/processes.h"
#include "launch/program.h"
#include "launch/spawn.h"
#include "launch/supervise.h"
#include "launch/unmount.h"

/* What a command that failed, or a daemon that ended, may leave running for so long. */
#define LAUNCH_LEFT_GRACE_NS (2 * NSEC_PER_SEC)
/* What processes may take to be gone after SIGKILL, and how often it is sent: one that forks while we look has a child unseen. */
#define LAUNCH_KILLED_GRACE_NS (5 * NSEC_PER_SEC)
#define LAUNCH_KILL_AGAIN_NS   (100 * NSEC_PER_MSEC)
/* For launch_unmount(). The launch's thread needs less, unless what it looks at in /proc or in a process's memory does not answer. */
#define LAUNCH_UNMOUNT_NS (10 * NSEC_PER_SEC)
/* Processes that are counted when they are given up. */
#define LAUNCH_LEFT_MAX 64
/* Exit statuses remembered, for a server that is named after it died. */
#define LAUNCH_REAPED_MAX 16

enum launch_step {
	STEP_RUN,
	STEP_GRACE,
	STEP_TERM,
	STEP_KILL,
	STEP_GIVE_UP,
};

struct launch {
	struct launch_events events;
	void *ctx;
	struct supervisor *sup;
	int child_fd; /* signalfd of SIGCHLD */
	int wake_fd;
	pthread_t thread;
	bool thread_runs;
	pid_t main_pid;

	pthread_mutex_t lock; /* of what follows, up to the blank line */
	pid_t server_pid;
	bool main_reaped;
	bool server_reaped;
	enum launch_step step;
	uint64_t deadline_ns;
	uint64_t term_ns;
	bool unmount_wanted;
	bool thread_ended;
	int unmount_result;
	pthread_cond_t unmount_done;

	/* The thread's own. */
	bool mounted;
	bool nothing_left;
	bool gave_up;
	uint64_t killed_ns; /* SIGKILL was sent last; 0: never */
	int main_status;
	struct {
		pid_t pid;
		int status;
	} reaped[LAUNCH_REAPED_MAX];
	unsigned int nr_reaped;
};

int launch_prepare(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return -errno;
	processes_prepare();
	return 0;
}

static int launch_mounted(void *ctx, const struct launch_mount *mnt, int fd)
{
	struct launch *l = ctx;
	int err = l->events.mounted(l->ctx, mnt, fd);

	if (!err)
		l->mounted = true;
	return err;
}

static void launch_unmounted(void *ctx)
{
	struct launch *l = ctx;

	l->events.unmounted(l->ctx);
}

static void launch_changed(void *ctx)
{
	struct launch *l = ctx;

	fd_signal(l->wake_fd);
}

static void launch_wind_up(struct launch *l, uint64_t grace_ns, uint64_t term_ns)
{
	uint64_t deadline_ns = clock_now_ns() + grace_ns;

	pthread_mutex_lock(&l->lock);
	if (l->step == STEP_RUN) {
		l->step = STEP_GRACE;
		l->deadline_ns = deadline_ns;
		l->term_ns = term_ns;
	} else if (l->step < STEP_KILL) {
		l->deadline_ns = min_of(l->deadline_ns, deadline_ns);
		l->term_ns = min_of(l->term_ns, term_ns);
	}
	pthread_mutex_unlock(&l->lock);
}

/* Return: the step that begins now, or STEP_RUN. */
static enum launch_step launch_begin_step(struct launch *l)
{
	const uint64_t now_ns = clock_now_ns();
	enum launch_step step = STEP_RUN;

	pthread_mutex_lock(&l->lock);
	if (l->step != STEP_RUN && l->step < STEP_GIVE_UP && now_ns >= l->deadline_ns) {
		step = ++l->step;
		/* Dying takes time, however little was granted before. */
		l->deadline_ns = now_ns + (step == STEP_KILL ? LAUNCH_KILLED_GRACE_NS : l->term_ns);
	}
	pthread_mutex_unlock(&l->lock);
	return step;
}

static void launch_give_up(struct launch *l)
{
	pid_t left[LAUNCH_LEFT_MAX];
	int nr = processes_list(left, array_size(left));

	log_error(
		"cannot end the command: %s%d of its processes (%d, ...) are left after SIGKILL; "
		"they end when what they wait for in the kernel, or who traces them, lets them "
		"go: see ps -o pid,stat,wchan,args",
		nr == (int)array_size(left) ? "at least " : "", max_of(nr, 0),
		nr > 0 ? (int)left[0] : 0);
	l->gave_up = true;
	l->nothing_left = true;
}

static void launch_next_step(struct launch *l)
{
	enum launch_step step = launch_begin_step(l);

	if (step == STEP_TERM || step == STEP_KILL)
		log_info("%s to %d processes that did not end by themselves",
			 step == STEP_TERM ? "SIGTERM" : "SIGKILL",
			 processes_signal(step == STEP_TERM ? SIGTERM : SIGKILL));
	else if (step == STEP_GIVE_UP)
		launch_give_up(l);
	if (step == STEP_KILL)
		l->killed_ns = clock_now_ns();
	else if (l->killed_ns && !l->nothing_left &&
		 clock_now_ns() - l->killed_ns >= LAUNCH_KILL_AGAIN_NS) {
		(void)processes_signal(SIGKILL);
		l->killed_ns = clock_now_ns();
	}
}

static int launch_timeout_ms(struct launch *l)
{
	uint64_t now = clock_now_ns(), deadline_ns;
	enum launch_step step;

	pthread_mutex_lock(&l->lock);
	step = l->step;
	deadline_ns = l->deadline_ns;
	pthread_mutex_unlock(&l->lock);
	if (step == STEP_RUN)
		return -1;
	if (step == STEP_KILL)
		deadline_ns = min_of(deadline_ns, l->killed_ns + LAUNCH_KILL_AGAIN_NS);
	if (deadline_ns <= now)
		return 0;
	return (int)min_of((deadline_ns - now) / NSEC_PER_MSEC + 1, (uint64_t)INT32_MAX);
}

static void launch_note_end(struct launch *l, pid_t pid, int status)
{
	bool server_gone, main_gone;

	log_debug("process %d ended, status %#x", (int)pid, (unsigned int)status);
	l->reaped[l->nr_reaped % LAUNCH_REAPED_MAX].pid = pid;
	l->reaped[l->nr_reaped % LAUNCH_REAPED_MAX].status = status;
	l->nr_reaped++;
	if (pid == l->main_pid)
		l->main_status = status;
	pthread_mutex_lock(&l->lock);
	l->server_reaped = l->server_reaped || pid == l->server_pid;
	server_gone = l->server_reaped;
	main_gone = l->main_reaped;
	pthread_mutex_unlock(&l->lock);
	if (main_gone && (server_gone || (l->main_status && !l->mounted)))
		launch_wind_up(l, LAUNCH_LEFT_GRACE_NS, LAUNCH_LEFT_GRACE_NS);
}

static void launch_reap(struct launch *l)
{
	int status;
	pid_t pid;

	for (;;) {
		/* Held over waitpid(): a process that is signalled under the lock is not reaped. */
		pthread_mutex_lock(&l->lock);
		pid = waitpid(-1, &status, WNOHANG | __WALL);
		if (pid == l->main_pid && !WIFSTOPPED(status))
			l->main_reaped = true;
		pthread_mutex_unlock(&l->lock);
		if (pid <= 0)
			break;
		/* A thread that stopped too late for launch_unmount(), which is its tracer: let it go. */
		if (WIFSTOPPED(status))
			ptrace(PTRACE_DETACH, pid, NULL, NULL);
		else
			launch_note_end(l, pid, status);
	}
	if ((pid < 0 && errno == ECHILD) || (pid == 0 && !processes_left()))
		l->nothing_left = true;
}

static int launch_status(struct launch *l)
{
	pid_t server;

	if (l->gave_up)
		return W_EXITCODE(1, 0);
	pthread_mutex_lock(&l->lock);
	server = l->server_pid;
	pthread_mutex_unlock(&l->lock);
	for (unsigned int i = 0; server && i < LAUNCH_REAPED_MAX; i++) {
		if (l->reaped[i].pid == server)
			return l->reaped[i].status;
	}
	return l->main_status;
}

static void launch_do_unmount(struct launch *l)
{
	bool wanted;
	pid_t pid;
	int err;

	pthread_mutex_lock(&l->lock);
	wanted = l->unmount_wanted;
	pid = l->server_pid;
	pthread_mutex_unlock(&l->lock);
	if (!wanted)
		return;
	err = pid ? unmount_daemon(l->sup, pid) : -ESRCH;
	pthread_mutex_lock(&l->lock);
	l->unmount_wanted = false;
	l->unmount_result = err;
	pthread_cond_signal(&l->unmount_done);
	pthread_mutex_unlock(&l->lock);
	/* A death while it was traced went to the tracer's wait. */
	launch_reap(l);
}

int launch_unmount(struct launch *launch)
{
	const uint64_t end_ns = clock_now_ns() + LAUNCH_UNMOUNT_NS;
	const struct timespec end = { .tv_sec = (time_t)(end_ns / NSEC_PER_SEC),
				      .tv_nsec = (long)(end_ns % NSEC_PER_SEC) };
	int err = -ESRCH;

	pthread_mutex_lock(&launch->lock);
	if (!launch->thread_ended) {
		launch->unmount_wanted = true;
		fd_signal(launch->wake_fd);
		while (launch->unmount_wanted && !launch->thread_ended && err != -ETIMEDOUT)
			err = -pthread_cond_timedwait(&launch->unmount_done, &launch->lock, &end);
		if (!launch->unmount_wanted)
			err = launch->unmount_result;
		else if (err != -ETIMEDOUT)
			err = -ESRCH;
		launch->unmount_wanted = false;
	}
	pthread_mutex_unlock(&launch->lock);
	return err;
}

static void *launch_thread(void *arg)
{
	struct launch *l = arg;
	struct pollfd p[] = {
		{ .fd = supervisor_fd(l->sup), .events = POLLIN },
		{ .fd = l->child_fd, .events = POLLIN },
		{ .fd = l->wake_fd, .events = POLLIN },
	};

	while (!l->nothing_left) {
		struct signalfd_siginfo info;

		if (poll(p, array_size(p), launch_timeout_ms(l)) < 0 && errno != EINTR)
			break;
		if (p[0].revents & POLLIN)
			supervisor_handle(l->sup);
		else if (p[0].revents)
			p[0].fd = -1;
		if (p[1].revents && read(l->child_fd, &info, sizeof(info)) > 0)
			launch_reap(l);
		if (p[2].revents && fd_drain_signal(l->wake_fd) < 0)
			break;
		supervisor_check(l->sup);
		launch_do_unmount(l);
		launch_next_step(l);
		for (unsigned int i = 0; i < array_size(p); i++)
			p[i].revents = 0;
	}
	pthread_mutex_lock(&l->lock);
	l->thread_ended = true;
	pthread_cond_signal(&l->unmount_done);
	pthread_mutex_unlock(&l->lock);
	l->events.exited(l->ctx, launch_status(l));
	return NULL;
}

static int launch_open_fds(struct launch *l)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	l->child_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (l->child_fd < 0)
		return -errno;
	l->wake_fd = eventfd_new();
	return l->wake_fd < 0 ? l->wake_fd : 0;
}

/* Of whom we know that they look at their mount point: go-fuse and rclone, all programs of Go; and who remounts it. */
static bool launch_looks(const char *name)
{
	const char *slash = strrchr(name, '/');
	struct program program;

	if (!strcmp(slash ? slash + 1 : name, "ceph-fuse"))
		return true;
	return program_inspect(name, &program) == 0 && program.is_go;
}

/*
 * A mount namespace where we may make one and it harms nobody. In a user namespace files of other users look as if they were
 * nobody's; and where mounts are private, what others unmount outside stays mounted inside, and their daemons do not end.
 * So there it is only for those who need it.
 */
static int launch_choose_mounts(enum launch_placeholder placeholder, const char *name,
				enum spawn_mounts *ret_mounts)
{
	bool looks = launch_looks(name);
	bool may_user = placeholder == LAUNCH_PLACEHOLDER_ALWAYS || (geteuid() && looks);
	int err;

	*ret_mounts = SPAWN_MOUNTS_SHARED;
	if (placeholder == LAUNCH_PLACEHOLDER_NEVER ||
	    (placeholder == LAUNCH_PLACEHOLDER_AUTO && !looks && !namespace_mounts_are_shared()))
		return 0;
	err = namespace_probe(may_user);
	if (!err) {
		*ret_mounts = may_user ? SPAWN_MOUNTS_USER : SPAWN_MOUNTS_OWN;
		return 0;
	}
	if (placeholder == LAUNCH_PLACEHOLDER_ALWAYS)
		return err;
	log_at(looks ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
	       "%s gets no mounts of its own, and will not find its file system: %s", name,
	       strerror(-err));
	return 0;
}

static int launch_run(struct launch *l, char *const *argv, enum launch_placeholder placeholder,
		      const char **ret_why)
{
	const struct supervisor_events events = {
		.mounted = launch_mounted,
		.unmounted = launch_unmounted,
		.changed = launch_changed,
		.ctx = l,
	};
	autoclose int notify_fd = -1;
	enum spawn_mounts mounts;
	int err;

	*ret_why = "out of resources";
	err = launch_open_fds(l);
	if (err)
		return err;
	*ret_why = "cannot give it mounts of its own";
	err = launch_choose_mounts(placeholder, argv[0], &mounts);
	if (err)
		return err;
	err = spawn_filtered(argv, mounts, &l->main_pid, &notify_fd, ret_why);
	if (err)
		return err;
	*ret_why = "out of resources";
	err = supervisor_new(&l->sup, notify_fd, placeholder != LAUNCH_PLACEHOLDER_NEVER, &events);
	if (err)
		return err;
	TAKE_FD(notify_fd);
	/* Signals of the process are other threads' business. */
	err = thread_start(&l->thread, launch_thread, l);
	if (err)
		return err;
	l->thread_runs = true;
	return 0;
}

int launch_start(struct launch **ret_launch, char *const *argv, enum launch_placeholder placeholder,
		 const struct launch_events *events, void *ctx, const char **ret_why)
{
	struct launch *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;
	int err;

	*ret_why = "out of memory";
	if (!l)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->unmount_done, &attr);
	pthread_condattr_destroy(&attr);
	l->events = *events;
	l->ctx = ctx;
	l->child_fd = -1;
	l->wake_fd = -1;
	err = launch_run(l, argv, placeholder, ret_why);
	if (err) {
		launch_free(l);
		return err;
	}
	*ret_launch = l;
	return 0;
}

void launch_set_server(struct launch *launch, pid_t pid)
{
	pthread_mutex_lock(&launch->lock);
	launch->server_pid = pid;
	pthread_mutex_unlock(&launch->lock);
}

void launch_finish(struct launch *launch, uint64_t grace_ns, uint64_t term_ns, bool terminate)
{
	if (terminate) {
		pthread_mutex_lock(&launch->lock);
		/* One that has just gone to the background is a grandchild still: its parent has yet to end. */
		if (!(launch->server_pid > 1 && process_signal(launch->server_pid, SIGTERM)) &&
		    !launch->main_reaped)
			kill(launch->main_pid, SIGTERM);
		pthread_mutex_unlock(&launch->lock);
	}
	launch_wind_up(launch, grace_ns, term_ns);
	fd_signal(launch->wake_fd);
}

/* Where there is no thread that does it. */
static void launch_end_all(void)
{
	const struct timespec pause = { .tv_nsec = LAUNCH_KILL_AGAIN_NS };
	const uint64_t end_ns = clock_now_ns() + LAUNCH_KILLED_GRACE_NS;

	for (;;) {
		(void)processes_signal(SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		if (errno == ECHILD || !processes_left() || clock_now_ns() >= end_ns)
			return;
		nanosleep(&pause, NULL);
	}
}

void launch_free(struct launch *launch)
{
	if (!launch)
		return;
	if (launch->thread_runs) {
		launch_finish(launch, 0, 0, false);
		pthread_join(launch->thread, NULL);
	} else if (launch->main_pid) {
		launch_end_all();
	}
	supervisor_free(launch->sup);
	close_fd(&launch->child_fd);
	close_fd(&launch->wake_fd);
	pthread_mutex_destroy(&launch->lock);
	pthread_cond_destroy(&launch->unmount_done);
	free(launch);
}
