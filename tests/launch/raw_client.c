/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starts a daemon under launch/ and speaks raw FUSE with it: INIT, GETATTR, and a file read whole.
 *
 *	raw_client [--file NAME] [--stop eof|term|unmount|kill] [--placeholder auto|always|never] -- COMMAND...
 *
 * Prints one line per event on stdout; ends with the command's exit status.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "launch/launch.h"

#define CLIENT_TIMEOUT_MS 10000
#define CLIENT_BUFFER	  (1 << 20)

struct client {
	struct launch *launch;
	int event_fd;
	int fd;
	pid_t server;
	bool exited;
	int status;
	uint64_t unique;
	char buf[CLIENT_BUFFER];
};

static int on_mounted(void *ctx, const struct launch_mount *mnt, int fd)
{
	struct client *c = ctx;

	if (c->fd >= 0)
		return -EBUSY;
	printf("mounted type=%s source=%s max_read=%u rootmode=%o default_permissions=%d "
	       "allow_other=%d read_only=%d\n",
	       mnt->type, mnt->source, mnt->max_read, mnt->rootmode, mnt->default_permissions,
	       mnt->allow_other, mnt->read_only);
	__atomic_store_n(&c->fd, fd, __ATOMIC_RELEASE);
	return fd_signal(c->event_fd);
}

static void on_unmounted(void *ctx)
{
	printf("unmounted\n");
}

static void on_exited(void *ctx, int status)
{
	struct client *c = ctx;

	c->status = status;
	__atomic_store_n(&c->exited, true, __ATOMIC_RELEASE);
	fd_signal(c->event_fd);
}

static bool client_wait(struct client *c, int timeout_ms)
{
	struct pollfd p = { .fd = c->event_fd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) > 0 && fd_drain_signal(c->event_fd) >= 0;
}

/* Send a request on @fd and wait for its reply in c->buf. Return: bytes of body, or negative errno. */
static int client_call(struct client *c, int fd, uint32_t opcode, uint64_t node, const void *args,
		       size_t len)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct fuse_in_header in = {
		.len = (uint32_t)(sizeof(in) + len),
		.opcode = opcode,
		.unique = c->unique += 2,
		.nodeid = node,
		.pid = (uint32_t)getpid(),
		.uid = getuid(),
		.gid = getgid(),
	};
	struct iovec out[2] = { { &in, sizeof(in) }, { (void *)(uintptr_t)args, len } };
	struct msghdr send = { .msg_iov = out, .msg_iovlen = 2 };
	struct iovec iov = { c->buf, sizeof(c->buf) };
	struct msghdr recv = { .msg_iov = &iov,
			       .msg_iovlen = 1,
			       .msg_control = control.buf,
			       .msg_controllen = sizeof(control.buf) };
	struct fuse_out_header *h = (struct fuse_out_header *)(void *)c->buf;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct cmsghdr *cred;
	ssize_t n;

	if (sendmsg(fd, &send, MSG_NOSIGNAL) < 0)
		return -errno;
	if (poll(&p, 1, CLIENT_TIMEOUT_MS) <= 0)
		return -ETIMEDOUT;
	n = recvmsg(fd, &recv, 0);
	if (n < (ssize_t)sizeof(*h))
		return n < 0 ? -errno : -EPIPE;
	if (h->len != n || h->unique != in.unique)
		return -EPROTO;
	cred = CMSG_FIRSTHDR(&recv);
	if (cred && cred->cmsg_type == SCM_CREDENTIALS)
		c->server = ((struct ucred *)(void *)CMSG_DATA(cred))->pid;
	return h->error ? h->error : (int)(n - (ssize_t)sizeof(*h));
}

