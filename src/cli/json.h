/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON on stdout, for programs.
 */
#ifndef FUSEWIRE_CLI_JSON_H
#define FUSEWIRE_CLI_JSON_H

/** cli_json_string() - print @text in quotes; bytes that may be no UTF-8 are shown as the characters of the same numbers. */
void cli_json_string(const char *text);

#endif
