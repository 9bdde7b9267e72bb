"""The surroundings of a command: an orchestrator, opened as its caller asked, and a place to print.

Light: Celery loads this module for each of its commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.app import Orchestrator
    from orchestrator.cli.output import Output


@dataclass(frozen=True, slots=True)
class Access:
    """Opens the orchestrator of a group of commands.

    `open` gets True for a command on stored runs; and, for one that can do without, whether the orchestrator has to be
    usable.
    """

    open: Callable[[bool, bool], AbstractContextManager[Orchestrator]]
    colour: bool = True


@dataclass(frozen=True, slots=True)
class Session:
    """One command at work."""

    orchestrator: Orchestrator
    output: Output


@contextmanager
def session(ctx: click.Context, as_json: bool, *, stored: bool = True, usable: bool = True) -> Iterator[Session]:
    """Open the orchestrator. With `as_json` whatever else is printed meanwhile, by steps or imports, goes to stderr."""
    from orchestrator.cli.output import Output

    access = ctx.find_object(Access)
    if access is None:
        raise RuntimeError("a command without its group")
    output = Output(sys.stdout, as_json=as_json, colour=access.colour)
    with redirect_stdout(sys.stderr if as_json else sys.stdout), access.open(stored, usable) as orchestrator:
        yield Session(orchestrator, output)
