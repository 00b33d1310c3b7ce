#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""sshfs over the channel, and in-process, against the same sshfs on the local /dev/fuse, in turn, same loopback sshd.

Usage: sshfs.py [ROUNDS [SECONDS]]

All sides bypass the page cache: one daemon request per request. Writes end with an fsync(2) whose time counts. sshfs answers a write
before the server has it, and the server slows down by an order of magnitude when small writes pile up, so the last rows tell of small
writes of a second sshfs with -o sshfs_sync, where each waits for the server.
"""
import contextlib
import os
import subprocess
import sys
import tempfile

import benchlib as b

sys.path.insert(0, os.path.join(b.ROOT, "tests/lib"))
from sshd import Sshd  # noqa: E402

CASES = [(op, block, depth) for op in ("read", "write") for block in (4096, 1 << 20) for depth in (1, 16)]
SYNC_CASES = [("write", 4096, depth) for depth in (1, 16)]
WAYS = ("never", "always")
FILE_BYTES = 64 << 20


class Sides:
    """One sshfs on /dev/fuse, by channel and in-process, with the same options."""

    def __init__(self, stack, folder, sshd, data, options):
        unused, self.mnt = (os.path.join(folder, name + str(len(options))) for name in ("unused", "mnt"))
        os.mkdir(unused)
        os.mkdir(self.mnt)
        subprocess.run(sshd.sshfs_command(data, self.mnt, *options), check=True)
        stack.callback(subprocess.run, ["fusermount3", "-u", self.mnt], check=True)
        daemon = sshd.sshfs_command(data, unused, *options, "-f")
        self.paths = {way: stack.enter_context(b.device(["run", "--in-process", way, "--"] + daemon))[0] for way in WAYS}
        self.results = {}

    def measure(self, case, seconds):
        op, block, depth = case
        results = self.results.setdefault(case, {"local": [], **{way: [] for way in WAYS}})
        results["local"].append(b.number([b.tool("local_load"), os.path.join(self.mnt, "file"),
                                          "write-fsync" if op == "write" else op, str(block), str(depth), seconds]))
        # As local_load: small blocks at random places, large ones in order.
        rw = op if block >= 128 << 10 else "rand" + op
        for way, path in self.paths.items():
            results[way].append(b.load(path, rw, "file", block, depth, seconds,
                                       *(["--end-fsync"] if op == "write" else []))["iops"])


def print_row(name, results):
    line = f"{name:30} {b.median(results['local']):10,.0f}/s"
    for way in WAYS:
        ratios = [c / l for c, l in zip(results[way], results["local"])]
        line += f" {b.median(results[way]):10,.0f}/s {b.median(ratios):6.2f}  {min(ratios):4.2f}-{max(ratios):<5.2f}"
    print(line)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = sys.argv[2] if len(sys.argv) > 2 else "2"
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, contextlib.ExitStack() as stack:
        data = os.path.join(folder, "data")
        os.mkdir(data)
        with open(os.path.join(data, "file"), "wb") as f:
            for _ in range(FILE_BYTES >> 20):
                f.write(os.urandom(1 << 20))
        sshd = stack.enter_context(Sshd(os.path.join(folder, "sshd")))
        usual = Sides(stack, folder, sshd, data, [])
        sync = Sides(stack, folder, sshd, data, ["-o", "sshfs_sync"])
        for n in range(rounds):
            for sides, case in [(usual, c) for c in CASES] + [(sync, c) for c in SYNC_CASES]:
                b.progress(f"round {n + 1} of {rounds}: {case[0]} {case[1]} depth {case[2]}")
                sides.measure(case, seconds)
    b.progress_end()
    print(b.machine_line())
    print(f"{'':30} {'/dev/fuse':>12} {'channel':>12} {'ratio':>6} {'':11} {'in-process':>12} {'ratio':>6}")
    for sides, label in ((usual, ""), (sync, "sync ")):
        for case, results in sides.results.items():
            print_row(f"{label}{case[0]} {case[1] >> 10} KiB, depth {case[2]}", results)


main()
