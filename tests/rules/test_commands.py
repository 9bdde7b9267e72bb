"""The changes that requests from outside make, given what was read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import commands, ownership, reports, travel, undoing
from orchestrator.rules.apply import apply
from orchestrator.rules.change import (
    Change,
    Committed,
    CreateActivation,
    Dispatch,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
)
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.mailbox import MailboxUpdate, make_waiter
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus, parse_path
from tests.simulation.acts import graph, nested, parallel, sleep, step

LIMITS = CommitLimits(lease=11, redelivery_delay=22, max_events=33, max_event_age=44)
TEXTS = StoredTexts({"v": "=1"}, {"s": "=2"}, {"c": None})
HEADER = RunHeader(run_id="run", status="running", generation=2, settle_count=3, live=1)
SUSPENDED = Activation(path="0", step="a", status="suspended", seq=7, attempt=1, suspend="p")
PAUSED = Activation(path="1", step="b", status="paused", seq=8)
WAITING = Activation(path="2", status="waiting", deadline=9, seq=9)
PENDING = replace(HEADER, status="pending", namespace="here", resource_id="me", generation=0, settle_count=0, live=0)
STEPS = graph(step("a"), step("b"))


def fields_of(change: Any, path: str) -> dict[str, Any]:
    """Return the fields that a change writes at this path."""
    return {
        k: v for op in change.ops if isinstance(op, UpdateActivation) and op.path == path for k, v in op.fields.items()
    }


def run_fields(change: Any) -> dict[str, Any]:
    """Return the fields that a change writes into the run header."""
    return {k: v for op in change.ops if isinstance(op, UpdateRun) for k, v in op.fields.items()}


def answer_to(change: Any, header: RunHeader, *activations: Activation) -> Committed:
    """Return the answer of a store that takes the change at the moment 1000."""
    done = apply(change, header, {activation.path: activation for activation in activations}, "", 1000)
    assert not hasattr(done, "reason"), done
    return Committed(done.header, done.dispatches)


# --- start ----------------------------------------------------------------------------------------------------


def test_a_start_writes_what_the_run_begins_with() -> None:
    """It creates the run's own activation and the first step, and writes the run header and the event."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    assert change.guard == RequestGuard("id", frozenset({"pending"}))
    created = [op.activation for op in change.ops if isinstance(op, CreateActivation)]
    assert [(one.path, one.status) for one in created] == [("", "open"), ("0", "queued")]
    known = {"resource_id": "me", "namespace": "here", "runtime": PENDING.runtime, "fingerprint": "fingerprint"}
    assert run_fields(change) == {"status": "running", "input": "v", "per_step": False, **known}
    assert change.events == ({"type": "workflow-start", "input": "v"},)
    assert (change.values, change.state, change.context) == (TEXTS.values, TEXTS.state, TEXTS.context)
    assert (change.lease, change.redelivery_delay, change.max_events, change.max_event_age) == (11, 22, 0, 0)
    hooked = commands.start(STEPS, replace(PENDING, hooks="on_finish"), "v", "id", TEXTS, LIMITS)
    assert run_fields(hooked) == {**run_fields(change), "hooks": "on_finish"}


@pytest.mark.parametrize(
    "of, status, delay",
    [
        (graph(step("a")), "retrying", 500),
        (graph(sleep("nap", 2.0)), "sleeping", 2500),
        (graph(parallel("q", step("a"), step("b"))), "retrying", 500),
    ],
)
def test_a_delayed_start_has_timers(of: Any, status: str, delay: int) -> None:
    """Nothing of it is queued. A sleep is longer by the delay."""
    change = commands.start(of, PENDING, "v", "id", TEXTS, LIMITS, delay=500)
    puts = [op for op in change.ops if isinstance(op, CreateActivation) and op.activation.live]
    assert puts
    assert {(op.activation.status, op.delay) for op in puts} == {(status, delay)}


