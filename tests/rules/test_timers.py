"""The timers of activations: which have one, what follows from a deadline, and the right to sweep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.local import LocalRuntime
from orchestrator.rules.change import (
    Change,
    Committed,
    Dispatch,
    LeaseGuard,
    Precondition,
    RequestGuard,
    UpdateActivation,
)
from orchestrator.rules.graph import Route
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus, unpack_route
from orchestrator.rules.timers import (
    LONG,
    UNSWEPT_RUNTIMES,
    Lane,
    QueueState,
    SweepGrant,
    SweepRight,
    find_left_out,
    has_timer,
    is_due,
    is_stranded,
    is_timer_live,
    lane_of,
    may_take_claim,
    on_deadline,
    on_unsent,
    place_of,
    take_sweep_right,
    with_request_id,
)

HEADER = RunHeader(run_id="run", status=StoredStatus.RUNNING, updated_at=1_000)


def activation(status: ActivationStatus, **fields: Any) -> Activation:
    """Make an activation whose deadline is 1000."""
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
        ActivationStatus.SENT,
        ActivationStatus.RETRYING,
        ActivationStatus.SLEEPING,
        ActivationStatus.WAITING,
    ],
)
def test_what_follows_from_a_deadline_is_guarded_by_what_was_read(status: ActivationStatus) -> None:
    """Status, seq and deadline are guarded. The change is upkeep, which has no id."""
    todo = on_deadline(HEADER, activation(status), 100)
    assert todo is not None
    assert isinstance(todo.change.guard, RequestGuard)
    assert todo.change.guard.id == ""
    assert todo.change.expect == (Precondition("0", status, 5, 1_000),)
    assert todo.change.redelivery_delay == 100
    for header, how in ((HEADER, {"queue": QueueState(is_short=False)}), (replace(HEADER, auto_restart=False), {})):
        other = on_deadline(header, activation(status, sends=1), 100, **how)
        assert other is not None
        assert other.change.redelivery_delay == 100


@pytest.mark.parametrize("status", [ActivationStatus.RETRYING, ActivationStatus.SLEEPING])
def test_a_delay_that_is_over_queues_the_activation(status: ActivationStatus) -> None:
    """The commit gives it a new seq and dispatches it."""
    assert dict(moved(activation(status)).fields) == {"status": ActivationStatus.QUEUED}


def test_an_abandoned_attempt_is_counted_and_queued_again() -> None:
    """The executor decides how many are too many."""
    assert dict(moved(activation(ActivationStatus.RUNNING, abandoned_attempts=2)).fields) == {
        "status": "queued",
        "abandoned_attempts": 3,
        "restarted": True,
    }


def test_an_abandoned_attempt_waits_without_auto_restart() -> None:
    """Only its timer is moved on."""
    op = moved(activation(ActivationStatus.RUNNING), RunHeader(status=StoredStatus.RUNNING, auto_restart=False))
    assert dict(op.fields) == {}
    assert op.delay > 0


def test_a_queued_activation_is_dispatched_again_later_and_later() -> None:
    """The seq stays, and the message is sent again only if its queue has been short."""
    todo = on_deadline(HEADER, activation(ActivationStatus.QUEUED, queued_at=900), 100)
    assert todo is not None
    assert todo.again == (Dispatch("0", 5, "{}"),)
    pauses = [moved(activation(ActivationStatus.QUEUED, sends=sends)).delay for sends in (1, 2, 3, 60)]
    assert pauses == [200, 400, 800, 3_600_000]
    assert dict(moved(activation(ActivationStatus.QUEUED, sends=2, looks=5)).fields) == {"sends": 3, "looks": 0}
    in_backlog = on_deadline(HEADER, activation(ActivationStatus.QUEUED), 100, queue=LONG)
    assert in_backlog is not None
    assert in_backlog.again == ()
    assert moved(activation(ActivationStatus.QUEUED), queue=LONG).delay == 100


def test_how_old_a_record_is_does_not_matter_to_the_next_message() -> None:
    """A long time in a backlog, or behind an outage, is no reason to wait as long again."""
    old = activation(ActivationStatus.QUEUED, queued_at=-10_000_000, looks=7)
    assert moved(old).delay == 200


def test_a_backlog_is_looked_through_more_and_more_rarely() -> None:
    """Up to a limit: what was lost in it must be noticed some day, and is then sent again as for the first time."""
    looked = [moved(activation(ActivationStatus.QUEUED, looks=looks), queue=LONG) for looks in (0, 1, 2, 3, 50)]
    assert [op.delay for op in looked] == [100, 200, 400, 800, 800]
    assert dict(looked[-1].fields) == {"looks": 51}


@pytest.mark.parametrize(
    "of, age",
    [({}, 100), ({"looks": 1}, 200), ({"looks": 3}, 800), ({"looks": 5}, 2_400), ({"sends": 3, "looks": 1}, 500)],
)
def test_a_message_that_is_older_than_all_in_its_queue_is_sent_again(of: dict[str, int], age: int) -> None:
    """However long the queue is: it was sent before all that waits there now. Its age is that of the pauses since."""
    queued = activation(ActivationStatus.QUEUED, **of)
    lost = on_deadline(HEADER, queued, 100, queue=QueueState(is_short=False, worked_off=age - 1))
    assert lost is not None
    assert [(dispatch.path, dispatch.seq) for dispatch in lost.again] == [("0", 5)]
    assert moved(queued, queue=QueueState(is_short=False, worked_off=age - 1)) == moved(queued)
    perhaps = on_deadline(HEADER, queued, 100, queue=QueueState(is_short=False, worked_off=age))
    assert perhaps is not None
    assert perhaps.again == ()


def test_what_nobody_could_be_told_of_comes_soon_however_long_its_queue_is() -> None:
    """No message of it is in there. A first message is counted as one, and a copy that could not be sent as none."""
    first, copy = Dispatch("0", 5, "{}"), Dispatch("1", 7, "{}")
    change = on_unsent([first, copy], 50, sends={"1": 3})
    assert [(op.path, dict(op.fields), op.delay) for op in change.ops if isinstance(op, UpdateActivation)] == [
        ("0", {"sends": 0}, 50),
        ("1", {"sends": 3}, 50),
    ]
    assert change.expect == (Precondition("0", "queued", 5), Precondition("1", "queued", 7))
    assert [op.delay for op in on_unsent([first], 0).ops if isinstance(op, UpdateActivation)] == [1]
    assert isinstance(change.guard, RequestGuard)
    assert change.guard.id == ""
    todo = on_deadline(HEADER, activation(ActivationStatus.QUEUED, sends=0), 100, queue=LONG)
    assert todo is not None
    assert [dispatch.path for dispatch in todo.again] == ["0"]
    assert moved(activation(ActivationStatus.QUEUED, sends=0)).delay == 100


@pytest.mark.parametrize("status", ActivationStatus)
def test_leases_and_lost_messages_are_lanes_of_their_own(status: ActivationStatus) -> None:
    """So that no timer waits behind a backlog, nor behind leases that are not to be trusted yet."""
    of = activation(status)
    outbox = dict.fromkeys((ActivationStatus.QUEUED, ActivationStatus.SENT), Lane.OUTBOX)
    lanes = {**outbox, ActivationStatus.RUNNING: Lane.LEASES}
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
def test_a_dead_timer_has_no_consequence(status: ActivationStatus, header: RunHeader) -> None:
    """The store drops it."""
    assert on_deadline(header, activation(status), 100) is None


@pytest.mark.parametrize("path, outlasts", [("0", False), ("-1.0", True)])
def test_a_report_is_looked_after_whatever_has_become_of_its_run(path: str, outlasts: bool) -> None:
    """It tells of a settling that is recorded. Nothing else goes on in a run that has ended."""
    statuses = frozenset(StoredStatus) if outlasts else frozenset({"running", "suspended"})
    unsent = on_unsent([Dispatch("1", 1, ""), Dispatch(path, 5, "")], 50)
    over = on_deadline(HEADER, activation(ActivationStatus.RETRYING, path=path), 100)
    assert over is not None
    for change in (unsent, over.change):
        assert change.guard == RequestGuard("", statuses)
    ended = replace(HEADER, status=StoredStatus.SUCCESS, auto_restart=False)
    assert (on_deadline(ended, activation(ActivationStatus.RETRYING, path=path), 100) is not None) is outlasts


def test_the_settling_of_a_closed_run_is_looked_after() -> None:
    """Only the settling is still to come there."""
    assert (
        on_deadline(
            RunHeader(status=StoredStatus.RUNNING, closed=True), activation(ActivationStatus.RUNNING, path=""), 100
        )
        is not None
    )


def test_a_wait_that_is_over_reopens_the_run() -> None:
    """So a run that has settled as suspended goes on."""
    todo = on_deadline(RunHeader(status=StoredStatus.SUSPENDED), activation(ActivationStatus.WAITING), 100)
    assert todo is not None
    assert [op.path for op in todo.change.ops if isinstance(op, UpdateActivation)] == ["", "0"]


# --- who has one, and who looks after it -------------------------------------------------------------------


@pytest.mark.parametrize("status", ActivationStatus)
def test_an_activation_has_a_timer_while_it_is_live_or_its_wait_has_a_timeout(status: ActivationStatus) -> None:
    """A deadline that is left over from an earlier status means nothing."""
    timed = {
        ActivationStatus.QUEUED,
        ActivationStatus.RUNNING,
        ActivationStatus.SENT,
        ActivationStatus.RETRYING,
        ActivationStatus.SLEEPING,
        ActivationStatus.WAITING,
    }
    assert has_timer(HEADER, activation(status)) is (status in timed)
    assert not has_timer(HEADER, activation(status, deadline=0))


def test_a_local_run_has_no_timers_in_the_store() -> None:
    """No worker can find one there."""
    assert LocalRuntime.name in UNSWEPT_RUNTIMES
    assert not has_timer(
        RunHeader(run_id="run", status=StoredStatus.RUNNING, runtime=LocalRuntime.name),
        activation(ActivationStatus.QUEUED),
    )


@pytest.mark.parametrize("state", StoredStatus)
def test_a_timer_is_live_while_its_run_goes_on(state: StoredStatus) -> None:
    """Only the timer of a wait outlasts the settling. In a closed run, only that of the settling is left."""
    goes_on, header = state == StoredStatus.RUNNING, RunHeader(status=state)
    assert is_timer_live(header, activation(ActivationStatus.QUEUED)) is goes_on
    assert is_timer_live(header, activation(ActivationStatus.WAITING)) is (goes_on or state == StoredStatus.SUSPENDED)
    assert not is_timer_live(header, activation(ActivationStatus.SUSPENDED)) or goes_on
    closed = RunHeader(status=state, closed=True)
    assert is_timer_live(closed, activation(ActivationStatus.QUEUED, path="")) is goes_on
    assert not is_timer_live(closed, activation(ActivationStatus.QUEUED))


def asked(right: SweepRight, holder: str, now: int) -> tuple[SweepGrant | None, SweepRight]:
    """Ask for the right for 30, where a pause is what takes longer than 50; return the right as it stands after it."""
    grant, noted = take_sweep_right(right, holder, 30, 50, now)
    return grant, right if noted is None else noted


def test_one_holds_the_right_to_sweep_until_its_time_is_over() -> None:
    """Whoever takes or keeps it hears for how long somebody has looked without a pause."""
    grant, right = asked(SweepRight(), "a", 1_000)
    assert (grant, right) == (SweepGrant(), SweepRight("a", 1_030, 1_000, 1_000))
    assert take_sweep_right(right, "b", 30, 50, 1_020) == (None, None)
    assert asked(right, "a", 1_020)[0] == SweepGrant(steady=20)
    grant, right = asked(right, "b", 1_030)
    assert (grant, right) == (SweepGrant(steady=30), SweepRight("b", 1_060, 1_030, 1_000))


def test_a_pause_is_noted_whoever_asks_after_it() -> None:
    """Also by one who does not get the right, and by one whose answer got lost and who asks again."""
    _, right = asked(SweepRight("a", 5_000, 1_000, 100), "b", 1_051)
    assert right == SweepRight("a", 5_000, 1_051, 1_051)
    assert asked(right, "a", 1_060)[0] == SweepGrant(steady=9)
    _, lost = asked(SweepRight("a", 1_030, 1_000, 100), "a", 2_000)
    assert asked(lost, "a", 2_001)[0] == SweepGrant(steady=1)


def test_who_only_looks_writes_seldom_and_shows_that_there_was_no_pause() -> None:
    """The holder has died: its silence is none of the store's."""
    right = SweepRight("a", 1_070, 1_000, 100)
    assert take_sweep_right(right, "b", 30, 50, 1_025) == (None, None)
    _, right = asked(right, "b", 1_040)
    assert right == SweepRight("a", 1_070, 1_040, 100)
    assert asked(right, "b", 1_080)[0] == SweepGrant(steady=980)


