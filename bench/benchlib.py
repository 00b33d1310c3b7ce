# SPDX-License-Identifier: BSD-3-Clause
"""What the measuring scripts share: start and stop processes, take medians, print tables."""
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("FUSEWIRE_BUILD", os.path.join(ROOT, "build"))
FUSEWIRE = os.path.join(BUILD, "src/cli/fusewire")
DRIVER_CPU, DEVICE_CPU = "0", "1"


def tool(name):
    return os.path.join(BUILD, "bench", name)


def number(argv, timeout=120):
    """Run a tool that prints one number."""
    return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=timeout, text=True).stdout)


@contextlib.contextmanager
def on_device_cpu():
    """What is started meanwhile stays on DEVICE_CPU; servers that run already stay where the scheduler puts them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(DEVICE_CPU)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class LoadError(RuntimeError):
    """The device does not do what `fusewire bench` wants; its message."""


def load(path, rw, file, block, depth, seconds, *options):
    """`fusewire bench` against a device; gives its results."""
    argv = [FUSEWIRE, "bench", "--json", "--rw", rw, "--file", file, "--bs", str(block), "--iodepth", str(depth),
            "--runtime", str(seconds), *options, path]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, text=True)
    if done.returncode:
        raise LoadError(f"{' '.join(argv)}: {done.stderr}")
    return json.loads(done.stdout)


# Smaller blocks go to random places, as local_load's do.
SEQUENTIAL_FROM = 128 << 10


def mode(op, block):
    """`fusewire bench`'s word for a read or write of blocks of this size."""
    return op if block >= SEQUENTIAL_FROM else "rand" + op


def rates(local_file, devices, op, block, depth, seconds, turn=0, options=(), cpu=None):
    """Operations per second past all caches of this machine: {side: rate} of "local" and of each of @devices, {side: (socket,
    file)}, loaded with more @options; every second @turn in reverse order. Writes end with an fsync(2) whose time counts.
    The load of all sides is on processor @cpu, if it is given."""
    write = op == "write"
    found = {}
    for side in ["local", *devices][::-1 if turn % 2 else 1]:
        if side == "local":
            found[side] = number([tool("local_load"), local_file, "write-fsync" if write else op, str(block), str(depth),
                                  str(seconds), *([cpu] if cpu else [])])
        else:
            path, file = devices[side]
            found[side] = load(path, mode(op, block), file, block, depth, seconds, "--direct", *options,
                               *(["--end-fsync"] if write else []), *(["--cpu", cpu] if cpu else []))["iops"]
    return found


class Comparison:
    """Rates of "local" and other sides, round for round; prints medians and ratios within the rounds."""

    def __init__(self, sides):
        self.sides = list(sides)
        self.rounds = {}

    def add(self, case, found):
        self.rounds.setdefault(case, []).append(found)

    def ratios(self, case, side):
        return [found[side] / found["local"] for found in self.rounds[case]]

    def print_head(self):
        print(f"{'':30} {'/dev/fuse':>12}" + "".join(f" {side:>12} {'ratio':>6} {'':11}" for side in self.sides))

    def print_row(self, case, name):
        line = f"{name:30} {median([found['local'] for found in self.rounds[case]]):10,.0f}/s"
        for side in self.sides:
            ratios = self.ratios(case, side)
            line += f" {median([found[side] for found in self.rounds[case]]):10,.0f}/s {median(ratios):6.2f}  " \
                    f"{min(ratios):4.2f}-{max(ratios):<5.2f}"
        print(line)


def median(values):
    return statistics.median(values)


def spread(values):
    return f"{min(values):,.0f}-{max(values):,.0f}"


def progress(text):
    if sys.stderr.isatty():
        print("\r\033[K" + text, end="", file=sys.stderr, flush=True)


def progress_end():
    progress("")


@contextlib.contextmanager
def starting_device(arguments, cpu=None):
    """A fusewire; gives what waits until it serves and returns (socket, pid)."""
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder:
        path = os.path.join(folder, "socket")
        ready, write = os.pipe()
        argv = [FUSEWIRE, arguments[0], "--socket", path, "--tag", "bench", "--log-level", "error",
                "--ready-fd", str(write)] + arguments[1:]
        if cpu is not None:
            argv = ["taskset", "-c", str(cpu)] + argv
        process = subprocess.Popen(argv, pass_fds=[write])
        os.close(write)
        try:
            def wait():
                if not os.read(ready, 64):
                    raise RuntimeError("fusewire did not start")
                return path, process.pid

            yield wait
        finally:
            os.close(ready)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@contextlib.contextmanager
def device(arguments, cpu=None):
    """A serving fusewire; gives (socket, pid)."""
    with starting_device(arguments, cpu) as wait:
        yield wait()


def descendants(pid):
    """@pid and what it started, and so on."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", encoding="ascii") as f:
                    found += [int(child) for child in f.read().split()]
    return found


def cpu_seconds(pid):
    """User and system time of a process and its children so far, in seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def machine_line():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    return f"{os.cpu_count()} cores, {model}, Linux {os.uname().release}, load {os.getloadavg()[0]:.2f}, " + \
        time.strftime("%Y-%m-%d")
