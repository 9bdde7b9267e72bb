"""Follows a run that others work on until it rests: a live tree on a terminal, a line for each change elsewhere.

All of it goes to stderr; stdout is for what the run has come to.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text
from rich.tree import Tree

from orchestrator.app import Run
from orchestrator.cli.access import Session
from orchestrator.cli.output import STYLES, Output, console, fitting
from orchestrator.cli.progress import PAUSE, SHARE, Lines, details
from orchestrator.cli.rows import Row, rows_of
from orchestrator.core.records import RunState
from orchestrator.errors import RunNotFound
from orchestrator.host import monotonic

_GOING = (RunState.PENDING, RunState.RUNNING)
_ENDED = ("success", "skipped", "canceled")


def follow(at: Session, run_id: str) -> None:
    """Show the run's steps while it goes on. Raises `RunNotFound`, also where it is deleted meanwhile."""
    run = at.orchestrator.get_run(run_id)
    header = run.header()
    if at.output.as_json:
        _wait(run, header.rests)
        return
    view = LiveTree(at.output, run_id) if sys.stderr.isatty() else Lines(at.output)
    pause = PAUSE
    with view.shown():
        while header.status in _GOING:
            began = monotonic()
            view.show(rows_of(at.orchestrator, run))
            pause = max(PAUSE, SHARE * (monotonic() - began))
            found = at.orchestrator.store.wait(run_id, header.rests, pause)
            if found is None:
                raise RunNotFound(f"run {run_id!r} has been deleted", run_id=run_id)
            header = found
        view.show(rows_of(at.orchestrator, run))


def _wait(run: Run, rests: int) -> None:
    if run.header().status in _GOING:
        run.wait_for_rest(rests, None)


class LiveTree:
    """A tree that is drawn again and again, and is gone at the end."""

    def __init__(self, output: Output, title: str) -> None:
        self._console = console(sys.stderr, output.colour)
        self._spinner = Spinner("dots" if "utf" in self._console.encoding else "line", title)
        self._rows: list[Row] = []
        self._live = Live(console=self._console, transient=True, get_renderable=self._drawn)

    def shown(self) -> AbstractContextManager[Any]:
        """The live display."""
        return self._live

    def show(self, rows: list[Row]) -> None:
        """Take the new picture over; drawing goes by its own clock."""
        self._rows = rows

    def _drawn(self) -> RenderableType:
        rows, hidden = fitting_rows(self._rows, max(3, self._console.height - 4))
        more = [Text(f"{hidden} more")] if hidden else []
        return Group(tree_of(rows), *more, self._spinner)


def fitting_rows(rows: list[Row], room: int) -> tuple[list[Row], int]:
    """The rows for which there is room, and how many are left out: first items that have ended, then the first ones."""
    shown = rows
    if len(shown) > room:
        shown = [row for row in rows if not (row.is_item and row.status in _ENDED)]
    shown = shown[-room:]
    return shown, len(rows) - len(shown)


def tree_of(rows: list[Row]) -> Tree:
    """The rows as a tree, by their depth."""
    tree = Tree("", hide_root=True)
    above = [tree]
    for row in rows:
        del above[row.depth + 1 :]
        above.append(above[-1].add(_branch(row)))
    return tree


def _branch(row: Row) -> Text:
    text = Text.assemble(fitting(row.step, sys.stderr), "  ", (row.status_text, STYLES.get(row.status, "")))
    said = " ".join(details(row))
    return text.append(f"  {fitting(said, sys.stderr)}") if said else text
