"""The judgement can fail: each thing that must not be is fed to it, and so is each excuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import verdict
from tests.chaos.calls import OPEN, WON, Call
from tests.chaos.effects import BEGIN, END, HOOK, Effect
from tests.chaos.faults import Strike
from tests.chaos.programs import Fate, Program, Step, Way
from tests.chaos.report import Round, as_json, as_table
from tests.chaos.setup import PlannedRun
from tests.chaos.verdict import History, Seen, judge

LEASE = 10.0
PROGRAM = Program("p", (Step("first", 1), Step("asks", 2, Way.ASK)))
RUN = PlannedRun(1, "r1", PROGRAM, 5)


def effect(what: str, step: str, at: float, *, resumed: bool = False, data: str | None = None, pid: int = 7) -> Effect:
    return Effect(what, "r1", step, f"r1/{step}", 0, resumed, pid, at, data)


def call(name: str, verb: str, outcome: str = WON, *, label: str = "", begin: float = 1.0) -> Call:
    return Call(name, name, verb, "r1", begin, label, outcome, begin + 0.1)


EFFECTS = [
    effect(BEGIN, "first", 2),
    effect(END, "first", 2.5),
    effect(BEGIN, "asks", 3),
    effect(END, "asks", 3.5),
    effect(BEGIN, "asks", 5, resumed=True, data="fixer"),
    effect(END, "asks", 5.5, resumed=True, data="fixer"),
    Effect(HOOK, "r1", "on_finish", "", 0, False, 7, 6.0, "success"),
]
CALLS = [
    call("starter", "start"),
    call("fixer", "resume", label="ask:r1/asks", begin=4),
    call("late", "resume", "ResumeAlreadyClaimed", label="ask:r1/asks", begin=4),
]
SEEN = Seen(
    "r1", "success", RUN.expected.result, state=frozenset({"first", "asks"}), recorded=Counter({"first": 1, "asks": 1})
)
GOOD = History([RUN], {"r1": SEEN}, EFFECTS, CALLS, [], LEASE)
AGAIN = [effect(BEGIN, "first", 4, pid=8), effect(END, "first", 4.5, pid=8)]


def seen(**changes: object) -> History:
    return replace(GOOD, seen={"r1": replace(SEEN, **changes)})  # type: ignore[arg-type]


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in judge(history).violations}


def test_a_good_round_is_good() -> None:
    """Nothing is wrong, and what was done is counted."""
    judgement = judge(GOOD)

    assert judgement.violations == []
    assert (judgement.executions, judgement.races, judgement.repeated) == (3, 1, 0)


BAD = {
    "lost": (seen(status=None), verdict.LOST),
    "stuck": (seen(status="running", result=None), verdict.STUCK),
    "still suspended": (seen(status="suspended", result=None), verdict.STUCK),
    "failed": (seen(status="failed", error="ValueError: no"), verdict.WRONG),
    "another result": (seen(result=1), verdict.WRONG),
    "an execution is missing": (replace(GOOD, effects=EFFECTS[2:]), verdict.WRONG),
    "an execution of no plan": (replace(GOOD, effects=[*EFFECTS, effect(BEGIN, "other", 4)]), verdict.WRONG),
    "one more activation": (
        replace(GOOD, effects=[*EFFECTS, replace(effect(BEGIN, "first", 4), key="r1/second")]),
        verdict.WRONG,
    ),
    "a key of the state is missing": (seen(state=frozenset({"first"})), verdict.WRONG),
    "the state of a failed attempt": (seen(state=SEEN.state | {"failed:first"}), verdict.WRONG),
    "no hook": (replace(GOOD, effects=EFFECTS[:-1]), verdict.WRONG),
    "recorded twice": (seen(recorded=Counter({"first": 2})), verdict.RECORDED_TWICE),
    "executed twice": (replace(GOOD, effects=EFFECTS + AGAIN), verdict.EXECUTED_TWICE),
    "two winners": (replace(GOOD, calls=[*CALLS[:2], replace(CALLS[2], outcome=WON)]), verdict.RACE),
    "two starts": (replace(GOOD, calls=[*CALLS, call("other", "start")]), verdict.RACE),
    "a winner was told that it had lost": (
        replace(GOOD, calls=[CALLS[0], replace(CALLS[1], outcome="ResumeAlreadyClaimed"), CALLS[2]]),
        verdict.RACE,
    ),
    "another error": (replace(GOOD, calls=[*CALLS, call("other", "start", "AttributeError")]), verdict.ERROR),
    "left over": (replace(GOOD, left_over=["a key"]), verdict.LEFT_OVER),
    "log": (replace(GOOD, logs=["KeyError: 1"]), verdict.LOG),
}


@pytest.mark.parametrize("name", BAD)
def test_what_must_not_be_is_found(name: str) -> None:
    """Each is found, and nothing else is."""
    history, kind = BAD[name]

    assert kinds(history) == {kind}


def struck(kind: str, begin: float, end: float, *pids: int) -> Strike:
    return Strike(kind, "", begin, end, 1, frozenset(pids))


@pytest.mark.parametrize(
    "strike, explains",
    [
        (struck("KILL to a child", 2.2, 2.3, 7), True),
        (struck("KILL to a child", 2.2, 2.3, 99), False),  # another process
        (struck("KILL to a child", 1.0, 1.1, 7), False),  # before it began
        (struck("KILL to a child", 2.5 + verdict.COMMIT_SECONDS + 0.1, 20.0, 7), False),  # after it was recorded
        (struck("STOP to a group", 1.0, 12.0, 7), True),
        (struck("store: cut", 2.4, 2.4 + LEASE, 0), True),
        (struck("store: cut", 2.4, 3.4, 0), False),  # as short as the documents allow
        (struck("broker: cut", 2.4, 2.4 + LEASE, 0), False),
    ],
)
def test_only_a_fault_of_its_own_explains_a_repetition(strike: Strike, explains: bool) -> None:
    """The fault has to have met the first execution, or its commit."""
    again = [replace(each, at=each.at + 20) for each in AGAIN]
    judgement = judge(replace(GOOD, effects=EFFECTS + again, strikes=[strike]))

    assert [each.kind for each in judgement.violations] == ([] if explains else [verdict.EXECUTED_TWICE])
    assert judgement.repeated == explains


def test_a_restart_explains_a_repetition() -> None:
    """An operator's restart takes away the claims of live workers."""
    restarted = replace(GOOD, effects=EFFECTS + AGAIN, calls=[*CALLS, call("op", "restart", begin=2.2)])

    assert kinds(restarted) == set()


