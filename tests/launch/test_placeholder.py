# SPDX-License-Identifier: BSD-3-Clause
"""Daemons that look at what they mounted find a placeholder there, and nobody else does."""
import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

FUSEWIRE = os.environ["FUSEWIRE"]
CLIENT = os.environ["FUSEWIRE_RAW_CLIENT"]
RAWFUSE = os.environ["FUSEWIRE_RAWFUSE"]
NOBODY = 65534
HAVE_FUSE = os.path.exists("/dev/fuse")

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: makes mount namespaces, and users that may not")
needs_fuse = pytest.mark.skipif(not HAVE_FUSE, reason="no FUSE in this kernel")

# What a daemon that looks finds on any placeholder.
FOUND = ["stat: ok", "inode: 1 type: 40000", "statfs: ok", "access: ok", "open to poll, writing: ok", "open to poll: ok",
         "poll: ok", "remount command: 0"]


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="fw-place-") as name:
        top = pathlib.Path(name)
        os.chmod(top, 0o755)
        for d in ("src", "mnt"):
            (top / d).mkdir()
            os.chown(top / d, NOBODY, NOBODY)
        (top / "src" / "f").write_text("hello\n")
        for program in (FUSEWIRE, CLIENT, RAWFUSE):
            shutil.copy(program, top)
        yield top


def inside(script, command):
    """A command after a script in a mount namespace of the test's own."""
    return ["unshare", "-m", "--propagation", "shared", "sh", "-ec", script + '\nexec "$@"', "sh", *command]


def as_user(command):
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


# A /dev/fuse that everybody may open, as on most machines; or none that works.
OPEN_DEVICE = """mount -t tmpfs none /mnt; mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse; umount -l /mnt; cd /"""
NO_DEVICE = "[ ! -e /dev/fuse ] || mount --bind /dev/null /dev/fuse"


def shared(command):
    """Where "/" is a shared mount, as on most machines and in few containers."""
    return ["unshare", "-m", "--propagation", "shared", *command]


def client(place, daemon, *options, wrap=shared):
    command = [str(place / "raw_client"), *options, "--", *daemon]
    r = subprocess.run(wrap(command) if wrap else command, capture_output=True, text=True, timeout=60,
                       stdin=subprocess.DEVNULL, cwd="/")
    return r.returncode, r.stdout, r.stderr


def looker(place, *options):
    return [str(place / "rawfuse"), "-l", *options, str(place / "mnt")]


@needs_fuse
@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_private_mounts_are_left_alone(place, propagation):
    """Where what others unmount would stay mounted in a namespace, only who needs one gets one."""
    rc, out, err = client(place, looker(place), "--stop", "unmount",
                          wrap=lambda c: ["unshare", "-m", "--propagation", propagation, *c])
    assert "init minor=" in out and "in mounts" not in out and rc == 0, out + err


@needs_fuse
@pytest.mark.parametrize("flags", [[], ["-b"], ["-c"]], ids=lambda f: "".join(f) or "plain")
def test_root_finds_its_mount(place, flags):
    before = open("/proc/self/mounts").read()
    rc, out, err = client(place, looker(place, *flags), "--stop", "unmount")
    for line in FOUND:
        assert line + "\n" in out, out + err
    assert re.search(rf"^in mounts: raw {place}/mnt fuse\.raw rw,nosuid,nodev\S*,user_id=0,group_id=0,allow_other,"
                     r"max_read=65536 0 0$", out, re.M), out + err
    assert out.count("in mounts") == 1 and out.count("unmounted\n") == 1
    assert (rc, err) == (0, "")
    assert open("/proc/self/mounts").read() == before
    assert os.listdir(place / "mnt") == []


@needs_fuse
def test_mount_point_that_is_a_file(place):
    rc, out, err = client(place, [str(place / "rawfuse"), "-l", str(place / "src" / "f")], "--stop", "eof")
    assert "inode: 1 type: 100000\n" in out and "in mounts: raw" in out, out + err


