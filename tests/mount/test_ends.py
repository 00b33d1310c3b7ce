# SPDX-License-Identifier: BSD-3-Clause
"""How a mount begins and ends: from either side, in every order, and what is left."""
import errno
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from mounting import FUSEWIRE, Mount, assert_nothing_left, device, is_mounted, no_fuse, state, wait_for
from backend import Backend, by_opcode

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

NOTIFICATION = 1 << 0
# Reads and writes its file for ever; exits with the errno of the first failure.
LOAD = """
import os, sys
try:
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    print("up", flush=True)
    while True:
        os.pwrite(fd, b"x" * 100000, 0)
        os.pread(fd, 100000, 0)
        os.listdir(os.path.dirname(sys.argv[1]))
except OSError as e:
    sys.exit(e.errno)
"""

NR_READERS = 48
# Large reads at once, more than there is room for, when SIGUSR1 comes. Exits with 0 when all have failed.
READERS = f"""
import mmap, os, signal, sys, threading
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
failed = []
def read():
    try:
        os.preadv(fd, [mmap.mmap(-1, 1 << 20)], 0)
    except OSError as e:
        failed.append(e.errno)
print("up", flush=True)
signal.sigwait([signal.SIGUSR1])
threads = [threading.Thread(target=read) for _ in range({NR_READERS})]
for t in threads:
    t.start()
for t in threads:
    t.join()
sys.exit(len(failed) != {NR_READERS})
"""


def all_wait(pid):
    """Nobody of the readers runs: all are there, and wait for their reply."""
    states = [state(f"{pid}/task/{task}") for task in os.listdir(f"/proc/{pid}/task")]
    return len(states) == NR_READERS + 1 and set(states) <= {"S", "D"}


@pytest.fixture
def top():
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        os.environ["FW_MOUNT_DIR"] = name
        (pathlib.Path(name) / "mnt").mkdir()
        yield pathlib.Path(name)
        assert_nothing_left(pathlib.Path(name))


class Load:
    """Processes that use a file of the mount."""

    def __init__(self, path, count=3):
        self.processes = [subprocess.Popen([sys.executable, "-c", LOAD, f"{path}{i}"], stdout=subprocess.PIPE)
                          for i in range(count)]

    def __enter__(self):
        for p in self.processes:
            assert p.stdout.readline() == b"up\n"
        return self

    def all_ended(self):
        return all(p.poll() is not None for p in self.processes)

    def __exit__(self, *unused):
        for p in self.processes:
            p.kill()
            p.wait(10)
            p.stdout.close()


def mounted(top, *options):
    m = Mount(top / "socket", top / "mnt", *options)
    try:
        m.wait_ready()
    except AssertionError:
        m.close()
        raise
    return m


@pytest.mark.parametrize("options", [[], ["--packed"], ["--queues", "4", "--queue-size", "8"], ["--poll-us", "0"]],
                         ids=lambda o: "".join(o) or "default")
def test_null_and_mount_again(top, options):
    data = os.urandom(3 << 20)
    with device(top, "null"):
        for turn in range(3):
            with mounted(top, *options) as m:
                path = top / "mnt" / "data"
                assert path.stat().st_size == 64 << 20
                if turn == 0:
                    with open(path, "r+b") as f:
                        f.write(data)
                with open(path, "rb") as f:
                    assert f.read(len(data)) == data
                m.unmount()


def test_fewer_queues(top):
    """A device with one request queue: what is wished for by default is less than what is asked for."""
    with device(top, "null", "--queues", "1"):
        refused = subprocess.run([FUSEWIRE, "mount", "--queues", "2", str(top / "socket"), str(top / "mnt")], capture_output=True,
                                 text=True, timeout=20)
        assert refused.returncode == 1 and "it has fewer queues; give a smaller --queues" in refused.stderr
        with mounted(top) as m:
            with open(top / "mnt" / "data", "r+b") as f:
                f.write(b"hello")
            with open(top / "mnt" / "data", "rb") as f:
                assert f.read(5) == b"hello"
            # The owner, and one for each queue: requests, notifications.
            assert len(os.listdir(f"/proc/{m.process.pid}/task")) == 3


def test_read_only(top):
    with device(top, "bindfs"), mounted(top, "-o", "ro,noexec"):
        (top / "src" / "f").write_text("hello")
        assert (top / "mnt" / "f").read_text() == "hello"
        with pytest.raises(OSError) as e:
            (top / "mnt" / "g").write_text("no")
        assert e.value.errno == errno.EROFS


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal(top, sig):
    with device(top, "bindfs"), mounted(top) as m:
        (top / "mnt" / "f").write_text("hello")
        assert m.end(sig) == 0, m.text()
        assert not is_mounted(top / "mnt")
        assert (top / "src" / "f").read_text() == "hello"


