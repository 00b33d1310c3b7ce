/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One line of the comparison of two headers.
 */
#ifndef FUSEWIRE_TESTS_FUSE_ABI_ENTRY_H
#define FUSEWIRE_TESTS_FUSE_ABI_ENTRY_H

#include <stdint.h>

/**
 * struct abi_entry - a fact about the protocol.
 * @what: name; NULL ends the list
 * @value: size, offset or number
 */
struct abi_entry {
	const char *what;
	uint64_t value;
};

/** abi_linux - facts as <linux/fuse.h> has them. */
extern const struct abi_entry abi_linux[];

#endif
