/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system that changes behind the kernel's back: one file, whose name and content are remembered for an hour unless it
 * says otherwise. Does what it is told, line by line, through a FIFO, and says how that went in a file beside it.
 *
 *	data TEXT        the content, without a word to the kernel
 *	name NAME        the file's name, likewise
 *	inode            notify: the file's content is invalid
 *	entry NAME       notify: a name in the root is invalid
 *	expire NAME      notify: a name in the root is to be looked at again
 *	delete NAME      notify: the file with this name is gone
 *	store TEXT       notify: this is the content
 *	retrieve         ask for the cached content
 *	ready            wake up who polls
 *	hold             READs wait from now on
 *	release          no longer
 *	lookups          how many there were
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_INO 1000
#define HOUR	 3600.0

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char data[4096] = "first", name[256] = "file";
static struct fuse_pollhandle *waiter;
static int is_ready, is_held;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static struct fuse_session *session;
static const char *fifo;
static unsigned int nr_lookups;

static void answer(const char *text, int value)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s.out", fifo);
	out = fopen(path, "a");
	if (!out)
		return;
	fprintf(out, "%s %d\n", text, value);
	fclose(out);
}

static struct stat attr_of(fuse_ino_t ino)
{
	struct stat st = { .st_ino = ino, .st_mode = S_IFDIR | 0755, .st_nlink = 2 };

	if (ino == FILE_INO) {
		st.st_mode = S_IFREG | 0644;
		st.st_nlink = 1;
		st.st_size = (off_t)strlen(data);
	}
	return st;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *what)
{
	struct fuse_entry_param e = { .ino = FILE_INO,
				      .attr_timeout = HOUR,
				      .entry_timeout = HOUR };
	int found;

	pthread_mutex_lock(&lock);
	nr_lookups++;
	found = parent == FUSE_ROOT_ID && !strcmp(what, name);
	e.attr = attr_of(FILE_INO);
	pthread_mutex_unlock(&lock);
	if (!found) {
		/* That there is nothing is remembered, too. */
		e.ino = 0;
		memset(&e.attr, 0, sizeof(e.attr));
	}
	fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&lock);
	st = attr_of(ino);
	pthread_mutex_unlock(&lock);
	fuse_reply_attr(req, &st, HOUR);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	char copy[sizeof(data)];
	size_t len;

	(void)ino;
	(void)fi;
	pthread_mutex_lock(&lock);
	if (is_held)
		answer("held", 0);
	while (is_held)
		pthread_cond_wait(&released, &lock);
	memcpy(copy, data, sizeof(copy));
	pthread_mutex_unlock(&lock);
	len = strlen(copy);
	if ((size_t)off >= len)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, copy + off,
			       len - (size_t)off < size ? len - (size_t)off : size);
}

static void do_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *ph)
{
	int now;

	(void)ino;
	(void)fi;
	pthread_mutex_lock(&lock);
	if (ph) {
		if (waiter)
			fuse_pollhandle_destroy(waiter);
		waiter = ph;
	}
	now = is_ready;
	pthread_mutex_unlock(&lock);
	fuse_reply_poll(req, now ? POLLIN : 0);
	if (ph)
		answer("polled", now);
}

static void do_retrieve_reply(fuse_req_t req, void *cookie, fuse_ino_t ino, off_t offset,
			      struct fuse_bufvec *bufv)
{
	char got[64] = "";
	struct fuse_bufvec to = FUSE_BUFVEC_INIT(sizeof(got) - 1);

	(void)cookie;
	(void)ino;
	(void)offset;
	to.buf[0].mem = got;
	fuse_buf_copy(&to, bufv, 0);
	fuse_reply_none(req);
	answer(got[0] ? got : "nothing", 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = do_lookup,
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
	.poll = do_poll,
	.retrieve_reply = do_retrieve_reply,
};

static int store(const char *text)
{
	struct fuse_bufvec from = FUSE_BUFVEC_INIT(strlen(text));

	from.buf[0].mem = (void *)(unsigned long)text;
	return fuse_lowlevel_notify_store(session, FILE_INO, 0, &from, 0);
}

static int wake(void)
{
	int err = -ENOENT;

	pthread_mutex_lock(&lock);
	is_ready = 1;
	if (waiter) {
		err = fuse_lowlevel_notify_poll(waiter);
		fuse_pollhandle_destroy(waiter);
	}
	waiter = NULL;
	pthread_mutex_unlock(&lock);
	return err;
}

static int hold(int held)
{
	pthread_mutex_lock(&lock);
	is_held = held;
	pthread_cond_broadcast(&released);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int set(char *what, size_t size, const char *arg)
{
	pthread_mutex_lock(&lock);
	snprintf(what, size, "%s", arg);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int obey(const char *word, const char *arg)
{
	if (!strcmp(word, "data"))
		return set(data, sizeof(data), arg);
	if (!strcmp(word, "name"))
		return set(name, sizeof(name), arg);
	if (!strcmp(word, "inode"))
		return fuse_lowlevel_notify_inval_inode(session, FILE_INO, 0, 0);
	if (!strcmp(word, "entry"))
		return fuse_lowlevel_notify_inval_entry(session, FUSE_ROOT_ID, arg, strlen(arg));
	if (!strcmp(word, "expire"))
		return fuse_lowlevel_notify_expire_entry(session, FUSE_ROOT_ID, arg, strlen(arg),
							 FUSE_LL_EXPIRE_ONLY);
	if (!strcmp(word, "delete"))
		return fuse_lowlevel_notify_delete(session, FUSE_ROOT_ID, FILE_INO, arg,
						   strlen(arg));
	if (!strcmp(word, "store"))
		return store(arg);
	if (!strcmp(word, "retrieve"))
		return fuse_lowlevel_notify_retrieve(session, FILE_INO, 4096, 0, NULL);
	if (!strcmp(word, "hold") || !strcmp(word, "release"))
		return hold(word[0] == 'h');
	if (!strcmp(word, "lookups"))
		return (int)nr_lookups;
	return !strcmp(word, "ready") ? wake() : -EINVAL;
}

static void *control(void *unused)
{
	char line[4096];
	FILE *in;

	(void)unused;
	/* For writing, too, it has no end: what came between one and the next open would be lost. */
	in = fopen(fifo, "r+");
	while (in && fgets(line, sizeof(line), in)) {
		char *arg = strchr(line, ' ');

		line[strcspn(line, "\n")] = '\0';
		if (arg)
			*arg++ = '\0';
		answer(line, obey(line, arg ? arg : ""));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc - 1, argv + 1);
	struct fuse_cmdline_opts opts;
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	pthread_t thread;
	int err = 1;

	/* The FIFO, then what every libfuse program takes. */
	if (argc < 3 || fuse_parse_cmdline(&args, &opts) != 0)
		return 2;
	fifo = argv[1];
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (session && fuse_session_mount(session, opts.mountpoint) == 0) {
		fuse_set_signal_handlers(session);
		if (pthread_create(&thread, NULL, control, NULL) == 0)
			err = fuse_session_loop_mt(session, config);
		fuse_session_unmount(session);
	}
	return err ? 1 : 0;
}
