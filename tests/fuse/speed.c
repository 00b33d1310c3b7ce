/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long header, decode and finish take: nanoseconds per request. It measures and does not judge.
 */
#include <stdio.h>

#include "base/clock.h"
#include "requests.h"

/* The best of many short runs: others use the machine too. */
#define REQUESTS 50000
#define RUNS	 60

static void build(unsigned char *msg, uint32_t opcode, uint64_t nodeid, const void *args,
		  size_t bytes)
{
	struct fuse_in_header hdr = {
		.len = (uint32_t)(40 + bytes), .opcode = opcode, .unique = 1, .nodeid = nodeid
	};

	memcpy(msg, &hdr, 40);
	memcpy(msg + 40, args, bytes);
}

static double run_once(struct peer *p, const unsigned char *msg, size_t len, const void *body,
		       size_t body_bytes)
{
	unsigned char reply[256];
	uint64_t start = clock_now_ns();

	for (unsigned int i = 0; i < REQUESTS; i++) {
		struct fuse_request req;

		assert(fuse_session_header(p->session, msg, len, 16 + 4096, &req) == 0);
		req.hdr.unique = 2;
		memcpy(p->buf + 40, msg + 40, req.copy_bytes);
		assert(fuse_session_decode(p->session, &req, p->buf, 512) == 0);
		if (body)
			memcpy(reply, body, body_bytes);
		assert(fuse_session_finish(p->session, &req, 0, body ? reply : NULL, body_bytes,
					   true) == 0);
	}
	return (double)(clock_now_ns() - start) / REQUESTS;
}

static double run(struct peer *p, const unsigned char *msg, size_t len, const void *body,
		  size_t body_bytes)
{
	double best = 1e9;

	for (unsigned int i = 0; i < RUNS; i++) {
		double ns = run_once(p, msg, len, body, body_bytes);

		best = min_of(best, ns);
	}
	return best;
}

int main(void)
{
	const struct fuse_read_in read = { .fh = FH_FILE, .size = 4096 };
	const struct fuse_getattr_in getattr = { 0 };
	const struct fuse_attr_out attr = { .attr = { .mode = S_IFREG } };
	unsigned char msg[128];

	struct peer *ledger = good_peer((struct peer_setup){ 0 });
	struct peer *plain = good_peer((struct peer_setup){ .no_ledger = true });

	build(msg, FUSE_READ, NODE_FILE, &read, sizeof(read));
	printf("READ with ledger        %6.1f ns\n", run(ledger, msg, 80, NULL, 4096));
	printf("READ without            %6.1f ns\n", run(plain, msg, 80, NULL, 4096));
	build(msg, FUSE_GETATTR, NODE_FILE, &getattr, sizeof(getattr));
	printf("GETATTR with ledger     %6.1f ns\n", run(ledger, msg, 56, &attr, sizeof(attr)));
	printf("GETATTR without         %6.1f ns\n", run(plain, msg, 56, &attr, sizeof(attr)));
	peer_free(ledger);
	peer_free(plain);
	return 0;
}
