"""The timers of activations: who has one, what follows when its moment comes, and who may look after them."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.local import LocalRuntime
from orchestrator.rules.change import Dispatch, Precondition, RequestGuard, UpdateActivation
from orchestrator.rules.graph import Route
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus, unpack_route
from orchestrator.rules.timers import (
    NEVER,
    UNSWEPT_RUNTIMES,
    Lane,
    SweepRight,
    has_timer,
    is_timer_live,
    lane_of,
    on_deadline,
    on_unsent,
    place_of,
    take_sweep_right,
)

HEADER = RunHeader(run_id="run", status=StoredStatus.RUNNING, updated_at=1_000)


def activation(status: ActivationStatus, **fields: Any) -> Activation:
    """An activation whose moment is at 1000."""
    return Activation(**{"path": "0", "status": status, "seq": 5, "deadline": 1_000, "route": "{}", **fields})


def moved(of: Activation, header: RunHeader = HEADER, **how: Any) -> UpdateActivation:
    """Return the move of the activation itself."""
    todo = on_deadline(header, of, 100, **how)
    assert todo is not None
    return next(op for op in todo.change.ops if isinstance(op, UpdateActivation) and op.path == of.path)


@pytest.mark.parametrize(
    "status",
    [
        ActivationStatus.QUEUED,
        ActivationStatus.RUNNING,
        ActivationStatus.RETRYING,
        ActivationStatus.SLEEPING,
        ActivationStatus.WAITING,
    ],
)
def test_every_sweep_is_guarded_by_what_was_read(status: ActivationStatus) -> None:
    """Status, number and moment; it is upkeep, which has no id."""
    todo = on_deadline(HEADER, activation(status), 100)
    assert todo is not None
    assert isinstance(todo.change.guard, RequestGuard)
    assert todo.change.guard.id == ""
    assert todo.change.expect == (Precondition("0", status, 5, 1_000),)


@pytest.mark.parametrize("status", [ActivationStatus.RETRYING, ActivationStatus.SLEEPING])
def test_what_has_its_moment_is_queued(status: ActivationStatus) -> None:
    """Under a new number: the commit tells of it."""
    assert dict(moved(activation(status)).fields) == {"status": ActivationStatus.QUEUED}


def test_a_lost_lease_is_counted_and_queued() -> None:
    """How many losses are too many is the engine's to say."""
    assert dict(moved(activation(ActivationStatus.RUNNING, abandoned_attempts=2)).fields) == {
        "status": "queued",
        "abandoned_attempts": 3,
        "restarted": True,
    }


def test_a_lost_lease_waits_where_nothing_restarts_by_itself() -> None:
    """Its entry is only moved on."""
    op = moved(activation(ActivationStatus.RUNNING), RunHeader(status=StoredStatus.RUNNING, auto_restart=False))
    assert dict(op.fields) == {}
    assert op.delay > 0


def test_a_queued_record_is_told_of_again_later_and_later() -> None:
    """Under the same number, and only where its queue has been short."""
    todo = on_deadline(HEADER, activation(ActivationStatus.QUEUED, queued_at=900), 100)
    assert todo is not None
    assert [(dispatch.path, dispatch.seq) for dispatch in todo.again] == [("0", 5)]
    pauses = [moved(activation(ActivationStatus.QUEUED, sends=sends)).delay for sends in (1, 2, 3, 60)]
    assert pauses == [200, 400, 800, 3_600_000]
    assert dict(moved(activation(ActivationStatus.QUEUED, sends=2, looks=5)).fields) == {"sends": 3, "looks": 0}
    held_back = on_deadline(HEADER, activation(ActivationStatus.QUEUED), 100, short=False)
    assert held_back is not None
    assert held_back.again == ()
    assert moved(activation(ActivationStatus.QUEUED), short=False).delay == 100


def test_how_old_a_record_is_does_not_matter_to_the_next_message() -> None:
    """A long time in a backlog, or behind an outage, is no reason to wait as long again."""
    old = activation(ActivationStatus.QUEUED, queued_at=-10_000_000, looks=7)
    assert moved(old).delay == 200


def test_a_backlog_is_looked_through_more_and_more_rarely() -> None:
    """Up to a limit: what was lost in it must be noticed some day, and is then sent again as for the first time."""
    looked = [moved(activation(ActivationStatus.QUEUED, looks=looks), short=False) for looks in (0, 1, 2, 3, 50)]
    assert [op.delay for op in looked] == [100, 200, 400, 800, 800]
    assert dict(looked[-1].fields) == {"looks": 51}


def test_what_nobody_could_be_told_of_comes_soon_however_long_its_queue_is() -> None:
    """No message of it is in there. A first message is counted as one, and a copy that could not be sent as none."""
    first, copy = Dispatch("0", 5, "{}"), Dispatch("1", 7, "{}")
    change = on_unsent([first, copy], 50, sends={"1": 3})
    assert [(op.path, dict(op.fields), op.delay) for op in change.ops if isinstance(op, UpdateActivation)] == [
        ("0", {"sends": 0}, 50),
        ("1", {"sends": 3}, 50),
    ]
    assert change.expect == (Precondition("0", "queued", 5), Precondition("1", "queued", 7))
    assert isinstance(change.guard, RequestGuard)
    assert change.guard.id == ""
    todo = on_deadline(HEADER, activation(ActivationStatus.QUEUED, sends=0), 100, short=False)
    assert todo is not None
    assert [dispatch.path for dispatch in todo.again] == ["0"]
    assert moved(activation(ActivationStatus.QUEUED, sends=0)).delay == 100


