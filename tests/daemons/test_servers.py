# SPDX-License-Identifier: BSD-3-Clause
"""Network file systems, each with real servers behind it: the same results as on this machine's /dev/fuse.

DAEMONS_MIB       size of the file that goes in and out (default 64; the full check takes 1024)
DAEMONS_SERVERS   comma-separated choice of SERVERS
DAEMONS_GUEST     0 leaves the virtual machines out
"""
import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest_steps  # noqa: E402
import serving  # noqa: E402
from catalog import SERVERS  # noqa: E402
from server import Unavailable  # noqa: E402
from serving import Mounted, Served  # noqa: E402

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("DAEMONS_MIB", "64"))
CHOSEN = [n for n in os.environ.get("DAEMONS_SERVERS", ",".join(SERVERS)).split(",") if n]
with_guest = pytest.mark.skipif(os.environ.get("DAEMONS_GUEST") == "0", reason="DAEMONS_GUEST=0")


class World:
    """One daemon's servers, up for all tests of it, and a folder for what the tests start."""

    def __init__(self, name, stack):
        self.description = SERVERS[name]
        self.top = stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-", ignore_cleanup_errors=True))
        try:
            self.server = stack.enter_context(self.description.start(os.path.join(self.top, "state")))
        except Unavailable as e:
            pytest.skip(str(e))
        self.count = 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def command(self, kind):
        """The user's command line, with a mount point that nobody else has."""
        mountpoint = os.path.join(self.top, self.name(kind))
        os.makedirs(mountpoint)
        return self.server.fuse_command(mountpoint), mountpoint

    def local(self):
        command, mountpoint = self.command("local")
        return Mounted(os.path.join(self.top, self.name("local") + ".log"), command, mountpoint)

    def served(self, *options):
        command, _ = self.command("untouched")
        return Served(self.top, self.name("run"), command, *options)


@pytest.fixture(scope="module", params=CHOSEN)
def world(request):
    if os.getuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("mounts on this machine, to compare with: needs root and /dev/fuse")
    with contextlib.ExitStack() as stack:
        yield World(request.param, stack)


