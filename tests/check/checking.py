# SPDX-License-Identifier: BSD-3-Clause
"""Devices for the check's tests, and what is asked of every report."""
import contextlib
import json
import os
import subprocess
import sys

HERE = os.path.dirname(__file__)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import virtiofsd  # noqa: E402
from process import Ready  # noqa: E402
from sshd import Sshd  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]
STATUSES = {"holds", "does not", "not offered", "not checked"}
OPCODES = 51
FILES = {"hello": b"hello\n", "long": bytes(range(256)) * 100}


def make_tree(top):
    """A small tree whose content the check does not know. Returns its path."""
    src = top / "src"
    src.mkdir()
    (top / "daemon").mkdir()
    (src / "folder").mkdir()
    for name, data in FILES.items():
        (src / name).write_bytes(data)
    return src


def is_untouched(src):
    return sorted(os.listdir(src)) == sorted([*FILES, "folder"]) and not os.listdir(src / "folder") and \
        all((src / name).read_bytes() == data for name, data in FILES.items())


@contextlib.contextmanager
def serving(argv, log):
    """A back-end with --ready-fd; ends with the block, and well."""
    with Ready(argv[:2], argv[2:], log) as backend:
        backend.wait_ready()
        yield backend.process
        assert backend.process.poll() is None, f"the back-end ended: {backend.process.returncode}"
    text = open(log, encoding="utf-8", errors="replace").read()
    assert "Sanitizer" not in text and "Assertion" not in text, text[-3000:]


@contextlib.contextmanager
def device(top, kind, *options):
    """The command of a back-end of that kind on top/socket, over top/src; more @options are for fusewire run."""
    socket = str(top / "socket")
    with contextlib.ExitStack() as stack:
        if kind == "null":
            yield [FUSEWIRE, "null", "--socket", socket, "--size", "1M", "--log-level", "error"]
            return
        src = make_tree(top)
        if kind in virtiofsd.KINDS:
            yield virtiofsd.command(kind, socket, src)
            return
        if kind == "sshfs":
            daemon = stack.enter_context(Sshd(str(top / "sshd"))).sshfs_command(str(src), str(top / "daemon"))
        else:
            daemon = ["bindfs", "-f", *(["-r"] if kind == "read-only" else []), str(src), str(top / "daemon")]
        yield [FUSEWIRE, "run", "--socket", socket, "--tag", "t", "--log-level", "error", *options, "--", *daemon]


def check(*args, timeout=200):
    return subprocess.run([FUSEWIRE, "check", *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)


def report(*args, status=0):
    """The report of a run with --json, looked at for what every one has."""
    run = check("--json", *args)
    assert run.returncode == status, run.stderr + bad_rows(run.stdout)
    out = json.loads(run.stdout)
    rows = out["rows"]
    assert {row["status"] for row in rows} <= STATUSES
    for name in STATUSES:
        assert out["summary"][name] == sum(row["status"] == name for row in rows)
    assert all(row["area"] and row["clause"] for row in rows)
    opcodes = [row["clause"] for row in rows if row["area"] == "FUSE opcode"]
    assert len(opcodes) == len(set(opcodes)) == OPCODES
    hostile = [row for row in rows if row["area"].startswith("hostile")]
    assert len(hostile) >= 60 if out["hostile"] else not hostile
    return out


def bad_rows(text):
    try:
        return "\n".join(str(row) for row in json.loads(text)["rows"] if row["status"] == "does not")
    except ValueError:
        return text[-2000:]


def of(out, area, clause):
    """Statuses of the rows of one clause."""
    return [row["status"] for row in out["rows"] if row["area"] == area and row["clause"] == clause]
