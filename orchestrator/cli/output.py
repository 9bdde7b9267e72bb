"""The output of a command: JSON, or for people: in colour on a terminal, in plain columns anywhere else.

Ids, labels and texts come from outside. All that is printed passes `fit_encoding`, so no cell has a line break and
nothing is there that a terminal would obey.

A reader that has gone away (`… | head`) changes nothing of what the command does, nor of its exit code.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.safe_text import harmless, one_line

STYLES = {
    "queued": "dim",
    "pending": "dim",
    "running": "blue",
    "retrying": "yellow",
    "waiting": "magenta",
    "suspended": "magenta",
    "paused": "magenta",
    "success": "green",
    "failed": "red",
    "tripwire": "red",
    "skipped": "dim",
    "canceled": "yellow",
    "ok": "green",
    "info": "dim",
    "warning": "yellow",
    "error": "red",
}
STATUS = "STATUS"
_GONE = (errno.EPIPE, errno.EINVAL)  # the second is Windows' word


class Output:
    """Prints on `stream`; notes that are no result go to stderr."""

    def __init__(self, stream: IO[str], *, as_json: bool = False, colour: bool = True) -> None:
        self.as_json = as_json
        self.colour = colour
        self._stream = stream
        self._terminal = not as_json and stream.isatty()

    def json(self, value: Any) -> None:
        """Print one JSON document."""
        self.write(json.dumps(value, indent=2) + "\n")

    def note(self, text: str) -> None:
        """Say something that is no result."""
        with suppress(OSError):
            click.echo(fit_encoding(one_line(text), sys.stderr), err=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[str] = ()) -> None:
        """Print a table. `shown` has other texts for the first column on a terminal."""
        if self._terminal:
            first = [[text, *row[1:]] for text, row in zip(shown, rows, strict=True)] if shown else rows
            console(self._stream, self.colour).print(rich_table(columns, first, self._stream))
        else:
            self.write("".join(f"{line}\n" for line in _columns([columns, *rows])))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair on a line."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            if self._terminal:
                style = STYLES.get(value, "") if name == STATUS else ""
                line = Text.assemble((name.ljust(width), "bold"), "  ", (fit_encoding(value, self._stream), style))
                console(self._stream, self.colour).print(line, soft_wrap=True)
            else:
                self.write(f"{name.ljust(width)}  {harmless(value)}\n")

    def write(self, text: str) -> None:
        """Print lines."""
        try:
            self._stream.write("\n".join(fit_encoding(line, self._stream) for line in text.split("\n")))
            self._stream.flush()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._mute()

    def _mute(self) -> None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def console(stream: IO[str], colour: bool) -> Console:
    """A console on the stream. NO_COLOR counts, whatever `colour` says."""
    return Console(file=stream, no_color=None if colour else True, highlight=False, emoji=False, markup=False)


def fit_encoding(text: str, stream: IO[str]) -> str:
    """The text without line breaks, with question marks for control characters and what the encoding cannot say."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return harmless(text).encode(encoding, "replace").decode(encoding)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], stream: IO[str]) -> Table:
    """A table for a terminal. The first column is never cut; states have their colours."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold" if number else "ignore")
    for row in rows:
        cells = [Text(fit_encoding(cell, stream)) for cell in row]
        for name, cell in zip(columns, cells, strict=True):
            if name == STATUS:
                cell.stylize(STYLES.get(cell.plain.partition(" ")[0], ""))
        table.add_row(*cells)
    return table


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
