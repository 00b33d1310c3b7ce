/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes an example that mounts itself one that attaches itself: linked in place of fuse_session_mount() and
 * fuse_session_unmount(). FUSEWIRE_SOCKET and FUSEWIRE_TAG say where; the mount point is not used.
 */
#include <fusewire.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of ld's --wrap. */
int __wrap_fuse_session_mount(struct fuse_session *se, const char *mountpoint);
void __wrap_fuse_session_unmount(struct fuse_session *se);

int __wrap_fuse_session_mount(struct fuse_session *se, const char *mountpoint)
{
	struct fusewire_options options = { .size = sizeof(options),
					    .socket_path = getenv("FUSEWIRE_SOCKET"),
					    .tag = getenv("FUSEWIRE_TAG") };
	int err = fusewire_attach(se, &options);

	if (err)
		fprintf(stderr, "%s: %s\n", options.socket_path, strerror(-err));
	return err ? -1 : 0;
}

void __wrap_fuse_session_unmount(struct fuse_session *se)
{
	fusewire_detach(se);
}
