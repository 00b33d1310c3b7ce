# SPDX-License-Identifier: BSD-3-Clause
"""Where S3 buckets are: an endpoint with a key, bucket creation, and the command lines of file systems that use them.

with S3Gateway(state) as g: g.bucket("b"); g.s3fs_command("b", "/mnt")      JuiceFS's S3 server, up in a second
S3 of a Ceph with gateway=True (ceph.py) is the same, over radosgw.
"""
import datetime
import hashlib
import hmac
import os
import shlex
import subprocess
import urllib.error
import urllib.request

from juicefs import JuiceFs
from server import Server, Unavailable, free_port, need_programs

# Where scripts/install-deps builds it.
S3QL = "/var/cache/fusewire/s3ql/bin"
ACCESS_KEY, SECRET_KEY, REGION = "fusewire", "fusewire-secret", "us-east-1"


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class S3:
    """An S3 server at @endpoint (http://127.0.0.1:port)."""

    def __init__(self, state, endpoint):
        self.endpoint = endpoint
        self.access_key, self.secret_key = ACCESS_KEY, SECRET_KEY
        self.password = os.path.join(state, "s3.passwd")
        with open(os.open(self.password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
            f.write(f"{ACCESS_KEY}:{SECRET_KEY}\n")

    def request(self, method, path):
        """Without a body, signed (AWS Signature Version 4). Returns (status, body)."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        payload = hashlib.sha256(b"").hexdigest()
        headers = {"host": self.endpoint.removeprefix("http://"), "x-amz-content-sha256": payload, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        canonical = "\n".join([method, path, "", *(f"{k}:{headers[k]}" for k in sorted(headers)), "", names, payload])
        scope = f"{day}/{REGION}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + SECRET_KEY).encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = _hmac(key, part)
        headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, "
                                    f"Signature={_hmac(key, text).hex()}")
        request = urllib.request.Request(self.endpoint + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def bucket(self, name):
        status, body = self.request("PUT", f"/{name}")
        if status != 200:
            raise RuntimeError(f"bucket {name}: HTTP {status}: {body.decode(errors='replace')}")

    def s3fs_command(self, bucket, mountpoint, *options):
        need_programs("s3fs", "s3fs")
        return ["s3fs", bucket, mountpoint, "-f", "-o", f"url={self.endpoint}", "-o", "use_path_request_style",
                "-o", f"passwd_file={self.password}", *options]


class S3Gateway(Server, S3):
    def __init__(self, state):
        Server.__init__(self, state)
        self.volume = JuiceFs(self.path("volume"), meta="sqlite")
        port = free_port()
        S3.__init__(self, self.state, f"http://127.0.0.1:{port}")
        try:
            environment = {**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
            self.spawn("gateway", [self.volume.juicefs, "gateway", "--no-usage-report", "--multi-buckets", "--no-banner",
                                   "--object-meta", "--keep-etag", "--cache-dir", self.path("cache"),
                                   self.volume.meta, f"127.0.0.1:{port}"], env=environment)
            self.wait_until("an S3 answer", self._answers, 60)
        except BaseException:
            self.close()
            raise

    def _answers(self):
        try:
            return self.request("GET", "/")[0] == 200
        except OSError:
            return False

    def close(self):
        Server.close(self)
        self.volume.close()


class S3ql(Server):
    """S3QL in a bucket of a gateway."""

    package, program = "s3ql", "mount.s3ql"

    def __init__(self, state):
        if not os.access(os.path.join(S3QL, self.program), os.X_OK):
            raise Unavailable("no mount.s3ql: not in this release of Debian, and its sources of a later one could not be had")
        super().__init__(state)
        self.gateway = S3Gateway(self.path("s3"))
        try:
            self.gateway.bucket("bucket")
            self.url = self.gateway.endpoint.replace("http", "s3c4", 1) + "/bucket/s3ql"
            self.login = self.path("authinfo")
            with open(os.open(self.login, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
                f.write(f"[s3]\nstorage-url: {self.url}\nbackend-login: {ACCESS_KEY}\nbackend-password: {SECRET_KEY}\n")
            os.makedirs(self.path("cache"))
            self.run(self.words("mkfs", "--plain"))
        except BaseException:
            self.close()
            raise

    def words(self, program, *options):
        return [os.path.join(S3QL, program + ".s3ql"), "--backend-options", f"no-ssl,sig-region={REGION}",
                "--authfile", self.login, "--cachedir", self.path("cache"), "--log", self.path("s3ql.log"), *options, self.url]

    def background_command(self, mountpoint):
        return [*self.words("mount", "--allow-other"), mountpoint]

    def fuse_command(self, mountpoint, *options):
        return [*self.words("mount", "--fg", "--allow-other", *options), mountpoint]

    def restart_command(self, mountpoint):
        """After its own death it asks for a repair."""
        return ["sh", "-c", shlex.join(self.words("fsck", "--batch")) + "; exec \"$@\"", "sh", *self.fuse_command(mountpoint)]

    def repair(self):
        """fsck's status tells what it found."""
        subprocess.run(self.words("fsck", "--batch"), stdin=subprocess.DEVNULL, check=False, timeout=60)

    def check(self):
        """It was uploaded, and marked as clean."""
        said = self.run(self.words("fsck", "--batch"))
        assert "marked as clean" in said, said

    def close(self):
        super().close()
        self.gateway.close()
