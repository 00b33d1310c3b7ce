# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user-fs back-end whose every reply is the test's own: for what no real one does, or not when a test needs it."""
import mmap
import os
import select
import socket
import struct
import threading

from shared import store16

GET_FEATURES, SET_MEM_TABLE = 1, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = range(8, 14)
VERSION_1 = 1 << 32
NEXT, WRITE = 1, 2
FORGET, DESTROY = 2, 38


class Request:
    """One chain: the FUSE message, and where in memory it is and its reply goes, as (offset, size)."""

    def __init__(self, index, head, message, source, room):
        self.index, self.head, self.message, self.source, self.room = index, head, message, source, room
        self.opcode, self.unique = struct.unpack_from("<IQ", message, 4)


class Backend(threading.Thread):
    """Split rings without any option. One front-end, one session; join() it when the front-end has left.

    answer(Request) -> (message, used length, used id or None), or None: reply() comes later, from answer() as well.
    """

    features = VERSION_1

    def __init__(self, path, answer):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.answer = answer
        self.num, self.addr, self.kick, self.call, self.seen, self.used = {}, {}, {}, {}, {}, {}
        self.requests = []
        self.before_close = lambda: None

    @property
    def opcodes(self):
        return [r.opcode for r in self.requests]

    def _message(self, sock):
        data, fds, _, _ = socket.recv_fds(sock, 12, 8)
        while 0 < len(data) < 12 and (more := sock.recv(12 - len(data))):
            data += more
        if len(data) < 12:
            return False
        request, _, size = struct.unpack("=III", data)
        payload = sock.recv(size, socket.MSG_WAITALL) if size else b""
        if request == GET_FEATURES:
            sock.send(struct.pack("=IIIQ", request, 5, 8, self.features))
        elif request == SET_MEM_TABLE:
            self.gpa, size, self.user, _ = struct.unpack_from("=QQQQ", payload, 8)
            self.mem = mmap.mmap(fds[0], size)
        elif SET_VRING_NUM <= request <= SET_VRING_CALL:
            fds = self._ring_message(sock, request, payload, fds)
        for fd in fds:
            os.close(fd)
        return True

    def _ring_message(self, sock, request, payload, fds):
        """Returns the descriptors that are not needed any more."""
        index, value = struct.unpack_from("=II", payload)
        if request == SET_VRING_NUM:
            self.num[index] = value
        elif request == SET_VRING_ADDR:
            _, _, desc, used, avail, _ = struct.unpack("=IIQQQQ", payload)
            self.addr[index] = [at - self.user for at in (desc, used, avail)]
        elif request == SET_VRING_BASE:
            self.seen[index] = self.used[index] = value
        elif request == GET_VRING_BASE:
            # What was made available before belongs to this life of the ring.
            if index in self.kick:
                self._serve(index)
            sock.send(struct.pack("=IIIII", request, 5, 8, index, self.seen.get(index, 0) & 0xffff))
            return [self.kick.pop(index)] if index in self.kick else []
        else:
            known = self.kick if request == SET_VRING_KICK else self.call
            index &= 0xff
            old = [known.pop(index)] if index in known else []
            if fds:
                known[index] = fds.pop(0)
            return old + fds
        return fds

    def _take(self, index, head):
        at, source, room = head, [], []
        while True:
            gpa, size, flags, following = struct.unpack_from("<QIHH", self.mem, self.addr[index][0] + 16 * at)
            (room if flags & WRITE else source).append((gpa - self.gpa, size))
            if not flags & NEXT:
                break
            at = following
        message = b"".join(self.mem[begin:begin + size] for begin, size in source)
        return Request(index, head, message, source, room)

    def reply(self, request, message, length, used_id=None):
        """Give a chain back."""
        for place, size in request.room:
            self.mem[place:place + len(message[:size])] = message[:size]
            message = message[size:]
        index, used = request.index, self.addr[request.index][1]
        number = self.used.setdefault(index, 0)
        struct.pack_into("<II", self.mem, used + 4 + 8 * (number % self.num[index]),
                         request.head if used_id is None else used_id, length)
        self.used[index] = number + 1
        store16(self.mem, used + 2, (number + 1) & 0xffff)
        if index in self.call:
            os.write(self.call[index], struct.pack("=Q", 1))

    def _serve(self, index):
        avail = self.addr[index][2]
        while self.seen.setdefault(index, 0) & 0xffff != struct.unpack_from("<H", self.mem, avail + 2)[0]:
            at = avail + 4 + 2 * (self.seen[index] % self.num[index])
            request = self._take(index, struct.unpack_from("<H", self.mem, at)[0])
            self.seen[index] += 1
            self.requests.append(request)
            answer = self.answer(request)
            if answer is not None:
                self.reply(request, *answer)

    def run(self):
        sock, _ = self.listener.accept()
        alive = True
        while alive:
            ready, _, _ = select.select([sock, *self.kick.values()], [], [])
            if sock in ready:
                alive = self._message(sock)
            for index, kick in list(self.kick.items()):
                if kick in ready:
                    os.read(kick, 8)
                    self._serve(index)
        # What the front-end left behind when it went.
        for index in self.kick:
            self._serve(index)
        sock.close()
        self.before_close()
        self.listener.close()
        for fd in [*self.kick.values(), *self.call.values()]:
            os.close(fd)


def changed(body, length=0, error=0, unique=0, used=0, used_id=None):
    """An answer that is good but for what is added to it."""
    def answer(request):
        message = struct.pack("<IiQ", 16 + len(body) + length, error, request.unique + unique) + body
        return message, len(message) + used, used_id
    return answer


def good(body=b"", error=0):
    return changed(body, error=error)


def nothing(unused):
    """A chain comes back as it was."""
    return b"", 0, None


def by_opcode(answers, default=good(error=-38)):
    """An answer to each opcode; FORGET and DESTROY need not be named."""
    known = {FORGET: nothing, DESTROY: good(), **answers}
    return lambda request: known.get(request.opcode, default)(request)


def init_out(major=7, size=64, flags=0):
    """struct fuse_init_out"""
    return struct.pack("<IIII HHIIHHI", major, 38, 1 << 17, flags & 0xffffffff, 12, 9, 1 << 20, 1, 0, 0,
                       flags >> 32).ljust(64, b"\0")[:size]


def attr(ino, mode, size=0):
    """struct fuse_attr"""
    return struct.pack("<QQQQQQ IIIIIIIIII", ino, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
