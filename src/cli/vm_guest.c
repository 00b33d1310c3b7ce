/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts QEMU or User-mode Linux, carries the guest's streams, and turns its end into an exit status.
 *
 * Theory of operation: the child has one end of a socket pair per port. A single loop waits with
 * ppoll(2) for the streams, the child's pidfd and signals, which are blocked but while it waits.
 * Nothing in the loop blocks, but a write to a terminal that the user has stopped. The guest says on
 * the status port how COMMAND ended; the child's end alone tells nothing. When the child is gone, what
 * it has written still lies in the sockets and is carried before we leave.
 */
#include "cli/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Lines of the console that explain a failure. */
#define TAIL_LINES 25
/* After the guest has said its status it powers off; after SIGTERM QEMU ends. Then we use force. */
#define GRACE_NS (10 * NSEC_PER_SEC)
/* What `timeout` of coreutils exits with. */
#define EXIT_TIMED_OUT 124

enum stream_id {
	STREAM_CONSOLE,
	STREAM_STATUS,
	STREAM_OUT,
	STREAM_ERR,
	STREAM_IN,
	STREAM_NR,
};

/**
 * struct guest - a running VM.
 * @port: our end of each port, by enum vm_port
 * @child_port: the child's, closed here once it runs
 * @pid, @pidfd: the child
 * @guard, @guard_fd: see start_guard()
 * @deadline_ns: when --timeout ends; 0 is never
 * @kill_ns: when to use force; 0 is not yet
 * @timed_out: @deadline_ns has passed
 * @output_closed: nobody reads our stdout any more
 * @stdin_started: COMMAND's stdin is being carried
 * @lost_device: said that a back-end is gone
 * @raw_tty: the terminal is in raw mode, @tty is what it was
 */
struct guest {
	const struct vm_options *opt;
	int port[VM_PORT_NR];
	int child_port[VM_PORT_NR];
	pid_t pid;
	int pidfd;
	pid_t guard;
	int guard_fd;
	uint64_t deadline_ns;
	uint64_t kill_ns;
	bool timed_out;
	bool output_closed;
	bool stdin_started;
	bool lost_device;
	bool raw_tty;
	struct termios tty;
	char *dir;
	struct vm_status status;
	struct vm_log log;
	struct vm_stream stream[STREAM_NR];
};

static volatile sig_atomic_t caught_signal;

static void on_signal(int sig)
{
	caught_signal = sig;
}

static int open_ports(struct guest *g)
{
	for (int i = 0; i < VM_PORT_NR; i++) {
		bool tty = i == VM_PORT_TTY;
		bool command = i >= VM_PORT_STDIN && i <= VM_PORT_STDERR;
		int pair[2];

		if (g->opt->interactive ? command : tty)
			continue;
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return vm_error("cannot make a socket: %s", strerror(errno));
		g->port[i] = pair[0];
		g->child_port[i] = pair[1];
		/* Never wait for the guest: it may have stopped reading. */
		if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
			return vm_error("cannot make a socket: %s", strerror(errno));
	}
	return 0;
}

static void open_streams(struct guest *g)
{
	bool tty = g->opt->interactive;
	struct vm_stream *s = g->stream;

	for (int i = 0; i < STREAM_NR; i++) {
		s[i].src = -1;
		s[i].dst = -1;
	}
	s[STREAM_CONSOLE].src = g->port[VM_PORT_CONSOLE];
	s[STREAM_CONSOLE].dst = g->opt->verbose ? STDERR_FILENO : -1;
	s[STREAM_STATUS].src = g->port[VM_PORT_STATUS];
	s[STREAM_OUT].src = g->port[tty ? VM_PORT_TTY : VM_PORT_STDOUT];
	s[STREAM_OUT].dst = STDOUT_FILENO;
	s[STREAM_ERR].src = g->port[VM_PORT_STDERR];
	s[STREAM_ERR].dst = STDERR_FILENO;
	s[STREAM_IN].src = tty ? STDIN_FILENO : -1;
	s[STREAM_IN].dst = g->port[tty ? VM_PORT_TTY : VM_PORT_STDIN];
	s[STREAM_IN].base64 = g->opt->uml && !tty;
	s[STREAM_IN].shut_dst = !g->opt->uml && !tty;
}

