# SPDX-License-Identifier: BSD-3-Clause
"""The example daemons and memfuse: the guest suite and random load, on this machine's /dev/fuse and through the channel."""
import contextlib
import fcntl
import json
import os
import signal
import subprocess

import pytest

from ways import HAMMER, PROGRAMS, SPLICED, by_hand, channel, check, command, for_others, inproc, local, needs_fuse, served, suite_and_load, top
from mounting import FUSEWIRE, Mount, Process, wait_end, wait_for

pytestmark = needs_fuse

DAEMONS = {
    "passthrough": ["passthrough", "-f"],
    "passthrough-splice": ["passthrough", "-f", "--no-cache", SPLICED],
    "passthrough-clone": ["passthrough", "-f", "--cache", "--no-splice", "-o", "clone_fd"],
    "passthrough-single": ["passthrough", "-f", "-s", "--writeback", "--flock"],
    "passthrough-background": ["passthrough", "-o", "max_threads=16"],
    "memfuse": ["memfuse"],
    "memfuse-poll": ["memfuse", "--wait", "poll", "--send", "write", "--background"],
    "memfuse-ppoll": ["memfuse", "--wait", "ppoll", "--receive", "readv"],
    "memfuse-select": ["memfuse", "--wait", "select", "--receive", "splice"],
    "memfuse-epoll": ["memfuse", "--wait", "epoll", "--send", "splice"],
    "memfuse-clone": ["memfuse", "--clone", "--stdio", "--receive", "splice", "--send", "splice"],
}


# By hand, the library stands for open and mount, too: a few daemons that differ in how they read and write.
BY_HAND = ["passthrough-splice", "passthrough-clone", "passthrough-single", "memfuse", "memfuse-select", "memfuse-epoll", "memfuse-clone"]
WAYS = [(way, daemon) for daemon in DAEMONS for way in (local, channel, inproc, by_hand)
        if way is not by_hand or daemon in BY_HAND]


@pytest.mark.parametrize("way, daemon", WAYS, ids=[f"{daemon}-{way.__name__}" for way, daemon in WAYS])
def test_suite_and_load(top, way, daemon):
    words = DAEMONS[daemon]
    with way(top, words) as mnt:
        suite_and_load(top, mnt)
    assert os.listdir(top / "src") == []


@pytest.mark.parametrize("way", [inproc, by_hand])
@pytest.mark.parametrize("options", [[], ["--wait", "epoll"]], ids=["block", "epoll"])
def test_children(top, way, options):
    """A daemon's child closes what it has inherited: that ends nothing."""
    with way(top, ["memfuse", "--children", *options]) as mnt:
        for i in range(20):
            (mnt / f"d{i}").mkdir()
            assert (top / "socket").exists()
        assert "right" in check(HAMMER, "--seconds", "0.3", mnt / "d0")


def test_hammer_sees_a_wrong_byte(top):
    """The load test itself: what somebody else writes into its files is found."""
    process = subprocess.Popen([HAMMER, "--seconds", "20", "--threads", "2", str(top / "mnt")], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, text=True)

    def meddle():
        with contextlib.suppress(FileNotFoundError):
            for path in (top / "mnt" / "t1").iterdir():
                if path.is_file():
                    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as f:
                        f.write(b"wrong" * 1000)
        return process.poll() is not None

    assert wait_for(meddle, 15)
    assert process.wait(20) == 1
    assert "thread 1" in process.stderr.read()


def test_files_belong_to_the_caller(top):
    """As root, a passthrough makes files for others; a folder with the setgid bit keeps its group."""
    with local(top, ["passthrough", "-f", "-o", "allow_other"]) as mnt:
        os.chmod(top, 0o755)
        os.chmod(mnt, 0o777)
        (mnt / "group").mkdir()
        os.chown(mnt / "group", 0, 4242)
        os.chmod(mnt / "group", 0o2777)
        subprocess.run(["sh", "-c", "echo x >file && mkdir folder && ln -s file link && echo x >group/file"], cwd=mnt,
                       user=1234, group=1234, extra_groups=[], check=True)
        owners = {name: (os.lstat(top / "src" / name).st_uid, os.lstat(top / "src" / name).st_gid)
                  for name in ("file", "folder", "link", "group/file")}
    assert owners == {"file": (1234, 1234), "folder": (1234, 1234), "link": (1234, 1234), "group/file": (1234, 4242)}


