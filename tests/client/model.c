/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system in memory: rules as POSIX and rename(2) have them.
 */
#include "model.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

static struct model_inode *inode_new(enum model_type type)
{
	struct model_inode *inode = calloc(1, sizeof(*inode));

	assert(inode);
	inode->type = type;
	inode->nr_links = 1;
	return inode;
}

void model_init(struct model *m, uint64_t nodeid)
{
	memset(m, 0, sizeof(*m));
	m->entries[MODEL_TOP] = (struct model_entry){
		.used = true, .dir = -1, .inode = inode_new(MODEL_DIR), .nodeid = nodeid
	};
}

void model_fini(struct model *m)
{
	for (int i = MODEL_ENTRIES - 1; i > MODEL_TOP; i--) {
		if (m->entries[i].used)
			model_remove(m, i);
	}
	free(m->entries[MODEL_TOP].inode);
}

int model_find(const struct model *m, int dir, const char *name)
{
	for (int i = 0; i < MODEL_ENTRIES; i++) {
		const struct model_entry *e = &m->entries[i];

		if (e->used && e->dir == dir && strcmp(e->name, name) == 0)
			return i;
	}
	return -1;
}

bool model_is_empty(const struct model *m, int dir)
{
	for (int i = 0; i < MODEL_ENTRIES; i++) {
		if (m->entries[i].used && m->entries[i].dir == dir)
			return false;
	}
	return true;
}

unsigned int model_nr_free(const struct model *m)
{
	unsigned int nr = 0;

	for (int i = 0; i < MODEL_ENTRIES; i++)
		nr += !m->entries[i].used;
	return nr;
}

static bool is_dir(const struct model *m, int entry)
{
	return m->entries[entry].inode->type == MODEL_DIR;
}

bool model_is_below(const struct model *m, int entry, int other)
{
	for (; entry >= 0; entry = m->entries[entry].dir) {
		if (entry == other)
			return true;
	}
	return false;
}

int model_may_make(const struct model *m, int dir, const char *name)
{
	return model_find(m, dir, name) >= 0 ? -EEXIST : 0;
}

int model_may_unlink(const struct model *m, int entry)
{
	if (entry < 0)
		return -ENOENT;
	return is_dir(m, entry) ? -EISDIR : 0;
}

int model_may_rmdir(const struct model *m, int entry)
{
	if (entry < 0)
		return -ENOENT;
	if (!is_dir(m, entry))
		return -ENOTDIR;
	return model_is_empty(m, entry) ? 0 : -ENOTEMPTY;
}

int model_may_rename(const struct model *m, int from, int to_dir, int to)
{
	if (from < 0)
		return -ENOENT;
	if (model_is_below(m, to_dir, from))
		return -EINVAL;
	if (to < 0)
		return 0;
	if (model_is_below(m, m->entries[from].dir, to))
		return -ENOTEMPTY;
	if (is_dir(m, from) && !is_dir(m, to))
		return -ENOTDIR;
	if (!is_dir(m, from) && is_dir(m, to))
		return -EISDIR;
	return is_dir(m, to) && !model_is_empty(m, to) ? -ENOTEMPTY : 0;
}

static int add(struct model *m, int dir, const char *name, struct model_inode *inode)
{
	for (int i = 0; i < MODEL_ENTRIES; i++) {
		struct model_entry *e = &m->entries[i];

		if (e->used)
			continue;
		assert(strlen(name) < sizeof(e->name));
		*e = (struct model_entry){ .used = true, .dir = dir, .inode = inode };
		memcpy(e->name, name, strlen(name) + 1);
		return i;
	}
	assert(!"room was looked for before");
	return -1;
}

int model_make(struct model *m, int dir, const char *name, enum model_type type)
{
	return add(m, dir, name, inode_new(type));
}

int model_link(struct model *m, int entry, int dir, const char *name)
{
	m->entries[entry].inode->nr_links++;
	return add(m, dir, name, m->entries[entry].inode);
}

void model_remove(struct model *m, int entry)
{
	struct model_entry *e = &m->entries[entry];

	if (--e->inode->nr_links == 0)
		free(e->inode);
	*e = (struct model_entry){ .used = false };
}

void model_move(struct model *m, int from, int to_dir, const char *name)
{
	struct model_entry *e = &m->entries[from];

	e->dir = to_dir;
	memcpy(e->name, name, strlen(name) + 1);
}

void model_resize(struct model_inode *inode, uint32_t size)
{
	assert(size <= MODEL_FILE_BYTES);
	if (size < inode->size)
		memset(inode->data + size, 0, inode->size - size);
	inode->size = size;
}

void model_write(struct model_inode *inode, uint32_t offset, const uint8_t *data, uint32_t bytes)
{
	memcpy(inode->data + offset, data, bytes);
	inode->size = max_of(inode->size, offset + bytes);
}
