# SPDX-License-Identifier: BSD-3-Clause
"""What tests with real guests share: back-ends that serve a folder, and `fusewire vm`.

Environment: FUSEWIRE         the program (default build/src/cli/fusewire)
             GUEST_SUITE      the static test program for the guest (default build/tests/guest/guest_suite)
             GUEST_BACKENDS   comma-separated choice of BACKENDS (default sshfs,bindfs)
             GUEST_KINDS      comma-separated choice of KINDS (default all)
             FUSEWIRE_UML_DIR User-mode Linux of a later Debian (default what scripts/install-deps unpacks)
             FUSEWIRE_QEMU_DIR QEMU of a later Debian (default as above)

Guests run under software emulation: how KVM behaves is not what these tests are about, and machines that
build things often have none. FUSEWIRE_VM_ACCEL=kvm in the environment changes that.
"""
import functools
import glob
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import sshd  # noqa: E402
import virtiofsd  # noqa: E402
from process import kill_with_descendants  # noqa: E402

FUSEWIRE = os.environ.get("FUSEWIRE", os.path.join(ROOT, "build/src/cli/fusewire"))
GUEST_SUITE = os.environ.get("GUEST_SUITE", os.path.join(ROOT, "build/tests/guest/guest_suite"))
PASSTHROUGH = os.environ.get("EXAMPLE_PASSTHROUGH")
ENV = dict(os.environ, FUSEWIRE_VM_ACCEL=os.environ.get("FUSEWIRE_VM_ACCEL", "tcg"))

LATER_UML = os.environ.get("FUSEWIRE_UML_DIR", "/var/cache/fusewire/uml")


