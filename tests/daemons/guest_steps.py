# SPDX-License-Identifier: BSD-3-Clause
"""What the daemons' tests do in virtual machines, beside the guest suite."""
import contextlib

from serving import guest


def share(one, other):
    """Two guests at once, each with a device of its own: what one writes and closes, the other reads."""
    with contextlib.ExitStack() as stack:
        shells = []
        for served in (one, other):
            shell = guest.booted(backends=[served], timeout=200)
            stack.callback(shell.kill)
            shells.append(shell)
        for turn in range(6):
            writer, reader = shells[turn % 2], shells[1 - turn % 2]
            path = f"/mnt/t/shared{turn}"
            wrote = writer.check(f"dd if=/dev/urandom of={path} bs=64k count={turn + 1} 2>/dev/null && md5sum <{path}")
            assert reader.check(f"md5sum <{path}") == wrote
            reader.check(f"rm {path}")
        for shell in shells:
            assert shell.end() == 0
