"""Functions that several stores share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.errors import ValueNotReadable
from orchestrator.ports import UNREADABLE, DueTimer, RunQuery
from orchestrator.rules.change import Change, RequestGuard
from orchestrator.rules.model import Activation, RunHeader
from orchestrator.rules.timers import is_timer_live, place_of

SLACK = 50  # events by which a log may exceed its limit: it is cut now and then, not at each commit

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_NUMBER = re.compile(r"[0-9]{1,18}")


def number_of(cursor: str) -> int:
    """Return the number of the event behind which the cursor stands, where a run's events are numbered from 1."""
    if cursor and not _NUMBER.fullmatch(cursor):
        raise ValueError(f"{cursor!r} is no cursor of this store")
    return int(cursor or 0)


def matches(header: RunHeader, query: RunQuery) -> bool:
    """Return True for a run that the query selects."""
    return (
        query.workflow_id in (None, header.workflow_id)
        and query.status in (None, header.status)
        and query.resource_id in (None, header.resource_id)
        and (header.is_awaiting or not query.awaiting)
    )


def is_upkeep(change: Change) -> bool:
    """Tell whether a change is the scheduler's: it moves activations, and neither brings values nor is remembered."""
    guard = change.guard
    brings = change.values or change.state or change.context or change.mailbox or change.settle_token
    return isinstance(guard, RequestGuard) and not (guard.id or brings or change.max_events or change.max_event_age)


def read_header(run_id: str, read: Callable[[], RunHeader]) -> RunHeader:
    """Read a stored header. Raise `ValueNotReadable`, which names the run, where that cannot be done."""
    try:
        return read()
    except Exception as error:  # whatever stands there instead
        text = f"run {run_id!r} cannot be read ({type(error).__name__}: {error}); it can be deleted"
        raise ValueNotReadable(text, run_id=run_id) from error


def read_activation(run_id: str, read: Callable[[], Activation]) -> Activation:
    """Read a stored activation. Raise `ValueNotReadable`, which names the run, where that cannot be done."""
    try:
        return read()
    except Exception as error:  # whatever stands there instead
        text = f"an activation of run {run_id!r} cannot be read ({type(error).__name__}: {error})"
        raise ValueNotReadable(text, run_id=run_id) from error


def compact_json(value: Any) -> str:
    """Return compact JSON that can be written as UTF-8: characters stand as they are, and lone surrogates as escapes.

    Escapes would make text in other scripts than Latin three times as long.
    """
    text = _compact(value)
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def list_header(run_id: str, read: Callable[[], RunHeader]) -> RunHeader:
    """Read a stored header for a list: one that cannot be read is shown as that, and hides none of the others."""
    try:
        return read()
    except Exception:  # noqa: BLE001  (whatever stands there instead)
        return RunHeader(run_id=run_id, status=UNREADABLE)


def read_due(run_id: str, path: str, read: Callable[[], tuple[RunHeader, Activation]]) -> DueTimer:
    """Read the header and the activation of a timer, or say why that cannot be done."""
    try:
        due = DueTimer(*read())
        if due.header.run_id != run_id:
            raise ValueError(f"it speaks of run {due.header.run_id!r}")
        # A status that is not known, or a moment that is no number, is found out here and hides none of the others.
        is_timer_live(due.header, due.activation)
        place_of(due.activation)
        return due
    except Exception as error:  # noqa: BLE001  (whatever stands there instead)
        return DueTimer(RunHeader(run_id=run_id), Activation(path=path), f"{type(error).__name__}: {error}")


def in_order(due: Iterable[DueTimer], newest: bool) -> list[DueTimer]:
    """Timers of several lanes, most overdue first or newest first."""
    return sorted(due, key=lambda one: one.activation.deadline, reverse=newest)
