# SPDX-License-Identifier: BSD-3-Clause
"""Guests of other processors than this machine's: their Debian kernel in QEMU, with virtio-fs devices and one script to run.

Environment: FUSEWIRE_FOREIGN_GUEST_DIR  their kernels and busybox (default: where scripts/install-deps unpacks them)
             FOREIGN_SUITES              colon-separated guest suites built for them: guest_suite_ARCH
"""
import glob
import os
import shutil
import subprocess

import initrd

DIR = os.environ.get("FUSEWIRE_FOREIGN_GUEST_DIR", "/var/cache/fusewire/foreign-guests")


class Machine:
    """How QEMU is started for one, and what its guests differ in from those of this machine.

    @arch: Debian's name; @options: of QEMU; @device: of virtio-fs; @console: of the kernel; @run_options: of fusewire
    @counts: /proc/interrupts tells the queues apart
    """

    def __init__(self, arch, qemu, options, device, console, run_options, counts=True):
        self.arch, self.qemu, self.options, self.device, self.console = arch, qemu, options, device, console
        self.run_options, self.counts = run_options, counts

    def path(self, *names):
        found = glob.glob(os.path.join(DIR, self.arch, *names))
        return found[0] if len(found) == 1 else None

    def suite(self):
        for path in os.environ.get("FOREIGN_SUITES", "").split(":"):
            if os.path.basename(path) == "guest_suite_" + self.arch:
                return path
        return None

    def missing(self):
        """Why it cannot be started; None if it can."""
        if not shutil.which(self.qemu):
            return f"{self.qemu} is not installed"
        if not self.path("complete"):
            return f"no kernel in {os.path.join(DIR, self.arch)}"
        return None if self.suite() else f"no compiler for {self.arch}"

    def initrd(self, folder, script):
        return initrd.pack(folder, {self.path("busybox"): "busybox", self.suite(): "guest_suite"},
                           glob.glob(os.path.join(DIR, self.arch, "modules", "*.ko")), script)

    def run(self, folder, script, backends, timeout):
        """Boot a guest that mounts each of @backends on /mnt/TAG and runs @script. Returns its console's text."""
        argv = [self.qemu, *self.options, "-accel", "tcg,thread=multi", "-m", "1G", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-object", "memory-backend-memfd,id=mem,size=1G,share=on", "-chardev", "stdio,id=console", "-serial",
                "chardev:console", "-kernel", self.path("vmlinu*"), "-initrd", self.initrd(folder, initrd.mounts(backends) + script),
                "-append", f"console={self.console} quiet loglevel=1 panic=-1"]
        for number, b in enumerate(backends):
            argv += ["-chardev", f"socket,id=fs{number},path={b.socket}", "-device",
                     f"{self.device},chardev=fs{number},tag={b.tag},num-request-queues=1,queue-size=1024"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
                              check=False)
        return done.stdout.decode(errors="replace").replace("\r", "")


MACHINES = {
    # The other byte order. Adapter interrupts of channel devices have one line for all.
    "s390x": Machine("s390x", "qemu-system-s390x", ["-M", "s390-ccw-virtio,memory-backend=mem", "-cpu", "max"],
                     "vhost-user-fs-ccw", "ttysclp0", [], counts=False),
    # Other open flags.
    "arm64": Machine("arm64", "qemu-system-aarch64", ["-M", "virt,memory-backend=mem", "-cpu", "cortex-a72"],
                     "vhost-user-fs-pci", "ttyAMA0", ["--arch", "arm64"]),
    # Other open flags, and pages of 64 KiB.
    "ppc64el": Machine("ppc64el", "qemu-system-ppc64", ["-M", "pseries,memory-backend=mem,x-vof=on", "-cpu", "power9"],
                       "vhost-user-fs-pci", "hvc0", ["--arch", "ppc64le"]),
}
