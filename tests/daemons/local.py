# SPDX-License-Identifier: BSD-3-Clause
"""Daemons over something on this machine: folders, images, repositories, one's own sshd.

Each is a Server with
  fuse_command(mountpoint, *options)        the command line that stays in the foreground
  background_command(mountpoint, *options)  the same as users type it, which goes to the background; None: there is no such
  user_options                              those with which an ordinary user mounts it
  check()                                   what must hold after a clean end; an exception otherwise
and, where nothing can be written, @source: the folder that its file system shows, at @inside below the mount point.
"""
import os
import shutil
import subprocess
import sys

from server import Server, Unavailable, need_programs

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from guest import FUSEWIRE  # noqa: E402
from sshd import Sshd  # noqa: E402

MIB = 1 << 20
# Of a file that is copied; an image has room for two of them (guests make a copy) and what else is written.
FILE_MIB = int(os.environ.get("DAEMONS_MIB", "64"))
IMAGE_MIB = 2 * FILE_MIB + 200
PASSWORD = "fusewire"
# Where Debian puts the examples of libfuse 3 and libfuse 2.
EXAMPLES = {"fuse3": "/usr/share/doc/libfuse3-dev/examples", "fuse": "/usr/share/doc/libfuse-dev/examples"}


class Local(Server):
    """@package, @program: of Debian; @foreground: the option that keeps it there."""

    package = program = None
    user_options = []
    foreground = ["-f"]
    inside = ""

    def __init__(self, state):
        need_programs(self.package, self.program)
        super().__init__(state)
        self.source = None
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def folder(self, name):
        os.makedirs(self.path(name), exist_ok=True)
        return self.path(name)

    def prepare(self):
        """Make what the file system is made of."""
        self.folder("data")

    def words(self, mountpoint, options):
        """The command line without what keeps it in the foreground."""
        raise NotImplementedError

    def fuse_command(self, mountpoint, *options):
        return [*self.words(mountpoint, options), *self.foreground]

    def background_command(self, mountpoint, *options):
        return self.words(mountpoint, options) if self.foreground else None

    def check(self):
        pass

    def make_source(self):
        """Files of all sizes for a file system that is made whole and only read."""
        self.source = self.folder("source")
        for number in range(50):
            folder = self.folder(f"source/d{number % 5}/e{number % 3}")
            with open(os.path.join(folder, f"file{number}"), "wb") as f:
                f.write(os.urandom(number * number * 37))
        with open(self.path("source", "big"), "wb") as f:
            for _ in range(FILE_MIB):
                f.write(os.urandom(MIB))
        os.symlink("d1/e1/file1", self.path("source", "link"))
        os.chmod(self.path("source", "d2"), 0o750)


class Sshfs(Local):
    package = program = "sshfs"

    def prepare(self):
        need_programs("openssh-server", "/usr/sbin/sshd")
        self.folder("data")
        self.sshd = Sshd(self.path("sshd"))

    def words(self, mountpoint, options):
        return self.sshd.sshfs_command(self.path("data"), mountpoint, *options)

    def close(self):
        self.sshd.close()
        super().close()


class Bindfs(Local):
    package = program = "bindfs"

    def words(self, mountpoint, options):
        return ["bindfs", *options, self.path("data"), mountpoint]


class Mergerfs(Local):
    package = program = "mergerfs"

    def prepare(self):
        self.folder("one")
        self.folder("two")

    def words(self, mountpoint, options):
        return ["mergerfs", *options, self.path("one") + ":" + self.path("two"), mountpoint]


class UnionfsFuse(Local):
    package = program = "unionfs-fuse"

    def prepare(self):
        self.folder("upper")
        with open(os.path.join(self.folder("lower"), "below"), "wb") as f:
            f.write(b"from below\n")

    def words(self, mountpoint, options):
        return ["unionfs-fuse", "-o", "cow", *options, self.path("upper") + "=RW:" + self.path("lower") + "=RO", mountpoint]


class FuseOverlayfs(UnionfsFuse):
    package = program = "fuse-overlayfs"
    # All belongs to the user that runs it: he cannot give files away.
    user_options = ["-o", "squash_to_uid=65534,squash_to_gid=65534"]

    def prepare(self):
        super().prepare()
        self.folder("work")

    def words(self, mountpoint, options):
        layers = ",".join(f"{name}dir={self.path(name)}" for name in ("lower", "upper", "work"))
        return ["fuse-overlayfs", "-o", layers, *options, mountpoint]


class Squashfuse(Local):
    package = program = "squashfuse"

    def prepare(self):
        need_programs("squashfs-tools", "mksquashfs")
        self.make_source()
        self.run(["mksquashfs", self.source, self.path("image"), "-quiet", "-no-progress"], 600)

    def words(self, mountpoint, options):
        return [self.program, *options, self.path("image"), mountpoint]


class SquashfuseLl(Squashfuse):
    program = "squashfuse_ll"


class Archivemount(Local):
    package = program = "archivemount"

    def prepare(self):
        self.make_source()
        self.run(["tar", "-C", self.source, "-cf", self.path("archive.tar"), "."], 600)

    def words(self, mountpoint, options):
        return ["archivemount", "-o", "readonly", *options, self.path("archive.tar"), mountpoint]


class Encfs(Local):
    package = program = "encfs"

    def prepare(self):
        self.folder("data")
        with open(self.path("password"), "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")

    def words(self, mountpoint, options):
        return ["encfs", "--standard", f"--extpass=cat {self.path('password')}", self.path("data"), mountpoint, *options]


