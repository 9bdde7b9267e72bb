"""Follows a run that others work on until it settles: a live tree on a terminal, a line for each change elsewhere.

All of it goes to stderr; stdout is for what the run has come to.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text
from rich.tree import Tree

from orchestrator.app import Run
from orchestrator.cli.access import Session
from orchestrator.cli.output import STYLES, console, fit_encoding
from orchestrator.cli.progress import PAUSE, SHARE, Lines, details
from orchestrator.cli.rows import Row, rows_of
from orchestrator.errors import RunNotFound
from orchestrator.host import monotonic
from orchestrator.rules.model import StoredStatus

_GOING = (StoredStatus.PENDING, StoredStatus.RUNNING)
_ENDED = ("success", "skipped", "canceled")

Fold = Callable[[Row, Row | None], bool]  # True if a row folds, given the one above it


def follow(at: Session, run_id: str) -> None:
    """Show the run's steps while it goes on. Raises `RunNotFound`, also where it is deleted meanwhile."""
    run = at.orchestrator.get_run(run_id)
    header = run.header()
    if at.output.as_json:
        _wait(run, header.settle_count)
        return
    screen = console(sys.stderr, at.output.colour)
    view = LiveTree(screen, run_id) if can_redraw(screen) else Lines(at.output)
    pause = PAUSE
    with view.open():
        while header.status in _GOING:
            began = monotonic()
            view.show(rows_of(at.orchestrator, run))
            pause = max(PAUSE, SHARE * (monotonic() - began))
            found = at.orchestrator.store.wait_until_settled(run_id, header.settle_count, pause)
            if found is None:
                raise RunNotFound(f"run {run_id!r} has been deleted", run_id=run_id)
            header = found
        view.show(rows_of(at.orchestrator, run))


def _wait(run: Run, settle_count: int) -> None:
    if run.header().status in _GOING:
        run.wait_until_settled(settle_count, None)


def can_redraw(screen: Console) -> bool:
    """Tell if it is a terminal on which lines can be drawn again."""
    return screen.file.isatty() and screen.is_interactive


class LiveTree:
    """A tree that is drawn again and again, never higher than the terminal. At the end it goes away, or stays (`keep`).

    Below it stands a title, which `say` replaces.
    """

    def __init__(self, screen: Console, title: str, *, keep: bool = False) -> None:
        self._screen = screen
        self._keep = keep
        self._spinner = Spinner("dots" if "utf" in screen.encoding else "line")
        self._picture: tuple[list[Row], int] = [], 0
        self._over = False
        # What is drawn fits anyhow. Should it not, in a terminal of three lines, the default would put "..." last.
        self._live = Live(
            console=screen,
            refresh_per_second=1 / PAUSE,
            transient=not keep,
            vertical_overflow="crop",
            get_renderable=self._draw,
        )
        self.say(title)

    @contextmanager
    def open(self) -> Iterator[None]:
        """The live display."""
        with self._live:
            try:
                yield
            finally:
                self._over = True

    def show(self, rows: list[Row]) -> None:
        """Take the new picture over; drawing goes by its own clock."""
        self._picture = fitting_rows(rows, max(1, self._screen.height - 3))

    def say(self, title: str) -> None:
        """Replace the title."""
        self._spinner.update(text=Text(fit_encoding(title, self._screen.file)))

    def _draw(self) -> RenderableType:
        rows, hidden = self._picture
        more = [Text(f"{hidden} more steps", "dim")] if hidden else []
        below = [] if self._over and self._keep else [self._spinner]
        return _OneLineEach(Group(tree_of(rows, self._screen.file), *more, *below))


class _OneLineEach:
    """Cuts lines that are too long, so that the number of lines is that of the rows."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        yield from screen.render(self._inner, options.update(no_wrap=True, overflow="ellipsis"))


def fitting_rows(rows: list[Row], room: int) -> tuple[list[Row], int]:
    """The rows for which there is room, and how many are left out.

    Items of a foreach fold first, and the row above tells of them: those that have ended, then their innermost steps,
    then all of them. Only where that is not enough the first rows go.
    """
    shown = rows
    for folds in _folds(rows):
        if len(shown) <= room:
            break
        shown = _fold(rows, folds)
    shown = shown[-room:]
    return shown, len(rows) - len(shown)


def _folds(rows: list[Row]) -> Iterator[Fold]:
    """Yield the rules by which rows fold, one after the other; each takes in those before it."""
    yield lambda row, above: above is not None and _has_ended(above)
    yield lambda row, above: _has_ended(row)
    for depth in sorted({row.depth for row in rows if row.is_item}, reverse=True):
        yield _from_depth(depth)


def _has_ended(row: Row) -> bool:
    return row.is_item and row.status in _ENDED


def _from_depth(depth: int) -> Fold:
    return lambda row, above: _has_ended(row) or (row.is_item and row.depth >= depth)


def _fold(rows: list[Row], folds: Fold) -> list[Row]:
    """The rows without those that fold and all below them; where something goes on below, the row above says what."""
    shown: list[Row] = []
    below: dict[int, list[Row]] = {}
    path: list[int] = []  # the rows around, as places in `shown`
    hidden = -1  # what is deeper than this goes with the row that folded last
    for row in rows:
        if 0 <= hidden < row.depth:
            continue
        hidden = -1
        del path[row.depth :]
        if folds(row, shown[path[-1]] if path else None):
            hidden = row.depth
            if path and row.status not in _ENDED:
                below.setdefault(path[-1], []).append(row)
        else:
            path.append(len(shown))
            shown.append(row)
    for place, folded in below.items():
        row = shown[place]
        shown[place] = replace(row, note="; ".join(filter(None, [row.note, _summary(row, folded)])))
    return shown


def _summary(row: Row, folded: list[Row]) -> str:
    """Sum up a row whose steps are not shown: its items by status, or the names of its steps."""
    if row.total:
        counts = Counter(item.status for item in folded)
        return ", ".join(f"{count} {status}" for status, count in counts.items())
    return ", ".join(f"{step.step} {step.done}/{step.total}" if step.total else step.step for step in folded)


def tree_of(rows: list[Row], stream: IO[str] | None = None) -> Tree:
    """The rows as a tree, by their depth, for a stream: stderr if none is given."""
    tree = Tree("", hide_root=True)
    above = [tree]
    for row in rows:
        del above[row.depth + 1 :]
        above.append(above[-1].add(_branch(row, stream or sys.stderr)))
    return tree


def _branch(row: Row, stream: IO[str]) -> Text:
    text = Text.assemble(fit_encoding(row.step, stream), "  ", (row.status_text, STYLES.get(row.status, "")))
    said = " ".join(details(row))
    return text.append(f"  {fit_encoding(said, stream)}") if said else text
