# SPDX-License-Identifier: BSD-3-Clause
"""`fusewire bench`, and with it the FUSE client: every mode, on our own device and on virtiofsd."""
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from virtiofsd import KINDS, command, why_not  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]
SIZE = 4 << 20
DATA_MODES = ["randread", "randwrite", "read", "write", "randrw"]
OTHER_MODES = ["getattr", "lookup", "create", "readdir"]
SHORT = ["--runtime", "0.05"]
LONGER = ["--runtime", "2"]


def bench(path, *args, timeout=60):
    return subprocess.run([FUSEWIRE, "bench", *map(str, args), path], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout)


def once(path, *args):
    run = bench(path, "--json", *args)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def result(path, *args, call=once):
    """Of a short run; of a longer one where the machine had other things to do for that short time."""
    out = call(path, *SHORT, *args)
    return out if out["operations"] else call(path, *LONGER, *args)


def refused(path, *args, status=1):
    """Exit status and exactly one line on stderr."""
    run = bench(path, *SHORT, *args)
    assert run.returncode == status, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


@contextlib.contextmanager
def null_device(folder, *args):
    path = str(folder / "null")
    ready, write = os.pipe()
    process = subprocess.Popen([FUSEWIRE, "null", "--socket", path, "--ready-fd", str(write), "--size", str(SIZE),
                                "--log-level", "error", *args], pass_fds=[write], stderr=subprocess.PIPE, text=True)
    os.close(write)
    try:
        assert os.read(ready, 64) == b"READY=1\n"
        yield path, process
    finally:
        os.close(ready)
        if process.poll() is None:
            process.terminate()
        messages = process.communicate(timeout=20)[1]
    # An error message here means that the client sent what a guest would not send.
    assert messages == ""


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    with null_device(tmp_path_factory.mktemp("null"), "--queues", "4") as (path, process):
        yield path, process.pid


@pytest.fixture(params=KINDS)
def virtiofsd(tmp_path, request):
    """Start virtiofsd anew for each run: it ends with its front-end. Gives a function and the shared directory."""
    why = why_not(request.param)
    if why:
        pytest.skip(why)
    shared = tmp_path / "shared"
    shared.mkdir()
    path = str(tmp_path / "virtiofsd")

    def start(call, *args):
        process = subprocess.Popen(command(request.param, path, shared), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True)
        try:
            end = time.monotonic() + 10
            while not os.path.exists(path):
                if process.poll() is not None:
                    pytest.skip("virtiofsd does not start here: " + process.stderr.read()[-200:])
                assert time.monotonic() < end
                time.sleep(0.01)
            return call(path, *args)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(10)
            process.stderr.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def run(*args, call=None):
        if call:
            return start(call, *args)
        return result(path, *args, call=lambda _, *words: start(once, *words))

    return run, shared


def check_numbers(out, requests_per_operation=1):
    latency = out["latency_us"]
    assert out["operations"] > 0
    assert out["requests"] == out["operations"] * requests_per_operation
    assert 0.05 <= out["seconds"] < 30
    assert out["iops"] == pytest.approx(out["operations"] / out["seconds"], rel=0.01)
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert 0 < latency["mean"] <= latency["max"]
    assert out["cpu_s_per_million_requests"]["bench"] > 0


@pytest.mark.parametrize("ring", [[], ["--packed"]], ids=["split", "packed"])
@pytest.mark.parametrize("wait", ["--poll", "--event"])
@pytest.mark.parametrize("rw", DATA_MODES + ["getattr", "lookup", "readdir"])
def test_modes(null, rw, wait, ring):
    path, pid = null
    file = [] if rw == "readdir" else ["--file", "data"]
    out = result(path, "--rw", rw, wait, "--pid", pid, *ring, *file)
    check_numbers(out)
    assert out["rw"] == rw and out["wait"] == wait[2:]
    assert out["ring"] == ("packed" if ring else "split")
    assert out["bytes"] == (4096 * out["operations"] if rw in DATA_MODES else 0)
    assert out["cpu_s_per_million_requests"]["device"] > 0


@pytest.mark.parametrize("depth", [1, 32])
def test_polls_before_it_sleeps(null, depth):
    out = result(null[0], "--rw", "randrw", "--file", "data", "--verify", "--iodepth", depth, "--poll-us", 200)
    check_numbers(out)
    assert (out["wait"], out["poll_us"], out["verified"]) == ("event", 200, True)


@pytest.mark.parametrize("queues", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 2, 32, 256])
@pytest.mark.parametrize("ring", [[], ["--packed"]], ids=["split", "packed"])
def test_verify_depths_and_queues(null, depth, queues, ring):
    out = result(null[0], "--rw", "randrw", "--file", "data", "--verify", "--iodepth", depth, "--queues", queues, *ring)
    check_numbers(out)
    assert out["verified"] and out["range_bytes"] == SIZE


