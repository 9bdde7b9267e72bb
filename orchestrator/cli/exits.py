"""Exit codes, and errors as one line on stderr with the way out.

Light: Celery loads this module for each of its commands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from orchestrator.safe_text import one_line, trace_text

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
HELD = 4
DOWN = 5
TIMED_OUT = 6
INTERNAL = 70
INTERRUPTED = 130

AT_ONCE = (TIMED_OUT, INTERRUPTED)  # a step may still be at work in a thread: the process does not wait for it

HELP = f"""\b
Exit codes:
   {OK}  success
   {FAILED}  the run failed, was canceled or ended by a tripwire
   {USAGE}  wrong usage or bad input, or the run is not in a state for this
   {NOT_FOUND}  no such run, workflow or step
   {HELD}  the run is suspended or paused
   {DOWN}  broker, store or workers cannot be reached
   {TIMED_OUT}  --timeout is over; the run is as it was
  {INTERNAL}  an error of another kind (ORCHESTRATOR_TRACEBACK=1 shows all of it)
 {INTERRUPTED}  interrupted from the keyboard
"""

DOCTOR_HELP = """\b
Exit codes:
   0  nothing is wrong
   1  there are warnings
   2  there are errors: runs would hang or be lost; or there is nothing to examine
"""

TRACEBACK = "ORCHESTRATOR_TRACEBACK"


class Problem(click.ClickException):
    """An error and its remedy in one line, with an exit code."""

    def __init__(self, message: str, remedy: str = "", code: int = USAGE) -> None:
        super().__init__(f"{one_line(message)} ({remedy})" if remedy else one_line(message))
        self.exit_code = code  # type: ignore[misc]  # click: one code for each class

    def show(self, file: Any = None) -> None:
        """Print it on stderr."""
        click.echo(f"Error: {self.message}", file=file, err=True)


class Group(click.Group):
    """A group all of whose commands report their errors in one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the group's own options."""
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Find the command, read its options and run it."""
        with one_line_errors():
            return super().invoke(ctx)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise every error of the block as a `Problem`."""
    try:
        yield
    except Problem as problem:
        if problem.__cause__ is not None:
            _trace(problem.__cause__)
        raise
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        where = error.ctx.command_path if error.ctx is not None else "the command"
        raise Problem(error.format_message().rstrip("."), f"see `{where} --help`") from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt as error:
        raise Problem("interrupted", code=INTERRUPTED) from error
    except Exception as error:  # a process ends here, and no caller handles it
        _trace(error)
        raise problem_of(error) from error


def _trace(error: BaseException) -> None:
    if os.environ.get(TRACEBACK):
        click.echo(trace_text((type(error), error, error.__traceback__)), err=True)


def problem_of(error: Exception) -> Problem:
    """The problem that an error is reported as."""
    from orchestrator import errors

    text = str(error) or type(error).__name__
    match error:
        case errors.RunNotFound():
            return Problem(text, "`list` shows the runs of a store", NOT_FOUND)
        case errors.WorkflowNotRegistered() | errors.StepNotFound():
            return Problem(text, code=NOT_FOUND)
        case errors.StoreUnavailable():
            return Problem(text, "check the store's URL and that its server runs", DOWN)
        case errors.BrokerUnavailable():
            return Problem(text, "check broker_url and that the broker runs; nothing has been started", DOWN)
        case errors.NoConsumer():
            return Problem("no worker is running that has this orchestrator", "start one, or use --no-wait", DOWN)
        case errors.InputInvalid():
            header = text.splitlines()[0].strip().rstrip(":")
            return Problem(f"{header}: {'; '.join(map(str, error.issues))}", "give JSON that fits the declared type")
        case errors.ResumeAmbiguous():
            return Problem(text, "choose one with --step, --label or --index")
        case errors.OrchestratorError():
            return Problem(text)
        case _:
            return Problem(f"{type(error).__name__}: {text}", f"{TRACEBACK}=1 shows where", INTERNAL)
