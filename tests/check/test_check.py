# SPDX-License-Identifier: BSD-3-Clause
"""`fusewire check` and `check --hostile`: all holds on our own devices, and it ends with a report on any other."""
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from checking import FUSEWIRE, check, device, is_untouched, of, report, serving, virtiofsd

BOTH = ["split ring", "packed ring"]


LINGERING = os.path.join(os.path.dirname(__file__), "lingering.py")


@pytest.fixture(params=virtiofsd.KINDS)
def foreign(request):
    """A back-end that ends with its front-end."""
    why = virtiofsd.why_not(request.param)
    if why:
        pytest.skip(why)
    return request.param


@pytest.mark.parametrize("kind", ["null", "bindfs", "sshfs", "read-only"])
def test_all_holds(tmp_path, kind):
    """Also under malformed input, by one process that lives through all of it."""
    with device(tmp_path, kind) as command:
        more = ["--file", "data"] if kind == "null" else []
        with serving(command, tmp_path / "log"):
            out = report("--hostile", *more, tmp_path / "socket")
    assert out["summary"]["does not"] == 0 and not out["died"]
    assert all(row["status"] == "holds" for row in out["rows"] if row["area"] in BOTH)
    assert all(row["status"] == "holds" for row in out["rows"] if row["area"].startswith("hostile"))
    for name in ["LOOKUP", "GETATTR", "OPEN", "READ", "READDIR", "RELEASE", "FORGET", "BATCH_FORGET", "INIT", "DESTROY"]:
        assert of(out, "FUSE opcode", name) == ["holds"], name
    if kind in ("bindfs", "sshfs"):
        for name in ["WRITE", "CREATE", "MKDIR", "RMDIR", "UNLINK", "RENAME", "SYMLINK", "READLINK", "LINK", "SETATTR", "MKNOD"]:
            assert of(out, "FUSE opcode", name) == ["holds"], name
    if kind == "null":
        assert of(out, "FUSE opcode", "WRITE") == ["holds"]
    else:
        assert is_untouched(tmp_path / "src")
    if kind == "read-only":
        assert of(out, "FUSE opcode", "MKDIR") == of(out, "FUSE opcode", "CREATE") == ["not offered"]
        assert of(out, "FUSE opcode", "WRITE") == ["not checked"]


def test_borrowed_file_is_put_back(tmp_path):
    """A file that the user names is written only for a moment, where none can be created."""
    with device(tmp_path, "null") as command, serving(command, tmp_path / "log"):
        path = str(tmp_path / "socket")
        fill = [FUSEWIRE, "bench", "--rw", "write", "--file", "data", "--verify", "--runtime", "0.05", path]
        subprocess.run(fill, check=True, stdout=subprocess.DEVNULL, timeout=60)
        first = report("--file", "data", path)
        assert of(first, "FUSE opcode", "WRITE") == ["holds"]
        assert of(report(path), "FUSE opcode", "WRITE") == ["not checked"]


def test_starts_its_back_end(tmp_path):
    with device(tmp_path, "bindfs") as command:
        out = report(tmp_path / "socket", "--", *command)
    assert out["summary"]["does not"] == 0
    assert is_untouched(tmp_path / "src")
    assert not (tmp_path / "socket").exists()


def test_virtiofsd_started_by_us(tmp_path, foreign):
    """It ends with each front-end and is started again: the report is complete, whatever it says."""
    with device(tmp_path, foreign) as command:
        out = report("--hostile", tmp_path / "socket", "--", *command, status=1)
    assert out["died"] and out["summary"]["not checked"] == 0
    assert of(out, "vhost-user", "Communication").count("does not") == 1
    assert of(out, "split ring", "2.7.13") == ["holds", "holds"]
    assert set(of(out, "packed ring", "2.8.1")) == {"not offered"}
    assert of(out, "vhost-user", "GET_FEATURES") == ["holds"]
    for name in ["LOOKUP", "WRITE", "READ", "CREATE", "MKDIR", "RENAME"]:
        assert of(out, "FUSE opcode", name) == ["holds"], name
    assert is_untouched(tmp_path / "src")