def uml(options):
    """What `fusewire vm --uml` says of User-mode Linux that cannot run on this machine; None if it can. It says so before it looks at
    its modules."""
    done = subprocess.run([FUSEWIRE, "vm", *options, "--modules", "/nonexistent", "--", "true"], env=ENV, timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    return done.stderr.strip() if "cannot run" in done.stderr else None


@functools.cache
def uml_options():
    """The release's own where this processor lets it run, else that of a later one; and why there is none."""
    own = uml(["--uml"])
    modules = glob.glob(os.path.join(LATER_UML, "usr/lib/uml/modules/*"))
    later = ["--uml", "--kernel", os.path.join(HERE, "later_uml")]
    if own and len(modules) == 1 and not uml(later):
        return [*later, "--modules", modules[0]], None
    return ["--uml"], own and f"{own}; a later one is not in {LATER_UML}"


def uml_is_out():
    """Why User-mode Linux cannot run on this machine; None if it can."""
    return uml_options()[1]


LATER_QEMU = os.path.join(HERE, "later_qemu")


@functools.cache
def later_qemu_is_out():
    """Why QEMU of a later Debian cannot run; None if it can."""
    try:
        done = subprocess.run([LATER_QEMU, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as e:
        return str(e)
    return done.stdout.strip() if done.returncode else None


# How each kind of guest is started, and how many of 2 request queues its driver uses.
KINDS = {
    "qemu-6.12": (["--kernel-version", "6.12"], 2),
    "qemu-6.1": (["--kernel-version", "6.1"], 1),
    "uml": (uml_options()[0], 0),
}


def chosen(variable, default):
    return [name for name in os.environ.get(variable, default).split(",") if name]


def wait_for(what, condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Backend:
    """A vhost-user-fs back-end that serves self.dir (where it has one) on self.socket."""

    tag = "t"
    queues = 2
    suite_options = []
    more_options = []
    # How `fusewire run` serves: from within the daemon's process, or never.
    in_process = "always"
    # The one program that leaves when its front-end does: virtiofsd.
    one_shot = False

    def __init__(self, tmp):
        self.tmp = str(tmp)
        self.dir = os.path.join(self.tmp, "served")
        self.mountpoint = os.path.join(self.tmp, "mountpoint")
        self.socket = os.path.join(self.tmp, "s")
        self.log = os.path.join(self.tmp, "backend.log")
        self.process = None
        os.makedirs(self.dir, exist_ok=True)
        os.makedirs(self.mountpoint, exist_ok=True)

    def command(self):
        raise NotImplementedError

    def run(self, *daemon):
        return [FUSEWIRE, "run", "--in-process", self.in_process, *self.device_options(), "--", *daemon]

    def device_options(self):
        # User-mode Linux refuses a device with more than 64 virtqueues.
        return ["--socket", self.socket, "--tag", self.tag, "--queues", str(self.queues), *self.more_options]

    def environment(self):
        return None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment())
        wait_for("a socket of " + " ".join(self.command()),
                 lambda: os.path.exists(self.socket) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise AssertionError(f"{self.command()} ended: {self.log_text()}")
        return self

    def log_text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """End it as a user does. Returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the back-end did not end at SIGTERM: " + self.log_text()) from None
        finally:
            self.process = None

    def path(self, name):
        return os.path.join(self.dir, name)


class Sshfs(Backend):
    # Its server's answer to a name that is too long is EBADMSG, on /dev/fuse, too.
    suite_options = ["--no-xattr", "--other-name-error"]

    def __init__(self, tmp):
        super().__init__(tmp)
        self.server = sshd.Sshd(os.path.join(self.tmp, "sshd"))

    def command(self):
        return self.run(*self.server.sshfs_command(self.dir, self.mountpoint))

    def stop(self):
        try:
            return super().stop()
        finally:
            self.server.close()


class Bindfs(Backend):
    def command(self):
        return self.run("bindfs", "-f", self.dir, self.mountpoint)


class SshfsChannel(Sshfs):
    in_process = "never"


class BindfsChannel(Bindfs):
    in_process = "never"


class Passthrough(Backend):
    """Low-level libfuse 3, with write_buf; WRITEs come in by splice."""

    options = ["--max-write=524288"]

    def daemon(self):
        return [PASSTHROUGH, "-f", *self.options, self.dir, self.mountpoint]

    def command(self):
        return self.run(*self.daemon())


class PassthroughAlone(Passthrough):
    """The library preloaded by hand: READs go out by splice, too."""

    def environment(self):
        return {**os.environ, "LD_PRELOAD": os.environ["PRELOAD_LIBRARY"], "FUSEWIRE_SOCKET": self.socket, "FUSEWIRE_TAG": self.tag,
                "FUSEWIRE_QUEUES": str(self.queues)}

    def command(self):
        return self.daemon()


class Memfuse(Backend):
    """Its own code for /dev/fuse, and a file system in memory."""

    options = []

    def command(self):
        return self.run(os.environ["MEMFUSE"], *self.options, self.mountpoint)


class MemfuseEpoll(Memfuse):
    options = ["--wait", "epoll", "--clone", "--receive", "splice", "--send", "splice"]


class Null(Backend):
    size = 64 << 20

    def command(self):
        return [FUSEWIRE, "null", *self.device_options(), "--size", str(self.size)]


class Virtiofsd(Backend):
    """Not ours: to develop the guest side against."""

    queues = 1
    one_shot = True

    def command(self):
        return virtiofsd.command("virtiofsd", self.socket, self.dir)

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        return super().start()


BACKENDS = {"sshfs": Sshfs, "bindfs": Bindfs, "sshfs-channel": SshfsChannel, "bindfs-channel": BindfsChannel,
            "passthrough": Passthrough, "passthrough-alone": PassthroughAlone, "memfuse": Memfuse, "memfuse-epoll": MemfuseEpoll,
            "null": Null, "virtiofsd": Virtiofsd}


def vm_command(options=(), command=(), backends=()):
    argv = [FUSEWIRE, "vm", *options]
    for b in backends:
        argv += ["--fs", f"{b.tag}={b.socket}", "--queues", str(b.queues)]
    return argv + ["--", *command] if command else argv


def vm(options=(), command=(), backends=(), timeout=120, stdin=b""):
    """Run a guest to its end. Returns a CompletedProcess with bytes."""
    options = [*options, "--timeout", str(timeout)]
    return subprocess.run(vm_command(options, command, backends), input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=ENV, timeout=timeout + 30, check=False)


class KernelBug(AssertionError):
    """The emulated processor ran a breakpoint that the guest's kernel had patched away before: not a matter of devices."""


def booted(*arguments, **keywords):
    """A Shell that answers. QEMU's emulation of several processors and Linux's patching of its own code lose one boot in some
    dozens ("Oops: int3"), whatever the devices: then another guest."""
    for last in (False, False, True):
        shell = Shell(*arguments, **keywords)
        try:
            shell.check("true")
            return shell
        except KernelBug:
            shell.kill()
            if last:
                raise
        except BaseException:
            shell.kill()
            raise


class Shell:
    """A guest that stays: its shell reads lines from us."""

    def __init__(self, options=(), backends=(), timeout=120):
        self.process = subprocess.Popen(vm_command([*options, "--timeout", str(timeout)], (), backends),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=ENV)

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, line):
        """Run one line in the guest. Returns (exit status, output)."""
        self.send(f"{{ {line}\n}} 2>&1; echo \"@end $?\"")
        out = []
        while True:
            got = self.process.stdout.readline()
            if not got:
                error = self.process.stderr.read().decode(errors="replace")
                raise (KernelBug if "Oops: int3" in error else AssertionError)("the guest ended: " + error)
            text = got.decode(errors="replace")
            if text.startswith("@end "):
                return int(text[5:]), "".join(out)
            out.append(text)

    def check(self, line):
        status, out = self.run(line)
        assert status == 0, f"{line}: {status}: {out}"
        return out

    def kill(self):
        """As when a VMM dies: no notice to anybody. When it is gone a device has room for the next."""
        kill_with_descendants(self.process)
        for f in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                f.close()
            except BrokenPipeError:
                pass

    def end(self):
        """End the shell. Returns the exit status of `fusewire vm`."""
        self.process.stdin.close()
        self.process.stdout.read()
        error = self.process.stderr.read()
        status = self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()
        if status:
            sys.stderr.write(error.decode(errors="replace"))
        return status


def have(program):
    return shutil.which(program) is not None
