# SPDX-License-Identifier: BSD-3-Clause
"""Random load with 16 threads on daemons that are served in-process. Under a sanitizer, daemon and library are both watched by it.

The load is the hammer's, through `fusewire mount`, and the model's, with a queue per thread and no kernel in between; both know
what every operation has to give. Environment:

FUSEWIRE_LOAD_SECONDS   how long each daemon gets (5)
FUSEWIRE_LOAD_SEED      to repeat a run; each round takes the next number
"""
import os
import random
import shutil
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../examples"))
from ways import HAMMER, SPLICED, alone, mounted, needs_fuse, served, top  # noqa: E402

pytestmark = needs_fuse

MODEL_RUN = os.environ["MODEL_RUN"]
SECONDS = float(os.environ.get("FUSEWIRE_LOAD_SECONDS", "5"))
SEED = int(os.environ.get("FUSEWIRE_LOAD_SEED", random.randrange(1, 1 << 31)))
SANITIZED = os.environ["SANITIZED"] == "true"
THREADS = 16
ROUND_SECONDS_MAX = 30
MODEL_OPERATIONS = 300
# What valgrind says of a daemon that did nothing wrong.
NO_ERROR = "ERROR SUMMARY: 0 errors"

DAEMONS = {
    "passthrough": (served, ["passthrough", "-f", "--cache", "-o", "max_threads=16"], "always"),
    "passthrough-clone": (served, ["passthrough", "-f", "--no-splice", "-o", "clone_fd"], "always"),
    "passthrough-single": (served, ["passthrough", "-f", "-s", "--writeback"], "always"),
    "passthrough-splice": (alone, ["passthrough", "-f", "--no-cache", SPLICED]),
    "attached": (alone, ["attached_passthrough", "-f", SPLICED], None),
    "memfuse": (served, ["memfuse", "--threads", "16"], "always"),
    "memfuse-epoll": (served, ["memfuse", "--threads", "16", "--wait", "epoll", "--clone"], "always"),
    "memfuse-splice": (alone, ["memfuse", "--threads", "16", "--receive", "splice", "--send", "splice"]),
}
MOUNTS = [[], ["--packed"], ["--queues", "1"]]
HAMMERS = [["--signals"], ["--direct", "--signals"], []]


def run(seconds, *argv):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=seconds + 100)
    assert done.returncode == 0, f"FUSEWIRE_LOAD_SEED={SEED}: {' '.join(map(str, argv))}: {done.stdout}"


def load(top, socket, *options):
    """Rounds until the time is over: each with another seed, kind of mount, of file, and of ring."""
    begin, nr = time.monotonic(), 0
    while nr < 2 or time.monotonic() - begin < SECONDS:
        seed = SEED + nr
        seconds = min(SECONDS / 2, ROUND_SECONDS_MAX)
        with mounted(top, socket, *MOUNTS[seed % len(MOUNTS)]) as mnt:
            (mnt / "load").mkdir()
            run(seconds, HAMMER, "--threads", THREADS, "--seconds", seconds, "--seed", seed, *HAMMERS[nr % len(HAMMERS)], *options,
                mnt / "load")
            if "--hidden" not in options:
                (mnt / "load").rmdir()
            else:
                shutil.rmtree(mnt / "load")
        run(60, MODEL_RUN, socket, seed, MODEL_OPERATIONS, f"threads={THREADS}", ["split", "packed"][nr % 2])
        nr += 1


@pytest.mark.parametrize("name", DAEMONS)
def test_random_load(top, name):
    way, words, *options = DAEMONS[name]
    with way(top, words, *options) as socket:
        load(top, socket)
    assert os.listdir(top / "src") == []


@pytest.mark.skipif(SANITIZED, reason="a library with a sanitizer cannot be loaded into daemons without")
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
@pytest.mark.parametrize("daemon", ["bindfs"])
def test_random_load_under_valgrind(top, daemon):
    """A daemon that Debian built."""
    if not shutil.which(daemon):
        pytest.skip(f"{daemon} is not installed")
    log = top / "valgrind"
    words = [shutil.which("valgrind"), "--error-exitcode=99", "--fair-sched=yes", f"--log-file={log}", shutil.which(daemon), "-f",
             str(top / "src")]
    with served(top, words, "always") as socket:
        load(top, socket, "--hidden")
    assert NO_ERROR in log.read_text(), log.read_text()
