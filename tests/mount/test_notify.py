# SPDX-License-Identifier: BSD-3-Clause
"""What a file system says unasked reaches the kernel that mounts the device: its caches, which hold for an hour, change at once."""
import ctypes
import errno
import os
import pathlib
import select
import tempfile
import threading

import pytest

from mounting import Mount, Process, no_fuse, wait_for

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

NOTIFIER = os.environ["NOTIFIER"]
WAY = os.environ["FUSEWIRE_TEST_IN_PROCESS"]
MS_REMOUNT = 32


class Notifier:
    """The file system, and its view through a mount of the device."""

    def __init__(self, top):
        self.fifo = top / "fifo"
        self.out = top / "fifo.out"
        self.root = top / "mnt"
        self.nr_told = 0

    def says(self):
        return self.out.read_text().splitlines() if self.out.exists() else []

    def tell(self, *words):
        """Returns what it answers: the result of what was called."""
        before = len(self.says())
        with open(self.fifo, "w") as f:
            f.write(" ".join(words) + "\n")
        def mine():
            return [line for line in self.says()[before:] if line.startswith(words[0] + " ")]
        assert wait_for(mine), self.says()
        return int(mine()[0].split()[1])

    def read(self, name="file"):
        return (self.root / name).read_text()

    def names(self, *names):
        return [(self.root / name).exists() for name in names]


def forget_unused(root):
    """The kernel forgets each file and directory of the mount that nobody uses: a remount does that."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(None, os.fsencode(root), None, MS_REMOUNT, None) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(params=[[], ["--packed", "--queues", "1"]], ids=["split", "packed"])
def fs(request):
    with tempfile.TemporaryDirectory(prefix="fw-notify-") as directory:
        top = pathlib.Path(directory)
        (top / "mnt").mkdir()
        (top / "daemon").mkdir()
        os.environ["FW_MOUNT_DIR"] = directory
        os.mkfifo(top / "fifo")
        run = ["run", "--in-process", WAY, "--socket", str(top / "socket"), "--tag", "t"]
        with Process(run, ["--", NOTIFIER, str(top / "fifo"), "-f", str(top / "daemon")]) as daemon:
            daemon.wait_ready()
            with Mount(top / "socket", top / "mnt", *request.param) as m:
                m.wait_ready()
                yield Notifier(top)
                m.unmount()


def test_inval_inode(fs):
    assert fs.read() == "first"
    fs.tell("data", "second, and longer")
    assert fs.tell("inode") == 0
    assert wait_for(lambda: fs.read() == "second, and longer")


def test_inval_inode_of_the_same_size(fs):
    # Open, so that a kernel that is short of memory, or is told to drop its caches, cannot forget the file.
    with open(fs.root / "file"):
        assert fs.read() == "first"
        fs.tell("data", "other")
        assert fs.read() == "first"
        for text in ["other", "third", "forth"] * 5:
            fs.tell("data", text)
            assert fs.tell("inode") == 0
            assert wait_for(lambda text=text: fs.read() == text)


def test_inval_inode_of_a_forgotten_file(fs):
    """Whoever names a file that the kernel has forgotten hears so, where it can hear; one that is open is not forgotten."""
    with open(fs.root / "file"):
        forget_unused(fs.root)
        fs.tell("data", "second, and longer")
        assert fs.tell("inode") == 0
        assert wait_for(lambda: fs.read() == "second, and longer")
    if WAY == "always":
        # RELEASE and FORGET are not waited for by whoever closes.
        forget_unused(fs.root)
        assert wait_for(lambda: fs.tell("inode") == -errno.ENOENT)
    forget_unused(fs.root)
    fs.tell("data", "third")
    assert fs.tell("inode") in ((-errno.ENOENT,) if WAY == "always" else (0,))
    assert fs.read() == "third"


@pytest.mark.parametrize("how", ["entry", "delete"])
def test_names(fs, how):
    assert fs.names("file", "new") == [True, False]
    fs.tell("name", "new")
    assert fs.names("file", "new") == [True, False]
    assert fs.tell(how, "file") == 0
    assert wait_for(lambda: fs.names("file") == [False])
    assert fs.names("new") == [False]
    assert fs.tell("entry", "new") == 0
    assert wait_for(lambda: fs.names("new") == [True])


def test_expire(fs):
    assert fs.names("file") == [True]
    before = fs.tell("lookups")
    assert fs.names("file") == [True] and fs.tell("lookups") == before
    # A kernel whose FUSE is older than 7.38 does not offer it, and libfuse says so.
    if fs.tell("expire", "file") == -38:
        pytest.skip("this kernel knows no FUSE_EXPIRE_ONLY")
    assert wait_for(lambda: fs.names("file") == [True] and fs.tell("lookups") > before)


def test_store_and_retrieve(fs):
    assert fs.read() == "first"
    assert fs.tell("store", "STORE") == 0
    assert wait_for(lambda: fs.read() == "STORE")
    assert fs.tell("retrieve") == 0
    assert wait_for(lambda: "STORE 0" in fs.says()), fs.says()


def test_retrieve_of_what_is_not_cached(fs):
    assert fs.names("file") == [True]
    assert fs.tell("retrieve") == 0
    assert wait_for(lambda: "nothing 0" in fs.says()), fs.says()


def test_poll(fs):
    with open(fs.root / "file") as f:
        found = []
        poll = select.poll()
        poll.register(f, select.POLLIN)
        thread = threading.Thread(target=lambda: found.extend(poll.poll(10000)))
        thread.start()
        assert wait_for(lambda: "polled 0" in fs.says())
        assert thread.is_alive()
        assert fs.tell("ready") == 0
        thread.join(10)
        assert found == [(f.fileno(), select.POLLIN)]


def test_malformed(fs):
    """What makes no sense to the kernel hurts nobody."""
    assert fs.read() == "first"
    assert fs.tell("entry", "a/b") in (0, -22)
    assert fs.tell("entry", "x" * 3000) == 0
    fs.tell("data", "other")
    assert fs.tell("inode") == 0
    assert wait_for(lambda: fs.read() == "other")
