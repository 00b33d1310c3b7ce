# SPDX-License-Identifier: BSD-3-Clause
"""fusewire vm that is stopped while it fetches a kernel: nothing of it stays."""
import os
import pathlib
import signal
import subprocess
import tempfile

import pytest

FUSEWIRE = os.environ["FUSEWIRE"]
# Says that it is there, in a pipe, once it has a part of the package; then it takes its time.
APT_GET = """#!/bin/sh
echo part >part.deb
echo $$ >"$READY"
exec sleep 100
"""
APT_CACHE = """#!/bin/sh
echo "linux-image-6.12.1+deb12-cloud-amd64-unsigned - a kernel"
"""


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whom", ["fusewire", "all"])
def test_stopped_while_it_fetches(sig, whom):
    with tempfile.TemporaryDirectory(prefix="fw-vm-") as name:
        top = pathlib.Path(name)
        for tool, text in [("apt-get", APT_GET), ("apt-cache", APT_CACHE)]:
            (top / tool).write_text(text)
            (top / tool).chmod(0o755)
        os.mkfifo(top / "ready")
        env = {**os.environ, "PATH": f"{top}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(top / "cache"), "READY": str(top / "ready")}
        with subprocess.Popen([FUSEWIRE, "vm", "--", "true"], env=env, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as p:
            try:
                with open(top / "ready") as ready:
                    child = int(ready.read())
                kernels = top / "cache" / "fusewire" / "kernels"
                assert [f.name for f in kernels.rglob("*.deb")] == ["part.deb"]
                # A terminal's ^C goes to all, kill(1) to one.
                (os.killpg if whom == "all" else os.kill)(p.pid, sig)
                status = p.wait(30)
                left = list(kernels.iterdir())
                gone = not os.path.exists(f"/proc/{child}")
            finally:
                try:
                    os.killpg(p.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            assert (status, left, gone) == (-sig, [], True)
            assert p.stderr.read() == "fusewire vm: fetching linux-image-6.12.1+deb12-cloud-amd64-unsigned\n"


def test_ignored_signal(tmp_path):
    """As with nohup: neither we nor the download ends; SIGCHLD that is ignored does not matter."""
    for tool, text in [("apt-get", APT_GET.replace("exec sleep 100", "read line <\"$GO\"; exit 3")), ("apt-cache", APT_CACHE)]:
        (tmp_path / tool).write_text(text)
        (tmp_path / tool).chmod(0o755)
    os.mkfifo(tmp_path / "ready")
    os.mkfifo(tmp_path / "go")
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache"),
           "READY": str(tmp_path / "ready"), "GO": str(tmp_path / "go")}
    ignored = "trap '' HUP; exec \"$@\""
    with subprocess.Popen(["env", "--ignore-signal=CHLD", "sh", "-c", ignored, "sh", FUSEWIRE, "vm", "--", "true"], env=env,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as p:
        try:
            (tmp_path / "ready").read_text()
            os.kill(p.pid, signal.SIGHUP)
            (tmp_path / "go").write_text("go\n")
            assert p.wait(30) == 1
        finally:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert "apt-get download" in p.stderr.read()
    assert list((tmp_path / "cache" / "fusewire" / "kernels").iterdir()) == []
