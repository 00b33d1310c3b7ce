# SPDX-License-Identifier: BSD-3-Clause
"""A back-end that lies, in Python, under a keeper; each lie costs it the connection, and the front-end nothing."""

import os
import socket
import struct
import threading

import pytest

from conftest import wait_for
from vhost_peer import *
from process import cpu_seconds

OFFERED = bits(F_MQ, F_REPLY_ACK, F_CONFIG, F_INFLIGHT, F_MEM_SLOTS, F_STATUS, F_RESET_DEVICE)


class Liar:
    """Answers as a back-end should, but for the messages in @lies: request -> function(channel, request, payload, fds)."""

    def __init__(self, path, lies):
        self.path = path
        self.lies = dict(lies)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(4)
        self.seen = []
        self.area = memfd(1 << 20)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            channel = Channel(sock)
            sock.settimeout(None)
            try:
                while True:
                    request, flags, payload, fds = channel.recv()
                    self.seen.append(request)
                    lie = self.lies.pop(request, None)
                    if lie:
                        lie(channel, request, payload, fds)
                    else:
                        self.answer(channel, request, flags, payload)
                    for fd in fds:
                        os.close(fd)
            except (Closed, OSError):
                channel.close()

    def answer(self, channel, request, flags, payload):
        replies = {GET_FEATURES: u64(bits(F_VERSION_1, F_PROTOCOL_FEATURES)), GET_PROTOCOL_FEATURES: u64(OFFERED),
                   GET_QUEUE_NUM: u64(3), GET_MAX_MEM_SLOTS: u64(32), GET_STATUS: u64(0), GET_VRING_BASE: payload,
                   GET_CONFIG: payload}
        fds = []
        if request == GET_INFLIGHT_FD:
            reply, fds = struct.pack('=QQ', 1 << 20, 0) + payload[16:], [self.area]
        elif request in replies:
            reply = replies[request]
        elif flags & NEED_REPLY:
            reply = u64(0)
        else:
            return
        channel.send(request, reply, fds, VERSION | REPLY)

    def close(self):
        self.listener.close()
        os.close(self.area)


@pytest.fixture
def liar(folder):
    made = []

    def run(lies=()):
        made.append(Liar(str(folder / f'l{len(made)}'), lies))
        return made[-1]

    yield run
    for each in made:
        each.close()


def raw(request, flags, payload, nr_fds=0):
    def lie(channel, _request, _payload, _fds):
        fds = [memfd(64) for _ in range(nr_fds)]
        channel.send(request, payload, fds, flags)
        for fd in fds:
            os.close(fd)
    return lie


LIES = {
    'not a reply': raw(SET_VRING_NUM, VERSION, u64(0)),
    'another version': raw(SET_VRING_NUM, 2 | REPLY, u64(0)),
    'another message': raw(SET_VRING_BASE, VERSION | REPLY, u64(0)),
    'an unknown message': raw(200, VERSION | REPLY, u64(0)),
    'short': raw(SET_VRING_NUM, VERSION | REPLY, b'1234'),
    'long': raw(SET_VRING_NUM, VERSION | REPLY, bytes(16)),
    'huge': raw(SET_VRING_NUM, VERSION | REPLY, bytes(1 << 16)),
    'with descriptors': raw(SET_VRING_NUM, VERSION | REPLY, u64(0), 3),
    'with too many descriptors': raw(SET_VRING_NUM, VERSION | REPLY, u64(0), 30),
    'half of it': lambda c, r, p, f: (c.send_raw(struct.pack('=II', SET_VRING_NUM, 5)), c.close()),
    'nothing': lambda c, r, p, f: c.close(),
    'silence': lambda c, r, p, f: None,
    'two': lambda c, r, p, f: [c.send(SET_VRING_NUM, u64(0), (), VERSION | REPLY) for _ in range(2)],
}


@pytest.mark.parametrize('name', sorted(LIES))
def test_lie(liar, keep, name):
    bad, good = liar({SET_VRING_NUM: LIES[name]}), liar()
    keeper = keep('--backend', bad.path, '--fallback', good.path, '--reply-ms', 300)
    with keeper.connect() as front:
        assert front.negotiate().share_memory().alive()
        before = keeper.fds()
        assert front.ack(SET_VRING_NUM, state(0, 256)) == 0
        wait_for('the fallback', lambda: f'set {good.path} 0' in keeper.events())
        front.ring(0)
        assert front.alive()
        assert [e for e in keeper.events() if e.startswith(f'lost {bad.path}')]
        # What was said before the lie, and the message that met it.
        assert good.seen.index(SET_MEM_TABLE) < good.seen.index(SET_VRING_NUM)
        # The ring: kick, call, in-flight area.
        assert keeper.fds() <= before + 3


