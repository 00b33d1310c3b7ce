# SPDX-License-Identifier: BSD-3-Clause
"""GlusterFS: glusterd with a volume of two replicas, both on this machine; and a volume without any server.

with Gluster(state) as g: g.fuse_command("/mnt")
posix_command(state, "/mnt")                        a folder of the state through storage/posix, in the client itself

glusterd takes no address of 127/8 for a brick, and has fixed places in /run, /var/lib and /var/log: it lives in
namespaces of its own.
"""
import os
import subprocess

from server import ADDRESS, Server, Unavailable, need_programs, need_root

VOLUME = "vol"
POSIX_VOLFILE = """volume posix
    type storage/posix
    option directory {brick}
end-volume

volume locks
    type features/locks
    subvolumes posix
end-volume

volume cache
    type performance/write-behind
    subvolumes locks
end-volume
"""


def need_trusted_attributes(folder):
    try:
        os.setxattr(folder, "trusted.fusewire", b"x")
        os.removexattr(folder, "trusted.fusewire")
    except OSError as e:
        raise Unavailable(f"{folder}: no trusted.* attributes, which GlusterFS keeps its state in: {e.strerror}") from e


class Gluster(Server):
    package, program = "glusterfs-client", "glusterfs"
    # It ends an unmount by a SIGTERM of its own, here and on /dev/fuse (test_ended_by_sigterm compares).
    end_status = 15

    def __init__(self, state):
        need_programs("glusterfs-server", "glusterd", "glusterfsd")
        need_programs("glusterfs-client", "glusterfs", "gluster")
        need_root()
        super().__init__(state)
        need_trusted_attributes(self.state)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self):
        os.makedirs("/var/log/glusterfs", exist_ok=True)
        self.make_namespace([("lib", "/var/lib/glusterd"), ("log", "/var/log/glusterfs"), ("run", "/run")])
        with open(self.path("glusterd.vol"), "w", encoding="utf-8") as f:
            f.write(f"""volume management
    type mgmt/glusterd
    option working-directory /var/lib/glusterd
    option transport-type socket
    option transport.socket.bind-address {ADDRESS}
    option event-threads 1
    option ping-timeout 0
end-volume
""")
        self.spawn("glusterd", self.inside("glusterd", "-N", "-f", self.path("glusterd.vol"),
                                           "-l", self.path("glusterd.log")))
        self.wait_until("glusterd", lambda: "<opRet>0</opRet>" in self.gluster("volume list", check=False), 60)
        bricks = " ".join(f"{ADDRESS}:{self.path(f'brick{i}')}" for i in (0, 1))
        self.gluster(f"volume create {VOLUME} replica 2 {bricks} force")
        self.gluster(f"volume start {VOLUME}")
        self.wait_until("two bricks", lambda: self.gluster("volume status").count("<status>1</status>") >= 2, 60)

    def gluster(self, command, check=True):
        argv = self.inside("gluster", "--mode=script", "--xml", *command.split())
        if check:
            return self.run(argv)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60, check=False).stdout

    def background_command(self, mountpoint):
        return [word for word in self.fuse_command(mountpoint) if word != "-N"]

    def fuse_command(self, mountpoint, *options):
        return self.client("glusterfs", "-N", f"--volfile-server={ADDRESS}", f"--volfile-id=/{VOLUME}",
                           "-l", self.path("client.log"), *options, mountpoint)


def posix_command(state, mountpoint, *options):
    need_programs("glusterfs-client", "glusterfs")
    need_root()
    need_trusted_attributes(state)
    brick = os.path.join(state, "brick")
    os.makedirs(brick, exist_ok=True)
    volfile = os.path.join(state, "posix.vol")
    with open(volfile, "w", encoding="utf-8") as f:
        f.write(POSIX_VOLFILE.format(brick=brick))
    return ["glusterfs", "-N", "-f", volfile, "-l", os.path.join(state, "posix.log"), *options, mountpoint]
