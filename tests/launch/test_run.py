# SPDX-License-Identifier: BSD-3-Clause
"""fusewire run: how it starts, tells, ends and starts again. What a guest sees is tested in tests/guest."""
import contextlib
import ctypes
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import pytest

TESTS = pathlib.Path(__file__).parent.parent
sys.path += [str(TESTS / "lib"), str(TESTS / "vhost")]
import vhost_peer as vhost  # noqa: E402
from process import Ready, cpu_seconds  # noqa: E402
from sshd import Sshd  # noqa: E402

FUSEWIRE = os.environ["FUSEWIRE"]
# Which way the daemons are served: everything here holds for both.
IN_PROCESS = os.environ.get("FUSEWIRE_TEST_IN_PROCESS", "never")
RAWFUSE = os.environ["FUSEWIRE_RAWFUSE"]
RAWFUSE_DYNAMIC = os.environ["FUSEWIRE_RAWFUSE_DYNAMIC"]
RAWFUSE_ASAN = os.environ.get("FUSEWIRE_RAWFUSE_ASAN")
PASSTHROUGH = os.environ.get("EXAMPLE_PASSTHROUGH")
CAN_UNMOUNT = os.access("/dev/fuse", os.W_OK) and os.getuid() == 0


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory(prefix="fw-run-") as name:
        top = pathlib.Path(name)
        (top / "src").mkdir()
        (top / "mnt").mkdir()
        (top / "src" / "f").write_text("hello\n")
        yield top


class Run(Ready):
    """One fusewire run; ends with the block."""

    def __init__(self, place, command, *options, env=None, before=()):
        self.socket = str(place / "socket")
        super().__init__([*before, FUSEWIRE, "run", "--in-process", IN_PROCESS, "--socket", self.socket, "--tag", "t"],
                         [*options, "--", *command], place / "log", env={**os.environ, **(env or {})})

    def children(self, name):
        out = []
        for line in subprocess.run(["ps", "-e", "-o", "pid=,ppid=,comm="], capture_output=True,
                                   text=True).stdout.splitlines():
            pid, parent, comm = line.split(None, 2)
            if int(parent) == self.process.pid and comm.strip() == name:
                out.append(int(pid))
        return out

    def wait_text(self, pattern, count=1):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if len(re.findall(pattern, self.text())) >= count:
                return
            time.sleep(0.02)
        raise AssertionError(self.text())


def bindfs(place, *options):
    return ["bindfs", *options, "--no-allow-other", str(place / "src"), str(place / "mnt")]


