#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A folder of src/ includes only the layers that it may know (ARCHITECTURE.md has the map)."""

import re

import source

BELOW_TRANSPORT = {"base", "mem", "virtio"}
BELOW_SERVICE = {"base", "mem", "fuse", "device"}
MAY_INCLUDE = {
    "base": set(),
    "mem": {"base"},
    "virtio": {"base", "mem"},
    "fuse": {"base"},
    "device": {"base", "mem", "virtio", "fuse"},
    # Transports and services meet in the device and never include each other.
    "vhost": BELOW_TRANSPORT | {"device"},
    "vfio": BELOW_TRANSPORT | {"device"},
    # A FUSE client in place of a guest: for load and tests.
    "client": {"base", "mem", "virtio", "fuse", "vhost"},
    # Every rule of the specs, and every way to break them, tried on a device.
    "check": {"base", "mem", "virtio", "fuse", "vhost", "client"},
    # A driver: forwards from the kernel's FUSE client to a device behind the front-end of vhost-user.
    "bridge": {"base", "virtio", "fuse", "vhost"},
    "filter": BELOW_SERVICE,
    "service/null": BELOW_SERVICE,
    "service/dir": BELOW_SERVICE,
    # What the kernel would keep from any daemon.
    "service/rules": BELOW_SERVICE,
    "service/channel": BELOW_SERVICE | {"service/rules"},
    "service/inproc": BELOW_SERVICE | {"service/rules"},
    "service/gone": BELOW_SERVICE,
    # The relay drives another device: it has our driver side and the front-end of vhost-user.
    "service/relay": BELOW_SERVICE | {"virtio", "vhost"},
    # A device with its transport, for a process of its own: joins the two as the command does.
    "worker": BELOW_TRANSPORT | {"fuse", "device", "vhost", "service/inproc", "service/channel"},
    # A daemon's start gives a channel; neither side knows the other.
    "launch": {"base", "fuse"},
    # Forwards messages; knows rings only by their record of what is in flight.
    "keeper": {"base", "mem", "virtio", "vhost"},
    "cli": None,
    # An engine for fio: the client behind the interface of another program.
    "fio": {"base", "virtio", "fuse", "client"},
}


def layer(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "service" and len(parts) > 2 else parts[0]


problems = []
for path in source.c_files("src"):
    inside = path.removeprefix("src/")
    mine = layer(inside)
    if mine not in MAY_INCLUDE:
        problems.append(f"{path}:1: folder {mine} is not in the list of layers")
        continue
    allowed = MAY_INCLUDE[mine]
    text = source.read(path)
    for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', text, re.MULTILINE):
        name = match.group(1)
        line = source.line_of(text, match.start())
        if "/" not in name or name.startswith("."):
            problems.append(f'{path}:{line}: "{name}": name it from src/, as in "base/fd.h"')
        elif allowed is not None and layer(name) != mine and layer(name) not in allowed:
            problems.append(f"{path}:{line}: {mine} must not include {name}")
        elif name.endswith("_impl.h") and layer(name) != mine:
            problems.append(f"{path}:{line}: {name} is private to {layer(name)}")
source.finish(problems)
