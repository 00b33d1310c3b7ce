# SPDX-License-Identifier: BSD-3-Clause
"""What a file system says unasked reaches the kernel that mounts the device: its caches, which hold for an hour, change at once."""
import ctypes
import errno
import os
import pathlib
import select
import subprocess
import tempfile
import threading

import pytest

from mounting import Mount, Process, is_mounted, no_fuse, wait_for

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

NOTIFIER = os.environ["NOTIFIER"]
WAY = os.environ["FUSEWIRE_TEST_IN_PROCESS"]
MS_REMOUNT = 32


def nr_drops():
    """How often somebody has had the kernel drop its caches: of all file systems, this one as well."""
    with open("/proc/vmstat") as f:
        return [line for line in f if line.startswith("drop_")]


class Notifier:
    """The file system, and its view through a mount of the device.

    Its file is kept open, so that a kernel that is short of memory, or is told to drop its caches, cannot forget it.
    """

    def __init__(self, top, mount):
        self.drops = nr_drops()
        self.keep = open(top / "mnt" / "file")
        self.mount = mount
        self.fifo = top / "fifo"
        self.out = top / "fifo.out"
        self.root = top / "mnt"

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

    def cached(self, condition):
        """Whether what is in the caches still shows; nothing can be said when they were dropped."""
        return condition() or nr_drops() != self.drops

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
                notifier = Notifier(top, m)
                try:
                    yield notifier
                finally:
                    notifier.keep.close()
                if is_mounted(m.at):
                    m.unmount()


def test_inval_inode(fs):
    assert fs.read() == "first"
    fs.tell("data", "second, and longer")
    assert fs.tell("inode") == 0
    assert wait_for(lambda: fs.read() == "second, and longer")


def test_inval_inode_of_the_same_size(fs):
    assert fs.read() == "first"
    fs.tell("data", "other")
    assert fs.cached(lambda: fs.read() == "first")
    for text in ["other", "third", "forth"] * 5:
        fs.tell("data", text)
        assert fs.tell("inode") == 0
        assert wait_for(lambda text=text: fs.read() == text)


def test_inval_inode_of_a_forgotten_file(fs):
    """Whoever names a file that the kernel has forgotten hears so, where it can hear; one that is open is not forgotten."""
    forget_unused(fs.root)
    fs.tell("data", "second, and longer")
    assert fs.tell("inode") == 0
    assert wait_for(lambda: fs.read() == "second, and longer")
    fs.keep.close()
    # FORGET and, before it, RELEASE are not waited for by whoever closes.
    if WAY == "always":
        assert wait_for(lambda: forget_unused(fs.root) or fs.tell("inode") == -errno.ENOENT)
    forget_unused(fs.root)
    fs.tell("data", "third")
    assert wait_for(lambda: fs.read() == "third")


@pytest.mark.parametrize("how", ["entry", "delete"])
def test_names(fs, how):
    assert fs.names("file", "new") == [True, False]
    fs.tell("name", "new")
    assert fs.cached(lambda: fs.names("file", "new") == [True, False])
    assert fs.tell(how, "file") == 0
    assert wait_for(lambda: fs.names("file") == [False])
    assert fs.cached(lambda: fs.names("new") == [False])
    assert fs.tell("entry", "new") == 0
    assert wait_for(lambda: fs.names("new") == [True])


def test_expire(fs):
    assert fs.names("file") == [True]
    before = fs.tell("lookups")
    assert fs.names("file") == [True] and fs.tell("lookups") == before
    # A kernel whose FUSE is older than 7.38 does not offer it, and libfuse says so.
    if fs.tell("expire", "file") == -errno.ENOSYS:
        pytest.skip("this kernel knows no FUSE_EXPIRE_ONLY")
    assert wait_for(lambda: fs.names("file") == [True] and fs.tell("lookups") > before)


def test_store_and_retrieve(fs):
    assert fs.read() == "first"
    fs.tell("data", "STORE")
    assert fs.cached(lambda: fs.read() == "first")
    assert fs.tell("store", "STORE") == 0
    assert wait_for(lambda: fs.read() == "STORE")
    assert fs.tell("retrieve") == 0
    assert wait_for(lambda: fs.cached(lambda: "STORE 0" in fs.says())), fs.says()


def test_retrieve_of_what_is_not_cached(fs):
    assert fs.names("file") == [True]
    assert fs.tell("retrieve") == 0
    assert wait_for(lambda: "nothing 0" in fs.says()), fs.says()


def test_poll(fs):
    found = []
    poll = select.poll()
    poll.register(fs.keep, select.POLLIN)
    thread = threading.Thread(target=lambda: found.extend(poll.poll(10000)))
    thread.start()
    assert wait_for(lambda: "polled 0" in fs.says())
    assert thread.is_alive()
    assert fs.tell("ready") == 0
    thread.join(10)
    assert found == [(fs.keep.fileno(), select.POLLIN)]


@pytest.fixture
def reader(fs):
    """Reads the file, and waits for the file system; then the kernel waits, too, when it shall invalidate what is being read."""
    def read():
        try:
            found.append(fs.read())
        except OSError as e:
            found.append(e.errno)
    found = []
    fs.tell("hold")
    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert wait_for(lambda: "held 0" in fs.says())
        fs.tell("data", "other")
        assert fs.tell("inode") == 0
        assert fs.tell("entry", "new") == 0
        yield lambda: thread.join(10) or found
    finally:
        fs.tell("release")
        thread.join(10)


def test_inval_of_what_is_being_read(fs, reader):
    """Other requests go on meanwhile."""
    for i in range(50):
        assert fs.names(f"no-{i}") == [False]
    fs.tell("release")
    assert reader() == ["other"]
    assert fs.names("new") == [False]
    fs.tell("name", "new")
    assert fs.tell("entry", "new") == 0
    assert wait_for(lambda: fs.names("new") == [True])


@pytest.mark.parametrize("how", ["umount", "signal", "force"])
@pytest.mark.parametrize("fs", [[]], ids=["split"], indirect=True)
def test_end_while_the_kernel_waits(fs, reader, how):
    """Whoever ends the mount: it ends, and whoever reads hears so, where the file system goes on waiting."""
    fs.keep.close()
    if how == "umount":
        subprocess.run(["umount", "-l", str(fs.root)], check=True, timeout=20)
        fs.tell("release")
    elif how == "force":
        subprocess.run(["umount", "-f", "-l", str(fs.root)], check=True, timeout=20)
    else:
        fs.mount.process.terminate()
    assert fs.mount.wait() == 0, fs.mount.text()
    assert not is_mounted(fs.root)
    assert reader() == ["other"] if how == "umount" else isinstance(reader()[0], int)


def test_umount_under_notifications(fs):
    """While they come without a pause."""
    over = threading.Event()

    def tell_all():
        with open(fs.fifo, "w") as f:
            while not over.is_set():
                f.write("inode\nentry new\nstore text\n")
                f.flush()
    assert fs.read() == "first"
    thread = threading.Thread(target=tell_all)
    thread.start()
    try:
        assert wait_for(lambda: len(fs.says()) > 100)
        fs.keep.close()
        fs.mount.unmount()
    finally:
        over.set()
        thread.join()


def test_malformed(fs):
    """What makes no sense to the kernel hurts nobody."""
    assert fs.read() == "first"
    assert fs.tell("entry", "a/b") in (0, -22)
    assert fs.tell("entry", "x" * 3000) == 0
    fs.tell("data", "other")
    assert fs.tell("inode") == 0
    assert wait_for(lambda: fs.read() == "other")
