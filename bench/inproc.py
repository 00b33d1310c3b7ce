#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One daemon binary, examples/passthrough over a file in the page cache, in four ways, in turn: on the local /dev/fuse,
through the channel, in-process, and beside it the C virtiofsd. Then examples/empty in-process against fusewire null.

usage: inproc.py [--rounds N] [--seconds S] [--poll] [--large-depth N] [--daemon-options "..."] [--only WORD]

The driver is on core 0, device and daemon on core 1. Reads and writes go past the driver's cache. CPU time is that of the
daemon and of fusewire: the driver's is not in it.
"""
import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time

import benchlib as b

FILE, FILE_BYTES = "file", 256 << 20
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
PASSTHROUGH, EMPTY = (os.path.join(b.BUILD, "examples", name) for name in ("passthrough", "empty"))
MIB = 1 << 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--poll", action="store_true", help="the driver of virtio-fs looks for replies, and does not sleep")
    parser.add_argument("--large-depth", type=int, default=1, help="of the 1 MiB requests")
    parser.add_argument("--daemon-options", default="", help="more options for examples/passthrough")
    parser.add_argument("--only", choices=["passthrough", "empty"])
    return parser.parse_args()


def has_in_process():
    told = subprocess.run([b.FUSEWIRE, "run", "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return "--in-process" in told


def cpu_of(pid):
    """Seconds that @pid and its live descendants have run."""
    total = 0.0
    for one in b.descendants(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/stat") as f:
            total += sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13])
    return total / os.sysconf("SC_CLK_TCK")


class Local:
    """The daemon's own mount; the driver is this machine's kernel."""

    def __init__(self, stack, options, folder, args):
        self.mnt, self.args = os.path.join(folder, "mnt"), args
        self.process = subprocess.Popen(["taskset", "-c", b.DEVICE_CPU, PASSTHROUGH, "-f", *options,
                                         os.path.join(folder, "src"), self.mnt])
        stack.callback(self.stop)
        end = time.monotonic() + 10
        while not os.path.ismount(self.mnt):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("the daemon did not mount")
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    def measure(self, op, block, depth):
        before = cpu_of(self.process.pid)
        rate = b.number([b.tool("local_load"), os.path.join(self.mnt, FILE), op, str(block), str(depth),
                         str(self.args.seconds), b.DRIVER_CPU])
        return rate, (cpu_of(self.process.pid) - before) / (rate * self.args.seconds) * 1e6


class Device:
    """A device that stays; the driver is `fusewire bench`."""

    def __init__(self, stack, command, args, name=FILE):
        self.args, self.name = args, name
        self.path, self.pid = stack.enter_context(b.device(command, cpu=b.DEVICE_CPU))

    def load(self, op, block, depth):
        before = cpu_of(self.pid)
        done = b.load(self.path, b.mode(op, block), self.name, block, depth, self.args.seconds,
                      "--cpu", b.DRIVER_CPU, *(["--poll"] if self.args.poll else []))
        return done["iops"], (cpu_of(self.pid) - before) / done["requests"] * 1e6

    measure = load


class Virtiofsd(Device):
    """Ends with its front-end: one for each measurement."""

    def __init__(self, folder, args):
        self.args, self.name, self.folder = args, FILE, folder
        self.path = os.path.join(folder, "virtiofsd")

    def measure(self, op, block, depth):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with open(os.path.join(self.folder, "virtiofsd.log"), "wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", b.DEVICE_CPU, VIRTIOFSD, f"--socket-path={self.path}", "-o",
                 f"source={os.path.join(self.folder, 'src')},cache=always,sandbox=chroot"], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 10
            while not os.path.exists(self.path):
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError("virtiofsd did not start")
                time.sleep(0.02)
            self.pid = process.pid
            return self.load_with_time(op, block, depth)
        finally:
            process.terminate()
            process.wait(timeout=30)

    def load_with_time(self, op, block, depth):
        """It is gone when `fusewire bench` is: that one tells the CPU time."""
        pids = [x for pid in b.descendants(self.pid) for x in ("--pid", str(pid))]
        done = b.load(self.path, b.mode(op, block), self.name, block, depth, self.args.seconds,
                      "--cpu", b.DRIVER_CPU, *(["--poll"] if self.args.poll else []), *pids)
        return done["iops"], done["cpu_s_per_million_requests"]["device"]


def print_case(name, results):
    """@results: for each side, (rate, CPU seconds per million requests) of each round."""
    print(f"\n{name:28} {'median':>12} {'spread':>19} {'of /dev/fuse':>13} {'spread':>12} {'CPU s/M':>8} {'of /dev/fuse':>13}")
    for side, values in results.items():
        rates, cpu = [v[0] for v in values], [v[1] for v in values]
        ratios = [v[0] / l[0] for v, l in zip(values, results["/dev/fuse"])]
        cpu_ratios = [v[1] / l[1] for v, l in zip(values, results["/dev/fuse"]) if l[1]]
        print(f"{side:28} {b.median(rates):10,.0f}/s {b.spread(rates):>19} {b.median(ratios):13.2f} "
              f"{min(ratios):6.2f}-{max(ratios):<5.2f} {b.median(cpu):8.2f} {b.median(cpu_ratios):13.2f}")
    if "in-process" in results:
        ratios = [v[0] / c[0] for v, c in zip(results["in-process"], results["channel"])]
        print(f"{'in-process / channel':28} {b.median(ratios):.2f}  {min(ratios):.2f}-{max(ratios):.2f}")


def rounds_of(args, sides, cases):
    results = {case: {side: [] for side in sides} for case in cases}
    for n in range(args.rounds):
        for case in cases:
            for name, side in sides.items():
                b.progress(f"round {n + 1} of {args.rounds}: {case[0]} {case[1] >> 10} KiB, depth {case[2]}: {name}")
                results[case][name].append(side.measure(*case))
    b.progress_end()
    return results


def fill(folder):
    os.mkdir(os.path.join(folder, "src"))
    path = os.path.join(folder, "src", FILE)
    with open(path, "wb") as f:
        for _ in range(FILE_BYTES // MIB):
            f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())
    with open(path, "rb") as f:
        while f.read(MIB):
            pass


def bench_passthrough(args, in_process):
    cases = [("read", 4096, 1), ("read", 4096, 32), ("read", MIB, args.large_depth), ("write", MIB, args.large_depth)]
    options = ["--cache", *args.daemon_options.split()]
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, contextlib.ExitStack() as stack:
        fill(folder)
        for name in ("mnt", "unused"):
            os.mkdir(os.path.join(folder, name))
        daemon = ["--", PASSTHROUGH, "-f", *options, os.path.join(folder, "src"), os.path.join(folder, "unused")]
        sides = {"/dev/fuse": Local(stack, options, folder, args)}
        never, always = (["--in-process", how] if in_process else [] for how in ("never", "always"))
        sides["channel"] = Device(stack, ["run", *never, *daemon], args)
        if in_process:
            sides["in-process"] = Device(stack, ["run", *always, *daemon], args)
        if os.path.exists(VIRTIOFSD):
            sides["virtiofsd (C)"] = Virtiofsd(folder, args)
        for (op, block, depth), results in rounds_of(args, sides, cases).items():
            print_case(f"{op} {block >> 10} KiB, depth {depth}", results)


def bench_empty(args, in_process):
    if not in_process:
        return
    args.poll = True
    case = ("read", 4096, 32)
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, contextlib.ExitStack() as stack:
        sides = {"fusewire null": Device(stack, ["null", "--size", str(FILE_BYTES)], args, "data")}
        # Real pages behind the file: reads of memory that was never written would all hit one page of zeros.
        b.load(sides["fusewire null"].path, "write", "data", MIB, 8, 1, "--poll")
        for name, options in {"empty, in-process": [], "empty -s, in-process": ["-s"]}.items():
            sides[name] = Device(stack, ["run", "--in-process", "always", "--", EMPTY, "-f", f"--size={FILE_BYTES}", *options,
                                         folder], args, "data")
        results = rounds_of(args, sides, [case])[case]
    print(f"\n{'read 4 KiB, depth 32, polled':28} {'median':>12} {'spread':>23} {'of null':>8} {'spread':>12} {'CPU s/M':>8}")
    for name, values in results.items():
        rates = [v[0] for v in values]
        ratios = [v[0] / n[0] for v, n in zip(values, results["fusewire null"])]
        print(f"{name:28} {b.median(rates):10,.0f}/s {b.spread(rates):>23} {b.median(ratios):8.2f} "
              f"{min(ratios):6.2f}-{max(ratios):<5.2f} {b.median([v[1] for v in values]):8.2f}")


def main():
    args = parse()
    if not os.path.exists(PASSTHROUGH):
        sys.exit("inproc.py: examples/passthrough is not built: libfuse3-dev is needed")
    in_process = has_in_process()
    if not in_process:
        print("inproc.py: this fusewire run has no --in-process: without it", file=sys.stderr)
    print(b.machine_line() + (", driver polls" if args.poll else ", driver sleeps"))
    if args.only != "empty":
        bench_passthrough(args, in_process)
    if args.only != "passthrough":
        bench_empty(args, in_process)


main()
