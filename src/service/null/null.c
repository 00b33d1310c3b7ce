/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The null service: a directory with one file, "data", in memory.
 */
#include "service/null/null.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/checked.h"
#include "base/iov.h"

#define NULL_FILE_NODEID 2
#define NULL_FILE_NAME	 "data"
#define NULL_BLOCK	 4096
/* What a driver may keep of names and attributes, seconds: nothing changes but times. */
#define NULL_VALID_S 3600

struct null_service {
	struct service svc;
	uint8_t *data;
	uint64_t size;
	uint64_t born_s;
};

static struct null_service *to_null(struct service *svc)
{
	return container_of(svc, struct null_service, svc);
}

static void reply_struct(struct request *req, void *body, size_t len)
{
	struct iovec iov = { .iov_base = body, .iov_len = len };

	request_reply(req, 0, &iov, 1);
}

static void fill_attr(const struct null_service *null, uint64_t nodeid, struct fuse_attr *attr)
{
	bool is_file = nodeid == NULL_FILE_NODEID;

	*attr = (struct fuse_attr){
		.ino = nodeid,
		.size = is_file ? null->size : NULL_BLOCK,
		.blocks = is_file ? null->size / 512 : 0,
		.atime = null->born_s,
		.mtime = null->born_s,
		.ctime = null->born_s,
		.mode = is_file ? S_IFREG | 0666 : S_IFDIR | 0755,
		.nlink = is_file ? 1 : 2,
		.blksize = NULL_BLOCK,
	};
}

/* Node ids come from the driver unchecked (->checks_ids): only these two exist. */
static bool nodeid_exists(uint64_t nodeid)
{
	return nodeid == FUSE_ROOT_ID || nodeid == NULL_FILE_NODEID;
}

static void null_lookup(struct null_service *null, struct request *req, const char *name)
{
	struct fuse_entry_out out = { .entry_valid = NULL_VALID_S, .attr_valid = NULL_VALID_S };

	if (request_header(req)->nodeid != FUSE_ROOT_ID || strcmp(name, NULL_FILE_NAME) != 0) {
		request_reply(req, -ENOENT, NULL, 0);
		return;
	}
	out.nodeid = NULL_FILE_NODEID;
	fill_attr(null, out.nodeid, &out.attr);
	reply_struct(req, &out, sizeof(out));
}

static void null_getattr(struct null_service *null, struct request *req)
{
	struct fuse_attr_out out = { .attr_valid = NULL_VALID_S };

	fill_attr(null, request_header(req)->nodeid, &out.attr);
	reply_struct(req, &out, sizeof(out));
}

static void null_setattr(struct null_service *null, struct request *req,
			 const struct fuse_setattr_in *in)
{
	/* Times and modes are accepted and forgotten; the size is what the user asked for. */
	if (in->valid & FATTR_SIZE && in->size != null->size)
		request_reply(req, -EPERM, NULL, 0);
	else
		null_getattr(null, req);
}

static void null_open(struct request *req, uint32_t want_nodeid, int wrong)
{
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE };

	if (request_header(req)->nodeid != want_nodeid)
		request_reply(req, wrong, NULL, 0);
	else
		reply_struct(req, &out, sizeof(out));
}

static void null_read(struct null_service *null, struct request *req, const struct fuse_read_in *in)
{
	struct iovec iov = {};

	if (request_header(req)->nodeid != NULL_FILE_NODEID) {
		request_reply(req, -EISDIR, NULL, 0);
		return;
	}
	if (in->offset < null->size) {
		iov.iov_base = null->data + in->offset;
		iov.iov_len = min_of((uint64_t)in->size, null->size - in->offset);
	}
	request_reply(req, 0, &iov, 1);
}

static void null_write(struct null_service *null, struct request *req,
		       const struct fuse_write_in *in)
{
	struct fuse_write_out out = {};
	const struct iovec *payload;
	unsigned int nr;

	if (request_header(req)->nodeid != NULL_FILE_NODEID) {
		request_reply(req, -EISDIR, NULL, 0);
		return;
	}
	if (!range_within(in->offset, in->size, null->size)) {
		request_reply(req, -ENOSPC, NULL, 0);
		return;
	}
	payload = request_payload(req, &nr);
	out.size = (uint32_t)iov_copy_out(null->data + in->offset, payload, nr, 0, in->size);
	reply_struct(req, &out, sizeof(out));
}

