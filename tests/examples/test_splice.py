# SPDX-License-Identifier: BSD-3-Clause
"""Daemons that splice, served from within: contents by offset and size, the ends of files, holes, errors, a daemon that dies."""
import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from ways import by_hand, channel, check, command, for_others, inproc, local, needs_fuse, served, top
from mounting import Mount, Process, wait_for

pytestmark = needs_fuse

MIB = 1 << 20
# Of files, and around what a READ, a WRITE and libfuse's limit for splicing are.
SIZES = [1, 4095, 8191, 8192, 8193, 128 << 10, MIB - 1, MIB, MIB + 4097, 5 * MIB + 77]
WAYS = [local, channel, inproc, by_hand]
OPTIONS = {"uncached": ["--no-cache"], "cached": [], "small": ["--no-cache", "--max-write=65536"]}


def words(options="uncached"):
    return ["passthrough", "-f", *OPTIONS[options]]


def fill(path, size):
    path.write_bytes(random.Random(size).randbytes(size))


def spans(size, nr):
    """Offsets and lengths: a few of all, with odd ones, at and behind the end."""
    rng = random.Random(size)
    edges = [0, 1, 4095, 4096, 4097, size // 2, max(size - 4097, 0), max(size - 1, 0), size, size + 5000]
    lengths = [1, 4096, 8191, 8192, 8193, 65536, 131073, MIB - 1, MIB, MIB + 1, 3 * MIB]
    return [(rng.choice(edges) if rng.random() < 0.7 else rng.randrange(size + 1), rng.choice(lengths)) for _ in range(nr)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("way", WAYS)
def test_reads(top, way, options):
    for size in SIZES:
        fill(top / "src" / str(size), size)
    with way(top, words(options)) as mnt:
        for size in SIZES:
            want = (top / "src" / str(size)).read_bytes()
            with open(mnt / str(size), "rb", buffering=0) as f:
                for off, length in spans(size, 25):
                    assert os.pread(f.fileno(), length, off) == want[off:off + length], (size, off, length)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("way", WAYS)
def test_writes(top, way, options):
    with way(top, words(options)) as mnt:
        for size in SIZES:
            want, rng = bytearray(), random.Random(-size)
            with open(mnt / str(size), "w+b", buffering=0) as f:
                for off, length in spans(size, 15):
                    data = rng.randbytes(length)
                    assert os.pwrite(f.fileno(), data, off) == length
                    want += bytes(max(off + length - len(want), 0))
                    want[off:off + length] = data
            assert (top / "src" / str(size)).read_bytes() == want, size


@pytest.mark.parametrize("way", [inproc, by_hand])
def test_holes_and_shrinking_files(top, way):
    path = top / "src" / "sparse"
    with open(path, "wb") as f:
        f.truncate(8 * MIB)
        f.seek(3 * MIB + 5)
        f.write(b"x" * 100000)
    with way(top, words()) as mnt:
        assert (mnt / "sparse").read_bytes() == path.read_bytes()
        with open(mnt / "sparse", "rb", buffering=0) as f:
            for size in (3 * MIB + 50000, 12289, 1, 0):
                os.truncate(path, size)
                assert os.pread(f.fileno(), 4 * MIB, 0) == path.read_bytes()


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.mark.parametrize("way", [inproc, by_hand])
def test_what_is_not_in_memory(top, way):
    """Files of which nothing, or a part, is in the page cache."""
    path = top / "src" / "cold"
    fill(path, 6 * MIB)
    want = path.read_bytes()
    with way(top, words()) as mnt, open(mnt / "cold", "rb", buffering=0) as f:
        for warm in (0, 300000, 5 * MIB):
            drop_cache(path)
            with open(path, "rb", buffering=0) as source:
                source.read(warm)
            assert b"".join(iter(lambda: f.read(MIB), b"")) == want
            f.seek(0)


@pytest.mark.parametrize("way", [inproc, by_hand])
def test_errors(top, way):
    """What cannot be read or written fails as it does elsewhere, and what comes next is right."""
    fill(top / "src" / "file", MIB)
    with way(top, words()) as mnt:
        (mnt / "limited").touch()
        reader, writer = os.open(mnt / "file", os.O_RDONLY), os.open(mnt / "limited", os.O_RDWR)
        for i in range(3):
            with pytest.raises(OSError) as e:
                os.pwrite(writer, bytes(MIB), (1 << 63) - MIB - 1)
            assert e.value.errno in (errno.EFBIG, errno.EINVAL)
            assert os.pwrite(writer, bytes([i]) * MIB, i * MIB) == MIB
            assert os.pread(writer, MIB, i * MIB) == bytes([i]) * MIB
            assert os.pread(reader, 2 * MIB, 0) == (top / "src" / "file").read_bytes()
        os.close(reader)
        os.close(writer)


def test_pipes_are_played(top):
    """Reads and writes of the daemon are one call each, between the driver's memory and the file."""
    fill(top / "src" / "file", 4 * MIB)
    trace = top / "trace"
    with inproc(top, ["passthrough", "-f", "--no-cache"]) as mnt:
        pid = daemon_of(top)
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=preadv2,pwritev,pread64,pwrite64,vmsplice,splice", "-o",
                                   str(trace), "-p", str(pid)], stderr=subprocess.PIPE)
        try:
            if not wait_for(lambda: traced(pid), 5):
                pytest.skip("strace may not look at the daemon")
            want = (mnt / "file").read_bytes()
            (mnt / "copy").write_bytes(want)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)
    assert want == (top / "src" / "file").read_bytes() == (top / "src" / "copy").read_bytes()
    calls = [line.split(None, 1)[1].split("(")[0] for line in trace.read_text().splitlines() if "(" in line]
    # libfuse's second thread began to wait before INIT said that messages are spliced: its first is not.
    unspliced = 1 - (calls.count("pwritev") >= 4)
    assert calls.count("preadv2") >= 4 and calls.count("pwritev") >= 4 - unspliced, trace.read_text()
    # The driver's pages begin elsewhere than the file's: a little remains.
    assert calls.count("pwrite64") <= 1 + unspliced and not set(calls) & {"vmsplice", "splice"}, trace.read_text()


