# SPDX-License-Identifier: BSD-3-Clause
"""Every file system in virtual machines: one guest mounts a group of them and runs the guest suite on each, dies in the
middle of writing, and another finds what was written. Environment: see world.py."""
import contextlib
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import serving  # noqa: E402
import world as w  # noqa: E402
from catalog import SERVERS  # noqa: E402
from server import Unavailable  # noqa: E402
from serving import guest  # noqa: E402

GROUP_MAX = 8
# A guest's life, in seconds, at most: its boot, and for each file system in it. Emulated, it makes and compares few MiB in a second.
SECONDS_BOOT, SECONDS_EACH = 100, 150 + w.SIZE_MIB
# And this many times what the suite took here: some are slow by their nature, and the machine may be busy.
SUITES = 6
# In the guest only: on this machine they are left out.
GUEST_ONLY = ("umount, mount again", "request queues used")
COPY = ("cd /mnt/{} && dd if=/dev/urandom of=one bs=1M count={} 2>/dev/null && cp one two && sync && "
        "echo 3 >/proc/sys/vm/drop_caches && cmp one two && md5sum <two")
WRITERS = ("cd /mnt/{} && for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do dd if=/dev/urandom of=w$i bs=64k count=4 "
           "2>/dev/null & done; wait; cat w? w1? | wc -c; rm w? w1?")


class Group:
    """The life of two guests, with what each file system of @names went through in them.

    @found: by name, {step: what came out}
    @why: by name, why it cannot be had
    """

    def __init__(self, names):
        self.found = {name: {} for name in names}
        self.why, self.worlds = {}, {}
        self.seconds = SECONDS_BOOT
        with contextlib.ExitStack() as stack:
            self.served = {}
            for number, name in enumerate(names):
                self.add(stack, name, f"t{number}")
            if self.served:
                self.live()

    def add(self, stack, name, tag):
        try:
            world = w.World(name)
        except Unavailable as e:
            self.why[name] = str(e)
            return
        stack.callback(world.close)
        self.worlds[name] = world
        try:
            began = time.monotonic()
            world.suite_local()
            self.seconds += SECONDS_EACH + int(SUITES * (time.monotonic() - began))
            self.served[name] = (world, stack.enter_context(world.served(tag=tag)))
        except (AssertionError, OSError, RuntimeError) as e:
            self.found[name]["start"] = str(e)

    def boot(self, stack):
        backends = [served for _, served in self.served.values()]
        shell = guest.booted(["--add", serving.GUEST_SUITE], backends=backends, timeout=self.seconds)
        stack.callback(shell.kill)
        return shell

    def live(self):
        with contextlib.ExitStack() as stack:
            shell = self.boot(stack)
            for name, (world, served) in self.served.items():
                found = self.found[name]
                if world.source:
                    inside = world.inside(f"/mnt/{served.tag}")
                    found["suite"] = {"content": shell.run(w.READ_SCRIPT.format(inside))[1]}
                    continue
                options = " ".join(["--tag", served.tag, *world.description.suite_options])
                folder = world.name("suite")
                _, out = shell.run(f"guest_suite {options} /mnt/{served.tag} {folder}")
                found["suite"] = serving.parse_suite(out) or out
                shell.run(f"cd /; rm -rf /mnt/{served.tag}/{folder}")
                found["copy"] = shell.run(COPY.format(served.tag, w.SIZE_MIB))
                found["writers"] = shell.run(WRITERS.format(served.tag))
            for _, served in self.served.values():
                shell.send(f"while :; do dd if=/dev/zero of=/mnt/{served.tag}/busy bs=64k count=16 2>/dev/null; done &")
            shell.run("sleep 1")
            shell.kill()
            shell = self.boot(stack)
            for name, (world, served) in self.served.items():
                if world.source:
                    self.found[name]["again"] = shell.run(f"find {world.inside('/mnt/' + served.tag)} | wc -l")
                else:
                    self.found[name]["again"] = shell.run(f"cd /mnt/{served.tag} && cmp one two && md5sum <two && "
                                                          "rm -f one two busy")
            assert shell.end() == 0
        for name, (world, served) in self.served.items():
            self.found[name]["end"] = served.terminate(), served.text()
            for step, check in ("check", world.check), ("differs", lambda: self.compare(name, world)):
                try:
                    check()
                except (AssertionError, RuntimeError) as e:
                    self.found[name][step] = str(e)

    def compare(self, name, world):
        """With this machine's /dev/fuse, while the daemon can still be mounted there."""
        suite = self.found[name]["suite"]
        if not world.source:
            for only in GUEST_ONLY:
                result = suite.get(only, "failed: it did not run")
                assert not result.startswith("failed"), f"{only}: {result}"
        world.expect(suite, left_out=GUEST_ONLY)


groups = {}


def group_of(name):
    """Network file systems alone: their servers take memory."""
    if name not in groups:
        names = [n for n in w.chosen() if n not in SERVERS]
        at = names.index(name) // GROUP_MAX * GROUP_MAX if name in names else 0
        members = names[at:at + GROUP_MAX] if name in names else [name]
        group = Group(members)
        groups.update({n: group for n in members})
    return groups[name]


@pytest.fixture(params=w.chosen())
def daemon(request):
    return request.param


@pytest.fixture
def life(daemon):
    """What was found."""
    group = group_of(daemon)
    if daemon in group.why:
        pytest.skip(group.why[daemon])
    found = group.found[daemon]
    print(found.get("end"))
    assert "start" not in found, found["start"]
    return found


def test_suite_in_guest(life):
    """As on this machine's /dev/fuse, test by test; and it can be unmounted and mounted again."""
    assert "differs" not in life, life["differs"]


def test_copy_and_16_writers_in_guest(life):
    if "copy" not in life:
        pytest.skip("it can only be read")
    assert life["copy"][0] == 0, life["copy"]
    assert life["writers"] == (0, f"{16 * 4 * 65536}\n")


def test_killed_guest_and_the_next(life):
    status, out = life["again"]
    assert status == 0, out
    if "copy" in life:
        assert out == life["copy"][1]
    else:
        assert int(out) > 50


def test_clean_end_after_guests(life, daemon):
    """The daemon is told to unmount: it ends as at an unmount here, and nothing needs repair."""
    status, text = life["end"]
    assert status == group_of(daemon).worlds[daemon].status_local, text
    assert "check" not in life, life["check"]
