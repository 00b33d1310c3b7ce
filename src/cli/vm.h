/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `fusewire vm`: what its parts share. Everything here runs on one thread of a short-lived command;
 * functions that print say so, and the text then names what the user has to change.
 */
#ifndef FUSEWIRE_CLI_VM_H
#define FUSEWIRE_CLI_VM_H

#include <signal.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "cli/cli.h"

/** VM_FS_MAX - --fs options that one VM takes. */
#define VM_FS_MAX 16
/** VM_ADD_MAX - --add options that one VM takes. */
#define VM_ADD_MAX 64
/** VM_QEMU_ARG_MAX - --qemu-arg options that one VM takes. */
#define VM_QEMU_ARG_MAX 64
/** VM_TAG_MAX - bytes in a virtio-fs tag (virtio 1.2, 5.11.4). */
#define VM_TAG_MAX 36

/** struct vm_fs - one --fs TAG=SOCKET. @tag: allocated; @socket: inside the argument. */
struct vm_fs {
	char *tag;
	const char *socket;
};

/** struct vm_add - one --add FILE[:PATH]. @file: allocated; @path: absolute, in the guest. */
struct vm_add {
	char *file;
	char *path;
};

/** enum vm_accel - how QEMU runs the guest's instructions; AUTO is resolved before QEMU starts. */
enum vm_accel {
	VM_ACCEL_AUTO,
	VM_ACCEL_KVM,
	VM_ACCEL_TCG,
};

/**
 * struct vm_options - the command line of `fusewire vm`.
 * @fs: devices, @nr_fs of them
 * @add: further files for the initramfs, @nr_add of them
 * @qemu_args: passed to QEMU after all others, @nr_qemu_args of them
 * @kernel: kernel image given by the user, or NULL
 * @modules: its lib/modules/VERSION folder, or NULL
 * @kernel_version: series of the Debian kernel to fetch, e.g. "6.12"
 * @append: added to the kernel's command line, or NULL
 * @qemu: QEMU program
 * @command: COMMAND and its arguments, or NULL for a console
 * @nr_command: words in @command
 * @memory_mib: guest memory, MiB
 * @smp: CPUs
 * @queues: request queues per device
 * @queue_size: entries of each virtqueue
 * @timeout_s: end the guest after so many seconds; 0 is never
 * @accel: QEMU's accelerator
 * @accel_chosen: the user left @accel to us
 * @uml: User-mode Linux in place of QEMU
 * @allow_reboot: a reboot of the guest boots it again; otherwise it ends the VM
 * @verbose: show the kernel log and QEMU's messages while the guest runs
 * @interactive: no COMMAND and a terminal on stdin and stdout: give the guest's shell a tty
 */
struct vm_options {
	struct vm_fs fs[VM_FS_MAX];
	unsigned int nr_fs;
	struct vm_add add[VM_ADD_MAX];
	unsigned int nr_add;
	const char *qemu_args[VM_QEMU_ARG_MAX];
	unsigned int nr_qemu_args;
	const char *kernel;
	const char *modules;
	const char *kernel_version;
	const char *append;
	const char *qemu;
	char **command;
	unsigned int nr_command;
	unsigned int memory_mib;
	unsigned int smp;
	unsigned int queues;
	unsigned int queue_size;
	unsigned int timeout_s;
	enum vm_accel accel;
	bool accel_chosen;
	bool uml;
	bool allow_reboot;
	bool verbose;
	bool interactive;
};

/**
 * struct vm_kernel - what to boot.
 * @image: kernel image, or the User-mode Linux program; allocated
 * @modules: lib/modules/VERSION folder, allocated, or NULL when everything is built in
 */
struct vm_kernel {
	char *image;
	char *modules;
};

/**
 * enum vm_port - the byte streams between the guest and us, each over its own socket pair.
 *
 * The console carries the kernel's log and the init script's messages, so that nothing mixes with
 * what COMMAND writes.
 */
enum vm_port {
	VM_PORT_CONSOLE,
	VM_PORT_STDIN,
	VM_PORT_STDOUT,
	VM_PORT_STDERR,
	VM_PORT_STATUS,
	VM_PORT_TTY,
	VM_PORT_NR,
};

/** vm_port_name() - "stdin", "stdout", ...: the name that the guest finds the port by. */
const char *vm_port_name(enum vm_port port);

/* vm_proc.c */

/** vm_error() - cli_error() for `return vm_error(...)`: its value is -1. */
#define vm_error(...) (cli_error(__VA_ARGS__), -1)

/**
 * vm_asprintf() - asprintf(3) that cannot fail: prints and exits with 1 when memory is short.
 *
 * Return: text for the caller to free.
 */
