/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire bench: the progress line, and the results for people and for programs.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "cli/json.h"

static const char *phase_name(const struct bench *b)
{
	return b->phase == BENCH_LAYOUT	 ? "fill"
	       : b->phase == BENCH_CHECK ? "check"
					 : b->opt.rw_name;
}

void bench_progress(const struct bench *b, uint64_t begin_ns)
{
	double seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
	uint64_t ops = 0, bytes = 0;

	if (b->opt.json || !isatty(STDERR_FILENO) || seconds < 0.4)
		return;
	for (unsigned int i = 0; i < b->opt.nr_queues; i++) {
		ops += READ_ONCE(b->workers[i].nr_ops);
		bytes += READ_ONCE(b->workers[i].nr_bytes);
	}
	fprintf(stderr, "\r\033[K%s: %.0f s", phase_name(b), seconds);
	if (b->end_ns)
		fprintf(stderr, " of %.0f s", (double)(b->end_ns - begin_ns) / 1e9);
	else
		fprintf(stderr, ", %.0f %%",
			100.0 * (double)bytes / (double)max_of(b->range, UINT64_C(1)));
	fprintf(stderr, ", %.0f/s, %.1f MB/s", (double)ops / seconds,
		(double)bytes / seconds / 1e6);
	fflush(stderr);
}

static double latency_us(const struct bench *b, uint32_t ppm)
{
	return (double)histogram_quantile(&b->latency, ppm) / 1e3;
}

static double per_million(const struct bench *b, double seconds)
{
	return b->nr_requests ? seconds * 1e6 / (double)b->nr_requests : 0.0;
}

static void report_json(const struct bench *b, double iops, double mb)
{
	const struct bench_options *o = &b->opt;

	printf("{\"socket\": ");
	cli_json_string(o->socket);
	printf(", \"file\": ");
	if (o->file)
		cli_json_string(o->file);
	else
		printf("null");
	printf(", \"rw\": \"%s\", \"block_bytes\": %u, \"iodepth\": %u, \"queues\": %u, \"ring\": "
	       "\"%s\", \"wait\": \"%s\", \"poll_us\": %llu",
	       o->rw_name, o->block, o->depth, o->nr_queues, o->packed ? "packed" : "split",
	       o->busy_poll ? "poll" : "event", (unsigned long long)o->poll_us);
	printf(", \"range_bytes\": %llu, \"verified\": %s, \"end_fsync\": %s, \"direct\": %s, "
	       "\"interrupted\": %s",
	       (unsigned long long)b->range, o->verify ? "true" : "false",
	       o->end_fsync ? "true" : "false", o->direct ? "true" : "false",
	       b->interrupted ? "true" : "false");
	printf(", \"fuse_minor\": %u, \"seconds\": %.6f, \"operations\": %llu, \"requests\": %llu, "
	       "\"bytes\": %llu",
	       fuse_client_minor(b->client), (double)b->elapsed_ns / 1e9,
	       (unsigned long long)b->nr_ops, (unsigned long long)b->nr_requests,
	       (unsigned long long)b->nr_bytes);
	printf(", \"iops\": %.1f, \"mb_per_s\": %.3f", iops, mb);
	printf(", \"latency_us\": {\"mean\": %.3f, \"p50\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f, "
	       "\"max\": %.3f}",
	       histogram_mean(&b->latency) / 1e3, latency_us(b, 500000), latency_us(b, 990000),
	       latency_us(b, 999000), (double)b->latency.max / 1e3);
	printf(", \"cpu_s_per_million_requests\": {\"bench\": %.4f, \"device\": ",
	       per_million(b, b->own_cpu_s));
	if (o->nr_pids)
		printf("%.4f}}\n", per_million(b, b->device_cpu_s));
	else
		printf("null}}\n");
}

static void report_text(const struct bench *b, double iops, double mb)
{
	const struct bench_options *o = &b->opt;

	printf("%s", o->rw_name);
	if (bench_is_data(o->rw) || o->rw == BENCH_READDIR)
		printf(", %u bytes", o->block);
	printf(", depth %u, %u queue%s, %s ring, %s: %.2f s%s\n", o->depth, o->nr_queues,
	       o->nr_queues == 1 ? "" : "s", o->packed ? "packed" : "split",
	       o->busy_poll ? "busy poll"
	       : o->poll_us ? "polls, then eventfd"
			    : "eventfd",
	       (double)b->elapsed_ns / 1e9, b->interrupted ? ", interrupted" : "");
	printf("rate     %.0f operations/s", iops);
	if (b->nr_bytes)
		printf(", %.1f MB/s", mb);
	printf("\nlatency  mean %.1f us, p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us\n",
	       histogram_mean(&b->latency) / 1e3, latency_us(b, 500000), latency_us(b, 990000),
	       latency_us(b, 999000), (double)b->latency.max / 1e3);
	printf("CPU      bench %.2f s per million requests", per_million(b, b->own_cpu_s));
	if (o->nr_pids)
		printf(", device %.2f s", per_million(b, b->device_cpu_s));
	if (o->verify)
		printf("\nverify   all %llu bytes are right", (unsigned long long)b->range);
	putchar('\n');
}

void bench_report(const struct bench *b)
{
	double seconds = (double)max_of(b->elapsed_ns, UINT64_C(1)) / 1e9;
	double iops = (double)b->nr_ops / seconds, mb = (double)b->nr_bytes / seconds / 1e6;

	if (b->opt.json)
		report_json(b, iops, mb);
	else
		report_text(b, iops, mb);
}
