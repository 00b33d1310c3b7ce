/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds the kernel that `fusewire vm` boots, fetching a Debian cloud kernel through apt once.
 *
 * Theory of operation: a fetched package lies unpacked in CACHE/kernels/PACKAGE. It is made in a
 * directory with a temporary name and renamed when it is complete, so that a run that is interrupted,
 * or a second one at the same time, never leaves a half-made one under the final name.
 */
#include "cli/vm.h"

#include <dirent.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define UML_PROGRAM "linux.uml"
#define UML_MODULES "/usr/lib/uml/modules"
#define SUFFIX	    "-cloud-amd64-unsigned"

/* Of a kernel package only this is kept: the image and the modules that vm_initrd.c may load. */
static const char unpack_script[] =
	"set -e\n"
	"cd \"$1\"\n"
	"dpkg-deb --fsys-tarfile ./*.deb >kernel.tar\n"
	"tar -xf kernel.tar --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.builtin'"
	" './lib/modules/*/kernel/fs/fuse/*' './lib/modules/*/kernel/drivers/virtio/*'"
	" './lib/modules/*/kernel/drivers/char/virtio_console.ko*' 2>tar.log || :\n"
	"rm -f kernel.tar ./*.deb tar.log\n"
	"test -d boot\n";

void vm_kernel_fini(struct vm_kernel *kernel)
{
	free(kernel->image);
	free(kernel->modules);
	*kernel = (struct vm_kernel){ 0 };
}

static int make_dirs(char *path)
{
	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST) {
			int rc =
				vm_error("cannot make the directory %s: %s", path, strerror(errno));

			*p = c;
			return rc;
		}
		*p = c;
		if (c == '\0')
			return 0;
	}
}

/* The folder of fetched kernels, made when missing; NULL after a message. */
static char *cache_dir(void)
{
	const char *xdg = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	autofree char *path = NULL;

	if (xdg && xdg[0] == '/') {
		path = vm_asprintf("%s/fusewire/kernels", xdg);
	} else if (geteuid() == 0) {
		path = vm_asprintf("/var/cache/fusewire/kernels");
	} else if (home && home[0] == '/') {
		path = vm_asprintf("%s/.cache/fusewire/kernels", home);
	} else {
		cli_error(
			"neither XDG_CACHE_HOME nor HOME is set: no place to keep a kernel; "
			"name one with --kernel");
		return NULL;
	}
	return make_dirs(path) < 0 ? NULL : TAKE_PTR(path);
}

/* Is @name a cloud kernel package of @series, "6.1" not meaning 6.12? */
static bool is_kernel_package(const char *name, const char *series)
{
	autofree char *prefix = vm_asprintf("linux-image-%s.", series);
	size_t len = strlen(name);

	return strncmp(name, prefix, strlen(prefix)) == 0 && len > strlen(SUFFIX) &&
	       strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

/* The newest name of the two; frees the other. */
static char *newer_of(char *best, const char *name)
{
	if (best && strverscmp(name, best) <= 0)
		return best;
	free(best);
	return vm_asprintf("%s", name);
}

static char *find_cached(const char *cache, const char *series)
{
	DIR *dir = opendir(cache);
	struct dirent *de;
	char *best = NULL;

	while (dir && (de = readdir(dir))) {
		if (is_kernel_package(de->d_name, series))
			best = newer_of(best, de->d_name);
	}
	if (dir)
		closedir(dir);
	return best;
}

/* The newest package that apt's lists have, or NULL after a message. */
static char *find_in_apt(const char *series)
{
	autofree char *pattern = vm_asprintf("^linux-image-%s[.].*%s$", series, SUFFIX);
	const char *const argv[] = { "apt-cache", "search", "--names-only", pattern, NULL };
	autofree char *out = NULL;
	char *save = NULL;
	char *best = NULL;
	int rc = vm_run_capture(argv, &out);

	if (rc < 0) {
		cli_error("cannot run apt-cache (%s): name a kernel with --kernel", strerror(-rc));
		return NULL;
	}
	for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		line[strcspn(line, " ")] = '\0';
		if (is_kernel_package(line, series))
			best = newer_of(best, line);
	}
	if (!best)
		cli_error(
			"apt knows no package linux-image-%s.*%s: run 'apt-get update' as root, or "
			"name a kernel with --kernel",
			series, SUFFIX);
	return best;
}

/* Download and unpack @package into @tmp. apt and dpkg speak for themselves when they fail. */
static int fetch_into(const char *package, const char *tmp)
{
	/* As root, apt would switch to a user who may not write to our directory, and warn. */
	const char *const get[] = { "apt-get",	"-qq",	 "-o", "APT::Sandbox::User=root",
				    "download", package, NULL };
	const char *const get_as_user[] = { "apt-get", "-qq", "download", package, NULL };
	const char *const unpack[] = { "sh", "-c", unpack_script, "sh", tmp, NULL };
	int rc;

	fprintf(stderr, "fusewire vm: fetching %s\n", package);
	rc = vm_run_program(geteuid() == 0 ? get : get_as_user, tmp, STDERR_FILENO);
	if (vm_is_stopped())
		return -1;
	if (rc)
		return vm_error("apt-get download %s failed; name a kernel with --kernel", package);
	rc = vm_run_program(unpack, NULL, STDERR_FILENO);
	if (rc)
		return vm_error("cannot unpack the package %s", package);
	return 0;
}