/* Between fork and exec. Its own session: ^C on the terminal is for us to handle. */
static void start_child(struct guest *g, const struct vm_argv *argv, int initrd, pid_t parent)
{
	autoclose int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int console = g->child_port[VM_PORT_CONSOLE];
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(console, STDOUT_FILENO) < 0 ||
	    dup2(console, STDERR_FILENO) < 0 || fcntl(initrd, F_SETFD, 0) < 0)
		_exit(1);
	for (int i = 0; i < VM_PORT_NR; i++) {
		if (g->child_port[i] >= 0 && fcntl(g->child_port[i], F_SETFD, 0) < 0)
			_exit(1);
	}
	execvp(argv->word[0], argv->word);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv->word[0], strerror(errno));
	_exit(127);
}

/*
 * QEMU dies with us (PR_SET_PDEATHSIG), but User-mode Linux is a group of processes and a directory.
 * A guard waits until we end, known by the end of a pipe, and clears them away if we did not.
 */
static int start_guard(struct guest *g)
{
	int end[2];
	char byte;

	if (pipe2(end, O_CLOEXEC) < 0)
		return vm_error("cannot make a pipe: %s", strerror(errno));
	g->guard = fork();
	if (g->guard == 0) {
		setsid();
		/* Nothing of ours stays open through it: not the user's stdout, not the guest's ports. */
		if (dup2(end[0], 0) < 0 || close_range(1, ~0u, 0) < 0)
			_exit(1);
		while (read(0, &byte, 1) < 0)
			;
		kill(-g->pid, SIGKILL);
		vm_remove_tree(g->dir);
		_exit(0);
	}
	close(end[0]);
	g->guard_fd = end[1];
	return g->guard < 0 ? vm_error("cannot start a process: %s", strerror(errno)) : 0;
}