def test_an_undone_start_leaves_a_pending_run() -> None:
    """Nothing of it stays. It is refused if anything has happened since."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    answer = answer_to(change, PENDING)
    undo = undoing.undo_start(PENDING, change, answer, "undo")
    assert undo.guard == RequestGuard("undo", frozenset({"running"}), commits=answer.header.commits, undoes="id")
    before = {name: getattr(PENDING, name) for name in run_fields(change)}
    assert run_fields(undo) == {**before, "started_at": 0}
    assert undo.drop == ("", "0")
    assert (undo.state, undo.context) == (dict.fromkeys(change.state), dict.fromkeys(change.context))
    assert (undo.drop_values, undo.drop_events, undo.events) == (tuple(change.values), True, ())
    assert (undo.lease, undo.redelivery_delay) == (11, 22)


@pytest.mark.parametrize(
    "of", [graph(step("a")), graph(sleep("nap", 2.0)), graph(parallel("q", step("a"), sleep("n")))]
)
@pytest.mark.parametrize("delay", [0, 500])
def test_a_start_of_whatever_kind_can_be_undone(of: Any, delay: int) -> None:
    """Also one that is to begin later, and one that begins with a sleep. The state's version never comes back."""
    change = commands.start(of, PENDING, "v", "id", TEXTS, LIMITS, delay=delay)
    answer = answer_to(change, PENDING)
    created = [op.activation for op in change.ops if isinstance(op, CreateActivation)]
    undone = answer_to(undoing.undo_start(PENDING, change, answer, "undo"), answer.header, *created)
    assert undone.header.state_version == "2:undo"
    counted = {"commits": 0, "updated_at": 0, "state_version": "", "last_request_id": "", "last_reply": ""}
    assert replace(undone.header, **counted) == PENDING


