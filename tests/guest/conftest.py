# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the tests with real guests."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import guest  # noqa: E402


@pytest.fixture
def tmp():
    # Short: a socket's path has 107 bytes.
    path = tempfile.mkdtemp(prefix="fw-guest-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_backend(tmp):
    """A function that starts a back-end by name; all end with the test."""
    started = []

    def make(name):
        folder = os.path.join(tmp, f"{name}{len(started)}")
        os.mkdir(folder)
        backend = guest.BACKENDS[name](folder)
        started.append(backend)
        return backend.start()

    yield make
    for backend in started:
        backend.stop()


def kind_of(name):
    if name == "uml" and guest.uml_is_out():
        pytest.skip(guest.uml_is_out())
    return guest.KINDS[name]


@pytest.fixture(params=guest.chosen("GUEST_KINDS", "qemu-6.12,qemu-6.1,uml"))
def kind(request):
    """A kind of guest: its options, and how many of two request queues its driver uses."""
    return kind_of(request.param)


@pytest.fixture(params=guest.chosen("GUEST_KINDS_ONCE", "qemu-6.12,uml"))
def kind_once(request):
    """As kind, without the slow one that shows least."""
    return kind_of(request.param)


@pytest.fixture(params=guest.chosen("GUEST_BACKENDS", "sshfs,bindfs,sshfs-channel,bindfs-channel"))
def backend(request, make_backend):
    return make_backend(request.param)


@pytest.fixture(params=guest.chosen("GUEST_BACKENDS", "bindfs,bindfs-channel")[-2:])
def plain_backend(request, make_backend):
    """The cheapest back-end, for tests that are about the device and not about the daemon."""
    return make_backend(request.param)
