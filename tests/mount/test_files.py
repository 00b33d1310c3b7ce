# SPDX-License-Identifier: BSD-3-Clause
"""What files do on a mounted device: each kind of operation."""
import hashlib
import mmap
import os
import random
import subprocess

import pytest

from mounting import no_fuse

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))


def test_large_file(place):
    data = random.Random(1).randbytes((4 << 20) + 123)
    (place / "f").write_bytes(data)
    with open(place / "f", "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert hashlib.sha256(f.read()).digest() == hashlib.sha256(data).digest()


def test_tree(place):
    for d in range(20):
        (place / f"d{d}").mkdir()
        for i in range(100):
            (place / f"d{d}" / f"f{i}").write_bytes(b"%d" % i)
    assert sorted(os.listdir(place)) == sorted(f"d{d}" for d in range(20))
    for d in range(20):
        assert sorted(os.listdir(place / f"d{d}")) == sorted(f"f{i}" for i in range(100))
        assert (place / f"d{d}" / "f99").read_bytes() == b"99"
    subprocess.run(["rm", "-r", *[str(place / f"d{d}") for d in range(20)]], check=True, timeout=60)
    assert os.listdir(place) == []


def test_names(place):
    (place / "a").write_text("a")
    (place / "a").rename(place / "b")
    assert os.listdir(place) == ["b"]
    (place / "link").symlink_to("b" * 200)
    assert os.readlink(place / "link") == "b" * 200
    (place / ("n" * 255)).write_text("long")
    assert (place / ("n" * 255)).read_text() == "long"
    with pytest.raises(FileNotFoundError):
        (place / "missing").stat()
    with pytest.raises(OSError, match="not empty"):
        place.rmdir()


def test_append_and_truncate(place):
    for i in range(10):
        with open(place / "f", "ab") as f:
            f.write(b"%03d\n" % i)
    assert (place / "f").read_bytes() == b"".join(b"%03d\n" % i for i in range(10))
    os.truncate(place / "f", 6)
    assert (place / "f").read_bytes() == b"000\n00"
    os.truncate(place / "f", 5000)
    assert (place / "f").read_bytes() == b"000\n00" + bytes(4994)
    with open(place / "f", "wb"):
        pass
    assert (place / "f").stat().st_size == 0


def test_mmap_read(place):
    data = random.Random(2).randbytes(300001)
    (place / "f").write_bytes(data)
    with open(place / "f", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m[:] == data
