# SPDX-License-Identifier: BSD-3-Clause
"""`fusewire vm` itself: streams, exit status, errors, and that nothing stays behind."""
import fcntl
import hashlib
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

import guest
from process import descendants

UML = pytest.param(guest.KINDS["uml"][0], marks=pytest.mark.skipif(guest.uml_is_out() is not None, reason=str(guest.uml_is_out())))
KINDS = pytest.mark.parametrize("options", [["--kernel-version", "6.12"], UML], ids=["qemu", "uml"])


@KINDS
def test_streams_and_status(options):
    """Every byte value passes, in both directions, and the streams do not mix."""
    data = bytes(range(256)) * 1000
    done = guest.vm(options, ["cat; echo error >&2; exit 7"], stdin=data)
    assert done.returncode == 7
    assert done.stdout == data
    assert done.stderr == b"error\n"


@KINDS
def test_shell_answers_each_line(options):
    """A line that comes through a pipe is not held back until more of them do."""
    shell = guest.Shell(options)
    try:
        # Of every length there is padding for, and then more than a console takes at once.
        for n in (1, 2, 3, 40, 100):
            assert shell.check(f"echo {'x' * n}") == "x" * n + "\n"
        shell.send("cat >/tmp/f <<'@'\n" + "0123456789\n" * 10000 + "@")
        assert shell.check("md5sum </tmp/f").split()[0] == hashlib.md5(b"0123456789\n" * 10000).hexdigest()
        assert shell.end() == 0
    finally:
        shell.kill()


def test_arguments_arrive_exactly():
    words = ["a  b", "c'd", "", "$HOME", "x\ny", "*"]
    done = guest.vm(command=["printf", "[%s]", *words])
    assert (done.returncode, done.stdout) == (0, "".join(f"[{w}]" for w in words).encode()), done.stderr


def test_add_and_background(tmp):
    """A file put in keeps its mode; what COMMAND left running does not hold the VM up."""
    path = os.path.join(tmp, "tool")
    with open(path, "w") as f:
        f.write("#!/bin/sh\necho tool $1\n")
    os.chmod(path, 0o755)
    done = guest.vm(["--add", path, "--add", f"{path}:/opt/x/other"],
                    ["sleep 1000 & tool 1; /opt/x/other 2; echo e >/dev/stderr; exit 3"], timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"tool 1\ntool 2\n", b"e\n")


def falls_over_emulation(tmp, times):
    """A QEMU whose guest does so often what emulated guests do in rare boots."""
    path = os.path.join(tmp, "qemu")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\necho x >>{tmp}/boots\n[ $(wc -l <{tmp}/boots) -gt {times} ] && exec qemu-system-x86_64 \"$@\"\n"
                "echo '[ 1.131176] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI'\n")
    os.chmod(path, 0o755)
    return path


def test_boots_again(tmp):
    """Nothing of stdin is lost with a guest that did not come up."""
    done = guest.vm(["--accel", "tcg", "--qemu", falls_over_emulation(tmp, 1)], ["cat; exit 3"], stdin=b"all of it")
    assert (done.returncode, done.stdout) == (3, b"all of it"), done.stderr
    assert b"Oops: int3" in done.stderr and b"booting once more" in done.stderr


def test_boots_three_times_at_most(tmp):
    done = guest.vm(["--accel", "tcg", "--qemu", falls_over_emulation(tmp, 99)], ["true"])
    assert done.returncode == 1 and done.stderr.count(b"did not come up") == 3, done.stderr
    assert boots(tmp) == 3


def fails_with_kvm(tmp):
    """A QEMU that KVM is of no use to. It never opens /dev/kvm."""
    path = os.path.join(tmp, "qemu")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\nulimit -c 0\necho x >>{tmp}/boots\ncase \"$*\" in\n"
                "*'-accel kvm'*) echo 'error: failed to set MSR 0x10a to 0x0' >&2; kill -ABRT $$;;\nesac\n"
                "exec qemu-system-x86_64 \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def boots(tmp):
    with open(os.path.join(tmp, "boots")) as f:
        return len(f.readlines())


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm to choose")
def test_kvm_of_no_use(tmp):
    """Where the choice was ours it boots once more without; where it was the user's it fails."""
    done = guest.vm(["--accel", "auto", "--qemu", fails_with_kvm(tmp)], ["cat; exit 3"], stdin=b"all of it")
    assert (done.returncode, done.stdout) == (3, b"all of it"), done.stderr
    assert done.stderr.count(b"\n") == 1 and b"--accel tcg" in done.stderr
    assert boots(tmp) == 2
    done = guest.vm(["--accel", "kvm", "--qemu", fails_with_kvm(tmp)], ["true"])
    assert done.returncode == 1 and b"ended with signal 6" in done.stderr, done.stderr
    assert boots(tmp) == 3


