/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inodes that the driver knows.
 *
 * Each has a node, which holds it open with O_PATH: its number cannot pass to another file while the node is there.
 */
#ifndef EXAMPLES_NODES_H
#define EXAMPLES_NODES_H

#include <stdint.h>
#include <sys/stat.h>

/**
 * struct node - an inode that the driver knows.
 * @fd: the inode, O_PATH
 * @id: its node id; the root, which is made first, has 1
 * @next: id of the next node in the bucket, or of the next free one; 0: none
 * @generation: tells it from others that had @id
 * @nlookup: lookups that the driver has not forgotten; 0: free
 * @dev, @ino: the inode
 * @type: S_IFMT bits
 */
struct node {
	int fd;
	uint32_t id;
	uint32_t next;
	uint64_t generation;
	uint64_t nlookup;
	dev_t dev;
	ino_t ino;
	mode_t type;
};

/** node_at() - the node @id, which the driver knows. */
struct node *node_at(uint64_t id);
/** node_fd() - its inode's descriptor, O_PATH. */
int node_fd(uint64_t id);
/** node_get_known() - count another lookup of the inode that @st is of. Return: its node, or NULL. */
struct node *node_get_known(const struct stat *st);
/** node_get() - as node_get_known(), and make a new one of @fd, which is taken or closed. Return: NULL and errno ENOMEM. */
struct node *node_get(int fd, const struct stat *st);
/** node_put() - the driver forgets @nlookup lookups of node @id. */
void node_put(uint64_t id, uint64_t nlookup);

#endif
