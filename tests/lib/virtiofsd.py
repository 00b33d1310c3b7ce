# SPDX-License-Identifier: BSD-3-Clause
"""The two virtiofsd, which others wrote: that of QEMU, in C (Debian 12, qemu-system-common), and the one in Rust.

Debian 12 has no package of the latter. It is sought in the folder that FUSEWIRE_VIRTIOFSD_DIR names, in PATH, and where Debian 13
has it. `cargo install virtiofsd` makes it; libcap-ng-dev and libseccomp-dev are needed.
"""
import functools
import os
import shutil
import subprocess

C = "/usr/lib/qemu/virtiofsd"
KINDS = ["virtiofsd", "virtiofsd-rust"]


@functools.lru_cache
def _rust():
    places = [os.environ.get("FUSEWIRE_VIRTIOFSD_DIR", ""), *os.environ.get("PATH", "").split(":"), "/usr/libexec"]
    path = shutil.which("virtiofsd", path=":".join(p for p in places if p))
    # Somebody's PATH may have the one in C.
    if path and b"--shared-dir" in subprocess.run([path, "--help"], capture_output=True, check=False).stdout:
        return path
    return None


def why_not(kind):
    """Why it cannot be run, or None."""
    if kind == "virtiofsd" and not os.path.exists(C):
        return "virtiofsd (package qemu-system-common) is not installed"
    if kind == "virtiofsd-rust" and not _rust():
        return "virtiofsd in Rust is neither in FUSEWIRE_VIRTIOFSD_DIR nor in PATH nor in /usr/libexec"
    if os.geteuid() != 0:
        return "virtiofsd needs root"
    return None


def command(kind, socket, folder):
    """Its default sandbox makes namespaces, which containers may forbid."""
    if kind == "virtiofsd":
        return [C, f"--socket-path={socket}", "-o", f"source={folder}", "-o", "sandbox=chroot", "-o", "xattr"]
    return [_rust(), f"--socket-path={socket}", f"--shared-dir={folder}", "--sandbox=chroot", "--xattr", "--tag=t"]
