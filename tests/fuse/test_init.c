/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INIT on both sides, and the bridge between protocol minors.
 */
#include "requests.h"

#include "fuse/session_priv.h"

/* Bits of which facts say that they cannot work over virtio. */
#define STRIPPED                                                                          \
	(FUSE_PASSTHROUGH | FUSE_OVER_IO_URING | FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE |   \
	 FUSE_SPLICE_READ | FUSE_REQUEST_TIMEOUT | FUSE_HAS_RESEND | FUSE_MAP_ALIGNMENT | \
	 FUSE_HAS_INODE_DAX)

static void test_build(void **state)
{
	unsigned char msg[200];
	struct fuse_in_header hdr;
	struct fuse_init_in in;
	uint64_t flags;

	(void)state;
	memset(msg, 0xa5, sizeof(msg));
	assert_int_equal(fuse_init_build(msg, 42), 104);
	memcpy(&hdr, msg, 40);
	memcpy(&in, msg + 40, 64);
	assert_int_equal(msg[104], 0xa5);
	assert_int_equal(hdr.len, 104);
	assert_int_equal(hdr.opcode, FUSE_INIT);
	assert_int_equal(hdr.unique, 42);
	assert_int_equal(hdr.nodeid, 0);
	assert_int_equal(in.major, 7);
	assert_int_equal(in.minor, 45);
	flags = in.flags | (uint64_t)in.flags2 << 32;
	assert_true((flags & STRIPPED) == 0);
	assert_true(flags & FUSE_INIT_EXT);
	assert_true(flags & FUSE_MAX_PAGES);
	for (unsigned int i = 0; i < 11; i++)
		assert_int_equal(in.unused[i], 0);
}

static int accept_reply(struct fuse_init_out out, size_t body, int32_t error,
			struct fuse_init_out *ret_out)
{
	unsigned char msg[128] = { 0 };
	struct fuse_out_header hdr = { .len = (uint32_t)(16 + body), .error = error, .unique = 5 };
	unsigned char *exact = malloc(16 + body);
	const char *why = NULL;
	int err;

	memcpy(msg, &hdr, 16);
	memcpy(msg + 16, &out, sizeof(out));
	memcpy(exact, msg, 16 + body);
	err = fuse_init_accept(exact, 16 + body, 5, ret_out, &why);
	free(exact);
	assert_true(err == 0 || why);
	return err;
}

static void test_accept_bad(void **state)
{
	struct fuse_init_out good = { .major = 7, .minor = 45, .max_write = 65536 },
			     out = { .major = 99 };
	struct fuse_out_header hdr = { .len = 80, .unique = 5 };
	unsigned char msg[80];
	const char *why;

	(void)state;
	assert_int_equal(accept_reply(good, 64, 0, &out), 0);
	out.major = 99;
	assert_int_equal(accept_reply(good, 65, 0, &out), -EPROTO);
	assert_int_equal(accept_reply(good, 23, 0, &out), -EPROTO);
	assert_int_equal(accept_reply(good, 24, 0, &out), 0);
	out.major = 99;
	assert_int_equal(accept_reply(good, 0, 0, &out), -EPROTO);
	assert_int_equal(accept_reply(good, 0, -EACCES, &out), -EACCES);
	assert_int_equal(accept_reply(good, 0, 5, &out), -EPROTO);
	assert_int_equal(accept_reply(good, 0, -512, &out), -EPROTO);
	good.major = 6;
	assert_int_equal(accept_reply(good, 64, 0, &out), -EPROTO);
	good.major = 8;
	assert_int_equal(accept_reply(good, 64, 0, &out), -EPROTO);
	good.major = 7;
	good.minor = 11;
	assert_int_equal(accept_reply(good, 64, 0, &out), -EPROTO);
	assert_int_equal(out.major, 99);
	good.minor = 12;
	assert_int_equal(accept_reply(good, 24, 0, &out), 0);
	/* Wrong unique, wrong length, no header. */
	memcpy(msg, &hdr, 16);
	memcpy(msg + 16, &good, 64);
	assert_int_equal(fuse_init_accept(msg, 80, 6, &out, &why), -EPROTO);
	assert_int_equal(fuse_init_accept(msg, 79, 5, &out, &why), -EPROTO);
	assert_int_equal(fuse_init_accept(msg, 15, 5, &out, &why), -EPROTO);
	assert_int_equal(fuse_init_accept(msg, 0, 5, &out, &why), -EPROTO);
}

