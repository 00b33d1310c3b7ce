# SPDX-License-Identifier: BSD-3-Clause
"""Processes of a test: started until they are ready, and ended in time; who does not end tells what it does."""
import contextlib
import ctypes
import os
import select
import shutil
import subprocess
import time

CLONE_NEWNS = 0x20000
GDB_SECONDS = 30


def own_mounts():
    """Mounts of this process's own, where it may have them.

    Somebody else's new mount namespace is a copy with all that is mounted: a file system of ours would live on in it after our
    unmount, for as long as it does, where mounts are private. Copies are made of a namespace that others are in, not of this one.
    """
    if os.getuid() == 0:
        ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS)


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError as e:
        return f"({e.strerror})"


def _stacks(pid):
    """Each thread: where it waits in the kernel; then, where there is gdb, in the program."""
    try:
        tasks = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    except OSError:
        return "it is gone\n"
    text = ""
    for tid in tasks:
        task = f"/proc/{pid}/task/{tid}"
        state = _read(f"{task}/stat").rsplit(")", 1)[-1].split()[:1]
        text += f"thread {tid} {_read(f'{task}/comm')}: {' '.join(state)}, wchan {_read(f'{task}/wchan')}\n{_read(f'{task}/stack')}\n"
    if shutil.which("gdb"):
        try:
            text += subprocess.run(["gdb", "-batch", "-nx", "-p", str(pid), "-ex", "thread apply all bt"], stdin=subprocess.DEVNULL,
                                   capture_output=True, text=True, timeout=GDB_SECONDS, check=False).stdout
        except subprocess.TimeoutExpired:
            text += f"gdb says nothing in {GDB_SECONDS} s\n"
    return text


def cpu_seconds(*pids):
    """What processes have had of the processors."""
    ticks = 0
    for pid in pids:
        fields = _read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def mounts_elsewhere(path):
    """Who has something mounted at that path that is not (any more) mounted here: a process of each other mount namespace."""
    found, seen = [], {os.readlink("/proc/self/ns/mnt")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in seen and any(line.split()[4] == str(path) for line in open(f"/proc/{pid}/mountinfo", encoding="utf-8")):
                found.append(f"{pid} {_read(f'/proc/{pid}/comm')}")
            seen.add(namespace)
        except OSError:
            continue
    return found


def wait_end(process, seconds=20, mount_point=None):
    """Its exit status. A process that does not end in time is a failure that shows where it is, and who still has its mount."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        text = f"{process.args}: does not end within {seconds} s; load {_read('/proc/loadavg')}\n"
        if mount_point:
            text += f"mounted elsewhere: {mounts_elsewhere(mount_point)}\n"
        raise AssertionError(text + _stacks(process.pid)) from None


def end(process, seconds=20):
    """By SIGTERM, at last by SIGKILL."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def children(pid):
    """Those of all of its threads: [(pid, name of the process)]"""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                for child in f.read().split():
                    with open(f"/proc/{child}/comm", encoding="utf-8", errors="replace") as comm:
                        found.append((int(child), comm.read().strip()))
    except OSError:
        pass
    return found


def descendants(pid):
    below = children(pid)
    return below + [one for child, _ in below for one in descendants(child)]


def kill_with_descendants(process, seconds=20):
    """SIGKILL to one whose descendants end with it (PR_SET_PDEATHSIG): not before each is gone, with all that it had open,
    which the end of @process alone does not tell."""
    watched = {}
    for pid, name in descendants(process.pid) if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
            watched[os.pidfd_open(pid)] = f"{pid} {name}"
    process.kill()
    process.wait()
    deadline = time.monotonic() + seconds
    left = [who for fd, who in watched.items() if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]]
    for fd in watched:
        os.close(fd)
    assert not left, f"{process.args} was killed, but not within {seconds} s ended: {left}"


class Ready:
    """A program with --ready-fd, whose words go to a file; ends with the block.

    @before, @after: its words; --ready-fd stands between them.
    """

    def __init__(self, before, after, log, **more):
        read, write = os.pipe()
        self.ready = os.fdopen(read, "rb")
        self.log = log
        # Writers share one offset, and read() has its own: a write between a seek and a read would end what is read.
        with open(log, "wb") as out:
            self.process = subprocess.Popen([*before, "--ready-fd", str(write), *after], pass_fds=[write],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out, **more)
        os.close(write)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def is_ready(self):
        """Once: whether it says so, or ends before."""
        return self.ready.read() == b"READY=1\n"

    def wait_ready(self):
        assert self.is_ready(), self.text()

    def wait(self, seconds=20):
        return wait_end(self.process, seconds)

    def end(self, sig):
        self.process.send_signal(sig)
        return self.wait()

    def close(self):
        end(self.process)
        self.ready.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
