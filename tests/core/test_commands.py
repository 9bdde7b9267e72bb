"""What each request from outside changes, given what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core import commands, flow, travel
from orchestrator.core.apply import apply
from orchestrator.core.changes import Caller, Committed, Dispatch, Expect, Mail, Put, Run, Set, mark
from orchestrator.core.envelope import CommitLimits, StoredTexts
from orchestrator.core.records import Header, Record, RunState, Status
from tests.simulation.acts import graph, nested, parallel, sleep, step

LIMITS = CommitLimits(lease=11, redelivery_delay=22, max_events=33, max_event_age=44)
TEXTS = StoredTexts({"v": "=1"}, {"s": "=2"}, {"c": None})
HEADER = Header(run_id="run", status="running", life=2, rests=3, live=1)
SUSPENDED = Record(path="0", step="a", status="suspended", seq=7, attempt=1, suspend="p")
PAUSED = Record(path="1", step="b", status="paused", seq=8)
PENDING = replace(HEADER, status="pending", namespace="here", resource_id="me", life=0, rests=0, live=0)
STEPS = graph(step("a"), step("b"))


def fields_of(change: Any, path: str) -> dict[str, Any]:
    """What is set at this path."""
    return {k: v for op in change.ops if isinstance(op, Set) and op.path == path for k, v in op.fields.items()}


def run_fields(change: Any) -> dict[str, Any]:
    """What is set in the header."""
    return {k: v for op in change.ops if isinstance(op, Run) for k, v in op.fields.items()}


def answer_to(change: Any, header: Header, *records: Record) -> Committed:
    """What a store answers that takes the change at the moment 1000."""
    done = apply(change, header, {record.path: record for record in records}, "", 1000)
    assert not hasattr(done, "reason"), done
    return Committed(done.header, done.dispatches)


# --- start ----------------------------------------------------------------------------------------------------


def test_a_start_writes_what_the_run_begins_with() -> None:
    """The run's own record, its first step, the header and the event."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    assert change.guard == Caller("id", frozenset({"pending"}))
    assert [op.record.path for op in change.ops if isinstance(op, Put)] == ["", "0"]
    known = {"resource_id": "me", "namespace": "here", "fingerprint": "fingerprint"}
    assert run_fields(change) == {"status": "running", "input": "v", "per_step": False, **known}
    assert change.events == ({"type": "workflow-start", "input": "v"},)
    assert (change.values, change.state, change.context) == (TEXTS.values, TEXTS.state, TEXTS.context)
    assert (change.lease, change.grace, change.keep, change.keep_for) == (11, 22, 0, 0)


@pytest.mark.parametrize(
    "of, status, delay",
    [
        (graph(step("a")), "retrying", 500),
        (graph(sleep("nap", 2.0)), "sleeping", 2500),
        (graph(parallel("q", step("a"), step("b"))), "retrying", 500),
    ],
)
def test_a_delayed_start_has_timers(of: Any, status: str, delay: int) -> None:
    """Nothing of it is queued; a sleep is as much longer."""
    change = commands.start(of, PENDING, "v", "id", TEXTS, LIMITS, delay=500)
    puts = [op for op in change.ops if isinstance(op, Put) and op.record.live]
    assert puts
    assert {(op.record.status, op.delay) for op in puts} == {(status, delay)}


def test_a_start_that_is_taken_back_leaves_a_pending_run() -> None:
    """As long as what it has put in the queue is there, and nothing has settled since."""
    change = commands.start(STEPS, PENDING, "v", "id", TEXTS, LIMITS)
    answer = answer_to(change, PENDING)
    undo = commands.undo_start(change, answer, "undo")
    assert undo.guard == Caller("undo", frozenset({"running"}), life=0, rests=0)
    assert run_fields(undo) == {"status": "pending", "started_at": 0}
    assert undo.expect == (Expect("0", "queued", answer.dispatches[0].seq),)
    assert undo.drop == ("", "0")
    assert undo.events == ()


# --- resume ---------------------------------------------------------------------------------------------------


