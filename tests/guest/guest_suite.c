/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest does with a file system, as a program that runs inside the guest and prints TAP.
 *
 * Statically linked: the guest has nothing but busybox. It works in a folder of its own on the file
 * system under test and removes it. Options say what the file system is known to lack; whatever else
 * is missing fails.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "guest_suite.h"

#define MIB (1u << 20)

/* Pattern byte at offset @off of a file with @seed: any misplaced piece shows. */
static unsigned char pattern(uint64_t off, unsigned int seed)
{
	uint64_t x = (off + seed * 0x9e3779b97f4a7c15ull) * 0xd1342543de82ef95ull;

	return (unsigned char)(x >> 56);
}

static void pattern_fill(unsigned char *buf, size_t len, uint64_t off, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(off + i, seed);
}

static int pattern_check(const unsigned char *buf, size_t len, uint64_t off, unsigned int seed)
{
	for (size_t i = 0; i < len; i++) {
		if (buf[i] != pattern(off + i, seed))
			return fail("byte %llu is %02x", (unsigned long long)(off + i), buf[i]);
	}
	return PASS;
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd >= 0) {
		if (write(fd, "3", 1) < 0)
			diag("drop_caches: %s", strerror(errno));
		close(fd);
	}
}

static int write_pattern(const char *path, uint64_t bytes, size_t piece, unsigned int seed)
{
	unsigned char *buf = malloc(piece);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	uint64_t off = 0;

	if (fd < 0 || !buf)
		return fail("open %s: %s", path, strerror(errno));
	while (off < bytes) {
		pattern_fill(buf, piece, off, seed);
		if (write(fd, buf, piece) != (ssize_t)piece)
			return fail("write at %llu: %s", (unsigned long long)off, strerror(errno));
		off += piece;
	}
	free(buf);
	CHECK(fsync(fd) == 0);
	CHECK(close(fd) == 0);
	return PASS;
}

static int check_pattern(const char *path, uint64_t bytes, size_t piece, unsigned int seed)
{
	unsigned char *buf = malloc(piece);
	int fd = open(path, O_RDONLY);
	uint64_t off = 0;
	int rc = PASS;
	ssize_t n;

	if (fd < 0 || !buf)
		return fail("open %s: %s", path, strerror(errno));
	while ((n = read(fd, buf, piece)) > 0 && rc == PASS) {
		rc = pattern_check(buf, (size_t)n, off, seed);
		off += (uint64_t)n;
	}
	free(buf);
	close(fd);
	if (rc == PASS && off != bytes)
		return fail("read %llu bytes of %llu", (unsigned long long)off,
			    (unsigned long long)bytes);
	return rc;
}

static int test_write_read_4m(void)
{
	struct stat st;

	TRY(write_pattern("big", 4 * MIB, 65536, 1));
	CHECK(stat("big", &st) == 0 && st.st_size == 4 * (off_t)MIB);
	drop_caches();
	TRY(check_pattern("big", 4 * MIB, 65536, 1));
	/* Odd sizes cross page and request borders. */
	TRY(write_pattern("odd", 999 * 1001, 999, 2));
	drop_caches();
	TRY(check_pattern("odd", 999 * 1001, 4099, 2));
	CHECK(unlink("big") == 0 && unlink("odd") == 0);
	return PASS;
}

static int make_file(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		return fail("create %s: %s", path, strerror(errno));
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	CHECK(close(fd) == 0);
	return PASS;
}

static int expect_text(const char *path, const char *text)
{
	char buf[4096];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return fail("open %s: %s", path, strerror(errno));
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return strcmp(buf, text) ? fail("%s holds '%s', not '%s'", path, buf, text) : PASS;
}

/* Entries of @path beginning with @prefix; sets *@ret_other to the rest, '.' and '..' not counted. */
static int count_entries(const char *path, const char *prefix, int *ret_other)
{
	DIR *dir = opendir(path);
	struct dirent *de;
	int n = 0;

	*ret_other = 0;
	if (!dir)
		return -1;
	while ((de = readdir(dir))) {
		if (strncmp(de->d_name, prefix, strlen(prefix)) == 0)
			n++;
		else if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			(*ret_other)++;
	}
	closedir(dir);
	return n;
}

#define TREE_DIRS  20
#define TREE_FILES 100

