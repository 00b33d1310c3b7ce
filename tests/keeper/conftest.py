# SPDX-License-Identifier: BSD-3-Clause
"""Back-ends, and a keeper in front of them."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time

import pytest

VHOST = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../vhost')
sys.path.insert(0, VHOST)
from vhost_peer import TIMEOUT, FrontEnd  # noqa: E402

# The module of that name in the other folder.
_spec = importlib.util.spec_from_file_location('vhost_conftest', os.path.join(VHOST, 'conftest.py'))
_vhost = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_vhost)
Server = _vhost.Server


def wait_for(what, condition, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'{what}: not in time'
        time.sleep(0.005)


class Keeper:
    """keeper_main: the process that front-ends see."""

    def __init__(self, folder, *args, name='keeper'):
        self.path = str(folder / name)
        self.out = folder / f'{name}.out'
        self.log = folder / f'{name}.log'
        with open(self.out, 'wb') as out, open(self.log, 'wb') as log:
            self.process = subprocess.Popen([os.environ['KEEPER_MAIN'], self.path, *map(str, args)],
                                            stdin=subprocess.PIPE, stdout=out, stderr=log)
        wait_for('a socket', lambda: os.path.exists(self.path))

    def connect(self):
        return FrontEnd(self.path)

    def set(self, path):
        self.process.stdin.write(f'set {path}\n'.encode())
        self.process.stdin.flush()

    def events(self):
        return self.out.read_text().splitlines()

    def wait_event(self, text, count=1, seconds=TIMEOUT):
        wait_for(f'{text!r} in {self.events()}', lambda: self.events().count(text) >= count, seconds)

    def switch(self, path):
        """Give it another back-end; it serves when this returns."""
        count = self.events().count(f'set {path} 0')
        self.set(path)
        self.wait_event(f'set {path} 0', count + 1, 15)

    def fds(self):
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def stop(self):
        alive = self.process.poll() is None
        self.process.stdin.close()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        assert alive, f'the keeper had died: {code}: {self.log.read_text()[-3000:]}'
        assert code == 0
        assert not os.path.exists(self.path)


class NullBack:
    """The null service as a back-end that goes on with the session and the data of those before it."""

    def __init__(self, folder, number, *args):
        self.path = str(folder / f'null{number}')
        record = folder / f'record{number}'
        before = folder / f'record{number - 1}'
        # A copy: one that leaves in order ends its session in its own.
        if before.exists():
            shutil.copy(before, record)
        self.log = open(folder / f'null{number}.log', 'wb')
        self.process = subprocess.Popen([os.environ['NULL_BACK'], self.path, str(record), str(folder / 'data'),
                                         str(number), *map(str, args)], stderr=self.log)
        wait_for('a socket', lambda: os.path.exists(self.path))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def folder(tmp_path_factory):
    # Short: a socket's path has 107 bytes.
    return tmp_path_factory.mktemp('k')


@pytest.fixture
def fake(folder):
    """A function that starts a fake_server."""
    servers = []

    def run(*args):
        n = len(servers)
        path = str(folder / f's{n}')
        servers.append(Server([os.environ['FAKE_SERVER'], path, *map(str, args)], path, folder / f'log{n}'))
        return servers[-1]

    yield run
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def keep(folder):
    """A function that starts a keeper."""
    keepers = []

    def run(*args):
        keepers.append(Keeper(folder, *args, name=f'k{len(keepers)}'))
        return keepers[-1]

    yield run
    for keeper in keepers:
        keeper.stop()


@pytest.fixture
def null(folder):
    """A function that starts the next NullBack."""
    backs = []

    def run(*args):
        backs.append(NullBack(folder, len(backs), *args))
        return backs[-1]

    yield run
    for back in backs:
        back.kill()


class Pair:
    """A back-end with a keeper in front of it; looks like a Server to the tests of a Server."""

    def __init__(self, backend, keeper):
        self.backend = backend
        self.keeper = keeper
        self.process = keeper.process
        self.connect = keeper.connect

    def calls(self):
        return self.backend.calls()

    def wait_call(self, prefix, count=1):
        # One connection to the back-end outlives the front-ends': the device is reset instead.
        return self.backend.wait_call('reset' if prefix == 'detach' else prefix, count)


@pytest.fixture
def start(fake, keep):
    def run(*args):
        backend = fake(*args)
        keeper = keep('--backend', backend.path, *(['--inband'] if 'inband' in args else []))
        keeper.wait_event(f'set {backend.path} 0')
        return Pair(backend, keeper)
    return run


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def null_server(folder, keep):
    binary = os.environ['FUSEWIRE']
    path = str(folder / 'null')
    backend = Server([binary, 'null', '--socket', path, '--tag', 'peer', '--size', '1M', '--queues', '2'],
                     path, folder / 'null.log')
    keeper = keep('--backend', path)
    keeper.wait_event(f'set {path} 0')
    yield Pair(backend, keeper)
    backend.stop()
