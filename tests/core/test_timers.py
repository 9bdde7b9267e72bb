"""The timers of records: who has one, what follows when its moment comes, and who may look after them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.changes import Caller, Expect, Set
from orchestrator.core.records import Header, Record, RunState, Status
from orchestrator.core.timers import on_deadline

HEADER = Header(run_id="run", status=RunState.RUNNING, updated_at=1_000)


def record(status: Status, **fields: Any) -> Record:
    """A record whose moment is at 1000."""
    return Record(**{"path": "0", "status": status, "seq": 5, "due": 1_000, "route": "{}", **fields})


def moved(of: Record, header: Header = HEADER, **how: Any) -> Set:
    """Return the move of the record itself."""
    todo = on_deadline(header, of, 100, **how)
    assert todo is not None
    return next(op for op in todo.change.ops if isinstance(op, Set) and op.path == of.path)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.SLEEPING, Status.WAITING])
def test_every_sweep_is_guarded_by_what_was_read(status: Status) -> None:
    """Status, number and moment; it is upkeep, which has no id."""
    todo = on_deadline(HEADER, record(status), 100)
    assert todo is not None
    assert isinstance(todo.change.guard, Caller)
    assert todo.change.guard.id == ""
    assert todo.change.expect == (Expect("0", status, 5, 1_000),)


@pytest.mark.parametrize("status", [Status.RETRYING, Status.SLEEPING])
def test_what_has_its_moment_is_queued(status: Status) -> None:
    """Under a new number: the commit tells of it."""
    assert dict(moved(record(status)).fields) == {"status": Status.QUEUED}


def test_a_lost_lease_is_counted_and_queued() -> None:
    """How many losses are too many is the engine's to say."""
    assert dict(moved(record(Status.RUNNING, lost=2)).fields) == {"status": "queued", "lost": 3, "restarted": True}


def test_a_lost_lease_waits_where_nothing_restarts_by_itself() -> None:
    """Its entry is only moved on."""
    op = moved(record(Status.RUNNING), Header(status=RunState.RUNNING, auto_restart=False))
    assert dict(op.fields) == {}
    assert op.delay > 0


def test_a_queued_record_is_told_of_again_later_and_later() -> None:
    """Under the same number, and only where its queue has been short."""
    todo = on_deadline(HEADER, record(Status.QUEUED, queued_at=900), 100)
    assert todo is not None
    assert [(dispatch.path, dispatch.seq) for dispatch in todo.again] == [("0", 5)]
    pauses = [moved(record(Status.QUEUED, queued_at=1_000 - waited)).delay for waited in (100, 300, 900)]
    assert pauses == [200, 600, 1800]
    held_back = on_deadline(HEADER, record(Status.QUEUED), 100, short=False)
    assert held_back is not None
    assert held_back.again == ()
    assert moved(record(Status.QUEUED), short=False).delay == 100


@pytest.mark.parametrize(
    "status, header",
    [
        (Status.QUEUED, Header(status=RunState.CANCELED)),
        (Status.RUNNING, Header(status=RunState.SUSPENDED)),
        (Status.WAITING, Header(status=RunState.SUCCESS)),
        (Status.QUEUED, Header(status=RunState.RUNNING, closed=True)),
        (Status.SUCCESS, HEADER),
        (Status.SUSPENDED, HEADER),
    ],
)
def test_what_nobody_waits_for_is_left(status: Status, header: Header) -> None:
    """The store drops it."""
    assert on_deadline(header, record(status), 100) is None


def test_the_rest_of_a_closed_run_is_looked_after() -> None:
    """It alone is still to come."""
    assert on_deadline(Header(status=RunState.RUNNING, closed=True), record(Status.RUNNING, path=""), 100) is not None


def test_a_wait_that_is_over_wakes_the_run() -> None:
    """Also one that rests: the rest is taken away."""
    todo = on_deadline(Header(status=RunState.SUSPENDED), record(Status.WAITING), 100)
    assert todo is not None
    assert [op.path for op in todo.change.ops if isinstance(op, Set)] == ["", "0"]