@pytest.mark.parametrize('request_id, lie', [
    (GET_FEATURES, LIES['nothing']), (GET_PROTOCOL_FEATURES, raw(GET_PROTOCOL_FEATURES, VERSION | REPLY, b'')),
    (GET_QUEUE_NUM, LIES['silence']), (SET_PROTOCOL_FEATURES, LIES['nothing']),
    (SET_MEM_TABLE, raw(SET_MEM_TABLE, VERSION | REPLY, u64(5)))])
def test_successor_lies_before_it_serves(liar, keep, request_id, lie):
    """It is refused; the one that serves goes on."""
    one = liar()
    keeper = keep('--backend', one.path, '--reply-ms', 300)
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        two = liar({request_id: lie})
        before = keeper.fds()
        keeper.set(two.path)
        wait_for('the refusal', lambda: any(e.startswith(f'set {two.path} -') for e in keeper.events()))
        assert GET_VRING_BASE not in one.seen
        assert front.alive() and keeper.fds() == before


@pytest.mark.parametrize('request_id', [SET_VRING_ADDR, SET_VRING_KICK, SET_VRING_ENABLE, GET_INFLIGHT_FD])
def test_successor_dies_while_it_takes_over(liar, keep, request_id):
    one, good = liar(), liar()
    keeper = keep('--backend', one.path, '--fallback', good.path, '--reply-ms', 300)
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        two = liar({request_id: LIES['nothing']})
        keeper.set(two.path)
        wait_for('an outcome', lambda: any(two.path in e for e in keeper.events()))
        assert front.alive()
        if request_id != GET_INFLIGHT_FD:
            keeper.wait_event(f'lost {two.path} 0')
            wait_for('the ring', lambda: SET_VRING_ENABLE in good.seen)


@pytest.mark.parametrize('reply, fds', [
    (struct.pack('=QQHH4x', 0, 0, 3, 1024), 0), (struct.pack('=QQHH4x', 1 << 62, (1 << 64) - 64, 3, 1024), 1),
    (struct.pack('=QQHH4x', 64, 0, 0, 0), 1), (struct.pack('=QQHH4x', 1 << 20, 0, 3, 1024), 1)])
def test_area_that_is_none(liar, keep, reply, fds):
    """Its own death tells that the area was worthless: the front-end has to go, nobody else is harmed."""
    lie = raw(GET_INFLIGHT_FD, VERSION | REPLY, reply, fds)

    def stubborn(*args):
        bad.lies[GET_INFLIGHT_FD] = stubborn
        lie(*args)

    bad, good = liar({GET_INFLIGHT_FD: stubborn}), liar()
    keeper = keep('--backend', bad.path, '--fallback', good.path)
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        bad.lies[SET_STATUS] = LIES['nothing']
        front.send(SET_STATUS, u64(1))
        keeper.wait_event(f'set {good.path} 0')
        front.expect_closed()
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()


def test_unasked(liar, keep):
    bad, good = liar(), liar()
    talk = []
    bad.lies[GET_STATUS] = lambda c, r, p, f: (talk.append(c), c.send(GET_STATUS, u64(0), (), VERSION | REPLY))
    keeper = keep('--backend', bad.path, '--fallback', good.path)
    with keeper.connect() as front:
        front.negotiate()
        front.ask(GET_STATUS)
        talk[0].send(GET_FEATURES, bytes(200), (), VERSION | REPLY)
        keeper.wait_event(f'lost {bad.path} 2')
        keeper.wait_event(f'set {good.path} 0')
        assert front.alive()


def test_message_that_kills(liar, keep):
    """A message that two back-ends do not survive costs the front-end its connection, not a third back-end its life."""
    lie = {SET_STATUS: LIES['nothing']}
    bad, worse, good = liar(lie), liar(lie), liar()
    keeper = keep('--backend', bad.path, '--fallback', worse.path)
    with keeper.connect() as front:
        front.negotiate()
        front.send(SET_STATUS, u64(1))
        front.expect_closed()
    keeper.wait_event(f'lost {worse.path} 0')
    keeper.switch(good.path)
    with keeper.connect() as front:
        assert front.negotiate().alive()


def test_cpu_idle(liar, keep):
    good = liar()
    keeper = keep('--backend', good.path)
    with keeper.connect() as front:
        assert front.negotiate().alive()
        before = cpu_seconds(keeper.process.pid)
        time.sleep(0.5)
        assert cpu_seconds(keeper.process.pid) - before < 0.02
