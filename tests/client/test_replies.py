# SPDX-License-Identifier: BSD-3-Clause
"""A back-end that lies: every malformed reply ends the client with one line, and never with a crash."""
import mmap
import os
import select
import socket
import struct
import subprocess
import threading

import pytest

FUSEWIRE = os.environ["FUSEWIRE"]
GET_FEATURES, SET_MEM_TABLE, SET_VRING_ADDR, SET_VRING_KICK, SET_VRING_CALL = 1, 5, 9, 12, 13
VERSION_1 = 1 << 32
NEXT, WRITE = 1, 2
LOOKUP, FORGET, INIT, DESTROY = 1, 2, 26, 38
MKDIR, UNLINK, RMDIR, RELEASE, CREATE = 9, 10, 11, 18, 35
INIT_EXT, SECURITY_CTX = 1 << 30, 1 << 32
RING = 1024
ENTRY = struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + struct.pack("<QQ", 2, 1 << 20) + bytes(32) + \
    struct.pack("<IIII", 0, 0, 0, 0o100644)
ENTRY = ENTRY[:128].ljust(128, b"\0")


def init_reply(major=7, size=64, flags=0):
    return struct.pack("<IIII HHIIHHI", major, 38, 1 << 17, flags & 0xffffffff, 12, 9, 1 << 20, 1, 0, 0,
                       flags >> 32).ljust(64, b"\0")[:size]


class Backend(threading.Thread):
    """Answers INIT by @init and everything else by @answer: (unique, body) -> (message, used length, used id or None)."""

    def __init__(self, path, init, answer):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.init, self.answer = init, answer
        self.addr, self.kick, self.seen = {}, {}, {}
        self.opcodes, self.requests = [], []

    def message(self, sock):
        data, fds, _, _ = socket.recv_fds(sock, 12, 8)
        if len(data) < 12:
            return False
        request, _, size = struct.unpack("=III", data)
        payload = sock.recv(size, socket.MSG_WAITALL) if size else b""
        if request == GET_FEATURES:
            sock.send(struct.pack("=IIIQ", request, 5, 8, VERSION_1))
        elif request == SET_MEM_TABLE:
            self.gpa, size, self.user, _ = struct.unpack_from("=QQQQ", payload, 8)
            self.mem = mmap.mmap(fds[0], size)
        elif request == SET_VRING_ADDR:
            index, _, desc, used, avail, _ = struct.unpack("=IIQQQQ", payload)
            self.addr[index] = [at - self.user for at in (desc, used, avail)]
        elif request == SET_VRING_KICK:
            self.kick[payload[0]] = os.dup(fds[0])
        elif request == SET_VRING_CALL:
            setattr(self, f"call{payload[0]}", os.dup(fds[0]))
        for fd in fds:
            os.close(fd)
        return True

    def serve(self, index, head):
        desc, used, _ = self.addr[index]
        at, request, room = head, b"", []
        while True:
            gpa, size, flags, following = struct.unpack_from("<QIHH", self.mem, desc + 16 * at)
            if flags & WRITE:
                room.append((gpa - self.gpa, size))
            else:
                request += self.mem[gpa - self.gpa:gpa - self.gpa + size]
            if not flags & NEXT:
                break
            at = following
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        self.opcodes.append(opcode)
        self.requests.append(request)
        answer = {INIT: self.init, DESTROY: good(b"")}.get(opcode, self.answer)
        if isinstance(answer, dict) and opcode != FORGET:
            answer = answer[opcode]
        message, length, used_id = answer(unique) if opcode != FORGET else (b"", 0, None)
        for place, size in room:
            self.mem[place:place + len(message[:size])] = message[:size]
            message = message[size:]
        number = self.seen[index]
        struct.pack_into("<II", self.mem, used + 4 + 8 * (number % RING), head if used_id is None else used_id, length)
        struct.pack_into("<H", self.mem, used + 2, (number + 1) & 0xffff)

    def run(self):
        sock, _ = self.listener.accept()
        alive = True
        while alive:
            ready, _, _ = select.select([sock, *self.kick.values()], [], [])
            if sock in ready:
                alive = self.message(sock)
            for index, kick in self.kick.items():
                if kick not in ready:
                    continue
                os.read(kick, 8)
                avail = self.addr[index][2]
                while self.seen.setdefault(index, 0) != struct.unpack_from("<H", self.mem, avail + 2)[0]:
                    self.serve(index, struct.unpack_from("<H", self.mem, avail + 4 + 2 * (self.seen[index] % RING))[0])
                    self.seen[index] += 1
                os.write(getattr(self, f"call{index}"), struct.pack("=Q", 1))
        sock.close()
        self.listener.close()
        for index, kick in self.kick.items():
            os.close(kick)
            os.close(getattr(self, f"call{index}"))


