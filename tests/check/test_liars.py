# SPDX-License-Identifier: BSD-3-Clause
"""A back-end that does what a rule forbids is found out by that rule: otherwise "holds" would mean nothing."""
import json
import os
import struct
import subprocess
import sys
import time

import pytest

from checking import FUSEWIRE, of

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from backend import Backend, attr, by_opcode, changed, good, init_out, nothing  # noqa: E402

LOOKUP, GETATTR, STATFS, INIT, INTERRUPT = 1, 3, 17, 26, 36
ENOENT, EIO = 2, 5


def attributes(mode):
    return bytes(16) + attr(1, mode)


HONEST = {INTERRUPT: nothing, LOOKUP: good(b"", -ENOENT), GETATTR: good(attributes(0o40755)),
          STATFS: good(struct.pack("<QQQQQIIII", 100, 50, 50, 10, 5, 4096, 255, 4096, 0) + bytes(24))}


def run(tmp_path, kind=Backend, init=None, **changes):
    """The report on one that is honest but for @changes. It serves one connection, so that is all that is asked."""
    path = str(tmp_path / "socket")
    answers = {**HONEST, INIT: init or good(init_out()), **{globals()[name]: answer for name, answer in changes.items()}}
    backend = kind(path, by_opcode(answers))
    backend.start()
    begin = time.monotonic()
    done = subprocess.run([FUSEWIRE, "check", "--json", path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - begin < 30
    backend.join(10)
    assert not backend.is_alive()
    return done


def rows(done):
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


def test_honest(tmp_path):
    out = rows(run(tmp_path))
    assert not [row for row in out["rows"] if row["status"] == "does not"]
    assert out["died"] and out["summary"]["not checked"] > 20
    for name in ["LOOKUP", "GETATTR", "STATFS", "INIT"]:
        assert of(out, "FUSE opcode", name) == ["holds"], name
    assert of(out, "FUSE opcode", "MKDIR") == ["not offered"]
    assert of(out, "any ring", "2.7.5.1") == ["holds", "holds"]


@pytest.mark.parametrize("opcode, answer, text", [
    ("GETATTR", changed(attributes(0o40755), unique=2), "unique"),
    ("GETATTR", changed(attributes(0o40755), length=1), "used length 120 instead of 121"),
    ("GETATTR", changed(attributes(0o40755), used=1), "too many bytes"),
    ("GETATTR", changed(attributes(0o40755), used=-1), "used length 119 instead of 120"),
    ("GETATTR", changed(attributes(0o40755)[:-8]), "reply of 96 instead of 104"),
    ("GETATTR", changed(attributes(0o40755), used_id=63), "names no chain"),
    ("GETATTR", changed(b"", used=-1), "used length 15"),
    ("GETATTR", changed(b"", error=1), "1 as an error"),
    ("GETATTR", changed(b"", error=-512), "-512 as an error"),
    ("GETATTR", changed(attributes(0o40755), error=-5), "with an error"),
    ("GETATTR", good(attributes(0o100644)), "the root has mode"),
    ("GETATTR", good(b"", -EIO), "Input/output error"),
    ("LOOKUP", good(b"", -EIO), "Input/output error"),
    ("STATFS", good(struct.pack("<QQQQQIIII", 100, 101, 50, 10, 5, 4096, 255, 4096, 0) + bytes(24)), "101 of 100"),
])
def test_wrong_answer(tmp_path, opcode, answer, text):
    out = rows(run(tmp_path, **{opcode: answer}))
    row = next(r for r in out["rows"] if r["area"] == "FUSE opcode" and r["clause"] == opcode)
    assert row["status"] == "does not" and text in row["detail"], row


def test_unknown_opcode_succeeds(tmp_path):
    globals()["NO_OPCODE"] = 9999
    out = rows(run(tmp_path, NO_OPCODE=good(b"")))
    assert of(out, "device", "5.11.6").count("does not") == 1


class Scribbler(Backend):
    """Changes the request that it was given."""

    def reply(self, request, *answer):
        self.mem[request.source[0][0] + 20] = 0x77
        super().reply(request, *answer)


class Overrunner(Backend):
    """Writes behind the room for its reply."""

    def reply(self, request, *answer):
        if request.room:
            self.mem[sum(request.room[-1])] = 0x77
        super().reply(request, *answer)


@pytest.mark.parametrize("kind, wanted", [(Scribbler, ["does not", "holds"]), (Overrunner, ["holds", "does not"])])
def test_stray_writes(tmp_path, kind, wanted):
    out = rows(run(tmp_path, kind))
    assert of(out, "any ring", "2.7.5.1") == wanted


@pytest.mark.parametrize("init, text", [
    (good(init_out(major=6)), "INIT"),
    (good(init_out(size=23)), "INIT"),
    (good(b"", -EIO), "INIT: Input/output error"),
])
def test_no_session(tmp_path, init, text):
    done = run(tmp_path, init=init)
    assert done.returncode == 2 and text in done.stderr and done.stdout == ""


class Mute(Backend):
    """Takes everything, and says nothing."""

    def reply(self, *unused):
        pass


def test_mute(tmp_path):
    done = run(tmp_path, Mute)
    assert done.returncode == 2 and "INIT: Connection timed out" in done.stderr
