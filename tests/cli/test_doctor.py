# SPDX-License-Identifier: BSD-3-Clause
"""fusewire doctor: each thing that stands in the way is made to, and found."""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest

FUSEWIRE = os.environ["FUSEWIRE"]
NOBODY = 65534
ROOT = os.getuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="fw-doctor-") as name:
        top = pathlib.Path(name)
        os.chmod(top, 0o755)
        shutil.copy(FUSEWIRE, top / "fusewire")
        (top / "mnt").mkdir()
        (top / "open").mkdir()
        os.chmod(top / "open", 0o777)
        yield top


def doctor(place, *args, wrap=(), **kwargs):
    """Exit status and {check: (level, text, mend)} of a run."""
    r = subprocess.run([*wrap, str(place / "fusewire"), "doctor", "--json", *args], capture_output=True, text=True,
                       timeout=60, stdin=subprocess.DEVNULL, **kwargs)
    assert r.stdout, r.stderr
    report = json.loads(r.stdout)
    found = {f["check"]: (f["level"], f["text"], f["mend"]) for f in report["findings"]}
    levels = [f["level"] for f in report["findings"]]
    assert report["problems"] == levels.count("problem") and report["warnings"] == levels.count("warning")
    assert r.returncode == (1 if report["problems"] else 0)
    return r.returncode, found


def command(place, *args, **kwargs):
    return doctor(place, "--", *args, **kwargs)


def user():
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if ROOT else []


def inside(script):
    return ["unshare", "-m", "--propagation", "private", "sh", "-ec", script + '; exec "$@"', "sh"]


@needs_root
def test_nothing_in_the_way(place):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE in this kernel")
    status, found = doctor(place, "--socket", str(place / "s"), "--", "sshfs", "server:/", str(place / "mnt"))
    assert status == 0
    bad = {check: f for check, f in found.items() if f[0] in ("problem", "warning")}
    # What the machine has by itself is not ours to say.
    assert not bad.keys() - {"qemu-user", "selinux", "apparmor", "open-files"}, bad
    for check in ("kernel", "fuse-device", "unmount", "socket-buffer", "interception", "placeholder", "socket", "command",
                  "mount-point"):
        assert found[check][0] == "ok", found[check]
    assert "libfuse 3" in found["command"][1]
    assert not os.path.exists(place / "s") and os.listdir(place / "mnt") == []


def test_text(place):
    r = subprocess.run([str(place / "fusewire"), "doctor", "--", "/nonexisting"], capture_output=True, text=True,
                       timeout=60)
    assert r.returncode == 1 and r.stderr == ""
    assert "problem  command        /nonexisting: No such file or directory\n" in r.stdout
    assert "to mend it: install it" in r.stdout
    assert r.stdout.splitlines()[-1].startswith("1 problem, ")


def test_nested(place):
    """Under another filter with a supervisor there cannot be a second one."""
    r = subprocess.run([FUSEWIRE, "run", "--socket", str(place / "s"), "--tag", "t", "--", FUSEWIRE, "doctor", "--json"],
                       capture_output=True, text=True, timeout=60)
    [f] = [f for f in json.loads(r.stdout)["findings"] if f["check"] == "interception"]
    assert r.returncode == 1
    assert f["level"] == "problem" and "busy" in f["text"] and "run it outside" in f["mend"]


FORBID = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *i) for i in [
    (0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7fff0000)])