class Ntfs3g(Local):
    package = program = "ntfs-3g"
    foreground = ["-o", "no_detach"]

    def prepare(self):
        need_programs("ntfs-3g", "mkntfs", "ntfsfix")
        with open(self.path("image"), "wb") as f:
            f.truncate(IMAGE_MIB * MIB)
        self.run(["mkntfs", "-q", "-F", "-Q", self.path("image")])

    def words(self, mountpoint, options):
        return ["ntfs-3g", *options, self.path("image"), mountpoint]

    def check(self):
        assert "processed successfully" in self.run(["ntfsfix", "--no-action", self.path("image")])


class Fuse2fs(Local):
    package = program = "fuse2fs"

    def prepare(self):
        need_programs("e2fsprogs", "mkfs.ext4", "e2fsck")
        with open(self.path("image"), "wb") as f:
            f.truncate(IMAGE_MIB * MIB)
        self.run(["mkfs.ext4", "-q", "-F", self.path("image")])

    def words(self, mountpoint, options):
        return ["fuse2fs", *options, self.path("image"), mountpoint]

    def check(self):
        self.run(["e2fsck", "-fn", self.path("image")])


class Gocryptfs(Local):
    package = program = "gocryptfs"
    foreground = ["-fg"]

    def prepare(self):
        self.folder("data")
        with open(self.path("password"), "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        self.run(["gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", self.path("password"), self.path("data")])

    def words(self, mountpoint, options):
        return ["gocryptfs", "-q", "-passfile", self.path("password"), *options, self.path("data"), mountpoint]

    def fuse_command(self, mountpoint, *options):
        return self.words(mountpoint, ["-fg", *options])

    def check(self):
        self.run(["gocryptfs", "-fsck", "-passfile", self.path("password"), self.path("data")], 120)


class Rclone(Local):
    """A local remote, with the cache of files that are written."""

    package = program = "rclone"
    verb = "mount"
    foreground = []

    def prepare(self):
        self.folder("data")
        done = subprocess.run(["rclone", self.verb, "--help"], stdout=subprocess.PIPE, check=False)
        if done.returncode or f"rclone {self.verb} ".encode() not in done.stdout:
            raise Unavailable(f"Debian's rclone has no {self.verb}")

    def words(self, mountpoint, options):
        return ["rclone", "--config", "/dev/null", "--cache-dir", self.path("cache"), self.verb,
                "--vfs-cache-mode", "writes", *options, self.path("data"), mountpoint]

    def background_command(self, mountpoint, *options):
        return [*self.words(mountpoint, options), "--daemon"]


class RcloneMount2(Rclone):
    verb = "mount2"


class Restic(Local):
    package = program = "restic"
    foreground = []

    def prepare(self):
        self.make_source()
        with open(self.path("password"), "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        self.options = ["--no-cache", "-q", "-r", self.path("repository"), "-p", self.path("password")]
        self.run(["restic", *self.options, "init"])
        self.run(["restic", *self.options, "backup", self.source], 900)
        self.inside = "snapshots/latest" + self.source

    def words(self, mountpoint, options):
        return ["restic", *self.options, "mount", *options, mountpoint]

    def check(self):
        self.run(["restic", *self.options, "check"], 600)


class Borg(Local):
    package, program = "borgbackup", "borg"

    def prepare(self):
        self.make_source()
        self.prefix = ["env", "BORG_BASE_DIR=" + self.path("home"), "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"]
        self.run([*self.prefix, "borg", "init", "-e", "none", self.path("repository")])
        self.run([*self.prefix, "borg", "create", self.path("repository") + "::one", "."], 900, cwd=self.source)

    def words(self, mountpoint, options):
        return [*self.prefix, "borg", "mount", *options, self.path("repository") + "::one", mountpoint]

    def check(self):
        self.run([*self.prefix, "borg", "check", self.path("repository")], 600)


class Example(Local):
    """An example program of libfuse, built here from what Debian's development package ships."""

    package = program = "gcc"
    library, name, libraries = "fuse3", "passthrough", []

    def prepare(self):
        source = os.path.join(EXAMPLES[self.library], self.name + ".c")
        if not os.path.exists(source):
            raise Unavailable(f"no {source}: Debian package lib{self.library}-dev")
        self.folder("data")
        self.binary = self.path(self.name)
        need_programs("pkg-config", "pkg-config")
        flags = self.run(["pkg-config", "--cflags", "--libs", self.library]).split()
        self.run(["gcc", "-w", "-O2", "-DHAVE_SETXATTR", "-DHAVE_UTIMENSAT", source, "-o", self.binary, *flags, *self.libraries,
                  "-lpthread"])

    def words(self, mountpoint, options):
        return [self.binary, "-o", "modules=subdir,subdir=" + self.path("data"), *options, mountpoint]


class PassthroughFh(Example):
    name = "passthrough_fh"


class PassthroughLl(Example):
    name = "passthrough_ll"

    def words(self, mountpoint, options):
        return [self.binary, "-o", "source=" + self.path("data"), *options, mountpoint]


class Fusexmp(Example):
    library, name = "fuse", "fusexmp"


class FusexmpFh(Example):
    library, name, libraries = "fuse", "fusexmp_fh", ["-lulockmgr"]


class Passthrough(Local):
    """Our own example: splices, and answers every operation that there is."""

    package, program = "libfuse3-dev", "sh"
    binary = os.path.join(os.path.dirname(FUSEWIRE), "../../examples/passthrough")

    def prepare(self):
        self.binary = os.path.realpath(self.binary)
        if not os.access(self.binary, os.X_OK):
            raise Unavailable("examples/passthrough is not built: Debian package libfuse3-dev")
        self.folder("data")

    def words(self, mountpoint, options):
        return [self.binary, *options, self.path("data"), mountpoint]


def installed(package):
    """Version of a Debian package, without what only Debian's archive needs."""
    if not shutil.which("dpkg-query"):
        return "?"
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.split(":")[-1].split("-")[0].split("+")[0] or "?"
