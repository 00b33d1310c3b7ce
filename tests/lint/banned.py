#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Calls that this project does not make, and words that its files do not hold."""

import re

import source

EVERYWHERE = {
    r"(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|strncpy|strncat)": "no bound or no end: snprintf, memcpy",
    r"(system|popen)": "a shell in between: fork and exec",
    r"alloca": "the stack has no error return",
    r"(strtok|localtime|gmtime|ctime|asctime)": "not thread-safe: the _r form, or %m",
    r"(mktemp|tmpnam|tempnam)": "names that somebody else may take: mkstemp",
    r"assert\s*\(\s*(0|false)\s*\)": "say what must hold",
}
OUTSIDE_TESTS = {
    r"(atoi|atol|atoll|atof)": "cannot tell an error: strtol and check",
    r"signal\s*\((?!\w+, SIG_(?:DFL|IGN)\))": "sigaction",
}
OUTSIDE_CLI = {
    r"exit": "only a command decides to end the process",
    r"(printf|vprintf|puts|putchar|perror|fprintf|vfprintf|fputs)": "library code logs with log_*()",
}
# A machine's own paths and mirrors, in any file.
PLACES = re.compile(r"/(?:work|root)/|\b[\w.-]+\.debian\.org/debian")


def calls(patterns, path, code):
    for pattern, reason in patterns.items():
        tail = "" if pattern.endswith(")") and r"\(" in pattern else r"\s*\("
        for match in re.finditer(rf"(?<![\w.>])(?:{pattern}){tail}", code):
            name = match.group().rstrip("( \t")
            yield f"{path}:{source.line_of(code, match.start())}: {name}: {reason}"


problems = []
for path in source.c_files():
    code = source.code_only(source.read(path))
    problems += calls(EVERYWHERE, path, code)
    if path.startswith(("src/", "preload/")):
        problems += calls(OUTSIDE_TESTS, path, code)
    if path.startswith(("src/", "preload/")) and not path.startswith("src/cli/"):
        problems += calls(OUTSIDE_CLI, path, code)
for path in source.walk():
    if path == "tests/lint/banned.py":
        continue
    try:
        text = source.read(path)
    except UnicodeDecodeError:
        continue  # a fuzz sample
    for match in PLACES.finditer(text):
        problems.append(f"{path}:{source.line_of(text, match.start())}: {match.group()}: "
                        "a place that only one machine has")
source.finish(problems)
