# SPDX-License-Identifier: BSD-3-Clause
"""Every message: right, short, long, with a descriptor too many or too few, unasked, cut off."""

import os
import struct
import time

import pytest

from vhost_peer import *

E = struct.pack
INFLIGHT = E('=QQHH4x', 0, 0, 3, 256)
CONFIG = E('=III', 0, 40, 0) + bytes(40)

# name: (request, payload, descriptors, replies always, protocol feature, payload sizes that are allowed)
MESSAGES = {
    'GET_FEATURES': (GET_FEATURES, b'', 0, True, None, (0, 0)),
    'SET_FEATURES': (SET_FEATURES, u64(bits(F_VERSION_1, F_PROTOCOL_FEATURES)), 0, False, None, (8, 8)),
    'SET_OWNER': (SET_OWNER, b'', 0, False, None, (0, 0)),
    'RESET_OWNER': (RESET_OWNER, b'', 0, False, None, (0, 0)),
    'SET_MEM_TABLE': (SET_MEM_TABLE, E('=II', 1, 0) + region(0, 4096, USER_BASE), 1, False, None, (40, 264)),
    'SET_LOG_BASE': (SET_LOG_BASE, E('=QQ', 4096, 0), 1, True, F_LOG_SHMFD, (16, 16)),
    'SET_LOG_FD': (SET_LOG_FD, b'', 1, False, None, (0, 8)),
    'SET_VRING_NUM': (SET_VRING_NUM, state(0, 256), 0, False, None, (8, 8)),
    'SET_VRING_ADDR': (SET_VRING_ADDR, E('=IIQQQQ', 0, 0, 0, 0, 0, 0), 0, False, None, (40, 40)),
    'SET_VRING_BASE': (SET_VRING_BASE, state(0), 0, False, None, (8, 8)),
    'GET_VRING_BASE': (GET_VRING_BASE, state(0), 0, True, None, (8, 8)),
    'SET_VRING_KICK': (SET_VRING_KICK, u64(0), -1, False, None, (8, 8)),
    'SET_VRING_CALL': (SET_VRING_CALL, u64(0), -1, False, None, (8, 8)),
    'SET_VRING_ERR': (SET_VRING_ERR, u64(0), -1, False, None, (8, 8)),
    'GET_PROTOCOL_FEATURES': (GET_PROTOCOL_FEATURES, b'', 0, True, None, (0, 0)),
    'SET_PROTOCOL_FEATURES': (SET_PROTOCOL_FEATURES, u64(bits(F_REPLY_ACK)), 0, False, None, (8, 8)),
    'GET_QUEUE_NUM': (GET_QUEUE_NUM, b'', 0, True, F_MQ, (0, 0)),
    'SET_VRING_ENABLE': (SET_VRING_ENABLE, state(0, 1), 0, False, None, (8, 8)),
    'SET_BACKEND_REQ_FD': (SET_BACKEND_REQ_FD, b'', -2, False, F_BACKEND_REQ, (0, 0)),
    'GET_CONFIG': (GET_CONFIG, CONFIG, 0, True, F_CONFIG, (12, 268)),
    'GET_INFLIGHT_FD': (GET_INFLIGHT_FD, INFLIGHT, 0, True, F_INFLIGHT, (20, 24)),
    'SET_INFLIGHT_FD': (SET_INFLIGHT_FD, E('=QQHH4x', 1 << 20, 0, 3, 256), 1, False, F_INFLIGHT, (20, 24)),
    'RESET_DEVICE': (RESET_DEVICE, b'', 0, False, F_RESET_DEVICE, (0, 0)),
    'GET_MAX_MEM_SLOTS': (GET_MAX_MEM_SLOTS, b'', 0, True, F_MEM_SLOTS, (0, 0)),
    'ADD_MEM_REG': (ADD_MEM_REG, u64(0) + region(0, 4096, USER_BASE), 1, False, F_MEM_SLOTS, (40, 40)),
    'SET_STATUS': (SET_STATUS, u64(1), 0, False, F_STATUS, (8, 8)),
    'GET_STATUS': (GET_STATUS, b'', 0, True, F_STATUS, (0, 0)),
}
NAMES = sorted(MESSAGES)
# Two that succeed in ways of their own.
REFUSED = {'SET_CONFIG': (SET_CONFIG, CONFIG, 0, False, F_CONFIG, (52, 268)),
           'REM_MEM_REG': (REM_MEM_REG, u64(0) + region(0, 4096, USER_BASE), 0, False, F_MEM_SLOTS, (40, 40))}
