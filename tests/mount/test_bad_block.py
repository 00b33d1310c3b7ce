# SPDX-License-Identifier: BSD-3-Clause
"""A file that cannot be read to its end is not a shorter file: as on the local /dev/fuse, so through a device, which asks in parts."""
import errno
import mmap
import os
import pathlib
import subprocess
import tempfile

import pytest

from mounting import Mount, Process, assert_nothing_left, is_mounted, no_fuse, wait_for, wait_end

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

WAY = os.environ["FUSEWIRE_TEST_IN_PROCESS"]
BAD, SIZE = 4 * 4096, 256 * 4096


def read_all(path, flags):
    """How far one gets by reading 64 KiB at a time, by what it ended, and how long the file is then."""
    fd = os.open(path, os.O_RDONLY | flags)
    buf = mmap.mmap(-1, 65536)
    got, n, error = 0, 1, 0
    try:
        while n:
            n = os.readv(fd, [buf])
            got += n
    except OSError as e:
        error = e.errno
    finally:
        os.close(fd)
    return got, error, os.stat(path).st_size


@pytest.fixture
def top():
    with tempfile.TemporaryDirectory(prefix="fw-bad-") as directory:
        top = pathlib.Path(directory)
        (top / "mnt").mkdir()
        (top / "daemon").mkdir()
        os.environ["FW_MOUNT_DIR"] = directory
        yield top
        assert_nothing_left(top)


@pytest.fixture(params=[([], [0, os.O_DIRECT]), (["direct"], [0])], ids=["cached", "direct"])
def how(request):
    """The daemon's command, and the flags to open its file with."""
    words, flags = request.param
    return [os.environ["BADBLOCK"], *words, "-f", "-o", "max_read=4096"], flags


@pytest.fixture
def local(top, how):
    with subprocess.Popen([*how[0], top / "mnt"], stderr=subprocess.DEVNULL) as process:
        assert wait_for(lambda: is_mounted(top / "mnt"))
        found = [read_all(top / "mnt" / "file", flags) for flags in how[1]]
        subprocess.run(["umount", top / "mnt"], check=True, timeout=20)
        assert wait_end(process, 20, top / "mnt") == 0
    return found


def test_no_short_file(top, how, local):
    assert local[0] == (BAD, errno.EIO, SIZE)
    with Process(["run", "--in-process", WAY, "--socket", str(top / "socket"), "--tag", "t"],
                 ["--", *how[0], str(top / "daemon")]) as daemon:
        daemon.wait_ready()
        with Mount(top / "socket", top / "mnt") as m:
            m.wait_ready()
            assert [read_all(top / "mnt" / "file", flags) for flags in how[1]] == local
            m.unmount()