def test_a_clock_that_goes_back_frees_the_right_and_begins_anew() -> None:
    """What it had shown is remembered until it is there again: until then there may be moments that are too far off."""
    right = SweepRight("a", 10_030, 10_000, 100)
    grant, right = asked(right, "b", 4_000)
    assert (grant, right) == (SweepGrant(0, 6_000), SweepRight("b", 4_030, 4_000, 4_000, 10_000))
    assert asked(right, "b", 4_040)[0] == SweepGrant(40, 5_960)
    grant, there = asked(replace(right, last=9_999, steady_since=4_000), "b", 10_000)
    assert (grant, there.ahead) == (SweepGrant(6_000, 0), 0)
    assert asked(replace(right, last=4_000), "b", 2_000)[1].ahead == 10_000
    grant, right = asked(SweepRight("a", 1_030, 1_000, 990), "a", 980)  # a small step is none
    assert (grant, right) == (SweepGrant(), SweepRight("a", 1_010, 980, 990))


@pytest.mark.parametrize("now, since", [(1_050, 100), (1_051, 1_051), (950, 100), (949, 949)])
def test_a_pause_is_what_takes_longer_than_it_may(now: int, since: int) -> None:
    """Whichever way the clock goes."""
    _, right = asked(SweepRight("a", 1_030, 1_000, 100), "a", now)
    assert right == SweepRight("a", now + 30, now, since, 1_000 if now < 950 else 0)