def test_a_resume_gives_the_data_to_who_is_suspended_and_a_word_to_who_is_paused() -> None:
    """All that were meant, in one change, each as it was read."""
    change = commands.resume(HEADER, [SUSPENDED, PAUSED], {"0": "v"}, "id", TEXTS, LIMITS, per_step=True)
    assert change.guard == Caller("id", commands.RESUMABLE, life=2)
    assert fields_of(change, "0") == {"status": "queued", "resume": "v", "resumed": True, "attempt": 0}
    assert fields_of(change, "1") == {"status": "queued"}
    assert fields_of(change, "") == {"status": "open"}
    assert run_fields(change) == {"status": "running", "per_step": True}
    assert change.expect == (Expect("0", "suspended", 7), Expect("1", "paused", 8))
    assert (change.values, change.context, change.events) == ({"v": "=1"}, {"c": None}, ())


@pytest.mark.parametrize("live, changes", [(1, 2), (2, 1)])
def test_a_resume_is_taken_back_as_a_whole_where_nothing_else_can_have_gone_on(live: int, changes: int) -> None:
    """Else what was resumed alone, and the run settles as what it has come to."""
    other = Record(path="2", status="waiting", seq=9)
    answer = Committed(replace(HEADER, live=live), (Dispatch("0", 12, ""),))
    ids = ("first", "second")
    undo = commands.undo_resume(replace(HEADER, status="suspended"), [SUSPENDED], [SUSPENDED, other], answer, ids)
    assert len(undo) == changes
    alone = undo[-1]
    assert alone.guard == Caller("second", frozenset({"running"}), life=2, rests=3)
    assert fields_of(alone, "0") == {"status": "suspended", "resume": "", "resumed": False, "attempt": 1}
    assert alone.expect == (Expect("0", "queued", 12),)
    assert run_fields(alone) == {}
    for whole in undo[:-1]:
        assert whole.guard == replace(alone.guard, id="first")
        assert run_fields(whole) == {"status": "suspended"}
        assert whole.expect == (*alone.expect, Expect("2", "waiting", 9))


# --- cancel and restart ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_cancel_settles_the_run_by_its_header(has_begun: bool) -> None:
    """Its own record is taken from whoever settles it, if there is one."""
    change = commands.cancel(HEADER, "id", has_begun=has_begun)
    states = commands.RESUMABLE if has_begun else commands.STARTABLE
    assert change.guard == Caller("id", states, rests=3)
    ended = {"status": "canceled", "outcome": "canceled", "closed": True, "error": "", "rests": 4}
    assert run_fields(change) == ended
    assert fields_of(change, "") == ({"status": "open", "phase": "rest"} if has_begun else {})
    finish = {"type": "workflow-finish", "status": "canceled", "rest": 4}
    assert change.events == ({"type": "workflow-canceled"}, finish)


@pytest.mark.parametrize(
    "record, fields, delay",
    [
        (Record(path="0", status="queued"), {"status": "queued", "restarted": False}, 0),
        (Record(path="0", status="queued", restarted=True), {"status": "queued", "restarted": True}, 0),
        (Record(path="0", status="running"), {"status": "queued", "restarted": True}, 0),
        (Record(path="0", status="retrying", attempt=1, due=900), {"status": "queued", "restarted": False}, 0),
        (Record(path="0", status="retrying", parked="why", due=900), {"status": "queued", "restarted": False}, 0),
        (Record(path="0", status="retrying", due=900), {"status": "retrying"}, 400),
        (Record(path="0", status="sleeping", due=900), {"status": "sleeping"}, 400),
        (Record(path="0", status="sleeping", due=300), {"status": "sleeping"}, 0),
    ],
)
def test_a_restart_takes_claims_away_and_leaves_timers(record: Record, fields: dict[str, Any], delay: int) -> None:
    """A retry and what is parked are tried at once; a sleep and a delayed start keep their moment."""
    change = commands.restart(HEADER, [record], 500, "id", LIMITS)
    assert change.guard == Caller("id", frozenset({"running"}), life=2, rests=3)
    assert change.ops == (Set("0", fields, delay=delay),)
    assert change.expect == (Expect("0", record.status, 0),)


