# SPDX-License-Identifier: BSD-3-Clause
"""launch/ with real daemons: every way to start them, every way in which they end."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from sshd import Sshd  # noqa: E402

CLIENT = os.environ["FUSEWIRE_RAW_CLIENT"]
RAWFUSE = os.environ["FUSEWIRE_RAWFUSE"]
NOBODY = 65534
ROOT = os.getuid() == 0
CONTENT = bytes(range(256)) * 1000


def client(daemon, *options, user=None):
    """Run a daemon under raw_client; returns (exit status, events, the daemon's stderr)."""
    command = [CLIENT, "--file", "f", *options, "--", *daemon]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    r = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return r.returncode, r.stdout, r.stderr


def assert_served(out, size, total, err=""):
    assert re.search(r"^mounted ", out, re.M), out + err
    assert re.search(r"^init minor=\d+", out, re.M), out
    assert f"read f bytes={size} sum={total}\n" in out


@pytest.fixture(scope="module")
def place():
    """A directory to serve and mount points; others may enter it, which they may not with pytest's own."""
    with tempfile.TemporaryDirectory(prefix="fw-launch-") as name:
        yield make_place(pathlib.Path(name))


def make_place(top):
    os.chmod(top, 0o755)
    (top / "src").mkdir()
    (top / "src" / "f").write_bytes(CONTENT)
    (top / "mnt").mkdir()
    (top / "user").mkdir()
    (top / "user" / "mnt").mkdir()
    if ROOT:
        os.chown(top / "user", NOBODY, NOBODY)
        os.chown(top / "user" / "mnt", NOBODY, NOBODY)
    for program in (CLIENT, RAWFUSE):
        shutil.copy(program, top)
    return top


@pytest.fixture(scope="module")
def sshd(place):
    with Sshd(str(place / "sshd")) as s:
        yield s


def users():
    return [pytest.param(None, id="self"),
            pytest.param(NOBODY, id="nobody", marks=pytest.mark.skipif(not ROOT, reason="needs root"))]


def run_as(place, daemon, *options, user=None):
    global CLIENT
    if user is not None:
        CLIENT_SAVED, CLIENT = CLIENT, str(place / os.path.basename(CLIENT))
        try:
            return client(daemon, *options, user=user)
        finally:
            CLIENT = CLIENT_SAVED
    return client(daemon, *options)


def mountpoint(place, user):
    return str(place / "mnt" if user is None else place / "user" / "mnt")


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("flags", [[], ["-b"], ["-c"], ["-b", "-c"]], ids=lambda f: "".join(f) or "plain")
@pytest.mark.parametrize("stop,status", [("eof", 3), ("term", 143), ("kill", 137)])
def test_static(place, user, flags, stop, status):
    rc, out, err = run_as(place, [str(place / "rawfuse"), *flags, mountpoint(place, user)], "--stop", stop, user=user)
    assert_served(out, 200000, 25498504, err)
    assert "type=fuse.raw source=raw max_read=65536 rootmode=40000" in out
    assert "allow_other=1 read_only=1" in out
    assert rc == status, out + err


@pytest.mark.skipif(not ROOT, reason="needs the right to mount")
@pytest.mark.parametrize("flags", [[], ["-b"], ["-c"], ["-m"], ["-m", "-b"], ["-p"], ["-m", "-p"]],
                         ids=lambda f: "".join(f) or "plain")
def test_static_unmount(place, flags):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE in this kernel")
    rc, out, err = client([RAWFUSE, *flags, str(place / "mnt")], "--stop", "unmount")
    assert_served(out, 200000, 25498504, err)
    assert "unmount 0\n" in out and "unmounted\n" in out
    assert rc == 0, out + err


@pytest.mark.skipif(not ROOT, reason="looks at mount(2) as root")
def test_other_calls(place):
    """What is not ours is left alone, and what must be refused is."""
    rc, out, err = client([RAWFUSE, "-e", str(place / "mnt")], "--stop", "eof")
    for line in ["ordinary open: ok", "ordinary write: ok", "fsopen fuse: Function not implemented", "remount: ok",
                 "umount elsewhere: No such file or directory", "mount tmpfs on nothing: No such file or directory",
                 "mount fuse without options: Invalid argument", "vmsplice: Function not implemented",
                 "F_SETPIPE_SZ: Operation not permitted", "F_GETPIPE_SZ: ok",
                 "clone of no device: Inappropriate ioctl for device"]:
        assert line + "\n" in out, out + err
    assert_served(out, 200000, 25498504, err)


def test_mount_point_is_not_touched(place):
    before = open("/proc/self/mounts").read()
    inode = os.stat(place / "mnt").st_ino
    r = subprocess.Popen([CLIENT, "--stop", "eof", "--", RAWFUSE, str(place / "mnt")], stdout=subprocess.PIPE, text=True)
    for line in r.stdout:
        assert open("/proc/self/mounts").read() == before
        assert os.stat(place / "mnt").st_ino == inode
    assert r.wait(10) == 3


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("flags", [["-f"], [], ["-f", "-s"], ["-s"]], ids=lambda f: "".join(f) or "background")
@pytest.mark.parametrize("stop", ["eof", "unmount", "kill"])
def test_bindfs(place, user, flags, stop):
    rc, out, err = run_as(place, ["bindfs", *flags, "--no-allow-other", str(place / "src"), mountpoint(place, user)],
                          "--stop", stop, user=user)
    assert_served(out, len(CONTENT), sum(CONTENT), err)
    check_end(stop, rc, out, err)


@pytest.mark.skipif(not ROOT, reason="mount(8) is root's")
@pytest.mark.parametrize("command", [["mount", "-t", "fuse.bindfs", "SRC", "MNT"],
                                     ["mount", "-t", "fuse", "-o", "rw,nosuid", "bindfs#SRC", "MNT"]],
                         ids=["type", "source"])
def test_mount_command(place, command):
    """As in /etc/fstab: mount(8) starts mount.fuse, and that the daemon."""
    command = [a.replace("SRC", str(place / "src")).replace("MNT", str(place / "mnt")) for a in command]
    rc, out, err = client(command, "--stop", "unmount")
    assert_served(out, len(CONTENT), sum(CONTENT), err)
    check_end("unmount", rc, out, err)


def check_end(stop, rc, out, err):
    if stop == "kill":
        assert rc == 137, out + err
    elif stop == "unmount" and "unmount 0\n" in out:
        assert rc == 0, out + err
    else:
        # libfuse takes an end of file for a broken device.
        assert rc == 1, out + err
        assert stop == "eof" or not ROOT or not os.access("/dev/fuse", os.W_OK) or "unmount -" in out
    assert "timeout" not in out


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("flags", [["-f"], [], ["-s"], ["-o", "auto_unmount"]],
                         ids=lambda f: f[-1] if f else "background")
@pytest.mark.parametrize("stop", ["eof", "unmount", "kill"])
def test_sshfs(place, sshd, user, flags, stop):
    config = sshd.client_files(str(place / "user"), NOBODY) if user is not None else None
    command = sshd.sshfs_command(str(place / "src"), mountpoint(place, user), *flags, config=config)
    rc, out, err = run_as(place, command, "--stop", stop, user=user)
    assert_served(out, len(CONTENT), sum(CONTENT), err)
    assert "type=fuse.sshfs" in out
    check_end(stop, rc, out, err)


@pytest.mark.parametrize("command,message", [
    (["sshfs", "-o", "bogus", "a:b", "MNT"], "unknown option"),
    (["bindfs", "/nonexisting", "MNT"], "/nonexisting"),
    (["/nonexisting/program"], "cannot execute: No such file or directory"),
    (["/etc/passwd"], "cannot execute: Permission denied"),
])
def test_fails(place, command, message):
    rc, out, err = client([str(place / "mnt") if c == "MNT" else c for c in command])
    assert rc == 1
    assert message in err
    assert "mounted" not in out


def test_wrong_remote_directory(place, sshd):
    rc, out, err = client(sshd.sshfs_command("/nonexisting", str(place / "mnt")))
    assert rc == 1
    assert "No such file or directory" in err


def test_no_mount(place):
    rc, out, err = client(["true"])
    assert (rc, out) == (0, "status exit=0\n")


def test_leftovers_are_ended(place):
    """A command that fails and leaves something running: it is ended, and reaped."""
    rc, out, err = client(["sh", "-c", "sleep 300 & echo pid=$!; exit 7"])
    assert rc == 7
    pid = int(re.search(r"pid=(\d+)", out).group(1))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
