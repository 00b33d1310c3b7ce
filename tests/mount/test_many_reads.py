# SPDX-License-Identifier: BSD-3-Clause
"""More large READs of one queue than there is room for, at a device that takes its time: what is small goes past."""
import contextlib
import signal
import struct
import subprocess
import sys
import threading

import pytest

from mounting import mounted_device, no_fuse, wait_for
from backend import Backend, attr, by_opcode, good, init_out

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

LOOKUP, GETATTR, OPEN, READ, WRITE, RELEASE, FLUSH, INIT = 1, 3, 14, 15, 16, 18, 25, 26
FILE, OTHER, BLOCK = 2, 3, 128 << 10
# More than BRIDGE_NR_LARGE and the half of BRIDGE_NR_WAITING.
NR = 32 + 40
# Reads @NR blocks of a file at once, and writes as many to it, if it shall. Exits with 0 when all came with their own content, 1
# when none did.
USER = f"""
import mmap, os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
good = []
def read(n):
    block = mmap.mmap(-1, {BLOCK})
    try:
        good.append(os.preadv(fd, [block], n * {BLOCK}) == {BLOCK} and block[:] == n.to_bytes(8, "little") * ({BLOCK} // 8))
    except OSError:
        pass
def write(n):
    block = mmap.mmap(-1, {BLOCK})
    try:
        good.append(os.pwritev(fd, [block], n * {BLOCK}) == {BLOCK})
    except OSError:
        pass
jobs = [read] if sys.argv[2] == "reads" else [read, write]
threads = [threading.Thread(target=job, args=(n,)) for n in range({NR}) for job in jobs]
for t in threads:
    t.start()
for t in threads:
    t.join()
sys.exit(0 if good == [True] * len(threads) else 1 if not good else 2)
"""


class Device(Backend):
    """A directory with files. READs and WRITEs of one are held until they are let go."""

    def __init__(self, path):
        self.held, self.let, self.lock = [], False, threading.Lock()
        super().__init__(path, by_opcode({
            INIT: good(init_out()), LOOKUP: self.lookup, OPEN: good(struct.pack("<QII", 1, 1, 0)), FLUSH: good(), RELEASE: good(),
            GETATTR: lambda r: good(struct.pack("<QII", 0, 0, 0) + attr(1, 0o40755))(r), READ: self.hold, WRITE: self.hold}))

    def lookup(self, request):
        ino = FILE if request.message[40:].startswith(b"file\0") else OTHER
        return good(struct.pack("<QQQQII", ino, 0, 60, 60, 0, 0) + attr(ino, 0o100644, NR * BLOCK))(request)

    def data(self, request):
        offset, size = struct.unpack_from("<QI", request.message, 48)
        if request.opcode == WRITE:
            return good(struct.pack("<II", size, 0))(request)
        return good((offset // BLOCK).to_bytes(8, "little") * (size // 8))(request)

    def hold(self, request):
        with self.lock:
            if self.let:
                return self.data(request)
            self.held.append(request)
            return None

    def let_go(self):
        with self.lock:
            self.let = True
            for request in self.held:
                self.reply(request, *self.data(request))


@pytest.fixture
def mounted(request):
    nr_queues = getattr(request, "param", "1")
    with mounted_device(Device, "--queues", nr_queues) as (device, m, mnt):
        device.nr_queues = int(nr_queues)
        yield m, device, mnt


class User:
    def __init__(self, path, jobs):
        self.process = subprocess.Popen([sys.executable, "-c", USER, str(path), jobs])

    def __enter__(self):
        return self.process

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait(20)


@contextlib.contextmanager
def held(device, mnt, jobs):
    """All that a queue has room for is at the device, which answers nothing until the end; then all comes."""
    with User(mnt / "file", jobs) as user:
        try:
            assert wait_for(lambda: len(device.held) >= 31, 20)
            # Others than these have come by now, and nobody has been answered.
            assert not wait_for(lambda: len(device.held) > 32, 1)
            yield
        finally:
            device.let_go()
        assert user.wait(30) == 0


def test_small_goes_past(mounted):
    m, device, mnt = mounted
    with held(device, mnt, "reads"):
        subprocess.run(["stat", str(mnt / "other")], check=True, timeout=10, stdout=subprocess.DEVNULL)
    m.unmount()


def test_all_come_with_writes_between(mounted):
    m, device, mnt = mounted
    with held(device, mnt, "both"):
        pass
    m.unmount()


def test_who_waits_hears_of_the_end(mounted):
    """What the device never had ends as what it had."""
    m, device, mnt = mounted
    with User(mnt / "file", "reads") as user:
        assert wait_for(lambda: len(device.held) >= 31, 20)
        m.process.send_signal(signal.SIGTERM)
        assert m.wait(30) == 0
        assert user.wait(20) == 1


@pytest.mark.parametrize("mounted", ["1", "3"], indirect=True)
def test_who_waits_can_be_killed(mounted):
    """The kernel lets a process go whose READ the device has never had, though it answers nothing."""
    m, device, mnt = mounted
    users = []
    try:
        # More than all queues have room for: who comes late waits.
        for _ in range(NR // 8 * device.nr_queues):
            users.append(subprocess.Popen([sys.executable, "-c", USER.replace(f"range({NR})", "range(8)"), str(mnt / "file"), "reads"]))
        assert wait_for(lambda: len(device.held) >= 31 * device.nr_queues, 30)
        assert not wait_for(lambda: len(device.held) > 32 * device.nr_queues, 1)
        for user in users:
            user.kill()
        assert wait_for(lambda: sum(user.poll() is not None for user in users) >= device.nr_queues, 20)
    finally:
        device.let_go()
        for user in users:
            user.kill()
            user.wait(20)
    m.unmount()