static void null_readdir(struct request *req, const struct fuse_read_in *in)
{
	static const struct {
		uint64_t ino;
		uint32_t type;
		const char *name;
	} entries[] = {
		{ FUSE_ROOT_ID, DT_DIR, "." },
		{ FUSE_ROOT_ID, DT_DIR, ".." },
		{ NULL_FILE_NODEID, DT_REG, NULL_FILE_NAME },
	};
	uint64_t buf[3 * (sizeof(struct fuse_dirent) + 8) / 8] = {};
	size_t used = 0;

	for (uint64_t i = in->offset; i < array_size(entries); i++) {
		size_t namelen = strlen(entries[i].name);
		size_t len = round_up_to(sizeof(struct fuse_dirent) + namelen, 8);
		struct fuse_dirent *entry = (struct fuse_dirent *)((char *)buf + used);

		if (used + len > in->size)
			break;
		entry->ino = entries[i].ino;
		entry->off = i + 1;
		entry->namelen = (uint32_t)namelen;
		entry->type = entries[i].type;
		memcpy(entry->name, entries[i].name, namelen);
		used += len;
	}
	reply_struct(req, buf, used);
}

static void null_statfs(struct null_service *null, struct request *req)
{
	struct fuse_statfs_out out = {
		.st = { .blocks = null->size / NULL_BLOCK,
			.files = 2,
			.bsize = NULL_BLOCK,
			.frsize = NULL_BLOCK,
			.namelen = 255 },
	};

	reply_struct(req, &out, sizeof(out));
}

static void null_submit(struct service *svc, struct request *req)
{
	struct null_service *null = to_null(svc);
	const struct fuse_in_header *hdr = request_header(req);
	size_t len;
	const char *msg = request_message(req, &len);
	const void *args = msg + sizeof(*hdr);

	if (hdr->opcode == FUSE_FORGET || hdr->opcode == FUSE_BATCH_FORGET) {
		request_reply_none(req);
		return;
	}
	if (!nodeid_exists(hdr->nodeid)) {
		request_reply(req, -ESTALE, NULL, 0);
		return;
	}
	switch (hdr->opcode) {
	case FUSE_LOOKUP:
		null_lookup(null, req, args);
		break;
	case FUSE_GETATTR:
		null_getattr(null, req);
		break;
	case FUSE_SETATTR:
		null_setattr(null, req, args);
		break;
	case FUSE_OPEN:
		null_open(req, NULL_FILE_NODEID, -EISDIR);
		break;
	case FUSE_OPENDIR:
		null_open(req, FUSE_ROOT_ID, -ENOTDIR);
		break;
	case FUSE_READ:
		null_read(null, req, args);
		break;
	case FUSE_WRITE:
		null_write(null, req, args);
		break;
	case FUSE_READDIR:
		null_readdir(req, args);
		break;
	case FUSE_STATFS:
		null_statfs(null, req);
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_ACCESS:
		request_reply(req, 0, NULL, 0);
		break;
	default:
		request_reply(req, -ENOSYS, NULL, 0);
	}
}

static void null_free(struct service *svc)
{
	struct null_service *null = to_null(svc);

	if (null->data)
		munmap(null->data, max_of(null->size, UINT64_C(1)));
	free(null);
}

static const struct service_ops null_ops = {
	.name = "null",
	.submit = null_submit,
	.free = null_free,
};

int null_service_new(struct service **ret_svc, uint64_t size)
{
	struct null_service *null = calloc(1, sizeof(*null));

	if (!null)
		return -ENOMEM;
	null->svc = (struct service){
		.ops = &null_ops,
		.checks_ids = true,
		.init_out = {
			.major = FUSE_KERNEL_VERSION,
			.minor = FUSE_KERNEL_MINOR_VERSION,
			.max_readahead = 1u << 20,
			.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS |
				 FUSE_MAX_PAGES | FUSE_ASYNC_DIO,
			.max_background = 1024,
			.congestion_threshold = 768,
			.max_write = 1u << 20,
			.time_gran = 1,
			.max_pages = 256,
		},
	};
	null->size = size;
	null->born_s = (uint64_t)time(NULL);
	null->data = mmap(NULL, max_of(size, UINT64_C(1)), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (null->data == MAP_FAILED) {
		free(null);
		return -ENOMEM;
	}
	/* Random reads of small pages would cost a walk of the page table each; a kernel without huge pages refuses. */
	madvise(null->data, size, MADV_HUGEPAGE);
	*ret_svc = &null->svc;
	return 0;
}
