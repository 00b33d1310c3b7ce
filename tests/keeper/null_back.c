/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The null service as a back-end that takes a session over: null_back SOCKET RECORD DATA GENERATION [QUEUES] [inband].
 *
 * RECORD is a file with the session of the process before; GENERATION says how many had it (0: none). DATA has
 * what the served file holds (mmap64() is wrapped for that). As many connections as come are served, one after the
 * other; SIGUSR1 makes it tell the driver that its root has changed, SIGTERM ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "device/device.h"
#include "service/null/null.h"
#include "vhost/listen.h"
#include "vhost/server.h"

#define FILE_BYTES (64u << 20)

void *__real_mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off);

static struct loop *loop;
static struct device *dev;
static int data_fd = -1;

/* The one mapping of that size is the null service's file. */
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
{
	if (len != FILE_BYTES || fd >= 0)
		return __real_mmap64(addr, len, prot, flags, fd, off);
	return __real_mmap64(addr, len, prot, MAP_SHARED, data_fd, 0);
}

static void stop(int sig)
{
	loop_stop(loop);
}

static void notify(void *ctx, uint32_t events)
{
	const struct fuse_notify_inval_inode_out what = { .ino = FUSE_ROOT_ID };
	const struct loop_watch *watch = ctx;
	struct signalfd_siginfo info;
	int err;

	if (read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	err = device_notify(dev, FUSE_NOTIFY_INVAL_INODE, &what, sizeof(what));
	if (err < 0)
		log_info("notify: %s", strerror(-err));
}

static int watch_signal(struct loop_watch *watch)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	*watch = (struct loop_watch){ signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), notify,
				      watch };
	return loop_add(loop, watch, EPOLLIN);
}

static struct fuse_session_record *map_record(const char *path, const char *data)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *map;

	data_fd = open(data, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (data_fd < 0 || ftruncate(data_fd, FILE_BYTES) < 0 || fd < 0 || ftruncate(fd, 4096) < 0)
		return NULL;
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

int main(int argc, char **argv)
{
	struct device_config config = { .tag = "kept",
					.nr_request_queues = 2,
					.queue_size_max = 1024,
					.poll_ns = 50 * NSEC_PER_USEC,
					.drain_ns = 2 * NSEC_PER_SEC };
	struct vhost_listener listener = { .fd = -1 };
	struct vhost_server *server = NULL;
	char text[VHOST_LISTEN_TEXT];
	struct loop_watch usr1;
	unsigned int generation;
	struct service *svc;
	int err;

	if (argc < 5)
		return 2;
	log_init(LOG_LEVEL_DEBUG, "null_back");
	generation = (unsigned int)strtoul(argv[4], NULL, 10);
	if (argc > 5)
		config.nr_request_queues = (unsigned int)strtoul(argv[5], NULL, 10);
	config.arch = FUSE_ARCH_NATIVE;
	config.record = map_record(argv[2], argv[3]);
	if (!config.record || loop_new(&loop) < 0 || watch_signal(&usr1) < 0 ||
	    null_service_new(&svc, FILE_BYTES) < 0 || device_new(&dev, &config, svc) < 0)
		return 1;
	if (generation)
		log_info("resume: %s", strerror(-device_resume(dev, generation)));
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = stop }, NULL);
	if (vhost_listen_open(&listener, argv[1], VHOST_LISTEN_NO_GROUP, text) < 0) {
		fprintf(stderr, "%s\n", text);
		return 1;
	}
	err = vhost_server_new(&server,
			       &(struct vhost_server_config){ .loop = loop,
							      .listen_fd = listener.fd,
							      .dev = dev,
							      .inband_notifications = argc > 6 });
	if (err == 0)
		err = loop_run(loop);
	loop_remove(loop, &usr1);
	close(usr1.fd);
	vhost_server_free(server);
	vhost_listen_close(&listener);
	device_free(dev);
	svc->ops->free(svc);
	loop_free(loop);
	return err < 0;
}
