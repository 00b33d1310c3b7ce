/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An owner of a keeper, for tests: keeper_main LISTEN [--backend PATH] [--fallback PATH] [--reply-ms N]
 * [--backend-ms N] [--inband].
 *
 * Lines on stdin: "set PATH" connects to PATH and gives the connection to the keeper. Lines on stdout: "set PATH RESULT",
 * "lost PATH WHY", "cannot PATH ERRNO". With --fallback a lost back-end is replaced by that one at once, from the callback.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "keeper/keeper.h"
#include "vhost/listen.h"

static struct keeper *keeper;
static const char *fallback;

static void say(const char *what, const char *path, long result)
{
	char line[256];
	int n = snprintf(line, sizeof(line), "%s %s %ld\n", what, path, result);

	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		abort();
}

/* Tags are paths that stay: one for each name, however often it is used. */
static char *tag_of(const char *path)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char *tags[512];
	unsigned int i = 0;

	pthread_mutex_lock(&lock);
	while (tags[i] && strcmp(tags[i], path) != 0)
		i++;
	if (!tags[i])
		tags[i] = strdup(path);
	if (!tags[i] || i + 1 == array_size(tags))
		abort();
	pthread_mutex_unlock(&lock);
	return tags[i];
}

static void set_backend(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		abort();
	memcpy(addr.sun_path, path, strlen(path));
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		say("cannot", path, errno);
		close(sock);
		return;
	}
	if (keeper_set_backend(keeper, sock, tag_of(path)) < 0)
		abort();
}

static void on_lost(void *ctx, void *tag, enum keeper_lost why)
{
	say("lost", tag, why);
	if (fallback && strcmp(tag, fallback))
		set_backend(fallback);
}

static void on_set(void *ctx, void *tag, int err)
{
	say("set", tag, err);
}

static void stop(int sig)
{
	/* fgets() returns: there is no more input. */
	close(STDIN_FILENO);
}

static void read_commands(void)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "set ", 4))
			set_backend(line + 4);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "backend", required_argument, NULL, 'b' },
		{ "fallback", required_argument, NULL, 'f' },
		{ "reply-ms", required_argument, NULL, 'r' },
		{ "backend-ms", required_argument, NULL, 'w' },
		{ "inband", no_argument, NULL, 'i' },
		{ 0 },
	};
	struct keeper_config config = { .on_backend_lost = on_lost, .on_backend_set = on_set };
	struct vhost_listener listener = { .fd = -1 };
	char text[VHOST_LISTEN_TEXT];
	const char *first = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'b':
			first = optarg;
			break;
		case 'f':
			fallback = optarg;
			break;
		case 'r':
			config.reply_ms = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 'w':
			config.backend_ms = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 'i':
			config.inband_notifications = true;
			break;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc)
		return 2;
	log_init(LOG_LEVEL_DEBUG, "keeper_main");
	/* Without SA_RESTART, so that read(2) ends. */
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = stop }, NULL);
	if (vhost_listen_open(&listener, argv[optind], VHOST_LISTEN_NO_GROUP, text) < 0) {
		fprintf(stderr, "%s\n", text);
		return 1;
	}
	config.listen_fd = listener.fd;
	if (keeper_new(&keeper, &config) < 0)
		return 1;
	if (first)
		set_backend(first);
	read_commands();
	keeper_free(keeper);
	vhost_listen_close(&listener);
	return 0;
}
