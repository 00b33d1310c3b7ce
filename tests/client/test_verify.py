# SPDX-License-Identifier: BSD-3-Clause
"""`fusewire bench --verify` over a daemon: no depth and no number of queues mixes data up."""
import contextlib
import json
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "check"))
from checking import FUSEWIRE, device, serving  # noqa: E402

SIZE = 2 << 20
ALLOWED = os.sched_getaffinity(0)


# On one processor the queue's thread waits for the daemon instead of looking for its replies.
@pytest.fixture(scope="module", params=[len(ALLOWED), 1], ids=["anywhere", "one-processor"])
def bindfs(request, tmp_path_factory):
    top = tmp_path_factory.mktemp("bindfs")
    with device(top, "bindfs", "--in-process", "never") as command, contextlib.ExitStack() as stack:
        os.sched_setaffinity(0, sorted(ALLOWED)[:request.param])
        try:
            stack.enter_context(serving(command, top / "log"))
        finally:
            os.sched_setaffinity(0, ALLOWED)
        yield top / "socket"


def verify(bindfs, queues, depth, seconds):
    run = subprocess.run([FUSEWIRE, "bench", "--json", "--rw", "randrw", "--verify", "--file", "bench", "--size", str(SIZE),
                          "--runtime", seconds, "--queues", str(queues), "--iodepth", str(depth), bindfs],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("queues", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [1, 4, 64, 256])
def test_verify(bindfs, queues, depth):
    # Where others take the processor there may be no time for a single one in the first.
    for seconds in ("0.05", "2"):
        out = verify(bindfs, queues, depth, seconds)
        if out["operations"]:
            break
    assert out["verified"] and out["range_bytes"] == SIZE and out["operations"] > 0
