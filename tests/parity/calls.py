"""A count of calls across threads and worker processes: one JSON line per call, in one file per run.

The files stand in the folder that the environment variable `PARITY_CALLS` names, which workers inherit. A line is
appended in one write, so the lines of several processes do not mix and their order is the order of the calls. Only what
fits JSON can be noted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from orchestrator import Context

FOLDER = "PARITY_CALLS"
ENTER = 1
LEAVE = -1


def note(ctx: Context[Any], name: str, value: Any = None) -> None:
    """Remember a call inside a step of this run (or of a workflow nested in it)."""
    note_for(ctx.run_id, name, value)


def note_for(run_id: str, name: str, value: Any = None) -> None:
    """Remember a call of something that has no context, such as a callback."""
    line = json.dumps([name, value]) + "\n"
    file = os.open(_file(run_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def calls(run_id: str, name: str) -> list[Any]:
    """Return the noted values, in the order of the calls."""
    return [value for noted, value in _lines(run_id) if noted == name]


def count(run_id: str, name: str) -> int:
    """Return how often something was called."""
    return len(calls(run_id, name))


def names(run_id: str) -> list[str]:
    """Return the names of all calls of the run, in order."""
    return [noted for noted, _ in _lines(run_id)]


@contextmanager
def active(ctx: Context[Any], name: str) -> Iterator[None]:
    """Note the beginning and the end of what runs inside, for `peak`."""
    note(ctx, name, ENTER)
    try:
        yield
    finally:
        note(ctx, name, LEAVE)


def peak(run_id: str, name: str) -> int:
    """Return how many `active` blocks of this name ran at the same time at most."""
    highest = running = 0
    for step in calls(run_id, name):
        running += step
        highest = max(highest, running)
    return highest


def _file(run_id: str) -> Path:
    """Return the file of a run; a nested scope (`<run id>/<path>`) writes into its root's."""
    root = run_id.partition("/")[0]
    return Path(os.environ[FOLDER]) / f"{quote(root, safe='')[:200]}.jsonl"


def _lines(run_id: str) -> list[list[Any]]:
    path = _file(run_id)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
