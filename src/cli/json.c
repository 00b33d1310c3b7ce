/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON on stdout, for programs.
 */
#include "cli/json.h"

#include <stdio.h>

void cli_json_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}
