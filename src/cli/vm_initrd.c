/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes the guest's initramfs: busybox, the init script, its settings, kernel modules, extra files.
 */
#include "cli/vm.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BUSYBOX "/bin/busybox"

/* In the order in which they have to be loaded; those that a kernel has built in are not there. */
static const char *const module_paths[] = {
	"kernel/drivers/virtio/virtio_ring",
	"kernel/drivers/virtio/virtio",
	"kernel/drivers/virtio/virtio_pci_legacy_dev",
	"kernel/drivers/virtio/virtio_pci_modern_dev",
	"kernel/drivers/virtio/virtio_pci",
	"kernel/drivers/char/virtio_console",
	"kernel/fs/fuse/fuse",
	"kernel/fs/fuse/virtiofs",
};

/* How a module may be stored, and the busybox applet that unpacks it. */
static const struct {
	const char *suffix;
	const char *applet;
} module_kinds[] = {
	{ ".ko", "cat" },
	{ ".ko.xz", "xzcat" },
	{ ".ko.gz", "zcat" },
};

/* A program with an interpreter needs a dynamic linker, which the initramfs does not have. */
static bool is_static_program(int fd)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	if (pread(fd, &eh, sizeof(eh), 0) != (ssize_t)sizeof(eh) ||
	    memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64)
		return false;
	for (unsigned int i = 0; i < eh.e_phnum; i++) {
		off_t off = (off_t)(eh.e_phoff + (uint64_t)i * sizeof(ph));

		if (pread(fd, &ph, sizeof(ph), off) != (ssize_t)sizeof(ph) ||
		    ph.p_type == PT_INTERP)
			return false;
	}
	return true;
}

static int add_busybox(struct cpio *cpio)
{
	autoclose int fd = open(BUSYBOX, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || !is_static_program(fd))
		return vm_error("no statically linked " BUSYBOX
				": install the package "
				"busybox-static");
	cpio_add_fd(cpio, "bin/busybox", 0755, fd);
	return 0;
}

/* Add one module when the kernel's folder has it. Return: 1 added, 0 not there, -1 after a message. */
static int add_module(struct cpio *cpio, const char *folder, const char *module)
{
	for (size_t i = 0; i < array_size(module_kinds); i++) {
		autofree char *path =
			vm_asprintf("%s/%s%s", folder, module, module_kinds[i].suffix);
		autofree char *in = vm_asprintf("lib/modules/%s.ko", strrchr(module, '/') + 1);
		const char *const argv[] = { BUSYBOX, module_kinds[i].applet, path, NULL };
		autoclose int fd = -1;

		if (access(path, R_OK) < 0)
			continue;
		fd = memfd_create("module", MFD_CLOEXEC);
		if (fd < 0)
			return vm_error("cannot unpack %s: %s", path, strerror(errno));
		if (vm_run_program(argv, NULL, fd) != 0 || lseek(fd, 0, SEEK_SET) < 0)
			return vm_error("cannot unpack %s", path);
		cpio_add_fd(cpio, in, 0644, fd);
		return 1;
	}
	return 0;
}

static int add_modules(struct cpio *cpio, const char *folder, FILE *conf)
{
	fprintf(conf, "MODULES='");
	for (size_t i = 0; folder && i < array_size(module_paths); i++) {
		int rc = add_module(cpio, folder, module_paths[i]);

		if (rc < 0)
			return rc;
		if (rc > 0)
			fprintf(conf, " %s", strrchr(module_paths[i], '/') + 1);
	}
	fprintf(conf, "'\n");
	return 0;
}

/* @text as one word of a shell. */
static void put_quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	}
	fputc('\'', out);
}

static void put_terminal(FILE *conf)
{
	struct winsize ws = { 0 };
	const char *term = getenv("TERM");

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col)
		fprintf(conf, "TTY_SIZE='rows %u cols %u'\n", ws.ws_row, ws.ws_col);
	fprintf(conf, "TTY_TERM=");
	put_quoted(conf, term ? term : "linux");
	fprintf(conf, "\nINTERACTIVE=1\n");
}

