"""The effects of steps, counted where no fault reaches them: one append-only file for each process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BEGIN = "begin"
END = "end"
HOOK = "hook"


@dataclass(frozen=True)
class Effect:
    """One line: a step has begun or ended, or a hook was called, in a process, at a moment (seconds of the clock)."""

    what: str
    run: str
    step: str
    # the activation, as the library names it to its user
    key: str
    attempt: int
    resumed: bool
    pid: int
    at: float
    # what the step was resumed with, or a hook told
    data: str | None = None


class Journal:
    """A file of lines that this process appends to, each in one write: a killed process leaves whole lines."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.jsonl"

    def append(self, line: dict[str, object]) -> None:
        """Write one line."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(line).encode() + b"\n")
        finally:
            os.close(file)


def note(folder: Path, what: str, run: str, step: str, key: str = "", **more: object) -> None:
    """Write an effect into this process's file."""
    line = {"attempt": 0, "resumed": False, "data": None, **more}
    pid = os.getpid()
    line |= {"what": what, "run": run.partition("/")[0], "step": step, "key": key, "pid": pid, "at": time.time()}
    Journal(folder, str(pid)).append(line)


def lines(folder: Path, pattern: str = "*.jsonl") -> Iterator[dict[str, object]]:
    """Yield the lines of all files of a folder; a last line that is being written is left out."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_text().split("\n")[:-1]:
            yield json.loads(line)


def read(folder: Path) -> list[Effect]:
    """Return all effects, in the order of their moments."""
    return sorted((Effect(**line) for line in lines(folder)), key=lambda effect: effect.at)  # type: ignore[arg-type]


def count_at_work(folder: Path, pids: set[int]) -> int:
    """Return how many executions in these processes have begun and not ended."""
    at_work: set[tuple[object, ...]] = set()
    for pid in pids:
        for line in lines(folder, f"{pid}.jsonl"):
            name = (line["key"], line["attempt"], line["resumed"])
            (at_work.add if line["what"] == BEGIN else at_work.discard)(name)
    return len(at_work)