@pytest.mark.parametrize("closed, paths", [(False, ["", "0"]), (True, [""])])
def test_in_a_closed_run_nothing_is_restarted_but_its_settling(closed: bool, paths: list[str]) -> None:
    """And what waits for somebody, or has ended, in none."""
    records = [
        Record(path="", status="running", phase="rest"),
        Record(path="0", status="queued"),
        *(Record(path=str(number), status=status) for number, status in enumerate(["open", "waiting", "success"], 1)),
    ]
    header = replace(HEADER, closed=closed)
    assert [record.path for record in commands.select_unfinished(header, records)] == paths
    assert [op.path for op in commands.restart(header, records, 0, "id", LIMITS).ops if isinstance(op, Set)] == paths


# --- time travel ----------------------------------------------------------------------------------------------


def test_a_time_travel_drops_what_is_behind_the_target_and_what_earlier_iterations_left() -> None:
    """It is guarded by the life and the rests that were read, in a run that nobody works on."""
    header = replace(HEADER, status="success", input="v")
    records = [Record(path=path, step=path, status="success", output="v") for path in ("", "0", "1", "1.0")]
    of = graph(step("0"), nested("1", step("1.0")))
    present = {record.at: record for record in records if record.path in ("0", "1")}
    journey = travel.travel(travel.Trip(of, header, present, (1,), fresh="f"))
    change = commands.time_travel(header, journey, records, present, "id", TEXTS, LIMITS)
    assert change.guard == Caller("id", frozenset(RunState) - {"running"}, life=2, rests=3)
    assert change.drop == ("", "1", "1.0")
    assert run_fields(change)["life"] == 3
    assert change.events[0] == {"type": "workflow-start", "input": "v"}
    assert (change.values, change.state, change.context) == ({"v": "=1"}, {"s": "=2"}, {"c": None})


# --- events ---------------------------------------------------------------------------------------------------


def waiter(path: str, token: str = "t") -> str:
    return flow.waiter(Record(path=path, token=token))


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


def test_an_event_goes_to_the_first_that_waits() -> None:
    """It leaves the mailbox, and goes on with the event in hand."""
    entries = [waiter("0.10"), waiter("0.2")]
    waits = Record(path="0.2", status="waiting", label=waiter("0.2"), seq=5)
    change = commands.send_event("e", entries, waits, "v", "id", TEXTS, LIMITS)
    assert change.guard == Caller("id", commands.UNENDED)
    assert change.mail == Mail("e", mark(entries), pop=waiter("0.2"))
    assert change.expect == (Expect("0.2", "waiting", 5),)
    assert fields_of(change, "0.2") == {"status": "queued", "phase": "hear", "resume": "v", "attempt": 0}
    assert (change.values, change.grace, change.events) == ({"v": "=1"}, 22, ())


@pytest.mark.parametrize("entries", [[], ["v0"]])
def test_an_event_for_which_nobody_waits_is_kept(entries: list[str]) -> None:
    """At the end of the mailbox."""
    change = commands.send_event("e", entries, None, "v", "id", TEXTS, LIMITS)
    assert change.mail == Mail("e", mark(entries), push="v")
    assert (change.ops, change.expect, change.values) == ((), (), {"v": "=1"})


@pytest.mark.parametrize(
    "found",
    [
        None,
        Record(path="0", status="success", label=waiter("0")),
        Record(path="0", status=Status.WAITING, label=waiter("0", "another")),
    ],
)
def test_a_waiter_that_has_given_up_is_cleared_away(found: Record | None) -> None:
    """Nothing else is written: the sender reads again."""
    entries = [waiter("0")]
    change = commands.send_event("e", entries, found, "v", "id", TEXTS, LIMITS)
    assert change.mail == Mail("e", mark(entries), pop=waiter("0"))
    assert (change.ops, change.values) == ((), {})