static void put_conf(FILE *conf, const struct vm_options *opt)
{
	fprintf(conf, "TAGS='");
	for (unsigned int i = 0; i < opt->nr_fs; i++)
		fprintf(conf, " %s", opt->fs[i].tag);
	fprintf(conf, "'\n");
	/* QEMU: the second UART. User-mode Linux: its serial lines, by port number (vm_argv.c). */
	fprintf(conf, "PORT_tty=/dev/ttyS%d\n", opt->uml ? VM_PORT_TTY : 1);
	if (opt->uml) {
		for (int i = VM_PORT_STDIN; i <= VM_PORT_STATUS; i++)
			fprintf(conf, "PORT_%s=/dev/ttyS%d\n", vm_port_name((enum vm_port)i), i);
		fprintf(conf, "STDIN_BASE64=1\n");
	}
	if (opt->interactive)
		put_terminal(conf);
}

/* /etc/fusewire.conf and /etc/fusewire.command; modules go in on the way, since the conf names them. */
static int add_settings(struct cpio *cpio, const struct vm_options *opt,
			const struct vm_kernel *kernel)
{
	autofree char *conf = NULL;
	autofree char *command = NULL;
	size_t conf_len = 0, command_len = 0;
	FILE *conf_file = open_memstream(&conf, &conf_len);
	FILE *command_file = open_memstream(&command, &command_len);
	int rc;

	if (!conf_file || !command_file) {
		cli_error("out of memory");
		exit(CLI_FAILED);
	}
	put_conf(conf_file, opt);
	rc = add_modules(cpio, kernel->modules, conf_file);
	fputs("set --", command_file);
	for (unsigned int i = 0; i < opt->nr_command; i++) {
		fputc(' ', command_file);
		put_quoted(command_file, opt->command[i]);
	}
	fputc('\n', command_file);
	fclose(conf_file);
	fclose(command_file);
	cpio_add_data(cpio, "etc/fusewire.conf", 0644, conf, conf_len);
	cpio_add_data(cpio, "etc/fusewire.command", 0644, command, command_len);
	return rc;
}

/* The kernel does not make missing parents. Adding one twice does no harm. */
static void add_parents(struct cpio *cpio, const char *path)
{
	autofree char *copy = vm_asprintf("%s", path);

	for (char *p = strchr(copy, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		cpio_add_dir(cpio, copy);
		*p = '/';
	}
}

static int add_user_file(struct cpio *cpio, const struct vm_add *add)
{
	autoclose int fd = open(add->file, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return vm_error("cannot read %s: %s", add->file, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return vm_error("%s is not a regular file", add->file);
	add_parents(cpio, add->path + 1);
	cpio_add_fd(cpio, add->path + 1, st.st_mode & 0777, fd);
	return 0;
}

static int fill(struct cpio *cpio, const struct vm_options *opt, const struct vm_kernel *kernel)
{
	cpio_add_dir(cpio, "bin");
	cpio_add_dir(cpio, "dev");
	cpio_add_dir(cpio, "etc");
	cpio_add_dir(cpio, "lib");
	cpio_add_dir(cpio, "lib/modules");
	/* The kernel opens the console for init before anything mounts a /dev. */
	cpio_add_chardev(cpio, "dev/console", 5, 1);
	cpio_add_data(cpio, "init", 0755, vm_init_script, strlen(vm_init_script));
	cpio_add_data(cpio, "etc/passwd", 0644, "root:x:0:0:root:/root:/bin/sh\n", 30);
	cpio_add_data(cpio, "etc/group", 0644, "root:x:0:\n", 10);
	if (add_busybox(cpio) < 0 || add_settings(cpio, opt, kernel) < 0)
		return -1;
	for (unsigned int i = 0; i < opt->nr_add; i++) {
		if (add_user_file(cpio, &opt->add[i]) < 0)
			return -1;
	}
	return 0;
}

int vm_initrd_new(const struct vm_options *opt, const struct vm_kernel *kernel)
{
	autoclose int fd = memfd_create("initramfs", MFD_CLOEXEC);
	struct cpio cpio;
	int rc;

	if (fd < 0)
		return vm_error("cannot make an initramfs: %s", strerror(errno));
	cpio_init(&cpio, fd);
	if (fill(&cpio, opt, kernel) < 0)
		return -1;
	rc = cpio_finish(&cpio);
	if (rc < 0)
		return vm_error("cannot make an initramfs: %s", strerror(-rc));
	return TAKE_FD(fd);
}
