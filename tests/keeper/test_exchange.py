# SPDX-License-Identifier: BSD-3-Clause
"""Back-ends that die, hang, or are replaced under a front-end that never reconnects."""

import os
import signal
import struct
import subprocess
import time

import pytest

from conftest import wait_for
from vhost_peer import *

import virtiofsd


def begin(keeper, nr=3):
    front = keeper.connect()
    front.negotiate().share_memory()
    return front, [Driver(front, i) for i in range(nr)]


def works(driver):
    error, reply = driver.fuse_getattr()
    assert error == 0 and len(reply) == 104


def completed(driver):
    length, error, unique = struct.unpack_from('<IiQ', driver.complete(10))
    assert (length, error, unique) == (120, 0, driver.unique)


def test_killed_while_idle(null, keep):
    back = null()
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        for n in range(4):
            back.kill()
            keeper.wait_event(f'lost {back.path} 0')
            # What comes meanwhile is served by the next.
            drivers[1].submit_getattr()
            back = null()
            keeper.switch(back.path)
            completed(drivers[1])
            works(drivers[2])


def test_message_waits_for_the_next(null, keep):
    back = null()
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper, 2)
    with front:
        drivers[1].fuse_init()
        back.kill()
        keeper.wait_event(f'lost {back.path} 0')
        front.send(GET_VRING_BASE, state(1))
        front.expect_silence(0.2)
        keeper.switch(null().path)
        assert front.recv()[2] == state(1, drivers[1].avail_idx)


def test_dies_inside_a_message(null, keep):
    """Stopped, sent a message, killed: the message is done by the fallback."""
    back, spare = null(), null()
    keeper = keep('--backend', back.path, '--fallback', spare.path)
    front, drivers = begin(keeper, 2)
    with front:
        drivers[1].fuse_init()
        os.kill(back.process.pid, signal.SIGSTOP)
        front.send(SET_VRING_ENABLE, state(1, 0), flags=VERSION | NEED_REPLY)
        front.expect_silence(0.1)
        back.kill()
        assert front.recv()[2] == u64(0)
        keeper.wait_event(f'set {spare.path} 0')
        drivers[1].submit_getattr()
        with pytest.raises(AssertionError):
            drivers[1].complete(0.1)
        assert front.ack(SET_VRING_ENABLE, state(1, 1)) == 0
        # The spare was started without a session to resume.
        assert len(drivers[1].complete()) >= 16


def test_planned_exchange(null, keep):
    back = null()
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        for _ in range(5):
            old, back = back, null()
            keeper.switch(back.path)
            old.kill()
            works(drivers[1])
            works(drivers[2])
        assert not any(e.startswith('lost') for e in keeper.events())
        # Set up again afterwards, as by a driver that is loaded again.
        for d in drivers:
            front.ask(GET_VRING_BASE, state(d.index))
        for d in drivers:
            d.restart()
        drivers[1].fuse_init()
        back.kill()
        back = null()
        keeper.switch(back.path)
        works(drivers[1])


def test_terminated_in_order(null, keep):
    """A back-end that drains its rings and leaves marks the in-flight area as unused: positions are found all the same."""
    back = null()
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        for _ in range(3):
            works(drivers[1])
            following = null()
            back.process.terminate()
            back.process.wait()
            keeper.wait_event(f'lost {back.path} 0')
            back = following
            keeper.switch(back.path)
            works(drivers[1])
            works(drivers[2])


def test_hung(null, keep):
    back = null()
    keeper = keep('--backend', back.path, '--reply-ms', 300)
    front, drivers = begin(keeper, 2)
    with front:
        drivers[1].fuse_init()
        os.kill(back.process.pid, signal.SIGSTOP)
        front.send(GET_FEATURES)
        keeper.wait_event(f'lost {back.path} 1')
        back.kill()
        keeper.switch(null().path)
        assert front.recv()[0] == GET_FEATURES
        works(drivers[1])