@needs_fuse
def test_fuseblk_without_a_device(place):
    """ntfs-3g with an image file says fuseblk only where there is a block device; others may not be so careful."""
    rc, out, err = client(place, looker(place, "-t", "fuseblk.x"), "--stop", "unmount")
    assert re.search(r"in mounts: raw \S+ fuse\.x ", out), out + err
    assert rc == 0


def test_without_fuse_in_the_kernel(place):
    rc, out, err = client(place, looker(place), "--stop", "eof", wrap=lambda c: inside(NO_DEVICE, c))
    for line in FOUND:
        assert line + "\n" in out, out + err
    assert f"in mounts: raw {place}/mnt tmpfs " in out and "unmounted\n" in out
    assert os.listdir(place / "mnt") == []


def test_never(place):
    rc, out, err = client(place, looker(place), "--stop", "eof", "--placeholder", "never")
    assert "in mounts" not in out and "inode: 1 " not in out, out + err
    assert rc == 3


@needs_fuse
@pytest.mark.parametrize("when,found", [("auto", 1), ("never", 0)])
def test_namespace_of_the_daemons_own(place, when, found):
    rc, out, err = client(place, ["unshare", "-m", *looker(place)], "--stop", "eof", "--placeholder", when)
    assert out.count("in mounts: raw") == found and "init minor=" in out, out + err


@needs_fuse
def test_user_in_a_user_namespace(place):
    """As the user that it is; but files of others are nobody's there, which is why it is not the rule."""
    rc, out, err = client(place, looker(place), "--stop", "unmount", "--placeholder", "always",
                          wrap=lambda c: inside(OPEN_DEVICE, as_user(c)))
    if "mounts of its own" in err:
        pytest.skip("no user namespaces: " + err)
    for line in FOUND:
        assert line + "\n" in out, out + err
    assert f"in mounts: raw {place}/mnt fuse.raw rw" in out
    assert "user: 65534 group: 65534 owner of /: 65534\n" in out
    assert (rc, err) == (0, "")


def test_user_that_does_not_look(place):
    rc, out, err = client(place, looker(place), "--stop", "eof", wrap=as_user)
    assert "in mounts" not in out and "owner of /: 0\n" in out, out + err
    assert (rc, err) == (3, "")


def test_no_namespaces_to_be_had(place):
    """--placeholder always says so; auto goes on without."""
    limit = "echo 0 >/proc/sys/user/max_mnt_namespaces"
    run = ["unshare", "-Urm", "sh", "-ec", limit + '; exec "$@"', "sh"]
    rc, out, err = client(place, looker(place), "--stop", "eof", "--placeholder", "always", wrap=lambda c: [*run, *c])
    assert rc == 1 and "cannot give it mounts of its own: No space left on device" in err, out + err
    rc, out, err = client(place, looker(place), "--stop", "eof", wrap=lambda c: [*run, *c])
    assert rc == 3 and "stat: ok\n" in out and "in mounts" not in out, out + err


class Run:
    """fusewire run, until it ends."""

    def __init__(self, place, command, *options, wrap=None):
        read, write = os.pipe()
        self.ready = os.fdopen(read, "rb")
        self.log = open(place / "log", "w+")
        self.place = place
        args = [str(place / "fusewire"), "run", "--socket", str(place / "src" / "socket"), "--tag", "t", "--ready-fd",
                str(write), *options, "--", *command]
        self.process = subprocess.Popen(wrap(args) if wrap else args, pass_fds=[write], stderr=self.log, stdout=self.log,
                                        stdin=subprocess.DEVNULL, env={**os.environ, "HOME": "/nonexistent"}, cwd="/")
        os.close(write)
        self.is_ready = self.ready.read() == b"READY=1\n"

    def text(self):
        return (self.place / "log").read_text()

    def daemon(self, name):
        out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        [pid] = [int(line.split()[0]) for line in out.stdout.splitlines() if line.split()[1] == name]
        return pid

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.ready.close()
        self.log.close()


