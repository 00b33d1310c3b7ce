# SPDX-License-Identifier: BSD-3-Clause
"""Every file system served by `fusewire run` and mounted by `fusewire mount`: the same results as with the same daemon on
this machine's /dev/fuse. Environment: see world.py, serving.py; DAEMONS_GUEST=0 leaves the
virtual machines out."""
import contextlib
import errno
import os
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest_steps  # noqa: E402
import serving  # noqa: E402
import world as w  # noqa: E402
from server import Unavailable  # noqa: E402

with_guest = pytest.mark.skipif(os.environ.get("DAEMONS_GUEST") == "0", reason="DAEMONS_GUEST=0")
ENDED = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EBADF)


@pytest.fixture(scope="module", params=w.chosen())
def world(request):
    try:
        one = w.World(request.param)
    except Unavailable as e:
        pytest.skip(str(e))
    yield one
    one.close()


def test_suite(world, record_property):
    """Each test of the guest suite ends here as it does on a local mount: passed, skipped or failed, for the same reason."""
    world.suite_local()
    with world.served() as s, s.mount() as m:
        here = world.suite(m.mountpoint)
        record_property("served", s.way())
    world.expect(here)
    record_property("command", " ".join(world.server.fuse_command("/mnt/x")))
    if world.source:
        record_property("suite", "reads the same")
        return
    local, varies = world.suite_local()[0], world.varies()
    record_property("suite", f"{sum(result == 'passed' for result in here.values())} passed")
    record_property("lacks", ", ".join(n for n, result in local.items() if result.startswith("failed") and n not in varies))
    record_property("varies", ", ".join(varies))


def test_copy_in_and_out(world):
    """A large file goes in, is the same after a new mount, on a local mount, and comes out the same."""
    if world.source:
        with world.served() as s, s.mount() as m:
            assert w.md5(os.path.join(world.inside(m.mountpoint), "big")) == w.md5(os.path.join(world.source, "big"))
        return
    source = os.path.join(world.top, "big")
    total = w.big_file(source, w.SIZE_MIB)
    with world.served() as s:
        with s.mount() as m:
            shutil.copyfile(source, os.path.join(m.mountpoint, "big"))
            assert m.unmount() == 0, m.text()
        w.drop_caches()
        with s.mount() as m:
            shutil.copyfile(os.path.join(m.mountpoint, "big"), source)
            assert m.unmount() == 0, m.text()
        assert w.md5(source) == total
    os.unlink(source)
    w.drop_caches()
    with world.local() as m:
        assert w.md5(os.path.join(m.mountpoint, "big")) == total
        os.unlink(os.path.join(m.mountpoint, "big"))


WRITER = ("import hashlib, os, sys\n"
          "h = hashlib.md5()\n"
          "with open(sys.argv[1], 'wb', buffering=0) as f:\n"
          "    for i in range(64):\n"
          "        b = os.urandom(32768 + i)\n"
          "        h.update(b)\n"
          "        f.write(b)\n"
          "print(h.hexdigest())\n")


def test_16_at_once(world):
    """16 processes write; or read, where nothing can be written."""
    with world.served() as s:
        if world.source:
            with s.mount() as m:
                path = os.path.join(world.inside(m.mountpoint), "big")
                readers = [subprocess.Popen(["md5sum", path], stdout=subprocess.PIPE, text=True) for _ in range(16)]
                sums = {r.communicate(timeout=600)[0].split()[0] for r in readers}
            assert sums == {w.md5(os.path.join(world.source, "big"))}
            return
        with s.mount() as m:
            writers = [subprocess.Popen([sys.executable, "-c", WRITER, os.path.join(m.mountpoint, f"w{i}")],
                                        stdout=subprocess.PIPE, text=True) for i in range(16)]
            sums = [x.communicate(timeout=120)[0].strip() for x in writers]
            assert [x.returncode for x in writers] == [0] * 16
            assert m.unmount() == 0, m.text()
        w.drop_caches()
        with s.mount() as m:
            assert [w.md5(os.path.join(m.mountpoint, f"w{i}")) for i in range(16)] == sums
            for i in range(16):
                os.unlink(os.path.join(m.mountpoint, f"w{i}"))


def test_ended_by_sigterm(world):
    """SIGTERM of `fusewire run` is an unmount: the daemon's exit status is that of an unmount here, and all is kept."""
    with world.local() as m:
        status_here = m.unmount()
        print(m.text())
    with world.served() as s:
        with s.mount() as m:
            if not world.source:
                with open(os.path.join(m.mountpoint, "kept"), "wb") as f:
                    f.write(b"x" * 100000)
            m.unmount()
        status = s.terminate()
        print(s.text())
    assert status == status_here
    world.check()
    if not world.source:
        with world.local() as m:
            assert os.path.getsize(os.path.join(m.mountpoint, "kept")) == 100000
            os.unlink(os.path.join(m.mountpoint, "kept"))


