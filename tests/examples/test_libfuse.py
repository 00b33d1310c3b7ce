# SPDX-License-Identifier: BSD-3-Clause
"""Daemons on later versions of libfuse, every way: our passthrough, and libfuse's own examples."""
import contextlib
import os
import re
import subprocess

import pytest

from ways import HAMMER, HAMMER_SECONDS, PROGRAMS, SPLICED, by_hand, channel, check, for_others, inproc, local, needs_fuse, suite_and_load, top
from mounting import Mount, wait_end, wait_for

pytestmark = needs_fuse

SUITES = {"trixie": "3.17", "sid": "3.18"}


def program(name, suite):
    """The name in PROGRAMS of what was built with that suite's libfuse; skips where there is none."""
    full = f"{name}_{suite}"
    if full not in PROGRAMS:
        pytest.skip(f"no libfuse of Debian's {suite}: scripts/install-deps builds it, where it can be had")
    return full


@pytest.mark.parametrize("suite", SUITES)
def test_version(suite):
    program("passthrough", suite)
    with open(os.path.join(os.environ[f"LIBFUSE_{suite.upper()}"], "lib/pkgconfig/fuse3.pc")) as f:
        version = re.search(r"^Version: (\d+)\.(\d+)", f.read(), re.M)
    assert (int(version[1]), int(version[2])) >= tuple(map(int, SUITES[suite].split(".")))


OPTIONS = {"plain": ["-f"], "splice": ["-f", "--no-cache", SPLICED], "clone": ["-f", "--no-splice", "-o", "clone_fd"],
           "single": ["-f", "-s"], "background": []}
WAYS = [("plain", inproc), ("splice", channel), ("splice", inproc), ("splice", by_hand), ("clone", inproc), ("clone", by_hand),
        ("single", inproc), ("single", by_hand), ("background", inproc)]


@pytest.mark.parametrize("options, way", WAYS, ids=[f"{options}-{way.__name__}" for options, way in WAYS])
@pytest.mark.parametrize("suite", SUITES)
def test_suite_and_load(top, suite, options, way):
    with way(top, [program("passthrough", suite), *OPTIONS[options]]) as mnt:
        suite_and_load(top, mnt)
    assert os.listdir(top / "src") == []


@contextlib.contextmanager
def libfuse_example(top, name, suite, *options):
    """A daemon that comes with libfuse, in-process. Shows the directory top/src."""
    program("passthrough", suite)
    prefix = os.environ[f"LIBFUSE_{suite.upper()}"]
    PROGRAMS["libfuse_example"] = os.path.join(prefix, "bin", name)
    os.environ["LD_LIBRARY_PATH"] = os.path.join(prefix, "lib")
    try:
        with inproc(top, ["libfuse_example", *options]) as mnt:
            yield mnt
    finally:
        del os.environ["LD_LIBRARY_PATH"]


@for_others
@pytest.mark.parametrize("suite", SUITES)
def test_high_level(top, suite):
    """libfuse's path-based interface: its example shows all of /."""
    with libfuse_example(top, "passthrough_fh", suite, "-f", "-o", f"modules=subdir,subdir={top}/src") as mnt:
        (mnt / "load").mkdir()
        assert "right" in check(HAMMER, "--seconds", HAMMER_SECONDS, "--hidden", mnt / "load")
        assert [name for name in os.listdir(top / "src" / "load") if not name.startswith(".fuse_hidden")] == []


@for_others
@pytest.mark.parametrize("options", [[], ["--clone-fd"]], ids=["plain", "clone"])
@pytest.mark.parametrize("suite", SUITES)
def test_passthrough_hp(top, suite, options):
    """A C++ daemon that splices."""
    with libfuse_example(top, "passthrough_hp", suite, "--foreground", "--nopassthrough", *options, str(top / "src")) as mnt:
        (mnt / "load").mkdir()
        assert "right" in check(HAMMER, "--seconds", HAMMER_SECONDS, mnt / "load")
        assert os.listdir(top / "src" / "load") == []


@pytest.mark.parametrize("suite", ["trixie", "sid", "sid_custom_io"])
def test_attached(top, suite):
    """fusewire_attach(), where this libfuse allows it: from 3.18 on, only if it was built to."""
    argv = [PROGRAMS[program("attached", suite)], str(top / "socket"), "t"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: (top / "socket").exists() or process.poll() is not None)
        if suite == "sid":
            assert process.wait(20) == 1 and "not supported" in process.stderr.read()
            assert not (top / "socket").exists()
            return
        with Mount(str(top / "socket"), top / "mnt") as mount:
            mount.wait_ready()
            assert "in another process's memory" in (top / "mnt" / "motd").read_text()
            mount.unmount()
        process.terminate()
        assert wait_end(process) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("way", [local, channel, inproc, by_hand], ids=lambda way: way.__name__)
def test_io_uring_is_left_out(top, way):
    """A daemon that is told to take its requests from an io_uring of the kernel's: there is none, and it does without."""
    name = program("passthrough", "sid")
    if "io_uring" not in check(PROGRAMS[name], "--help"):
        pytest.skip("this libfuse was built without io_uring")
    with way(top, [name, "-f", "-o", "io_uring"]) as mnt:
        suite_and_load(top, mnt)
    assert os.listdir(top / "src") == []