def test_front_end_dropped_in_an_exchange(null, folder, keep):
    """The old one hangs when its rings are taken, and where they were cannot be read: the new one keeps no memory of the front-end."""
    back, following = null(), null()
    keeper = keep('--backend', back.path, '--reply-ms', 300)
    memory = u64(0) + region(0, 1 << 20, USER_BASE)

    def add():
        return front.ack(ADD_MEM_REG, memory, [front.keep(memfd(1 << 20))])

    with keeper.connect() as front:
        front.negotiate()
        assert add() == 0
        # In a file that anybody may cut short: the keeper does not look into it.
        area = front.keep(os.open(folder / 'area', os.O_RDWR | os.O_CREAT))
        os.ftruncate(area, 1 << 20)
        assert front.ack(SET_INFLIGHT_FD, struct.pack('=QQHH4x', 1 << 20, 0, 3, 256), [area]) == 0
        front.ring(1)
        assert front.alive()
        os.kill(back.process.pid, signal.SIGSTOP)
        keeper.switch(following.path)
        keeper.wait_event(f'lost {back.path} 1')
        front.expect_closed()
    for _ in range(2):
        with keeper.connect() as front:
            front.negotiate()
            assert add() == 0


def test_nobody_comes(null, keep):
    """Without a back-end for too long: an error where one can be told, else the end of the connection."""
    back = null()
    keeper = keep('--backend', back.path, '--backend-ms', 200)
    front, drivers = begin(keeper, 2)
    with front:
        drivers[1].fuse_init()
        back.kill()
        assert front.ack(SET_VRING_ENABLE, state(1, 0)) != 0
        front.send(GET_VRING_BASE, state(1))
        front.expect_closed()
    with keeper.connect() as front:
        front.expect_silence(0.1)
    keeper.switch(null().path)
    front, drivers = begin(keeper, 2)
    with front:
        drivers[1].fuse_init()


def test_no_backend_yet(null, keep):
    keeper = keep()
    front = keeper.connect()
    with front:
        front.send(GET_FEATURES)
        front.expect_silence(0.1)
        keeper.switch(null().path)
        front.recv()
        front.negotiate().share_memory()
        Driver(front, 1).fuse_init()


def test_successor_lacks_something(fake, null, keep):
    """It is refused with a line in the log, and the old one goes on."""
    back = null()
    few = null(1)
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        keeper.set(few.path)
        keeper.wait_event(f'set {few.path} -95')
        assert '2 queues, 3 are in use' in keeper.log.read_text()
        works(drivers[2])
        keeper.set('/nonexistent/socket')
        keeper.wait_event('cannot /nonexistent/socket 2')
        works(drivers[2])


def test_state_is_said_again(fake, keep):
    """Everything that was set up, seen by a device that records."""
    one, two = fake('-', 3), fake('-', 3)
    keeper = keep('--backend', one.path)
    with keeper.connect() as front:
        front.negotiate(features=bits(F_VERSION_1, F_PROTOCOL_FEATURES, F_LOG_ALL)).share_memory()
        log = front.keep(memfd(4096))
        front.ask(SET_LOG_BASE, struct.pack('=QQ', 4096, 0), [log])
        front.ring(0)
        front.ring(2, size=128, base=5)
        assert front.ack(SET_VRING_ENABLE, state(2, 0)) == 0
        assert front.ack(SET_STATUS, u64(15)) == 0
        assert front.ack(ADD_MEM_REG, u64(0) + region(1 << 32, PAGE, USER_BASE + (1 << 32)),
                         [front.keep(memfd(PAGE))]) == 0
        keeper.switch(two.path)
        calls = two.calls()
        # The fake says that its rings advance by 7 when they stop.
        starts = [c for c in calls if c.startswith('start')]
        assert starts == ['start 0 size 256 base 7 format 0 kick 1 call 1 inband 0 inflight 1 log 0',
                          'start 2 size 128 base 12 format 0 kick 1 call 1 inband 0 inflight 1 log 0']
        assert 'mem 2' in calls and 'log 1' in calls and 'status 0xf' in calls
        assert calls.index('mem 2') < calls.index(starts[0])
        assert 'enabled 0 1' in calls and 'enabled 2 1' not in calls
        assert len([c for c in one.calls() if c.startswith('stop')]) == 2
        # Both sides of each ring are woken.
        assert take_signal(front.fds[3])


