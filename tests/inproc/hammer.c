/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random operations on a mounted file system from many threads, everything compared with a model in memory.
 *
 *	hammer [--threads N] [--seconds S] [--seed N] [--direct] [--no-xattr] [--no-hardlink] [--hidden] [--signals] DIRECTORY
 *
 * --signals: every few milliseconds a thread gets a signal, by which the kernel interrupts its request. Nothing may come of it.
 * --hidden: libfuse's path-based daemons may leave .fuse_hidden files, by which folders are not empty at the end.
 *
 * Each thread has a folder with files of its own, whose names, sizes, bytes and attributes it knows; a stripe of a file that
 * all write; and a folder where all make, rename, read and remove the same names. Prints how many operations were done;
 * the first thing that is wrong ends it with 1. Static: it also runs in guests.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX  64
#define FILES	     4
#define FILE_BYTES   (512u << 10)
#define PIECE_BYTES  (256u << 10)
#define STRIPE_BYTES 4096u
#define STRIPES	     64u
#define CROWD	     24u
#define CROWD_BYTES  5000u

/* One of a thread's own files; content: what its first size bytes have to be. */
struct file {
	char name[32];
	int fd;
	size_t size;
	unsigned char *content;
	uint32_t attribute; /* value of its extended attribute, 0: has none */
};

struct worker {
	pthread_t thread;
	unsigned int id;
	uint64_t rng;
	int dir;
	struct file files[FILES];
	unsigned char *buf;
	uint32_t stripes[STRIPES];
	unsigned int nr_names;
	unsigned long nr_ops;
	const char *op;
};

static struct {
	unsigned int threads;
	double seconds;
	uint64_t seed;
	int direct, no_xattr, no_hardlink, hidden, signals;
	const char *directory;
} opts = { .threads = 16, .seconds = 5, .seed = 1 };

static int crowd_dir, shared_fd;
static bool stop, failed;

static bool __attribute__((format(printf, 2, 3))) wrong(struct worker *w, const char *fmt, ...)
{
	char text[256];
	va_list args;
	int err = errno;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "hammer: thread %u, operation %lu, %s: %s (errno: %s); seed %llu\n", w->id,
		w->nr_ops, w->op, text, strerror(err), (unsigned long long)opts.seed);
	__atomic_store_n(&failed, true, __ATOMIC_RELAXED);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	return false;
}

static uint64_t draw(struct worker *w, uint64_t below)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (w->rng >> 11) % below;
}

static size_t draw_length(struct worker *w)
{
	static const size_t top[] = { 16, 5000, 5000, 4096, 70000, PIECE_BYTES };
	size_t most = top[draw(w, sizeof(top) / sizeof(top[0]))];

	return most == 4096 ? most : 1 + draw(w, most);
}

static void draw_bytes(struct worker *w, unsigned char *buf, size_t len)
{
	uint64_t x = draw(w, UINT64_MAX) | 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		buf[i] = (unsigned char)(x >> 56);
	}
}

static bool same(struct worker *w, const struct file *f, const unsigned char *got, size_t off,
		 size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (got[i] != f->content[off + i])
			return wrong(w,
				     "%s: byte %zu is %02x, not %02x (read %zu from %zu, size %zu)",
				     f->name, off + i, got[i], f->content[off + i], len, off,
				     f->size);
	}
	return true;
}

static int file_flags(void)
{
	return O_RDWR | O_CLOEXEC | (opts.direct ? O_DIRECT : 0);
}

static bool file_make(struct worker *w, struct file *f)
{
	snprintf(f->name, sizeof(f->name), "f%u", w->nr_names++);
	f->fd = openat(w->dir, f->name, file_flags() | O_CREAT | O_EXCL, 0644);
	f->size = 0;
	f->attribute = 0;
	return f->fd >= 0 || wrong(w, "create %s", f->name);
}

