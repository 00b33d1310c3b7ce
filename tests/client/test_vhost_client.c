/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The front-end side of vhost-user against a device in a process of its own, which is killed and comes back.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../base/cm.h"
#include "base/clock.h"
#include "base/fd.h"
#include "device/device.h"
#include "vhost/client.h"
#include "vhost/listen.h"
#include "vhost/server.h"

#define QUEUE	   1
#define RING_SIZE  64
#define NR_CALLS   16
#define NR_SLOTS   (2 * NR_CALLS)
#define WAIT_MS	   5000
#define FEATURE(f) (1ull << VHOST_USER_PROTOCOL_F_##f)

struct call {
	struct fuse_in_header in;
	uint8_t args[64];
	struct fuse_out_header out;
	uint8_t reply[128];
};

struct world {
	char dir[64];
	char path[96];
	pid_t pid;
	struct vhost_client *client;
	struct call *calls;
	uint64_t unique;
	unsigned int nr_back[NR_SLOTS];
};

/* A service that answers every third GETATTR while it holds the others. */
struct holder {
	struct service svc;
	bool holds;
	unsigned int nr;
};

static void holder_submit(struct service *svc, struct request *req)
{
	struct holder *h = (struct holder *)(void *)svc;
	const struct fuse_in_header *hdr = request_header(req);
	struct fuse_attr_out out = { .attr = { .mode = 0040755 } };
	struct iovec iov = { &out, sizeof(out) };

	if (hdr->opcode == FUSE_FORGET)
		request_reply_none(req);
	else if (hdr->opcode != FUSE_GETATTR)
		request_reply(req, -ENOSYS, NULL, 0);
	else if (!h->holds || h->nr++ % 3 == 1)
		request_reply(req, 0, &iov, 1);
}

static void holder_free(struct service *svc)
{
}

static const struct service_ops holder_ops = { .name = "holder",
					       .submit = holder_submit,
					       .free = holder_free };

