/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lib/attach.c needs of a worker.
 */
#include "serving.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "vhost/listen.h"
#include "virtio/virtq.h"
#include "worker/gate.h"

#define DEFAULT_QUEUES	   64u
#define DEFAULT_QUEUE_SIZE 1024u
#define DEFAULT_POLL_US	   300u
#define DRAIN_NS	   (5 * NSEC_PER_SEC)

struct serving {
	struct gate *gate;
	struct vhost_listener listener;
	char tag[DEVICE_TAG_BYTES + 1];
};

static int fill_config(const struct fusewire_options *o, struct worker_config *c)
{
	*c = (struct worker_config){
		.device = {
			.tag = o->tag,
			.nr_request_queues = o->queues ? o->queues : DEFAULT_QUEUES,
			.queue_size_max = o->queue_size ? o->queue_size : DEFAULT_QUEUE_SIZE,
			.poll_ns = (o->poll_us ? o->poll_us : DEFAULT_POLL_US) * NSEC_PER_USEC,
			.drain_ns = DRAIN_NS,
			.arch = FUSE_ARCH_NATIVE,
		},
		.sock = -1,
		.listen_fd = o->listen_fd,
	};
	if (o->no_poll)
		c->device.poll_ns = 0;
	if (!o->tag || !*o->tag || strlen(o->tag) > DEVICE_TAG_BYTES ||
	    c->device.nr_request_queues > DEVICE_REQUEST_QUEUES_MAX ||
	    c->device.queue_size_max > VIRTQ_SIZE_MAX)
		return -EINVAL;
	c->device.page_bytes = o->page_size ? o->page_size : fuse_arch_page_bytes(o->arch);
	if (!fuse_arch_page_valid(c->device.page_bytes))
		return -EINVAL;
	return o->arch ? fuse_arch_parse(o->arch, &c->device.arch) : 0;
}

static int serving_listen(struct serving *s, const struct fusewire_options *o,
			  struct worker_config *config)
{
	char text[VHOST_LISTEN_TEXT];
	int err;

	if (!o->socket_path)
		return o->listen_fd > 2 ? 0 : -EINVAL;
	err = vhost_listen_open(&s->listener, o->socket_path, VHOST_LISTEN_NO_GROUP, text);
	if (err < 0)
		log_error("%s", text);
	else
		config->listen_fd = s->listener.fd;
	return err;
}

int serving_new(struct serving **ret_serving, const struct fusewire_options *options)
{
	struct worker_config config;
	struct serving *s;
	int err;

	if (options->verbosity < -2 || options->verbosity > 2)
		return -EINVAL;
	err = fill_config(options, &config);
	if (err < 0)
		return err;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	log_init((enum log_level)((int)LOG_LEVEL_WARN + options->verbosity), "fusewire");
	/* The device is made later, when the caller's is gone. */
	strcpy(s->tag, options->tag);
	config.device.tag = s->tag;
	s->listener.fd = -1;
	err = serving_listen(s, options, &config);
	if (err == 0)
		err = gate_new(&s->gate, &config);
	if (err < 0) {
		serving_free(s);
		return err;
	}
	*ret_serving = s;
	return 0;
}

void serving_free(struct serving *s)
{
	if (!s)
		return;
	gate_free(s->gate);
	vhost_listen_close(&s->listener);
	free(s);
}

ssize_t serving_read(struct serving *s, void *buf, size_t len)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len };

	return gate_read(s->gate, &iov, 1, false);
}

ssize_t serving_write(struct serving *s, const struct iovec *iov, unsigned int nr)
{
	return gate_write(s->gate, iov, nr);
}

ssize_t serving_write_pipe(struct serving *s, int pipe_fd, size_t len)
{
	return gate_write_pipe(s->gate, pipe_fd, len);
}
