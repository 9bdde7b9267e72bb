"""Shows the steps of a run while a command waits for it: a live table on a terminal, a line for each change elsewhere.

All of it goes to stderr; stdout is for the result.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol, TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from orchestrator.app import Orchestrator, Run
from orchestrator.cli.access import Session
from orchestrator.cli.output import Output, console, rich_table
from orchestrator.cli.rows import Row, rows_of
from orchestrator.cli.texts import duration_text
from orchestrator.engine.read.results import RunResult
from orchestrator.errors import RunNotFound, StoreUnavailable
from orchestrator.host import monotonic

PAUSE = 0.1
SHARE = 5  # reading a large run takes a fifth of the time at most
_COLUMNS = ("STEP", "STATUS", "DURATION", "ATTEMPT", "ERROR")

T = TypeVar("T")


class View(Protocol):
    """Shows rows, again and again."""

    def open(self) -> AbstractContextManager[Any]:
        """The context in which the view is shown."""

    def show(self, rows: list[Row]) -> None:
        """Show these from now on."""


def show_while_waiting(at: Session, run: Run, work: Callable[[], RunResult]) -> RunResult:
    """Do the work, show the run's steps meanwhile, and return or raise its outcome."""

    def rows() -> list[Row]:
        return [row for row in read_rows(at.orchestrator, run) if not row.is_item]

    view = _LiveView(at.output) if sys.stderr.isatty() else Lines(at.output)
    view.skip(rows())
    return show_during(work, view, rows)


def show_during(work: Callable[[], T], view: View, rows: Callable[[], list[Row]]) -> T:
    """Do the work in a thread of its own, show rows until it is done, and return or raise its outcome."""
    result: Future[T] = Future()
    ended = threading.Event()

    def body() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the end of a thread: raised again in the waiting thread
            result.set_exception(error)
        finally:
            ended.set()

    threading.Thread(target=body, name="followed-work", daemon=True).start()
    with view.open():
        pause = 0.0
        while not ended.wait(pause):
            began = monotonic()
            view.show(rows())
            pause = max(PAUSE, SHARE * (monotonic() - began))
        view.show(rows())
    return result.result()


def read_rows(orchestrator: Orchestrator, run: Run) -> list[Row]:
    """The steps; none where the store does not answer, which the command itself reports."""
    with suppress(StoreUnavailable, RunNotFound):
        return rows_of(orchestrator, run)
    return []


class Lines:
    """One line for each new state of a step."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._seen: dict[str, tuple[object, ...]] = {}

    def skip(self, rows: list[Row]) -> None:
        """Take these for known: they need not be shown."""
        self._seen = {row.name: _state_of(row) for row in rows}

    def open(self) -> AbstractContextManager[Any]:
        """Nothing to set up."""
        return nullcontext()

    def show(self, rows: list[Row]) -> None:
        """Print a line for each row that has changed."""
        for row in rows:
            now = _state_of(row)
            if row.attempt and self._seen.get(row.name) != now:
                self._seen[row.name] = now
                self._output.note(" ".join([row.name, row.status_text, *details(row)]))


def _state_of(row: Row) -> tuple[object, ...]:
    return row.status, row.attempt, row.started_at


def details(row: Row) -> list[str]:
    """The details of a step beside its status: duration, attempt, error."""
    took = [duration_text(row.seconds)] if row.status in ("success", "failed") else []
    attempt = [f"attempt {row.attempt}"] if row.attempt > 1 else []
    return [*took, *attempt, *([row.remark] if row.error or row.note else [])]


class _LiveView:
    """A table that is drawn again and again, and is gone at the end."""

    def __init__(self, output: Output) -> None:
        self._console = console(sys.stderr, output.colour)
        self._spinner = Spinner("dots" if "utf" in self._console.encoding else "line", "running")
        self._rows: list[Row] = []
        self._live = Live(console=self._console, transient=True, get_renderable=self._draw)

    def skip(self, rows: list[Row]) -> None:
        """Take these as the first picture."""
        self._rows = rows

    def open(self) -> AbstractContextManager[Any]:
        """The live display."""
        return self._live

    def show(self, rows: list[Row]) -> None:
        """Take the new picture over; drawing goes by its own clock."""
        self._rows = rows

    def _draw(self) -> RenderableType:
        room = max(3, self._console.height - 6)
        rows = [[r.indented, r.status_text, *r.cells()[3:]] for r in self._rows[-room:]]
        above = [Text(f"{len(self._rows) - room} steps above")] if len(self._rows) > room else []
        return Group(*above, rich_table(_COLUMNS, rows, sys.stderr), self._spinner)
