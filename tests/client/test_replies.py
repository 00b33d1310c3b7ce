# SPDX-License-Identifier: BSD-3-Clause
"""A back-end that lies: every malformed reply ends the client with one line, and never with a crash."""
import os
import struct
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from backend import Backend, attr, by_opcode, changed, good, init_out  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]
LOOKUP, FORGET, INIT, DESTROY = 1, 2, 26, 38
OPEN, READ = 14, 15
MKDIR, UNLINK, RMDIR, RELEASE, CREATE = 9, 10, 11, 18, 35
INIT_EXT, SECURITY_CTX = 1 << 30, 1 << 32
ENTRY = struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attr(2, 0o100644)


def lookup_run(tmp_path, init, answer, mode="lookup", options=(), seconds=0.05):
    """A bench run; @answer is for all that has none of its own, or an answer by opcode."""
    answers = answer if isinstance(answer, dict) else {}
    path = str(tmp_path / "socket")
    backend = Backend(path, by_opcode({**answers, INIT: init}, answer))
    backend.start()
    run = subprocess.run([FUSEWIRE, "bench", "--rw", mode, "--runtime", str(seconds), "--iodepth", "1", *options, path],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    backend.join(10)
    assert not backend.is_alive()
    return run, backend


def test_good_replies(tmp_path):
    """The liar can also be honest: otherwise the tests below would show nothing."""
    run, backend = lookup_run(tmp_path, good(init_out()), good(ENTRY))
    assert run.returncode == 0, run.stderr
    assert backend.opcodes[:2] == [INIT, LOOKUP]
    # The driver gives back what it looked up, in another queue, so that either may be seen first.
    assert backend.opcodes.count(DESTROY) == 1 and set(backend.opcodes[-2:]) <= {FORGET, DESTROY} and FORGET in backend.opcodes


@pytest.mark.parametrize("answer, text", [
    (changed(ENTRY, unique=1), "Protocol error"),
    (changed(ENTRY, unique=2), "Protocol error"),
    (changed(ENTRY, length=1), "Protocol error"),
    (changed(ENTRY, length=-1), "Protocol error"),
    (changed(ENTRY, used=-1), "Protocol error"),
    (changed(ENTRY, used=1), "Bad message"),
    (changed(ENTRY[:-8]), "Protocol error"),
    (changed(b""), "Protocol error"),
    (changed(b"", used=-1), "Protocol error"),
    (changed(b"", used=-16), "Protocol error"),
    (changed(b"", error=1), "Protocol error"),
    (changed(b"", error=-512), "Protocol error"),
    (changed(b"", error=-511), "Unknown error 511"),
    (changed(b"", error=-5), "Input/output error"),
    (changed(ENTRY, error=-5), "Protocol error"),
    (changed(ENTRY, used_id=1023), "Bad message"),
    (changed(ENTRY, used_id=1024), "Bad message"),
    (changed(ENTRY, used_id=0xffffffff), "Bad message"),
])
def test_bad_replies(tmp_path, answer, text):
    run, _ = lookup_run(tmp_path, good(init_out()), answer)
    assert run.returncode == 1 and run.stdout == ""
    assert text in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize("init, text", [
    (good(init_out(major=6)), "INIT failed: Protocol error"),
    (good(init_out(major=8)), "INIT failed: Protocol error"),
    (good(init_out(size=23)), "INIT failed: Protocol error"),
    (good(b""), "INIT failed: Protocol error"),
    (good(b"", error=-13), "INIT failed: Permission denied"),
    (changed(init_out(), unique=2), "INIT failed: Protocol error"),
])
def test_bad_init(tmp_path, init, text):
    run, _ = lookup_run(tmp_path, init, good(ENTRY))
    assert run.returncode == 1 and text in run.stderr and run.stderr.count("\n") == 1


def test_old_init(tmp_path):
    """A reply of before 7.23 has 24 bytes."""
    run, _ = lookup_run(tmp_path, good(init_out(size=24)), good(ENTRY))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("flags, agreed", [(0, False), (SECURITY_CTX, False), (INIT_EXT | SECURITY_CTX, True)])
def test_extension(tmp_path, flags, agreed):
    """An agreed security context follows the name at once; flags2 counts only with FUSE_INIT_EXT."""
    create = good(ENTRY + bytes(16))
    nothing = good(b"")
    run, backend = lookup_run(tmp_path, good(init_out(flags=flags)),
                              {MKDIR: good(ENTRY), CREATE: create, RELEASE: nothing, UNLINK: nothing, RMDIR: nothing}, "create",
                              # Long enough for one even where others have the processor.
                              seconds=0.5)
    assert run.returncode == 0, run.stderr
    for opcode, args in ((MKDIR, 8), (CREATE, 16)):
        request = backend.requests[backend.opcodes.index(opcode)].message
        name, _, rest = request[40 + args:].partition(b"\0")
        assert name and rest == (struct.pack("<II", 8, 0) if agreed else b"")
        assert struct.unpack_from("<H", request, 36)[0] == len(rest) // 8
        assert struct.unpack_from("<I", request)[0] == len(request)


@pytest.mark.parametrize("options", [[], ["--direct"]], ids=["cached", "direct"])
def test_open_flags(tmp_path, options):
    """--direct is for the daemon to see, as a guest's O_DIRECT is."""
    file = good(struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attr(2, 0o100644, size=4096))
    answers = {LOOKUP: file, OPEN: good(bytes(16)), READ: good(bytes(4096)), RELEASE: good(b"")}
    run, backend = lookup_run(tmp_path, good(init_out()), answers, "randread", ["--json", *options])
    assert run.returncode == 0, run.stderr
    for opcode, at in ((OPEN, 40), (RELEASE, 48)):
        request = backend.requests[backend.opcodes.index(opcode)].message
        assert bool(struct.unpack_from("<I", request, at)[0] & os.O_DIRECT) == bool(options)
    assert f'"direct": {"true" if options else "false"}' in run.stdout
