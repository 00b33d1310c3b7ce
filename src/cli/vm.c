/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `fusewire vm`: boots a throw-away Linux VM with virtio-fs devices mounted on /mnt/TAG.
 */
#include "cli/vm.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"

/* So often a guest is started that falls over the emulation. */
#define BOOTS_MAX 3

enum {
	OPT_FS = 256,
	OPT_UML,
	OPT_KERNEL,
	OPT_KERNEL_VERSION,
	OPT_MODULES,
	OPT_ACCEL,
	OPT_MEMORY,
	OPT_SMP,
	OPT_QUEUES,
	OPT_QUEUE_SIZE,
	OPT_APPEND,
	OPT_TIMEOUT,
	OPT_ADD,
	OPT_ALLOW_REBOOT,
	OPT_QEMU,
	OPT_QEMU_ARG,
	OPT_VERBOSE,
	OPT_HELP,
};

static const struct option long_options[] = {
	{ "fs", required_argument, NULL, OPT_FS },
	{ "uml", no_argument, NULL, OPT_UML },
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "kernel-version", required_argument, NULL, OPT_KERNEL_VERSION },
	{ "modules", required_argument, NULL, OPT_MODULES },
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "smp", required_argument, NULL, OPT_SMP },
	{ "queues", required_argument, NULL, OPT_QUEUES },
	{ "queue-size", required_argument, NULL, OPT_QUEUE_SIZE },
	{ "append", required_argument, NULL, OPT_APPEND },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "add", required_argument, NULL, OPT_ADD },
	{ "allow-reboot", no_argument, NULL, OPT_ALLOW_REBOOT },
	{ "qemu", required_argument, NULL, OPT_QEMU },
	{ "qemu-arg", required_argument, NULL, OPT_QEMU_ARG },
	{ "verbose", no_argument, NULL, OPT_VERBOSE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static const char help_text[] =
	"Usage: fusewire vm [OPTION...] [--fs TAG=SOCKET]... [-- COMMAND [ARG...]]\n"
	"\n"
	"Boots a throw-away Linux VM whose virtio-fs devices are mounted on /mnt/TAG, and runs\n"
	"COMMAND in it: one word is a line for the shell, several are a program and its\n"
	"arguments. Without COMMAND there is a shell. Ends with COMMAND's exit status.\n"
	"\n"
	"  --fs TAG=SOCKET        a device: the vhost-user socket SOCKET as tag TAG\n"
	"  --queues N             request queues of each device (default 2)\n"
	"  --queue-size N         entries of each queue, a power of two (default 1024)\n"
	"  --smp N                CPUs (default 2)\n"
	"  --memory MIB           memory in MiB (default 512)\n"
	"  --kernel-version 6.12  series of the Debian kernel to fetch through apt and keep\n"
	"  --kernel FILE          kernel image to boot instead\n"
	"  --modules DIR          its lib/modules/VERSION, where virtio or FUSE are modules\n"
	"  --append TEXT          add to the kernel's command line\n"
	"  --add FILE[:PATH]      put FILE into the guest as PATH (default /bin/NAME)\n"
	"  --timeout SECONDS      end the VM after so long, with status 124\n"
	"  --allow-reboot         a reboot of the guest starts it again; COMMAND runs again\n"
	"  --accel kvm|tcg|auto   how QEMU runs the guest (default: $FUSEWIRE_VM_ACCEL, or auto:\n"
	"                         KVM when /dev/kvm is accessible, else software emulation)\n"
	"  --qemu PROGRAM         QEMU (default qemu-system-x86_64)\n"
	"  --qemu-arg ARG         pass ARG to QEMU\n"
	"  --uml                  User-mode Linux in place of QEMU\n"
	"  --verbose              show the kernel's log\n"
	"  --help                 this text\n";

static int parse_number(const char *name, const char *text, unsigned int min, unsigned int max,
			unsigned int *ret_value)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || value < min || value > max)
		return vm_error("--%s %s: must be a number from %u to %u", name, text, min, max);
	*ret_value = (unsigned int)value;
	return 0;
}

/* A tag is a directory name and a word of the init script: keep it to letters that are neither. */
static bool tag_is_valid(const char *tag)
{
	size_t len = strlen(tag);

	return len > 0 && len <= VM_TAG_MAX && tag[0] != '.' && tag[0] != '-' &&
	       strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+") ==
		       len;
}

