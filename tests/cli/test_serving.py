# SPDX-License-Identifier: BSD-3-Clause
"""The command line of serving: options, messages, readiness, what is left behind, and what an idle device costs."""
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../vhost"))
from vhost_peer import Driver, FrontEnd  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]


def fusewire(*args):
    return subprocess.run([FUSEWIRE, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


@contextlib.contextmanager
def null_device(tmp_path, *args, env=None):
    path = str(tmp_path / "socket")
    ready, write = os.pipe()
    process = subprocess.Popen([FUSEWIRE, "null", "--socket", path, "--ready-fd", str(write), *args],
                               pass_fds=[write], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **(env or {})})
    os.close(write)
    try:
        assert os.read(ready, 64) == b"READY=1\n"
        yield path, process
    finally:
        os.close(ready)
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        process.stderr.close()


@pytest.mark.parametrize("args, text", [
    ([], "Usage"),
    (["nonsense"], "'nonsense' is not a command"),
    (["null"], "no socket: give --socket PATH"),
    (["null", "--socket", "s", "--fd", "3"], "exclude each other"),
    (["null", "--socket", "s", "--queues", "0"], "--queues: '0' is not a number from 1 to 256"),
    (["null", "--socket", "s", "--queues", "257"], "--queues: '257'"),
    (["null", "--socket", "s", "--queue-size", "32769"], "--queue-size: '32769'"),
    (["null", "--socket", "s", "--poll-us", "-1"], "--poll-us: '-1'"),
    (["null", "--socket", "s", "--size", "1X"], "--size: '1X'"),
    (["null", "--socket", "s", "--size", "99999999999T"], "--size: '99999999999T'"),
    (["null", "--socket", "s", "--tag", "t" * 37], "must have 1 to 36 bytes"),
    (["null", "--socket", "s", "--tag", ""], "must have 1 to 36 bytes"),
    (["null", "--socket", "s", "--arch", "pdp11"], "--arch: 'pdp11'"),
    (["null", "--socket", "s", "--page-size", "12288"], "--page-size: '12288' is no power of two"),
    (["null", "--socket", "s", "--page-size", "128k"], "--page-size: '128k' is not a number from 4096 to 65536"),
    (["null", "--socket", "s", "--log-level", "loud"], "--log-level: 'loud'"),
    (["null", "--socket", "s", "--bogus"], "fusewire null: unrecognized option '--bogus'"),
    (["run", "--bogus"], "fusewire run: unrecognized option '--bogus'"),
    (["doctor", "--bogus"], "fusewire doctor: unrecognized option '--bogus'"),
    (["mount", "--bogus"], "fusewire mount: unrecognized option '--bogus'"),
    (["null", "--socket", ""], "--socket: a path is needed"),
    (["null", "--socket", "s", "more"], "'more' is too much"),
])
def test_bad_options(args, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fusewire(*args)
    assert result.returncode == 2
    assert text in result.stderr
    assert result.stdout == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["null", "--help"], ["vm", "--help"], ["--version"]])
def test_help(args):
    result = fusewire(*args)
    assert result.returncode == 0
    assert result.stdout and not result.stderr


@pytest.mark.parametrize("path, text", [
    ("/nonexistent/dir/socket", "/nonexistent/dir"),
    ("/" + "x" * 200, "x"),
])
def test_socket_cannot_be_made(path, text):
    result = fusewire("null", "--socket", path)
    assert result.returncode == 1
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_path_that_is_no_socket(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    result = fusewire("null", "--socket", str(path))
    assert result.returncode == 1
    assert path.read_text() == "precious"


def test_second_server_on_one_path(tmp_path):
    with null_device(tmp_path) as (path, _):
        result = fusewire("null", "--socket", path)
        assert result.returncode == 1
        assert path in result.stderr
        with FrontEnd(path) as front:
            assert front.alive()


def test_stale_socket_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
    with null_device(tmp_path):
        pass


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ends_by_signal_and_leaves_nothing(tmp_path, signo):
    with null_device(tmp_path) as (path, process):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        process.send_signal(signo)
        assert process.wait(10) == 0
        assert not os.path.exists(path)


def test_sd_notify(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(10)
        with null_device(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}):
            assert s.recv(64) == b"READY=1"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ready_on_a_standard_stream(tmp_path, number):
    """A front-end's connection does not become the standard output or error."""
    path = str(tmp_path / "socket")
    read, write = os.pipe()
    streams = [subprocess.DEVNULL] * 3
    streams[number] = write
    process = subprocess.Popen([FUSEWIRE, "null", "--socket", path, "--ready-fd", str(number), "--log-level", "off"],
                               stdin=streams[0], stdout=streams[1], stderr=streams[2])
    os.close(write)
    try:
        with os.fdopen(read, "rb") as f:
            assert f.readline() == b"READY=1\n"
            with FrontEnd(path) as front:
                assert front.alive()
                assert not os.readlink(f"/proc/{process.pid}/fd/{number}").startswith("socket:")
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_listening_descriptor(tmp_path):
    path = str(tmp_path / "given")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(1)
        os.set_inheritable(s.fileno(), True)
        process = subprocess.Popen([FUSEWIRE, "null", "--fd", str(s.fileno()), "--log-level", "off"],
                                   pass_fds=[s.fileno()])
        try:
            with FrontEnd(path) as front:
                front.negotiate()
                front.share_memory()
                driver = Driver(front, 1)
                driver.fuse_init()
                assert driver.fuse_getattr()[0] == 0
        finally:
            process.terminate()
            assert process.wait(10) == 0


def cpu_ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def rss_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_idle_device_costs_nothing(tmp_path):
    """Four request queues run, a session is open, nobody asks anything: below 1 % of a core, below 16 MiB."""
    with null_device(tmp_path, "--queues", "4", "--poll-us", "50") as (path, process):
        with FrontEnd(path) as front:
            front.negotiate()
            front.share_memory()
            drivers = [Driver(front, index) for index in range(5)]
            drivers[1].fuse_init()
            for driver in drivers * 50:
                assert driver.fuse_getattr()[0] == 0
            time.sleep(0.2)
            before = cpu_ticks(process.pid)
            time.sleep(3)
            ticks = cpu_ticks(process.pid) - before
            assert ticks <= 0.01 * 3 * os.sysconf("SC_CLK_TCK")
            # The sanitizers' shadow memory is not ours.
            if "asan" not in FUSEWIRE and "tsan" not in FUSEWIRE:
                assert rss_kib(process.pid) < 16 * 1024
