# SPDX-License-Identifier: BSD-3-Clause
"""The ways to serve and mount a daemon of ours: by itself, through the channel, in-process, and the library preloaded by hand.

Daemons are lists of words: a name of PROGRAMS, then options.
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../mount"))
from mounting import Mount, Process, is_mounted, no_fuse, wait_end, wait_for  # noqa: E402

needs_fuse = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

GUEST_SUITE, HAMMER = os.environ["GUEST_SUITE"], os.environ["HAMMER"]
HAMMER_SECONDS = os.environ.get("HAMMER_SECONDS", "0.3")
# A library with a sanitizer in it goes into programs with the same one only.
for_others = pytest.mark.skipif(os.environ.get("SANITIZED") == "true", reason="a sanitized library cannot be preloaded into others' programs")
# EXAMPLE_NAME: where it is.
PROGRAMS = {name.removeprefix("EXAMPLE_").lower(): path for name, path in os.environ.items() if name.startswith("EXAMPLE_")}
# Small enough for a pipe of an ordinary user: libfuse and memfuse then receive by splice.
SPLICED = "--max-write=524288"


@pytest.fixture
def top():
    with tempfile.TemporaryDirectory(prefix="fw-examples-") as name:
        for folder in ("src", "mnt", "daemon"):
            os.mkdir(os.path.join(name, folder))
        os.environ["FW_MOUNT_DIR"] = name
        yield pathlib.Path(name)


def command(top, words, at):
    """The daemon's command line; skips where it could not be built. Other programs than ours come with all their words but the last."""
    name, *options = words
    if name not in PROGRAMS and os.path.isabs(name):
        return [*words, str(at)]
    if name not in PROGRAMS:
        pytest.skip(f"{name} could not be built: its libfuse is missing")
    return [PROGRAMS[name], *options] + ([str(top / "src")] if "passthrough" in name else []) + [str(at)]


@contextlib.contextmanager
def local(top, words):
    """Mounted by the daemon itself."""
    mnt = top / "mnt"
    process = subprocess.Popen(command(top, words, mnt), stdin=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: is_mounted(mnt)), "not mounted"
        yield mnt
        subprocess.run(["umount", str(mnt)], check=True, timeout=20)
        assert wait_end(process) == 0
    finally:
        if is_mounted(mnt):
            subprocess.run(["umount", "-l", str(mnt)], check=False)
        process.kill()
        process.wait()


@contextlib.contextmanager
def served(top, words, in_process="never"):
    """Served by `fusewire run`."""
    with Process(["run", "--in-process", in_process, "--socket", str(top / "socket"), "--tag", "t"],
                 ["--", *command(top, words, top / "daemon")]) as device:
        device.wait_ready()
        yield str(top / "socket")
        assert device.end(signal.SIGTERM) == 0, device.text()


@contextlib.contextmanager
def mounted(top, socket, *options):
    """Mounted with `fusewire mount`."""
    with Mount(socket, top / "mnt", *options) as mount:
        mount.wait_ready()
        yield top / "mnt"
        mount.unmount()


@contextlib.contextmanager
def channel(top, words, in_process="never"):
    """Served through the channel, and mounted with `fusewire mount`."""
    with served(top, words, in_process) as socket, mounted(top, socket) as mnt:
        yield mnt


@contextlib.contextmanager
def inproc(top, words):
    """As channel(), from within the daemon's process."""
    with channel(top, words, "always") as mnt:
        yield mnt


@contextlib.contextmanager
def alone(top, words, library=os.environ["PRELOAD_LIBRARY"]):
    """Served by the library preloaded by hand: no fusewire run."""
    socket = top / "socket"
    env = {**os.environ, "FUSEWIRE_SOCKET": str(socket), "FUSEWIRE_TAG": "t", **({"LD_PRELOAD": library} if library else {})}
    process = subprocess.Popen(command(top, words, top / "daemon"), stdin=subprocess.DEVNULL, env=env)
    try:
        assert wait_for(socket.exists), "no socket"
        yield str(socket)
        process.terminate()
        assert wait_end(process) == 0
        assert not socket.exists()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def by_hand(top, words):
    """As alone(), mounted with `fusewire mount`."""
    with alone(top, words) as socket, mounted(top, socket) as mnt:
        yield mnt


def check(*argv):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    return done.stdout


def suite_and_load(top, mnt):
    """The guest suite's operations, and random load. Nothing is left."""
    assert "not ok" not in check(GUEST_SUITE, mnt, "suite")
    for options in ([], ["--direct", "--seed", "2"]):
        os.mkdir(mnt / "load")
        assert "right" in check(HAMMER, "--seconds", HAMMER_SECONDS, *options, mnt / "load")
        os.rmdir(mnt / "load")
    assert os.listdir(mnt) == []
