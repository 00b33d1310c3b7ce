/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The null service: a directory with one file, "data", in memory; answers at once, for measuring.
 */
#ifndef FUSEWIRE_SERVICE_NULL_NULL_H
#define FUSEWIRE_SERVICE_NULL_NULL_H

#include "device/service.h"

/** NULL_SIZE_MAX - largest file, bytes. */
#define NULL_SIZE_MAX (UINT64_C(1) << 44)

/**
 * null_service_new() - a service with a file of @size bytes of zeros; memory is used as it is written.
 *
 * Every request is answered inside ->submit(). Return: 0, or -ENOMEM; release with ->ops->free().
 */
int must_check null_service_new(struct service **ret_svc, uint64_t size);

#endif
