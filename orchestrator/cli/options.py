"""Options and arguments that several commands share, and how their texts are read.

Light: Celery loads this module for each of its commands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import IO, Any, TypeVar

import click

Made = TypeVar("Made", bound=Callable[..., Any])

# What a store may keep a run as; a test compares them with the product's.
STATUSES = ("pending", "running", "suspended", "paused", "success", "failed", "canceled", "tripwire")
PICTURES = ("mermaid", "svg")
PURGEABLE = tuple(status for status in STATUSES if status != "running")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class NothingGiven:
    """The type of `NOTHING`: no JSON was given, which is not the same as `null`."""


NOTHING = NothingGiven()


def age(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """Read an age like `30d`, `12h` or `1d12h`."""
    if not _AGE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no age: write 30d, 12h, 90m, 45s or 1d12h", ctx, param)
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value)))
    except OverflowError:
        raise click.BadParameter(f"{value!r} is more than a calendar holds", ctx, param) from None


def json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Read a JSON object."""
    if value is None:
        return None
    found = _parse_json(value, f"--{param.name}")
    if not isinstance(found, dict):
        raise click.BadParameter("a JSON object is wanted, such as '{\"key\": 1}'", ctx, param)
    return found


def json_value(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read any JSON; `NOTHING` where the option is not given."""
    if value is None:
        return NOTHING
    try:
        return _parse_json(value, param.opts[-1])
    except click.UsageError as error:
        error.ctx = ctx
        raise


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise click.UsageError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise click.UsageError(f"{where} is not JSON: {error}; a text needs its own quotes: '\"text\"'") from None


def value_given(text: str | None, file: IO[str] | None) -> Any:
    """The JSON value of the argument (`-` is stdin) or of the file; `NOTHING` without either."""
    if text is not None and file is not None:
        raise click.UsageError("the JSON is given twice: as an argument and by --input")
    try:
        if file is not None:
            return _parse_json(file.read(), "the file of --input")
        if text == "-":
            return _parse_json(click.open_file("-", encoding="utf-8").read(), "what stdin gave")
    except UnicodeDecodeError:
        raise click.UsageError("the input is not UTF-8 text") from None
    return NOTHING if text is None else _parse_json(text, "the argument")


def as_json(command: Made) -> Made:
    """Add `--json`."""
    text = "Print JSON on stdout and nothing else; times are milliseconds since 1970."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def given_by_file(command: Made) -> Made:
    """Add `--input`."""
    text = "Read the JSON from a file; - is stdin."
    return click.option("--input", "file", type=click.File(encoding="utf-8"), metavar="FILE", help=text)(command)


def wait_options(command: Made) -> Made:
    """Add `--wait/--no-wait` and `--timeout`."""
    seconds = click.FloatRange(min=0.0, min_open=True)
    timeout = click.option("--timeout", type=seconds, metavar="SECONDS", help="How long to wait; without it, for ever.")
    wait = click.option("--wait/--no-wait", default=True, help="Wait for what the run comes to (the default), or not.")
    return wait(timeout(command))
