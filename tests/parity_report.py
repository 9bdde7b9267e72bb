"""The marker `parity`, the report of it, and the line per runtime at the end of a run.

`pytest --parity-report=FILE` writes `{"SUSP-17": {"local": "passed", "celery-redis": "skipped", …}, …}`: catalogue
entry, then the id of the `runtime` parameter, then the worst outcome of the tests that carry the entry. It must not
know what the runtimes are.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

LOCAL = "local"
SINGLE = "single"  # stands for the runtime of a test that is not run once for each
NOT_APPLICABLE = "not applicable"
WORST_FIRST = ("failed", "skipped", "xfailed", "xpassed", "passed")


class ParityReport:
    """The outcomes of each entry on each runtime."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, str]] = {}
        self.tests: dict[str, dict[str, str]] = {}
        self._items: dict[str, tuple[list[str], str]] = {}

    def expect(self, nodeid: str, entries: list[str], runtime: str) -> None:
        """Remember whose outcome a test tells."""
        self._items[nodeid] = (entries, runtime)

    def not_applicable(self, entries: list[str]) -> None:
        """Remember that these entries mean nothing on the local runtime."""
        for entry in entries:
            self.outcomes.setdefault(entry, {})[LOCAL] = NOT_APPLICABLE

    def record(self, nodeid: str, outcome: str) -> None:
        """Count one phase of a test; the worst phase of the worst test stays."""
        if nodeid not in self._items:
            return
        entries, runtime = self._items[nodeid]
        tests = self.tests.setdefault(runtime, {})
        tests[nodeid] = worse(tests.get(nodeid), outcome)
        for entry in entries:
            seen = self.outcomes.setdefault(entry, {})
            seen[runtime] = worse(seen.get(runtime), outcome)

    def as_json(self) -> str:
        """Return the report, entries in order."""
        return json.dumps({entry: self.outcomes[entry] for entry in sorted(self.outcomes)}, indent=2) + "\n"

    def lines(self) -> list[str]:
        """Return one line a runtime: how many of its tests ended how."""
        counted = {runtime: Counter(tests.values()) for runtime, tests in sorted(self.tests.items())}
        return [
            f"{runtime + ':':17}"
            + ", ".join(f"{counts[outcome]} {outcome}" for outcome in WORST_FIRST if counts[outcome])
            for runtime, counts in counted.items()
        ]


def worse(one: str | None, other: str) -> str:
    """Return the worse of two outcomes."""
    if one is None or one == NOT_APPLICABLE:
        return other
    return min(one, other, key=WORST_FIRST.index)


def outcome_of(report: pytest.TestReport) -> str | None:
    """Return the word for a phase, None for one that says nothing (a setup or teardown that went well)."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed:
        return "failed"
    if report.skipped:
        return "skipped"
    return "passed" if report.when == "call" else None


def runtime_of(item: pytest.Item) -> str:
    """Return the id of the item's `runtime` parameter."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or "runtime" not in callspec.params:
        return SINGLE
    value = callspec.params["runtime"]
    return value if isinstance(value, str) else str(getattr(value, "name", callspec.id))


_REPORT = pytest.StashKey[ParityReport]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("parity").addoption("--parity-report", metavar="FILE", help="write the parity report, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report and take part in the run."""
    config.stash[_REPORT] = ParityReport()
    config.pluginmanager.register(_Recorder(config.stash[_REPORT]), "parity-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Learn which test tells of which entry; leave out entries of messages and workers on the local runtime."""
    report = config.stash[_REPORT]
    left_out = []
    for item in items:
        marks = list(item.iter_markers("parity"))
        runtime = runtime_of(item)
        if not marks and runtime == SINGLE:
            continue
        on_celery = [mark.args[0] for mark in marks if mark.kwargs.get("runtimes") == "celery"]
        report.not_applicable(on_celery)
        report.expect(item.nodeid, [mark.args[0] for mark in marks], runtime)
        if runtime == LOCAL and on_celery:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


class _Recorder:
    """Hears how every phase ends."""

    def __init__(self, report: ParityReport) -> None:
        self.report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the phase, where it says something."""
        outcome = outcome_of(report)
        if outcome is not None:
            self.report.record(report.nodeid, outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file that was asked for."""
    path, report = session.config.getoption("--parity-report"), session.config.stash[_REPORT]
    if path and report.outcomes:
        Path(path).write_text(report.as_json())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say of each runtime how its tests ended."""
    lines = config.stash[_REPORT].lines()
    if lines:
        terminalreporter.section("runtimes")
        for line in lines:
            terminalreporter.write_line(line)