static void end_guard(struct guest *g)
{
	if (g->guard > 0) {
		kill(g->guard, SIGKILL);
		while (waitpid(g->guard, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close_fd(&g->guard_fd);
}

static int start(struct guest *g, const struct vm_kernel *kernel, int initrd)
{
	pid_t parent = getpid();
	struct vm_argv argv;

	vm_argv_build(&argv, g->opt, kernel, initrd, g->child_port, g->dir);
	g->pid = fork();
	if (g->pid == 0)
		start_child(g, &argv, initrd, parent);
	vm_argv_fini(&argv);
	if (g->pid < 0)
		return vm_error("cannot start a process: %s", strerror(errno));
	for (int i = 0; i < VM_PORT_NR; i++)
		close_fd(&g->child_port[i]);
	g->pidfd = (int)syscall(SYS_pidfd_open, g->pid, 0);
	if (g->pidfd < 0)
		return vm_error("pidfd_open: %s", strerror(errno));
	if (g->opt->timeout_s)
		g->deadline_ns = clock_now_ns() + g->opt->timeout_s * NSEC_PER_SEC;
	return g->opt->uml ? start_guard(g) : 0;
}

/* User-mode Linux has helper processes in its session's process group. */
static void signal_child(struct guest *g, int sig)
{
	if (g->pid > 0)
		kill(g->opt->uml ? -g->pid : g->pid, sig);
}

static void begin_end(struct guest *g)
{
	if (g->kill_ns)
		return;
	g->kill_ns = clock_now_ns() + GRACE_NS;
	/* User-mode Linux has nothing to tidy up that we do not, and takes SIGTERM for a crash. */
	signal_child(g, g->opt->uml ? SIGKILL : SIGTERM);
}

static void check_time(struct guest *g)
{
	uint64_t now = clock_now_ns();

	if (g->deadline_ns && now >= g->deadline_ns && !g->kill_ns) {
		g->timed_out = true;
		begin_end(g);
	}
	if (g->kill_ns && now >= g->kill_ns)
		signal_child(g, SIGKILL);
}

/* Whoever waits for that device waits for ever: say so now, and not when --timeout strikes. */
static void look_for_lost_device(struct guest *g, const struct vm_stream *s)
{
	static const char text[] = "Unexpected end-of-file before all data were read";

	if (g->lost_device || g->opt->uml || !memmem(s->buf, s->len, text, sizeof(text) - 1))
		return;
	g->lost_device = true;
	cli_error("a back-end has closed its connection: QEMU cannot use the device any more%s",
		  g->raw_tty ? "\r" : "");
}

static void stream_done_reading(struct guest *g, enum stream_id id)
{
	struct vm_stream *s = &g->stream[id];

	if (id == STREAM_CONSOLE) {
		vm_log_add(&g->log, s->buf, s->len);
		look_for_lost_device(g, s);
	}
	if (id == STREAM_STATUS) {
		vm_status_feed(&g->status, s->buf, s->len);
		if (g->status.ready && !g->stdin_started) {
			g->stdin_started = true;
			g->stream[STREAM_IN].src = STDIN_FILENO;
		}
		if (g->status.taken)
			g->stream[STREAM_IN].held = false;
		g->status.taken = false;
	}
	if (s->dst < 0)
		s->len = 0;
	if (g->status.nr_boots > 1 && !g->opt->allow_reboot) {
		g->status.end = VM_END_REBOOT;
		begin_end(g);
	}
	if (g->status.end != VM_END_NONE && !g->kill_ns)
		g->kill_ns = clock_now_ns() + GRACE_NS;
}

static void stream_step(struct guest *g, enum stream_id id)
{
	struct vm_stream *s = &g->stream[id];

	if (vm_stream_wants_write(s)) {
		if (vm_stream_write(s) == 0)
			return;
		s->dst = -1;
		s->len = 0;
		/* As SIGPIPE would: nobody wants the output. The guest's ports end with the guest. */
		if (id == STREAM_OUT) {
			g->output_closed = true;
			begin_end(g);
		}
	} else if (vm_stream_wants_read(s)) {
		if (vm_stream_read(s))
			stream_done_reading(g, id);
	}
}

/* One round of the loop. Return: 1 when the child has ended, else 0; -1 after a message. */
static int wait_and_step(struct guest *g, const sigset_t *while_waiting)
{
	struct pollfd fds[STREAM_NR + 1];
	struct timespec tick = { .tv_sec = 1 };

	for (int i = 0; i < STREAM_NR; i++) {
		struct vm_stream *s = &g->stream[i];

		fds[i] = (struct pollfd){ .fd = -1 };
		if (vm_stream_wants_write(s))
			fds[i] = (struct pollfd){ .fd = s->dst, .events = POLLOUT };
		else if (vm_stream_wants_read(s))
			fds[i] = (struct pollfd){ .fd = s->src, .events = POLLIN };
	}
	fds[STREAM_NR] = (struct pollfd){ .fd = g->pidfd, .events = POLLIN };
	if (ppoll(fds, array_size(fds), &tick, while_waiting) < 0) {
		if (errno != EINTR)
			return vm_error("poll: %s", strerror(errno));
		if (caught_signal)
			begin_end(g);
		return 0;
	}
	for (int i = 0; i < STREAM_NR; i++) {
		if (fds[i].revents)
			stream_step(g, (enum stream_id)i);
	}
	check_time(g);
	return fds[STREAM_NR].revents ? 1 : 0;
}

/* The child is gone: carry what still lies in the sockets. They do not block, and nobody adds to them. */
static void drain(struct guest *g)
{
	for (int i = 0; i < STREAM_NR; i++) {
		struct vm_stream *s = &g->stream[i];

		if (i == STREAM_IN)
			continue;
		do {
			while (vm_stream_wants_write(s) && !caught_signal) {
				if (vm_stream_write(s) < 0)
					s->dst = -1;
			}
			s->len = 0;
			if (s->src < 0 || !vm_stream_read(s))
				break;
			stream_done_reading(g, (enum stream_id)i);
		} while (!caught_signal);
	}
}

static void take_terminal(struct guest *g)
{
	struct termios raw;

	if (!g->opt->interactive || tcgetattr(STDIN_FILENO, &g->tty) < 0)
		return;
	raw = g->tty;
	cfmakeraw(&raw);
	g->raw_tty = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	fprintf(stderr, "fusewire vm: this is the guest's shell; 'exit' ends the VM\r\n");
}

static void give_back_terminal(struct guest *g)
{
	if (g->raw_tty)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &g->tty);
	g->raw_tty = false;
}

/* Signals reach us only while the loop waits: @ret_old is the mask for that. */
static void take_signals(sigset_t *ret_old)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < array_size(signals); i++) {
		sigaction(signals[i], &sa, NULL);
		sigaddset(&set, signals[i]);
	}
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	sigprocmask(SIG_BLOCK, &set, ret_old);
	sigdelset(ret_old, SIGINT);
	sigdelset(ret_old, SIGTERM);
	sigdelset(ret_old, SIGHUP);
}

static int failed(const struct guest *g, const char *text)
{
	cli_error("%s; the end of its console:", text);
	vm_log_print_tail(&g->log, TAIL_LINES);
	return CLI_FAILED;
}

/* What TCG_WORDS (vm_argv.c) do not prevent. */
static bool is_emulation_bug(const struct guest *g)
{
	char line[256];

	return !g->opt->uml && g->opt->accel == VM_ACCEL_TCG &&
	       vm_log_find(&g->log, "Oops: int3", line, sizeof(line));
}

