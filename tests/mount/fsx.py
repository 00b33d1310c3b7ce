# SPDX-License-Identifier: BSD-3-Clause
"""Random operations on one file, each compared with a byte model: read, write, append, truncate, both through mmap, reopen.

usage: fsx.py FILE [SEED [COUNT]]
"""
import mmap
import os
import random
import sys

PAGE = mmap.PAGESIZE
MOST = 800000
SIZES = [1, 100, PAGE, PAGE + 904, 70000, 200000]


class Wrong(AssertionError):
    pass


class Fsx:
    """One file, and what it has to hold."""

    def __init__(self, path, seed):
        self.path, self.seed = path, seed
        self.rnd = random.Random(seed)
        self.model = bytearray()
        self.steps = []
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def demand(self, right, what):
        if not right:
            raise Wrong(f"seed {self.seed}, step {len(self.steps)}, {what}; the last steps: {self.steps[-8:]}")

    def same(self, got, off, size):
        wanted = bytes(self.model[off:off + size])
        if got != wanted:
            at = next((i for i, (g, w) in enumerate(zip(got, wanted)) if g != w), min(len(got), len(wanted)))
            self.demand(False, f"differs at {off + at}: {got[at:at + 8].hex()} of {len(got)} bytes, "
                               f"not {wanted[at:at + 8].hex()} of {len(wanted)}")

    def put(self, off, data):
        self.model.extend(bytes(max(0, off - len(self.model))))
        self.model[off:off + len(data)] = data

    def read(self, off, size):
        self.same(os.pread(self.fd, size, off), off, size)

    def write(self, off, size):
        data = self.rnd.randbytes(size)
        self.demand(os.pwrite(self.fd, data, off) == size, "short write")
        self.put(off, data)

    def append(self, off, size):
        if len(self.model) + size > MOST:
            return
        data = self.rnd.randbytes(size)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            self.demand(os.write(fd, data) == size, "short write")
        finally:
            os.close(fd)
        self.put(len(self.model), data)

    def truncate(self, off, size):
        os.ftruncate(self.fd, off)
        del self.model[off:]
        self.model.extend(bytes(off - len(self.model)))

    def map(self, off, size):
        """A mapping around these bytes, and where in it they begin and end."""
        end = min(off + size, len(self.model))
        if off >= end:
            return None, 0, 0
        base = off - off % PAGE
        return mmap.mmap(self.fd, end - base, offset=base), off - base, end - base

    def map_read(self, off, size):
        m, begin, end = self.map(off, size)
        if m:
            with m:
                self.same(m[begin:end], off, end - begin)

    def map_write(self, off, size):
        m, begin, end = self.map(off, size)
        if m:
            data = self.rnd.randbytes(end - begin)
            with m:
                m[begin:end] = data
                if size % 2:
                    m.flush()
            self.put(off, data)

    def reopen(self, off, size):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def drop(self, off, size):
        """The next read shall ask the device."""
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def stat(self, off, size):
        got = os.fstat(self.fd).st_size
        self.demand(got == len(self.model), f"size {got}, not {len(self.model)}")

    OPERATIONS = {read: 5, write: 5, append: 2, truncate: 2, map_read: 3, map_write: 3, reopen: 1, drop: 1, stat: 1}

    def run(self, count):
        chosen = self.rnd.choices(list(self.OPERATIONS), list(self.OPERATIONS.values()), k=count)
        for op in chosen:
            # Where mappings are concerned, mostly a place that the file has.
            off = self.rnd.randrange(len(self.model) or 1) if "map" in op.__name__ else self.rnd.randrange(MOST - SIZES[-1])
            size = self.rnd.choice(SIZES)
            self.steps.append((op.__name__, off, size))
            op(self, off, size)
        os.close(self.fd)
        with open(self.path, "rb") as f:
            self.same(f.read(), 0, MOST)


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "little")
    print(f"fsx.py: seed {seed}", flush=True)
    Fsx(sys.argv[1], seed).run(int(sys.argv[3]) if len(sys.argv) > 3 else 1000)


if __name__ == "__main__":
    main()
