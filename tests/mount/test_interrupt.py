# SPDX-License-Identifier: BSD-3-Clause
"""INTERRUPT through a mount, of a device that does not know the request yet: EAGAIN makes the kernel ask again."""
import errno
import signal
import struct
import subprocess
import sys

import pytest

from mounting import mounted_device, no_fuse, wait_for
from backend import Backend, attr, by_opcode, good, init_out, nothing

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

LOOKUP, GETATTR, INIT, INTERRUPT, DESTROY = 1, 3, 26, 36, 38
ROOT = struct.pack("<QII", 0, 0, 0) + attr(1, 0o40755)
# The kernel's mark on an INTERRUPT's own number.
INT_REQ = 1

# Says when it is about to wait; a signal does not end it, but a call that fails with EINTR does.
WAITER = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *unused: None)
print("up", flush=True)
try:
    os.stat(sys.argv[1])
except OSError as e:
    sys.exit(e.errno)
"""


class Device(Backend):
    """A root directory where LOOKUP waits for an INTERRUPT; the first of these get what @answers says."""

    def __init__(self, path, answers):
        self.held = None
        self.answers = list(answers)
        super().__init__(path, by_opcode({INIT: good(init_out()), GETATTR: good(ROOT), LOOKUP: self.hold,
                                          INTERRUPT: self.interrupt}))

    def hold(self, request):
        self.held = request

    def interrupt(self, request):
        if self.answers:
            return good(error=-self.answers.pop(0))(request)
        self.let_go(-errno.EINTR)
        return nothing(request)

    def let_go(self, error):
        self.reply(self.held, *good(error=error)(self.held))

    def interrupts(self):
        """The requests that INTERRUPTs named, in order."""
        found = [r for r in list(self.requests) if r.opcode == INTERRUPT]
        assert all(r.index == 0 and r.unique == struct.unpack_from("<Q", r.message, 40)[0] | INT_REQ for r in found)
        return [r.unique & ~INT_REQ for r in found]


class Waiter:
    """A process that waits for LOOKUP at the device."""

    def __init__(self, path, device):
        device.held = None
        self.process = subprocess.Popen([sys.executable, "-c", WAITER, str(path)], stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"up\n"
        assert wait_for(lambda: device.held is not None)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def mounted(request):
    options, answers = request.param
    with mounted_device(lambda path: Device(path, answers), *options) as (device, m, mnt):
        yield device, mnt
        assert m.end(signal.SIGTERM) == 0, m.text()
    assert device.opcodes[-1] == DESTROY


@pytest.mark.parametrize("mounted", [
    (options, [errno.EAGAIN] * nr) for nr in (0, 1, 5)
    for options in ([], ["--queues", "4"], ["--queues", "4", "--poll-us", "0", "--queue-size", "16"])
], indirect=True, ids=lambda p: f"again-{len(p[1])}-{''.join(p[0]) or 'default'}")
def test_again(mounted):
    """As often as the device says that it knows no such request; and each time the request is named that waits."""
    device, mnt = mounted
    asked = 1 + len(device.answers)
    with Waiter(mnt / "held", device) as waiter:
        waiter.process.send_signal(signal.SIGUSR1)
        assert waiter.process.wait(10) == errno.EINTR
    assert device.interrupts() == [device.held.unique] * asked


@pytest.mark.parametrize("mounted", [(["--queues", "2"], [errno.ENOSYS])], indirect=True, ids=["ENOSYS"])
def test_not_known(mounted):
    """A device without INTERRUPT is not asked again, for this request or the next."""
    device, mnt = mounted
    for nr in (1, 2):
        with Waiter(mnt / f"held{nr}", device) as waiter:
            waiter.process.send_signal(signal.SIGUSR1)
            assert not wait_for(lambda: len(device.interrupts()) == 2, 0.5)
            assert waiter.process.poll() is None
            device.let_go(-errno.ENOENT)
            assert waiter.process.wait(10) == errno.ENOENT
    assert len(device.interrupts()) == 1
