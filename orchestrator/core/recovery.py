"""What the ticker makes of a record whose moment has come. It knows no graph and runs no user code.

Every answer first moves the entry on, in a commit guarded by what was read; the word to a worker follows. So two
tickers, a paused one and one that dies in between are all harmless.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.changes import Caller, Change, Dispatch, Expect, Op, Set
from orchestrator.core.flow import overdue
from orchestrator.core.records import Header, Record, RunState, Status

_SWEPT = frozenset({RunState.RUNNING.value, RunState.SUSPENDED.value})
_SLOWEST = 3_600_000  # a queued record is looked at again at least this often


@dataclass(frozen=True, slots=True)
class Sweep:
    """A guarded change, and what to publish once it is committed beside the dispatches that it brings itself."""

    change: Change
    again: tuple[Dispatch, ...] = ()


def sweep(header: Header, record: Record, grace: int, *, short: bool = True) -> Sweep | None:
    """What to do with a due record; None where nothing is.

    `short` says that the record's queue has been seen short since it was published: only then is its message sent
    again, under the same seq. Otherwise a backlog would make more backlog.
    """
    if not worth_keeping(header, record):
        return None
    match record.status:
        case Status.WAITING:
            return Sweep(_guarded(record, tuple(overdue(record)), grace))
        case Status.QUEUED:
            waited = max(grace, header.updated_at - record.queued_at, record.due - record.queued_at)
            op = Set(record.path, {}, delay=min(_SLOWEST, 2 * waited) if short else grace)
            again = (Dispatch(record.path, record.seq, record.route),) if short else ()
            return Sweep(_guarded(record, (op,), grace), again)
        case Status.RETRYING | Status.SLEEPING:
            return Sweep(_guarded(record, (Set(record.path, {"status": Status.QUEUED.value}),), grace))
        case Status.RUNNING if not header.auto_restart:
            return Sweep(_guarded(record, (Set(record.path, {}, delay=_SLOWEST),), grace))
        case Status.RUNNING:
            fields = {"status": Status.QUEUED.value, "lost": record.lost + 1, "restarted": True}
            return Sweep(_guarded(record, (Set(record.path, fields),), grace))
        case _:
            return None


def worth_keeping(header: Header, record: Record) -> bool:
    """Whether the due entry of this record still means something. Others are dropped as they fire."""
    if header.status == RunState.RUNNING:
        return not header.closed or not record.path
    return header.status in _SWEPT and record.status == Status.WAITING


def _guarded(record: Record, ops: tuple[Op, ...], grace: int) -> Change:
    guard = Caller("", _SWEPT)  # upkeep: no id
    return Change(guard, ops, expect=(Expect(record.path, record.status, record.seq, record.due),), grace=grace)