@for_others
def test_init_window(top, monkeypatch):
    """A thread of libfuse that saw INIT half done: no request of its is lost."""
    server = "/usr/lib/openssh/sftp-server"
    sshfs = shutil.which("sshfs")
    if not sshfs or not os.path.exists(server):
        pytest.skip("no sshfs, or no sftp-server")
    ssh = top / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec {server}\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("LD_PRELOAD", os.environ["INIT_WINDOW"])
    with served(top, [sshfs, "-f", "-o", f"ssh_command={ssh}", f"user@host:{top}/src"], "always") as socket:
        monkeypatch.delenv("LD_PRELOAD")
        # The first that the second thread gets is large.
        check(os.environ["FUSEWIRE"], "bench", "--rw", "randwrite", "--bs", "64k", "--iodepth", "4", "--size", "8M", "--runtime", "1",
              "--file", "f", socket)


def traced(pid):
    with open(f"/proc/{pid}/status") as f:
        return "TracerPid:\t0" not in f.read()


def daemon_of(top):
    """The process of the passthrough that shows top/src."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        if argv[0].endswith(b"/passthrough") and str(top / "src").encode() in argv:
            return int(pid)
    raise AssertionError("no daemon")


@pytest.mark.parametrize("writing", [False, True])
def test_daemon_dies(top, writing):
    """Killed in the middle: whoever reads or writes gets an error, or what is right; never hangs."""
    fill(top / "src" / "file", 16 * MIB)
    want = (top / "src" / "file").read_bytes()
    worker = f"""
import os, sys
fd = os.open({str(top / "mnt" / "file")!r}, os.O_RDWR)
data = open({str(top / "src" / "file")!r}, "rb").read()
print("go", flush=True)
while True:
    for off in range(0, len(data), {MIB}):
        try:
            if {writing}:
                os.pwrite(fd, data[off:off + {MIB}], off)
            else:
                # In two requests: the second may be the one that fails.
                got = os.pread(fd, {MIB}, off)
                if not got or got != data[off:off + len(got)]:
                    sys.exit(f"wrong bytes, {{len(got)}} at {{off}}")
        except OSError as e:
            print(e.errno, flush=True)
            sys.exit(0)
"""
    run = Process(["run", "--in-process", "always", "--socket", str(top / "socket"), "--tag", "t"],
                  ["--", *command(top, words(), top / "daemon")])
    with run, contextlib.ExitStack() as stack:
        run.wait_ready()
        stack.enter_context(Mount(top / "socket", top / "mnt")).wait_ready()
        process = subprocess.Popen(["python3", "-c", worker], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "go\n"
            time.sleep(0.1)
            os.kill(daemon_of(top), signal.SIGKILL)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
        assert run.process.wait(20) == 128 + signal.SIGKILL, run.text()
    assert (top / "src" / "file").read_bytes() == want
