# SPDX-License-Identifier: BSD-3-Clause
"""A mounted device, one for all tests of a file, and what has to be gone when it was unmounted."""
import os
import pathlib
import subprocess
import tempfile

import pytest

from mounting import Mount, assert_nothing_left, device, is_mounted, virtiofsd

DEVICES = {"bindfs": [], "bindfs-packed": ["--packed", "--queues", "1"], "sshfs": [], **{kind: [] for kind in virtiofsd.KINDS}}


@pytest.fixture(scope="module", params=DEVICES.items(), ids=DEVICES)
def mnt(request):
    name, options = request.param
    kind = name.removesuffix("-packed")
    if kind in virtiofsd.KINDS and (why := virtiofsd.why_not(kind)):
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        top = pathlib.Path(name)
        (top / "mnt").mkdir()
        os.environ["FW_MOUNT_DIR"] = name
        with device(top, kind), Mount(top / "socket", top / "mnt", *options) as m:
            m.wait_ready()
            yield top / "mnt"
            subprocess.run(["umount", str(top / "mnt")], check=True, timeout=20)
            assert m.process.wait(20) == 0, m.text()
            assert not is_mounted(top / "mnt")
        assert_nothing_left(top)


@pytest.fixture
def kind(request):
    """What daemon is behind the mount."""
    return request.node.callspec.params["mnt"][0]


@pytest.fixture
def place(mnt, request):
    path = mnt / request.node.name.replace("[", "-").replace("]", "")
    path.mkdir()
    return path