def test_the_undo_of_a_repeated_start_goes_by_the_first_answer() -> None:
    """The header in the answer to a repeat is the present one: a worker may have begun by then."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    answer = answer_to(change, PENDING)
    late = Committed(replace(answer.header, commits=7), answer.dispatches)
    undo = undoing.undo_start(PENDING, change, late, "undo")
    assert isinstance(undo.guard, RequestGuard)
    assert undo.guard.commits == answer.header.commits


# --- resume ---------------------------------------------------------------------------------------------------


def test_a_resume_gives_data_to_suspended_activations_alone() -> None:
    """All chosen activations go on in one change, each guarded as it was read."""
    change = commands.resume(HEADER, [SUSPENDED, PAUSED], {"0": "v"}, "id", TEXTS, LIMITS, per_step=True)
    assert change.guard == RequestGuard("id", commands.RESUMABLE, generation=2)
    assert fields_of(change, "0") == {"status": "queued", "resume": "v", "resumed": True, "attempt": 0}
    assert fields_of(change, "1") == {"status": "queued"}
    assert fields_of(change, "") == {"status": "open"}
    assert run_fields(change) == {"status": "running", "per_step": True}
    assert not run_fields(commands.resume(HEADER, [PAUSED], {}, "id", TEXTS, LIMITS))["per_step"]
    assert (change.lease, change.redelivery_delay) == (11, 22)
    assert change.expect == (Precondition("0", "suspended", 7), Precondition("1", "paused", 8))
    assert (change.values, change.context, change.events) == ({"v": "=1"}, {"c": None}, ())


def test_an_undone_resume_leaves_what_was_read() -> None:
    """Context, status and moments are as before, and the run as a whole too."""
    header = replace(HEADER, status="suspended", suspended=1, commits=11)
    asked = replace(SUSPENDED, suspended_at=5, queued_at=4)
    change = commands.resume(header, [asked], {"0": "v"}, "id", TEXTS, LIMITS)
    answer = Committed(replace(header, status="running", commits=12), (Dispatch("0", 12, ""),))
    undo = undoing.undo_resume(header, [asked], {"c": "=0"}, change, answer, "undo")
    assert undo is not None
    assert undo.guard == RequestGuard("undo", frozenset({"running"}), commits=12, undoes="id")
    first, second = [op for op in undo.ops if isinstance(op, UpdateActivation)]
    assert first.fields == {"status": "suspended"}
    assert "status" not in second.fields
    known = {"resume": "", "resumed": False, "attempt": 1, "suspended_at": 5, "queued_at": 4, "resumed_at": 0}
    assert known.items() <= second.fields.items()
    assert run_fields(undo) == {"status": "suspended", "per_step": False}
    assert (undo.context, undo.drop_values) == ({"c": "=0"}, ("v",))
    assert (undo.lease, undo.redelivery_delay) == (11, 22)
    assert undoing.undo_resume(replace(header, commits=10), [asked], {}, change, answer, "undo") is None


def test_an_undone_resume_of_several_gives_every_timer_back() -> None:
    """Each activation is as it was. What was written only for its timer is written so again, and nothing else is."""
    header = replace(HEADER, status="suspended", runtime="local", namespace="here", live=0, suspended=1, paused=1)
    resumed = commands.resume(header, [SUSPENDED, PAUSED], {"0": "v"}, "id", TEXTS, LIMITS)
    change = ownership.adopt(resumed, header, [SUSPENDED, PAUSED, WAITING], "celery", "there")
    answer = Committed(header, (Dispatch("0", header.commits + 1, ""),))
    undo = undoing.undo_resume(header, [SUSPENDED, PAUSED], {}, change, answer, "undo")
    assert undo is not None
    first = fields_of(replace(undo, ops=undo.ops[:-1]), "0")
    assert (first["status"], first["resume"], first["resumed"]) == ("suspended", "", False)
    assert fields_of(undo, "1")["status"] == "paused"
    assert fields_of(undo, "") == {}
    assert undo.ops.count(UpdateActivation("2", {})) == 1
    assert {op.path for op in undo.ops if isinstance(op, UpdateActivation)} == {"0", "1", "2"}
    before = {"runtime": "local", "namespace": "here", "status": "suspended", "per_step": False}
    assert run_fields(undo) == before


# --- requests that are final ------------------------------------------------------------------------------------


RUNNING = replace(HEADER, generation=0, settle_count=0, commits=9)
NOT_UNDONE = [replace(RUNNING, status="pending"), replace(RUNNING, status="success"), replace(RUNNING, runtime="local")]


def test_a_start_is_made_final_once() -> None:
    """By any commit; one that has settled, or has traveled, was final long ago. No start of a process is undone."""
    assert undoing.confirm_start(RUNNING) == Change(RequestGuard("", frozenset({"running"})))
    for header in (*NOT_UNDONE, replace(RUNNING, settle_count=1), replace(RUNNING, generation=1)):
        assert undoing.confirm_start(header) is None


def test_a_resume_is_made_final_while_its_steps_are_in_the_queue() -> None:
    """A worker that has claimed one of them has made the whole of it final."""
    queued, claimed = replace(SUSPENDED, status="queued", seq=8), replace(PAUSED, status="running")
    final = Change(RequestGuard("", frozenset({"running"})), expect=(Precondition("0", "queued", 8),))
    assert undoing.confirm_resume(RUNNING, [queued, claimed]) == final
    assert undoing.confirm_resume(RUNNING, [claimed]) is None
    for header in NOT_UNDONE:
        assert undoing.confirm_resume(header, [queued]) is None


def test_whatever_has_let_a_run_go_on_is_made_final_where_nothing_has_happened_since() -> None:
    """Of a process's run nothing is undone, and one that stands still has nothing to make final."""
    assert undoing.confirm_all(RUNNING) == Change(RequestGuard("", frozenset({"running"}), commits=9))
    for header in NOT_UNDONE:
        assert undoing.confirm_all(header) is None


def test_a_step_that_was_resumed_and_put_back_awaits_what_it_awaited() -> None:
    """Only its number is another. After another suspension something else is, too."""
    assert undoing.is_same_suspension(SUSPENDED, SUSPENDED)
    assert undoing.is_same_suspension(SUSPENDED, replace(SUSPENDED, seq=99))
    assert not undoing.is_same_suspension(SUSPENDED, replace(SUSPENDED, seq=99, suspended_at=5))