static void test_accept_limits(void **state)
{
	struct fuse_init_out in = { .major = 7,
				    .minor = 99,
				    .flags = UINT32_MAX,
				    .flags2 = UINT32_MAX,
				    .max_write = UINT32_MAX,
				    .max_pages = UINT16_MAX,
				    .time_gran = 2000000000,
				    .map_alignment = 12,
				    .request_timeout = 3,
				    .max_stack_depth = 1 };
	struct fuse_init_out out;

	(void)state;
	assert_int_equal(accept_reply(in, 64, 0, &out), 0);
	assert_int_equal(out.minor, 45);
	assert_true(((out.flags | (uint64_t)out.flags2 << 32) & STRIPPED) == 0);
	assert_int_equal(out.max_write, 1u << 20);
	assert_int_equal(out.max_pages, 256);
	assert_int_equal(out.time_gran, 1);
	assert_int_equal(out.map_alignment, 0);
	assert_int_equal(out.request_timeout, 0);
	assert_int_equal(out.max_stack_depth, 0);
	assert_true(out.max_background > 0);
	assert_true(out.congestion_threshold > 0);
	assert_true(out.congestion_threshold <= out.max_background);
	in.flags &= ~(uint32_t)FUSE_INIT_EXT;
	in.max_write = 0;
	in.max_pages = 0;
	assert_int_equal(accept_reply(in, 64, 0, &out), 0);
	assert_int_equal(out.flags2, 0);
	assert_int_equal(out.max_write, 4096);
	assert_int_equal(out.max_pages, 1);
	in.flags &= ~(uint32_t)FUSE_MAX_PAGES;
	in.max_pages = 200;
	assert_int_equal(accept_reply(in, 64, 0, &out), 0);
	assert_int_equal(out.max_pages, 32);
	/* What came with 7.23 is garbage in an older reply. */
	in.minor = 22;
	in.time_gran = 100;
	assert_int_equal(accept_reply(in, 64, 0, &out), 0);
	assert_int_equal(out.time_gran, 1);
	assert_int_equal(out.flags2, 0);
}

/* Daemon and driver of all ages. */
static void test_minors(void **state)
{
	static const uint32_t minors[] = { 12, 16, 19, 22, 23, 31, 35, 36, 40, 45 };

	(void)state;
	for (size_t i = 0; i < array_size(minors) * array_size(minors) * 2; i++) {
		const uint32_t daemon = minors[i / 2 / array_size(minors)];
		const uint32_t driver = minors[i / 2 % array_size(minors)];
		const bool swapped = i & 1;
		struct peer *p = peer_new((struct peer_setup){
			.daemon_minor = daemon, .driver_minor = driver, .swapped = swapped });
		struct fuse_init_out out = p->reply;
		uint64_t flags, offered = p->flags;

		if (swapped)
			fuse_swap_fields(&out, sizeof(out),
					 fuse_opcode_find(FUSE_INIT)->reply_layout);
		assert_int_equal(p->reply_len, driver < 23 ? 24 : 64);
		assert_int_equal(out.major, 7);
		assert_int_equal(out.minor, min_of(daemon, driver));
		flags = out.flags | (uint64_t)out.flags2 << 32;
		assert_true((flags & ~offered) == 0);
		assert_true((flags & STRIPPED) == 0);
		if (!(flags & FUSE_INIT_EXT))
			assert_int_equal(out.flags2, 0);
		assert_true(out.max_write >= 4096 && out.max_write <= 1u << 20);
		assert_int_equal(out.max_readahead, 131072);
		peer_free(p);
	}
}

static int driver_init(struct peer *p, uint32_t major, uint32_t minor, size_t bytes)
{
	struct fuse_init_in in = { .major = major,
				   .minor = minor,
				   .flags = (uint32_t)PEER_FLAGS,
				   .flags2 = (uint32_t)(PEER_FLAGS >> 32) };
	unsigned char tail[256] = { 0 };
	int err = peer_send(p, FUSE_INIT, 0, &in, min_of(bytes, (size_t)64), tail,
			    bytes > 64 ? bytes - 64 : 0);

	if (err < 0)
		return err;
	return fuse_session_init(p->session, &p->req, p->buf, &p->daemon, &p->reply, &p->reply_len);
}

