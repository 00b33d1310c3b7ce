# SPDX-License-Identifier: BSD-3-Clause
"""What messages do to the device: order, rings, memory, log, in-flight area, reset, two front-ends."""

import mmap
import os
import resource
import struct

import pytest

from vhost_peer import *
from process import cpu_seconds

RING = 256


def calls_of(server, word):
    return [c for c in server.calls() if c.split()[0] == word]


def test_features_offered(server):
    with server.connect() as front:
        assert front.ask_u64(GET_FEATURES) == bits(F_VERSION_1, F_EVENT_IDX, F_INDIRECT, F_PACKED,
                                                   F_LOG_ALL, F_PROTOCOL_FEATURES)
        assert front.ask_u64(GET_PROTOCOL_FEATURES) == bits(
            F_MQ, F_LOG_SHMFD, F_REPLY_ACK, F_BACKEND_REQ, F_CONFIG, F_BACKEND_SEND_FD, F_INFLIGHT,
            F_RESET_DEVICE, F_MEM_SLOTS, F_STATUS)
        front.negotiate()
        assert front.ask_u64(GET_QUEUE_NUM) == 3
        assert front.ask_u64(GET_MAX_MEM_SLOTS) == 509


def test_features_not_offered(server):
    with server.connect() as front:
        front.negotiate()
        assert front.ack(SET_FEATURES, u64(bits(F_VERSION_1, 40))) != 0
        front.send(SET_PROTOCOL_FEATURES, u64(bits(F_REPLY_ACK, F_INBAND)))
        front.expect_closed()


def test_no_ack_without_reply_ack(server):
    with server.connect() as front:
        front.negotiate(protocol=bits(F_MQ))
        front.send(SET_OWNER, flags=VERSION | NEED_REPLY)
        front.expect_silence()
        assert front.alive()


def test_config(server):
    with server.connect() as front:
        front.negotiate()
        for off, length in ((0, 40), (36, 4), (0, 1), (0, 60), (44, 16), (0, 256), (255, 1)):
            data, _ = front.ask(GET_CONFIG, struct.pack('=III', off, length, 0) + bytes(length))
            assert struct.unpack_from('=II', data) == (off, length)
            whole = (b'fake'.ljust(36, b'\0') + struct.pack('<I', 2)).ljust(256, b'\0')
            assert data[12:] == whole[off:off + length]
        for off, length in ((0, 257), (256, 1), (0xffffffff, 1), (1, 0xffffffff), (0, 0)):
            data, _ = front.ask(GET_CONFIG, struct.pack('=III', off, length, 0))
            assert data == b''
        assert front.alive()


