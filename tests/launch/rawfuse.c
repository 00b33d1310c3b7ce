/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A FUSE daemon without a library, linked statically: opens /dev/fuse, mounts and answers with system calls only.
 *
 *	rawfuse [-b] [-c] [-e] [-l] [-m] [-p] [-s SECONDS] [-t TYPE] [-x FILE] MOUNTPOINT
 *
 *	-b	go to the background after the mount
 *	-c	clone the device, close the first descriptor, and answer at the clone
 *	-l	look at the mount point as daemons do that find out whether they are mounted; mount read-write
 *	-m	three processes read the device; the status is the sum of theirs
 *	-p	wait in epoll_wait, as event loops of C++, Python or JavaScript do, not in read
 *	-s	sleep at the end, and ignore SIGTERM
 *	-t	type of the mount, in place of fuse.raw
 *	-x	die when INIT is answered, if the file is there at the start: exit status 5
 *	-e	look at what the kernel would refuse or do otherwise: one line per look on stdout
 *
 * Serves a directory with one file, "f". Exit status: 0 after ENODEV, 3 after an end of file, 1 on errors.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_NODE  2
#define FILE_BYTES 200000
#define MAX_WRITE  131072

static int dying;
static char content[FILE_BYTES];
static char request[MAX_WRITE + 4096];

static void reply(int fd, uint64_t unique, int error, const void *body, size_t len)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len),
		.error = error,
		.unique = unique,
	};
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)(uintptr_t)body, len } };

	if (writev(fd, iov, len ? 2 : 1) < 0)
		perror("rawfuse: write");
}

static struct fuse_attr attr_of(uint64_t node)
{
	struct fuse_attr a = {
		.ino = node,
		.nlink = 1,
		.mode = node == FILE_NODE ? S_IFREG | 0644 : S_IFDIR | 0755,
		.size = node == FILE_NODE ? FILE_BYTES : 0,
	};

	return a;
}

static void answer_read(int fd, const struct fuse_in_header *in, const struct fuse_read_in *r)
{
	size_t n = r->offset < FILE_BYTES ? FILE_BYTES - r->offset : 0;

	n = n < r->size ? n : r->size;
	reply(fd, in->unique, 0, content + (n ? r->offset : 0), n);
}

static void answer(int fd, const struct fuse_in_header *in, const void *args)
{
	struct fuse_init_out init = {
		.major = 7, .minor = 31, .max_readahead = 131072, .max_write = MAX_WRITE
	};
	struct fuse_attr_out attr = { .attr = attr_of(in->nodeid) };
	struct fuse_entry_out entry = { .nodeid = FILE_NODE, .attr = attr_of(FILE_NODE) };
	struct fuse_open_out open = { .fh = 1 };

	switch (in->opcode) {
	case FUSE_INIT:
		reply(fd, in->unique, 0, &init, sizeof(init));
		if (dying)
			_exit(5);
		break;
	case FUSE_GETATTR:
		reply(fd, in->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_LOOKUP:
		if (!strcmp(args, "f"))
			reply(fd, in->unique, 0, &entry, sizeof(entry));
		else
			reply(fd, in->unique, -ENOENT, NULL, 0);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		reply(fd, in->unique, 0, &open, sizeof(open));
		break;
	case FUSE_READ:
		answer_read(fd, in, args);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		break;
	case FUSE_DESTROY:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
		reply(fd, in->unique, 0, NULL, 0);
		break;
	default:
		reply(fd, in->unique, -ENOSYS, NULL, 0);
	}
}

/* Return: 0 to go on, else exit status + 1. */
static int serve_one(int fd)
{
	ssize_t n = read(fd, request, sizeof(request));

	if (n >= (ssize_t)sizeof(struct fuse_in_header)) {
		answer(fd, (const void *)request, request + sizeof(struct fuse_in_header));
		return 0;
	}
	if (n < 0 && errno == ENODEV)
		return 1 + 0;
	if (n == 0)
		return 1 + 3;
	return n < 0 && (errno == EINTR || errno == EAGAIN) ? 0 : 1 + 1;
}

static int serve(int fd)
{
	int end = 0;

	while (!end)
		end = serve_one(fd);
	return end - 1;
}

/* One shot at a time; what cannot be changed is added anew, as Python's trio does it. */
static int serve_polled(int fd)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT };
	int epoll = epoll_create1(EPOLL_CLOEXEC), end = 0;

	while (!end) {
		if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &e) < 0 &&
		    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
			return 1;
		while (epoll_wait(epoll, &e, 1, -1) < 0) {
			if (errno != EINTR)
				return 1;
		}
		e.events = EPOLLIN | EPOLLONESHOT;
		end = serve_one(fd);
	}
	return end - 1;
}

/* Each of @nr processes serves. */
static int serve_many(int fd, int polled, int nr)
{
	pid_t pid = nr > 1 ? fork() : -1;
	int status, others;

	if (pid == 0)
		exit(serve_many(fd, polled, nr - 1));
	status = polled ? serve_polled(fd) : serve(fd);
	if (nr == 1)
		return status;
	if (pid < 0 || waitpid(pid, &others, 0) != pid || !WIFEXITED(others))
		return 100;
	return status + WEXITSTATUS(others);
}

static void look(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "ok");
	fflush(stdout);
}