@pytest.mark.parametrize("foreground", [["-f"], []], ids=["foreground", "background"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_ready_and_stop(place, foreground, sig):
    with Run(place, bindfs(place, *foreground)) as r:
        r.wait_ready()
        socket.socket(socket.AF_UNIX).connect(r.socket)
        [daemon] = r.children("bindfs")
        status = r.end(sig)
        assert status == 0 if CAN_UNMOUNT else status in (0, 1), r.text()
        assert not os.path.exists(r.socket)
        assert not os.path.exists(f"/proc/{daemon}")


def test_sshfs(place):
    with Sshd(str(place / "sshd")) as s, \
            Run(place, s.sshfs_command(str(place / "src"), str(place / "mnt"), "-o", "reconnect")) as r:
        r.wait_ready()
        assert r.children("ssh") and r.children("sshfs")
        status = r.end(signal.SIGTERM)
        assert status == 0 if CAN_UNMOUNT else status in (0, 1), r.text()
        assert not os.path.exists(r.socket)


@pytest.mark.parametrize("options,said,unsaid", [
    ([], ["type fuse; to the driver's mount belongs: -o nosuid,nodev", "only user 0 may enter"], ["no directory"]),
    (["-o", "allow_other,ro,noexec"], ["-o ro,nosuid,nodev,noexec"], ["may enter", "check"]),
    (["-o", "subtype=x"], ["/src', type fuse.x;"], []),
])
def test_tells_what_a_driver_cannot_know(place, options, said, unsaid):
    with Run(place, bindfs(place, *options)) as r:
        r.wait_ready()
        for text in said:
            assert text in r.text(), r.text()
        for text in unsaid:
            assert text not in r.text(), r.text()
        r.end(signal.SIGTERM)


def ends_well_by_channel(place, program, *options):
    with Run(place, [program, str(place / "mnt")], *options) as r:
        r.wait_ready()
        assert "served through a channel" in r.text()
        r.end(signal.SIGTERM)


@pytest.mark.skipif(IN_PROCESS != "auto", reason="where the library is preloaded")
def test_linked_with_musl(place):
    """By the name of its dynamic linker; the one that it has here is glibc's, so that it runs."""
    with tempfile.TemporaryDirectory(prefix="f") as name:
        content = pathlib.Path(RAWFUSE_DYNAMIC).read_bytes()
        real = re.search(rb"/lib[^\0]*/ld[^\0]*(?=\0)", content).group()
        linker = pathlib.Path(name) / "ld-musl"
        assert len(str(linker)) <= len(real), linker
        linker.symlink_to(real.decode())
        program = pathlib.Path(name) / "rawfuse"
        program.write_bytes(content.replace(real, str(linker).encode().ljust(len(real), b"\0"), 1))
        program.chmod(0o755)
        ends_well_by_channel(place, str(program))
        script = pathlib.Path(name) / "script"
        script.write_text(f"#!{program}\n")
        script.chmod(0o755)
        with Run(place, [str(script)], "--in-process", "always") as r:
            assert not r.is_ready()
            assert r.wait() == 1 and "cannot be served in-process: it is linked with musl" in r.text(), r.text()


@pytest.mark.skipif(IN_PROCESS != "auto" or not RAWFUSE_ASAN, reason="where the library is preloaded; needs gcc's AddressSanitizer")
def test_built_with_address_sanitizer(place):
    ends_well_by_channel(place, RAWFUSE_ASAN)


def test_root_that_is_a_file(place):
    with Run(place, [RAWFUSE, str(place / "src" / "f")]) as r:
        r.wait_ready()
        assert "the root is no directory (rootmode=100000)" in r.text()
        assert "the driver checks file modes all the same" in r.text()
        r.end(signal.SIGTERM)


def test_notify_socket(place):
    path = str(place / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(20)
        with Run(place, bindfs(place, "-f"), env={"NOTIFY_SOCKET": path}) as r:
            assert s.recv(100) == b"READY=1"
            r.wait_ready()
            r.end(signal.SIGTERM)


@pytest.mark.parametrize("command,message,status", [
    (["sshfs", "nosuchhost.invalid:/x", "MNT"], "read: Connection reset by peer", 1),
    (["sshfs", "-o", "bogus", "a:b", "MNT"], "unknown option", 1),
    (["bindfs", "/nonexisting", "MNT"], "/nonexisting", 1),
    (["/nonexisting"], "cannot execute: No such file or directory", 1),
    (["true"], "before its file system was there", 1),
    (["sh", "-c", "exit 42"], "before its file system was there", 42),
])
def test_cannot_start(place, command, message, status):
    with Run(place, [str(place / "mnt") if c == "MNT" else c for c in command], "--restart") as r:
        assert not r.is_ready()
        assert r.wait(20) == status
        assert message in r.text()
        assert not os.path.exists(r.socket)


def test_started_with_sigchld_ignored(place):
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    r = subprocess.run([sys.executable, "-c", ignoring, FUSEWIRE, "run", "--in-process", IN_PROCESS, "--socket",
                        str(place / "socket"), "--tag", "t", "--", "false"], capture_output=True, text=True, timeout=5)
    assert r.returncode == 1 and "ended with status 1" in r.stderr, r.stderr


def test_nobody_reads_the_log(place):
    """It is served nevertheless, and the socket does not stay."""
    path = str(place / "socket")
    read, write = os.pipe()
    os.close(read)
    ready, tell = os.pipe()
    process = subprocess.Popen([FUSEWIRE, "run", "--in-process", IN_PROCESS, "--socket", path, "--tag", "t", "--ready-fd",
                                str(tell), "--", *bindfs(place, "-f")], pass_fds=[tell], stderr=write)
    os.close(write)
    os.close(tell)
    with os.fdopen(ready, "rb") as f:
        assert f.read() == b"READY=1\n", process.wait(20)
    process.terminate()
    process.wait(20)
    assert not os.path.exists(path)


def test_ready_on_standard_output(place):
    """Its number does not become another file's: what the command says goes nowhere."""
    process = subprocess.Popen([FUSEWIRE, "run", "--in-process", IN_PROCESS, "--socket", str(place / "socket"), "--tag", "t",
                                "--ready-fd", "1", "--", *bindfs(place, "-f")], stdout=subprocess.PIPE)
    try:
        assert process.stdout.read() == b"READY=1\n"
        process.stdout.close()
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
        for pid in [process.pid, *map(int, children.split())]:
            assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    finally:
        process.terminate()
        assert process.wait(20) in (0, 1)


def test_wrong_remote_directory(place):
    """sshfs mounts before it looks at the directory."""
    with Sshd(str(place / "sshd")) as s, Run(place, s.sshfs_command("/nonexisting", str(place / "mnt"))) as r:
        assert not r.is_ready()
        assert r.wait(20) == 1
        assert "No such file or directory" in r.text()
        assert not os.path.exists(r.socket)


def test_daemon_killed(place):
    with Run(place, bindfs(place)) as r:
        r.wait_ready()
        [daemon] = r.children("bindfs")
        os.kill(daemon, signal.SIGKILL)
        assert r.wait(20) == 137
        assert "the daemon closed its end" in r.text()
        assert "signal 9" in r.text()
        assert not os.path.exists(r.socket)


def test_restart(place):
    with Run(place, bindfs(place, "-f"), "--restart") as r:
        r.wait_ready()
        for i in range(3):
            [daemon] = r.children("bindfs")
            os.kill(daemon, signal.SIGKILL)
            r.wait_text("the daemon is there again", i + 1)
        waits = [int(n) for n in re.findall(r"again in (\d+) ms", r.text())]
        assert waits == [100, 200, 400]
        status = r.end(signal.SIGTERM)
        assert status == 0 if CAN_UNMOUNT else status in (0, 1), r.text()


def test_restarted_daemon_dies_at_once(place, tmp_path):
    with Run(place, [RAWFUSE_DYNAMIC, "-x", str(tmp_path / "die"), str(place / "mnt")], "--restart") as r:
        r.wait_ready()
        (tmp_path / "die").touch()
        os.kill(r.children("rawfuse_dynamic")[0], signal.SIGKILL)
        r.wait_text("again in 800 ms")
        (tmp_path / "die").unlink()
        time.sleep(2)
        assert r.process.poll() is None and r.children("rawfuse_dynamic"), r.text()
        front, driver = front_end(r)
        front.close()
        r.end(signal.SIGTERM)


def test_daemon_dies_at_once(place, tmp_path):
    (tmp_path / "die").touch()
    with Run(place, [RAWFUSE_DYNAMIC, "-x", str(tmp_path / "die"), str(place / "mnt")]) as r:
        assert r.wait() == 5, r.text()


def test_restarted_program_is_away(place, tmp_path):
    """As while its package is upgraded."""
    program = shutil.copy(RAWFUSE, tmp_path / "rawfuse")
    with Run(place, [program, str(place / "mnt")], "--restart") as r:
        r.wait_ready()
        os.rename(program, tmp_path / "away")
        os.kill(r.children("rawfuse")[0], signal.SIGKILL)
        r.wait_text("again in 200 ms")
        os.rename(tmp_path / "away", program)
        r.wait_text("the daemon is there again")
        front, driver = front_end(r)
        front.close()
        r.end(signal.SIGTERM)


def test_stop_while_pausing(place):
    """The command fails every time but the first."""
    (place / "once").unlink(missing_ok=True)
    script = f"test -e {place}/once && exit 1; touch {place}/once; exec {RAWFUSE} {place}/mnt"
    with Run(place, ["sh", "-c", script], "--restart") as r:
        r.wait_ready()
        os.kill(r.children("rawfuse")[0], signal.SIGKILL)
        r.wait_text("again in 400 ms")
        assert r.end(signal.SIGTERM) == 0
        assert not os.path.exists(r.socket)


def test_stop_while_starting_again(place):
    """There is no file system to unmount yet: SIGTERM at once."""
    (place / "once").unlink(missing_ok=True)
    again = f"test -e {place}/once && exec sleep 300; touch {place}/once; exec"
    with Run(place, ["sh", "-c", again + ' "$@"', "sh", *bindfs(place, "-f")], "--restart", "--stop-timeout", "30") as r:
        r.wait_ready()
        os.kill(r.children("bindfs")[0], signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not r.children("sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        begin = time.monotonic()
        r.end(signal.SIGTERM)
        assert time.monotonic() - begin < 5, r.text()


def test_stop_while_starting(place):
    with Run(place, ["sleep", "300"]) as r:
        time.sleep(0.3)
        [sleep] = r.children("sleep")
        r.end(signal.SIGTERM)
        assert not os.path.exists(r.socket)
        assert not os.path.exists(f"/proc/{sleep}")


def test_stubborn_daemon(place):
    """A daemon that hears neither DESTROY nor SIGTERM is killed, within a bounded time."""
    with Run(place, ["sh", "-c", f"trap '' TERM; exec {RAWFUSE} {place}/mnt"], "--stop-timeout", "3") as r:
        r.wait_ready()
        [daemon] = r.children("rawfuse")
        os.kill(daemon, signal.SIGSTOP)
        begin = time.monotonic()
        r.process.send_signal(signal.SIGTERM)
        assert r.wait(60) == 137
        assert time.monotonic() - begin < 8
        assert not os.path.exists(f"/proc/{daemon}")
        assert not os.path.exists(r.socket)


@pytest.mark.skipif(not CAN_UNMOUNT, reason="for root")
def test_all_of_the_time_is_the_daemons(place):
    """DESTROY is answered at once: what was kept for that is not lost to who has much to do when it is unmounted."""
    with Run(place, [RAWFUSE, "-s", "60", str(place / "mnt")], "--stop-timeout", "6") as r:
        r.wait_ready()
        begin = time.monotonic()
        r.process.send_signal(signal.SIGTERM)
        r.wait_text("SIGTERM to ")
        termed = time.monotonic() - begin
        assert r.wait(20) == 137
        assert 3.5 < termed < 5 and 5.5 < time.monotonic() - begin < 8, (termed, r.text())


def test_leftovers(place):
    """What the daemon leaves in the background does not hold us up."""
    script = f"(trap '' TERM; exec sleep 300) & exec {RAWFUSE} -b {place}/mnt"
    with Run(place, ["sh", "-c", script]) as r:
        r.wait_ready()
        [sleep] = r.children("sleep")
        status = r.end(signal.SIGTERM)
        assert status == 0 if CAN_UNMOUNT else status in (3, 143), r.text()
        assert not os.path.exists(f"/proc/{sleep}")


# Many wait for the death of one; then each has a child, whose number is below all that are there: it was free, and looked at already.
EVADERS = """
import ctypes, os, select, signal, sys
libc = ctypes.CDLL(None)
def sleep():
    while True:
        signal.pause()
def used():
    pid = os.fork()
    if not pid:
        os._exit(0)
    return os.waitpid(pid, 0)[0]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
numbers = [used() for _ in range(40)]
first = os.fork()
if not first:
    sleep()
death = select.poll()
death.register(os.pidfd_open(first))
for number in numbers:
    ids = (ctypes.c_int * 1)(number)
    clone = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(ids), 1, 0)
    if not os.fork():
        death.poll()
        libc.syscall(435, clone, ctypes.sizeof(clone))
        sleep()
open(sys.argv[1] + "/there", "w").close()
sleep()
"""


def those_with(word):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(path.parent.name)] if word in path.read_bytes().decode(errors="replace").split("\0") else []
    return found


def wait_for_file(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.getuid() != 0, reason="chooses numbers of processes")
def test_forks_while_it_is_killed(place, tmp_path):
    try:
        with Run(place, [sys.executable, "-c", EVADERS, str(tmp_path)], "--stop-timeout", "1") as r:
            wait_for_file(tmp_path / "there")
            assert r.end(signal.SIGTERM) == 137, r.text()
            assert "cannot end" not in r.text() and those_with(str(tmp_path)) == []
    finally:
        for pid in those_with(str(tmp_path)):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not CAN_UNMOUNT, reason="for root, who may trace")
def test_cannot_be_killed(place, tmp_path):
    """What is left when the daemon has ended well does not hold us up for ever, and is a failure."""
    libc = ctypes.CDLL(None)
    script = f"sleep 300 & echo $! >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/there; exec {RAWFUSE} {place}/mnt"
    with Run(place, ["sh", "-c", script]) as r:
        r.wait_ready()
        wait_for_file(tmp_path / "there")
        traced = int((tmp_path / "there").read_text())
        # Its end is ours to take up before it is its parent's.
        assert libc.ptrace(0x4206, traced, None, None) == 0
        try:
            assert r.end(signal.SIGTERM) == 1, r.text()
            assert f"cannot end the command: 1 of its processes ({traced}, ...)" in r.text()
        finally:
            os.waitpid(traced, 0x40000000)


STARTER = """
until [ -e "$0/go" ]; do sleep 0.1; done
sh -c 'sleep 300 & echo $! >"$0/new"; mv "$0/new" "$0/late"' "$0"
exec sleep 300
"""
HELPERS = """
import os, subprocess, sys
place, starter, *program = sys.argv[1:]
for name, command in [("helper", ["sleep", "300"]), ("starter", ["sh", "-c", starter, place])]:
    with open(f"{place}/{name}", "w") as f:
        f.write(str(subprocess.Popen(command).pid))
os.execv(program[0], program)
"""


def test_helpers_from_before(place, tmp_path):
    """What a shell starts in the background before it becomes fusewire is not the command's, nor what it leaves to the reaper of orphans."""
    def pid_of(name):
        deadline = time.monotonic() + 20
        while not (text := (tmp_path / name).read_text() if (tmp_path / name).exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return int(text)

    helpers = []
    try:
        with Run(place, bindfs(place), before=[sys.executable, "-c", HELPERS, str(tmp_path), STARTER]) as r:
            helpers += [pid_of("helper"), pid_of("starter")]
            r.wait_ready()
            [daemon] = r.children("bindfs")
            (tmp_path / "go").touch()
            helpers.append(pid_of("late"))
            status = r.end(signal.SIGTERM)
            assert status == 0 if CAN_UNMOUNT else status in (0, 1), r.text()
            assert not os.path.exists(f"/proc/{daemon}")
            for pid in helpers:
                assert "State:\tS" in pathlib.Path(f"/proc/{pid}/status").read_text()
    finally:
        for pid in helpers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


HAND_OVER = """
import ctypes, os, socket, sys
fd = os.open("/dev/fuse", os.O_RDWR)
if ctypes.CDLL(None).mount(b"x", sys.argv[1].encode(), b"fuse.x", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd):
    sys.exit(3)
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[2])
    socket.send_fds(s, [b"x"], [fd])
    s.recv(1)
"""


@pytest.mark.skipif(not (CAN_UNMOUNT and PASSTHROUGH) or IN_PROCESS != "never", reason="for root, libfuse 3, the channel")
def test_daemon_without_the_filter(place):
    """A process that was given the device by a helper is none of the supervisor's: what it waits for must not fail at the unmount."""
    handover = str(place / "handover")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(handover)
        listener.listen()
        with Run(place, [sys.executable, "-c", HAND_OVER, str(place / "mnt"), handover]) as r:
            connection, _ = listener.accept()
            with connection:
                _, fds, _, _ = socket.recv_fds(connection, 1, 1)
                # Its main thread waits for its workers: a futex.
                daemon = subprocess.Popen([PASSTHROUGH, "-f", str(place / "src"), f"/dev/fd/{fds[0]}"], pass_fds=fds,
                                          stderr=subprocess.PIPE, text=True)
                os.close(fds[0])
                r.wait_ready()
                r.end(signal.SIGTERM)
                _, text = daemon.communicate(timeout=20)
    os.unlink(handover)
    assert daemon.returncode >= 0 and "futex" not in text, (daemon.returncode, text, r.text())


HALF_STUCK = """
import ctypes, os, signal, struct, sys, threading
mountpoint, fifo, reader, nr_stuck = sys.argv[1:]
libc = ctypes.CDLL(None)
caught, catch = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(catch)
signal.signal(signal.SIGUSR1, lambda *_: None)
fd = os.open("/dev/fuse", os.O_RDWR)
if libc.mount(b"x", mountpoint.encode(), b"fuse.x", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd):
    os._exit(3)

def read():
    while True:
        try:
            msg = os.read(fd, 1 << 20)
        except OSError:
            break
        opcode, unique = struct.unpack_from("<4xIQ", msg)
        body = struct.pack("<IIIIHHII32x", 7, 31, 131072, 0, 12, 12, 131072, 1) if opcode == 26 else b""
        os.write(fd, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
    try:
        os._exit(10 if os.read(caught, 1) else 11)
    except BlockingIOError:
        os._exit(12)

def stick():
    # As vfork(2) has it, it sleeps until the child has executed something, which waits for who writes into the FIFO.
    actions, child = ctypes.create_string_buffer(256), ctypes.c_int()
    libc.posix_spawn_file_actions_init(actions)
    libc.posix_spawn_file_actions_addopen(actions, 0, fifo.encode(), os.O_RDONLY, 0)
    libc.posix_spawn(ctypes.byref(child), b"/bin/true", actions, None, (ctypes.c_char_p * 2)(b"true", None), None)

first, second = (read, stick) if reader == "first" else (stick, read)
for _ in range(int(nr_stuck)):
    threading.Thread(target=second, daemon=True).start()
first()
"""


@pytest.mark.skipif(not CAN_UNMOUNT or IN_PROCESS != "never", reason="for root, the channel")
@pytest.mark.parametrize("reader,sig,expected", [("first", signal.SIGUSR1, 10), ("second", signal.SIGKILL, 137)])
def test_signal_while_it_is_held(place, tmp_path, reader, sig, expected):
    """A thread that cannot be stopped gives time for it. The signal is not lost, nor what it hurried; nor how the daemon ended."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with Run(place, [sys.executable, "-c", HALF_STUCK, str(place / "mnt"), fifo, reader, "1"]) as r:
        r.wait_ready()
        [daemon] = r.children(os.path.basename(sys.executable))
        # Both threads are where they shall be.
        time.sleep(0.3)
        r.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while "TracerPid:\t0\n" in pathlib.Path(f"/proc/{daemon}/status").read_text():
            assert time.monotonic() < deadline, r.text()
            time.sleep(0.005)
        time.sleep(0.05)
        os.kill(daemon, sig)
        os.close(os.open(fifo, os.O_WRONLY))
        assert r.wait(20) == expected, r.text()


@pytest.mark.skipif(not CAN_UNMOUNT or IN_PROCESS != "never", reason="for root, the channel")
def test_many_threads_cannot_be_held(place, tmp_path):
    """They are waited for together, not one after the other."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with Run(place, [sys.executable, "-c", HALF_STUCK, str(place / "mnt"), fifo, "first", "20"]) as r:
        r.wait_ready()
        time.sleep(0.3)
        begin = time.monotonic()
        assert r.end(signal.SIGTERM) == 12, r.text()
        assert time.monotonic() - begin < 10, r.text()


def front_end(r):
    """A front-end, and the driver of its first request queue; the file system is mounted."""
    front = vhost.FrontEnd(r.socket)
    front.negotiate().share_memory()
    driver = vhost.Driver(front, 1)
    driver.fuse_init()
    return front, driver


def goes_on(r):
    """The daemon's device is there for the next front-end, as if nothing had been."""
    front, driver = front_end(r)
    with front:
        assert driver.fuse_getattr()[0] == 0
    assert r.end(signal.SIGTERM) in (0, 1), r.text()


@pytest.mark.skipif(not PASSTHROUGH, reason="the examples are not built")
def test_ring_in_memory_that_is_gone(place):
    """The front-end cuts off its memory, then starts a ring there."""
    with Run(place, [PASSTHROUGH, str(place / "src"), str(place / "mnt")]) as r:
        r.wait_ready()
        front, driver = front_end(r)
        front.ask(vhost.GET_VRING_BASE, vhost.state(1))
        os.ftruncate(front.mem_fd, 0)
        front.send(vhost.SET_VRING_KICK, vhost.u64(1), [driver.kick])
        assert front.alive(), r.text()
        front.memory = None
        front.close()
        goes_on(r)


@pytest.mark.skipif(not PASSTHROUGH, reason="the examples are not built")
def test_reply_into_memory_that_is_gone(place):
    gpa, user = 1 << 32, vhost.USER_BASE + (1 << 32)
    with Run(place, [PASSTHROUGH, str(place / "src"), str(place / "mnt")]) as r:
        r.wait_ready()
        front, driver = front_end(r)
        with front:
            more = front.keep(vhost.memfd(vhost.PAGE))
            assert front.ack(vhost.ADD_MEM_REG, vhost.u64(0) + vhost.region(gpa, vhost.PAGE, user), [more]) == 0
            os.ftruncate(more, 0)
            driver.submit_getattr(reply_at=gpa)
            driver.complete()
            assert driver.fuse_getattr()[0] == 0
        goes_on(r)


@pytest.mark.skipif(not PASSTHROUGH, reason="the examples are not built")
@pytest.mark.parametrize("options", [[], ["--no-splice"]], ids=["splice", "copy"])
def test_data_in_memory_that_is_gone(place, options):
    """READ into it, WRITE from it: with whatever result, and the next ones work."""
    gpa, user, size = 1 << 32, vhost.USER_BASE + (1 << 32), 64 << 10
    (place / "src" / "big").write_bytes(b"x" * size)
    with Run(place, [PASSTHROUGH, *options, str(place / "src"), str(place / "mnt")]) as r:
        r.wait_ready()
        front, driver = front_end(r)
        with front:
            more = front.keep(vhost.memfd(size + vhost.PAGE))
            payload = vhost.u64(0) + vhost.region(gpa, size + vhost.PAGE, user)
            assert front.ack(vhost.ADD_MEM_REG, payload, [more]) == 0
            error, entry = driver.fuse(1, 1, b"big\0", 128)
            assert error == 0
            node = struct.unpack_from("<Q", entry)[0]
            error, opened = driver.fuse(14, node, struct.pack("<II", os.O_RDWR, 0), 16)
            assert error == 0
            fh = struct.unpack_from("<Q", opened)[0]
            os.ftruncate(more, 0)
            args = struct.pack("<QQIIQII", fh, 0, size, 0, 0, 0, 0)
            for _ in range(2):
                driver.submit_fuse(15, node, args, 16 + size, in_at=gpa)
                driver.complete()
                driver.submit_fuse(16, node, args, 16 + 8, data=(gpa, size))
                length, error, _ = struct.unpack_from("<IiQ", driver.complete())
                assert (length, error) == (24, 0) or (length == 16 and error < 0)
                error, data = driver.fuse(15, node, struct.pack("<QQIIQII", fh, 0, 4096, 0, 0, 0, 0), 4096)
                assert error == 0 and len(data) == 4096
        goes_on(r)


def dead_pipe():
    """Always readable: it has no writer."""
    read, write = os.pipe()
    os.close(write)
    return read


def socket_with_errors():
    """Always in error, without a byte to read: there is a time stamp in its error queue."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    s.setsockopt(socket.SOL_SOCKET, 37, 1 << 1 | 1 << 4)  # SO_TIMESTAMPING of what is sent, by software
    s.sendto(b"12345678", s.getsockname())
    s.recv(8)
    poll = select.poll()
    poll.register(s, select.POLLIN)
    if not poll.poll(0):
        pytest.skip("this kernel keeps no times of packets")
    return s.detach()


@pytest.mark.skipif(not PASSTHROUGH, reason="the examples are not built")
@pytest.mark.parametrize("make", [dead_pipe, socket_with_errors])
def test_kick_descriptor_that_is_dead(place, make):
    """What wakes who waits for it, again and again, is waited for no more."""
    with Run(place, [PASSTHROUGH, str(place / "src"), str(place / "mnt")]) as r:
        r.wait_ready()
        front, driver = front_end(r)
        with front:
            assert front.ack(vhost.SET_VRING_KICK, vhost.u64(1), [front.keep(make())]) == 0
            pids = [r.process.pid, *r.children("passthrough")]
            before = cpu_seconds(*pids)
            time.sleep(0.5)
            assert cpu_seconds(*pids) - before <= 0.1
            assert front.ack(vhost.SET_VRING_KICK, vhost.u64(1), [driver.kick]) == 0
            assert driver.fuse_getattr()[0] == 0
        goes_on(r)


def test_killed_run_takes_the_daemon_along(place):
    with Run(place, bindfs(place)) as r:
        r.wait_ready()
        [daemon] = r.children("bindfs")
        r.end(signal.SIGKILL)
        for _ in range(500):
            if not os.path.exists(f"/proc/{daemon}"):
                break
            time.sleep(0.02)
        assert not os.path.exists(f"/proc/{daemon}")


@pytest.mark.parametrize("arguments,message", [
    ([], "what to run"),
    (["--tag", "t", "--", "true"], "socket"),
    (["--bogus", "--", "true"], "bogus"),
])
def test_usage(arguments, message):
    r = subprocess.run([FUSEWIRE, "run", *arguments], capture_output=True, text=True, timeout=10)
    assert r.returncode == 2
    assert message in r.stderr


def test_help():
    r = subprocess.run([FUSEWIRE, "run", "--help"], capture_output=True, text=True, timeout=10)
    assert r.returncode == 0 and "--restart" in r.stdout and "--socket" in r.stdout