static bool file_write(struct worker *w, struct file *f, int fd, size_t off, size_t len)
{
	ssize_t n;

	draw_bytes(w, w->buf, len);
	n = pwrite(fd, w->buf, len, (off_t)off);
	if (n != (ssize_t)len)
		return wrong(w, "%s: wrote %zd of %zu at %zu", f->name, n, len, off);
	if (off > f->size)
		memset(f->content + f->size, 0, off - f->size);
	memcpy(f->content + off, w->buf, len);
	if (off + len > f->size)
		f->size = off + len;
	return true;
}

static bool file_read(struct worker *w, struct file *f, int fd, size_t off, size_t len)
{
	size_t left = off < f->size ? f->size - off : 0;
	ssize_t n = pread(fd, w->buf, len, (off_t)off);

	len = len < left ? len : left;
	if (n != (ssize_t)len)
		return wrong(w, "%s: read %zd at %zu, not %zu; size %zu", f->name, n, off, len,
			     f->size);
	return same(w, f, w->buf, off, len);
}

static bool op_write(struct worker *w, struct file *f)
{
	size_t len = draw_length(w);

	return file_write(w, f, f->fd, draw(w, FILE_BYTES - len), len);
}

static bool op_read(struct worker *w, struct file *f)
{
	return file_read(w, f, f->fd, draw(w, f->size + 5000), draw_length(w));
}

