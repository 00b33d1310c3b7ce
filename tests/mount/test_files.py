# SPDX-License-Identifier: BSD-3-Clause
"""What files do on a mounted device: each kind of operation, random ones against a model, several threads, git."""
import hashlib
import mmap
import os
import random
import subprocess
import tempfile
import threading
import pathlib

import pytest

from mounting import Mount, device, is_mounted, no_fuse

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))


@pytest.fixture(scope="module", params=[("bindfs", []), ("bindfs", ["--packed", "--queues", "1"]), ("sshfs", [])],
                ids=["bindfs", "bindfs-packed", "sshfs"])
def mnt(request):
    kind, options = request.param
    with tempfile.TemporaryDirectory(prefix="fw-mount-") as name:
        top = pathlib.Path(name)
        (top / "mnt").mkdir()
        os.environ["FW_MOUNT_DIR"] = name
        with device(top, kind), Mount(top / "socket", top / "mnt", *options) as m:
            m.wait_ready()
            yield top / "mnt"
            subprocess.run(["umount", str(top / "mnt")], check=True, timeout=20)
            assert m.process.wait(20) == 0, m.text()
            assert not is_mounted(top / "mnt")


@pytest.fixture
def place(mnt, request):
    path = mnt / request.node.name.replace("[", "-").replace("]", "")
    path.mkdir()
    return path


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


def random_operations(path, seed, count):
    """Like fsx: reads, writes, truncations and reopenings of one file, against a bytearray."""
    rnd = random.Random(seed)
    model = bytearray()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for step in range(count):
        op = rnd.choice(["read", "read", "write", "write", "write", "truncate", "reopen", "stat"])
        off, size = rnd.randrange(600000), rnd.choice([1, 100, 4096, 5000, 70000, 200000])
        if op == "read":
            got = os.pread(fd, size, off)
            assert got == model[off:off + size], (seed, step, off, size)
        elif op == "write":
            data = rnd.randbytes(size)
            assert os.pwrite(fd, data, off) == size
            if off > len(model):
                model.extend(bytes(off - len(model)))
            model[off:off + size] = data
        elif op == "truncate":
            os.ftruncate(fd, off)
            model[off:] = b""
            model.extend(bytes(off - len(model)))
        elif op == "reopen":
            os.close(fd)
            fd = os.open(path, os.O_RDWR)
        else:
            assert os.fstat(fd).st_size == len(model), (seed, step)
    os.close(fd)
    with open(path, "rb") as f:
        assert f.read() == model, seed


@pytest.mark.parametrize("seed", [11, 12])
def test_random_against_model(place, seed):
    random_operations(place / "f", seed, 300)


def test_eight_threads(place):
    failures = []

    def work(n):
        try:
            random_operations(place / f"f{n}", 100 + n, 60)
            for i in range(30):
                name = place / f"t{n}-{i}"
                name.write_bytes(b"x" * (i * 97))
                name.rename(place / f"u{n}-{i}")
                assert (place / f"u{n}-{i}").stat().st_size == i * 97
                if i % 2:
                    (place / f"u{n}-{i}").unlink()
            assert len([x for x in os.listdir(place) if x.startswith(f"u{n}-")]) == 15
        except Exception as e:  # noqa: BLE001
            failures.append((n, repr(e)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failures
    assert not any(t.is_alive() for t in threads)


def test_git(place, tmp_path):
    def git(*args, cwd):
        return subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0",
                               "-c", "safe.directory=*", *args], cwd=cwd, check=True, timeout=60,
                              capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}).stdout

    repo = tmp_path / "repo"
    repo.mkdir()
    git("init", "-q", cwd=repo)
    rnd = random.Random(3)
    for commit in range(3):
        for i in range(40):
            (repo / f"f{i}").write_bytes(rnd.randbytes(rnd.randrange(9000)))
        git("add", "-A", cwd=repo)
        git("commit", "-q", "-m", str(commit), cwd=repo)
    git("clone", "-q", "--no-hardlinks", str(repo), str(place / "clone"), cwd=tmp_path)
    git("fsck", "--full", "--strict", cwd=place / "clone")
    assert git("status", "--porcelain", cwd=place / "clone") == ""
    assert git("rev-parse", "HEAD", cwd=place / "clone") == git("rev-parse", "HEAD", cwd=repo)
    subprocess.run(["diff", "-r", "-x", ".git", str(repo), str(place / "clone")], check=True, timeout=60)
