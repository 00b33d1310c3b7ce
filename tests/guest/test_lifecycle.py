# SPDX-License-Identifier: BSD-3-Clause
"""Front-ends come and go on one socket: reboot, kill, a second VM, unplugging and plugging in again."""
import json
import os
import signal
import socket
import time

import guest


def test_reboot(plain_backend, kind):
    """The guest reboots while it has the file system mounted and a file open."""
    options, _ = kind
    script = ("echo boot >>/mnt/t/boots; n=$(wc -l </mnt/t/boots); "
              "exec 5</mnt/t/boots; [ $n -lt 3 ] && reboot -f; echo boots: $n")
    if plain_backend.one_shot:
        import pytest
        pytest.skip("this back-end ends with its first front-end")
    done = guest.vm([*options, "--allow-reboot"], backends=[plain_backend], command=[script])
    print(done.stderr.decode(errors="replace"), plain_backend.log_text()[-4000:])
    assert (done.returncode, done.stdout) == (0, b"boots: 3\n")
    assert plain_backend.alive()


def test_killed_vmm_then_second_vm(plain_backend):
    """A VMM that dies in the middle of requests leaves a device that serves the next one."""
    first = guest.Shell(backends=[plain_backend])
    try:
        first.check("echo kept >/mnt/t/kept; sync")
        first.send("while :; do dd if=/dev/zero of=/mnt/t/busy bs=1M count=16 oflag=direct 2>/dev/null; done")
        guest.wait_for("writing to begin", lambda: os.path.exists(plain_backend.path("busy")))
        time.sleep(0.5)
    finally:
        first.kill()
    if plain_backend.one_shot:
        plain_backend.process.wait(10)
        plain_backend.start()
    assert plain_backend.alive()
    for _ in range(2):
        done = guest.vm(backends=[plain_backend],
                        command=["cat /mnt/t/kept && rm -f /mnt/t/busy && echo more >/mnt/t/more && cat /mnt/t/more"])
        assert (done.returncode, done.stdout) == (0, b"kept\nmore\n"), done.stderr
        if plain_backend.one_shot:
            break
    assert sorted(os.listdir(plain_backend.dir)) == ["kept", "more"]


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        guest.wait_for("QMP socket", lambda: os.path.exists(path))
        self.sock.connect(path)
        self.file = self.sock.makefile("r")
        json.loads(self.file.readline())
        self.events = []
        self.call("qmp_capabilities")

    def _next(self):
        line = self.file.readline()
        assert line, "QEMU closed QMP"
        return json.loads(line)

    def call(self, name, **arguments):
        self.sock.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._next()
            if "event" in message:
                self.events.append(message)
            else:
                assert "return" in message, message
                return message["return"]

    def wait_deleted(self, device):
        """The device's own event: its virtio part has one, too, without an id."""
        while True:
            message = self.events.pop(0) if self.events else self._next()
            if message.get("event") == "DEVICE_DELETED" and message["data"].get("device") == device:
                return

    def close(self):
        self.file.close()
        self.sock.close()


def plug(qmp, backend, device):
    qmp.call("chardev-add", id="c-" + device, backend={"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": backend.socket}}, "server": False}})
    qmp.call("device_add", driver="vhost-user-fs-pci", id=device, chardev="c-" + device, tag="hot",
             bus="rp0", **{"num-request-queues": backend.queues, "queue-size": 1024})


def unplug(qmp, device):
    qmp.call("device_del", id=device)
    qmp.wait_deleted(device)
    qmp.call("chardev-remove", id="c-" + device)


def test_unplug_and_plug_in_again(plain_backend, tmp):
    path = os.path.join(tmp, "qmp")
    args = ["-qmp", f"unix:{path},server=on,wait=off", "-device", "pcie-root-port,id=rp0,chassis=1,slot=1"]
    shell = guest.Shell([w for a in args for w in ("--qemu-arg", a)])
    with open(plain_backend.path("f"), "w") as f:
        f.write("plugged\n")
    try:
        shell.check("mkdir -p /mnt/hot")
        qmp = Qmp(path)
        for i in range(2):
            plug(qmp, plain_backend, f"fs{i}")
            shell.check("for i in $(seq 100); do mount -t virtiofs hot /mnt/hot 2>/dev/null && break; sleep 0.1; done")
            assert shell.check("cat /mnt/hot/f") == "plugged\n"
            shell.check(f"echo {i} >/mnt/hot/from-{i}")
            shell.check("umount /mnt/hot")
            unplug(qmp, f"fs{i}")
            if plain_backend.one_shot:
                break
        qmp.close()
        assert shell.end() == 0
    finally:
        shell.kill()
    assert os.path.exists(plain_backend.path("from-0"))
    assert plain_backend.one_shot or os.path.exists(plain_backend.path("from-1"))


def test_backend_ends_at_sigterm_under_a_running_guest(plain_backend):
    """SIGTERM ends the service though a guest still has it mounted; the guest lives on."""
    shell = guest.Shell(backends=[plain_backend])
    try:
        shell.check("echo x >/mnt/t/x; sync")
        plain_backend.process.send_signal(signal.SIGTERM)
        plain_backend.process.wait(15)
        assert shell.check("echo alive") == "alive\n"
        if not plain_backend.one_shot:
            assert not os.path.exists(plain_backend.socket)
        assert shell.process.stderr.readline().startswith(b"fusewire vm: a back-end has closed its connection")
    finally:
        shell.kill()