# --- to whom a run belongs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("before, after", [("local", "celery"), ("celery", "local")])
def test_who_lets_a_run_go_on_has_all_of_its_timers(before: str, after: str) -> None:
    """Each is written once more, and nothing may have moved meanwhile."""
    header = replace(HEADER, status="suspended", runtime=before, namespace="here", live=0, commits=4)
    change = commands.resume(header, [SUSPENDED], {"0": "v"}, "id", TEXTS, LIMITS)
    adopted = ownership.adopt(change, header, [SUSPENDED, WAITING], after, "there")
    assert {"runtime": after, "namespace": "there"}.items() <= run_fields(adopted).items()
    assert adopted.ops[-1] == UpdateActivation("2", {})
    assert [op.path for op in adopted.ops if isinstance(op, UpdateActivation)].count("0") == 1
    assert isinstance(adopted.guard, RequestGuard)
    assert adopted.guard.commits == 4
    timeless = replace(WAITING, path="3", deadline=0)
    assert UpdateActivation("3", {}) not in ownership.adopt(change, header, [timeless], after, "there").ops
    assert ownership.adopt(change, header, [WAITING], before, "there") is not change
    assert ownership.adopt(change, header, [WAITING], before, "here") is change


def test_what_a_change_moves_or_deletes_is_not_written_once_more() -> None:
    """Its timer is written with it, or goes with it."""
    header = replace(HEADER, runtime="local", namespace="here")
    asleep, left_over = Activation(path="0", status="sleeping", deadline=9), replace(WAITING, path="3")
    change = replace(commands.restart(header, [asleep], 5, "id", LIMITS), drop=("3",))
    adopted = ownership.adopt(change, header, [asleep, left_over, WAITING], "celery", "there", takes_all=True)
    assert [op.path for op in adopted.ops if isinstance(op, UpdateActivation)] == ["0", "2"]


def test_a_run_on_which_workers_are_busy_stays_theirs() -> None:
    """A process could not go on with what they do. A restart takes all of it."""
    header = replace(HEADER, runtime="celery", live=1)
    change = commands.resume(header, [SUSPENDED], {"0": "v"}, "id", TEXTS, LIMITS)
    assert ownership.adopt(change, header, [WAITING], "local", "here") is change
    assert ownership.adopt(change, header, [WAITING], "local", "here", takes_all=True) is not change


# --- cancel and restart ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_cancel_settles_the_run_by_its_header_alone(has_begun: bool) -> None:
    """If the run has its own activation, that one is taken from the worker that settles it."""
    change = commands.cancel(HEADER, "id", has_begun=has_begun)
    states = commands.RESUMABLE if has_begun else commands.STARTABLE
    assert change.guard == RequestGuard("id", states, settle_count=3)
    ended = {"status": "canceled", "outcome": "canceled", "closed": True, "error": "", "settle_count": 4}
    assert run_fields(change) == ended
    assert fields_of(change, "") == ({"status": "open", "phase": "settle"} if has_begun else {})
    finish = {"type": "workflow-finish", "status": "canceled", "settle_count": 4}
    assert change.events == ({"type": "workflow-canceled"}, finish)


def test_a_cancel_begins_its_reports_where_the_run_would_have_settled() -> None:
    """Claimed for whoever cancels, if it has a token for them. Without one they go into the queue."""
    header = replace(HEADER, started_at=5)
    told = reports.Told(reports.HOOKS, delivers=True)
    change = commands.cancel(header, "id", has_begun=True, told=told, route="r", token="t", limits=LIMITS)
    (op,) = [op for op in change.ops if isinstance(op, CreateActivation)]
    assert (op.activation.path, op.activation.route, op.activation.following) == ("-4.0", "r", "result")
    assert (op.claim, change.lease, change.redelivery_delay) == ("t", 11, 22)
    queued = commands.cancel(header, "id", has_begun=True, told=told)
    (op,) = [op for op in queued.ops if isinstance(op, CreateActivation)]
    assert (op.claim, op.activation.route) == ("", "")


