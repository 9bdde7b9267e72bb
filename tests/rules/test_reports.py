"""Who is told of a settling, in which order, how often it is tried, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.rules import commands, flow, reports
from orchestrator.rules.change import CreateActivation, UpdateActivation
from orchestrator.rules.graph import Graph, Route, Step
from orchestrator.rules.model import (
    Activation,
    Phase,
    Report,
    RunHeader,
    StoredStatus,
    is_report,
    parse_path,
    report_counter,
    report_path,
)
from orchestrator.rules.plan import ClaimedNode
from orchestrator.rules.reports import HOOKS, Told

GRAPH = Graph("w", (Step("a", "STEP", Route("a")),), "fingerprint")
ALL = Told(HOOKS, delivers=True)


def claimed(**fields: Any) -> ClaimedNode:
    about = {"path": "-3.0", "step": "on_finish", "phase": Phase.REPORT, "settled": "failed", "status": "running"}
    return ClaimedNode(GRAPH, RunHeader(), Activation(**{**about, "route": '{"name":"w"}', **fields}), "next")


def begun(ops: Any) -> list[tuple[str, str, str]]:
    """Return what begins: path, token, and what is to follow it."""
    return [(op.activation.path, op.claim, op.activation.following) for op in ops if isinstance(op, CreateActivation)]


@pytest.mark.parametrize("report", Report)
def test_a_report_has_a_place_that_no_node_has(report: Report) -> None:
    path = report_path(12, report)
    assert is_report(path)
    assert parse_path(path)[0] == -12
    assert report_counter(path) == ("delivering" if report is Report.RESULT else "calling")
    assert not any(map(is_report, ["", "0", "10.2"]))


@pytest.mark.parametrize(
    "status, here, queued",
    [
        ("success", "on_finish result", ""),
        ("failed", "on_finish on_error result", ""),
        ("tripwire", "on_finish on_error result", ""),
        ("canceled", "on_finish result", ""),
        ("suspended", "", ""),
        ("paused", "", ""),
    ],
)
def test_who_is_told_of_which_end(status: str, here: str, queued: str) -> None:
    """In this order. Of a suspension `on_finish` is told before it is recorded."""
    chains = ALL.chains(StoredStatus(status))
    assert [" ".join(chain) for chain in chains] == [here, queued]


def test_hooks_for_another_worker_leave_the_delivery_to_this_one() -> None:
    ops = reports.begin(3, StoredStatus.FAILED, Told(HOOKS, delivers=True, hooks_here=False), "route", "mine")
    assert begun(ops) == [("-3.2", "mine", ""), ("-3.0", "", "on_error")]
    assert {(op.activation.route, op.activation.settled) for op in ops} == {("route", "failed")}


def test_a_settling_that_tells_nobody_writes_nothing_more() -> None:
    root = Activation(path="", phase=Phase.SETTLE)
    plan = flow.on_settled(ClaimedNode(GRAPH, RunHeader(outcome="success"), root, "token"))
    assert begun(plan.ops) == []


def test_the_next_report_follows_the_first_outcome_whatever_that_is() -> None:
    claim = claimed(following="on_error result")
    plans = [
        reports.on_report_done(claim, here=True),
        reports.retry_report(claim, 1_000, here=True),
        reports.give_up_report(claim, "error", here=True),
    ]
    for plan in plans:
        assert begun(plan.ops) == [("-3.1", "next", "result")]
        first = plan.ops[0]
        assert isinstance(first, UpdateActivation)
        assert first.fields["following"] == ""
    assert [event["type"] for event in plans[2].events] == ["workflow-report-failed"]


def test_an_outcome_of_a_report_is_written_into_it_alone() -> None:
    """It is done, or is tried again, or is left; the last is told in the log of the run."""
    claim = claimed(attempt=2)
    done, again, left = (
        reports.on_report_done(claim, here=True),
        reports.retry_report(claim, 1_000, here=True),
        reports.give_up_report(claim, "error", here=True),
    )
    assert done.ops == [UpdateActivation("-3.0", {"status": "success", "following": ""})]
    assert again.ops == [UpdateActivation("-3.0", {"status": "retrying", "attempt": 3, "following": ""}, delay=1_000)]
    assert left.ops == [UpdateActivation("-3.0", {"status": "failed", "error": "error", "following": ""})]
    assert (done.events, again.events) == ([], [])
    assert left.events == [
        {"type": "workflow-report-failed", "report": "on_finish", "status": "failed", "error": "error"}
    ]


def test_a_report_has_what_its_worker_must_know() -> None:
    """It emits no events of its own, and counts for nothing in the run."""
    expected = Activation(
        path="-3.1",
        step="on_error",
        component="REPORT",
        role="block",
        phase="report",
        quiet=True,
        route="route",
        settled="failed",
        following="result",
    )
    (op,) = reports.begin(3, StoredStatus.FAILED, Told({Report.ON_ERROR}, delivers=True), "route", "mine")
    assert op == CreateActivation(expected, "mine")
    assert begun(reports.begin(3, StoredStatus.FAILED, ALL, "r", "mine")) == [("-3.0", "mine", "on_error result")]
    (following,) = (
        op.activation
        for op in reports.on_report_done(claimed(following="on_error result", route="route"), here=True).ops
        if isinstance(op, CreateActivation)
    )
    assert following == expected


def test_on_finish_that_has_failed_before_a_suspension_was_recorded_is_called_again() -> None:
    """As a report of that settling, after the pause of a first retry. Where it kills its workers, it is given up."""
    root = Activation(path="", phase=Phase.SETTLE, route="route", abandoned_attempts=3)
    claim = ClaimedNode(GRAPH, RunHeader(settle_count=4), root, "token")
    again = reports.begin_again(claim, StoredStatus.SUSPENDED, is_lost=False)
    about = {"path": "-5.0", "step": "on_finish", "settled": "suspended", "route": "route", "following": ""}
    assert {name: getattr(again.activation, name) for name in about} == about
    assert (again.activation.status, again.activation.attempt, again.delay, again.claim) == ("retrying", 1, 1_000, "")
    assert again.activation.abandoned_attempts == 0
    lost = reports.begin_again(claim, StoredStatus.SUSPENDED, is_lost=True)
    assert {name: getattr(lost.activation, name) for name in about} == about
    assert (lost.activation.status, lost.activation.attempt, lost.activation.abandoned_attempts) == ("queued", 0, 3)


@pytest.mark.parametrize("following, token", [("on_error", ""), ("result", "next")])
def test_under_a_limit_a_hook_goes_into_the_queue_and_a_delivery_does_not(following: str, token: str) -> None:
    plan = reports.on_report_done(claimed(following=following), here=False)
    assert [claim for _, claim, _ in begun(plan.ops)] == [token]


@pytest.mark.parametrize(
    "report, count, least", [(Report.ON_FINISH, 8, 120), (Report.ON_ERROR, 8, 120), (Report.RESULT, 20, 3_600)]
)
def test_attempts_are_bounded_and_their_pauses_grow(report: Report, count: int, least: int) -> None:
    """Those of a hook outlast a restart of a database, those of a delivery an hour."""
    pauses: list[int] = []
    while (pause := reports.find_report_pause(claimed(step=report, attempt=len(pauses)).activation)) is not None:
        pauses.append(pause)
    assert pauses == sorted(pauses)
    assert len(pauses) == count
    assert pauses[0] == 1_000
    assert least * 1_000 <= sum(pauses) <= 2 * 3_600_000


def test_a_cancel_tells_nobody_of_a_run_that_had_not_begun_but_the_result_backend() -> None:
    for started_at, expected in ((0, ["-1.2"]), (5, ["-1.0"])):
        change = commands.cancel(RunHeader(started_at=started_at), "id", has_begun=bool(started_at), told=ALL)
        assert [path for path, _, _ in begun(change.ops)] == expected


def test_a_restart_of_an_ended_run_is_one_of_its_reports() -> None:
    header = RunHeader(status="canceled", closed=True)
    activations = [
        Activation(path="", status="open"),
        Activation(path="0", status="queued"),
        Activation(path="-1.0", status="retrying", attempt=2),
        Activation(path="-1.2", status="success"),
    ]
    assert [one.path for one in commands.select_unfinished(header, activations)] == ["-1.0"]