def test_ring_like_qemu(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        assert calls_of(server, 'start') == [
            'start 0 size 256 base 0 format 0 kick 1 call 0 inband 0 inflight 0 log 0']
        assert 'call 0 1' in server.calls()
        assert 'enabled 0 1' in server.calls()
        data, _ = front.ask(GET_VRING_BASE, state(0))
        assert struct.unpack('=II', data) == (0, 7)
        # Stopped already: the same answer.
        data, _ = front.ask(GET_VRING_BASE, state(0))
        assert struct.unpack('=II', data) == (0, 7)
        assert len(calls_of(server, 'stop')) == 1
        front.ring(0, base=7)
        assert front.alive()
        assert 'base 7' in calls_of(server, 'start')[1]


def test_base_of_a_ring_that_never_ran(server):
    with server.connect() as front:
        front.negotiate()
        data, _ = front.ask(GET_VRING_BASE, state(2))
        assert struct.unpack('=II', data) == (2, 0)
        front.send(SET_VRING_BASE, state(2, 99))
        data, _ = front.ask(GET_VRING_BASE, state(2))
        assert struct.unpack('=II', data) == (2, 99)


def test_rings_enabled_at_once_without_protocol_features(server):
    with server.connect() as front:
        front.send(SET_OWNER)
        front.send(SET_FEATURES, u64(bits(F_VERSION_1)))
        front.share_memory()
        front.ring(1, enable=False)
        assert front.alive()
        assert 'enabled 1 1' in server.calls()


def test_rings_disabled_until_enabled(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(1, enable=False)
        assert front.alive()
        assert calls_of(server, 'start') and not calls_of(server, 'enabled')
        front.send(SET_VRING_ENABLE, state(1, 1))
        front.send(SET_VRING_ENABLE, state(1, 0))
        assert front.alive()
        assert calls_of(server, 'enabled') == ['enabled 1 1', 'enabled 1 0']
        assert front.ack(SET_VRING_ENABLE, state(1, 2)) != 0


@pytest.mark.parametrize('order', ['KAMN', 'MKNA', 'NAKM', 'AKNM', 'KNAM', 'NMAK'])
def test_start_waits_for_what_is_missing(server, order):
    """Kick, addresses, memory, number in any order: the ring starts with the last of them."""
    with server.connect() as front:
        front.negotiate()
        kick = front.keep(eventfd())
        for i, what in enumerate(order):
            assert not calls_of(server, 'start')
            if what == 'K':
                assert front.ack(SET_VRING_KICK, u64(0), [kick]) == 0
            elif what == 'A':
                assert front.ack(SET_VRING_ADDR, front.addr_payload(0)) == 0
            elif what == 'N':
                assert front.ack(SET_VRING_NUM, state(0, RING)) == 0
            else:
                front.share_memory()
                assert front.alive()
        assert len(calls_of(server, 'start')) == 1


@pytest.mark.parametrize('size,good', [(0, False), (1, True), (256, True), (1024, True), (1025, False),
                                       (0xffffffff, False)])
def test_ring_size(server, size, good):
    with server.connect() as front:
        front.negotiate()
        assert (front.ack(SET_VRING_NUM, state(0, size)) == 0) == good


@pytest.mark.parametrize('message', [SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE])
@pytest.mark.parametrize('index', [3, 255, 256, 0xffffffff])
def test_queue_that_is_not_there(server, message, index):
    with server.connect() as front:
        front.negotiate()
        front.send(message, state(index, 1))
        front.expect_closed()


@pytest.mark.parametrize('message', [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR])
def test_descriptor_and_its_bit(server, message):
    for word, nr in ((3, 1), (255, 1), (NOFD, 1), (0, 0)):
        with server.connect() as front:
            front.negotiate()
            front.send(message, u64(word), [front.keep(eventfd())] * nr)
            front.expect_closed()
    with server.connect() as front:
        front.negotiate()
        assert front.ack(message, u64(NOFD | 2)) == 0
        # Neither a file nor a device can signal.
        assert front.ack(message, u64(0), [front.keep(memfd(8))]) != 0
        assert front.ack(message, u64(0), [front.keep(os.open('/dev/zero', os.O_RDWR))]) != 0
        assert front.ack(message, u64(0), [front.keep(eventfd())]) == 0


def test_ring_outside_memory(server):
    with server.connect() as front:
        front.negotiate().share_memory(64 * PAGE)
        end = USER_BASE + 64 * PAGE
        kick = front.keep(eventfd())
        front.send(SET_VRING_NUM, state(0, RING))
        # desc, used, avail: one byte too far each.
        good = [USER_BASE, USER_BASE + 2 * PAGE, USER_BASE + PAGE]
        sizes = [16 * RING, 6 + 8 * RING, 6 + 2 * RING]
        for i in range(3):
            for delta in (0, 16):
                bad = list(good)
                bad[i] = end - (sizes[i] + 15) // 16 * 16 + delta
                front.send(SET_VRING_ADDR, struct.pack('=IIQQQQ', 0, 0, *bad, 0))
                result = front.ack(SET_VRING_KICK, u64(0), [kick])
                assert (result == 0) == (delta == 0), (i, delta)
                front.ask(GET_VRING_BASE, state(0))
        for bad in (0, 2**64 - 1, 2**64 - 16, USER_BASE - 1):
            front.send(SET_VRING_ADDR, struct.pack('=IIQQQQ', 0, 0, bad, bad, bad, 0))
            assert front.ack(SET_VRING_KICK, u64(0), [kick]) != 0


def test_setup_while_running_is_refused(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.ack(SET_VRING_NUM, state(0, 128)) != 0
        assert front.ack(SET_VRING_BASE, state(0, 3)) != 0
        assert front.ack(SET_VRING_ADDR, front.addr_payload(0, base=USER_BASE)) != 0
        assert front.ack(SET_FEATURES, u64(bits(F_VERSION_1, F_PROTOCOL_FEATURES))) != 0
        assert not calls_of(server, 'stop')


def test_refused_while_another_runs(server):
    """A ring that is disabled is not stopped by what is refused for the sake of another."""
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        front.ring(1, enable=False)
        assert front.ack(SET_FEATURES, u64(bits(F_VERSION_1, F_PROTOCOL_FEATURES))) != 0
        data, [fd] = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHHI', 0, 0, 3, RING, 0))
        front.keep(fd)
        assert front.ack(SET_INFLIGHT_FD, data, [fd]) != 0
        front.send(SET_VRING_ENABLE, state(0, 0))
        assert front.ack(SET_INFLIGHT_FD, struct.pack('=QQHHI', 1, 0, 3, RING, 0), [fd]) != 0
        assert front.alive()
        assert not calls_of(server, 'stop')
        assert front.ack(SET_INFLIGHT_FD, data, [fd]) == 0
        assert len(calls_of(server, 'stop')) == 2


def test_set_up_again_after_disable_only(server):
    """User-mode Linux: disable, then all over again on the same connection with base 0."""
    with server.connect() as front:
        front.negotiate().share_memory()
        for i in range(3):
            front.ring(i)
        for round_ in range(2):
            for i in range(3):
                front.send(SET_VRING_ENABLE, state(i, 0))
            assert front.ack(SET_FEATURES, u64(bits(F_VERSION_1, F_PROTOCOL_FEATURES))) == 0
            fd = front.mem_fd
            # Room for two regions, one used.
            payload = struct.pack('=II', 1, 0) + region(0, front.size, USER_BASE) + bytes(32)
            assert front.ack(SET_MEM_TABLE, payload, [fd]) == 0
            for i in range(3):
                front.ring(i, base=0)
            assert front.alive()
            assert len(calls_of(server, 'start')) == 3 * (round_ + 2)
            assert all('base 0 ' in c for c in calls_of(server, 'start'))


def test_new_kick_descriptor_for_a_running_ring(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0, base=5)
        assert front.ack(SET_VRING_KICK, u64(0), [front.keep(eventfd())]) == 0
        assert 'base 12' in calls_of(server, 'start')[1]


def test_polling_front_end(server):
    """Without a kick descriptor the device looks by itself."""
    with server.connect() as front:
        front.negotiate().share_memory()
        _, call = front.ring(0)
        assert front.ack(SET_VRING_KICK, u64(NOFD)) == 0
        for _ in range(3):
            assert take_signal(call)
        front.ask(GET_VRING_BASE, state(0))
        while take_signal(call, 0.05):
            pass


def test_memory_while_rings_run(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        payload = struct.pack('=II', 2, 0) + region(0, front.size, USER_BASE) + \
            region(1 << 32, PAGE, USER_BASE + (1 << 32))
        assert front.ack(SET_MEM_TABLE, payload, [front.mem_fd, front.keep(memfd(PAGE))]) == 0
        assert calls_of(server, 'mem')[-1] == 'mem 2'
        assert calls_of(server, 'resolve')[-1].startswith('resolve 0 0 ')
        # A table without the ring.
        payload = struct.pack('=II', 1, 0) + region(1 << 32, PAGE, USER_BASE + (1 << 32))
        assert front.ack(SET_MEM_TABLE, payload, [front.keep(memfd(PAGE))]) == 0
        assert calls_of(server, 'resolve')[-1].startswith('resolve 0 -')


@pytest.mark.parametrize('bad', [
    region(0, 0, USER_BASE), region(0, 2**64 - 1, USER_BASE), region(2**64 - 1, PAGE, USER_BASE),
    region(0, PAGE, 2**64 - 1), region(0, PAGE, USER_BASE, 2**64 - 1), region(0, 2 * PAGE, USER_BASE),
    region(0, PAGE, USER_BASE, PAGE)])
def test_bad_region(server, bad):
    with server.connect() as front:
        front.negotiate().share_memory(64 * PAGE)
        front.ring(0)
        fd = front.keep(memfd(PAGE))
        assert front.ack(SET_MEM_TABLE, struct.pack('=II', 1, 0) + bad, [fd]) != 0
        assert front.ack(ADD_MEM_REG, u64(0) + bad, [fd]) != 0
        # The table in use is as it was.
        assert calls_of(server, 'mem')[-1] == 'mem 1'


@pytest.mark.parametrize('nr,room,fds', [(2, 1, 2), (9, 8, 8), (1, 1, 2), (2, 2, 1), (1, 1, 0), (0xffffffff, 2, 2)])
def test_mem_table_counts(server, nr, room, fds):
    with server.connect() as front:
        front.negotiate()
        payload = struct.pack('=II', nr, 0)
        for i in range(room):
            payload += region(i * PAGE, PAGE, USER_BASE + i * PAGE)
        front.send(SET_MEM_TABLE, payload, [front.keep(memfd(PAGE)) for _ in range(fds)])
        front.expect_closed()


def test_memory_slots(server):
    with server.connect() as front:
        front.negotiate()
        fd = front.keep(memfd(1 << 20))
        kick = front.keep(eventfd())
        reg = region(0, 1 << 20, USER_BASE)
        front.send(SET_VRING_NUM, state(0, RING))
        front.send(SET_VRING_ADDR, front.addr_payload(0))
        assert front.ack(SET_VRING_KICK, u64(0), [kick]) == 0
        assert front.ack(ADD_MEM_REG, u64(0) + reg, [fd]) == 0
        assert len(calls_of(server, 'start')) == 1
        assert front.ack(ADD_MEM_REG, u64(0) + reg, [fd]) != 0
        for i in range(1, 509):
            front.send(ADD_MEM_REG, u64(0) + region(i << 32, PAGE, USER_BASE + (i << 32)), [fd])
        assert front.alive()
        assert calls_of(server, 'mem')[-1] == 'mem 509'
        assert front.ack(ADD_MEM_REG, u64(0) + region(1 << 60, PAGE, 1 << 60), [fd]) != 0
        assert front.ack(REM_MEM_REG, u64(0) + region(1 << 32, PAGE, USER_BASE)) != 0
        assert front.ack(REM_MEM_REG, u64(0) + region(1 << 32, PAGE, USER_BASE + (1 << 32))) == 0
        # A descriptor is allowed and means nothing.
        assert front.ack(REM_MEM_REG, u64(0) + region(2 << 32, PAGE, USER_BASE + (2 << 32)), [fd]) == 0
        assert calls_of(server, 'mem')[-1] == 'mem 507'
        assert front.ack(REM_MEM_REG, u64(0) + reg) == 0
        assert calls_of(server, 'resolve')[-1].startswith('resolve 0 -')


def log_pages(view):
    return [i * 8 + b for i, byte in enumerate(view[:]) for b in range(8) if byte >> b & 1]


def test_dirty_log(server):
    """Log base, LOG_ALL, ring flag: the used ring's page shows up where the message said."""
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0, flags=0, log=0)
        fd = front.keep(memfd(2 * PAGE))
        log = mmap.mmap(fd, 2 * PAGE)
        _, fds = front.ask(SET_LOG_BASE, struct.pack('=QQ', PAGE, PAGE), [fd])
        assert not fds and 'log 1' not in server.calls()
        assert front.ack(SET_FEATURES, u64(front.features | bits(F_LOG_ALL))) == 0
        assert calls_of(server, 'log')[-1] == 'log 1'
        assert log_pages(log) == []
        # The fake marks log_addr when it gets a ring with a log.
        used = front.ring_offset(0) + 2 * PAGE
        assert front.ack(SET_VRING_ADDR, front.addr_payload(0, flags=1, log=used)) == 0
        assert log_pages(log) == [PAGE * 8 + used // PAGE]
        assert not calls_of(server, 'stop')
        # Beyond the log: nothing, rather than a fault.
        assert front.ack(SET_VRING_ADDR, front.addr_payload(0, flags=1, log=1 << 60)) == 0
        assert front.ack(SET_FEATURES, u64(front.features)) == 0
        assert calls_of(server, 'log')[-1] == 'log 0'
        assert calls_of(server, 'resolve')[-1].endswith('log 0')
        log.close()


def test_dirty_log_bad(server):
    with server.connect() as front:
        front.negotiate()
        fd = front.keep(memfd(PAGE))
        for size, offset in ((0, 0), (PAGE + 1, 0), (PAGE, PAGE), (PAGE, 2**64 - 1), (2**64 - 1, 1)):
            assert front.ask_u64(SET_LOG_BASE, struct.pack('=QQ', size, offset), [fd]) != 0


@pytest.mark.parametrize('pad', [b'', b'\0' * 4])
def test_inflight(server, pad):
    with server.connect() as front:
        front.negotiate().share_memory()
        data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 3, RING) + pad)
        assert len(data) == 20 + len(pad) and len(fds) == 1
        size, offset, queues, ring = struct.unpack_from('=QQHH', data)
        fd = front.keep(fds[0])
        assert (offset, queues, ring) == (0, 3, RING) and size % 3 == 0 and size // 3 % 64 == 0
        area = mmap.mmap(fd, size)
        for i in range(3):
            # features, version, desc_num of the split layout.
            assert struct.unpack_from('=QHH', area, i * (size // 3)) == (0, 1, RING)
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)
        assert front.ack(SET_INFLIGHT_FD, data, [fd]) == 0
        front.ring(2)
        assert front.alive()
        assert 'inflight 1' in calls_of(server, 'start')[-1]
        # Not while rings run; after a stop it may change.
        assert front.ack(SET_INFLIGHT_FD, data, [fd]) != 0
        front.ask(GET_VRING_BASE, state(2))
        assert front.ack(SET_INFLIGHT_FD, data, [fd]) == 0
        area.close()


@pytest.mark.parametrize('used', [False, True])
def test_inflight_again_and_again(server, used):
    """A front-end that keeps all areas that it gets holds the memory of two."""
    with server.connect() as front:
        front.negotiate(features=bits(F_VERSION_1, F_PACKED, F_PROTOCOL_FEATURES)).share_memory()
        areas = []
        for _ in range(20):
            data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH4x', 0, 0, 3, 1024))
            areas.append(front.keep(fds[0]))
            if used:
                # One of the three queues: the area is mapped in part.
                assert front.ack(SET_INFLIGHT_FD, data[:16] + struct.pack('=HH4x', 1, 1024), fds) == 0
        blocks = [os.fstat(fd).st_blocks for fd in areas]
        assert blocks[-1] > 0 and sum(blocks) <= 2 * blocks[-1]
        # What is in use keeps its memory when another is asked for, and is put in use again.
        assert front.ack(SET_INFLIGHT_FD, data, [areas[-1]]) == 0
        for _ in range(3):
            front.keep(front.ask(GET_INFLIGHT_FD, data)[1][0])
            assert front.ack(SET_INFLIGHT_FD, data, [areas[-1]]) == 0
        kept = os.dup(areas[-1])
    # Nor does the end of the connection take it.
    server.wait_call('detach')
    assert os.fstat(kept).st_blocks == blocks[-1]
    os.close(kept)


def test_inflight_bad(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        for queues, size in ((0, RING), (4, RING), (3, 0), (3, 1025)):
            data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH4x', 0, 0, queues, size))
            assert data[:8] == u64(0) and not fds
        data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH4x', 0, 0, 3, RING))
        size = struct.unpack_from('=Q', data)[0]
        front.keep(fds[0])

        def put(mmap_size, offset, queues, queue_size, fd=fds[0]):
            return front.ack(SET_INFLIGHT_FD, struct.pack('=QQHH4x', mmap_size, offset, queues, queue_size), [fd])

        assert put(size, 0, 3, RING) == 0
        assert put(size - 1, 0, 3, RING) != 0
        assert put(size, 8, 3, RING) != 0
        assert put(size, 2**64 - 8, 3, RING) != 0
        assert put(2**64 - 1, 0, 3, RING) != 0
        assert put(size, 0, 3, RING * 2) != 0
        assert put(size, 0, 4, RING) != 0
        assert put(size, 0, 3, RING, front.keep(eventfd())) != 0
        # Areas for 16 entries, then a ring of 256.
        assert put(size, 0, 3, 16) == 0
        front.send(SET_VRING_NUM, state(0, RING))
        front.send(SET_VRING_ADDR, front.addr_payload(0))
        assert front.ack(SET_VRING_KICK, u64(0), [front.keep(eventfd())]) != 0


def test_inflight_not_page_aligned_and_truncated(server):
    """An offset inside a page; then the file is taken away: zeros, not SIGBUS."""
    with server.connect() as front:
        front.negotiate().share_memory()
        fd = front.keep(memfd(1 << 20))
        assert front.ack(SET_INFLIGHT_FD, struct.pack('=QQHH4x', (1 << 20) - 192, 192, 3, RING), [fd]) == 0
        os.ftruncate(fd, 0)
        front.ring(0)
        assert front.alive()


def test_reset_device(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        front.send(SET_STATUS, u64(15))
        assert front.ask_u64(GET_STATUS) == 15
        assert front.ack(RESET_DEVICE) == 0
        assert server.calls()[-2:] == ['stop 0', 'reset']
        assert front.ask_u64(GET_STATUS) == 0
        # Memory and protocol features stay, rings are disabled and unconfigured.
        front.send(SET_FEATURES, u64(front.features))
        front.ring(0, enable=False)
        assert front.alive()
        assert len(calls_of(server, 'start')) == 2
        assert calls_of(server, 'enabled')[-1] != 'enabled 0 1' or \
            server.calls().index('reset') > server.calls().index('enabled 0 1')


def test_status(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        for status in (1, 3, 11, 15):
            assert front.ack(SET_STATUS, u64(status)) == 0
            assert front.ask_u64(GET_STATUS) == status
        assert front.ack(SET_STATUS, u64(256)) != 0
        assert front.ack(SET_STATUS, u64(0)) == 0
        assert server.calls()[-1] == 'reset'


def test_reset_owner_disables(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        front.send(RESET_OWNER)
        assert front.alive()
        assert server.calls()[-1] == 'enabled 0 0'


@pytest.mark.parametrize('pipe', [False, True])
def test_needs_reset_is_told(server, pipe):
    with server.connect() as front:
        front.negotiate().share_memory()
        err = front.keep(eventfd())
        front.send(SET_VRING_ERR, u64(0), [err])
        if pipe:
            ours, theirs = os.pipe()
        else:
            a, b = socket.socketpair()
            ours, theirs = a.detach(), b.detach()
        assert front.ack(SET_BACKEND_REQ_FD, fds=[theirs]) == 0
        os.close(theirs)
        front.send(SET_STATUS, u64(128))
        assert take_signal(err)
        assert wait_readable(ours)
        assert os.read(ours, 100) == struct.pack('=III', BACKEND_CONFIG_CHANGE, VERSION, 0)
        # Nobody listens any more: no signal kills the process.
        os.close(ours)
        front.send(SET_STATUS, u64(128))
        front.send(SET_STATUS, u64(128))
        assert front.alive()


def test_backend_channel_must_be_a_channel(server):
    with server.connect() as front:
        front.negotiate()
        assert front.ack(SET_BACKEND_REQ_FD, fds=[front.keep(memfd(10))]) != 0
        assert front.ack(SET_BACKEND_REQ_FD, fds=[front.keep(eventfd())]) != 0


def test_inband(start):
    server = start('inband')
    with server.connect() as front:
        assert front.ask_u64(GET_PROTOCOL_FEATURES) & bits(F_INBAND)
        front.negotiate().share_memory()
        a, b = socket.socketpair()
        channel = Channel(a)
        assert front.ack(SET_BACKEND_REQ_FD, fds=[b.fileno()]) == 0
        b.close()
        front.send(SET_VRING_NUM, state(1, RING))
        front.send(SET_VRING_ADDR, front.addr_payload(1))
        # The kick itself starts the ring.
        assert front.ack(VRING_KICK, state(1)) == 0
        assert len(calls_of(server, 'start')) == 1
        assert channel.recv() == (BACKEND_VRING_CALL, VERSION, state(1), [])
        assert front.ack(VRING_KICK, state(1)) == 0
        assert channel.recv() == (BACKEND_VRING_CALL, VERSION, state(1), [])
        channel.close()
        assert front.ack(VRING_KICK, state(1)) == 0
        front.send(VRING_KICK, state(3))
        front.expect_closed()


@pytest.mark.parametrize('without', [F_BACKEND_REQ, F_REPLY_ACK])
def test_inband_needs_its_companions(start, without):
    server = start('inband')
    with server.connect() as front:
        offered = front.ask_u64(GET_PROTOCOL_FEATURES)
        front.send(SET_PROTOCOL_FEATURES, u64(offered & ~bits(without)))
        front.expect_closed()


def test_call_as_a_pipe(server):
    """User-mode Linux's call descriptors: 8 bytes a signal; a reader that is gone does not kill us."""
    with server.connect() as front:
        front.negotiate().share_memory()
        r, w = os.pipe()
        front.ring(0)
        assert front.ack(SET_VRING_CALL, u64(0), [w]) == 0
        os.close(w)
        assert front.ack(SET_VRING_KICK, u64(NOFD)) == 0
        assert take_signal(r)
        os.close(r)
        time.sleep(0.02)
        assert front.alive()


def test_two_front_ends_in_turn(server):
    for n in range(3):
        with server.connect() as front:
            front.negotiate().share_memory()
            front.ring(0)
            assert front.alive()
        server.wait_call('detach', n + 1)
    assert len(calls_of(server, 'attach')) == 3


def test_second_front_end_is_sent_away(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        second = server.connect()
        second.expect_closed()
        second.close()
        front.ring(0)
        assert front.alive()
    with server.connect() as front:
        assert front.alive()


def test_successor_connects_before_the_end_is_seen(server):
    """The old front-end is gone, the new one is there: in one turn of the loop."""
    for _ in range(20):
        first = server.connect()
        assert first.negotiate().alive()
        os.kill(server.process.pid, 19)
        # More than one turn of the loop reads.
        first.send_raw(struct.pack('=III', SET_OWNER, VERSION, 0) * 200)
        first.close()
        second = server.connect()
        os.kill(server.process.pid, 18)
        assert second.negotiate().alive()
        second.close()


def test_64_request_queues(start):
    server = start('-', 65)
    with server.connect() as front:
        front.negotiate().share_memory(4 << 20)
        assert front.ask_u64(GET_QUEUE_NUM) == 65
        for i in range(65):
            front.ring(i)
        assert front.alive()
        assert len(calls_of(server, 'start')) == 65


def test_more_queues_than_a_message_can_name(start):
    server = start('-', 257)
    with server.connect() as front:
        front.negotiate()
        assert front.ask_u64(GET_QUEUE_NUM) == 256
        front.send(SET_VRING_NUM, state(256, 1))
        front.expect_closed()


def test_packed_ring(server):
    with server.connect() as front:
        front.negotiate(features=bits(F_VERSION_1, F_PACKED, F_PROTOCOL_FEATURES)).share_memory()
        front.ring(0, size=100, base=0x80008000)
        assert front.alive()
        assert calls_of(server, 'start')[0].startswith('start 0 size 100 base 2147516416 format 1')
        data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH4x', 0, 0, 1, 100))
        assert struct.unpack_from('=Q', data)[0] >= 32 * 100
        os.close(fds[0])


@pytest.mark.parametrize('flags,base', [(0, 0x80008000), (0x80, 0x80008000), (0x8080, 0), (0x8000, 0)])
def test_packed_ring_with_base_0(server, flags, base):
    """User-mode Linux says 0 for a fresh ring; 0 is also where a ring can be after its first lap."""
    with server.connect() as front:
        front.negotiate(features=bits(F_VERSION_1, F_PACKED, F_PROTOCOL_FEATURES)).share_memory()
        struct.pack_into('<H', front.memory, front.ring_offset(0) + 14, flags)
        front.ring(0, base=0)
        assert front.alive()
        assert f'base {base} ' in calls_of(server, 'start')[0]


def test_split_ring_must_be_a_power_of_two(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        err = front.keep(eventfd())
        front.send(SET_VRING_ERR, u64(0), [err])
        front.send(SET_VRING_NUM, state(0, 100))
        front.send(SET_VRING_ADDR, front.addr_payload(0))
        assert front.ack(SET_VRING_KICK, u64(0), [front.keep(eventfd())]) != 0
        assert take_signal(err)
        assert front.alive()


def limit_fds(server, spare):
    """Leave the process room for @spare more descriptors."""
    pid = server.process.pid
    used = max(map(int, os.listdir(f'/proc/{pid}/fd'))) + 1
    holes = used - len(os.listdir(f'/proc/{pid}/fd'))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used - holes + spare, 4096))


def test_no_descriptors_left_to_accept(server):
    """Waits without spinning, and serves the front-end when there is room again."""
    limit_fds(server, 0)
    with server.connect() as front:
        front.send(GET_FEATURES)
        before = cpu_seconds(server.process.pid)
        front.expect_silence(0.5)
        assert cpu_seconds(server.process.pid) - before < 0.1
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1024, 4096))
        front.recv()
        assert front.alive()


def test_no_descriptors_left_for_a_message(server):
    """Descriptors that the kernel had to drop: the connection ends, the device lives."""
    with server.connect() as front:
        front.negotiate()
        assert front.alive()
        limit_fds(server, 1)
        payload = struct.pack('=II', 3, 0)
        for i in range(3):
            payload += region(i * PAGE, PAGE, USER_BASE + i * PAGE)
        front.send(SET_MEM_TABLE, payload, [front.keep(memfd(PAGE)) for _ in range(3)])
        front.expect_closed()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1024, 4096))
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()


def test_idle_costs_nothing(server):
    with server.connect() as front:
        front.negotiate().share_memory()
        front.ring(0)
        assert front.alive()
        before = cpu_seconds(server.process.pid)
        time.sleep(0.5)
        assert cpu_seconds(server.process.pid) - before < 0.02
