/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service of a device whose daemon has died: every request gets EIO, and so does a driver that wants to mount.
 */
#include "service/gone/gone.h"

#include <errno.h>

static void gone_submit(struct service *svc, struct request *req)
{
	request_reply(req, -EIO, NULL, 0);
}

static void gone_free(struct service *svc)
{
}

static const struct service_ops gone_ops = {
	.name = "gone",
	.submit = gone_submit,
	.free = gone_free,
};

struct service *gone_service(void)
{
	static struct service gone = { .ops = &gone_ops, .unavailable = true, .checks_ids = true };

	return &gone;
}
