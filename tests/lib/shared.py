# SPDX-License-Identifier: BSD-3-Clause
"""Memory that another process reads while it is written."""
import ctypes
import sys


def store16(memory, at, value):
    """A little-endian word, in one store. struct.pack_into() zeroes its place first, and who looks just then sees 0."""
    if sys.byteorder != "little":
        value = int.from_bytes(value.to_bytes(2, "little"), "big")
    ctypes.c_uint16.from_buffer(memory, at).value = value
