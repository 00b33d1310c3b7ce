# SPDX-License-Identifier: BSD-3-Clause
"""Processes that serve a device, for the peers."""

import os
import subprocess
import time

import pytest

from vhost_peer import TIMEOUT, FrontEnd


class Server:
    """A process that serves a device on a socket; its stdout has what happened to the fake device."""

    def __init__(self, argv, path, log):
        self.path = path
        self.log = open(log, 'w+b')
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.DEVNULL
                                        if os.environ.get('QUIET') else None)
        end = time.monotonic() + 10
        while not os.path.exists(path):
            assert self.process.poll() is None, 'the server did not start'
            assert time.monotonic() < end, 'no socket in time'
            time.sleep(0.01)

    def connect(self):
        return FrontEnd(self.path)

    def calls(self):
        """Lines of the record so far."""
        with open(self.log.name, 'rb') as f:
            return f.read().decode().splitlines()

    def wait_call(self, prefix, count=1):
        """Wait until the record has @count lines that begin so; return the last."""
        end = time.monotonic() + TIMEOUT
        while True:
            found = [c for c in self.calls() if c.startswith(prefix)]
            if len(found) >= count:
                return found[-1]
            assert time.monotonic() < end, f'no {prefix!r} in {self.calls()}'
            time.sleep(0.005)

    def stop(self):
        alive = self.process.poll() is None
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.log.close()
        assert alive, f'the server had died: {code}'
        assert code == 0, f'exit status {code}'
        assert not os.path.exists(self.path), 'the socket is left behind'


@pytest.fixture
def start(tmp_path):
    """Start a fake_server with arguments; stopped and checked at the end."""
    servers = []

    def run(*args):
        n = len(servers)
        path = str(tmp_path / f's{n}')
        server = Server([os.environ['FAKE_SERVER'], path, *map(str, args)], path,
                        tmp_path / f'log{n}')
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.stop()


@pytest.fixture
def server(start):
    """A fake device with 3 queues."""
    return start()


@pytest.fixture
def null_server(tmp_path):
    """`fusewire null`: the whole program."""
    binary = os.environ.get('FUSEWIRE')
    if not binary or not os.path.exists(binary):
        pytest.skip('fusewire is not built')
    path = str(tmp_path / 'null')
    server = Server([binary, 'null', '--socket', path, '--tag', 'peer', '--size', '1M', '--queues', '2'],
                    path, tmp_path / 'null.log')
    yield server
    server.stop()
