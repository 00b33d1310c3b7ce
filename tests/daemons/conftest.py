# SPDX-License-Identifier: BSD-3-Clause
"""What came out, for the table: DAEMONS_RESULTS names a file of JSON lines to which each test adds one."""
import json
import os


def pytest_runtest_logreport(report):
    path = os.environ.get("DAEMONS_RESULTS")
    if not path or (report.when != "call" and report.outcome == "passed"):
        return
    test, _, daemon = report.nodeid.split("::")[-1].partition("[")
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    with open(path, "a", encoding="utf-8") as f:
        f.write(json.dumps({"test": test, "daemon": daemon.removesuffix("]"), "outcome": report.outcome,
                            "reason": reason, "way": os.environ.get("FUSEWIRE_IN_PROCESS") or "auto",
                            "mib": int(os.environ.get("DAEMONS_MIB", "64")),
                            **dict(report.user_properties)}) + "\n")
