/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The check's course: tables of rules, turn by turn; connections for them; and what is left of the back-end.
 *
 * Theory of operation: rules that disturb nothing share one connection and come first, so that also a back-end which ends
 * with its front-end is asked as much as possible. Each other rule has its own. When nobody answers any more and nobody can
 * be started, the remaining rules are "not checked".
 */
#include "check/check_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vhost/link.h"

#define CONNECT_TRIES 10
/* Who is silent on so many connections will not be asked on all the others. */
#define SILENT_MAX 3
/* A back-end may need a moment to see that its last front-end is gone. */
#define RETRY_MS 50

static const struct check_table *const tables[] = {
	&check_ring_rules,     &check_notify_rules,  &check_device_rules,  &check_vhost_rules,
	&check_protocol_rules, &check_op_rules,	     &check_hostile_split, &check_hostile_packed,
	&check_hostile_fuse,   &check_hostile_vhost,
};

const char *check_status_name(enum check_status status)
{
	static const char *const names[] = { "holds", "does not", "not offered", "not checked" };

	assert(status < CHECK_STATUS_END);
	return names[status];
}

enum check_status check_end(struct check *c, enum check_status status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(c->detail, CHECK_DETAIL_BYTES, fmt, args);
	va_end(args);
	return status;
}

enum check_status check_fails(struct check *c, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(c->detail, CHECK_DETAIL_BYTES, fmt, args);
	va_end(args);
	return CHECK_DOES_NOT;
}

enum check_status check_holds(struct check *c)
{
	return CHECK_HOLDS;
}

static bool is_interrupted(const struct check *c)
{
	return c->config->interrupted && READ_ONCE(*c->config->interrupted);
}

