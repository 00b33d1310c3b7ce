#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""C files are as clang-format 14 writes them; other versions differ in small things: skipped."""

import re
import shutil
import subprocess
import sys

import source

SKIPPED = 77  # meson's number for it

for name in ("clang-format-14", "clang-format"):
    tool = shutil.which(name)
    if tool:
        version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
        if re.search(r"version 14\.", version.stdout):
            break
else:
    print("no clang-format 14")
    sys.exit(SKIPPED)

problems = []
for path in source.c_files():
    text = source.read(path)
    wanted = subprocess.run([tool, "--style=file", path], cwd=source.ROOT, capture_output=True,
                            text=True, check=True).stdout
    if text == wanted:
        continue
    pairs = zip(text.split("\n") + [""], wanted.split("\n") + [""])
    line = next((nr for nr, (have, want) in enumerate(pairs, 1) if have != want), 1)
    problems.append(f"{path}:{line}: clang-format -i {path}")
source.finish(problems)
