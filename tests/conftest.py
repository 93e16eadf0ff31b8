"""Rules for the whole suite."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let interrupts through: a shell that starts the suite in the background makes it ignore them.

    And give compiled code a place.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Beside pytest's own cache, not among the user's files; before anything imports Numba.
    if hasattr(config, "cache"):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(config.cache.mkdir("numba")))


def pytest_report_header() -> list[str]:
    """Name the variants of operators that this machine cannot run, and where else they are tested."""
    from native import toolchains

    from edgekit.kernels.base import OPERATORS

    missing = {v.name: v.missing() for name in OPERATORS for v in OPERATORS[name].variants if v.missing()}
    if "neon" in missing and not toolchains.missing(toolchains.ARM):
        missing["neon"] += f"; tests/native runs its C++ under {toolchains.ARM.runner[0]}"
    return [f"not tested here: {name}: {reason}" for name, reason in missing.items()]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skip is a failure, unless it is about hardware or software that no such machine has."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None:
        return
    unexplained = [
        f"{report.nodeid}: {report.longrepr[2]}"
        for report in reporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
        and not any(w in report.longrepr[2] for w in ("GPU", "TensorRT"))
    ]
    if unexplained:
        reporter.write_line("skips that are not about a missing GPU or TensorRT:", red=True)
        for line in unexplained:
            reporter.write_line(f"  {line}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
