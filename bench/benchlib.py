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


def tool(name):
    return os.path.join(BUILD, "bench", name)


def number(argv, timeout=120):
    """Run a tool that prints one number."""
    return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=timeout, text=True).stdout)


def load(path, rw, file, block, depth, seconds, *options):
    """`fusewire bench` against a device; gives its results."""
    argv = [FUSEWIRE, "bench", "--json", "--rw", rw, "--file", file, "--bs", str(block), "--iodepth", str(depth),
            "--runtime", str(seconds), *options, path]
    return json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=120, text=True).stdout)


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
def device(arguments, cpu=None):
    """A serving fusewire; gives (socket, pid)."""
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
            if not os.read(ready, 64):
                raise RuntimeError("fusewire did not start")
            yield path, process.pid
        finally:
            os.close(ready)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def cpu_seconds(pid):
    """User and system time of a process and its children so far, in seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def machine_line():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    return f"{os.cpu_count()} cores, {model}, Linux {os.uname().release}, load {os.getloadavg()[0]:.2f}, " + \
        time.strftime("%Y-%m-%d")
