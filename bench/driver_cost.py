#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Is the load generator the bottleneck? CPU time of `fusewire bench` per request against fusewire null, beside the CPU time
that the C virtiofsd takes per request over a file in the page cache, in turn. Driver on one core, device on the other.

usage: driver_cost.py [ROUNDS [SECONDS]]
"""
import os
import subprocess
import sys
import tempfile
import time

import benchlib as b

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
FILE, FILE_BYTES, MIB = "data", 256 << 20, 1 << 20
WAYS = {"sleeps": [], "polls": ["--poll"]}


def cost(path, seconds, *options):
    """CPU seconds per million 4 KiB reads at depth 32: (driver's, device's or None)."""
    done = b.load(path, "randread", FILE, 4096, 32, seconds, "--cpu", b.DRIVER_CPU, *options)
    told = done["cpu_s_per_million_requests"]
    return told["bench"], told["device"]


def virtiofsd_cost(folder, seconds, *options):
    """It ends with its front-end: one for each measurement."""
    path = os.path.join(folder, "virtiofsd")
    source = os.path.join(folder, "src")
    with open(os.path.join(folder, "virtiofsd.log"), "wb") as log:
        process = subprocess.Popen(["taskset", "-c", b.DEVICE_CPU, VIRTIOFSD, f"--socket-path={path}", "-o",
                                    f"source={source},cache=always,sandbox=chroot"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 10
        while not os.path.exists(path):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("virtiofsd did not start")
            time.sleep(0.02)
        pids = [process.pid]
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as f:
            pids += [int(child) for child in f.read().split()]
        return cost(path, seconds, *options, *(word for pid in pids for word in ("--pid", str(pid))))
    finally:
        process.terminate()
        process.wait(timeout=30)
        if os.path.exists(path):
            os.unlink(path)


def fill(folder):
    os.mkdir(os.path.join(folder, "src"))
    with open(os.path.join(folder, "src", FILE), "wb") as f:
        for _ in range(FILE_BYTES // MIB):
            f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())


def show(name, values):
    print(f"{name:52} {b.median(values):6.2f}   {min(values):.2f}-{max(values):.2f}")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = sys.argv[2] if len(sys.argv) > 2 else "2"
    if not os.path.exists(VIRTIOFSD):
        sys.exit(f"driver_cost.py: {VIRTIOFSD} is not there: package qemu-system-common of Debian 12 has it")
    driver, device = {way: [] for way in WAYS}, {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, \
            b.device(["null", "--size", str(FILE_BYTES)], cpu=b.DEVICE_CPU) as (path, _):
        fill(folder)
        # Real pages behind the file: reads of memory that was never written would all hit one page of zeros.
        b.load(path, "write", FILE, MIB, 8, 1)
        for n in range(rounds):
            for way, options in WAYS.items():
                b.progress(f"round {n + 1} of {rounds}: the driver {way}")
                driver[way].append(cost(path, seconds, *options)[0])
                device[way].append(virtiofsd_cost(folder, seconds, *options)[1])
    b.progress_end()
    print(b.machine_line())
    print(f"{'CPU seconds per million 4 KiB reads, depth 32':52} {'median':>6}   spread")
    for way in WAYS:
        show(f"driver, against fusewire null, {way}", driver[way])
        show(f"virtiofsd (C), the driver {way}", device[way])
        show("driver / virtiofsd, same round", [d / v for d, v in zip(driver[way], device[way])])


main()
