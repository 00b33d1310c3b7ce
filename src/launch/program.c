/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What can be told of a program by looking at its file.
 *
 * The file is read in pieces of bounded length, not mapped: one that is broken, or cut short while we look, must not end us.
 */
#include "launch/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Most tables of a program are far smaller; what is longer is cut. */
#define PROGRAM_TABLE_BYTES (64 << 10)
#define PROGRAM_HEADERS_MAX 64u

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PROGRAM_DATA ELFDATA2LSB
#else
#define PROGRAM_DATA ELFDATA2MSB
#endif

#if defined(__x86_64__)
#define PROGRAM_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define PROGRAM_MACHINE EM_AARCH64
#elif defined(__s390x__)
#define PROGRAM_MACHINE EM_S390
#else
#error "name this architecture's EM_* constant"
#endif

struct elf_file {
	int fd;
	Elf64_Phdr headers[PROGRAM_HEADERS_MAX];
	unsigned int nr_headers;
};

static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

int program_find(const char *name, char *path)
{
	const char *dirs = getenv("PATH");
	int err = -ENOENT, found;

	if (!dirs)
		dirs = "/bin:/usr/bin";
	if (strchr(name, '/')) {
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return -ENAMETOOLONG;
		return check_executable(path);
	}
	while (*name) {
		size_t len = strcspn(dirs, ":");
		int n = snprintf(path, PATH_MAX, "%.*s%s%s", (int)len, dirs, len ? "/" : "", name);

		found = n < PATH_MAX ? check_executable(path) : -ENOENT;
		if (!found)
			return 0;
		if (found == -EACCES)
			err = found;
		if (!dirs[len])
			break;
		dirs += len + 1;
	}
	return err;
}

/* Return: bytes read, fewer than @len at the end of the file. */
static size_t read_at(int fd, void *buf, size_t len, uint64_t off)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = pread(fd, (char *)buf + have, len - have, (off_t)(off + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	return have;
}

static void inspect_script(struct program *p, const char *head)
{
	const char *at = head + 2 + strspn(head + 2, " \t");
	size_t len = strcspn(at, " \t\r\n");

	p->kind = PROGRAM_SCRIPT;
	snprintf(p->interpreter, sizeof(p->interpreter), "%.*s", (int)len, at);
}

static bool note_is_go(const char *buf, size_t len)
{
	Elf64_Nhdr note;
	size_t off = 0;

	while (len - off >= sizeof(note)) {
		size_t name, desc;

		memcpy(&note, buf + off, sizeof(note));
		off += sizeof(note);
		name = ((size_t)note.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)note.n_descsz + 3) & ~(size_t)3;
		if (name > len - off)
			return false;
		if (note.n_namesz == 4 && memcmp(buf + off, "Go\0", 4) == 0)
			return true;
		off += name;
		if (desc > len - off)
			return false;
		off += desc;
	}
	return false;
}

static bool elf_offset(const struct elf_file *elf, uint64_t addr, uint64_t *ret_off)
{
	for (unsigned int i = 0; i < elf->nr_headers; i++) {
		const Elf64_Phdr *h = &elf->headers[i];

		if (h->p_type == PT_LOAD && addr >= h->p_vaddr && addr - h->p_vaddr < h->p_filesz) {
			*ret_off = h->p_offset + (addr - h->p_vaddr);
			return true;
		}
	}
	return false;
}

static void add_library(struct program *p, const struct elf_file *elf, uint64_t off)
{
	size_t used = 0, room, len;
	char *to;

	if (p->nr_libraries) {
		const char *last = p->libraries[p->nr_libraries - 1];

		used = (size_t)(last - p->strings) + strlen(last) + 1;
	}
	room = sizeof(p->strings) - used;
	to = p->strings + used;
	len = read_at(elf->fd, to, min_of(room, (size_t)256), off);
	if (p->nr_libraries < PROGRAM_LIBRARIES_MAX && memchr(to, '\0', len))
		p->libraries[p->nr_libraries++] = to;
}