static int tree_create(void)
{
	char path[64], text[32];

	CHECK(mkdir("tree", 0755) == 0);
	for (int d = 0; d < TREE_DIRS; d++) {
		snprintf(path, sizeof(path), "tree/dir%d", d);
		CHECK(mkdir(path, 0755) == 0);
		for (int f = 0; f < TREE_FILES; f++) {
			snprintf(path, sizeof(path), "tree/dir%d/file%d", d, f);
			snprintf(text, sizeof(text), "%d-%d", d, f);
			TRY(make_file(path, text));
		}
	}
	return PASS;
}

static int tree_rename_and_delete(void)
{
	char from[64], to[64], text[32];

	for (int d = 0; d < TREE_DIRS; d++) {
		for (int f = 0; f < TREE_FILES; f++) {
			snprintf(from, sizeof(from), "tree/dir%d/file%d", d, f);
			snprintf(to, sizeof(to), "tree/dir%d/moved%d", (d + 1) % TREE_DIRS, f);
			CHECK(rename(from, to) == 0);
		}
	}
	for (int d = 0; d < TREE_DIRS; d++) {
		for (int f = 0; f < TREE_FILES; f++) {
			snprintf(to, sizeof(to), "tree/dir%d/moved%d", (d + 1) % TREE_DIRS, f);
			snprintf(text, sizeof(text), "%d-%d", d, f);
			if (f % 10 == 0)
				TRY(expect_text(to, text));
			CHECK(unlink(to) == 0);
		}
	}
	return PASS;
}

static int test_tree_2000(void)
{
	char path[64];
	int other;

	TRY(tree_create());
	drop_caches();
	for (int d = 0; d < TREE_DIRS; d++) {
		snprintf(path, sizeof(path), "tree/dir%d", d);
		CHECK(count_entries(path, "file", &other) == TREE_FILES && other == 0);
	}
	TRY(tree_rename_and_delete());
	for (int d = 0; d < TREE_DIRS; d++) {
		snprintf(path, sizeof(path), "tree/dir%d", d);
		CHECK(rmdir(path) == 0);
	}
	CHECK(rmdir("tree") == 0);
	CHECK(access("tree", F_OK) < 0 && errno == ENOENT);
	return PASS;
}

static int test_readdir_many(void)
{
	char name[200];
	DIR *dir;
	long middle;
	int other, n = 0;

	CHECK(mkdir("many", 0755) == 0);
	/* Long names: the listing takes many requests. */
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/entry%0150d", i);
		TRY(make_file(name, ""));
	}
	drop_caches();
	CHECK(count_entries("many", "entry", &other) == 1000 && other == 0);
	dir = opendir("many");
	CHECK(dir);
	for (int i = 0; i < 500; i++)
		CHECK(readdir(dir));
	middle = telldir(dir);
	while (readdir(dir))
		n++;
	seekdir(dir, middle);
	for (int again = n; again > 0; again--)
		CHECK(readdir(dir));
	CHECK(!readdir(dir));
	closedir(dir);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/entry%0150d", i);
		CHECK(unlink(name) == 0);
	}
	CHECK(rmdir("many") == 0);
	return PASS;
}

