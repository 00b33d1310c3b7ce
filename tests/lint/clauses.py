#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every test that docs/spec-clauses.md names exists."""

import re

import source

PAGE = "docs/spec-clauses.md"

known = set()
for path in source.walk("tests"):
    if path.endswith((".c", ".py")):
        known |= set(re.findall(r"\b(\w+)\s*\(", source.read(path)))
problems = []
named = 0
for number, line in enumerate(source.read(PAGE).split("\n"), 1):
    if not line.startswith("|"):
        continue
    last = line.rstrip("| ").rsplit("|", 1)[-1]
    for name in re.findall(r"`(\w+)`", last):
        named += 1
        if name not in known:
            problems.append(f"{PAGE}:{number}: {name}: no such test")
print(f"{named} tests named")
if not named:
    problems.append(f"{PAGE}: names no test")
source.finish(problems)
