# SPDX-License-Identifier: BSD-3-Clause
"""Guests of another byte order, with other open flags, and with other pages than this machine's."""
import os
import re

import pytest

import foreign
import guest

SUITE_SECONDS = 200
MIB = 1 << 20


@pytest.fixture(params=list(foreign.MACHINES))
def machine(request):
    found = foreign.MACHINES[request.param]
    if found.missing():
        pytest.skip(found.missing())
    return found


@pytest.fixture
def backends(tmp, machine):
    """The same daemon, served from within and through the socket."""
    made = []
    for tag, kind in (("within", guest.Bindfs), ("socket", guest.BindfsChannel)):
        folder = os.path.join(tmp, tag)
        os.mkdir(folder)
        backend = kind(folder)
        backend.tag, backend.queues, backend.more_options = tag, 1, machine.run_options
        made.append(backend.start())
    yield made
    for backend in made:
        backend.stop()


def test_suite(tmp, machine, backends):
    """The whole suite on both, and 32 MiB in pieces of 1 MiB past the guest's cache."""
    script = "status=0\n"
    for b in backends:
        script += f"echo '@suite {b.tag}'\n" \
                  f"guest_suite --tag {b.tag} --queues-used {int(machine.counts)} /mnt/{b.tag} suite || status=1\n" \
                  f"guest_suite --direct 32 /mnt/{b.tag} direct || status=1\n"
    text = machine.run(tmp, script + "exit $status\n", backends, SUITE_SECONDS)
    print(text, *(b.log_text()[-2000:] for b in backends))
    assert re.search(r"^@end 0$", text, re.M)
    for b, part in zip(backends, text.split("@suite ")[1:]):
        assert part.startswith(b.tag)
        assert len(re.findall(r"^ok ", part, re.M)) == int(re.search(r"^1\.\.(\d+)$", part, re.M).group(1))
        with open(b.path("direct"), "rb") as f:
            assert f.read() == b"".join(bytes([ord("a") + i % 26]) * MIB for i in range(32))
        assert os.listdir(b.dir) == ["direct"]
        assert "larger than" not in b.log_text()
        if machine.counts:
            # This daemon takes 128 KiB at most: with pages of 64 KiB, too, the guest was told so.
            written, read = map(int, re.search(r"^write (\d+) read (\d+)$", part, re.M).groups())
            assert written >= 256 and read >= 256
