#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Python files compile; shell scripts parse, and shellcheck has no warning where it is installed."""

import os
import shutil
import subprocess

import source

problems = []
shell = []
for path in source.walk():
    full = os.path.join(source.ROOT, path)
    if os.path.islink(full) or "/corpus/" in path:
        continue
    with open(full, "rb") as file:
        first = file.readline()
    if path.endswith(".py") or (first.startswith(b"#!") and b"python" in first):
        try:
            compile(source.read(path), path, "exec")
        except SyntaxError as error:
            problems.append(f"{path}:{error.lineno}: {error.msg}")
    elif path.endswith(".sh") or (first.startswith(b"#!") and first.rstrip().endswith(b"sh")):
        shell.append(path)

for path in shell:
    with open(os.path.join(source.ROOT, path), "rb") as file:
        interpreter = "bash" if b"bash" in file.readline() else "sh"
    run = subprocess.run([interpreter, "-n", path], cwd=source.ROOT, capture_output=True, text=True,
                         check=False)
    problems += run.stderr.splitlines()
if shell and shutil.which("shellcheck"):
    run = subprocess.run(["shellcheck", "--severity=warning", "--format=gcc", *shell],
                         cwd=source.ROOT, capture_output=True, text=True, check=False)
    problems += run.stdout.splitlines()
print(f"{len(shell)} shell scripts")
source.finish(problems)
