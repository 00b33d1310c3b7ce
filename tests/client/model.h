/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system in memory, as simple as can be: what a device is compared with.
 */
#ifndef FUSEWIRE_TESTS_CLIENT_MODEL_H
#define FUSEWIRE_TESTS_CLIENT_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_ENTRIES	 96
#define MODEL_FILE_BYTES 65536u
#define MODEL_NAME_BYTES 8
#define MODEL_TOP	 0 /* entry 0 is the directory that all is in */

enum model_type {
	MODEL_FILE,
	MODEL_DIR,
	MODEL_SYMLINK
};

/* What names lead to: hard links share one. */
struct model_inode {
	enum model_type type;
	unsigned int nr_links;
	uint32_t size;
	uint8_t data[MODEL_FILE_BYTES]; /* of a symbolic link: its target */
};

struct model_entry {
	bool used;
	int dir; /* entry of the directory that it is in */
	char name[MODEL_NAME_BYTES];
	struct model_inode *inode;
	uint64_t nodeid; /* what the device calls it */
	uint64_t nr_lookups; /* that have not been given back */
};

struct model {
	struct model_entry entries[MODEL_ENTRIES];
};

void model_init(struct model *m, uint64_t nodeid);
void model_fini(struct model *m);

/* The entry of that name, or -1. */
int model_find(const struct model *m, int dir, const char *name);
/* Is @entry @other, or somewhere below it? */
bool model_is_below(const struct model *m, int entry, int other);
bool model_is_empty(const struct model *m, int dir);
unsigned int model_nr_free(const struct model *m);

/* What each would answer: 0 or negative errno; nothing is changed. @to: of the name that is there, or -1. */
int model_may_make(const struct model *m, int dir, const char *name);
int model_may_unlink(const struct model *m, int entry);
int model_may_rmdir(const struct model *m, int entry);
int model_may_rename(const struct model *m, int from, int to_dir, int to);

/* Do it. New entries have no node id yet. Return: the entry. */
int model_make(struct model *m, int dir, const char *name, enum model_type type);
int model_link(struct model *m, int entry, int dir, const char *name);
void model_remove(struct model *m, int entry);
void model_move(struct model *m, int from, int to_dir, const char *name);
void model_resize(struct model_inode *inode, uint32_t size);
void model_write(struct model_inode *inode, uint32_t offset, const uint8_t *data, uint32_t bytes);

#endif