static bool op_append(struct worker *w, struct file *f)
{
	size_t len = 1 + draw(w, 3000);
	bool fine;
	int fd;

	if (f->size + len > FILE_BYTES)
		return true;
	fd = openat(w->dir, f->name, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return wrong(w, "open %s", f->name);
	fine = file_write(w, f, fd, f->size, len);
	close(fd);
	return fine;
}

static bool op_truncate(struct worker *w, struct file *f)
{
	size_t size = draw(w, 4) ? draw(w, FILE_BYTES) : 0;

	if (ftruncate(f->fd, (off_t)size) < 0)
		return wrong(w, "%s: truncate to %zu", f->name, size);
	if (size > f->size)
		memset(f->content + f->size, 0, size - f->size);
	f->size = size;
	return true;
}

static bool op_reopen(struct worker *w, struct file *f)
{
	bool truncating = draw(w, 8) == 0;

	if (close(f->fd) < 0)
		return wrong(w, "close %s", f->name);
	f->fd = openat(w->dir, f->name, file_flags() | (truncating ? O_TRUNC : 0));
	if (truncating)
		f->size = 0;
	return f->fd >= 0 || wrong(w, "open %s", f->name);
}

static bool op_stat(struct worker *w, struct file *f)
{
	struct stat st;

	if (fstatat(w->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return wrong(w, "stat %s", f->name);
	if (!S_ISREG(st.st_mode) || st.st_size != (off_t)f->size)
		return wrong(w, "%s: mode %o, size %lld, not %zu", f->name, st.st_mode,
			     (long long)st.st_size, f->size);
	return fstatat(w->dir, "never", &st, 0) < 0 && errno == ENOENT ? true
								       : wrong(w, "never is there");
}

static bool op_chmod(struct worker *w, struct file *f)
{
	mode_t mode = 0600 | (mode_t)draw(w, 0100);
	struct stat st;

	if (fchmod(f->fd, mode) < 0 || fstat(f->fd, &st) < 0)
		return wrong(w, "%s: chmod %o", f->name, mode);
	return (st.st_mode & 07777) == mode ||
	       wrong(w, "%s: mode %o, not %o", f->name, st.st_mode, mode);
}

static bool op_rename(struct worker *w, struct file *f)
{
	char name[sizeof(f->name)];

	snprintf(name, sizeof(name), "f%u", w->nr_names++);
	if (renameat(w->dir, f->name, w->dir, name) < 0)
		return wrong(w, "rename %s to %s", f->name, name);
	if (faccessat(w->dir, f->name, F_OK, 0) == 0 || errno != ENOENT)
		return wrong(w, "%s is there after its renaming", f->name);
	memcpy(f->name, name, sizeof(name));
	return true;
}

/* Another of our files goes under @f's name; what was @f lives on in its descriptor. */
static bool op_replace(struct worker *w, struct file *f)
{
	struct file *victim = &w->files[draw(w, FILES)];

	if (victim == f)
		return true;
	if (renameat(w->dir, f->name, w->dir, victim->name) < 0)
		return wrong(w, "rename %s over %s", f->name, victim->name);
	memcpy(f->name, victim->name, sizeof(f->name));
	if (!file_read(w, victim, victim->fd, 0, victim->size < 4096 ? victim->size + 1 : 4096))
		return false;
	close(victim->fd);
	return file_make(w, victim);
}

static bool op_unlink(struct worker *w, struct file *f)
{
	size_t len = draw_length(w);

	if (unlinkat(w->dir, f->name, 0) < 0)
		return wrong(w, "unlink %s", f->name);
	if (!file_write(w, f, f->fd, draw(w, FILE_BYTES - len), len) ||
	    !file_read(w, f, f->fd, 0, 4096))
		return false;
	close(f->fd);
	return file_make(w, f);
}

static bool op_link(struct worker *w, struct file *f)
{
	bool fine;
	int fd;

	if (opts.no_hardlink)
		return true;
	if (linkat(w->dir, f->name, w->dir, "second", 0) < 0)
		return wrong(w, "link %s", f->name);
	fd = openat(w->dir, "second", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return wrong(w, "open another name of %s", f->name);
	fine = file_read(w, f, fd, 0, 10000);
	close(fd);
	return fine && (unlinkat(w->dir, "second", 0) == 0 || wrong(w, "unlink another name"));
}

static bool op_symlink(struct worker *w, struct file *f)
{
	char target[200], got[sizeof(target) + 1];
	size_t len = 1 + draw(w, sizeof(target) - 1);

	memset(target, 'a' + (int)draw(w, 26), len);
	target[len] = '\0';
	if (symlinkat(target, w->dir, "link") < 0)
		return wrong(w, "symlink");
	if (readlinkat(w->dir, "link", got, sizeof(got)) != (ssize_t)len ||
	    memcmp(got, target, len))
		return wrong(w, "link has another target");
	return unlinkat(w->dir, "link", 0) == 0 || wrong(w, "unlink of a link");
}

static int count_names(int at, const char *path, const char *prefix)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), nr = 0;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (!dir)
		return -1;
	while ((entry = readdir(dir)))
		nr += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	closedir(dir);
	return nr;
}

static bool op_list(struct worker *w, struct file *f)
{
	int nr = count_names(w->dir, ".", "f");

	return nr == FILES || wrong(w, "%d names in our folder, not %d", nr, FILES);
}

/* What libfuse left: where RELEASE comes in the midst of the unlink, it hides a file that is closed already, and never removes it. */
static void remove_hidden(const struct worker *w, const char *name)
{
	int fd = openat(w->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		if (!strncmp(e->d_name, ".fuse_hidden", 12))
			unlinkat(fd, e->d_name, 0);
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
}

/* A kernel does not wait for a close: libfuse may still have the file that was unlinked after it, under its hidden name. */
static bool remove_emptied(const struct worker *w, const char *name)
{
	for (int i = 0; unlinkat(w->dir, name, AT_REMOVEDIR) < 0; i++) {
		if (!opts.hidden || (errno != ENOTEMPTY && errno != EEXIST) || i == 5000)
			return false;
		if (i % 1000 == 999)
			remove_hidden(w, name);
		usleep(1000);
	}
	return true;
}

static bool op_folder(struct worker *w, struct file *f)
{
	int wanted = (int)draw(w, 30), nr;
	char name[32];

	if (mkdirat(w->dir, "d", 0755) < 0)
		return wrong(w, "mkdir");
	for (int i = 0; i < wanted; i++) {
		int fd;

		snprintf(name, sizeof(name), "d/x%d", i);
		fd = openat(w->dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0)
			return wrong(w, "create %s", name);
		close(fd);
	}
	nr = count_names(w->dir, "d", "x");
	if (nr != wanted)
		return wrong(w, "%d names, not %d", nr, wanted);
	if (wanted &&
	    (unlinkat(w->dir, "d", AT_REMOVEDIR) == 0 || (errno != ENOTEMPTY && errno != EEXIST)))
		return wrong(w, "a full folder was removed");
	for (int i = 0; i < wanted; i++) {
		snprintf(name, sizeof(name), "d/x%d", i);
		if (unlinkat(w->dir, name, 0) < 0)
			return wrong(w, "unlink %s", name);
	}
	return remove_emptied(w, "d") || wrong(w, "rmdir");
}

static bool op_xattr(struct worker *w, struct file *f)
{
	uint32_t value = 0;
	ssize_t n;

	if (opts.no_xattr)
		return true;
	n = fgetxattr(f->fd, "user.hammer", &value, sizeof(value));
	if (f->attribute ? n != sizeof(value) || value != f->attribute : n >= 0 || errno != ENODATA)
		return wrong(w, "%s: attribute is %u (%zd), not %u", f->name, value, n,
			     f->attribute);
	if (f->attribute && draw(w, 3) == 0) {
		f->attribute = 0;
		return fremovexattr(f->fd, "user.hammer") == 0 || wrong(w, "removexattr");
	}
	f->attribute = 1 + (uint32_t)draw(w, 1000000);
	return fsetxattr(f->fd, "user.hammer", &f->attribute, sizeof(f->attribute), 0) == 0 ||
	       wrong(w, "setxattr");
}

static bool op_fsync(struct worker *w, struct file *f)
{
	return (draw(w, 2) ? fsync(f->fd) : fdatasync(f->fd)) == 0 || wrong(w, "fsync %s", f->name);
}

static bool op_mmap(struct worker *w, struct file *f)
{
	unsigned char *map;
	bool fine;

	if (!f->size || opts.direct)
		return true;
	map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);
	if (map == MAP_FAILED)
		return wrong(w, "mmap %s", f->name);
	fine = same(w, f, map, 0, f->size);
	munmap(map, f->size);
	return fine;
}

/* A stripe that only we write, between those of the others. */
static bool op_stripe(struct worker *w, struct file *f)
{
	unsigned int i = (unsigned int)draw(w, STRIPES);
	off_t at = (off_t)(i * opts.threads + w->id) * STRIPE_BYTES;
	uint32_t *words = (uint32_t *)(void *)w->buf;

	if (w->stripes[i]) {
		if (pread(shared_fd, w->buf, STRIPE_BYTES, at) != STRIPE_BYTES)
			return wrong(w, "stripe %u: short read", i);
		for (unsigned int k = 0; k < STRIPE_BYTES / 4; k++) {
			if (words[k] != w->stripes[i] + k)
				return wrong(w, "stripe %u: word %u is %x, not %x", i, k, words[k],
					     w->stripes[i] + k);
		}
	}
	w->stripes[i] = 1 + (uint32_t)draw(w, 1u << 30);
	for (unsigned int k = 0; k < STRIPE_BYTES / 4; k++)
		words[k] = w->stripes[i] + k;
	return pwrite(shared_fd, w->buf, STRIPE_BYTES, at) == STRIPE_BYTES ||
	       wrong(w, "stripe %u: write", i);
}

/* What others may have done to a name in the meantime. */
static bool raced(void)
{
	return errno == ENOENT || errno == EEXIST || errno == ESTALE;
}

static bool crowd_read(struct worker *w, const char *name)
{
	int fd = openat(crowd_dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return raced() || wrong(w, "open %s", name);
	n = pread(fd, w->buf, CROWD_BYTES + 1, 0);
	close(fd);
	if (n < 0 || n > (ssize_t)CROWD_BYTES)
		return (n < 0 && errno == ESTALE) || wrong(w, "%s: read gives %zd", name, n);
	/* Whoever made it wrote one byte over and over. */
	for (ssize_t i = 1; i < n; i++) {
		if (w->buf[i] != w->buf[0])
			return wrong(w, "%s: byte %zd is %02x, not %02x", name, i, w->buf[i],
				     w->buf[0]);
	}
	return true;
}

static bool op_crowd(struct worker *w, struct file *f)
{
	char name[16], other[16];
	int fd;

	snprintf(name, sizeof(name), "c%u", (unsigned int)draw(w, CROWD));
	snprintf(other, sizeof(other), "c%u", (unsigned int)draw(w, CROWD));
	switch (draw(w, 5)) {
	case 0:
		fd = openat(crowd_dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		if (fd < 0)
			return raced() || wrong(w, "create %s", name);
		memset(w->buf, 'a' + (int)draw(w, 26), CROWD_BYTES);
		if (pwrite(fd, w->buf, CROWD_BYTES, 0) != (ssize_t)CROWD_BYTES)
			return wrong(w, "write %s", name);
		return close(fd) == 0 || wrong(w, "close %s", name);
	case 1:
		return renameat(crowd_dir, name, crowd_dir, other) == 0 || raced() ||
		       wrong(w, "rename %s to %s", name, other);
	case 2:
		return unlinkat(crowd_dir, name, 0) == 0 || raced() || wrong(w, "unlink %s", name);
	case 3:
		return count_names(crowd_dir, ".", "c") >= 0 || wrong(w, "list");
	default:
		return crowd_read(w, name);
	}
}

static const struct {
	const char *name;
	bool (*run)(struct worker *w, struct file *f);
	unsigned int weight;
} operations[] = {
	{ "write", op_write, 20 },	{ "read", op_read, 30 },    { "append", op_append, 4 },
	{ "truncate", op_truncate, 3 }, { "reopen", op_reopen, 5 }, { "stat", op_stat, 8 },
	{ "chmod", op_chmod, 2 },	{ "rename", op_rename, 4 }, { "replace", op_replace, 1 },
	{ "unlink", op_unlink, 2 },	{ "link", op_link, 2 },	    { "symlink", op_symlink, 2 },
	{ "list", op_list, 2 },		{ "folder", op_folder, 1 }, { "xattr", op_xattr, 3 },
	{ "fsync", op_fsync, 1 },	{ "mmap", op_mmap, 2 },	    { "stripe", op_stripe, 8 },
	{ "crowd", op_crowd, 10 },
};

#define NR_OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static void step(struct worker *w)
{
	unsigned int sum = 0, at, i = 0;

	for (unsigned int k = 0; k < NR_OPERATIONS; k++)
		sum += operations[k].weight;
	at = (unsigned int)draw(w, sum);
	while (at >= operations[i].weight)
		at -= operations[i++].weight;
	w->op = operations[i].name;
	operations[i].run(w, &w->files[draw(w, FILES)]);
	w->nr_ops++;
}

static bool worker_begin(struct worker *w)
{
	char path[4096];
	void *buf;

	w->op = "begin";
	w->rng = (opts.seed * 1000003 + w->id + 1) * 0x9e3779b97f4a7c15ull | 1;
	snprintf(path, sizeof(path), "%s/t%u", opts.directory, w->id);
	if (mkdir(path, 0755) < 0)
		return wrong(w, "mkdir %s", path);
	w->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir < 0 || posix_memalign(&buf, 4096, PIECE_BYTES + 4096))
		return wrong(w, "open %s", path);
	w->buf = buf;
	for (unsigned int i = 0; i < FILES; i++) {
		w->files[i].content = malloc(FILE_BYTES);
		if (!w->files[i].content)
			return wrong(w, "no memory");
		if (!file_make(w, &w->files[i]))
			return false;
	}
	return true;
}

static bool remove_folder(const char *path)
{
	return rmdir(path) == 0 || (opts.hidden && (errno == ENOTEMPTY || errno == EEXIST));
}

/* Everything once more, and away with it. */
static void worker_end(struct worker *w)
{
	char path[4096];

	w->op = "end";
	for (unsigned int i = 0; i < FILES; i++) {
		struct file *f = &w->files[i];

		for (size_t off = 0; off < f->size; off += 65536) {
			if (!file_read(w, f, f->fd, off, 65536))
				return;
		}
		close(f->fd);
		free(f->content);
		if (unlinkat(w->dir, f->name, 0) < 0)
			wrong(w, "unlink %s", f->name);
	}
	close(w->dir);
	free(w->buf);
	snprintf(path, sizeof(path), "%s/t%u", opts.directory, w->id);
	if (!remove_folder(path))
		wrong(w, "rmdir %s", path);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	if (!worker_begin(w))
		return NULL;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		step(w);
	if (!__atomic_load_n(&failed, __ATOMIC_RELAXED))
		worker_end(w);
	return NULL;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "seconds", required_argument, NULL, 's' },
		{ "seed", required_argument, NULL, 'r' },
		{ "direct", no_argument, &opts.direct, 1 },
		{ "no-xattr", no_argument, &opts.no_xattr, 1 },
		{ "no-hardlink", no_argument, &opts.no_hardlink, 1 },
		{ "hidden", no_argument, &opts.hidden, 1 },
		{ "signals", no_argument, &opts.signals, 1 },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 't')
			opts.threads = (unsigned int)strtoul(optarg, NULL, 10);
		else if (c == 's')
			opts.seconds = strtod(optarg, NULL);
		else if (c == 'r')
			opts.seed = strtoull(optarg, NULL, 10);
		else if (c)
			exit(2);
	}
	if (optind + 1 != argc || !opts.threads || opts.threads > THREADS_MAX) {
		fprintf(stderr, "usage: hammer [OPTION...] DIRECTORY\n");
		exit(2);
	}
	opts.directory = argv[optind];
}