static int test_symlink(void)
{
	char target[256] = "";
	struct stat st;

	if (options.no_symlink)
		return skip("not supported by this file system");
	TRY(make_file("target", "through"));
	CHECK(symlink("target", "link") == 0);
	CHECK(lstat("link", &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(readlink("link", target, sizeof(target) - 1) == 6 && strcmp(target, "target") == 0);
	TRY(expect_text("link", "through"));
	CHECK(symlink("nowhere", "dangling") == 0);
	CHECK(open("dangling", O_RDONLY) < 0 && errno == ENOENT);
	CHECK(unlink("dangling") == 0 && unlink("link") == 0 && unlink("target") == 0);
	return PASS;
}

static int test_hardlink(void)
{
	struct stat st;

	if (options.no_hardlink)
		return skip("not supported by this file system");
	TRY(make_file("first", "same"));
	CHECK(link("first", "second") == 0);
	TRY(expect_text("second", "same"));
	CHECK(unlink("first") == 0);
	TRY(expect_text("second", "same"));
	CHECK(stat("second", &st) == 0 && S_ISREG(st.st_mode));
	CHECK(unlink("second") == 0);
	return PASS;
}

static int test_xattr(void)
{
	char value[4096], names[4096];
	ssize_t n;

	if (options.no_xattr) {
		TRY(make_file("x", ""));
		CHECK(setxattr("x", "user.fusewire", "1", 1, 0) < 0 && errno == EOPNOTSUPP);
		CHECK(unlink("x") == 0);
		return skip("not supported by this file system");
	}
	TRY(make_file("x", ""));
	memset(value, 'v', sizeof(value));
	CHECK(setxattr("x", "user.small", "abc", 3, 0) == 0);
	CHECK(setxattr("x", "user.large", value, 2000, 0) == 0);
	CHECK(getxattr("x", "user.small", value, sizeof(value)) == 3 && !memcmp(value, "abc", 3));
	CHECK(getxattr("x", "user.large", NULL, 0) == 2000);
	CHECK(getxattr("x", "user.large", value, 10) < 0 && errno == ERANGE);
	n = listxattr("x", names, sizeof(names));
	CHECK(n > 0 && memmem(names, (size_t)n, "user.small", 11) &&
	      memmem(names, (size_t)n, "user.large", 11));
	CHECK(setxattr("x", "user.small", "", 0, XATTR_CREATE) < 0 && errno == EEXIST);
	CHECK(removexattr("x", "user.small") == 0);
	CHECK(getxattr("x", "user.small", value, sizeof(value)) < 0 && errno == ENODATA);
	CHECK(unlink("x") == 0);
	return PASS;
}

static int test_append(void)
{
	int fd;

	TRY(make_file("log", "one,"));
	fd = open("log", O_WRONLY | O_APPEND);
	CHECK(fd >= 0 && write(fd, "two,", 4) == 4 && write(fd, "three", 5) == 5);
	CHECK(close(fd) == 0);
	TRY(expect_text("log", "one,two,three"));
	CHECK(unlink("log") == 0);
	return PASS;
}

static int test_truncate(void)
{
	unsigned char buf[100];
	struct stat st;
	int fd;

	TRY(write_pattern("t", 100000, 1000, 3));
	CHECK(truncate("t", 50) == 0);
	CHECK(stat("t", &st) == 0 && st.st_size == 50);
	fd = open("t", O_RDWR);
	CHECK(fd >= 0 && ftruncate(fd, 100) == 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 100);
	CHECK(pread(fd, buf, sizeof(buf), 0) == 100);
	TRY(pattern_check(buf, 50, 0, 3));
	for (int i = 50; i < 100; i++)
		CHECK(buf[i] == 0);
	close(fd);
	fd = open("t", O_WRONLY | O_TRUNC);
	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 0);
	CHECK(write(fd, "new", 3) == 3 && close(fd) == 0);
	TRY(expect_text("t", "new"));
	CHECK(unlink("t") == 0);
	return PASS;
}

static int test_sparse(void)
{
	unsigned char buf[64];
	struct stat st;
	int fd = open("sparse", O_CREAT | O_EXCL | O_RDWR, 0644);

	CHECK(fd >= 0 && pwrite(fd, "end", 3, 5 * (off_t)MIB) == 3);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 5 * (off_t)MIB + 3);
	CHECK(close(fd) == 0);
	drop_caches();
	fd = open("sparse", O_RDONLY);
	CHECK(fd >= 0 && pread(fd, buf, sizeof(buf), 3 * (off_t)MIB) == sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		CHECK(buf[i] == 0);
	CHECK(pread(fd, buf, sizeof(buf), 5 * (off_t)MIB) == 3 && !memcmp(buf, "end", 3));
	close(fd);
	CHECK(unlink("sparse") == 0);
	return PASS;
}

static int test_mmap_read(void)
{
	unsigned char *map;
	int fd;

	TRY(write_pattern("m", MIB, 65536, 4));
	drop_caches();
	fd = open("m", O_RDONLY);
	CHECK(fd >= 0);
	map = mmap(NULL, MIB, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(map != MAP_FAILED);
	close(fd);
	/* Backwards, so that read-ahead does not do it all. */
	for (size_t off = MIB; off > 0; off -= 4096)
		TRY(pattern_check(map + off - 4096, 4096, off - 4096, 4));
	CHECK(munmap(map, MIB) == 0 && unlink("m") == 0);
	return PASS;
}

static int test_rename(void)
{
	TRY(make_file("a", "a"));
	TRY(make_file("b", "b"));
	CHECK(rename("a", "b") == 0);
	TRY(expect_text("b", "a"));
	CHECK(access("a", F_OK) < 0 && errno == ENOENT);
	CHECK(mkdir("d1", 0755) == 0 && rename("b", "d1/b") == 0 && rename("d1", "d2") == 0);
	TRY(expect_text("d2/b", "a"));
	CHECK(rmdir("d2") < 0 &&
	      (errno == ENOTEMPTY || errno == EEXIST || errno == EIO || errno == EPERM));
	CHECK(unlink("d2/b") == 0 && rmdir("d2") == 0);
	return PASS;
}

static int test_unlink_open(void)
{
	char buf[16];
	int fd;

	TRY(make_file("gone", "still here"));
	fd = open("gone", O_RDWR);
	CHECK(fd >= 0 && unlink("gone") == 0);
	CHECK(access("gone", F_OK) < 0 && errno == ENOENT);
	CHECK(pread(fd, buf, sizeof(buf), 0) == 10 && !memcmp(buf, "still here", 10));
	CHECK(pwrite(fd, "STILL", 5, 0) == 5 && pread(fd, buf, 5, 0) == 5);
	CHECK(!memcmp(buf, "STILL", 5) && close(fd) == 0);
	return PASS;
}

static int test_attributes(void)
{
	struct timespec times[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1100000000 } };
	struct statvfs vfs;
	struct stat st;
	int fd;

	TRY(make_file("attr", "x"));
	CHECK(chmod("attr", 0640) == 0);
	CHECK(stat("attr", &st) == 0 && (st.st_mode & 07777) == 0640);
	CHECK(utimensat(AT_FDCWD, "attr", times, 0) == 0);
	CHECK(stat("attr", &st) == 0 && st.st_mtime == 1100000000 && st.st_atime == 1000000000);
	fd = open("attr", O_RDWR);
	CHECK(fd >= 0 && fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0);
	CHECK((st.st_mode & 07777) == 0600);
	CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && close(fd) == 0);
	CHECK(statvfs(".", &vfs) == 0 && vfs.f_bsize > 0 && vfs.f_namemax >= 255);
	CHECK(unlink("attr") == 0);
	return PASS;
}