@pytest.mark.parametrize(
    "activation, fields, delay",
    [
        (Activation(path="0", status="queued"), {"status": "queued", "restarted": False}, 0),
        (Activation(path="0", status="queued", restarted=True), {"status": "queued", "restarted": True}, 0),
        (Activation(path="0", status="running"), {"status": "queued", "restarted": True}, 0),
        (Activation(path="0", status="retrying", attempt=1, deadline=900), {"status": "queued", "restarted": False}, 0),
        (
            Activation(path="0", status="retrying", parked="why", deadline=900),
            {"status": "queued", "restarted": False},
            0,
        ),
        (Activation(path="0", status="retrying", deadline=900), {"status": "retrying"}, 400),
        (Activation(path="0", status="sleeping", deadline=900), {"status": "sleeping"}, 400),
        (Activation(path="0", status="sleeping", deadline=300), {"status": "sleeping"}, 0),
    ],
)
def test_a_restart_voids_claims_and_keeps_timers(activation: Activation, fields: dict[str, Any], delay: int) -> None:
    """A retry and a parked activation are tried at once. A sleep and a delayed start keep their moment."""
    change = commands.restart(HEADER, [activation], 500, "id", LIMITS)
    assert change.guard == RequestGuard("id", frozenset({"running"}), generation=2, settle_count=3)
    assert change.ops == (UpdateActivation("0", fields, delay=delay),)
    assert change.expect == (Precondition("0", activation.status, 0),)
    assert (change.lease, change.redelivery_delay) == (11, 22)


def test_a_restart_of_an_ended_run_needs_it_to_have_ended() -> None:
    """Only its reports begin again. Where a time travel has come in between, nothing does."""
    report = Activation(path="-3.0", status="running")
    change = commands.restart(replace(HEADER, status="failed"), [report], 500, "id", LIMITS)
    ended = frozenset({"success", "failed", "canceled", "tripwire"})
    assert change.guard == RequestGuard("id", ended, generation=2, settle_count=3)


@pytest.mark.parametrize("closed, paths", [(False, ["", "0"]), (True, [""])])
def test_a_restart_of_a_closed_run_restarts_its_settling_alone(closed: bool, paths: list[str]) -> None:
    """Awaiting and ended activations are never restarted."""
    activations = [
        Activation(path="", status="running", phase="settle"),
        Activation(path="0", status="queued"),
        *(
            Activation(path=str(number), status=status)
            for number, status in enumerate(["open", "waiting", "success"], 1)
        ),
    ]
    header = replace(HEADER, closed=closed)
    assert [activation.path for activation in commands.select_unfinished(header, activations)] == paths
    assert [
        op.path for op in commands.restart(header, activations, 0, "id", LIMITS).ops if isinstance(op, UpdateActivation)
    ] == paths


# --- time travel ----------------------------------------------------------------------------------------------


def test_a_time_travel_deletes_what_is_behind_the_target_and_what_earlier_iterations_left() -> None:
    """It is guarded by the generation and the settle count that were read."""
    header = replace(HEADER, status="success", input="v")
    activations = [Activation(path=path, step=path, status="success", output="v") for path in ("", "0", "1", "1.0")]
    of = graph(step("0"), nested("1", step("1.0")))
    present = {activation.at: activation for activation in activations if activation.path in ("0", "1")}
    travel_plan = travel.plan_travel(travel.TravelRequest(of, header, present, (1,), fresh="f"))
    change = commands.time_travel(header, travel_plan, activations, present, "id", TEXTS, LIMITS)
    assert change.guard == RequestGuard("id", frozenset(StoredStatus) - {"running"}, generation=2, settle_count=3)
    assert change.drop == ("", "1", "1.0")
    assert run_fields(change)["generation"] == 3
    assert change.events[0] == {"type": "workflow-start", "input": "v"}
    assert (change.values, change.state, change.context) == ({"v": "=1"}, {"s": "=2"}, {"c": None})
    assert (change.lease, change.redelivery_delay) == (11, 22)