char *printf_like(1, 2) vm_asprintf(const char *fmt, ...);

/** vm_stop_signals() - what a user ends us with, but for what is ignored. */
void vm_stop_signals(sigset_t *ret_set);
/** vm_is_stopped() - has one of them come, that is blocked? */
bool must_check vm_is_stopped(void);

/**
 * vm_run_program() - run a program to its end, stdin from /dev/null.
 * @argv: NULL-terminated; argv[0] is looked up in PATH
 * @cwd: working directory, or NULL to keep ours
 * @out_fd: its stdout; its stderr is ours
 *
 * vm_stop_signals() that come meanwhile are passed on to it. Once it has ended they end us, or wait until the caller no
 * longer blocks them.
 * Return: exit status 0..255 (128 + N for signal N), or negative errno when it could not be run
 * (-ENOENT: not found).
 */
int must_check vm_run_program(const char *const argv[], const char *cwd, int out_fd);

/**
 * vm_run_capture() - vm_run_program() in our directory, keeping what it writes to stdout.
 * @ret_out: set to a NUL-terminated text for the caller to free, also when its exit status is not 0
 *
 * Return: as vm_run_program(); -EFBIG when it writes more than a megabyte.
 */
int must_check vm_run_capture(const char *const argv[], char **ret_out);

/** vm_remove_tree() - delete a directory with everything in it; does not follow links. */
void vm_remove_tree(const char *path);

/* vm_kernel.c */

/**
 * vm_kernel_find() - choose the kernel: --uml, --kernel, or the Debian cloud kernel of
 * --kernel-version from the cache, else through apt.
 *
 * Context: may download. Prints its errors. Return: 0, or -1 with *@ret_kernel untouched.
 */
int must_check vm_kernel_find(const struct vm_options *opt, struct vm_kernel *ret_kernel);

/** vm_kernel_fini() - free the members; allowed on a zeroed structure. */
void vm_kernel_fini(struct vm_kernel *kernel);

/* vm_cpio.c */

/**
 * struct cpio - an archive in the kernel's "newc" format that is being written.
 * @fd: where it is written; not owned
 * @pos: bytes written
 * @ino: last inode number given
 * @error: first error, negative errno; later calls do nothing
 */
struct cpio {
	int fd;
	uint64_t pos;
	uint32_t ino;
	int error;
};

/** cpio_init() - begin an archive at the current position of @fd, which must be 0. */
void cpio_init(struct cpio *cpio, int fd);
/** cpio_add_dir() - add a directory; its parents must have been added. @path: without leading '/'. */
void cpio_add_dir(struct cpio *cpio, const char *path);
/** cpio_add_data() - add a regular file with contents @data[0 .. @len). */
void cpio_add_data(struct cpio *cpio, const char *path, unsigned int mode, const void *data,
		   size_t len);
/** cpio_add_fd() - add a regular file with the contents of the regular file @fd (at most 2 GiB). */
void cpio_add_fd(struct cpio *cpio, const char *path, unsigned int mode, int fd);
/** cpio_add_symlink() - add a symbolic link to @target. */
void cpio_add_symlink(struct cpio *cpio, const char *path, const char *target);
/** cpio_add_chardev() - add a character device node. */
void cpio_add_chardev(struct cpio *cpio, const char *path, unsigned int major, unsigned int minor);
/** cpio_finish() - write the trailer. Return: 0, or the first error of the whole archive. */
int must_check cpio_finish(struct cpio *cpio);

/* vm_initrd.c */

/**
 * vm_initrd_new() - the initramfs: busybox, our init, kernel modules, COMMAND and the --add files.
 *
 * It is a memfd, so that nothing is left behind however we end. Prints its errors.
 * Return: descriptor, CLOEXEC, or -1.
 */
int must_check vm_initrd_new(const struct vm_options *opt, const struct vm_kernel *kernel);

/** vm_init_script - /init of the guest; its settings are in /etc/fusewire.conf (vm_initrd.c). */
extern const char vm_init_script[];

/* vm_argv.c */

/** VM_ARGV_MAX - words of the longest command line that vm_argv_new() makes. */
#define VM_ARGV_MAX 256

/**
 * struct vm_argv - a command line under construction; each word is allocated.
 * @word: NULL-terminated
 * @nr: words
 */
struct vm_argv {
	char *word[VM_ARGV_MAX + 1];
	unsigned int nr;
};

/**
 * vm_argv_build() - QEMU's or User-mode Linux's command line.
 * @initrd: descriptor of the initramfs, as the child will have it
 * @port: descriptor of the child's end of each port, by enum vm_port; -1 where unused
 * @dir: a private directory for the files that User-mode Linux makes; may be NULL for QEMU
 */