def test_blanks(top):
    """Two mount points with blanks: the end of the first takes away that one."""
    places = [top / "a b", top / "c d\\e"]
    escaped = [str(p).replace("\\", "\\134").replace(" ", "\\040") for p in places]
    for p in places:
        p.mkdir()
    with device(top, "null"), Mount(top / "socket", places[0]) as first:
        first.wait_ready()
        (top / "2").mkdir()
        with device(top / "2", "null"), Mount(top / "2" / "socket", places[1]) as second:
            second.wait_ready()
            assert all(map(is_mounted, escaped))
            assert first.end(signal.SIGTERM) == 0, first.text()
            assert [is_mounted(e) for e in escaped] == [False, True]
            assert second.end(signal.SIGTERM) == 0, second.text()
            assert not is_mounted(escaped[1])


def test_signal_under_load(top):
    with device(top, "bindfs"), mounted(top) as m, Load(top / "mnt" / "f") as load:
        assert m.end(signal.SIGTERM) == 0, m.text()
        assert not is_mounted(top / "mnt")
        assert wait_for(load.all_ended)


def test_unmount_under_load(top):
    """Busy, then lazy: who has files open goes on."""
    with device(top, "bindfs"), mounted(top) as m:
        with Load(top / "mnt" / "f") as load:
            busy = subprocess.run(["umount", str(top / "mnt")], stderr=subprocess.PIPE, text=True, timeout=20)
            assert busy.returncode != 0 and "busy" in busy.stderr
            subprocess.run(["umount", "-l", str(top / "mnt")], check=True, timeout=20)
            assert not is_mounted(top / "mnt")
            assert m.process.poll() is None
            del load
        assert m.wait() == 0, m.text()


@pytest.mark.parametrize("kind", ["bindfs", "null"])
def test_device_killed(top, kind):
    with device(top, kind) as d, mounted(top) as m:
        path = top / "mnt" / ("data" if kind == "null" else "f")
        if kind == "null":
            fd = os.open(path, os.O_RDONLY)
            d.process.kill()
            assert wait_for(lambda: m.process.poll() is not None)
            with pytest.raises(OSError) as e:
                os.pread(fd, 10, 40 << 20)
            assert e.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
            with pytest.raises(OSError):
                os.close(fd)
        else:
            with Load(path) as load:
                d.process.kill()
                assert wait_for(load.all_ended), [state(p.pid) for p in load.processes]
                for p in load.processes:
                    assert p.returncode in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
        assert m.wait() == 1
        assert "the device closed the connection" in m.text()
        assert not is_mounted(top / "mnt")
    # Whom nobody let clean up.
    (top / "socket").unlink()