def test_passthrough_remote_flock(top):
    """--flock: a lock is seen on the serving side; a request that waits can be interrupted, and gets the lock in the end."""
    with local(top, ["passthrough", "-f", "--flock"]) as mnt:
        (mnt / "f").touch()
        with open(top / "src" / "f") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            waiting = subprocess.Popen(["flock", str(mnt / "f"), "true"])
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            waiting.terminate()
            assert waiting.wait(10) == -signal.SIGTERM
            waiting = subprocess.Popen(["flock", str(mnt / "f"), "true"])
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
        assert waiting.wait(10) == 0


def test_attached(top):
    """fusewire_attach(): one's own file system, without a mount."""
    if "EXAMPLE_ATTACHED" not in os.environ:
        pytest.skip("built without libfuse 3.14")
    process = subprocess.Popen([os.environ["EXAMPLE_ATTACHED"], str(top / "socket"), "t"], stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: (top / "socket").exists()), "no socket"
        for _ in range(2):
            with Mount(str(top / "socket"), top / "mnt") as mount:
                mount.wait_ready()
                assert os.listdir(top / "mnt") == ["motd"]
                assert "in another process's memory" in (top / "mnt" / "motd").read_text()
                with pytest.raises(FileNotFoundError):
                    (top / "mnt" / "x").read_text()
                mount.unmount()
        process.terminate()
        assert wait_end(process) == 0
        assert not (top / "socket").exists()
    finally:
        process.kill()
        process.wait()


def test_attached_where_it_cannot(top):
    if "EXAMPLE_ATTACHED" not in os.environ:
        pytest.skip("built without libfuse 3.14")
    for socket, tag in ((top / "none" / "socket", "t"), (top / "socket", "t" * 37)):
        done = subprocess.run([os.environ["EXAMPLE_ATTACHED"], str(socket), tag], stderr=subprocess.PIPE, text=True, timeout=20)
        assert done.returncode == 1 and str(socket) in done.stderr
    assert not (top / "socket").exists()


def test_empty(top):
    words = ["empty", "-f", "--size=8388608"]
    with local(top, words) as mnt:
        assert os.listdir(mnt) == ["data"]
        assert (mnt / "data").read_bytes() == b"e" * (8 << 20)
    with served(top, words) as socket:
        done = json.loads(check(FUSEWIRE, "bench", "--json", "--rw", "randrw", "--file", "data", "--verify", "--runtime", "0.5",
                                socket))
        assert done["verified"] and done["operations"] > 0


@pytest.mark.parametrize("words", [["passthrough"], ["passthrough", "--cache", "--no-cache"], ["empty"], ["memfuse"],
                                   ["memfuse", "--wait", "x"]])
def test_wrong_usage(top, words):
    argv = command(top, words, "")[:-1]
    if "--cache" in words:
        argv += [str(top / "mnt")]
    done = subprocess.run(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 2 and words[0] in done.stderr


TICKER = """
import errno, stat, sys, pyfuse3, trio
class Empty(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        if inode != pyfuse3.ROOT_INODE:
            raise pyfuse3.FUSEError(errno.ENOENT)
        entry = pyfuse3.EntryAttributes()
        entry.st_mode, entry.st_ino, entry.st_nlink = stat.S_IFDIR | 0o755, inode, 2
        return entry
async def tick():
    while True:
        print("tick", file=sys.stderr, flush=True)
        await trio.sleep(0.1)
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()
pyfuse3.init(Empty(), sys.argv[1], set(pyfuse3.default_options) - {"default_permissions"})
try:
    trio.run(main)
finally:
    pyfuse3.close(unmount=True)
"""


@for_others
@pytest.mark.parametrize("way", ["never", "always"])
def test_event_loop_goes_on(top, way):
    """A daemon that asks whether there is something before it reads does other things meanwhile, without any request, too."""
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import pyfuse3, trio"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no pyfuse3")
    with Process(["run", "--in-process", way, "--socket", str(top / "socket"), "--tag", "t"],
                 ["--", python, "-c", TICKER, str(top / "daemon")]) as device:
        device.wait_ready()
        assert wait_for(lambda: "serving tag" in device.text())
        before = device.text().count("tick")
        assert wait_for(lambda: device.text().count("tick") >= before + 10, 10), device.text()
        assert device.end(signal.SIGTERM) == 0, device.text()
