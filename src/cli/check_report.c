/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fusewire check: the report, for people and for programs.
 */
#include <stdio.h>
#include <string.h>

#include "cli/check.h"
#include "cli/json.h"

static void text_row(const struct check_row *row)
{
	printf("  %-11s  %s%s%s", check_status_name(row->status), row->clause,
	       row->rule[0] ? ": " : "", row->rule);
	if (row->detail[0])
		printf(" [%s]", row->detail);
	putchar('\n');
}

static bool is_first_of_area(const struct check_report *r, unsigned int row)
{
	for (unsigned int i = 0; i < row; i++) {
		if (strcmp(r->rows[i].area, r->rows[row].area) == 0)
			return false;
	}
	return true;
}

static void text_area(const struct check_report *r, unsigned int first)
{
	printf("\n%s\n", r->rows[first].area);
	for (unsigned int i = first; i < r->nr_rows; i++) {
		if (strcmp(r->rows[i].area, r->rows[first].area) == 0)
			text_row(&r->rows[i]);
	}
}

void check_report_text(const struct check_report *r)
{
	printf("features %#llx, protocol features %#llx", (unsigned long long)r->features,
	       (unsigned long long)r->protocol_features);
	if (r->nr_queues)
		printf(", %llu queues", (unsigned long long)r->nr_queues);
	printf(", FUSE 7.%u, INIT flags %#llx\n", r->fuse_minor, (unsigned long long)r->fuse_flags);
	for (unsigned int i = 0; i < r->nr_rows; i++) {
		if (is_first_of_area(r, i))
			text_area(r, i);
	}
	printf("\n%u hold, %u do not, %u not offered, %u not checked\n", r->counts[CHECK_HOLDS],
	       r->counts[CHECK_DOES_NOT], r->counts[CHECK_NOT_OFFERED],
	       r->counts[CHECK_NOT_CHECKED]);
}

void check_report_json(const struct check_report *r, const char *path, bool hostile)
{
	printf("{\"socket\": ");
	cli_json_string(path);
	printf(", \"hostile\": %s, \"died\": %s, \"features\": \"%#llx\", "
	       "\"protocol_features\": \"%#llx\", \"queues\": %llu, \"fuse_minor\": %u, "
	       "\"fuse_flags\": \"%#llx\", \"summary\": {",
	       hostile ? "true" : "false", r->died ? "true" : "false",
	       (unsigned long long)r->features, (unsigned long long)r->protocol_features,
	       (unsigned long long)r->nr_queues, r->fuse_minor, (unsigned long long)r->fuse_flags);
	for (enum check_status s = 0; s < CHECK_STATUS_END; s++)
		printf("%s\"%s\": %u", s ? ", " : "", check_status_name(s), r->counts[s]);
	printf("}, \"rows\": [");
	for (unsigned int i = 0; i < r->nr_rows; i++) {
		const struct check_row *row = &r->rows[i];

		printf("%s\n{\"area\": ", i ? "," : "");
		cli_json_string(row->area);
		printf(", \"clause\": ");
		cli_json_string(row->clause);
		printf(", \"rule\": ");
		cli_json_string(row->rule);
		printf(", \"status\": \"%s\", \"detail\": ", check_status_name(row->status));
		cli_json_string(row->detail);
		putchar('}');
	}
	printf("]}\n");
}
