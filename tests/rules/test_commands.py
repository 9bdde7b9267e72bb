"""The changes that requests from outside make, given what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import commands, flow, travel
from orchestrator.rules.apply import apply
from orchestrator.rules.change import (
    Committed,
    CreateActivation,
    Dispatch,
    MailboxUpdate,
    Precondition,
    RequestGuard,
    UpdateActivation,
    UpdateRun,
    mailbox_version,
)
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.model import Activation, ActivationStatus, RunHeader, StoredStatus
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
    known = {"resource_id": "me", "namespace": "here", "fingerprint": "fingerprint"}
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
    """It is refused if a worker has begun with the first step, or if the run has settled since."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    answer = answer_to(change, PENDING)
    undo = commands.undo_start(change, answer, "undo")
    assert undo.guard == RequestGuard("undo", frozenset({"running"}), generation=0, settle_count=0)
    assert run_fields(undo) == {"status": "pending", "started_at": 0}
    assert undo.expect == (Precondition("0", "queued", answer.dispatches[0].seq),)
    assert undo.drop == ("", "0")
    assert undo.events == ()


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


@pytest.mark.parametrize("live, changes", [(1, 2), (2, 1)])
def test_a_resume_is_undone_as_a_whole_where_nothing_else_can_have_gone_on(live: int, changes: int) -> None:
    """Otherwise only what was resumed goes back, and the run settles with whatever status results."""
    other = Activation(path="2", status="waiting", seq=9)
    answer = Committed(replace(HEADER, live=live), (Dispatch("0", 12, ""),))
    ids = ("first", "second")
    before = replace(HEADER, status="suspended", suspended=1, waiting=1, commits=11)
    undo = commands.undo_resume(before, [SUSPENDED], [other], answer, ids)
    assert len(undo) == changes
    for moved in ([], [replace(other, seq=13)]):  # it has ended, or has gone on and waits again
        assert commands.undo_resume(before, [SUSPENDED], moved, answer, ids) == undo[-1:]
    alone = undo[-1]
    assert alone.guard == RequestGuard("second", frozenset({"running"}), generation=2, settle_count=3)
    assert fields_of(alone, "0") == {"status": "suspended", "resume": "", "resumed": False, "attempt": 1}
    assert alone.expect == (Precondition("0", "queued", 12),)
    assert run_fields(alone) == {}
    for whole in undo[:-1]:
        assert whole.guard == replace(alone.guard, id="first")
        assert run_fields(whole) == {"status": "suspended"}
        assert whole.expect == (*alone.expect, Precondition("2", "waiting", 9))


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
    return flow.waiter(Activation(path=path, lease_token=token))


@pytest.mark.parametrize(
    "entries, first",
    [
        ([], ""),
        (["v1", "v2"], ""),
        ([waiter("0.10"), waiter("0.2")], waiter("0.2")),
        ([waiter("0.2.0"), waiter("0.2"), waiter("0.10")], waiter("0.2")),
        ([waiter("10"), waiter("9.5")], waiter("9.5")),
    ],
)
def test_the_first_waiter_is_first_by_numbers(entries: Sequence[str], first: str) -> None:
    """Item 2 comes before item 10, though its text does not."""
    assert commands.find_first_waiter(entries) == first


def test_an_event_goes_to_the_first_waiter() -> None:
    """The entry leaves the mailbox, and the wait goes on with the event."""
    entries = [waiter("0.10"), waiter("0.2")]
    waits = Activation(path="0.2", status="waiting", waiter=waiter("0.2"), seq=5)
    change = commands.send_event("e", entries, waits, "v", "id", TEXTS, LIMITS)
    assert change.guard == RequestGuard("id", commands.UNENDED)
    assert change.mailbox == MailboxUpdate("e", mailbox_version(entries), pop=waiter("0.2"))
    assert change.expect == (Precondition("0.2", "waiting", 5),)
    assert fields_of(change, "0.2") == {"status": "queued", "phase": "event_received", "resume": "v", "attempt": 0}
    assert (change.values, change.redelivery_delay, change.events) == ({"v": "=1"}, 22, ())


@pytest.mark.parametrize("entries", [[], ["v0"]])
def test_an_event_without_a_waiter_is_kept(entries: list[str]) -> None:
    """It stands at the end of the mailbox."""
    change = commands.send_event("e", entries, None, "v", "id", TEXTS, LIMITS)
    assert change.mailbox == MailboxUpdate("e", mailbox_version(entries), push="v")
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
    entries = [waiter("0")]
    change = commands.send_event("e", entries, found, "v", "id", TEXTS, LIMITS)
    assert change.mailbox == MailboxUpdate("e", mailbox_version(entries), pop=waiter("0"))
    assert (change.ops, change.values) == ((), {})