def test_refused_size_is_not_said_again(fake, keep):
    """A stopped ring keeps the size that was accepted, over an exchange, too."""
    one, two = fake('-', 3), fake('-', 3)
    keeper = keep('--backend', one.path)
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0, size=128)
        assert front.ask(GET_VRING_BASE, state(0))[0] == state(0, 7)
        for size in 0, 1025, 1 << 20:
            assert front.ack(SET_VRING_NUM, state(0, size)) != 0
        keeper.switch(two.path)
        assert front.ack(SET_VRING_KICK, u64(0), [front.keep(eventfd())]) == 0
        starts = [c for c in two.calls() if c.startswith('start')]
        assert starts == ['start 0 size 128 base 7 format 0 kick 1 call 1 inband 0 inflight 1 log 0']


def test_larger_ring_than_the_area(fake, keep):
    """A ring that the in-flight area has no room for: it begins anew, larger, and all rings go on."""
    server = fake('-', 3, 4096)
    keeper = keep('--backend', server.path)
    with keeper.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        front.send(SET_VRING_NUM, state(1, 4096))
        front.send(SET_VRING_ADDR, front.addr_payload(1))
        assert front.ack(SET_VRING_KICK, u64(1), [front.keep(eventfd())]) == 0
        starts = [c for c in server.calls() if c.startswith('start')]
        assert len(starts) == 3 and all('inflight 1' in c for c in starts)
        assert 'start 0 size 256 base 7' in starts[1]


def test_front_ends_in_turn_leave_nothing(null, keep):
    back = null()
    keeper = keep('--backend', back.path)

    def rounds(n):
        for _ in range(n):
            front, drivers = begin(keeper)
            with front:
                drivers[1].fuse_init()
                works(drivers[2])
        with keeper.connect() as front:
            assert front.alive()
        with keeper.connect() as front:
            assert front.alive()
            return keeper.fds(), len(os.listdir(f'/proc/{back.process.pid}/fd'))

    assert rounds(1) == rounds(5)


