# SPDX-License-Identifier: BSD-3-Clause
"""A small vhost-user front-end: speaks the protocol as a VMM does, or as no VMM should.

Nothing is checked on the way out: tests send what they like. Every wait is bounded.
"""

import array
import ctypes
import mmap
import os
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from shared import store16  # noqa: E402

TIMEOUT = 5.0

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD,
 SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL,
 SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE,
 SEND_RARP, NET_SET_MTU, SET_BACKEND_REQ_FD, IOTLB_MSG, SET_VRING_ENDIAN, GET_CONFIG, SET_CONFIG,
 CREATE_CRYPTO_SESSION, CLOSE_CRYPTO_SESSION, POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END,
 GET_INFLIGHT_FD, SET_INFLIGHT_FD, GPU_SET_SOCKET, RESET_DEVICE, VRING_KICK, GET_MAX_MEM_SLOTS,
 ADD_MEM_REG, REM_MEM_REG, SET_STATUS, GET_STATUS, GET_SHARED_OBJECT, SET_DEVICE_STATE_FD,
 CHECK_DEVICE_STATE, GET_SHMEM_CONFIG) = range(1, 45)

BACKEND_CONFIG_CHANGE, BACKEND_VRING_CALL = 2, 4

F_MQ, F_LOG_SHMFD, F_REPLY_ACK, F_BACKEND_REQ, F_CONFIG = 0, 1, 3, 5, 9
F_BACKEND_SEND_FD, F_INFLIGHT, F_RESET_DEVICE, F_INBAND, F_MEM_SLOTS, F_STATUS = 10, 12, 13, 14, 15, 16
F_NOTIFICATION, F_LOG_ALL, F_INDIRECT, F_EVENT_IDX, F_PROTOCOL_FEATURES, F_VERSION_1, F_PACKED = 0, 26, 28, 29, 30, 32, 34

VERSION, REPLY, NEED_REPLY = 1, 4, 8
NOFD = 0x100
PAGE = 4096
USER_BASE = 0x7f0000000000


def bits(*numbers):
    word = 0
    for n in numbers:
        word |= 1 << n
    return word


def u64(value):
    return struct.pack('=Q', value)


def state(index, num=0):
    return struct.pack('=II', index, num)


def region(gpa, size, user, offset=0):
    return struct.pack('=QQQQ', gpa, size, user, offset)


def memfd(size, name='peer'):
    fd = os.memfd_create(name)
    os.ftruncate(fd, size)
    return fd


_libc = ctypes.CDLL(None, use_errno=True)


def eventfd():
    fd = _libc.eventfd(0, 0o4000)
    assert fd >= 0
    return fd


def signal_fd(fd):
    os.write(fd, u64(1))


def wait_readable(fd, timeout=TIMEOUT):
    return bool(select.select([fd], [], [], timeout)[0])


def take_signal(fd, timeout=TIMEOUT):
    """True when an eventfd or pipe was signalled within the time."""
    return wait_readable(fd, timeout) and len(os.read(fd, 8)) == 8


class Closed(Exception):
    """The device closed the connection."""