def test_device_stopped_then_signal(top):
    """A device that answers nothing: SIGTERM ends the mount nevertheless, and nobody hangs."""
    with device(top, "null") as d, mounted(top) as m:
        d.process.send_signal(signal.SIGSTOP)
        try:
            reader = subprocess.Popen(["head", "-c", "100", str(top / "mnt" / "data")], stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            assert not wait_for(lambda: reader.poll() is not None, 0.5)
            assert m.end(signal.SIGTERM) == 1, m.text()
            assert "the device has answered nothing for 5 s; what was not written back is lost" in m.text()
            assert reader.wait(5) != 0
            assert not is_mounted(top / "mnt")
        finally:
            d.process.send_signal(signal.SIGCONT)


def test_aborted(top):
    """`umount -f` of a busy mount aborts it: it ends, also where the device has more requests than we can hold; so does the mount."""
    with device(top, "null") as d, mounted(top, "--queues", "1") as m:
        readers = subprocess.Popen([sys.executable, "-c", READERS, str(top / "mnt" / "data")], stdout=subprocess.PIPE)
        assert readers.stdout.readline() == b"up\n"
        d.process.send_signal(signal.SIGSTOP)
        try:
            readers.send_signal(signal.SIGUSR1)
            assert wait_for(lambda: all_wait(readers.pid))
            forced = subprocess.run(["umount", "-f", str(top / "mnt")], stderr=subprocess.PIPE, text=True, timeout=20)
            assert forced.returncode != 0 and "busy" in forced.stderr
            assert m.wait() == 0, m.text()
            assert not is_mounted(top / "mnt")
            assert readers.wait(10) == 0
        finally:
            d.process.send_signal(signal.SIGCONT)
            readers.kill()
            readers.wait()
            readers.stdout.close()


def test_mount_killed(top):
    """Without us the kernel answers ENOTCONN, and the device serves the next."""
    with device(top, "bindfs"):
        with mounted(top) as m, Load(top / "mnt" / "f") as load:
            m.process.kill()
            m.process.wait()
            assert wait_for(load.all_ended), [state(p.pid) for p in load.processes]
            with pytest.raises(OSError) as e:
                os.listdir(top / "mnt")
            assert e.value.errno == errno.ENOTCONN
            subprocess.run(["umount", str(top / "mnt")], check=True, timeout=20)
        with mounted(top):
            assert len(os.listdir(top / "mnt")) == 3


def test_daemon_killed(top):
    """The file system behind the device dies: fusewire run ends, and so the device."""
    with device(top, "bindfs") as d, mounted(top) as m:
        (top / "mnt" / "f").write_text("hello")
        children = subprocess.run(["ps", "-o", "pid=", "-C", "bindfs", "--ppid", str(d.process.pid)],
                                  capture_output=True, text=True).stdout.split()
        mine = [int(p) for p in children
                if open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[1] == str(d.process.pid)]
        assert len(mine) == 1
        os.kill(mine[0], signal.SIGKILL)
        assert m.wait() == 1, m.text()
        assert not is_mounted(top / "mnt")


@pytest.mark.parametrize("args,status,text", [
    (["--queues", "0", "S", "M"], 2, "not a number from 1 to 64"),
    (["S"], 2, "two arguments are needed"),
    (["S", "M", "-o", "bogus"], 2, "'bogus' is not an option"),
    (["S", "M", "-o", "blksize=512"], 2, "'blksize=512' is not an option"),
    (["S", "/nonexisting"], 1, "No such file or directory"),
    (["--queue-size", "100", "S", "M"], 1, "power of two"),
    (["--queue-size", "2048", "S", "M"], 1, "it refuses rings of so many entries; smaller ones may do; see the device's messages"),
    (["/nonexisting", "M"], 1, "cannot connect: No such file or directory: start the device first"),
    (["S", "S"], 1, "Not a directory: give a directory"),
])
def test_cannot_mount(top, args, status, text):
    with device(top, "null"):
        names = {"S": str(top / "socket"), "M": str(top / "mnt")}
        p = subprocess.run([FUSEWIRE, "mount", *[names.get(a, a) for a in args]], capture_output=True, text=True,
                           timeout=20)
        assert p.returncode == status, p.stderr
        assert text in p.stderr and p.stderr.count("\n") == 1
        assert not is_mounted(top / "mnt") and not is_mounted(top / "socket")


def test_cannot_mount_what_ends(top):
    """A back-end that is gone before it has said anything."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "ends"))
        listener.listen()
        p = subprocess.Popen([FUSEWIRE, "mount", str(top / "ends"), str(top / "mnt")], stderr=subprocess.PIPE, text=True)
        listener.accept()[0].close()
        _, text = p.communicate(timeout=20)
    (top / "ends").unlink()
    assert p.returncode == 1 and "it closed the connection" in text, text
    assert not is_mounted(top / "mnt")


def test_cannot_mount_what_does_not_answer(top):
    """Such as a device that has another front-end: it is waited for, 10 s."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "silent"))
        listener.listen()
        p = subprocess.run([FUSEWIRE, "mount", str(top / "silent"), str(top / "mnt")], capture_output=True, text=True, timeout=40)
    (top / "silent").unlink()
    assert p.returncode == 1 and "it does not answer: does it serve another front-end" in p.stderr, p.stderr
    assert p.stderr.count("\n") == 1 and not is_mounted(top / "mnt")


def test_cannot_mount_notifications_without_a_size(top):
    """Who offers notifications, and has no config space that tells how large they are."""
    device = Backend(top / "odd", by_opcode({}))
    device.features |= NOTIFICATION
    device.start()
    p = subprocess.run([FUSEWIRE, "mount", str(top / "odd"), str(top / "mnt")], capture_output=True, text=True, timeout=40)
    device.join(10)
    (top / "odd").unlink()
    assert p.returncode == 1 and "it has notifications, and does not tell how large their buffers must be" in p.stderr, p.stderr
    assert p.stderr.count("\n") == 1 and not is_mounted(top / "mnt") and not device.is_alive()
