#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""sshfs over the channel, and in-process, against the same sshfs on the local /dev/fuse, in turn, same loopback sshd.

Usage: sshfs.py [ROUNDS [SECONDS]]

Both sides bypass the page cache: one daemon request per request.
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
FILE_BYTES = 64 << 20


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = sys.argv[2] if len(sys.argv) > 2 else "2"
    sides = {"local": {c: [] for c in CASES}, "never": {c: [] for c in CASES}, "always": {c: [] for c in CASES}}
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, contextlib.ExitStack() as stack:
        data, mnt, unused = (os.path.join(folder, name) for name in ("data", "mnt", "unused"))
        for name in (data, mnt, unused):
            os.mkdir(name)
        with open(os.path.join(data, "file"), "wb") as f:
            for _ in range(FILE_BYTES >> 20):
                f.write(os.urandom(1 << 20))
        sshd = stack.enter_context(Sshd(os.path.join(folder, "sshd")))
        subprocess.run(sshd.sshfs_command(data, mnt), check=True)
        stack.callback(subprocess.run, ["fusermount3", "-u", mnt], check=True)
        daemon = sshd.sshfs_command(data, unused) + ["-f"]
        paths = {way: stack.enter_context(b.device(["run", "--in-process", way, "--"] + daemon))[0]
                 for way in ("never", "always")}
        for n in range(rounds):
            for case in CASES:
                op, block, depth = case
                b.progress(f"round {n + 1} of {rounds}: {op} {block} depth {depth}")
                tail = [op, str(block), str(depth), seconds]
                sides["local"][case].append(b.number([b.tool("local_load"), os.path.join(mnt, "file")] + tail))
                # As local_load: small blocks at random places, large ones in order.
                rw = op if block >= 128 << 10 else "rand" + op
                for way, path in paths.items():
                    sides[way][case].append(b.load(path, rw, "file", block, depth, seconds)["iops"])
    b.progress_end()
    print(b.machine_line())
    print(f"{'':24} {'/dev/fuse':>12} {'channel':>12} {'ratio':>6} {'':11} {'in-process':>12} {'ratio':>6}")
    for case in CASES:
        line = f"{f'{case[0]} {case[1] >> 10} KiB, depth {case[2]}':24} {b.median(sides['local'][case]):10,.0f}/s"
        for way in ("never", "always"):
            ratios = [c / l for c, l in zip(sides[way][case], sides["local"][case])]
            line += f" {b.median(sides[way][case]):10,.0f}/s {b.median(ratios):6.2f}  {min(ratios):4.2f}-{max(ratios):<5.2f}"
        print(line)


main()