@pytest.mark.parametrize("rw", DATA_MODES)
@pytest.mark.parametrize("block", [8, 4096, 12288, 1 << 20])
def test_verify_blocks(null, rw, block):
    size = min(SIZE, 1024 * block + 4)
    out = result(null[0], "--rw", rw, "--file", "/data", "--verify", "--bs", block, "--size", size, "--iodepth", 4, "--queues", 2)
    check_numbers(out)
    assert out["range_bytes"] == size // block * block


@pytest.mark.parametrize("rw", ["read", "write"])
def test_more_queues_than_blocks(null, rw):
    out = result(null[0], "--rw", rw, "--file", "data", "--verify", "--bs", "1M", "--size", "2M", "--queues", 4, "--iodepth", 1)
    check_numbers(out)


@pytest.mark.parametrize("ring", [[], ["--packed"]], ids=["split", "packed"])
def test_depth_beyond_a_small_ring(null, ring):
    out = result(null[0], "--rw", "randrw", "--file", "data", "--verify", "--iodepth", 256, "--queue-size", 8, *ring)
    check_numbers(out)


def test_runs_one_after_the_other(null):
    """DESTROY at the end of one session does not disturb the next."""
    for _ in range(5):
        check_numbers(result(null[0], "--rw", "getattr"))


def test_end_fsync(null):
    out = result(null[0], "--rw", "randwrite", "--file", "data", "--end-fsync")
    check_numbers(out)
    assert out["end_fsync"] and not result(null[0], "--rw", "randwrite", "--file", "data")["end_fsync"]


def test_verify_text(null):
    run = bench(null[0], *SHORT, "--verify", "--file", "data", "--rw", "randwrite")
    assert run.returncode == 0 and "verify   all 4194304 bytes are right" in run.stdout


def test_text(null):
    run = bench(null[0], *SHORT, "--queues", 2)
    assert run.returncode == 0 and run.stderr == ""
    lines = run.stdout.splitlines()
    assert lines[0].startswith("randread, 4096 bytes, depth 32, 2 queues, split ring, eventfd: 0.")
    assert [line.split()[0] for line in lines] == ["randread,", "rate", "latency", "CPU"]


def test_progress_on_a_terminal(null):
    controller, terminal = pty.openpty()
    try:
        subprocess.run([FUSEWIRE, "bench", "--runtime", "1.2", null[0]], stderr=terminal, stdout=subprocess.DEVNULL,
                       check=True, timeout=20)
        text = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "randread: 1 s of 1 s, " in text and text.endswith("\r\x1b[K")


def test_interrupted_reports(null):
    with subprocess.Popen([FUSEWIRE, "bench", "--json", "--runtime", "60", null[0]], stdout=subprocess.PIPE, text=True) as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out = json.loads(process.communicate(timeout=20)[0])
        assert process.returncode == 1
    assert out["interrupted"] and out["operations"] > 0 and out["seconds"] < 30


