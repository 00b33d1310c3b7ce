/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extensions behind the arguments of a request that creates something: security context, groups.
 *
 * A list of records, each {size, type} with the size a multiple of 8 that counts the header; a type up to
 * FUSE_MAX_NR_SECCTX is a security context header with that many contexts. Its record is {size, padding}, a
 * name with its NUL, and the context; only all of them together are padded.
 */
#include <string.h>

#include "base/checked.h"
#include "fuse/decode.h"
#include "fuse/swap.h"

/* One security context at *@pos; moves *@pos behind it. */
static int check_secctx(unsigned char *ext, uint32_t end, uint32_t *pos, bool swapped)
{
	uint32_t left = end - *pos, size, name_bytes;
	const unsigned char *nul;
	unsigned char *p = ext + *pos;

	if (left < sizeof(struct fuse_secctx))
		return -EINVAL;
	size = fuse_get32(p, swapped);
	fuse_put32(p, size);
	fuse_put32(p + 4, 0);
	p += sizeof(struct fuse_secctx);
	left -= (uint32_t)sizeof(struct fuse_secctx);
	nul = memchr(p, 0, left);
	if (!nul)
		return -EINVAL;
	name_bytes = (uint32_t)(nul - p);
	left -= name_bytes + 1;
	if (!name_bytes || name_bytes > FUSE_XATTR_NAME_MAX || size > FUSE_XATTR_BYTES_MAX ||
	    size > left)
		return -EINVAL;
	*pos = (uint32_t)(p - ext) + name_bytes + 1 + size;
	return 0;
}

static int check_secctxs(const struct decode *d, unsigned char *ext, uint32_t size, uint32_t nr)
{
	uint32_t pos = sizeof(struct fuse_secctx_header);

	if (!(d->session->flags & FUSE_SECURITY_CTX))
		return -EINVAL;
	for (uint32_t i = 0; i < nr; i++) {
		int err = check_secctx(ext, size, &pos, d->req->swapped);

		if (err < 0)
			return err;
	}
	/* A kernel pads each context before it knows the sum: less than 8 bytes for each. */
	return size - pos < 8 * (nr ? nr : 1) ? 0 : -EINVAL;
}

static int check_groups(const struct decode *d, unsigned char *ext, uint32_t size)
{
	const uint32_t head = sizeof(struct fuse_ext_header) + sizeof(struct fuse_supp_groups);
	unsigned char *p = ext + sizeof(struct fuse_ext_header);
	uint32_t nr;

	if (!(d->session->flags & FUSE_CREATE_SUPP_GROUP) || size < head)
		return -EINVAL;
	nr = fuse_get32(p, d->req->swapped);
	if (nr > FUSE_GROUPS_MAX || size != FUSE_REC_ALIGN(head + nr * sizeof(uint32_t)))
		return -EINVAL;
	fuse_put32(p, nr);
	for (uint32_t i = 0; i < nr; i++) {
		p += sizeof(uint32_t);
		fuse_put32(p, fuse_get32(p, d->req->swapped));
	}
	return 0;
}

int decode_extensions(struct decode *d)
{
	const uint32_t bytes = (uint32_t)d->req->hdr.total_extlen * 8;
	bool seen[2] = { false, false };
	uint32_t pos = 0;

	if (bytes != d->end - d->pos)
		return -EINVAL;
	/* Every turn takes at least a header, and each kind may come once. */
	while (pos < bytes) {
		unsigned char *ext = d->arg + d->pos + pos;
		uint32_t size, type;
		int err;

		size = fuse_get32(ext, d->req->swapped);
		type = fuse_get32(ext + 4, d->req->swapped);
		if (size < sizeof(struct fuse_ext_header) || size % 8 || size > bytes - pos)
			return -EINVAL;
		if (type > FUSE_EXT_GROUPS || seen[type == FUSE_EXT_GROUPS])
			return -EINVAL;
		seen[type == FUSE_EXT_GROUPS] = true;
		fuse_put32(ext, size);
		fuse_put32(ext + 4, type);
		err = type == FUSE_EXT_GROUPS ? check_groups(d, ext, size)
					      : check_secctxs(d, ext, size, type);
		if (err < 0)
			return err;
		pos += size;
	}
	d->pos += bytes;
	return 0;
}
