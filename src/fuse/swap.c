/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte order of structures, driven by the layouts of the opcode table.
 */
#include "fuse/swap.h"

static void reverse(unsigned char *p, size_t width)
{
	for (size_t i = 0; i < width / 2; i++) {
		unsigned char t = p[i];

		p[i] = p[width - 1 - i];
		p[width - 1 - i] = t;
	}
}

void fuse_swap_fields(void *data, size_t len, const char *layout)
{
	unsigned char *p = data;

	for (; *layout; layout++) {
		size_t width = (size_t)(*layout - '0');

		if (width > len)
			return;
		reverse(p, width);
		p += width;
		len -= width;
	}
}
