# SPDX-License-Identifier: BSD-3-Clause
"""The fio engine: fio's own verification, on the null device and on a daemon."""
import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from process import Ready  # noqa: E402

FUSEWIRE, ENGINE = os.environ["FUSEWIRE"], os.environ["FIO_ENGINE"]


def no_engine():
    """Why fio cannot load the engine, or None."""
    if not shutil.which("fio"):
        return "fio is not installed"
    version = subprocess.run(["fio", "--version"], capture_output=True, text=True, timeout=20).stdout.strip()
    if version != "fio-3.33":
        return f"the engine knows fio-3.33, this is {version}"
    with open(ENGINE, "rb") as file:
        return "a sanitizer's library does not load into fio" if b"__asan_init" in file.read() else None


needs_fio = pytest.mark.skipif(no_engine() is not None, reason=str(no_engine()))


@contextlib.contextmanager
def serving(top, *command):
    with Ready([FUSEWIRE, command[0]], command[1:], top / "log") as backend:
        backend.wait_ready()
        yield


def fio(socket, *options):
    return subprocess.run(["fio", "--name=job", f"--ioengine=external:{ENGINE}", f"--socket={socket}", "--thread",
                           "--output-format=json", "--verify_state_save=0", *options], capture_output=True, text=True, timeout=60)


def jobs_of(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{"):])["jobs"]


VERIFY = ["--rw=randrw", "--bs=4k", "--iodepth=32", "--verify=crc32c", "--fsync=64", "--numjobs=2", "--queues=2",
          "--offset_increment=8M", "--size=4M", "--filename=data"]


@needs_fio
@pytest.mark.parametrize("extra", [[], ["--poll"], ["--packed"]])
def test_null(tmp_path, extra):
    with serving(tmp_path, "null", "--socket", f"{tmp_path}/s", "--tag", "t", "--size", "32M", "--queues", "2"):
        jobs = jobs_of(fio(f"{tmp_path}/s", *VERIFY, *extra))
    assert len(jobs) == 2
    for job in jobs:
        assert job["error"] == 0
        # Each block of the 4 MiB once, and what was written once more to verify it.
        assert job["read"]["io_bytes"] == 4 << 20 and job["write"]["io_bytes"] > 1 << 20
        assert job["sync"]["total_ios"] > 0


@needs_fio
@pytest.mark.skipif(not shutil.which("bindfs"), reason="bindfs is not installed")
def test_bindfs(tmp_path):
    served, at = tmp_path / "served", tmp_path / "at"
    served.mkdir()
    at.mkdir()
    with serving(tmp_path, "run", "--socket", f"{tmp_path}/s", "--tag", "t", "--queues", "2", "--",
                 "bindfs", "-f", str(served), str(at)):
        jobs_of(fio(f"{tmp_path}/s", *VERIFY))
        jobs_of(fio(f"{tmp_path}/s", "--rw=write", "--bs=64k", "--iodepth=4", "--size=1M", "--filename=plain",
                    "--buffer_pattern=0x5a"))
        assert (served / "plain").read_bytes() == b"\x5a" * (1 << 20)
        # The size is the file's; wrong data is found.
        (served / "plain").write_bytes(b"\x5a" * 65536 + b"\x5b" * 4096)
        jobs = jobs_of(fio(f"{tmp_path}/s", "--rw=read", "--bs=4k", "--filename=plain", "--open_readonly"))
        assert jobs[0]["read"]["io_bytes"] == 65536 + 4096
        assert fio(f"{tmp_path}/s", "--rw=read", "--bs=4k", "--filename=plain", "--verify=pattern",
                   "--verify_pattern=0x5a").returncode != 0


@needs_fio
def test_too_many_jobs(tmp_path):
    with serving(tmp_path, "null", "--socket", f"{tmp_path}/s", "--tag", "t", "--size", "1M"):
        done = fio(f"{tmp_path}/s", "--rw=read", "--numjobs=2", "--size=1M", "--filename=data")
    assert done.returncode != 0 and "more jobs than --queues=1" in done.stderr


@needs_fio
def test_no_device(tmp_path):
    done = fio(f"{tmp_path}/none", "--rw=read", "--size=1M", "--filename=data")
    assert done.returncode != 0 and f"{tmp_path}/none: " in done.stderr


@pytest.mark.skipif("sanitizer" in str(no_engine()), reason="needs a library without sanitizers")
def test_other_programs_are_refused(capfd):
    ops = ctypes.c_void_p(1)
    ctypes.CDLL(ENGINE).get_ioengine(ctypes.byref(ops))
    assert ops.value is None
    assert "another program" in capfd.readouterr().err
