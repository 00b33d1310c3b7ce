/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What cmocka.h wants to be included before it.
 */
#ifndef FUSEWIRE_TESTS_BASE_CM_H
#define FUSEWIRE_TESTS_BASE_CM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
