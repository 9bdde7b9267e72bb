"""Each command with another precondition, a consequence less, or an event less: the explorer finds what it is for.

Three mutants for each command. Some commands tell nothing of themselves by design; `SILENT` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator.rules import apply as apply_module
from orchestrator.rules import attempt_commands, undoing
from orchestrator.rules.change import Change, Op, RequestGuard, UpdateActivation, UpdateRun
from orchestrator.rules.graph import Graph
from tests.simulation.acts import foreach, graph, nested, parallel, sleep, step, wait
from tests.simulation.edits import (
    ANY,
    at_once,
    begins_now,
    counts_as_abandoned,
    edit_mailbox_update,
    edit_plan,
    fields_without,
    guard_is,
    is_move,
    is_reopening,
    leave_out,
    no_lease_is_needed,
    no_mail,
    no_number,
    no_values,
    nothing_goes_away,
    nothing_is_expected,
    one_page_less,
    run_is,
    sleeps_now,
    without,
)
from tests.simulation.mutants import COMMANDS, Edit, Mutant, Patch, commands_are
from tests.simulation.test_guards_of_users import transitions_are_not_checked

ASK = graph(step("a", suspends=1))
ASKS = graph(parallel("q", step("a", suspends=1), step("b", suspends=1)))
BAIL = graph(parallel("q", step("a"), step("b", closes="bail")))
ITEMS = graph(foreach("each", 2, 1, step("item")))
LATE = graph(wait("w", 1.0, step("late")))
NAP = graph(sleep("nap"))
ONE = graph(step("a"))
STEPS = graph(step("a"), step("b"))
TRIES = graph(step("a", fails=2, retries=2))
TWO_TRIES = graph(step("a", fails=3, retries=2))
WAITS = graph(parallel("q", wait("v"), wait("w")))
EVENT = graph(wait("w"))
TIMED = graph(wait("w", 1.0, None))

PREPARED = {"delay": 60_000}
STEPWISE = {"per_step": True}
TO_A = {"targets": ("a",)}

ASK_THEN = graph(step("a", suspends=1), step("b"))
FORK = graph(parallel("q", step("a", suspends=1), nested("n", step("b"), step("c"))))
MIXED = graph(parallel("q", step("a", suspends=1), wait("w", 1.0, step("late"))), step("b"))
HERE = {"runtime": "local"}
AWAY, UNSTART = {"away": 1, "race": 1}, {"unstart": 1, "start": 1}

PRECONDITION, CONSEQUENCE, TELLS = "precondition", "consequence", "event"


def decides(module: Any, name: str, answer: Callable[..., Any]) -> Callable[[Patch], None]:
    """A decision of the rules comes out otherwise."""
    return lambda patch: patch.setattr(module, name, answer)


def confirms(edit: Edit) -> Edit:
    """The confirmation is another, where there is one."""
    return lambda change: change and edit(change)


def without_guards(change: Change) -> Change:
    """It is taken whatever has happened since."""
    return replace(change, guard=RequestGuard("", ANY), expect=())


def is_touch(op: Op) -> bool:
    """Tell whether the operation writes an activation as it is, for its timer."""
    return isinstance(op, UpdateActivation) and not op.fields


# What a change of a mailbox relies on follows from its kind, so no command says it, and none could leave it out.
ANY_MAIL = decides(apply_module, "find_refusal", lambda update, mailbox: "")


@dataclass(frozen=True)
class Case:
    """One way to get a command wrong, and what is seen of it."""

    edit: Edit | Callable[[Patch], None]
    graph: Graph
    budget: Mapping[str, int]
    seen: str
    options: Mapping[str, Any] = field(default_factory=dict)
    judges: bool = True
    already: Callable[[Patch], None] | None = None  # a rule that stands before this one, and would see it first


NOT_TOLD = "it is not told that"
RACE, CANCEL = {"race": 1}, {"race": 1, "cancel": 1}
ZOMBIE = {"expire": 1}
NOT_MINE = "from a worker that does not hold its lease"
FIRST = "somebody else was first"
RESULTS = ("workflow-step-result", "workflow-step-finish")

# command -> what is wrong -> how it is seen
CASES: dict[str, dict[str, Case]] = {
    "start": {
        PRECONDITION: Case(
            guard_is(statuses=ANY), STEPS, {"start": 1}, "a user may start, although the run is running"
        ),
        CONSEQUENCE: Case(without(run_is(status="running")), STEPS, {}, "which is not so"),
        TELLS: Case(leave_out("workflow-start"), STEPS, {}, NOT_TOLD),
    },
    "start, for later": {
        PRECONDITION: Case(guard_is(statuses=ANY), STEPS, {"start": 1}, "although the run is running", PREPARED),
        CONSEQUENCE: Case(begins_now, STEPS, {}, "begins before its moment", PREPARED),
        TELLS: Case(leave_out("workflow-start"), STEPS, {}, NOT_TOLD, PREPARED),
    },
    "start, for later, with a sleep": {
        PRECONDITION: Case(guard_is(statuses=ANY), NAP, {"start": 1}, "although the run is running", PREPARED),
        CONSEQUENCE: Case(sleeps_now, NAP, {}, "begins before its moment", PREPARED),
        TELLS: Case(leave_out("workflow-start"), NAP, {}, NOT_TOLD, PREPARED),
    },
    "undo_start": {
        PRECONDITION: Case(guard_is(commits=None), STEPS, {"unstart": 1, "lose": 1}, "has begun"),
        CONSEQUENCE: Case(nothing_goes_away, STEPS, {"unstart": 1}, "has not been started, and has activations"),
        TELLS: Case(lambda change: replace(change, drop_events=False), STEPS, {"unstart": 1}, "the log says"),
    },
    "undo_start, its state": {
        PRECONDITION: Case(guard_is(commits=None), ONE, UNSTART, "has begun"),
        CONSEQUENCE: Case(lambda change: replace(change, state={}), ONE, {"unstart": 1}, "has the state"),
        TELLS: Case(lambda change: replace(change, drop_events=False), ONE, UNSTART, "the log says"),
    },
    "undo_start, its context": {
        PRECONDITION: Case(guard_is(commits=None), ONE, UNSTART, "has begun"),
        CONSEQUENCE: Case(lambda change: replace(change, context={}), ONE, UNSTART, "the context is"),
        TELLS: Case(lambda change: replace(change, drop_events=False), ONE, UNSTART, "the log says"),
    },
    "undo_start, what it was given": {
        PRECONDITION: Case(guard_is(commits=None), ONE, UNSTART, "has begun"),
        CONSEQUENCE: Case(fields_without("resource_id", of=UpdateRun), ONE, UNSTART, "has the state"),
        TELLS: Case(lambda change: replace(change, drop_events=False), ONE, UNSTART, "the log says"),
    },
    "confirm_start": {
        PRECONDITION: Case(confirms(guard_is(statuses=ANY)), ONE, UNSTART, "and it is pending"),
        CONSEQUENCE: Case(
            decides(undoing, "confirm_start", lambda header: None), ONE, UNSTART, "was told that it stands"
        ),
    },
    "confirm_resume": {
        PRECONDITION: Case(
            confirms(without_guards), ASKS, {"away": 1, "race": 1}, "is told that 0.0 has been resumed"
        ),
        CONSEQUENCE: Case(
            decides(undoing, "confirm_resume", lambda header, activations: None), ASK, AWAY, "was told that it stands"
        ),
    },
    "confirm_all": {
        PRECONDITION: Case(
            confirms(without_guards), ASK, {"away": 1, "look": 1}, "is told that 0 has been resumed"
        ),
        CONSEQUENCE: Case(
            decides(undoing, "confirm_all", lambda header: None), ASK, {"away": 1, "look": 1}, "was told that it stands"
        ),
    },
    "is_same_suspension": {
        PRECONDITION: Case(
            decides(undoing, "is_same_suspension", lambda before, now: False), ASK, AWAY, "is told that 0 has been"
        ),
        CONSEQUENCE: Case(
            decides(undoing, "is_same_suspension", lambda before, now: True), ASK, AWAY, "is resumed, and is"
        ),
    },
    "adopt": {
        PRECONDITION: Case(guard_is(commits=None), FORK, {"elsewhere": 1, "race": 1}, "are not where the run is", HERE),
        CONSEQUENCE: Case(without(is_touch), MIXED, {"elsewhere": 1}, "are not where the run is", HERE),
    },
    "adopt, its owner": {
        PRECONDITION: Case(guard_is(commits=None), FORK, {"elsewhere": 1, "race": 1}, "are not where the run is", HERE),
        CONSEQUENCE: Case(without(run_is(runtime="celery")), ASK_THEN, {"elsewhere": 1}, "and belongs to", HERE),
    },
    "resume": {
        PRECONDITION: Case(nothing_is_expected, ASK, RACE, FIRST),
        CONSEQUENCE: Case(without(is_move), ASK, {}, "0 is resumed, and is suspended"),
    },
    "resume, its data": {
        PRECONDITION: Case(guard_is(statuses=ANY), ASK, CANCEL, "becomes running", judges=False),
        CONSEQUENCE: Case(no_values, ASK, {}, "nobody has written ['data']"),
    },
    "resume, of a paused run": {
        PRECONDITION: Case(nothing_is_expected, STEPS, RACE, FIRST, STEPWISE),
        CONSEQUENCE: Case(without(is_move), STEPS, {}, "is resumed, and is paused", STEPWISE),
    },
    "undo_resume": {
        PRECONDITION: Case(guard_is(commits=None), ASKS, {"away": 1}, "has begun"),
        CONSEQUENCE: Case(fields_without("resumed", "resume"), ASK, {"away": 1}, "is not as it was"),
    },
    "undo_resume, when it was suspended": {
        PRECONDITION: Case(confirms(guard_is(commits=None)), ASK, AWAY, "has begun"),
        CONSEQUENCE: Case(fields_without("resumed_at"), ASK, {"away": 1}, "is not as it was"),
    },
    "undo_resume, its context": {
        PRECONDITION: Case(confirms(guard_is(commits=None)), ASK, AWAY, "has begun"),
        CONSEQUENCE: Case(lambda change: change and replace(change, context={}), ASK, {"away": 1}, "the context is"),
    },
    "cancel": {
        PRECONDITION: Case(guard_is(settle_count=None), ASK, CANCEL, "it has settled since"),
        CONSEQUENCE: Case(fields_without("settle_count", of=UpdateRun), STEPS, {"cancel": 1}, "which is not so"),
        TELLS: Case(leave_out("workflow-canceled"), STEPS, {"cancel": 1}, "not told that ['workflow-canceled']"),
    },
    "cancel, its end": {
        PRECONDITION: Case(
            guard_is(statuses=ANY, settle_count=None),
            STEPS,
            CANCEL,
            "becomes canceled",
            judges=False,
            already=transitions_are_not_checked,
        ),
        CONSEQUENCE: Case(without(run_is(closed=True)), STEPS, {"cancel": 1}, "which is not so"),
        TELLS: Case(leave_out("workflow-finish"), STEPS, {"cancel": 1}, "not told that ['workflow-finish canceled"),
    },
    "restart": {
        PRECONDITION: Case(nothing_is_expected, STEPS, {"restart": 1, "race": 1}, "what it restarts has moved"),
        CONSEQUENCE: Case(fields_without("restarted"), STEPS, {"restart": 1}, "cannot know it"),
    },
    "time_travel": {
        PRECONDITION: Case(guard_is(statuses=ANY), ASK, {"travel": 1, "race": 1}, "the run is running", TO_A),
        CONSEQUENCE: Case(nothing_goes_away, STEPS, {"travel": 1}, "stands after the target", TO_A),
        TELLS: Case(leave_out("workflow-start"), STEPS, {"travel": 1}, NOT_TOLD, TO_A),
    },
    "send_event, to a step that waits": {
        PRECONDITION: Case(nothing_is_expected, LATE, {"send": 1}, "that does not wait any more"),
        CONSEQUENCE: Case(without(is_reopening), EVENT, {"send": 1}, "suspended while something is live"),
    },
    "send_event, to keep": {
        PRECONDITION: Case(ANY_MAIL, EVENT, {"send": 1}, "waits although"),
        CONSEQUENCE: Case(no_mail, EVENT, {"send": 1}, "is lost"),
    },
    "send_event, its value": {
        PRECONDITION: Case(guard_is(statuses=ANY), EVENT, {"send": 1, "cancel": 1}, "is canceled"),
        CONSEQUENCE: Case(no_values, EVENT, {"send": 1}, "is lost"),
    },
    "await_event": {
        PRECONDITION: Case(ANY_MAIL, EVENT, {"send": 1}, "waits although"),
        CONSEQUENCE: Case(edit_mailbox_update(push=""), EVENT, {"send": 1}, "waits although"),
        TELLS: Case(edit_plan(leave_out("workflow-step-waiting")), EVENT, {}, NOT_TOLD),
    },
    "await_event, that has been sent": {
        PRECONDITION: Case(ANY_MAIL, WAITS, {"send": 1}, "waits although"),
        CONSEQUENCE: Case(edit_mailbox_update(pop=""), WAITS, {"send": 1}, "heard the same event"),
        TELLS: Case(edit_plan(leave_out(*RESULTS)), EVENT, {"send": 1}, NOT_TOLD),
    },
    "time_out_event": {
        PRECONDITION: Case(edit_mailbox_update(pop="1:0:0:other"), TIMED, {}, "hangs"),
        CONSEQUENCE: Case(edit_mailbox_update(pop=""), TIMED, {}, "stands in the mailbox"),
        TELLS: Case(edit_plan(leave_out(*RESULTS)), TIMED, {}, NOT_TOLD),
    },
    "write_items": {
        PRECONDITION: Case(no_lease_is_needed, ITEMS, ZOMBIE, NOT_MINE),
        CONSEQUENCE: Case(one_page_less, ITEMS, {}, "nobody has written the items [1]"),
    },
    "defer_unrunnable": {
        PRECONDITION: Case(
            no_lease_is_needed, ONE, {"defer": 1, "expire": 1}, NOT_MINE, already=transitions_are_not_checked
        ),
        CONSEQUENCE: Case(fields_without("parked"), ONE, {"defer": 1}, "is not counted"),
    },
    "defer_unrunnable, its pause": {
        PRECONDITION: Case(guard_is(token="other"), ONE, {"defer": 1}, "is refused to the worker that holds its lease"),
        CONSEQUENCE: Case(at_once, ONE, {"defer": 1}, "tried again at once"),
    },
    "give_up": {
        PRECONDITION: Case(
            decides(attempt_commands, "must_give_up", lambda activation: activation.abandoned_attempts >= 4),
            ONE,
            {"kill": 3},
            "were lost",
        ),
        CONSEQUENCE: Case(edit_plan(without(lambda op: isinstance(op, UpdateRun))), ONE, {"kill": 3}, "no outcome"),
        TELLS: Case(edit_plan(leave_out(*RESULTS)), ONE, {"kill": 3}, NOT_TOLD),
    },
    "give_up, too early": {
        PRECONDITION: Case(
            decides(attempt_commands, "must_give_up", lambda activation: activation.abandoned_attempts >= 1),
            ONE,
            {"kill": 1},
            "were lost",
        ),
        CONSEQUENCE: Case(edit_plan(fields_without("error")), ONE, {"kill": 3}, "were lost"),
        TELLS: Case(edit_plan(leave_out("workflow-step-finish")), ONE, {"kill": 3}, NOT_TOLD),
    },
    "retry": {
        PRECONDITION: Case(
            decides(attempt_commands, "find_retry_pause", lambda claim, chance, is_retryable: 1.0),
            TWO_TRIES,
            {},
            "more attempts than it has",
        ),
        CONSEQUENCE: Case(edit_plan(fields_without("attempt")), TRIES, {}, "which is not so"),
        TELLS: Case(edit_plan(leave_out("workflow-step-retrying")), TRIES, {}, NOT_TOLD),
    },
    "commit_outcome": {
        PRECONDITION: Case(no_lease_is_needed, STEPS, ZOMBIE, NOT_MINE, already=transitions_are_not_checked),
        CONSEQUENCE: Case(lambda change: replace(change, settle_now=False), BAIL, {}, "hangs"),
        TELLS: Case(leave_out("workflow-step-finish"), STEPS, {}, NOT_TOLD),
    },
    "commit_outcome, its value": {
        PRECONDITION: Case(guard_is(token="other"), STEPS, {}, "is refused to the worker that holds its lease"),
        CONSEQUENCE: Case(no_values, STEPS, {}, "nobody has written"),
        TELLS: Case(leave_out("workflow-step-result"), STEPS, {}, NOT_TOLD),
    },
    "commit_outcome, of the run": {
        PRECONDITION: Case(no_lease_is_needed, ONE, {"expire": 1, "cancel": 1}, "accepted in a run that is canceled"),
        CONSEQUENCE: Case(fields_without("settle_count", of=UpdateRun), ONE, {}, "which is not so"),
        TELLS: Case(leave_out("workflow-finish"), ONE, {}, NOT_TOLD),
    },
    "flush_events": {
        PRECONDITION: Case(no_lease_is_needed, ONE, {"flush": 1, "expire": 1}, NOT_MINE),
        CONSEQUENCE: Case(no_number, ONE, {"flush": 1, "resend": 1}, "appended twice"),
        TELLS: Case(leave_out("chunk"), ONE, {"flush": 1}, "is not in the log"),
    },
    "release": {
        PRECONDITION: Case(
            lambda change: change and nothing_is_expected(change), ONE, {"kill": 1, "release": 1}, "is at work on it"
        ),
        CONSEQUENCE: Case(
            lambda change: change and fields_without("abandoned_attempts")(change),
            ONE,
            {"kill": 1, "release": 1},
            "is not counted",
        ),
    },
    "release, of who was stopped": {
        PRECONDITION: Case(
            lambda change: change and nothing_is_expected(change), ONE, {"kill": 1, "stop": 1}, "is at work on it"
        ),
        CONSEQUENCE: Case(
            lambda change: change and counts_as_abandoned(change),
            ONE,
            {"kill": 1, "stop": 1},
            "is not counted",
        ),
    },
    "may_fail_claim": {
        PRECONDITION: Case(
            decides(attempt_commands, "may_fail_claim", lambda activation, seq: activation.path != ""),
            STEPS,
            {"kill": 1, "fail": 1},
            "is at work on it",
        ),
        CONSEQUENCE: Case(
            decides(attempt_commands, "may_fail_claim", lambda activation, seq: False),
            STEPS,
            {"kill": 1, "fail": 1},
            "does not end its claim",
        ),
    },
}  # fmt: skip

# Commands that tell nothing of themselves, and why.
SILENT = {
    "resume": "The claim that follows tells of it, with the data: a resume that is taken back must not be told.",
    "confirm_start": "For a reader of the run nothing happens.",
    "confirm_resume": "The same.",
    "confirm_all": "The same.",
    "is_same_suspension": "It is a decision; the resume that follows is told of by the claim.",
    "adopt": "What it is a part of tells of itself.",
    "undo_resume": "Nothing has been told that would have to be taken back.",
    "restart": "The claims that follow tell of what starts; what had started is not told to start again.",
    "send_event": "The step that waits tells of its result, when it has been claimed.",
    "write_items": "The items tell of themselves when they run.",
    "defer_unrunnable": "For a reader of the run nothing happens: it waits for a worker.",
    "release": "As the end of a lease: the step goes on elsewhere.",
    "may_fail_claim": "It is a decision; what follows is told by `commit_outcome`.",
}


def _cases() -> list[Any]:
    return [pytest.param(name, wrong, id=f"{name}: {wrong}") for name, wrongs in CASES.items() for wrong in wrongs]


@pytest.mark.parametrize("name, wrong", _cases())
def test_a_command_that_is_wrong_is_seen(name: str, wrong: str, monkeypatch: Patch) -> None:
    """The same search finds nothing with the command as it is."""
    case, command = CASES[name][wrong], name.partition(",")[0]
    decided = getattr(case.edit, "__qualname__", "").startswith("decides")
    take_away: Any = case.edit if decided else commands_are(case.edit, command, judges=case.judges)
    Mutant(take_away, case.graph, case.budget, case.seen, case.options, case.already).must_be_seen(monkeypatch)


def test_each_command_is_wrong_in_three_ways_or_silent() -> None:
    """A command that is added to the rules is added here."""
    made = {
        name
        for module in COMMANDS
        for name, value in vars(module).items()
        if callable(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    decisions = {
        "select_unfinished",
        "find_deferral",
        "find_retry_pause",
        "is_claim",
        "is_claim_of",
        "expect_unmoved",
        "is_lost_too_often",
        "may_delete",
        "must_give_up",
    }
    # A count that callers alone read: the explorer sees nothing that depends on it. Its guard is tested with the rules.
    counted = {"note_abandoned_start"}
    named = {name.partition(",")[0] for name in CASES}
    assert named == made - decisions - counted
    for name, wrongs in CASES.items():
        silent = name.partition(",")[0] in SILENT
        assert wrongs.keys() == {PRECONDITION, CONSEQUENCE} | (set() if silent else {TELLS}), name