ALL = {**MESSAGES, **REFUSED}
NOT_OFFERED = [SEND_RARP, NET_SET_MTU, IOTLB_MSG, SET_VRING_ENDIAN, CREATE_CRYPTO_SESSION,
               CLOSE_CRYPTO_SESSION, POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END, GPU_SET_SOCKET,
               GET_SHARED_OBJECT, SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE, GET_SHMEM_CONFIG]


def make_fds(front, kind):
    """Descriptors of a message: 1 memory, -1 an eventfd, -2 a socket."""
    if kind == 0:
        return []
    if kind == -1:
        return [front.keep(eventfd())]
    if kind == -2:
        a, b = socket.socketpair()
        front.keep(b.detach())
        return [front.keep(a.detach())]
    return [front.keep(memfd(1 << 20))]


def then_works(server):
    """A front-end that comes afterwards finds a working device."""
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()


@pytest.mark.parametrize('name', NAMES)
def test_right(server, name):
    request, payload, fds, replies, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        if replies:
            front.ask(request, payload, make_fds(front, fds))
        else:
            front.send(request, payload, make_fds(front, fds))
        assert front.alive()


@pytest.mark.parametrize('name', NAMES)
def test_need_reply(server, name):
    """NEED_REPLY: exactly one answer, also where the message has a reply of its own."""
    request, payload, fds, replies, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        data, _ = front.ask(request, payload, make_fds(front, fds), VERSION | NEED_REPLY)
        if not replies:
            assert data == u64(0)
        front.expect_silence(0.02)
        assert front.alive()


@pytest.mark.parametrize('name', sorted(REFUSED))
def test_refused_with_an_answer(server, name):
    request, payload, fds, _, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        assert front.ack(request, payload, make_fds(front, fds)) != 0
        front.send(request, payload, make_fds(front, fds))
        assert front.alive()


@pytest.mark.parametrize('name', sorted(ALL))
def test_short(server, name):
    request, payload, fds, _, _, (low, _) = ALL[name]
    if low == 0:
        pytest.skip('nothing is shorter than an empty payload')
    with server.connect() as front:
        front.negotiate()
        front.send(request, payload[:low - 1].ljust(low - 1, b'\0'), make_fds(front, fds))
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('name', sorted(ALL))
def test_long(server, name):
    request, payload, fds, _, _, (_, high) = ALL[name]
    with server.connect() as front:
        front.negotiate()
        front.send(request, payload.ljust(high + 1, b'\0'), make_fds(front, fds))
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('name', NAMES)
def test_longest(server, name):
    """At the limit exactly."""
    request, payload, fds, replies, _, (_, high) = ALL[name]
    with server.connect() as front:
        front.negotiate()
        front.send(request, payload.ljust(high, b'\0'), make_fds(front, fds))
        if replies:
            front.recv()
        assert front.alive()


@pytest.mark.parametrize('name', sorted(ALL))
def test_extra_descriptor(server, name):
    request, payload, fds, _, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        have = make_fds(front, fds) + [front.keep(memfd(4096))]
        if name == 'REM_MEM_REG':
            have.append(have[0])
        front.send(request, payload, have)
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('name', [n for n in sorted(ALL) if ALL[n][2] and n != 'SET_LOG_FD'])
def test_missing_descriptor(server, name):
    request, payload, _, _, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        front.send(request, payload)
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('name', [n for n in sorted(ALL) if ALL[n][4] is not None])
def test_without_its_feature(server, name):
    request, payload, fds, _, feature, _ = ALL[name]
    with server.connect() as front:
        offered = front.ask_u64(GET_PROTOCOL_FEATURES)
        front.negotiate(protocol=offered & ~bits(feature))
        front.send(request, payload, make_fds(front, fds))
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('name', sorted(ALL))
def test_disconnect_after(server, name):
    request, payload, fds, _, _, _ = ALL[name]
    with server.connect() as front:
        front.negotiate()
        front.send(request, payload, make_fds(front, fds))
    then_works(server)


@pytest.mark.parametrize('name', sorted(ALL))
def test_disconnect_inside(server, name):
    """Cut off in the header, and in the payload, with descriptors on the way."""
    request, payload, fds, _, _, _ = ALL[name]
    whole = struct.pack('=III', request, VERSION, len(payload)) + payload
    for cut in (1, 11, 12, len(whole) - 1):
        with server.connect() as front:
            front.negotiate()
            front.send_raw(whole[:cut], make_fds(front, fds))
    then_works(server)