static void test_driver_versions(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });
	unsigned char buf[FUSE_ARGS_INLINE];
	struct fuse_request req;

	(void)state;
	assert_int_equal(driver_init(p, 7, 12, 16), 0);
	assert_int_equal(p->reply_len, 24);
	assert_int_equal(driver_init(p, 7, 11, 16), -EPROTO);
	assert_int_equal(driver_init(p, 6, 45, 64), -EPROTO);
	assert_int_equal(driver_init(p, 7, 99, 64), 0);
	assert_int_equal(p->reply.minor, 45);
	assert_int_equal(driver_init(p, 7, 45, 15), -EINVAL);
	assert_int_equal(driver_init(p, 7, 45, 16), 0);
	/* A later kernel's INIT may be longer. */
	assert_int_equal(driver_init(p, 7, 50, 128), 0);
	assert_int_equal(fuse_session_end_next(p->session, 2, buf, &req), 0);
	assert_false(fuse_session_active(p->session));
	/* A later major: says 7, and waits for another INIT. */
	assert_int_equal(driver_init(p, 8, 0, 64), 0);
	assert_int_equal(p->reply.major, 7);
	assert_false(fuse_session_active(p->session));
	p->writable = 16 + 63;
	assert_int_equal(driver_init(p, 7, 45, 64), -EINVAL);
	p->writable = 16 + 64;
	assert_int_equal(driver_init(p, 7, 45, 64), 0);
	p->writable = 16 + 23;
	assert_int_equal(driver_init(p, 7, 22, 16), -EINVAL);
	peer_free(p);
}

/* Byte order is the driver's choice, anew with each INIT. */
static void test_order_changes(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ .swapped = true });

	(void)state;
	assert_int_equal(peer_send(p, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
	p->swapped = false;
	assert_int_equal(peer_send(p, FUSE_STATFS, 1, NULL, 0, NULL, 0), -EINVAL);
	assert_int_equal(peer_init(p), 0);
	assert_int_equal(peer_send(p, FUSE_STATFS, 1, NULL, 0, NULL, 0), 0);
	assert_int_equal(peer_reply(p, -EIO, NULL, 0), -EIO);
	peer_free(p);
}

static void test_max_pages(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ 0 });

	(void)state;
	assert_int_equal(p->reply.max_pages, 256);
	peer_free(p);
	p = peer_new((struct peer_setup){ .driver_without = FUSE_MAX_PAGES });
	assert_int_equal(p->reply.max_pages, 0);
	assert_int_equal(p->session->read_max, 32 * 65536);
	peer_free(p);
	p = peer_new((struct peer_setup){ .daemon_without = FUSE_MAX_PAGES });
	assert_int_equal(p->reply.max_pages, 0);
	assert_int_equal(p->reply.flags & FUSE_MAX_PAGES, 0);
	peer_free(p);
}

/* The daemon's pages are this machine's, the driver's are its own. */
static void test_page_bytes(void **state)
{
	struct peer *p = peer_new((struct peer_setup){ .page_bytes = 65536 });

	(void)state;
	assert_int_equal(p->reply.max_pages, 16);
	assert_int_equal(p->session->read_max, 1u << 20);
	peer_free(p);
	p = peer_new((struct peer_setup){ .page_bytes = 16384 });
	assert_int_equal(p->reply.max_pages, 64);
	peer_free(p);
	/* A daemon that takes 32 pages of 4 KiB without a word gets no more from the driver's 32 of 64 KiB. */
	p = peer_new((struct peer_setup){ .page_bytes = 65536, .daemon_without = FUSE_MAX_PAGES });
	assert_int_equal(p->reply.max_pages, 2);
	assert_true(p->reply.flags & FUSE_MAX_PAGES);
	peer_free(p);
	/* A driver that cannot be told. */
	p = peer_new((struct peer_setup){ .page_bytes = 65536, .driver_without = FUSE_MAX_PAGES });
	assert_int_equal(p->reply.max_pages, 0);
	assert_false(p->reply.flags & FUSE_MAX_PAGES);
	assert_int_equal(p->session->read_max, 32 * 65536);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_build),		cmocka_unit_test(test_accept_bad),
		cmocka_unit_test(test_accept_limits),	cmocka_unit_test(test_minors),
		cmocka_unit_test(test_driver_versions), cmocka_unit_test(test_order_changes),
		cmocka_unit_test(test_max_pages),	cmocka_unit_test(test_page_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
