#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Shape of files: licence line and a first sentence, lengths of files and functions, white space.

A file or function may be longer when its comment holds the word "Length:" and the reason."""

import re

import source

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 60
TEXT = (".c", ".h", ".py", ".sh", ".md", ".build", ".scd", ".txt", ".json", ".yml", ".toml", ".options")
HEAD = re.compile(r"(?:/\* SPDX-License-Identifier: BSD-3-Clause \*/|// SPDX-License-Identifier: BSD-3-Clause)\n/\*\n \* [A-Za-z0-9`_].*?[.:]\s",
                  re.DOTALL)


def check_c(path, text):
    lines = text.count("\n")
    head = text[:text.find("*/", 60) + 2]
    if not HEAD.match(text):
        yield f"{path}:1: begin with the SPDX line and a comment that says what the file is for"
    if lines > FILE_LINES_MAX and "Length:" not in head:
        yield f"{path}:{lines}: {lines} lines, at most {FILE_LINES_MAX}"
    for decl in source.declarations(text):
        nr = decl.last_line - decl.line + 1
        if decl.kind == "function" and nr > FUNCTION_LINES_MAX and "Length:" not in decl.doc:
            yield f"{path}:{decl.line}: {decl.name}() has {nr} lines, at most {FUNCTION_LINES_MAX}"


def check_text(path, text):
    for nr, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield f"{path}:{nr}: white space at the end of the line"
    if text and not text.endswith("\n"):
        yield f"{path}: no newline at the end"
    if text.endswith("\n\n"):
        yield f"{path}: empty lines at the end"


problems = []
for name in source.walk():
    if name.endswith(TEXT) or "." not in name.split("/")[-1]:
        try:
            content = source.read(name)
        except UnicodeDecodeError:
            continue  # a fuzz sample
        if "/corpus/" in name:
            continue
        problems += check_text(name, content)
        if name.endswith((".c", ".h")):
            problems += check_c(name, content)
source.finish(problems)
