"""The timers of records: who has one, what follows when its moment comes, and who may look after them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.changes import Caller, Expect, Set
from orchestrator.core.records import Header, Record, RunState, Status
from orchestrator.core.timers import (
    NEVER,
    UNSWEPT_RUNTIMES,
    SweepRight,
    has_timer,
    is_timer_live,
    on_deadline,
    take_sweep_right,
)
from orchestrator.local import LocalRuntime

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


# --- who has one, and who looks after it -------------------------------------------------------------------


@pytest.mark.parametrize("status", Status)
def test_a_record_has_a_timer_while_somebody_has_to_look_at_it(status: Status) -> None:
    """All that is live, and a wait whose time is limited; a moment that is left over from before means nothing."""
    timed = {Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.SLEEPING, Status.WAITING}
    assert has_timer(HEADER, record(status)) is (status in timed)
    assert not has_timer(HEADER, record(status, due=0))


def test_the_timers_of_a_local_run_are_its_own_process_s() -> None:
    """Stores keep none of them, so that no worker finds one."""
    assert LocalRuntime.name in UNSWEPT_RUNTIMES
    assert not has_timer(
        Header(run_id="run", status=RunState.RUNNING, runtime=LocalRuntime.name), record(Status.QUEUED)
    )


@pytest.mark.parametrize("state", RunState)
def test_a_timer_is_live_while_its_run_goes_on(state: RunState) -> None:
    """Only that of a wait outlasts the run's settling, and in a closed run only that of the settling is left."""
    goes_on, header = state == RunState.RUNNING, Header(status=state)
    assert is_timer_live(header, record(Status.QUEUED)) is goes_on
    assert is_timer_live(header, record(Status.WAITING)) is (goes_on or state == RunState.SUSPENDED)
    assert not is_timer_live(header, record(Status.SUSPENDED)) or goes_on
    closed = Header(status=state, closed=True)
    assert is_timer_live(closed, record(Status.QUEUED, path="")) is goes_on
    assert not is_timer_live(closed, record(Status.QUEUED))


def test_one_holds_the_right_to_sweep_until_its_time_is_over() -> None:
    """Whoever takes or keeps it hears how long ago the last sweep was: 1 ms at least, or that there was none."""
    since, right = take_sweep_right(SweepRight(), "a", 100, 1_000)
    assert (since, right) == (NEVER, SweepRight("a", 1_100, 1_000))
    assert right is not None
    assert take_sweep_right(right, "b", 100, 1_099) == (0, None)
    assert take_sweep_right(right, "a", 100, 1_000) == (1, SweepRight("a", 1_100, 1_000))
    assert take_sweep_right(right, "b", 100, 1_100) == (100, SweepRight("b", 1_200, 1_100))
