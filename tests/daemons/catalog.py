# SPDX-License-Identifier: BSD-3-Clause
"""The network file systems that are tested: what is behind each, and what it does by its nature."""
import contextlib
import os

import ceph
import gluster
import juicefs
import moosefs
import s3


class Description:
    """@start: makes, from a state folder, a context manager whose value has fuse_command(mountpoint, *options)
    @shared: several mounts of it at once agree about what is closed
    @suite_options: of the guest suite
    """

    def __init__(self, start, shared=False, suite_options=()):
        self.start, self.shared, self.suite_options = start, shared, list(suite_options)


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


SERVERS = {
    "glusterfs": Description(gluster.Gluster, shared=True),
    "glusterfs-posix": Description(Posix),
    "ceph-fuse": Description(ceph.Ceph, shared=True),
    "mfsmount": Description(moosefs.MooseFs, shared=True),
    "juicefs": Description(juicefs.JuiceFs, shared=True),
    "juicefs-s3": Description(juicefs_on_s3),
    "s3fs": Description(s3fs_on_gateway),
    "s3fs-radosgw": Description(s3fs_on_radosgw),
}
