# SPDX-License-Identifier: BSD-3-Clause
"""A mounted device, one for all tests of a file, and what has to be gone when it was unmounted."""
import os
import pathlib
import tempfile

import pytest

from mounting import Mount, assert_nothing_left, device, virtiofsd

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
            m.unmount()
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
