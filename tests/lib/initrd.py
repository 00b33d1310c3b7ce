# SPDX-License-Identifier: BSD-3-Clause
"""Initial file systems of guests that `fusewire vm` does not start: busybox, modules, and one script."""
import gzip
import os
import shutil
import subprocess

# Those that a kernel has built in are not there. Which needs which differs between architectures: twice.
MODULES = ["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "fuse", "virtiofs"]
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in {modules} {modules}; do
	[ ! -e /lib/$m.ko ] || insmod /lib/$m.ko 2>/dev/null
done
sh /script
echo "@end $?"
poweroff -f
"""


def pack(folder, programs, modules, script):
    """Write @folder/initrd, of an architecture's @programs (busybox among them) and those of @modules that are needed. The guest runs
    @script, says "@end STATUS" on its console, and ends. Returns the file."""
    root = os.path.join(folder, "initrd.d")
    for name in ("bin", "lib", "mnt", "proc", "sys", "dev", "tmp"):
        os.makedirs(os.path.join(root, name))
    for source, name in programs.items():
        shutil.copy(source, os.path.join(root, "bin", name))
    for module in modules:
        if os.path.basename(module).removesuffix(".ko") in MODULES:
            shutil.copy(module, os.path.join(root, "lib"))
    for name, text in (("init", INIT.format(modules=" ".join(MODULES))), ("script", script)):
        with open(os.path.join(root, name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(os.path.join(root, name), 0o755)
    names = "\n".join(os.path.relpath(os.path.join(at, name), root) for at, folders, files in os.walk(root) for name in folders + files)
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=subprocess.PIPE,
                            check=True).stdout
    path = os.path.join(folder, "initrd")
    with gzip.open(path, "wb", compresslevel=1) as f:
        f.write(packed)
    return path


def mounts(backends):
    """The beginning of a script: each of @backends on /mnt/TAG."""
    return "".join(f"mkdir -p /mnt/{b.tag} && mount -t virtiofs {b.tag} /mnt/{b.tag} || exit 99\n" for b in backends)