def use_until_it_fails(world, held):
    for _ in range(1000):
        if world.source:
            w.drop_caches()
            held.seek(0)
            held.read(4096)
        else:
            held.write(b"y" * 4096)
            os.fsync(held.fileno())


def test_killed_and_restarted(world):
    """kill -9 of the daemon: errors at once, nobody hangs; --restart serves again under the same mount."""
    make = getattr(world.server, "restart_command", world.server.fuse_command)
    with world.served("--restart", command=make(world.mountpoint("untouched"))) as s, s.mount() as m:
        path, mode = (os.path.join(world.inside(m.mountpoint), "big"), "rb") if world.source else \
            (os.path.join(m.mountpoint, "held"), "wb")
        held = open(path, mode, buffering=0)
        serving.kill_daemon(s)
        try:
            with pytest.raises(OSError) as e:
                use_until_it_fails(world, held)
        finally:
            # It may tell at close once more what it told before.
            with contextlib.suppress(OSError):
                held.close()
        assert e.value.errno in ENDED, e.value
        assert serving.sleep_until(lambda: w.works(world, m.mountpoint), 60), s.text()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(m.mountpoint, "held"))


def test_in_the_background(world):
    """The command line as users type it, without what keeps it in the foreground."""
    make = getattr(world.server, "background_command", None)
    command = make(world.mountpoint("untouched")) if make else None
    if not command:
        pytest.skip("it does not go to the background, or its test is in the foreground only")
    with world.served(command=command) as s:
        s.wait_background()
        with s.mount() as m:
            assert w.works(world, m.mountpoint)
            assert m.unmount() == 0, m.text()
        says = getattr(world.server, "background_says", "")
        assert serving.sleep_until(lambda: says in s.text(), 20), s.text()
        assert s.terminate() == getattr(world.server, "end_status", 0), s.text()
    world.check()


def test_read_only(world):
    """ro is obeyed, with the error that a local mount gives."""
    options = world.description.read_only
    if not options:
        pytest.skip("it has no such option, or can only be read")
    with world.local(*options) as m:
        local = w.write_error(m.mountpoint)
    with world.served(command=world.server.fuse_command(world.mountpoint("untouched"), *options)) as s, s.mount() as m:
        here = w.write_error(m.mountpoint)
    assert (here, local) == ("EROFS", "EROFS")


def test_mount_options(world):
    """What libfuse and fusermount pass on to the kernel is taken, whatever else is made of it."""
    if world.description.read_only != ("-o", "ro"):
        pytest.skip("not options of libfuse")
    options = ("-o", "allow_other,default_permissions,fsname=some:thing,subtype=kind,max_read=65536")
    try:
        with world.local(*options) as m:
            assert w.works(world, m.mountpoint)
    except AssertionError as e:
        pytest.skip(f"it refuses one of them itself: {str(e)[-200:]}")
    with world.served(command=world.server.fuse_command(world.mountpoint("untouched"), *options)) as s, s.mount() as m:
        assert w.works(world, m.mountpoint)


def test_two_mounts(world):
    """Two devices on one volume: what one writes and closes, the other reads."""
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


def run_as_nobody(world, mode):
    """The status with which `fusewire run` of an ordinary user ends, before whom /dev/fuse has this mode; and the way it took."""
    if not world.description.user:
        pytest.skip("it takes root by its nature")
    device, why = w.with_device(world, mode)
    if why:
        pytest.skip(f"no /dev/fuse of its own for a test: {why}")
    command = world.server.fuse_command(world.mountpoint("untouched"), *getattr(world.server, "user_options", []))
    with world.served(command=command, wrap=[*device, *w.as_nobody(world)]) as s:
        with s.mount() as m:
            assert w.works(world, m.mountpoint)
            assert m.unmount() == 0, m.text()
        way = s.way()
        status = s.terminate()
        print(s.text())
        return status, way


def test_as_an_ordinary_user(world):
    """Last: what there is is given to that user. The daemon sees an unmount."""
    assert run_as_nobody(world, "666")[0] == 0


def sigterm_status(world, used):
    """Of the daemon on a local mount, as a shell tells it; @used: it has answered, and so awaits its signals, too."""
    world.repair()
    with world.local() as m:
        assert not used or w.works(world, m.mountpoint)
        status = m.terminate()
    return 128 - status if status < 0 else status


def test_as_an_ordinary_user_without_device(world):
    """Who may not open /dev/fuse is served all the same. From outside its process no unmount can be shown to the daemon
    then (docs/launch.md): SIGTERM ends it, with a status that it has then on a local mount, too."""
    status, way = run_as_nobody(world, "600")
    if way == "in-process":
        assert status == 0
    seen = [0]
    while status not in seen:
        # gocryptfs has two, by chance.
        assert len(seen) <= w.LOCAL_RUNS, f"{status}; on /dev/fuse {seen[1:]}"
        seen.append(sigterm_status(world, used=len(seen) % 2))
