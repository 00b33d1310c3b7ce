# SPDX-License-Identifier: BSD-3-Clause
"""A one-node Ceph on 127.0.0.1: mon, mgr, osd, mds with one file system, and, when asked for, an S3 gateway.

with Ceph(state) as c: c.fuse_command("/mnt")
with Ceph(state, gateway=True) as c: c.s3.s3fs_command(...)

Configuration, keys, data and sockets are in the state folder. The osd is a memory store: what the tests write in
all has to fit in `memory_bytes`.
"""
import json
import os
import uuid

from s3 import S3
from server import Server, free_port, need_programs


class Ceph(Server):
    package, program = "ceph-fuse", "ceph-fuse"

    def __init__(self, state, gateway=False, memory_bytes=6 << 30):
        need_programs("ceph-mon", "ceph-mon", "monmaptool")
        need_programs("ceph-mgr", "ceph-mgr")
        need_programs("ceph-osd", "ceph-osd")
        need_programs("ceph-mds", "ceph-mds")
        need_programs("ceph-common", "ceph", "ceph-authtool")
        super().__init__(state)
        self.conf = self.path("ceph.conf")
        self.s3 = None
        try:
            self._configure(memory_bytes)
            self._start_mon()
            self._start_rest()
            if gateway:
                need_programs("radosgw", "radosgw", "radosgw-admin")
                self._start_gateway()
            self._wait_active()
        except BaseException:
            self.close()
            raise

    def _configure(self, memory_bytes):
        self.fsid = str(uuid.uuid4())
        self.mon_port = free_port()
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(f"""[global]
fsid = {self.fsid}
mon host = v2:127.0.0.1:{self.mon_port}
public addr = 127.0.0.1
keyring = {self.state}/keyring
admin socket = {self.state}/$name.$pid.asok
run dir = {self.state}
log file = {self.state}/$name.log
pid file =
crash dir = {self.state}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
ms bind ipv6 = false
ms bind msgr1 = false
ms async op threads = 2
[mon]
mon data = {self.state}/mon
mon cluster log file = {self.state}/cluster.log
auth allow insecure global id reclaim = false
[mgr]
mgr data = {self.state}/mgr
mgr initial modules =
[osd]
osd data = {self.state}/osd
osd objectstore = memstore
memstore device bytes = {memory_bytes}
osd op num shards = 2
[mds]
mds data = {self.state}/mds
mds cache memory limit = 256M
""")

    def _start_mon(self):
        keyring, monmap = self.path("keyring"), self.path("monmap")
        self.run(["ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"])
        self.run(["ceph-authtool", keyring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *",
                  "--cap", "osd", "allow *", "--cap", "mds", "allow *", "--cap", "mgr", "allow *"])
        self.run(["monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", f"[v2:127.0.0.1:{self.mon_port}]",
                  monmap])
        for name in ("mon", "mgr", "osd", "mds"):
            os.makedirs(self.path(name))
        self.run(["ceph-mon", "-c", self.conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring])
        self.spawn("mon", ["ceph-mon", "-c", self.conf, "-f", "-i", "a"])

    def ceph(self, *arguments, seconds=90):
        return self.run(["ceph", "-c", self.conf, "--connect-timeout", "60", *arguments], seconds)

    def _key(self, name, *caps):
        """A key of its own in the common keyring."""
        text = self.ceph("auth", "get-or-create", name, *caps)
        with open(self.path("keyring"), "a", encoding="utf-8") as f:
            f.write(text)

    def _start_rest(self):
        self._key("mgr.x", "mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
        self._key("osd.0", "mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
        self._key("mds.a", "mon", "allow profile mds", "osd", "allow *", "mds", "allow *", "mgr", "allow profile mds")
        self.spawn("mgr", ["ceph-mgr", "-c", self.conf, "-f", "-i", "x"])
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd, "0")
        self.run(["ceph-osd", "-c", self.conf, "-i", "0", "--mkfs", "--osd-uuid", osd])
        self.spawn("osd", ["ceph-osd", "-c", self.conf, "-f", "-i", "0"])
        for pool in ("metadata", "data"):
            self.ceph("osd", "pool", "create", pool, "8")
        self.ceph("fs", "new", "cephfs", "metadata", "data")
        self.spawn("mds", ["ceph-mds", "-c", self.conf, "-f", "-i", "a"])

    def _wait_active(self):
        def active():
            status = json.loads(self.ceph("status", "--format", "json"))
            return status["fsmap"].get("up", 0) == 1 and all(
                m["status"] == "up:active" for m in status["fsmap"]["by_rank"]) and status["fsmap"]["by_rank"]

        # The keyring has keys for all.
        os.chmod(self.path("keyring"), 0o600)
        self.wait_until("an active mds", active, 120)

    def _start_gateway(self):
        self._key("client.rgw.a", "mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw")
        port = free_port()
        self.spawn("rgw", ["radosgw", "-c", self.conf, "-f", "-n", "client.rgw.a",
                           "--rgw-frontends", f"beast endpoint=127.0.0.1:{port} tcp_nodelay=1"])
        self.s3 = S3(self.state, f"http://127.0.0.1:{port}")
        self.run(["radosgw-admin", "-c", self.conf, "user", "create", "--uid", "fusewire", "--display-name", "fusewire",
                  "--access-key", self.s3.access_key, "--secret-key", self.s3.secret_key], 120)
        self.wait_port(port, seconds=120)

    def background_command(self, mountpoint):
        return [word for word in self.fuse_command(mountpoint) if word != "-f"]

    def fuse_command(self, mountpoint, *options):
        return ["ceph-fuse", "-f", "-c", self.conf, "-n", "client.admin", *options, mountpoint]