def md5(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def big_file(path, mib):
    total = hashlib.md5()
    with open(path, "wb") as f:
        for _ in range(mib):
            piece = os.urandom(MIB)
            total.update(piece)
            f.write(piece)
    return total.hexdigest()


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3\n")


def test_suite(world):
    """Each test of the guest suite ends here as it does on a local mount: passed, skipped or failed, for the same reason."""
    options = world.description.suite_options
    with world.local() as m:
        local = serving.suite_here(m.mountpoint, options)
        shutil.rmtree(os.path.join(m.mountpoint, "suite"), ignore_errors=True)
    print("local:", local)
    with world.served() as s, s.mount() as m:
        here = serving.suite_here(m.mountpoint, options)
        shutil.rmtree(os.path.join(m.mountpoint, "suite"), ignore_errors=True)
    assert here == local


@with_guest
def test_suite_in_guest(world):
    options = world.description.suite_options
    with world.local() as m:
        local = serving.suite_here(m.mountpoint, options)
        shutil.rmtree(os.path.join(m.mountpoint, "suite"), ignore_errors=True)
    with world.served() as s:
        there = serving.suite_in_guest(s, options)
        with s.mount() as m:
            shutil.rmtree(os.path.join(m.mountpoint, "suite-in-guest"), ignore_errors=True)
    assert there == local


def test_copy_in_and_out(world):
    """A large file goes in, is the same after a new mount, on a local mount, and comes out the same."""
    source = os.path.join(world.top, "big")
    total = big_file(source, SIZE_MIB)
    with world.served() as s:
        with s.mount() as m:
            shutil.copyfile(source, os.path.join(m.mountpoint, "big"))
            assert m.unmount() == 0, m.text()
        drop_caches()
        with s.mount() as m:
            shutil.copyfile(os.path.join(m.mountpoint, "big"), source)
            assert m.unmount() == 0, m.text()
        assert md5(source) == total
    os.unlink(source)
    drop_caches()
    with world.local() as m:
        assert md5(os.path.join(m.mountpoint, "big")) == total
        os.unlink(os.path.join(m.mountpoint, "big"))


def test_16_writers(world):
    with world.served() as s:
        with s.mount() as m:
            script = ("import hashlib, os, sys\n"
                      "h = hashlib.md5()\n"
                      "with open(sys.argv[1], 'wb', buffering=0) as f:\n"
                      "    for i in range(64):\n"
                      "        b = os.urandom(32768 + i)\n"
                      "        h.update(b)\n"
                      "        f.write(b)\n"
                      "print(h.hexdigest())\n")
            writers = [subprocess.Popen([sys.executable, "-c", script, os.path.join(m.mountpoint, f"w{i}")],
                                        stdout=subprocess.PIPE, text=True) for i in range(16)]
            sums = [w.communicate(timeout=120)[0].strip() for w in writers]
            assert [w.returncode for w in writers] == [0] * 16
            assert m.unmount() == 0, m.text()
        drop_caches()
        with s.mount() as m:
            assert [md5(os.path.join(m.mountpoint, f"w{i}")) for i in range(16)] == sums
            for i in range(16):
                os.unlink(os.path.join(m.mountpoint, f"w{i}"))


def test_ended_by_sigterm(world):
    """SIGTERM of `fusewire run` is an unmount: the daemon's exit status is that of an unmount here, and all is kept."""
    with world.local() as m:
        status_here = m.unmount()
        print(m.text())
    with world.served() as s:
        with s.mount() as m:
            with open(os.path.join(m.mountpoint, "kept"), "wb") as f:
                f.write(b"x" * 100000)
            m.unmount()
        status = s.terminate()
        print(s.text())
    assert status == status_here
    with world.local() as m:
        assert os.path.getsize(os.path.join(m.mountpoint, "kept")) == 100000
        os.unlink(os.path.join(m.mountpoint, "kept"))


def works(mountpoint):
    try:
        with open(os.path.join(mountpoint, "after"), "wb") as f:
            f.write(b"again")
        os.unlink(os.path.join(mountpoint, "after"))
        return True
    except OSError:
        return False


def test_killed_and_restarted(world):
    with world.served("--restart") as s, s.mount() as m:
        with open(os.path.join(m.mountpoint, "held"), "wb", buffering=0) as held:
            held.write(b"x")
            serving.kill_daemon(s)
            with pytest.raises(OSError) as e:
                for _ in range(1000):
                    held.write(b"y" * 4096)
                    os.fsync(held.fileno())
            assert e.value.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EBADF), e.value
        assert serving.sleep_until(lambda: works(m.mountpoint), 60), s.text()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(m.mountpoint, "held"))


@with_guest
def test_guest_reboots(world):
    with world.served() as s:
        assert guest_steps.boots(s) == 3, s.text()
        assert s.process.poll() is None


def test_two_mounts(world):
    """Two devices on one volume: what one writes and closes, the other reads; by a guest, too."""
    if not world.description.shared:
        pytest.skip("not meant to be mounted twice")
    with world.served() as a, world.served() as b, a.mount() as m, b.mount() as n:
        for turn in range(20):
            writer, reader = (m, n) if turn % 2 else (n, m)
            text = os.urandom(50000 + turn)
            with open(os.path.join(writer.mountpoint, f"shared{turn}"), "wb") as f:
                f.write(text)
            with open(os.path.join(reader.mountpoint, f"shared{turn}"), "rb") as f:
                assert f.read() == text
            os.unlink(os.path.join(reader.mountpoint, f"shared{turn}"))


@with_guest
def test_two_guests(world):
    if not world.description.shared:
        pytest.skip("not meant to be mounted twice")
    with world.served() as a, world.served() as b:
        guest_steps.share(a, b)