def test_a_claim_is_taken_only_if_it_could_have_been_renewed() -> None:
    """For the length of its own lease; one that does not say how long it is has the usual one."""
    assert may_take_claim(activation(ActivationStatus.RUNNING, lease=100), 100, 30)
    assert not may_take_claim(activation(ActivationStatus.RUNNING, lease=100), 99, 30)
    assert may_take_claim(activation(ActivationStatus.RUNNING), 30, 30)
    assert not may_take_claim(activation(ActivationStatus.RUNNING), 29, 30)


def test_a_moment_is_looked_at_where_the_activation_is() -> None:
    """Whoever has found the timer may be late."""
    assert is_due(activation(ActivationStatus.RUNNING), 1_000)
    assert not is_due(activation(ActivationStatus.RUNNING), 999)
    assert not is_due(activation(ActivationStatus.SUSPENDED, deadline=0), 999)
    assert is_due(activation(ActivationStatus.RUNNING, deadline=1), 1)


@pytest.mark.parametrize(
    "of, header, stranded",
    [
        (activation(ActivationStatus.RUNNING, lease=100), HEADER, True),
        (activation(ActivationStatus.RUNNING, lease=100, deadline=200 + 500), HEADER, False),
        (activation(ActivationStatus.RUNNING, lease=1), HEADER, True),
        (activation(ActivationStatus.RUNNING), HEADER, False),  # an older release does not say how long its lease is
        (activation(ActivationStatus.SLEEPING, lease=100), HEADER, False),
        (activation(ActivationStatus.RUNNING, lease=100), replace(HEADER, auto_restart=False), False),
        (activation(ActivationStatus.RUNNING, lease=100), replace(HEADER, status=StoredStatus.CANCELED), False),
    ],
)
def test_a_lease_that_ends_farther_off_than_a_lease_can_is_stranded(
    of: Activation, header: RunHeader, stranded: bool
) -> None:
    """At 500, when the clock has gone back."""
    assert is_stranded(header, of, 500) is stranded