def good(body, error=0):
    def answer(unique):
        message = struct.pack("<IiQ", 16 + len(body), error, unique) + body
        return message, len(message), None
    return answer


def changed(body, length=0, error=0, unique=0, used=0, used_id=None):
    """A good reply to which these were added."""
    def answer(asked):
        message = struct.pack("<IiQ", 16 + len(body) + length, error, asked + unique) + body
        return message, len(message) + used, used_id
    return answer


def lookup_run(tmp_path, init, answer, mode="lookup"):
    path = str(tmp_path / "socket")
    backend = Backend(path, init, answer)
    backend.start()
    run = subprocess.run([FUSEWIRE, "bench", "--rw", mode, "--runtime", "0.05", "--iodepth", "1", path],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    backend.join(10)
    assert not backend.is_alive()
    return run, backend


def test_good_replies(tmp_path):
    """The liar can also be honest: otherwise the tests below would show nothing."""
    run, backend = lookup_run(tmp_path, good(init_reply()), good(ENTRY))
    assert run.returncode == 0, run.stderr
    assert backend.opcodes[:2] == [INIT, LOOKUP] and backend.opcodes[-1] == DESTROY
    # The driver gives back what it looked up.
    assert FORGET in backend.opcodes


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
    run, _ = lookup_run(tmp_path, good(init_reply()), answer)
    assert run.returncode == 1 and run.stdout == ""
    assert text in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize("init, text", [
    (good(init_reply(major=6)), "INIT failed: Protocol error"),
    (good(init_reply(major=8)), "INIT failed: Protocol error"),
    (good(init_reply(size=23)), "INIT failed: Protocol error"),
    (good(b""), "INIT failed: Protocol error"),
    (good(b"", error=-13), "INIT failed: Permission denied"),
    (changed(init_reply(), unique=2), "INIT failed: Protocol error"),
])
def test_bad_init(tmp_path, init, text):
    run, _ = lookup_run(tmp_path, init, good(ENTRY))
    assert run.returncode == 1 and text in run.stderr and run.stderr.count("\n") == 1


def test_old_init(tmp_path):
    """A reply of before 7.23 has 24 bytes."""
    run, _ = lookup_run(tmp_path, good(init_reply(size=24)), good(ENTRY))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("flags, agreed", [(0, False), (SECURITY_CTX, False), (INIT_EXT | SECURITY_CTX, True)])
def test_extension(tmp_path, flags, agreed):
    """An agreed security context follows the name at once; flags2 counts only with FUSE_INIT_EXT."""
    create = good(ENTRY + bytes(16))
    nothing = good(b"")
    run, backend = lookup_run(tmp_path, good(init_reply(flags=flags)),
                              {MKDIR: good(ENTRY), CREATE: create, RELEASE: nothing, UNLINK: nothing, RMDIR: nothing}, "create")
    assert run.returncode == 0, run.stderr
    for opcode, args in ((MKDIR, 8), (CREATE, 16)):
        request = backend.requests[backend.opcodes.index(opcode)]
        name, _, rest = request[40 + args:].partition(b"\0")
        assert name and rest == (struct.pack("<II", 8, 0) if agreed else b"")
        assert struct.unpack_from("<H", request, 36)[0] == len(rest) // 8
        assert struct.unpack_from("<I", request)[0] == len(request)
