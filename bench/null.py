#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""fusewire null against a bare shared-memory ring, in turn, driver on one core and device on the other.

Usage: null.py [ROUNDS [SECONDS]]
"""
import sys

import benchlib as b

DRIVER_CPU, DEVICE_CPU = "0", "1"


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = sys.argv[2] if len(sys.argv) > 2 else "2"
    polled = ["--poll", "--cpu", DRIVER_CPU]
    rows = {"bare ring, 4 KiB copied per entry": [], "null, 4 KiB reads, depth 32": [], "null, GETATTR, depth 32": []}
    ratios = []
    with b.device(["null", "--size", "256M", "--poll-us", "1000"], cpu=DEVICE_CPU) as (path, _):
        # Real pages behind the file: reads of memory that was never written would all hit one page of zeros.
        b.load(path, "write", "data", 1 << 20, 8, 1, *polled)
        for n in range(rounds):
            b.progress(f"round {n + 1} of {rounds}")
            bare = b.number([b.tool("bare_ring"), DRIVER_CPU, DEVICE_CPU, seconds])
            read = b.load(path, "randread", "data", 4096, 32, seconds, *polled)["iops"]
            attr = b.load(path, "getattr", "data", 4096, 32, seconds, *polled)["iops"]
            for row, value in zip(rows.values(), (bare, read, attr)):
                row.append(value)
            ratios.append(read / bare)
    b.progress_end()
    print(b.machine_line())
    for name, values in rows.items():
        print(f"{name:36} {b.median(values):12,.0f}/s   {b.spread(values)}")
    print(f"{'reads / bare ring, same round':36} {b.median(ratios):12.2f}     {min(ratios):.2f}-{max(ratios):.2f}")


main()