def test_exchanges_leave_nothing(null, keep):
    a, b = null(), null()
    keeper = keep('--backend', a.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        counts = []
        for _ in range(6):
            keeper.switch(b.path)
            keeper.switch(a.path)
            counts.append(keeper.fds())
        assert counts[0] == counts[-1]


def test_inband_like_uml(null, keep):
    """No kick and call descriptors; set up again without a stop; survives as the others do."""
    back = null(2, 'inband')
    keeper = keep('--backend', back.path, '--inband')
    with keeper.connect() as front:
        front.negotiate().share_memory()
        a, b = socket.socketpair()
        channel = Channel(a)
        assert front.ack(SET_BACKEND_REQ_FD, fds=[b.fileno()]) == 0
        b.close()
        for _ in range(2):
            front.memory[:] = bytes(front.size)
            front.send(SET_FEATURES, u64(front.features))
            d = Driver.__new__(Driver)
            d.front, d.index, d.size, d.at, d.data = front, 1, 256, front.ring_offset(1), 128 * PAGE
            d.avail_idx = d.used_idx = 0
            d.unique = 2
            d.kick, d.call = front.keep(eventfd()), front.keep(eventfd())
            front.send(SET_VRING_NUM, state(1, 256))
            front.send(SET_VRING_BASE, state(1, 0))
            front.send(SET_VRING_ADDR, front.addr_payload(1))
            front.send(SET_VRING_ENABLE, state(1, 1))
            submit_init(d)
            assert front.ack(VRING_KICK, state(1)) == 0
            assert len(d.complete()) >= 16
            back.kill()
            back = null(2, 'inband')
            keeper.switch(back.path)
            d.submit_getattr()
            assert front.ack(VRING_KICK, state(1)) == 0
            completed(d)
            # Calls came through the channel, before and after.
            assert channel.recv()[0] == BACKEND_VRING_CALL
            front.send(SET_VRING_ENABLE, state(1, 0))
        channel.close()


def submit_init(d):
    body = struct.pack('<IIII', 7, 38, 1 << 20, 0) + bytes(48)
    d.submit(struct.pack('<IIQQIIII', 40 + len(body), 26, d.unique, 0, 0, 0, 0, 0) + body, 80)


def test_inband_only_behind_the_option(null, keep):
    back = null(2, 'inband')
    keeper = keep('--backend', back.path)
    with keeper.connect() as front:
        assert not front.ask_u64(GET_PROTOCOL_FEATURES) & bits(F_INBAND)
        front.send(SET_PROTOCOL_FEATURES, u64(bits(F_REPLY_ACK, F_BACKEND_REQ, F_INBAND)))
        front.expect_closed()


@pytest.mark.parametrize('options', [[], ['--packed']])
def test_load_and_kill(null, keep, options):
    """Random reads and writes, checked, while back-ends are killed: every chain comes back once, with the right data."""
    back = null()
    keeper = keep('--backend', back.path)
    bench = subprocess.Popen([os.environ['FUSEWIRE'], 'bench', '--rw', 'randrw', '--verify', '--file', 'data',
                              '--size', '8M', '--queues', '2', '--runtime', '4', *options, keeper.path],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    kills = 0
    time.sleep(0.5)
    while bench.poll() is None and kills < 30:
        following = null()
        back.kill()
        back = following
        kills += 1
        if bench.poll() is None:
            keeper.switch(back.path)
        time.sleep(0.03)
    out = bench.communicate(timeout=30)[0]
    assert bench.returncode == 0, out
    assert 'all 8388608 bytes are right' in out and kills > 8


def test_killed_at_any_moment_of_an_exchange(null, keep):
    """Old and new are killed while one takes over from the other."""
    back = null()
    keeper = keep('--backend', back.path)
    front, drivers = begin(keeper)
    with front:
        drivers[1].fuse_init()
        for n in range(24):
            following = null()
            drivers[1].submit_getattr()
            keeper.set(following.path)
            time.sleep(n * 0.0002)
            if n % 2:
                back.kill()
                back = following
            else:
                following.kill()
                back.kill()
                back = null()
                keeper.switch(back.path)
            completed(drivers[1])


class Buffers(Driver):
    """Virtqueue 1 of a driver that takes notifications: empty buffers of its own place each, which come back filled."""

    SIZE = 64

    def __init__(self, front):
        self.out = set()
        super().__init__(front, 1)

    def give(self):
        m, i = self.front.memory, self.avail_idx % self.size
        assert i not in self.out
        self.out.add(i)
        at = self.data + i * self.SIZE
        m[at:at + self.SIZE] = bytes(self.SIZE)
        self._desc(i, self.front.gpa + at, self.SIZE, 2, 0)
        struct.pack_into('<H', m, self.at + PAGE + 4 + 2 * i, i)
        self.avail_idx = (self.avail_idx + 1) & 0xffff
        store16(m, self.at + PAGE + 2, self.avail_idx)
        signal_fd(self.kick)

    def come_back(self):
        """How many came since last time; each says that the root has changed."""
        m, nr = self.front.memory, 0
        while struct.unpack_from('<H', m, self.at + 2 * PAGE + 2)[0] != self.used_idx:
            i, written = struct.unpack_from('<II', m, self.at + 2 * PAGE + 4 + 8 * (self.used_idx % self.size))
            self.out.remove(i)
            assert struct.unpack_from('<IiQQ', m, self.data + i * self.SIZE) == (written, 2, 0, 1)
            self.used_idx = (self.used_idx + 1) & 0xffff
            nr += 1
        return nr


def begin_notified(keeper):
    front = keeper.connect()
    front.negotiate(bits(F_NOTIFICATION, F_VERSION_1, F_PROTOCOL_FEATURES)).share_memory()
    driver = Driver(front, 2)
    buffers = Buffers(front)
    driver.fuse_init()
    return front, driver, buffers


def notify(back):
    os.kill(back.process.pid, signal.SIGUSR1)


def test_notifications_after_an_exchange(null, keep):
    """Buffers that one back-end was given are filled by its successor; a notification that found none goes with who had it."""
    back = null()
    keeper = keep('--backend', back.path)
    front, driver, buffers = begin_notified(keeper)
    with front:
        for dies in (False, True, False):
            buffers.give()
            notify(back)
            wait_for('a notification', buffers.come_back)
            notify(back)
            old, back = back, null()
            if dies:
                old.kill()
                keeper.wait_event(f'lost {old.path} 0')
            keeper.switch(back.path)
            old.kill()
            works(driver)
            buffers.give()
            buffers.give()
            assert buffers.come_back() == 0
            notify(back)
            wait_for('a notification', buffers.come_back)
            following = null()
            keeper.switch(following.path)
            back.kill()
            back = following
            notify(back)
            wait_for('a notification', buffers.come_back)
            assert not buffers.out
            works(driver)


def test_killed_while_it_notifies(null, keep):
    """Each buffer comes back once, and the next notification finds one."""
    back = null()
    keeper = keep('--backend', back.path)
    front, driver, buffers = begin_notified(keeper)
    with front:
        for n in range(16):
            buffers.give()
            buffers.give()
            for _ in range(4):
                notify(back)
                time.sleep(n * 0.00005)
            back.kill()
            back = null()
            keeper.switch(back.path)
            buffers.come_back()
            buffers.give()
            notify(back)
            wait_for('a notification', buffers.come_back)
            works(driver)


class TestVirtiofsd:
    """A back-end of others, without in-flight tracking."""

    @pytest.fixture(params=virtiofsd.KINDS)
    def foreign(self, folder, request):
        if why := virtiofsd.why_not(request.param):
            pytest.skip(why)
        started = []
        (folder / 'served').mkdir()

        def run():
            path = str(folder / f'v{len(started)}')
            started.append(subprocess.Popen(virtiofsd.command(request.param, path, folder / 'served'),
                                            stderr=subprocess.DEVNULL))
            wait_for('virtiofsd', lambda: os.path.exists(path))
            return path, started[-1]

        yield run
        for process in started:
            process.kill()
            process.wait()

    @staticmethod
    def begin(keeper):
        front = keeper.connect()
        offered = front.ask_u64(GET_FEATURES)
        front.negotiate(features=offered & bits(F_VERSION_1, F_PROTOCOL_FEATURES)).share_memory()
        drivers = [Driver(front, i) for i in range(2)]
        # virtiofsd gives a ring up that completes something while SET_VRING_CALL comes: let it take that first.
        assert front.alive()
        return front, drivers

    def test_forward_and_planned_exchange(self, foreign, keep):
        path, _ = foreign()
        keeper = keep('--backend', path)
        front, drivers = self.begin(keeper)
        with front:
            drivers[1].fuse_init()
            works(drivers[1])
            path, _ = foreign()
            keeper.switch(path)
            # It keeps no session for another: it answers, and begins anew.
            drivers[1].submit_getattr()
            assert len(drivers[1].complete()) >= 16
            drivers[1].fuse_init()
            works(drivers[1])

    def test_death_ends_the_front_end(self, foreign, keep):
        path, process = foreign()
        keeper = keep('--backend', path)
        front, drivers = self.begin(keeper)
        with front:
            drivers[1].fuse_init()
            process.kill()
            front.expect_closed()
        assert 'is lost with the back-end' in keeper.log.read_text()
        path, _ = foreign()
        keeper.switch(path)
        front, drivers = self.begin(keeper)
        with front:
            drivers[1].fuse_init()
            works(drivers[1])
