# SPDX-License-Identifier: BSD-3-Clause
"""Says how to repeat the run."""


def pytest_terminal_summary(terminalreporter):
    import test_load
    terminalreporter.write_line(f"FUSEWIRE_LOAD_SEED={test_load.SEED}, {test_load.SECONDS} s for each daemon")
