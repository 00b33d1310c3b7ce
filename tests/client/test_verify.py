# SPDX-License-Identifier: BSD-3-Clause
"""`fusewire bench --verify` over a daemon: no depth and no number of queues mixes data up."""
import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "check"))
from checking import FUSEWIRE, device, serving  # noqa: E402

SIZE = 2 << 20


@pytest.fixture(scope="module")
def bindfs(tmp_path_factory):
    top = tmp_path_factory.mktemp("bindfs")
    with device(top, "bindfs") as command, serving(command, top / "log"):
        yield top / "socket"


@pytest.mark.parametrize("queues", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [1, 4, 64, 256])
def test_verify(bindfs, queues, depth):
    run = subprocess.run([FUSEWIRE, "bench", "--json", "--rw", "randrw", "--verify", "--file", "bench", "--size", str(SIZE),
                          "--runtime", "0.05", "--queues", str(queues), "--iodepth", str(depth), bindfs],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    out = json.loads(run.stdout)
    assert out["verified"] and out["range_bytes"] == SIZE and out["operations"] > 0
