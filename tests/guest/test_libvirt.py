# SPDX-License-Identifier: BSD-3-Clause
"""A domain of libvirt, as README.md has it: an ordinary user's, without KVM."""
import glob
import os
import re
import shutil
import subprocess

import pytest

import guest
import initrd

# As root we are somebody else: libvirt's session is an ordinary user's.
NOBODY = 65534
KERNELS = "/var/cache/fusewire/kernels/linux-image-6.1.*"
DOMAIN = """
<domain type='qemu'>
  <name>fusewire-test</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 tsc=unstable</cmdline>
  </os>
  {memory}
  <devices>
    {filesystem}
    <serial type='file'><source path='{console}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def readme(element):
    with open(os.path.join(guest.ROOT, "README.md"), encoding="utf-8") as f:
        return re.search(f"<{element}.*?</{element}>", f.read(), re.S).group()


class Session:
    """libvirt of an ordinary user, with folders of its own; what it started ends with it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("home/.config/libvirt", "run"):
            os.makedirs(os.path.join(folder, name))
        # Else a virtlogd writes the console's log, and stays for two minutes.
        with open(os.path.join(folder, "home/.config/libvirt/qemu.conf"), "w", encoding="utf-8") as f:
            f.write('stdio_handler = "file"\n')
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.path.join(folder, "home"), "XDG_RUNTIME_DIR": os.path.join(folder, "run")}
        self.user = {} if os.getuid() else {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.socket = os.path.join(folder, "run/libvirt/libvirt-sock")
        self.daemon = None

    def give(self):
        """All that is in the folder is the user's."""
        for at, folders, files in os.walk(self.folder):
            for name in [at] + [os.path.join(at, name) for name in folders + files]:
                if self.user:
                    os.chown(name, NOBODY, NOBODY, follow_symlinks=False)

    def start(self, *argv):
        with open(os.path.join(self.folder, os.path.basename(argv[0]) + ".log"), "ab") as log:
            return subprocess.Popen(argv, env=self.environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.user)

    def virsh(self, *words):
        done = subprocess.run(["virsh", "-c", f"qemu:///session?socket={self.socket}", *words], env=self.environment, cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, text=True,
                              check=False, **self.user)
        return done.returncode, done.stdout

    def open(self):
        self.daemon = self.start("libvirtd")
        guest.wait_for("libvirtd", lambda: self.virsh("uri")[0] == 0 or self.daemon.poll() is not None)
        assert self.daemon.poll() is None

    def close(self):
        if self.daemon:
            self.virsh("destroy", "fusewire-test")
            self.daemon.terminate()
            self.daemon.wait(30)


@pytest.fixture
def session(tmp):
    if not (guest.have("virsh") and guest.have("libvirtd")):
        pytest.skip("libvirt is not installed")
    if not glob.glob(KERNELS):
        # It fetches the kernel.
        assert guest.vm(["--kernel-version", "6.1"], ["true"]).returncode == 0
    if not glob.glob(KERNELS):
        pytest.skip(f"no {KERNELS}")
    os.chmod(tmp, 0o755)
    made = Session(tmp)
    yield made
    made.close()


def text_of(path):
    with open(path, errors="replace", encoding="utf-8") as f:
        return f.read()


@pytest.mark.parametrize("way", ["auto", "never"], ids=["in-process", "channel"])
def test_domain_of_readme(tmp, session, way):
    kernel = glob.glob(KERNELS)[0]
    modules = glob.glob(kernel + "/lib/modules/*/kernel/**/*.ko", recursive=True)
    socket = os.path.join(tmp, "x.sock")
    for name in ("served", "mnt"):
        os.mkdir(os.path.join(tmp, name))
    with open(os.path.join(tmp, "served/question"), "w", encoding="utf-8") as f:
        f.write("from here\n")
    # What lies in a home directory that only root may enter is nothing that a test's user sees.
    for name in ("src/cli", "preload"):
        os.makedirs(os.path.join(tmp, name))
    program = shutil.copy(guest.FUSEWIRE, os.path.join(tmp, "src/cli"))
    shutil.copy(os.environ["PRELOAD_LIBRARY"], os.path.join(tmp, "preload"))
    image = shutil.copy(glob.glob(kernel + "/boot/vmlinuz*")[0], tmp)
    packed = initrd.pack(tmp, {shutil.which("busybox"): "busybox"}, modules,
                         "mkdir /mnt/x && mount -t virtiofs x /mnt/x && cat /mnt/x/question && echo from there >/mnt/x/answer\n")
    domain = os.path.join(tmp, "domain.xml")
    console = os.path.join(tmp, "console")
    with open(domain, "w", encoding="utf-8") as f:
        f.write(DOMAIN.format(kernel=image, initrd=packed, console=console, memory=readme("memoryBacking"),
                              filesystem=readme("filesystem").replace("/run/x.sock", socket)))
    session.give()
    serving = session.start(program, "run", "--in-process", way, "--socket", socket, "--tag", "x", "--", "bindfs", "-f",
                            os.path.join(tmp, "served"), os.path.join(tmp, "mnt"))
    log = os.path.join(tmp, "fusewire.log")
    try:
        guest.wait_for("the daemon", lambda: "serving tag" in text_of(log) or serving.poll() is not None)
        assert ("served in-process" in text_of(log)) == (way == "auto"), text_of(log)
        session.open()
        status, out = session.virsh("create", domain)
        assert status == 0, out
        # Its first boot is its last.
        guest.wait_for("the guest", lambda: "fusewire-test" not in session.virsh("list", "--name")[1], 100)
        assert re.search(r"^from here\r?\n@end 0\r?$", text_of(console), re.M), text_of(console) + text_of(log)
        assert text_of(os.path.join(tmp, "served/answer")) == "from there\n"
        # The socket is there for the next.
        assert serving.poll() is None and os.path.exists(socket)
    finally:
        serving.terminate()
        assert serving.wait(30) in (0, 1), text_of(log)
    assert not os.path.exists(socket)
