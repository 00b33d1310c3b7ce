# SPDX-License-Identifier: BSD-3-Clause
"""What the servers behind network file systems have in common: processes that end with the test, bounded waits, and
a namespace of their own where a server will not live on 127.0.0.1."""
import os
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from process import end  # noqa: E402

# Of no interface but a namespace's loopback device.
ADDRESS = "10.99.0.1"


class Unavailable(Exception):
    """The server cannot be had on this machine, for the reason in the text: skip, do not fail."""


def need_programs(package, *programs):
    for program in programs:
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            raise Unavailable(f"no {program}: Debian package {package}")


def need_root():
    if os.getuid() != 0:
        raise Unavailable("needs root: namespaces, trusted attributes")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """Processes, each with a log of its own in the folder @state, that end with the block: the last started first.

    They also end, by the kernel, when the test is killed. @state stays the caller's.
    """

    def __init__(self, state):
        self.state = os.path.abspath(state)
        self.processes = []
        self.holder = None
        os.makedirs(self.state, exist_ok=True)

    def path(self, *names):
        return os.path.join(self.state, *names)

    def spawn(self, name, command, **keywords):
        with open(self.path(name + ".log"), "ab") as log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, **keywords)
        process.name = name
        self.processes.append(process)
        return process

    def run(self, command, seconds=60, **keywords):
        """Run to the end; what it says is the result, or part of the exception."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=seconds, check=False, **keywords)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}\n{self.logs()}")
        return done.stdout

    def logs(self):
        text = ""
        for name in sorted(os.listdir(self.state)):
            if name.endswith(".log"):
                with open(self.path(name), encoding="utf-8", errors="replace") as log:
                    text += f"--- {name}\n" + "".join(log.readlines()[-15:])
        return text

    def wait_until(self, what, condition, seconds=60):
        """Until condition() is true; an exception if that takes too long or one of the processes ends."""
        deadline = time.monotonic() + seconds
        pause = 0.02
        while not condition():
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.name} ended with {process.returncode}\n{self.logs()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds} s: {what}\n{self.logs()}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def wait_port(self, port, address="127.0.0.1", seconds=60):
        def answers():
            try:
                socket.create_connection((address, port), timeout=1).close()
                return True
            except OSError:
                return False

        self.wait_until(f"connect to {address}:{port}", answers, seconds)

    def end(self, process, seconds=10):
        if process in self.processes:
            self.processes.remove(process)
        end(process, seconds)

    def make_namespace(self, folders=()):
        """Network, mounts and process numbers of the servers' own, with ADDRESS on its loopback device.

        @folders: pairs (a folder of the state, the system folder in whose place the servers see it).
        Programs get in with inside(), a daemon under test with client().
        """
        need_programs("util-linux", "unshare", "nsenter", "setpriv")
        need_programs("iproute2", "ip")
        # A copy of somebody's mount would keep it alive after its unmount.
        script = ("awk '$3 ~ /^fuse/ { print $2 }' /proc/mounts | while read -r at; do umount -l \"$at\"; done\n"
                  f"set -e; ip link set lo up; ip address add {ADDRESS}/32 dev lo\n")
        for mine, system in folders:
            os.makedirs(self.path(mine), exist_ok=True)
            script += f"mount --bind '{self.path(mine)}' {system}\n"
        script += f"touch '{self.path('namespace')}'; exec sleep infinity"
        unshare = self.spawn("namespace", ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
                                           "--mount-proc", "sh", "-c", script])
        self.wait_until("a namespace", lambda: os.path.exists(self.path("namespace")), 20)
        with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children", encoding="ascii") as f:
            self.holder = f.read().split()[0]

    def inside(self, *command):
        return ["nsenter", "--target", self.holder, "--net", "--mount", "--pid", *command]

    def client(self, *command):
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", *command]

    def close(self):
        """What runs inside a namespace goes with it at once, however it takes a signal."""
        namespace = [p for p in self.processes if p.name == "namespace"]
        for process in namespace:
            process.kill()
        while self.processes:
            self.end(self.processes[-1])

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
