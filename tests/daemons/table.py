#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write the table of daemons from what the tests found.

usage: table.py RESULTS >docs/daemons.md            RESULTS: what DAEMONS_RESULTS named
"""
import collections
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from catalog import ALL  # noqa: E402
from local import installed  # noqa: E402

HEAD = """# Daemons

Written by `make check-daemons` from what its tests found; do not edit. Each daemon ran with the command line of the last column on this
machine's /dev/fuse and behind `fusewire run --socket PATH --tag TAG -- `, mounted by `fusewire mount` and by virtual machines, and had
to do the same; [launch.md](launch.md) tells how an unmodified daemon comes to serve a device.

- channel, in-process: tests passed of those that apply. "-": not tried, or it cannot be (programs that are linked statically).
- guest suite: what a virtual machine got, as this machine gets it from the same daemon on /dev/fuse.

| daemon | version | library | channel | in-process | guest suite | known limits | command |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def read(path):
    """{daemon: {way: [report]}}"""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    with open(path, encoding="utf-8") as f:
        reports = [json.loads(line) for line in f]
    # What "auto" came to.
    auto = {r["daemon"]: r["served"] for r in reports if r["way"] == "auto" and r.get("served")}
    for r in reports:
        way = {"never": "channel", "always": "in-process"}.get(r["way"]) or auto.get(r["daemon"], "channel")
        found[r["daemon"]][way].append(r)
    return found


def score(reports):
    """The words of a column."""
    ran = [r for r in reports if r["outcome"] != "skipped"]
    if not ran:
        return "-"
    tests = {r["test"] for r in ran}
    failed = sorted({r["test"] for r in ran if r["outcome"] == "failed"})
    text = f"{len(tests) - len(failed)} of {len(tests)}"
    return text + (" (not: " + ", ".join(failed) + ")" if failed else "")


def guest_suite(reports):
    outcomes = {r["outcome"] for r in reports if r["test"] == "test_suite_in_guest"} - {"skipped"}
    if not outcomes:
        return "-"
    here = next((r["suite"] for r in reports if r.get("suite")), "")
    return ("the same: " + here if outcomes == {"passed"} else "differs").rstrip(": ")


def limits(name, reports):
    lacks = [r["lacks"] for r in reports if r.get("lacks")]
    words = [ALL[name].limits] + ["also on /dev/fuse, no " + text for text in lacks[:1]]
    return "; ".join(w for w in words if w)


def row(name, ways):
    reports = [r for some in ways.values() for r in some]
    ran = [r for r in reports if r["outcome"] != "skipped"]
    commands = [r["command"] for r in reports if r.get("command")]
    if not ran:
        reason = next((r["reason"] for r in reports), "not tried").removeprefix("Skipped: ")
        return f"| {name} | - | {ALL[name].library} | - | - | - | not tested: {reason} | |"
    command = f"`{commands[0]}`" if commands else ""
    return f"| {name} | {installed(ALL[name].package)} | {ALL[name].library} | {score(ways.get('channel', []))} | " \
        f"{score(ways.get('in-process', []))} | {guest_suite(reports)} | {limits(name, reports)} | {command} |"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = read(sys.argv[1])
    text = HEAD + "\n".join(row(name, found[name]) for name in ALL if name in found) + "\n"
    # Folders of one run say nothing to anybody.
    print(re.sub(r"/tmp/fw-\w+", "DIR", text), end="")


main()
