# SPDX-License-Identifier: BSD-3-Clause
"""What the daemons' tests do in virtual machines, beside the guest suite."""
import contextlib
import re

from serving import guest

MIB = 1 << 20


def boots(served):
    """The guest reboots twice with a file open; how often it came up, by what it wrote to the file system."""
    script = ("echo boot >>/mnt/t/boots; n=$(wc -l </mnt/t/boots); "
              "exec 5</mnt/t/boots; [ $n -lt 3 ] && reboot -f; rm /mnt/t/boots; echo boots: $n")
    done = guest.vm(["--allow-reboot"], backends=[served], command=[script], timeout=200)
    found = re.search(rb"boots: (\d+)", done.stdout)
    print(done.stderr.decode(errors="replace")[-3000:])
    return int(found.group(1)) if found else 0


def share(one, other):
    """Two guests at once, each with a device of its own: what one writes and closes, the other reads."""
    with contextlib.ExitStack() as stack:
        shells = []
        for served in (one, other):
            shell = guest.Shell(backends=[served], timeout=200)
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
