"""Taking a rule of reports away makes the explorer find what the rule is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.rules import apply as apply_module
from orchestrator.rules import attempt_commands, commands, reports, timers
from orchestrator.rules.change import UpdateActivation
from orchestrator.rules.model import Phase, is_report
from orchestrator.rules.plan import Plan
from orchestrator.rules.reports import HOOKS, Told
from tests.simulation.acts import Reports, graph, step
from tests.simulation.explorer import Explorer
from tests.simulation.mutants import Mutant, Patch

ENDS = graph(step("a"))
EVERYBODY = Told(HOOKS, delivers=True)
TELLS = {"tells": Reports(EVERYBODY)}
FAILS = {"tells": Reports(EVERYBODY, fails=1)}
QUEUED = {"tells": Reports(replace(EVERYBODY, hooks_here=False))}
TRAVELS = {**TELLS, "targets": ("a",)}


def settlings_begin_no_report(patch: Patch) -> None:
    patch.setattr(reports, "begin", lambda *args: [])


def no_report_follows_another(patch: Patch) -> None:
    patch.setattr(reports, "_begin_next", lambda plan, claim, here: plan)


def cancels_are_told_to_nobody(patch: Patch) -> None:
    cancel = commands.cancel
    patch.setattr(commands, "cancel", lambda *args, **named: cancel(*args, **{**named, "told": reports.NOBODY}))


def reports_have_one_attempt(patch: Patch) -> None:
    patch.setattr(reports, "find_report_pause", lambda activation: None)


def _retries_are(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        retry = reports.retry_report

        def edited(*args: Any, **named: Any) -> Plan:
            plan = retry(*args, **named)
            first = plan.ops[0]
            assert isinstance(first, UpdateActivation)
            plan.ops[0] = replace(first, fields=edit(dict(first.fields)))  # type: ignore[arg-type]
            return plan

        patch.setattr(reports, "retry_report", edited)

    return mutate


def reports_are_shut_out_of_ended_runs(patch: Patch) -> None:
    """They are commits like all others there."""
    patch.setattr(apply_module, "is_report", lambda path: False)
    patch.setattr(apply_module._Work, "_count", _count_all_but(apply_module._Work._count))


def _count_all_but(count: Callable[..., None]) -> Callable[..., None]:
    def counted(self: Any, status: str, by: int, path: str) -> None:
        if not is_report(path):
            count(self, status, by, path)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apply_module, "is_report", is_report)
            count(self, status, by, path)

    return counted


def reports_count_as_steps(patch: Patch) -> None:
    count = apply_module._Work._count

    def counted(self: Any, status: str, by: int, path: str) -> None:
        count(self, status, by, path.removeprefix("-"))

    patch.setattr(apply_module._Work, "_count", counted)


def timers_of_reports_end_with_the_run(patch: Patch) -> None:
    patch.setattr(timers, "is_report", lambda path: False)


def upkeep_of_reports_needs_a_run_that_runs(patch: Patch) -> None:
    patch.setattr(timers, "_ANY", timers.SWEPT)


def reports_that_kill_their_workers_are_never_given_up(patch: Patch) -> None:
    must_give_up = attempt_commands.must_give_up
    patch.setattr(
        attempt_commands,
        "must_give_up",
        lambda activation: activation.phase != Phase.REPORT and must_give_up(activation),
    )


def a_new_generation_keeps_reports(patch: Patch) -> None:
    travel = commands.time_travel

    def edited(*args: Any) -> Any:
        change = travel(*args)
        return replace(change, drop=tuple(path for path in change.drop if not is_report(path)))

    patch.setattr(commands, "time_travel", edited)


MUTANTS = {
    "the settling begins them": Mutant(settlings_begin_no_report, ENDS, {}, "nobody tells", TELLS),
    "one follows the other": Mutant(no_report_follows_another, ENDS, {}, "nobody tells", TELLS),
    "a cancel begins them": Mutant(cancels_are_told_to_nobody, ENDS, {"cancel": 1}, "nobody tells", QUEUED),
    "they are tried again": Mutant(reports_have_one_attempt, ENDS, {}, "given up with attempts left", FAILS),
    "their attempts are counted": Mutant(
        _retries_are(lambda fields: {**fields, "attempt": 0}), ENDS, {}, "is not counted", FAILS
    ),
    "nothing follows twice": Mutant(
        _retries_are(lambda fields: {name: fields[name] for name in fields if name != "following"}),
        ENDS,
        {},
        "ends twice",
        FAILS,
    ),
    "they go on in a run that has ended": Mutant(
        reports_are_shut_out_of_ended_runs, ENDS, {}, "refused to the worker", TELLS
    ),
    "they keep no run from settling": Mutant(reports_count_as_steps, ENDS, {}, "the header counts", TELLS),
    "their timers outlast the run": Mutant(timers_of_reports_end_with_the_run, ENDS, {"kill": 1}, "hangs", TELLS),
    "their upkeep outlasts the run": Mutant(upkeep_of_reports_needs_a_run_that_runs, ENDS, {"kill": 1}, "hangs", TELLS),
    "they are given up": Mutant(
        reports_that_kill_their_workers_are_never_given_up,
        ENDS,
        {"kill": 3},
        "workers that were lost",
        {**TELLS, "workers": 1},
    ),
    "a time travel ends them": Mutant(a_new_generation_keeps_reports, ENDS, {"travel": 1}, "still tells", TRAVELS),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_rule_of_reports_a_violation_is_found(name: str, monkeypatch: Patch) -> None:
    """The same search finds nothing with the rule and something without it."""
    MUTANTS[name].must_be_seen(monkeypatch)


def test_a_report_that_always_fails_is_given_up_and_told_so(monkeypatch: Patch) -> None:
    """The run ends as it would, and every order of events comes to the end of its attempts."""
    few = {report: replace(retry, attempts=1) for report, retry in reports._RETRIES.items()}
    monkeypatch.setattr(reports, "_RETRIES", few)
    found = Explorer(ENDS, tells=Reports(EVERYBODY, fails=9), kill=1).explore()
    assert not found.violation, found.way
    assert set(found.outcomes) == {"success"}
