# SPDX-License-Identifier: BSD-3-Clause
"""A private sshd on 127.0.0.1, with keys and configuration of its own, for tests and the demo.

As a module:      with Sshd(tempdir) as s: s.sshfs_command("/dir/to/serve", "/mnt")
As a program:     sshd.py STATE_DIR          runs sshd until end of file on stdin or SIGTERM, and prints, as shell
                                             assignments, SSHD_PORT, SSHD_KEY, SSHD_CONFIG (for ssh -F), SSHD_USER

Runs as root or as an ordinary user; it logs in as the same user. Nothing outside the state directory is touched.
"""
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Sshd:
    """One server process; close() ends it. The state directory stays the caller's."""

    def __init__(self, state):
        self.state = os.path.abspath(state)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.key = os.path.join(self.state, "client_key")
        self.config = os.path.join(self.state, "ssh_config")
        self.log = os.path.join(self.state, "sshd.log")
        self.process = None
        self.port = None
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        self._keys()
        for _ in range(5):
            if self._start():
                return
        raise RuntimeError("sshd does not start: " + open(self.log).read())

    def _keys(self):
        for name in ("client_key", "host_key"):
            path = os.path.join(self.state, name)
            if not os.path.exists(path):
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        shutil.copy(self.key + ".pub", os.path.join(self.state, "authorized_keys"))
        os.chmod(os.path.join(self.state, "authorized_keys"), 0o600)

    def _start(self):
        self.port = _free_port()
        server = os.path.join(self.state, "sshd_config")
        known = os.path.join(self.state, "known_hosts")
        with open(server, "w") as f:
            f.write(f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.state}/host_key
AuthorizedKeysFile {self.state}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin yes
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
""")
        with open(os.path.join(self.state, "host_key.pub")) as f:
            kind, blob = f.read().split()[:2]
        with open(known, "w") as f:
            f.write(f"[127.0.0.1]:{self.port} {kind} {blob}\n")
        with open(self.config, "w") as f:
            f.write(f"""Host *
    Port {self.port}
    User {self.user}
    IdentityFile {self.key}
    IdentitiesOnly yes
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 10
""")
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([sshd, "-D", "-e", "-f", server], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return True
            except OSError:
                time.sleep(0.02)
        self.close()
        return False

    def sshfs_command(self, directory, mountpoint, *options, config=None):
        """The command line that a user would type to mount directory."""
        return ["sshfs", "-F", config or self.config, f"{self.user}@127.0.0.1:{directory}", mountpoint, *options]

    def client_files(self, directory, uid):
        """Key and configuration for a client that runs as another user; returns the configuration's path."""
        paths = [os.path.join(directory, name) for name in ("client_key", "known_hosts", "ssh_config")]
        for path in paths:
            with open(os.path.join(self.state, os.path.basename(path))) as f:
                text = f.read().replace(self.state + "/", directory + "/")
            with open(path, "w") as f:
                f.write(text)
            os.chmod(path, 0o600)
            os.chown(path, uid, uid)
        return paths[-1]

    def close(self):
        """End the server; connections that are open end with their clients."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: sshd.py STATE_DIR")

    def stop(*unused):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    with Sshd(sys.argv[1]) as s:
        for name, value in (("PORT", s.port), ("KEY", s.key), ("CONFIG", s.config), ("USER", s.user)):
            print(f"SSHD_{name}={shlex.quote(str(value))}")
        print(flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