def test_virtiofsd_of_somebody_else(tmp_path, foreign):
    """With its one connection as much is asked as can be; the rest is not checked, and nothing hangs."""
    with device(tmp_path, foreign) as command:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 10
            while not (tmp_path / "socket").exists() and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.05)
            out = report("--hostile", tmp_path / "socket", status=1)
            process.wait(10)
    assert out["died"] and out["summary"]["not checked"] > 100
    assert of(out, "FUSE opcode", "WRITE") == ["holds"]
    assert is_untouched(tmp_path / "src")


def test_who_leaves_slowly(tmp_path):
    """What waits at the socket of one that is about to end is not served; that is no answer to a rule."""
    out = report(tmp_path / "socket", "--", sys.executable, LINGERING, tmp_path / "socket", status=1)
    assert out["summary"]["not checked"] < 20
    for clause in ["GET_FEATURES", "SET_FEATURES", "Header", "SET_MEM_TABLE", "SET_VRING_CALL"]:
        assert set(of(out, "vhost-user", clause)) == {"holds"}, clause


def test_back_end_is_killed(tmp_path):
    with device(tmp_path, "bindfs") as command:
        # Not in `serving`: this one is meant to end.
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not (tmp_path / "socket").exists():
                time.sleep(0.02)
            with subprocess.Popen([FUSEWIRE, "check", "--hostile", "--json", tmp_path / "socket"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as run:
                time.sleep(1)
                process.kill()
                text, err = run.communicate(timeout=60)
            assert run.returncode == 1
    out = json.loads(text)
    assert out["died"] and out["summary"]["not checked"] > 0
    assert "died or went away" in err


def test_interrupted(tmp_path):
    with device(tmp_path, "bindfs") as command, serving(command, tmp_path / "log"):
        with subprocess.Popen([FUSEWIRE, "check", "--hostile", "--json", tmp_path / "socket"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as run:
            time.sleep(0.7)
            run.send_signal(signal.SIGINT)
            text, err = run.communicate(timeout=30)
        assert run.returncode == 1 and "interrupted" in err
        assert json.loads(text)["summary"]["not checked"] > 0
    assert is_untouched(tmp_path / "src")


def test_text_and_progress(tmp_path):
    controller, terminal = pty.openpty()
    try:
        with device(tmp_path, "null") as command, serving(command, tmp_path / "log"):
            run = subprocess.run([FUSEWIRE, "check", tmp_path / "socket"], stderr=terminal, stdout=subprocess.PIPE, text=True,
                                 check=True, timeout=100)
        text = ""
        while select.select([controller], [], [], 0.2)[0]:
            text += os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "split ring: " in text and text.endswith("\r\x1b[K")
    lines = run.stdout.splitlines()
    assert lines[0].startswith("features 0x") and "FUSE 7.45" in lines[0]
    assert lines[-1].endswith(" not checked") and ", 0 do not, " in lines[-1]
    # Every area has one heading.
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert len(headings) == len(set(headings))


def test_hostile_is_announced(tmp_path):
    run = check("--hostile", tmp_path / "nothing")
    assert run.returncode == 2
    assert "may kill the back-end" in run.stderr and "cannot connect" in run.stderr


@pytest.mark.parametrize("args, text", [
    ([], "no SOCKET"),
    (["--bogus", "s"], "bogus"),
    (["--file"], "file"),
    (["/nonexistent/socket"], "cannot connect"),
    (["/nonexistent/socket", "--", "/nonexistent/program"], "before there was a socket"),
    (["/nonexistent/socket", "--", "true"], "before there was a socket"),
])
def test_bad_usage(args, text):
    run = check(*args)
    assert run.returncode == 2 and text in run.stderr and run.stdout == ""


def test_help():
    text = check("--help").stdout
    assert "kill the back-end" in text
    for option in ["hostile", "json", "file"]:
        assert "--" + option in text
