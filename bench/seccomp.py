#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the seccomp filter of `fusewire run` costs a daemon: examples/passthrough behind the channel, with the filter and without it,
in turn; then single system calls with the filter and without.

usage: seccomp.py [--rounds N] [--seconds S]

Both daemons are given their socket by a helper that `fusewire run` starts, which opens /dev/fuse and mounts. Then it becomes the
daemon, which so runs under the filter; or it hands the socket to a process that no fusewire started. CPU time is the daemon's: with
two processors for three processes it tells more than the rate.
"""
import argparse
import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import tempfile

import benchlib as b

PASSTHROUGH = os.path.join(b.BUILD, "examples/passthrough")
# Metadata; fusewire bench's words.
STORMS = ["lookup", "getattr", "create", "readdir"]
NR_FILES = 100
LIMIT = 1.01


def daemon_command(fd, source):
    return [PASSTHROUGH, "-f", source, f"/dev/fd/{fd}"]


def help_daemon(source, mountpoint, handover):
    """Under `fusewire run`: make the mount, then be the daemon, or hand it what it needs at the socket @handover."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bench", mountpoint.encode(), b"fuse.passthrough", 0,
                  f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    os.set_inheritable(fd, True)
    if not handover:
        os.execv(PASSTHROUGH, daemon_command(fd, source))
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(handover)
        socket.send_fds(s, [b"x"], [fd])
        os.close(fd)
        # Until the other side ends: that is the end of the device, too.
        s.recv(1)


class Device:
    """The daemon behind `fusewire run`, @filtered or not."""

    def __init__(self, stack, folder, filtered):
        name = "filtered" if filtered else "plain"
        self.source, mountpoint = os.path.join(folder, name), os.path.join(folder, name + "-mnt")
        os.mkdir(self.source)
        os.mkdir(mountpoint)
        for n in range(NR_FILES):
            with open(os.path.join(self.source, f"file{n}"), "w", encoding="ascii"):
                pass
        handover = "" if filtered else os.path.join(folder, "handover")
        command = ["run", "--in-process", "never", "--", sys.executable, os.path.abspath(__file__), "--help-daemon",
                   self.source, mountpoint, handover]
        if filtered:
            self.socket, above = stack.enter_context(b.device(command))
            self.pid = self.find(above)
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(handover)
            listener.listen()
            # The device is there when the daemon has answered: who is to start it must not wait for the device.
            starter = stack.enter_context(b.starting_device(command))
            connection = stack.enter_context(listener.accept()[0])
        _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        self.process = subprocess.Popen(daemon_command(fds[0], self.source), pass_fds=fds)
        stack.callback(self.stop)
        os.close(fds[0])
        self.pid = self.process.pid
        self.socket, _ = starter()

    @staticmethod
    def find(above):
        for pid in b.descendants(above):
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read().strip() == "passthrough":
                    return pid
        raise RuntimeError("the daemon is not there")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    def filter_mode(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Seccomp:"))

    def measure(self, storm, seconds):
        """(rate, CPU seconds of the daemon per million requests)"""
        done = b.load(self.socket, storm, "/" if storm == "readdir" else "file1", 4096, 4, seconds, "--pid", str(self.pid))
        return done["iops"], done["cpu_s_per_million_requests"]["device"]


def storms(args):
    """{storm: [{device: (rate, CPU)}]}"""
    results = {storm: [] for storm in STORMS}
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder, contextlib.ExitStack() as stack:
        devices = {"plain": Device(stack, folder, False), "filtered": Device(stack, folder, True)}
        modes = [devices[name].filter_mode() for name in ("plain", "filtered")]
        if modes != [0, 2]:
            raise RuntimeError(f"the daemons' seccomp modes are {modes}, not 0 and 2")
        for n in range(args.rounds):
            for storm in STORMS:
                b.progress(f"round {n + 1} of {args.rounds}: {storm}")
                results[storm].append({name: devices[name].measure(storm, args.seconds)
                                       for name in list(devices)[::-1 if n % 2 else 1]})
    b.progress_end()
    return results


def print_storms(results):
    print(f"{'':12} {'plain':>12} {'filtered':>12} {'ratio':>6} {'':11} {'CPU us':>8} {'CPU us':>8} {'ratio':>6}")
    everything = []
    for storm, rounds in results.items():
        rates = [r["filtered"][0] / r["plain"][0] for r in rounds]
        cpu = [r["filtered"][1] / r["plain"][1] for r in rounds]
        everything += cpu
        print(f"{storm:12} {b.median([r['plain'][0] for r in rounds]):10,.0f}/s {b.median([r['filtered'][0] for r in rounds]):10,.0f}/s "
              f"{b.median(rates):6.3f} {min(rates):5.3f}-{max(rates):5.3f} {b.median([r['plain'][1] for r in rounds]):8.2f} "
              f"{b.median([r['filtered'][1] for r in rounds]):8.2f} {b.median(cpu):6.3f} {min(cpu):5.3f}-{max(cpu):5.3f}")
    print(f"CPU time, all storms: {b.median(everything):.3f}; the limit is {LIMIT}")


def costs(words, folder, n, seconds):
    """{kind of call: ns}"""
    output = os.path.join(folder, f"cost{n}")
    done = subprocess.run([*words, b.tool("syscall_cost"), os.path.join(folder, "file"), str(seconds), output],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, text=True, check=False)
    if not os.path.exists(output):
        raise RuntimeError(done.stdout)
    with open(output, encoding="ascii") as f:
        return {kind: float(ns) for kind, ns in (line.split() for line in f)}


def calls(args):
    with tempfile.TemporaryDirectory(prefix="fusewire-bench-") as folder:
        with open(os.path.join(folder, "file"), "w", encoding="ascii"):
            pass
        under = [b.FUSEWIRE, "run", "--socket", os.path.join(folder, "socket"), "--tag", "bench", "--log-level", "error",
                 "--in-process", "never", "--"]
        found = [(costs([], folder, 2 * n, args.seconds / 10), costs(under, folder, 2 * n + 1, args.seconds / 10))
                 for n in range(args.rounds)]
    print(f"\n{'ns per call':12} {'plain':>8} {'filtered':>9} {'more':>8}")
    for kind in found[0][0]:
        plain, filtered = ([pair[side][kind] for pair in found] for side in (0, 1))
        more = [f - p for p, f in zip(plain, filtered)]
        print(f"{kind:12} {b.median(plain):8.0f} {b.median(filtered):9.0f} {b.median(more):8.0f}  {min(more):.0f}-{max(more):.0f}")


def main():
    if sys.argv[1:2] == ["--help-daemon"]:
        return help_daemon(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    args = parser.parse_args()
    if not os.path.exists(PASSTHROUGH):
        sys.exit("seccomp.py: examples/passthrough is not built: libfuse3-dev is needed")
    print(b.machine_line())
    print_storms(storms(args))
    calls(args)
    return None


main()