static void open_common(void)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/crowd", opts.directory);
	if (mkdir(path, 0755) == 0)
		crowd_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/shared", opts.directory);
	shared_fd = open(path, file_flags() | O_CREAT | O_EXCL, 0644);
	if (crowd_dir <= 0 || shared_fd < 0) {
		fprintf(stderr, "hammer: %s: %s\n", opts.directory, strerror(errno));
		exit(1);
	}
}

static void remove_common(void)
{
	char name[4096];

	for (unsigned int i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		unlinkat(crowd_dir, name, 0);
	}
	snprintf(name, sizeof(name), "%s/shared", opts.directory);
	unlink(name);
	snprintf(name, sizeof(name), "%s/crowd", opts.directory);
	if (!remove_folder(name)) {
		fprintf(stderr, "hammer: rmdir %s: %s\n", name, strerror(errno));
		failed = true;
	}
}

static void ignore(int signo)
{
}

/* Wait for the end of the time, or of the first that finds something wrong. */
static void watch(struct worker *workers)
{
	const useconds_t tick_us = opts.signals ? 3000 : 100000;
	unsigned int next = 0;

	for (double left = opts.seconds; left > 0 && !__atomic_load_n(&stop, __ATOMIC_RELAXED);
	     left -= tick_us / 1e6) {
		usleep(tick_us);
		if (opts.signals)
			pthread_kill(workers[next++ % opts.threads].thread, SIGUSR1);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };
	static struct worker workers[THREADS_MAX];
	unsigned long nr = 0;

	parse(argc, argv);
	sigaction(SIGUSR1, &action, NULL);
	open_common();
	for (unsigned int i = 0; i < opts.threads; i++) {
		workers[i].id = i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			return 1;
	}
	watch(workers);
	for (unsigned int i = 0; i < opts.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		nr += workers[i].nr_ops;
	}
	if (!failed)
		remove_common();
	printf("%lu operations by %u threads: %s\n", nr, opts.threads, failed ? "wrong" : "right");
	return failed ? 1 : 0;
}
