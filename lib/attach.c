/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire.h: joins a libfuse session to a worker by libfuse's custom I/O.
 */
#define FUSE_USE_VERSION 314

#include "fusewire.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "serving.h"

/* libfuse tells its I/O functions a descriptor, and nothing else of ours: it names the attachment. */
#define FDS_MAX 65536

struct attachment {
	struct fuse_session *se;
	struct serving *serving;
	struct attachment *next;
	int fd;
};

static struct serving *by_fd[FDS_MAX];
static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct attachment *list;

static ssize_t result(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = (int)-n;
	return -1;
}

static ssize_t attached_read(int fd, void *buf, size_t len, void *userdata)
{
	return result(serving_read(by_fd[fd], buf, len));
}

static ssize_t attached_writev(int fd, struct iovec *iov, int nr, void *userdata)
{
	return result(serving_write(by_fd[fd], iov, (unsigned int)nr));
}

static ssize_t attached_splice_send(int in, off_t *off_in, int fd, off_t *off_out, size_t len,
				    unsigned int flags, void *userdata)
{
	return result(serving_write_pipe(by_fd[fd], in, len));
}

/* libfuse closes the descriptor when it destroys the session. */
static int join(struct attachment *a)
{
	static const struct fuse_custom_io io = {
		.read = attached_read,
		.writev = attached_writev,
		.splice_send = attached_splice_send,
	};
	int fd = eventfd(0, EFD_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (fd >= FDS_MAX) {
		close(fd);
		return -EMFILE;
	}
	by_fd[fd] = a->serving;
	err = fuse_session_custom_io(a->se, &io, fd);
	if (err) {
		by_fd[fd] = NULL;
		close(fd);
		return err < -1 ? err : -EINVAL;
	}
	a->fd = fd;
	return 0;
}

int fusewire_attach(struct fuse_session *se, const struct fusewire_options *options)
{
	struct fusewire_options o = {};
	struct attachment *a;
	int err;

	if (!se || !options || options->size > sizeof(o) ||
	    options->size < offsetof(struct fusewire_options, queues))
		return -EINVAL;
	memcpy(&o, options, options->size);
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->se = se;
	err = serving_new(&a->serving, &o);
	if (err == 0)
		err = join(a);
	if (err < 0) {
		serving_free(a->serving);
		free(a);
		return err;
	}
	pthread_mutex_lock(&list_lock);
	a->next = list;
	list = a;
	pthread_mutex_unlock(&list_lock);
	return 0;
}

void fusewire_detach(struct fuse_session *se)
{
	struct attachment **p, *a;

	pthread_mutex_lock(&list_lock);
	for (p = &list; *p && (*p)->se != se; p = &(*p)->next)
		continue;
	a = *p;
	if (a)
		*p = a->next;
	pthread_mutex_unlock(&list_lock);
	if (!a)
		return;
	by_fd[a->fd] = NULL;
	serving_free(a->serving);
	free(a);
}
