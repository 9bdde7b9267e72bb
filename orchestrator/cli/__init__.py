"""The commands: `orchestrator …` by itself, and `celery -A proj workflow …` as a plug-in of Celery's own.

The outermost layer: it calls the public API and prints. Celery imports `orchestrator.cli.plugin` for each of its own
commands, also for `celery worker`: so this module and those that declare commands import click alone, and everything
else is imported inside a command.
"""

from __future__ import annotations


def main() -> None:
    """Run the command `orchestrator`; ends the process with an exit code of `orchestrator.cli.exits`."""
    from orchestrator.cli.standalone import run

    run()