# --- what a repeat cannot tell, and upkeep that is told ------------------------------------------------------------


def test_dispatches_that_a_repeat_leaves_out_are_found_by_the_number_of_their_commit() -> None:
    """Those that it tells are not told twice. A delay is what is left of it; one that is over is still a delay."""
    answer = Committed(HEADER, (Dispatch("0", 5, "{}"), Dispatch("1", 5, "{}")), left_out=3)
    activations = [
        activation(ActivationStatus.QUEUED),
        activation(ActivationStatus.QUEUED, path="1"),
        activation(ActivationStatus.QUEUED, path="2", route="r"),
        activation(ActivationStatus.SLEEPING, path="3"),
        activation(ActivationStatus.RETRYING, path="4", deadline=300),
        activation(ActivationStatus.QUEUED, path="5", seq=6),
        activation(ActivationStatus.SUSPENDED, path="6"),
    ]
    assert find_left_out(answer, activations, 400) == (
        Dispatch("2", 5, "r"),
        Dispatch("3", 5, "{}", 600),
        Dispatch("4", 5, "{}", 1),
    )
    assert find_left_out(Committed(HEADER, answer.dispatches[:1]), activations[1:2], 400) == (Dispatch("1", 5, "{}"),)


def test_upkeep_gets_an_id_and_nothing_else() -> None:
    """Then a repeat of it is known. The change of a claim is known by its token."""
    todo = on_deadline(HEADER, activation(ActivationStatus.WAITING), 100)
    assert todo is not None
    told = with_request_id(todo.change, "id")
    assert isinstance(told.guard, RequestGuard)
    assert told.guard.id == "id"
    assert with_request_id(told, "") == todo.change
    claims = Change(LeaseGuard("0", "mine"))
    assert with_request_id(claims, "id") is claims