def descendants(pid, name):
    found = []
    for line in subprocess.run(["ps", "-o", "pid=,stat=,comm=", "--ppid", str(pid)], capture_output=True,
                               text=True).stdout.splitlines():
        child, state, comm = line.split(None, 2)
        found += [int(child)] if state[0] != "Z" and comm == name else []
        found += descendants(int(child), name)
    return found


def eventually(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@needs_fuse
def test_unmounted_in_the_namespace(place):
    """Who enters the daemon's namespace and unmounts there ends it, as anywhere."""
    with Run(place, [str(place / "rawfuse"), str(place / "mnt")], "--restart", "--placeholder", "always") as r:
        assert r.is_ready, r.text()
        subprocess.run(["nsenter", "-t", str(r.daemon("rawfuse")), "-m", "umount", str(place / "mnt")], check=True)
        assert r.process.wait(10) == 0, r.text()
        assert "unmounted from the daemon's side: stopping" in r.text()


@pytest.mark.parametrize("device", ["fuse", "tmpfs"])
def test_unmounted_by_a_child(place, device):
    """fusermount3 -u under the filter, as gocryptfs and rclone call it."""
    if device == "fuse" and not HAVE_FUSE:
        pytest.skip("no FUSE in this kernel")
    script = f"{place}/rawfuse -b {place}/mnt; until [ -e {place}/go ]; do sleep 0.1; done; umount -i {place}/mnt"
    with Run(place, ["sh", "-ec", script], "--restart",
             wrap=(lambda c: inside(NO_DEVICE, c)) if device == "tmpfs" else None) as r:
        assert r.is_ready, r.text()
        (place / "go").touch()
        status = r.process.wait(10)
        assert status == 0 if device == "fuse" else status in (3, 143), r.text()
        assert "unmounted from the daemon's side: stopping" in r.text()


def test_own_end_is_no_unmount(place):
    """A daemon that ends by itself unmounts, too; with --restart it comes again."""
    with Run(place, ["bindfs", "-f", "--no-allow-other", str(place / "src"), str(place / "mnt")], "--restart") as r:
        assert r.is_ready, r.text()
        os.kill(r.daemon("bindfs"), signal.SIGTERM)
        assert eventually(lambda: "the daemon is there again" in r.text()), r.text()
        time.sleep(0.7)
        assert r.process.poll() is None and "stopping" not in r.text()


@contextlib.contextmanager
def shared_tree(place):
    """A shared mount, in which the command's namespace must see what comes and goes."""
    tree = place / "tree"
    tree.mkdir()
    (place / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tree)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(tree)], check=True)
        (tree / "sub").mkdir()
        yield tree
    finally:
        subprocess.run(["umount", "-R", str(tree)], check=True)


def test_others_mounts_come_and_go(place):
    with shared_tree(place) as tree, Run(place, [str(place / "rawfuse"), str(place / "mnt")]) as r:
        assert r.is_ready, r.text()
        mounts = pathlib.Path(f"/proc/{r.daemon('rawfuse')}/mounts")
        subprocess.run(["mount", "-t", "tmpfs", "none", str(tree / "sub")], check=True)
        assert f" {tree}/sub tmpfs " in mounts.read_text()
        subprocess.run(["umount", str(tree / "sub")], check=True)
        assert f" {tree}/sub " not in mounts.read_text()
        r.process.terminate()
        assert r.process.wait(10) in (0, 143)


def gocryptfs(place):
    (place / "password").write_text("secret\n")
    (place / "cipher").mkdir()
    subprocess.run(["gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", str(place / "password"),
                    str(place / "cipher")], check=True, stdin=subprocess.DEVNULL)
    for path in [place / "password", place / "cipher", *(place / "cipher").iterdir()]:
        os.chown(path, NOBODY, NOBODY)
    return ["gocryptfs", "-passfile", str(place / "password"), str(place / "cipher"), str(place / "mnt")]


