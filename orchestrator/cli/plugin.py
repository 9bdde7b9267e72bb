"""`celery -A proj workflow …`: the commands on the orchestrator of a Celery app.

Celery loads this module for each of its commands, so it imports click alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import commands, exits
from orchestrator.cli.access import Access

if TYPE_CHECKING:
    from orchestrator.app import Orchestrator


@click.group(cls=exits.Group, epilog=exits.HELP)
@click.pass_context
def workflow(ctx: click.Context) -> None:
    """Durable workflows: start, list, show, draw, resume, cancel, restart and purge runs; examine a deployment."""
    celery = ctx.obj  # Celery's own context object

    @contextmanager
    def open_theirs(_stored: bool, usable: bool) -> Iterator[Orchestrator]:
        yield _orchestrator(celery.app, usable=usable)

    ctx.obj = Access(open_theirs, colour=not celery.no_color)


for _command in commands.ALL:
    workflow.add_command(_command)


def _orchestrator(app: Any, *, usable: bool) -> Orchestrator:
    """The app's orchestrator, with the workflows of every module that workers import."""
    from orchestrator.app import Orchestrator
    from orchestrator.tasks import orchestrator_of

    # Celery's autodiscovery is lazy, and only workers trigger it. An orchestrator that is there already may know none
    # of the workflows yet.
    _import_tasks(app)
    found = orchestrator_of(app)
    if isinstance(found, Orchestrator) and not app.conf.task_always_eager:
        if usable:
            _require_complete(found, app)
        return found
    if app.main is None or app.main == "default":
        raise exits.Problem("no Celery app is given", "name it: celery -A proj workflow …")
    if app.conf.task_always_eager:
        remedy = "use `orchestrator --workflows module:attr …`, or unset task_always_eager"
        raise exits.Problem(f"app {app.main!r} is in eager mode, where no worker takes part", remedy)
    remedy = "make one beside it: Orchestrator(app, store=…, workflows=[…])"
    raise exits.Problem(f"app {app.main!r} has no orchestrator", remedy)


def _require_complete(found: Orchestrator, app: Any) -> None:
    try:
        _ = found.client
    except (ValueError, ImportError) as error:
        raise exits.Problem(f"the orchestrator of app {app.main!r} cannot be used: {error}") from error


def _import_tasks(app: Any) -> None:
    try:
        app.loader.import_default_modules()
    except Exception as error:  # modules of the user's may raise anything
        text = f"the modules of app {app.main!r} cannot be imported: {type(error).__name__}: {error}"
        raise exits.Problem(text, f"{exits.TRACEBACK}=1 shows where") from error