static int parse_fs(struct vm_options *opt, const char *text)
{
	const char *equals = strchr(text, '=');
	struct vm_fs *fs = &opt->fs[opt->nr_fs];
	struct stat st;

	if (opt->nr_fs == VM_FS_MAX)
		return vm_error("more than %d --fs options", VM_FS_MAX);
	if (!equals)
		return vm_error("--fs %s: must be TAG=SOCKET", text);
	fs->tag = strndup(text, (size_t)(equals - text));
	if (!fs->tag)
		return vm_error("out of memory");
	fs->socket = equals + 1;
	opt->nr_fs++;
	if (!tag_is_valid(fs->tag))
		return vm_error("--fs %s: a tag is 1 to %d letters, digits, or '._-+'", text,
				VM_TAG_MAX);
	for (unsigned int i = 0; i + 1 < opt->nr_fs; i++) {
		if (strcmp(opt->fs[i].tag, fs->tag) == 0)
			return vm_error("--fs %s: the tag %s is used twice", text, fs->tag);
	}
	if (strlen(fs->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return vm_error("--fs %s: the socket's path is too long", text);
	/* Looked at, not connected to: a device has one front-end, and a visit would end its session. */
	if (stat(fs->socket, &st) < 0)
		return vm_error("--fs %s: %s: %s", text, fs->socket, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return vm_error("--fs %s: %s is not a socket", text, fs->socket);
	return 0;
}

static int parse_add(struct vm_options *opt, const char *text)
{
	const char *colon = strrchr(text, ':');
	struct vm_add *add = &opt->add[opt->nr_add];
	const char *base;

	if (opt->nr_add == VM_ADD_MAX)
		return vm_error("more than %d --add options", VM_ADD_MAX);
	if (colon && colon[1] != '/')
		return vm_error("--add %s: the path in the guest must be absolute", text);
	add->file = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
	if (!add->file)
		return vm_error("out of memory");
	base = strrchr(add->file, '/');
	add->path = colon ? vm_asprintf("%s", colon + 1)
			  : vm_asprintf("/bin/%s", base ? base + 1 : add->file);
	opt->nr_add++;
	if (add->path[strlen(add->path) - 1] == '/' || strstr(add->path, "/../"))
		return vm_error("--add %s: not a path of a file", text);
	if (access(add->file, R_OK) < 0)
		return vm_error("--add %s: %s: %s", text, add->file, strerror(errno));
	return 0;
}

static int parse_accel(struct vm_options *opt, const char *origin, const char *text)
{
	if (strcmp(text, "auto") == 0)
		opt->accel = VM_ACCEL_AUTO;
	else if (strcmp(text, "kvm") == 0)
		opt->accel = VM_ACCEL_KVM;
	else if (strcmp(text, "tcg") == 0)
		opt->accel = VM_ACCEL_TCG;
	else
		return vm_error("%s %s: must be kvm, tcg or auto", origin, text);
	return 0;
}

static int parse_kernel_version(struct vm_options *opt, const char *text)
{
	if (strspn(text, "0123456789.") != strlen(text) || !text[0] || text[0] == '.' ||
	    text[strlen(text) - 1] == '.')
		return vm_error("--kernel-version %s: must be like 6.12", text);
	opt->kernel_version = text;
	return 0;
}

static int parse_queue_size(struct vm_options *opt, const char *text)
{
	/* QEMU's limits. */
	if (parse_number("queue-size", text, 16, 1024, &opt->queue_size) < 0)
		return -1;
	if (!is_power_of_two(opt->queue_size))
		return vm_error("--queue-size %s: must be a power of two", text);
	return 0;
}

static int parse_qemu_arg(struct vm_options *opt, const char *text)
{
	if (opt->nr_qemu_args == VM_QEMU_ARG_MAX)
		return vm_error("more than %d --qemu-arg options", VM_QEMU_ARG_MAX);
	opt->qemu_args[opt->nr_qemu_args++] = text;
	return 0;
}

static int parse_option(struct vm_options *opt, int c, const char *arg)
{
	switch (c) {
	case OPT_FS:
		return parse_fs(opt, arg);
	case OPT_ADD:
		return parse_add(opt, arg);
	case OPT_ACCEL:
		return parse_accel(opt, "--accel", arg);
	case OPT_KERNEL_VERSION:
		return parse_kernel_version(opt, arg);
	case OPT_MEMORY:
		return parse_number("memory", arg, 64, 1u << 20, &opt->memory_mib);
	case OPT_SMP:
		return parse_number("smp", arg, 1, 255, &opt->smp);
	case OPT_QUEUES:
		return parse_number("queues", arg, 1, 1023, &opt->queues);
	case OPT_QUEUE_SIZE:
		return parse_queue_size(opt, arg);
	case OPT_TIMEOUT:
		return parse_number("timeout", arg, 1, 1000000, &opt->timeout_s);
	case OPT_QEMU_ARG:
		return parse_qemu_arg(opt, arg);
	case OPT_UML:
		opt->uml = true;
		return 0;
	case OPT_ALLOW_REBOOT:
		opt->allow_reboot = true;
		return 0;
	case OPT_VERBOSE:
		opt->verbose = true;
		return 0;
	case OPT_KERNEL:
		opt->kernel = arg;
		return 0;
	case OPT_MODULES:
		opt->modules = arg;
		return 0;
	case OPT_APPEND:
		opt->append = arg;
		return 0;
	case OPT_QEMU:
		opt->qemu = arg;
		return 0;
	}
	return -1;
}

/* What can only be judged once all options are known. */
static int check_options(const struct vm_options *opt)
{
	if (opt->uml && opt->nr_qemu_args)
		return vm_error("--qemu-arg does not go with --uml");
	/* There, a device is a word of the kernel's command line, and its fields end with a colon. */
	for (unsigned int i = 0; opt->uml && i < opt->nr_fs; i++) {
		if (strpbrk(opt->fs[i].socket, ": \t\n\"'"))
			return vm_error(
				"--fs %s=%s: with --uml, the path may not have colons, "
				"spaces or quotes",
				opt->fs[i].tag, opt->fs[i].socket);
	}
	return 0;
}

/* Return: 0 to go on, 1 when --help was asked for, -1 after a message. */
static int parse(struct vm_options *opt, int argc, char **argv)
{
	const char *accel = getenv("FUSEWIRE_VM_ACCEL");
	int c;

	if (accel && accel[0] && parse_accel(opt, "FUSEWIRE_VM_ACCEL", accel) < 0)
		return -1;
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:", long_options, NULL)) != -1) {
		if (c == OPT_HELP)
			return 1;
		if (c == ':')
			return vm_error("%s needs a value", argv[optind - 1]);
		if (c == '?')
			return vm_error("unknown option %s; see 'fusewire vm --help'",
					argv[optind - 1]);
		if (parse_option(opt, c, optarg) < 0)
			return -1;
	}
	if (optind < argc && strcmp(argv[optind - 1], "--") != 0)
		return vm_error("%s: COMMAND comes after '--'", argv[optind]);
	opt->nr_command = (unsigned int)(argc - optind);
	opt->command = opt->nr_command ? argv + optind : NULL;
	opt->interactive = !opt->command && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	return check_options(opt);
}

/* Only asks whether we may open it: opening it is QEMU's business. */
static void choose_accel(struct vm_options *opt)
{
	opt->accel_chosen = opt->accel == VM_ACCEL_AUTO;
	if (opt->accel_chosen)
		opt->accel = access("/dev/kvm", R_OK | W_OK) == 0 ? VM_ACCEL_KVM : VM_ACCEL_TCG;
}

static int run_guest(struct vm_options *opt, const struct vm_kernel *kernel, int initrd)
{
	int rc = vm_guest_run(opt, kernel, initrd);

	if (rc == VM_BOOT_EMULATED) {
		opt->accel = VM_ACCEL_TCG;
		rc = vm_guest_run(opt, kernel, initrd);
	}
	for (int i = 1; i < BOOTS_MAX && rc == VM_BOOT_AGAIN; i++) {
		cli_error("that was a fault of the emulation; booting once more");
		rc = vm_guest_run(opt, kernel, initrd);
	}
	return rc == VM_BOOT_AGAIN ? CLI_FAILED : rc;
}

static int boot(struct vm_options *opt)
{
	struct vm_kernel kernel = { 0 };
	autoclose int initrd = -1;
	int rc;

	if (!opt->uml)
		choose_accel(opt);
	if (vm_kernel_find(opt, &kernel) < 0)
		return CLI_FAILED;
	initrd = vm_initrd_new(opt, &kernel);
	rc = initrd < 0 ? CLI_FAILED : run_guest(opt, &kernel, initrd);
	vm_kernel_fini(&kernel);
	return rc;
}

int cli_vm(int argc, char **argv)
{
	struct vm_options opt = {
		.kernel_version = "6.12",
		.qemu = "qemu-system-x86_64",
		.memory_mib = 512,
		.smp = 2,
		.queues = 2,
		.queue_size = 1024,
	};
	int rc = parse(&opt, argc, argv);

	if (rc > 0) {
		fputs(help_text, stdout);
		rc = CLI_OK;
	} else {
		rc = rc < 0 ? CLI_USAGE : boot(&opt);
	}
	for (unsigned int i = 0; i < opt.nr_fs; i++)
		free(opt.fs[i].tag);
	for (unsigned int i = 0; i < opt.nr_add; i++) {
		free(opt.add[i].file);
		free(opt.add[i].path);
	}
	return rc;
}
