#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""clang-tidy with the checks of .clang-tidy over src/ and preload/.

usage: tidy.py BUILD_FOLDER"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import source

SKIPPED = 77  # meson's number for it


def check(tool, commands, build, path):
    run = subprocess.run([tool, "--quiet", "-p", commands, "--extra-arg=-Wno-unknown-warning-option", path],
                         capture_output=True, text=True, check=False)
    found = []
    for name, line, text in re.findall(r"^([^\s:]+):(\d+):\d+: (?:error|warning): (.*)$", run.stdout,
                                       re.MULTILINE):
        name = os.path.relpath(os.path.join(build, name), source.ROOT)
        found.append(f"{name}:{line}: {text.replace(',-warnings-as-errors', '')}")
    if run.returncode and not found:
        found = [run.stderr.strip()]
    return found


def main():
    build = sys.argv[1]
    tool = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if not tool:
        print("no clang-tidy")
        sys.exit(SKIPPED)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        database = json.load(file)
    commands = {}
    for entry in database:
        commands.setdefault(os.path.normpath(os.path.join(entry["directory"], entry["file"])), entry)
    paths = sorted(p for p in commands if os.path.relpath(p, source.ROOT).startswith(("src/", "preload/")))
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # Of a file that is compiled twice (for a test, too) the analyzer finds things the second time that are not there.
        with open(os.path.join(folder, "compile_commands.json"), "w", encoding="utf-8") as file:
            json.dump([commands[p] for p in paths], file)
        results = list(pool.map(lambda p: check(tool, folder, build, p), paths))
    print(f"{len(paths)} files")
    # What is wrong in a header comes once for each file that includes it.
    source.finish(sorted({line for found in results for line in found}))


main()