def rclone(place, *command):
    return ["rclone", *command, "--config", "/dev/null", f":local:{place}/src", str(place / "mnt")]


def squashfuse(place):
    subprocess.run(["mksquashfs", str(place / "src"), str(place / "image"), "-quiet", "-no-progress"], check=True,
                   stdout=subprocess.DEVNULL)
    return ["squashfuse", str(place / "image"), str(place / "mnt")]


def squashfuse_threads(place):
    return [*squashfuse(place), "-o", "clone_fd,max_threads=3,max_idle_threads=2"]


def overlay(place):
    for name in ("up", "work"):
        (place / name).mkdir()
    return ["fuse-overlayfs", "-o", f"lowerdir={place}/src,upperdir={place}/up,workdir={place}/work", str(place / "mnt")]


DAEMONS = {
    "gocryptfs": gocryptfs,
    "gocryptfs -fg": lambda place: [*gocryptfs(place), "-fg"],
    "rclone mount": lambda place: rclone(place, "mount"),
    "rclone mount --daemon": lambda place: rclone(place, "mount", "--daemon"),
    "rclone mount2": lambda place: rclone(place, "mount2"),
    "squashfuse": squashfuse,
    "squashfuse with threads": squashfuse_threads,
    "fuse-overlayfs": overlay,
}


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
@pytest.mark.parametrize("name", DAEMONS)
def test_daemons(place, name, user):
    """Real ones: they start, find their mount, and end with status 0 when they are unmounted."""
    program = name.split()[0]
    for needed in [program, "mksquashfs"] if program == "squashfuse" else [program]:
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    if user and (not HAVE_FUSE or program == "fuse-overlayfs"):
        pytest.skip("unprivileged, it needs a user namespace that its caller makes, and FUSE")
    command = DAEMONS[name](place)
    with Run(place, command, wrap=(lambda c: inside(OPEN_DEVICE, as_user(c))) if user else None) as r:
        assert r.is_ready, r.text()
        # A daemon in the background is ready before the command that started it has seen so.
        assert eventually(lambda: len(descendants(r.process.pid, program)) == 1), r.text()
        r.process.terminate()
        status = r.process.wait(20)
        assert status == 0 if HAVE_FUSE else status in (0, 1, 143), r.text()
        assert "WARNING" not in r.text() and "still" not in r.text()


# What a daemon does that is up to no good: argv is what it lays over /dev/fuse ("" for nothing), mount point, type, flags, source.
EVIL = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
over, target, kind, flags, source = sys.argv[1:]
if over:
    assert libc.unshare(0x10020000) == 0
    libc.mount(b"none", b"/", None, 0x44000, None)
    assert libc.mount(over.encode(), b"/dev/fuse", None, 0x1000, None) == 0
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
print("mount:", libc.mount(source.encode(), target.encode(), kind.encode(), int(flags), options), flush=True)
time.sleep(float(os.environ.get("LINGER", "0.5")))
"""


def evil(over, target, kind="fuse", flags=0, source="x"):
    return as_user(["/usr/bin/python3", "-c", EVIL, over, str(target), kind, str(flags), str(source)])


def needs_user_namespaces():
    if subprocess.run(as_user(["unshare", "-Um", "true"]), capture_output=True).returncode:
        pytest.skip("no user namespaces")


def watch_opens(path):
    """An inotify descriptor that is readable once somebody has opened the file."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert libc.inotify_add_watch(fd, str(path).encode(), 0x20) >= 0
    return os.fdopen(fd, "rb", buffering=0)


@needs_fuse
@pytest.mark.parametrize("when", ["never", "auto", "always"])
def test_what_lies_on_the_device_is_not_opened(place, when):
    """In a namespace of its own, a daemon may bind anything there."""
    needs_user_namespaces()
    victim = place / "victim"
    victim.write_text("root's\n")
    victim.chmod(0o600)
    with watch_opens(victim) as opens:
        with Run(place, evil(str(victim), place / "mnt"), "--placeholder", when, "--in-process", "never") as r:
            r.process.wait(20)
            assert "mount: 0" in r.text(), r.text()
        assert opens.read(4096) is None, "somebody opened it"