def test_a_killed_caller_may_have_won() -> None:
    """The step may have been resumed by a call of which nobody knows the outcome."""
    open_call = replace(CALLS[1], outcome=OPEN, end=None)

    assert kinds(replace(GOOD, calls=[CALLS[0], open_call, CALLS[2]])) == set()


def test_a_run_that_killed_three_workers_has_failed() -> None:
    """Three kills explain the failure; without them it is wrong."""
    failed = seen(status="failed", result=None, error="RunFailed: three attempts were abandoned")
    strikes = [struck("KILL to a child", at, at, 7) for at in (2.1, 12.1, 22.1)]
    thrice = [effect(BEGIN, "first", at) for at in (2, 12, 22)]

    assert kinds(replace(failed, effects=thrice, strikes=strikes)) == set()
    assert verdict.WRONG in kinds(failed)


def test_a_canceled_run_has_done_no_more_than_its_plan() -> None:
    """Fewer executions are right, others are not."""
    run = PlannedRun(1, "r1", replace(PROGRAM, fate=Fate.CANCEL), 5)
    canceled = replace(seen(status="canceled", result=None), planned=[run], calls=[*CALLS[:1], call("c", "cancel")])

    assert kinds(replace(canceled, effects=EFFECTS[:2])) == set()
    assert kinds(replace(canceled, effects=[effect(BEGIN, "other", 2)])) == {verdict.WRONG}
    assert kinds(replace(canceled, calls=CALLS[:1])) == {verdict.WRONG}  # nobody canceled it
    assert kinds(replace(canceled, effects=[effect(BEGIN, "first", 1 + 2 * LEASE)])) == {verdict.WRONG}


def test_a_travel_adds_its_executions_and_a_doubtful_one_may() -> None:
    """A travel that is known has to show; one whose caller was killed may or may not."""
    run = PlannedRun(1, "r1", Program("p", (Step("first", 1), Step("asks", 2)), Fate.TRAVEL, target=1), 5)
    once = [effect(BEGIN, "first", 2), effect(BEGIN, "asks", 3), EFFECTS[-1]]
    twice = [*once, replace(effect(BEGIN, "asks", 8), key="r1.life.1/asks")]
    base = replace(GOOD, planned=[run], seen={"r1": replace(SEEN, result=run.expected.result)})

    def verdict_of(effects: list[Effect], outcome: str) -> set[str]:
        return kinds(replace(base, effects=effects, calls=[CALLS[0], call("m", "travel", outcome)]))

    assert verdict_of(twice, WON) == verdict_of(twice, OPEN) == verdict_of(once, OPEN) == set()
    assert verdict_of(once, WON) == verdict_of(twice, "RunStillRunning") == {verdict.WRONG}


LOG = """[12:00:00] ERROR step p of run r failed
Traceback (most recent call last):
  File "redis.py", line 1, in send
redis.exceptions.ConnectionError: Connection refused

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 1, in y
{}
[12:00:01] INFO next
"""


def test_tracebacks_are_judged_by_the_error_that_came_of_them() -> None:
    """One on the list is no matter; another is, by its own line."""
    assert verdict.unexpected(LOG.format("orchestrator.errors.StoreUnavailable: away")) == []
    assert verdict.unexpected(LOG.format("KeyError: 'path'")) == [
        "KeyError: 'path' (after: [12:00:00] ERROR step p of run r failed)"
    ]


def test_a_report_says_what_hit_and_what_is_wrong(tmp_path: Path) -> None:
    """Only faults that hit count; a violation comes with its run and its history."""
    strikes = [struck("KILL to a child", 1, 2, 7), replace(struck("store: cut", 3, 4), hit=0)]
    played = Round("redis+redis", 5, 60, {"success": 1}, judge(seen(result=1)), strikes, 2.5, 1, tmp_path)
    played.histories["r1"] = ["2.000 begin first"]

    table = as_table([played])

    for line in (
        "faults that hit                     1 of 2",
        "wrong                               1",
        "redis+redis 5",
    ):
        assert line in table
    assert table.endswith("history of r1\n    2.000 begin first")
    assert '"combination": "redis+redis"' in as_json([played])
