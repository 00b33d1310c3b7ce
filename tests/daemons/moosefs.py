# SPDX-License-Identifier: BSD-3-Clause
"""MooseFS: a master and a chunkserver.

with MooseFs(state) as m: m.fuse_command("/mnt")

A master refuses chunkservers of 127/8: both live in a network namespace.
"""
import os
import pwd
import shutil

from server import ADDRESS, Server, need_programs, need_root

EMPTY = "/var/lib/mfs/metadata.mfs.empty"


class MooseFs(Server):
    package, program = "moosefs-client", "mfsmount"

    def __init__(self, state):
        need_programs("moosefs-master", "mfsmaster")
        need_programs("moosefs-chunkserver", "mfschunkserver")
        need_programs("moosefs-client", "mfsmount")
        need_root()
        super().__init__(state)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def _start(self):
        for name in ("master", "chunkserver", "disk"):
            os.makedirs(self.path(name))
        shutil.copy(EMPTY, self.path("master", "metadata.mfs"))
        user = pwd.getpwuid(os.getuid()).pw_name
        common = f"WORKING_USER = {user}\nWORKING_GROUP = {user}\nLOCK_MEMORY = 0\nNICE_LEVEL = 0\nDISABLE_OOM_KILLER = 0\n"
        exports = self._write("mfsexports.cfg", "* / rw,alldirs,admin,maproot=0:0\n")
        master = self._write("mfsmaster.cfg", f"""{common}DATA_PATH = {self.state}/master
EXPORTS_FILENAME = {exports}
TOPOLOGY_FILENAME = {self._write("mfstopology.cfg", "")}
MATOML_LISTEN_HOST = {ADDRESS}
MATOCS_LISTEN_HOST = {ADDRESS}
MATOCL_LISTEN_HOST = {ADDRESS}
CHUNKS_LOOP_MIN_TIME = 5
""")
        # Without a limit in MiB: that would count what others have on the same disk as used.
        disk = self._write("mfshdd.cfg", f"{self.state}/disk\n")
        chunkserver = self._write("mfschunkserver.cfg", f"""{common}DATA_PATH = {self.state}/chunkserver
HDD_CONF_FILENAME = {disk}
HDD_LEAVE_SPACE_DEFAULT = 64MiB
MASTER_HOST = {ADDRESS}
CSSERV_LISTEN_HOST = {ADDRESS}
BIND_HOST = {ADDRESS}
""")
        self.make_namespace()
        self.spawn("mfsmaster", self.inside("mfsmaster", "-c", master, "-f", "start"))
        self.spawn("mfschunkserver", self.inside("mfschunkserver", "-c", chunkserver, "-f", "start"))
        self.wait_until("a chunkserver", self._connected, 60)

    def _connected(self):
        with open(self.path("mfsmaster.log"), encoding="utf-8", errors="replace") as log:
            return "chunkserver register end" in log.read()

    def background_command(self, mountpoint):
        return [word for word in self.fuse_command(mountpoint) if word != "-f"]

    def fuse_command(self, mountpoint, *options):
        return self.client("mfsmount", "-f", "-H", ADDRESS, *options, mountpoint)
