/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-flight area: shared memory that outlives us, in which the rings record what is under way.
 *
 * Source: vhost-user protocol, "Inflight I/O tracking". One area per queue, each aligned to 64 bytes.
 *
 * A front-end may ask for areas as often as it likes, and keep them all; their memory is accounted to us, who write it first. So
 * a connection has at most two that we made: the last one, and the one in use. Another's memory is given back while
 * the front-end holds it; it reads as zeros, which is how an area that was never used begins.
 */
#include "vhost/session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "mem/sigbus.h"

static enum virtq_format session_format(const struct vhost_session *s)
{
	return s->features & bit64(VIRTIO_F_RING_PACKED) ? VIRTQ_PACKED : VIRTQ_SPLIT;
}

static size_t area_stride(enum virtq_format format, uint32_t queue_size)
{
	return round_up_to(virtq_inflight_bytes(format, queue_size), VHOST_INFLIGHT_ALIGN);
}

static int check_counts(struct vhost_session *s, const char *what, const struct vhost_inflight *d)
{
	if (d->nr_queues == 0 || d->nr_queues > s->nr_rings || d->queue_size == 0 ||
	    d->queue_size > device_queue_size_max(s->dev))
		return vhost_refuse(s, -EINVAL, "%s: %u queues of size %u", what, d->nr_queues,
				    d->queue_size);
	return 0;
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* Give back the memory of an area that we made, whoever holds it still. */
static void area_drop(int *fd)
{
	struct stat st;

	if (*fd >= 0 &&
	    (fstat(*fd, &st) < 0 ||
	     fallocate(*fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size) < 0))
		log_debug("vhost-user: an in-flight area keeps its memory: %s", strerror(errno));
	close_fd(fd);
}

/* @fd is the area that we made last. The one before goes, or, while rings record in it, when they do so no more. */
static void area_made(struct vhost_session *s, int fd)
{
	if (s->inflight.map && s->inflight.is_made) {
		close_fd(&s->inflight.replaced_fd);
		s->inflight.replaced_fd = TAKE_FD(s->made_fd);
		s->inflight.is_made = false;
	}
	area_drop(&s->made_fd);
	s->made_fd = fd;
}

int vhost_get_inflight_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const struct vhost_inflight *want = &msg->payload.inflight;
	const enum virtq_format format = session_format(s);
	autoclose int fd = -1, given = -1;
	size_t stride, bytes;
	uint8_t *map;
	int err;

	/* Whatever happens the reply has the size of the request; mmap_size 0 means that there is none. */
	reply->header.size = msg->header.size;
	err = check_counts(s, "GET_INFLIGHT_FD", want);
	if (err < 0)
		return err;
	stride = area_stride(format, want->queue_size);
	bytes = stride * want->nr_queues;
	fd = memfd_new("fusewire-inflight", bytes);
	if (fd < 0)
		return fd;
	given = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (given < 0)
		return -errno;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	for (unsigned int i = 0; i < want->nr_queues; i++)
		virtq_inflight_format(map + i * stride, format, want->queue_size);
	munmap(map, bytes);
	reply->payload.inflight.mmap_size = bytes;
	reply->payload.inflight.mmap_offset = 0;
	reply->payload.inflight.nr_queues = want->nr_queues;
	reply->payload.inflight.queue_size = want->queue_size;
	area_made(s, TAKE_FD(fd));
	reply->fds[0] = TAKE_FD(given);
	reply->nr_fds = 1;
	return 0;
}

static void inflight_unmap(struct vhost_session *s)
{
	if (s->inflight.map) {
		sigbus_guard_remove(s->inflight.map);
		munmap(s->inflight.map, s->inflight.map_bytes);
	}
	area_drop(&s->inflight.replaced_fd);
	s->inflight = (struct vhost_inflight_map){ .replaced_fd = -1 };
}

void vhost_inflight_init(struct vhost_session *s)
{
	s->inflight.replaced_fd = s->made_fd = -1;
}

void vhost_inflight_fini(struct vhost_session *s)
{
	/* What the front-end has now may be of use to it with the next device. */
	close_fd(&s->inflight.replaced_fd);
	close_fd(&s->made_fd);
	inflight_unmap(s);
}

/* Map [@offset, @offset + @bytes) of the front-end's file, whose pages it may take away at any time. */
static int map_area(struct vhost_inflight_map *m, int fd, uint64_t offset, uint64_t bytes)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t skip = offset & (page - 1);
	struct stat st;
	int err;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !range_within(offset, bytes, (uint64_t)st.st_size))
		return -ERANGE;
	/* bytes <= the size of a file, so the sum does not wrap. */
	m->map_bytes = bytes + skip;
	m->map = mmap(NULL, m->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		      (off_t)(offset - skip));
	if (m->map == MAP_FAILED)
		return -errno;
	err = sigbus_guard_add(m->map, m->map_bytes);
	if (err < 0) {
		munmap(m->map, m->map_bytes);
		return err;
	}
	m->area = (uint8_t *)m->map + skip;
	return 0;
}

int vhost_set_inflight_fd(struct vhost_session *s, struct vhost_msg *msg, struct vhost_msg *reply)
{
	const struct vhost_inflight *d = &msg->payload.inflight;
	struct vhost_inflight_map m = { .nr_queues = d->nr_queues, .replaced_fd = -1 };
	int err = check_counts(s, "SET_INFLIGHT_FD", d);

	if (err < 0)
		return err;
	if (vhost_rings_busy(s))
		return vhost_refuse(s, -EBUSY, "SET_INFLIGHT_FD: rings run");
	m.stride = area_stride(session_format(s), d->queue_size);
	if (d->mmap_size < (uint64_t)m.stride * d->nr_queues || d->mmap_offset % 8 ||
	    d->mmap_size > SIZE_MAX / 2)
		return vhost_refuse(s, -EINVAL, "SET_INFLIGHT_FD: %llu bytes at %llu",
				    (unsigned long long)d->mmap_size,
				    (unsigned long long)d->mmap_offset);
	/* Only what the areas take: more would be mapped for nothing. */
	err = map_area(&m, msg->fds[0], d->mmap_offset, (uint64_t)m.stride * d->nr_queues);
	if (err < 0)
		return err;
	vhost_rings_stop(s);
	m.is_made = s->made_fd >= 0 && same_file(s->made_fd, msg->fds[0]);
	if (s->inflight.replaced_fd >= 0 && same_file(s->inflight.replaced_fd, msg->fds[0]))
		m.replaced_fd = TAKE_FD(s->inflight.replaced_fd);
	inflight_unmap(s);
	s->inflight = m;
	return 0;
}

int vhost_inflight_area(struct vhost_session *s, unsigned int index, enum virtq_format format,
			void **ret_area)
{
	const struct vhost_inflight_map *m = &s->inflight;
	uint8_t *area = NULL;

	if (m->map && index < m->nr_queues) {
		/* The ring may be larger, or of another format, than what SET_INFLIGHT_FD spoke of. */
		if (virtq_inflight_bytes(format, s->rings[index].num) > m->stride)
			return vhost_refuse(s, -EINVAL, "queue %u: in-flight area too small",
					    index);
		area = m->area + index * m->stride;
	}
	*ret_area = area;
	return 0;
}