def test_device_dies(tmp_path):
    with null_device(tmp_path) as (path, process):
        with subprocess.Popen([FUSEWIRE, "bench", "--runtime", "60", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as run:
            time.sleep(0.4)
            process.kill()
            out, err = run.communicate(timeout=20)
            assert run.returncode == 1 and out == ""
            assert err == "fusewire bench: the device closed the connection\n"


@pytest.mark.parametrize("args, text", [
    ([], "no SOCKET"),
    (["a", "b"], "one SOCKET only"),
    (["--rw", "trim", "s"], "--rw: 'trim' is not randread"),
    (["--bs", "0", "s"], "--bs: '0' is not a number from 1 to 1048576"),
    (["--bs", "1048577", "s"], "--bs: '1048577'"),
    (["--iodepth", "0", "s"], "--iodepth: '0'"),
    (["--iodepth", "1024", "s"], "--iodepth: '1024' is not a number from 1 to 1023"),
    (["--queues", "65", "s"], "--queues: '65'"),
    (["--queue-size", "1000", "s"], "power of two"),
    (["--queue-size", "1", "s"], "--queue-size: '1'"),
    (["--size", "1X", "s"], "--size: '1X'"),
    (["--runtime", "0", "s"], "--runtime: '0'"),
    (["--runtime", "nan", "s"], "--runtime: 'nan'"),
    (["--runtime", "1s", "s"], "--runtime: '1s'"),
    (["--poll-us", "1000001", "s"], "--poll-us: '1000001' is not a number from 0 to 1000000"),
    (["--poll", "--poll-us", "1", "s"], "--poll-us is for a driver that sleeps: it does not go with --poll"),
    (["--cpu", "", "s"], "--cpu: ''"),
    (["--cpu", "1-", "s"], "--cpu: '1-'"),
    (["--cpu", "2-1", "s"], "--cpu: '2-1'"),
    (["--cpu", "0,", "s"], "--cpu: '0,'"),
    (["--cpu", "1024", "s"], "--cpu: '1024'"),
    (["--cpu", "0-1023,0", "s"], "--cpu: '0-1023,0'"),
    (["--pid", "0", "s"], "--pid: '0'"),
    (["--pid", "4194304", "s"], "there is no process 4194304"),
    (["--pid", "4194305", "s"], "--pid: '4194305' is not a number"),
    (["--end-fsync", "--rw", "randread", "s"], "--end-fsync is for modes that write data, not for randread"),
    (["--direct", "--rw", "readdir", "s"], "--direct is for modes that read or write data, not for readdir"),
    (["--verify", "--rw", "getattr", "s"], "--verify is for modes that read or write data, not for getattr"),
    (["--verify", "--bs", "4k", "--bs", "12", "s"], "multiple of 8"),
    (["--rw", "readdir", "--bs", "4095", "s"], "at least 4k"),
    (["--bogus", "s"], "bogus"),
])
def test_bad_usage(args, text):
    run = subprocess.run([FUSEWIRE, "bench", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert run.returncode == 2 and text in run.stderr and run.stderr.count("\n") == 1


def test_refusals(null, tmp_path):
    path = null[0]
    assert "fewer request queues than --queues 5" in refused(path, "--queues", 5)
    assert "would overwrite the device's 'data'" in refused(path, "--rw", "write")
    assert "would overwrite the device's 'data'" in refused(path, "--verify")
    assert "'none' is not there, and the device does not create it" in refused(path, "--file", "none")
    assert "cannot find 'no/such'" in refused(path, "--file", "no/such")
    assert "cannot find '/'" in refused(path, "--file", "/")
    assert "cannot find" in refused(path, "--file", "n" * 256)
    assert "--size wants" in refused(path, "--size", SIZE + 1)
    assert "smaller than a block" in refused(path, "--size", 4095)
    assert "cannot make directory" in refused(path, "--rw", "create")
    assert "cannot open directory 'data'" in refused(path, "--rw", "readdir", "--file", "data")
    assert "cannot use CPU 1023" in refused(path, "--cpu", "1023")
    assert "cannot connect" in refused(str(tmp_path / "nothing"))


def test_help():
    run = subprocess.run([FUSEWIRE, "bench", "--help"], capture_output=True, text=True, timeout=20, check=True)
    for option in ["rw", "bs", "iodepth", "queues", "size", "file", "runtime", "verify", "poll", "event", "poll-us", "packed", "pid",
                   "cpu", "json"]:
        assert "--" + option in run.stdout


@pytest.mark.parametrize("rw", DATA_MODES + OTHER_MODES)
def test_virtiofsd_modes(virtiofsd, rw):
    run, shared = virtiofsd
    args = ["--rw", rw, "--size", SIZE] + ([] if rw == "readdir" else ["--file", "bench"])
    # Created at first, found the second time.
    for _ in range(2):
        check_numbers(run(*args), 3 if rw == "create" else 1)
    found = sorted(entry.name for entry in shared.iterdir())
    assert found == ([] if rw in ("create", "readdir") else ["bench"])
    if rw in DATA_MODES:
        assert (shared / "bench").stat().st_size == SIZE


@pytest.mark.parametrize("depth", [1, 32, 256])
@pytest.mark.parametrize("wait", ["--poll", "--event"])
def test_virtiofsd_verify(virtiofsd, depth, wait):
    out = virtiofsd[0]("--rw", "randrw", "--file", "bench", "--size", SIZE, "--verify", "--iodepth", depth, wait)
    check_numbers(out)
    assert out["verified"]


def test_virtiofsd_verify_finds_wrong_data(virtiofsd):
    """Somebody else writes into the file during the run."""
    run, shared = virtiofsd
    run("--file", "bench", "--size", SIZE)

    def disturb(path, *args):
        with subprocess.Popen([FUSEWIRE, "bench", "--runtime", "1.5", *args, path], stderr=subprocess.PIPE, text=True) as process:
            time.sleep(1)
            with open(shared / "bench", "r+b") as file:
                file.seek(SIZE // 2 + 8)
                file.write(b"disturbd")
            err = process.communicate(timeout=30)[1]
            assert process.returncode == 1
            assert f"verify: wrong data in the 4096 bytes at {SIZE // 2}\n" in err

    run("--file", "bench", "--rw", "randread", "--verify", call=disturb)


def test_virtiofsd_refusals(virtiofsd):
    run, shared = virtiofsd
    (shared / "folder").mkdir()
    assert "fewer request queues" in run("--queues", 2, call=refused)
    assert "does not offer packed rings" in run("--packed", call=refused)
    assert "'folder' is not a regular file" in run("--file", "folder", call=refused)
    assert "cannot find 'folder/'" in run("--file", "folder/", call=refused)
    (shared / "folder" / "short").write_bytes(b"x" * 4095)
    assert "smaller than a block" in run("--file", "folder/short", call=refused)
