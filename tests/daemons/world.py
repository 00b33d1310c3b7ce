# SPDX-License-Identifier: BSD-3-Clause
"""A daemon with what is behind it, ready to be mounted here or served, and what is done with its files.

DAEMONS           comma-separated choice of the catalog; "fast", the default, is what every commit is tested with; "local",
                  "network", "all"
DAEMONS_MIB       size of the file that goes in and out (default 64; scripts/check-daemons takes 1024)
"""
import contextlib
import errno
import hashlib
import os
import re
import subprocess
import tempfile

import serving
from catalog import ALL, FAST, LOCAL, SERVERS
from server import Unavailable
from serving import START_SECONDS, Mounted, Served, wait_for

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("DAEMONS_MIB", "64"))
NOBODY = 65534
# Runs on /dev/fuse until a result that never came there counts as different.
LOCAL_RUNS = 4
# Prints each name with its kind, size and time, and each file's sum: the same in busybox's shell everywhere.
READ_SCRIPT = ("cd '{}' && find . | LC_ALL=C sort | while read -r f; do "
               "if [ -L \"$f\" ]; then echo \"$f -> $(readlink \"$f\")\"; "
               "elif [ -d \"$f\" ]; then stat -c '%n %a' \"$f\"; "
               "else stat -c '%n %a %s %Y' \"$f\"; md5sum <\"$f\"; fi; done")


def chosen():
    names = []
    for word in os.environ.get("DAEMONS", "fast").split(","):
        names += {"fast": FAST, "local": list(LOCAL), "network": list(SERVERS), "all": list(ALL)}.get(word, [word])
    return names


def why_not_here():
    """Why nothing can be compared with this machine's own FUSE, or None."""
    if os.getuid() != 0:
        return "mounts on this machine, to compare with: needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return f"mounts on this machine, to compare with: /dev/fuse: {e.strerror}"
    return None


class World:
    """One daemon's servers, up until close(), and a folder for what the tests start. Unavailable when it cannot be had."""

    def __init__(self, name):
        self.daemon = name
        self.description = ALL[name]
        self.stack = contextlib.ExitStack()
        self.count = 0
        # Of mounts on this machine: what the guest suite found, and the daemon's status after its unmount.
        self.local_results = []
        self.status_local = None
        why = why_not_here()
        if why:
            raise Unavailable(why)
        self.top = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-", ignore_cleanup_errors=True))
        os.chmod(self.top, 0o755)
        try:
            self.server = self.stack.enter_context(self.description.start(os.path.join(self.top, "state")))
            self.need_way()
        except BaseException:
            self.stack.close()
            raise

    def need_way(self):
        """Not every program can be served in-process. Unavailable, with what `fusewire run` says of it."""
        if serving.WAY != "always":
            return
        # The socket is there before the daemon mounts, which is when it is seen.
        with self.served() as s:
            wait_for("the daemon mounts", lambda: "serving tag" in s.text() or s.process.poll() is not None, START_SECONDS)
            why = re.search(r".*cannot be served in-process.*", s.text())
        if why:
            raise Unavailable(why.group())

    def close(self):
        self.stack.close()

    @property
    def source(self):
        """Of a file system that is only read: the folder that it shows."""
        return getattr(self.server, "source", None)

    def inside(self, mountpoint):
        return os.path.join(mountpoint, getattr(self.server, "inside", "").lstrip("/")).rstrip("/")

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def mountpoint(self, kind):
        path = os.path.join(self.top, self.name(kind))
        os.makedirs(path)
        return path

    def local(self, *options):
        mountpoint = self.mountpoint("local")
        return Mounted(mountpoint + ".log", self.server.fuse_command(mountpoint, *options), mountpoint)

    def served(self, *options, command=None, **keywords):
        command = command or self.server.fuse_command(self.mountpoint("untouched"))
        program = getattr(self.server, "program", None) or self.description.program
        return Served(self.top, self.name("run"), command, *options, program=program, **keywords)

    def check(self):
        """Nothing has to be repaired."""
        getattr(self.server, "check", lambda: None)()

    def repair(self):
        """After an end that it takes for a crash."""
        getattr(self.server, "repair", lambda: None)()

    def suite(self, mountpoint):
        """The guest suite, or the whole content where nothing can be written, on something mounted here."""
        if self.source:
            return read_all(self.inside(mountpoint))
        # What one run cannot delete is not in the way of the next.
        folder = self.name("suite")
        results = serving.suite_here(mountpoint, self.description.suite_options, folder)
        remove(mountpoint, folder)
        return results

    def expect(self, found, left_out=()):
        """Each result is one that this machine's /dev/fuse gives. What differs is asked there again: some daemons have
        races that show there, too. What the catalog lists as different must be."""
        local = self.suite_local()[0]
        for name in self.description.differs:
            assert found[name] != local[name], f"{name}: the same now; take it off the list"
        for name in {**local, **found}:
            if name in self.description.differs or name in left_out:
                continue
            if name in self.description.by_chance and found.get(name) == "passed":
                continue
            while found.get(name) not in (seen := {results.get(name) for results in self.suite_local()}):
                assert len(self.local_results) < LOCAL_RUNS, \
                    f"{name}: here {found.get(name)}; on /dev/fuse, in {LOCAL_RUNS} runs, {seen}"
                self.run_suite_local()

    def suite_local(self):
        """Results of the same on this machine's /dev/fuse, of one run or several."""
        if not self.local_results:
            self.run_suite_local()
        return self.local_results

    def run_suite_local(self):
        with self.local() as m:
            self.local_results.append(self.suite(m.mountpoint))
            self.status_local = m.unmount()

    def varies(self):
        """Tests whose result is not the same in each run on this machine's /dev/fuse."""
        return [name for name in self.suite_local()[0] if len({results.get(name) for results in self.local_results}) > 1]


