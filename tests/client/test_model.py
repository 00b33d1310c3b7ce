# SPDX-License-Identifier: BSD-3-Clause
"""Random operations on a device, compared with a model in memory. A failure names its seed: MODEL_SEED repeats it."""
import os
import random
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "check"))
from checking import device, is_untouched, serving  # noqa: E402

MODEL_RUN = os.environ["MODEL_RUN"]
# The same in every run, and one that nobody tried before.
SEEDS = [int(os.environ["MODEL_SEED"])] if "MODEL_SEED" in os.environ else [1, 2, random.randrange(1 << 32)]
OPERATIONS = 4000


def run(path, seed, *more):
    done = subprocess.run([MODEL_RUN, path, str(seed), str(OPERATIONS), *more], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == 0, f"MODEL_SEED={seed} {' '.join(more)}: {done.stderr}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ring", ["split", "packed"])
def test_tree(tmp_path, ring, seed):
    with device(tmp_path, "bindfs") as command, serving(command, tmp_path / "log"):
        run(tmp_path / "socket", seed, ring)
    assert is_untouched(tmp_path / "src")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ring", ["split", "packed"])
def test_file(tmp_path, ring, seed):
    with device(tmp_path, "null") as command, serving(command, tmp_path / "log"):
        run(tmp_path / "socket", seed, ring, "file")


def test_sees_a_difference(tmp_path):
    """Somebody else changes the tree meanwhile: the model must not agree."""
    with device(tmp_path, "bindfs") as command, serving(command, tmp_path / "log"):
        (tmp_path / "src" / "model-0").mkdir()
        done = subprocess.run([MODEL_RUN, tmp_path / "socket", "1", "100"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "File exists instead of success" in done.stderr
