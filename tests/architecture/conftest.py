"""The figures that the tests of the architecture report at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Give the lines that the end of the run shows; a test adds its own."""
    return request.config.stash.setdefault(_FIGURES, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the lines, where a test has added one."""
    if lines := config.stash.get(_FIGURES, []):
        terminalreporter.section("architecture")
        for line in lines:
            terminalreporter.write_line(line)
