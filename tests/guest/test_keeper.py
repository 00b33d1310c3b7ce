# SPDX-License-Identifier: BSD-3-Clause
"""A guest that has a file system mounted while what serves it is killed and replaced, behind a keeper."""
import os
import shutil
import subprocess

import pytest

import guest

KEEPER_MAIN = os.environ.get("KEEPER_MAIN", os.path.join(guest.ROOT, "build/tests/keeper/keeper_main"))
NULL_BACK = os.environ.get("NULL_BACK", os.path.join(guest.ROOT, "build/tests/keeper/null_back"))


class Kept:
    """The keeper's socket, and behind it one null_back after another with the same data and session."""

    # Of the device; User-mode Linux asks it.
    tag = "kept"
    queues = 2

    def __init__(self, tmp, inband):
        self.tmp = tmp
        self.inband = inband
        self.nr = -1
        self.back = None
        self.socket = os.path.join(tmp, "k")
        self.keeper = subprocess.Popen([KEEPER_MAIN, self.socket, *(["--inband"] if inband else [])],
                                       stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        guest.wait_for("the keeper", lambda: os.path.exists(self.socket))
        self.next()

    def next(self):
        """Kill the back-end and start its successor."""
        if self.back:
            self.back.kill()
            self.back.wait()
        self.nr += 1
        record, path = (os.path.join(self.tmp, f"{what}{self.nr}") for what in ("r", "b"))
        if self.nr:
            shutil.copy(os.path.join(self.tmp, f"r{self.nr - 1}"), record)
        self.back = subprocess.Popen([NULL_BACK, path, record, os.path.join(self.tmp, "data"), str(self.nr), "2",
                                      *(["inband"] if self.inband else [])], stderr=subprocess.DEVNULL)
        guest.wait_for("the back-end", lambda: os.path.exists(path))
        self.keeper.stdin.write(f"set {path}\n".encode())
        self.keeper.stdin.flush()

    def close(self):
        self.back.kill()
        self.back.wait()
        self.keeper.stdin.close()
        assert self.keeper.wait(20) == 0


@pytest.mark.parametrize("kind", guest.chosen("GUEST_KINDS", "qemu-6.12,uml"))
def test_backend_is_killed_and_replaced(tmp, kind):
    if kind == "uml" and guest.uml_is_out():
        pytest.skip(guest.uml_is_out())
    options, _ = guest.KINDS[kind]
    kept = Kept(tmp, kind == "uml")
    shell = guest.Shell(options, backends=[kept])
    try:
        shell.check("dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null; "
                    "dd if=/tmp/r of=/mnt/kept/data bs=64k conv=notrunc 2>/dev/null; sync; md5sum </tmp/r >/tmp/sum")
        for _ in range(3):
            # Requests are under way when it dies; they and those that follow end, right or with an error of their own.
            shell.send("i=0; while [ $i -lt 12 ]; do head -c 1048576 /mnt/kept/data >/dev/null 2>&1; "
                       "echo 3 >/proc/sys/vm/drop_caches; i=$((i+1)); done &")
            kept.next()
            shell.check("wait; echo 3 >/proc/sys/vm/drop_caches; "
                        "head -c 1048576 /mnt/kept/data | md5sum | cmp - /tmp/sum")
        assert "virtiofs" in shell.check("grep /mnt/kept /proc/mounts")
        shell.check("umount /mnt/kept && mount -t virtiofs kept /mnt/kept && ls /mnt/kept/data")
        assert shell.end() == 0
    finally:
        shell.kill()
        kept.close()
