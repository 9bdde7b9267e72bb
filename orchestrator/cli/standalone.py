"""`orchestrator …`: the commands without a Celery app, on a store and on workflows that are named."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import commands, exits
from orchestrator.cli.access import Access
from orchestrator.cli.exits import Problem

if TYPE_CHECKING:
    from orchestrator.app import Orchestrator


@click.group("orchestrator", cls=exits.Group, epilog=exits.HELP)
@click.option("--store", envvar="ORCHESTRATOR_STORE", show_envvar=True, metavar="URL", help="Where the runs are kept.")
@click.option(
    "--workflows",
    envvar="ORCHESTRATOR_WORKFLOWS",
    show_envvar=True,
    multiple=True,
    metavar="MODULE:ATTR",
    help="A workflow, a list of workflows, or an Orchestrator. May be given again.",
)
@click.pass_context
def orchestrator(ctx: click.Context, store: str | None, workflows: tuple[str, ...]) -> None:
    """Durable workflows: start, list, show, draw, resume, cancel, restart and purge runs; examine a deployment.

    Runs that are started here run in this process. For those of Celery workers there is `celery -A proj workflow`, or
    --workflows with an Orchestrator that has an app. A URL with a password is better given by the environment.
    """

    @contextmanager
    def open_named(stored: bool, _usable: bool) -> Iterator[Orchestrator]:
        with _open(store, workflows, stored) as found:
            yield found

    ctx.obj = Access(open_named)


for _command in commands.ALL:
    orchestrator.add_command(_command)


@contextmanager
def _open(store: str | None, specs: tuple[str, ...], stored: bool) -> Iterator[Orchestrator]:
    """The orchestrator that is named, or one of our own over the store and the workflows."""
    from orchestrator.app import Orchestrator
    from orchestrator.definitions import Workflow

    found = [thing for spec in specs for thing in _things(spec)]
    theirs = [thing for thing in found if isinstance(thing, Orchestrator)]
    workflows = [thing for thing in found if isinstance(thing, Workflow)]
    if theirs:
        if len(found) > 1 or store is not None:
            raise Problem("an Orchestrator has its own store and workflows", "name it alone, without --store")
        yield theirs[0]
        return
    if store is None and stored:
        raise Problem("no store is named", "give --store URL, or set ORCHESTRATOR_STORE")
    try:
        ours = Orchestrator(store=store, workflows=workflows)
    except (ValueError, TypeError, ImportError) as error:
        raise Problem(str(error)) from error
    at_once = False
    try:
        yield ours
    except Problem as problem:
        at_once = problem.exit_code in exits.AT_ONCE
        raise
    finally:
        if not at_once:
            ours.close()


def _things(spec: str) -> list[Any]:
    """The things that `module:attr` stands for: workflows, or an orchestrator."""
    from orchestrator.app import Orchestrator
    from orchestrator.definitions import Workflow

    found = _attribute(spec)
    things = list(found) if isinstance(found, (list, tuple)) else [found]
    for thing in things:
        if not isinstance(thing, (Workflow, Orchestrator)):
            text = f"{spec} is {type(thing).__name__}, not a workflow"
            raise Problem(text, "name a Workflow, a list of them, or an Orchestrator")
    return things


def _attribute(spec: str) -> Any:
    module_name, _, path = spec.partition(":")
    if not module_name or not path:
        raise Problem(f"{spec!r} names no workflow", "write module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything
        text = f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        raise Problem(text, f"it is looked for in this folder too; {exits.TRACEBACK}=1 shows where") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise Problem(f"{spec}: there is no {name!r}", "write module:attribute")
        found = getattr(found, name)
    return found


def run() -> None:
    """The process's main function. It ends at once where Python would wait for the threads of a step."""
    try:
        orchestrator.main()
    except SystemExit as end:
        if end.code in exits.AT_ONCE:
            sys.stderr.flush()
            os._exit(int(end.code))
        raise
