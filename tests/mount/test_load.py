# SPDX-License-Identifier: BSD-3-Clause
"""Load on a mounted device whose results are compared: random operations, many threads and processes, fio, git, a build."""
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from fsx import Fsx, Wrong
from mounting import no_fuse

pytestmark = pytest.mark.skipif(no_fuse() is not None, reason=str(no_fuse()))

HAMMER = os.environ["HAMMER"]
FSX = pathlib.Path(__file__).parent / "fsx.py"

# Enough of a program that a build reads, writes, stats and runs things.
MAKEFILE = """
objects = main.o $(patsubst %.c,%.o,$(wildcard part*.c))
program: $(objects)
\t$(CC) -o $@ $^
%.o: %.c parts.h
\t$(CC) -O1 -c -o $@ $<
"""
PARTS = 12


def run(*argv, cwd=None, env=None):
    done = subprocess.run([str(a) for a in argv], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("seed", [11, int.from_bytes(os.urandom(4), "little")], ids=["known-seed", "new-seed"])
def test_fsx(place, seed):
    print(f"seed {seed}")
    Fsx(place / "f", seed).run(400)


@pytest.mark.parametrize("how", ["content", "length"])
def test_fsx_sees_what_is_wrong(tmp_path, how):
    """The test itself: a byte that somebody else changed is found, and so is one that is too many."""
    fsx = Fsx(tmp_path / "f", 1)
    fsx.write(0, 10000)
    with open(tmp_path / "f", "r+b") as f:
        f.seek(5000 if how == "content" else 10000)
        f.write(bytes([fsx.model[5000] ^ 1]))
    with pytest.raises(Wrong, match="differs at 5000" if how == "content" else "size 10001"):
        fsx.read(4000, 2000) if how == "content" else fsx.stat(0, 0)


def test_fsx_eight_processes(place):
    processes = [subprocess.Popen([sys.executable, FSX, place / f"f{n}", str(100 + n), "100"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True) for n in range(8)]
    told = [p.communicate(timeout=60)[1] for p in processes]
    assert [p.returncode for p in processes] == [0] * 8, "".join(told)


@pytest.mark.parametrize("options", [[], ["--direct"]], ids=["cached", "direct"])
def test_eight_threads(place, kind, options):
    if kind == "null" and options:
        pytest.skip("ext4 takes no odd sizes with O_DIRECT")
    if kind == "virtiofsd-rust" and options:
        pytest.skip("its CREATE keeps O_DIRECT, which its OPEN drops: the file system below takes no odd sizes then")
    # SFTP has no extended attributes; libfuse may leave its hidden files, as it does on the local /dev/fuse.
    options = options + ["--hidden"] + (["--no-xattr"] if kind == "sshfs" else [])
    assert "right" in run(HAMMER, "--threads", "8", "--seconds", "1.5", *options, place)
    left = [name for _, _, files in os.walk(place) for name in files]
    assert all(name.startswith(".fuse_hidden") for name in left), left


@pytest.mark.skipif(not shutil.which("fio"), reason="fio is not installed")
def test_fio_verify(place):
    common = ["--bsrange=1k-96k", "--bs_unaligned", "--size=3M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
              "--rw=randwrite", "--numjobs=2", "--invalidate=1"]
    told = run("fio", f"--directory={place}", "--verify_state_save=0", "--name=psync", "--ioengine=psync", *common,
               "--name=mmap", "--ioengine=mmap", *common,
               "--name=libaio", "--ioengine=libaio", "--iodepth=16", "--direct=1", "--rw=randrw", "--bs=4k", "--size=3M",
               "--verify=crc32c", "--verify_fatal=1", cwd=place)
    assert told.count("err= 0") == 5 and "bad magic" not in told, told


def make_program(folder):
    """Sources of a program that prints a sum, and that sum."""
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "parts.h").write_text("".join(f"int part{n}(void);\n" for n in range(PARTS)))
    for n in range(PARTS):
        (folder / f"part{n}.c").write_text(f'#include "parts.h"\nint part{n}(void) {{ return {n * n}; }}\n')
    calls = " + ".join(f"part{n}()" for n in range(PARTS))
    (folder / "main.c").write_text(f'#include <stdio.h>\n#include "parts.h"\nint main(void) {{ printf("%d\\n", {calls}); }}\n')
    return sum(n * n for n in range(PARTS))


def test_git_and_build(place, tmp_path):
    def git(*args, cwd):
        return run("git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "gc.auto=0", "-c", "safe.directory=*", *args,
                   cwd=cwd, env={**os.environ, "HOME": str(tmp_path)})

    repo, clone = tmp_path / "repo", place / "clone"
    repo.mkdir()
    git("init", "-q", cwd=repo)
    total = make_program(repo)
    rnd = random.Random(3)
    for commit in range(3):
        for i in range(40):
            (repo / f"f{i}").write_bytes(rnd.randbytes(rnd.randrange(9000)))
        git("add", "-A", cwd=repo)
        git("commit", "-q", "-m", str(commit), cwd=repo)
    git("clone", "-q", "--no-hardlinks", repo, clone, cwd=tmp_path)
    git("fsck", "--full", "--strict", cwd=clone)
    assert git("status", "--porcelain", cwd=clone) == ""
    assert git("rev-parse", "HEAD", cwd=clone) == git("rev-parse", "HEAD", cwd=repo)
    run("diff", "-r", "-x", ".git", repo, clone)
    run("make", "-j4", cwd=clone)
    assert run(clone / "program") == f"{total}\n"
    run("make", "-q", cwd=clone)
    (clone / "part1.c").write_text('#include "parts.h"\nint part1(void) { return 1001; }\n')
    # Time stamps of whole seconds, as SFTP gives them, may not tell the new source from the old object and program.
    os.utime(clone / "part1.c", (2000000000, 2000000000))
    (clone / "program").unlink()
    run("make", cwd=clone)
    assert run(clone / "program") == f"{total + 1000}\n"
    assert "part1.c" in git("status", "--porcelain", cwd=clone)