@needs_fuse
def test_device_of_a_child_that_is_stopped(place):
    """Who owns a user namespace may stop what comes into it; the launch goes on."""
    needs_user_namespaces()
    stop = """
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(pid) not in mine and os.stat(f"/proc/{pid}/ns/user").st_ino == own: os.kill(int(pid), 19)
        except OSError: pass
"""
    script = EVIL.replace("fd = os.open", "own = os.stat('/proc/self/ns/user').st_ino; parent = os.getpid()\nif os.fork() == 0:\n"
                          "    mine = {parent, os.getpid()}" + stop.replace("\n", "\n    ") + "\nfd = os.open")
    (place / "plain").write_text("")
    with Run(place, as_user(["timeout", "20", "/usr/bin/python3", "-c", script, str(place / "plain"), str(place / "mnt"), "fuse", "0", "x"]),
             "--in-process", "never", "--stop-timeout", "1") as r:
        assert eventually(lambda: "mount: 0" in r.text(), 15), r.text()
        r.process.terminate()
        r.process.wait(15)


@needs_fuse
def test_user_covers_only_what_is_his(place):
    """Root processes of the command see the same mounts."""
    (place / "roots").mkdir()
    for target, found in [("roots", False), ("mnt", True)]:
        with Run(place, ["sh", "-c", '"$@" & sleep 1; echo roots: $(grep -c " $DIR/roots " /proc/self/mounts);'
                         'grep " $DIR/mnt " /proc/self/mounts; wait', "sh", *evil("", place / target)],
                 "--in-process", "never", "--placeholder", "always", wrap=lambda c: ["env", f"DIR={place}", "LINGER=2", *c]) as r:
            r.process.wait(20)
            assert "mount: 0" in r.text() and "roots: 0" in r.text(), r.text()
            assert ("nosuid,nodev" in r.text()) == found and ("no placeholder" in r.text()) != found, r.text()


UNREADABLE = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(4, int(sys.argv[1]), 0, 0, 0) == 0
for _ in range(3):
    os.close(os.open("/dev/null", os.O_RDWR))
"""


@pytest.mark.parametrize("dumpable,warned", [(0, 1), (1, 0)])
def test_memory_that_cannot_be_read(place, dumpable, warned):
    """A user's daemon that is not to be dumped meets the kernel's /dev/fuse: that is said once."""
    with Run(place, ["/usr/bin/python3", "-c", UNREADABLE, str(dumpable)], "--in-process", "never", wrap=as_user) as r:
        assert not r.is_ready
        r.process.wait(20)
        assert r.text().count("memory of process") == warned, r.text()


# A mount that nobody answers for, as long as the program runs that is executed.
HANG = """
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(fd, True)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
assert ctypes.CDLL(None).mount(b"x", sys.argv[1].encode(), b"fuse.hung", 0, options) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
UNMOUNT_OTHER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
print("mount:", libc.mount(b"x", sys.argv[1].encode(), b"fuse", 0, options), flush=True)
print("umount:", libc.umount2(sys.argv[2].encode(), 2), flush=True)
"""


@needs_fuse
@pytest.mark.parametrize("when", ["never", "always"])
def test_others_mount_that_hangs_is_unmounted(place, when):
    """Whether it is ours is found out without asking its daemon. All is in a namespace that ends with the test."""
    hung = place / "hung"
    hung.mkdir()
    with Run(place, ["/usr/bin/python3", "-c", UNMOUNT_OTHER, str(place / "mnt"), str(hung)],
             "--in-process", "never", "--placeholder", when,
             wrap=lambda c: ["timeout", "-s", "KILL", "20", "unshare", "-m", "/usr/bin/python3", "-c", HANG, str(hung), *c]) as r:
        assert "mount: 0\numount: 0\n" in r.text(), r.text()
        r.process.wait(20)
