# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM with a device that is slow, but answers: what the kernel has to write back arrives, however long that takes."""
import contextlib
import signal
import struct
import subprocess
import sys
import time

import pytest

from mounting import mounted_device, no_fuse
from backend import Backend, attr, by_opcode, good, init_out

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

LOOKUP, GETATTR, OPEN, READ, WRITE, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR = 1, 3, 14, 15, 16, 18, 25, 26, 27, 29
FILE, SIZE = 2, 4 << 20
# More than the mount waits for a device that answers nothing.
SECONDS = 8
ATTR = attr(FILE, 0o100644, SIZE)
# Has dirty pages of the file until it is killed.
DIRTY = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 0)
os.close(fd)
m[:] = b"x" * len(m)
print("dirty", flush=True)
time.sleep(60)
"""


# Asks for the root's attributes for ever, of a mount that is gone as well.
ASKING = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
os.fstat(fd)
print("up", flush=True)
try:
    while True:
        os.fstat(fd)
        time.sleep(0.05)
except OSError:
    pass
"""


class Device(Backend):
    """A directory with one file, which takes SECONDS to be written."""

    def __init__(self, path):
        self.written = 0
        opened = good(struct.pack("<QII", 1, 0, 0))
        super().__init__(path, by_opcode({
            INIT: good(init_out()), LOOKUP: good(struct.pack("<QQQQII", FILE, 0, 60, 60, 0, 0) + ATTR),
            GETATTR: lambda r: good(struct.pack("<QII", 0, 0, 0) + (
                ATTR if struct.unpack_from("<Q", r.message, 16)[0] == FILE else attr(1, 0o40755)))(r),
            OPEN: opened, OPENDIR: opened, FLUSH: good(), RELEASE: good(), RELEASEDIR: good(),
            READ: lambda r: good(bytes(struct.unpack_from("<I", r.message, 56)[0]))(r), WRITE: self.write}))

    def write(self, request):
        size, = struct.unpack_from("<I", request.message, 56)
        time.sleep(SECONDS * size / SIZE)
        self.written += size
        return good(struct.pack("<II", size, 0))(request)


class Refusing(Device):
    """It answers all but what the kernel writes back."""

    def write(self, request):
        return None


@contextlib.contextmanager
def user(script, path, word):
    """A process with this script, which has said that it is up."""
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as p:
        try:
            assert p.stdout.readline() == word
            yield
        finally:
            p.kill()


def test_all_arrives():
    with mounted_device(Device) as (device, m, mnt):
        with user(DIRTY, mnt / "file", b"dirty\n"):
            m.process.send_signal(signal.SIGTERM)
            status = m.wait(SECONDS + 20)
        assert (status, device.written) == (0, SIZE), m.text()


def test_what_never_arrives():
    """A device that answers somebody for ever, but nothing of the write-back, is given up."""
    with mounted_device(Refusing, "--stop-timeout", "7") as (device, m, mnt):
        with user(DIRTY, mnt / "file", b"dirty\n"), user(ASKING, mnt, b"up\n"):
            m.process.send_signal(signal.SIGTERM)
            status = m.wait(7 + 25)
            assert status == 1 and "has written back nothing for 7 s" in m.text(), m.text()
