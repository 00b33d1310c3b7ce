/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inodes that the driver knows: by node id without a lock, by device and inode number with one.
 *
 * Nodes live in chunks that never move. An id is an index; it is used again, with another generation, after its node was
 * forgotten.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "nodes.h"

#define CHUNK_NODES 4096u
#define CHUNKS_MAX  16384u
#define BUCKETS	    65536u
#define NO_NODE	    0u
#define ROOT_ID	    1u

static struct {
	struct node *chunks[CHUNKS_MAX];
	pthread_mutex_t lock;
	uint32_t buckets[BUCKETS];
	uint32_t free;
	uint32_t nr;
	uint64_t generation;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct node *node_at(uint64_t id)
{
	return &table.chunks[id / CHUNK_NODES][id % CHUNK_NODES];
}

int node_fd(uint64_t id)
{
	return node_at(id)->fd;
}

static uint32_t *bucket_of(dev_t dev, ino_t ino)
{
	uint64_t hash = ((uint64_t)ino ^ (uint64_t)dev << 40) * 0x9e3779b97f4a7c15ull;

	return &table.buckets[hash >> 48];
}

/* The caller holds the lock. Return: the node with another lookup, or NULL. */
static struct node *node_find(const struct stat *st)
{
	for (uint32_t id = *bucket_of(st->st_dev, st->st_ino); id != NO_NODE;
	     id = node_at(id)->next) {
		struct node *n = node_at(id);

		if (n->ino == st->st_ino && n->dev == st->st_dev) {
			n->nlookup++;
			return n;
		}
	}
	return NULL;
}

/* The caller holds the lock. Return: a node without an inode, or NULL when there is no memory. */
static struct node *node_new(void)
{
	struct node *n;
	uint32_t id;

	if (table.free != NO_NODE) {
		n = node_at(table.free);
		table.free = n->next;
		return n;
	}
	id = table.nr + ROOT_ID;
	if (id / CHUNK_NODES >= CHUNKS_MAX)
		return NULL;
	if (!table.chunks[id / CHUNK_NODES]) {
		n = calloc(CHUNK_NODES, sizeof(*n));
		if (!n)
			return NULL;
		table.chunks[id / CHUNK_NODES] = n;
	}
	table.nr++;
	n = node_at(id);
	n->id = id;
	return n;
}

struct node *node_get_known(const struct stat *st)
{
	struct node *n;

	pthread_mutex_lock(&table.lock);
	n = node_find(st);
	pthread_mutex_unlock(&table.lock);
	return n;
}

struct node *node_get(int fd, const struct stat *st)
{
	struct node *n;

	pthread_mutex_lock(&table.lock);
	n = node_find(st);
	if (!n) {
		n = node_new();
		if (n) {
			uint32_t *bucket = bucket_of(st->st_dev, st->st_ino);

			n->fd = fd;
			n->dev = st->st_dev;
			n->ino = st->st_ino;
			n->type = st->st_mode & S_IFMT;
			n->generation = table.generation++;
			n->nlookup = 1;
			n->next = *bucket;
			*bucket = n->id;
			fd = -1;
		}
	}
	pthread_mutex_unlock(&table.lock);
	if (fd >= 0)
		close(fd);
	if (!n)
		errno = ENOMEM;
	return n;
}

void node_put(uint64_t id, uint64_t nlookup)
{
	struct node *n = node_at(id);
	uint32_t *link;
	int fd = -1;

	pthread_mutex_lock(&table.lock);
	n->nlookup -= nlookup < n->nlookup ? nlookup : n->nlookup;
	if (!n->nlookup && id != ROOT_ID) {
		for (link = bucket_of(n->dev, n->ino); *link != n->id; link = &node_at(*link)->next)
			;
		*link = n->next;
		n->next = table.free;
		table.free = n->id;
		fd = n->fd;
		n->fd = -1;
	}
	pthread_mutex_unlock(&table.lock);
	if (fd >= 0)
		close(fd);
}