static void look_around(const char *mountpoint)
{
	char path[] = "/tmp/rawfuse.XXXXXX", buf[8];
	struct iovec iov = { buf, sizeof(buf) };
	int pipes[2], fd = mkstemp(path);

	look("ordinary open", open(path, O_RDWR));
	look("ordinary write", write(fd, "x", 1));
	unlink(path);
	look("fsopen fuse", syscall(SYS_fsopen, "fuse", 0));
	look("remount", mount("none", mountpoint, "none", MS_REMOUNT | MS_RDONLY, NULL));
	look("umount elsewhere", umount2("/nonexisting", 0));
	look("mount tmpfs on nothing", mount("none", "/nonexisting", "tmpfs", 0, NULL));
	look("mount fuse without options", mount("none", mountpoint, "fuse", 0, NULL));
	if (pipe(pipes) < 0)
		return;
	look("vmsplice", vmsplice(pipes[1], &iov, 1, 0));
	look("F_SETPIPE_SZ", fcntl(pipes[0], F_SETPIPE_SZ, 1 << 20));
	look("F_GETPIPE_SZ", fcntl(pipes[0], F_GETPIPE_SZ));
	look("clone of no device", ioctl(pipes[0], FUSE_DEV_IOC_CLONE, &pipes[1]));
}

/* As go-fuse does, old and new. */
static void look_polled(const char *mountpoint)
{
	struct pollfd p = { .events = POLLIN | POLLPRI | POLLOUT };
	char path[4096];

	snprintf(path, sizeof(path), "%s/.go-fuse-epoll-hack", mountpoint);
	p.fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0644);
	look("open to poll, writing", p.fd);
	close(p.fd);
	p.fd = open(path, O_RDONLY);
	look("open to poll", p.fd);
	look("poll", p.fd < 0 ? -1 : poll(&p, 1, 0));
	close(p.fd);
}

/* As ceph-fuse does. */
static int remount(const char *mountpoint)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		setenv("LIBMOUNT_FSTAB", "/dev/null", 1);
		execlp("mount", "mount", "-i", "-o", "remount", mountpoint, NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void look_at_mount(const char *mountpoint)
{
	char line[4096], needle[4096];
	struct statfs sfs;
	struct stat st;
	FILE *f = fopen("/proc/self/mounts", "r");

	look("stat", stat(mountpoint, &st));
	printf("inode: %llu type: %o\n", (unsigned long long)st.st_ino, st.st_mode & S_IFMT);
	look("statfs", statfs(mountpoint, &sfs));
	look("access", access(mountpoint, R_OK));
	if (S_ISDIR(st.st_mode))
		look_polled(mountpoint);
	printf("remount command: %#x\n", (unsigned)remount(mountpoint));
	snprintf(needle, sizeof(needle), " %s ", mountpoint);
	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, needle))
			printf("in mounts: %s", line);
	}
	printf("user: %u group: %u owner of /: %u\n", getuid(), getgid(),
	       stat("/", &st) < 0 ? 0u : st.st_uid);
	fflush(stdout);
}

static int open_clone(int fd)
{
	uint32_t master = (uint32_t)fd;
	int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (clone < 0 || ioctl(clone, FUSE_DEV_IOC_CLONE, &master) < 0) {
		perror("rawfuse: clone");
		exit(1);
	}
	close(fd);
	return clone;
}

int main(int argc, char **argv)
{
	int fd, opt, background = 0, cloning = 0, looking = 0, placed = 0, many = 1, polled = 0,
		     seconds = 0, status;
	const char *type = "fuse.raw";
	struct stat st = { .st_mode = S_IFDIR };
	char options[128];

	while ((opt = getopt(argc, argv, "bcelmps:t:x:")) != -1) {
		many = opt == 'm' ? 3 : many;
		polled |= opt == 'p';
		placed |= opt == 'l';
		dying |= opt == 'x' && access(optarg, F_OK) == 0;
		seconds = opt == 's' ? atoi(optarg) : seconds;
		type = opt == 't' ? optarg : type;
		background |= opt == 'b';
		cloning |= opt == 'c';
		looking |= opt == 'e';
	}
	if (optind + 1 != argc)
		return 1;
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (char)(i * 31 >> 3);
	fd = open("/dev/fuse", O_RDWR);
	if (fd < 0) {
		perror("rawfuse: /dev/fuse");
		return 1;
	}
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=%o,user_id=%u,group_id=%u,max_read=65536,allow_other", fd,
		 stat(argv[optind], &st) < 0 ? S_IFDIR : st.st_mode & S_IFMT, getuid(), getgid());
	if (mount("raw", argv[optind], type, MS_NOSUID | MS_NODEV | (placed ? 0 : MS_RDONLY),
		  options) < 0) {
		perror("rawfuse: mount");
		return 1;
	}
	if (looking)
		look_around(argv[optind]);
	if (placed)
		look_at_mount(argv[optind]);
	if (background && daemon(1, 1) < 0)
		return 1;
	if (cloning)
		fd = open_clone(fd);
	if (seconds)
		signal(SIGTERM, SIG_IGN);
	status = serve_many(fd, polled, many);
	sleep((unsigned int)seconds);
	if (umount2(argv[optind], MNT_DETACH) < 0)
		perror("rawfuse: umount");
	return status;
}
