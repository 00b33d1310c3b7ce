/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Serve a file system that you write with libfuse 3 to virtual machines, as a virtio-fs device, from your own process and
 * threads: no mount, no /dev/fuse, no FUSE in the kernel.
 *
 *	struct fuse_session *se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
 *	struct fusewire_options options = { .size = sizeof(options), .socket_path = "/run/x.sock", .tag = "x" };
 *	int err = fusewire_attach(se, &options);	// where fuse_session_mount() would be
 *
 *	if (!err) {
 *		fuse_session_loop_mt(se, config);	// or fuse_session_loop()
 *		fusewire_detach(se);			// where fuse_session_unmount() would be
 *	}
 *	fuse_session_destroy(se);
 *
 * Link with -lfusewire (pkg-config fusewire). Needs libfuse 3.14 or later.
 */
#ifndef FUSEWIRE_H
#define FUSEWIRE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fuse_session;

/**
 * struct fusewire_options - how to serve; what is 0 or NULL has its default.
 * @size: sizeof(struct fusewire_options), for later versions
 * @socket_path: where front-ends (QEMU, cloud-hypervisor, ...) connect by vhost-user; made here, removed by fusewire_detach()
 * @listen_fd: without @socket_path: a listening AF_UNIX stream socket, which stays the caller's
 * @tag: name that the guest mounts, 1 to 36 bytes; needed
 * @queues: request queues offered (64), at most 256, of which vhost-user can name 255 (254 with notifications)
 * @queue_size: largest ring accepted (1024)
 * @poll_us: how long a thread looks for more requests before it sleeps, in microseconds (300)
 * @no_poll: sleep at once, whatever @poll_us says
 * @arch: architecture of the guest where it is another than this machine's: "x86", "arm64", ...
 * @page_size: bytes of the guest's memory pages (by @arch, or this machine's)
 * @verbosity: what goes to stderr: 0 warnings (default), 1 comings and goings, 2 every message, -1 errors, -2 nothing
 */
struct fusewire_options {
	size_t size;
	const char *socket_path;
	int listen_fd;
	const char *tag;
	unsigned int queues;
	unsigned int queue_size;
	unsigned int poll_us;
	int no_poll;
	const char *arch;
	int verbosity;
	unsigned int page_size;
};

/**
 * fusewire_attach() - let @se be served to virtual machines instead of being mounted.
 * @se: new; neither mounted nor given to fuse_session_custom_io()
 * @options: copied
 *
 * The socket listens when this returns; front-ends are served once the session's loop has answered FUSE_INIT. Any number may
 * come and go after each other.
 *
 * Return: 0, or a negative errno: -EINVAL for options that cannot be, -EADDRINUSE where somebody serves @socket_path,
 * -ENOTSUP where libfuse was built without custom I/O (3.18 is, unless told otherwise), others as from socket(2) and bind(2).
 */
int fusewire_attach(struct fuse_session *se, const struct fusewire_options *options);

/**
 * fusewire_detach() - stop serving @se, and remove the socket.
 *
 * Call it when the session's loop has returned. Guests get errors from then on.
 */
void fusewire_detach(struct fuse_session *se);

#ifdef __cplusplus
}
#endif

#endif
