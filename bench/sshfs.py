#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""sshfs over the channel, and in-process, against the same sshfs on the local /dev/fuse, in turn, same loopback sshd.

Usage: sshfs.py [ROUNDS [SECONDS]]

The load is on one core, sshfs and the device on the other, sshd anywhere. All sides bypass the page cache: one daemon request per
request. Writes end with an fsync(2) whose time counts. sshfs answers a write before the server has it, and the server slows
down by an order of magnitude when small writes pile up, so the last rows tell of small writes of a second sshfs with -o sshfs_sync,
where each waits for the server.
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
WAYS = {"never": "channel", "always": "in-process"}
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
        self.paths = {side: stack.enter_context(b.device(["run", "--in-process", way, "--"] + daemon))[0]
                      for way, side in WAYS.items()}
        self.comparison = b.Comparison(WAYS.values())

    def measure(self, case, seconds):
        self.comparison.add(case, b.rates(os.path.join(self.mnt, "file"), {side: (path, "file") for side, path in self.paths.items()},
                                          *case, seconds, cpu=b.DRIVER_CPU))


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
        with b.on_device_cpu():
            usual = Sides(stack, folder, sshd, data, [])
            sync = Sides(stack, folder, sshd, data, ["-o", "sshfs_sync"])
        for n in range(rounds):
            for sides, case in [(usual, c) for c in CASES] + [(sync, c) for c in SYNC_CASES]:
                b.progress(f"round {n + 1} of {rounds}: {case[0]} {case[1]} depth {case[2]}")
                sides.measure(case, seconds)
    b.progress_end()
    print(b.machine_line())
    usual.comparison.print_head()
    for sides, label in ((usual, ""), (sync, "sync ")):
        for case in sides.comparison.rounds:
            sides.comparison.print_row(case, f"{label}{case[0]} {case[1] >> 10} KiB, depth {case[2]}")


main()
