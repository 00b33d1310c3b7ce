/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the system's own header says about the protocol.
 */
#include <stddef.h>
#include <stdint.h>

#include <linux/fuse.h>

#include "abi_entry.h"

#ifndef FUSE_NAME_OFFSET_DIRENTPLUS
#define FUSE_NAME_OFFSET_DIRENTPLUS offsetof(struct fuse_direntplus, dirent.name)
#endif

#define ENTRY(text, value)  \
	{                   \
		text, value \
	}
const struct abi_entry abi_linux[] = {
#include "abi_list.h"
	{ NULL, FUSE_KERNEL_MINOR_VERSION },
};