void vm_argv_build(struct vm_argv *argv, const struct vm_options *opt,
		   const struct vm_kernel *kernel, int initrd, const int port[VM_PORT_NR],
		   const char *dir);
/** vm_argv_fini() - free the words. */
void vm_argv_fini(struct vm_argv *argv);

/* vm_guest.c */

/** VM_BOOT_AGAIN - no exit status: the emulation, not the guest, is why it did not come up, and nothing was read of stdin. */
#define VM_BOOT_AGAIN (-1)
/** VM_BOOT_EMULATED - no exit status: QEMU could not go on with the KVM that we chose; nothing was read of stdin. */
#define VM_BOOT_EMULATED (-2)

/**
 * vm_guest_run() - start the guest, carry its streams, wait for its end.
 * @initrd: from vm_initrd_new()
 *
 * Context: takes over SIGINT, SIGTERM, SIGHUP, SIGPIPE and the terminal while it runs. Prints its
 * errors. Return: the exit status for our process, VM_BOOT_AGAIN, or VM_BOOT_EMULATED.
 */
int must_check vm_guest_run(const struct vm_options *opt, const struct vm_kernel *kernel,
			    int initrd);

/* vm_relay.c */

/**
 * struct vm_log - the last bytes of the console and of QEMU's own messages.
 * @buf: ring of VM_LOG_BYTES
 * @total: bytes ever added
 */
#define VM_LOG_BYTES 65536
struct vm_log {
	char buf[VM_LOG_BYTES];
	uint64_t total;
};

/* Bytes whose base64, with all that goes with it, stays below 4096 - 128: there a tty in line mode is full. */
#define VM_BASE64_BYTES 2784

/**
 * struct vm_stream - one direction of a byte stream: bytes read and not yet written.
 * @src: read from; -1 when it has ended
 * @dst: written to; -1 when it is closed: bytes are dropped
 * @start: first byte in @buf that is not written yet
 * @len: bytes not written yet
 * @base64: encode on the way: a tty in line mode carries it. Each read becomes "more", lines, and ^D, so that who decodes them ends and
 *          keeps nothing back; "end" comes last. One piece at a time, and none that fills the tty: User-mode Linux forgets to listen
 *          to a tty that once was full
 * @held: with @base64, the guest has not taken the last piece yet
 * @shut_dst: shut the socket @dst for writing at the end of @src
 * @raw: with @base64, what was read; encoded it fits into @buf
 * @buf: the bytes
 */
struct vm_stream {
	int src;
	int dst;
	size_t start;
	size_t len;
	bool base64;
	bool held;
	bool shut_dst;
	unsigned char raw[VM_BASE64_BYTES];
	char buf[65536];
};

/**
 * enum vm_end - how the guest's work came to its end.
 */
enum vm_end {
	VM_END_NONE,
	VM_END_EXIT,
	VM_END_FAILED,
	VM_END_REBOOT,
};

/**
 * struct vm_status - what the guest said on its status port.
 * @line: the line that is being received
 * @len: bytes in @line
 * @nr_boots: "boot" lines
 * @ready: the guest wants COMMAND's stdin now
 * @taken: it has taken the last piece of it (struct vm_stream, @held)
 * @end: what came last
 * @exit_status: COMMAND's, for VM_END_EXIT
 * @text: what failed, for VM_END_FAILED
 */
struct vm_status {
	char line[256];
	size_t len;
	unsigned int nr_boots;
	bool ready;
	bool taken;
	enum vm_end end;
	int exit_status;
	char text[256];
};

/** vm_log_add() - append bytes, dropping the oldest. */
void vm_log_add(struct vm_log *log, const char *data, size_t len);
/** vm_log_print_tail() - print the last @nr_lines lines on stderr, each behind "| ". */
void vm_log_print_tail(const struct vm_log *log, unsigned int nr_lines);
/** vm_log_find() - is @text in the log? Copies the log's text from there to the line's end to @ret. */
bool vm_log_find(const struct vm_log *log, const char *text, char *ret, size_t size);
/** vm_status_feed() - take bytes from the status port. The guest wrote them: anything may come. */
void vm_status_feed(struct vm_status *status, const char *data, size_t len);

/** vm_stream_wants_read() - is there room and a source to read from? */
bool vm_stream_wants_read(const struct vm_stream *s);
/** vm_stream_wants_write() - are there bytes for an open destination? */
bool vm_stream_wants_write(const struct vm_stream *s);
/** vm_stream_read() - read what there is, once. Return: false at the end, or when nothing was there. */
bool must_check vm_stream_read(struct vm_stream *s);
/** vm_stream_write() - write a piece that does not block after POLLOUT. Return: 0 or -EPIPE etc. */
int vm_stream_write(struct vm_stream *s);

#endif
