#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Daemons over the channel, and in-process where that works, against the same daemon on the local /dev/fuse, in turn, on
the same servers.

usage: daemons.py [--rounds N] [--seconds S] [--json] [--together] [--only CASE]... [--options "..."] [--driver "..."] [NAME...]

NAME is one of tests/daemons/catalog.py. The load is on one core, daemon and device are on the other, the servers anywhere. Each side
has files of its own, so that what a cluster lets one client keep is not taken from it by another. All are opened with O_DIRECT and past
the page cache; a daemon's own cache works on all sides. Writes end with an fsync(2) whose time counts. Blocks of 1 MiB, or as large as
one request to the daemon may be. The first round of a case does not count: it fills the caches. A case has all its rounds before the
next begins: the side that wrote more in one (at depth 16) leaves more behind that has to be tidied up in the next (JuiceFS compacts).
"""
import argparse
import contextlib
import json
import os
import sys

import benchlib as b

os.environ.setdefault("FUSEWIRE", b.FUSEWIRE)
sys.path.insert(0, os.path.join(b.ROOT, "tests/daemons"))
import world as w  # noqa: E402
from server import Unavailable  # noqa: E402

NAMES = ["sshfs", "bindfs", "gocryptfs", "juicefs", "ceph-fuse", "glusterfs"]
SMALL, LARGE = 4096, 1 << 20
CASES = [(op, block, depth) for op in ("read", "write") for block in (SMALL, LARGE) for depth in (1, 16)]
LOCAL = "local"
SIDES = {"never": "channel", "auto": "in-process"}
FILE_MIB = 64


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--only", action="append", metavar="CASE",
                        help="only cases whose name begins so: 'write', 'read 4 KiB, depth 1'")
    parser.add_argument("--together", action="store_true", help="the scheduler chooses the cores of driver, daemon and device")
    parser.add_argument("--options", default="", help="more options for fusewire run")
    parser.add_argument("--driver", default="", help="more options for fusewire bench: --driver=--poll-us=200 for a vCPU under KVM")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in w.ALL]
    if unknown:
        parser.error(f"{unknown[0]}: none of {', '.join(w.ALL)}")
    return args


def name_of(case):
    return f"{case[0]} {case[1] >> 10} KiB, depth {case[2]}"


def is_meant(case, beginning):
    """Does its name begin so? "depth 1" is not the beginning of "depth 16"."""
    name = name_of(case)
    return name.startswith(beginning) and not (beginning[-1].isdigit() and name[len(beginning):][:1].isdigit())


def file_of(side, op):
    """Written files are not read: fragments of a log-structured store would make it slower from round to round."""
    return f"{side}.{op}"


def start(stack, world, way, options):
    """The socket of the daemon behind `fusewire run`, or None where it cannot be served this way."""
    served = stack.enter_context(world.served("--in-process", way, *options))
    w.wait_for("the daemon mounts", lambda: "serving tag" in served.text(), w.START_SECONDS)
    return served.socket if way == "never" or served.way() == "in-process" else None


def largest_block(path, file):
    """Up to LARGE: what one request to the daemon may carry."""
    block = LARGE
    while True:
        try:
            b.load(path, "write", file, block, 1, 0.01, "--direct")
            return block
        except b.LoadError as e:
            if "takes at most" not in str(e):
                raise
        block //= 2


def measure(world, args):
    """The comparison of all cases."""
    with contextlib.ExitStack() as stack:
        if not args.together:
            stack.enter_context(b.on_device_cpu())
        mnt = stack.enter_context(world.local()).mountpoint
        for side in (LOCAL, *SIDES.values()):
            for op in ("read", "write"):
                w.big_file(os.path.join(mnt, file_of(side, op)), FILE_MIB)
        paths = {side: path for way, side in SIDES.items() if (path := start(stack, world, way, args.options.split()))}
        largest = largest_block(paths["channel"], file_of("channel", "write"))
        cases = [(op, min(block, largest), depth) for op, block, depth in CASES]
        cases = [case for case in cases if not args.only or any(is_meant(case, name) for name in args.only)]
        comparison = b.Comparison(paths)
        for case in cases:
            for n in range(-1, args.rounds):
                b.progress(f"{world.daemon}: {name_of(case)}: round {n + 1} of {args.rounds}")
                op = case[0]
                found = b.rates(os.path.join(mnt, file_of(LOCAL, op)),
                                {side: (path, file_of(side, op)) for side, path in paths.items()},
                                *case, args.seconds if n >= 0 else args.seconds / 2, turn=n, options=args.driver.split(),
                                cpu=None if args.together else b.DRIVER_CPU)
                if n >= 0:
                    comparison.add(case, found)
        b.progress_end()
        return comparison


def main():
    args = parse()
    results = {}
    if not args.json:
        print(b.machine_line())
    for name in args.names:
        try:
            world = w.World(name)
        except Unavailable as e:
            print(f"{name}: left out: {e}", file=sys.stderr)
            results[name] = {"left_out": str(e)}
            continue
        with contextlib.closing(world):
            comparison = measure(world, args)
        results[name] = {name_of(case): found for case, found in comparison.rounds.items()}
        if not args.json:
            print(f"\n{name}")
            comparison.print_head()
            for case in comparison.rounds:
                comparison.print_row(case, name_of(case))
            sys.stdout.flush()
    if args.json:
        json.dump({"machine": b.machine_line(), "rounds": args.rounds, "seconds": args.seconds, "daemons": results}, sys.stdout,
                  indent=1)
        print()


if __name__ == "__main__":
    main()