class Channel:
    """A stream of vhost-user messages over a socket."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(TIMEOUT)

    def close(self):
        self.sock.close()

    def send_raw(self, data, fds=()):
        ancillary = []
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))]
        try:
            sent = self.sock.sendmsg([data], ancillary)
            if sent < len(data):
                self.sock.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed from e

    def send(self, request, payload=b'', fds=(), flags=VERSION, size=None):
        head = struct.pack('=III', request, flags, len(payload) if size is None else size)
        self.send_raw(head + payload, fds)

    def _read(self, n, fds):
        data = b''
        while len(data) < n:
            try:
                part, ancillary, _, _ = self.sock.recvmsg(n - len(data), socket.CMSG_SPACE(4 * 8))
            except ConnectionResetError as e:
                raise Closed from e
            for _, _, raw in ancillary:
                a = array.array('i')
                a.frombytes(raw[:len(raw) - len(raw) % 4])
                fds.extend(a)
            if not part:
                raise Closed
            data += part
        return data

    def recv(self):
        """(request, flags, payload, fds) of the next message."""
        fds = []
        request, flags, size = struct.unpack('=III', self._read(12, fds))
        return request, flags, self._read(size, fds), fds

    def expect_closed(self):
        """The device must hang up without another message."""
        try:
            data = self.sock.recv(1)
        except ConnectionResetError:
            return
        assert data == b'', 'a reply where the connection should have been closed'

    def expect_silence(self, seconds=0.1):
        assert not wait_readable(self.sock, seconds), 'an unexpected reply'


class FrontEnd(Channel):
    """A front-end's connection, with helpers that send well-formed messages."""

    def __init__(self, path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        sock.connect(path)
        super().__init__(sock)
        self.memory = None
        self.fds = []

    def close(self):
        super().close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        if self.memory:
            self.memory.close()
            self.memory = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def keep(self, fd):
        self.fds.append(fd)
        return fd

    def ask(self, request, payload=b'', fds=(), flags=VERSION):
        """Send; return the reply's payload and descriptors."""
        self.send(request, payload, fds, flags)
        got, reply_flags, data, reply_fds = self.recv()
        assert got == request
        assert reply_flags == VERSION | REPLY
        return data, reply_fds

    def ask_u64(self, request, payload=b'', fds=(), flags=VERSION):
        data, reply_fds = self.ask(request, payload, fds, flags)
        assert len(data) == 8 and not reply_fds
        return struct.unpack('=Q', data)[0]

    def ack(self, request, payload=b'', fds=()):
        """Send with NEED_REPLY; return the acknowledgement, 0 for success."""
        return self.ask_u64(request, payload, fds, VERSION | NEED_REPLY)

    def alive(self):
        """The connection still answers."""
        return self.ask_u64(GET_FEATURES) != 0

    def negotiate(self, features=None, protocol=None, inband=False):
        offered = self.ask_u64(GET_FEATURES)
        # No guest takes notifications: its requests begin at queue 1.
        self.features = offered & ~bits(F_NOTIFICATION, F_LOG_ALL, F_PACKED) if features is None else features
        offered = self.ask_u64(GET_PROTOCOL_FEATURES)
        self.protocol = offered if protocol is None else protocol
        self.send(SET_PROTOCOL_FEATURES, u64(self.protocol))
        self.send(SET_OWNER)
        self.send(SET_FEATURES, u64(self.features))
        return self

    def share_memory(self, size=1 << 20, gpa=0):
        fd = self.keep(memfd(size))
        self.memory = mmap.mmap(fd, size)
        self.mem_fd = fd
        self.gpa = gpa
        self.size = size
        self.send(SET_MEM_TABLE, struct.pack('=II', 1, 0) + region(gpa, size, USER_BASE), [fd])
        return self

    def addr_payload(self, index, flags=0, log=0, base=None):
        """A split ring of up to 256 entries in pages of its own: desc, avail, used."""
        at = USER_BASE + self.ring_offset(index) if base is None else base
        return struct.pack('=IIQQQQ', index, flags, at, at + 2 * PAGE, at + PAGE, log)

    @staticmethod
    def ring_offset(index):
        return (index + 1) * 4 * PAGE

    def ring(self, index, size=256, base=0, enable=True, flags=0, log=0):
        """Set a ring up as QEMU does; returns (kick, call)."""
        kick, call = self.keep(eventfd()), self.keep(eventfd())
        self.send(SET_VRING_NUM, state(index, size))
        self.send(SET_VRING_BASE, state(index, base))
        self.send(SET_VRING_ADDR, self.addr_payload(index, flags, log))
        self.send(SET_VRING_KICK, u64(index), [kick])
        self.send(SET_VRING_CALL, u64(index), [call])
        if enable:
            self.send(SET_VRING_ENABLE, state(index, 1))
        return kick, call


class Driver:
    """Drives one split ring in a FrontEnd's memory: one request at a time, FUSE over it."""

    def __init__(self, front, index, size=256):
        self.front = front
        self.index = index
        self.size = size
        self.at = front.ring_offset(index)
        self.data = 256 * PAGE // 2 + index * 8 * PAGE
        self.avail_idx = self.used_idx = 0
        self.unique = 2
        front.memory[self.at:self.at + 3 * PAGE] = bytes(3 * PAGE)
        self.kick, self.call = front.ring(index, size)

    def restart(self):
        """Rings as a fresh driver makes them."""
        self.__init__(self.front, self.index, self.size)

    def _desc(self, i, addr, length, flags, nxt):
        struct.pack_into('<QIHH', self.front.memory, self.at + 16 * i, addr, length, flags, nxt)

    def submit(self, out, in_bytes, in_at=None, data=None):
        """One chain: @out readable, then @data, a guest address and a size; @in_bytes writable (at guest address @in_at)."""
        m = self.front.memory
        base = self.front.gpa + self.data
        m[self.data:self.data + len(out)] = out
        if in_at is None:
            m[self.data + 4 * PAGE:self.data + 4 * PAGE + in_bytes] = bytes(in_bytes)
        self._desc(0, base, len(out), 1 if in_bytes else 0, 2 if data else 1)
        if data:
            self._desc(2, *data, 1, 1)
        if in_bytes:
            self._desc(1, base + 4 * PAGE if in_at is None else in_at, in_bytes, 2, 0)
        struct.pack_into('<H', m, self.at + PAGE + 4 + 2 * (self.avail_idx % self.size), 0)
        self.avail_idx = (self.avail_idx + 1) & 0xffff
        store16(m, self.at + PAGE + 2, self.avail_idx)
        # used_event: interrupt at the next completion.
        struct.pack_into('<H', m, self.at + PAGE + 4 + 2 * self.size, self.used_idx)
        signal_fd(self.kick)

    def complete(self, timeout=TIMEOUT):
        """The writable bytes that came back."""
        m = self.front.memory
        end = time.monotonic() + timeout
        while struct.unpack_from('<H', m, self.at + 2 * PAGE + 2)[0] == self.used_idx:
            left = end - time.monotonic()
            assert left > 0, 'no completion in time'
            take_signal(self.call, min(left, 0.05))
        slot = self.at + 2 * PAGE + 4 + 8 * (self.used_idx % self.size)
        self.used_idx = (self.used_idx + 1) & 0xffff
        head, written = struct.unpack_from('<II', m, slot)
        assert head == 0
        at = self.data + 4 * PAGE
        return bytes(m[at:at + written])

    def submit_fuse(self, opcode, nodeid, body, in_bytes, in_at=None, data=None):
        """A FUSE request whose reply is not waited for; the rest as submit()."""
        self.unique += 2
        length = 40 + len(body) + (data[1] if data else 0)
        head = struct.pack('<IIQQIIII', length, opcode, self.unique, nodeid, 0, 0, 0, 0)
        self.submit(head + body, in_bytes, in_at, data)

    def fuse(self, opcode, nodeid, body, reply_bytes):
        """A FUSE request; returns (error, body of the reply)."""
        self.submit_fuse(opcode, nodeid, body, 16 + reply_bytes)
        reply = self.complete()
        length, error, unique = struct.unpack_from('<IiQ', reply)
        assert unique == self.unique and length == len(reply)
        return error, reply[16:]

    def fuse_init(self):
        body = struct.pack('<IIII', 7, 38, 1 << 20, 0) + bytes(48)
        error, reply = self.fuse(26, 0, body, 64)
        assert error == 0
        return struct.unpack_from('<II', reply)

    def submit_getattr(self, reply_at=None):
        """GETATTR of the root, whose reply is not waited for."""
        self.submit_fuse(3, 1, bytes(16), 16 + 104, reply_at)

    def fuse_getattr(self, nodeid=1):
        error, reply = self.fuse(3, nodeid, bytes(16), 104)
        return error, reply
