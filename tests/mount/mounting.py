# SPDX-License-Identifier: BSD-3-Clause
"""Processes of the mount tests: a device, and `fusewire mount` of it."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
import virtiofsd  # noqa: E402
from process import Ready, end, own_mounts, wait_end  # noqa: E402
from sshd import Sshd  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]
NULL_SIZE = "64M"
own_mounts()


def no_fuse():
    """Why the machine cannot mount, or None."""
    if os.getuid() != 0:
        return "mounts need root here"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"/dev/fuse: {e.strerror}"
    return None


def is_mounted(path):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == str(path) for line in f)


class Process(Ready):
    """A command of fusewire's that serves or mounts."""

    def __init__(self, before, after):
        super().__init__([FUSEWIRE, *before], after, os.path.join(os.environ["FW_MOUNT_DIR"], f"log-{before[0]}"))


class Mount(Process):
    """fusewire mount of a socket at a directory."""

    def __init__(self, socket, at, *options):
        self.at = at
        super().__init__(["mount"], [*options, str(socket), str(at)])

    def wait(self, seconds=20):
        return wait_end(self.process, seconds, self.at)

    def unmount(self):
        """By somebody else: it ends, and well."""
        subprocess.run(["umount", str(self.at)], check=True, timeout=20)
        assert self.wait() == 0, self.text()
        assert not is_mounted(self.at)

    def close(self):
        super().close()
        if is_mounted(self.at):
            subprocess.run(["umount", "-l", str(self.at)], check=False)


@contextlib.contextmanager
def mounted_device(make, *options):
    """The device that make() gives for a socket, its mount and the folder of that; both have ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        top = pathlib.Path(name)
        os.environ["FW_MOUNT_DIR"] = name
        (top / "mnt").mkdir()
        device = make(top / "socket")
        device.start()
        with Mount(top / "socket", top / "mnt", *options) as m:
            m.wait_ready()
            yield device, m, top / "mnt"
        device.join(10)
        assert not device.is_alive() and not is_mounted(top / "mnt")


def no_loop():
    """Why a file's file system cannot be mounted here, or None."""
    if not os.path.exists("/dev/loop-control"):
        return "no loop devices"
    with open("/proc/filesystems") as f:
        if "ext4" not in f.read().split():
            return "the kernel has no ext4"
    return None if shutil.which("mkfs.ext4") else "e2fsprogs is not installed"


@contextlib.contextmanager
def file_system_in(file, at):
    """The kernel's ext4 in a file of a mounted device; found whole when it is unmounted."""
    at.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", str(file)], check=True, timeout=60)
    subprocess.run(["mount", "-t", "ext4", "-o", "loop", str(file), str(at)], check=True, timeout=60)
    try:
        shutil.rmtree(at / "lost+found")
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True, timeout=60)
    subprocess.run(["e2fsck", "-fn", str(file)], check=True, timeout=60, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def foreign_device(top, kind):
    """One of virtiofsd, for one mount: it ends with that."""
    socket = top / "socket"
    with subprocess.Popen(virtiofsd.command(kind, socket, top / "src"), stderr=subprocess.DEVNULL) as process:
        try:
            assert wait_for(socket.exists)
            yield process
            assert wait_for(lambda: process.poll() is not None), "it does not end with its front-end"
        finally:
            end(process)
            socket.unlink(missing_ok=True)


@contextlib.contextmanager
def device(top, kind, *more):
    """A device of that kind on top/socket, over the directory top/src; null has @more options."""
    socket = str(top / "socket")
    if kind in virtiofsd.KINDS:
        (top / "src").mkdir()
        with foreign_device(top, kind) as process:
            yield process
        return
    with contextlib.ExitStack() as stack:
        if kind == "null":
            p = stack.enter_context(Process(["null", "--socket", socket, "--size", NULL_SIZE], more))
        else:
            (top / "src").mkdir(exist_ok=True)
            (top / "daemon").mkdir(exist_ok=True)
            if kind == "sshfs":
                s = stack.enter_context(Sshd(str(top / "sshd")))
                # Its cache of attributes shows old sizes after O_TRUNC, on the local /dev/fuse as well.
                command = s.sshfs_command(str(top / "src"), str(top / "daemon"), "-o", "dir_cache=no")
            else:
                command = ["bindfs", "-f", str(top / "src"), str(top / "daemon")]
            way = ["--in-process", os.environ.get("FUSEWIRE_TEST_IN_PROCESS", "always")]
            p = stack.enter_context(Process(["run", *way, "--socket", socket, "--tag", "t"], ["--", *command]))
        p.wait_ready()
        yield p


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def state(pid):
    """R, S, D, Z...; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _processes_of(top):
    """Processes but this one that were started for this folder: it is in their words or their environment."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words, env = (open(f"/proc/{pid}/{name}", "rb").read() for name in ("cmdline", "environ"))
            if os.fsencode(str(top)) in words + env:
                found[int(pid)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def _lines_of(path, top):
    with open(path) as f:
        return [line.rstrip() for line in f if f"{top}/" in line]


def assert_nothing_left(top):
    """No process, no mount and no socket of what ran in this folder."""
    wait_for(lambda: not _processes_of(top))
    assert _processes_of(top) == {}
    assert _lines_of("/proc/self/mountinfo", top) == []
    assert _lines_of("/proc/net/unix", top) == []
    assert [str(p) for p in top.rglob("*") if p.is_socket()] == []
