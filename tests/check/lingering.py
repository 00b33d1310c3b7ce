# SPDX-License-Identifier: BSD-3-Clause
"""A back-end of one front-end: when that has left it ends, but for a moment its socket still takes connections."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from backend import Backend, attr, by_opcode, good, init_out, nothing  # noqa: E402

GETATTR, INIT, INTERRUPT = 3, 26, 36

backend = Backend(sys.argv[1], by_opcode({INIT: good(init_out()), GETATTR: good(bytes(16) + attr(1, 0o40755)), INTERRUPT: nothing}))
backend.before_close = lambda: time.sleep(0.1)
backend.start()
backend.join()
