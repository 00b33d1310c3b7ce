/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service of a device whose daemon has died: every request gets EIO, and so does a driver that wants to mount.
 */
#ifndef FUSEWIRE_SERVICE_GONE_GONE_H
#define FUSEWIRE_SERVICE_GONE_GONE_H

#include "device/service.h"

/** gone_service() - the one and only; it has no state, is not freed, and any number of devices may have it. */
struct service *gone_service(void);

#endif