/* KVM may be there and of no use, as in some virtual machines: QEMU then says so and ends, or aborts. */
static bool is_kvm_useless(const struct guest *g, int wstatus)
{
	char line[256];

	if (g->opt->uml || g->opt->accel != VM_ACCEL_KVM || !g->opt->accel_chosen)
		return false;
	return (WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGABRT) ||
	       vm_log_find(&g->log, "failed to initialize kvm", line, sizeof(line));
}

/* The guest ended and has said nothing: QEMU did not start, the kernel died, or somebody cut the power. */
static int explain_silence(const struct guest *g, int wstatus)
{
	char line[256];
	autofree char *text = NULL;

	if (g->status.nr_boots && g->opt->interactive)
		return CLI_OK;
	if (g->status.nr_boots)
		return failed(g, "the guest ended before COMMAND did");
	if (vm_log_find(&g->log, "Failed to connect to ", line, sizeof(line)) ||
	    vm_log_find(&g->log, "cannot run ", line, sizeof(line))) {
		cli_error("%s", line);
		return CLI_FAILED;
	}
	if (WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0) {
		(void)failed(g, "the guest's kernel did not come up");
		return is_emulation_bug(g) ? VM_BOOT_AGAIN : CLI_FAILED;
	}
	if (is_kvm_useless(g, wstatus)) {
		cli_error("QEMU fails with KVM; booting once more without it, as with --accel tcg");
		return VM_BOOT_EMULATED;
	}
	text = vm_asprintf("%s ended with %s %d", g->opt->uml ? "User-mode Linux" : g->opt->qemu,
			   WIFEXITED(wstatus) ? "status" : "signal",
			   WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : WTERMSIG(wstatus));
	return failed(g, text);
}

static int exit_status(const struct guest *g, int wstatus)
{
	autofree char *text = NULL;

	if (caught_signal)
		return 128 + (int)caught_signal;
	if (g->output_closed)
		return 128 + SIGPIPE;
	if (g->timed_out) {
		text = vm_asprintf("the guest did not end within %u s", g->opt->timeout_s);
		(void)failed(g, text);
		return EXIT_TIMED_OUT;
	}
	switch (g->status.end) {
	case VM_END_EXIT:
		return g->status.exit_status;
	case VM_END_FAILED:
		return failed(g, g->status.text);
	case VM_END_REBOOT:
		return failed(g, "the guest rebooted before COMMAND ended");
	case VM_END_NONE:
		break;
	}
	return explain_silence(g, wstatus);
}

static int run(struct guest *g, const struct vm_kernel *kernel, int initrd)
{
	sigset_t while_waiting;
	int wstatus = 0;
	int rc;

	take_signals(&while_waiting);
	if (open_ports(g) < 0)
		return CLI_FAILED;
	open_streams(g);
	if (start(g, kernel, initrd) < 0) {
		signal_child(g, SIGKILL);
		return CLI_FAILED;
	}
	take_terminal(g);
	do {
		rc = wait_and_step(g, &while_waiting);
	} while (rc == 0);
	if (rc < 0 || g->opt->uml)
		signal_child(g, SIGKILL);
	while (waitpid(g->pid, &wstatus, 0) < 0 && errno == EINTR)
		;
	drain(g);
	give_back_terminal(g);
	return rc < 0 ? CLI_FAILED : exit_status(g, wstatus);
}

/* The files that User-mode Linux makes go to a directory that we remove. */
static char *private_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = vm_asprintf("%s/fusewire-vm-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");

	if (!mkdtemp(dir)) {
		cli_error("cannot make %s: %s", dir, strerror(errno));
		free(dir);
		return NULL;
	}
	return dir;
}

int vm_guest_run(const struct vm_options *opt, const struct vm_kernel *kernel, int initrd)
{
	struct guest *g = calloc(1, sizeof(*g));
	int rc;

	if (!g) {
		cli_error("out of memory");
		return CLI_FAILED;
	}
	g->opt = opt;
	g->pidfd = -1;
	g->guard_fd = -1;
	for (int i = 0; i < VM_PORT_NR; i++) {
		g->port[i] = -1;
		g->child_port[i] = -1;
	}
	g->dir = opt->uml ? private_dir() : NULL;
	rc = opt->uml && !g->dir ? CLI_FAILED : run(g, kernel, initrd);
	for (int i = 0; i < VM_PORT_NR; i++) {
		close_fd(&g->port[i]);
		close_fd(&g->child_port[i]);
	}
	close_fd(&g->pidfd);
	if (g->dir)
		vm_remove_tree(g->dir);
	end_guard(g);
	free(g->dir);
	free(g);
	return rc;
}
