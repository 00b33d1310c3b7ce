/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The part of fio 3.33's binary interface (x86-64, engine interface 31) that an external engine meets.
 *
 * fio's headers are not packaged. These declarations name what the engine uses; the rest is padding. The offsets were
 * taken from a build of fio 3.33 and compared with Debian's binary; engine.c checks at load and at the first call that
 * it is inside such a fio.
 */
#ifndef FUSEWIRE_FIO_ABI_H
#define FUSEWIRE_FIO_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/compiler.h"

/** FIO_VERSION_KNOWN - fio_version_string of the program whose layout this is. */
#define FIO_VERSION_KNOWN "fio-3.33"
/** FIO_IOOPS_VERSION - of struct fio_ops. */
#define FIO_IOOPS_VERSION 31
/** FIO_EO_OFFSET - in struct thread_data: pointer to the engine's options, which begin with a pointer back. */
#define FIO_EO_OFFSET 4216
/** FIO_OPS_OFFSET - in struct thread_data: pointer to the engine's struct fio_ops. */
#define FIO_OPS_OFFSET 189952
/** FIO_DISKLESSIO - engine flag: fio itself makes and extends no file. */
#define FIO_DISKLESSIO (1 << 2)
/** FIO_NODISKUTIL - engine flag: no statistics of a local disk. */
#define FIO_NODISKUTIL (1 << 4)
/** FIO_FILE_SIZE_KNOWN - flag of a file: its size was asked for. */
#define FIO_FILE_SIZE_KNOWN (1u << 4)
/** FIO_CATEGORY_ENGINE - category of an engine's options. */
#define FIO_CATEGORY_ENGINE (1ull << 6)

struct thread_data;

enum fio_direction {
	FIO_READ = 0,
	FIO_WRITE = 1,
	FIO_SYNC = 3,
	FIO_DATASYNC = 4,
};

enum fio_queued {
	FIO_Q_COMPLETED = 0,
	FIO_Q_QUEUED = 1,
	FIO_Q_BUSY = 2,
};

enum fio_option_type {
	FIO_OPTION_STORE = 6, /* char * */
	FIO_OPTION_INT = 8,
	FIO_OPTION_SET = 12, /* int, 1 when named */
};

/**
 * struct fio_file - a file of a job.
 * @name: as the user gave it
 * @bytes: its size
 * @engine_data: the engine's
 * @flags: FIO_FILE_*
 * @pad0: not used
 * @pad1: not used
 * @pad2: not used
 */
struct fio_file {
	uint8_t pad0[40];
	const char *name;
	uint64_t bytes;
	uint8_t pad1[120];
	void *engine_data;
	uint8_t pad2[180];
	uint32_t flags;
};

/**
 * struct io_u - one operation.
 * @file: where
 * @direction: enum fio_direction
 * @offset: in the file
 * @buf: data
 * @len: bytes
 * @resid: set at completion: bytes that were not done
 * @error: set at completion: positive errno
 * @engine_data: the engine's
 * @pad0: not used
 * @pad1: not used
 * @pad2: not used
 * @pad3: not used
 * @pad4: not used
 * @pad5: not used
 */
struct io_u {
	uint8_t pad0[32];
	struct fio_file *file;
	uint8_t pad1[4];
	uint32_t direction;
	uint8_t pad2[24];
	uint64_t offset;
	uint8_t pad3[24];
	void *buf;
	uint64_t len;
	uint8_t pad4[16];
	uint64_t resid;
	uint32_t error;
	uint8_t pad5[4];
	void *engine_data;
};

/**
 * struct fio_option - an option of the engine.
 * @name: as in a job file
 * @long_name: for people
 * @type: enum fio_option_type
 * @offset: of its value in the options' structure
 * @max: greatest value
 * @min: least value
 * @help: one line
 * @def: default as text
 * @category: FIO_CATEGORY_ENGINE
 * @pad0: not used
 * @pad1: not used
 * @pad2: not used
 * @pad3: not used
 * @pad4: not used
 */
struct fio_option {
	const char *name;
	const char *long_name;
	const char *pad0;
	int type;
	unsigned int offset;
	unsigned int pad1[5];
	unsigned long long max;
	int min;
	uint64_t pad2[5];
	const char *help;
	const char *def;
	uint64_t pad3[167];
	uint64_t category;
	uint64_t pad4[5];
};

/**
 * struct fio_ops - the engine, as fio calls it; int is 0 or positive errno, but for getevents.
 * @name: as fio shows it
 * @version: FIO_IOOPS_VERSION
 * @flags: FIO_DISKLESSIO and the like
 * @dlhandle: fio's
 * @setup: not used
 * @init: a job begins, in its thread
 * @post_init: not used
 * @prep: not used
 * @queue: begin an operation
 * @commit: show the device what was begun
 * @getevents: wait; how many are complete, or negative errno
 * @event: one of these
 * @errdetails: not used
 * @cancel: not used
 * @cleanup: a job ends
 * @open_file: before its first operation
 * @close_file: after its last
 * @invalidate: drop what is cached
 * @unlink_file: remove
 * @get_file_size: before jobs start
 * @option_struct_size: bytes of the options' structure
 * @options: up to one without a name
 * @pad0: not used
 * @pad1: not used
 */
struct fio_ops {
	void *pad1[2];
	const char *name;
	int version;
	int flags;
	void *dlhandle;
	int (*setup)(struct thread_data *td);
	int (*init)(struct thread_data *td);
	int (*post_init)(struct thread_data *td);
	int (*prep)(struct thread_data *td, struct io_u *u);
	enum fio_queued (*queue)(struct thread_data *td, struct io_u *u);
	int (*commit)(struct thread_data *td);
	int (*getevents)(struct thread_data *td, unsigned int min, unsigned int max,
			 const struct timespec *timeout);
	struct io_u *(*event)(struct thread_data *td, int index);
	char *(*errdetails)(struct io_u *u);
	int (*cancel)(struct thread_data *td, struct io_u *u);
	void (*cleanup)(struct thread_data *td);
	int (*open_file)(struct thread_data *td, struct fio_file *f);
	int (*close_file)(struct thread_data *td, struct fio_file *f);
	int (*invalidate)(struct thread_data *td, struct fio_file *f);
	int (*unlink_file)(struct thread_data *td, struct fio_file *f);
	int (*get_file_size)(struct thread_data *td, struct fio_file *f);
	void *pad0[10];
	int option_struct_size;
	struct fio_option *options;
};

static_assert(offsetof(struct fio_file, bytes) == 48 &&
		      offsetof(struct fio_file, engine_data) == 176 &&
		      offsetof(struct fio_file, flags) == 364,
	      "not fio 3.33's file");
static_assert(offsetof(struct io_u, direction) == 44 && offsetof(struct io_u, offset) == 72 &&
		      offsetof(struct io_u, buf) == 104 && offsetof(struct io_u, resid) == 136 &&
		      offsetof(struct io_u, engine_data) == 152,
	      "not fio 3.33's io_u");
static_assert(sizeof(struct fio_option) == 1512, "not fio 3.33's option");
static_assert(offsetof(struct fio_ops, option_struct_size) == 248 && sizeof(struct fio_ops) == 264,
	      "not engine interface 31");

#endif
