"""The changes that a worker commits, given its claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import attempt_commands as attempts
from orchestrator.rules import flow
from orchestrator.rules.change import (
    LeaseGuard,
    Precondition,
    RequestGuard,
    UpdateActivation,
)
from orchestrator.rules.envelope import CommitLimits, StoredTexts
from orchestrator.rules.graph import Graph, Retry, Route, Step
from orchestrator.rules.mailbox import MailboxUpdate
from orchestrator.rules.model import Activation, Phase, RunHeader, pack_route
from orchestrator.rules.plan import ClaimedNode, Done
from tests.simulation.acts import EVENT, graph, sleep, step, wait

LIMITS = CommitLimits(lease=11, redelivery_delay=22, max_events=33, max_event_age=44)
HEADER = RunHeader(run_id="run", status="running", updated_at=10_000)
CLAIM = Activation(path="0", step="a", status="running", lease_token="mine", seq=5)
MINE = LeaseGuard("0", "mine")


def claim(of: Graph, activation: Activation = CLAIM) -> ClaimedNode:
    """Make the claim as the rules see it."""
    return ClaimedNode(of, HEADER, activation, "next")


def test_an_outcome_is_one_change() -> None:
    """It has what follows, what was written, what was streamed last, and the token that settles the run."""
    plan = flow.on_result(claim(graph(step("a"))), Done("v"))
    texts = StoredTexts({"v": "=1"}, {"s": "=2"}, {"c": None}, "1:t")
    plan.drop_values = ("old",)
    mail = MailboxUpdate("e", pop="x")
    chunk = {"type": "chunk"}
    change = attempts.commit_outcome(CLAIM, plan, texts, LIMITS, mail=mail, settle_token="t", chunks=[chunk])
    assert change.guard == MINE
    assert change.ops == tuple(plan.ops)
    assert (change.values, change.state, change.context) == (texts.values, texts.state, texts.context)
    assert (change.expect_state, change.drop_values) == ("1:t", ("old",))
    assert [event["type"] for event in change.events] == ["chunk", "workflow-step-result", "workflow-step-finish"]
    assert attempts.commit_outcome(CLAIM, plan, texts, LIMITS).settle_token == ""  # the settling goes into the queue
    ended = attempts.commit_outcome(CLAIM, plan, texts, LIMITS, ender="main")
    assert ended.guard == replace(MINE, ender="main")
    assert (change.mailbox, change.settle_token, change.settle_now) == (mail, "t", False)
    assert (change.lease, change.redelivery_delay, change.max_events, change.max_event_age) == (11, 22, 33, 44)


def test_a_step_that_ends_the_run_settles_it_at_once() -> None:
    """Other live activations do not matter."""
    plan = flow.abort(claim(graph(step("a"))))
    assert attempts.commit_outcome(CLAIM, plan, StoredTexts(), LIMITS).settle_now


STEP = Step("a", "STEP", Route("a"), Retry(2, 3.0))


@pytest.mark.parametrize(
    "node, attempt, is_retryable, pause",
    [
        (STEP, 0, True, 3.0),
        (STEP, 1, True, 3.0),
        (STEP, 2, True, None),
        (STEP, 0, False, None),
        (replace(STEP, retry=Retry(2, 3.0, backoff=True)), 1, True, 3.0),
        (replace(STEP, retry=Retry()), 0, True, None),
        (sleep("nap", None), 0, True, None),
    ],
)
def test_a_failed_attempt_is_followed_by_another_if_the_step_has_one(
    node: Any, attempt: int, is_retryable: bool, pause: float | None
) -> None:
    """Only steps have retries. A backoff doubles, and is spread by chance."""
    here = claim(graph(node), replace(CLAIM, attempt=attempt))
    assert attempts.find_retry_pause(here, 0.5, is_retryable=is_retryable) == pause


def test_the_settling_of_a_run_has_no_retries() -> None:
    root = replace(CLAIM, path="", phase=Phase.SETTLE.value)
    assert attempts.find_retry_pause(claim(graph(STEP), root), 0.5, is_retryable=True) is None


def test_a_retry_counts_and_waits() -> None:
    """It is told between the chunks of the two attempts."""
    plan = attempts.retry(claim(graph(STEP)), 1.5)
    assert plan.ops == [UpdateActivation("0", {"status": "retrying", "attempt": 1}, delay=1500)]
    (event,) = plan.events
    assert (event["type"], event["retry_count"]) == ("workflow-step-retrying", 1)
    with pytest.raises(ValueError, match="the retry of step 'a' takes inf seconds"):
        attempts.retry(claim(graph(STEP)), float("inf"))


@pytest.mark.parametrize(
    "abandoned, phase, given_up",
    [(2, Phase.RUN, False), (3, Phase.RUN, True), (3, Phase.JOIN, True), (9, Phase.SETTLE, False)],
)
def test_the_third_abandoned_attempt_is_the_last(abandoned: int, phase: Phase, given_up: bool) -> None:
    """The settling of a run is tried for ever."""
    assert attempts.must_give_up(replace(CLAIM, abandoned_attempts=abandoned, phase=phase.value)) is given_up


def test_a_step_that_is_given_up_has_failed() -> None:
    """Its own retries do not matter."""
    plan = attempts.give_up(claim(graph(STEP)), "e")
    assert plan.ops[0] == UpdateActivation("0", {"status": "failed", "error": "e", "tripwire": False})
    assert [event["type"] for event in plan.events] == ["workflow-step-result", "workflow-step-finish"]


# --- events ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", "?a1#other"])
def test_a_wait_that_finds_no_event_begins(first: str) -> None:
    """Other waits in the mailbox do not matter."""
    plan, mail = attempts.await_event(claim(graph(wait("w", 2.0))), first)
    assert mail == MailboxUpdate(EVENT, push="?a0#mine")
    assert plan.ops == [UpdateActivation("0", {"status": "waiting", "waiter": "?a0#mine"}, delay=2000)]
    assert [event["type"] for event in plan.events] == ["workflow-step-waiting"]


def test_a_wait_takes_the_oldest_event() -> None:
    """The event is the output of the wait."""
    plan, mail = attempts.await_event(claim(graph(wait("w"))), "000000000004:30:10:v1")
    assert mail == MailboxUpdate(EVENT, pop="000000000004:30:10:v1")
    assert plan.ops[0] == UpdateActivation("0", {"status": "success", "output": "v1"})


def test_a_wait_that_times_out_leaves_the_mailbox() -> None:
    """Whatever else is in it."""
    activation = replace(CLAIM, waiter="?a0#older")
    plan, mail = attempts.time_out_event(claim(graph(wait("w", 1.0)), activation), "e")
    assert mail == MailboxUpdate(EVENT, pop="?a0#older", anywhere=True)
    assert plan.ops[0] == UpdateActivation("0", {"status": "failed", "error": "e", "tripwire": False})


def test_only_a_wait_awaits_an_event() -> None:
    with pytest.raises(TypeError, match="0 is not a wait"):
        attempts.await_event(claim(graph(step("a"))), [])


# --- on the way, and giving back ------------------------------------------------------------------------------


def test_items_are_written_under_the_claim() -> None:
    """Nothing else is: no operation, no event."""
    change = attempts.write_items(CLAIM, {"i.0": "=1"}, LIMITS)
    assert (change.guard, change.values, change.ops, change.events, change.lease) == (MINE, {"i.0": "=1"}, (), (), 11)


def test_a_flush_is_numbered() -> None:
    """A repeat is known by the number."""
    events = [{"type": "a"}, {"type": "b"}]
    change = attempts.flush_events(CLAIM, 2, events, LIMITS)
    assert (change.guard, change.events) == (LeaseGuard("0", "mine", 2), tuple(events))
    assert (change.lease, change.max_events, change.max_event_age) == (11, 33, 44)


@pytest.mark.parametrize(
    "times, delay",
    [
        ({}, 5_000),
        ({"started_at": 9_000}, 5_000),
        ({"started_at": 20_000}, 5_000),  # a clock that went back
        ({"started_at": 1_000}, 18_000),
        ({"started_at": 1_000, "resumed_at": 6_000}, 8_000),
        ({"started_at": 1, "resumed_at": 0}, 19_998),
    ],
)
def test_what_cannot_be_run_here_is_deferred_longer_and_longer(times: dict[str, int], delay: int) -> None:
    """The delay follows from the time that it has waited already."""
    assert attempts.find_deferral(HEADER, replace(CLAIM, **times), 5_000) == delay


def test_nothing_is_deferred_for_more_than_five_minutes() -> None:
    late = replace(HEADER, updated_at=10**9)
    assert attempts.find_deferral(late, replace(CLAIM, started_at=1), 5_000) == attempts.MAX_DEFERRAL


def test_a_deferral_has_its_reason_and_counts_no_attempt() -> None:
    change = attempts.defer_unrunnable(CLAIM, "another graph", 5_000)
    assert change.guard == MINE
    assert change.ops == (UpdateActivation("0", {"status": "retrying", "parked": "another graph"}, delay=5_000),)


def test_a_claim_is_released_as_the_end_of_its_lease_would() -> None:
    """The attempt is abandoned. The change is upkeep, guarded by the deadline that was read."""
    activation = replace(CLAIM, deadline=99, abandoned_attempts=1)
    change = attempts.release(HEADER, activation, 5, LIMITS)
    assert change is not None
    assert isinstance(change.guard, RequestGuard)
    assert change.guard.id == ""
    assert change.expect == (Precondition("0", "running", 5, 99),)
    assert change.ops == (UpdateActivation("0", {"status": "queued", "abandoned_attempts": 2, "restarted": True}),)
    assert change.redelivery_delay == 22


@pytest.mark.parametrize("activation", [replace(CLAIM, seq=6), replace(CLAIM, status="queued")])
def test_a_later_claim_is_neither_released_nor_failed(activation: Activation) -> None:
    """The seq tells it from the claim of the dead process."""
    assert attempts.release(HEADER, activation, 5, LIMITS) is None
    assert not attempts.may_fail_claim(activation, 5)


@pytest.mark.parametrize("path, may", [("0", True), ("", False)])
def test_a_time_limit_may_fail_a_step_but_no_settling(path: str, may: bool) -> None:
    """The settling is tried again when its lease is over."""
    assert attempts.may_fail_claim(replace(CLAIM, path=path), 5) is may


def test_a_run_that_has_ended_has_nothing_to_release() -> None:
    """The timers of an ended run are dead."""
    assert attempts.release(replace(HEADER, status="canceled"), CLAIM, 5, LIMITS) is None


def test_an_attempt_whose_worker_was_told_to_stop_is_not_abandoned() -> None:
    """It may have had effects, but however many deployments a step meets, it does not fail by them."""
    activation = replace(CLAIM, deadline=99, abandoned_attempts=2)
    change = attempts.release(HEADER, activation, 5, LIMITS, is_abandoned=False)
    assert change is not None
    assert change.expect == (Precondition("0", "running", 5, 99),)
    assert change.ops == (UpdateActivation("0", {"status": "queued", "restarted": True}),)
    left_alone = attempts.release(replace(HEADER, auto_restart=False), activation, 5, LIMITS, is_abandoned=False)
    assert left_alone is not None
    assert "status" not in left_alone.ops[0].fields  # type: ignore[union-attr]


@pytest.mark.parametrize("mark, is_mine", [("mi", True), ("my", False), ("", False)])
def test_a_claim_is_a_deliverys_by_its_mark(mark: str, is_mine: bool) -> None:
    """While it is held."""
    assert attempts.is_claim_of(CLAIM, mark) is is_mine
    assert not attempts.is_claim_of(replace(CLAIM, status="queued"), mark)


@pytest.mark.parametrize("limits", [{"time_limit": 1.0}, {"soft_time_limit": 1.0}])
def test_nothing_goes_on_under_the_limit_of_a_step(limits: dict[str, float]) -> None:
    """No control activation, and not the settling of the run: their messages have no such limit."""
    limited = replace(CLAIM, route=pack_route(Route("a", **limits)))  # type: ignore[arg-type]
    assert flow.on_result(claim(graph(STEP, sleep("nap", None)), limited), Done("v")).ops[-1].claim == ""  # type: ignore[union-attr]
    assert flow.on_result(claim(graph(STEP, sleep("nap", None))), Done("v")).ops[-1].claim == "next"  # type: ignore[union-attr]
    plan = flow.on_result(claim(graph(STEP)), Done("v"))
    assert attempts.commit_outcome(limited, plan, StoredTexts(), LIMITS, settle_token="t").settle_token == ""


def test_what_runs_no_code_of_the_user_is_tried_for_ever() -> None:
    """A foreach that has items at work cannot fail without them, nor a run without its settling."""
    for phase, path in ((Phase.START_ITEMS, "0"), (Phase.SETTLE, "")):
        lost = replace(CLAIM, phase=phase, path=path, abandoned_attempts=9, status="running", seq=5)
        assert not attempts.must_give_up(lost)
        assert not attempts.may_fail_claim(lost, 5)
        assert attempts.must_give_up(replace(lost, phase=Phase.RUN))
