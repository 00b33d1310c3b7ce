# SPDX-License-Identifier: BSD-3-Clause
"""A mounted device, one for all tests of a file, and what has to be gone when it was unmounted."""
import contextlib
import os
import pathlib
import tempfile

import pytest

from mounting import Mount, assert_nothing_left, device, file_system_in, no_loop, virtiofsd

DEVICES = {"bindfs": [], "bindfs-packed": ["--packed", "--queues", "1"], "sshfs": [], **{kind: [] for kind in virtiofsd.KINDS}}
if os.environ.get("FUSEWIRE_TEST_IN_PROCESS") != "always":
    # What a device with one file cannot show by itself is shown in a file system in that file.
    DEVICES["null"] = []


@pytest.fixture(scope="module", params=DEVICES.items(), ids=DEVICES)
def mnt(request):
    name, options = request.param
    kind = name.removesuffix("-packed")
    if kind in virtiofsd.KINDS and (why := virtiofsd.why_not(kind)):
        pytest.skip(why)
    if kind == "null" and (why := no_loop()):
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        top = pathlib.Path(name)
        (top / "mnt").mkdir()
        os.environ["FW_MOUNT_DIR"] = name
        with device(top, kind), Mount(top / "socket", top / "mnt", *options) as m:
            m.wait_ready()
            with contextlib.ExitStack() as stack:
                if kind == "null":
                    stack.enter_context(file_system_in(top / "mnt" / "data", top / "image"))
                yield top / ("image" if kind == "null" else "mnt")
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