static int fetch_and_rename(const char *cache, const char *package)
{
	autofree char *final = vm_asprintf("%s/%s", cache, package);
	autofree char *tmp = vm_asprintf("%s/tmp-XXXXXX", cache);
	int rc;

	if (!mkdtemp(tmp))
		return vm_error("cannot write to %s: %s", cache, strerror(errno));
	rc = fetch_into(package, tmp);
	if (rc == 0 && chmod(tmp, 0755) == 0 && rename(tmp, final) == 0)
		return 0;
	/* Somebody else may have fetched it at the same time. */
	if (rc == 0 && access(final, R_OK) != 0)
		rc = vm_error("cannot make %s: %s", final, strerror(errno));
	vm_remove_tree(tmp);
	return rc;
}

/* A signal that shall end us ends the download, and us when nothing of that is left. */
static int fetch(const char *cache, const char *package)
{
	sigset_t stop, before;
	int rc;

	vm_stop_signals(&stop);
	sigprocmask(SIG_BLOCK, &stop, &before);
	rc = fetch_and_rename(cache, package);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* The only entry of @dir whose name begins with @prefix, as a path, or NULL. */
static char *only_entry(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	char *path = NULL;

	while (d && !path && (de = readdir(d))) {
		if (de->d_name[0] != '.' && strncmp(de->d_name, prefix, strlen(prefix)) == 0)
			path = vm_asprintf("%s/%s", dir, de->d_name);
	}
	if (d)
		closedir(d);
	return path;
}

static int find_debian(const char *series, struct vm_kernel *ret_kernel)
{
	autofree char *cache = cache_dir();
	autofree char *package = NULL;
	autofree char *boot = NULL;
	autofree char *lib = NULL;
	struct vm_kernel kernel;

	if (!cache)
		return -1;
	package = find_cached(cache, series);
	if (!package) {
		package = find_in_apt(series);
		if (!package || fetch(cache, package) < 0)
			return -1;
	}
	boot = vm_asprintf("%s/%s/boot", cache, package);
	lib = vm_asprintf("%s/%s/lib/modules", cache, package);
	kernel.image = only_entry(boot, "vmlinuz-");
	kernel.modules = only_entry(lib, "");
	if (!kernel.image) {
		vm_kernel_fini(&kernel);
		return vm_error("%s/%s has no kernel: delete it to fetch it again", cache, package);
	}
	*ret_kernel = kernel;
	return 0;
}

/*
 * Before 6.13, User-mode Linux has room for so many bytes of a process's extended registers, and panics when the kernel
 * below it has more of them (AMX) to hand out: HOST_FP_SIZE in its arch/x86/um/user-offsets.c.
 */
#define UML_REGISTER_BYTES 2696u

/* Return: 0, or an error after a message. */
static int check_uml_registers(const char *version)
{
#if defined(__x86_64__)
	unsigned int major = 0, minor = 0, eax, ebx, ecx, edx;

	if (sscanf(version, "%u.%u", &major, &minor) == 2 &&
	    (major > 6 || (major == 6 && minor >= 13)))
		return 0;
	/* EBX: bytes of what is switched on in this machine. */
	if (__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) && ebx > UML_REGISTER_BYTES)
		return vm_error(
			"User-mode Linux %s cannot run on this processor: its registers take %u "
			"bytes, and there is room for %u; leave out --uml for a QEMU guest",
			version, ebx, UML_REGISTER_BYTES);
#endif
	return 0;
}

static int find_uml(const struct vm_options *opt, struct vm_kernel *ret_kernel)
{
	const char *program = opt->kernel ? opt->kernel : UML_PROGRAM;
	const char *const argv[] = { program, "--version", NULL };
	autofree char *version = NULL;
	int rc = vm_run_capture(argv, &version);

	if (rc)
		return vm_error(
			"cannot run %s: install the package user-mode-linux, or name the "
			"program with --kernel",
			program);
	version[strcspn(version, "\n")] = '\0';
	rc = check_uml_registers(version);
	if (rc)
		return rc;
	ret_kernel->modules = opt->modules ? vm_asprintf("%s", opt->modules)
					   : vm_asprintf("%s/%s", UML_MODULES, version);
	ret_kernel->image = vm_asprintf("%s", program);
	return 0;
}

int vm_kernel_find(const struct vm_options *opt, struct vm_kernel *ret_kernel)
{
	if (opt->uml)
		return find_uml(opt, ret_kernel);
	if (!opt->kernel)
		return find_debian(opt->kernel_version, ret_kernel);
	if (access(opt->kernel, R_OK) < 0)
		return vm_error("cannot read the kernel %s: %s", opt->kernel, strerror(errno));
	ret_kernel->image = vm_asprintf("%s", opt->kernel);
	ret_kernel->modules = opt->modules ? vm_asprintf("%s", opt->modules) : NULL;
	return 0;
}
