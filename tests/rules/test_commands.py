"""The changes that requests from outside make, given what was read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import commands, ownership, travel, undoing
from orchestrator.rules.apply import apply
from orchestrator.rules.change import (
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
    assert [op.activation.path for op in change.ops if isinstance(op, CreateActivation)] == ["", "0"]
    known = {"resource_id": "me", "namespace": "here", "runtime": PENDING.runtime, "fingerprint": "fingerprint"}
    assert run_fields(change) == {"status": "running", "input": "v", "per_step": False, **known}
    assert change.events == ({"type": "workflow-start", "input": "v"},)
    assert (change.values, change.state, change.context) == (TEXTS.values, TEXTS.state, TEXTS.context)
    assert (change.lease, change.redelivery_delay, change.max_events, change.max_event_age) == (11, 22, 0, 0)


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


# --- to whom a run belongs --------------------------------------------------------------------------------------


WAITING = Activation(path="2", status="waiting", deadline=9, seq=9)


@pytest.mark.parametrize("before, after", [("local", "celery"), ("celery", "local")])
def test_who_lets_a_run_go_on_has_all_of_its_timers(before: str, after: str) -> None:
    """Each is written once more, and nothing may have moved meanwhile."""
    header = replace(HEADER, status="suspended", runtime=before, namespace="here", live=0, commits=4)
    change = commands.resume(header, [SUSPENDED], {"0": "v"}, "id", TEXTS, LIMITS)
    adopted = ownership.adopt(change, header, [SUSPENDED, WAITING], after, "there")
    assert {"runtime": after, "namespace": "there"}.items() <= run_fields(adopted).items()
    assert adopted.ops[-1] == UpdateActivation("2", {})
    assert isinstance(adopted.guard, RequestGuard)
    assert adopted.guard.commits == 4
    assert ownership.adopt(change, header, [WAITING], before, "here") is change


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
    assert (change.ops, change.values) == ((), {})
