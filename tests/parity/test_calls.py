"""The call counters that the parity tests stand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity import calls

CHILD = """
from tests.parity import calls
for number in range(200):
    calls.note_for("counted/0/1", "call", number)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own."""
    monkeypatch.setenv(calls.FOLDER, str(tmp_path))
    return tmp_path


def test_calls_of_several_processes_are_counted_under_the_root_run() -> None:
    """No line is lost or mixed with another, and each process keeps its order."""
    children = [subprocess.Popen([sys.executable, "-c", CHILD]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]

    noted = calls.calls("counted", "call")

    assert calls.count("counted", "call") == 600
    assert sorted(noted) == sorted([*range(200)] * 3)


def test_other_runs_and_other_names_are_not_counted() -> None:
    """A run that never called anything has no file."""
    calls.note_for("one", "call", {"value": None})
    calls.note_for("one", "other")

    assert calls.calls("one", "call") == [{"value": None}]
    assert calls.names("one") == ["call", "other"]
    assert calls.count("two", "call") == 0


def test_the_peak_is_how_many_were_active_at_the_same_time() -> None:
    """Blocks that follow one another do not add up."""
    for step in (calls.ENTER, calls.ENTER, calls.LEAVE, calls.ENTER, calls.LEAVE, calls.LEAVE, calls.ENTER):
        calls.note_for("run", "map", step)

    assert calls.peak("run", "map") == 2