keep = ctypes.create_string_buffer(code)
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
prog = Prog(len(code) // 8, ctypes.addressof(keep))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
SYS = {"seccomp": 317, "ptrace": 101, "process_vm_readv": 310, "unshare": 272}


def without(call):
    """A container whose filter refuses a system call with EPERM."""
    if os.uname().machine != "x86_64":
        pytest.skip("knows the numbers of system calls of x86-64")
    return [sys.executable, "-c", FORBID, str(SYS[call])]


def test_seccomp_forbidden(place):
    status, found = doctor(place, wrap=without("seccomp"))
    assert status == 1
    level, text, mend = found["interception"]
    assert level == "problem" and "not permitted" in text and "seccomp=unconfined" in mend
    assert "placeholder" not in found


@pytest.mark.skipif("asan" in FUSEWIRE, reason="the leak sanitizer uses ptrace(2)")
def test_ptrace_forbidden(place):
    status, found = doctor(place, wrap=without("ptrace"))
    level, text, mend = found["unmount"]
    assert level == "warning" and "cannot be traced" in text and "SYS_PTRACE" in mend
    assert found["interception"][0] == "ok"


def test_looking_forbidden(place):
    """As kernel.yama.ptrace_scope=2 does it for ordinary users."""
    status, found = doctor(place, wrap=without("process_vm_readv"))
    level, text, mend = found["interception"]
    assert status == 1 and level == "problem" and "is not intercepted" in text and "ptrace_scope" in mend


def test_namespaces_forbidden(place):
    status, found = doctor(place, wrap=without("unshare"))
    level, text, mend = found["placeholder"]
    assert status == 0 and level == "warning" and "gocryptfs" in text and mend


@needs_root
def test_no_namespaces(place):
    limit = ["unshare", "-Urm", "sh", "-ec", 'echo 0 >/proc/sys/user/max_mnt_namespaces; exec "$@"', "sh"]
    status, found = doctor(place, wrap=limit)
    level, text, mend = found["placeholder"]
    assert level == "warning" and "No space left" in text and "max_mnt_namespaces" in mend


def test_kernel_too_old(place):
    """The kernel can be told to give an old version: 2.6.60 or so."""
    _, found = doctor(place, wrap=["setarch", "--uname-2.6"])
    level, text, mend = found["kernel"]
    assert level == "problem" and text.startswith("Linux 2.6.") and mend == "Linux 5.14 or later"


@needs_root
@pytest.mark.parametrize("enforce,level", [("1", "warning"), ("0", "ok")], ids=["enforcing", "permissive"])
def test_selinux(place, enforce, level):
    _, found = doctor(place, wrap=inside(f"mount -t tmpfs none /sys/fs; mkdir /sys/fs/selinux; printf {enforce} >/sys/fs/selinux/enforce"))
    assert found["selinux"][0] == level
    assert "chcon -t svirt_image_t" in found["selinux"][2] if level == "warning" else found["selinux"][1:] == ("permissive", "")


@needs_root
@pytest.mark.parametrize("enabled", ["Y", "N"])
def test_apparmor(place, enabled):
    folder = "/sys/module/apparmor/parameters"
    _, found = doctor(place, wrap=inside(f"mount -t tmpfs none /sys/module; mkdir -p {folder}; echo {enabled} >{folder}/enabled"))
    if enabled == "N":
        assert "apparmor" not in found
    elif os.path.exists("/etc/apparmor.d/abstractions/libvirt-qemu"):
        assert found["apparmor"][0] == "note" and "libvirt-qemu" in found["apparmor"][2]
    else:
        assert found["apparmor"][:2] == ("ok", "in force, and not for us")


@needs_root
@pytest.mark.parametrize("hide,words", [
    ("mount --bind /dev/null /dev/fuse", None),
    ("mount -t tmpfs none /mnt; touch /mnt/null; mount --bind /dev/null /mnt/null; mount --bind /mnt /dev", "No such file"),
], ids=["not FUSE", "no device"])
def test_no_device(place, hide, words):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE in this kernel to hide")
    status, found = doctor(place, wrap=inside(hide))
    assert status == 0
    assert found["interception"][0] == "ok" and found["unmount"][0] == "note"
    assert found["placeholder"][0] == "note" and "tmpfs" in found["placeholder"][1]
    if words:
        assert found["fuse-device"][0] == "note" and words in found["fuse-device"][1]


@needs_root
def test_device_closed_to_users(place):
    if not os.path.exists("/dev/fuse") or os.stat("/dev/fuse").st_mode & 2:
        pytest.skip("/dev/fuse is open to all, or not there")
    status, found = doctor(place, wrap=user())
    level, text, mend = found["fuse-device"]
    assert level == "note" and "Permission denied" in text and "chmod" in mend


def test_buffer_is_what_the_kernel_allows(place):
    """An ordinary user gets twice net.core.wmem_max; below 1 MiB requests are cut."""
    status, found = doctor(place, wrap=user())
    enough = int(open("/proc/sys/net/core/wmem_max").read()) >= (1 << 20) + 32
    level, text, mend = found["socket-buffer"]
    assert level == ("ok" if enough else "warning"), text
    assert enough or "wmem_max" in mend


def test_limits(place):
    # A sanitizer needs the address space.
    whole = "asan" in FUSEWIRE or "tsan" in FUSEWIRE

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        if not whole:
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    status, found = doctor(place, preexec_fn=limit)
    assert found["open-files"][0] == "warning" and "128" in found["open-files"][1]
    assert whole or found["address-space"][0] == "warning" and "4096 MiB" in found["address-space"][1]


@pytest.mark.parametrize("name,level,words", [
    ("nodir/s", "problem", "No such file or directory"),
    ("x" * 120, "problem", "at most 107 bytes"),
    ("fusewire", "problem", "is no socket"),
    ("s", "ok", "can be made"),
])
def test_socket(place, name, level, words):
    status, found = doctor(place, "--socket", str(place / name))
    assert found["socket"][0] == level and words in found["socket"][1]
    assert status == (level == "problem")


@needs_root
def test_socket_folder_of_another(place):
    status, found = doctor(place, "--socket", str(place / "s"), wrap=user())
    assert status == 1 and "may not make the socket" in found["socket"][1]
    status, found = doctor(place, "--socket", str(place / "open" / "s"), wrap=user())
    assert found["socket"][0] == "ok"


def test_socket_in_use_and_left_over(place):
    path = str(place / "s")
    read, write = os.pipe()
    with subprocess.Popen([FUSEWIRE, "null", "--socket", path, "--tag", "t", "--size", "1M", "--ready-fd", str(write)],
                          pass_fds=[write], stderr=subprocess.DEVNULL) as p:
        os.close(write)
        assert os.read(read, 100) == b"READY=1\n"
        os.close(read)
        status, found = doctor(place, "--socket", path)
        assert found["socket"][0] == "note" and "served already" in found["socket"][1]
        p.kill()
    assert os.path.exists(path)
    status, found = doctor(place, "--socket", path)
    assert found["socket"][0] == "ok" and "left-over" in found["socket"][1]


@contextlib.contextmanager
def process_with(args):
    """A process with these arguments, which does nothing."""
    p = subprocess.Popen([sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()", *args],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == b"there\n"
        yield
    finally:
        p.stdin.close()
        p.wait()
        p.stdout.close()


@pytest.mark.parametrize("args,memory,queue", [
    (["-m", "4G", "-chardev", "socket,id=x,path=SOCKET", "-device", "vhost-user-fs-pci,chardev=x,tag=x"],
     "problem", "warning"),
    (["-object", "memory-backend-memfd,id=mem,size=4G,share=on", "-chardev", "socket,id=x,path=SOCKET",
      "-device", "vhost-user-fs-pci,chardev=x,tag=x,queue-size=1024"], "ok", "ok"),
    (["-object", '{"qom-type":"memory-backend-memfd","share":true}', "-chardev", "socket,id=x,path=SOCKET",
      "-device", '{"driver":"vhost-user-fs-pci","queue-size":1024}'], "ok", "ok"),
    (["--memory", "size=4G,shared=on", "--fs", "tag=x,socket=SOCKET"], "ok", "warning"),
], ids=["defaults", "qemu", "libvirt", "cloud-hypervisor"])
def test_front_end_that_runs(place, args, memory, queue):
    path = str(place / "s")
    with process_with([a.replace("SOCKET", path) for a in args]):
        status, found = doctor(place, "--socket", path)
    assert found["guest-memory"][0] == memory and found["queue-size"][0] == queue
    assert status == (memory == "problem")
    assert memory == "ok" or "share=on" in found["guest-memory"][2]
    assert queue == "ok" or "queue-size=1024" in found["queue-size"][2]


@pytest.mark.parametrize("args", [
    ["qemu-system-x86_64 -chardev socket,id=x,path=SOCKET -device vhost-user-fs-pci,chardev=x,tag=x"],
    ["cloud-hypervisor --fs tag=x,socket=SOCKET"],
    ["vm", "--fs", "x=SOCKET", "--", "ls"],
    ["-chardev", "socket,id=x,path=SOCKET-other", "-device", "vhost-user-fs-pci,chardev=x,tag=x"],
    ["-chardev", "socket,id=x,path=/srvSOCKET", "-device", "vhost-user-fs-pci,chardev=x,tag=x"],
], ids=["shell of qemu", "shell of cloud-hypervisor", "fusewire vm", "longer", "deeper"])
def test_no_front_end_but_its_name(place, args):
    path = str(place / "s")
    with process_with([a.replace("SOCKET", path) for a in args]):
        status, found = doctor(place, "--socket", path)
    assert "guest-memory" not in found and "queue-size" not in found


def test_no_front_end(place):
    status, found = doctor(place, "--socket", str(place / "s"))
    assert "guest-memory" not in found and "queue-size" not in found


def put(path, data, mode=0o755):
    path.write_bytes(data)
    os.chmod(path, mode)
    return str(path)


def elf(machine=62, bits=2):
    return b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 0,
                                                                     64, 0, 0)


def test_command_that_is_none(place):
    for name, words in [("nosuchcommand", "No such file"), (str(place), "Is a directory"),
                        (put(place / "plain", b"x", 0o644), "Permission denied")]:
        status, found = command(place, name)
        assert status == 1 and found["command"][0] == "problem" and words in found["command"][1], found["command"]


def test_command_of_another_machine(place):
    for data in (elf(machine=8), elf(machine=3, bits=1)):
        status, found = command(place, put(place / "foreign", data))
        assert status == 1 and "another architecture" in found["command"][1]


@pytest.mark.parametrize("end", [64, 40, 20, 6])
def test_command_that_is_cut(place, end):
    command(place, put(place / "cut", elf()[:end]))


def test_script(place):
    status, found = command(place, put(place / "good", b"#! /bin/sh -e\n"))
    assert found["command"][0] == "ok" and "script of /bin/sh" in found["command"][1]
    status, found = command(place, put(place / "bad", b"#!/nonexisting/sh\n"))
    assert status == 1 and "/nonexisting/sh: No such file" in found["command"][1]
    status, found = command(place, put(place / "text", b"no program\n"))
    assert found["command"][0] == "warning"


def test_kinds_of_programs(place):
    for name, words in [("sshfs", "libfuse 3"), ("bindfs", "libfuse 2"), ("gocryptfs", "program of Go"),
                        (os.environ["FUSEWIRE_RAWFUSE"], "static program"), ("ls", "dynamic program")]:
        if shutil.which(name):
            status, found = command(place, name, str(place / "mnt"))
            assert words in found["command"][1], found["command"]


def test_library_that_is_missing(place):
    """A program whose library has another name than any that is there."""
    data = pathlib.Path(shutil.which("sshfs")).read_bytes()
    assert b"libfuse3.so.3\0" in data
    status, found = command(place, put(place / "sshfs", data.replace(b"libfuse3.so.3\0", b"libfuse3.so.9\0")))
    assert status == 1 and "libfuse3.so.9" in found["libraries"][1]


@needs_root
def test_setuid(place):
    program = put(place / "setuid", pathlib.Path(shutil.which("true")).read_bytes(), 0o4755)
    status, found = command(place, program, wrap=user())
    assert found["setuid"][0] == "warning" and "setuid" in found["setuid"][1]
    status, found = command(place, program)
    assert "setuid" not in found


@needs_root
def test_fusermount_missing(place):
    hide = "for f in $(for f in fusermount fusermount3; do readlink -f $(command -v $f); done | sort -u)"
    hide += "; do mount --bind /dev/null $f; done"
    status, found = command(place, "sshfs", "a:", str(place / "mnt"), wrap=[*inside(hide), *user()])
    assert status == 1 and "fusermount3, which is not installed" in found["fusermount"][1]
    status, found = command(place, "sshfs", "a:", str(place / "mnt"), wrap=inside(hide))
    assert "fusermount" not in found


@needs_root
def test_allow_other(place):
    config = place / "fuse.conf"
    config.write_text("#user_allow_other\n")
    for wrap, want in [(user(), True), ([], False)]:
        status, found = command(place, "sshfs", "a:", str(place / "mnt"), "-o", "allow_other",
                                wrap=[*inside(f"mount --bind {config} /etc/fuse.conf"), *wrap])
        assert ("allow-other" in found) == want
    config.write_text("user_allow_other\n")
    status, found = command(place, "sshfs", "a:", str(place / "mnt"), "-o", "allow_other",
                            wrap=[*inside(f"mount --bind {config} /etc/fuse.conf"), *user()])
    assert "allow-other" not in found


@needs_root
@pytest.mark.parametrize("args,want", [
    (["-o", "ro,allow_other"], True), (["-oallow_root,ro"], True), (["--allow-other"], True), (["-allow_other"], True),
    (["--options=ro,allow_other"], True), (["--allow-other=true"], True),
    (["--no-allow-other"], False), (["--allow-other=false"], False), (["-o", "ro,noallow_other"], False),
    (["-o", "fsname=/srv/allow_other"], False), (["--disallow-other"], False)], ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_allow_other_is_asked_for(place, args, want):
    config = place / "fuse.conf"
    config.write_text("")
    _, found = command(place, "sshfs", "a:", str(place / "mnt"), *args,
                       wrap=[*inside(f"mount --bind {config} /etc/fuse.conf"), *user()])
    assert ("allow-other" in found) == want


def test_mount_point(place):
    full = place / "full"
    full.mkdir()
    (full / "f").touch()
    status, found = command(place, "bindfs", "/", str(full))
    assert found["mount-point"][0] == "warning" and "libfuse 2 refuses" in found["mount-point"][1]
    status, found = command(place, "sshfs", "a:", str(full), "-o", "reconnect")
    assert found["mount-point"][0] == "note" and "not empty" in found["mount-point"][1]
    status, found = command(place, "sshfs", "a:", str(place / "none"))
    assert found["mount-point"][0] == "note" and "mkdir" in found["mount-point"][2]
    status, found = command(place, "sshfs", "a:", "/proc")
    assert found["mount-point"][0] == "warning" and "mounted already" in found["mount-point"][1]


@needs_root
def test_mount_of_a_daemon_that_died(place):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE in this kernel")
    script = f"bindfs -f {place}/open {place}/mnt & until grep -q {place}/mnt /proc/self/mounts; do sleep 0.05; done; kill -9 $!"
    status, found = command(place, "sshfs", "a:", str(place / "mnt"), wrap=inside(script))
    assert status == 1 and "daemon that died" in found["mount-point"][1] and "fusermount3 -u" in found["mount-point"][2]


@pytest.mark.parametrize("args,words", [(["sshfs"], "behind --"), (["--bogus"], "bogus"), (["--socket"], "socket")])
def test_usage(args, words):
    r = subprocess.run([FUSEWIRE, "doctor", *args], capture_output=True, text=True, timeout=20)
    assert r.returncode == 2 and words in r.stderr


def test_help():
    r = subprocess.run([FUSEWIRE, "doctor", "--help"], capture_output=True, text=True, timeout=20)
    assert r.returncode == 0 and "--json" in r.stdout and "--probe" not in r.stdout
