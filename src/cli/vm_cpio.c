/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes a cpio archive in the "newc" format, which the kernel unpacks as an initramfs.
 */
#include "cli/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Header, name and data each begin at a multiple of 4. */
#define CPIO_ALIGN	  4
#define CPIO_HEADER_BYTES 110
/* A file size is 8 hex digits; the kernel takes less than 4 GiB, and a 32-bit shell less than that. */
#define CPIO_FILE_MAX 0x7fffffffull

struct cpio_entry {
	const char *path;
	uint32_t mode;
	uint32_t size;
	uint32_t rmajor;
	uint32_t rminor;
};

static void cpio_write(struct cpio *cpio, const void *data, size_t len)
{
	const char *p = data;

	while (len && !cpio->error) {
		ssize_t n = write(cpio->fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			cpio->error = -errno;
			return;
		}
		p += n;
		len -= (size_t)n;
		cpio->pos += (uint64_t)n;
	}
}

static void cpio_pad(struct cpio *cpio)
{
	static const char zero[CPIO_ALIGN];

	cpio_write(cpio, zero, (size_t)(round_up_to(cpio->pos, CPIO_ALIGN) - cpio->pos));
}

static void cpio_begin(struct cpio *cpio, const struct cpio_entry *e)
{
	char header[CPIO_HEADER_BYTES + 1];
	size_t name_bytes = strlen(e->path) + 1;

	cpio->ino++;
	/* magic ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize check */
	snprintf(header, sizeof(header),
		 "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", cpio->ino, e->mode,
		 0u, 0u, 1u, 0u, e->size, 0u, 0u, e->rmajor, e->rminor, (unsigned int)name_bytes,
		 0u);
	cpio_write(cpio, header, CPIO_HEADER_BYTES);
	cpio_write(cpio, e->path, name_bytes);
	cpio_pad(cpio);
}

void cpio_init(struct cpio *cpio, int fd)
{
	*cpio = (struct cpio){ .fd = fd };
}

void cpio_add_dir(struct cpio *cpio, const char *path)
{
	cpio_begin(cpio, &(struct cpio_entry){ .path = path, .mode = S_IFDIR | 0755 });
}

void cpio_add_data(struct cpio *cpio, const char *path, unsigned int mode, const void *data,
		   size_t len)
{
	if (len > CPIO_FILE_MAX) {
		if (!cpio->error)
			cpio->error = -EFBIG;
		return;
	}
	cpio_begin(cpio, &(struct cpio_entry){
				 .path = path, .mode = S_IFREG | mode, .size = (uint32_t)len });
	cpio_write(cpio, data, len);
	cpio_pad(cpio);
}

void cpio_add_fd(struct cpio *cpio, const char *path, unsigned int mode, int fd)
{
	char buf[65536];
	struct stat st;
	uint64_t left;

	if (cpio->error)
		return;
	if (fstat(fd, &st) < 0) {
		cpio->error = -errno;
		return;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > CPIO_FILE_MAX) {
		cpio->error = S_ISREG(st.st_mode) ? -EFBIG : -EINVAL;
		return;
	}
	left = (uint64_t)st.st_size;
	cpio_begin(cpio, &(struct cpio_entry){
				 .path = path, .mode = S_IFREG | mode, .size = (uint32_t)left });
	while (left && !cpio->error) {
		ssize_t n = read(fd, buf, min_of(sizeof(buf), (size_t)left));

		if (n < 0 && errno == EINTR)
			continue;
		/* The header has promised the size: a file that shrank meanwhile spoils the archive. */
		if (n <= 0) {
			cpio->error = n < 0 ? -errno : -EIO;
			return;
		}
		cpio_write(cpio, buf, (size_t)n);
		left -= (uint64_t)n;
	}
	cpio_pad(cpio);
}

void cpio_add_symlink(struct cpio *cpio, const char *path, const char *target)
{
	cpio_begin(cpio, &(struct cpio_entry){ .path = path,
					       .mode = S_IFLNK | 0777,
					       .size = (uint32_t)strlen(target) });
	cpio_write(cpio, target, strlen(target));
	cpio_pad(cpio);
}

void cpio_add_chardev(struct cpio *cpio, const char *path, unsigned int major, unsigned int minor)
{
	cpio_begin(cpio, &(struct cpio_entry){ .path = path,
					       .mode = S_IFCHR | 0600,
					       .rmajor = major,
					       .rminor = minor });
}

int cpio_finish(struct cpio *cpio)
{
	cpio_begin(cpio, &(struct cpio_entry){ .path = "TRAILER!!!" });
	return cpio->error;
}
