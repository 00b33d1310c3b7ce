# SPDX-License-Identifier: BSD-3-Clause
"""The whole program (`fusewire null`) under a front-end of ours: FUSE over real rings, and what befalls them."""

import mmap
import os
import struct

import pytest

from vhost_peer import *

OPEN, READ, STATFS, LOOKUP = 14, 15, 17, 1


def begin(server, nr=3, **memory):
    front = server.connect()
    front.negotiate().share_memory(**memory)
    return front, [Driver(front, i) for i in range(nr)]


def works(driver):
    major, minor = driver.fuse_init()
    assert major == 7 and minor >= 12
    error, reply = driver.fuse_getattr()
    assert error == 0 and len(reply) == 104


def test_mount(null_server):
    front, drivers = begin(null_server)
    with front:
        data, _ = front.ask(GET_CONFIG, struct.pack('=III', 0, 40, 0) + bytes(40))
        assert data[12:] == b'peer'.ljust(36, b'\0') + struct.pack('<I', 2)
        works(drivers[1])
        # Both request queues belong to one session.
        assert drivers[2].fuse_getattr()[0] == 0
        # A single FORGET on the high priority queue: used, nothing written.
        drivers[0].submit(struct.pack('<IIQQIIII', 48, 2, 100, 1, 0, 0, 0, 0) + u64(0), 0)
        assert drivers[0].complete() == b''


def test_front_ends_in_turn(null_server):
    for _ in range(3):
        front, drivers = begin(null_server, 2)
        with front:
            works(drivers[1])


def test_set_up_again_like_uml(null_server):
    front, drivers = begin(null_server, 2)
    with front:
        for _ in range(3):
            works(drivers[1])
            for d in drivers:
                front.send(SET_VRING_ENABLE, state(d.index, 0))
            assert front.ack(SET_FEATURES, u64(front.features)) == 0
            for d in drivers:
                d.restart()
        works(drivers[1])


def test_new_device_on_the_same_connection(null_server):
    """QEMU's device_del and device_add with one chardev: all over again, without a disconnect."""
    front, drivers = begin(null_server, 2)
    with front:
        for _ in range(3):
            works(drivers[1])
            for d in drivers:
                front.ask(GET_VRING_BASE, state(d.index))
            front.negotiate().send(SET_MEM_TABLE, struct.pack('=II', 1, 0) +
                                   region(0, front.size, USER_BASE), [front.mem_fd])
            for d in drivers:
                d.restart()
        works(drivers[1])


@pytest.mark.parametrize('how', [RESET_DEVICE, SET_STATUS])
def test_reset(null_server, how):
    front, drivers = begin(null_server, 2)
    with front:
        for _ in range(3):
            works(drivers[1])
            assert front.ack(how, u64(0) if how == SET_STATUS else b'') == 0
            assert front.ack(SET_FEATURES, u64(front.features)) == 0
            for d in drivers:
                d.restart()
        works(drivers[1])


def test_stop_and_go_on(null_server):
    """GET_VRING_BASE and a restart at that base, several times; the session lives on."""
    front, drivers = begin(null_server, 2)
    with front:
        d = drivers[1]
        works(d)
        for _ in range(5):
            base = struct.unpack('=II', front.ask(GET_VRING_BASE, state(1))[0])[1]
            assert base == d.avail_idx
            d.kick, d.call = front.ring(1, base=base)
            assert d.fuse_getattr()[0] == 0


def test_disabled_ring_takes_nothing(null_server):
    front, drivers = begin(null_server, 2)
    with front:
        d = drivers[1]
        works(d)
        assert front.ack(SET_VRING_ENABLE, state(1, 0)) == 0
        d.unique += 2
        d.submit(struct.pack('<IIQQIIII', 56, 3, d.unique, 1, 0, 0, 0, 0) + bytes(16), 16 + 104)
        with pytest.raises(AssertionError):
            d.complete(0.1)
        assert front.ack(SET_VRING_ENABLE, state(1, 1)) == 0
        assert len(d.complete()) == 120


def test_memory_changes_while_running(null_server):
    front, drivers = begin(null_server, 2)
    with front:
        works(drivers[1])
        for i in range(1, 20):
            extra = region(i << 32, PAGE, USER_BASE + (i << 32))
            assert front.ack(ADD_MEM_REG, u64(0) + extra, [front.keep(memfd(PAGE))]) == 0
            assert drivers[1].fuse_getattr()[0] == 0
            payload = struct.pack('=II', 1, 0) + region(0, front.size, USER_BASE)
            assert front.ack(SET_MEM_TABLE, payload, [front.mem_fd]) == 0
            assert drivers[1].fuse_getattr()[0] == 0


def test_memory_is_taken_away(null_server):
    """The ring breaks, the process lives, and the next front-end is served."""
    front, drivers = begin(null_server, 2)
    with front:
        err = front.keep(eventfd())
        front.send(SET_VRING_ERR, u64(1), [err])
        works(drivers[1])
        assert front.ack(REM_MEM_REG, u64(0) + region(0, front.size, USER_BASE)) == 0
        assert take_signal(err)
        assert front.ask_u64(GET_STATUS) & 64
    front, drivers = begin(null_server, 2)
    with front:
        works(drivers[1])