static void inspect_dynamic(struct program *p, const struct elf_file *elf, const Elf64_Phdr *h)
{
	size_t len = min_of((size_t)h->p_filesz, (size_t)PROGRAM_TABLE_BYTES);
	autofree Elf64_Dyn *dyn = malloc(len);
	uint64_t strings = 0;
	size_t nr;

	if (!dyn)
		return;
	nr = read_at(elf->fd, dyn, len, h->p_offset) / sizeof(*dyn);
	for (size_t i = 0; i < nr; i++) {
		if (dyn[i].d_tag == DT_STRTAB && !elf_offset(elf, dyn[i].d_un.d_ptr, &strings))
			return;
	}
	for (size_t i = 0; strings && i < nr && dyn[i].d_tag != DT_NULL; i++) {
		if (dyn[i].d_tag == DT_NEEDED)
			add_library(p, elf, strings + dyn[i].d_un.d_val);
	}
}

static void inspect_note(struct program *p, const struct elf_file *elf, const Elf64_Phdr *h)
{
	char buf[4096];
	size_t len = read_at(elf->fd, buf, min_of((size_t)h->p_filesz, sizeof(buf)), h->p_offset);

	p->is_go = p->is_go || note_is_go(buf, len);
}

static void inspect_elf(struct program *p, int fd, const Elf64_Ehdr *eh)
{
	struct elf_file elf = { .fd = fd };

	p->kind = PROGRAM_ELF;
	p->is_foreign = eh->e_ident[EI_CLASS] != ELFCLASS64 ||
			eh->e_ident[EI_DATA] != PROGRAM_DATA || eh->e_machine != PROGRAM_MACHINE;
	if (p->is_foreign || eh->e_phentsize != sizeof(Elf64_Phdr))
		return;
	elf.nr_headers = min_of((unsigned int)eh->e_phnum, PROGRAM_HEADERS_MAX);
	elf.nr_headers = (unsigned int)(read_at(fd, elf.headers,
						elf.nr_headers * sizeof(Elf64_Phdr), eh->e_phoff) /
					sizeof(Elf64_Phdr));
	for (unsigned int i = 0; i < elf.nr_headers; i++) {
		const Elf64_Phdr *h = &elf.headers[i];

		if (h->p_type == PT_INTERP)
			p->interpreter[read_at(fd, p->interpreter,
					       min_of((size_t)h->p_filesz,
						      sizeof(p->interpreter) - 1),
					       h->p_offset)] = '\0';
		else if (h->p_type == PT_DYNAMIC)
			inspect_dynamic(p, &elf, h);
		else if (h->p_type == PT_NOTE)
			inspect_note(p, &elf, h);
	}
}

int program_inspect(const char *name, struct program *ret_program)
{
	struct program *p = ret_program;
	union {
		Elf64_Ehdr elf;
		char text[256];
	} head = { .text = { 0 } };
	autoclose int fd = -1;
	struct stat st;
	size_t n;
	int err;

	memset(p, 0, sizeof(*p));
	p->kind = PROGRAM_OTHER;
	err = program_find(name, p->path);
	if (err)
		return err;
	fd = open(p->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	p->mode = st.st_mode;
	p->uid = st.st_uid;
	p->gid = st.st_gid;
	n = read_at(fd, head.text, sizeof(head.text) - 1, 0);
	if (!memcmp(head.text, "#!", 2))
		inspect_script(p, head.text);
	else if (n >= sizeof(head.elf) && !memcmp(head.text, ELFMAG, SELFMAG))
		inspect_elf(p, fd, &head.elf);
	return 0;
}

const char *program_refuses_preload(const struct program *program)
{
	const char *slash = strrchr(program->interpreter, '/');

	if (program->kind != PROGRAM_ELF)
		return NULL;
	if (slash && !strncmp(slash, "/ld-musl", 8))
		return "it is linked with musl, the library with glibc";
	for (unsigned int i = 0; i < program->nr_libraries; i++) {
		if (!strncmp(program->libraries[i], "libasan.so", 10) ||
		    !strncmp(program->libraries[i], "libclang_rt.asan", 16))
			return "it is built with AddressSanitizer, whose library has to be the "
			       "first";
	}
	return NULL;
}
