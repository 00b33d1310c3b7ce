# SPDX-License-Identifier: BSD-3-Clause
"""One daemon's file system in three ways: mounted as its author meant it, by `fusewire run` with `fusewire mount`, and
by `fusewire run` in a virtual machine."""
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import guest  # noqa: E402
from guest import FUSEWIRE, GUEST_SUITE, wait_for  # noqa: E402
from process import children, descendants, own_mounts, wait_end  # noqa: E402

START_SECONDS = 90
END_SECONDS = 60
# Some stay two processes for good.
BACKGROUND_SECONDS = 5
# How the daemon meets the device: never (by the channel), auto or always.
WAY = os.environ.get("FUSEWIRE_IN_PROCESS") or "auto"
own_mounts()


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == path for line in f)


class Process:
    """A program whose output goes to a log; ends with the block."""

    def __init__(self, log, command):
        self.command, self.log = command, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-40:])

    def wait_ready(self, condition):
        wait_for(f"{self.command}\n{self.text()}", lambda: condition() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, f"{self.command} ended with {self.process.returncode}\n{self.text()}"

    def wait(self):
        return self.process.wait(END_SECONDS)

    def terminate(self):
        """Returns the exit status."""
        self.process.terminate()
        return self.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Mounted(Process):
    """A process that mounts at self.mountpoint: a daemon on this machine's /dev/fuse, or `fusewire mount`."""

    def __init__(self, log, command, mountpoint):
        self.mountpoint = mountpoint
        os.makedirs(mountpoint, exist_ok=True)
        super().__init__(log, command)
        try:
            self.wait_ready(lambda: is_mounted(mountpoint))
        except BaseException:
            self.close()
            raise

    def unmount(self):
        """Returns the exit status of the process behind the mount."""
        subprocess.run(["umount", self.mountpoint], check=True, timeout=END_SECONDS)
        return wait_end(self.process, END_SECONDS, self.mountpoint)

    def close(self):
        if is_mounted(self.mountpoint):
            subprocess.run(["umount", "-l", self.mountpoint], check=False)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        super().close()


class Served(Process):
    """`fusewire run` of a daemon. Also what guest.vm() calls a back-end."""

    queues = 2

    def __init__(self, folder, name, command, *options, tag="t", wrap=(), program=None):
        """@wrap: what `fusewire run` itself is started with; @program: name of the daemon's process"""
        self.folder, self.name, self.tag = folder, name, tag
        self.program = program or os.path.basename(command[0])
        self.socket = os.path.join(folder, name + ".sock")
        super().__init__(os.path.join(folder, name + ".log"),
                         [*wrap, FUSEWIRE, "run", "--socket", self.socket, "--tag", self.tag,
                          "--queues", str(self.queues), "--in-process", WAY, *options, "--", *command])
        try:
            self.wait_ready(lambda: os.path.exists(self.socket))
        except BaseException:
            self.close()
            raise

    def wait_background(self):
        """Until the command has ended, as a script waits for it before it goes on: what it left behind is then our child.
        Some look again and again whether their daemon is mounted: rclone, for a minute if that comes and goes too quickly."""
        sleep_until(lambda: len(descendants(self.process.pid)) == len(children(self.process.pid)), BACKGROUND_SECONDS)

    def mount(self):
        return Mounted(self.log + ".mount", [FUSEWIRE, "mount", self.socket, os.path.join(self.folder, self.name)],
                       os.path.join(self.folder, self.name))

    def way(self):
        """How it is served at last."""
        return "in-process" if "served in-process" in self.text() else "channel"

    def daemon_pids(self):
        """The daemon's processes, wherever they are below us: those of its name, or else the one that was started last."""
        below = descendants(self.process.pid)
        named = [pid for pid, name in below if name == self.program[:15]]
        return named or [max(pid for pid, _ in below)]


RESULT = re.compile(r"^(ok|not ok) \d+ - (.*?)(?: # (SKIP )?(.*))?$", re.MULTILINE)


def parse_suite(text):
    """The guest suite's output as {test: passed | skipped: reason | failed: reason}."""
    return {name: "failed: " + why if word == "not ok" else "skipped: " + why if skip else "passed"
            for word, name, skip, why in RESULT.findall(text)}


def suite_here(mountpoint, options, folder):
    done = subprocess.run([GUEST_SUITE, *options, mountpoint, folder], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    results = parse_suite(done.stdout)
    assert results, done.stdout
    return results


def kill_daemon(served):
    """All of the daemon's processes: the end of a helper of the same name (glusterfs has one) tells nothing."""
    pids = served.daemon_pids()
    assert pids, "no daemon"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def sleep_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.05)
    return condition()