# --- events ---------------------------------------------------------------------------------------------------


def waiter(path: str, token: str = "t") -> str:
    """Name a wait as its mailbox does."""
    return make_waiter(parse_path(path), token)


def test_an_event_goes_to_the_first_waiter() -> None:
    """The entry leaves the mailbox, and the wait goes on with the event."""
    waits = Activation(path="0.2", status="waiting", waiter=waiter("0.2"), seq=5)
    change = commands.send_event("e", waiter("0.2"), waits, "v", "id", TEXTS, LIMITS)
    assert change.guard == RequestGuard("id", commands.UNENDED)
    assert change.mailbox == MailboxUpdate("e", pop=waiter("0.2"))
    scoped = commands.send_event("e", waiter("0.2"), waits, "v", "id", TEXTS, LIMITS, is_scoped=True)
    assert scoped.mailbox == MailboxUpdate("e", pop=waiter("0.2"), anywhere=True)
    assert change.expect == (Precondition("0.2", "waiting", 5),)
    assert fields_of(change, "0.2") == {"status": "queued", "phase": "event_received", "resume": "v", "attempt": 0}
    assert (change.values, change.redelivery_delay, change.events) == ({"v": "=1"}, 22, ())


def test_a_start_that_was_lost_is_counted_in_a_run_that_has_not_moved() -> None:
    """Nothing but the count is written, and of two that count at once one is refused."""
    pending = replace(PENDING, commits=4, abandoned_starts=1)
    change = commands.note_abandoned_start(pending, "id")
    assert run_fields(change) == {"abandoned_starts": 2}
    answer = answer_to(change, pending)
    assert (answer.header.status, answer.header.abandoned_starts, answer.dispatches) == ("pending", 2, ())
    for moved in (replace(pending, commits=5), replace(pending, status="running")):
        assert hasattr(apply(change, moved, {}, "", 1000), "reason")


@pytest.mark.parametrize("first", ["", "000000000001:2:2:v0"])
def test_an_event_without_a_waiter_is_kept(first: str) -> None:
    """With its size, so that the bounds can be compared."""
    limits = replace(LIMITS, max_mailbox_events=4, max_mailbox_bytes=50)
    change = commands.send_event("e", first, None, "v", "id", TEXTS, limits)
    assert change.mailbox == MailboxUpdate("e", push="v", size=2, max_events=4, max_bytes=50)
    assert (change.ops, change.expect, change.values) == ((), (), {"v": "=1"})
    assert (change.guard, change.redelivery_delay) == (RequestGuard("id", commands.UNENDED), 22)


@pytest.mark.parametrize(
    "found",
    [
        None,
        Activation(path="0", status="success", waiter=waiter("0")),
        Activation(path="0", status=ActivationStatus.WAITING, waiter=waiter("0", "another")),
    ],
)
def test_the_entry_of_a_wait_that_is_over_is_removed(found: Activation | None) -> None:
    """Nothing else is written: the sender reads again."""
    change = commands.send_event("e", waiter("0"), found, "v", "id", TEXTS, LIMITS)
    assert change.mailbox == MailboxUpdate("e", pop=waiter("0"))
    assert (change.guard, change.ops, change.values) == (RequestGuard("id", commands.UNENDED), (), {})


# --- delete ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "states, created_at, before, may",
    [
        (None, None, None, True),
        ({"failed"}, 3, 8, True),
        ({"success"}, None, None, False),
        (set(), None, None, False),
        (None, 4, None, False),
        (None, 0, None, False),
        (None, None, 7, False),
        (None, None, 0, False),
    ],
)
def test_a_run_is_deleted_only_as_it_was_meant(
    states: set[str] | None, created_at: int | None, before: int | None, may: bool
) -> None:
    """A deletion may come late: the id may be another run's by then, or the run may have gone on."""
    header = replace(HEADER, status="failed", created_at=3, updated_at=7)
    assert commands.may_delete(header, states, created_at, before) is may
