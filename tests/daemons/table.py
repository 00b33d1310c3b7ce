#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write the table of daemons from what the tests found.

usage: table.py RESULTS... >docs/daemons.md         RESULTS: what DAEMONS_RESULTS named, of one run or several
"""
import collections
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from catalog import ALL  # noqa: E402
from local import installed  # noqa: E402

HEAD = """# Daemons

Written by `make check-daemons` from what its tests found; do not edit. Each daemon ran with the command line of the last column on
this machine's /dev/fuse and behind `fusewire run --socket PATH --tag TAG -- `, mounted by `fusewire mount` and by virtual machines, and had
to do the same; [launch.md](launch.md) tells how an unmodified daemon comes to serve a device.

- channel, in-process: tests passed of those that apply, through `fusewire mount`: guest suite, copies, 16 writers, SIGTERM, kill -9, background,
  read-only, mount options, ordinary users. "-": not tried; "no": it cannot be served in that way.
- guests: tests passed in virtual machines, through the channel and in-process: guest suite, copy and 16 writers, a guest that is killed while it
  writes and the next one, a clean end after both.
- guest suite: what a virtual machine got, as this machine gets it from the same daemon on /dev/fuse.
- MiB copied: the largest file that came out with the checksum with which it went in (or lay there, where nothing can be written), through the
  channel and in-process; in virtual machines in brackets.

| daemon | version | library | channel | in-process | guests | guest suite | MiB copied | known limits | command |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
# Those that copy the file. A guest that can write nothing has it summed by its suite, with all else that is there.
COPY_HERE, COPY_IN_GUEST, SUITE_IN_GUEST = "test_copy_in_and_out", "test_copy_and_16_writers_in_guest", "test_suite_in_guest"
WAYS = {"never": "channel", "auto": "in-process", "always": "in-process"}


def read(paths):
    """{daemon: {way: [report]}}. Of a test that ran twice the last counts, and the largest size ("copied", in MiB) with which it
    passed."""
    found = collections.defaultdict(lambda: collections.defaultdict(dict))
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                report = json.loads(line)
                tests = found[report["daemon"]][WAYS[report["way"]]]
                # One run leaves out the guests, another has nothing else.
                if report["outcome"] != "skipped" or report["test"] not in tests:
                    before = tests.get(report["test"], {}).get("copied", 0)
                    report["copied"] = max(before, report["mib"] if report["outcome"] == "passed" else 0)
                    tests[report["test"]] = report
    return {name: {way: list(tests.values()) for way, tests in ways.items()} for name, ways in found.items()}


def is_in_guest(report):
    return "guest" in report["test"]


def score(reports):
    """The words of a column."""
    ran = [r for r in reports if r["outcome"] != "skipped"]
    if not ran:
        return "-"
    tests = {r["test"] for r in ran}
    failed = sorted({r["test"] for r in ran if r["outcome"] == "failed"})
    text = f"{len(tests) - len(failed)} of {len(tests)}"
    return text + (" (not: " + ", ".join(failed) + ")" if failed else "")


def here(reports):
    return score([r for r in reports if not is_in_guest(r)])


def in_guests(ways):
    """Of both ways, where both were taken."""
    scores = [score([r for r in ways[way] if is_in_guest(r)]) for way in ("channel", "in-process") if way in ways]
    return ", ".join(s for s in scores if s != "-") or "-"


def copied(ways):
    """Sizes, of both ways where both were taken."""
    sizes = []
    for way in ("channel", "in-process"):
        tests = {r["test"]: r for r in ways.get(way, []) if r["outcome"] != "skipped"}
        here, guest = (tests[t]["copied"] if t in tests else 0
                       for t in (COPY_HERE, COPY_IN_GUEST if COPY_IN_GUEST in tests else SUITE_IN_GUEST))
        if here or guest:
            sizes.append(f"{here or '-'}" + (f" ({guest})" if guest else ""))
    return ", ".join(sizes) or "-"


def without_what_was_not(ways):
    """Where the daemon cannot be served in-process, those who tried that measured the channel once more."""
    served = [r["served"] for r in ways.get("in-process", []) if r.get("served")]
    if served and "in-process" not in served:
        return {"channel": ways.get("channel") or ways["in-process"]}, "no"
    return ways, here(ways.get("in-process", []))


def guest_suite(reports):
    outcomes = {r["outcome"] for r in reports if r["test"] == SUITE_IN_GUEST} - {"skipped"}
    if not outcomes:
        return "-"
    here = next((r["suite"] for r in reports if r.get("suite")), "")
    if outcomes != {"passed"}:
        return "differs"
    return here if here.endswith("the same") else ("the same: " + here).rstrip(": ")


def limits(name, reports):
    words = [ALL[name].limits]
    for key, text in ("lacks", "also on /dev/fuse, no "), ("varies", "also on /dev/fuse, by chance: "):
        words += [text + r[key] for r in reports if r.get(key)][:1]
    return "; ".join(w for w in words if w)


def version(name):
    """Of its package, or what the program itself says where it comes from elsewhere."""
    command = ALL[name].version_command
    if not command:
        return installed(ALL[name].package)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return "?"
    said = re.search(r"\d+(\.\d+)+", done.stdout)
    return said.group() if said else "?"


def row(name, ways):
    reports = [r for some in ways.values() for r in some]
    ran = [r for r in reports if r["outcome"] != "skipped"]
    commands = [r["command"] for r in reports if r.get("command")]
    if not ran:
        reason = next((r["reason"] for r in reports), "not tried").removeprefix("Skipped: ")
        return f"| {name} | - | {ALL[name].library} | - | - | - | - | - | not tested: {reason} | |"
    command = f"`{commands[0]}`" if commands else ""
    ways, in_process = without_what_was_not(ways)
    return f"| {name} | {version(name)} | {ALL[name].library} | {here(ways.get('channel', []))} | " \
        f"{in_process} | {in_guests(ways)} | {guest_suite(reports)} | {copied(ways)} | {limits(name, reports)} | {command} |"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    found = read(sys.argv[1:])
    text = HEAD + "".join(row(name, found[name]) + "\n" for name in ALL if name in found)
    # Folders, ports and processes of one run say nothing to anybody.
    for found, word in (r"/tmp/fw-\w+", "DIR"), (r"/\S+/build/", "build/"), (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"), (r"/proc/\d+/ns/net", "NETNS"):
        text = re.sub(found, word, text)
    print(text, end="")


main()
