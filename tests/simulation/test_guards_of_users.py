"""Taking a guard of users away, or a part of their change, makes the explorer find what the guard is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import apply as apply_module
from orchestrator.rules import flow, stamps, travel
from orchestrator.rules.addressing import Target
from orchestrator.rules.change import Change, RequestGuard, UpdateActivation, UpdateRun
from orchestrator.rules.model import ActivationStatus, StoredStatus
from orchestrator.rules.plan import Admission
from orchestrator.rules.transitions import TABLE
from orchestrator.stores import memory
from tests.simulation.acts import foreach, graph, loop, parallel, sleep, step, wait
from tests.simulation.edits import (
    ANY,
    guard_is,
    nothing_goes_away,
    nothing_is_expected,
    only_the_first_is_expected,
)
from tests.simulation.mutants import Mutant, Patch, commands_are
from tests.simulation.test_guards import tokens_are_not_compared

ASK = graph(step("a", suspends=1), step("b"))
ITEMS = graph(foreach("each", 2, 2, step("item", suspends=1)))
AFTER = graph(step("a"), step("b", suspends=1))
STEPS = graph(step("a"), step("b"), step("c"))
BOTH = graph(parallel("q", step("a", suspends=1), step("b")))
NAP = graph(sleep("nap"))
LATE = graph(wait("w", 1.0, step("late")))
WAITS = graph(parallel("q", wait("v"), wait("w")))
LOOP = graph(loop("again", 2, step("a")))
BAIL = graph(step("a"), step("b", closes="bail"))

apply = apply_module.apply


def no_claim_is_taken(change: Change) -> Change:
    """Queued steps are told of again, but a worker keeps the claim that it has."""
    running = {expect.path for expect in change.expect if expect.status == ActivationStatus.RUNNING}
    return replace(
        change, ops=tuple(op for op in change.ops if not (isinstance(op, UpdateActivation) and op.path in running))
    )


def sleeps_are_queued(change: Change) -> Change:
    ops = (
        replace(op, fields={"status": ActivationStatus.QUEUED}, delay=0) if isinstance(op, UpdateActivation) else op
        for op in change.ops
    )
    return replace(change, ops=tuple(ops))


def the_end_is_kept(change: Change) -> Change:
    """The new generation begins with what the older one has come to."""
    kept = ("outcome", "closed", "output")
    ops = (
        UpdateRun({name: value for name, value in op.fields.items() if name not in kept})
        if isinstance(op, UpdateRun)
        else op
        for op in change.ops
    )
    return replace(change, ops=tuple(ops))


def the_generation_stays(change: Change) -> Change:
    """It is not counted, so that nothing tells the new generation from the older one."""
    ops = (
        UpdateRun({name: value for name, value in op.fields.items() if name != "generation"})
        if isinstance(op, UpdateRun)
        else op
        for op in change.ops
    )
    return replace(change, ops=tuple(ops))


def numbers_are_not_compared(patch: Patch) -> None:
    """That an activation has the status in which it was read is enough."""
    patch.setattr(
        apply_module, "_holds", lambda expect, activation: activation is not None and activation.status == expect.status
    )


def upkeep_expects_nothing(patch: Patch) -> None:
    def lax(change: Change, header: Any, activations: Any, mail: Any, now: int, *more: Any) -> Any:
        upkeep = isinstance(change.guard, RequestGuard) and not change.guard.id
        return apply(replace(change, expect=()) if upkeep else change, header, activations, mail, now, *more)

    patch.setattr(memory, "apply", lax)


def requests_are_not_remembered(patch: Patch) -> None:
    """A change that is repeated is taken for a new one; its guards are all there is."""

    def lax(change: Change, header: Any, activations: Any, mail: Any, now: int, *more: Any) -> Any:
        return apply(change, replace(header, last_request_id=""), activations, mail, now)

    patch.setattr(memory, "apply", lax)
    commands_are(nothing_is_expected, "resume")(patch)


def one_caller_is_remembered(patch: Patch) -> None:
    """The last of them, in the header: whoever comes next takes its place."""

    def lax(change: Change, header: Any, activations: Any, mail: Any, now: int, *_: Any) -> Any:
        return apply(change, header, activations, mail, now)

    patch.setattr(memory, "apply", lax)


def a_repeat_waits_for_another_rest(patch: Patch) -> None:
    """It is told the count as it is when it comes."""
    original = apply_module._first_answer

    def lax(header: Any, activations: Any, answer: str) -> Any:
        return replace(original(header, activations, answer), header=header)

    patch.setattr(apply_module, "_first_answer", lax)


def transitions_are_not_checked(patch: Patch) -> None:
    """The table says what a status is stamped with, and not which one it may follow."""
    patch.setattr(stamps, "row_of", lambda before, after, path: TABLE[after])
    patch.setattr(apply_module, "check_run", lambda before, after: None)


def nothing_is_held_back(patch: Patch) -> None:
    original = flow._plan

    def lax(claim: Any) -> Any:
        plan = original(claim)
        plan.admission = Admission.ALL
        return plan

    patch.setattr(flow, "_plan", lax)


def conditions_are_not_held_back(patch: Patch) -> None:
    patch.setattr(flow, "_pause_unless_admitted", lambda plan, check: check)


def a_pause_outranks_a_suspension(patch: Patch) -> None:
    original = flow.settled_status
    patch.setattr(flow, "settled_status", lambda header: StoredStatus.PAUSED if header.paused else original(header))


def a_pause_is_overlooked(patch: Patch) -> None:
    """Paused activations do not count, so that a run with nothing else has no status to settle in."""
    original = flow.settled_status
    patch.setattr(flow, "settled_status", lambda header: original(replace(header, paused=0)))


def nothing_is_carried_over(patch: Patch) -> None:
    """Whatever stands before the target is created anew, as it was: what had ended ends again."""
    original = travel.plan._Traveler._carry_over

    def lax(self: Any, node: Any, path: Any, visit: Any, value: Any) -> Any:
        begun = original(self, node, path, visit, value)
        self.kept.clear()
        return begun

    patch.setattr(travel.plan._Traveler, "_carry_over", lax)


ALL = {"wishes": (Target(), Target(index=1))}
STEPWISE = {"per_step": True}
TO_A = {"targets": ("a",)}
FIRST = "somebody else was first"
GENERATIONS = {"restart": 1, "race": 1, "cancel": 1, "travel": 1}
OLDER = "it was read in another generation"

MUTANTS = {
    # resume
    "resume, expects": Mutant(commands_are(nothing_is_expected, "resume"), ASK, {"race": 1}, FIRST),
    "resume, expects, what comes of it": Mutant(
        commands_are(nothing_is_expected, "resume", judges=False),
        ASK,
        {"race": 1},
        "ends twice",
        already=transitions_are_not_checked,
    ),
    "resume, expects, what the table says": Mutant(
        commands_are(nothing_is_expected, "resume", judges=False), ASK, {"race": 1}, "cannot be 'queued' after"
    ),
    "resume, numbers": Mutant(numbers_are_not_compared, ASK, {"race": 1, "again": 1}, FIRST),
    "resume, all items": Mutant(commands_are(only_the_first_is_expected, "resume"), ITEMS, {"race": 1}, FIRST, ALL),
    "resume, paused": Mutant(commands_are(nothing_is_expected, "resume"), STEPS, {"race": 1}, FIRST, STEPWISE),
    "resume, status": Mutant(
        commands_are(guard_is(statuses=ANY), "resume", judges=False), ASK, {"race": 1, "cancel": 1}, "becomes running"
    ),
    "resume, generation": Mutant(
        commands_are(guard_is(generation=None), "resume"),
        ASK,
        {"race": 1, "travel": 1},
        OLDER,
        TO_A,
        already=numbers_are_not_compared,
    ),
    "resume, repeated": Mutant(requests_are_not_remembered, ASK, {"insist": 1}, "is obeyed twice"),
    "resume, repeated after another": Mutant(one_caller_is_remembered, ITEMS, {"insist": 1}, "is refused (moved)"),
    "start, repeated after another": Mutant(
        one_caller_is_remembered, ASK, {"start": 1, "unstart": 1, "insist": 1, "cancel": 1}, "is refused"
    ),
    "send, repeated after another": Mutant(
        one_caller_is_remembered, WAITS, {"send": 2, "insist": 1}, "is obeyed twice"
    ),
    "resume, repeated, what to wait for": Mutant(
        a_repeat_waits_for_another_rest, ASK, {"insist": 1, "cancel": 1}, "of another rest to wait for"
    ),
    "undo, commits": Mutant(commands_are(guard_is(commits=None), "undo_resume"), ASK, {"away": 1}, "has begun"),
    # cancel
    "cancel, settle count": Mutant(
        commands_are(guard_is(settle_count=None), "cancel"), ASK, {"race": 1, "cancel": 1}, "it has settled since"
    ),
    "cancel, settle count, what comes of it": Mutant(
        commands_are(guard_is(settle_count=None), "cancel", judges=False),
        ASK,
        {"race": 1, "cancel": 1},
        "hears nothing of it",
    ),
    "cancel, status": Mutant(
        commands_are(guard_is(statuses=ANY, settle_count=None), "cancel", judges=False),
        STEPS,
        {"race": 1, "cancel": 1},
        "becomes canceled",
        already=transitions_are_not_checked,
    ),
    "cancel, status, what the table says": Mutant(
        commands_are(guard_is(statuses=ANY, settle_count=None), "cancel", judges=False),
        STEPS,
        {"race": 1, "cancel": 1},
        "cannot be 'canceled' after 'success'",
    ),
    # restart
    "restart, expects": Mutant(
        commands_are(nothing_is_expected, "restart"), STEPS, {"restart": 1, "race": 1}, "what it restarts has moved"
    ),
    "restart, expects, what comes of it": Mutant(
        commands_are(nothing_is_expected, "restart", judges=False),
        STEPS,
        {"restart": 1, "race": 1},
        "ends twice",
        already=transitions_are_not_checked,
    ),
    "restart, expects, what the table says": Mutant(
        commands_are(nothing_is_expected, "restart", judges=False),
        STEPS,
        {"restart": 1, "race": 1},
        "cannot be 'queued' after 'success'",
    ),
    "restart takes claims away": Mutant(
        commands_are(no_claim_is_taken, "restart"), STEPS, {"restart": 1}, "still claimed"
    ),
    "restart, sleeps": Mutant(commands_are(sleeps_are_queued, "restart"), NAP, {"restart": 1}, "awake before"),
    "restart, generation": Mutant(
        commands_are(guard_is(generation=None, settle_count=None), "restart"),
        STEPS,
        GENERATIONS,
        OLDER,
        TO_A,
        already=numbers_are_not_compared,
    ),
    # time travel
    "travel, of a settled run": Mutant(
        commands_are(guard_is(statuses=ANY), "time_travel"), ASK, {"travel": 1, "race": 1}, "the run is running", TO_A
    ),
    "travel, settle count": Mutant(
        commands_are(guard_is(settle_count=None), "time_travel"),
        ASK,
        {"travel": 1, "race": 1},
        "it has settled since",
        TO_A,
    ),
    "travel, generation": Mutant(
        commands_are(guard_is(settle_count=None, generation=None), "time_travel"),
        ASK,
        {"travel": 2, "race": 1},
        OLDER,
        TO_A,
    ),
    "travel, what follows": Mutant(
        commands_are(nothing_goes_away, "time_travel"), STEPS, {"travel": 1}, "stands after the target", TO_A
    ),
    "travel, what is suspended": Mutant(
        commands_are(nothing_goes_away, "time_travel"), AFTER, {"travel": 1}, "is still suspended", TO_A
    ),
    "travel, the end": Mutant(commands_are(the_end_is_kept, "time_travel"), BAIL, {"travel": 1}, "hangs", TO_A),
    "travel, the generation": Mutant(
        commands_are(the_generation_stays, "time_travel", hears=False), ASK, {"travel": 1}, "is followed by", TO_A
    ),
    "travel, what is carried over": Mutant(
        nothing_is_carried_over, STEPS, {"travel": 1}, "has not been kept", {"targets": ("b",)}
    ),
    "travel, older claims": Mutant(
        tokens_are_not_compared,
        STEPS,
        {"travel": 1, "cancel": 1},
        "a commit of generation 0 is accepted in generation 1",
        TO_A,
    ),
    "travel, older schedulers": Mutant(
        upkeep_expects_nothing, LATE, {"travel": 1, "pause": 1}, "in another", {"targets": ("w",)}
    ),
    # step by step
    "pause, what follows": Mutant(nothing_is_held_back, STEPS, {}, "in a run step by step", STEPWISE),
    "pause, conditions": Mutant(conditions_are_not_held_back, LOOP, {}, "in a run step by step", STEPWISE),
    "pause, suspended": Mutant(a_pause_outranks_a_suspension, BOTH, {}, "paused while something", STEPWISE),
    "pause, alone": Mutant(a_pause_is_overlooked, STEPS, {}, "nothing awaiting and no outcome", STEPWISE),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_guard_a_violation_is_found(name: str, monkeypatch: Patch) -> None:
    """The same search finds nothing with the guard and something without it."""
    MUTANTS[name].must_be_seen(monkeypatch)


SECOND_LOCKS = {
    "resume, generation": Mutant(
        commands_are(guard_is(generation=None), "resume"), ASK, {"race": 1, "travel": 1}, "", TO_A
    ),
    "cancel, status": Mutant(commands_are(guard_is(statuses=ANY), "cancel"), ASK, {"race": 1, "cancel": 1}, ""),
    "restart, generation": Mutant(commands_are(guard_is(generation=None), "restart"), STEPS, GENERATIONS, "", TO_A),
    "restart, settle count": Mutant(commands_are(guard_is(settle_count=None), "restart"), STEPS, GENERATIONS, "", TO_A),
    "travel, generation": Mutant(
        commands_are(guard_is(generation=None), "time_travel"), ASK, {"travel": 2, "race": 1}, "", TO_A
    ),
}


@pytest.mark.parametrize("name", SECOND_LOCKS)
def test_some_guards_stand_behind_others(name: str, monkeypatch: Patch) -> None:
    """Numbers and settle counts never come back either, so these alone keep nothing out; their use is seen above."""
    SECOND_LOCKS[name].take_away(monkeypatch)
    found = SECOND_LOCKS[name].explore()
    assert not found.violation, found.way