static void pause_ms(long ms)
{
	const struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* Is nobody at the other end? Then the back-end may be started again. */
static bool is_nobody(int err)
{
	return err == -ECONNREFUSED || err == -ENOENT || err == -EPIPE || err == -ECONNRESET;
}

static void lose(struct check *c, const char *why, int err)
{
	c->lost = true;
	snprintf(c->lost_how, sizeof(c->lost_how), "the back-end is not there any more: %s: %s",
		 why, strerror(-err));
}

static int revive(struct check *c, int err, int try)
{
	if (!is_nobody(err) || is_interrupted(c))
		return err;
	if (c->config->restart && (err == -ECONNREFUSED || err == -ENOENT || try > 0)) {
		err = c->config->restart(c->config->ctx);
		c->nr_restarts += err > 0;
		return err;
	}
	pause_ms(RETRY_MS);
	return 0;
}

static int try_peer(struct check *c, const struct peer_setup *setup, struct peer **ret_peer,
		    const char **ret_why)
{
	struct peer *p = NULL;
	int err = 0;

	for (int try = 0; try < CONNECT_TRIES && !p; try++) {
		err = peer_new(&p, c->config->path, setup, &c->seen, ret_why);
		if (err < 0 && revive(c, err, try) < 0)
			break;
	}
	if (!p)
		return err;
	p->serial = ++c->peer_serial;
	*ret_peer = p;
	return 0;
}

static struct peer *no_peer(struct check *c, const char *why, int err)
{
	if (err == -EOPNOTSUPP || err == -ERANGE) {
		c->no_peer = check_end(c, CHECK_NOT_OFFERED, "%s",
				       err == -ERANGE ? "too few queues" : "");
	} else if (strcmp(why, "cannot connect") == 0 || c->nr_silent >= SILENT_MAX) {
		lose(c, why, err);
		c->no_peer = check_end(c, CHECK_NOT_CHECKED, "%s", c->lost_how);
	} else {
		c->no_peer = check_fails(c, "%s: %s", why, strerror(-err));
	}
	return NULL;
}

void check_drop_own(struct check *c)
{
	peer_free(c->own);
	c->own = NULL;
}

void check_drop_shared(struct check *c)
{
	peer_free(c->shared);
	c->shared = NULL;
	c->fs.peer = NULL;
}

struct peer *check_peer(struct check *c, const struct peer_setup *setup)
{
	const char *why = "";
	int err;

	/* A device serves one front-end at a time. */
	check_drop_own(c);
	check_drop_shared(c);
	err = try_peer(c, setup, &c->own, &why);
	c->nr_silent = err == -ETIMEDOUT ? c->nr_silent + 1 : 0;
	return err < 0 ? no_peer(c, why, err) : c->own;
}

struct peer *check_shared(struct check *c)
{
	const char *why = "";
	int err;

	check_drop_own(c);
	if (c->shared && peer_is_gone(c->shared))
		check_drop_shared(c);
	if (c->shared)
		return c->shared;
	err = try_peer(c, &c->shared_setup, &c->shared, &why);
	return err < 0 ? no_peer(c, why, err) : c->shared;
}

enum check_status check_no_peer(struct check *c)
{
	return c->no_peer;
}

/*
 * A connection that somebody serves: one to a back-end that is about to end waits in the queue of its socket, and what is sent
 * there shows nothing. Who is silent, or answers by nonsense, is there.
 */
static int served_link(const char *path)
{
	int sock = vhost_link_connect(path, ANSWER_MS), err;
	uint64_t features;

	if (sock < 0)
		return sock;
	err = vhost_link_ask(sock, VHOST_USER_GET_FEATURES, NULL, 0, &features, sizeof(features),
			     ANSWER_MS);
	if (!is_nobody(err))
		return sock;
	close(sock);
	return err;
}

int check_link(struct check *c)
{
	int sock = -1;

	check_drop_own(c);
	check_drop_shared(c);
	for (int try = 0; try < CONNECT_TRIES; try++) {
		sock = served_link(c->config->path);
		if (sock >= 0)
			return sock;
		if (revive(c, sock, try) < 0)
			break;
	}
	no_peer(c, "cannot connect", sock);
	return -1;
}

enum check_status check_error(struct check *c, struct peer *p, int err, const char *what)
{
	switch (err) {
	case -EPIPE:
	case -ETIMEDOUT:
	case -EBADMSG:
	case -EPROTO:
		if (!p->problem[0])
			break;
		check_fails(c, "%s: %s", what, p->problem);
		p->problem[0] = '\0';
		/* What comes late would be taken for the answer to the next request. */
		if (p == c->shared)
			check_drop_shared(c);
		return CHECK_DOES_NOT;
	case -ENOSYS:
	case -EOPNOTSUPP:
	case -EROFS:
	case -EPERM:
	case -EACCES:
		return check_end(c, CHECK_NOT_OFFERED, "%s: %s", what, strerror(-err));
	default:
		break;
	}
	return check_fails(c, "%s: %s", what, strerror(-err));
}

static unsigned int count_rows(const struct check_config *config)
{
	unsigned int nr = 0;

	for (unsigned int t = 0; t < array_size(tables); t++) {
		for (unsigned int i = 0; i < tables[t]->nr; i++)
			nr += config->hostile || tables[t]->rules[i].turn != TURN_HOSTILE;
	}
	return nr;
}

static void run_rule(struct check *c, const struct check_rule *rule, struct check_row *row)
{
	c->detail = row->detail;
	c->rule = rule;
	/* What only sums up needs nobody. */
	if ((c->lost || is_interrupted(c)) && rule->turn != TURN_LAST) {
		row->status = check_end(c, CHECK_NOT_CHECKED, "%s",
					c->lost ? c->lost_how : "interrupted");
		return;
	}
	row->status = rule->run(c, rule->arg);
	check_drop_own(c);
	c->detail = NULL;
}

static void run_turn(struct check *c, enum check_turn turn, unsigned int *done)
{
	struct check_row *row = c->report->rows;
	unsigned int total = c->report->nr_rows;

	for (unsigned int t = 0; t < array_size(tables); t++) {
		for (unsigned int i = 0; i < tables[t]->nr; i++) {
			const struct check_rule *rule = &tables[t]->rules[i];

			if (rule->turn == TURN_HOSTILE && !c->config->hostile)
				continue;
			if (rule->turn == turn) {
				if (c->config->progress)
					c->config->progress(c->config->ctx, *done, total, row);
				run_rule(c, rule, row);
				(*done)++;
			}
			row++;
		}
	}
}

static void name_rows(struct check_report *report, bool hostile)
{
	struct check_row *row = report->rows;

	for (unsigned int t = 0; t < array_size(tables); t++) {
		for (unsigned int i = 0; i < tables[t]->nr; i++) {
			const struct check_rule *rule = &tables[t]->rules[i];

			if (rule->turn == TURN_HOSTILE && !hostile)
				continue;
			row->area = rule->area;
			row->clause = rule->clause;
			row->rule = rule->rule;
			row++;
		}
	}
}

/* The first connection also answers what is offered: a back-end that ends with its front-end has no second one. */
static int look_at_offer(struct check *c, const char **ret_why)
{
	struct check_report *r = c->report;
	int sock, err = try_peer(c, &c->shared_setup, &c->shared, ret_why);

	if (!c->shared)
		return err;
	r->fuse_minor = c->shared->init.minor;
	r->fuse_flags = c->shared->flags;
	*ret_why = "it does not tell its features";
	sock = vhost_client_socket(c->shared->vhost);
	err = vhost_link_ask(sock, VHOST_USER_GET_FEATURES, NULL, 0, &r->features, 8, ANSWER_MS);
	if (err == 0 && r->features & bit64(VHOST_USER_F_PROTOCOL_FEATURES))
		err = vhost_link_ask(sock, VHOST_USER_GET_PROTOCOL_FEATURES, NULL, 0,
				     &r->protocol_features, 8, ANSWER_MS);
	if (err == 0 &&
	    vhost_client_protocol_features(c->shared->vhost) & bit64(VHOST_USER_PROTOCOL_F_MQ))
		err = vhost_link_ask(sock, VHOST_USER_GET_QUEUE_NUM, NULL, 0, &r->nr_queues, 8,
				     ANSWER_MS);
	return err;
}

static void sum_up(struct check *c)
{
	char how[CHECK_DETAIL_BYTES];

	check_drop_own(c);
	check_drop_shared(c);
	for (unsigned int i = 0; i < c->report->nr_rows; i++)
		c->report->counts[c->report->rows[i].status]++;
	c->report->died |= c->lost;
	if (c->config->ended &&
	    c->config->ended(c->config->ctx, 0, how, sizeof(how)) == CHECK_CRASHED)
		c->report->died = true;
}

int check_run(struct check_report **ret_report, const struct check_config *config,
	      const char **ret_why)
{
	struct check c = { .config = config,
			   .shared_setup = { .format = VIRTQ_SPLIT,
					     .queue_size = 64,
					     .nr_queues = 2,
					     .event_idx = true,
					     .indirect = true } };
	unsigned int done = 0;
	char detail[CHECK_DETAIL_BYTES];
	int err;

	*ret_why = "no memory";
	c.report = calloc(1, sizeof(*c.report));
	if (!c.report)
		return -ENOMEM;
	c.report->nr_rows = count_rows(config);
	c.report->rows = calloc(c.report->nr_rows, sizeof(*c.report->rows));
	c.detail = detail;
	err = c.report->rows ? look_at_offer(&c, ret_why) : -ENOMEM;
	if (err < 0) {
		check_drop_shared(&c);
		check_report_free(c.report);
		return err;
	}
	name_rows(c.report, config->hostile);
	run_turn(&c, TURN_SHARED, &done);
	c.detail = detail;
	check_fs_clean(&c);
	run_turn(&c, TURN_SHARED_LAST, &done);
	run_turn(&c, TURN_OWN, &done);
	run_turn(&c, TURN_LAST, &done);
	c.ends_with_front_end = c.nr_restarts > 0;
	run_turn(&c, TURN_HOSTILE, &done);
	sum_up(&c);
	*ret_report = c.report;
	return 0;
}

void check_report_free(struct check_report *report)
{
	if (!report)
		return;
	free(report->rows);
	free(report);
}
