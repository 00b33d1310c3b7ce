# SPDX-License-Identifier: BSD-3-Clause
"""`make demo`'s script: to its end, and ended in the middle; without a terminal in both."""
import os
import signal
import subprocess

import guest

DEMO = os.path.join(guest.ROOT, "scripts/demo")


def start(tmp):
    return subprocess.Popen([DEMO], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=dict(guest.ENV, FUSEWIRE=guest.FUSEWIRE, TMPDIR=tmp), start_new_session=True)


def session_is_empty(session):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            return False
    return True


def test_demo(tmp):
    demo = start(tmp)
    out = demo.communicate(timeout=180)[0].decode()
    print(out)
    assert demo.returncode == 0
    assert "Hello from the serving side." in out and "Hello back, from kernel 6.12" in out
    assert os.listdir(tmp) == []
    guest.wait_for("all processes' end", lambda: session_is_empty(demo.pid))


def test_demo_terminated_while_the_vm_runs(tmp):
    demo = start(tmp)
    for line in demo.stdout:
        if line.startswith(b"== 3."):
            break
    demo.send_signal(signal.SIGTERM)
    demo.stdout.read()
    demo.stdout.close()
    assert demo.wait(30) == 143
    assert os.listdir(tmp) == []
    guest.wait_for("all processes' end", lambda: session_is_empty(demo.pid))