def test_memory_file_is_truncated(null_server):
    front, drivers = begin(null_server, 2)
    works(drivers[1])
    os.ftruncate(front.mem_fd, 0)
    signal_fd(drivers[1].kick)
    assert front.alive()
    front.memory = None
    front.close()
    front, drivers = begin(null_server, 2)
    with front:
        works(drivers[1])


def test_broken_ring_is_reported(null_server):
    front, drivers = begin(null_server, 2)
    with front:
        err = front.keep(eventfd())
        front.send(SET_VRING_ERR, u64(1), [err])
        d = drivers[1]
        works(d)
        # A head beyond the table.
        struct.pack_into('<H', front.memory, d.at + PAGE + 4 + 2 * (d.avail_idx % d.size), 999)
        store16(front.memory, d.at + PAGE + 2, d.avail_idx + 1)
        signal_fd(d.kick)
        assert take_signal(err)
        assert front.ask_u64(GET_STATUS) & 64
        assert front.ack(RESET_DEVICE) == 0
        assert front.ack(SET_FEATURES, u64(front.features)) == 0
        for d in drivers:
            d.restart()
        works(drivers[1])


def test_dirty_log(null_server):
    front, drivers = begin(null_server, 2, gpa=1 << 30)
    with front:
        d = drivers[1]
        works(d)
        pages = (1 << 30) // PAGE + 256
        fd = front.keep(memfd(pages // 8))
        log = mmap.mmap(fd, pages // 8)
        front.ask(SET_LOG_BASE, struct.pack('=QQ', pages // 8, 0), [fd])
        assert front.ack(SET_FEATURES, u64(front.features | bits(F_LOG_ALL))) == 0
        used = front.gpa + d.at + 2 * PAGE
        assert front.ack(SET_VRING_ADDR, front.addr_payload(1, 1, used)) == 0
        assert d.fuse_getattr()[0] == 0
        dirty = {i * 8 + b for i in range((1 << 30) // PAGE // 8, pages // 8) for b in range(8)
                 if log[i] >> b & 1}
        first = (1 << 30) // PAGE
        assert dirty == {first + (d.at + 2 * PAGE) // PAGE, first + (d.data + 4 * PAGE) // PAGE}
        assert log[:(1 << 30) // PAGE // 8] == bytes((1 << 30) // PAGE // 8)
        # Off again: nothing more is marked.
        assert front.ack(SET_FEATURES, u64(front.features)) == 0
        log[:] = bytes(len(log))
        assert d.fuse_getattr()[0] == 0
        assert log[:] == bytes(len(log))
        log.close()


def test_inflight_goes_on(null_server):
    """The area that one connection leaves is taken over by the next: same base, nothing lost or twice."""
    front = null_server.connect()
    with front:
        front.negotiate().share_memory()
        data, fds = front.ask(GET_INFLIGHT_FD, struct.pack('=QQHH4x', 0, 0, 2, 256))
        assert front.ack(SET_INFLIGHT_FD, data, fds) == 0
        d = Driver(front, 1)
        works(d)
        memory_fd = os.dup(front.mem_fd)
    front = null_server.connect()
    with front:
        front.negotiate()
        front.mem_fd, front.gpa, front.size = memory_fd, 0, 1 << 20
        front.memory = mmap.mmap(memory_fd, 1 << 20)
        front.send(SET_MEM_TABLE, struct.pack('=II', 1, 0) + region(0, 1 << 20, USER_BASE), [memory_fd])
        assert front.ack(SET_INFLIGHT_FD, data, fds) == 0
        d.front = front
        d.kick, d.call = front.ring(1, base=d.used_idx)
        works(d)
    for fd in (*fds, memory_fd):
        os.close(fd)


def test_inflight_area_inside_a_page(null_server):
    """An area of the front-end's own making, zeroed, that begins in the middle of a page."""
    front = null_server.connect()
    with front:
        front.negotiate().share_memory()
        fd = front.keep(memfd(1 << 16))
        area = mmap.mmap(fd, 1 << 16)
        stride = 16 + 16 * 256 + 48
        assert front.ack(SET_INFLIGHT_FD, struct.pack('=QQHH4x', 2 * stride, 192, 2, 256), [fd]) == 0
        works(Driver(front, 1))
        # Queue 1: features, version, size of the split layout; nothing outside its area.
        assert struct.unpack_from('=QHH', area, 192 + stride) == (0, 1, 256)
        assert area[:192 + stride] == bytes(192 + stride)
        assert area[192 + 2 * stride:] == bytes((1 << 16) - 192 - 2 * stride)
        area.close()


def test_polling_driver_and_polled_device(null_server):
    """Neither kick nor call descriptor."""
    front, drivers = begin(null_server, 2)
    with front:
        d = drivers[1]
        works(d)
        assert front.ack(SET_VRING_CALL, u64(NOFD | 1)) == 0
        assert front.ack(SET_VRING_KICK, u64(NOFD | 1)) == 0
        d.kick = front.keep(eventfd())
        for _ in range(3):
            assert d.fuse_getattr()[0] == 0


def test_disconnect_under_load(null_server):
    for _ in range(10):
        front, drivers = begin(null_server, 3)
        works(drivers[1])
        for d in drivers[1:]:
            d.submit(struct.pack('<IIQQIIII', 56, 3, 1000, 1, 0, 0, 0, 0) + bytes(16), 16 + 104)
        front.close()
    front, drivers = begin(null_server, 2)
    with front:
        works(drivers[1])
