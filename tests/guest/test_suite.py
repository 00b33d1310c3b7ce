# SPDX-License-Identifier: BSD-3-Clause
"""The guest suite in each kind of guest, on each file system; and what shows only from outside."""
import hashlib
import os
import re
import time

import pytest

import guest

MIB = 1 << 20


def run_suite(backend, kind, more_options=()):
    options, queues_used = kind
    used = min(queues_used, backend.queues)
    done = guest.vm([*options, *more_options, "--add", guest.GUEST_SUITE], backends=[backend], timeout=240,
                    command=["guest_suite", "--tag", backend.tag, "--queues-used", str(used),
                             *backend.suite_options, f"/mnt/{backend.tag}", "suite"])
    out = done.stdout.decode()
    print(out, done.stderr.decode(errors="replace"), backend.log_text()[-4000:])
    assert done.returncode == 0
    assert len(re.findall(r"^ok ", out, re.M)) == int(re.search(r"^1\.\.(\d+)$", out, re.M).group(1))
    assert backend.one_shot or backend.alive()
    # It has cleaned up: what it deleted is gone on the serving side, too.
    assert os.listdir(backend.dir) == []


def test_suite(backend, kind):
    run_suite(backend, kind)


# These are in-process what sshfs and bindfs are not: low-level libfuse 3 that splices, and no libfuse at all.
@pytest.mark.parametrize("name", guest.chosen("GUEST_BACKENDS_ONCE", "passthrough-alone,memfuse"))
def test_suite_once(make_backend, kind_once, name):
    if "passthrough" in name and not guest.PASSTHROUGH:
        pytest.skip("built without libfuse 3")
    run_suite(make_backend(name), kind_once)


@pytest.mark.parametrize("name, ring", [("bindfs", "split"), ("bindfs-channel", "packed")])
def test_suite_in_later_qemu(make_backend, name, ring):
    if guest.later_qemu_is_out():
        pytest.skip(guest.later_qemu_is_out())
    packed = ["--qemu-arg", "-global", "--qemu-arg", f"vhost-user-fs-pci.packed={'on' if ring == 'packed' else 'off'}"]
    run_suite(make_backend(name), guest.KINDS["qemu-6.12"], ["--qemu", guest.LATER_QEMU, *packed])


def test_null(make_backend, kind):
    options, _ = kind
    null = make_backend("null")
    # What is written at one place must be there, and nowhere else.
    script = ("set -e; cd /mnt/t; test $(stat -c %s data) = $SIZE; "
              "tr '\\0' x </dev/zero | dd of=data bs=1M count=8 seek=3 conv=notrunc iflag=fullblock 2>/dev/null; "
              "cd /; umount /mnt/t; mount -t virtiofs t /mnt/t; "
              "dd if=/mnt/t/data bs=1M skip=3 count=8 2>/dev/null | md5sum; "
              "dd if=/mnt/t/data bs=1M skip=11 count=1 2>/dev/null | md5sum").replace("$SIZE", str(null.size))
    done = guest.vm(options, backends=[null], command=[script])
    print(done.stderr.decode(errors="replace"), null.log_text()[-4000:])
    sums = [line.split()[0] for line in done.stdout.decode().splitlines()]
    assert done.returncode == 0
    assert sums == [hashlib.md5(b"x" * (8 * MIB)).hexdigest(), hashlib.md5(bytes(MIB)).hexdigest()]
    assert null.alive()


def test_both_sides_see_the_same(backend):
    with open(backend.path("from-server"), "w") as f:
        f.write("written on the serving side\n")
    done = guest.vm(backends=[backend], command=["cat /mnt/t/from-server; echo from the guest >/mnt/t/from-guest"])
    assert (done.returncode, done.stdout) == (0, b"written on the serving side\n"), done.stderr
    with open(backend.path("from-guest")) as f:
        assert f.read() == "from the guest\n"


def test_sysfs_shows_both_queues(plain_backend):
    """Kernel 6.12 lists, per request queue, the CPUs that use it."""
    done = guest.vm(backends=[plain_backend], command=["cd /sys/fs/virtiofs/*/ && cat tag && grep . mqs/*/cpu_list"])
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == plain_backend.tag
    cpus = [line.split(":")[1] for line in lines[1:] if "requests" in line or re.search(r"mqs/[1-9]", line)]
    assert len(cpus) >= plain_backend.queues
    assert sorted(",".join(cpus).replace(" ", "").split(",")) == ["0", "1"]


@pytest.mark.parametrize("name, whole", [("sshfs", True), ("bindfs", False)])
def test_requests_of_1_mib(make_backend, name, whole):
    """1 MiB is one request where the daemon allows it; bindfs, on libfuse 2, takes 128 KiB at most."""
    backend = make_backend(name)
    done = guest.vm(["--add", guest.GUEST_SUITE], backends=[backend],
                    command=["guest_suite", "--direct", "32", "/mnt/t", "direct"])
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    written, read = map(int, re.fullmatch(rb"write (\d+) read (\d+)\n", done.stdout).groups())
    with open(backend.path("direct"), "rb") as f:
        assert f.read() == b"".join(bytes([ord("a") + i % 26]) * MIB for i in range(32))
    if whole:
        # A few for attributes.
        assert 32 <= written <= 48 and 32 <= read <= 48
    else:
        assert written > 64 and read > 64


def file_sum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while True:
            piece = f.read(4 * MIB)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def test_copy_1_gib_through_sshfs(make_backend):
    sshfs = make_backend("sshfs")
    base = os.urandom(MIB)
    with open(sshfs.path("in"), "wb") as f:
        for i in range(1024):
            f.write(i.to_bytes(8, "little"))
            f.write(base[8:])
    start = time.monotonic()
    done = guest.vm(backends=[sshfs], timeout=400, command=["dd if=/mnt/t/in of=/mnt/t/out bs=1M && sync"])
    assert done.returncode == 0, done.stderr
    print(f"1 GiB in and 1 GiB out: {time.monotonic() - start:.0f} s with the boot")
    assert os.path.getsize(sshfs.path("out")) == 1024 * MIB
    assert file_sum(sshfs.path("in")) == file_sum(sshfs.path("out"))