@pytest.mark.parametrize('name', sorted(ALL))
def test_byte_by_byte(server, name):
    request, payload, fds, replies, _, _ = ALL[name]
    whole = struct.pack('=III', request, VERSION, len(payload)) + payload
    with server.connect() as front:
        front.negotiate()
        front.send_raw(whole[:1], make_fds(front, fds))
        for i in range(1, len(whole)):
            front.send_raw(whole[i:i + 1])
        if replies:
            front.recv()
        assert front.alive()


@pytest.mark.parametrize('name', NAMES)
def test_first_message(server, name):
    """Before any negotiation: the answer, or the end of the connection, but never a hang."""
    request, payload, fds, replies, feature, _ = ALL[name]
    with server.connect() as front:
        front.send(request, payload, make_fds(front, fds))
        if feature is not None:
            front.expect_closed()
        else:
            if replies:
                front.recv()
            assert front.alive()
    then_works(server)


@pytest.mark.parametrize('request_id', [0, 45, 46, 255, 1 << 16, 0xffffffff, *NOT_OFFERED])
@pytest.mark.parametrize('flags', [VERSION, VERSION | NEED_REPLY])
def test_not_offered(server, request_id, flags):
    with server.connect() as front:
        front.negotiate()
        front.send(request_id, u64(0), flags=flags)
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('flags', [0, 2, 3, VERSION | REPLY, 8])
def test_wrong_flags(server, flags):
    with server.connect() as front:
        front.send(GET_FEATURES, flags=flags)
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('size', [1, 281, 4096, 0x7fffffff, 0xffffffff])
def test_size_in_header_only(server, size):
    """The size is judged before the payload is waited for."""
    with server.connect() as front:
        front.send(GET_FEATURES, size=size)
        front.expect_closed()
    then_works(server)


@pytest.mark.parametrize('nr', [9, 32, 253])
def test_more_descriptors_than_a_message_has(server, nr):
    with server.connect() as front:
        fd = front.keep(memfd(4096))
        before = len(os.listdir(f'/proc/{server.process.pid}/fd'))
        front.send(SET_MEM_TABLE, E('=II', 1, 0) + region(0, 4096, USER_BASE), [fd] * nr)
        front.expect_closed()
    # The connection is closed first, what came with the message after it.
    end = time.monotonic() + 10
    while len(os.listdir(f'/proc/{server.process.pid}/fd')) > before:
        assert time.monotonic() < end
        time.sleep(0.01)
    then_works(server)


def test_descriptor_in_the_middle(server):
    payload = E('=II', 1, 0) + region(0, 4096, USER_BASE)
    with server.connect() as front:
        fd = front.keep(memfd(4096))
        front.send_raw(struct.pack('=III', SET_MEM_TABLE, VERSION, len(payload)), [fd])
        time.sleep(0.05)
        front.send_raw(payload, [fd])
        front.expect_closed()
    then_works(server)


def test_no_descriptor_is_lost(server):
    """After any number of messages and connections the process holds what it held before."""
    def rounds(n):
        for _ in range(n):
            with server.connect() as front:
                front.negotiate().share_memory()
                for name in sorted(set(ALL) - {'SET_PROTOCOL_FEATURES'}):
                    request, payload, fds, replies, _, _ = ALL[name]
                    front.send(request, payload, make_fds(front, fds))
                    if replies:
                        for fd in front.recv()[3]:
                            os.close(fd)
                assert front.alive()
        with server.connect() as front:
            assert front.alive()
            return len(os.listdir(f'/proc/{server.process.pid}/fd'))

    assert rounds(1) == rounds(5)


def test_exchange_closes_the_old_one(server):
    """Descriptors that replace each other on one connection do not pile up."""
    def held():
        assert front.alive()
        return len(os.listdir(f'/proc/{server.process.pid}/fd'))

    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        for name in ('SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR', 'SET_BACKEND_REQ_FD', 'SET_LOG_FD',
                     'SET_LOG_BASE', 'SET_MEM_TABLE'):
            request, payload, fds, replies, _, _ = ALL[name]
            counts = []
            for _ in range(4):
                front.send(request, payload, make_fds(front, fds))
                if replies:
                    front.recv()
                counts.append(held())
            assert counts[1] == counts[3], name


def test_peer_that_does_not_read(server):
    """Replies that nobody takes: the connection ends, the process does not wait."""
    front = server.connect()
    try:
        for _ in range(20000):
            front.send(GET_FEATURES)
    except (Closed, socket.timeout):
        pass
    server.wait_call('detach')
    front.close()
    then_works(server)