/* In the child. Ends by a signal. */
static void serve(const char *path, bool holds, int ready_fd)
{
	struct holder h = { .svc = { .ops = &holder_ops,
				     .checks_ids = true,
				     .init_out = { .major = 7, .minor = 38, .max_write = 65536 } },
			    .holds = holds };
	const struct device_config config = {
		.tag = "held", .nr_request_queues = 2, .queue_size_max = 256, .drain_ns = 1000000000
	};
	char text[VHOST_LISTEN_TEXT];
	struct vhost_listener listener;
	struct vhost_server_config server = {};
	struct vhost_server *s;

	/* Nothing is left behind when a test fails. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (loop_new(&server.loop) < 0 || device_new(&server.dev, &config, &h.svc) < 0 ||
	    vhost_listen_open(&listener, path, VHOST_LISTEN_NO_GROUP, text) < 0)
		_exit(1);
	server.listen_fd = listener.fd;
	if (vhost_server_new(&s, &server) < 0 || write(ready_fd, "r", 1) != 1)
		_exit(1);
	(void)!loop_run(server.loop);
	_exit(0);
}

static void start(struct world *w, bool holds)
{
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	w->pid = fork();
	if (w->pid == 0)
		serve(w->path, holds, ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
}

static void end(struct world *w)
{
	int status;

	if (!w->pid)
		return;
	assert_int_equal(kill(w->pid, SIGKILL), 0);
	assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	w->pid = 0;
}

static void world_init(struct world *w)
{
	*w = (struct world){ .dir = "/tmp/vhost-client-XXXXXX", .unique = 2 };
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/socket", w->dir);
}

static void world_fini(struct world *w)
{
	vhost_client_free(w->client);
	end(w);
	unlink(w->path);
	assert_int_equal(rmdir(w->dir), 0);
}

static struct vhost_client_config config_of(const struct world *w, enum virtq_format format)
{
	return (struct vhost_client_config){ .path = w->path,
					     .nr_queues = 2,
					     .queue_size = RING_SIZE,
					     .format = format,
					     .event_idx = true,
					     .arena_bytes = sizeof(struct call) * NR_SLOTS };
}

static void join(struct world *w, const struct vhost_client_config *config)
{
	const char *why = "";

	assert_int_equal(vhost_client_new(&w->client, config, &why), 0);
	w->calls = vhost_client_arena(w->client);
}

static struct virtq_driver *driver(const struct world *w)
{
	return vhost_client_ring(w->client, QUEUE)->drv;
}

static void submit(struct world *w, unsigned int slot, uint32_t opcode, uint32_t arg_bytes,
		   uint32_t reply_bytes)
{
	struct call *call = &w->calls[slot];
	struct iovec iov[4] = { { &call->in, sizeof(call->in) },
				{ call->args, arg_bytes },
				{ &call->out, sizeof(call->out) },
				{ call->reply, reply_bytes } };

	call->in = (struct fuse_in_header){ .len = (uint32_t)sizeof(call->in) + arg_bytes,
					    .opcode = opcode,
					    .unique = w->unique,
					    .nodeid = FUSE_ROOT_ID };
	w->unique += 2;
	assert_int_equal(virtq_driver_add(driver(w), iov, 2, 2, call), 0);
}

static void submit_getattr(struct world *w, unsigned int slot)
{
	memset(w->calls[slot].args, 0, sizeof(w->calls[slot].args));
	submit(w, slot, FUSE_GETATTR, sizeof(struct fuse_getattr_in), sizeof(struct fuse_attr_out));
}

static void publish(struct world *w)
{
	if (virtq_driver_publish(driver(w)))
		fd_signal(vhost_client_ring(w->client, QUEUE)->kick_fd);
}

/* Take what comes back, until @nr are there or, when @nr is 0, nothing comes for a while. */
static unsigned int collect(struct world *w, unsigned int nr)
{
	uint64_t wait_ms = nr ? WAIT_MS : 100, end_ns = clock_now_ns() + wait_ms * NSEC_PER_MSEC;
	unsigned int got = 0;

	while ((!nr || got < nr) && clock_now_ns() < end_ns) {
		uint32_t written;
		void *cookie;
		int n = virtq_driver_get(driver(w), &cookie, &written);

		assert_true(n >= 0);
		if (!n) {
			poll(NULL, 0, 1);
			continue;
		}
		w->nr_back[(struct call *)cookie - w->calls]++;
		got++;
	}
	return got;
}

static void begin_session(struct world *w)
{
	struct call *call = &w->calls[0];

	*(struct fuse_init_in *)(void *)call->args =
		(struct fuse_init_in){ .major = 7, .minor = 38 };
	submit(w, 0, FUSE_INIT, sizeof(struct fuse_init_in), sizeof(struct fuse_init_out));
	publish(w);
	assert_int_equal(collect(w, 1), 1);
	assert_int_equal(call->out.error, 0);
	w->nr_back[0] = 0;
}

static void assert_works(struct world *w)
{
	submit_getattr(w, 0);
	publish(w);
	assert_int_equal(collect(w, 1), 1);
	assert_int_equal(w->calls[0].out.error, 0);
	w->nr_back[0] = 0;
}

static void test_memory_and_features(void **state)
{
	for (unsigned int i = 0; i < 16; i++) {
		struct world w;
		struct vhost_client_config config;
		char tag[36];

		world_init(&w);
		start(&w, false);
		config = config_of(&w, i & 1 ? VIRTQ_PACKED : VIRTQ_SPLIT);
		config.mem_slots = i & 2;
		config.indirect_max = i & 4 ? 8 : 0;
		config.no_protocol = i & 8 && !config.mem_slots;
		/* A split ring may begin anywhere. */
		config.base = i & 1 ? 0 : 0xfffe;
		join(&w, &config);
		assert_int_equal(!!(vhost_client_protocol_features(w.client) &
				    FEATURE(CONFIGURE_MEM_SLOTS)),
				 !!(i & 2));
		begin_session(&w);
		for (unsigned int k = 0; k < RING_SIZE; k++)
			assert_works(&w);
		if (!config.no_protocol) {
			assert_int_equal(vhost_client_read_config(w.client, 0, tag, 36), 0);
			assert_string_equal(tag, "held");
		} else {
			assert_int_equal(vhost_client_read_config(w.client, 0, tag, 36),
					 -EOPNOTSUPP);
		}
		world_fini(&w);
	}
}

/* What is refused, and why: nothing is left of the client. */
static void test_refusals(void **state)
{
	struct vhost_client_config config;
	struct vhost_client *client;
	const char *why = "";
	struct world w;

	world_init(&w);
	config = config_of(&w, VIRTQ_SPLIT);
	assert_int_equal(vhost_client_new(&client, &config, &why), -ENOENT);
	assert_string_equal(why, "cannot connect");
	start(&w, false);
	config.nr_queues = 4;
	assert_int_equal(vhost_client_new(&client, &config, &why), -ERANGE);
	config.nr_queues_min = 4;
	assert_int_equal(vhost_client_new(&client, &config, &why), -ERANGE);
	config.nr_queues_min = 0;
	config.nr_queues = 2;
	config.mem_slots = config.no_protocol = true;
	assert_int_equal(vhost_client_new(&client, &config, &why), -EOPNOTSUPP);
	config.mem_slots = config.no_protocol = false;
	config.queue_size = 512;
	assert_int_equal(vhost_client_new(&client, &config, &why), -EREMOTEIO);
	assert_string_equal(why, "it refuses rings of so many entries; smaller ones may do");
	world_fini(&w);
}

static void test_fewer_queues(void **state)
{
	for (unsigned int min = 2; min <= 3; min++) {
		struct vhost_client_config config;
		struct world w;

		world_init(&w);
		start(&w, false);
		config = config_of(&w, VIRTQ_SPLIT);
		config.nr_queues = 10;
		config.nr_queues_min = min;
		join(&w, &config);
		assert_int_equal(vhost_client_nr_queues(w.client), 3);
		begin_session(&w);
		world_fini(&w);
	}
}

static void test_reset(void **state)
{
	for (unsigned int i = 0; i < 8; i++) {
		struct world w;
		struct vhost_client_config config;
		unsigned int nr = 0;

		world_init(&w);
		start(&w, false);
		config = config_of(&w, i & 1 ? VIRTQ_PACKED : VIRTQ_SPLIT);
		config.without_protocol = i & 2 ? FEATURE(RESET_DEVICE) : 0;
		config.inflight = i & 4;
		join(&w, &config);
		for (unsigned int round = 0; round < 3; round++) {
			begin_session(&w);
			assert_works(&w);
			/* Not shown to the device: lost with the ring. */
			submit_getattr(&w, 1);
			assert_ptr_equal(virtq_driver_detach(driver(&w)), &w.calls[1]);
			assert_int_equal(vhost_client_reset(w.client), 0);
			nr += w.nr_back[1];
		}
		begin_session(&w);
		assert_works(&w);
		assert_int_equal(nr, 0);
		world_fini(&w);
	}
}

static void test_no_reset(void **state)
{
	struct vhost_client_config config;
	struct world w;

	world_init(&w);
	start(&w, false);
	config = config_of(&w, VIRTQ_SPLIT);
	config.without_protocol = FEATURE(RESET_DEVICE) | FEATURE(STATUS);
	join(&w, &config);
	assert_int_equal(vhost_client_reset(w.client), -EOPNOTSUPP);
	world_fini(&w);
}

/* Some calls answered, some held, some offered behind the kill: all come back, once each. */
static void reconnect_with_record(enum virtq_format format, bool indirect)
{
	struct vhost_client_config config;
	const char *why = "";
	struct world w;

	world_init(&w);
	start(&w, true);
	config = config_of(&w, format);
	config.inflight = true;
	config.indirect_max = indirect ? 8 : 0;
	join(&w, &config);
	begin_session(&w);
	for (unsigned int i = 0; i < NR_CALLS - 2; i++)
		submit_getattr(&w, i);
	publish(&w);
	/* Of what was answered some is taken before the end, and some is found in the ring behind it. */
	assert_int_equal(collect(&w, 2), 2);
	poll(NULL, 0, 50);
	end(&w);
	submit_getattr(&w, NR_CALLS - 2);
	submit_getattr(&w, NR_CALLS - 1);
	publish(&w);
	assert_true(vhost_client_reconnect(w.client, &why) < 0);
	assert_string_equal(why, "cannot connect");
	start(&w, false);
	assert_int_equal(vhost_client_reconnect(w.client, &why), 1);
	assert_int_equal(collect(&w, NR_CALLS - 2), NR_CALLS - 2);
	assert_int_equal(collect(&w, 0), 0);
	for (unsigned int i = 0; i < NR_CALLS; i++) {
		assert_int_equal(w.nr_back[i], 1);
		w.nr_back[i] = 0;
	}
	assert_int_equal(virtq_driver_nr_out(driver(&w)), 0);
	begin_session(&w);
	for (unsigned int i = 0; i < 2 * RING_SIZE; i++)
		assert_works(&w);
	world_fini(&w);
}

static void test_reconnect_goes_on(void **state)
{
	reconnect_with_record(VIRTQ_SPLIT, false);
	reconnect_with_record(VIRTQ_SPLIT, true);
	reconnect_with_record(VIRTQ_PACKED, false);
	reconnect_with_record(VIRTQ_PACKED, true);
}

/* Several lives, each of which leaves calls behind. */
static void test_reconnect_again_and_again(void **state)
{
	for (unsigned int format = 0; format < 2; format++) {
		struct vhost_client_config config;
		const char *why = "";
		struct world w;

		world_init(&w);
		start(&w, true);
		config = config_of(&w, format ? VIRTQ_PACKED : VIRTQ_SPLIT);
		config.inflight = config.mem_slots = true;
		join(&w, &config);
		for (unsigned int life = 0; life < 4; life++) {
			begin_session(&w);
			for (unsigned int i = 1; i < NR_CALLS; i++)
				submit_getattr(&w, i);
			publish(&w);
			assert_int_equal(collect(&w, 5), 5);
			end(&w);
			start(&w, true);
			assert_int_equal(vhost_client_reconnect(w.client, &why), 1);
			/* The new one has no session: it holds nothing, and refuses all. */
			assert_int_equal(collect(&w, NR_CALLS - 6), NR_CALLS - 6);
			for (unsigned int i = 1; i < NR_CALLS; i++)
				assert_int_equal(w.nr_back[i], life + 1);
		}
		world_fini(&w);
	}
}

static void test_reconnect_without_record(void **state)
{
	for (unsigned int format = 0; format < 2; format++) {
		struct vhost_client_config config;
		unsigned int nr_lost = 0;
		const char *why = "";
		struct world w;

		world_init(&w);
		start(&w, true);
		config = config_of(&w, format ? VIRTQ_PACKED : VIRTQ_SPLIT);
		join(&w, &config);
		begin_session(&w);
		for (unsigned int i = 0; i < NR_CALLS; i++)
			submit_getattr(&w, i);
		publish(&w);
		assert_int_equal(collect(&w, 5), 5);
		end(&w);
		while (virtq_driver_detach(driver(&w)))
			nr_lost++;
		assert_int_equal(nr_lost, NR_CALLS - 5);
		start(&w, false);
		assert_int_equal(vhost_client_reconnect(w.client, &why), 0);
		memset(w.nr_back, 0, sizeof(w.nr_back));
		begin_session(&w);
		for (unsigned int i = 0; i < 2 * RING_SIZE; i++)
			assert_works(&w);
		world_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_and_features),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_fewer_queues),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_no_reset),
		cmocka_unit_test(test_reconnect_goes_on),
		cmocka_unit_test(test_reconnect_again_and_again),
		cmocka_unit_test(test_reconnect_without_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