static int test_errors(void)
{
	char name[257];

	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	TRY(make_file(name, "long"));
	TRY(expect_text(name, "long"));
	CHECK(open(name, O_CREAT | O_EXCL | O_WRONLY, 0644) < 0 && errno == EEXIST);
	CHECK(unlink(name) == 0);
	name[255] = 'n';
	name[256] = '\0';
	if (!options.names_unchecked)
		CHECK(open(name, O_CREAT | O_WRONLY, 0644) < 0 &&
		      (errno == ENAMETOOLONG || options.other_name_error));
	CHECK(open("missing", O_RDONLY) < 0 && errno == ENOENT);
	CHECK(mkdir("missing/sub", 0755) < 0 && errno == ENOENT);
	CHECK(rmdir("missing") < 0 && errno == ENOENT);
	TRY(make_file("plain", ""));
	CHECK(open("plain/x", O_RDONLY) < 0 && errno == ENOTDIR);
	CHECK(opendir("plain") == NULL && errno == ENOTDIR);
	CHECK(unlink("plain") == 0);
	return PASS;
}

static int test_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
	int fd = open("lock", O_CREAT | O_EXCL | O_RDWR, 0644);
	int other = open("lock", O_RDWR);

	CHECK(fd >= 0 && other >= 0);
	CHECK(fcntl(fd, F_SETLK, &lock) == 0);
	lock.l_type = F_UNLCK;
	CHECK(fcntl(fd, F_SETLK, &lock) == 0);
	CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
	CHECK(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	CHECK(flock(fd, LOCK_UN) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0);
	close(fd);
	close(other);
	CHECK(unlink("lock") == 0);
	return PASS;
}

#define NR_WRITERS   16
#define WRITER_BYTES (256 * 1024)

struct writer {
	pthread_t thread;
	unsigned int id;
	int shared_fd;
	int error;
};