def remove(mountpoint, folder):
    subprocess.run(["rm", "-rf", os.path.join(mountpoint, folder)], check=False)


def read_all(folder):
    done = subprocess.run(["busybox", "sh", "-c", READ_SCRIPT.format(folder)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=600)
    return {"content": done.stdout}


def md5(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def big_file(path, mib):
    total = hashlib.md5()
    with open(path, "wb") as f:
        for _ in range(mib):
            piece = os.urandom(MIB)
            total.update(piece)
            f.write(piece)
    return total.hexdigest()


def drop_caches():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3\n")


def works(world, mountpoint):
    """It serves, as far as one file tells."""
    try:
        if world.source:
            return bool(os.listdir(world.inside(mountpoint)))
        path = os.path.join(mountpoint, "after")
        with open(path, "wb") as f:
            f.write(b"again")
        with open(path, "rb") as f:
            right = f.read() == b"again"
        os.unlink(path)
        return right
    except OSError:
        return False


def write_error(mountpoint):
    """Name of the error that making a file ends with, or None."""
    try:
        with open(os.path.join(mountpoint, "forbidden"), "wb") as f:
            f.write(b"x")
        os.unlink(os.path.join(mountpoint, "forbidden"))
        return None
    except OSError as e:
        return errno.errorcode[e.errno]


# A /dev/fuse of one's own: arguments are a folder, a mode, and the command.
OWN_DEVICE = ("set -e; mount -t tmpfs -o mode=755 device \"$1\"; mknod \"$1/fuse\" c 10 229; chmod \"$2\" \"$1/fuse\"; "
              "mount --bind \"$1/fuse\" /dev/fuse; shift 2; exec \"$@\"")


def with_device(world, mode):
    """The words in front of a command that give it a /dev/fuse of this mode, whatever this machine's is."""
    words = ["unshare", "--mount", "sh", "-c", OWN_DEVICE, "sh", world.mountpoint("device"), mode]
    done = subprocess.run([*words, "true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return words, done.stdout if done.returncode else None


def as_nobody(world):
    """The words in front of a command that make it an ordinary user's, to whom all that is there is given."""
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", world.top], check=True)
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "env", "HOME=" + world.top,
            "XDG_CACHE_HOME=" + os.path.join(world.top, "cache")]