@KINDS
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_left_behind(options, how, tmp):
    env = dict(guest.ENV, TMPDIR=tmp)
    vm = subprocess.Popen([guest.FUSEWIRE, "vm", *options, "--", "echo up; sleep 1000"], env=env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert vm.stdout.readline() == b"up\n"
    children = [pid for pid, _ in descendants(vm.pid)]
    assert children
    vm.send_signal(how)
    status = vm.wait(20)
    vm.stdout.close()
    vm.stderr.close()
    assert status == (-how if how == signal.SIGKILL else 128 + how)
    guest.wait_for("the children's end", lambda: not any(runs(pid) for pid in children))
    guest.wait_for("an empty directory", lambda: os.listdir(tmp) == [])


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_timeout():
    start = time.monotonic()
    done = guest.vm(command=["sleep 1000"], timeout=6)
    assert done.returncode == 124
    assert b"did not end within 6 s" in done.stderr
    assert time.monotonic() - start < 20


def test_guest_that_dies():
    done = guest.vm(command=["echo c >/proc/sysrq-trigger"])
    assert done.returncode == 1
    # How much of a panic gets out is the emulator's business; what did is shown.
    assert b"ended before COMMAND did; the end of its console:\n| " in done.stderr


def test_closed_output():
    """Nobody reads: ends as with SIGPIPE, and at once."""
    vm = subprocess.Popen([guest.FUSEWIRE, "vm", "--", "yes"], env=guest.ENV, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert vm.stdout.readline() == b"y\n"
    vm.stdout.close()
    assert vm.wait(20) == 128 + signal.SIGPIPE


@KINDS
def test_terminal(options):
    """With a terminal and no COMMAND, the guest's shell has a terminal, too; ours is as it was afterwards."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    before = termios.tcgetattr(theirs)
    vm = subprocess.Popen([guest.FUSEWIRE, "vm", *options], env=dict(guest.ENV, TERM="vt100"), stdin=theirs,
                          stdout=theirs, stderr=theirs)
    seen = b""

    def wait_text(text):
        nonlocal seen
        while text not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 4096)
        seen = seen[seen.index(text) + len(text):]

    try:
        wait_text(b"fusewire-vm:")
        os.write(ours, b"stty size; tty; echo $TERM $((6 * 7))\r")
        wait_text(b"33 77")
        wait_text(b"/dev/ttyS")
        wait_text(b"vt100 42")
        # ^C is for the guest's shell, not for us.
        os.write(ours, b"sleep 1000; echo no\r")
        time.sleep(1)
        os.write(ours, b"\x03")
        wait_text(b"fusewire-vm:")
        os.write(ours, b"exit 9\r")
        assert vm.wait(20) == 9
        assert termios.tcgetattr(theirs) == before
    finally:
        vm.kill()
        vm.wait()
        os.close(ours)
        os.close(theirs)


def test_dead_socket(tmp):
    path = os.path.join(tmp, "dead")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
    done = guest.vm(["--fs", f"x={path}"], ["true"])
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"fusewire vm: Failed to connect to '{path}': Connection refused"]


@pytest.mark.parametrize("options, text", [
    (["--no-such"], "unknown option --no-such"),
    (["--fs", "x"], "must be TAG=SOCKET"),
    (["--fs", "x=/nonexistent"], "No such file or directory"),
    (["--fs", "x=/etc/passwd"], "not a socket"),
    (["--fs", "=/etc/passwd"], "a tag is 1 to 36"),
    (["--fs", "a/b=/etc/passwd"], "a tag is 1 to 36"),
    (["--fs", "a" * 37 + "=/etc/passwd"], "a tag is 1 to 36"),
    (["--fs", "a" * 36 + "=/etc/passwd"], "not a socket"),
    (["--fs", "a=/" + "x" * 107], "too long"),
    (["--memory", "63"], "from 64"),
    (["--memory", "1k"], "from 64"),
    (["--queues", "0"], "from 1"),
    (["--queue-size", "100"], "power of two"),
    (["--queue-size", "2048"], "from 16 to 1024"),
    (["--accel", "magic"], "kvm, tcg or auto"),
    (["--kernel-version", "six"], "must be like 6.12"),
    (["--add", "/nonexistent"], "No such file"),
    (["--add", "/etc/passwd:relative"], "absolute"),
    (["--timeout"], "needs a value"),
    (["--uml", "--qemu-arg", "x"], "does not go with"),
    (["--uml", "--fs", "x={dir}/a:b"], "colons"),
    (["true"], "COMMAND comes after '--'"),
])
def test_usage(options, text, tmp):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.join(tmp, "a:b"))
    options = [o.replace("{dir}", tmp) for o in options]
    done = subprocess.run([guest.FUSEWIRE, "vm", *options], env=guest.ENV, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].startswith("fusewire vm: ") and text in lines[0]


@pytest.mark.parametrize("options, text", [
    (["--kernel", "/nonexistent"], "cannot read the kernel"),
    (["--qemu", "/nonexistent/qemu"], "cannot run /nonexistent/qemu"),
    (["--uml", "--kernel", "/nonexistent/linux"], "cannot run /nonexistent/linux"),
    (["--kernel-version", "1.0"], "apt"),
])
def test_missing(options, text):
    done = guest.vm(options, ["true"])
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and text in lines[0]