static int client_init(struct client *c)
{
	const struct fuse_init_in init = { .major = 7,
					   .minor = 36,
					   .max_readahead = 131072,
					   .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES |
						    FUSE_MAX_PAGES };
	const int on = 1, off = 0;
	int n;

	setsockopt(c->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	n = client_call(c, c->fd, FUSE_INIT, 0, &init, 16);
	setsockopt(c->fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
	if (n > 0) {
		struct fuse_init_out *o = (void *)(c->buf + sizeof(struct fuse_out_header));

		launch_set_server(c->launch, c->server);
		printf("init minor=%u max_write=%u main=%d\n", o->minor, o->max_write,
		       c->server > 0);
	} else {
		printf("init failed: %d\n", n);
	}
	return n;
}

static int client_read_file(struct client *c, int fd, const char *name)
{
	char *body = c->buf + sizeof(struct fuse_out_header);
	struct fuse_open_in open = { .flags = 0 };
	struct fuse_read_in read = { .size = 65536 };
	unsigned long sum = 0, total = 0;
	uint64_t node;
	int n;

	n = client_call(c, fd, FUSE_LOOKUP, FUSE_ROOT_ID, name, strlen(name) + 1);
	if (n < 0)
		return n;
	node = ((struct fuse_entry_out *)(void *)body)->nodeid;
	n = client_call(c, fd, FUSE_OPEN, node, &open, sizeof(open));
	if (n < 0)
		return n;
	read.fh = ((struct fuse_open_out *)(void *)body)->fh;
	do {
		n = client_call(c, fd, FUSE_READ, node, &read, sizeof(read));
		for (int i = 0; i < n; i++)
			sum += (unsigned char)body[i];
		total += (unsigned long)max_of(n, 0);
		read.offset += (uint64_t)max_of(n, 0);
	} while (n > 0);
	if (!n)
		printf("read %s bytes=%lu sum=%lu\n", name, total, sum);
	return n;
}

static int client_talk(struct client *c, const char *file)
{
	struct fuse_getattr_in getattr = { 0 };
	int n = client_init(c);

	if (n < 0)
		return n;
	n = client_call(c, c->fd, FUSE_GETATTR, FUSE_ROOT_ID, &getattr, sizeof(getattr));
	if (n < 0)
		return n;
	printf("getattr mode=%o\n", ((struct fuse_attr_out *)(void *)(c->buf + 16))->attr.mode);
	if (file)
		n = client_read_file(c, c->fd, file);
	return n;
}

static void client_stop(struct client *c, const char *how)
{
	if (strcmp(how, "eof"))
		printf("destroy %d\n", client_call(c, c->fd, FUSE_DESTROY, 0, NULL, 0));
	if (!strcmp(how, "kill") && c->server > 0)
		kill(c->server, SIGKILL);
	else if (!strcmp(how, "term"))
		launch_finish(c->launch, 3 * NSEC_PER_SEC, 3 * NSEC_PER_SEC, true);
	else if (!strcmp(how, "unmount"))
		printf("unmount %d\n", launch_unmount(c->launch));
	if (!strcmp(how, "term") || !strcmp(how, "unmount"))
		client_wait(c, 1000);
	close_fd(&c->fd);
	launch_finish(c->launch, 3 * NSEC_PER_SEC, 3 * NSEC_PER_SEC, false);
}

static enum launch_placeholder placeholder = LAUNCH_PLACEHOLDER_AUTO;

static int client_run(struct client *c, char **argv, const char *file, const char *stop)
{
	const struct launch_events events = { on_mounted, on_unmounted, on_exited };
	const char *why;
	int err;

	err = launch_start(&c->launch, argv, placeholder, &events, c, &why);
	if (err) {
		fprintf(stderr, "%s: %s: %s\n", argv[0], why, strerror(-err));
		return 1;
	}
	while (!__atomic_load_n(&c->exited, __ATOMIC_ACQUIRE)) {
		if (!client_wait(c, 3 * CLIENT_TIMEOUT_MS)) {
			printf("timeout\n");
			break;
		}
		if (__atomic_load_n(&c->fd, __ATOMIC_ACQUIRE) < 0 || c->server)
			continue;
		err = client_talk(c, file);
		if (err < 0)
			printf("talk failed: %s\n", strerror(-err));
		client_stop(c, stop);
	}
	launch_free(c->launch);
	printf("status %s=%d\n", WIFEXITED(c->status) ? "exit" : "signal",
	       WIFEXITED(c->status) ? WEXITSTATUS(c->status) : WTERMSIG(c->status));
	return WIFEXITED(c->status) ? WEXITSTATUS(c->status) : 128 + WTERMSIG(c->status);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "file", required_argument, NULL, 'f' },
						 { "stop", required_argument, NULL, 's' },
						 { "placeholder", required_argument, NULL, 'p' },
						 { "verbose", no_argument, NULL, 'v' },
						 { NULL, 0, NULL, 0 } };
	static struct client c = { .fd = -1 };
	const char *file = NULL, *stop = "term";
	int opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	log_init(LOG_LEVEL_WARN, "raw_client");
	while ((opt = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (opt == 'f')
			file = optarg;
		else if (opt == 's')
			stop = optarg;
		else if (opt == 'p')
			placeholder = !strcmp(optarg, "always")	 ? LAUNCH_PLACEHOLDER_ALWAYS
				      : !strcmp(optarg, "never") ? LAUNCH_PLACEHOLDER_NEVER
								 : LAUNCH_PLACEHOLDER_AUTO;
		else if (opt == 'v')
			log_init(LOG_LEVEL_DEBUG, "raw_client");
		else
			return 2;
	}
	c.event_fd = eventfd_new();
	if (optind >= argc || c.event_fd < 0 || launch_prepare() < 0)
		return 2;
	return client_run(&c, argv + optind, file, stop);
}