@pytest.mark.parametrize("status", ActivationStatus)
def test_leases_and_lost_messages_are_lanes_of_their_own(status: ActivationStatus) -> None:
    """So that no timer waits behind a backlog, nor behind leases that are not to be trusted yet."""
    of = activation(status)
    lanes = {ActivationStatus.QUEUED: Lane.OUTBOX, ActivationStatus.RUNNING: Lane.LEASES}
    assert lane_of(of) is lanes.get(status, Lane.MOMENTS)
    assert place_of(of) == lane_of(of).offset + of.deadline


def test_the_route_of_a_newer_release_is_read_as_far_as_it_is_known() -> None:
    """Its message goes where this release would send it."""
    assert unpack_route('{"name":"mail","queue":"slow","affinity":"gpu"}') == Route("mail", queue="slow")


@pytest.mark.parametrize(
    "status, header",
    [
        (ActivationStatus.QUEUED, RunHeader(status=StoredStatus.CANCELED)),
        (ActivationStatus.RUNNING, RunHeader(status=StoredStatus.SUSPENDED)),
        (ActivationStatus.WAITING, RunHeader(status=StoredStatus.SUCCESS)),
        (ActivationStatus.QUEUED, RunHeader(status=StoredStatus.RUNNING, closed=True)),
        (ActivationStatus.SUCCESS, HEADER),
        (ActivationStatus.SUSPENDED, HEADER),
    ],
)
def test_what_nobody_waits_for_is_left(status: ActivationStatus, header: RunHeader) -> None:
    """The store drops it."""
    assert on_deadline(header, activation(status), 100) is None


def test_the_rest_of_a_closed_run_is_looked_after() -> None:
    """It alone is still to come."""
    assert (
        on_deadline(
            RunHeader(status=StoredStatus.RUNNING, closed=True), activation(ActivationStatus.RUNNING, path=""), 100
        )
        is not None
    )


def test_a_wait_that_is_over_wakes_the_run() -> None:
    """Also one that rests: the rest is taken away."""
    todo = on_deadline(RunHeader(status=StoredStatus.SUSPENDED), activation(ActivationStatus.WAITING), 100)
    assert todo is not None
    assert [op.path for op in todo.change.ops if isinstance(op, UpdateActivation)] == ["", "0"]


# --- who has one, and who looks after it -------------------------------------------------------------------


@pytest.mark.parametrize("status", ActivationStatus)
def test_a_record_has_a_timer_while_somebody_has_to_look_at_it(status: ActivationStatus) -> None:
    """All that is live, and a wait whose time is limited; a moment that is left over from before means nothing."""
    timed = {
        ActivationStatus.QUEUED,
        ActivationStatus.RUNNING,
        ActivationStatus.RETRYING,
        ActivationStatus.SLEEPING,
        ActivationStatus.WAITING,
    }
    assert has_timer(HEADER, activation(status)) is (status in timed)
    assert not has_timer(HEADER, activation(status, deadline=0))


def test_the_timers_of_a_local_run_are_its_own_process_s() -> None:
    """Stores keep none of them, so that no worker finds one."""
    assert LocalRuntime.name in UNSWEPT_RUNTIMES
    assert not has_timer(
        RunHeader(run_id="run", status=StoredStatus.RUNNING, runtime=LocalRuntime.name),
        activation(ActivationStatus.QUEUED),
    )


@pytest.mark.parametrize("state", StoredStatus)
def test_a_timer_is_live_while_its_run_goes_on(state: StoredStatus) -> None:
    """Only that of a wait outlasts the run's settling, and in a closed run only that of the settling is left."""
    goes_on, header = state == StoredStatus.RUNNING, RunHeader(status=state)
    assert is_timer_live(header, activation(ActivationStatus.QUEUED)) is goes_on
    assert is_timer_live(header, activation(ActivationStatus.WAITING)) is (goes_on or state == StoredStatus.SUSPENDED)
    assert not is_timer_live(header, activation(ActivationStatus.SUSPENDED)) or goes_on
    closed = RunHeader(status=state, closed=True)
    assert is_timer_live(closed, activation(ActivationStatus.QUEUED, path="")) is goes_on
    assert not is_timer_live(closed, activation(ActivationStatus.QUEUED))


def test_one_holds_the_right_to_sweep_until_its_time_is_over() -> None:
    """Whoever takes or keeps it hears how long ago the last sweep was: 1 ms at least, or that there was none."""
    since, right = take_sweep_right(SweepRight(), "a", 100, 1_000)
    assert (since, right) == (NEVER, SweepRight("a", 1_100, 1_000))
    assert right is not None
    assert take_sweep_right(right, "b", 100, 1_099) == (0, None)
    assert take_sweep_right(right, "a", 100, 1_000) == (1, SweepRight("a", 1_100, 1_000))
    assert take_sweep_right(right, "b", 100, 1_100) == (100, SweepRight("b", 1_200, 1_100))