/* Each writes a file of its own and, in pieces that interleave with the others', the shared one. */
static void *writer_main(void *arg)
{
	struct writer *w = arg;
	unsigned char buf[4096];
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "writer%u", w->id);
	fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0) {
		w->error = errno;
		return NULL;
	}
	for (uint64_t off = 0; off < WRITER_BYTES && !w->error; off += sizeof(buf)) {
		off_t at = (off_t)((off / sizeof(buf) * NR_WRITERS + w->id) * sizeof(buf));

		pattern_fill(buf, sizeof(buf), off, 100 + w->id);
		if (write(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
			w->error = errno ? errno : EIO;
		pattern_fill(buf, sizeof(buf), (uint64_t)at, 99);
		if (pwrite(w->shared_fd, buf, sizeof(buf), at) != (ssize_t)sizeof(buf))
			w->error = errno ? errno : EIO;
	}
	if (close(fd) < 0)
		w->error = errno;
	return NULL;
}

static int test_threads(void)
{
	struct writer w[NR_WRITERS];
	char name[32];
	int fd = open("shared", O_CREAT | O_EXCL | O_RDWR, 0644);

	CHECK(fd >= 0);
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		w[i] = (struct writer){ .id = i, .shared_fd = fd };
		CHECK(pthread_create(&w[i].thread, NULL, writer_main, &w[i]) == 0);
	}
	for (unsigned int i = 0; i < NR_WRITERS; i++)
		pthread_join(w[i].thread, NULL);
	CHECK(close(fd) == 0);
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		if (w[i].error)
			return fail("writer %u: %s", i, strerror(w[i].error));
	}
	drop_caches();
	TRY(check_pattern("shared", (uint64_t)NR_WRITERS * WRITER_BYTES, 65536, 99));
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		snprintf(name, sizeof(name), "writer%u", i);
		TRY(check_pattern(name, WRITER_BYTES, 65536, 100 + i));
		CHECK(unlink(name) == 0);
	}
	CHECK(unlink("shared") == 0);
	return PASS;
}

static int test_direct(void)
{
	unsigned char *buf =
		mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("direct", O_CREAT | O_EXCL | O_RDWR | O_DIRECT, 0644);

	if (fd < 0 && errno == EINVAL)
		return skip("this file system refuses O_DIRECT");
	CHECK(fd >= 0 && buf != MAP_FAILED);
	pattern_fill(buf, 2 * MIB, 0, 7);
	CHECK(pwrite(fd, buf, 2 * MIB, 0) == 2 * MIB);
	memset(buf, 0, 2 * MIB);
	CHECK(pread(fd, buf, 2 * MIB, 0) == 2 * MIB);
	TRY(pattern_check(buf, 2 * MIB, 0, 7));
	CHECK(pread(fd, buf, MIB, 2 * (off_t)MIB) == 0);
	CHECK(close(fd) == 0 && munmap(buf, 2 * MIB) == 0);
	TRY(check_pattern("direct", 2 * MIB, 65536, 7));
	CHECK(unlink("direct") == 0);
	return PASS;
}

static int test_remount(void)
{
	if (!options.tag)
		return skip("no --tag");
	TRY(write_pattern("kept", 100000, 1000, 8));
	CHECK(chdir("/") == 0);
	for (int i = 0; i < 3; i++) {
		if (umount(options.mountpoint) < 0)
			return fail("umount: %s", strerror(errno));
		if (mount(options.tag, options.mountpoint, "virtiofs", 0, NULL) < 0)
			return fail("mount again: %s", strerror(errno));
	}
	CHECK(chdir(options.mountpoint) == 0 && chdir(options.folder) == 0);
	TRY(check_pattern("kept", 100000, 4096, 8));
	CHECK(unlink("kept") == 0);
	return PASS;
}

const struct guest_test guest_tests[] = {
	{ "write 4 MiB, read back", test_write_read_4m },
	{ "tree of 2000 files", test_tree_2000 },
	{ "readdir of 1000 entries", test_readdir_many },
	{ "symbolic links", test_symlink },
	{ "hard links", test_hardlink },
	{ "extended attributes", test_xattr },
	{ "O_APPEND", test_append },
	{ "truncate and O_TRUNC", test_truncate },
	{ "sparse file", test_sparse },
	{ "mmap read", test_mmap_read },
	{ "rename", test_rename },
	{ "unlink an open file", test_unlink_open },
	{ "chmod, utimens, fsync, statfs", test_attributes },
	{ "errors and limits of names", test_errors },
	{ "locks", test_locks },
	{ "16 threads write", test_threads },
	{ "O_DIRECT", test_direct },
	{ "umount, mount again", test_remount },
	{ "request queues used", test_queues },
	{ NULL, NULL },
};
