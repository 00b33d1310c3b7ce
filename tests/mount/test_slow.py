# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM with a device that is slow, but answers: what the kernel has to write back arrives, however long that takes."""
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time

import pytest

from mounting import Mount, is_mounted, no_fuse
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


class Device(Backend):
    """A directory with one file, which takes SECONDS to be written."""

    def __init__(self, path):
        self.written = 0
        opened = good(struct.pack("<QII", 1, 0, 0))
        super().__init__(path, by_opcode({
            INIT: good(init_out()), LOOKUP: good(struct.pack("<QQQQII", FILE, 0, 60, 60, 0, 0) + ATTR),
            GETATTR: lambda r: good(struct.pack("<QII", 60, 0, 0) + (
                ATTR if struct.unpack_from("<Q", r.message, 16)[0] == FILE else attr(1, 0o40755)))(r),
            OPEN: opened, OPENDIR: opened, FLUSH: good(), RELEASE: good(), RELEASEDIR: good(),
            READ: lambda r: good(bytes(struct.unpack_from("<I", r.message, 56)[0]))(r), WRITE: self.write}))

    def write(self, request):
        size, = struct.unpack_from("<I", request.message, 56)
        time.sleep(SECONDS * size / SIZE)
        self.written += size
        return good(struct.pack("<II", size, 0))(request)


def test_all_arrives():
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        top = pathlib.Path(name)
        os.environ["FW_MOUNT_DIR"] = name
        (top / "mnt").mkdir()
        device = Device(top / "socket")
        device.start()
        with Mount(top / "socket", top / "mnt") as m:
            m.wait_ready()
            user = subprocess.Popen([sys.executable, "-c", DIRTY, str(top / "mnt" / "file")], stdout=subprocess.PIPE)
            try:
                assert user.stdout.readline() == b"dirty\n"
                m.process.send_signal(signal.SIGTERM)
                status = m.wait(SECONDS + 20)
            finally:
                user.kill()
                user.wait()
                user.stdout.close()
            assert (status, device.written) == (0, SIZE), m.text()
        device.join(10)
        assert not device.is_alive() and not is_mounted(top / "mnt")
