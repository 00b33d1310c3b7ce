/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command lines of QEMU and User-mode Linux.
 */
#include "cli/vm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const port_names[VM_PORT_NR] = {
	[VM_PORT_CONSOLE] = "console", [VM_PORT_STDIN] = "stdin",   [VM_PORT_STDOUT] = "stdout",
	[VM_PORT_STDERR] = "stderr",   [VM_PORT_STATUS] = "status", [VM_PORT_TTY] = "tty",
};

const char *vm_port_name(enum vm_port port)
{
	return port_names[port];
}

void vm_argv_fini(struct vm_argv *argv)
{
	for (unsigned int i = 0; i < argv->nr; i++)
		free(argv->word[i]);
	argv->nr = 0;
}

/* VM_ARGV_MAX has room for all that the limits on the options let in. */
static void push(struct vm_argv *argv, char *word)
{
	assert(argv->nr < VM_ARGV_MAX);
	argv->word[argv->nr++] = word;
	argv->word[argv->nr] = NULL;
}

/* Two words: an option and its formatted value. */
static void printf_like(3, 4) push_opt(struct vm_argv *argv, const char *name, const char *fmt, ...)
{
	va_list args;
	char *value;

	va_start(args, fmt);
	if (vasprintf(&value, fmt, args) < 0) {
		cli_error("out of memory");
		exit(CLI_FAILED);
	}
	va_end(args);
	push(argv, vm_asprintf("%s", name));
	push(argv, value);
}

static void push_word(struct vm_argv *argv, const char *word)
{
	push(argv, vm_asprintf("%s", word));
}

/* QEMU splits option values at commas; a doubled one is a comma. */
static char *qemu_quote(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1);
	char *p = out;

	if (!out) {
		cli_error("out of memory");
		exit(CLI_FAILED);
	}
	for (; *text; text++) {
		if (*text == ',')
			*p++ = ',';
		*p++ = *text;
	}
	*p = '\0';
	return out;
}

static void qemu_machine(struct vm_argv *argv, const struct vm_options *opt)
{
	/* Shared memory is what makes guest pages reachable for the process behind the socket. */
	push_opt(argv, "-machine", "q35,memory-backend=mem");
	push_opt(argv, "-object", "memory-backend-memfd,id=mem,size=%uM,share=on", opt->memory_mib);
	push_opt(argv, "-m", "%uM", opt->memory_mib);
	push_opt(argv, "-smp", "%u", opt->smp);
	push_opt(argv, "-cpu", "max");
	push_opt(argv, "-accel", "%s", opt->accel == VM_ACCEL_KVM ? "kvm" : "tcg,thread=multi");
	push_word(argv, "-nodefaults");
	push_word(argv, "-no-user-config");
	push_opt(argv, "-display", "none");
	push_opt(argv, "-nic", "none");
	if (!opt->allow_reboot)
		push_word(argv, "-no-reboot");
}

static void qemu_ports(struct vm_argv *argv, const int port[VM_PORT_NR])
{
	push_word(argv, "-device");
	push_word(argv, "virtio-serial-pci");
	for (int i = 0; i < VM_PORT_NR; i++) {
		const char *name = port_names[i];

		if (port[i] < 0)
			continue;
		push_opt(argv, "-chardev", "socket,id=%s,fd=%d", name, port[i]);
		/* UARTs for the kernel's console and for a shell, which both want a tty. */
		if (i == VM_PORT_CONSOLE || i == VM_PORT_TTY)
			push_opt(argv, "-serial", "chardev:%s", name);
		else
			push_opt(argv, "-device", "virtserialport,chardev=%s,name=fusewire.%s",
				 name, name);
	}
}

static void qemu_fs(struct vm_argv *argv, const struct vm_options *opt)
{
	for (unsigned int i = 0; i < opt->nr_fs; i++) {
		autofree char *path = qemu_quote(opt->fs[i].socket);
		autofree char *tag = qemu_quote(opt->fs[i].tag);

		push_opt(argv, "-chardev", "socket,id=fs%u,path=%s", i, path);
		push_opt(
			argv, "-device",
			"vhost-user-fs-pci,chardev=fs%u,tag=%s,num-request-queues=%u,queue-size=%u",
			i, tag, opt->queues, opt->queue_size);
	}
}

/*
 * Emulated CPUs may run a piece of code for a moment after another CPU has put the last byte of a change in place of the int3 with
 * which Linux begins to change it, and then nobody knows that int3: "Oops: int3". Most often that is in sched_clock(), which all
 * CPUs call all the time, and which is changed twice in each boot unless the TSC is known to be unstable from the start.
 */
#define TCG_WORDS "tsc=unstable "

static void build_qemu(struct vm_argv *argv, const struct vm_options *opt,
		       const struct vm_kernel *kernel, int initrd, const int port[VM_PORT_NR])
{
	push_word(argv, opt->qemu);
	qemu_machine(argv, opt);
	push_opt(argv, "-kernel", "%s", kernel->image);
	push_opt(argv, "-initrd", "/proc/self/fd/%d", initrd);
	push_opt(argv, "-append", "console=ttyS0 %s%spanic=-1 %s", opt->verbose ? "" : "quiet ",
		 opt->accel == VM_ACCEL_TCG ? TCG_WORDS : "", opt->append ? opt->append : "");
	qemu_ports(argv, port);
	qemu_fs(argv, opt);
	for (unsigned int i = 0; i < opt->nr_qemu_args; i++)
		push_word(argv, opt->qemu_args[i]);
}

/*
 * Serial line N of User-mode Linux is port N. The console is its stdout: there it writes before its
 * drivers are up, too.
 */
static void build_uml(struct vm_argv *argv, const struct vm_options *opt,
		      const struct vm_kernel *kernel, int initrd, const int port[VM_PORT_NR],
		      const char *dir)
{
	push_word(argv, kernel->image);
	push(argv, vm_asprintf("mem=%uM", opt->memory_mib));
	push(argv, vm_asprintf("initrd=/proc/self/fd/%d", initrd));
	push(argv, vm_asprintf("uml_dir=%s", dir));
	push_word(argv, "con=null");
	push_word(argv, "con0=null,fd:1");
	push_word(argv, "ssl=null");
	for (int i = VM_PORT_STDIN; i < VM_PORT_NR; i++) {
		if (port[i] >= 0)
			push(argv, vm_asprintf("ssl%d=fd:%d", i, port[i]));
	}
	for (unsigned int i = 0; i < opt->nr_fs; i++)
		push(argv, vm_asprintf("virtio_uml.device=%s:26", opt->fs[i].socket));
	if (!opt->verbose)
		push_word(argv, "quiet");
	push_word(argv, "panic=-1");
	if (opt->append)
		push_word(argv, opt->append);
}

void vm_argv_build(struct vm_argv *argv, const struct vm_options *opt,
		   const struct vm_kernel *kernel, int initrd, const int port[VM_PORT_NR],
		   const char *dir)
{
	*argv = (struct vm_argv){ 0 };
	if (opt->uml)
		build_uml(argv, opt, kernel, initrd, port, dir);
	else
		build_qemu(argv, opt, kernel, initrd, port);
}
